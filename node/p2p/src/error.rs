//! What can go wrong, for the node around this crate.

use std::path::PathBuf;

use libp2p_core::Multiaddr;

use crate::Verdict;

/// A file of the host cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refuses.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The key file is not what p2p-sync.md section 2.1 describes. Deleting it gives the node a new name on the network.
    #[error("{path} holds no key of this host ({why}); restore it, or delete it to get a new peer id")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
    /// The list of connected peers is damaged.
    #[error("{path} is damaged ({why})")]
    Connected {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
}

/// Settings that make no host.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not a multiaddress.
    #[error("{key}: {text:?} is no multiaddress such as /ip4/127.0.0.1/tcp/7513 ({why})")]
    Address {
        /// Which setting.
        key: &'static str,
        /// What it says.
        text: String,
        /// What is wrong.
        why: String,
    },
    /// A peer's address without the peer.
    #[error("{key}: {address} does not end with /p2p/ and a peer id")]
    NoPeer {
        /// Which setting.
        key: &'static str,
        /// The address.
        address: Multiaddr,
    },
    /// Only tcp is spoken.
    #[error("{key}: {address} is not /ip4, /ip6 or /dns4 followed by /tcp")]
    Transport {
        /// Which setting.
        key: &'static str,
        /// The address.
        address: Multiaddr,
    },
    /// Numbers of peers that contradict each other.
    #[error("min-peers {min}, low-peers {low} and high-peers {high} must not fall, and high-peers must not be 0")]
    Peers {
        /// Peers below which the node looks for more.
        min: u32,
        /// Peers kept when there are too many.
        low: u32,
        /// Too many.
        high: u32,
    },
}

/// A host does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings are wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// Nothing can listen there.
    #[error("cannot listen on {address}: {why}")]
    Listen {
        /// Where.
        address: Multiaddr,
        /// What the system says.
        why: String,
    },
    /// The library refuses its settings; a fault of this program.
    #[error("the network library refuses its settings: {0}")]
    Library(String),
}

/// A message was not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The node's own handler does not accept the message.
    #[error("the message is not published because this node itself does not accept it ({0:?})")]
    Refused(Verdict),
    /// Larger than any peer takes.
    #[error("the message has {bytes} bytes where the network takes {limit}")]
    TooLarge {
        /// Bytes of the message.
        bytes: usize,
        /// The most there may be.
        limit: usize,
    },
    /// The library refuses the message.
    #[error("the message is not published: {0}")]
    Library(String),
    /// The host has shut down.
    #[error("the host has shut down")]
    Closed,
}

/// An object was not fetched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// No peer is connected.
    #[error("no peers")]
    NoPeers,
    /// None of the peers asked has it.
    #[error("none of {asked} peers has it")]
    NotFound {
        /// How many peers were asked.
        asked: usize,
    },
    /// The last peer asked failed.
    #[error("{asked} peers asked, the last answered: {last}")]
    Failed {
        /// How many peers were asked.
        asked: usize,
        /// What went wrong with the last.
        last: RequestError,
    },
    /// The host has shut down.
    #[error("the host has shut down")]
    Closed,
}

/// One request to one peer failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// There is no connection; requests never dial.
    #[error("not connected")]
    NotConnected,
    /// The peer does not speak the protocol.
    #[error("the peer does not speak {0}")]
    Unsupported(&'static str),
    /// The stream failed.
    #[error("{0}")]
    Stream(String),
    /// The peer answered that it cannot answer.
    #[error("peer error: {0}")]
    Peer(String),
    /// The answer is not what was asked for.
    #[error("unusable answer: {0}")]
    Answer(&'static str),
}
