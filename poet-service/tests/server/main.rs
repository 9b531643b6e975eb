//! The real program: real sockets, real files, real kills.

mod api;
mod kills;
mod program;
mod split;
mod support;
