//! The store on disk: both engines behave alike; kills lose nothing; what is not ours to open is refused.

mod engines;
mod kill;
mod refusals;

use std::path::Path;

use proto::{
    genesis::UnixSeconds,
    preset::{Network, Preset},
};
use store::data_dir::{Born, DataDir, Open};

fn born(network: &Network) -> Born {
    Born { network: network.clone(), genesis_time: UnixSeconds(1_800_000_000) }
}

fn local() -> Open {
    Open::For(born(Preset::Local.network()))
}

fn open(path: &Path) -> DataDir {
    DataDir::open(path, &local()).unwrap()
}
