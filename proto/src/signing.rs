//! Signatures of identities and accounts (types.md section 3.1).
//!
//! Whatever an identity signs begins with the id of the network and a byte that says what kind of message follows, so that no
//! signature can be taken for one of another network or kind.

use curve25519_dalek::{edwards::EdwardsPoint, scalar::Scalar, traits::IsIdentity as _};
use ed25519_dalek::Signer as _;
use sha2::{Digest as _, Sha512};

use crate::{
    curve,
    ids::{EdSignature, GenesisId, NodeId},
    keys::IdentityKey,
    scale::EncodeError,
};

/// What kind of message is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Domain {
    /// An activation.
    Atx = 0,
    /// A proposal.
    Proposal = 1,
    /// A ballot.
    Ballot = 2,
    /// A hare message, and the certificate of a block.
    Hare = 3,
    /// A registration with a PoET.
    Poet = 4,
    /// One identity's consent to be married to another.
    Marriage = 5,
    /// A first vote on the beacon.
    BeaconFirst = 10,
    /// A later vote on the beacon.
    BeaconFollowing = 11,
}

impl Domain {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Atx,
        Self::Proposal,
        Self::Ballot,
        Self::Hare,
        Self::Poet,
        Self::Marriage,
        Self::BeaconFirst,
        Self::BeaconFollowing,
    ];

    /// The byte in front of the message.
    pub const fn byte(self) -> u8 {
        self as u8
    }
}

/// What an identity signs in front of every message of `domain`. A PoET gets this, not the message, told in a registration.
pub fn prefix(network: &GenesisId, domain: Domain) -> [u8; 21] {
    let mut prefix = [0; 21];
    prefix[..20].copy_from_slice(&network.0);
    prefix[20] = domain.byte();
    prefix
}

impl IdentityKey {
    /// Signs a message of an identity.
    pub fn sign(&self, network: &GenesisId, domain: Domain, message: &[u8]) -> EdSignature {
        self.sign_raw(&[&prefix(network, domain), message].concat())
    }

    /// Signs the bytes of a transaction that come before its signatures. No domain: accounts sign nothing else.
    pub fn sign_transaction(&self, network: &GenesisId, unsigned: &[u8]) -> EdSignature {
        self.sign_raw(&[&network.0, unsigned].concat())
    }

    fn sign_raw(&self, bytes: &[u8]) -> EdSignature {
        EdSignature(self.signing_key().sign(bytes).to_bytes())
    }
}

/// Whether `signature` is that of the identity `signer` under a message of `domain`.
pub fn verify(network: &GenesisId, domain: Domain, signer: &NodeId, message: &[u8], signature: &EdSignature) -> bool {
    verify_parts(&signer.0, &[&prefix(network, domain), message], signature)
}

/// Whether `signature` is that of `key` under the bytes of a transaction that come before its signatures.
pub fn verify_transaction(network: &GenesisId, key: &[u8; 32], unsigned: &[u8], signature: &EdSignature) -> bool {
    verify_parts(key, &[&network.0, unsigned], signature)
}

/// The rule by which the network accepts signatures, to which every node must keep: `S` below the group order, key and `R`
/// canonical, the key not of small order, and `8(S·B - k·A - R) = 0`. Keys and `R` with a torsion part pass, as does an `R` of
/// small order; the checks of ed25519 libraries differ from this in one case or another.
fn verify_parts(key: &[u8; 32], message: &[&[u8]], signature: &EdSignature) -> bool {
    let (mut r_bytes, mut s_bytes) = ([0; 32], [0; 32]);
    r_bytes.copy_from_slice(&signature.0[..32]);
    s_bytes.copy_from_slice(&signature.0[32..]);
    let (Some(key_point), Some(r)) = (curve::public_key(key), curve::canonical_point(&r_bytes)) else { return false };
    let Some(s) = Option::<Scalar>::from(Scalar::from_canonical_bytes(s_bytes)) else { return false };
    let mut hash = Sha512::new_with_prefix(r_bytes);
    hash.update(key);
    for part in message {
        hash.update(part);
    }
    let k = Scalar::from_hash(hash);
    let difference = EdwardsPoint::vartime_double_scalar_mul_basepoint(&k, &-key_point, &s) - r;
    difference.mul_by_cofactor().is_identity()
}

/// A message that carries its signer and signature.
pub trait Signed {
    /// What kind of message it is.
    const DOMAIN: Domain;

    /// What the signature covers, after the prefix of network and domain.
    fn signed_bytes(&self) -> Result<Vec<u8>, EncodeError>;

    /// Who signed it.
    fn signer(&self) -> &NodeId;

    /// The signature.
    fn signature(&self) -> &EdSignature;

    /// Whether the signature is the signer's. What cannot be encoded was not signed.
    fn is_signed(&self, network: &GenesisId) -> bool {
        self.signed_bytes().is_ok_and(|bytes| verify(network, Self::DOMAIN, self.signer(), &bytes, self.signature()))
    }
}
