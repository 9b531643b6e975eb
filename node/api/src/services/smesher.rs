//! SmesherService (api.md section 4, activation.md section 11).

use proto::grpc::spacemesh_v1::{self as wire, smesher_service_server::SmesherService};
use tonic::{Request, Response, Status};

use super::{Live, Services, ok};

/// Bits of a label: 16 bytes.
const BITS_PER_LABEL: u32 = 128;

/// The answer to calls of old applications.
fn gone<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("this endpoint has been deprecated"))
}

#[tonic::async_trait]
impl SmesherService for Services {
    async fn is_smeshing(&self, _: Request<()>) -> Result<Response<wire::IsSmeshingResponse>, Status> {
        Ok(Response::new(wire::IsSmeshingResponse { is_smeshing: self.node.is_smeshing()? }))
    }

    async fn start_smeshing(
        &self,
        request: Request<wire::StartSmeshingRequest>,
    ) -> Result<Response<wire::StartSmeshingResponse>, Status> {
        let request = request.into_inner();
        let coinbase = self.address(request.coinbase.as_ref(), "Coinbase")?;
        self.node.start_smeshing(coinbase, request.opts.unwrap_or_default()).await?;
        Ok(Response::new(wire::StartSmeshingResponse { status: Some(ok()) }))
    }

    async fn stop_smeshing(
        &self,
        request: Request<wire::StopSmeshingRequest>,
    ) -> Result<Response<wire::StopSmeshingResponse>, Status> {
        self.node.stop_smeshing(request.into_inner().delete_files).await?;
        Ok(Response::new(wire::StopSmeshingResponse { status: Some(ok()) }))
    }

    async fn smesher_i_ds(&self, _: Request<()>) -> Result<Response<wire::SmesherIDsResponse>, Status> {
        let public_keys = self.node.identities().into_iter().map(|identity| identity.id.0.to_vec()).collect();
        Ok(Response::new(wire::SmesherIDsResponse { public_keys }))
    }

    async fn coinbase(&self, _: Request<()>) -> Result<Response<wire::CoinbaseResponse>, Status> {
        // deployed nodes answer with the address of zeros where none is set
        let account_id = Some(self.account(&self.node.coinbase().unwrap_or_default()));
        Ok(Response::new(wire::CoinbaseResponse { account_id }))
    }

    async fn set_coinbase(
        &self,
        request: Request<wire::SetCoinbaseRequest>,
    ) -> Result<Response<wire::SetCoinbaseResponse>, Status> {
        let coinbase = self.address(request.into_inner().id.as_ref(), "Id")?;
        self.node.set_coinbase(coinbase).await?;
        Ok(Response::new(wire::SetCoinbaseResponse { status: Some(ok()) }))
    }

    async fn post_setup_status(&self, _: Request<()>) -> Result<Response<wire::PostSetupStatusResponse>, Status> {
        Ok(Response::new(wire::PostSetupStatusResponse { status: Some(self.node.post_setup()) }))
    }

    type PostSetupStatusStreamStream = Live<wire::PostSetupStatusStreamResponse>;

    async fn post_setup_status_stream(&self, _: Request<()>) -> Result<Response<Self::PostSetupStatusStreamStream>, Status> {
        Ok(self.each_second(|node| Some(wire::PostSetupStatusStreamResponse { status: Some(node.post_setup()) })))
    }

    async fn post_setup_providers(
        &self,
        request: Request<wire::PostSetupProvidersRequest>,
    ) -> Result<Response<wire::PostSetupProvidersResponse>, Status> {
        let providers = self.node.post_providers(request.into_inner().benchmark).await?;
        Ok(Response::new(wire::PostSetupProvidersResponse { providers }))
    }

    async fn post_config(&self, _: Request<()>) -> Result<Response<wire::PostConfigResponse>, Status> {
        let post = &self.node.constants().network.post;
        Ok(Response::new(wire::PostConfigResponse {
            bits_per_label: BITS_PER_LABEL,
            labels_per_unit: post.labels_per_unit,
            min_num_units: post.min_numunits,
            max_num_units: post.max_numunits,
            k1: post.k1,
            k2: post.k2,
        }))
    }

    async fn smesher_id(&self, _: Request<()>) -> Result<Response<wire::SmesherIdResponse>, Status> {
        gone()
    }

    async fn min_gas(&self, _: Request<()>) -> Result<Response<wire::MinGasResponse>, Status> {
        gone()
    }

    async fn set_min_gas(&self, _: Request<wire::SetMinGasRequest>) -> Result<Response<wire::SetMinGasResponse>, Status> {
        gone()
    }

    async fn estimated_rewards(
        &self,
        _: Request<wire::EstimatedRewardsRequest>,
    ) -> Result<Response<wire::EstimatedRewardsResponse>, Status> {
        gone()
    }
}
