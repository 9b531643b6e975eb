//! The command line.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use clap::{Args, Parser, Subcommand};
use proto::{
    genesis::UnixSeconds,
    preset::{Network, Preset},
};
use store::data_dir::{Born, DataDir, Open};

use crate::{commands, error::Error};

/// A node of the Spacemesh network.
///
/// Exit codes: 0 done, 1 failed, 2 bad usage or configuration, 3 data invalid, 4 interrupted and resumable.
#[derive(Debug, Parser)]
#[command(name = "smesh-node", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node until Ctrl-C or SIGTERM
    Run(Box<commands::run::Run>),
    /// Show how far a running node is
    Status(commands::status::Status),
    /// Show an activation that a running node holds for valid
    Activation(commands::status::Activation),
    /// Keys that smesh
    #[command(subcommand)]
    Identity(commands::identity::Command),
    /// What identities have signed
    #[command(subcommand)]
    History(commands::history::Command),
    /// Addresses for rewards
    #[command(subcommand)]
    Address(commands::address::Command),
    /// The databases of a data directory
    #[command(subcommand)]
    Db(commands::db::Command),
    /// The parameters of networks
    #[command(subcommand)]
    Preset(commands::preset::Command),
    /// Show an object of the network as JSON
    Decode(commands::decode::Decode),
}

/// An existing data directory.
#[derive(Debug, Clone, Args)]
pub(crate) struct DataArgs {
    /// Data directory of the node
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
}

impl DataArgs {
    /// Opens it, whatever network it belongs to.
    pub(crate) fn open(&self) -> Result<DataDir, Error> {
        Ok(DataDir::open(&self.data_dir, &Open::Existing)?)
    }
}

/// A network.
#[derive(Debug, Clone, Args)]
pub(crate) struct NetworkArgs {
    /// Network: mainnet, testnet, fastnet, standalone, local, or the path of a preset file
    #[arg(long)]
    pub(crate) preset: Option<Preset>,
    /// Genesis time of a network whose preset has none, such as 2030-01-02T03:04:05Z
    #[arg(long, value_name = "TIME")]
    pub(crate) genesis_time: Option<UnixSeconds>,
}

impl NetworkArgs {
    /// The network, if one is given.
    pub(crate) fn born(&self) -> Result<Option<Born>, Error> {
        match self.preset {
            None if self.genesis_time.is_some() => Err(Error::Usage("--genesis-time needs --preset".to_owned())),
            None => Ok(None),
            Some(preset) => {
                let network: &Network = preset.network();
                let genesis_time = match (network.genesis.genesis_time, self.genesis_time) {
                    (Some(fixed), Some(asked)) if fixed != asked => {
                        return Err(Error::Usage(format!("{preset} was born at {fixed}, not at {asked}")));
                    }
                    (Some(time), _) | (None, Some(time)) => time,
                    (None, None) => {
                        return Err(Error::Usage(format!("{preset} has no genesis time: give one with --genesis-time")));
                    }
                };
                Ok(Some(Born { network: network.clone(), genesis_time }))
            }
        }
    }
}

/// A data directory that may have to be made.
#[derive(Debug, Clone, Args)]
pub(crate) struct NewDataArgs {
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    network: NetworkArgs,
}

impl NewDataArgs {
    /// Opens it; makes it if a network is given.
    pub(crate) fn open(&self) -> Result<DataDir, Error> {
        match self.network.born()? {
            Some(born) => Ok(DataDir::open(&self.data.data_dir, &Open::For(born))?),
            None if !self.data.data_dir.exists() => {
                Err(Error::Usage(format!("{} does not exist: --preset makes it", self.data.data_dir.display())))
            }
            None => self.data.open(),
        }
    }
}

/// The wish to stop.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Whether someone asked.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Writes a line; nobody may be left to read it.
pub(crate) fn print(text: impl std::fmt::Display) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Writes a line for people beside the output.
pub(crate) fn note(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Runs the program.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let stop = Stop::default();
    let on_signal = stop.clone();
    if let Err(error) = ctrlc::set_handler(move || on_signal.0.store(true, Ordering::Relaxed)) {
        note(format_args!("warning: signals are not handled: {error}"));
    }
    let done = match cli.command {
        Command::Run(run) => run.run(&stop),
        Command::Status(status) => status.run(),
        Command::Activation(activation) => activation.run(),
        Command::Identity(command) => command.run(),
        Command::History(command) => command.run(),
        Command::Address(command) => command.run(),
        Command::Db(command) => command.run(&stop),
        Command::Preset(command) => command.run(),
        Command::Decode(command) => command.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note(format_args!("error: {error}"));
            if let Some(advice) = error.advice() {
                note(advice);
            }
            ExitCode::from(error.exit_code())
        }
    }
}
