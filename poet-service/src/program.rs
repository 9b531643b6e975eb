//! The command line.

mod doctor;
mod import;
mod offline;
mod server;

use std::{error::Error, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use poet_service::{
    bench,
    config::{ConfigError, Options, Parts},
};

/// What a command ends with if not well; the number is the program's exit code.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// It did not work.
    #[error("{0}")]
    Failed(String),
    /// It cannot work like this.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data are not valid.
    #[error("{0}")]
    Invalid(String),
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Config(_) => 2,
            Self::Invalid(_) => 3,
        }
    }

    pub(crate) fn failed(what: &str, error: &dyn Error) -> Self {
        Self::Failed(format!("{what}: {error}"))
    }
}

/// Proofs of elapsed time: a server for smeshers, and tools for its host.
#[derive(Parser)]
#[command(name = "poet-service", version, about, long_about = None)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server
    Run(Configured),
    /// Print the configuration that would apply
    Config(Configured),
    /// Take over the key, rounds, registrations and proofs of an official server, and its poet.conf
    Import(import::Import),
    /// Make a proof of a given number of leaves
    Prove(offline::Prove),
    /// Check a proof; exit code 3 if it is not valid
    Verify(offline::Verify),
    /// Measure what this machine can do
    Bench {
        /// A quick look instead of exact figures
        #[arg(long)]
        quick: bool,
        /// Folder for the files of the measurements, some 100 MB; a temporary one without
        #[arg(long)]
        folder: Option<PathBuf>,
    },
    /// Look for what may make this machine slow or unreliable
    Doctor,
}

#[derive(Args)]
struct Configured {
    /// Configuration file (TOML)
    #[arg(long, short, alias = "configfile", env = "POET_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
}

impl Configured {
    fn effective(self) -> Result<Options, ConfigError> {
        let file = self.config.as_deref().map(Options::read).transpose()?.unwrap_or_default();
        Ok(self.options.or(file).with_preset()?.or(Options::defaults()))
    }
}

fn measure(scale: f64, folder: Option<PathBuf>) -> Result<(), Failure> {
    let figures = bench::run(scale);
    println!("{figures}");
    let folder = folder.unwrap_or_else(std::env::temp_dir).join(format!("poet-bench-{}", std::process::id()));
    let served = bench::server::run(&folder, scale);
    let _ = std::fs::remove_dir_all(&folder);
    let served = served.map_err(|e| Failure::failed("failed to measure the server", &e))?;
    println!("{served}");
    println!("  the hashing thread has         {:.1} % of the chain's speed", 100.0 * served.share_of(figures.chain_cycles));
    Ok(())
}

pub(crate) fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(configured) => configured.effective().map_err(Failure::from).and_then(|options| server::run(&options)),
        Command::Config(configured) => configured.effective().map_err(Failure::from).and_then(|options| {
            // the parts that are computed are checked as well
            options.folders()?;
            if !matches!(options.parts()?, Parts::Worker(..)) {
                options.schedule()?;
                options.trusted_keys()?;
            }
            let text = toml::to_string(&options).map_err(|e| Failure::failed("failed to print the configuration", &e))?;
            print!("{text}");
            Ok(())
        }),
        Command::Import(import) => import.run(),
        Command::Prove(prove) => prove.run(),
        Command::Verify(verify) => verify.run(),
        Command::Bench { quick, folder } => measure(if quick { 0.05 } else { 1.0 }, folder),
        Command::Doctor => doctor::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("poet-service: {failure}");
            if let Failure::Config(_) = failure {
                eprintln!("`poet-service config` prints what is set, `poet-service run --help` what can be");
            }
            ExitCode::from(failure.code())
        }
    }
}
