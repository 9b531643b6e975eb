//! The threshold of the VRF nonce (post.md section 4.1).

/// A threshold needs at least nine labels: for fewer it does not fit 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a VRF threshold needs more than 8 labels, got {0}")]
pub struct NoThreshold(pub u64);

/// `8 * floor(2^256 / num_labels)`, 32 bytes big-endian (post.md section 4.1: floor first, then times 8).
///
/// The index of a label whose full 32 bytes are strictly smaller is a valid VRF nonce.
pub fn vrf_threshold(num_labels: u64) -> Result<[u8; 32], NoThreshold> {
    if num_labels <= 8 {
        return Err(NoThreshold(num_labels));
    }
    // Long division of 2^256 in base 2^64: the leading digit 1 is the first remainder, four zero digits follow.
    let divisor = u128::from(num_labels);
    let mut remainder = 1_u128;
    let mut limbs = [0_u64; 4];
    for limb in &mut limbs {
        let dividend = remainder << 64;
        *limb = (dividend / divisor) as u64;
        remainder = dividend % divisor;
    }
    let mut threshold = [0; 32];
    for i in 0..4 {
        let from_below = limbs.get(i + 1).map_or(0, |next| next >> 61);
        threshold[i * 8..][..8].copy_from_slice(&(limbs[i] << 3 | from_below).to_be_bytes());
    }
    Ok(threshold)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_match_both_references() {
        for text in [include_str!("../../testdata/vrf_difficulty.json"), include_str!("../../testdata/vrf_difficulty_go.json")] {
            let file: serde_json::Value = serde_json::from_str(text).unwrap();
            let vectors = file["vectors"].as_array().unwrap();
            assert!(!vectors.is_empty());
            for vector in vectors {
                let num_labels = vector["num_labels"].as_str().unwrap().parse().unwrap();
                assert_eq!(hex::encode(vrf_threshold(num_labels).unwrap()), vector["difficulty"].as_str().unwrap());
            }
        }
    }

    #[test]
    fn eight_labels_have_no_threshold() {
        for n in 0..=8 {
            assert_eq!(vrf_threshold(n), Err(NoThreshold(n)));
        }
        assert!(vrf_threshold(9).is_ok());
        assert_eq!(vrf_threshold(u64::MAX).unwrap()[..8], [0, 0, 0, 0, 0, 0, 0, 8]);
    }
}
