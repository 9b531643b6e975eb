//! Serves HTTP/1.1: JSON, metrics and health.

use std::{pin::pin, time::Duration};

use axum::{Json, Router, response::IntoResponse, routing::get};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, sync::watch, task::JoinSet, time::timeout};
use tokio_stream::StreamExt as _;

use crate::{
    accept::{Connection, Incoming},
    listen::{CONNECTIONS, DRAIN, stopped},
};

/// How long a client may take for its headers (api.md section 1), and for its body.
pub(crate) const READ_WITHIN: Duration = Duration::from_secs(15);

/// Room for headers on a connection: 64 KiB. Deployed nodes have 2 MiB, which nobody needs.
const HEADERS: usize = 64 * 1024;

/// Serves `router` until `stop` turns true, and running requests a little longer.
pub(crate) async fn serve(listener: TcpListener, router: Router, mut stop: watch::Receiver<bool>) {
    let mut incoming = Incoming::new(listener, CONNECTIONS);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stopped(&mut stop) => break,
            Some(_) = connections.join_next() => {}
            Some(Ok(accepted)) = incoming.next() => {
                connections.spawn(connection(accepted, router.clone(), stop.clone()));
            }
        }
    }
    drop(incoming);
    // what is left after that ends when the set is dropped
    let _ = timeout(DRAIN, async { while connections.join_next().await.is_some() {} }).await;
}

async fn connection(stream: Connection, router: Router, mut stop: watch::Receiver<bool>) {
    let mut server = auto::Builder::new(TokioExecutor::new()).http1_only();
    server.http1().timer(TokioTimer::new()).header_read_timeout(READ_WITHIN).max_buf_size(HEADERS);
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    // errors of a connection are the client's business
    tokio::select! {
        _ = connection.as_mut() => {}
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// `GET /health`: the node runs. Whether it knows the network says the body.
pub(crate) fn health(node: std::sync::Arc<dyn crate::node::Node>) -> Router {
    let answer = move || {
        let status = node.status();
        let body = serde_json::json!({ "status": "ok", "synced": status.synced, "peers": status.connected_peers });
        std::future::ready(Json(body).into_response())
    };
    Router::new().route("/health", get(answer))
}
