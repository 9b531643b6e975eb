//! The hash over what a node or a ballot holds the history to be (types.md section 2.2).

use crate::{
    ids::{BlockId, Hash32},
    units::TickHeight,
};

/// Hashes the opinion on one layer on top of the opinion on those before it.
#[derive(Debug, Clone)]
pub struct OpinionHasher(blake3::Hasher);

impl OpinionHasher {
    /// The opinion on the layers before, none for the very first.
    pub fn after(previous: Option<&Hash32>) -> Self {
        let mut hasher = blake3::Hasher::new();
        if let Some(previous) = previous {
            hasher.update(&previous.0);
        }
        Self(hasher)
    }

    /// The layer has this block. Blocks come by height, then id; the height is not compact here.
    #[must_use]
    pub fn support(mut self, block: &BlockId, height: TickHeight) -> Self {
        self.0.update(&block.0).update(&height.0.to_le_bytes());
        self
    }

    /// No opinion on the layer yet.
    #[must_use]
    pub fn abstain(mut self) -> Self {
        self.0.update(&[0]);
        self
    }

    /// The opinion up to this layer. Without any support or abstention the layer is held to be empty.
    pub fn finish(self) -> Hash32 {
        Hash32(self.0.finalize().into())
    }
}
