//! What of v2 needs no ledger (api.md section 5): the same messages in two packages.

use proto::{
    grpc::{spacemesh_v2alpha1, spacemesh_v2beta1},
    layers::LayerId,
};
use tonic::{Request, Response, Status};

use super::Services;
use crate::events::{duration, timestamp};

macro_rules! serve {
    ($package:ident) => {
        #[tonic::async_trait]
        impl $package::network_service_server::NetworkService for Services {
            async fn info(
                &self,
                _: Request<$package::NetworkInfoRequest>,
            ) -> Result<Response<$package::NetworkInfoResponse>, Status> {
                let constants = self.node.constants();
                Ok(Response::new($package::NetworkInfoResponse {
                    genesis_time: Some(timestamp(constants.timeline.genesis)),
                    layer_duration: Some(duration(constants.timeline.layer)),
                    genesis_id: constants.genesis.id().0.to_vec(),
                    hrp: constants.addresses.to_string(),
                    effective_genesis_layer: constants.effective_genesis.0,
                    layers_per_epoch: constants.timeline.layers_per_epoch.0.get(),
                    labels_per_unit: constants.network.post.labels_per_unit,
                }))
            }
        }

        #[tonic::async_trait]
        impl $package::node_service_server::NodeService for Services {
            async fn status(
                &self,
                _: Request<$package::NodeStatusRequest>,
            ) -> Result<Response<$package::NodeStatusResponse>, Status> {
                use $package::node_status_response::SyncStatus;
                let status = self.node.status();
                let LayerId(current_layer) = self.node.constants().timeline.layer_at(self.node.now());
                let sync = match (status.connected_peers, status.synced) {
                    (0, _) => SyncStatus::Offline,
                    (_, false) => SyncStatus::Syncing,
                    (_, true) => SyncStatus::Synced,
                };
                Ok(Response::new($package::NodeStatusResponse {
                    connected_peers: status.connected_peers as u64,
                    status: sync.into(),
                    latest_layer: status.latest.0,
                    applied_layer: status.applied.0,
                    // votes are counted before transactions are executed, and nothing is known in between
                    processed_layer: status.applied.0,
                    current_layer,
                }))
            }
        }
    };
}

serve!(spacemesh_v2alpha1);
serve!(spacemesh_v2beta1);
