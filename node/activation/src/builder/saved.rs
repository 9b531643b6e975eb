//! What a builder keeps on disk (activation.md section 3).

use std::collections::BTreeMap;

use proto::{
    activation::{
        Activation, Version,
        v1::{ActivationTxV1, InnerActivationTxV1, NipostChallengeV1},
        v2::ActivationTxV2,
    },
    ids::{AtxId, EdSignature, Hash32, NodeId, PoetProofRef},
    layers::EpochId,
    poet::MembershipProof,
    post::Proof,
    scale::{Decode, DecodeError, Encode, EncodeError, Reader, Writer},
    units::{Labels, SpaceUnits, VrfNonce},
};

use crate::timeline::Moment;

/// The proof of space for the challenge of zeros.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct InitialPost {
    /// The proof.
    pub post: Proof,
    /// What the labels are bound to.
    pub commitment: AtxId,
    /// Its space.
    pub num_units: SpaceUnits,
    /// The VRF nonce at that time.
    pub vrf_nonce: VrfNonce,
}

/// What an identity has committed itself to for an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Challenge {
    /// What is registered with PoET servers. In epochs of version 2 its hash is that of the same parts in the form of version 2.
    pub parts: NipostChallengeV1,
    /// The proof of elapsed time, once there is one.
    pub best: Option<BestProof>,
}

impl Challenge {
    /// The publish epoch.
    pub fn publish(&self) -> EpochId {
        self.parts.publish_epoch
    }
}

/// The chosen proof of elapsed time.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct BestProof {
    /// Its name.
    pub reference: PoetProofRef,
    /// Leads from the challenge to the statement of the round.
    pub membership: MembershipProof,
}

/// A PoET server has taken the challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The server's address.
    pub poet: String,
    /// What was registered.
    pub challenge: Hash32,
    /// The round.
    pub round: String,
    /// When it ends.
    pub end: Moment,
}

/// Everything that an activation proves.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Nipost {
    /// The proof of space.
    pub post: Proof,
    /// Its space.
    pub num_units: SpaceUnits,
    /// The VRF nonce.
    pub vrf_nonce: VrfNonce,
    /// Labels in a unit.
    pub labels_per_unit: Labels,
    /// The proof of elapsed time, which is what space was proven for.
    pub reference: PoetProofRef,
    /// Leads from the challenge to the statement of the round.
    pub membership: MembershipProof,
}

/// An activation without its signature.
#[derive(Debug, Clone, PartialEq)]
pub enum Unsigned {
    /// Of one identity.
    V1(InnerActivationTxV1),
    /// Of married identities; the signature in it is empty.
    V2(ActivationTxV2),
}

impl Unsigned {
    /// The signed activation.
    pub fn with(self, smesher_id: NodeId, signature: EdSignature) -> Activation {
        match self {
            Self::V1(inner) => Activation::V1(Box::new(ActivationTxV1 { inner, smesher_id, signature })),
            Self::V2(atx) => Activation::V2(Box::new(ActivationTxV2 { smesher_id, signature, ..atx })),
        }
    }

    /// The id.
    pub fn id(&self) -> Result<AtxId, EncodeError> {
        match self {
            Self::V1(inner) => inner.id(),
            Self::V2(atx) => atx.id(),
        }
    }
}

/// An activation that may be published, and nothing else in its epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct SignedActivation {
    /// Its id.
    pub id: AtxId,
    /// The activation.
    pub activation: Activation,
}

/// The most bytes of a server's address, and of the name of a round.
const MAX_TEXT: usize = 4096;

fn text(from: &mut Reader<'_>) -> Result<String, DecodeError> {
    String::from_utf8(from.bytes(MAX_TEXT)?.to_vec()).map_err(|_| DecodeError::Invalid { what: "text" })
}

fn put_version(to: &mut Writer, version: Version, of: &impl Encode) -> Result<(), EncodeError> {
    to.raw(&[version.into()]);
    of.encode(to)
}

fn version(from: &mut Reader<'_>) -> Result<Version, DecodeError> {
    let [version] = from.array()?;
    Version::try_from(version).map_err(|_| DecodeError::Invalid { what: "version of activations" })
}

impl Encode for Registration {
    fn encode(&self, to: &mut Writer) -> Result<(), EncodeError> {
        to.bytes(self.poet.as_bytes(), MAX_TEXT)?;
        self.challenge.encode(to)?;
        to.bytes(self.round.as_bytes(), MAX_TEXT)?;
        to.raw(&self.end.0.to_be_bytes());
        Ok(())
    }
}

impl Decode for Registration {
    const MIN_BYTES: usize = 1 + Hash32::MIN_BYTES + 1 + 8;

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (poet, challenge, round) = (text(from)?, Hash32::decode(from)?, text(from)?);
        Ok(Self { poet, challenge, round, end: Moment(i64::from_be_bytes(from.array()?)) })
    }
}

impl Encode for Unsigned {
    fn encode(&self, to: &mut Writer) -> Result<(), EncodeError> {
        match self {
            Self::V1(inner) => put_version(to, Version::V1, inner),
            Self::V2(atx) => put_version(to, Version::V2, atx),
        }
    }
}

impl Decode for Unsigned {
    const MIN_BYTES: usize = 1;

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match version(from)? {
            Version::V1 => Decode::decode(from).map(Self::V1),
            Version::V2 => Decode::decode(from).map(Self::V2),
        }
    }
}

impl Encode for SignedActivation {
    fn encode(&self, to: &mut Writer) -> Result<(), EncodeError> {
        self.id.encode(to)?;
        match &self.activation {
            Activation::V1(atx) => put_version(to, Version::V1, atx),
            Activation::V2(atx) => put_version(to, Version::V2, atx),
        }
    }
}

impl Decode for SignedActivation {
    const MIN_BYTES: usize = AtxId::MIN_BYTES + 1;

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let id = AtxId::decode(from)?;
        let activation = match version(from)? {
            Version::V1 => Activation::V1(Decode::decode(from)?),
            Version::V2 => Activation::V2(Decode::decode(from)?),
        };
        Ok(Self { id, activation })
    }
}

/// The rows of one identity.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Saved {
    /// Kept for good, unless it is found invalid.
    pub initial: Option<InitialPost>,
    /// Until its activation is published or it is too late for that.
    pub challenge: Option<Challenge>,
    /// By the address of the server; as long as the challenge.
    pub registrations: BTreeMap<String, Registration>,
    /// As long as the challenge.
    pub nipost: Option<Nipost>,
    /// What is signed, or will be; as long as the challenge.
    pub assembled: Option<Unsigned>,
    /// As long as the challenge.
    pub signed: Option<SignedActivation>,
}

/// One change of [`Saved`].
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The initial proof was made.
    InitialPost(InitialPost),
    /// It is invalid.
    NoInitialPost,
    /// There is a challenge, or its proof of elapsed time was found.
    Challenge(Challenge),
    /// The challenge is done with, and with it what was assembled and signed.
    NoChallenge,
    /// A server took it.
    Registered(Registration),
    /// No server counts any more.
    NoRegistrations,
    /// Space was proven.
    Nipost(Nipost),
    /// That proof is done with.
    NoNipost,
    /// The activation is complete; nothing else will be signed for its epoch.
    Assembled(Box<Unsigned>),
    /// The activation was signed.
    Signed(SignedActivation),
}

impl Saved {
    /// Makes a change.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::InitialPost(initial) => self.initial = Some(initial),
            Change::NoInitialPost => self.initial = None,
            Change::Challenge(challenge) => self.challenge = Some(challenge),
            Change::NoChallenge => (self.challenge, self.assembled, self.signed) = (None, None, None),
            Change::Registered(registration) => {
                self.registrations.insert(registration.poet.clone(), registration);
            }
            Change::NoRegistrations => self.registrations.clear(),
            Change::Nipost(nipost) => self.nipost = Some(nipost),
            Change::NoNipost => self.nipost = None,
            Change::Assembled(unsigned) => self.assembled = Some(*unsigned),
            Change::Signed(signed) => self.signed = Some(signed),
        }
    }
}
