//! The stream to a node (`docs/spec/post.md` section 15): the node asks, every request is answered once and in order.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use proto::grpc::spacemesh_v1::{ServiceResponse, post_service_client::PostServiceClient};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity as TlsIdentity};

use super::{
    config::{IdentityConfig, Tls},
    identity::Identity,
};
use crate::program::{Failure, chain};

/// Largest message, both ways (post.md section 15.1).
const MAX_MESSAGE: usize = 10 << 20;
/// Client keepalive (post.md section 15.2).
const PING_EVERY: Duration = Duration::from_secs(10 * 60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a connection could not be made or has ended.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    /// A certificate or key cannot be read.
    #[error("failed to read {path}: {source}")]
    Pem {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// No connection.
    #[error("failed to connect: {0}")]
    Connect(#[from] tonic::transport::Error),
    /// The node refused the stream or broke it off.
    #[error("the node ended the stream: {0}")]
    Ended(Box<tonic::Status>),
}

/// The address of a node in its full form.
pub fn parse_address(address: &str) -> Result<String, String> {
    if address.is_empty() {
        return Err("the address of the node is missing".to_owned());
    }
    let full = match address.split_once("://") {
        None => format!("http://{address}"),
        Some(("http" | "https", _)) => address.to_owned(),
        Some((scheme, _)) => return Err(format!("{address}: {scheme} is neither http nor https")),
    };
    let uri: tonic::transport::Uri = full.parse().map_err(|e| format!("{address} is not an address: {e}"))?;
    if uri.host().is_none_or(str::is_empty) {
        return Err(format!("{address} has no host"));
    }
    Ok(full.trim_end_matches('/').to_owned())
}

fn pem(path: &std::path::Path) -> Result<Vec<u8>, StreamError> {
    std::fs::read(path).map_err(|source| StreamError::Pem { path: path.display().to_string(), source })
}

fn tls(config: &Tls) -> Result<ClientTlsConfig, StreamError> {
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(pem(&config.ca_cert)?))
        .identity(TlsIdentity::from_pem(pem(&config.cert)?, pem(&config.key)?));
    if let Some(domain) = &config.domain {
        tls = tls.domain_name(domain);
    }
    Ok(tls)
}

async fn connect(config: &IdentityConfig) -> Result<Channel, StreamError> {
    let mut endpoint = Endpoint::from_shared(config.node.clone())?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT);
    if let Some(files) = config.tls.as_ref().filter(|_| config.node.starts_with("https:")) {
        endpoint = endpoint.tls_config(tls(files)?)?;
    }
    Ok(endpoint.connect().await?)
}

/// Answers requests until the stream ends.
async fn answer(identity: &Arc<Identity>, channel: Channel) -> Result<(), StreamError> {
    let mut client =
        PostServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
    let (responses, outgoing) = mpsc::channel::<ServiceResponse>(1);
    let ended = |status| StreamError::Ended(Box::new(status));
    let mut requests = client.register(ReceiverStream::new(outgoing)).await.map_err(ended)?.into_inner();
    identity.connected.store(true, Ordering::Relaxed);
    tracing::info!(identity = %identity.node_id(), "registered with the node");
    while let Some(request) = requests.message().await.map_err(ended)? {
        // Bounded: a node that asks without reading answers waits here.
        if responses.send(identity.answer(request)).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Keeps the identity registered with its node, for ever or until the allowed tries are used up.
pub(super) async fn run(identity: Arc<Identity>, failed: mpsc::Sender<Failure>) {
    let mut tries = 0_u64;
    loop {
        let config = identity.config();
        match connect(&config).await {
            Ok(channel) => {
                tries = 0;
                let ended = answer(&identity, channel).await;
                identity.connected.store(false, Ordering::Relaxed);
                match ended {
                    Ok(()) => tracing::info!(identity = %identity.node_id(), "the node has closed the stream"),
                    Err(error) => tracing::warn!(identity = %identity.node_id(), "{}", chain(&error)),
                }
            }
            Err(error) => {
                tries += 1;
                tracing::warn!(identity = %identity.node_id(), node = config.node, "{}", chain(&error));
                if let Some(max) = config.reconnect.max_retries.filter(|max| tries > *max) {
                    // Whoever receives it ends the program; there is room for one.
                    let _ = failed.try_send(Failure::Failed(format!("max retries ({max}) reached").into()));
                    return;
                }
            }
        }
        let doubled = config.reconnect.interval.saturating_mul(1 << tries.saturating_sub(1).min(10));
        let most = config.reconnect.at_most.max(config.reconnect.interval);
        tokio::time::sleep(Duration::from_secs(doubled.min(most))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_scheme_in_the_end() {
        assert_eq!(parse_address("127.0.0.1:9094").unwrap(), "http://127.0.0.1:9094");
        assert_eq!(parse_address("https://node:1/").unwrap(), "https://node:1");
        assert_eq!(parse_address("http://[::1]:5").unwrap(), "http://[::1]:5");
        for bad in ["", "ftp://a:1", "unix:///tmp/x", "http://", "http://a b"] {
            assert!(parse_address(bad).is_err(), "{bad}");
        }
    }
}
