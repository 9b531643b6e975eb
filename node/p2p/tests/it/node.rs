//! A node for tests: a host and a handler that keeps everything in memory.

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use p2p::{Boxed, Config, Event, Handler, Hint, Host, Limits, Multiaddr, Network, PeerId, Topic, Verdict};
use proto::{
    ids::{GenesisId, Hash32},
    layers::LayerId,
};
use tokio::{
    sync::broadcast,
    time::{sleep, timeout},
};

/// How long a test waits for what must happen.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Judges messages by their first letter, remembers them, and holds objects.
#[derive(Default)]
pub(crate) struct Memory {
    objects: Mutex<HashMap<(Hint, Hash32), Vec<u8>>>,
    heard: Mutex<Vec<(Topic, Vec<u8>, PeerId)>>,
    /// How long judging takes.
    pub(crate) pause: Mutex<Duration>,
    judging: AtomicUsize,
    /// The most messages that were being judged at once.
    pub(crate) most_judging: AtomicUsize,
}

impl Memory {
    pub(crate) fn put(&self, hint: Hint, data: &[u8]) -> Hash32 {
        let hash = Hash32::of(&[data]);
        self.objects.lock().unwrap().insert((hint, hash), data.to_vec());
        hash
    }

    pub(crate) fn heard(&self) -> Vec<(Topic, Vec<u8>, PeerId)> {
        self.heard.lock().unwrap().clone()
    }

    fn has_heard(&self, message: &[u8]) -> bool {
        self.heard.lock().unwrap().iter().any(|(_, heard, _)| heard == message)
    }

    /// Waits until a message was judged.
    pub(crate) async fn hears(&self, message: &[u8]) {
        let wait = async {
            while !self.has_heard(message) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(SOON, wait).await.unwrap_or_else(|_| panic!("{:?} did not arrive", String::from_utf8_lossy(message)));
    }
}

impl Handler for Memory {
    fn gossip(&self, topic: Topic, message: Arc<[u8]>, from: PeerId) -> Boxed<'_, Verdict> {
        Box::pin(async move {
            let now = self.judging.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_judging.fetch_max(now, Ordering::SeqCst);
            let pause = *self.pause.lock().unwrap();
            if !pause.is_zero() {
                sleep(pause).await;
            }
            self.judging.fetch_sub(1, Ordering::SeqCst);
            let verdict = match message.first() {
                Some(b'a') => Verdict::Accept,
                Some(b'i') => Verdict::Ignore,
                _ => Verdict::Reject,
            };
            if verdict != Verdict::Reject {
                self.heard.lock().unwrap().push((topic, message.to_vec(), from));
            }
            verdict
        })
    }

    fn object(&self, hint: Hint, hash: Hash32) -> Boxed<'_, Result<Option<Vec<u8>>, String>> {
        Box::pin(async move {
            if hint == Hint::Block {
                return Err("database closed".to_owned());
            }
            Ok(self.objects.lock().unwrap().get(&(hint, hash)).cloned())
        })
    }
}

/// A host with its handler.
pub(crate) struct Node {
    pub(crate) network: Network,
    pub(crate) memory: Arc<Memory>,
}

/// Settings of a host on this machine, of the network with this number.
pub(crate) fn config(folder: &Path, network: u8) -> Config {
    Config {
        folder: folder.to_owned(),
        genesis_id: GenesisId([network; 20]),
        effective_genesis: LayerId(7),
        agent: "test".to_owned(),
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        advertise: Vec::new(),
        bootnodes: Vec::new(),
        direct: Vec::new(),
        private_network: true,
        min_peers: 1,
        high_peers: 100,
        limits: Limits::default(),
    }
}

/// A folder for a host.
pub(crate) fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

impl Node {
    pub(crate) async fn start(config: Config) -> Self {
        let memory = Arc::new(Memory::default());
        Self { network: Host::start(config, memory.clone()).await.unwrap(), memory }
    }

    /// A node that dials others.
    pub(crate) async fn joining(folder: &Path, others: &[&Self]) -> Self {
        let bootnodes = others.iter().map(|other| other.address()).collect();
        Self::start(Config { bootnodes, min_peers: 100, ..config(folder, 1) }).await
    }

    /// Where others reach it.
    pub(crate) fn address(&self) -> Multiaddr {
        address(&self.network)
    }

    /// Waits until it has exactly so many peers.
    pub(crate) async fn has_peers(&self, count: usize) {
        let wait = async {
            while self.network.peers().len() != count {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(SOON, wait).await.unwrap_or_else(|_| panic!("{} peers, not {count}", self.network.peers().len()));
    }

    pub(crate) fn has_peer(&self, id: PeerId) -> bool {
        self.network.peers().iter().any(|peer| peer.id == id)
    }
}

pub(crate) fn address(network: &Network) -> Multiaddr {
    let listening = network.listening();
    format!("{}/p2p/{}", listening[0], network.id()).parse().unwrap()
}

/// Waits for an event.
pub(crate) async fn wait_for<T>(events: &mut broadcast::Receiver<Event>, wanted: impl Fn(Event) -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(found) = wanted(events.recv().await.unwrap()) {
                return found;
            }
        }
    };
    timeout(SOON, wait).await.expect("the event did not come")
}

/// The reason for which a peer was disconnected.
pub(crate) async fn disconnected(events: &mut broadcast::Receiver<Event>, id: PeerId) -> String {
    wait_for(events, |event| match event {
        Event::Disconnected { peer, reason } if peer == id => Some(reason.unwrap_or_default()),
        _ => None,
    })
    .await
}
