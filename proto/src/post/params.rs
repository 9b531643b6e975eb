//! The PoST parameters of a network (post.md section 1).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::LABEL_BYTES;
use crate::units::SpaceUnits;

/// The cost parameter N of the label function: a power of two from 2 to 2^20 (post.md section 3.4; r and p are always 1).
///
/// The protocol has no upper bound; 2^20 (128 MiB of scratch memory per label) is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScryptN(u32);

/// The value is not a power of two from 2 to 2^20.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("scrypt N must be a power of two from {min} to {max}, got {0}", min = ScryptN::MIN, max = ScryptN::MAX)]
pub struct InvalidScryptN(pub u64);

impl ScryptN {
    /// The smallest N.
    pub const MIN: u32 = 2;
    /// The largest N.
    pub const MAX: u32 = 1 << 20;
    /// What mainnet uses.
    pub const MAINNET: Self = Self(8192);

    /// Checks the value.
    pub fn new(n: u64) -> Result<Self, InvalidScryptN> {
        match u32::try_from(n) {
            Ok(small) if small.is_power_of_two() && (Self::MIN..=Self::MAX).contains(&small) => Ok(Self(small)),
            _ => Err(InvalidScryptN(n)),
        }
    }

    /// The value.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for ScryptN {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ScryptN {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let n = text.parse().map_err(|e| format!("not a number: {e}"))?;
        Self::new(n).map_err(|e| e.to_string())
    }
}

impl Serialize for ScryptN {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u32(self.0)
    }
}

impl<'de> Deserialize<'de> for ScryptN {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::new(u64::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

/// The PoST parameters of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Params {
    /// Cost of the label function.
    pub scrypt_n: ScryptN,
    /// Labels in one space unit.
    pub labels_per_unit: u64,
    /// Fewest units an identity may declare.
    pub min_num_units: SpaceUnits,
    /// Most units an identity may declare.
    pub max_num_units: SpaceUnits,
    /// Expected number of good labels per nonce.
    pub k1: u32,
    /// Good labels a proof must show.
    pub k2: u32,
    /// Labels of a proof that a node checks.
    pub k3: u32,
    /// k2pow threshold for one unit, 32 bytes big-endian.
    pub pow_difficulty: [u8; 32],
    /// Seconds of the window in which a proof must be made, where the network fixes it.
    pub proving_window: Option<u64>,
}

/// The number of units is outside the range the network allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{got} units are out of range: allowed are {min} to {max}")]
pub struct UnitsOutOfRange {
    /// The value asked for.
    pub got: SpaceUnits,
    /// Fewest units allowed.
    pub min: SpaceUnits,
    /// Most units allowed.
    pub max: SpaceUnits,
}

impl Params {
    /// Largest data file by default: 4 GiB (post.md section 5).
    pub const DEFAULT_MAX_FILE_SIZE: u64 = 1 << 32;

    /// Checks a number of units against the range of the network.
    pub fn check_units(&self, got: SpaceUnits) -> Result<(), UnitsOutOfRange> {
        let (min, max) = (self.min_num_units, self.max_num_units);
        if (min..=max).contains(&got) { Ok(()) } else { Err(UnitsOutOfRange { got, min, max }) }
    }

    /// Bytes of one space unit; `None` when it does not fit 64 bits.
    pub fn unit_bytes(&self) -> Option<u64> {
        self.labels_per_unit.checked_mul(LABEL_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scrypt_n_is_a_power_of_two_within_bounds() {
        for n in [2, 4, 8192, 1 << 20] {
            assert_eq!(u64::from(ScryptN::new(n).unwrap().get()), n);
        }
        for n in [0, 1, 3, 8191, 1 << 21, 1 << 32, u64::MAX] {
            assert_eq!(ScryptN::new(n), Err(InvalidScryptN(n)));
        }
    }
}
