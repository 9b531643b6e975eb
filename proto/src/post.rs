//! Proofs of space-time (PoST): what labels are bound to, how many there are and where they lie.
//!
//! Source: `docs/spec/post.md`.

use crate::ids::{AtxId, Commitment, NodeId};

/// Bytes of a label on disk: the first half of a full label (post.md section 1).
pub const LABEL_BYTES: u64 = 16;

/// `BLAKE3(node_id || commitment_atx_id)` (post.md section 2).
pub fn commitment(node_id: &NodeId, commitment_atx_id: &AtxId) -> Commitment {
    let mut hasher = blake3::Hasher::new();
    hasher.update(node_id.as_bytes());
    hasher.update(commitment_atx_id.as_bytes());
    Commitment(hasher.finalize().into())
}

/// The cost parameter N of the label function: a power of two from 2 to 2^20 (post.md section 3.4; r and p are always 1).
///
/// The protocol has no upper bound; 2^20 (128 MiB of scratch memory per label) is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScryptN(u32);

/// The value is not a power of two from 2 to 2^20.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("scrypt N must be a power of two from {min} to {max}, got {0}", min = ScryptN::MIN, max = ScryptN::MAX)]
pub struct InvalidScryptN(pub u64);

impl ScryptN {
    /// The smallest N.
    pub const MIN: u32 = 2;
    /// The largest N.
    pub const MAX: u32 = 1 << 20;
    /// What mainnet uses.
    pub const MAINNET: Self = Self(8192);

    /// Checks the value.
    pub fn new(n: u64) -> Result<Self, InvalidScryptN> {
        match u32::try_from(n) {
            Ok(small) if small.is_power_of_two() && (Self::MIN..=Self::MAX).contains(&small) => Ok(Self(small)),
            _ => Err(InvalidScryptN(n)),
        }
    }

    /// The value.
    pub const fn get(self) -> u32 {
        self.0
    }
}
