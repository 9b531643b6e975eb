//! `status` and `activation`: what a running node says, on one screen.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use proto::{
    genesis::UnixSeconds,
    grpc::node_v1::{
        ActivationRequest, ActivationResponse, Identity, OverviewResponse, overview_service_client::OverviewServiceClient,
    },
    ids::AtxId,
    span::Span,
};
use serde_json::json;
use tonic::transport::{Channel, Endpoint};

use crate::{cli::print, error::Error};

#[derive(Debug, Args)]
pub(crate) struct Node {
    /// Private listener of the node
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9093")]
    node: String,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    node: Node,
}

#[derive(Debug, Args)]
pub(crate) struct Activation {
    /// Its id, 64 hex digits
    id: AtxId,
    #[command(flatten)]
    node: Node,
}

impl Node {
    fn error(&self, reason: String) -> Error {
        Error::NoNode { address: self.node.clone(), reason }
    }

    /// Asks the node.
    fn ask<T>(
        &self,
        question: impl AsyncFnOnce(OverviewServiceClient<Channel>) -> Result<tonic::Response<T>, tonic::Status>,
    ) -> Result<T, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Error::Start(format!("no threads: {error}")))?;
        runtime.block_on(async {
            let endpoint = Endpoint::from_shared(format!("http://{}", self.node))
                .map_err(|error| Error::Usage(format!("--node {}: {error}", self.node)))?;
            let endpoint = endpoint.timeout(std::time::Duration::from_secs(5));
            let channel = endpoint.connect().await.map_err(|error| self.error(chain(&error)))?;
            let answer = question(OverviewServiceClient::new(channel)).await;
            answer.map(tonic::Response::into_inner).map_err(|status| match status.code() {
                tonic::Code::NotFound => Error::Unknown(status.message().to_owned()),
                _ => self.error(status.message().to_owned()),
            })
        })
    }
}

impl Status {
    pub(crate) fn run(self) -> Result<(), Error> {
        let overview = self.node.ask(async |mut client| client.overview(()).await)?;
        if self.node.json {
            print(as_json(&overview));
        } else {
            show(&overview);
        }
        Ok(())
    }
}

impl Activation {
    pub(crate) fn run(self) -> Result<(), Error> {
        let request = ActivationRequest { id: self.id.0.to_vec() };
        let atx: ActivationResponse = self.node.ask(async move |mut client| client.activation(request).await)?;
        let (id, smesher) = (hex::encode(&atx.id), hex::encode(&atx.smesher));
        if self.node.json {
            print(json!({
                "id": id, "publish_epoch": atx.publish_epoch, "smesher": smesher, "coinbase": atx.coinbase, "units": atx.units,
                "weight": atx.weight, "height": atx.height, "malicious": atx.malicious,
            }));
        } else {
            let line = |name: &str, value: String| print(format_args!("{name:<14} {value}"));
            line("activation", id);
            line("of", format!("{smesher}{}", if atx.malicious { ", which broke a rule" } else { "" }));
            line("epoch", atx.publish_epoch.to_string());
            line("rewards to", atx.coinbase);
            line("units", atx.units.to_string());
            line("weight", atx.weight.to_string());
            line("tick height", atx.height.to_string());
        }
        Ok(())
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn moment(at: Option<&prost_types::Timestamp>) -> String {
    at.map(|at| UnixSeconds(at.seconds).to_string()).unwrap_or_default()
}

/// How long it is until then.
fn left(at: Option<&prost_types::Timestamp>) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().cast_signed();
    match at.map(|at| at.seconds - now) {
        Some(seconds @ 0..) => format!("in {}", Span(std::time::Duration::from_secs(seconds.unsigned_abs()))),
        Some(_) => "over".to_owned(),
        None => String::new(),
    }
}

/// The state without what all of them begin with.
fn state(identity: &Identity) -> String {
    let name = identity.state().as_str_name().trim_start_matches("IDENTITY_STATE_");
    name.to_ascii_lowercase().replace('_', " ")
}

fn show(node: &OverviewResponse) {
    let line = |name: &str, value: String| print(format_args!("{name:<12} {value}"));
    line("node", format!("smesh-node {}", node.version));
    line("peer id", node.peer_id.clone());
    line("network", format!("{} {}, born {}", node.network, hex::encode(&node.genesis_id), moment(node.genesis.as_ref())));
    line("clock", format!("layer {} of epoch {}, next layer {}", node.layer, node.epoch, left(node.next_layer.as_ref())));
    line("next epoch", format!("{} ({})", moment(node.next_epoch.as_ref()), left(node.next_epoch.as_ref())));
    line("knows all", if node.synced { "yes" } else { "no: its identities make no activations" }.to_owned());
    line("rewards to", if node.coinbase.is_empty() { "nobody: --coinbase names an account" } else { &node.coinbase }.to_owned());
    line("peers", node.peers.len().to_string());
    for peer in &node.peers {
        print(format_args!("  {} {} {}", peer.id, peer.address, if peer.outbound { "called" } else { "called us" }));
    }
    line("identities", node.identities.len().to_string());
    for identity in &node.identities {
        print(format_args!("  {} {}: {}", identity.name, hex::encode(&identity.id), state(identity)));
        if let Some(epoch) = identity.publish_epoch {
            print(format_args!("    activation for epoch {epoch} in the making"));
        }
        if let Some(deadline) = &identity.deadline {
            let at = deadline.at.as_ref();
            print(format_args!("    {} until {} ({})", deadline.what, moment(at), left(at)));
        }
        if !identity.last_activation.is_empty() {
            print(format_args!("    last activation {}", hex::encode(&identity.last_activation)));
        }
        if !identity.last_error.is_empty() {
            print(format_args!("    last trouble: {}", identity.last_error));
        }
    }
}

fn as_json(node: &OverviewResponse) -> serde_json::Value {
    let identity = |identity: &Identity| {
        json!({
            "id": hex::encode(&identity.id), "name": identity.name, "state": state(identity),
            "publish_epoch": identity.publish_epoch, "last_error": identity.last_error,
            "deadline": identity.deadline.as_ref().map(|deadline| json!({ "what": deadline.what, "at": moment(deadline.at.as_ref()) })),
            "last_activation": hex::encode(&identity.last_activation),
        })
    };
    let peer = |peer: &proto::grpc::node_v1::Peer| json!({ "id": peer.id, "address": peer.address, "outbound": peer.outbound });
    json!({
        "version": node.version, "peer_id": node.peer_id, "network": node.network, "genesis_id": hex::encode(&node.genesis_id),
        "genesis": moment(node.genesis.as_ref()), "layer": node.layer, "epoch": node.epoch, "synced": node.synced,
        "coinbase": node.coinbase, "peers": node.peers.iter().map(peer).collect::<Vec<_>>(),
        "identities": node.identities.iter().map(identity).collect::<Vec<_>>(),
    })
}
