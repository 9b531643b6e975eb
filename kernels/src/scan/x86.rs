//! The scan with the AES instructions of x86-64, 16, 32 or 64 bytes at a time.

#![expect(unsafe_code, reason = "SIMD")]
#![allow(clippy::wildcard_imports, reason = "dozens of intrinsics; not linted in test builds")]

use std::{arch::x86_64::*, is_x86_feature_detected};

use super::{
    Candidate, LSB_MASK, NONCES_PER_GROUP, Ops, TILE_BLOCKS, candidate_label, candidate_offset, keys::RoundKeys, set_masks,
};

pub(super) fn aes_ni() -> Option<Ops> {
    if !has_aes_ni() {
        return None;
    }
    Some(Ops {
        // SAFETY: the CPU has the instructions.
        masks: |keys, labels, below, masks, ahead| unsafe { masks_128(keys, labels, below, masks, ahead) },
        set_masks,
        lazy: |keys, labels, candidates, below| {
            check(labels, candidates);
            // SAFETY: as above; the labels are there.
            unsafe { lazy_sse(keys, labels, candidates, below) }
        },
    })
}

pub(super) fn vaes_256() -> Option<Ops> {
    if !(has_aes_ni() && is_x86_feature_detected!("avx2") && is_x86_feature_detected!("vaes")) {
        return None;
    }
    Some(Ops {
        // SAFETY: the CPU has the instructions.
        masks: |keys, labels, below, masks, ahead| unsafe { masks_256(keys, labels, below, masks, ahead) },
        set_masks,
        lazy: |keys, labels, candidates, below| {
            check(labels, candidates);
            // SAFETY: as above; the labels are there.
            unsafe { lazy_avx(keys, labels, candidates, below) }
        },
    })
}

pub(super) fn vaes_512() -> Option<Ops> {
    if !(has_aes_ni()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("popcnt")
        && is_x86_feature_detected!("vaes"))
    {
        return None;
    }
    Some(Ops {
        // SAFETY: the CPU has the instructions.
        masks: |keys, labels, below, masks, ahead| unsafe { masks_512(keys, labels, below, masks, ahead) },
        // SAFETY: as above.
        set_masks: |masks, list| unsafe { set_masks_512(masks, list) },
        lazy: |keys, labels, candidates, below| {
            check(labels, candidates);
            // SAFETY: as above; the labels are there.
            unsafe { lazy_avx(keys, labels, candidates, below) }
        },
    })
}

fn has_aes_ni() -> bool {
    is_x86_feature_detected!("aes") && is_x86_feature_detected!("sse4.1")
}

/// All candidates are about labels that exist.
fn check(labels: &[u8], candidates: &[Candidate]) {
    let last = candidates.iter().copied().max().unwrap_or(0);
    assert!(candidates.is_empty() || candidate_label(last) < labels.len() / 16);
}

/// Blocks in flight: an AES round takes 3 to 5 cycles and one or two are started per cycle.
const IN_FLIGHT: usize = 8;

/// Brings bytes into the cache in equal steps.
struct Prefetch<'a> {
    steps: std::slice::Chunks<'a, u8>,
}

impl<'a> Prefetch<'a> {
    const LINE: usize = 64;

    fn new(bytes: &'a [u8], steps: usize) -> Self {
        Self { steps: bytes.chunks(bytes.len().div_ceil(steps.max(1)).next_multiple_of(Self::LINE).max(Self::LINE)) }
    }

    #[inline]
    fn step(&mut self) {
        for line in self.steps.next().unwrap_or_default().chunks(Self::LINE) {
            // SAFETY: a hint about bytes that exist.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
        }
    }
}

#[target_feature(enable = "aes,sse4.1")]
unsafe fn masks_128(keys: &RoundKeys, labels: &[u8], below: u8, masks: &mut [u64], ahead: &[u8]) {
    assert_eq!(labels.len(), masks.len() * 64);
    // SAFETY: round keys are 16 bytes; all loads stay within `labels`: 16 bytes per quarter of a mask.
    unsafe {
        let key: [__m128i; 11] = std::array::from_fn(|i| _mm_loadu_si128(keys.0[i].as_ptr().cast()));
        let bound = _mm_set1_epi8(below.cast_signed());
        // bits of the bytes that are not below: nothing is left of the bound when they are taken from it
        let not_below = |x| _mm_movemask_epi8(_mm_cmpeq_epi8(_mm_subs_epu8(bound, x), _mm_setzero_si128())) as u64;
        let at = |i: usize| labels.as_ptr().add(i * 16).cast();
        let mut ahead = Prefetch::new(ahead, masks.len() / 2);
        let mut pairs = masks.chunks_exact_mut(2);
        let mut i = 0;
        for pair in &mut pairs {
            ahead.step();
            let mut x: [__m128i; IN_FLIGHT] = std::array::from_fn(|j| _mm_xor_si128(_mm_loadu_si128(at(i + j)), key[0]));
            for k in &key[1..10] {
                x = x.map(|x| _mm_aesenc_si128(x, *k));
            }
            x = x.map(|x| _mm_aesenclast_si128(x, key[10]));
            let bits = x.map(not_below);
            pair[0] = !(bits[0] | bits[1] << 16 | bits[2] << 32 | bits[3] << 48);
            pair[1] = !(bits[4] | bits[5] << 16 | bits[6] << 32 | bits[7] << 48);
            i += IN_FLIGHT;
        }
        for mask in pairs.into_remainder() {
            *mask = 0;
            for j in 0..4 {
                let mut x = _mm_xor_si128(_mm_loadu_si128(at(i)), key[0]);
                for k in &key[1..10] {
                    x = _mm_aesenc_si128(x, *k);
                }
                x = _mm_aesenclast_si128(x, key[10]);
                *mask |= (not_below(x) ^ 0xffff) << (16 * j);
                i += 1;
            }
        }
    }
}

#[target_feature(enable = "aes,avx2,vaes")]
unsafe fn masks_256(keys: &RoundKeys, labels: &[u8], below: u8, masks: &mut [u64], ahead: &[u8]) {
    assert_eq!(labels.len(), masks.len() * 64);
    // SAFETY: round keys are 16 bytes; all loads stay within `labels`: 32 bytes per half of a mask.
    unsafe {
        let key: [__m256i; 11] = std::array::from_fn(|i| _mm256_broadcastsi128_si256(_mm_loadu_si128(keys.0[i].as_ptr().cast())));
        let bound = _mm256_set1_epi8(below.cast_signed());
        let at = |i: usize| labels.as_ptr().add(i * 32).cast();
        // as for 16 bytes
        let not_below = |x| {
            let rest = _mm256_subs_epu8(bound, x);
            u64::from(_mm256_movemask_epi8(_mm256_cmpeq_epi8(rest, _mm256_setzero_si256())).cast_unsigned())
        };
        let mut ahead = Prefetch::new(ahead, masks.len() / 4);
        let mut fours = masks.chunks_exact_mut(IN_FLIGHT / 2);
        let mut i = 0;
        for four in &mut fours {
            ahead.step();
            let mut x: [__m256i; IN_FLIGHT] = std::array::from_fn(|j| _mm256_xor_si256(_mm256_loadu_si256(at(i + j)), key[0]));
            for k in &key[1..10] {
                x = x.map(|x| _mm256_aesenc_epi128(x, *k));
            }
            x = x.map(|x| _mm256_aesenclast_epi128(x, key[10]));
            for (j, mask) in four.iter_mut().enumerate() {
                *mask = !(not_below(x[2 * j]) | not_below(x[2 * j + 1]) << 32);
            }
            i += IN_FLIGHT;
        }
        for mask in fours.into_remainder() {
            let mut x: [__m256i; 2] = std::array::from_fn(|j| _mm256_xor_si256(_mm256_loadu_si256(at(i + j)), key[0]));
            for k in &key[1..10] {
                x = x.map(|x| _mm256_aesenc_epi128(x, *k));
            }
            x = x.map(|x| _mm256_aesenclast_epi128(x, key[10]));
            *mask = !(not_below(x[0]) | not_below(x[1]) << 32);
            i += 2;
        }
    }
}

#[target_feature(enable = "aes,avx512f,avx512bw,vaes")]
unsafe fn masks_512(keys: &RoundKeys, labels: &[u8], below: u8, masks: &mut [u64], ahead: &[u8]) {
    assert_eq!(labels.len(), masks.len() * 64);
    // SAFETY: round keys are 16 bytes; all loads stay within `labels`: 64 bytes per mask.
    unsafe {
        // Eleven keys and eight blocks fit the 32 registers.
        let key: [__m512i; 11] = std::array::from_fn(|i| _mm512_broadcast_i32x4(_mm_loadu_si128(keys.0[i].as_ptr().cast())));
        let bound = _mm512_set1_epi8(below.cast_signed());
        let at = |i: usize| labels.as_ptr().add(i * 64).cast();
        let mut ahead = Prefetch::new(ahead, masks.len() / IN_FLIGHT);
        let mut eights = masks.chunks_exact_mut(IN_FLIGHT);
        let mut i = 0;
        for eight in &mut eights {
            ahead.step();
            let mut x: [__m512i; IN_FLIGHT] = std::array::from_fn(|j| _mm512_xor_si512(_mm512_loadu_si512(at(i + j)), key[0]));
            for k in &key[1..10] {
                x = x.map(|x| _mm512_aesenc_epi128(x, *k));
            }
            x = x.map(|x| _mm512_aesenclast_epi128(x, key[10]));
            for (mask, x) in eight.iter_mut().zip(x) {
                *mask = _mm512_cmplt_epu8_mask(x, bound);
            }
            i += IN_FLIGHT;
        }
        for mask in eights.into_remainder() {
            let mut x = _mm512_xor_si512(_mm512_loadu_si512(at(i)), key[0]);
            for k in &key[1..10] {
                x = _mm512_aesenc_epi128(x, *k);
            }
            *mask = _mm512_cmplt_epu8_mask(_mm512_aesenclast_epi128(x, key[10]), bound);
            i += 1;
        }
    }
}

/// As [`set_masks`], eight masks at a time.
#[target_feature(enable = "avx512f,avx512vl,popcnt")]
unsafe fn set_masks_512(masks: &[u64], list: &mut [u32; TILE_BLOCKS]) -> usize {
    let (eights, rest) = masks.as_chunks::<8>();
    assert!(masks.len() <= TILE_BLOCKS);
    let mut numbers = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    let mut count = 0;
    for eight in eights {
        // SAFETY: eight masks are loaded; at most as many numbers as masks seen so far are stored, and there is room for all.
        unsafe {
            let masks = _mm512_loadu_si512(eight.as_ptr().cast());
            let set = _mm512_test_epi64_mask(masks, masks);
            // not the storing form of the instruction, which is slow on some CPUs
            _mm256_storeu_si256(list.as_mut_ptr().add(count).cast(), _mm256_maskz_compress_epi32(set, numbers));
            count += set.count_ones() as usize;
        }
        numbers = _mm256_add_epi32(numbers, _mm256_set1_epi32(8));
    }
    for (number, mask) in (eights.len() * 8..).zip(rest) {
        list[count % TILE_BLOCKS] = number as u32;
        count += usize::from(*mask != 0);
    }
    count
}

macro_rules! lazy {
    ($lazy:ident, $round:ident, $features:literal) => {
        /// The labels of all candidates must exist.
        #[target_feature(enable = $features)]
        unsafe fn $lazy(
            keys: &[RoundKeys; NONCES_PER_GROUP as usize],
            labels: &[u8],
            candidates: &mut [Candidate],
            below: u64,
        ) -> usize {
            let mut kept = 0;
            let mut start = 0;
            while let Some(rest) = candidates.get(start..).filter(|rest| !rest.is_empty()) {
                let count = rest.len().min(IN_FLIGHT);
                // A short last round repeats its first candidate; what comes out of the repetitions is not looked at.
                let round =
                    *rest.first_chunk::<IN_FLIGHT>().unwrap_or(&std::array::from_fn(|j| rest.get(j).copied().unwrap_or(rest[0])));
                // SAFETY: the caller vouches for the labels.
                let values = unsafe { $round(keys, labels, &round) };
                // hardly ever true on mainnet
                if values.iter().fold(false, |any, value| any | (*value < below)) {
                    for (candidate, value) in round.into_iter().zip(values).take(count) {
                        if value < below {
                            candidates[kept] = candidate;
                            kept += 1;
                        }
                    }
                }
                start += count;
            }
            kept
        }

        /// The 56 bits for each candidate. Their labels must exist.
        #[target_feature(enable = $features)]
        #[inline]
        unsafe fn $round(
            keys: &[RoundKeys; NONCES_PER_GROUP as usize],
            labels: &[u8],
            round: &[Candidate; IN_FLIGHT],
        ) -> [u64; IN_FLIGHT] {
            // SAFETY: the caller vouches for the labels; a key is 11 * 16 bytes, aligned to 16.
            unsafe {
                let key: [*const __m128i; IN_FLIGHT] = round.map(|c| (&raw const keys[candidate_offset(c)]).cast());
                let mut x: [__m128i; IN_FLIGHT] = std::array::from_fn(|j| {
                    _mm_xor_si128(_mm_loadu_si128(labels.as_ptr().add(candidate_label(round[j]) * 16).cast()), *key[j])
                });
                for r in 1..10 {
                    x = std::array::from_fn(|j| _mm_aesenc_si128(x[j], *key[j].add(r)));
                }
                x = std::array::from_fn(|j| _mm_aesenclast_si128(x[j], *key[j].add(10)));
                x.map(|x| _mm_cvtsi128_si64(x).cast_unsigned() & LSB_MASK)
            }
        }
    };
}

lazy!(lazy_sse, lazy_round_sse, "aes,sse4.1");
lazy!(lazy_avx, lazy_round_avx, "aes,avx");
