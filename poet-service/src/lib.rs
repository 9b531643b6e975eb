//! Proofs of elapsed time (PoET): what makes them, what checks them, and the server that does both for a network.
//!
//! A round takes registrations, then runs: its members' challenges are hashed to a *statement* ([`membership`]), and a tree of
//! sequentially computed leaves is grown over it ([`tree`]) until the round ends ([`schedule`]). The *proof* opens 150 leaves of
//! the tree ([`prove`]); anybody checks it in milliseconds ([`proof`]).
//!
//! With `default-features = false` this is that library and nothing else. The feature `server` adds the storage of registrations
//! and the network side.

pub mod certificate;
#[cfg(feature = "server")]
pub mod log;
pub mod membership;
pub mod merkle;
pub mod pow;
pub mod proof;
pub mod prove;
pub mod schedule;
pub mod tree;

#[cfg(feature = "server")]
extern crate rocksdb_unity as _;
