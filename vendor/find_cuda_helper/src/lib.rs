//! Stands in for the crate of the same name, which the build script of `cust` calls: the published one fails without a CUDA toolkit
//! and makes programs need the driver to start. Why nothing is needed here: `vendor/cust_raw/README.md`.

/// Does nothing.
pub fn include_cuda() {}
