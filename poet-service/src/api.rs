//! REST and gRPC (poet.md section 5): the same answers on both.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use axum::{
    Extension, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Path, Query, State, rejection::BytesRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use prost::Message as _;
use proto::{
    grpc::{self, poet_v1 as wire},
    span::{ParseSpanError, Span},
};
use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};
use tower_layer::Layer as _;

use crate::{
    json,
    metrics::Call,
    schedule::RoundId,
    service::{EncodedProof, Failure, Service, now},
    store::Store as _,
};

/// The largest body of a submission; honest ones have less than one kilobyte.
const MAX_BODY: usize = 16 * 1024;

/// How long a client may take to send its headers, and its body.
const HEADERS_WITHIN: Duration = Duration::from_secs(5);
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// How long running requests may go on after a stop.
const DRAIN: Duration = Duration::from_secs(1);

fn status(code: tonic::Code) -> StatusCode {
    match code {
        tonic::Code::Ok => StatusCode::OK,
        tonic::Code::InvalidArgument | tonic::Code::FailedPrecondition => StatusCode::BAD_REQUEST,
        tonic::Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        tonic::Code::NotFound => StatusCode::NOT_FOUND,
        tonic::Code::AlreadyExists => StatusCode::CONFLICT,
        tonic::Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        tonic::Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        tonic::Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn answer(status: StatusCode, value: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        answer(status(self.code), &json::error(self.code as i32, &self.message))
    }
}

impl From<Failure> for tonic::Status {
    fn from(failure: Failure) -> Self {
        Self::new(failure.code, failure.message)
    }
}

/// The REST side.
pub fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route("/v1/info", get(info))
        .route("/v1/pow_params", get(pow_params))
        .route("/v1/submit", post(submit))
        .route("/v1/proofs/{round}", get(proof))
        .method_not_allowed_fallback(async || Failure::new(tonic::Code::Unimplemented, "Method Not Allowed"))
        .fallback(async || Failure::new(tonic::Code::NotFound, "Not Found"))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(axum::middleware::from_fn_with_state(service.clone(), count))
        .with_state(service)
}

/// Address of the other end of a connection.
#[derive(Debug, Clone, Copy)]
struct Peer(IpAddr);

/// Who asks: the other end of the connection, or whom a proxy on this machine names. Nobody where it names none.
fn client(Peer(peer): Peer, headers: &HeaderMap) -> Option<IpAddr> {
    if !peer.to_canonical().is_loopback() {
        return Some(peer);
    }
    let named = headers.get_all("x-forwarded-for").iter().next_back()?.to_str().ok()?;
    named.rsplit(',').next()?.trim().parse().ok()
}

fn too_often(service: &Service, client: Option<IpAddr>) -> Result<(), Failure> {
    if client.is_none_or(|client| service.limiter.allows(client, Instant::now())) {
        return Ok(());
    }
    service.counters.limited.fetch_add(1, Ordering::Relaxed);
    Err(Failure::new(tonic::Code::ResourceExhausted, "too many requests"))
}

async fn count(
    State(service): State<Arc<Service>>,
    Extension(peer): Extension<Peer>,
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> Response {
    let response = match too_often(&service, client(peer, request.headers())) {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    };
    let class = match response.status().as_u16() {
        ..400 => 0,
        400..500 => 1,
        _ => 2,
    };
    service.counters.requests[class].fetch_add(1, Ordering::Relaxed);
    response
}

async fn info(State(service): State<Arc<Service>>) -> Result<Response, Failure> {
    let info = service.counters.call(Call::Info, async { Ok(service.info()) }).await?;
    Ok(answer(StatusCode::OK, &json::info(&info)))
}

async fn pow_params(State(service): State<Arc<Service>>) -> Result<Response, Failure> {
    let params = service.counters.call(Call::PowParams, async { Ok(service.pow_params()) }).await?;
    Ok(answer(StatusCode::OK, &json::pow_params(&params)))
}

async fn submit(State(service): State<Arc<Service>>, request: axum::extract::Request) -> Result<Response, Failure> {
    let invalid = |text: String| Failure::new(tonic::Code::InvalidArgument, text);
    let body = tokio::time::timeout(BODY_WITHIN, <Bytes as axum::extract::FromRequest<()>>::from_request(request, &()));
    let body = body.await.map_err(|_| invalid("the body did not arrive in time".into()))?;
    let body = body.map_err(|rejection| match rejection {
        BytesRejection::FailedToBufferBody(_) => invalid(format!("the body is larger than {MAX_BODY} bytes or broken")),
        other => invalid(other.body_text()),
    })?;
    let request = json::submit_request(&body).map_err(|error| invalid(error.to_string()))?;
    let response = service.counters.call(Call::Submit, service.submit(request)).await?;
    Ok(answer(StatusCode::OK, &json::submit_response(&response)))
}

async fn proof(State(service): State<Arc<Service>>, Path(round): Path<String>, headers: HeaderMap) -> Result<Response, Failure> {
    let proof = service.counters.call(Call::Proof, service.proof(&round)).await?;
    // a record never changes, so its round names it
    let tag =
        HeaderValue::from_str(&format!("\"round-{round}-{}\"", proof.leaves)).unwrap_or(HeaderValue::from_static("\"round\""));
    let mut response = if headers.get(header::IF_NONE_MATCH) == Some(&tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let takes_gzip = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        let takes_gzip = takes_gzip.flat_map(|value| value.split(',')).any(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            parts.next() == Some("gzip") && parts.next() != Some("q=0")
        });
        let EncodedProof { json, gzip, .. } = &*proof;
        if takes_gzip && !gzip.is_empty() {
            ([(header::CONTENT_ENCODING, "gzip")], Body::from(gzip.clone())).into_response()
        } else {
            Body::from(json.clone()).into_response()
        }
    };
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
    fields.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    fields.insert(header::ETAG, tag);
    Ok(response)
}

/// Serves `router` on `listener` until `stop` changes: at most `connections` at once, the others wait.
pub async fn serve(listener: TcpListener, router: Router, connections: usize, mut stop: watch::Receiver<bool>) {
    let graceful = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(connections));
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS_WITHIN).max_buf_size(32 * 1024);
    loop {
        let slot = tokio::select! {
            slot = slots.clone().acquire_owned() => slot,
            _ = stop.changed() => break,
        };
        let Ok(slot) = slot else { break };
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.changed() => break,
        };
        let (stream, peer) = match stream {
            Ok(accepted) => accepted,
            // out of descriptors, or the client is gone already
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let answering = Extension(Peer(peer.ip())).layer(router.clone());
        let connection = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(answering));
        let connection = graceful.watch(connection.into_owned());
        tokio::spawn(async move {
            // errors of a connection are the client's business
            let _ = connection.await;
            drop(slot);
        });
    }
    let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
}

/// The gRPC side of [`Service`].
struct PoetGrpc(Arc<Service>);

impl PoetGrpc {
    async fn answer<I, O>(
        &self,
        call: Call,
        request: &tonic::Request<I>,
        work: impl Future<Output = Result<O, Failure>>,
    ) -> Result<tonic::Response<O>, tonic::Status> {
        // no proxies here: gRPC is for clients of this machine and its neighbours
        let client = request.remote_addr().map(|address| address.ip()).filter(|ip| !ip.to_canonical().is_loopback());
        let work = async {
            too_often(&self.0, client)?;
            work.await
        };
        Ok(tonic::Response::new(self.0.counters.call(call, work).await?))
    }
}

#[tonic::async_trait]
impl wire::poet_service_server::PoetService for PoetGrpc {
    async fn pow_params(
        &self,
        request: tonic::Request<wire::PowParamsRequest>,
    ) -> Result<tonic::Response<wire::PowParamsResponse>, tonic::Status> {
        self.answer(Call::PowParams, &request, async { Ok(self.0.pow_params()) }).await
    }

    async fn submit(
        &self,
        request: tonic::Request<wire::SubmitRequest>,
    ) -> Result<tonic::Response<wire::SubmitResponse>, tonic::Status> {
        self.answer(Call::Submit, &request, self.0.submit(request.get_ref().clone())).await
    }

    async fn info(
        &self,
        request: tonic::Request<wire::InfoRequest>,
    ) -> Result<tonic::Response<wire::InfoResponse>, tonic::Status> {
        self.answer(Call::Info, &request, async { Ok(self.0.info()) }).await
    }

    async fn proof(
        &self,
        request: tonic::Request<wire::ProofRequest>,
    ) -> Result<tonic::Response<wire::ProofResponse>, tonic::Status> {
        let work = async {
            let proof = self.0.proof(&request.get_ref().round_id).await?;
            let most = self.0.settings.max_grpc_answer;
            let too_long = || {
                let text = format!("the proof has more than {most} bytes: ask for it over REST");
                Failure::new(tonic::Code::OutOfRange, text)
            };
            proof.grpc.clone().filter(|frame| frame.len() <= most).ok_or_else(too_long)
        };
        let (metadata, frame, mut extensions) = self.answer(Call::Proof, &request, work).await?.into_parts();
        extensions.insert(Frame(frame));
        Ok(tonic::Response::from_parts(metadata, wire::ProofResponse::default(), extensions))
    }
}

/// A message that was encoded before, with its length in front of it. It travels beside an empty message and takes its place
/// ([`send_frame`]): a proof is shared by all requests, however many there are and however slowly they read.
#[derive(Clone)]
struct Frame(Bytes);

/// Sends the frame that comes with an answer in place of its message.
async fn send_frame(mut response: Response) -> Response {
    let Some(Frame(frame)) = response.extensions_mut().remove() else { return response };
    let mut trailers = HeaderMap::new();
    trailers.insert(tonic::Status::GRPC_STATUS, (tonic::Code::Ok as i32).into());
    response.map(|_| Body::new(Full::new(frame).with_trailers(std::future::ready(Some(Ok(trailers))))))
}

/// A record as it is sent over gRPC: not compressed, length, message. Nothing if it is too long for that.
pub fn proof_frame(record: &crate::store::Record) -> Option<Bytes> {
    let message = proof_response(record);
    let length = u32::try_from(message.encoded_len()).ok()?;
    let mut frame = [&[0][..], &length.to_be_bytes()].concat();
    // memory grows, so that there is always room
    message.encode(&mut frame).ok()?;
    Some(frame.into())
}

/// A record as its message.
pub fn proof_response(record: &crate::store::Record) -> wire::ProofResponse {
    let merkle = &record.proof.merkle;
    let bytes = |elements: &[proto::poet::Element]| elements.iter().map(|element| element.to_vec()).collect();
    wire::ProofResponse {
        proof: Some(wire::PoetProof {
            proof: Some(wire::MerkleProof {
                root: merkle.root.to_vec(),
                proven_leaves: bytes(&merkle.proven_leaves),
                proof_nodes: bytes(&merkle.proof_nodes),
            }),
            members: record.members.iter().map(|member| member.to_vec()).collect(),
            leaves: record.proof.leaf_count.0,
        }),
        pubkey: record.pubkey.to_vec(),
    }
}

/// What reloads the trusted keys; the text of its error goes to the client.
pub type Reload = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

struct ConfigurationGrpc(Arc<Service>, Reload);

#[tonic::async_trait]
impl wire::configuration_service_server::ConfigurationService for ConfigurationGrpc {
    async fn reload_trusted_keys(
        &self,
        _: tonic::Request<wire::ReloadTrustedKeysRequest>,
    ) -> Result<tonic::Response<wire::ReloadTrustedKeysResponse>, tonic::Status> {
        let reload = async { (self.1)().map_err(|text| Failure::new(tonic::Code::Unknown, text)) };
        self.0.counters.call(Call::ReloadTrustedKeys, reload).await?;
        Ok(tonic::Response::new(wire::ReloadTrustedKeysResponse {}))
    }
}

/// Which of the gRPC services a listener offers.
pub enum Offer {
    /// For nodes.
    Poet(Arc<Service>),
    /// For the operator.
    Configuration(Arc<Service>, Reload),
}

/// Serves gRPC, with reflection, until `stop` changes.
pub async fn serve_grpc(
    listener: TcpListener,
    offer: Offer,
    mut stop: watch::Receiver<bool>,
) -> Result<(), tonic::transport::Error> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(grpc::DESCRIPTORS)
        .build_v1()
        .map_err(|error| tracing::error!(%error, "no reflection"))
        .ok();
    let mut server = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(60)))
        .http2_keepalive_timeout(Some(Duration::from_secs(180)))
        .concurrency_limit_per_connection(256);
    let mut routes = tonic::service::Routes::builder();
    match offer {
        Offer::Poet(service) => routes.add_service(wire::poet_service_server::PoetServiceServer::new(PoetGrpc(service))),
        Offer::Configuration(service, reload) => {
            let server = ConfigurationGrpc(service, reload);
            routes.add_service(wire::configuration_service_server::ConfigurationServiceServer::new(server))
        }
    };
    if let Some(reflection) = reflection {
        routes.add_service(reflection);
    }
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    let router = routes.routes().into_axum_router().layer(axum::middleware::map_response(send_frame));
    let serving = server.add_routes(router.into()).serve_with_incoming_shutdown(incoming, {
        let mut stop = stop.clone();
        async move {
            let _ = stop.changed().await;
        }
    });
    tokio::select! {
        outcome = serving => outcome,
        () = async {
            let _ = stop.changed().await;
            tokio::time::sleep(DRAIN).await;
        } => Ok(()),
    }
}

/// The metrics page.
pub fn metrics_router(page: impl Fn() -> String + Clone + Send + Sync + 'static) -> Router {
    Router::new().route("/metrics", get(async move || page())).route("/health", get(async || "ok\n"))
}

/// The operator's page. For loopback only.
pub fn admin_router(service: Arc<Service>) -> Router {
    Router::new()
        .route("/v1/rounds", get(admin_rounds))
        .route("/v1/rounds/{round}/members", get(admin_members))
        .route("/v1/pause", post(async |State(service): State<Arc<Service>>| admin_pause(&service, true).await))
        .route("/v1/resume", post(async |State(service): State<Arc<Service>>| admin_pause(&service, false).await))
        .route("/v1/hold", post(async |State(service): State<Arc<Service>>| admin_hold(&service, true).await))
        .route("/v1/release", post(async |State(service): State<Arc<Service>>| admin_hold(&service, false).await))
        .route("/v1/phase-change/{shift}", post(admin_phase_change))
        .route("/v1/backup/{name}", post(admin_backup))
        .method_not_allowed_fallback(async || Failure::new(tonic::Code::Unimplemented, "Method Not Allowed"))
        .fallback(async || Failure::new(tonic::Code::NotFound, "Not Found"))
        .with_state(service)
}

async fn admin_rounds(State(service): State<Arc<Service>>) -> Result<Response, Failure> {
    let snapshot = service.snapshot();
    let reading = service.clone();
    let closed = blocking(move || reading.rounds()).await?;
    let closed: Vec<Value> = closed
        .into_iter()
        .map(|(round, members, finished)| serde_json::json!({ "round": round.0, "members": members, "finished": finished }))
        .collect();
    let schedule = snapshot.schedule;
    let running = snapshot.running.map(|(round, members)| {
        let progress = &service.progress;
        serde_json::json!({
            "round": round.0,
            "members": members,
            "leaves": progress.leaves.load(Ordering::Relaxed),
            "leaves_per_second": progress.rate.load(Ordering::Relaxed),
            "share_of_bound_permille": progress.share_of_bound.load(Ordering::Relaxed),
            "ends_in_seconds": schedule.end(round).since(now()).as_secs(),
        })
    });
    let value = serde_json::json!({
        "open": {
            "round": snapshot.open.0,
            "members": snapshot.members,
            "paused": snapshot.paused,
            "closes_in_seconds": schedule.start(snapshot.open).since(now()).as_secs(),
        },
        "running": running,
        "held_from": snapshot.held_from.map(|round| round.0),
        "phase_change": schedule.change().map(|change| phase_change(&change)),
        "closed": closed,
    });
    Ok(answer(StatusCode::OK, &value))
}

/// Work on the database, beside the threads that answer.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, crate::store::StoreError> + Send + 'static,
) -> Result<T, Failure> {
    let failed =
        |error: &dyn std::fmt::Display| Failure::new(tonic::Code::Internal, format!("failed to use the database: {error}"));
    tokio::task::spawn_blocking(work).await.map_err(|e| failed(&e))?.map_err(|e| failed(&e))
}

/// Members of one answer.
const PAGE_OF_MEMBERS: usize = 10_000;

#[derive(serde::Deserialize)]
struct AfterMember {
    /// Node id in hex: the last one of the page before.
    after: Option<String>,
}

async fn admin_members(
    State(service): State<Arc<Service>>,
    Path(round): Path<u32>,
    Query(query): Query<AfterMember>,
) -> Result<Response, Failure> {
    let mut after = None;
    if let Some(text) = query.after {
        let mut id = [0; 32];
        hex::decode_to_slice(text, &mut id)
            .map_err(|_| Failure::new(tonic::Code::InvalidArgument, "after: expected a node id in hex"))?;
        after = Some(proto::ids::NodeId(id));
    }
    let page = blocking(move || service.store().page_of_members(RoundId(round), after.as_ref(), PAGE_OF_MEMBERS)).await?;
    let members: Vec<Value> = page
        .iter()
        .map(|(member, challenge)| serde_json::json!({ "node_id": hex::encode(member.0), "challenge": hex::encode(challenge) }))
        .collect();
    let more = (page.len() == PAGE_OF_MEMBERS).then(|| page.last().map(|(member, _)| hex::encode(member.0))).flatten();
    Ok(answer(StatusCode::OK, &serde_json::json!({ "round": round, "members": members, "more_after": more })))
}

async fn admin_hold(service: &Service, held: bool) -> Result<Response, Failure> {
    service.hold(held).await?;
    Ok(answer(StatusCode::OK, &serde_json::json!({ "held_from": service.snapshot().held_from.map(|round| round.0) })))
}

fn phase_change(change: &crate::schedule::PhaseChange) -> Value {
    serde_json::json!({
        "last_round_before": change.last.0,
        "first_round_after": change.first.0,
        "phase_shift": Span(change.phase_shift).to_string(),
    })
}

async fn admin_phase_change(State(service): State<Arc<Service>>, Path(shift): Path<String>) -> Result<Response, Failure> {
    let Span(shift) =
        shift.parse().map_err(|error: ParseSpanError| Failure::new(tonic::Code::InvalidArgument, error.to_string()))?;
    let change = service.change_phase(shift).await?;
    Ok(answer(StatusCode::OK, &serde_json::json!({ "phase_change": change.as_ref().map(phase_change) })))
}

async fn admin_pause(service: &Service, paused: bool) -> Result<Response, Failure> {
    service.pause(paused).await?;
    Ok(answer(StatusCode::OK, &serde_json::json!({ "paused": paused })))
}

async fn admin_backup(State(service): State<Arc<Service>>, Path(name): Path<String>) -> Result<Response, Failure> {
    let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    let Some(folder) = service.settings.backup_folder.clone().filter(|_| plain) else {
        return Err(Failure::new(tonic::Code::InvalidArgument, "a backup is named with letters, digits, - and _"));
    };
    let path = folder.join(name);
    if path.exists() {
        return Err(Failure::new(tonic::Code::AlreadyExists, "there is a backup of that name"));
    }
    let written = path.clone();
    blocking(move || {
        std::fs::create_dir_all(&folder)?;
        service.store().backup(&written)
    })
    .await?;
    Ok(answer(StatusCode::OK, &serde_json::json!({ "backup": path })))
}
