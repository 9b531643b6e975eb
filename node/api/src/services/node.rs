//! NodeService (api.md section 4).

use proto::grpc::spacemesh_v1::{self as wire, node_service_server::NodeService};
use tonic::{Request, Response, Status};

use super::{Live, Services};
use crate::node::Node;

fn status(node: &dyn Node) -> wire::NodeStatus {
    let (constants, status) = (node.constants(), node.status());
    let layer = |layer: proto::layers::LayerId| Some(wire::LayerNumber { number: layer.0 });
    wire::NodeStatus {
        connected_peers: status.connected_peers as u64,
        is_synced: status.synced,
        synced_layer: layer(status.latest),
        top_layer: layer(constants.timeline.layer_at(node.now())),
        // nothing is applied before the effective genesis
        verified_layer: layer(if status.latest < constants.effective_genesis { status.latest } else { status.applied }),
    }
}

#[tonic::async_trait]
impl NodeService for Services {
    async fn echo(&self, request: Request<wire::EchoRequest>) -> Result<Response<wire::EchoResponse>, Status> {
        match request.into_inner().msg {
            Some(msg) => Ok(Response::new(wire::EchoResponse { msg: Some(msg) })),
            None => Err(Status::invalid_argument("must include `msg`")),
        }
    }

    async fn version(&self, _: Request<()>) -> Result<Response<wire::VersionResponse>, Status> {
        let value = self.node.constants().version.clone();
        Ok(Response::new(wire::VersionResponse { version_string: Some(wire::SimpleString { value }) }))
    }

    async fn build(&self, _: Request<()>) -> Result<Response<wire::BuildResponse>, Status> {
        let value = self.node.constants().build.clone();
        Ok(Response::new(wire::BuildResponse { build_string: Some(wire::SimpleString { value }) }))
    }

    async fn status(&self, _: Request<wire::StatusRequest>) -> Result<Response<wire::StatusResponse>, Status> {
        Ok(Response::new(wire::StatusResponse { status: Some(status(&*self.node)) }))
    }

    async fn node_info(&self, _: Request<()>) -> Result<Response<wire::NodeInfoResponse>, Status> {
        let constants = self.node.constants();
        let layers = constants.timeline.layers_per_epoch;
        Ok(Response::new(wire::NodeInfoResponse {
            hrp: constants.addresses.to_string(),
            first_genesis: layers.effective_genesis().unwrap_or_default().0,
            effective_genesis: constants.effective_genesis.0,
            epoch_size: layers.0.get(),
        }))
    }

    type StatusStreamStream = Live<wire::StatusStreamResponse>;

    async fn status_stream(&self, _: Request<wire::StatusStreamRequest>) -> Result<Response<Self::StatusStreamStream>, Status> {
        let mut last = None;
        Ok(self.each_second(move |node| {
            let status = Some(status(node));
            if status == last {
                return None;
            }
            last.clone_from(&status);
            Some(wire::StatusStreamResponse { status })
        }))
    }

    type ErrorStreamStream = Live<wire::ErrorStreamResponse>;

    async fn error_stream(&self, _: Request<wire::ErrorStreamRequest>) -> Result<Response<Self::ErrorStreamStream>, Status> {
        Ok(self.events(false, |event| {
            let error = wire::NodeError {
                level: wire::LogLevel::Error.into(),
                module: "smesher".to_owned(),
                msg: event.help,
                stack_trace: String::new(),
            };
            event.failure.then_some(wire::ErrorStreamResponse { error: Some(error) })
        }))
    }
}
