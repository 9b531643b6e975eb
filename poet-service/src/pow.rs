//! The proof of work that stands in for a certificate (poet.md section 5.8).

use proto::ids::NodeId;
use ripemd::{Digest as _, Ripemd256};

/// What a registration's proof of work is made for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Params {
    /// Changes with every finished round.
    pub challenge: Vec<u8>,
    /// Leading zero bits of the hash.
    pub difficulty: u32,
}

/// The hash of a proof of work.
pub fn hash(pow_challenge: &[u8], node_id: &NodeId, challenge: &[u8], nonce: u64) -> [u8; 32] {
    Ripemd256::new()
        .chain_update(pow_challenge)
        .chain_update(node_id.as_bytes())
        .chain_update(challenge)
        .chain_update(nonce.to_le_bytes())
        .finalize()
        .into()
}

/// Whether the first `bits` bits are zero, the most significant bit of a byte first; never for more bits than there are.
pub fn has_leading_zero_bits(bytes: &[u8], bits: u32) -> bool {
    let (whole, rest) = ((bits / 8) as usize, bits % 8);
    let Some(head) = bytes.get(..whole) else { return false };
    head.iter().all(|byte| *byte == 0) && (rest == 0 || bytes.get(whole).is_some_and(|byte| byte.leading_zeros() >= rest))
}

/// Whether a proof of work meets its parameters.
pub fn is_valid(params: &Params, node_id: &NodeId, challenge: &[u8], nonce: u64) -> bool {
    has_leading_zero_bits(&hash(&params.challenge, node_id, challenge, nonce), params.difficulty)
}

/// The smallest nonce that meets the parameters, for clients and tests.
pub fn find(params: &Params, node_id: &NodeId, challenge: &[u8]) -> Option<u64> {
    (0..=u64::MAX).find(|nonce| is_valid(params, node_id, challenge, *nonce))
}
