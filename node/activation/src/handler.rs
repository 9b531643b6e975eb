//! What becomes of activations, PoET proofs and proofs of malfeasance that come in, from this node itself, by gossip, or because
//! somebody asked for them (activation.md sections 7 and 8).
//!
//! ```text
//!  bytes ─► decode ─► one at a time per id ─► check alone ─► fetch what it names ─► check against that ─► store ─► news
//!                                                               │   (Fetch)
//!                                                               └──► the same handler
//! ```
//!
//! Whoever brings something hears an [`Outcome`]: what is accepted is passed on, for what is rejected the peer is dropped.
//! What cannot be decided, because something is missing or broken here, is nobody's fault.
//!
//! What takes time is computed on threads for it, a bounded number at once.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use proto::{
    activation::{Activation, Versions, v1::ActivationTxV1},
    ids::{AtxId, Hash32, NodeId, PoetProofRef},
    layers::LayerId,
    malfeasance::{self, InvalidPostIndex, MalfeasanceGossip, MalfeasanceProof, Offence},
    poet::PoetProofMessage,
    scale::{self, DecodeError, EncodeError},
};
use store::{StoreError, atxs::Saved};
use tokio::sync::{Semaphore, broadcast, mpsc, watch};

use crate::{
    clock::Clock,
    knowledge::{KeepError, Knowledge, PoetError},
    timeline::{Moment, Timeline},
    validate::{Checked, Invalid, Known, PostClaim, PostError, Proofs, Refusal, Rules, Validator, View as _, dependencies},
};

/// Activations that may wait for each other, each for one that it names. The chains of honest activations that are missing here
/// are short: synchronisation brings old epochs first.
pub const MOST_DEPTH: u32 = 256;

/// Characters that are kept of what fetching says.
const MOST_WORDS: usize = 300;

/// News that a slow listener may be behind before it loses some.
const NEWS: usize = 4096;

/// Another node, by a name that only the network side understands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Peer(pub Vec<u8>);

/// Where something comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// This node made it.
    Own,
    /// A peer passed it on.
    Gossip(Peer),
    /// A peer answered with it when asked for this id.
    Requested {
        /// The peer.
        from: Peer,
        /// What was asked for.
        id: Hash32,
    },
}

impl Source {
    fn peer(&self) -> Option<&Peer> {
        match self {
            Self::Own => None,
            Self::Gossip(peer) | Self::Requested { from: peer, .. } => Some(peer),
        }
    }

    /// Whether this is what was asked for, if something was.
    fn is_asked_for(&self, id: &[u8; 32]) -> Result<(), Reason> {
        match self {
            Self::Requested { id: asked, .. } if asked.0 != *id => {
                Err(Reason::NotRequested { asked: *asked, found: Hash32(*id) })
            }
            _ => Ok(()),
        }
    }
}

/// What is to be done with something that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is good: pass it on.
    Accept,
    /// It was here before. Gossip of others is not passed on again; for everything else this is success.
    Known,
    /// Nothing: it is not passed on, and nobody is to blame.
    Ignore(Reason),
    /// It is not passed on, and whoever sent it is dropped.
    Reject(Reason),
}

impl Outcome {
    /// Whether it is here now.
    pub fn is_here(&self) -> bool {
        matches!(self, Self::Accept | Self::Known)
    }
}

/// Why something was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// It is no encoding of what it should be.
    #[error("malformed: {0}")]
    Malformed(#[from] DecodeError),
    /// It has no encoding itself, so nobody can have signed it.
    #[error("malformed: {0}")]
    Encoding(#[from] EncodeError),
    /// Something else was asked for.
    #[error("{found} came where {asked} was asked for")]
    NotRequested {
        /// What was asked for.
        asked: Hash32,
        /// What came.
        found: Hash32,
    },
    /// The node does not know the activations of the network yet.
    #[error("this node does not know the activations of the network yet")]
    NotSynced,
    /// A rule for activations says no, or cannot be applied now.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// What it names could not be fetched.
    #[error("{missing} objects that it names are not to be had{}", .error.as_ref().map(|e| format!(": {e}")).unwrap_or_default())]
    Missing {
        /// How many.
        missing: usize,
        /// What fetching said, if it said something.
        error: Option<String>,
    },
    /// It is named by one that is named by one, and so on.
    #[error("{MOST_DEPTH} activations wait for each other already")]
    TooDeep,
    /// It is stored, but proves that its publisher is malicious.
    #[error("it proves that {0} is malicious")]
    Malicious(NodeId),
    /// It could not be stored.
    #[error("not stored: {0}")]
    NotStored(String),
    /// A PoET proof is not valid.
    #[error("{0}")]
    Poet(String),
    /// A proof of malfeasance proves nothing.
    #[error("it proves nothing: {0}")]
    ProvesNothing(#[from] malfeasance::Invalid),
    /// A proof of malfeasance is about an identity without activations.
    #[error("nobody has seen an activation of {0}")]
    UnknownIdentity(NodeId),
    /// The label that a proof of malfeasance complains of is good.
    #[error("label {0} of the proof of space is good")]
    GoodIndex(u32),
    /// The node stops.
    #[error("the node stops")]
    Stopped,
}

impl From<StoreError> for Reason {
    fn from(error: StoreError) -> Self {
        Self::NotStored(error.to_string())
    }
}

/// The answer of [`Fetch`]: what could not be fetched, in words.
pub type Fetching<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;

/// Brings objects from other nodes to this node's handler. An error, or its absence, is not trusted: the handler looks what is
/// there afterwards.
pub trait Fetch: Send + Sync {
    /// Activations, from this peer if there is one and it has them.
    fn activations<'a>(&'a self, ids: &'a [AtxId], from: Option<&'a Peer>) -> Fetching<'a>;

    /// PoET proofs, from this peer if there is one and it has them.
    fn poet_proofs<'a>(&'a self, references: &'a [PoetProofRef], from: Option<&'a Peer>) -> Fetching<'a>;
}

/// What a node has learned.
#[derive(Debug, Clone)]
pub enum News {
    /// An activation was accepted.
    Activation {
        /// The activation.
        known: Arc<Known>,
        /// Whether its publisher is one of this node's identities.
        own: bool,
    },
    /// An identity was found to be malicious.
    Malicious {
        /// The identity.
        identity: NodeId,
        /// Whether it is one of this node's.
        own: bool,
        /// What it did; none for what only this node counts.
        proof: Option<Arc<MalfeasanceProof>>,
    },
}

/// What does not change while a handler lives.
#[derive(Clone)]
pub struct Config {
    /// What the network demands.
    pub rules: Rules,
    /// Which version activations have.
    pub versions: Versions,
    /// The clock of the network.
    pub timeline: Timeline,
    /// The clock of the machine.
    pub clock: Clock,
    /// Checks that compute something, at once. More wait, those of own identities do not.
    pub parallel: usize,
}

type AnyProofs = Arc<dyn Proofs + Send + Sync>;

struct Inner {
    versions: Versions,
    timeline: Timeline,
    clock: Clock,
    knowledge: Arc<Knowledge>,
    validator: Validator<Arc<Knowledge>, AnyProofs>,
    fetch: Arc<dyn Fetch>,
    synced: AtomicBool,
    /// Activations being judged.
    flights: Mutex<HashMap<AtxId, Flight>>,
    /// How deep in a chain of waiting activations those are that are being fetched.
    wanted: Mutex<HashMap<AtxId, Vec<u32>>>,
    computing: Arc<Semaphore>,
    news: broadcast::Sender<News>,
    proofs: mpsc::Sender<Vec<u8>>,
}

/// An activation being judged.
struct Flight {
    /// Ids do not cover all bytes: others of the same id are judged afterwards.
    bytes: Hash32,
    outcome: watch::Receiver<Option<Outcome>>,
}

/// Judges what comes in. Clones are the same handler.
#[derive(Clone)]
pub struct Handler(Arc<Inner>);

impl Handler {
    /// A handler. Proofs of malfeasance that this node makes go to `proofs`, as bytes to be published.
    pub fn new(
        config: Config,
        knowledge: Arc<Knowledge>,
        verifier: Arc<dyn Proofs + Send + Sync>,
        fetch: Arc<dyn Fetch>,
        proofs: mpsc::Sender<Vec<u8>>,
    ) -> Self {
        let Config { rules, versions, timeline, clock, parallel } = config;
        Self(Arc::new(Inner {
            versions,
            timeline,
            clock,
            validator: Validator { rules, view: knowledge.clone(), proofs: verifier },
            knowledge,
            fetch,
            synced: AtomicBool::new(false),
            flights: Mutex::default(),
            wanted: Mutex::default(),
            computing: Arc::new(Semaphore::new(parallel.max(1))),
            news: broadcast::channel(NEWS).0,
            proofs,
        }))
    }

    /// What the node knows.
    pub fn knowledge(&self) -> &Arc<Knowledge> {
        &self.0.knowledge
    }

    /// What is learned from now on.
    pub fn news(&self) -> broadcast::Receiver<News> {
        self.0.news.subscribe()
    }

    /// Gossip counts from now on: the node knows the activations of the network.
    pub fn set_synced(&self) {
        self.0.synced.store(true, Ordering::Relaxed);
    }

    /// Judges an activation and stores it if it is good.
    pub async fn activation(&self, bytes: &[u8], source: Source) -> Outcome {
        if let Some(outcome) = self.0.not_yet(&source) {
            return outcome;
        }
        // A task of its own: those that wait for each other must not lie on one stack.
        let (inner, bytes) = (self.0.clone(), bytes.to_vec());
        let mut task = Abort(tokio::spawn(async move { inner.activation(bytes, source).await }));
        (&mut task.0).await.unwrap_or(Outcome::Ignore(Reason::Stopped))
    }

    /// Verifies a PoET proof and stores it if it is valid.
    pub async fn poet_proof(&self, bytes: &[u8], source: Source) -> Outcome {
        let message: PoetProofMessage = match scale::decode(bytes) {
            Ok(message) => message,
            Err(e) => return Outcome::Reject(e.into()),
        };
        match message.proof.reference() {
            Err(e) => return Outcome::Reject(e.into()),
            // not counted against the peer, as the deployed node has it
            Ok(reference) => {
                if let Err(reason) = source.is_asked_for(&reference.0) {
                    return Outcome::Ignore(reason);
                }
            }
        }
        self.keep_poet(message).await
    }

    /// Verifies a PoET proof that this node got from the server itself, and stores it if it is valid.
    pub async fn keep_poet(&self, message: PoetProofMessage) -> Outcome {
        let kept = self.0.compute(false, move |inner| inner.knowledge.keep_poet(&message)).await;
        match kept {
            None => Outcome::Ignore(Reason::Stopped),
            Some(Ok(Saved::New)) => Outcome::Accept,
            Some(Ok(Saved::Known)) => Outcome::Known,
            Some(Err(e @ PoetError::Invalid(_))) => Outcome::Reject(Reason::Poet(e.to_string())),
            Some(Err(PoetError::Store(e))) => Outcome::Ignore(e.into()),
        }
    }

    /// Judges a proof of malfeasance: as it is sent by gossip, or as it is stored if it was asked for by identity. Known ones
    /// are passed on.
    pub async fn malfeasance(&self, bytes: &[u8], source: Source) -> Outcome {
        if let Some(outcome) = self.0.not_yet(&source) {
            return outcome;
        }
        let decoded = match source {
            Source::Requested { .. } => scale::decode::<MalfeasanceProof>(bytes).map_err(Reason::from),
            _ => scale::decode::<MalfeasanceGossip>(bytes).map_err(Reason::from).and_then(|gossip| {
                if gossip.eligibility.is_some() { Err(malfeasance::Invalid::Eligibility.into()) } else { Ok(gossip.proof) }
            }),
        };
        let proof = match decoded {
            Ok(proof) => proof,
            Err(reason) => return Outcome::Reject(reason),
        };
        self.0.compute(false, move |inner| inner.malfeasance(proof, &source)).await.unwrap_or(Outcome::Ignore(Reason::Stopped))
    }
}

/// Ends a task that nobody waits for any more.
struct Abort<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for Abort<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Takes an activation out of those being judged, however that ends.
struct Landing<'a> {
    inner: &'a Inner,
    id: AtxId,
    outcome: watch::Sender<Option<Outcome>>,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.inner.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// Activations that are being fetched for one that waits for them.
struct Wanted<'a> {
    inner: &'a Inner,
    ids: &'a [AtxId],
    depth: u32,
}

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        let mut wanted = self.inner.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        for id in self.ids {
            if let Some(depths) = wanted.get_mut(id) {
                if let Some(place) = depths.iter().position(|depth| *depth == self.depth) {
                    depths.swap_remove(place);
                }
                if depths.is_empty() {
                    wanted.remove(id);
                }
            }
        }
    }
}

impl Inner {
    /// Gossip is of no use before the node knows the activations of the network.
    fn not_yet(&self, source: &Source) -> Option<Outcome> {
        let early = matches!(source, Source::Gossip(_)) && !self.synced.load(Ordering::Relaxed);
        early.then_some(Outcome::Ignore(Reason::NotSynced))
    }

    /// Computes on a thread for it; none when the node stops. What is urgent does not wait for its turn.
    async fn compute<T: Send + 'static>(
        self: &Arc<Self>,
        urgent: bool,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Option<T> {
        let permit = if urgent { None } else { Some(self.computing.clone().acquire_owned().await.ok()?) };
        let inner = self.clone();
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work(&inner)
        });
        task.await.ok()
    }

    async fn activation(self: Arc<Self>, bytes: Vec<u8>, source: Source) -> Outcome {
        let (atx, id) =
            match Activation::decode(&bytes, &self.versions).map_err(Reason::from).and_then(|atx| Ok((atx.id()?, atx))) {
                Ok((id, atx)) => (Arc::new(atx), id),
                Err(reason) => return Outcome::Reject(reason),
            };
        if let Err(reason) = source.is_asked_for(&id.0) {
            return Outcome::Reject(reason);
        }
        let hash = Hash32::of(&[&bytes]);
        let arrived = self.clock.now();
        let landing = loop {
            let mut earlier = match self.take_off(id, hash) {
                Ok(landing) => break landing,
                Err(earlier) => earlier,
            };
            let same = earlier.bytes == hash;
            let outcome = earlier.outcome.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
            match outcome {
                Some(Outcome::Accept) if same => return Outcome::Known,
                Some(outcome) if same => return outcome,
                // other bytes, or given up
                _ => {}
            }
        };
        let outcome = self.judge(&atx, id, bytes, &source, arrived).await;
        landing.outcome.send_replace(Some(outcome.clone()));
        outcome
    }

    /// The turn of an activation, or the one before it.
    fn take_off(&self, id: AtxId, bytes: Hash32) -> Result<Landing<'_>, Flight> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(earlier) = flights.get(&id) {
            return Err(Flight { bytes: earlier.bytes, outcome: earlier.outcome.clone() });
        }
        let (send, outcome) = watch::channel(None);
        flights.insert(id, Flight { bytes, outcome });
        Ok(Landing { inner: self, id, outcome: send })
    }

    async fn judge(
        self: &Arc<Self>,
        atx: &Arc<Activation>,
        id: AtxId,
        bytes: Vec<u8>,
        source: &Source,
        arrived: Moment,
    ) -> Outcome {
        match self.knowledge.atxs().get(&id) {
            Err(e) => return Outcome::Ignore(e.into()),
            Ok(Some(_)) => return self.known(atx),
            Ok(None) => {}
        }
        let current = self.timeline.epoch_at(arrived);
        // thousands of others may be waiting when the node's own one is to go out
        let urgent = self.knowledge.is_own(&atx.smesher_id());
        let alone = atx.clone();
        match self.compute(urgent, move |inner| inner.validator.check_alone(&alone, current)).await {
            None => return Outcome::Ignore(Reason::Stopped),
            Some(Err(refusal)) => return refused(refusal),
            Some(Ok(())) => {}
        }
        if let Err(reason) = self.fetch_missing(atx, &id, source).await {
            return Outcome::Ignore(reason);
        }
        let atx = atx.clone();
        self.compute(urgent, move |inner| inner.check_and_keep(&atx, &bytes, arrived))
            .await
            .unwrap_or(Outcome::Ignore(Reason::Stopped))
    }

    /// The order of the first checks differs between versions (activation.md sections 7.1 and 7.3).
    fn known(&self, atx: &Activation) -> Outcome {
        match atx {
            Activation::V1(_) if !atx.is_signed(&self.validator.rules.network) => refused(Invalid::Signature.into()),
            Activation::V1(_) => Outcome::Known,
            Activation::V2(_) => Outcome::Accept,
        }
    }

    /// Fetches what an activation names and is not here.
    async fn fetch_missing(&self, atx: &Activation, id: &AtxId, source: &Source) -> Result<(), Reason> {
        let (poets, atxs) = self.missing(atx)?;
        if poets.is_empty() && atxs.is_empty() {
            return Ok(());
        }
        let depth = self.depth(id) + 1;
        if depth > MOST_DEPTH && !atxs.is_empty() {
            return Err(Reason::TooDeep);
        }
        let wanted = self.want(&atxs, depth);
        let peer = source.peer();
        let fetch_poets = async { if poets.is_empty() { Ok(()) } else { self.fetch.poet_proofs(&poets, peer).await } };
        let fetch_atxs = async { if atxs.is_empty() { Ok(()) } else { self.fetch.activations(&atxs, peer).await } };
        let answers = tokio::join!(fetch_poets, fetch_atxs);
        drop(wanted);
        let (poets, atxs) = self.missing(atx)?;
        match poets.len() + atxs.len() {
            0 => Ok(()),
            missing => {
                // what went wrong below is told by each one above
                let error = answers.0.err().or(answers.1.err()).map(|error| error.chars().take(MOST_WORDS).collect());
                Err(Reason::Missing { missing, error })
            }
        }
    }

    fn missing(&self, atx: &Activation) -> Result<(Vec<PoetProofRef>, Vec<AtxId>), StoreError> {
        let needs = dependencies(atx, &self.validator.rules.golden);
        let (mut poets, mut atxs) = (Vec::new(), Vec::new());
        for reference in needs.poets {
            if self.knowledge.round(&reference)?.is_none() {
                poets.push(reference);
            }
        }
        for id in needs.atxs {
            if self.knowledge.atxs().get(&id)?.is_none() {
                atxs.push(id);
            }
        }
        Ok((poets, atxs))
    }

    fn depth(&self, id: &AtxId) -> u32 {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.get(id).and_then(|depths| depths.iter().max().copied()).unwrap_or_default()
    }

    fn want<'a>(&'a self, ids: &'a [AtxId], depth: u32) -> Wanted<'a> {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        for id in ids {
            wanted.entry(*id).or_default().push(depth);
        }
        Wanted { inner: self, ids, depth }
    }

    fn check_and_keep(&self, atx: &Activation, bytes: &[u8], arrived: Moment) -> Outcome {
        let known = match (self.validator.check_with_dependencies(atx), atx) {
            (Ok(known), _) => known,
            (Err(Refusal::Malfeasance { index }), Activation::V1(atx)) => return self.cheated(atx, index),
            (Err(refusal), _) => return refused(refusal),
        };
        let smesher = known.row.smesher;
        let own = self.knowledge.is_own(&smesher);
        let news = Arc::new(known.clone());
        let kept = match self.knowledge.keep(known, atx, bytes, arrived) {
            Ok(kept) => kept,
            Err(e @ (KeepError::OwnSecond { .. } | KeepError::OwnPrevious { .. })) => {
                tracing::warn!("{e}: not stored");
                return Outcome::Ignore(Reason::NotStored(e.to_string()));
            }
            Err(e) => return Outcome::Ignore(Reason::NotStored(e.to_string())),
        };
        if kept.saved == Saved::Known {
            return Outcome::Known;
        }
        self.tell(News::Activation { known: news, own });
        if kept.marked {
            self.tell(News::Malicious { identity: smesher, own, proof: None });
        }
        match kept.offence {
            Some(proof) => {
                self.incriminate(smesher, proof);
                Outcome::Ignore(Reason::Malicious(smesher))
            }
            None => Outcome::Accept,
        }
    }

    /// A label that is not good is malfeasance of its own; the activation is not stored (activation.md section 7.2).
    fn cheated(&self, atx: &ActivationTxV1, index: u32) -> Outcome {
        let identity = atx.smesher_id;
        if self.knowledge.is_own(&identity) {
            let what = format!("own identity {identity} has a proof of space whose label {index} is wrong");
            tracing::warn!("{what}: not stored");
            return Outcome::Ignore(Reason::NotStored(what));
        }
        let first = self.timeline.layers_per_epoch.first_layer(atx.inner.challenge.publish_epoch);
        let offence = Offence::InvalidPostIndex(Box::new(InvalidPostIndex { atx: atx.clone(), invalid_idx: index }));
        let proof = MalfeasanceProof { layer: first.unwrap_or(LayerId(u32::MAX)), offence };
        match self.knowledge.keep_malfeasance(&identity, &proof, self.clock.now()) {
            Err(e) => Outcome::Ignore(e.into()),
            Ok(Saved::Known) => Outcome::Reject(Refusal::Malfeasance { index }.into()),
            Ok(Saved::New) => {
                self.incriminate(identity, proof);
                Outcome::Ignore(Refusal::Malfeasance { index }.into())
            }
        }
    }

    /// Tells the network and everybody here what an identity did.
    fn incriminate(&self, identity: NodeId, proof: MalfeasanceProof) {
        tracing::warn!("identity {identity} is malicious: {}", describe(&proof.offence));
        let own = self.knowledge.is_own(&identity);
        let gossip = MalfeasanceGossip { proof: proof.clone(), eligibility: None };
        match scale::encode(&gossip) {
            Ok(bytes) => {
                if let Err(e) = self.proofs.try_send(bytes) {
                    tracing::warn!("the proof that {identity} is malicious was not published: {e}");
                }
            }
            Err(e) => tracing::warn!("the proof that {identity} is malicious has no encoding: {e}"),
        }
        self.tell(News::Malicious { identity, own, proof: Some(Arc::new(proof)) });
    }

    fn tell(&self, news: News) {
        // without listeners there is nobody to tell
        let _ = self.news.send(news);
    }

    fn malfeasance(&self, proof: MalfeasanceProof, source: &Source) -> Outcome {
        let identity = match proof.check(&self.validator.rules.network) {
            Ok(identity) => identity,
            Err(e) => return Outcome::Reject(e.into()),
        };
        if let Err(reason) = source.is_asked_for(&identity.0) {
            return Outcome::Reject(reason);
        }
        let checked = match &proof.offence {
            Offence::InvalidPostIndex(body) => self.check_index(body),
            _ => match self.knowledge.has_published(&identity) {
                Ok(true) => Ok(()),
                Ok(false) => Err(Outcome::Reject(Reason::UnknownIdentity(identity))),
                Err(e) => Err(Outcome::Ignore(e.into())),
            },
        };
        if let Err(outcome) = checked {
            return outcome;
        }
        match self.knowledge.keep_malfeasance(&identity, &proof, self.clock.now()) {
            Err(e) => Outcome::Ignore(e.into()),
            // the first one stays, and this one is as good
            Ok(Saved::Known) => Outcome::Accept,
            Ok(Saved::New) => {
                tracing::warn!("identity {identity} is malicious: {}", describe(&proof.offence));
                let own = self.knowledge.is_own(&identity);
                self.tell(News::Malicious { identity, own, proof: Some(Arc::new(proof)) });
                Outcome::Accept
            }
        }
    }

    /// Whether the proof of space fails at the index, for whatever reason (types.md section 10.1).
    fn check_index(&self, body: &InvalidPostIndex) -> Result<(), Outcome> {
        let InvalidPostIndex { atx, invalid_idx } = body;
        let (inner, id) = (&atx.inner, atx.smesher_id);
        let commitment = match inner.challenge.commitment_atx_id {
            Some(commitment) => commitment,
            None => match self.knowledge.commitment(&id) {
                Ok(Some(commitment)) => commitment,
                Ok(None) => return Err(Outcome::Reject(Reason::UnknownIdentity(id))),
                Err(e) => return Err(Outcome::Ignore(e.into())),
            },
        };
        let nipost = inner.nipost.as_ref().ok_or(Outcome::Reject(Refusal::from(Invalid::NoNipost).into()))?;
        let proof = nipost.post.as_ref().ok_or(Outcome::Reject(Refusal::from(Invalid::NoPost).into()))?;
        let metadata = nipost.post_metadata.as_ref().ok_or(Outcome::Reject(Refusal::from(Invalid::NoPostMetadata).into()))?;
        // no valid proof is for a challenge of another length
        let Ok(challenge) = (*metadata.challenge).try_into() else { return Ok(()) };
        let claim = PostClaim { id, commitment, challenge, units: inner.num_units, proof, labels: Checked::One(*invalid_idx) };
        match self.validator.proofs.post(&claim) {
            Ok(()) => Err(Outcome::Reject(Reason::GoodIndex(*invalid_idx))),
            Err(PostError::Unavailable(why)) => Err(Outcome::Ignore(Refusal::Undecided(why).into())),
            Err(_) => Ok(()),
        }
    }
}

fn refused(refusal: Refusal) -> Outcome {
    match refusal {
        Refusal::Invalid(_) | Refusal::Malfeasance { .. } => Outcome::Reject(refusal.into()),
        Refusal::Undecided(_) => Outcome::Ignore(refusal.into()),
    }
}

fn describe(offence: &Offence) -> &'static str {
    match offence {
        Offence::MultipleAtxs(_) => "two activations in one epoch",
        Offence::MultipleBallots(_) => "two ballots in one layer",
        Offence::HareEquivocation(_) => "two messages in one round",
        Offence::InvalidPostIndex(_) => "a proof of space with a wrong label",
        Offence::InvalidPrevAtx(_) => "two activations after the same one",
    }
}
