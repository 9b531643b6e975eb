//! SHA-256 by the cryptography extensions of 64-bit ARM.

use std::arch::aarch64::{
    uint32x4_t, vaddq_u32, vld1q_u32, vsha256h2q_u32, vsha256hq_u32, vsha256su0q_u32, vsha256su1q_u32, vst1q_u32,
};

use super::{Armv8, BLOCK, DIGEST_PADDING, INITIAL, K, Words};

pub(super) fn is_available() -> bool {
    std::arch::is_aarch64_feature_detected!("sha2")
}

pub(super) fn absorb(_: Armv8, state: &mut Words, blocks: &[[u8; BLOCK]]) {
    // SAFETY: an `Armv8` exists only where the processor has these instructions.
    unsafe { absorb_inner(state, blocks) }
}

pub(super) fn chain(_: Armv8, digest: &mut Words, count: u32) {
    // SAFETY: as above.
    unsafe { chains([digest], count) }
}

pub(super) fn chain_pair(_: Armv8, digests: &mut [Words; 2], count: u32) {
    // SAFETY: as above.
    unsafe { chains(digests.each_mut(), count) }
}

/// The two halves of a state, or of a digest: words a to d and e to h.
type Halves = [uint32x4_t; 2];

#[inline]
#[target_feature(enable = "neon,sha2")]
fn load(words: &Words) -> Halves {
    // SAFETY: two loads of the 32 bytes that the reference covers.
    unsafe { [vld1q_u32(words.as_ptr()), vld1q_u32(words.as_ptr().add(4))] }
}

#[inline]
#[target_feature(enable = "neon,sha2")]
fn store(words: &mut Words, halves: Halves) {
    // SAFETY: two stores to the 32 bytes that the reference covers.
    unsafe {
        vst1q_u32(words.as_mut_ptr(), halves[0]);
        vst1q_u32(words.as_mut_ptr().add(4), halves[1]);
    }
}

#[inline]
#[target_feature(enable = "neon,sha2")]
fn k(group: usize) -> uint32x4_t {
    let constants: &[u32; 4] = &K.as_chunks().0[group];
    // SAFETY: a load of the 16 bytes that the reference covers.
    unsafe { vld1q_u32(constants.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon,sha2")]
fn add(x: Halves, y: Halves) -> Halves {
    [vaddq_u32(x[0], y[0]), vaddq_u32(x[1], y[1])]
}

/// The 64 rounds over the message `w`, without the final addition.
#[inline]
#[target_feature(enable = "neon,sha2")]
fn rounds<const N: usize>(state: &mut [Halves; N], w: &mut [[uint32x4_t; 4]; N]) {
    macro_rules! group {
        ($($group:literal)*) => {$(
            for i in 0..N {
                let [abcd, efgh] = state[i];
                let wk = vaddq_u32(w[i][$group % 4], k($group));
                state[i] = [vsha256hq_u32(abcd, efgh, wk), vsha256h2q_u32(efgh, abcd, wk)];
                if $group < 12 {
                    let [w0, w1, w2, w3] = [w[i][$group % 4], w[i][($group + 1) % 4], w[i][($group + 2) % 4], w[i][($group + 3) % 4]];
                    w[i][$group % 4] = vsha256su1q_u32(vsha256su0q_u32(w0, w1), w2, w3);
                }
            }
        )*};
    }
    group!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
}

#[target_feature(enable = "neon,sha2")]
fn absorb_inner(words: &mut Words, blocks: &[[u8; BLOCK]]) {
    let mut state = load(words);
    for block in blocks {
        let quads = block.as_chunks().0;
        let message: [u32; 16] = std::array::from_fn(|i| u32::from_be_bytes(quads[i]));
        let halves: &[Words] = message.as_chunks().0;
        let ([w0, w1], [w2, w3]) = (load(&halves[0]), load(&halves[1]));
        let mut after = [state];
        rounds(&mut after, &mut [[w0, w1, w2, w3]]);
        state = add(state, after[0]);
    }
    store(words, state);
}

#[inline]
#[target_feature(enable = "neon,sha2")]
fn chains<const N: usize>(digests: [&mut Words; N], count: u32) {
    let (initial, padding) = (load(&INITIAL), load(&DIGEST_PADDING));
    let mut current = [initial; N];
    for (current, digest) in current.iter_mut().zip(&digests) {
        *current = load(digest);
    }
    for _ in 0..count {
        let mut w = current.map(|[abcd, efgh]| [abcd, efgh, padding[0], padding[1]]);
        current = [initial; N];
        rounds(&mut current, &mut w);
        current = current.map(|halves| add(halves, initial));
    }
    for (current, digest) in current.into_iter().zip(digests) {
        store(digest, current);
    }
}
