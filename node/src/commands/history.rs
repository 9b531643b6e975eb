//! `history`: what identities have signed.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use proto::ids::NodeId;
use store::guard::History;

use super::{read_text, write_private};
use crate::{
    cli::{DataArgs, note, print},
    error::Error,
};

/// What identities have signed
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show what was signed, one line per signature
    Show(Show),
    /// Write the history to a file
    Export(Export),
    /// Merge the histories of other nodes into this one
    Import(Import),
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    #[command(flatten)]
    data: DataArgs,
    /// Only of this identity
    #[arg(long, value_name = "ID")]
    identity: Option<NodeId>,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// File to write; must not exist
    file: PathBuf,
    #[command(flatten)]
    data: DataArgs,
    /// Only of this identity
    #[arg(long, value_name = "ID")]
    identity: Option<NodeId>,
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// Files to merge
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    data: DataArgs,
}

/// The history of a directory, or what of it concerns one identity.
fn history(data: &DataArgs, identity: Option<NodeId>) -> Result<History, Error> {
    let data = data.open()?;
    let history = data.guard().history()?;
    Ok(identity.map_or(history.clone(), |id| history.of(&id)))
}

impl Command {
    pub(crate) fn run(self) -> Result<(), Error> {
        match self {
            Self::Show(args) => {
                let history = history(&args.data, args.identity)?;
                for entry in &history.entries {
                    let digests: Vec<_> = entry.digests.iter().map(ToString::to_string).collect();
                    print(format_args!("{} {}: {}", entry.identity, entry.slot, digests.join(", ")));
                }
                for (identity, bar) in &history.barred {
                    print(format_args!("{identity} signs nothing up to {bar}"));
                }
                Ok(())
            }
            Self::Export(args) => {
                let history = history(&args.data, args.identity)?;
                write_private(&args.file, &history.to_json()?)?;
                note(format_args!("{} entries", history.entries.len()));
                Ok(())
            }
            Self::Import(args) => {
                let data = args.data.open()?;
                for file in &args.files {
                    let merged = data.guard().merge(&History::from_json(&read_text(file)?)?)?;
                    note(format_args!("{}: {merged}", file.display()));
                }
                Ok(())
            }
        }
    }
}
