//! Makes, checks and repairs proof-of-space-time data: the library behind the program of the same name.
//!
//! ```text
//!  Request ── init ──► job: identity, layout, what exists already
//!                        │
//!               ranges of labels still missing
//!                        ▼
//!            pool: every device takes a batch, computes it, checks a sample
//!                        │ batches, in order of their labels
//!                        ▼
//!            nonce: smaller than any before? then into the metadata first
//!                        ▼
//!            writer: append, sync, wait while the disk is full
//! ```
//!
//! - [`data_dir`]: the directories of one identity: files, metadata, side file, lock
//! - [`storage`]: the few operations on files that everything goes through, so that tests can make them fail
//! - [`gpu`], [`tuning`] and [`sensors`]: the graphics processors there are, the parameters that suit them, how warm they are
//! - [`select`]: which devices to use
//! - [`pool`]: devices computing label ranges at once, results in order
//! - [`control`]: pauses and the share of the time to compute, by signals and by a socket
//! - [`checker`]: the plain reference that samples of everything are compared with
//! - [`nonce`]: the search for the VRF nonce
//! - [`init`], [`check`] (verify and repair), [`merge`], [`prune`], [`status`], [`measure`] (bench and plan), [`roofline`], [`devices`],
//!   [`doctor`]: one module per task
//! - [`event`], [`meter`] and [`report`]: what is told while work goes on, and how it is shown
//!
//! The rule above all others: whole labels are never truncated, deleted or overwritten, except by `repair` where they are
//! proven wrong and by `prune` where the owner says so by name.

pub mod check;
pub mod checker;
pub mod control;
pub mod data_dir;
pub mod devices;
pub mod doctor;
pub mod error;
pub mod event;
pub mod gpu;
pub mod init;
pub mod measure;
pub mod merge;
pub mod meter;
pub mod nonce;
pub mod pool;
pub mod prune;
pub mod report;
pub mod roofline;
pub mod select;
pub mod sensors;
pub mod size;
pub mod status;
pub mod stop;
pub mod storage;
pub mod tuning;
mod writer;
