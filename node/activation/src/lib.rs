//! How identities take part, epoch after epoch, and how a node judges the activations of others (activation.md).
//!
//! - [`timeline`]: when what happens
//! - [`builder`]: makes the activations of one identity, a state machine
//! - [`validate`]: the rules for activations
//!
//! Nothing here has a clock, a socket or a disk.

pub mod builder;
pub mod timeline;
pub mod validate;
