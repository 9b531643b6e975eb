//! The scan with the cryptography extension of ARMv8, 16 bytes at a time.

#![expect(unsafe_code, reason = "SIMD")]
#![allow(clippy::wildcard_imports, reason = "dozens of intrinsics; not linted in test builds")]

use std::arch::{aarch64::*, is_aarch64_feature_detected};

use super::{Candidate, LSB_MASK, NONCES_PER_GROUP, Ops, candidate_label, candidate_offset, keep, keys::RoundKeys, set_masks};

pub(super) fn ops() -> Option<Ops> {
    if !(is_aarch64_feature_detected!("neon") && is_aarch64_feature_detected!("aes")) {
        return None;
    }
    Some(Ops {
        // SAFETY: the CPU has the instructions.
        masks: |keys, labels, below, masks, _| unsafe { masks_neon(keys, labels, below, masks) },
        set_masks,
        lazy: |keys, labels, candidates, below| {
            assert!(candidates.iter().all(|&c| candidate_label(c) < labels.len() / 16));
            // SAFETY: the CPU has the instructions; the labels exist.
            unsafe { lazy(keys, labels, candidates, below) }
        },
    })
}

/// Labels of one mask: enough rounds in flight for cores that start two per cycle.
const IN_FLIGHT: usize = 4;

/// Rounds here are AddRoundKey, SubBytes, ShiftRows, then MixColumns: the keys are the same, used one step earlier.
#[target_feature(enable = "neon,aes")]
unsafe fn masks_neon(keys: &RoundKeys, labels: &[u8], below: u8, masks: &mut [u64]) {
    assert_eq!(labels.len(), masks.len() * 64);
    // SAFETY: round keys are 16 bytes; 64 bytes are loaded per mask.
    unsafe {
        let key: [uint8x16_t; 11] = std::array::from_fn(|i| vld1q_u8(keys.0[i].as_ptr()));
        let bound = vdupq_n_u8(below);
        let weights = vld1q_u8([1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128].as_ptr());
        for (i, mask) in masks.iter_mut().enumerate() {
            let mut x: [uint8x16_t; IN_FLIGHT] = std::array::from_fn(|j| vld1q_u8(labels.as_ptr().add(i * 64 + j * 16)));
            for k in &key[..9] {
                x = x.map(|x| vaesmcq_u8(vaeseq_u8(x, *k)));
            }
            x = x.map(|x| veorq_u8(vaeseq_u8(x, key[9]), key[10]));
            *mask = 0;
            for (j, x) in x.into_iter().enumerate() {
                let bits = vandq_u8(vcltq_u8(x, bound), weights);
                let low = u64::from(vaddv_u8(vget_low_u8(bits)));
                let high = u64::from(vaddv_u8(vget_high_u8(bits)));
                *mask |= (low | high << 8) << (16 * j);
            }
        }
    }
}

/// The labels of all candidates must exist.
#[target_feature(enable = "neon,aes")]
unsafe fn lazy(keys: &[RoundKeys; NONCES_PER_GROUP as usize], labels: &[u8], candidates: &mut [Candidate], below: u64) -> usize {
    keep(candidates, |candidate| {
        let keys = &keys[candidate_offset(candidate)].0;
        // SAFETY: the caller vouches for the label; round keys are 16 bytes.
        let value = unsafe {
            let mut x = vld1q_u8(labels.as_ptr().add(candidate_label(candidate) * 16));
            for k in &keys[..9] {
                x = vaesmcq_u8(vaeseq_u8(x, vld1q_u8(k.as_ptr())));
            }
            x = veorq_u8(vaeseq_u8(x, vld1q_u8(keys[9].as_ptr())), vld1q_u8(keys[10].as_ptr()));
            vgetq_lane_u64::<0>(vreinterpretq_u64_u8(x)) & LSB_MASK
        };
        value < below
    })
}
