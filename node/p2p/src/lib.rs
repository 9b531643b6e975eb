//! How a node talks to other nodes (p2p-sync.md): connections, gossip, requests.
//!
//! ```text
//!   Network  ── publish, fetch, peers, events ──┐                (network.rs; a handle that can be cloned)
//!                                               ▼
//!   Host: one task owns the libp2p swarm, keeps connections up    (host.rs, dialer.rs)
//!     ├─ gossip: topics, message ids, scores                      (gossip.rs)
//!     │    └─ validation: bounded, tells accept, ignore, reject   (gossip/validation.rs) ──► Handler::gossip
//!     └─ streams: one per request, under the deployed names       (streams.rs)
//!          ├─ server: admission, rates, time-outs                 (server.rs)            ──► Handler::object
//!          └─ client: which peer, how many tries                  (client.rs, ranking.rs)
//! ```
//!
//! The crate knows the formats that lie around objects, never what is in them: whoever starts a host gives it a [`Handler`] that
//! judges gossip and finds objects. Bytes from the network are limited wherever they could gather: frames, queues per topic and
//! per peer, requests waiting and running, answers in memory.
//!
//! Only ATXs and malfeasance proofs are gossiped here so far ([`Topic`]); proofs of elapsed time are not gossiped at all, nodes
//! fetch them by reference ([`Hint::PoetProof`]). [`Topic`], [`Hint`] and `protocols::Protocol` are the tables that grow with the
//! rest of the protocols.

mod address;
mod client;
mod config;
mod connected;
mod dialer;
mod error;
mod framing;
mod gossip;
mod hashes;
mod host;
mod identity;
mod network;
mod protocols;
mod ranking;
mod rate;
mod server;
mod streams;
mod timed;
mod transport;

use std::{pin::Pin, sync::Arc};

pub use client::{Answer, Object};
pub use config::{Config, Limits};
pub use error::{ConfigError, FetchError, FileError, PublishError, StartError};
pub use gossip::Topic;
pub use hashes::Hint;
pub use host::Host;
pub use libp2p_core::Multiaddr;
pub use libp2p_identity::PeerId;
pub use network::{Event, Network, Peer};
use proto::ids::Hash32;

/// A future on the heap, for traits that are used as objects.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What becomes of a gossiped message (p2p-sync.md section 7.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Valid: it is passed on.
    Accept,
    /// Not passed on, nobody is to blame: known already, too late, not to be judged now.
    Ignore,
    /// No honest peer sends this: it is not passed on, and the peer it came from is disconnected.
    Reject,
}

/// The side of the node that knows what messages and objects mean.
pub trait Handler: Send + Sync + 'static {
    /// Judges a gossiped message, and keeps it where it is good. Messages this node publishes itself come here first, with the
    /// node's own name as `from`; that is the only way they reach it (p2p-sync.md section 7.4).
    ///
    /// Called for several messages at once, at most [`Limits::queued_messages`] of a topic.
    fn gossip(&self, topic: Topic, message: Arc<[u8]>, from: PeerId) -> Boxed<'_, Verdict>;

    /// The stored object, in the form it has on the wire (p2p-sync.md section 9.1); `None` where there is none, and for kinds
    /// this node does not keep.
    ///
    /// An error is told to the peer that asked, in these words.
    fn object(&self, hint: Hint, hash: Hash32) -> Boxed<'_, Result<Option<Vec<u8>>, String>>;
}
