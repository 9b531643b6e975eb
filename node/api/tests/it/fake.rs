//! A node that answers what a test has put into it, and its listeners.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use activation::timeline::Moment;
use api::{
    events::Events,
    listen::{self, Listener, Listeners, Offer, Running, Service, StartError},
    node::{Activation, Answer, Constants, Identity, IdentityState, Malfeasance, Node, Peer, QueryError, Refused, Status},
};
use proto::{
    eligibility::Weight,
    grpc::spacemesh_v1::{
        self as wire, NodeRequest, ServiceResponse,
        post_info_service_server::{PostInfoService, PostInfoServiceServer},
        post_service_server::{PostService, PostServiceServer},
    },
    ids::{Address, AtxId, NodeId},
    layers::{EpochId, LayerId},
    preset::Preset,
    units::{SpaceUnits, TickHeight},
};
use tokio::sync::watch;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Streaming, transport::Channel};

pub(crate) const DAY: i64 = 24 * 3600 * 1_000_000_000;

pub(crate) const COINBASE: &str = "sm1qqqqqqz3a72jvsjd0nzk65sep87hkv2gz2lydzgqxnzhv";

pub(crate) struct Fake {
    constants: Constants,
    events: Events,
    pub(crate) status: Mutex<Status>,
    pub(crate) coinbase: Mutex<Option<Address>>,
    pub(crate) smeshing: Mutex<Result<bool, Refused>>,
    pub(crate) started: Mutex<Vec<wire::PostSetupOpts>>,
    pub(crate) stopped: Mutex<Vec<bool>>,
    /// How long the database takes.
    pub(crate) slow: Mutex<Duration>,
    busy: AtomicUsize,
    pub(crate) busiest: AtomicUsize,
}

/// Of mainnet: day 50.5 is in epoch 3, which ends on day 56.
pub(crate) fn now() -> Moment {
    let genesis = Preset::Mainnet.genesis().0.unix_time.0;
    Moment(genesis * 1_000_000_000 + 50 * DAY + DAY / 2)
}

pub(crate) fn known() -> Activation {
    Activation {
        id: AtxId([7; 32]),
        publish: EpochId(3),
        smesher: NodeId([1; 32]),
        coinbase: Address::generate(&[9; 20]),
        previous: vec![AtxId([5; 32]), AtxId([6; 32])],
        num_units: SpaceUnits(40),
        sequence: 11,
        weight: Weight(u64::MAX),
        height: TickHeight(77),
    }
}

impl Fake {
    pub(crate) fn new() -> Arc<Self> {
        let network = Preset::Mainnet.network();
        let constants = Constants::new("1.2.3", "abcdef", network, Preset::Mainnet.genesis().0).unwrap();
        let events = Events::new(constants.timeline.clone(), network.main.tick_size);
        let status = Status { connected_peers: 2, synced: true, latest: LayerId(14_540), applied: LayerId(14_530) };
        Arc::new(Self {
            constants,
            events,
            status: Mutex::new(status),
            coinbase: Mutex::new(None),
            smeshing: Mutex::new(Ok(false)),
            started: Mutex::default(),
            stopped: Mutex::default(),
            slow: Mutex::default(),
            busy: AtomicUsize::new(0),
            busiest: AtomicUsize::new(0),
        })
    }

    /// A question to the database.
    fn read<T>(&self, answer: T) -> T {
        let busy = self.busy.fetch_add(1, Ordering::SeqCst) + 1;
        self.busiest.fetch_max(busy, Ordering::SeqCst);
        let slow = *self.slow.lock().unwrap();
        std::thread::sleep(slow);
        self.busy.fetch_sub(1, Ordering::SeqCst);
        answer
    }
}

impl Node for Fake {
    fn constants(&self) -> &Constants {
        &self.constants
    }

    fn events(&self) -> &Events {
        &self.events
    }

    fn now(&self) -> Moment {
        now()
    }

    fn status(&self) -> Status {
        *self.status.lock().unwrap()
    }

    fn peer_id(&self) -> String {
        "12D3self".into()
    }

    fn peers(&self) -> Vec<Peer> {
        let connected = Duration::from_millis(61_500);
        let peer = |id: &str, address: &str, outbound| Peer { id: id.into(), address: address.into(), outbound, connected };
        vec![peer("12D3a", "/ip4/10.0.0.1/tcp/7513", true), peer("12D3b", "/ip4/10.0.0.2/tcp/40000", false)]
    }

    fn identities(&self) -> Vec<Identity> {
        vec![
            Identity {
                id: NodeId([1; 32]),
                name: "local.key".into(),
                state: IdentityState::PoetRegistered,
                publish: Some(EpochId(4)),
                last_error: None,
                deadline: Some(("last moment for a PoET proof".into(), Moment(now().0 + DAY))),
                last_activation: Some(AtxId([7; 32])),
            },
            Identity {
                id: NodeId([2; 32]),
                name: "second.key".into(),
                state: IdentityState::Retrying,
                publish: None,
                last_error: Some("no PoET server took the registration".into()),
                deadline: None,
                last_activation: None,
            },
        ]
    }

    fn coinbase(&self) -> Option<Address> {
        *self.coinbase.lock().unwrap()
    }

    fn set_coinbase(&self, coinbase: Address) -> Answer<'_, ()> {
        Box::pin(async move {
            *self.coinbase.lock().unwrap() = Some(coinbase);
            Ok(())
        })
    }

    fn is_smeshing(&self) -> Result<bool, Refused> {
        self.smeshing.lock().unwrap().clone()
    }

    fn start_smeshing(&self, coinbase: Address, setup: wire::PostSetupOpts) -> Answer<'_, ()> {
        Box::pin(async move {
            let mut smeshing = self.smeshing.lock().unwrap();
            if smeshing.clone()? {
                return Err(Refused::AlreadyStarted);
            }
            if setup.num_units > 1_000_000 {
                return Err(Refused::Invalid("more units than there are".into()));
            }
            *self.coinbase.lock().unwrap() = Some(coinbase);
            self.started.lock().unwrap().push(setup);
            *smeshing = Ok(true);
            Ok(())
        })
    }

    fn stop_smeshing(&self, delete_files: bool) -> Answer<'_, ()> {
        Box::pin(async move {
            let mut smeshing = self.smeshing.lock().unwrap();
            if !smeshing.clone()? {
                return Err(Refused::NotStarted);
            }
            self.stopped.lock().unwrap().push(delete_files);
            *smeshing = Ok(false);
            Ok(())
        })
    }

    fn post_setup(&self) -> wire::PostSetupStatus {
        wire::PostSetupStatus {
            state: wire::post_setup_status::State::InProgress.into(),
            num_labels_written: u64::MAX,
            opts: Some(wire::PostSetupOpts {
                data_dir: "/data".into(),
                num_units: 4,
                max_file_size: 4 << 30,
                provider_id: None,
                throttle: false,
            }),
        }
    }

    fn post_providers(&self, benchmark: bool) -> Answer<'_, Vec<wire::PostSetupProvider>> {
        let device_type = wire::post_setup_provider::DeviceType::DeviceClassGpu.into();
        let performance = if benchmark { 1_000_000 } else { 0 };
        Box::pin(async move { Ok(vec![wire::PostSetupProvider { id: 0, model: "a device".into(), device_type, performance }]) })
    }

    fn activation(&self, id: &AtxId) -> Result<Option<Activation>, QueryError> {
        if id.0 == [0xee; 32] {
            return Err(QueryError("the disk is on fire".into()));
        }
        Ok(self.read(Some(known()).filter(|known| known.id == *id)))
    }

    fn highest_activation(&self) -> Result<Option<Activation>, QueryError> {
        Ok(self.read(self.status().synced.then(known)))
    }

    fn malfeasance(&self, id: &NodeId) -> Result<Option<Malfeasance>, QueryError> {
        let kind = wire::malfeasance_proof::MalfeasanceType::MalfeasanceAtx;
        let found = Malfeasance { layer: LayerId(12_000), kind, info: "two activations in one epoch".into() };
        Ok(Some(found).filter(|_| id.0 == [1; 32] && !self.status().synced))
    }
}

/// The node's side of proving services, as far as the listeners go.
#[derive(Clone)]
pub(crate) struct Post;

#[tonic::async_trait]
impl PostInfoService for Post {
    async fn post_states(
        &self,
        _: Request<wire::PostStatesRequest>,
    ) -> Result<Response<wire::PostStatesResponse>, tonic::Status> {
        let state = wire::post_state::State::Proving.into();
        let states = vec![wire::PostState { id: vec![1; 32], state, name: "local.key".into() }];
        Ok(Response::new(wire::PostStatesResponse { states }))
    }
}

#[tonic::async_trait]
impl PostService for Post {
    type RegisterStream = std::pin::Pin<Box<dyn Stream<Item = Result<NodeRequest, tonic::Status>> + Send>>;

    async fn register(
        &self,
        request: Request<Streaming<ServiceResponse>>,
    ) -> Result<Response<Self::RegisterStream>, tonic::Status> {
        // every answer is answered with a request
        let answers = request.into_inner().map(|answer| answer.map(|_| NodeRequest::default()));
        Ok(Response::new(Box::pin(answers)))
    }
}

pub(crate) fn offer(node: Arc<Fake>) -> Offer {
    Offer {
        node,
        post: Box::new(|routes| routes.add_service(PostServiceServer::new(Post))),
        post_info: Box::new(|routes| routes.add_service(PostInfoServiceServer::new(Post))),
        metrics: None,
    }
}

pub(crate) const ANYWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// The deployed services, on free ports.
pub(crate) fn listeners() -> Listeners {
    let mut listeners = Listeners { json: Some(ANYWHERE), metrics: Some(ANYWHERE), ..Listeners::default() };
    for listener in [&mut listeners.public, &mut listeners.private, &mut listeners.post] {
        listener.as_mut().unwrap().address = ANYWHERE;
    }
    listeners
}

/// Everything public, and so in JSON.
pub(crate) fn all_public() -> Listeners {
    let public = Some(Listener { address: ANYWHERE, services: Service::ALL.to_vec() });
    Listeners { public, private: None, post: None, ..listeners() }
}

/// Listeners at work until dropped.
pub(crate) struct Served {
    pub(crate) node: Arc<Fake>,
    pub(crate) running: Running,
    pub(crate) stop: watch::Sender<bool>,
}

pub(crate) async fn serve(listeners: &Listeners) -> Served {
    try_serve(listeners).await.unwrap()
}

pub(crate) async fn try_serve(listeners: &Listeners) -> Result<Served, StartError> {
    let (node, (stop, told)) = (Fake::new(), watch::channel(false));
    let running = listen::start(listeners, &offer(node.clone()), told).await?;
    Ok(Served { node, running, stop })
}

pub(crate) async fn channel(address: Option<SocketAddr>) -> Channel {
    Channel::from_shared(format!("http://{}", address.unwrap())).unwrap().connect().await.unwrap()
}
