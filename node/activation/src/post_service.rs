//! The node side of the services that prove space (activation.md section 5, `docs/spec/post.md` section 15).
//!
//! Proving services dial the node and stay connected; whoever needs a proof asks [`PostServices::prove`], which
//! waits for the service of that identity. Where they dial to is the business of the program.
//!
//! Unlike the deployed node, this one takes only services of identities that are registered in it: the service of another identity
//! was given a wrong address, and its operator is told so.

mod connection;

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use proto::{
    grpc::spacemesh_v1::{
        self as wire, GenProofResponse, GenProofStatus, NodeRequest, PostStatesRequest, PostStatesResponse, ServiceResponse,
        post_info_service_server::{PostInfoService, PostInfoServiceServer},
        post_service_server::{PostService, PostServiceServer},
    },
    ids::{AtxId, NodeId},
    post::{MAX_INDICES_BYTES, Proof},
    units::{Labels, SpaceUnits, VrfNonce},
};
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use self::connection::{Ask, Connection};
use crate::builder::PostAnswer;

/// Largest message, both ways (post.md section 15.1).
pub const MAX_MESSAGE: usize = 10 << 20;
/// Streams at the same time; a service of an unknown identity is sent away at once.
const MAX_STREAMS: usize = 1024;
/// Events kept for those who are slow to read them.
const EVENTS: usize = 256;

/// How long what may take.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// The answer to the first request, which says whose service it is.
    pub metadata: Duration,
    /// Any other answer. Long, because the official service builds its RandomX dataset on one thread before it answers for the
    /// first time (post.md section 15.2).
    pub answer: Duration,
    /// The wait before a service that is at work is asked again.
    pub again: Duration,
    /// How often the log says that a service is missing.
    pub warn: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            metadata: Duration::from_secs(30),
            answer: Duration::from_secs(15 * 60),
            again: Duration::from_secs(2),
            warn: Duration::from_secs(20),
        }
    }
}

/// The post state of an identity, by its deployed names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No proof is needed: the service need not run.
    Idle,
    /// A proof is being made, or waits for the service.
    Proving,
}

/// What a service says of the data it proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// The identity.
    pub id: NodeId,
    /// What its labels are bound to.
    pub commitment: AtxId,
    /// The VRF nonce, if it knows one.
    pub vrf_nonce: Option<VrfNonce>,
    /// Its space.
    pub num_units: SpaceUnits,
    /// Labels in a unit.
    pub labels_per_unit: Labels,
}

/// Metadata that is not what it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field} has {got} bytes instead of 32")]
pub struct BadMetadata {
    /// Its name in the message.
    pub field: &'static str,
    /// How long it is.
    pub got: usize,
}

impl TryFrom<wire::Metadata> for Info {
    type Error = BadMetadata;

    fn try_from(meta: wire::Metadata) -> Result<Self, BadMetadata> {
        let id = |field, bytes: Vec<u8>| bytes.try_into().map_err(|bytes: Vec<u8>| BadMetadata { field, got: bytes.len() });
        Ok(Self {
            id: NodeId(id("node_id", meta.node_id)?),
            commitment: AtxId(id("commitment_atx_id", meta.commitment_atx_id)?),
            vrf_nonce: meta.nonce.map(VrfNonce),
            num_units: SpaceUnits(meta.num_units),
            labels_per_unit: Labels(meta.labels_per_unit),
        })
    }
}

/// An identity and its service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostState {
    /// The identity.
    pub id: NodeId,
    /// Name of its key file.
    pub name: String,
    /// Whether a proof is needed.
    pub state: State,
    /// What its service said when it connected; none while it is not connected.
    pub service: Option<Info>,
}

/// What happens while a proof is made; the names are those of the API's events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PostEvent {
    /// The service was asked.
    Start {
        /// The identity.
        id: NodeId,
        /// What is proven for.
        challenge: [u8; 32],
    },
    /// The proof is there.
    Complete {
        /// The identity.
        id: NodeId,
        /// What was proven for.
        challenge: [u8; 32],
    },
    /// There is no proof this time.
    Failure {
        /// The identity.
        id: NodeId,
        /// What was to be proven for.
        challenge: [u8; 32],
        /// Why.
        error: String,
    },
}

/// How a service broke the protocol; its connection is ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// No answer in time.
    #[error("the post service did not answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// Another answer than the one that was asked for.
    #[error("the post service answered something else than was asked")]
    OtherAnswer,
    /// An answer that nobody had asked for.
    #[error("the post service spoke without being asked")]
    Unasked,
    /// Too long, or no message at all.
    #[error("the post service sent a message that cannot be read: {0}")]
    Message(String),
    /// Metadata that cannot be used.
    #[error("the metadata of the post service cannot be used: {0}")]
    Metadata(#[from] BadMetadata),
}

/// Why there is no proof.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProveError {
    /// Not an identity of this node.
    #[error("identity {0} is not registered in this node")]
    NotRegistered(NodeId),
    /// The service could not make it.
    #[error("the post service failed to make the proof; its log says why")]
    Failed,
    /// The service broke the protocol.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// A status that does not exist.
    #[error("the post service answered with status {0}, which means nothing")]
    Status(i32),
    /// A proof without saying what for.
    #[error("the post service gave a proof without its metadata")]
    NoMetadata,
    /// A proof for something else.
    #[error("the post service gave a proof for challenge {}, asked was {}", hex::encode(got), hex::encode(asked))]
    OtherChallenge {
        /// What was asked for.
        asked: [u8; 32],
        /// What the proof is for.
        got: Vec<u8>,
    },
    /// A proof for somebody else.
    #[error("the post service gave a proof of identity {0}")]
    OtherIdentity(NodeId),
    /// More indices than an activation can carry.
    #[error("the proof has {0} bytes of indices, more than {MAX_INDICES_BYTES}")]
    TooLong(usize),
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

#[derive(Debug)]
struct Identity {
    name: String,
    state: State,
    connection: Option<Connection>,
    /// One proof at a time: a service refuses a second challenge while it works.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug)]
struct Inner {
    timing: Timing,
    allowed: AtomicBool,
    identities: Mutex<BTreeMap<NodeId, Identity>>,
    /// Told when services come or the node stops.
    changed: watch::Sender<()>,
    closing: watch::Sender<bool>,
    proving: watch::Sender<usize>,
    events: broadcast::Sender<PostEvent>,
    streams: Arc<Semaphore>,
    /// The number of the next connection.
    next: AtomicU64,
}

/// The services of all identities of a node. Clones are the same.
#[derive(Debug, Clone)]
pub struct PostServices(Arc<Inner>);

impl Default for PostServices {
    fn default() -> Self {
        Self::new(Timing::default())
    }
}

impl PostServices {
    /// Without identities; connections are not allowed yet.
    pub fn new(timing: Timing) -> Self {
        Self(Arc::new(Inner {
            timing,
            allowed: AtomicBool::new(false),
            identities: Mutex::default(),
            changed: watch::Sender::default(),
            closing: watch::Sender::default(),
            proving: watch::Sender::default(),
            events: broadcast::Sender::new(EVENTS),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            next: AtomicU64::new(0),
        }))
    }

    /// Adds an identity with the name of its key file. Its state is idle, also if it was registered before.
    pub fn register_identity(&self, id: NodeId, name: impl Into<String>) {
        let name = name.into();
        let mut identities = self.0.identities();
        let known = identities.remove(&id);
        let (connection, turn) = known.map_or_else(Default::default, |known| (known.connection, known.turn));
        identities.insert(id, Identity { name, state: State::Idle, connection, turn });
    }

    /// Whether services may connect: from when there is an account for rewards. Those that are connected stay.
    pub fn allow(&self, allowed: bool) {
        self.0.allowed.store(allowed, Ordering::Relaxed);
    }

    /// The proof is not needed any more: the challenge it was for is given up, or smeshing has ended.
    pub fn set_idle(&self, id: &NodeId) {
        self.0.set_state(id, State::Idle);
    }

    /// All identities with their states.
    pub fn states(&self) -> Vec<PostState> {
        let one = |(id, identity): (&NodeId, &Identity)| PostState {
            id: *id,
            name: identity.name.clone(),
            state: identity.state,
            service: identity.connection.as_ref().map(|connection| connection.info),
        };
        self.0.identities().iter().map(one).collect()
    }

    /// How many services are at work on proofs that this node asked for.
    pub fn proving(&self) -> watch::Receiver<usize> {
        self.0.proving.subscribe()
    }

    /// What happens from now on.
    pub fn events(&self) -> broadcast::Receiver<PostEvent> {
        self.0.events.subscribe()
    }

    /// Ends all streams, and nobody waits for a proof any more.
    pub fn close(&self) {
        self.0.closing.send_replace(true);
        self.0.changed.send_replace(());
    }

    /// Asks the service of an identity for a proof, waiting for it to connect, until there is one or it says that there is none
    /// (activation.md section 5). Dropping the future ends the wait; the service goes on, and is asked again for the same
    /// challenge later.
    pub async fn prove(&self, id: &NodeId, challenge: [u8; 32]) -> Result<PostAnswer, ProveError> {
        let turn = self.0.identities().get(id).map(|identity| Arc::clone(&identity.turn));
        let turn = turn.ok_or(ProveError::NotRegistered(*id))?;
        let _mine = turn.lock().await;
        self.0.set_state(id, State::Proving);
        let mut started = None;
        loop {
            let connection = self.connected(id).await?;
            if started.is_none() {
                self.0.tell(PostEvent::Start { id: *id, challenge });
                started = Some(Counted::one_more(&self.0.proving));
            }
            match self.ask_until_done(id, &connection, challenge).await {
                Ok(Some(answer)) => {
                    self.0.set_state(id, State::Idle);
                    self.0.tell(PostEvent::Complete { id: *id, challenge });
                    return Ok(answer);
                }
                // The stream has ended: it may come again.
                Ok(None) => self.0.disconnect(id, connection.number),
                // The state stays, as the caller tries again.
                Err(error) => {
                    self.0.tell(PostEvent::Failure { id: *id, challenge, error: error.to_string() });
                    return Err(error);
                }
            }
        }
    }

    /// The service of an identity, as soon as there is one.
    async fn connected(&self, id: &NodeId) -> Result<Connection, ProveError> {
        let mut changes = self.0.changed.subscribe();
        let mut warn = tokio::time::interval(self.0.timing.warn);
        warn.reset();
        loop {
            if *self.0.closing.borrow() {
                return Err(ProveError::Stopping);
            }
            let found = self.0.identities().get(id).map(|identity| (identity.connection.clone(), identity.name.clone()));
            let (connection, name) = found.ok_or(ProveError::NotRegistered(*id))?;
            if let Some(connection) = connection {
                return Ok(connection);
            }
            tokio::select! {
                // The sender lives in `self`.
                _ = changes.changed() => {}
                _ = warn.tick() => tracing::warn!(identity = %id, name, "the post service is not connected, waiting for it"),
            }
        }
    }

    /// None if the stream ends before there is a proof.
    async fn ask_until_done(
        &self,
        id: &NodeId,
        connection: &Connection,
        challenge: [u8; 32],
    ) -> Result<Option<PostAnswer>, ProveError> {
        loop {
            let (answer, answered) = oneshot::channel();
            if connection.asks.send(Ask { challenge, answer }).await.is_err() {
                return Ok(None);
            }
            let Ok(response) = answered.await else { return Ok(None) };
            if let Some(answer) = judge(response?, id, challenge)? {
                return Ok(Some(answer));
            }
            tokio::time::sleep(self.0.timing.again).await;
        }
    }

    /// The service for a gRPC server: where proving services register.
    pub fn post_service(&self) -> PostServiceServer<Self> {
        PostServiceServer::new(self.clone()).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
    }

    /// The service for a gRPC server: which identities need their proving services.
    pub fn post_info_service(&self) -> PostInfoServiceServer<Self> {
        PostInfoServiceServer::new(self.clone()).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
    }
}

/// None while the service is at work.
fn judge(response: GenProofResponse, id: &NodeId, asked: [u8; 32]) -> Result<Option<PostAnswer>, ProveError> {
    match response.status() {
        GenProofStatus::Ok => {}
        GenProofStatus::Error => return Err(ProveError::Failed),
        GenProofStatus::Unspecified => return Err(ProveError::Status(response.status)),
    }
    let Some(wire::Proof { nonce, indices, pow }) = response.proof else { return Ok(None) };
    let metadata = response.metadata.ok_or(ProveError::NoMetadata)?;
    if metadata.challenge != asked {
        return Err(ProveError::OtherChallenge { asked, got: metadata.challenge });
    }
    let info = Info::try_from(metadata.meta.ok_or(ProveError::NoMetadata)?).map_err(Broken::from)?;
    if info.id != *id {
        return Err(ProveError::OtherIdentity(info.id));
    }
    if indices.len() > MAX_INDICES_BYTES {
        return Err(ProveError::TooLong(indices.len()));
    }
    Ok(Some(PostAnswer {
        post: Proof { nonce, indices, pow },
        num_units: info.num_units,
        labels_per_unit: info.labels_per_unit,
        commitment: info.commitment,
        vrf_nonce: info.vrf_nonce,
    }))
}

/// Counts one more for as long as it lives.
struct Counted<'a>(&'a watch::Sender<usize>);

impl<'a> Counted<'a> {
    fn one_more(counter: &'a watch::Sender<usize>) -> Self {
        counter.send_modify(|count| *count += 1);
        Self(counter)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Inner {
    fn identities(&self) -> MutexGuard<'_, BTreeMap<NodeId, Identity>> {
        // What is behind the lock is whole at every moment.
        self.identities.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_state(&self, id: &NodeId, state: State) {
        if let Some(identity) = self.identities().get_mut(id) {
            identity.state = state;
        }
    }

    fn tell(&self, event: PostEvent) {
        // Nobody listening is no reason to stop.
        let _ = self.events.send(event);
    }

    /// Takes a service that has said whose it is; gives the number of its connection.
    fn connect(&self, info: Info, asks: mpsc::Sender<Ask>) -> Result<u64, Status> {
        let mut identities = self.identities();
        let Some(identity) = identities.get_mut(&info.id) else {
            return Err(Status::not_found(format!(
                "identity {} is not registered in this node: its key must be in the node's identities folder",
                info.id
            )));
        };
        if identity.connection.is_some() {
            // Code and words are the deployed ones.
            return Err(Status::unknown("post service already registered"));
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        identity.connection = Some(Connection { number, info, asks });
        drop(identities);
        self.changed.send_replace(());
        Ok(number)
    }

    /// Forgets a connection, unless there is another one already.
    fn disconnect(&self, id: &NodeId, number: u64) {
        if let Some(identity) = self.identities().get_mut(id) {
            identity.connection.take_if(|connection| connection.number == number);
        }
    }
}

#[tonic::async_trait]
impl PostService for PostServices {
    type RegisterStream = Pin<Box<dyn Stream<Item = Result<NodeRequest, Status>> + Send>>;

    async fn register(&self, request: Request<Streaming<ServiceResponse>>) -> Result<Response<Self::RegisterStream>, Status> {
        if !self.0.allowed.load(Ordering::Relaxed) {
            return Err(Status::failed_precondition("connection not allowed: node has no coinbase set in config"));
        }
        let place = Arc::clone(&self.0.streams)
            .try_acquire_owned()
            .map_err(|_| Status::resource_exhausted("too many post services are connected"))?;
        let from = request.remote_addr();
        let (requests, outgoing) = mpsc::channel(1);
        let (inner, answers) = (Arc::clone(&self.0), request.into_inner());
        tokio::spawn(async move {
            connection::run(&inner, from, answers, requests).await;
            drop(place);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }
}

#[tonic::async_trait]
impl PostInfoService for PostServices {
    async fn post_states(&self, _: Request<PostStatesRequest>) -> Result<Response<PostStatesResponse>, Status> {
        let one = |state: PostState| {
            let code = match state.state {
                State::Idle => wire::post_state::State::Idle,
                State::Proving => wire::post_state::State::Proving,
            };
            wire::PostState { id: state.id.0.to_vec(), state: code.into(), name: state.name }
        };
        Ok(Response::new(PostStatesResponse { states: self.states().into_iter().map(one).collect() }))
    }
}
