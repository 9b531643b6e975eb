//! Requests for stored objects and the answers to them (types.md section 11).

use serde::{Deserialize, Serialize};

use crate::{
    ids::{AtxId, BallotId, BlockId, Hash32, NodeId},
    layers::LayerId,
    scale::{Bytes, Decode, Encode},
};

/// The most bytes of the name of a database.
pub const MAX_HINT: usize = 256;

/// The most bytes of an answer.
pub const MAX_RESPONSE: usize = 272_629_760;

/// The most requests in one message.
pub const MAX_BATCH: usize = 100;

/// The most ids of identities or activations in one answer.
pub const MAX_IDS: usize = 8_000_000;

/// The most hashes in one answer.
pub const MAX_MESH_HASHES: usize = 1000;

/// The most ballots of a layer in one answer.
pub const MAX_BALLOTS: usize = 2350;

/// Asks for one object.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct RequestMessage {
    /// The database.
    #[scale(max = MAX_HINT)]
    pub hint: Bytes,
    /// The id of the object; shorter ids have zeros behind them.
    pub hash: Hash32,
}

/// An object, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct ResponseMessage {
    /// The id that was asked for.
    pub hash: Hash32,
    /// The object.
    #[scale(max = MAX_RESPONSE)]
    pub data: Bytes,
}

/// Several requests.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct RequestBatch {
    /// Names the batch.
    pub id: Hash32,
    /// The requests.
    #[scale(max = MAX_BATCH)]
    pub requests: Vec<RequestMessage>,
}

/// The answers to several requests.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct ResponseBatch {
    /// Names the batch.
    pub id: Hash32,
    /// The answers.
    #[scale(max = MAX_BATCH)]
    pub responses: Vec<ResponseMessage>,
}

/// Asks for the hashes of the mesh at every `step`th layer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct MeshHashRequest {
    /// The first layer.
    pub from: LayerId,
    /// The last one, which is always answered for.
    pub to: LayerId,
    /// The distance.
    pub step: u32,
}

/// The most hashes that may be asked for.
pub const MAX_REQUESTED_HASHES: u32 = 100;

/// Why a request for hashes of the mesh is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMeshHashRequest {
    /// The distance is zero.
    #[error("the step is zero")]
    NoStep,
    /// It ends before it begins.
    #[error("layers {0} to {1} go backwards")]
    Backwards(LayerId, LayerId),
    /// It asks for too much.
    #[error("{0} hashes where at most 100 may be asked for")]
    TooMany(u32),
}

impl MeshHashRequest {
    /// How many hashes are asked for: one for every step, and one for the last layer where no step meets it.
    pub fn count(&self) -> Result<u32, InvalidMeshHashRequest> {
        let length = self.to.0.checked_sub(self.from.0).ok_or(InvalidMeshHashRequest::Backwards(self.from, self.to))?;
        let steps = length.checked_div(self.step).ok_or(InvalidMeshHashRequest::NoStep)?;
        let count = steps.saturating_add(1).saturating_add(u32::from(length % self.step != 0));
        if count > MAX_REQUESTED_HASHES { Err(InvalidMeshHashRequest::TooMany(count)) } else { Ok(count) }
    }
}

/// The hashes of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct MeshHashes {
    /// The hashes, by layer.
    #[scale(max = MAX_MESH_HASHES)]
    pub hashes: Vec<Hash32>,
}

/// The identities that are known to have broken rules.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct MaliciousIds {
    /// The identities.
    #[scale(max = MAX_IDS)]
    pub node_ids: Vec<NodeId>,
}

/// The activations of an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct EpochAtxs {
    /// The activations.
    #[scale(max = MAX_IDS)]
    pub atx_ids: Vec<AtxId>,
}

/// The ballots of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct LayerData {
    /// The ballots.
    #[scale(max = MAX_BALLOTS)]
    pub ballots: Vec<BallotId>,
}

/// Asks what a peer holds of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct OpinionRequest {
    /// The layer.
    pub layer: LayerId,
    /// Asks for the certificate of this block.
    pub block: Option<BlockId>,
}

/// What a peer holds of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct LayerOpinion {
    /// The hash of the mesh up to the layer before.
    pub prev_agg_hash: Hash32,
    /// The certified block.
    pub certified: Option<BlockId>,
}

/// Asks a peer for the time.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct TimeRequest {
    /// Names the request.
    pub id: u64,
}

/// The time at a peer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct TimeResponse {
    /// Names the request.
    pub id: u64,
    /// Nanoseconds since 1970.
    pub timestamp: u64,
}
