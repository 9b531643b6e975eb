//! ActivationService (api.md section 4).

use proto::{
    grpc::spacemesh_v1::{self as wire, activation_service_server::ActivationService},
    ids::{AtxId, NodeId},
};
use tonic::{Request, Response, Status};

use super::Services;
use crate::node::{Activation, Malfeasance, Node};

fn id(AtxId(id): AtxId) -> wire::ActivationId {
    wire::ActivationId { id: id.to_vec() }
}

fn smesher(NodeId(id): NodeId) -> wire::SmesherId {
    wire::SmesherId { id: id.to_vec() }
}

fn malfeasance(identity: NodeId, found: Malfeasance) -> wire::MalfeasanceProof {
    wire::MalfeasanceProof {
        smesher_id: Some(smesher(identity)),
        layer: Some(wire::LayerNumber { number: found.layer.0 }),
        kind: found.kind.into(),
        debug_info: found.info,
        proof: Vec::new(),
    }
}

impl Services {
    fn activation(&self, atx: Activation) -> wire::Activation {
        wire::Activation {
            id: Some(id(atx.id)),
            layer: Some(wire::LayerNumber { number: atx.publish.0 }),
            smesher_id: Some(smesher(atx.smesher)),
            coinbase: Some(self.account(&atx.coinbase)),
            prev_atx: Some(id(atx.previous.first().copied().unwrap_or_default())),
            num_units: atx.num_units.0,
            sequence: atx.sequence,
            previous_atxs: atx.previous.into_iter().map(id).collect(),
        }
    }

    /// The activation of this id, and why its identity is malicious, if it is.
    pub(super) async fn judged(&self, id: Vec<u8>) -> Result<(Activation, Option<Malfeasance>), Status> {
        let wanted = <[u8; 32]>::try_from(id)
            .map_err(|bytes| Status::invalid_argument(format!("invalid ATX ID length ({}): expected 32 bytes", bytes.len())))?;
        let found = self
            .query(move |node| {
                let Some(atx) = node.activation(&AtxId(wanted))? else { return Ok(None) };
                let malfeasance = node.malfeasance(&atx.smesher)?;
                Ok(Some((atx, malfeasance)))
            })
            .await?;
        found.ok_or_else(|| Status::not_found(format!("activation {} is not known", AtxId(wanted))))
    }
}

#[tonic::async_trait]
impl ActivationService for Services {
    async fn get(&self, request: Request<wire::GetRequest>) -> Result<Response<wire::GetResponse>, Status> {
        let (atx, found) = self.judged(request.into_inner().id).await?;
        let malfeasance_proof = found.map(|found| malfeasance(atx.smesher, found));
        Ok(Response::new(wire::GetResponse { atx: Some(self.activation(atx)), malfeasance_proof }))
    }

    async fn highest(&self, _: Request<()>) -> Result<Response<wire::HighestResponse>, Status> {
        let atx = match self.query(Node::highest_activation).await? {
            Some(atx) => self.activation(atx),
            None => wire::Activation { id: Some(id(self.node.constants().genesis.golden_atx())), ..wire::Activation::default() },
        };
        Ok(Response::new(wire::HighestResponse { atx: Some(atx) }))
    }
}
