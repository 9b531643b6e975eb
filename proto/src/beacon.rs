//! Messages of the protocol that makes an epoch's random value (types.md section 7).

use serde::{Deserialize, Serialize};

use crate::{
    ids::{Beacon, EdSignature, Hash32, NodeId, VrfSignature},
    layers::EpochId,
    scale::{self, Bytes, Decode, Encode, EncodeError},
    signing::{Domain, Signed},
    units::VrfNonce,
    vrf::Message,
};

/// The most proposals of one kind in a first vote.
pub const MAX_PROPOSALS: usize = 1000;

/// The most bytes of votes in a later vote.
pub const MAX_VOTE_BYTES: usize = 128;

/// A draw that proposes a beacon.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct ProposalMessage {
    /// The epoch.
    pub epoch_id: EpochId,
    /// Who drew.
    pub node_id: NodeId,
    /// The draw.
    pub vrf_signature: VrfSignature,
}

impl ProposalMessage {
    /// What was drawn for, by somebody with this VRF nonce.
    pub fn drawn(&self, nonce: VrfNonce) -> Message {
        Message::BeaconProposal { nonce, epoch: self.epoch_id }
    }
}

/// What the signature of a first vote covers.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct FirstVotingMessageBody {
    /// The epoch.
    pub epoch_id: EpochId,
    /// Proposals that came in time.
    #[scale(max = MAX_PROPOSALS)]
    pub valid_proposals: Vec<Beacon>,
    /// Proposals that came a little late.
    #[scale(max = MAX_PROPOSALS)]
    pub potentially_valid_proposals: Vec<Beacon>,
}

/// The first vote of somebody.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct FirstVotingMessage {
    /// What is signed.
    #[serde(flatten)]
    pub body: FirstVotingMessageBody,
    /// Who votes.
    pub smesher_id: NodeId,
    /// The signature.
    pub signature: EdSignature,
}

/// What the signature of a later vote covers.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct FollowingVotingMessageBody {
    /// The epoch.
    pub epoch_id: EpochId,
    /// The round.
    pub round_id: u32,
    /// Which of the proposals of the voter's first vote are supported; see [`pack_votes`].
    #[scale(max = MAX_VOTE_BYTES)]
    pub votes_bit_vector: Bytes,
}

/// A later vote of somebody.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct FollowingVotingMessage {
    /// What is signed.
    #[serde(flatten)]
    pub body: FollowingVotingMessageBody,
    /// Who votes.
    pub smesher_id: NodeId,
    /// The signature.
    pub signature: EdSignature,
}

macro_rules! signed {
    ($message:ty, $domain:expr) => {
        impl Signed for $message {
            const DOMAIN: Domain = $domain;

            fn signed_bytes(&self) -> Result<Vec<u8>, EncodeError> {
                scale::encode(&self.body)
            }

            fn signer(&self) -> &NodeId {
                &self.smesher_id
            }

            fn signature(&self) -> &EdSignature {
                &self.signature
            }
        }
    };
}

signed!(FirstVotingMessage, Domain::BeaconFirst);
signed!(FollowingVotingMessage, Domain::BeaconFollowing);

/// A throw of the weak coin.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct WeakCoinMessage {
    /// The epoch.
    pub epoch: EpochId,
    /// The round.
    pub round: u32,
    /// Which of the thrower's throws.
    pub unit: u32,
    /// Who threw.
    pub node_id: NodeId,
    /// The throw.
    pub vrf_signature: VrfSignature,
}

impl WeakCoinMessage {
    /// What was drawn for, by somebody with this VRF nonce.
    pub fn drawn(&self, nonce: VrfNonce) -> Message {
        Message::WeakCoin { nonce, epoch: self.epoch, round: self.round, unit: self.unit }
    }
}

/// Votes as a big-endian number whose bit `i` is the support for the proposal at `i`, without zero bytes in front.
pub fn pack_votes(supported: &[bool]) -> Bytes {
    let byte = |bits: &[bool]| bits.iter().rev().fold(0, |byte, bit| byte << 1 | u8::from(*bit));
    let bytes = supported.chunks(8).rev().map(byte);
    Bytes(bytes.skip_while(|byte| *byte == 0).collect())
}

/// Votes on `count` proposals: bits beyond are ignored, missing ones are against.
pub fn unpack_votes(votes: &[u8], count: usize) -> Vec<bool> {
    let bits = votes.iter().rev().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
    bits.chain(std::iter::repeat(false)).take(count).collect()
}

/// The hash over proposals in ascending order; the beacon that they agree on is its first four bytes.
pub fn hash(mut proposals: Vec<Beacon>) -> Hash32 {
    proposals.sort_unstable();
    Hash32::of(&proposals.iter().map(AsRef::as_ref).collect::<Vec<_>>())
}
