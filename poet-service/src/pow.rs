//! The proof of work that stands in for a certificate (poet.md section 5.8).

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
};

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

/// What comes before the nonce, hashed.
fn begin(pow_challenge: &[u8], node_id: &NodeId, challenge: &[u8]) -> Ripemd256 {
    Ripemd256::new().chain_update(pow_challenge).chain_update(node_id.as_bytes()).chain_update(challenge)
}

/// The hash of a proof of work.
pub fn hash(pow_challenge: &[u8], node_id: &NodeId, challenge: &[u8], nonce: u64) -> [u8; 32] {
    begin(pow_challenge, node_id, challenge).chain_update(nonce.to_le_bytes()).finalize().into()
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

/// Nonces that a thread takes at once: milliseconds of work.
const BLOCK: u64 = 1 << 12;

/// The smallest nonce that meets the parameters, looked for by several threads; none if `stop` is set before it is found.
pub fn find(params: &Params, node_id: &NodeId, challenge: &[u8], threads: usize, stop: &AtomicBool) -> Option<u64> {
    let begun = begin(&params.challenge, node_id, challenge);
    let meets = |nonce: &u64| {
        let hash = begun.clone().chain_update(nonce.to_le_bytes()).finalize();
        has_leading_zero_bits(&hash, params.difficulty)
    };
    let (next, best) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
    // Blocks are taken in ascending order and finished, so that nothing below the best one is left out.
    let search = || {
        loop {
            let first = next.fetch_add(BLOCK, Relaxed);
            if first >= best.load(Relaxed) || stop.load(Relaxed) {
                return;
            }
            if let Some(nonce) = (first..first.saturating_add(BLOCK)).find(meets) {
                best.fetch_min(nonce, Relaxed);
                return;
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            // Where there is no thread to be had, those that there are do the work.
            let _ = thread::Builder::new().spawn_scoped(scope, search);
        }
        search();
    });
    let best = best.into_inner();
    (best != u64::MAX && !stop.load(Relaxed)).then_some(best)
}
