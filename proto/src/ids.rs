//! 32-byte identifiers, one type each, with the two text forms in use: lower-case hex (logs, command lines) and standard
//! base64 (JSON files).

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// Why a text is not a 32-byte identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// Neither 64 hex digits nor 44 characters of base64.
    #[error("expected 32 bytes as 64 hex digits or as base64, got {chars} characters")]
    Form {
        /// Number of characters of the text.
        chars: usize,
    },
    /// 64 characters, but not all of them hex digits.
    #[error("64 characters but not hex: {0}")]
    Hex(String),
    /// Looks like base64 but does not decode to 32 bytes.
    #[error("not the base64 of 32 bytes: {0}")]
    Base64(String),
}

fn parse32(text: &str) -> Result<[u8; 32], ParseIdError> {
    let text = text.trim();
    // base64 may begin with these two characters as well, so the length decides
    let hex_digits = text.strip_prefix("0x").filter(|rest| rest.len() == 64).unwrap_or(text);
    let mut bytes = [0; 32];
    match hex_digits.len() {
        64 => hex::decode_to_slice(hex_digits, &mut bytes).map_err(|e| ParseIdError::Hex(e.to_string()))?,
        43 | 44 => {
            let decoded = STANDARD.decode(text).map_err(|e| ParseIdError::Base64(e.to_string()))?;
            bytes = decoded.try_into().map_err(|d: Vec<u8>| ParseIdError::Base64(format!("{} bytes", d.len())))?;
        }
        _ => return Err(ParseIdError::Form { chars: text.chars().count() }),
    }
    Ok(bytes)
}

macro_rules! id32 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// Standard base64 with padding, as the JSON files carry it.
            pub fn to_base64(&self) -> String {
                STANDARD.encode(self.0)
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
                parse32(text).map(Self)
            }
        }

        impl From<[u8; 32]> for $name {
            fn from(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }
        }
    };
}

id32! {
    /// A smesher's identity: its ed25519 public key.
    NodeId
}
id32! {
    /// The id of an activation (ATX).
    AtxId
}
id32! {
    /// What a proof of space answers to: zeros for the first one, a PoET proof reference later.
    Challenge
}
id32! {
    /// What labels are bound to: see [`crate::post::commitment`].
    Commitment
}
