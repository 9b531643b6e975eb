//! Whether other people's activations are accepted (activation.md section 7).
//!
//! Validation has two halves. What an activation says of itself is checked first ([`Validator::check_alone`]); then the
//! activations and PoET proofs it names are fetched ([`dependencies`]), and it is checked against them
//! ([`Validator::check_with_dependencies`]). Consensus depends on every rule: a node that accepts less or more than others
//! counts other votes than they do.
//!
//! What the node knows stands behind [`View`], what has to be computed behind [`Proofs`].

mod v1;
mod v2;

use std::sync::Arc;

use proto::{
    activation::Activation,
    eligibility::{WeightError, vrf_difficulty},
    ids::{AtxId, EdSignature, GenesisId, Hash32, NodeId, PoetProofRef},
    layers::EpochId,
    poet::{Leaves, Ticks},
    post::{Params, Proof},
    scale::EncodeError,
    units::{Labels, SpaceUnits, TickHeight, VrfNonce},
};
use store::StoreError;
pub use store::atxs::{Atx, Share, Validity};

/// What a node keeps of an activation that it accepted, as the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its id.
    pub id: AtxId,
    /// What it says of itself and what it is worth.
    pub row: Atx,
    /// For each of its identities what it declared, and the previous activation it followed.
    pub shares: Vec<(NodeId, Share)>,
}

impl Known {
    /// What one of its identities declared.
    pub fn units_of(&self, id: &NodeId) -> Option<SpaceUnits> {
        self.shares.iter().find(|(identity, _)| identity == id).map(|(_, share)| share.units)
    }
}

/// A marriage that an identity is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marriage {
    /// The set.
    pub set: u64,
    /// The activation by which the identity was married.
    pub atx: AtxId,
}

/// A round of a PoET server whose proof is known and valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    /// The root over its members.
    pub statement: Hash32,
    /// How much time.
    pub leaves: Leaves,
}

/// What the node knows; an error says nothing about the activation.
pub trait View {
    /// An accepted activation.
    fn atx(&self, id: &AtxId) -> Result<Option<Known>, StoreError>;

    /// What an identity's labels are bound to, by its latest activation that says so.
    fn commitment(&self, id: &NodeId) -> Result<Option<AtxId>, StoreError>;

    /// A PoET round.
    fn round(&self, reference: &PoetProofRef) -> Result<Option<Round>, StoreError>;

    /// The marriage of an identity.
    fn marriage(&self, id: &NodeId) -> Result<Option<Marriage>, StoreError>;

    /// The identities of a set, in the order in which they were married.
    fn married(&self, set: u64) -> Result<Vec<NodeId>, StoreError>;
}

impl<V: View + ?Sized> View for Arc<V> {
    fn atx(&self, id: &AtxId) -> Result<Option<Known>, StoreError> {
        (**self).atx(id)
    }

    fn commitment(&self, id: &NodeId) -> Result<Option<AtxId>, StoreError> {
        (**self).commitment(id)
    }

    fn round(&self, reference: &PoetProofRef) -> Result<Option<Round>, StoreError> {
        (**self).round(reference)
    }

    fn marriage(&self, id: &NodeId) -> Result<Option<Marriage>, StoreError> {
        (**self).marriage(id)
    }

    fn married(&self, set: u64) -> Result<Vec<NodeId>, StoreError> {
        (**self).married(set)
    }
}

/// A proof of space and all that it is checked against.
#[derive(Debug, Clone, Copy)]
pub struct PostClaim<'a> {
    /// The identity.
    pub id: NodeId,
    /// What its labels are bound to.
    pub commitment: AtxId,
    /// What was proven for.
    pub challenge: [u8; 32],
    /// Its space.
    pub units: SpaceUnits,
    /// The proof.
    pub proof: &'a Proof,
    /// Which of its labels are computed.
    pub labels: Checked,
}

/// Which labels of a proof of space are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checked {
    /// All of them.
    All,
    /// The few that this node picks.
    Some,
    /// The one at this place in the list of indices.
    One(u32),
}

/// Why a proof of space was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// The label at this place in the list of indices is not good enough: whoever made the proof cheated.
    #[error("index {0} of the proof is not that of a good label")]
    Index(u32),
    /// Anything else is wrong with it.
    #[error("{0}")]
    Invalid(String),
    /// The verifier failed; this says nothing about the proof.
    #[error("could not be verified: {0}")]
    Unavailable(String),
}

/// What has to be computed.
pub trait Proofs {
    /// Verifies a proof of space.
    fn post(&self, claim: &PostClaim<'_>) -> Result<(), PostError>;

    /// The full label of an identity, all 32 bytes.
    fn label(&self, id: &NodeId, commitment: &AtxId, index: u64) -> Result<[u8; 32], PostError>;
}

impl<P: Proofs + ?Sized> Proofs for Arc<P> {
    fn post(&self, claim: &PostClaim<'_>) -> Result<(), PostError> {
        (**self).post(claim)
    }

    fn label(&self, id: &NodeId, commitment: &AtxId, index: u64) -> Result<[u8; 32], PostError> {
        (**self).label(id, commitment, index)
    }
}

/// What a network demands.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Prefix of all signatures.
    pub network: GenesisId,
    /// The first activation of all.
    pub golden: AtxId,
    /// Units and labels.
    pub post: Params,
    /// Leaves in a tick.
    pub tick_size: u64,
}

/// A rule that an activation breaks: whoever sent it is to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Not signed by its publisher.
    #[error("the signature is not that of the publisher")]
    Signature,
    /// Has no encoding, so nobody can have signed it.
    #[error("it cannot be encoded: {0}")]
    Encoding(#[from] EncodeError),
    /// For an epoch that is too far away.
    #[error("published in epoch {publish}, while epoch {current} is the present one")]
    FutureEpoch {
        /// Its epoch.
        publish: EpochId,
        /// The present one.
        current: EpochId,
    },
    /// Proves nothing.
    #[error("no proof of space and time")]
    NoNipost,
    /// Stands on nothing.
    #[error("no positioning activation")]
    NoPositioning,
    /// A first activation without the proof for the challenge of zeros.
    #[error("a first activation without initial proof of space")]
    NoInitialPost,
    /// A first activation without the identity in it.
    #[error("a first activation without the identity")]
    NoNodeId,
    /// A first activation without VRF nonce.
    #[error("a first activation without VRF nonce")]
    NoVrfNonce,
    /// A first activation that does not say what its labels are bound to.
    #[error("a first activation without commitment")]
    NoCommitment,
    /// A later activation with an initial proof.
    #[error("an initial proof of space in an activation that is not the first")]
    SecondInitialPost,
    /// A later activation with the identity in it.
    #[error("the identity in an activation that is not the first")]
    SecondNodeId,
    /// A later activation with a commitment.
    #[error("a commitment in an activation that is not the first")]
    SecondCommitment,
    /// The number of activations before it is wrong.
    #[error("sequence number {found} where {expected} comes next")]
    Sequence {
        /// That of the activation.
        found: u64,
        /// What it must be.
        expected: u64,
    },
    /// The label at the VRF nonce is not small enough.
    #[error("the label at VRF nonce {nonce} is not below the threshold for {units} units")]
    VrfNonce {
        /// The nonce.
        nonce: VrfNonce,
        /// Units that the threshold is for.
        units: SpaceUnits,
    },
    /// The initial proof of space is not valid.
    #[error("the initial proof of space is not valid: {0}")]
    InitialPost(PostError),
    /// What the labels are bound to is not known, or too young.
    #[error("the commitment {0} is not an activation of an earlier epoch")]
    Commitment(AtxId),
    /// Nobody knows what the identity's labels are bound to.
    #[error("no activation says what the labels of {0} are bound to")]
    UnknownCommitment(NodeId),
    /// The previous activation is not known.
    #[error("the previous activation {0} is not known")]
    Previous(AtxId),
    /// The previous activation is somebody else's.
    #[error("the previous activation {0} is not the identity's own")]
    PreviousOfOther(AtxId),
    /// The previous activation is not from an earlier epoch.
    #[error("the previous activation {0} is not of an earlier epoch")]
    PreviousEpoch(AtxId),
    /// The identity has no part in the previous activation.
    #[error("identity {id} has no part in the previous activation {previous}")]
    NoPreviousUnits {
        /// The identity.
        id: NodeId,
        /// The activation.
        previous: AtxId,
    },
    /// The positioning activation is not known, or too young.
    #[error("the positioning activation {0} is not an activation of an earlier epoch")]
    Positioning(AtxId),
    /// Too few or too many units.
    #[error("{0}")]
    Units(String),
    /// No proof of space.
    #[error("no proof of space")]
    NoPost,
    /// The proof of space does not say what it was made for.
    #[error("no metadata of the proof of space")]
    NoPostMetadata,
    /// Units are smaller than the network's.
    #[error("{found} labels in a unit, at least {least} are needed")]
    LabelsPerUnit {
        /// Those of the activation.
        found: u64,
        /// Those of the network.
        least: u64,
    },
    /// A proof of space is not valid.
    #[error("the proof of space of {id} is not valid: {error}")]
    Post {
        /// The identity.
        id: NodeId,
        /// Why.
        error: PostError,
    },
    /// The PoET proof is not known.
    #[error("the PoET proof {0} is not known")]
    PoetProof(PoetProofRef),
    /// The challenges are not members of the PoET round.
    #[error("the challenge is not a member of the PoET round {0}")]
    Membership(PoetProofRef),
    /// Its ticks do not fit on those below.
    #[error("the height is too large")]
    Height,
    /// Units or weights beyond what they can be.
    #[error(transparent)]
    Weight(#[from] WeightError),

    // ---- version 2 only ----
    /// Marriages without the publisher's own certificate.
    #[error("none of the marriage certificates is the publisher's own")]
    NoOwnCertificate,
    /// An activation of one identity has another number of proofs than one.
    #[error("an activation of one identity has one proof of space, this one has another number of them")]
    NotOnePost,
    /// The only identity refers to another than the first previous activation.
    #[error("an activation of one identity refers to previous activation {0}, not to the first")]
    PreviousIndexOfOne(u32),
    /// A first activation of several identities.
    #[error("a first activation of several identities")]
    MergedInitial,
    /// A first activation that follows others.
    #[error("a first activation with previous activations")]
    InitialWithPrevious,
    /// An empty or golden previous activation.
    #[error("{0} cannot be a previous activation")]
    BadPrevious(AtxId),
    /// Marriages in an activation of several identities.
    #[error("marriages in an activation of several identities")]
    MergedMarriages,
    /// An identity has several parts.
    #[error("married identity {0} has several proofs of space")]
    MarriageIndexTwice(u32),
    /// An activation of one identity follows another number of activations than one.
    #[error("an activation of one identity follows {0} activations instead of one")]
    NotOnePrevious(usize),
    /// A certificate refers to an activation that is not known.
    #[error("the activation {0} in a marriage certificate is not known")]
    CertificateAtx(AtxId),
    /// A certificate is not signed by its identity.
    #[error("the marriage certificate of {0} is not signed by it")]
    CertificateSignature(NodeId),
    /// Two certificates of one identity.
    #[error("two marriage certificates of {0}")]
    CertificateTwice(NodeId),
    /// The publisher is not married, or by another activation.
    #[error("the publisher is not married by activation {0}")]
    NotMarried(AtxId),
    /// Married too late for this epoch.
    #[error("married by activation {0}, which is too young")]
    MarriageEpoch(AtxId),
    /// No such identity in the set.
    #[error("there is no married identity {0}")]
    MarriageIndex(u32),
    /// No such previous activation.
    #[error("there is no previous activation {0}")]
    PreviousIndex(u32),
    /// The publisher has no part in it.
    #[error("the publisher has no proof of space in it")]
    PublisherMissing,
}

/// Why an activation is not accepted now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It breaks a rule: whoever sent it is dropped.
    #[error("{0}")]
    Invalid(#[from] Invalid),
    /// It proves that its publisher cheated: it is not stored, and the world is told.
    #[error("index {index} of the proof of space is wrong, which is malfeasance")]
    Malfeasance {
        /// The place in the list of indices.
        index: u32,
    },
    /// This node cannot tell; nobody is to blame.
    #[error("{0}")]
    Undecided(String),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Undecided(error.to_string())
    }
}

impl Refusal {
    /// An answer of the verifier about the proof of `id`.
    fn post(id: NodeId, error: PostError) -> Self {
        match error {
            PostError::Unavailable(why) => Self::Undecided(why),
            error => Invalid::Post { id, error }.into(),
        }
    }
}

/// What must be there before the second half: everything else is fetched from who sent the activation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dependencies {
    /// PoET proofs.
    pub poets: Vec<PoetProofRef>,
    /// Activations, the golden one left out.
    pub atxs: Vec<AtxId>,
}

/// What an activation refers to (activation.md sections 7.2 and 7.4).
pub fn dependencies(atx: &Activation, golden: &AtxId) -> Dependencies {
    let mut found = match atx {
        Activation::V1(atx) => v1::dependencies(atx),
        Activation::V2(atx) => v2::dependencies(atx),
    };
    found.atxs.retain(|id| !id.is_empty() && id != golden);
    found.atxs.sort_unstable();
    found.atxs.dedup();
    found.poets.sort_unstable();
    found.poets.dedup();
    found
}

/// Applies the rules.
#[derive(Debug, Clone)]
pub struct Validator<V, P> {
    /// What the network demands.
    pub rules: Rules,
    /// What the node knows.
    pub view: V,
    /// What has to be computed.
    pub proofs: P,
}

impl<V: View, P: Proofs> Validator<V, P> {
    /// The first half: what the activation says of itself. Whether it is known already is the caller's question.
    pub fn check_alone(&self, atx: &Activation, current: EpochId) -> Result<(), Refusal> {
        if !atx.is_signed(&self.rules.network) {
            return Err(Invalid::Signature.into());
        }
        match atx {
            Activation::V1(atx) => self.v1_alone(atx, current),
            Activation::V2(atx) => self.v2_alone(atx, current),
        }
    }

    /// The second half, when everything it depends on is there; gives what to keep of it. When it arrived is left to the caller.
    pub fn check_with_dependencies(&self, atx: &Activation) -> Result<Known, Refusal> {
        match atx {
            Activation::V1(atx) => self.v1_with_dependencies(atx),
            Activation::V2(atx) => self.v2_with_dependencies(atx),
        }
    }

    fn check_epoch(publish: EpochId, current: EpochId) -> Result<(), Invalid> {
        let near = publish.0 <= current.0.saturating_add(1);
        if near { Ok(()) } else { Err(Invalid::FutureEpoch { publish, current }) }
    }

    /// The height that an activation stands on.
    fn base(&self, positioning: &AtxId, publish: EpochId) -> Result<TickHeight, Refusal> {
        if *positioning == self.rules.golden {
            return Ok(TickHeight(0));
        }
        let known = self.view.atx(positioning)?.filter(|known| known.row.publish_epoch < publish);
        Ok(known.map(|known| known.row.height()).ok_or(Invalid::Positioning(*positioning))?)
    }

    /// A commitment is the golden activation or one of an earlier epoch.
    fn check_commitment(&self, commitment: &AtxId, publish: EpochId) -> Result<(), Refusal> {
        let good =
            *commitment == self.rules.golden || self.view.atx(commitment)?.is_some_and(|known| known.row.publish_epoch < publish);
        if good { Ok(()) } else { Err(Invalid::Commitment(*commitment).into()) }
    }

    /// The label at the VRF nonce is below the threshold (activation.md section 7.5).
    fn check_vrf(
        &self,
        id: &NodeId,
        commitment: &AtxId,
        nonce: VrfNonce,
        (units, labels_per_unit): (SpaceUnits, Labels),
    ) -> Result<(), Refusal> {
        let invalid = Invalid::VrfNonce { nonce, units };
        let Ok(threshold) = vrf_difficulty(units, labels_per_unit) else { return Err(invalid.into()) };
        match self.proofs.label(id, commitment, nonce.0) {
            Ok(label) if label < threshold => Ok(()),
            Ok(_) => Err(invalid.into()),
            Err(e) => Err(Refusal::post(*id, e)),
        }
    }

    fn check_initial_post(&self, id: NodeId, commitment: AtxId, units: SpaceUnits, proof: &Proof) -> Result<(), Refusal> {
        let claim = PostClaim { id, commitment, challenge: [0; 32], units, proof, labels: Checked::All };
        self.proofs.post(&claim).map_err(|error| match error {
            PostError::Unavailable(why) => Refusal::Undecided(why),
            error => Invalid::InitialPost(error).into(),
        })
    }

    /// Whether checking a part of the labels was checking all of them.
    fn validity(&self) -> Validity {
        if self.rules.post.k3 >= self.rules.post.k2 { Validity::Valid } else { Validity::Unknown }
    }
}

/// An activation's ticks fit on those that it stands on.
fn check_height(base: TickHeight, ticks: Ticks) -> Result<(), Invalid> {
    base.0.checked_add(ticks.0).map(|_| ()).ok_or(Invalid::Height)
}

/// What a marriage certificate is signed for.
fn is_consent(network: &GenesisId, id: &NodeId, publisher: &NodeId, signature: &EdSignature) -> bool {
    proto::signing::verify(network, proto::signing::Domain::Marriage, id, &publisher.0, signature)
}
