//! How identities take part, epoch after epoch, and how a node judges the activations of others (activation.md).
//!
//! ```text
//!            own activations                               everybody's activations
//!  timeline ─► builder ─► rows (local database)     handler ─► validate ─► knowledge (state database)
//!                 │                                                            │
//!              smesher ─ stands on what ─ positioning ── finds in ─────────────┤
//!              poet, post_service                                grades ◄──────┘
//! ```
//!
//! - [`timeline`]: when what happens; [`clock`]: what time it is
//! - [`builder`]: makes the activations of one identity, a state machine
//! - [`rows`]: what it keeps on disk
//! - [`smesher`]: all identities of a node at work, one builder each
//! - [`poet`]: PoET servers and certifiers
//! - [`post_service`]: the services that prove space connect here
//! - [`validate`]: the rules for activations
//! - [`knowledge`]: what was accepted, and what that proves about its publishers
//! - [`handler`]: what becomes of what comes in
//! - [`verification`]: the workers that verify proofs of space
//! - [`positioning`]: which activation one's own stands on
//! - [`grades`]: what the activations of an epoch are worth there
//!
//! `timeline`, `builder` and `validate` have no clock, no socket and no disk.

pub mod builder;
pub mod clock;
pub mod grades;
pub mod handler;
pub mod knowledge;
pub mod poet;
pub mod positioning;
pub mod post_service;
pub mod rows;
pub mod smesher;
pub mod timeline;
pub mod validate;
pub mod verification;
