//! `preset`: the parameters of networks.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use proto::{
    address::Network as Prefix,
    genesis::UnixSeconds,
    ids::Address,
    preset::{Network, Preset, load},
};

use crate::{
    cli::{note, print},
    error::Error,
};

/// The parameters of networks
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print a preset in full, to be used as a file
    Show(Show),
    /// Read a file and say what is wrong with it
    Check(Check),
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// mainnet, testnet, fastnet, standalone, local, or the path of a preset file
    preset: Preset,
    /// Give the network this genesis time
    #[arg(long, value_name = "TIME")]
    genesis_time: Option<UnixSeconds>,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// TOML file, or the official node's configuration as .json
    file: PathBuf,
}

impl Command {
    pub(crate) fn run(self) -> Result<(), Error> {
        match self {
            Self::Show(args) => {
                let mut network = args.preset.network().clone();
                network.genesis.genesis_time = args.genesis_time.or(network.genesis.genesis_time);
                let unwritable = |e: &dyn std::fmt::Display| Error::Usage(format!("the preset cannot be written: {e}"));
                if args.json {
                    print(serde_json::to_string_pretty(&network).map_err(|e| unwritable(&e))?);
                } else {
                    print(toml::to_string(&network).map_err(|e| unwritable(&e))?.trim_end());
                }
                Ok(())
            }
            Self::Check(args) => {
                let loaded = load(&args.file)?;
                check_addresses(&loaded.network)?;
                for key in &loaded.unused {
                    note(format_args!("not part of a network, ignored: {key}"));
                }
                for warning in warnings(&loaded.network) {
                    note(format_args!("warning: {warning}"));
                }
                let network = &loaded.network;
                match network.genesis() {
                    Some(genesis) => {
                        print(format_args!("{}: born at {}", network.name, genesis.unix_time));
                        print(format_args!("genesis id {}", hex::encode(genesis.id().0)));
                        print(format_args!("golden ATX {}", genesis.golden_atx()));
                    }
                    None => print(format_args!("{}: born when it is started", network.name)),
                }
                Ok(())
            }
        }
    }
}

/// Accounts must be addresses of the network.
fn check_addresses(network: &Network) -> Result<(), Error> {
    let hrp = &network.main.network_hrp;
    let prefix = Prefix::from_prefix(hrp).ok_or_else(|| Error::Usage(format!("main.network-hrp: {hrp:?} is not known")))?;
    for account in network.genesis.accounts.keys() {
        Address::parse(account, prefix).map_err(|e| Error::Usage(format!("genesis.accounts: {account}: {e}")))?;
    }
    Ok(())
}

/// What may be meant so, but seldom is.
fn warnings(network: &Network) -> Vec<&'static str> {
    let mut warnings = Vec::new();
    if network.p2p.bootnodes.is_empty() {
        warnings.push("p2p.bootnodes is empty: the node waits for others to come");
    }
    if network.main.poet_servers.is_empty() {
        warnings.push("main.poet-servers is empty: nothing can be smeshed");
    }
    warnings
}
