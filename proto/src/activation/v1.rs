//! Activations of one identity (types.md section 4.2).

use serde::{Deserialize, Serialize};

use super::challenge_hash;
use crate::{
    ids::{Address, AtxId, EdSignature, Hash32, NodeId},
    layers::EpochId,
    poet::{Element, MembershipProof},
    post::Proof,
    scale::{self, Decode, Encode, EncodeError},
    signing::{Domain, Signed},
    units::{Labels, SpaceUnits, VrfNonce},
};

/// What an identity registers with a PoET, as the hash of it (types.md section 4.4).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct NipostChallengeV1 {
    /// The epoch in which the activation will be published.
    pub publish_epoch: EpochId,
    /// How many activations of the identity came before.
    pub sequence: u64,
    /// The identity's last activation; empty for its first.
    pub prev_atx_id: AtxId,
    /// The activation on whose ticks this one stands.
    pub positioning_atx_id: AtxId,
    /// What the labels are bound to; in a first activation only.
    pub commitment_atx_id: Option<AtxId>,
    /// The proof of space for the challenge of zeros; in a first activation only.
    pub initial_post: Option<Proof>,
}

impl NipostChallengeV1 {
    /// What is registered with a PoET.
    pub fn hash(&self) -> Result<Hash32, EncodeError> {
        challenge_hash(self)
    }
}

/// What a proof of space was made for.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct PostMetadataV1 {
    /// The reference of the PoET proof.
    pub challenge: Element,
    /// Labels in a space unit.
    pub labels_per_unit: Labels,
}

/// Proof of space and of the time it was held.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct NipostV1 {
    /// Leads from the challenge to the statement of the PoET round.
    pub membership: MembershipProof,
    /// The proof of space.
    pub post: Option<Proof>,
    /// What it was made for.
    pub post_metadata: Option<PostMetadataV1>,
}

/// What the id of an activation covers.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct InnerActivationTxV1 {
    /// What was registered with the PoET.
    #[serde(flatten)]
    pub challenge: NipostChallengeV1,
    /// The account that gets the rewards.
    pub coinbase: Address,
    /// The space.
    pub num_units: SpaceUnits,
    /// The proofs.
    pub nipost: Option<NipostV1>,
    /// The identity, in a first activation only, so that two identities never share an id.
    pub node_id: Option<NodeId>,
    /// The VRF nonce, in a first activation or when it changed.
    pub vrf_nonce: Option<VrfNonce>,
}

impl InnerActivationTxV1 {
    /// The id of the activation.
    pub fn id(&self) -> Result<AtxId, EncodeError> {
        Ok(AtxId(Hash32::of(&[&scale::encode(self)?]).0))
    }
}

/// An activation of one identity.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct ActivationTxV1 {
    /// What the id covers.
    #[serde(flatten)]
    pub inner: InnerActivationTxV1,
    /// The identity.
    pub smesher_id: NodeId,
    /// Its signature.
    pub signature: EdSignature,
}

/// What the identity signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct AtxMetadata {
    /// The epoch of publication.
    pub publish_epoch: EpochId,
    /// The id.
    pub msg_hash: AtxId,
}

impl Signed for ActivationTxV1 {
    const DOMAIN: Domain = Domain::Atx;

    fn signed_bytes(&self) -> Result<Vec<u8>, EncodeError> {
        scale::encode(&AtxMetadata { publish_epoch: self.inner.challenge.publish_epoch, msg_hash: self.inner.id()? })
    }

    fn signer(&self) -> &NodeId {
        &self.smesher_id
    }

    fn signature(&self) -> &EdSignature {
        &self.signature
    }
}
