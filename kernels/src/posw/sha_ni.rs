//! SHA-256 by the SHA extensions of x86-64.
//!
//! The state lives in two registers, `ABEF` and `CDGH` (the highest lane first). `sha256rnds2` does two rounds and depends on the
//! two before, so 32 of them in a row bound a compression from below; everything else runs beside them. In a chain the final
//! state becomes the message of the next compression: two shuffles, and the addition of the initial state is merged with that
//! of the first round constants.

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_castps_si128, _mm_castsi128_ps, _mm_loadu_si128, _mm_set_epi64x, _mm_sha256msg1_epu32,
    _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32, _mm_shuffle_ps, _mm_slli_si128,
    _mm_srli_si128, _mm_storeu_si128, _mm_sub_epi32,
};

use super::{BLOCK, DIGEST_PADDING, INITIAL, K, ShaNi, Words};

pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("sha")
        && is_x86_feature_detected!("ssse3")
        && is_x86_feature_detected!("sse4.1")
        && is_x86_feature_detected!("avx")
}

pub(super) fn absorb(_: ShaNi, state: &mut Words, blocks: &[[u8; BLOCK]]) {
    // SAFETY: a `ShaNi` exists only where the processor has these instructions.
    unsafe { absorb_inner(state, blocks) }
}

pub(super) fn chain(_: ShaNi, digest: &mut Words, count: u32) {
    // SAFETY: as above.
    unsafe { chain_inner(digest, count) }
}

pub(super) fn chain_pair(_: ShaNi, digests: &mut [Words; 2], count: u32) {
    // SAFETY: as above.
    unsafe { chain_pair_inner(digests, count) }
}

/// The two halves of a state.
#[derive(Clone, Copy)]
struct State {
    abef: __m128i,
    cdgh: __m128i,
}

#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1,avx")]
fn load(words: &[u32; 4]) -> __m128i {
    // SAFETY: an unaligned load of the 16 bytes that the reference covers.
    unsafe { _mm_loadu_si128(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1,avx")]
fn store(words: &mut [u32; 4], value: __m128i) {
    // SAFETY: an unaligned store to the 16 bytes that the reference covers.
    unsafe { _mm_storeu_si128(words.as_mut_ptr().cast(), value) }
}

/// Round constants of the four rounds of `group`.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1,avx")]
fn k(group: usize) -> __m128i {
    load(&K.as_chunks().0[group])
}

/// Lanes `[x0, x1, y2, y3]` in the order that the immediate of `shufps` names.
macro_rules! shuffle2 {
    ($x:expr, $y:expr, $order:literal) => {
        _mm_castps_si128(_mm_shuffle_ps::<$order>(_mm_castsi128_ps($x), _mm_castsi128_ps($y)))
    };
}

/// Words a to d and e to h from the halves of a state, the first word in the lowest lane.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1,avx")]
fn to_order(state: State) -> [__m128i; 2] {
    [shuffle2!(state.abef, state.cdgh, 0b10_11_10_11), shuffle2!(state.abef, state.cdgh, 0b00_01_00_01)]
}

/// The inverse of [`to_order`].
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1,avx")]
fn from_words(words: &Words) -> State {
    let halves = words.as_chunks().0;
    let (abcd, efgh) = (load(&halves[0]), load(&halves[1]));
    State { abef: shuffle2!(efgh, abcd, 0b00_01_00_01), cdgh: shuffle2!(efgh, abcd, 0b10_11_10_11) }
}

/// Four rounds; `wk` are the message words plus the round constants.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1,avx")]
fn rounds(state: State, wk: __m128i) -> State {
    let half = _mm_sha256rnds2_epu32(state.cdgh, state.abef, wk);
    let full = _mm_sha256rnds2_epu32(state.abef, half, _mm_shuffle_epi32::<0b00_00_11_10>(wk));
    State { abef: full, cdgh: half }
}

/// The next four words of the schedule from the sixteen before.
///
/// The last word needs the first of `w3`, which enters only here, after `sha256msg2`: from one group to the next that leaves
/// `sha256msg2` and one addition. With the usual `palignr` in front of it the schedule, not the rounds, would be the slowest
/// chain on Intel's processors (141 cycles per compression instead of 133).
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1,avx")]
fn schedule(w0: __m128i, w1: __m128i, w2: __m128i, w3: __m128i) -> __m128i {
    let sum = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_srli_si128::<4>(w2));
    _mm_add_epi32(_mm_sha256msg2_epu32(sum, w3), _mm_slli_si128::<12>(w3))
}

#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1,avx")]
fn add(x: State, y: State) -> State {
    State { abef: _mm_add_epi32(x.abef, y.abef), cdgh: _mm_add_epi32(x.cdgh, y.cdgh) }
}

#[target_feature(enable = "sha,ssse3,sse4.1,avx")]
fn absorb_inner(words: &mut Words, blocks: &[[u8; BLOCK]]) {
    let big_endian = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    let mut state = from_words(words);
    for block in blocks {
        let quarters: &[[u8; 16]] = block.as_chunks().0;
        let mut w: [__m128i; 4] = std::array::from_fn(|i| {
            // SAFETY: an unaligned load of the 16 bytes of a quarter.
            let quarter = unsafe { _mm_loadu_si128(quarters[i].as_ptr().cast()) };
            _mm_shuffle_epi8(quarter, big_endian)
        });
        let before = state;
        for group in 0..16 {
            state = rounds(state, _mm_add_epi32(w[0], k(group)));
            // the words computed in the last four groups are not needed any more, and cost nothing
            w = [w[1], w[2], w[3], schedule(w[0], w[1], w[2], w[3])];
        }
        state = add(state, before);
    }
    let [abcd, efgh] = to_order(state);
    let halves = words.as_chunks_mut().0;
    store(&mut halves[0], abcd);
    store(&mut halves[1], efgh);
}

/// `N` chains of `count` compressions each. The chains' instructions alternate, which hides the latency of one behind another.
///
/// Between two compressions a chain is the bare result of the rounds, the initial state not yet added: that addition is merged
/// with the one of the round constants of the first eight rounds.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1,avx")]
fn chains<const N: usize>(digests: [&mut Words; N], count: u32) {
    let initial = from_words(&INITIAL);
    let (initial_words, padding) = (INITIAL.as_chunks().0, DIGEST_PADDING.as_chunks().0);
    let (initial_words, padding) = ([load(&initial_words[0]), load(&initial_words[1])], [load(&padding[0]), load(&padding[1])]);
    let first = [_mm_add_epi32(initial_words[0], k(0)), _mm_add_epi32(initial_words[1], k(1))];
    let mut state = [initial; N];
    for (state, digest) in state.iter_mut().zip(&digests) {
        let whole = from_words(digest);
        state.abef = _mm_sub_epi32(whole.abef, initial.abef);
        state.cdgh = _mm_sub_epi32(whole.cdgh, initial.cdgh);
    }
    for _ in 0..count {
        let mut w = [[padding[0]; 4]; N];
        for (state, w) in state.iter_mut().zip(&mut w) {
            let [abcd, efgh] = to_order(*state);
            *w = [_mm_add_epi32(abcd, initial_words[0]), _mm_add_epi32(efgh, initial_words[1]), padding[0], padding[1]];
            *state = rounds(initial, _mm_add_epi32(abcd, first[0]));
            *state = rounds(*state, _mm_add_epi32(efgh, first[1]));
        }
        for state in &mut state {
            *state = rounds(*state, _mm_add_epi32(padding[0], k(2)));
            *state = rounds(*state, _mm_add_epi32(padding[1], k(3)));
        }
        // written out: as a loop this costs half as much again
        macro_rules! group {
            ($($group:literal)*) => {$(
                for (state, w) in state.iter_mut().zip(&mut w) {
                    let next = schedule(w[0], w[1], w[2], w[3]);
                    *state = rounds(*state, _mm_add_epi32(next, k($group)));
                    *w = [w[1], w[2], w[3], next];
                }
            )*};
        }
        group!(4 5 6 7 8 9 10 11 12 13 14 15);
    }
    for (state, digest) in state.into_iter().zip(digests) {
        let [abcd, efgh] = to_order(add(state, initial));
        let halves = digest.as_chunks_mut().0;
        store(&mut halves[0], abcd);
        store(&mut halves[1], efgh);
    }
}

#[target_feature(enable = "sha,ssse3,sse4.1,avx")]
fn chain_inner(digest: &mut Words, count: u32) {
    chains([digest], count);
}

#[target_feature(enable = "sha,ssse3,sse4.1,avx")]
fn chain_pair_inner(digests: &mut [Words; 2], count: u32) {
    chains(digests.each_mut(), count);
}
