//! AVX2: eight labels per group, two groups.

#![expect(unsafe_code, reason = "intrinsics")]
#![expect(clippy::inline_always, reason = "callees must be compiled with the instruction set of the entry function")]

use std::arch::x86_64::{
    __m128i, __m256i, _MM_HINT_ET0, _MM_HINT_T0, _mm_prefetch, _mm256_add_epi32, _mm256_castsi128_si256, _mm256_castsi256_si128,
    _mm256_extracti128_si256, _mm256_inserti128_si256, _mm256_or_si256, _mm256_setr_epi8, _mm256_setzero_si256,
    _mm256_shuffle_epi8, _mm256_slli_epi32, _mm256_srli_epi32, _mm256_storeu_si256, _mm256_unpackhi_epi32, _mm256_unpackhi_epi64,
    _mm256_unpacklo_epi32, _mm256_unpacklo_epi64, _mm256_xor_si256,
};

use super::{
    Arithmetic,
    words::{self, Register},
};
use crate::label::{
    Block,
    hash::{State, permute_one},
};

/// The proof that the machine has AVX2.
#[derive(Debug, Clone, Copy)]
pub(super) struct Avx2(());

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }
}

impl Arithmetic<1> for Avx2 {
    const GROUP: usize = Ymm::LABELS;

    fn permute(self, state: &mut State<1>) {
        permute_one(state);
    }

    fn romix(self, blocks: &mut [Block], v: &mut [Block]) {
        // SAFETY: `self` is the proof that the instructions exist.
        unsafe { romix(blocks, v) }
    }
}

#[target_feature(enable = "avx2")]
fn romix(blocks: &mut [Block], v: &mut [Block]) {
    // SAFETY: the feature is enabled for this function.
    unsafe { words::romix::<Ymm>(blocks, v) }
}

/// One word of eight labels.
#[derive(Clone, Copy)]
struct Ymm(__m256i);

/// Transposes the four by four words of each 128-bit lane.
#[inline(always)]
fn transpose(x: [Ymm; 4]) -> [Ymm; 4] {
    let [a, b, c, d] = x.map(|x| x.0);
    // SAFETY: a value of this type is the proof that the instructions exist.
    unsafe {
        let (ab_low, ab_high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
        let (cd_low, cd_high) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
        [
            Ymm(_mm256_unpacklo_epi64(ab_low, cd_low)),
            Ymm(_mm256_unpackhi_epi64(ab_low, cd_low)),
            Ymm(_mm256_unpacklo_epi64(ab_high, cd_high)),
            Ymm(_mm256_unpackhi_epi64(ab_high, cd_high)),
        ]
    }
}

/// Four words from each of two places, one per lane.
///
/// # Safety
/// The machine has AVX2; four words may be read at each pointer.
#[inline(always)]
unsafe fn pair(low: *const u32, high: *const u32) -> Ymm {
    // SAFETY: the caller's promise.
    unsafe {
        let low = _mm256_castsi128_si256(low.cast::<__m128i>().read_unaligned());
        Ymm(_mm256_inserti128_si256::<1>(low, high.cast::<__m128i>().read_unaligned()))
    }
}

impl Register for Ymm {
    const LABELS: usize = 8;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller vouches for the instruction set.
        Self(unsafe { _mm256_setzero_si256() })
    }

    #[inline(always)]
    unsafe fn load(quad: impl Fn(usize) -> *const u32) -> [Self; 4] {
        // SAFETY: the caller vouches for the pointers and for the instruction set.
        unsafe { transpose([pair(quad(0), quad(4)), pair(quad(1), quad(5)), pair(quad(2), quad(6)), pair(quad(3), quad(7))]) }
    }

    #[inline(always)]
    unsafe fn store(words: [Self; 4], quad: impl Fn(usize) -> *mut u32) {
        for (l, Self(x)) in transpose(words).into_iter().enumerate() {
            // SAFETY: the caller vouches for the pointers.
            unsafe {
                quad(l).cast::<__m128i>().write_unaligned(_mm256_castsi256_si128(x));
                quad(l + 4).cast::<__m128i>().write_unaligned(_mm256_extracti128_si256::<1>(x));
            }
        }
    }

    #[inline(always)]
    fn write(self, words: &mut [u32]) {
        assert!(words.len() == Self::LABELS);
        // SAFETY: there is room for eight words.
        unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), self.0) }
    }

    #[inline(always)]
    fn prefetch_read(line: *const u32) {
        // SAFETY: a prefetch has no effect on memory and does not fault.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) }
    }

    #[inline(always)]
    fn prefetch_write(line: *const u32) {
        // SAFETY: a prefetch has no effect on memory and does not fault.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(line.cast()) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: a value of this type is the proof that the instructions exist.
        Self(unsafe { _mm256_add_epi32(self.0, other.0) })
    }

    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        // SAFETY: as in `add`.
        Self(unsafe { _mm256_xor_si256(self.0, other.0) })
    }

    #[inline(always)]
    fn rotate<const BITS: i32>(self) -> Self {
        // SAFETY: as in `add`.
        Self(unsafe {
            match BITS {
                // Whole bytes move with one shuffle.
                16 => _mm256_shuffle_epi8(
                    self.0,
                    _mm256_setr_epi8(
                        2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12,
                        13,
                    ),
                ),
                8 => _mm256_shuffle_epi8(
                    self.0,
                    _mm256_setr_epi8(
                        3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14, 3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13,
                        14,
                    ),
                ),
                12 => _mm256_or_si256(_mm256_slli_epi32::<12>(self.0), _mm256_srli_epi32::<20>(self.0)),
                _ => _mm256_or_si256(_mm256_slli_epi32::<7>(self.0), _mm256_srli_epi32::<25>(self.0)),
            }
        })
    }
}
