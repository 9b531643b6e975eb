//! Points as the network reads them: only in their one canonical encoding (types.md section 3).

use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};

/// The point that `bytes` encode, if they are the canonical encoding of one.
pub(crate) fn canonical_point(bytes: &[u8; 32]) -> Option<EdwardsPoint> {
    let compressed = CompressedEdwardsY(*bytes);
    // the library reduces coordinates beyond the field and ignores the sign of zero
    compressed.decompress().filter(|point| point.compress() == compressed)
}

/// The point of a public key: canonical and not of small order.
pub(crate) fn public_key(bytes: &[u8; 32]) -> Option<EdwardsPoint> {
    canonical_point(bytes).filter(|point| !point.is_small_order())
}
