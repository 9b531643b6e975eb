//! Tests of the library and the program from the outside, on data made for them.

mod data;
#[cfg(feature = "program")]
mod program;
mod prove;
#[cfg(feature = "program")]
mod restart;
#[cfg(feature = "program")]
mod serve;
#[cfg(feature = "program")]
mod tls;
#[cfg(feature = "program")]
mod trouble;
mod vectors;
