//! The verifiable random function of identities: ECVRF-EDWARDS25519-SHA512-ELL2 of RFC 9381 (types.md section 3.2).
//!
//! The network takes the *proof* for the random value, not what the RFC calls the output. It accepts whatever satisfies the
//! equations: a holder of a key can make up to eight proofs for one message, and every node has to accept all of them.
//!
//! - [`Message`]: the four things that are drawn
//! - [`IdentityKey::prove`] and [`verify`]
//! - [`VrfSignature`]: how a proof is read as a number
//!
//! The hash to the curve is in `hash_to_curve`.

mod hash_to_curve;

use std::cmp::Ordering;

use curve25519_dalek::{edwards::EdwardsPoint, scalar::Scalar};
use ed25519_dalek::hazmat::ExpandedSecretKey;
use sha2::{Digest as _, Sha512};
use zeroize::Zeroizing;

use crate::{
    curve,
    ids::{Beacon, NodeId, VrfSignature},
    keys::IdentityKey,
    layers::{EpochId, LayerId, LayersPerEpoch},
    scale::Writer,
    units::VrfNonce,
};

/// ECVRF-EDWARDS25519-SHA512-ELL2.
const SUITE: u8 = 4;

/// The round for which certifiers of a block are drawn.
pub const CERTIFIER_ROUND: u32 = 0x7fff_ffff;

/// What is drawn. No network and no domain stand before it: the first number tells the kinds apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// A proposal of a beacon for an epoch.
    BeaconProposal {
        /// The drawer's VRF nonce.
        nonce: VrfNonce,
        /// The epoch in which the beacon is made.
        epoch: EpochId,
    },
    /// A seat in a round of hare, or among the certifiers of a block ([`CERTIFIER_ROUND`]).
    Hare {
        /// The beacon of the epoch.
        beacon: Beacon,
        /// The round, counted over all iterations.
        round: u32,
        /// The layer.
        layer: LayerId,
    },
    /// The layer of one of the drawer's proposals.
    ProposalSlot {
        /// The beacon of the epoch.
        beacon: Beacon,
        /// The epoch.
        epoch: EpochId,
        /// The drawer's VRF nonce.
        nonce: VrfNonce,
        /// Which of the proposals.
        counter: u32,
    },
    /// A throw of the weak coin.
    WeakCoin {
        /// The drawer's VRF nonce.
        nonce: VrfNonce,
        /// The epoch.
        epoch: EpochId,
        /// The round of the beacon protocol.
        round: u32,
        /// Which of the drawer's throws.
        unit: u32,
    },
}

impl Message {
    /// What is drawn for.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut to = Writer::default();
        match self {
            Self::BeaconProposal { nonce, epoch } => {
                to.compact32(1);
                to.compact64(nonce.0);
                to.compact32(epoch.0);
            }
            Self::Hare { beacon, round, layer } => {
                to.compact32(2);
                to.raw(&beacon.0);
                to.compact32(*round);
                to.compact32(layer.0);
            }
            Self::ProposalSlot { beacon, epoch, nonce, counter } => {
                to.compact32(3);
                to.raw(&beacon.0);
                to.compact32(epoch.0);
                to.compact64(nonce.0);
                to.compact32(*counter);
            }
            Self::WeakCoin { nonce, epoch, round, unit } => {
                to.compact32(4);
                to.compact64(nonce.0);
                to.compact32(epoch.0);
                to.compact32(*round);
                to.compact32(*unit);
            }
        }
        to.into_bytes()
    }
}

impl IdentityKey {
    /// Draws: the one proof that honest programs make for a message.
    pub fn prove(&self, message: &[u8]) -> VrfSignature {
        let secret = ExpandedSecretKey::from(self.signing_key().as_bytes());
        let public = self.node_id().0;
        let h = hash_to_curve::encode(&public, message);
        let h_bytes = h.compress().0;
        let gamma = secret.scalar * h;
        let nonce = Zeroizing::new(Scalar::from_hash(Sha512::new_with_prefix(secret.hash_prefix).chain_update(h_bytes)));
        let c = challenge(&public, &h_bytes, &[gamma, EdwardsPoint::mul_base(&nonce), *nonce * h]);
        let s = *nonce + small_scalar(&c) * secret.scalar;
        let mut proof = [0; 80];
        proof[..32].copy_from_slice(&gamma.compress().0);
        proof[32..48].copy_from_slice(&c);
        proof[48..].copy_from_slice(s.as_bytes());
        VrfSignature(proof)
    }
}

/// Whether the network takes `proof` for a draw of the identity `key` (types.md section 3.2).
pub fn verify(key: &NodeId, message: &[u8], proof: &VrfSignature) -> bool {
    let (mut gamma_bytes, mut c, mut s_bytes) = ([0; 32], [0; 16], [0; 32]);
    gamma_bytes.copy_from_slice(&proof.0[..32]);
    c.copy_from_slice(&proof.0[32..48]);
    s_bytes.copy_from_slice(&proof.0[48..]);
    let (Some(y), Some(gamma)) = (curve::public_key(&key.0), curve::canonical_point(&gamma_bytes)) else { return false };
    let Some(s) = Option::<Scalar>::from(Scalar::from_canonical_bytes(s_bytes)) else { return false };
    let h = hash_to_curve::encode(&key.0, message);
    // the points are negated, not the number: beside a torsion part, -c is not the same as L - c
    let c_scalar = small_scalar(&c);
    let u = EdwardsPoint::vartime_double_scalar_mul_basepoint(&c_scalar, &-y, &s);
    let v = s * h - c_scalar * gamma;
    challenge(&key.0, &h.compress().0, &[gamma, u, v]) == c
}

/// The first 16 bytes of the hash over everything a proof is about.
fn challenge(key: &[u8; 32], h: &[u8; 32], points: &[EdwardsPoint; 3]) -> [u8; 16] {
    let mut hash = Sha512::new_with_prefix([SUITE, 2]).chain_update(key).chain_update(h);
    for point in points {
        hash.update(point.compress().0);
    }
    let digest = hash.chain_update([0]).finalize();
    let mut challenge = [0; 16];
    challenge.copy_from_slice(&digest[..16]);
    challenge
}

fn small_scalar(bytes: &[u8; 16]) -> Scalar {
    Scalar::from(u128::from_le_bytes(*bytes))
}

impl VrfSignature {
    fn first64(&self) -> u64 {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        u64::from_le_bytes(first)
    }

    /// What is compared with the distribution of seats in hare, in units of 2^-56.
    pub fn fraction56(&self) -> u64 {
        self.first64() & ((1 << 56) - 1)
    }

    /// The layer of `epoch` that this draw of a proposal slot gives; none beyond 32 bits.
    pub fn slot_layer(&self, epoch: EpochId, layers: LayersPerEpoch) -> Option<LayerId> {
        let offset = (self.first64() % u64::from(layers.0.get())) as u32;
        layers.first_layer(epoch)?.0.checked_add(offset).map(LayerId)
    }

    /// The beacon that this draw proposes.
    pub fn beacon(&self) -> Beacon {
        let mut beacon = Beacon::EMPTY;
        beacon.0.copy_from_slice(&self.0[..4]);
        beacon
    }

    /// The side on which the weak coin falls when this is the smallest throw.
    pub fn coin(&self) -> bool {
        self.0[0] & 1 == 1
    }
}

/// As numbers of 80 bytes, the last one the most significant.
impl Ord for VrfSignature {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.iter().rev().cmp(other.0.iter().rev())
    }
}

impl PartialOrd for VrfSignature {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
