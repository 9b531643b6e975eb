//! AVX-512: four labels per register, two registers' worth per group, two groups.

#![expect(unsafe_code, reason = "intrinsics")]
#![expect(clippy::inline_always, reason = "callees must be compiled with the instruction set of the entry function")]

use std::arch::x86_64::{
    __m256i, __m512i, _MM_HINT_ET0, _MM_HINT_T0, _mm_prefetch, _mm512_add_epi32, _mm512_castsi256_si512, _mm512_inserti64x4,
    _mm512_rol_epi32, _mm512_setzero_si512, _mm512_shuffle_epi32, _mm512_shuffle_i32x4, _mm512_ternarylogic_epi32,
    _mm512_xor_si512,
};

use super::{
    Arithmetic,
    rows::{self, Register},
};
use crate::label::{
    Block,
    hash::{State, permute_one},
};

/// The proof that the machine has AVX-512 F.
#[derive(Debug, Clone, Copy)]
pub(super) struct Avx512(());

impl Avx512 {
    pub(super) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx512f").then_some(Self(()))
    }
}

impl Arithmetic<1> for Avx512 {
    const GROUP: usize = SETS * Zmm::LABELS;

    fn permute(self, state: &mut State<1>) {
        permute_one(state);
    }

    fn romix(self, blocks: &mut [Block], v: &mut [Block]) {
        // SAFETY: `self` is the proof that the instructions exist.
        unsafe {
            match blocks.len() / Self::GROUP {
                1 => romix::<1>(blocks, v),
                _ => romix::<2>(blocks, v),
            }
        }
    }
}

/// Two sets keep both ports busy; a third would bring 24 MiB of scratch memory, which caches hold less often.
const SETS: usize = 2;

#[target_feature(enable = "avx512f")]
fn romix<const GROUPS: usize>(blocks: &mut [Block], v: &mut [Block]) {
    // SAFETY: the feature is enabled for this function.
    unsafe { rows::romix::<Zmm, SETS, GROUPS>(blocks, v) }
}

#[derive(Clone, Copy)]
struct Zmm(__m512i);

impl Register for Zmm {
    const LABELS: usize = 4;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller vouches for the instruction set.
        Self(unsafe { _mm512_setzero_si512() })
    }

    #[inline(always)]
    unsafe fn load(half: impl Fn(usize) -> *const u32) -> [Self; 4] {
        // SAFETY: the caller vouches for 64 readable bytes at each pointer and for the instruction set.
        unsafe {
            let pair = |first: *const u32, second: *const u32| {
                let low = _mm512_castsi256_si512(first.cast::<__m256i>().read_unaligned());
                _mm512_inserti64x4::<1>(low, second.cast::<__m256i>().read_unaligned())
            };
            let (ac01, ac23) = (pair(half(0), half(2)), pair(half(0).add(8), half(2).add(8)));
            let (bd01, bd23) = (pair(half(1), half(3)), pair(half(1).add(8), half(3).add(8)));
            [
                Self(_mm512_shuffle_i32x4::<0x88>(ac01, bd01)),
                Self(_mm512_shuffle_i32x4::<0xdd>(ac01, bd01)),
                Self(_mm512_shuffle_i32x4::<0x88>(ac23, bd23)),
                Self(_mm512_shuffle_i32x4::<0xdd>(ac23, bd23)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn store(rows: [Self; 4], half: impl Fn(usize) -> *mut u32) {
        // SAFETY: the caller vouches for 64 writable bytes at each pointer.
        unsafe {
            let ac01 = _mm512_shuffle_i32x4::<0x44>(rows[0].0, rows[1].0);
            let bd01 = _mm512_shuffle_i32x4::<0xee>(rows[0].0, rows[1].0);
            let ac23 = _mm512_shuffle_i32x4::<0x44>(rows[2].0, rows[3].0);
            let bd23 = _mm512_shuffle_i32x4::<0xee>(rows[2].0, rows[3].0);
            half(0).cast::<__m512i>().write_unaligned(_mm512_shuffle_i32x4::<0x88>(ac01, ac23));
            half(2).cast::<__m512i>().write_unaligned(_mm512_shuffle_i32x4::<0xdd>(ac01, ac23));
            half(1).cast::<__m512i>().write_unaligned(_mm512_shuffle_i32x4::<0x88>(bd01, bd23));
            half(3).cast::<__m512i>().write_unaligned(_mm512_shuffle_i32x4::<0xdd>(bd01, bd23));
        }
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
    fn first_words(self, words: &mut [u32]) {
        // SAFETY: a register is 16 words.
        let all: [u32; 16] = unsafe { std::mem::transmute(self.0) };
        // The lanes hold the labels 0, 2, 1, 3.
        words.copy_from_slice(&[all[0], all[8], all[4], all[12]]);
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: a value of this type is the proof that the instructions exist.
        Self(unsafe { _mm512_add_epi32(self.0, other.0) })
    }

    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        // SAFETY: as in `add`.
        Self(unsafe { _mm512_xor_si512(self.0, other.0) })
    }

    #[inline(always)]
    fn xor3(self, b: Self, c: Self) -> Self {
        // SAFETY: as in `add`.
        Self(unsafe { _mm512_ternarylogic_epi32::<0x96>(self.0, b.0, c.0) })
    }

    #[inline(always)]
    fn rotate<const BITS: i32>(self) -> Self {
        // SAFETY: as in `add`.
        Self(unsafe { _mm512_rol_epi32::<BITS>(self.0) })
    }

    #[inline(always)]
    fn turn<const WORDS: i32>(self) -> Self {
        // SAFETY: as in `add`.
        Self(unsafe {
            match WORDS {
                1 => _mm512_shuffle_epi32::<0x93>(self.0),
                2 => _mm512_shuffle_epi32::<0x4e>(self.0),
                _ => _mm512_shuffle_epi32::<0x39>(self.0),
            }
        })
    }
}
