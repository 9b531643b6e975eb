//! The program `post-prover`. Started under the name of an official program (`post-service`, `k2pow-service`, `profiler`), it
//! takes the options of that one.

use std::process::ExitCode;

fn main() -> ExitCode {
    post_prover::program::main()
}
