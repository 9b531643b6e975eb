//! Proposals: a ballot with the transactions its smesher would put into the layer's block (types.md section 5).

use serde::{Deserialize, Serialize};

use crate::{
    ballot::{Ballot, BallotMetadata},
    block::MAX_TRANSACTIONS,
    ids::{CompactProposalId, EdSignature, Hash32, NodeId, ProposalId, TransactionId},
    scale::{self, Decode, Encode, EncodeError},
    signing::{Domain, Signed},
};

/// What a proposal's signature covers: everything else, the signature of the ballot too.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct InnerProposal {
    /// The ballot.
    pub ballot: Ballot,
    /// The transactions.
    #[scale(max = MAX_TRANSACTIONS)]
    pub tx_ids: Vec<TransactionId>,
    /// What the smesher holds all blocks up to the layer before to be; empty when it is not sure.
    pub mesh_hash: Hash32,
}

/// A proposal.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Proposal {
    /// What is signed.
    #[serde(flatten)]
    pub inner: InnerProposal,
    /// The signature of the ballot's smesher.
    pub signature: EdSignature,
}

impl Proposal {
    /// The id: the hash of what is signed.
    pub fn id(&self) -> Result<ProposalId, EncodeError> {
        Ok(ProposalId(Hash32::of(&[&self.signed_bytes()?]).first20()))
    }

    /// The short name in hare messages; none for a proposal without proof of eligibility.
    pub fn compact_id(&self) -> Option<CompactProposalId> {
        let proof = &self.inner.ballot.eligibility_proofs.first()?.sig;
        Some(CompactProposalId(proof.beacon().0))
    }
}

impl Signed for Proposal {
    const DOMAIN: Domain = Domain::Proposal;

    fn signed_bytes(&self) -> Result<Vec<u8>, EncodeError> {
        let msg_hash = Hash32::of(&[&scale::encode(&self.inner)?]);
        scale::encode(&BallotMetadata { layer: self.inner.ballot.inner.layer, msg_hash })
    }

    fn signer(&self) -> &NodeId {
        &self.inner.ballot.smesher_id
    }

    fn signature(&self) -> &EdSignature {
        &self.signature
    }
}
