//! Logarithm, exponential, the logarithm of the gamma function, and with them the binomial distribution (consensus.md section 2).
//!
//! Numbers called raw are 64-bit integers in units of 2⁻⁵⁶.

use super::{FRACTION, Fixed, ONE, OutOfRange};

/// ln 2, raw.
const LN_2: i64 = 0x00b1_7217_f7d1_cf78;
/// 1 / ln 2, raw.
const LOG2_E: i64 = 0x0171_5476_52b8_2fe0;
/// One, raw.
const RAW_ONE: i64 = ONE as i64;

/// The chance that of `n` draws with chance `p` each at most `x` succeed. `n` is at most 2³⁰.
pub fn at_most(n: u64, p: Fixed, x: i64) -> Result<Fixed, OutOfRange> {
    let Ok(x) = u64::try_from(x) else { return Ok(Fixed::from_int(0)) };
    if x >= n {
        return Ok(Fixed::ONE);
    }
    let int = |number: u64| i64::try_from(number).map_err(|_| OutOfRange);
    beta(int(n - x)?, int(x + 1)?, Fixed::ONE.minus(Fixed::from_raw(p.to_raw()?))?)
}

/// So many draws with a chance each, and one fraction that decides all of them (consensus.md section 9.2).
#[derive(Debug, Clone, Copy)]
pub struct Draws {
    /// How many; at most 2³⁰.
    pub n: u64,
    /// The chance of each.
    pub p: Fixed,
    /// In [0, 1).
    pub fraction: Fixed,
}

impl Draws {
    /// How many succeed.
    pub fn successes(&self) -> Result<u64, OutOfRange> {
        for x in 0..self.n {
            if at_most(self.n, self.p, x.cast_signed())?.greater(self.fraction) {
                return Ok(x);
            }
        }
        Ok(self.n)
    }

    /// Whether so many succeed; quicker than to find out how many.
    pub fn succeed(&self, times: u64) -> Result<bool, OutOfRange> {
        let times = i64::try_from(times).map_err(|_| OutOfRange)?;
        let fewer = at_most(self.n, self.p, times - 1)?;
        Ok(!fewer.greater(self.fraction) && self.fraction.less(at_most(self.n, self.p, times)?))
    }
}

/// The regularised incomplete beta function.
fn beta(a: i64, b: i64, x: Fixed) -> Result<Fixed, OutOfRange> {
    if a > 1 << 30 || b > 1 << 30 || x.to_bits() > ONE {
        return Err(OutOfRange);
    }
    let rest = Fixed::ONE.minus(x)?;
    let mut front = Fixed::from_int(0);
    if x.to_bits() != 0 && x.to_bits() < ONE {
        let choices = ln_gamma(a + b)?.minus(ln_gamma(a)?)?.minus(ln_gamma(b)?)?;
        let power = |base: Fixed, exponent| Fixed::from_raw(ln(base.to_raw()?, FRACTION)?).times(Fixed::from_int(exponent));
        front = exp(choices.plus(power(x, a)?)?.plus(power(rest, b)?)?)?;
    }
    let part = |x: Fixed, a: i64, b: i64| match front.to_bits() {
        0 => Ok(front),
        _ => front.times(continued(x, a, b)?)?.over(Fixed::from_int(a)),
    };
    let turn = Fixed::from_int(a + 1).over(Fixed::from_int(a + b + 2))?;
    if x.greater(turn) { Fixed::ONE.minus(part(rest, b, a)?) } else { part(x, a, b) }
}

/// The continued fraction of the beta function, evaluated from its front.
fn continued(x: Fixed, a: i64, b: i64) -> Result<Fixed, OutOfRange> {
    /// 10⁻¹⁴.
    const EPSILON: Fixed = Fixed::from_raw(720);
    let int = Fixed::from_int;
    let nonzero = |v: Fixed| if v.magnitude() == 0 { Fixed::from_raw(1) } else { v };
    let inverse = |v: Fixed| Fixed::ONE.over(nonzero(v));
    let mut c = Fixed::ONE;
    let mut d = inverse(Fixed::ONE.minus(x.times(int(a + b))?.over(int(a + 1))?)?)?;
    let mut h = d;
    for m in 1..300 {
        let even = x.times(int(m * (b - m)))?.over(int((a + 2 * m - 1) * (a + 2 * m)))?;
        d = inverse(even.times(d)?.plus(Fixed::ONE)?)?;
        c = nonzero(even.over(c)?.plus(Fixed::ONE)?);
        h = h.times(d)?.times(c)?;
        let odd = int(-(a + m) * (a + b + m)).times(x)?.over(int((a + 2 * m) * (a + 2 * m + 1)))?;
        d = inverse(odd.times(d)?.plus(Fixed::ONE)?)?;
        c = nonzero(odd.over(c)?.plus(Fixed::ONE)?);
        let change = d.times(c)?;
        h = h.times(change)?;
        // compares the bits: a change below one goes on
        if change.minus(Fixed::ONE)?.less(EPSILON) {
            break;
        }
    }
    Ok(h)
}

/// The logarithm of (n - 1)!.
fn ln_gamma(n: i64) -> Result<Fixed, OutOfRange> {
    /// Of Stirling's series, raw: the coefficients of 1, z, z³, z⁵ and so on, with z = 1 / n.
    const SERIES: [i64; 7] = [
        0x006b_3f8e_4325_f5a4,
        0x0015_5555_5555_553b,
        -0xb60b_60b5_8172,
        0x3403_3f31_9e71,
        -0x2701_9718_1fce,
        0x36cf_7499_b5ab,
        -0x6ae2_742e_790f,
    ];
    match n {
        ..=2 => Ok(Fixed::from_int(0)),
        3..8 => Ok(Fixed::from_raw(ln((1..n).product(), 0)?)),
        _ => {
            let z = (RAW_ONE + n / 2) / n;
            let square = multiply(z, z)?;
            let [first, inner @ .., last] = SERIES;
            let mut sum = last;
            for coefficient in inner.into_iter().rev() {
                sum = coefficient + multiply(square, sum)?;
            }
            let series = Fixed::from_raw(first + multiply(z, sum)?);
            let half = Fixed::from_raw(RAW_ONE / 2);
            let growth = Fixed::from_raw(ln(n, 0)? - RAW_ONE);
            Fixed::from_int(n).minus(half)?.times(growth)?.plus(series)
        }
    }
}

/// e to the power of `x`.
fn exp(x: Fixed) -> Result<Fixed, OutOfRange> {
    match (x.is_negative(), x.magnitude() >> FRACTION) {
        // smaller than any unit
        (true, 39..) => return Ok(Fixed::from_int(0)),
        (false, 49..) => return Err(OutOfRange),
        _ => {}
    }
    let magnitude = x.to_raw()?.abs();
    let twos = multiply_down(magnitude, LOG2_E) & !(RAW_ONE - 1);
    let rest = magnitude - multiply_down(twos, LN_2);
    let twos = twos >> FRACTION;
    let (mut sum, mut power, mut factorial) = (RAW_ONE + rest, rest, 1);
    for j in 2..=14 {
        factorial *= j;
        power = multiply_down(power, rest);
        sum += multiply_down(power, RAW_ONE / factorial);
    }
    let sum = Fixed::from_raw(sum);
    if x.is_negative() { Ok(Fixed(Fixed::ONE.over(sum)?.0 >> twos)) } else { Ok(Fixed(sum.0 << twos)) }
}

/// The natural logarithm, raw, of a positive integer with so many bits behind the point.
fn ln(x: i64, bits: u32) -> Result<i64, OutOfRange> {
    multiply(log2(u64::try_from(x).map_err(|_| OutOfRange)?, bits)?, LN_2)
}

/// The logarithm to base 2, raw, of an integer with so many bits behind the point: it is squared again and again, and each time
/// it passes 2 the logarithm has a bit.
fn log2(x: u64, bits: u32) -> Result<i64, OutOfRange> {
    if x == 0 {
        return Err(OutOfRange);
    }
    if x == 1 << bits {
        return Ok(0);
    }
    let whole = i64::from(u64::BITS - x.leading_zeros()) - i64::from(bits) - 1;
    let mut log = whole << FRACTION;
    let mut a = x << x.leading_zeros() >> 1;
    for bit in (0..FRACTION).rev() {
        a = ((u128::from(a) * u128::from(a)) >> 62) as u64;
        let carry = a >> 63;
        a >>= carry;
        log += carry.cast_signed() << bit;
    }
    Ok(log)
}

/// The product of raw numbers, rounded.
fn multiply(x: i64, y: i64) -> Result<i64, OutOfRange> {
    let product = i128::from(x) * i128::from(y) + (1 << (FRACTION - 1));
    i64::try_from(product >> FRACTION).map_err(|_| OutOfRange)
}

/// The product of raw numbers, none of them negative, cut off.
fn multiply_down(x: i64, y: i64) -> i64 {
    ((i128::from(x) * i128::from(y)) >> FRACTION) as i64
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn check(part: &str, holds: impl Fn(&Value) -> bool) {
        let file: Value = serde_json::from_str(include_str!("../../testdata/consensus/fixed_transcendental.json")).unwrap();
        let cases = file[part].as_array().unwrap();
        assert!(cases.len() >= 100);
        for case in cases {
            assert!(holds(case), "{part}: {case}");
        }
    }

    fn raw(value: &Value) -> i64 {
        value.as_i64().unwrap()
    }

    fn bits(value: &Value) -> Fixed {
        Fixed(u128::from_str_radix(value.as_str().unwrap(), 16).unwrap())
    }

    #[test]
    fn logarithms_exponentials_and_gamma_are_those_of_the_network() {
        check("ln", |case| ln(raw(&case["x_raw"]), FRACTION) == Ok(raw(&case["ln_raw"])));
        check("ln_int", |case| ln(raw(&case["n"]), 0) == Ok(raw(&case["ln_raw"])));
        check("exp", |case| exp(Fixed::from_raw(raw(&case["x_raw"]))) == Ok(bits(&case["result"])));
        check("lgamma", |case| ln_gamma(raw(&case["n"])) == Ok(bits(&case["result"])));
    }

    #[test]
    fn what_has_no_value_is_refused() {
        let half = Fixed::ratio(1, 2).unwrap();
        assert_eq!(log2(0, 0), Err(OutOfRange));
        assert_eq!(at_most((1 << 30) + 1, half, 0), Err(OutOfRange));
        assert_eq!(at_most(5, Fixed::from_int(2), 1), Err(OutOfRange));
        assert_eq!(at_most(5, half, -1), Ok(Fixed::from_int(0)));
        assert_eq!(at_most(5, half, 5), Ok(Fixed::ONE));
        assert_eq!(exp(Fixed::from_int(49)), Err(OutOfRange));
    }
}
