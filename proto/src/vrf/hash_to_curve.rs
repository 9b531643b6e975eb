//! `edwards25519_XMD:SHA-512_ELL2_NU_` of RFC 9380: any bytes to a point of the prime-order group. All of it is about public
//! data, so nothing runs in constant time.

use std::{
    ops::{Add, Mul, Neg},
    sync::LazyLock,
};

use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use fiat_crypto::curve25519_64 as fiat;
use sha2::{Digest as _, Sha512};

/// The domain separation tag of RFC 9381, the number of the suite included.
const TAG: &[u8] = b"ECVRF_edwards25519_XMD:SHA-512_ELL2_NU_\x04";

/// The coefficient of the Montgomery form.
const J: u64 = 486_662;

/// The point of a message under a key (RFC 9381 section 5.4.1.2).
pub(super) fn encode(key: &[u8; 32], message: &[u8]) -> EdwardsPoint {
    map_to_curve(hash_to_field(key, message)).mul_by_cofactor()
}

/// `expand_message_xmd` to 48 bytes, read as a big-endian number (RFC 9380 sections 5.2 and 5.3.1).
fn hash_to_field(key: &[u8; 32], message: &[u8]) -> Field {
    let tag_length = [TAG.len() as u8];
    let first = Sha512::new_with_prefix([0; 128])
        .chain_update(key)
        .chain_update(message)
        .chain_update([0, 48, 0])
        .chain_update(TAG)
        .chain_update(tag_length)
        .finalize();
    let second = Sha512::new_with_prefix(first).chain_update([1]).chain_update(TAG).chain_update(tag_length).finalize();
    second[..48].iter().fold(Field::from(0), |sum, byte| sum * Field::from(256) + Field::from(u64::from(*byte)))
}

/// Elligator 2 (RFC 9380 section 6.7.1) and the rational map to the Edwards form (appendix D.1).
fn map_to_curve(u: Field) -> EdwardsPoint {
    let one = Field::from(1);
    let j = Field::from(J);
    let curve = |x: Field| x * (x * (x + j) + one);
    // 1 + 2u² is never zero, as -1/2 is no square
    let x1 = -(j * (one + Field::from(2) * u * u).inverse());
    let (x, y) = if let Some(y) = curve(x1).sqrt() {
        (x1, y.with_parity(true))
    } else {
        let x2 = -(x1 + j);
        // exactly one of the two values is a square
        (x2, curve(x2).sqrt().unwrap_or(Field::from(0)).with_parity(false))
    };
    let denominator = y * (x + one);
    if denominator.is_zero() {
        return EdwardsPoint::default();
    }
    let inverse = denominator.inverse();
    let edwards_x = *SCALE * x * inverse * (x + one);
    let edwards_y = (x + -one) * inverse * y;
    let mut bytes = edwards_y.to_bytes();
    bytes[31] |= u8::from(edwards_x.is_odd()) << 7;
    // a point of the curve, by the two maps above
    CompressedEdwardsY(bytes).decompress().unwrap_or_default()
}

/// A number modulo 2^255 - 19.
#[derive(Clone, Copy)]
struct Field(fiat::fiat_25519_tight_field_element);

const ZERO: fiat::fiat_25519_tight_field_element = fiat::fiat_25519_tight_field_element([0; 5]);

/// The field's prime less two, and plus three by eight, as little-endian bytes.
const INVERSE: [u8; 32] = exponent(0xeb, 0x7f);
const ROOT: [u8; 32] = exponent(0xfe, 0x0f);

/// 2 is no square, so its power is a root of -1.
static ROOT_OF_MINUS_ONE: LazyLock<Field> =
    LazyLock::new(|| Field::from(2).pow(&ROOT) * Field::from(2).pow(&ROOT) * Field::from(2).inverse());

/// The even root of -(J + 2), between the two forms of the curve.
static SCALE: LazyLock<Field> = LazyLock::new(|| (-Field::from(J + 2)).sqrt().unwrap_or(Field::from(0)).with_parity(false));

const fn exponent(first: u8, last: u8) -> [u8; 32] {
    let mut bytes = [0xff; 32];
    bytes[0] = first;
    bytes[31] = last;
    bytes
}

impl Field {
    fn loose(self) -> fiat::fiat_25519_loose_field_element {
        let mut loose = fiat::fiat_25519_loose_field_element([0; 5]);
        fiat::fiat_25519_relax(&mut loose, &self.0);
        loose
    }

    fn carry(loose: &fiat::fiat_25519_loose_field_element) -> Self {
        let mut tight = ZERO;
        fiat::fiat_25519_carry(&mut tight, loose);
        Self(tight)
    }

    fn pow(self, exponent: &[u8; 32]) -> Self {
        let bits = exponent.iter().rev().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1));
        bits.fold(Self::from(1), |power, bit| if bit { power * power * self } else { power * power })
    }

    /// Zero for zero.
    fn inverse(self) -> Self {
        self.pow(&INVERSE)
    }

    /// One of the two roots, if there are any.
    fn sqrt(self) -> Option<Self> {
        let root = self.pow(&ROOT);
        [root, root * *ROOT_OF_MINUS_ONE].into_iter().find(|root| (*root * *root).to_bytes() == self.to_bytes())
    }

    fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        fiat::fiat_25519_to_bytes(&mut bytes, &self.0);
        bytes
    }

    fn is_zero(self) -> bool {
        self.to_bytes() == [0; 32]
    }

    /// The sign of RFC 9380.
    fn is_odd(self) -> bool {
        self.to_bytes()[0] & 1 == 1
    }

    fn with_parity(self, odd: bool) -> Self {
        if self.is_odd() == odd { self } else { -self }
    }
}

impl From<u64> for Field {
    fn from(value: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&value.to_le_bytes());
        let mut tight = ZERO;
        fiat::fiat_25519_from_bytes(&mut tight, &bytes);
        Self(tight)
    }
}

impl Add for Field {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let mut sum = fiat::fiat_25519_loose_field_element([0; 5]);
        fiat::fiat_25519_add(&mut sum, &self.0, &other.0);
        Self::carry(&sum)
    }
}

impl Neg for Field {
    type Output = Self;

    fn neg(self) -> Self {
        let mut negative = fiat::fiat_25519_loose_field_element([0; 5]);
        fiat::fiat_25519_opp(&mut negative, &self.0);
        Self::carry(&negative)
    }
}

impl Mul for Field {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        let mut product = ZERO;
        fiat::fiat_25519_carry_mul(&mut product, &self.loose(), &other.loose());
        Self(product)
    }
}
