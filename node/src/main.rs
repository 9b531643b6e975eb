//! The program `smesh-node`: a node of the Spacemesh network. See `docs/smesh-node.md`.
//!
//! What it has so far is everything around a node that runs: identities, addresses, databases, presets, and a decoder for the
//! network's objects. The parts of the node itself are crates beside this one (`node/store`, …).

mod cli;
mod commands;
mod error;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
