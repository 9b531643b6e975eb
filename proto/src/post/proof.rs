//! Proofs of space and the form their indices travel in (post.md section 11).

use serde::{Deserialize, Serialize};

use crate::{
    json,
    scale::{Decode, DecodeError, Encode, EncodeError, Reader, Writer},
    units::Labels,
};

/// Most bytes the packed indices of a proof may have on the network (post.md section 20).
pub const MAX_INDICES_BYTES: usize = 800;

/// A proof of space: labels that are good for a nonce, and the work done for its group (post.md section 11).
///
/// As JSON: `{"nonce": 7, "indices": "<base64>", "pow": 123}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Proof {
    /// The nonce; its group is `nonce / 16`.
    pub nonce: u32,
    /// Label indices, see [`pack_indices`].
    #[serde(with = "json::base64")]
    pub indices: Vec<u8>,
    /// The k2pow of the nonce's group.
    pub pow: u64,
}

/// Written by hand because the indices, which much computes with, are no [`Bytes`](crate::scale::Bytes).
impl Encode for Proof {
    fn encode(&self, to: &mut Writer) -> Result<(), EncodeError> {
        to.compact32(self.nonce);
        to.bytes(&self.indices, MAX_INDICES_BYTES)?;
        to.compact64(self.pow);
        Ok(())
    }
}

impl Decode for Proof {
    const MIN_BYTES: usize = 3;

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { nonce: from.compact32()?, indices: from.bytes(MAX_INDICES_BYTES)?.to_vec(), pow: from.compact64()? })
    }
}

/// Bits each index takes when there are `num_labels` labels: those of `num_labels` itself, not of the last index (post.md
/// section 11).
pub const fn index_bits(num_labels: Labels) -> u32 {
    u64::BITS - num_labels.0.leading_zeros()
}

/// Bytes that `count` packed indices take.
pub const fn packed_len(bits: u32, count: u32) -> u64 {
    (bits as u64 * count as u64).div_ceil(8)
}

/// Packs the low `bits` bits of each index, least significant first, into bytes filled from bit 0 up (post.md section 11).
pub fn pack_indices(indices: &[u64], bits: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity((indices.len() * bits as usize).div_ceil(8));
    // At most 7 bits wait here for the rest of their byte.
    let (mut waiting, mut count) = (0_u128, 0);
    for index in indices {
        let low = if bits == 0 { 0 } else { index & (u64::MAX >> (64 - bits.min(64))) };
        waiting |= u128::from(low) << count;
        count += bits;
        while count >= 8 {
            bytes.push(waiting as u8);
            waiting >>= 8;
            count -= 8;
        }
    }
    if count > 0 {
        bytes.push(waiting as u8);
    }
    bytes
}

/// The first `limit` indices packed in `bytes`, or as many as there are; what is left over is ignored (post.md section 11).
pub fn unpack_indices(bytes: &[u8], bits: u32, limit: usize) -> Vec<u64> {
    if bits == 0 {
        return Vec::new();
    }
    let bits = bits.min(64);
    let mut indices = Vec::with_capacity(limit.min(bytes.len() * 8 / bits as usize));
    let (mut waiting, mut count) = (0_u128, 0);
    for byte in bytes {
        waiting |= u128::from(*byte) << count;
        count += 8;
        while count >= bits && indices.len() < limit {
            indices.push(waiting as u64 & (u64::MAX >> (64 - bits)));
            waiting >>= bits;
            count -= bits;
        }
        if indices.len() == limit {
            break;
        }
    }
    indices
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn vectors(name: &str) -> Vec<Value> {
        let file: Value = serde_json::from_str(include_str!("../../testdata/index_packing.json")).unwrap();
        let vectors = file[name].as_array().unwrap().clone();
        assert!(!vectors.is_empty());
        vectors
    }

    fn number(value: &Value) -> u64 {
        value.as_u64().unwrap_or_else(|| value.as_str().unwrap().parse().unwrap())
    }

    #[test]
    fn indices_are_packed_as_the_reference_does() {
        for v in vectors("packing") {
            let bits = number(&v["bits"]) as u32;
            let indices: Vec<u64> = v["indices"].as_array().unwrap().iter().map(number).collect();
            let packed = hex::decode(v["packed"].as_str().unwrap()).unwrap();
            assert_eq!(pack_indices(&indices, bits), packed);
            assert_eq!(packed_len(bits, indices.len() as u32), packed.len() as u64);
            // Only so many low bits of an index are kept.
            let kept: Vec<u64> = indices.iter().map(|index| index & (u64::MAX >> (64 - bits))).collect();
            assert_eq!(unpack_indices(&packed, bits, indices.len()), kept);
            if let Some(count) = v.get("unpacked_count_without_k2_limit") {
                assert_eq!(unpack_indices(&packed, bits, usize::MAX).len() as u64, number(count));
            }
        }
    }

    #[test]
    fn bits_are_those_of_the_number_of_labels() {
        for v in vectors("required_bits") {
            assert_eq!(u64::from(index_bits(Labels(number(&v["value"])))), number(&v["bits"]));
        }
    }

    #[test]
    fn proofs_have_the_deployed_json_form() {
        let proof = Proof { nonce: 7, indices: vec![0, 255, 16], pow: u64::MAX };
        let text = r#"{"nonce":7,"indices":"AP8Q","pow":18446744073709551615}"#;
        assert_eq!(serde_json::to_string(&proof).unwrap(), text);
        assert_eq!(serde_json::from_str::<Proof>(text).unwrap(), proof);
        for bad in
            [r#"{"nonce":7,"indices":"AP8","pow":1}"#, r#"{"nonce":-7,"indices":"","pow":1}"#, r#"{"nonce":7,"indices":""}"#]
        {
            assert!(serde_json::from_str::<Proof>(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(bits in 1_u32..=64, indices in prop::collection::vec(any::<u64>(), 0..50)) {
            let indices: Vec<u64> = indices.into_iter().map(|i| i >> (64 - bits)).collect();
            let packed = pack_indices(&indices, bits);
            prop_assert_eq!(packed.len() as u64, packed_len(bits, indices.len() as u32));
            prop_assert_eq!(unpack_indices(&packed, bits, indices.len()), indices);
        }

        #[test]
        fn any_bytes_are_unpacked_within_the_limit(bytes: Vec<u8>, bits in 0_u32..70, limit in 0_usize..100) {
            prop_assert!(unpack_indices(&bytes, bits, limit).len() <= limit);
        }
    }
}
