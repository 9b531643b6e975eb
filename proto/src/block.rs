//! Blocks and the certificates that hare agreed on them (types.md section 5).

use serde::{Deserialize, Serialize};

use crate::{
    ballot::Vote,
    ids::{Address, AtxId, BlockId, EdSignature, Hash32, NodeId, TransactionId, VrfSignature},
    layers::LayerId,
    scale::{self, Decode, Encode, EncodeError},
    signing::{Domain, Signed},
    units::{Smidge, TickHeight},
};

/// The most transactions in a block or proposal.
pub const MAX_TRANSACTIONS: usize = 100_000;

/// The most rewards in a block, and the most proposals that hare agrees on.
pub const MAX_PROPOSALS: usize = 2350;

/// The most signatures of a certificate.
pub const MAX_CERTIFIERS: usize = 1000;

/// A fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct RatNum {
    /// The numerator.
    pub num: u64,
    /// The denominator.
    pub denom: u64,
}

/// Somebody's share of a block's reward.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct AnyReward {
    /// The activation, which names the account that is paid.
    pub atx_id: AtxId,
    /// The share, relative to those of the others.
    pub weight: RatNum,
}

/// A block, as it is hashed, stored and sent.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct InnerBlock {
    /// The layer.
    pub layer_index: LayerId,
    /// The largest height below the activations of its proposals.
    pub tick_height: TickHeight,
    /// Who is paid.
    #[scale(max = MAX_PROPOSALS)]
    pub rewards: Vec<AnyReward>,
    /// What is executed, in this order.
    #[scale(max = MAX_TRANSACTIONS)]
    pub tx_ids: Vec<TransactionId>,
}

impl InnerBlock {
    /// The id.
    pub fn id(&self) -> Result<BlockId, EncodeError> {
        Ok(BlockId(Hash32::of(&[&scale::encode(self)?]).first20()))
    }

    /// How ballots name it.
    pub fn vote(&self) -> Result<Vote, EncodeError> {
        Ok(Vote { id: self.id()?, layer_id: self.layer_index, height: self.tick_height })
    }
}

/// What was paid to a smesher for a layer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Reward {
    /// The layer.
    pub layer: LayerId,
    /// All of it.
    pub total_reward: Smidge,
    /// What of it was newly made; the rest are fees.
    pub layer_reward: Smidge,
    /// The account.
    pub coinbase: Address,
    /// The smesher.
    pub smesher_id: NodeId,
}

/// What a certifier signs.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct CertifyContent {
    /// The layer.
    pub layer_id: LayerId,
    /// The block that hare agreed on; empty for none.
    pub block_id: BlockId,
    /// The seats of the certifier.
    pub eligibility_cnt: u16,
    /// The draw that gave them.
    pub proof: VrfSignature,
}

/// A certifier's word for the block of a layer. It shares its domain with hare messages, whose signed bytes are shorter.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct CertifyMessage {
    /// What is signed.
    #[serde(flatten)]
    pub content: CertifyContent,
    /// The signature.
    pub signature: EdSignature,
    /// The certifier.
    pub smesher_id: NodeId,
}

impl Signed for CertifyMessage {
    const DOMAIN: Domain = Domain::Hare;

    fn signed_bytes(&self) -> Result<Vec<u8>, EncodeError> {
        scale::encode(&self.content)
    }

    fn signer(&self) -> &NodeId {
        &self.smesher_id
    }

    fn signature(&self) -> &EdSignature {
        &self.signature
    }
}

/// Enough certifiers' words for a block.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Certificate {
    /// The block.
    pub block_id: BlockId,
    /// The words.
    #[scale(max = MAX_CERTIFIERS)]
    pub signatures: Vec<CertifyMessage>,
}
