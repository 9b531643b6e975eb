//! Tests of the library and the program from the outside, on data made for them.

mod data;
mod prove;
mod vectors;
