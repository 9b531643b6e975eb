//! Proofs that an identity broke a rule (types.md section 10).
//!
//! [`MalfeasanceProof`] is what nodes send to each other; [`ProofDoubleMarry`] belongs to a second format that is defined but
//! not sent. The checks here need nothing but the proof. What else must hold — the identity is known, or a label is indeed
//! wrong — [`MalfeasanceProof::check`] leaves to its caller.

use serde::{Deserialize, Serialize};

use crate::{
    activation::{
        v1::{ActivationTxV1, AtxMetadata},
        v2::MARRIAGES_LEAF,
    },
    ballot::BallotMetadata,
    hare::{HareEligibilityGossip, HareMetadata},
    ids::{AtxId, EdSignature, GenesisId, NodeId},
    json,
    layers::LayerId,
    merkle,
    poet::MAX_MEMBERSHIP_NODES,
    scale::{self, Bytes, Decode, DecodeError, Encode, EncodeError, Reader, Writer},
    signing::{self, Domain, Signed},
};

/// The most bytes of a proof in the second format.
pub const MAX_PROOF: usize = 1 << 20;

/// Why a proof proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A signature is not its signer's.
    #[error("a signature is not valid")]
    Signature,
    /// The messages are of different identities.
    #[error("the messages are of different identities")]
    Identities,
    /// The messages belong to different epochs, layers or rounds.
    #[error("the messages do not belong to the same time")]
    Times,
    /// The messages are the same.
    #[error("the messages are the same")]
    Same,
    /// The activations name different previous ones.
    #[error("the activations name different previous ones")]
    Previous,
    /// A part is not where the proof says.
    #[error("{0} does not lead to its root")]
    Path(&'static str),
    /// A part does not fit its format.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The gossip carries a field that must be absent.
    #[error("the eligibility must be absent")]
    Eligibility,
}

macro_rules! signed_part {
    ($(#[$doc:meta])* $name:ident, $inner:ty, $domain:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
        pub struct $name {
            /// What was signed.
            pub inner_msg: $inner,
            /// The signer.
            pub smesher_id: NodeId,
            /// The signature.
            pub signature: EdSignature,
        }

        impl Signed for $name {
            const DOMAIN: Domain = $domain;

            fn signed_bytes(&self) -> Result<Vec<u8>, EncodeError> {
                scale::encode(&self.inner_msg)
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

signed_part! {
    /// The signed part of an activation.
    AtxPart, AtxMetadata, Domain::Atx
}
signed_part! {
    /// The signed part of a ballot.
    BallotPart, BallotMetadata, Domain::Ballot
}
signed_part! {
    /// The signed part of a hare message.
    HarePart, HareMetadata, Domain::Hare
}

/// Two signed parts that one identity must not both have signed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct MultipleAtxs {
    /// Two activations of one epoch.
    pub messages: (AtxPart, AtxPart),
}

/// Two signed parts that one identity must not both have signed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct MultipleBallots {
    /// Two ballots of one layer.
    pub messages: (BallotPart, BallotPart),
}

/// Two signed parts that one identity must not both have signed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct HareEquivocation {
    /// Two messages of one round.
    pub messages: (HarePart, HarePart),
}

/// An activation whose proof of space shows a label that is not good.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct InvalidPostIndex {
    /// The activation.
    pub atx: ActivationTxV1,
    /// Which of the proof's indices.
    pub invalid_idx: u32,
}

/// Two activations that name the same previous one.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct InvalidPrevAtx {
    /// One.
    pub atx1: ActivationTxV1,
    /// The other.
    pub atx2: ActivationTxV1,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "body", rename_all = "snake_case")]
pub enum Offence {
    /// Type 1.
    MultipleAtxs(Box<MultipleAtxs>),
    /// Type 2.
    MultipleBallots(Box<MultipleBallots>),
    /// Type 3.
    HareEquivocation(Box<HareEquivocation>),
    /// Type 4.
    InvalidPostIndex(Box<InvalidPostIndex>),
    /// Type 5.
    InvalidPrevAtx(Box<InvalidPrevAtx>),
}

impl Offence {
    /// The type, which stands on the wire as a byte and not as a compact integer.
    pub const fn number(&self) -> u8 {
        match self {
            Self::MultipleAtxs(_) => 1,
            Self::MultipleBallots(_) => 2,
            Self::HareEquivocation(_) => 3,
            Self::InvalidPostIndex(_) => 4,
            Self::InvalidPrevAtx(_) => 5,
        }
    }
}

impl Encode for Offence {
    fn encode(&self, to: &mut Writer) -> Result<(), EncodeError> {
        to.raw(&[self.number()]);
        match self {
            Self::MultipleAtxs(body) => body.encode(to),
            Self::MultipleBallots(body) => body.encode(to),
            Self::HareEquivocation(body) => body.encode(to),
            Self::InvalidPostIndex(body) => body.encode(to),
            Self::InvalidPrevAtx(body) => body.encode(to),
        }
    }
}

impl Decode for Offence {
    const MIN_BYTES: usize = 1;

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match from.array()? {
            [1] => Decode::decode(from).map(Self::MultipleAtxs),
            [2] => Decode::decode(from).map(Self::MultipleBallots),
            [3] => Decode::decode(from).map(Self::HareEquivocation),
            [4] => Decode::decode(from).map(Self::InvalidPostIndex),
            [5] => Decode::decode(from).map(Self::InvalidPrevAtx),
            _ => Err(DecodeError::Invalid { what: "type of malfeasance proof" }),
        }
    }
}

/// A proof that an identity broke a rule, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct MalfeasanceProof {
    /// The layer in which it was found; for information only.
    pub layer: LayerId,
    /// What was done.
    #[serde(flatten)]
    pub offence: Offence,
}

/// A proof that an identity broke a rule, as it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct MalfeasanceGossip {
    /// The proof.
    #[serde(flatten)]
    pub proof: MalfeasanceProof,
    /// No longer in use: must be absent.
    pub eligibility: Option<HareEligibilityGossip>,
}

/// Checks two messages of one identity and time; `same` tells whether they are one message.
fn check_pair<M: Signed>(pair: (&M, &M), network: &GenesisId, times_agree: bool, same: bool) -> Result<NodeId, Invalid> {
    if !pair.0.is_signed(network) || !pair.1.is_signed(network) {
        return Err(Invalid::Signature);
    }
    if pair.0.signer() != pair.1.signer() {
        return Err(Invalid::Identities);
    }
    if !times_agree {
        return Err(Invalid::Times);
    }
    if same { Err(Invalid::Same) } else { Ok(*pair.0.signer()) }
}

impl MalfeasanceProof {
    /// Checks what can be checked without knowing anything else, and names the identity.
    ///
    /// Left to the caller: that the identity has an activation (all types but the invalid index) and that the proof of space
    /// fails at the index (type 4).
    pub fn check(&self, network: &GenesisId) -> Result<NodeId, Invalid> {
        match &self.offence {
            Offence::MultipleAtxs(body) => {
                let (a, b) = (&body.messages.0, &body.messages.1);
                let (x, y) = (&a.inner_msg, &b.inner_msg);
                check_pair((a, b), network, x.publish_epoch == y.publish_epoch, x.msg_hash == y.msg_hash)
            }
            Offence::MultipleBallots(body) => {
                let (a, b) = (&body.messages.0, &body.messages.1);
                let (x, y) = (&a.inner_msg, &b.inner_msg);
                check_pair((a, b), network, x.layer == y.layer, x.msg_hash == y.msg_hash)
            }
            Offence::HareEquivocation(body) => {
                let (a, b) = (&body.messages.0, &body.messages.1);
                let (x, y) = (&a.inner_msg, &b.inner_msg);
                check_pair((a, b), network, (x.layer, x.round) == (y.layer, y.round), x.msg_hash == y.msg_hash)
            }
            Offence::InvalidPostIndex(body) => {
                if body.atx.is_signed(network) {
                    Ok(body.atx.smesher_id)
                } else {
                    Err(Invalid::Signature)
                }
            }
            Offence::InvalidPrevAtx(body) => {
                let (a, b) = (&body.atx1, &body.atx2);
                let identity = check_pair((a, b), network, true, a.inner.id()? == b.inner.id()?)?;
                if a.inner.challenge.prev_atx_id == b.inner.challenge.prev_atx_id { Ok(identity) } else { Err(Invalid::Previous) }
            }
        }
    }
}

impl MalfeasanceGossip {
    /// Like [`MalfeasanceProof::check`].
    pub fn check(&self, network: &GenesisId) -> Result<NodeId, Invalid> {
        if self.eligibility.is_some() {
            return Err(Invalid::Eligibility);
        }
        self.proof.check(network)
    }
}

/// The second format: a proof of some type, not yet decoded.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct AtxProof {
    /// The version of the format.
    pub version: u8,
    /// The type; see [`AtxProof::DOUBLE_MARRY`].
    pub proof_type: u8,
    /// The proof.
    #[scale(max = MAX_PROOF)]
    pub proof: Bytes,
}

impl AtxProof {
    /// The only type with a body: [`ProofDoubleMarry`].
    pub const DOUBLE_MARRY: u8 = 0x11;
}

/// Shows that an activation contains a marriage certificate of an identity.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct MarryProof {
    /// The activation.
    pub atx_id: AtxId,
    /// The root over its certificates.
    #[serde(with = "json::base64")]
    pub marriage_root: [u8; 32],
    /// Leads from that root to the id.
    #[scale(max = MAX_MEMBERSHIP_NODES)]
    #[serde(with = "json::base64_list")]
    pub marriage_proof: Vec<[u8; 32]>,
    /// The activation the certificate refers to.
    pub certificate_reference: AtxId,
    /// The identity's consent.
    pub certificate_signature: EdSignature,
    /// Which of the certificates.
    pub certificate_index: u64,
    /// Leads from the certificate to the root over all of them.
    #[scale(max = MAX_MEMBERSHIP_NODES)]
    #[serde(with = "json::base64_list")]
    pub certificate_proof: Vec<[u8; 32]>,
    /// Who published the activation.
    pub smesher_id: NodeId,
    /// Its signature of the activation.
    pub signature: EdSignature,
}

/// Shows that an identity married twice.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct ProofDoubleMarry {
    /// The identity.
    pub node_id: NodeId,
    /// Its two marriages.
    pub proofs: (MarryProof, MarryProof),
}

impl MarryProof {
    fn check(&self, network: &GenesisId, identity: &NodeId) -> Result<(), Invalid> {
        if !signing::verify(network, Domain::Atx, &self.smesher_id, &self.atx_id.0, &self.signature)
            || !signing::verify(network, Domain::Marriage, identity, &self.smesher_id.0, &self.certificate_signature)
        {
            return Err(Invalid::Signature);
        }
        let leads = |root: &[u8; 32], index, leaf: &[u8], path: &[[u8; 32]]| merkle::verify(root, &[index], &[leaf], path);
        if leads(&self.atx_id.0, MARRIAGES_LEAF, &self.marriage_root, &self.marriage_proof) != Ok(true) {
            return Err(Invalid::Path("the root over the certificates"));
        }
        let certificate = merkle::join(&self.certificate_reference.0, &self.certificate_signature.0);
        if leads(&self.marriage_root, self.certificate_index, &certificate, &self.certificate_proof) != Ok(true) {
            return Err(Invalid::Path("the certificate"));
        }
        Ok(())
    }
}

impl ProofDoubleMarry {
    /// Checks the proof, which needs nothing else, and names the identity.
    pub fn check(&self, network: &GenesisId) -> Result<NodeId, Invalid> {
        if self.proofs.0.atx_id == self.proofs.1.atx_id {
            return Err(Invalid::Same);
        }
        self.proofs.0.check(network, &self.node_id)?;
        self.proofs.1.check(network, &self.node_id)?;
        Ok(self.node_id)
    }
}
