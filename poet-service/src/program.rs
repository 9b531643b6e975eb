//! The command line.

mod doctor;
mod offline;
mod server;

use std::{error::Error, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use poet_service::{
    bench,
    config::{ConfigError, Options},
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
    /// Make a proof of a given number of leaves
    Prove(offline::Prove),
    /// Check a proof; exit code 3 if it is not valid
    Verify(offline::Verify),
    /// Measure what this machine can do
    Bench {
        /// A quick look instead of exact figures
        #[arg(long)]
        quick: bool,
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
        Ok(self.options.or(file).or(Options::defaults()))
    }
}

pub(crate) fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(configured) => configured.effective().map_err(Failure::from).and_then(|options| server::run(&options)),
        Command::Config(configured) => configured.effective().map_err(Failure::from).and_then(|options| {
            // the parts that are computed are checked as well
            options.schedule()?;
            options.folders()?;
            options.trusted_keys()?;
            let text = toml::to_string(&options).map_err(|e| Failure::failed("failed to print the configuration", &e))?;
            print!("{text}");
            Ok(())
        }),
        Command::Prove(prove) => prove.run(),
        Command::Verify(verify) => verify.run(),
        Command::Bench { quick } => {
            println!("{}", bench::run(if quick { 0.05 } else { 1.0 }));
            Ok(())
        }
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
