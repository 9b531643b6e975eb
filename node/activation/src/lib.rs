//! How identities take part, epoch after epoch, and how a node judges the activations of others (activation.md).
//!
//! - [`timeline`]: when what happens
//! - [`builder`]: makes the activations of one identity, a state machine
//! - [`validate`]: the rules for activations
//!
//! These have no clock, no socket and no disk; around them:
//! - [`post_service`]: the services that prove space connect here
//! - [`verification`]: the workers that verify proofs of space

pub mod builder;
pub mod post_service;
pub mod timeline;
pub mod validate;
pub mod verification;
