//! The PoST parameters of a network (post.md section 1).

use std::{fmt, str::FromStr};

use super::LABEL_BYTES;
use crate::{genesis::Genesis, units::SpaceUnits};

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

/// The networks known by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Preset {
    /// The public network.
    Mainnet,
    /// The public test network.
    Testnet,
    /// A network with short epochs and trivial labels, for automated tests.
    Fastnet,
    /// A network of one node.
    Standalone,
}

/// Not the name of a preset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown preset {0:?}: choose mainnet, testnet, fastnet or standalone")]
pub struct UnknownPreset(String);

impl Preset {
    /// All presets.
    pub const ALL: [Self; 4] = [Self::Mainnet, Self::Testnet, Self::Fastnet, Self::Standalone];

    /// The parameters (post.md section 1).
    pub fn params(self) -> Params {
        // 2^256 / this = 4687.5 hashes per nonce group and unit
        let mut mainnet_pow = [0; 32];
        mainnet_pow[..8].copy_from_slice(&0x000d_fb23_b097_9b4b_u64.to_be_bytes());
        let mainnet = Params {
            scrypt_n: ScryptN::MAINNET,
            labels_per_unit: 1 << 32,
            min_num_units: SpaceUnits(4),
            max_num_units: SpaceUnits(u32::MAX),
            k1: 26,
            k2: 37,
            k3: 1,
            pow_difficulty: mainnet_pow,
            proving_window: Some(12 * 3600),
        };
        match self {
            Self::Mainnet => mainnet,
            Self::Testnet => Params {
                labels_per_unit: 1024,
                min_num_units: SpaceUnits(2),
                pow_difficulty: [0xff; 32],
                proving_window: Some(2 * 3600),
                ..mainnet
            },
            Self::Fastnet => Params {
                scrypt_n: ScryptN(2),
                labels_per_unit: 128,
                min_num_units: SpaceUnits(2),
                max_num_units: SpaceUnits(4),
                k1: 12,
                k2: 4,
                pow_difficulty: [0xff; 32],
                proving_window: None,
                ..mainnet
            },
            Self::Standalone => Params {
                labels_per_unit: 64,
                min_num_units: SpaceUnits(1),
                max_num_units: SpaceUnits(2),
                k1: 12,
                k2: 4,
                pow_difficulty: [0xff; 32],
                proving_window: None,
                ..mainnet
            },
        }
    }

    /// The genesis of the network, and whether it is fixed for everybody. Fastnet and standalone networks are born when they
    /// are started; unless told otherwise this suite lets them be born at Unix time 0.
    pub fn genesis(self) -> (Genesis, bool) {
        let (unix_time, extra_data, fixed) = match self {
            Self::Mainnet => (1_689_321_600, "00000000000000000001a6bc150307b5c1998045752b3c87eccf3c013036f3cc", true),
            Self::Testnet => (1_694_628_000, "0000000000000000000000c76c58ebac180989673fd6d237b40e66ed5c976ec3", true),
            Self::Fastnet => (0, "fastnet", false),
            Self::Standalone => (0, "standalone", false),
        };
        (Genesis { unix_time, extra_data: extra_data.to_owned() }, fixed)
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mainnet => "mainnet",
            Self::Testnet => "testnet",
            Self::Fastnet => "fastnet",
            Self::Standalone => "standalone",
        })
    }
}

impl FromStr for Preset {
    type Err = UnknownPreset;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|p| p.to_string() == text).ok_or_else(|| UnknownPreset(text.to_owned()))
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

    #[test]
    fn golden_atx_matches_the_reference() {
        let file: serde_json::Value = serde_json::from_str(include_str!("../../testdata/genesis.json")).unwrap();
        let cases = file["cases"].as_array().unwrap();
        for case in cases {
            let genesis = Genesis {
                unix_time: case["genesis_time_unix"].as_u64().unwrap(),
                extra_data: case["extra_data"].as_str().unwrap().to_owned(),
            };
            assert_eq!(genesis.golden_atx().to_string(), case["golden_atx"].as_str().unwrap());
        }
        assert_eq!(Preset::Mainnet.genesis().0.golden_atx().to_string(), cases[0]["golden_atx"].as_str().unwrap());
        assert_eq!(Preset::Testnet.genesis().0.golden_atx().to_string(), cases[1]["golden_atx"].as_str().unwrap());
    }

    #[test]
    fn units_are_checked_against_the_preset() {
        let params = Preset::Fastnet.params();
        assert!(params.check_units(SpaceUnits(2)).is_ok());
        let error = params.check_units(SpaceUnits(5)).unwrap_err();
        assert_eq!(error.to_string(), "5 units are out of range: allowed are 2 to 4");
        assert_eq!(Preset::Mainnet.params().unit_bytes(), Some(64 << 30));
    }

    #[test]
    fn presets_are_found_by_name() {
        for preset in Preset::ALL {
            assert_eq!(preset.to_string().parse(), Ok(preset));
        }
        assert!("Mainnet".parse::<Preset>().is_err());
    }
}
