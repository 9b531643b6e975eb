//! MeshService (api.md section 4): the clock. What needs the ledger is not there yet.

use proto::grpc::spacemesh_v1::{self as wire, mesh_service_server::MeshService};
use tonic::{Request, Response, Status};

use super::{Live, Services};

/// The answer to calls about what this node does not keep.
fn without_ledger<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("this node does not keep the ledger"))
}

fn number(value: u64) -> wire::SimpleInt {
    wire::SimpleInt { value }
}

#[tonic::async_trait]
impl MeshService for Services {
    async fn genesis_time(&self, _: Request<wire::GenesisTimeRequest>) -> Result<Response<wire::GenesisTimeResponse>, Status> {
        let seconds = self.node.constants().genesis.unix_time.0;
        Ok(Response::new(wire::GenesisTimeResponse { unixtime: Some(number(seconds.max(0).unsigned_abs())) }))
    }

    async fn current_layer(&self, _: Request<wire::CurrentLayerRequest>) -> Result<Response<wire::CurrentLayerResponse>, Status> {
        let layer = self.node.constants().timeline.layer_at(self.node.now());
        Ok(Response::new(wire::CurrentLayerResponse { layernum: Some(wire::LayerNumber { number: layer.0 }) }))
    }

    async fn current_epoch(&self, _: Request<wire::CurrentEpochRequest>) -> Result<Response<wire::CurrentEpochResponse>, Status> {
        let epoch = self.node.constants().timeline.epoch_at(self.node.now());
        Ok(Response::new(wire::CurrentEpochResponse { epochnum: Some(wire::EpochNumber { number: epoch.0 }) }))
    }

    async fn genesis_id(&self, _: Request<wire::GenesisIdRequest>) -> Result<Response<wire::GenesisIdResponse>, Status> {
        let genesis_id = self.node.constants().genesis.id().0.to_vec();
        Ok(Response::new(wire::GenesisIdResponse { genesis_id }))
    }

    async fn epoch_num_layers(
        &self,
        _: Request<wire::EpochNumLayersRequest>,
    ) -> Result<Response<wire::EpochNumLayersResponse>, Status> {
        let number = self.node.constants().timeline.layers_per_epoch.0.get();
        Ok(Response::new(wire::EpochNumLayersResponse { numlayers: Some(wire::LayerNumber { number }) }))
    }

    async fn layer_duration(
        &self,
        _: Request<wire::LayerDurationRequest>,
    ) -> Result<Response<wire::LayerDurationResponse>, Status> {
        let seconds = self.node.constants().timeline.layer.as_secs();
        Ok(Response::new(wire::LayerDurationResponse { duration: Some(number(seconds)) }))
    }

    async fn max_transactions_per_second(
        &self,
        _: Request<wire::MaxTransactionsPerSecondRequest>,
    ) -> Result<Response<wire::MaxTransactionsPerSecondResponse>, Status> {
        let constants = self.node.constants();
        let main = &constants.network.main;
        let per_layer = u64::from(main.txs_per_proposal) * u64::from(main.layer_average_size);
        // a layer of the networks for tests may be shorter than a second
        let max_txs_per_second = Some(number(per_layer / constants.timeline.layer.as_secs().max(1)));
        Ok(Response::new(wire::MaxTransactionsPerSecondResponse { max_txs_per_second }))
    }

    async fn account_mesh_data_query(
        &self,
        _: Request<wire::AccountMeshDataQueryRequest>,
    ) -> Result<Response<wire::AccountMeshDataQueryResponse>, Status> {
        without_ledger()
    }

    async fn layers_query(&self, _: Request<wire::LayersQueryRequest>) -> Result<Response<wire::LayersQueryResponse>, Status> {
        without_ledger()
    }

    type AccountMeshDataStreamStream = Live<wire::AccountMeshDataStreamResponse>;

    async fn account_mesh_data_stream(
        &self,
        _: Request<wire::AccountMeshDataStreamRequest>,
    ) -> Result<Response<Self::AccountMeshDataStreamStream>, Status> {
        without_ledger()
    }

    type LayerStreamStream = Live<wire::LayerStreamResponse>;

    async fn layer_stream(&self, _: Request<wire::LayerStreamRequest>) -> Result<Response<Self::LayerStreamStream>, Status> {
        without_ledger()
    }

    type EpochStreamStream = Live<wire::EpochStreamResponse>;

    async fn epoch_stream(&self, _: Request<wire::EpochStreamRequest>) -> Result<Response<Self::EpochStreamStream>, Status> {
        without_ledger()
    }

    async fn malfeasance_query(
        &self,
        _: Request<wire::MalfeasanceRequest>,
    ) -> Result<Response<wire::MalfeasanceResponse>, Status> {
        without_ledger()
    }

    type MalfeasanceStreamStream = Live<wire::MalfeasanceStreamResponse>;

    async fn malfeasance_stream(
        &self,
        _: Request<wire::MalfeasanceStreamRequest>,
    ) -> Result<Response<Self::MalfeasanceStreamStream>, Status> {
        without_ledger()
    }
}
