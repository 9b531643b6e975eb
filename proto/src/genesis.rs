//! The identity of a network.

use crate::ids::{AtxId, GenesisId, Hash32};

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
        AtxId(Hash32::of(&[self.unix_time.to_string().as_bytes(), self.extra_data.as_bytes()]).0)
    }

    /// The id of the network: the first 20 bytes of the golden ATX.
    pub fn id(&self) -> GenesisId {
        GenesisId(Hash32(self.golden_atx().0).first20())
    }
}
