//! Identifiers, hashes and signatures: byte strings of a fixed length, one type each (types.md section 2).
//!
//! On a terminal and in logs they are lower-case hex. In JSON most are standard base64 and plain hashes are hex after `0x`, as
//! the deployed programs have it; both forms are read everywhere. The value of nothing but zeros is the "empty" one.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// Why a text is not the identifier it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// The text has neither the length of the hex nor that of the base64 form.
    #[error("expected {bytes} bytes as {} hex digits or as base64, got {chars} characters", 2 * bytes)]
    Form {
        /// Bytes of the identifier.
        bytes: usize,
        /// Number of characters of the text.
        chars: usize,
    },
    /// As long as the hex form, but not all of it hex digits.
    #[error("not hex: {0}")]
    Hex(String),
    /// Looks like base64 but does not decode to the bytes of the identifier.
    #[error("not the base64 of the identifier: {0}")]
    Base64(String),
}

fn parse<const N: usize>(text: &str) -> Result<[u8; N], ParseIdError> {
    let text = text.trim();
    // base64 may begin with these two characters as well, so the length decides
    let hex_digits = text.strip_prefix("0x").filter(|rest| rest.len() == 2 * N).unwrap_or(text);
    let mut bytes = [0; N];
    // the base64 of 4 bytes is as long as their hex, and ends in what is no hex digit
    if hex_digits.len() == 2 * N && !hex_digits.ends_with('=') {
        hex::decode_to_slice(hex_digits, &mut bytes).map_err(|e| ParseIdError::Hex(e.to_string()))?;
    } else if text.trim_end_matches('=').len() == (4 * N).div_ceil(3) {
        let decoded = STANDARD.decode(text).map_err(|e| ParseIdError::Base64(e.to_string()))?;
        bytes = decoded.try_into().map_err(|d: Vec<u8>| ParseIdError::Base64(format!("{} bytes", d.len())))?;
    } else {
        return Err(ParseIdError::Form { bytes: N, chars: text.chars().count() });
    }
    Ok(bytes)
}

/// Declares a byte string of a fixed length with its text, JSON and SCALE forms.
macro_rules! bytes_type {
    ($(#[$doc:meta])* $name:ident, $length:literal, $json:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name(pub [u8; $length]);

        impl $name {
            /// Nothing but zeros: none, where the format has no other way to say so.
            pub const EMPTY: Self = Self([0; $length]);

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }

            /// Standard base64 with padding.
            pub fn to_base64(&self) -> String {
                STANDARD.encode(self.0)
            }

            /// Whether this is [`Self::EMPTY`].
            pub fn is_empty(&self) -> bool {
                *self == Self::EMPTY
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::EMPTY
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), hex::encode(self.0))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            /// Takes hex (with or without `0x`) or base64.
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                parse(text).map(Self)
            }
        }

        impl From<[u8; $length]> for $name {
            fn from(bytes: [u8; $length]) -> Self {
                Self(bytes)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&json::$json(&self.0))
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl $crate::scale::Encode for $name {
            fn encode(&self, to: &mut $crate::scale::Writer) -> Result<(), $crate::scale::EncodeError> {
                to.raw(&self.0);
                Ok(())
            }
        }

        impl $crate::scale::Decode for $name {
            const MIN_BYTES: usize = $length;

            fn decode(from: &mut $crate::scale::Reader<'_>) -> Result<Self, $crate::scale::DecodeError> {
                from.array().map(Self)
            }
        }
    };
}

/// The same with the order of its bytes.
macro_rules! ordered_bytes_type {
    ($(#[$doc:meta])* $name:ident, $length:literal, $json:ident) => {
        bytes_type! {
            $(#[$doc])*
            #[derive(PartialOrd, Ord)]
            $name, $length, $json
        }
    };
}

mod json {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    pub(super) fn base64(bytes: &[u8]) -> String {
        STANDARD.encode(bytes)
    }

    pub(super) fn prefixed_hex(bytes: &[u8]) -> String {
        format!("0x{}", hex::encode(bytes))
    }
}

ordered_bytes_type! {
    /// A smesher's identity: its ed25519 public key.
    NodeId, 32, base64
}
ordered_bytes_type! {
    /// The id of an activation (ATX).
    AtxId, 32, base64
}
ordered_bytes_type! {
    /// What a proof of space answers to: zeros for the first one, a PoET proof reference later.
    Challenge, 32, base64
}
ordered_bytes_type! {
    /// What labels are bound to: see [`crate::post::commitment`].
    Commitment, 32, base64
}
ordered_bytes_type! {
    /// A BLAKE3 hash of 32 bytes.
    Hash32, 32, prefixed_hex
}
ordered_bytes_type! {
    /// What an activation refers to: the BLAKE3 of an encoded [`PoetProof`](crate::poet::PoetProof).
    PoetProofRef, 32, prefixed_hex
}
ordered_bytes_type! {
    /// The id of a transaction: the BLAKE3 of all its bytes.
    TransactionId, 32, prefixed_hex
}
ordered_bytes_type! {
    /// The id of a network, in front of everything that is signed (types.md section 2.3).
    GenesisId, 20, prefixed_hex
}
ordered_bytes_type! {
    /// The id of a ballot.
    BallotId, 20, base64
}
ordered_bytes_type! {
    /// The id of a block.
    BlockId, 20, base64
}
ordered_bytes_type! {
    /// The id of a proposal.
    ProposalId, 20, prefixed_hex
}
ordered_bytes_type! {
    /// The beginning of a proposal's first eligibility proof, which names it among the proposals of its layer.
    CompactProposalId, 4, prefixed_hex
}
ordered_bytes_type! {
    /// The random value of an epoch, or somebody's proposal of one.
    Beacon, 4, base64
}
ordered_bytes_type! {
    /// An account; as text it is bech32 (module `address`), which needs to know the network.
    Address, 24, base64
}
bytes_type! {
    /// An ed25519 signature.
    EdSignature, 64, base64
}
bytes_type! {
    /// A proof of the verifiable random function (module `vrf`), which is also its random value.
    VrfSignature, 80, base64
}

impl Hash32 {
    /// The BLAKE3 of `parts` after each other.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(part);
        }
        Self(hasher.finalize().into())
    }

    /// The first 20 bytes.
    pub fn first20(&self) -> [u8; 20] {
        let mut first = [0; 20];
        first.copy_from_slice(&self.0[..20]);
        first
    }

    /// A shorter id as a hash: zeros behind it (types.md section 2).
    pub fn padded(id: &[u8; 20]) -> Self {
        let mut bytes = [0; 32];
        bytes[..20].copy_from_slice(id);
        Self(bytes)
    }

    /// Any bytes as a hash: the last 32 of them, zeros before fewer (types.md section 2).
    pub fn from_last(bytes: &[u8]) -> Self {
        let mut hash = [0; 32];
        let bytes = &bytes[bytes.len().saturating_sub(32)..];
        hash[32 - bytes.len()..].copy_from_slice(bytes);
        Self(hash)
    }

    /// What logs show: the first five bytes.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..5])
    }
}

impl AtxId {
    /// Any bytes as an id: the first 32 of them, zeros behind fewer (types.md section 2).
    pub fn from_first(bytes: &[u8]) -> Self {
        Self(first32(bytes))
    }

    /// What logs show: the first five bytes.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..5])
    }
}

impl NodeId {
    /// Any bytes as an id: the first 32 of them, zeros behind fewer (types.md section 2).
    pub fn from_first(bytes: &[u8]) -> Self {
        Self(first32(bytes))
    }

    /// What logs show: the first three bytes.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..3])
    }
}

fn first32(bytes: &[u8]) -> [u8; 32] {
    let mut id = [0; 32];
    let count = bytes.len().min(32);
    id[..count].copy_from_slice(&bytes[..count]);
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_text_forms_are_read_and_told_apart_by_their_length() {
        let id = NodeId([0xd3; 32]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(format!("0x{id}").parse(), Ok(id));
        assert_eq!(id.to_base64().parse(), Ok(id));
        // as long as the hex form, and begins like a prefix
        let beacon = Beacon([0xd3, 0x1d, 0x80, 0x1d]);
        assert_eq!(beacon.to_base64().len(), 8);
        assert_eq!(beacon.to_base64().parse(), Ok(beacon));
        assert_eq!(beacon.to_string().parse(), Ok(beacon));
        let address = Address([7; 24]);
        assert_eq!(address.to_base64().parse(), Ok(address));
        assert_eq!("abc".parse::<Beacon>(), Err(ParseIdError::Form { bytes: 4, chars: 3 }));
        assert!(matches!("abcdefgh".parse::<Beacon>(), Err(ParseIdError::Hex(_))));
        assert!(matches!("abcdefgh=".parse::<NodeId>(), Err(ParseIdError::Form { .. })));
        assert!(matches!(id.to_base64().replace('=', "!").parse::<NodeId>(), Err(ParseIdError::Form { .. })));
        assert!(matches!(id.to_base64()[..43].parse::<NodeId>(), Err(ParseIdError::Base64(_))));
    }

    #[test]
    fn json_has_the_deployed_forms() {
        let text = serde_json::to_string(&(NodeId::EMPTY, Hash32::EMPTY, Beacon([1, 2, 3, 4]))).unwrap();
        let zeros = "0".repeat(64);
        assert_eq!(text, format!(r#"["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","0x{zeros}","AQIDBA=="]"#));
        let back: (NodeId, Hash32, Beacon) = serde_json::from_str(&text).unwrap();
        assert_eq!(back, (NodeId::EMPTY, Hash32::EMPTY, Beacon([1, 2, 3, 4])));
        assert!(serde_json::from_str::<Beacon>(r#""AQID""#).is_err());
    }
}
