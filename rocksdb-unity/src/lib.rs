//! The C++ half of RocksDB, compiled in a few large units instead of some 340 small ones: a third of the processor time, and
//! optimised in every profile.
//!
//! Nothing of RocksDB lies here: the build script finds the source that `librocksdb-sys` brings along. A crate that uses the
//! `rocksdb` crate adds `extern crate rocksdb_unity as _;` so that the linker finds the library built here.
//!
//! How the two are kept from building the same thing twice: `.cargo/config.toml` sets `ROCKSDB_LIB_DIR`, which makes
//! `librocksdb-sys` produce only its bindings. Where that variable is absent (this crate built as part of something else), or
//! `ROCKSDB_COMPILE=1` is set, the build script here does nothing and `librocksdb-sys` compiles RocksDB itself, slowly.

use librocksdb_sys as _;
use lz4_sys as _;
