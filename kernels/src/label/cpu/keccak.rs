//! Keccak-f\[1600\] on several states at once (`docs/spec/post.md` section 3.1), for registers of any width.
//!
//! One state at a time it takes 1.5 % of the time of the fast label kernels.

#![expect(clippy::inline_always, reason = "callees must be compiled with the instruction set of the backend's entry function")]

/// One word of as many states as the register has lanes. A value is the proof that the machine has the instructions.
pub(super) trait Lanes: Copy {
    /// The exclusive or.
    fn xor(self, other: Self) -> Self;

    /// `self ^ (!b & c)`.
    fn chi(self, b: Self, c: Self) -> Self;

    /// To the left by `BITS`; `REST` is 64 less that, or 0 when that is 64.
    fn rotate<const BITS: i32, const REST: i32>(self) -> Self;

    /// Every word the same, on the machine of `self`.
    fn splat(self, word: u64) -> Self;
}

const ROUND_CONSTANTS: [u64; 24] = [
    0x0000_0000_0000_0001,
    0x0000_0000_0000_8082,
    0x8000_0000_0000_808a,
    0x8000_0000_8000_8000,
    0x0000_0000_0000_808b,
    0x0000_0000_8000_0001,
    0x8000_0000_8000_8081,
    0x8000_0000_0000_8009,
    0x0000_0000_0000_008a,
    0x0000_0000_0000_0088,
    0x0000_0000_8000_8009,
    0x0000_0000_8000_000a,
    0x0000_0000_8000_808b,
    0x8000_0000_0000_008b,
    0x8000_0000_0000_8089,
    0x8000_0000_0000_8003,
    0x8000_0000_0000_8002,
    0x8000_0000_0000_0080,
    0x0000_0000_0000_800a,
    0x8000_0000_8000_000a,
    0x8000_0000_8000_8081,
    0x8000_0000_0000_8080,
    0x0000_0000_8000_0001,
    0x8000_0000_8000_8008,
];

/// Word `(x, y)` is `a[x + 5 * y]`.
#[inline(always)]
pub(super) fn permute<T: Lanes>(mut a: [T; 25]) -> [T; 25] {
    for constant in ROUND_CONSTANTS {
        // Theta.
        macro_rules! column {
            ($x:literal) => {
                a[$x].xor(a[$x + 5]).xor(a[$x + 10]).xor(a[$x + 15]).xor(a[$x + 20])
            };
        }
        let c = [column!(0), column!(1), column!(2), column!(3), column!(4)];
        let d = [
            c[4].xor(c[1].rotate::<1, 63>()),
            c[0].xor(c[2].rotate::<1, 63>()),
            c[1].xor(c[3].rotate::<1, 63>()),
            c[2].xor(c[4].rotate::<1, 63>()),
            c[3].xor(c[0].rotate::<1, 63>()),
        ];
        // Rho and pi: what lands in row `y` comes from five places, each with its rotation. Then chi, row by row.
        let mut b = a;
        macro_rules! row {
            ($y:literal: $($from:literal << $bits:literal),*) => {
                let r = [$(a[$from].xor(d[$from % 5]).rotate::<$bits, { (64 - $bits) % 64 }>()),*];
                b[$y * 5] = r[0].chi(r[1], r[2]);
                b[$y * 5 + 1] = r[1].chi(r[2], r[3]);
                b[$y * 5 + 2] = r[2].chi(r[3], r[4]);
                b[$y * 5 + 3] = r[3].chi(r[4], r[0]);
                b[$y * 5 + 4] = r[4].chi(r[0], r[1]);
            };
        }
        row!(0: 0 << 0, 6 << 44, 12 << 43, 18 << 21, 24 << 14);
        row!(1: 3 << 28, 9 << 20, 10 << 3, 16 << 45, 22 << 61);
        row!(2: 1 << 1, 7 << 6, 13 << 25, 19 << 8, 20 << 18);
        row!(3: 4 << 27, 5 << 36, 11 << 10, 17 << 15, 23 << 56);
        row!(4: 2 << 62, 8 << 55, 14 << 39, 15 << 41, 21 << 2);
        // Iota.
        b[0] = b[0].xor(b[0].splat(constant));
        a = b;
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Lanes for u64 {
        fn xor(self, other: Self) -> Self {
            self ^ other
        }
        fn chi(self, b: Self, c: Self) -> Self {
            self ^ (!b & c)
        }
        fn rotate<const BITS: i32, const REST: i32>(self) -> Self {
            self.rotate_left(BITS.unsigned_abs())
        }
        fn splat(self, word: u64) -> Self {
            word
        }
    }

    #[test]
    fn one_state_is_keccak() {
        let mut state: [u64; 25] = std::array::from_fn(|i| (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let permuted = permute(state);
        keccak::f1600(&mut state);
        assert_eq!(permuted, state);
    }
}
