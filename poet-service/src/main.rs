//! The program `poet-service`: the server, and tools to make, check and measure proofs of elapsed time.

mod program;

use std::process::ExitCode;

fn main() -> ExitCode {
    program::main()
}
