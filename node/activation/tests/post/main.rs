//! Proving services, and the workers that verify proofs of space.

mod program;
mod protocol;
mod service;
mod verifiers;
