//! `import`: takes over what an official server left on disk.

use std::{fs, path::PathBuf};

use clap::Args;
use poet_service::{
    config::Options,
    identity,
    legacy::{self, Folders},
    store::{RocksStore, Store as _},
};

use super::Failure;

#[derive(Args)]
pub(crate) struct Import {
    /// The server's poet.conf; its folders are taken from there
    #[arg(long)]
    conf: PathBuf,
    /// The server's poetdir, where poet.conf does not say
    #[arg(long)]
    from: Option<PathBuf>,
    /// Folder for this server; must not have a server's data
    #[arg(long)]
    to: PathBuf,
    /// File for the configuration; it must not exist
    #[arg(long)]
    out: PathBuf,
}

impl Import {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let at = |path: &std::path::Path, e: &dyn std::error::Error| Failure::failed(&path.display().to_string(), e);
        let text = fs::read_to_string(&self.conf).map_err(|e| at(&self.conf, &e))?;
        if self.out.exists() {
            return Err(Failure::Failed(format!("{} is there already", self.out.display())));
        }
        let (found, unknown) = legacy::conf(&text);
        for line in unknown {
            println!("left out of the configuration: {line}");
        }
        let old = Options { poetdir: self.from.or(found.poetdir.clone()), ..found.clone() };
        let (data, db) = old.folders()?;
        let new = Options { poetdir: Some(self.to.clone()), datadir: None, dbdir: None, ..found };
        let (new_data, new_db) = new.folders()?;
        let work = new_data.join("rounds");
        for folder in [&work, &new_db] {
            fs::create_dir_all(folder).map_err(|e| at(folder, &e))?;
        }
        let pubkey = identity::adopt(&new_data, &data.join("state.bin"))
            .map_err(|e| Failure::failed("failed to take over the key", &e))?;
        println!("key: {}", hex::encode(pubkey));
        let store = RocksStore::open(&new_db.join("rocks")).map_err(|e| Failure::failed("failed to open the database", &e))?;
        let used = store.closed().and_then(|closed| Ok(!closed.is_empty() || !store.rounds_with_members()?.is_empty()));
        if used.map_err(|e| Failure::failed("failed to read the database", &e))? {
            return Err(Failure::Failed(format!("{} has rounds already", new_db.display())));
        }
        let taken =
            legacy::take_over(&Folders { data, db }, &store, &work).map_err(|e| Failure::failed("failed to take over", &e))?;
        println!("proofs: {}", taken.proofs.len());
        for (round, members) in &taken.registrations {
            println!("round {round}: {members} registrations");
        }
        for (round, leaves) in &taken.running {
            println!("round {round}: running, {leaves} leaves");
        }
        for left in &taken.left {
            println!("left: {left}");
        }
        let text = toml::to_string(&new).map_err(|e| Failure::failed("failed to write the configuration", &e))?;
        fs::write(&self.out, text).map_err(|e| at(&self.out, &e))?;
        println!("wrote {}; stop the old server for good before you start this one", self.out.display());
        if new.genesis_time.is_none() {
            println!("set genesis-time there: the old server took the moment of its start");
        }
        Ok(())
    }
}
