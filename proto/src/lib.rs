//! Everything of the Spacemesh protocol that crosses a wire or lies on a disk.
//!
//! - [`ids`]: the 32-byte identifiers and their text forms
//! - [`units`]: labels and space units, the counts everything is measured in
//! - [`keys`]: identity keys and their files
//! - [`genesis`]: what makes one network differ from another
//! - [`poet`]: proofs of elapsed time, membership proofs, certificates
//! - [`post`]: proofs of space-time: parameters, commitment, the layout of the data and its metadata, the VRF threshold
//! - [`preset`]: everything that makes one network differ from another, in one file
//! - [`span`]: durations as configuration files write them
//! - `grpc` (feature of that name): what the `.proto` files generate
//! - [`scale`]: the binary codec of the network
//!
//! This crate depends on nothing else of the suite, does no networking and spawns no threads. File access is limited to the
//! formats it owns (key files, presets).

pub mod genesis;
#[cfg(feature = "grpc")]
pub mod grpc;
pub mod ids;
pub mod keys;
pub mod poet;
pub mod post;
pub mod preset;
pub mod scale;
pub mod span;
pub mod units;
