//! The identity of a network.

use crate::ids::AtxId;

/// What a network is born with; two networks differ in at least one of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Genesis {
    /// Genesis time, Unix seconds.
    pub unix_time: u64,
    /// Free text, 1 to 255 characters.
    pub extra_data: String,
}

impl Genesis {
    /// The golden ATX, the root of all activations:
    /// `BLAKE3(decimal(unix_time) || extra_data)` (types.md section 2.3).
    pub fn golden_atx(&self) -> AtxId {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.unix_time.to_string().as_bytes());
        hasher.update(self.extra_data.as_bytes());
        AtxId(hasher.finalize().into())
    }
}
