//! Activations (ATXs): how an identity proves its space and time for an epoch (types.md section 4).
//!
//! - [`v1`]: one identity per activation; what the main network uses
//! - [`v2`]: several married identities may share one
//! - [`Versions`]: which of them an epoch uses
//! - [`ActiveSet`]: the activations that count in an epoch

pub mod v1;
pub mod v2;

use serde::{Deserialize, Serialize};

use crate::{
    ids::{AtxId, GenesisId, Hash32, NodeId},
    layers::EpochId,
    scale::{self, Decode, DecodeError, Encode, EncodeError, Reader},
    signing::Signed as _,
};

/// The most activations of a set that is exchanged between nodes.
pub const MAX_ACTIVE_SET: usize = 8_000_000;

/// A format of activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum Version {
    /// One identity.
    V1,
    /// One or more identities.
    V2,
}

/// A number that is no version of activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no version {0} of activations")]
pub struct UnknownVersion(pub u8);

impl TryFrom<u8> for Version {
    type Error = UnknownVersion;

    fn try_from(number: u8) -> Result<Self, UnknownVersion> {
        match number {
            1 => Ok(Self::V1),
            2 => Ok(Self::V2),
            _ => Err(UnknownVersion(number)),
        }
    }
}

impl From<Version> for u8 {
    fn from(version: Version) -> Self {
        match version {
            Version::V1 => 1,
            Version::V2 => 2,
        }
    }
}

/// Versions may not go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("activations of epoch {0} have an older version than those before it")]
pub struct VersionGoesBack(pub EpochId);

/// From which publish epoch on a network uses which version; the first one is used before all entries (types.md section 4.1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Versions(Vec<(EpochId, Version)>);

impl Versions {
    /// Checks the entries: versions may only rise.
    pub fn new(mut entries: Vec<(EpochId, Version)>) -> Result<Self, VersionGoesBack> {
        entries.sort_by_key(|(epoch, _)| *epoch);
        match entries.windows(2).find(|pair| pair[1].1 < pair[0].1) {
            Some(pair) => Err(VersionGoesBack(pair[1].0)),
            None => Ok(Self(entries)),
        }
    }

    /// The version of activations published in an epoch.
    pub fn of(&self, publish: EpochId) -> Version {
        self.0.iter().rev().find(|(start, _)| *start <= publish).map_or(Version::V1, |(_, version)| *version)
    }
}

/// An activation of either version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Activation {
    /// One identity.
    V1(Box<v1::ActivationTxV1>),
    /// One or more identities.
    V2(Box<v2::ActivationTxV2>),
}

impl Activation {
    /// Reads an activation in the version of its publish epoch, which every version begins with.
    pub fn decode(bytes: &[u8], versions: &Versions) -> Result<Self, DecodeError> {
        let publish = EpochId::decode(&mut Reader::new(bytes))?;
        Self::decode_version(bytes, versions.of(publish))
    }

    /// Reads an activation of a known version, as a database notes it beside the bytes.
    pub fn decode_version(bytes: &[u8], version: Version) -> Result<Self, DecodeError> {
        match version {
            Version::V1 => scale::decode(bytes).map(Self::V1),
            Version::V2 => scale::decode(bytes).map(Self::V2),
        }
    }

    /// The epoch in which it is published; it counts in the next one.
    pub fn publish_epoch(&self) -> EpochId {
        match self {
            Self::V1(atx) => atx.inner.challenge.publish_epoch,
            Self::V2(atx) => atx.publish_epoch,
        }
    }

    /// Who published it.
    pub fn smesher_id(&self) -> NodeId {
        match self {
            Self::V1(atx) => atx.smesher_id,
            Self::V2(atx) => atx.smesher_id,
        }
    }

    /// The id.
    pub fn id(&self) -> Result<AtxId, EncodeError> {
        match self {
            Self::V1(atx) => atx.inner.id(),
            Self::V2(atx) => atx.id(),
        }
    }

    /// Whether the publisher signed it.
    pub fn is_signed(&self, network: &GenesisId) -> bool {
        match self {
            Self::V1(atx) => atx.is_signed(network),
            Self::V2(atx) => atx.is_signed(network),
        }
    }
}

/// The hash of what goes to a PoET: a zero byte and the encoding (types.md section 4.4).
fn challenge_hash(challenge: &impl Encode) -> Result<Hash32, EncodeError> {
    Ok(Hash32::of(&[&[0], &scale::encode(challenge)?]))
}

/// The activations that count in an epoch, as nodes store them and send them to each other.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct ActiveSet {
    /// The epoch in which they count. The hash does not cover it.
    pub epoch: EpochId,
    /// Their ids in ascending order.
    #[scale(max = MAX_ACTIVE_SET)]
    pub set: Vec<AtxId>,
}

impl ActiveSet {
    /// The name of the set: the hash of its ids after each other (types.md section 2.1).
    pub fn hash(&self) -> Hash32 {
        let mut hasher = blake3::Hasher::new();
        for id in &self.set {
            hasher.update(&id.0);
        }
        Hash32(hasher.finalize().into())
    }

    /// Whether the ids ascend, as they must; one that occurs twice is not looked for.
    pub fn is_sorted(&self) -> bool {
        self.set.is_sorted()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_rise_with_the_epochs() {
        let versions = Versions::new(vec![(EpochId(9), Version::V2), (EpochId(5), Version::V1)]).unwrap();
        assert_eq!(versions.of(EpochId(0)), Version::V1);
        assert_eq!(versions.of(EpochId(8)), Version::V1);
        assert_eq!(versions.of(EpochId(9)), Version::V2);
        assert_eq!(versions.of(EpochId(u32::MAX)), Version::V2);
        let back = Versions::new(vec![(EpochId(9), Version::V1), (EpochId(5), Version::V2)]);
        assert_eq!(back, Err(VersionGoesBack(EpochId(9))));
        assert_eq!(Version::try_from(3), Err(UnknownVersion(3)));
    }
}
