//! Proofs of elapsed time.
#[cfg(feature = "server")]
extern crate rocksdb_unity as _;
