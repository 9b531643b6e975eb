//! Proofs of elapsed time (PoET): what makes them, what checks them, and the server that does both for a network.
//!
//! A round takes registrations, then runs: its members' challenges are hashed to a *statement* ([`membership`]), and a tree of
//! sequentially computed leaves is grown over it ([`tree`]) until the round ends ([`schedule`]). The *proof* opens 150 leaves of
//! the tree ([`prove`]); anybody checks it in milliseconds ([`proof`]).
//!
//! With `default-features = false` this is that library and nothing else. The feature `server` adds the storage of registrations
//! and the network side.

#[cfg(feature = "server")]
pub mod api;
#[cfg(feature = "bench")]
pub mod bench;
pub mod certificate;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod identity;
#[cfg(feature = "server")]
pub mod json;
#[cfg(feature = "server")]
pub mod legacy;
#[cfg(feature = "server")]
pub mod limit;
#[cfg(feature = "server")]
pub mod link;
#[cfg(feature = "server")]
pub mod log;
pub mod membership;
pub mod merkle;
#[cfg(feature = "server")]
pub mod metrics;
pub mod pow;
pub mod proof;
pub mod prove;
#[cfg(feature = "server")]
pub mod registry;
#[cfg(feature = "server")]
pub mod runner;
pub mod schedule;
#[cfg(feature = "server")]
pub mod service;
#[cfg(feature = "server")]
pub mod store;
pub mod tree;
#[cfg(feature = "server")]
pub mod worker;

#[cfg(feature = "server")]
extern crate rocksdb_unity as _;
