//! What the services ask of the node.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use activation::timeline::{Moment, NoClock, Timeline};
use proto::{
    address,
    eligibility::Weight,
    genesis::Genesis,
    grpc::spacemesh_v1 as wire,
    ids::{Address, AtxId, NodeId},
    layers::{EpochId, LayerId},
    preset::Network,
    units::{SpaceUnits, TickHeight},
};

pub use proto::grpc::node_v1::IdentityState;

use crate::events::Events;

/// An answer that takes time.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Refused>> + Send + 'a>>;

/// The node behind the services. What is not a future and not said to block answers at once.
pub trait Node: Send + Sync + 'static {
    /// What does not change.
    fn constants(&self) -> &Constants;

    /// What happened of late, and what happens.
    fn events(&self) -> &Events;

    /// The clock.
    fn now(&self) -> Moment {
        Moment::now()
    }

    /// How far the node is.
    fn status(&self) -> Status;

    /// What other nodes call it.
    fn peer_id(&self) -> String;

    /// The nodes it is connected to.
    fn peers(&self) -> Vec<Peer>;

    /// Its identities, in the order of their key files. May ask the database for their last activations.
    fn identities(&self) -> Vec<Identity>;

    /// Where rewards go.
    fn coinbase(&self) -> Option<Address>;

    /// Lets rewards of activations not signed yet go somewhere else.
    fn set_coinbase(&self, coinbase: Address) -> Answer<'_, ()>;

    /// Whether the node makes activations; refused where it is not the one to start and stop that.
    fn is_smeshing(&self) -> Result<bool, Refused>;

    /// Begins to make activations. What is not given in `setup` is as configured.
    fn start_smeshing(&self, coinbase: Address, setup: wire::PostSetupOpts) -> Answer<'_, ()>;

    /// Ends it, and deletes the data if that is wanted.
    fn stop_smeshing(&self, delete_files: bool) -> Answer<'_, ()>;

    /// How far the data of the node's own identity is.
    fn post_setup(&self) -> wire::PostSetupStatus;

    /// Devices that could make data.
    fn post_providers(&self, benchmark: bool) -> Answer<'_, Vec<wire::PostSetupProvider>>;

    /// An activation. Blocks: asks the database.
    fn activation(&self, id: &AtxId) -> Result<Option<Activation>, QueryError>;

    /// The activation with the most ticks below it. Blocks: asks the database.
    fn highest_activation(&self) -> Result<Option<Activation>, QueryError>;

    /// Why an identity is malicious, if it is. Blocks: asks the database.
    fn malfeasance(&self, id: &NodeId) -> Result<Option<Malfeasance>, QueryError>;
}

/// What does not change while a node runs.
#[derive(Debug, Clone)]
pub struct Constants {
    /// Version of the program.
    pub version: String,
    /// The commit it was built from; empty where that is not known.
    pub build: String,
    /// The network's parameters.
    pub network: Arc<Network>,
    /// What it was born with.
    pub genesis: Genesis,
    /// Its clock.
    pub timeline: Timeline,
    /// What addresses begin with.
    pub addresses: address::Network,
    /// The layer before the first one that is voted on; moved by a restart from a checkpoint.
    pub effective_genesis: LayerId,
}

/// A network that no services can be offered for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConstantsError {
    /// Its clock does not go.
    #[error(transparent)]
    NoClock(#[from] NoClock),
    /// Its addresses begin with letters that nobody knows.
    #[error("no network's addresses begin with {0:?}")]
    Prefix(String),
    /// Its epochs are longer than layers can be counted.
    #[error("epochs of {0} layers are too long")]
    Epochs(u32),
}

impl Constants {
    /// Those of a network that was never restored from a checkpoint.
    pub fn new(version: &str, build: &str, network: &Network, genesis: Genesis) -> Result<Self, ConstantsError> {
        let hrp = &network.main.network_hrp;
        let timeline = Timeline::new(network, Moment(genesis.unix_time.0.saturating_mul(1_000_000_000)))?;
        let layers = timeline.layers_per_epoch;
        Ok(Self {
            version: version.to_owned(),
            build: build.to_owned(),
            network: Arc::new(network.clone()),
            genesis,
            addresses: address::Network::from_prefix(hrp).ok_or_else(|| ConstantsError::Prefix(hrp.clone()))?,
            effective_genesis: layers.effective_genesis().ok_or(ConstantsError::Epochs(layers.0.get()))?,
            timeline,
        })
    }
}

/// How far the node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Status {
    /// Nodes it is connected to.
    pub connected_peers: usize,
    /// Whether it knows what the network knows.
    pub synced: bool,
    /// The latest layer it has seen.
    pub latest: LayerId,
    /// The last layer whose transactions were executed; layer 0 where none was.
    pub applied: LayerId,
}

/// A node that this one is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its id, as text.
    pub id: String,
    /// Where it is.
    pub address: String,
    /// Whether this node called it.
    pub outbound: bool,
    /// How long the connection has been there.
    pub connected: Duration,
}

/// An identity and how far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its id.
    pub id: NodeId,
    /// Name of its key file.
    pub name: String,
    /// What it is doing.
    pub state: IdentityState,
    /// Epoch of the activation in the making.
    pub publish: Option<EpochId>,
    /// What went wrong last, in words.
    pub last_error: Option<String>,
    /// The next deadline: its meaning and moment.
    pub deadline: Option<(String, Moment)>,
    /// The last activation it published.
    pub last_activation: Option<AtxId>,
}

/// An activation that the node holds for valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activation {
    /// Its id.
    pub id: AtxId,
    /// Its epoch.
    pub publish: EpochId,
    /// Who made it.
    pub smesher: NodeId,
    /// Where its rewards go.
    pub coinbase: Address,
    /// The activations it follows.
    pub previous: Vec<AtxId>,
    /// Its space.
    pub num_units: SpaceUnits,
    /// How many came before it.
    pub sequence: u64,
    /// What it counts.
    pub weight: Weight,
    /// Where its ticks end.
    pub height: TickHeight,
}

/// The finding against a malicious identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malfeasance {
    /// The layer it happened in.
    pub layer: LayerId,
    /// What it did.
    pub kind: wire::malfeasance_proof::MalfeasanceType,
    /// In words.
    pub info: String,
}

/// The node does not do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is the operator's business to start and stop the programs that prove.
    #[error("this node does not run the proving service of its identities itself: start and stop those services instead")]
    NotSupervised,
    /// Smeshing goes on already.
    #[error("already started")]
    AlreadyStarted,
    /// There is nothing to stop.
    #[error("not started")]
    NotStarted,
    /// The request makes no sense, in words.
    #[error("{0}")]
    Invalid(String),
    /// It did not work, in words.
    #[error("{0}")]
    Failed(String),
}

/// The database did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to read the database: {0}")]
pub struct QueryError(pub String);
