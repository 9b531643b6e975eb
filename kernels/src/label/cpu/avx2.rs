//! AVX2: eight labels per group, two groups.
//!
//! A mix of a group takes 1152 instructions on the three vector ports in the fill loop (1088 of arithmetic, as there is no
//! rotation: 12 and 7 bits take three; 64 shuffles) and 1216 in the second loop, which is 48 and 51 cycles per label at best.
//! Measured at N = 8192 on a Xeon with 2 MiB of L2 per core: 63 and 78. The state fills all sixteen registers, so some words
//! wait in memory, and the scheduler of the processor is full of instructions that wait for others.

#![expect(unsafe_code, reason = "intrinsics")]
#![expect(clippy::inline_always, reason = "callees must be compiled with the instruction set of the entry function")]

use std::arch::{
    asm,
    x86_64::{
        __m128i, __m256i, _mm256_add_epi32, _mm256_andnot_si256, _mm256_castsi128_si256, _mm256_castsi256_si128,
        _mm256_extracti128_si256, _mm256_inserti128_si256, _mm256_loadu_si256, _mm256_or_si256, _mm256_set1_epi64x,
        _mm256_setzero_si256, _mm256_slli_epi32, _mm256_slli_epi64, _mm256_srli_epi32, _mm256_srli_epi64, _mm256_storeu_si256,
        _mm256_unpackhi_epi32, _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64, _mm256_xor_si256,
    },
};

use super::{
    Arithmetic,
    keccak::{self, Lanes},
    words::{self, Register},
    x86,
};
use crate::label::{Block, hash::State};

x86::backend! {
    /// The proof that the machine has AVX2.
    Avx2, "avx2", 4, Ymm;
    __m256i, zero _mm256_setzero_si256, load _mm256_loadu_si256, store _mm256_storeu_si256, xor _mm256_xor_si256,
    splat _mm256_set1_epi64x
}

/// `a ^ (!b & c)`.
#[inline]
#[target_feature(enable = "avx2")]
fn chi(a: __m256i, b: __m256i, c: __m256i) -> __m256i {
    _mm256_xor_si256(a, _mm256_andnot_si256(b, c))
}

#[inline]
#[target_feature(enable = "avx2")]
fn rotate<const BITS: i32, const REST: i32>(x: __m256i) -> __m256i {
    _mm256_or_si256(_mm256_slli_epi64::<BITS>(x), _mm256_srli_epi64::<REST>(x))
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
    let x = x.map(|x| x.0);
    // SAFETY: a value of this type is the proof that the instructions exist.
    let rows =
        unsafe { x86::transpose!(x; _mm256_unpacklo_epi32, _mm256_unpackhi_epi32, _mm256_unpacklo_epi64, _mm256_unpackhi_epi64) };
    rows.map(Ymm)
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

/// For each byte of a lane, where it comes from.
#[repr(align(32))]
struct Order([u8; 32]);

/// Words rotated by 16 bits.
static BY_16: Order =
    Order([2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13]);

/// Words rotated by 8 bits.
static BY_8: Order =
    Order([3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14, 3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14]);

/// `vpshufb`. Of the intrinsic with a known order the compiler makes more: two shuffles by 16, and `(d ^ a) <<< 8` as
/// `(d <<< 8) ^ (a <<< 8)`; that costs an eighth of all instructions.
#[inline]
#[target_feature(enable = "avx2")]
fn shuffle_bytes(mut x: __m256i, order: &'static Order) -> __m256i {
    // SAFETY: reads the 32 bytes of the order.
    unsafe {
        asm!(
            "vpshufb {x}, {x}, [{order}]",
            x = inlateout(ymm_reg) x,
            order = in(reg) order.0.as_ptr(),
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    x
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
                16 => shuffle_bytes(self.0, &BY_16),
                8 => shuffle_bytes(self.0, &BY_8),
                12 => _mm256_or_si256(_mm256_slli_epi32::<12>(self.0), _mm256_srli_epi32::<20>(self.0)),
                _ => _mm256_or_si256(_mm256_slli_epi32::<7>(self.0), _mm256_srli_epi32::<25>(self.0)),
            }
        })
    }
}
