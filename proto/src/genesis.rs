//! The identity of a network.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::ids::{AtxId, GenesisId, Hash32};

/// A moment in whole seconds since 1970, written as RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixSeconds(pub i64);

/// Not a moment such as `2023-07-14T08:00:00Z`, without fractions of a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a time in whole seconds such as 2023-07-14T08:00:00Z")]
pub struct ParseTimeError;

impl FromStr for UnixSeconds {
    type Err = ParseTimeError;

    fn from_str(text: &str) -> Result<Self, ParseTimeError> {
        let time = OffsetDateTime::parse(text.trim(), &Rfc3339).map_err(|_| ParseTimeError)?;
        if time.nanosecond() == 0 { Ok(Self(time.unix_timestamp())) } else { Err(ParseTimeError) }
    }
}

impl fmt::Display for UnixSeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Years beyond 9999 have no RFC 3339 form.
        let text = OffsetDateTime::from_unix_timestamp(self.0).ok().and_then(|time| time.format(&Rfc3339).ok());
        f.write_str(&text.unwrap_or_else(|| format!("Unix time {}", self.0)))
    }
}

impl Serialize for UnixSeconds {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for UnixSeconds {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What a network is born with; two networks differ in at least one of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Genesis {
    /// Genesis time.
    pub unix_time: UnixSeconds,
    /// Free text, 1 to 255 bytes.
    pub extra_data: String,
}

impl Genesis {
    /// The golden ATX, the root of all activations:
    /// `BLAKE3(decimal(unix_time) || extra_data)` (types.md section 2.3).
    pub fn golden_atx(&self) -> AtxId {
        AtxId(Hash32::of(&[self.unix_time.0.to_string().as_bytes(), self.extra_data.as_bytes()]).0)
    }

    /// The id of the network: the first 20 bytes of the golden ATX, which begin every signed message (types.md section 3.1).
    pub fn id(&self) -> GenesisId {
        GenesisId(Hash32(self.golden_atx().0).first20())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_match_the_reference() {
        let file: serde_json::Value = serde_json::from_str(include_str!("../testdata/genesis.json")).unwrap();
        let cases = file["cases"].as_array().unwrap();
        assert!(cases.len() > 3);
        for case in cases {
            let unix_time = UnixSeconds(case["genesis_time_unix"].as_i64().unwrap());
            if let Some(text) = case["genesis_time"].as_str() {
                assert_eq!(text.parse(), Ok(unix_time));
                assert_eq!(unix_time.to_string(), text);
            }
            let genesis = Genesis { unix_time, extra_data: case["extra_data"].as_str().unwrap().to_owned() };
            assert_eq!(genesis.golden_atx().to_string(), case["golden_atx"].as_str().unwrap());
            assert_eq!(hex::encode(genesis.id().0), case["genesis_id"].as_str().unwrap());
        }
    }

    #[test]
    fn times_are_whole_seconds() {
        assert_eq!("1970-01-01T00:00:01+00:00".parse(), Ok(UnixSeconds(1)));
        assert_eq!("1969-12-31T23:59:55Z".parse(), Ok(UnixSeconds(-5)));
        for bad in ["", "2023-07-14", "2023-07-14T08:00:00.5Z", "1689321600"] {
            assert_eq!(bad.parse::<UnixSeconds>(), Err(ParseTimeError), "{bad}");
        }
        assert_eq!(UnixSeconds(i64::MAX).to_string(), format!("Unix time {}", i64::MAX));
    }
}
