//! AdminService (api.md section 4): events and peers. Checkpoints need the ledger and are not there yet.

use proto::grpc::spacemesh_v1::{self as wire, admin_service_server::AdminService};
use tonic::{Request, Response, Status};

use super::{Live, Services};
use crate::{events::duration, node::Peer};

fn peer(peer: Peer) -> wire::PeerInfo {
    use wire::connection_info::Kind;
    let connection = wire::ConnectionInfo {
        address: peer.address,
        uptime: Some(duration(peer.connected)),
        outbound: peer.outbound,
        kind: if peer.outbound { Kind::Outbound } else { Kind::Inbound }.into(),
    };
    wire::PeerInfo { id: peer.id, connections: vec![connection], ..wire::PeerInfo::default() }
}

#[tonic::async_trait]
impl AdminService for Services {
    type CheckpointStreamStream = Live<wire::CheckpointStreamResponse>;

    async fn checkpoint_stream(
        &self,
        _: Request<wire::CheckpointStreamRequest>,
    ) -> Result<Response<Self::CheckpointStreamStream>, Status> {
        Err(Status::unimplemented("this node does not write checkpoints"))
    }

    async fn recover(&self, _: Request<wire::RecoverRequest>) -> Result<Response<()>, Status> {
        Err(Status::unimplemented("this node does not start from checkpoints"))
    }

    type EventsStreamStream = Live<wire::Event>;

    async fn events_stream(&self, _: Request<wire::EventStreamRequest>) -> Result<Response<Self::EventsStreamStream>, Status> {
        Ok(self.events(true, Some))
    }

    type PeerInfoStreamStream = Live<wire::PeerInfo>;

    async fn peer_info_stream(&self, _: Request<()>) -> Result<Response<Self::PeerInfoStreamStream>, Status> {
        let peers = self.node.peers().into_iter().map(|found| Ok(peer(found)));
        Ok(Response::new(Box::pin(tokio_stream::iter(peers.collect::<Vec<_>>()))))
    }
}
