//! Rules, what becomes of what comes in, and identities that make activations for many epochs, with cheap proofs of space.

mod fixture;
mod handler;
mod knowledge;
mod network;
mod positioning;
mod rows;
mod rules;
mod simulation;
