//! Hosts that talk over real sockets of this machine.

mod attacker;
mod fetch;
mod files;
mod flood;
mod gossip;
mod handshake;
mod names;
mod node;
