//! Every figure the documentation claims, measured again: `make bench`.
//!
//! Figures are labels (or bytes, or hashes) per second of processor time, so that neighbours on the same machine disturb them
//! less, and ratios are between runs that took turns. `benches [PART…]` runs only some parts: `label`, `poet`, `scan`, `verify`,
//! `atx`, `read`.

mod atx;
mod clock;
mod label;
mod poet;
mod prover;

use std::process::ExitCode;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A name and what it prints.
type Part = (&'static str, fn() -> Result<()>);

fn main() -> ExitCode {
    let parts: [Part; 6] = [
        ("label", label::run),
        ("poet", poet::run),
        ("scan", prover::scan),
        ("verify", prover::verify),
        ("atx", atx::run),
        ("read", prover::read),
    ];
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = wanted.iter().find(|name| !parts.iter().any(|(part, _)| part == name)) {
        eprintln!("there is no part {unknown:?}; parts: {}", parts.map(|(name, _)| name).join(", "));
        return ExitCode::from(2);
    }
    for (name, run) in parts {
        if (wanted.is_empty() || wanted.iter().any(|w| w == name))
            && let Err(error) = run()
        {
            eprintln!("{name}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
