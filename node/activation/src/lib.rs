//! How identities take part, epoch after epoch, and how a node judges the activations of others (activation.md).
//!
//! Without clock, socket and disk:
//!
//! - [`timeline`]: when what happens
//! - [`builder`]: makes the activations of one identity, a state machine
//! - [`validate`]: the rules for activations
//!
//! With them:
//!
//! - [`smesher`]: all identities of a node at work, one builder each
//! - [`poet`]: PoET servers and certifiers
//! - [`clock`]: the time they go by

pub mod builder;
pub mod clock;
pub mod poet;
pub mod smesher;
pub mod timeline;
pub mod validate;
