//! Messages of hare, which agrees on the proposals of a layer (types.md section 6).
//!
//! - [`Round`]: the rounds of an iteration
//! - [`Hare3Message`] and [`Hare4Message`]: the two protocols; no preset turns the second one on
//! - [`reference()`]: the hash of a set of proposals, which later rounds carry in its place

use serde::{Deserialize, Serialize};

use crate::{
    block::MAX_PROPOSALS,
    ids::{CompactProposalId, EdSignature, Hash32, NodeId, ProposalId, VrfSignature},
    layers::LayerId,
    scale::{self, Decode, Encode, EncodeError},
    signing::{Domain, Signed},
};

/// The most ids in an answer to a request for the full ids behind compact ones.
pub const MAX_COMPACT_ANSWER: usize = 2050;

/// Rounds in an iteration that follows another one; the very first begins with the preround.
const ROUNDS: u32 = 7;

/// A round of an iteration. Only some of them have messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
pub struct Round(pub u8);

impl Round {
    /// Everybody names the proposals they know.
    pub const PREROUND: Self = Self(0);
    /// Who is locked on a set keeps to it.
    pub const HARDLOCK: Self = Self(1);
    /// Who is softly locked keeps to it, too.
    pub const SOFTLOCK: Self = Self(2);
    /// The leader names a set.
    pub const PROPOSE: Self = Self(3);
    /// Time for messages to arrive.
    pub const WAIT1: Self = Self(4);
    /// More of it.
    pub const WAIT2: Self = Self(5);
    /// The committee names the set it commits to.
    pub const COMMIT: Self = Self(6);
    /// The committee says that enough have committed.
    pub const NOTIFY: Self = Self(7);

    /// Whether there are messages of this round.
    pub fn has_messages(self) -> bool {
        [Self::PREROUND, Self::PROPOSE, Self::COMMIT, Self::NOTIFY].contains(&self)
    }

    /// Whether messages of this round carry the hash of a set in place of the set.
    pub fn has_reference(self) -> bool {
        [Self::COMMIT, Self::NOTIFY].contains(&self)
    }
}

/// The round counted over all iterations.
pub fn absolute_round(iter: u8, round: Round) -> u32 {
    u32::from(iter) * ROUNDS + u32::from(round.0)
}

/// The seats that somebody drew in a round.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct HareEligibility {
    /// The draw.
    pub proof: VrfSignature,
    /// The seats.
    pub count: u16,
}

/// Seats, told to others. No longer in use: it must be absent where a format has room for it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct HareEligibilityGossip {
    /// The layer.
    pub layer: LayerId,
    /// The round, counted over all iterations.
    pub round: u32,
    /// Whose seats.
    pub node_id: NodeId,
    /// The seats.
    pub eligibility: HareEligibility,
}

/// What is signed of a message.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct HareMetadata {
    /// The layer.
    pub layer: LayerId,
    /// The round, counted over all iterations.
    pub round: u32,
    /// The hash of the body.
    pub msg_hash: Hash32,
}

/// The hash of a set of proposals: over their ids in ascending order, each with twelve zero bytes behind it.
pub fn reference(mut ids: Vec<ProposalId>) -> Hash32 {
    ids.sort_unstable();
    let mut hasher = blake3::Hasher::new();
    for id in ids {
        hasher.update(&Hash32::padded(&id.0).0);
    }
    Hash32(hasher.finalize().into())
}

/// Rounds with messages carry a set or its hash, never the one for the other.
fn is_valid(round: Round, reference: Option<&Hash32>) -> bool {
    !round.has_messages() || round.has_reference() == reference.is_some()
}

/// A set of proposals, or its hash.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, Deserialize)]
pub struct Hare3Value {
    /// The set.
    #[scale(max = MAX_PROPOSALS)]
    pub proposals: Vec<ProposalId>,
    /// The hash.
    pub reference: Option<Hash32>,
}

/// What the signature of a message covers.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Hare3Body {
    /// The layer.
    pub layer: LayerId,
    /// The iteration.
    pub iter: u8,
    /// The round of the iteration.
    pub round: Round,
    /// The set.
    pub value: Hare3Value,
    /// The sender's seats.
    pub eligibility: HareEligibility,
}

/// A message of the hare protocol in use.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Hare3Message {
    /// What is signed.
    #[serde(flatten)]
    pub body: Hare3Body,
    /// The sender.
    pub sender: NodeId,
    /// Its signature.
    pub signature: EdSignature,
}

/// A set of proposals by their full or short names, or its hash.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, Deserialize)]
pub struct Hare4Value {
    /// The set; empty on the wire in the preround.
    #[scale(max = MAX_PROPOSALS)]
    pub proposals: Vec<ProposalId>,
    /// The hash.
    pub reference: Option<Hash32>,
    /// The set by short names, on the wire in the preround.
    #[scale(max = MAX_PROPOSALS)]
    pub compact_proposals: Vec<CompactProposalId>,
}

/// What the signature of a message covers, once short names are replaced.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Hare4Body {
    /// The layer.
    pub layer: LayerId,
    /// The iteration.
    pub iter: u8,
    /// The round of the iteration.
    pub round: Round,
    /// The set.
    pub value: Hare4Value,
    /// The sender's seats.
    pub eligibility: HareEligibility,
}

/// A message of the hare protocol with short names. A preround message is signed with the full names and sent with the short
/// ones: [`Hare4Message::compacted`] and [`Hare4Message::restored`] lead from one form to the other.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Hare4Message {
    /// What is signed.
    #[serde(flatten)]
    pub body: Hare4Body,
    /// The sender.
    pub sender: NodeId,
    /// Its signature.
    pub signature: EdSignature,
}

impl Hare4Message {
    /// With short names in place of the full ones, one for each and in the same order.
    #[must_use]
    pub fn compacted(&self, compact: Vec<CompactProposalId>) -> Self {
        let mut message = self.clone();
        message.body.value.proposals.clear();
        message.body.value.compact_proposals = compact;
        message
    }

    /// With full names in place of the short ones, in ascending order.
    #[must_use]
    pub fn restored(&self, mut proposals: Vec<ProposalId>) -> Self {
        let mut message = self.clone();
        proposals.sort_unstable();
        message.body.value.proposals = proposals;
        message.body.value.compact_proposals.clear();
        message
    }
}

macro_rules! message {
    ($message:ty, $body:ty) => {
        impl $body {
            /// The hash of the body, by which a message is looked up.
            pub fn hash(&self) -> Result<Hash32, EncodeError> {
                Ok(Hash32::of(&[&scale::encode(self)?]))
            }

            /// The round counted over all iterations.
            pub fn absolute_round(&self) -> u32 {
                absolute_round(self.iter, self.round)
            }

            /// Whether the round may carry what it does.
            pub fn is_valid(&self) -> bool {
                is_valid(self.round, self.value.reference.as_ref())
            }
        }

        impl Signed for $message {
            const DOMAIN: Domain = Domain::Hare;

            fn signed_bytes(&self) -> Result<Vec<u8>, EncodeError> {
                let (layer, round) = (self.body.layer, self.body.absolute_round());
                scale::encode(&HareMetadata { layer, round, msg_hash: self.body.hash()? })
            }

            fn signer(&self) -> &NodeId {
                &self.sender
            }

            fn signature(&self) -> &EdSignature {
                &self.signature
            }
        }
    };
}

message!(Hare3Message, Hare3Body);
message!(Hare4Message, Hare4Body);

/// Asks a peer for the full names in a message.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct CompactIdRequest {
    /// The hash of the body of the message.
    pub msg_id: Hash32,
}

/// The full names in a message.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct CompactIdResponse {
    /// The names.
    #[scale(max = MAX_COMPACT_ANSWER)]
    pub ids: Vec<ProposalId>,
}
