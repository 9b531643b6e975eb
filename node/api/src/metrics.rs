//! What Prometheus reads: counters of calls, and how far the node is.

use std::{
    collections::HashSet,
    sync::{Arc, LazyLock},
};

use axum::{Router, extract::Request, middleware::Next, response::Response, routing::get};
use metrics::{counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use prost_reflect::DescriptorPool;
use proto::grpc::node_v1::IdentityState;

use crate::node::Node;

/// Makes the registry that all parts of the program count in; once, at its beginning.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new().install_recorder()?;
    describe_counter!("smesh_api_calls_total", "Calls answered, by their path and the name of their code.");
    describe_gauge!("smesh_node_layer", "The layer of the clock.");
    describe_gauge!("smesh_node_epoch", "The epoch of the clock.");
    describe_gauge!("smesh_node_latest_layer", "The latest layer seen.");
    describe_gauge!("smesh_node_synced", "1 if the node knows what the network knows.");
    describe_gauge!("smesh_node_peers", "Nodes it is connected to.");
    describe_gauge!("smesh_node_identity_state", "1 for the state that an identity is in.");
    describe_gauge!("smesh_node_identity_deadline_seconds", "The next deadline of an identity, in seconds since 1970.");
    Ok(handle)
}

/// `GET /metrics`.
pub(crate) fn router(handle: PrometheusHandle, node: Arc<dyn Node>) -> Router {
    let page = move || {
        measure(&*node);
        handle.run_upkeep();
        std::future::ready(handle.render())
    };
    Router::new().route("/metrics", get(page))
}

fn measure(node: &dyn Node) {
    let (status, timeline) = (node.status(), &node.constants().timeline);
    let now = node.now();
    gauge!("smesh_node_layer").set(timeline.layer_at(now).0);
    gauge!("smesh_node_epoch").set(timeline.epoch_at(now).0);
    gauge!("smesh_node_latest_layer").set(status.latest.0);
    gauge!("smesh_node_synced").set(u8::from(status.synced));
    gauge!("smesh_node_peers").set(status.connected_peers as f64);
    for identity in node.identities() {
        for state in STATES {
            let is = f64::from(u8::from(state == identity.state));
            gauge!("smesh_node_identity_state", "identity" => identity.id.to_string(), "state" => state.as_str_name()).set(is);
        }
        // 0 where there is none
        let deadline = identity.deadline.map_or(0.0, |(_, at)| at.0 as f64 / 1e9);
        gauge!("smesh_node_identity_deadline_seconds", "identity" => identity.id.to_string()).set(deadline);
    }
}

const STATES: [IdentityState; 11] = [
    IdentityState::WaitForAtxSynced,
    IdentityState::Retrying,
    IdentityState::WaitingForPoetRegistrationWindow,
    IdentityState::PoetChallengeReady,
    IdentityState::PoetRegistered,
    IdentityState::WaitForPoetRoundEnd,
    IdentityState::PoetProofReceived,
    IdentityState::GeneratingPostProof,
    IdentityState::PostProofReady,
    IdentityState::AtxReady,
    IdentityState::AtxBroadcasted,
];

/// The paths of all calls there are: others are counted as one.
static PATHS: LazyLock<HashSet<String>> = LazyLock::new(|| {
    let Ok(pool) = DescriptorPool::decode(proto::grpc::DESCRIPTORS) else { return HashSet::new() };
    let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
    methods.map(|method| format!("/{}/{}", method.parent_service().full_name(), method.name())).collect()
});

/// Counts a call of gRPC. Streams count when they begin.
pub(crate) async fn count(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let path = if PATHS.contains(path) { path.to_owned() } else { "other".to_owned() };
    let response = next.run(request).await;
    // the header is there where there is nothing but an error; the code of a good answer comes behind it
    let status = tonic::Status::from_header_map(response.headers());
    let code = status.map_or(tonic::Code::Ok, |status| status.code());
    counter!("smesh_api_calls_total", "call" => path, "code" => format!("{code:?}")).increment(1);
    response
}
