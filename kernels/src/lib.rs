//! The arithmetic of the suite: one module per computation, one file per backend.
//!
//! - [`label`]: the memory-hard label function of PoST
//! - [`posw`]: the hash chain and the nodes of the proof of elapsed time
//! - `pow` (feature `randomx`): the RandomX puzzle that comes before a proof
//! - [`scan`]: the search for labels that are good for a proof
//!
//! Nothing here reads files, talks to the network or knows about identities; callers bring bytes and take bytes. This is the
//! only crate of the suite that contains `unsafe` code (SIMD, GPU drivers, RandomX); every fast path is tested against the portable
//! one.

mod huge_pages;
pub mod label;
pub mod posw;
#[cfg(feature = "randomx")]
pub mod pow;
pub mod scan;
