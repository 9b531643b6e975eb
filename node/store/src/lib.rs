//! What a node keeps on disk.
//!
//! ```text
//!  tables and guard   typed records, one atomic batch per change     atxs · poets · guard
//!        │ Read, Batch
//!      Engine         byte keys, byte values, snapshots              rocks (disk) · memory (tests)
//!        │
//!     DataDir         lock, genesis, binding, two databases, marks
//! ```
//!
//! - [`data_dir`]: one directory, one process, one network; refuses what is copied, truncated, newer or of another network
//! - [`engine`]: the small trait between tables and RocksDB; [`memory`] is its twin for tests
//! - [`schema`]: databases, column families, key encodings and versions (docs/storage.md)
//! - [`atxs`], [`marriages`] and [`poets`]: typed records with their indexes
//! - [`guard`]: signs nothing that contradicts what was signed before
//! - [`identities`]: the keys of a node
//! - [`check`]: reads everything and says what is wrong
//!
//! What the records mean and when they change is the business of the crates that write them.

// brings the static library that `rocksdb` links
extern crate rocksdb_unity as _;

pub mod atxs;
pub mod check;
pub mod data_dir;
pub mod engine;
mod error;
mod files;
pub mod guard;
pub mod identities;
mod marked;
pub mod marriages;
pub mod memory;
pub mod poets;
pub mod rocks;
pub mod schema;

pub use error::StoreError;
