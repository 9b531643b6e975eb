//! The program `post-init`: initialises, checks and repairs proof-of-space-time data. See `docs/post-init.md`.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
