//! Where proving services dial to: plain on the same machine, over TLS from elsewhere.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{net::TcpListener, sync::watch};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig, server::TcpIncoming};
use zeroize::Zeroizing;

use super::PostServices;

/// Where post services expect a node.
pub const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9094);

/// Keepalive of the deployed node (post.md section 15.1).
const PING_EVERY: Duration = Duration::from_secs(10 * 60);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long connections may take to end after a stop.
const DRAIN: Duration = Duration::from_millis(500);

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// A certificate or key cannot be read.
    #[error("failed to read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The address cannot be listened on.
    #[error("failed to listen on {address} for post services: {source}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// Certificate or key are no good, or connections cannot be taken any more.
    #[error("failed to serve post services: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// PEM files for a listener that others than this machine may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The node's certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Certificates of the authority from which services must have theirs. Without it everybody may connect.
    pub clients: Option<PathBuf>,
}

impl TlsFiles {
    /// Reads the files, for any gRPC server that is to be reached like this.
    pub fn load(&self) -> Result<ServerTlsConfig, ListenError> {
        let read = |path: &Path| {
            std::fs::read(path).map(Zeroizing::new).map_err(|source| ListenError::Read { path: path.to_owned(), source })
        };
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(&*read(&self.certificate)?, &*read(&self.key)?));
        Ok(match &self.clients {
            Some(authority) => tls.client_ca_root(Certificate::from_pem(&*read(authority)?)),
            None => tls,
        })
    }
}

/// A place where proving services may connect. Until [`Listener::serve`] is called they wait.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    socket: TcpListener,
    server: Server,
}

impl Listener {
    /// Listens. Plain connections from other machines can be read and changed on the way: that is warned of.
    pub async fn bind(address: SocketAddr, tls: Option<&TlsFiles>) -> Result<Self, ListenError> {
        let mut server = Server::builder().http2_keepalive_interval(Some(PING_EVERY)).http2_keepalive_timeout(Some(PING_TIMEOUT));
        match tls {
            Some(files) => server = server.tls_config(files.load()?)?,
            None if !address.ip().is_loopback() => {
                tracing::warn!(%address, "post services of other machines can connect without TLS");
            }
            None => {}
        }
        let failed = |source| ListenError::Address { address, source };
        let socket = TcpListener::bind(address).await.map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        Ok(Self { address, socket, server })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves `PostService` and `PostInfoService` until `stop` becomes true or its sender is gone; then the services are closed.
    pub async fn serve(mut self, services: PostServices, mut stop: watch::Receiver<bool>) -> Result<(), ListenError> {
        let mut told = stop.clone();
        let shutdown = async move {
            // An error is a sender that is gone.
            let _ = told.wait_for(|stop| *stop).await;
        };
        let incoming = TcpIncoming::from(self.socket).with_nodelay(Some(true));
        let router = self.server.add_service(services.post_service()).add_service(services.post_info_service());
        let cut = async {
            let _ = stop.wait_for(|stop| *stop).await;
            services.close();
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            served = router.serve_with_incoming_shutdown(incoming, shutdown) => Ok(served?),
            () = cut => Ok(()),
        }
    }
}
