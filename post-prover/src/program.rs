//! The program `post-prover`: command line, services and reports around the library.
//!
//! - [`cli`]: the command line, and the one of the official programs when started under their names
//! - [`choose`]: how many nonces to try
//! - [`commands`]: `prove`, `verify`, `tune`, `rehearse`, `bench`, `status`
//! - [`session`]: what to answer to a node, without any input or output
//! - [`schedule`]: whose turn it is, without any input or output
//! - [`serve`]: the proving service around the two
//! - [`k2pow`]: workers that solve puzzles for others, and those who ask them
//! - [`certifier`]: certificates for valid proofs
//! - [`official`]: the command lines of the official programs

pub mod certifier;
pub mod choose;
pub mod cli;
pub mod commands;
pub mod k2pow;
pub mod official;
pub mod schedule;
pub mod serve;
pub mod session;

use std::{
    error::Error,
    fmt::Write as _,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use clap::Parser as _;
use kernels::pow::PowError;

use self::cli::Command;
use crate::{data::DataError, prove::ProveError, verify::VerifyError};

/// Runs the program the process was started as.
pub fn main() -> ExitCode {
    let name = std::env::args_os().next().map(std::path::PathBuf::from);
    let name = name.as_deref().and_then(std::path::Path::file_stem).unwrap_or_default();
    let result = match name.to_str() {
        Some("post-service") => official::post_service(&official::PostService::parse()),
        Some("k2pow-service") => official::k2pow_service(&official::K2powService::parse()),
        Some("profiler") => official::profiler(&official::Profiler::parse()),
        _ => match cli::Cli::parse().command {
            Command::Serve(args) => serve::run(&args),
            Command::Move(args) => serve::hand_over(&args),
            Command::Prove(args) => commands::prove(&args),
            Command::Verify(args) => commands::verify(&args),
            Command::Tune(args) => commands::tune(&args),
            Command::Rehearse(args) => commands::rehearse(&args),
            Command::Bench(args) => commands::bench(&args),
            Command::Status(args) => commands::status(&args),
            Command::K2pow(args) => k2pow::run(&args),
            Command::Certifier(args) => certifier::run(&args),
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// How the program ends when it does not end well.
#[derive(Debug)]
pub enum Failure {
    /// Exit code 1: something failed.
    Failed(Box<dyn Error + Send + Sync>),
    /// Exit code 2: the command line or the configuration cannot be used.
    Usage(String),
    /// Exit code 3: data or a proof is not valid. Already reported if empty.
    Invalid(String),
    /// Exit code 4: interrupted; the same command goes on from here.
    Interrupted,
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    /// Some errors say by themselves how the program ends: data that is not there is a failure, data that is wrong is invalid,
    /// and whatever was stopped was interrupted.
    fn from(error: E) -> Self {
        let error: Box<dyn Error + Send + Sync> = Box::new(error);
        let data = |error: &DataError| match error {
            DataError::Io { .. } | DataError::NoMetadata(_) => None,
            DataError::NoDirectory => Some(Self::Usage(error.to_string())),
            other => Some(Self::Invalid(other.to_string())),
        };
        let special = if let Some(error) = error.downcast_ref::<DataError>() {
            data(error)
        } else if let Some(error) = error.downcast_ref::<ProveError>() {
            match error {
                ProveError::Stopped => Some(Self::Interrupted),
                ProveError::Data(error) => data(error),
                ProveError::Difficulty(_) => Some(Self::Invalid(error.to_string())),
                ProveError::Pow(_) | ProveError::Exhausted { .. } => None,
            }
        } else {
            let stopped = matches!(error.downcast_ref(), Some(PowError::Stopped))
                || matches!(error.downcast_ref(), Some(VerifyError::Pow(PowError::Stopped)));
            stopped.then_some(Self::Interrupted)
        };
        special.unwrap_or(Self::Failed(error))
    }
}

impl Failure {
    /// Reports the failure once, the chain of causes in one line, and gives the exit code.
    pub fn report(&self) -> ExitCode {
        let (text, code) = match self {
            Self::Failed(error) => (chain(error.as_ref()), 1),
            Self::Usage(text) => (text.clone(), 2),
            Self::Invalid(text) => (text.clone(), 3),
            Self::Interrupted => ("interrupted: run the same command again to go on".to_owned(), 4),
        };
        if !text.is_empty() {
            eprintln!("post-prover: {text}");
        }
        code.into()
    }
}

/// An error and its causes, as one line. Causes that are already part of the text are left out.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            // Writing to a String cannot fail.
            let _ = write!(text, ": {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Set by SIGINT and SIGTERM; the second signal ends the program at once.
pub fn stop_on_signals() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(4);
        }
    })?;
    Ok(stop)
}

/// Logs go to stderr; RUST_LOG chooses what, `info` by default.
pub fn log_to_stderr() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // A logger that is set already stays.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr)
        .try_init();
}

/// Cores of this machine.
pub fn all_cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
