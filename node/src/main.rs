//! The program `smesh-node`: a node of the Spacemesh network. See `docs/smesh-node.md`.
//!
//! The parts of the node are crates beside this one (`node/store`, `node/activation`, `node/p2p`, `node/api`); `running` ties them
//! together, `commands` is what an operator says.

mod cli;
mod commands;
mod error;
mod running;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
