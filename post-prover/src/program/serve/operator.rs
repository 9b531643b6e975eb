//! What operators and their tools see: `/status` in the deployed form (`docs/spec/post.md` section 15.4), `/identities` with
//! everything, `/health`, and `/metrics` for Prometheus.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::identity::Identity;

type Identities = watch::Receiver<Vec<Arc<Identity>>>;

/// Which identity is meant.
#[derive(Debug, Deserialize)]
struct Which {
    node_id: Option<String>,
}

/// The operator API for the identities in the list.
pub fn router(identities: Identities) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/identities", get(report))
        .route("/health", get(|| async { "ok" }))
        .route("/metrics", get(metrics))
        .with_state(identities)
}

/// Of several identities the one asked for, else one that is proving, else one that is done, else idle.
async fn status(State(identities): State<Identities>, Query(which): Query<Which>) -> Response {
    let list = identities.borrow().clone();
    if let Some(id) = which.node_id {
        return match list.iter().find(|identity| identity.node_id().to_string() == id) {
            Some(identity) => Json(identity.status()).into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        };
    }
    let all: Vec<Value> = list.iter().map(|identity| identity.status()).collect();
    let best = all.iter().find(|s| s.is_object()).or_else(|| all.iter().find(|s| *s != "Idle"));
    Json(best.cloned().unwrap_or_else(|| json!("Idle"))).into_response()
}

async fn report(State(identities): State<Identities>) -> Json<Value> {
    let list = identities.borrow().clone();
    Json(list.iter().map(|identity| identity.report()).collect())
}

async fn metrics(State(identities): State<Identities>) -> Response {
    let list = identities.borrow().clone();
    let mut by_name: BTreeMap<&str, String> = BTreeMap::new();
    for identity in &list {
        for (name, value) in identity.metrics() {
            let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
            let text = by_name.entry(name).or_insert_with(|| format!("# TYPE {name} {kind}\n"));
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name}{{identity=\"{}\"}} {value}", identity.node_id());
        }
    }
    let text: String = by_name.into_values().collect();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}
