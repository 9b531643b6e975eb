//! Everything of the Spacemesh protocol that crosses a wire or lies on a disk.
//!
//! - [`ids`]: identifiers, hashes and signatures, and their text forms
//! - [`units`] and [`layers`]: the counts everything is measured in
//! - [`keys`]: identity keys and their files
//! - [`genesis`]: what makes one network differ from another
//! - [`merkle`]: the tree that members of a PoET round and the parts of an activation hang on
//! - [`poet`]: proofs of elapsed time, membership proofs, certificates
//! - [`post`]: proofs of space-time: parameters, commitment, the layout of the data and its metadata, the VRF threshold
//! - [`preset`]: everything that makes one network differ from another, in one file
//! - [`span`]: durations as configuration files write them
//! - [`scale`]: the binary codec of the network
//!
//! With the feature `grpc`: what the `.proto` files generate. With the feature `node`:
//!
//! - `activation`, `ballot`, `proposal`, `block`, `hare`, `beacon`, `malfeasance`, `transaction`: what nodes say and store;
//!   `fetch`: how they ask each other for it; `opinion`: the hash of what they hold the history to be
//! - `checkpoint`: the state of a network in a file
//! - `eligibility`: what an activation is worth
//! - `signing` and `vrf`: what identities sign and draw, and what the network accepts of it
//! - `address` and `wallet`: accounts and the keys behind them
//! - `objects`: all of them by name
//!
//! This crate depends on nothing else of the suite (its derive macros apart), does no networking and spawns no threads. File
//! access is limited to the formats it owns (key files, presets).

// the derive macros name this crate as everybody else does
extern crate self as proto;

#[cfg(feature = "node")]
pub mod activation;
#[cfg(feature = "node")]
pub mod address;
#[cfg(feature = "node")]
pub mod ballot;
#[cfg(feature = "node")]
pub mod beacon;
#[cfg(feature = "node")]
pub mod block;
#[cfg(feature = "node")]
pub mod checkpoint;
#[cfg(feature = "node")]
mod curve;
#[cfg(feature = "node")]
pub mod eligibility;
#[cfg(feature = "node")]
pub mod fetch;
#[cfg(feature = "node")]
pub mod fixed;
pub mod genesis;
#[cfg(feature = "grpc")]
pub mod grpc;
#[cfg(feature = "node")]
pub mod hare;
pub mod ids;
mod json;
pub mod keys;
pub mod layers;
#[cfg(feature = "node")]
pub mod malfeasance;
pub mod merkle;
#[cfg(feature = "node")]
pub mod objects;
#[cfg(feature = "node")]
pub mod opinion;
pub mod poet;
pub mod post;
pub mod preset;
#[cfg(feature = "node")]
pub mod proposal;
pub mod scale;
#[cfg(feature = "node")]
pub mod signing;
pub mod span;
#[cfg(feature = "node")]
pub mod transaction;
pub mod units;
#[cfg(feature = "node")]
pub mod vrf;
#[cfg(feature = "node")]
pub mod wallet;
