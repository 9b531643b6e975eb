//! Fixed-point numbers of consensus and the binomial distribution over them (consensus.md section 2).
//!
//! Who sits in a committee follows from these numbers, so every node must compute the same bits: where the deployed arithmetic
//! is one unit off, so is this one.

mod binomial;

use std::ops::Neg;

pub use binomial::{Draws, at_most};

/// Bits behind the point.
const FRACTION: u32 = 56;
/// One, without sign.
const ONE: u128 = 1 << FRACTION;
const SIGN: u128 = 1 << 127;

/// A number outside of what 71 bits before the point hold, or a division by zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the result has no representation")]
pub struct OutOfRange;

/// A number with sign, 71 bits before the point and 56 behind it. Zero may have a sign, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fixed(u128);

impl Fixed {
    /// One.
    pub const ONE: Self = Self(ONE);

    /// That of these bits: sign, integer, fraction.
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// Its bits: sign, integer, fraction.
    pub const fn to_bits(self) -> u128 {
        self.0
    }

    /// A whole number.
    pub const fn from_int(number: i64) -> Self {
        let magnitude = (number.unsigned_abs() as u128) << FRACTION;
        if number < 0 { Self(magnitude | SIGN) } else { Self(magnitude) }
    }

    /// `numerator / denominator`.
    pub fn ratio(numerator: u64, denominator: u64) -> Result<Self, OutOfRange> {
        divide((numerator as u128) << FRACTION, (denominator as u128) << FRACTION).map(Self)
    }

    /// A number in [0, 1) in units of 2⁻⁵⁶; what is above that does not count.
    pub const fn fraction(units: u64) -> Self {
        Self(units as u128 & (ONE - 1))
    }

    /// A number in units of 2⁻⁵⁶.
    const fn from_raw(raw: i64) -> Self {
        let magnitude = raw.unsigned_abs() as u128;
        if raw < 0 { Self(magnitude | SIGN) } else { Self(magnitude) }
    }

    /// In units of 2⁻⁵⁶.
    fn to_raw(self) -> Result<i64, OutOfRange> {
        let magnitude = i64::try_from(self.magnitude()).map_err(|_| OutOfRange)?;
        Ok(if self.is_negative() { -magnitude } else { magnitude })
    }

    const fn magnitude(self) -> u128 {
        self.0 & !SIGN
    }

    const fn is_negative(self) -> bool {
        self.0 & SIGN != 0
    }

    fn signed(magnitude: u128, negative: bool) -> Result<Self, OutOfRange> {
        match magnitude & SIGN {
            0 => Ok(Self(magnitude | if negative { SIGN } else { 0 })),
            _ => Err(OutOfRange),
        }
    }

    /// Compares the bits, the sign among them: every negative number is greater than all positive ones.
    #[must_use]
    pub const fn less(self, other: Self) -> bool {
        self.0 < other.0
    }

    /// Compares the bits, the sign among them: every negative number is greater than all positive ones.
    #[must_use]
    pub const fn greater(self, other: Self) -> bool {
        self.0 > other.0
    }

    /// The sum.
    pub fn plus(self, other: Self) -> Result<Self, OutOfRange> {
        let (a, b) = (self.magnitude(), other.magnitude());
        if self.is_negative() == other.is_negative() {
            Self::signed(a + b, self.is_negative())
        } else if a == b {
            Ok(Self(0))
        } else {
            Self::signed(a.abs_diff(b), if a > b { self.is_negative() } else { other.is_negative() })
        }
    }

    /// The difference.
    pub fn minus(self, other: Self) -> Result<Self, OutOfRange> {
        self.plus(-other)
    }

    /// The product, towards zero.
    pub fn times(self, other: Self) -> Result<Self, OutOfRange> {
        let (high, low) = product(self.magnitude(), other.magnitude());
        if high >> (FRACTION - 1) != 0 {
            return Err(OutOfRange);
        }
        Self::signed(high << (128 - FRACTION) | low >> FRACTION, self.is_negative() != other.is_negative())
    }

    /// The quotient; an exact one can be one unit too small if the divisor is 256 or more.
    pub fn over(self, other: Self) -> Result<Self, OutOfRange> {
        Self::signed(divide(self.magnitude(), other.magnitude())?, self.is_negative() != other.is_negative())
    }
}

impl Neg for Fixed {
    type Output = Self;

    fn neg(self) -> Self {
        Self(self.0 ^ SIGN)
    }
}

/// The product of 256 bits, its upper half first.
fn product(a: u128, b: u128) -> (u128, u128) {
    let low = |x: u128| x & u128::from(u64::MAX);
    let high = |x: u128| x >> 64;
    let bottom = low(a) * low(b);
    let middle = high(a) * low(b) + high(bottom);
    let other = low(a) * high(b) + low(middle);
    (high(a) * high(b) + high(middle) + high(other), other << 64 | low(bottom))
}

/// `u / v` with 56 bits behind the point.
fn divide(u: u128, v: u128) -> Result<u128, OutOfRange> {
    if u >> 71 == 0 {
        return Ok(quotient(u << FRACTION, v)?.0);
    }
    let (whole, rest) = quotient(u, v)?;
    if whole >> (127 - FRACTION) != 0 {
        return Err(OutOfRange);
    }
    let shift = FRACTION.min(((rest >> 64) as u64).leading_zeros() - 1);
    let part = quotient(rest << shift, v >> (FRACTION - shift))?.0;
    let sum = (whole << FRACTION).checked_add(part).ok_or(OutOfRange)?;
    if sum & SIGN == 0 { Ok(sum) } else { Err(OutOfRange) }
}

/// Quotient and remainder as the deployed division of 128 bits has them: where the divisor has more than 64 bits and divides
/// exactly, the quotient can be one too small and the remainder the divisor.
fn quotient(u: u128, v: u128) -> Result<(u128, u128), OutOfRange> {
    if v >> 64 == 0 {
        return u.checked_div(v).map(|quotient| (quotient, u % v)).ok_or(OutOfRange);
    }
    let shift = v.leading_zeros();
    // the upper 64 bits of the divisor without its leading zeros; the estimate is at most two too large
    let leading = (v << shift) >> 64;
    let mut estimate = ((u / leading) >> (64 - shift)).saturating_sub(1);
    let mut rest = u - v * estimate;
    if rest > v {
        estimate += 1;
        rest -= v;
    }
    Ok((estimate, rest))
}
