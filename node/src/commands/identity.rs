//! `identity`: keys that smesh.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use proto::{ids::NodeId, keys::IdentityKey};
use serde_json::json;
use store::{
    data_dir::DataDir,
    guard::History,
    identities::{self, LOCAL, Named},
};

use super::{begun, io_error, read_text, write_private};
use crate::{
    cli::{DataArgs, NewDataArgs, note, print},
    error::Error,
};

/// Keys that smesh
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a new identity
    New(New),
    /// Take over an identity from a key file
    Import(Import),
    /// Hand an identity over to another node: key and signing history
    Export(Export),
    /// List identities
    List(List),
}

#[derive(Debug, Args)]
pub(crate) struct New {
    #[command(flatten)]
    data: NewDataArgs,
    /// Name of the key file [default: local, if it is the first]
    #[arg(long)]
    name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// Key file, 128 hex digits
    file: PathBuf,
    #[command(flatten)]
    data: NewDataArgs,
    /// Name of the key file [default: local, if it is the first]
    #[arg(long)]
    name: Option<String>,
    /// What the identity has signed elsewhere. Without it nothing is signed for epochs and layers that have begun
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Name of the key file, or the identity in hex or base64
    identity: String,
    #[command(flatten)]
    data: DataArgs,
    /// Folder for key and history; must not exist
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Delete the key here once it is written there
    #[arg(long)]
    retire: bool,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    data: DataArgs,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

impl Command {
    pub(crate) fn run(self) -> Result<(), Error> {
        match self {
            Self::New(args) => args.run(),
            Self::Import(args) => args.run(),
            Self::Export(args) => args.run(),
            Self::List(args) => args.run(),
        }
    }
}

/// The name asked for, or `local` for the first identity.
fn name(folder: &Path, asked: Option<String>) -> Result<String, Error> {
    match asked {
        Some(name) => Ok(name),
        None if identities::read(folder)?.is_empty() => Ok(LOCAL.to_owned()),
        None => Err(Error::Usage("there is an identity already: name the new one with --name".to_owned())),
    }
}

fn show(named: &Named) {
    print(format_args!("{} {}", named.key.node_id(), named.name));
}

impl New {
    fn run(self) -> Result<(), Error> {
        let data = self.data.open()?;
        let folder = data.identities()?;
        let name = name(&folder, self.name)?;
        let key = IdentityKey::generate().map_err(|source| Error::Key { path: folder.join(&name), source })?;
        show(&identities::add(&folder, &name, key)?);
        note("keep a copy of the key file in a safe place: nobody can restore it");
        Ok(())
    }
}

impl Import {
    fn run(self) -> Result<(), Error> {
        let history =
            self.history.as_deref().map(|path| History::from_json(&read_text(path)?).map_err(Error::from)).transpose()?;
        let key = IdentityKey::read(&self.file).map_err(|source| Error::Key { path: self.file.clone(), source })?;
        let data = self.data.open()?;
        let folder = data.identities()?;
        let (name, id) = (name(&folder, self.name)?, key.node_id());
        // first what it must not sign, then the key: there is no moment in which it could
        match history {
            Some(history) => note(format_args!("history: {}", data.guard().merge(&history)?)),
            None => bar(&data, &id)?,
        }
        show(&identities::add(&folder, &name, key)?);
        note("make sure that no other node uses this identity any more: two that sign for it lose it");
        Ok(())
    }
}

/// Bars an identity from signing for what has begun.
pub(super) fn bar(data: &DataDir, id: &NodeId) -> Result<(), Error> {
    if let Some(begun) = begun(data)? {
        data.guard().raise_bar(id, begun)?;
        note(format_args!("{id} signs nothing up to {begun}"));
    }
    Ok(())
}

impl Export {
    fn run(self) -> Result<(), Error> {
        let data = self.data.open()?;
        let folder = data.identities()?;
        let id = self.identity.parse::<NodeId>().ok();
        let file = format!("{}.key", self.identity.strip_suffix(".key").unwrap_or(&self.identity));
        let keys = identities::read(&folder)?;
        let found = keys.into_iter().find(|named| named.name == file || Some(named.key.node_id()) == id);
        let named = found.ok_or_else(|| Error::Usage(format!("there is no identity {:?}", self.identity)))?;
        let history = data.guard().history()?.of(&named.key.node_id());
        fs::create_dir(&self.to).map_err(io_error(&self.to))?;
        let (key_file, history_file) = (self.to.join(&named.name), self.to.join("history.json"));
        named.key.write_new(&key_file).map_err(|source| Error::Key { path: key_file.clone(), source })?;
        write_private(&history_file, &history.to_json()?)?;
        fs::File::open(&self.to).and_then(|folder| folder.sync_all()).map_err(io_error(&self.to))?;
        if self.retire {
            let path = folder.join(&named.name);
            fs::remove_file(&path).map_err(io_error(&path))?;
            note(format_args!("{} is no longer used here", named.key.node_id()));
        } else {
            note("the identity is still used here: run with --retire, or delete the key file, before it is used elsewhere");
        }
        print(format_args!("{}", key_file.display()));
        print(format_args!("{}", history_file.display()));
        Ok(())
    }
}

impl List {
    fn run(self) -> Result<(), Error> {
        let data = self.data.open()?;
        let (keys, guard) = (identities::read(&data.identities()?)?, data.guard());
        let mut list = Vec::new();
        for named in &keys {
            let id = named.key.node_id();
            let bar = guard.bar(&id)?;
            if self.json {
                list.push(json!({ "id": id.to_string(), "base64": id.to_base64(), "name": named.name, "barred": bar }));
            } else {
                let until = bar.map(|bar| format!("  signs nothing up to {bar}")).unwrap_or_default();
                print(format_args!("{id} {}{until}", named.name));
            }
        }
        if self.json {
            print(json!(list));
        }
        Ok(())
    }
}
