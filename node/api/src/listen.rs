//! The listeners: which services stand where (api.md section 1), how they are protected and how they end.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    http::{HeaderValue, Method},
};
use metrics_exporter_prometheus::PrometheusHandle;
use proto::grpc::{
    self,
    node_v1::overview_service_server::OverviewServiceServer,
    spacemesh_v1::{
        activation_service_server::ActivationServiceServer, admin_service_server::AdminServiceServer,
        mesh_service_server::MeshServiceServer, node_service_server::NodeServiceServer,
        smesher_service_server::SmesherServiceServer,
    },
    spacemesh_v2alpha1::{
        network_service_server::NetworkServiceServer as NetworkV2Alpha1Server,
        node_service_server::NodeServiceServer as NodeV2Alpha1Server,
    },
    spacemesh_v2beta1::{
        network_service_server::NetworkServiceServer as NetworkV2Beta1Server,
        node_service_server::NodeServiceServer as NodeV2Beta1Server,
    },
};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tonic::{
    service::Routes,
    transport::{Certificate, Identity, Server, ServerTlsConfig},
};
use tower_http::cors::{AllowOrigin, Any, CorsLayer};
use zeroize::Zeroizing;

use crate::{accept::Incoming, gateway, http, metrics, node::Node, services::Services};

/// The largest message, either way (api.md section 1).
pub const MAX_MESSAGE: usize = 10 * 1024 * 1024;

/// How long running calls may go on after a stop.
pub(crate) const DRAIN: Duration = Duration::from_millis(500);

/// Connections at once on one listener.
pub(crate) const CONNECTIONS: usize = 1024;

/// How long a client may take to show its certificate.
const HANDSHAKE: Duration = Duration::from_secs(15);

/// Calls at once on one connection.
const CALLS_PER_CONNECTION: usize = 256;

/// The service that tells whether others are served.
const HEALTH: &str = "grpc.health.v1.Health";

/// What can stand on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// The node itself.
    Node,
    /// The clock.
    Mesh,
    /// Single activations.
    Activation,
    /// Events and peers.
    Admin,
    /// The operator's identities.
    Smesher,
    /// What `smesh-node status` shows.
    Overview,
    /// Proving services register here.
    Post,
    /// Which proving services are there.
    PostInfo,
    /// What network this is.
    NetworkV2Alpha1,
    /// The same under its newer name.
    NetworkV2Beta1,
    /// How far the node is.
    NodeV2Alpha1,
    /// The same under its newer name.
    NodeV2Beta1,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Node,
        Self::Mesh,
        Self::Activation,
        Self::Admin,
        Self::Smesher,
        Self::Overview,
        Self::Post,
        Self::PostInfo,
        Self::NetworkV2Alpha1,
        Self::NetworkV2Beta1,
        Self::NodeV2Alpha1,
        Self::NodeV2Beta1,
    ];

    /// Its name in gRPC.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Node => "spacemesh.v1.NodeService",
            Self::Mesh => "spacemesh.v1.MeshService",
            Self::Activation => "spacemesh.v1.ActivationService",
            Self::Admin => "spacemesh.v1.AdminService",
            Self::Smesher => "spacemesh.v1.SmesherService",
            Self::Overview => "smesh.node.v1.OverviewService",
            Self::Post => "spacemesh.v1.PostService",
            Self::PostInfo => "spacemesh.v1.PostInfoService",
            Self::NetworkV2Alpha1 => "spacemesh.v2alpha1.NetworkService",
            Self::NetworkV2Beta1 => "spacemesh.v2beta1.NetworkService",
            Self::NodeV2Alpha1 => "spacemesh.v2alpha1.NodeService",
            Self::NodeV2Beta1 => "spacemesh.v2beta1.NodeService",
        }
    }

    /// Its name in configuration files.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Mesh => "mesh",
            Self::Activation => "activation",
            Self::Admin => "admin",
            Self::Smesher => "smesher",
            Self::Overview => "overview",
            Self::Post => "post",
            Self::PostInfo => "postInfo",
            Self::NetworkV2Alpha1 => "network_v2alpha1",
            Self::NetworkV2Beta1 => "network_v2beta1",
            Self::NodeV2Alpha1 => "node_v2alpha1",
            Self::NodeV2Beta1 => "node_v2beta1",
        }
    }
}

/// No service has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no service: expected one of {words}", words = Service::ALL.map(Service::word).join(", "))]
pub struct ParseServiceError(pub String);

impl FromStr for Service {
    type Err = ParseServiceError;

    fn from_str(word: &str) -> Result<Self, ParseServiceError> {
        Self::ALL.into_iter().find(|service| service.word() == word).ok_or_else(|| ParseServiceError(word.to_owned()))
    }
}

/// A listener for gRPC. Without services there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Where.
    pub address: SocketAddr,
    /// What stands there.
    pub services: Vec<Service>,
}

/// Where to listen. `None` is nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listeners {
    /// For everybody.
    pub public: Option<Listener>,
    /// For the operator.
    pub private: Option<Listener>,
    /// For proving services of this machine.
    pub post: Option<Listener>,
    /// For proving services of other machines, which show a certificate.
    pub tls: Option<(Listener, Tls)>,
    /// The services of the public listener as JSON.
    pub json: Option<SocketAddr>,
    /// Origins of web pages that may ask for JSON; `*` is all of them.
    pub json_origins: Vec<String>,
    /// Prometheus and `/health`.
    pub metrics: Option<SocketAddr>,
}

impl Default for Listeners {
    /// The deployed ports and services, for this machine only; JSON, TLS and metrics are off (api.md section 1).
    fn default() -> Self {
        let here = |port, services: &[Service]| {
            Some(Listener { address: (Ipv4Addr::LOCALHOST, port).into(), services: services.to_vec() })
        };
        Self {
            public: here(
                9092,
                &[
                    Service::Node,
                    Service::Mesh,
                    Service::Activation,
                    Service::NetworkV2Alpha1,
                    Service::NetworkV2Beta1,
                    Service::NodeV2Alpha1,
                    Service::NodeV2Beta1,
                ],
            ),
            private: here(9093, &[Service::Admin, Service::Smesher, Service::Overview]),
            post: here(9094, &[Service::Post, Service::PostInfo]),
            tls: None,
            json: None,
            json_origins: Vec::new(),
            metrics: None,
        }
    }
}

/// PEM files of a listener with mutual TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Certificate of the authority that clients' certificates come from.
    pub authority: PathBuf,
    /// The node's certificate.
    pub certificate: PathBuf,
    /// The node's private key.
    pub key: PathBuf,
}

impl Tls {
    fn read(&self) -> Result<ServerTlsConfig, StartError> {
        let read = |path: &Path| match std::fs::read(path) {
            Ok(bytes) => Ok(Zeroizing::new(bytes)),
            Err(source) => Err(StartError::Read { path: path.to_owned(), source }),
        };
        let (authority, certificate, key) = (read(&self.authority)?, read(&self.certificate)?, read(&self.key)?);
        let identity = Identity::from_pem(&*certificate, &*key);
        Ok(ServerTlsConfig::new().identity(identity).client_ca_root(Certificate::from_pem(&*authority)).timeout(HANDSHAKE))
    }
}

/// Why the services are not offered.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address is taken, or not of this machine.
    #[error("failed to listen on {address} for {what}: {source}")]
    Listen {
        /// What would have been there.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// A certificate or key cannot be read.
    #[error("failed to read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Certificate or key are no good.
    #[error("failed to set up TLS: {0}")]
    Tls(tonic::transport::Error),
    /// A service is named twice for one listener.
    #[error("{} is named twice for {what}", service.word())]
    Twice {
        /// The listener.
        what: &'static str,
        /// The service.
        service: Service,
    },
    /// JSON is for the services of the public listener.
    #[error("there are no public services to offer as JSON")]
    NothingForJson,
    /// An origin that no header can hold.
    #[error("{0:?} is not the origin of a web page: expected one such as https://example.org, or *")]
    Origin(String),
    /// The descriptions of the services are broken, which a test excludes.
    #[error("failed to describe the services: {0}")]
    Descriptors(String),
}

/// Listeners at work, with the addresses they are bound to.
#[derive(Debug)]
pub struct Running {
    /// See [`Listeners::public`].
    pub public: Option<SocketAddr>,
    /// See [`Listeners::private`].
    pub private: Option<SocketAddr>,
    /// See [`Listeners::post`].
    pub post: Option<SocketAddr>,
    /// See [`Listeners::tls`].
    pub tls: Option<SocketAddr>,
    /// See [`Listeners::json`].
    pub json: Option<SocketAddr>,
    /// See [`Listeners::metrics`].
    pub metrics: Option<SocketAddr>,
    tasks: JoinSet<()>,
}

impl Running {
    /// Ends when all listeners have: within a second of `stop` turning true.
    pub async fn ended(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Adds a service to others.
pub type Add = Box<dyn Fn(Routes) -> Routes + Send + Sync>;

/// What is offered.
pub struct Offer {
    /// The node.
    pub node: Arc<dyn Node>,
    /// Adds PostService.
    pub post: Add,
    /// Adds PostInfoService.
    pub post_info: Add,
    /// The registry of the metrics; without it there is no page of them.
    pub metrics: Option<PrometheusHandle>,
}

/// Begins to listen. All of it ends when `stop` turns true.
pub async fn start(listeners: &Listeners, offer: &Offer, stop: watch::Receiver<bool>) -> Result<Running, StartError> {
    let services = Services::new(offer.node.clone(), stop.clone());
    let mut starting = Starting { offer, services, tasks: JoinSet::new(), stop };
    let Listeners { public, private, post, tls, json, json_origins, metrics } = listeners;
    let (tls, secrets) = match tls {
        Some((listener, tls)) => (Some(listener), Some(tls.read()?)),
        None => (None, None),
    };
    let with_certificates = match secrets {
        Some(secrets) => for_known().tls_config(secrets).map_err(StartError::Tls)?,
        None => for_known(),
    };
    Ok(Running {
        public: starting.grpc("public gRPC", public.as_ref(), for_everybody()).await?,
        private: starting.grpc("private gRPC", private.as_ref(), for_known()).await?,
        post: starting.grpc("proving services", post.as_ref(), for_known()).await?,
        tls: starting.grpc("proving services with certificates", tls, with_certificates).await?,
        json: match json {
            Some(address) => {
                let services = public.as_ref().map(|public| &*public.services).filter(|services| !services.is_empty());
                let services = services.ok_or(StartError::NothingForJson)?;
                let routes = starting.routes("JSON", services)?;
                let router = gateway::router(services, routes)?.merge(http::health(offer.node.clone()));
                Some(starting.http("JSON", *address, router.layer(cors(json_origins)?)).await?)
            }
            None => None,
        },
        metrics: match metrics {
            Some(address) => {
                let page = offer.metrics.clone().map(|handle| metrics::router(handle, offer.node.clone()));
                let router = page.unwrap_or_default().merge(http::health(offer.node.clone()));
                Some(starting.http("metrics", *address, router).await?)
            }
            None => None,
        },
        tasks: starting.tasks,
    })
}

/// Listeners that are there already. Dropped, they end.
struct Starting<'a> {
    offer: &'a Offer,
    services: Services,
    tasks: JoinSet<()>,
    stop: watch::Receiver<bool>,
}

impl Starting<'_> {
    /// The services of a listener, whose calls are counted.
    fn routes(&self, what: &'static str, services: &[Service]) -> Result<Routes, StartError> {
        macro_rules! limited {
            ($server:ident) => {
                $server::new(self.services.clone()).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
            };
        }
        let mut routes = Routes::default();
        for (before, service) in services.iter().enumerate() {
            if services[..before].contains(service) {
                return Err(StartError::Twice { what, service: *service });
            }
            routes = match service {
                Service::Node => routes.add_service(limited!(NodeServiceServer)),
                Service::Mesh => routes.add_service(limited!(MeshServiceServer)),
                Service::Activation => routes.add_service(limited!(ActivationServiceServer)),
                Service::Admin => routes.add_service(limited!(AdminServiceServer)),
                Service::Smesher => routes.add_service(limited!(SmesherServiceServer)),
                Service::Overview => routes.add_service(limited!(OverviewServiceServer)),
                Service::Post => (self.offer.post)(routes),
                Service::PostInfo => (self.offer.post_info)(routes),
                Service::NetworkV2Alpha1 => routes.add_service(limited!(NetworkV2Alpha1Server)),
                Service::NetworkV2Beta1 => routes.add_service(limited!(NetworkV2Beta1Server)),
                Service::NodeV2Alpha1 => routes.add_service(limited!(NodeV2Alpha1Server)),
                Service::NodeV2Beta1 => routes.add_service(limited!(NodeV2Beta1Server)),
            };
        }
        Ok(Routes::from(routes.into_axum_router().layer(axum::middleware::from_fn(metrics::count))))
    }

    async fn bind(&self, what: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
        let failed = |source| StartError::Listen { what, address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        tracing::info!(address = %bound, "listening for {what}");
        Ok((listener, bound))
    }

    async fn http(&mut self, what: &'static str, address: SocketAddr, router: Router) -> Result<SocketAddr, StartError> {
        let (listener, bound) = self.bind(what, address).await?;
        self.tasks.spawn(http::serve(listener, router, self.stop.clone()));
        Ok(bound)
    }

    async fn grpc(
        &mut self,
        what: &'static str,
        listener: Option<&Listener>,
        mut server: Server,
    ) -> Result<Option<SocketAddr>, StartError> {
        let Some(Listener { address, services }) = listener.filter(|listener| !listener.services.is_empty()) else {
            return Ok(None);
        };
        let routes = described(self.routes(what, services)?, services).await?;
        let (listener, bound) = self.bind(what, *address).await?;
        let incoming = Incoming::new(listener, CONNECTIONS);
        let (mut told, mut stop) = (self.stop.clone(), self.stop.clone());
        let serving = server.add_routes(routes).serve_with_incoming_shutdown(incoming, async move {
            stopped(&mut told).await;
        });
        self.tasks.spawn(async move {
            tokio::select! {
                outcome = serving => {
                    if let Err(error) = outcome {
                        tracing::error!(%error, "no more {what}");
                    }
                }
                // clients that hold on are not waited for
                () = async {
                    stopped(&mut stop).await;
                    tokio::time::sleep(DRAIN).await;
                } => {}
            }
        });
        Ok(Some(bound))
    }
}

/// A server for whoever comes: connections are looked after every minute and end after three hours (api.md section 1).
fn for_everybody() -> Server {
    for_known()
        .http2_keepalive_interval(Some(Duration::from_secs(60)))
        .max_connection_age(Duration::from_secs(3 * 3600))
        .max_connection_age_grace(Duration::from_secs(600))
}

/// A server for the operator's own programs.
fn for_known() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(600)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION)
}

/// Adds what tells about the services: reflection, in the version of today and in the one that older tools speak, and health.
async fn described(routes: Routes, services: &[Service]) -> Result<Routes, StartError> {
    let reflection = || {
        let builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(grpc::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name(HEALTH);
        services.iter().fold(builder, |builder, service| builder.with_service_name(service.name()))
    };
    let broken = |error: tonic_reflection::server::Error| StartError::Descriptors(error.to_string());
    let (reporter, health) = tonic_health::server::health_reporter();
    for service in services {
        reporter.set_service_status(service.name(), tonic_health::ServingStatus::Serving).await;
    }
    Ok(routes
        .add_service(reflection().build_v1().map_err(broken)?)
        .add_service(reflection().build_v1alpha().map_err(broken)?)
        .add_service(health))
}

/// Waits for the stop; whoever would tell it being gone is one too.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Which web pages may ask.
fn cors(origins: &[String]) -> Result<CorsLayer, StartError> {
    let layer = CorsLayer::new().allow_methods([Method::GET, Method::POST]).allow_headers(Any);
    if origins.iter().any(|origin| origin == "*") {
        return Ok(layer.allow_origin(Any));
    }
    let values = origins.iter().map(|origin| HeaderValue::from_str(origin).map_err(|_| StartError::Origin(origin.clone())));
    Ok(layer.allow_origin(AllowOrigin::list(values.collect::<Result<Vec<_>, _>>()?)))
}
