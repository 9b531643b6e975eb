//! The handle of a running host.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use proto::ids::Hash32;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::{
    Answer, Handler, Hint, PublishError, Topic, Verdict, client::Client, config::MAX_MESSAGE, error::FetchError, host::Command,
};

/// A connected peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub id: PeerId,
    /// Where it is connected from or to.
    pub address: Multiaddr,
    /// Whether this host dialled.
    pub outbound: bool,
    /// Since when it is connected.
    pub since: SystemTime,
    /// What it calls itself, once it has told.
    pub agent: Option<String>,
    /// Where it says it can be reached.
    pub listens: Vec<Multiaddr>,
}

/// What happens to connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The host listens here.
    Listening(Multiaddr),
    /// The first connection to a peer stands.
    Connected(Peer),
    /// The last connection to a peer is gone.
    Disconnected {
        /// The peer.
        peer: PeerId,
        /// Why, in words, where it is known.
        reason: Option<String>,
    },
    /// A connection did not come about: nobody there, another network, too many peers.
    Failed {
        /// Where to, or from where.
        address: Option<Multiaddr>,
        /// Why, in words.
        reason: String,
    },
}

/// What can be seen of a host from outside its task.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) peers: HashMap<PeerId, Peer>,
    pub(crate) listening: Vec<Multiaddr>,
}

/// A view that the host writes and handles read.
#[derive(Debug, Default)]
pub(crate) struct SharedView(Mutex<View>);

impl SharedView {
    pub(crate) fn lock(&self) -> MutexGuard<'_, View> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running host. Clones share it; it stops with [`Network::shutdown`], or when the last clone is gone.
#[derive(Clone)]
pub struct Network {
    pub(crate) inner: Arc<Inner>,
}

/// What clones share.
pub(crate) struct Inner {
    pub(crate) id: PeerId,
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) client: Arc<Client>,
    pub(crate) view: Arc<SharedView>,
    pub(crate) events: broadcast::Sender<Event>,
    /// Tells the host's tasks to stop.
    pub(crate) stop: watch::Sender<bool>,
    /// Closed when the host has stopped.
    pub(crate) stopped: watch::Receiver<()>,
}

impl Network {
    /// The name of this host.
    pub fn id(&self) -> PeerId {
        self.inner.id
    }

    /// Where the host listens.
    pub fn listening(&self) -> Vec<Multiaddr> {
        self.inner.view.lock().listening.clone()
    }

    /// The connected peers.
    pub fn peers(&self) -> Vec<Peer> {
        self.inner.view.lock().peers.values().cloned().collect()
    }

    /// What happens from now on; a reader that is slow misses the oldest.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.inner.events.subscribe()
    }

    /// Publishes a message, after the node's own handler accepted it (p2p-sync.md section 7.4). Without peers that is a success
    /// too: the message waits for one. A message seen within two minutes is not sent again.
    pub async fn publish(&self, topic: Topic, message: Vec<u8>) -> Result<(), PublishError> {
        let bytes = message.len();
        if bytes > MAX_MESSAGE {
            return Err(PublishError::TooLarge { bytes, limit: MAX_MESSAGE });
        }
        let verdict = self.inner.handler.gossip(topic, Arc::from(&message[..]), self.inner.id).await;
        if verdict != Verdict::Accept {
            return Err(PublishError::Refused(verdict));
        }
        let (done, published) = oneshot::channel();
        let sent = self.inner.commands.send(Command::Publish { topic, message, done }).await;
        sent.map_err(|_| PublishError::Closed)?;
        published.await.map_err(|_| PublishError::Closed)?
    }

    /// Fetches objects from connected peers, from the preferred one first (p2p-sync.md section 10). Objects may be anything the
    /// peer likes: check that they hash to what was asked for, and [`Network::disconnect`] whoever gave something else.
    pub async fn fetch(&self, hint: Hint, hashes: &[Hash32], prefer: Option<PeerId>) -> Answer {
        let mut stop = self.inner.stop.subscribe();
        tokio::select! {
            // a host that stops takes its connections down: that is the better reason
            biased;
            _ = stop.wait_for(|stopped| *stopped) => {
                Answer { objects: Vec::new(), failed: hashes.iter().map(|hash| (*hash, FetchError::Closed)).collect() }
            }
            answer = self.inner.client.fetch(hint, hashes, prefer) => answer,
        }
    }

    /// Closes all connections to a peer, for a reason that goes to logs and [`Event::Disconnected`].
    pub async fn disconnect(&self, peer: PeerId, reason: impl Into<String>) {
        // a host that has stopped has no connections
        let _ = self.inner.commands.send(Command::Disconnect { peer, reason: reason.into() }).await;
    }

    /// Stops the host and waits until it has stopped, which takes less than a second.
    pub async fn shutdown(&self) {
        self.inner.stop.send_replace(true);
        // ends with an error, when the host lets go of the other side
        let _ = self.inner.stopped.clone().changed().await;
    }
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network").field("id", &self.inner.id).finish_non_exhaustive()
    }
}
