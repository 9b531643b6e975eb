//! `cust_raw` 0.11.3 with the same names, but without linking to the driver: see README.md.

#![allow(unpredictable_function_pointer_comparisons, non_camel_case_types, non_snake_case, non_upper_case_globals, missing_docs, clippy::all, clippy::pedantic)]

mod codes;
mod driver;
mod functions;
mod types;

pub use driver::{driver_library, last_error_code};
pub use functions::*;
pub use types::*;
