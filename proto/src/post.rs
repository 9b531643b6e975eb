//! Proofs of space-time (PoST): what labels are bound to, how many there are and where they lie.
//!
//! - [`Params`]: the parameters of a network, which [`Preset`]s contain
//! - [`Layout`]: which label lies in which file
//! - [`Metadata`][]: `postdata_metadata.json`
//! - [`Proof`]: a proof of space and how its indices are packed
//! - [`vrf_threshold`]: below it lies the label whose index is the VRF nonce
//!
//! Source: `docs/spec/post.md`.

mod layout;
mod metadata;
mod params;
mod proof;
mod vrf;

pub use layout::{Layout, LayoutError, file_name, parse_file_name};
pub use metadata::{METADATA_FILE, Metadata, MetadataError, NonceValue};
pub use params::{InvalidScryptN, Params, ScryptN, UnitsOutOfRange};
pub use proof::{MAX_INDICES_BYTES, Proof, index_bits, pack_indices, packed_len, unpack_indices};
pub use vrf::{NoThreshold, vrf_threshold};

use crate::ids::{AtxId, Commitment, NodeId};
pub use crate::preset::Preset;

/// Bytes of a label on disk: the first half of a full label (post.md section 1).
pub const LABEL_BYTES: u64 = 16;

/// `BLAKE3(node_id || commitment_atx_id)` (post.md section 2).
pub fn commitment(node_id: &NodeId, commitment_atx_id: &AtxId) -> Commitment {
    let mut hasher = blake3::Hasher::new();
    hasher.update(node_id.as_bytes());
    hasher.update(commitment_atx_id.as_bytes());
    Commitment(hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commitments_match_the_reference() {
        let file: serde_json::Value = serde_json::from_str(include_str!("../testdata/commitments.json")).unwrap();
        let vectors = file["vectors"].as_array().unwrap();
        assert!(!vectors.is_empty());
        for vector in vectors {
            let text = |name: &str| vector[name].as_str().unwrap();
            let got = commitment(&text("node_id").parse().unwrap(), &text("commitment_atx_id").parse().unwrap());
            assert_eq!(got.to_string(), text("commitment"));
        }
    }
}
