//! Sixteen chains at once in AVX-512: word `i` of all of them in register `i`. For checking proofs and recomputing parts of a
//! tree, where labels are independent: nearly twice the throughput of two chains of the SHA extensions.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_loadu_si512, _mm512_ror_epi32, _mm512_set1_epi32, _mm512_srli_epi32, _mm512_storeu_si512,
    _mm512_ternarylogic_epi32,
};

use super::{Avx512, DIGEST_PADDING, INITIAL, K, LANES, Words};

pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("avx512f")
}

pub(super) fn chains(_: Avx512, digests: &mut [Words; LANES], count: u32) {
    // SAFETY: an `Avx512` exists only where the processor has these instructions.
    unsafe { chains_inner(digests, count) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn all(word: u32) -> __m512i {
    _mm512_set1_epi32(word.cast_signed())
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add(x: __m512i, y: __m512i) -> __m512i {
    _mm512_add_epi32(x, y)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn xor(x: __m512i, y: __m512i, z: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0x96>(x, y, z)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(words: &[u32; LANES]) -> __m512i {
    // SAFETY: an unaligned load of the 64 bytes that the reference covers.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(words: &mut [u32; LANES], value: __m512i) {
    // SAFETY: an unaligned store to the 64 bytes that the reference covers.
    unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), value) }
}

#[target_feature(enable = "avx512f")]
fn chains_inner(digests: &mut [Words; LANES], count: u32) {
    let mut digest: [__m512i; 8] = std::array::from_fn(|word| load(&std::array::from_fn(|lane| digests[lane][word])));
    for _ in 0..count {
        let mut w: [__m512i; 16] = std::array::from_fn(|i| if i < 8 { digest[i] } else { all(DIGEST_PADDING[i - 8]) });
        let mut s: [__m512i; 8] = std::array::from_fn(|i| all(INITIAL[i]));
        // written out, so that words and state stay in registers; the state turns by one place with each round
        macro_rules! rounds {
            ($base:expr, $($t:literal)*) => {$({
                const TURN: usize = $t % 8;
                let at = |place: usize| (place + 8 - TURN) % 8;
                let (a, b, c, d) = (s[at(0)], s[at(1)], s[at(2)], s[at(3)]);
                let (e, f, g, h) = (s[at(4)], s[at(5)], s[at(6)], s[at(7)]);
                let s1 = xor(_mm512_ror_epi32::<6>(e), _mm512_ror_epi32::<11>(e), _mm512_ror_epi32::<25>(e));
                let choice = _mm512_ternarylogic_epi32::<0xca>(e, f, g);
                let t1 = add(add(h, add(w[$t], all(K[$base + $t]))), add(s1, choice));
                let s0 = xor(_mm512_ror_epi32::<2>(a), _mm512_ror_epi32::<13>(a), _mm512_ror_epi32::<22>(a));
                let majority = _mm512_ternarylogic_epi32::<0xe8>(a, b, c);
                s[at(3)] = add(d, t1);
                s[at(7)] = add(t1, add(s0, majority));
            })*};
        }
        macro_rules! schedule {
            ($($t:literal)*) => {$({
                let (w15, w2) = (w[($t + 1) % 16], w[($t + 14) % 16]);
                let s0 = xor(_mm512_ror_epi32::<7>(w15), _mm512_ror_epi32::<18>(w15), _mm512_srli_epi32::<3>(w15));
                let s1 = xor(_mm512_ror_epi32::<17>(w2), _mm512_ror_epi32::<19>(w2), _mm512_srli_epi32::<10>(w2));
                w[$t] = add(add(w[$t], s0), add(w[($t + 9) % 16], s1));
            })*};
        }
        rounds!(0, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
        for base in [16, 32, 48] {
            schedule!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
            rounds!(base, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
        }
        digest = std::array::from_fn(|i| add(s[i], all(INITIAL[i])));
    }
    for (word, value) in digest.into_iter().enumerate() {
        let mut lanes = [0; LANES];
        store(&mut lanes, value);
        for (digest, lane) in digests.iter_mut().zip(lanes) {
            digest[word] = lane;
        }
    }
}
