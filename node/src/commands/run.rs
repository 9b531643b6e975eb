//! `run`: a node at work.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use api::listen::{Listener, Listeners, Service, Tls};
use clap::{Args, ValueEnum};
use p2p::Multiaddr;
use proto::{ids::Address, preset::Preset};
use store::data_dir::{DataDir, Open};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use crate::{
    cli::{NetworkArgs, Stop},
    error::Error,
    running,
};

/// An address to listen on, or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At(Option<SocketAddr>);

impl std::str::FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" | "" => Ok(Self(None)),
            text => text
                .parse()
                .map(|address| Self(Some(address)))
                .map_err(|_| "expected an address such as 127.0.0.1:9092, or none".into()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Data directory of the node; made if it does not exist
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    #[command(flatten)]
    network: NetworkArgs,
    /// Configuration of the official node (.json), which names its preset or is mainnet's
    #[arg(long, value_name = "FILE", conflicts_with = "preset")]
    config: Option<Preset>,
    /// Account for the rewards; without it identities make no activations
    #[arg(long, value_name = "ADDRESS")]
    coinbase: Option<String>,
    /// What this node knows is all there is: for the first nodes of a network, when all were away for more than an epoch
    #[arg(long)]
    synced: bool,

    /// Where other nodes find this one, as multiaddress; default: that of the preset
    #[arg(long, value_name = "MULTIADDR", help_heading = "Other nodes")]
    listen: Vec<Multiaddr>,
    /// A node to ask first, with its peer id, beside those of the preset
    #[arg(long, value_name = "MULTIADDR", help_heading = "Other nodes")]
    bootnodes: Vec<Multiaddr>,
    /// A node to stay connected with always, with its peer id
    #[arg(long, value_name = "MULTIADDR", help_heading = "Other nodes")]
    direct: Vec<Multiaddr>,

    /// gRPC for everybody
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9092", help_heading = "Listeners (none: off)")]
    grpc_public_listener: At,
    /// gRPC for the operator; nobody else should reach it
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9093", help_heading = "Listeners (none: off)")]
    grpc_private_listener: At,
    /// Proving services of this machine
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9094", help_heading = "Listeners (none: off)")]
    grpc_post_listener: At,
    /// Proving services of other machines, which show a certificate
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "none",
        requires_all = ["grpc_tls_ca_cert", "grpc_tls_cert", "grpc_tls_key"],
        help_heading = "Listeners (none: off)"
    )]
    grpc_tls_listener: At,
    /// Certificate of the authority that the services' certificates come from, PEM
    #[arg(long, alias = "gprc-tls-ca-cert", value_name = "FILE", help_heading = "Listeners (none: off)")]
    grpc_tls_ca_cert: Option<PathBuf>,
    /// The node's certificate, PEM
    #[arg(long, value_name = "FILE", help_heading = "Listeners (none: off)")]
    grpc_tls_cert: Option<PathBuf>,
    /// The node's private key, PEM
    #[arg(long, value_name = "FILE", help_heading = "Listeners (none: off)")]
    grpc_tls_key: Option<PathBuf>,
    /// The services of the public listener as JSON
    #[arg(long, value_name = "ADDR", default_value = "none", help_heading = "Listeners (none: off)")]
    grpc_json_listener: At,
    /// Web pages that may ask for JSON, by their origin; * is all
    #[arg(long, value_name = "ORIGIN", help_heading = "Listeners (none: off)")]
    grpc_cors_allowed_origin: Vec<String>,
    /// Prometheus at /metrics, and /health
    #[arg(long, value_name = "ADDR", default_value = "none", help_heading = "Listeners (none: off)")]
    metrics_listener: At,

    /// Form of the log, which goes to the standard error; RUST_LOG chooses what is in it
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

impl Run {
    pub(crate) fn run(self, stop: &Stop) -> Result<(), Error> {
        let network = NetworkArgs { preset: self.network.preset.or(self.config), ..self.network };
        let born = network.born()?.ok_or_else(|| Error::Usage("--preset or --config is needed".to_owned()))?;
        let coinbase = self.coinbase.as_ref().map(|text| coinbase(text, &born.network.main.network_hrp)).transpose()?;
        let listeners = self.listeners();
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        match self.log_format {
            LogFormat::Text => log.init(),
            LogFormat::Json => log.json().init(),
        }
        let data = DataDir::open(&self.data_dir, &Open::For(born.clone()))?;
        let Self { synced, listen, bootnodes, direct, .. } = self;
        let settings = running::Settings { born, coinbase, synced, listen, bootnodes, direct, listeners };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Error::Start(format!("no threads: {error}")))?;
        let done = runtime.block_on(async {
            let (tell, told) = watch::channel(false);
            let stop = stop.clone();
            tokio::spawn(async move {
                while !stop.is_set() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                tell.send_replace(true);
            });
            Box::pin(running::run(data, settings, told)).await
        });
        runtime.shutdown_timeout(Duration::from_secs(1));
        done
    }

    fn listeners(&self) -> Listeners {
        let with = |At(address): At, services: Option<Listener>| {
            let services = services.map(|listener| listener.services).unwrap_or_default();
            address.map(|address| Listener { address, services })
        };
        let deployed = Listeners::default();
        let tls = match (self.grpc_tls_listener, &self.grpc_tls_ca_cert, &self.grpc_tls_cert, &self.grpc_tls_key) {
            (At(Some(address)), Some(authority), Some(certificate), Some(key)) => {
                let files = Tls { authority: authority.clone(), certificate: certificate.clone(), key: key.clone() };
                Some((Listener { address, services: vec![Service::Post, Service::PostInfo] }, files))
            }
            _ => None,
        };
        Listeners {
            public: with(self.grpc_public_listener, deployed.public),
            private: with(self.grpc_private_listener, deployed.private),
            post: with(self.grpc_post_listener, deployed.post),
            tls,
            json: self.grpc_json_listener.0,
            json_origins: self.grpc_cors_allowed_origin.clone(),
            metrics: self.metrics_listener.0,
        }
    }
}

/// An address of this network.
fn coinbase(text: &str, prefix: &str) -> Result<Address, Error> {
    let network = proto::address::Network::from_prefix(prefix);
    let network = network.ok_or_else(|| Error::Usage(format!("no network's addresses begin with {prefix:?}")))?;
    Ok(Address::parse(text, network)?)
}
