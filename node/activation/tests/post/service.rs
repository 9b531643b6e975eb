//! A proving service that does what a test tells it, and the node that it dials.

use std::{net::SocketAddr, time::Duration};

use activation::post_service::{PostServices, Timing};
use proto::{
    grpc::spacemesh_v1::{
        GenProofResponse, GenProofStatus, Metadata, MetadataResponse, NodeRequest, Proof, ProofMetadata, ServiceResponse,
        node_request, post_service_client::PostServiceClient, service_response,
    },
    ids::NodeId,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Status, Streaming,
    transport::{Endpoint, server::TcpIncoming},
};

/// Long enough for a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const A: NodeId = NodeId([0xa; 32]);
pub(crate) const B: NodeId = NodeId([0xb; 32]);

/// Asks again at once, and waits long for answers.
pub(crate) const QUICK: Timing =
    Timing { metadata: PATIENCE, answer: PATIENCE, again: Duration::from_millis(20), warn: Duration::from_millis(20) };

/// A node that knows the identities [`A`] and [`B`].
pub(crate) struct Node {
    pub(crate) services: PostServices,
    pub(crate) address: SocketAddr,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) serving: JoinHandle<()>,
}

impl Node {
    pub(crate) async fn start(timing: Timing) -> Self {
        let services = PostServices::new(timing);
        services.register_identity(A, "a.key");
        services.register_identity(B, "b.key");
        services.allow(true);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, (stop, mut told)) = (listener.local_addr().unwrap(), watch::channel(false));
        let served = services.clone();
        let serving = tokio::spawn(async move {
            let server = tonic::transport::Server::builder()
                .add_service(served.post_service())
                .add_service(served.post_info_service())
                .serve_with_incoming_shutdown(TcpIncoming::from(listener), async {
                    let _ = told.wait_for(|stop| *stop).await;
                    // streams do not end by themselves
                    served.close();
                });
            server.await.unwrap();
        });
        Self { services, address, stop, serving }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap()
    }

    /// A service that has connected and said nothing yet.
    pub(crate) async fn dial(&self) -> Service {
        Service::over(self.endpoint()).await.unwrap()
    }

    /// The service of an identity, registered.
    pub(crate) async fn service(&self, id: NodeId) -> Service {
        let mut service = self.dial().await;
        service.register(id).await;
        wait("the registration counts", || self.is_connected(id)).await;
        service
    }

    pub(crate) fn is_connected(&self, id: NodeId) -> bool {
        self.services.states().iter().any(|state| state.id == id && state.service.is_some())
    }
}

pub(crate) async fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !done() {
        assert!(tokio::time::Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) struct Service {
    pub(crate) answers: mpsc::Sender<ServiceResponse>,
    requests: Streaming<NodeRequest>,
}

/// What an honest service says of its data.
pub(crate) fn metadata(id: NodeId) -> Metadata {
    Metadata { node_id: id.0.to_vec(), commitment_atx_id: vec![7; 32], nonce: Some(77), num_units: 5, labels_per_unit: 128 }
}

pub(crate) fn pending() -> GenProofResponse {
    GenProofResponse { status: GenProofStatus::Ok.into(), proof: None, metadata: None }
}

/// An honest proof, as far as the protocol goes.
pub(crate) fn done(id: NodeId, challenge: &[u8]) -> GenProofResponse {
    GenProofResponse {
        status: GenProofStatus::Ok.into(),
        proof: Some(Proof { nonce: 3, indices: vec![1, 2, 3], pow: 9 }),
        metadata: Some(ProofMetadata { challenge: challenge.to_vec(), meta: Some(metadata(id)) }),
    }
}

impl Service {
    pub(crate) async fn over(endpoint: Endpoint) -> Result<Self, Status> {
        let channel = endpoint.connect().await.map_err(|e| Status::unavailable(format!("{e:?}")))?;
        let (answers, outgoing) = mpsc::channel(4);
        let requests = PostServiceClient::new(channel).register(ReceiverStream::new(outgoing)).await?.into_inner();
        Ok(Self { answers, requests })
    }

    /// The next request.
    pub(crate) async fn asked(&mut self) -> Result<node_request::Kind, Status> {
        let request = timeout(PATIENCE, self.requests.message()).await.expect("the node says nothing")?;
        Ok(request.ok_or_else(|| Status::ok("the end"))?.kind.unwrap())
    }

    /// The next request, which is for a proof.
    pub(crate) async fn challenge(&mut self) -> Vec<u8> {
        match self.asked().await.unwrap() {
            node_request::Kind::GenProof(request) => request.challenge,
            node_request::Kind::Metadata(_) => panic!("metadata asked for again"),
        }
    }

    /// How the node ends the stream.
    pub(crate) async fn end(&mut self) -> Status {
        self.asked().await.expect_err("the stream goes on")
    }

    pub(crate) async fn say(&self, kind: service_response::Kind) {
        // A node that has ended the stream hears nothing.
        let _ = self.answers.send(ServiceResponse { kind: Some(kind) }).await;
    }

    pub(crate) async fn say_metadata(&self, meta: Option<Metadata>) {
        self.say(service_response::Kind::Metadata(MetadataResponse { meta })).await;
    }

    pub(crate) async fn say_proof(&self, response: GenProofResponse) {
        self.say(service_response::Kind::GenProof(response)).await;
    }

    pub(crate) async fn register(&mut self, id: NodeId) {
        assert!(matches!(self.asked().await.unwrap(), node_request::Kind::Metadata(_)));
        self.say_metadata(Some(metadata(id))).await;
    }
}
