//! Between the network and the node's judgement: gossip goes to the handler, requests of peers to the database, and what the
//! handler misses is fetched from peers.

use std::sync::{Arc, PoisonError, RwLock};

use activation::{
    handler::{Fetch, Fetching, Handler, Outcome, Peer, Source},
    knowledge::Knowledge,
    smesher::{self, Publish},
};
use p2p::{Boxed, Hint, Network, PeerId, Topic, Verdict};
use proto::{
    ids::{AtxId, Hash32, NodeId, PoetProofRef},
    scale,
};
use tokio::task::spawn_blocking;

/// Something that is there between the start of the node and its end: parts that call each other are tied with it.
pub(super) struct Late<T>(Arc<RwLock<Option<T>>>);

impl<T> Clone for Late<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Default for Late<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Clone> Late<T> {
    pub(super) fn set(&self, thing: Option<T>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = thing;
    }

    pub(super) fn get(&self) -> Option<T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The node as the network sees it.
pub(super) struct Judge {
    pub(super) handler: Handler,
    pub(super) network: Late<Network>,
}

impl p2p::Handler for Judge {
    fn gossip(&self, topic: Topic, message: Arc<[u8]>, from: PeerId) -> Boxed<'_, Verdict> {
        Box::pin(async move {
            let own = self.network.get().is_some_and(|network| network.id() == from);
            let source = if own { Source::Own } else { Source::Gossip(Peer(from.to_bytes())) };
            let outcome = match topic {
                Topic::Atx => self.handler.activation(&message, source).await,
                Topic::Malfeasance => self.handler.malfeasance(&message, source).await,
            };
            match outcome {
                Outcome::Accept => Verdict::Accept,
                // what this node publishes again is new to others
                Outcome::Known if own || topic == Topic::Malfeasance => Verdict::Accept,
                Outcome::Known => Verdict::Ignore,
                Outcome::Ignore(reason) => {
                    tracing::debug!(topic = topic.name(), %from, %reason, "a message is ignored");
                    Verdict::Ignore
                }
                Outcome::Reject(reason) => {
                    tracing::warn!(topic = topic.name(), %from, %reason, "a message is rejected");
                    Verdict::Reject
                }
            }
        })
    }

    fn object(&self, hint: Hint, hash: Hash32) -> Boxed<'_, Result<Option<Vec<u8>>, String>> {
        let knowledge = self.handler.knowledge().clone();
        Box::pin(async move {
            let found = spawn_blocking(move || object(&knowledge, hint, hash)).await;
            found.unwrap_or_else(|_| Err("the node stops".to_owned()))
        })
    }
}

/// What is stored under a hash, as it is sent.
fn object(knowledge: &Knowledge, hint: Hint, hash: Hash32) -> Result<Option<Vec<u8>>, String> {
    let failed = |error: store::StoreError| {
        tracing::error!(%error, "failed to read an object that a peer asked for");
        "the database failed".to_owned()
    };
    match hint {
        Hint::Atx => Ok(knowledge.atxs().wire(&AtxId(hash.0)).map_err(failed)?.map(|(_, bytes)| bytes)),
        Hint::PoetProof => match knowledge.poet(&PoetProofRef(hash.0)).map_err(failed)? {
            Some(message) => scale::encode(&message).map(Some).map_err(|error| error.to_string()),
            None => Ok(None),
        },
        Hint::Malfeasance => Ok(knowledge.malfeasance(&NodeId(hash.0)).map_err(failed)?.map(|(_, bytes)| bytes)),
        // the parts of the node that keep them are still to come
        Hint::Ballot | Hint::Block | Hint::Proposal | Hint::Transaction | Hint::ActiveSet => Ok(None),
    }
}

/// The network as those see it who have something to publish.
pub(super) struct Out(pub(super) Late<Network>);

impl Publish for Out {
    fn publish<'a>(&'a self, bytes: &'a [u8]) -> smesher::Answer<'a, Result<(), String>> {
        Box::pin(async move {
            let network = self.0.get().ok_or("the node is still starting")?;
            network.publish(Topic::Atx, bytes.to_vec()).await.map_err(|error| error.to_string())
        })
    }
}

/// Brings what the handler misses from peers.
pub(super) struct Fetcher {
    pub(super) network: Late<Network>,
    pub(super) handler: Late<Handler>,
}

impl Fetcher {
    async fn fetch(&self, hint: Hint, hashes: Vec<Hash32>, from: Option<&Peer>) -> Result<(), String> {
        let (Some(network), Some(handler)) = (self.network.get(), self.handler.get()) else {
            return Err("the node is still starting".to_owned());
        };
        let prefer = from.and_then(|peer| PeerId::from_bytes(&peer.0).ok());
        let answer = network.fetch(hint, &hashes, prefer).await;
        let mut problems: Vec<String> = answer.failed.iter().map(|(hash, error)| format!("{hash}: {error}")).collect();
        for object in answer.objects {
            let source = Source::Requested { from: Peer(object.from.to_bytes()), id: object.hash };
            let outcome = match hint {
                Hint::PoetProof => handler.poet_proof(&object.data, source).await,
                _ => handler.activation(&object.data, source).await,
            };
            match outcome {
                Outcome::Accept | Outcome::Known => {}
                Outcome::Ignore(reason) => problems.push(format!("{}: {reason}", object.hash)),
                Outcome::Reject(reason) => {
                    network.disconnect(object.from, format!("answered with something wrong: {reason}")).await;
                    problems.push(format!("{}: {reason}", object.hash));
                }
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
    }
}

impl Fetch for Fetcher {
    fn activations<'a>(&'a self, ids: &'a [AtxId], from: Option<&'a Peer>) -> Fetching<'a> {
        Box::pin(self.fetch(Hint::Atx, ids.iter().map(|id| Hash32(id.0)).collect(), from))
    }

    fn poet_proofs<'a>(&'a self, references: &'a [PoetProofRef], from: Option<&'a Peer>) -> Fetching<'a> {
        Box::pin(self.fetch(Hint::PoetProof, references.iter().map(|reference| Hash32(reference.0)).collect(), from))
    }
}
