//! Rules, what becomes of what comes in, and identities that make activations for many epochs, with cheap proofs of space; PoET
//! clients against a real server and against liars.

mod fixture;
mod handler;
mod knowledge;
mod liars;
mod network;
mod parts;
mod poets;
mod positioning;
mod real;
mod rows;
mod rules;
mod simulation;
mod smeshers;
