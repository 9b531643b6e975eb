//! Proving services, the listener they dial to, and the workers that verify proofs of space.

mod program;
mod protocol;
mod service;
mod tls;
mod verifiers;
