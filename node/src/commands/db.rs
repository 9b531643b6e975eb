//! `db`: the databases of a data directory.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;
use store::{
    check::{MOST_FAULTS, check},
    data_dir::{DataDir, Open},
    engine::Engine as _,
    identities,
    schema::{Database, Family, Schema},
};

use super::identity::bar;
use crate::{
    cli::{DataArgs, NetworkArgs, Stop, note, print},
    error::Error,
};

/// The databases of a data directory
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Read everything and report what is wrong
    Check(DataArgs),
    /// Copy databases and genesis to a new folder; keys are not copied
    Backup(Backup),
    /// Show what the databases hold
    Stats(Stats),
    /// Record the parameters of a network that changed them
    Rebind(Rebind),
    /// Accept a directory that was copied or restored, once nothing else uses the original
    Adopt(Adopt),
}

#[derive(Debug, Args)]
pub(crate) struct Backup {
    #[command(flatten)]
    data: DataArgs,
    /// Folder to make
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Stats {
    #[command(flatten)]
    data: DataArgs,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Rebind {
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    network: NetworkArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Adopt {
    #[command(flatten)]
    data: DataArgs,
    /// No other node uses the original or newer data, nor its identities
    #[arg(long, required = true)]
    original_is_gone: bool,
}

impl Command {
    pub(crate) fn run(self, stop: &Stop) -> Result<(), Error> {
        match self {
            Self::Check(data) => run_check(&data.open()?, stop),
            Self::Backup(args) => {
                args.data.open()?.backup(&args.to)?;
                note("keys are not part of it: keep copies of the files in identities/ apart");
                Ok(())
            }
            Self::Stats(args) => args.run(),
            Self::Rebind(args) => {
                let born = args.network.born()?.ok_or_else(|| Error::Usage("--preset is needed".to_owned()))?;
                let before = args.data.open()?.binding().clone();
                let data = DataDir::open(&args.data.data_dir, &Open::Rebind(born))?;
                for difference in before.differences(data.binding()) {
                    print(difference);
                }
                Ok(())
            }
            Self::Adopt(args) => args.run(),
        }
    }
}

fn run_check(data: &DataDir, stop: &Stop) -> Result<(), Error> {
    let mut faults = 0;
    for database in Database::ALL {
        let engine = if database == Database::State { data.state() } else { data.local() };
        let report = check(&*engine.snapshot(), database, &|| stop.is_set());
        if stop.is_set() {
            return Err(Error::Stopped);
        }
        for (family, entries) in &report.entries {
            print(format_args!("{:<6} {:<12} {entries:>12}", database.folder(), family.name()));
        }
        for fault in &report.faults {
            print(format_args!("fault: {fault}"));
        }
        if report.faults.len() >= MOST_FAULTS {
            print(format_args!("reading of {} ended after {MOST_FAULTS} faults", database.folder()));
        }
        faults += report.faults.len();
    }
    if faults == 0 {
        print("clean");
        Ok(())
    } else {
        Err(Error::Faults(faults))
    }
}

impl Stats {
    fn run(self) -> Result<(), Error> {
        let data = self.data.open()?;
        let genesis = data.genesis();
        let mut families = Vec::new();
        for database in Database::ALL {
            let engine = if database == Database::State { data.state() } else { data.local() };
            for family in database.families() {
                families.push((database, family, engine.rocks().size(family)?));
            }
        }
        if self.json {
            let list = families.iter().map(|(database, family, (entries, bytes))| {
                json!({ "database": database.folder(), "family": family.name(), "entries": entries, "bytes": bytes })
            });
            let list: Vec<_> = list.collect();
            print(json!({
                "genesis_id": hex::encode(genesis.id().0), "genesis_time": genesis.unix_time, "format": Schema::NOW.version,
                "families": list,
            }));
            return Ok(());
        }
        print(format_args!("network {}, born at {}", hex::encode(genesis.id().0), genesis.unix_time));
        print(format_args!("format {}; entries and bytes are estimates", Schema::NOW.version));
        for (database, family, (entries, bytes)) in families.iter().filter(|(_, family, _)| *family != Family::Meta) {
            print(format_args!("{:<6} {:<12} {entries:>12} {bytes:>16}", database.folder(), family.name()));
        }
        Ok(())
    }
}

impl Adopt {
    fn run(self) -> Result<(), Error> {
        debug_assert!(self.original_is_gone);
        let data = DataDir::open(&self.data.data_dir, &Open::Adopt)?;
        // what the lost history would have said is not known any more
        let mut ids: Vec<_> = identities::read(&data.identities()?)?.iter().map(|named| named.key.node_id()).collect();
        ids.extend(data.guard().history()?.entries.iter().map(|entry| entry.identity));
        ids.sort_unstable();
        ids.dedup();
        for id in ids {
            bar(&data, &id)?;
        }
        Ok(())
    }
}
