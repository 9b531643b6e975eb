//! Identities at work: PoET clients against a real server and against liars, and whole smeshers in virtual time.

mod liars;
mod poets;
mod real;
mod smeshers;
