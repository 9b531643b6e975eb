//! NEON (aarch64): four labels per group, two groups.

#![expect(unsafe_code, reason = "intrinsics")]
#![expect(clippy::inline_always, reason = "callees must be compiled with the instruction set of the entry function")]

use std::arch::{
    aarch64::{
        uint32x4_t, uint64x2_t, vaddq_u32, vdupq_n_u32, veorq_u32, vld1q_u8, vld1q_u32, vqtbl1q_u8, vreinterpretq_u8_u32,
        vreinterpretq_u16_u32, vreinterpretq_u32_u8, vreinterpretq_u32_u16, vreinterpretq_u32_u64, vreinterpretq_u64_u32,
        vrev32q_u16, vshlq_n_u32, vsriq_n_u32, vst1q_u32, vtrn1q_u32, vtrn1q_u64, vtrn2q_u32, vtrn2q_u64,
    },
    is_aarch64_feature_detected,
};

use super::{
    Arithmetic,
    words::{self, Register},
};
use crate::label::{
    Block,
    hash::{State, permute_one},
};

/// The proof that the machine has NEON.
#[derive(Debug, Clone, Copy)]
pub(super) struct Neon(());

impl Neon {
    pub(super) fn detect() -> Option<Self> {
        is_aarch64_feature_detected!("neon").then_some(Self(()))
    }
}

impl Arithmetic<1> for Neon {
    const GROUP: usize = Vector::LABELS;
    const WORTH: usize = 2;

    fn permute(self, state: &mut State<1>) {
        permute_one(state);
    }

    fn romix(self, blocks: &mut [Block], v: &mut [Block]) {
        // SAFETY: `self` is the proof that the instructions exist.
        unsafe { romix(blocks, v) }
    }
}

#[target_feature(enable = "neon")]
fn romix(blocks: &mut [Block], v: &mut [Block]) {
    // SAFETY: the feature is enabled for this function.
    unsafe { words::romix::<Vector>(blocks, v) }
}

/// One word of four labels.
#[derive(Clone, Copy)]
struct Vector(uint32x4_t);

/// Transposes four by four words.
#[inline(always)]
fn transpose([a, b, c, d]: [Vector; 4]) -> [Vector; 4] {
    // SAFETY: a value of this type is the proof that the instructions exist.
    unsafe {
        // Words 0 and 2 of a and b alternate in the first, words 1 and 3 in the second.
        let (ab_02, ab_13) = (wide(vtrn1q_u32(a.0, b.0)), wide(vtrn2q_u32(a.0, b.0)));
        let (cd_02, cd_13) = (wide(vtrn1q_u32(c.0, d.0)), wide(vtrn2q_u32(c.0, d.0)));
        [
            Vector(vreinterpretq_u32_u64(vtrn1q_u64(ab_02, cd_02))),
            Vector(vreinterpretq_u32_u64(vtrn1q_u64(ab_13, cd_13))),
            Vector(vreinterpretq_u32_u64(vtrn2q_u64(ab_02, cd_02))),
            Vector(vreinterpretq_u32_u64(vtrn2q_u64(ab_13, cd_13))),
        ]
    }
}

impl Register for Vector {
    const LABELS: usize = 4;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller vouches for the instruction set.
        Self(unsafe { vdupq_n_u32(0) })
    }

    #[inline(always)]
    unsafe fn load(quad: impl Fn(usize) -> *const u32) -> [Self; 4] {
        // SAFETY: the caller vouches for the pointers and for the instruction set.
        unsafe {
            transpose([Self(vld1q_u32(quad(0))), Self(vld1q_u32(quad(1))), Self(vld1q_u32(quad(2))), Self(vld1q_u32(quad(3)))])
        }
    }

    #[inline(always)]
    unsafe fn store(words: [Self; 4], quad: impl Fn(usize) -> *mut u32) {
        let [a, b, c, d] = transpose(words);
        // SAFETY: the caller vouches for the pointers.
        unsafe {
            vst1q_u32(quad(0), a.0);
            vst1q_u32(quad(1), b.0);
            vst1q_u32(quad(2), c.0);
            vst1q_u32(quad(3), d.0);
        }
    }

    #[inline(always)]
    fn write(self, words: &mut [u32]) {
        assert!(words.len() == Self::LABELS);
        // SAFETY: there is room for four words.
        unsafe { vst1q_u32(words.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: a value of this type is the proof that the instructions exist.
        Self(unsafe { vaddq_u32(self.0, other.0) })
    }

    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        // SAFETY: as in `add`.
        Self(unsafe { veorq_u32(self.0, other.0) })
    }

    #[inline(always)]
    fn rotate<const BITS: i32>(self) -> Self {
        /// Byte `i` of the rotated words comes from here.
        const BY_8: [u8; 16] = [3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14];
        // SAFETY: as in `add`; the table is as long as the register.
        Self(unsafe {
            match BITS {
                16 => vreinterpretq_u32_u16(vrev32q_u16(vreinterpretq_u16_u32(self.0))),
                8 => {
                    let table = vld1q_u8(BY_8.as_ptr());
                    vreinterpretq_u32_u8(vqtbl1q_u8(vreinterpretq_u8_u32(self.0), table))
                }
                12 => vsriq_n_u32::<20>(vshlq_n_u32::<12>(self.0), self.0),
                _ => vsriq_n_u32::<25>(vshlq_n_u32::<7>(self.0), self.0),
            }
        })
    }
}

/// # Safety
/// The machine has NEON.
#[inline(always)]
unsafe fn wide(x: uint32x4_t) -> uint64x2_t {
    // SAFETY: the caller's promise.
    unsafe { vreinterpretq_u64_u32(x) }
}
