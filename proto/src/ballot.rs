//! Ballots: what a smesher votes for, layer by layer (types.md section 5).

use serde::{Deserialize, Serialize};

use crate::{
    ids::{AtxId, BallotId, Beacon, BlockId, EdSignature, Hash32, NodeId, VrfSignature},
    layers::LayerId,
    scale::{self, Decode, Encode, EncodeError},
    signing::{Domain, Signed},
    units::TickHeight,
};

/// The most votes of one kind in a ballot.
pub const MAX_VOTES: usize = 10_000;

/// The most proofs of eligibility in a ballot.
pub const MAX_ELIGIBILITIES: usize = 25_000;

/// What a smesher declares once, in its first ballot of an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct EpochData {
    /// The activations it takes into account.
    pub active_set_hash: Hash32,
    /// The beacon it knows.
    pub beacon: Beacon,
    /// How many proposals it may make in the epoch.
    pub eligibility_count: u32,
}

/// What the id of a ballot covers: not its votes, proofs and signature.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct InnerBallot {
    /// The layer.
    pub layer: LayerId,
    /// The activation that makes the smesher eligible.
    pub atx_id: AtxId,
    /// The opinion that the votes amount to.
    pub opinion_hash: Hash32,
    /// The smesher's first ballot of the epoch; empty in that one.
    pub ref_ballot: BallotId,
    /// In the first ballot only.
    pub epoch_data: Option<EpochData>,
}

impl InnerBallot {
    fn hash(&self) -> Result<Hash32, EncodeError> {
        Ok(Hash32::of(&[&scale::encode(self)?]))
    }

    /// The id of the ballot.
    pub fn id(&self) -> Result<BallotId, EncodeError> {
        Ok(BallotId(self.hash()?.first20()))
    }
}

/// A block that is voted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Vote {
    /// Its id.
    pub id: BlockId,
    /// Its layer.
    pub layer_id: LayerId,
    /// Its height.
    pub height: TickHeight,
}

/// Votes, as the difference to those of another ballot.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, Deserialize)]
pub struct Votes {
    /// The ballot whose votes these change.
    pub base: BallotId,
    /// Blocks that are supported.
    #[scale(max = MAX_VOTES)]
    pub support: Vec<Vote>,
    /// Blocks that no longer are.
    #[scale(max = MAX_VOTES)]
    pub against: Vec<Vote>,
    /// Layers on which the smesher has no opinion yet.
    #[scale(max = MAX_VOTES)]
    pub abstain: Vec<LayerId>,
}

/// Votes with the opinion they amount to.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Opinion {
    /// The hash of the opinion.
    pub hash: Hash32,
    /// The votes.
    #[serde(flatten)]
    pub votes: Votes,
}

/// Proof that the layer of a ballot was drawn.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct VotingEligibility {
    /// Which of the smesher's proposals of the epoch.
    pub j: u32,
    /// The draw.
    pub sig: VrfSignature,
}

/// A ballot.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Ballot {
    /// What the id covers.
    #[serde(flatten)]
    pub inner: InnerBallot,
    /// The smesher's signature.
    pub signature: EdSignature,
    /// The smesher.
    pub smesher_id: NodeId,
    /// Its votes.
    pub votes: Votes,
    /// Why it may vote in this layer.
    #[scale(max = MAX_ELIGIBILITIES)]
    pub eligibility_proofs: Vec<VotingEligibility>,
    /// Obsolete: empty in what is sent, dropped from what is received.
    #[scale(max = 1)]
    pub active_set: Vec<AtxId>,
}

/// What is signed of a ballot or a proposal.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct BallotMetadata {
    /// The layer.
    pub layer: LayerId,
    /// The hash of what is signed.
    pub msg_hash: Hash32,
}

impl Signed for Ballot {
    const DOMAIN: Domain = Domain::Ballot;

    fn signed_bytes(&self) -> Result<Vec<u8>, EncodeError> {
        scale::encode(&BallotMetadata { layer: self.inner.layer, msg_hash: self.inner.hash()? })
    }

    fn signer(&self) -> &NodeId {
        &self.smesher_id
    }

    fn signature(&self) -> &EdSignature {
        &self.signature
    }
}
