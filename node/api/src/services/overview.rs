//! OverviewService: what `smesh-node status` shows.

use proto::{
    grpc::node_v1::{self as wire, overview_service_server::OverviewService},
    layers::EpochId,
};
use tonic::{Request, Response, Status};

use super::Services;
use crate::{events::timestamp, node::Identity};

fn identity(identity: Identity) -> wire::Identity {
    wire::Identity {
        id: identity.id.0.to_vec(),
        name: identity.name,
        state: identity.state.into(),
        publish_epoch: identity.publish.map(|epoch| epoch.0),
        last_error: identity.last_error.unwrap_or_default(),
        deadline: identity.deadline.map(|(what, at)| wire::Deadline { what, at: Some(timestamp(at)) }),
        last_activation: identity.last_activation.map(|id| id.0.to_vec()).unwrap_or_default(),
    }
}

#[tonic::async_trait]
impl OverviewService for Services {
    async fn overview(&self, _: Request<()>) -> Result<Response<wire::OverviewResponse>, Status> {
        let identities = self.query(|node| Ok(node.identities())).await?;
        let (node, constants, now) = (&self.node, self.node.constants(), self.node.now());
        let timeline = &constants.timeline;
        let epoch = timeline.epoch_at(now);
        let peers = node.peers().into_iter();
        let peers = peers.map(|peer| wire::Peer { id: peer.id, address: peer.address, outbound: peer.outbound });
        Ok(Response::new(wire::OverviewResponse {
            version: constants.version.clone(),
            network: constants.network.name.clone(),
            genesis_id: constants.genesis.id().0.to_vec(),
            genesis: Some(timestamp(timeline.genesis)),
            layer: timeline.layer_at(now).0,
            epoch: epoch.0,
            next_layer: Some(timestamp(timeline.next_layer(now))),
            next_epoch: Some(timestamp(timeline.start(EpochId(epoch.0.saturating_add(1))))),
            synced: node.status().synced,
            peers: peers.collect(),
            identities: identities.into_iter().map(identity).collect(),
            coinbase: node.coinbase().map(|coinbase| coinbase.to_text(constants.addresses)).unwrap_or_default(),
            peer_id: node.peer_id(),
        }))
    }

    async fn activation(&self, request: Request<wire::ActivationRequest>) -> Result<Response<wire::ActivationResponse>, Status> {
        let (atx, malfeasance) = self.judged(request.into_inner().id).await?;
        Ok(Response::new(wire::ActivationResponse {
            id: atx.id.0.to_vec(),
            publish_epoch: atx.publish.0,
            smesher: atx.smesher.0.to_vec(),
            coinbase: atx.coinbase.to_text(self.node.constants().addresses),
            units: atx.num_units.0,
            weight: atx.weight.0,
            height: atx.height.0,
            malicious: malfeasance.is_some(),
        }))
    }
}
