//! Proving space and verifying proofs (`docs/spec/post.md` sections 9 to 19).
//!
//! The library makes and checks proofs; nothing in it needs a runtime:
//! - [`data`]: the files of an identity
//! - [`disk`]: which physical disk they lie on
//! - [`read`]: reading them at the speed of the disk
//! - [`prove`]: passes over the data until a nonce wins
//! - [`state`]: what a run has achieved, on disk
//! - [`plan`]: how many nonces to try
//! - [`verify`]: verdicts identical to those of the deployed verifier
//!
//! The feature `program` (on by default) adds the services and the program `post-prover`.

pub mod data;
pub mod disk;
pub mod plan;
#[cfg(feature = "program")]
pub mod program;
pub mod prove;
pub mod read;
pub mod state;
pub mod verify;
