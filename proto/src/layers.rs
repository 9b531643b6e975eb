//! Layers and epochs, the clock of the network (types.md section 2).

use std::num::NonZeroU32;

use crate::units::count;

count! {
    /// A layer, counted from the genesis time.
    LayerId, u32
}
count! {
    /// An epoch: a fixed number of layers.
    EpochId, u32
}

/// How many layers an epoch has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayersPerEpoch(pub NonZeroU32);

impl LayersPerEpoch {
    /// The epoch of a layer.
    pub const fn epoch(self, layer: LayerId) -> EpochId {
        EpochId(layer.0 / self.0.get())
    }

    /// The first layer of an epoch; none beyond 32 bits.
    pub fn first_layer(self, epoch: EpochId) -> Option<LayerId> {
        epoch.0.checked_mul(self.0.get()).map(LayerId)
    }

    /// The layer before the first one that is voted on, in a network that was never restored from a checkpoint: the last of
    /// the second epoch; none beyond 32 bits.
    pub fn effective_genesis(self) -> Option<LayerId> {
        self.first_layer(EpochId(2)).map(|layer| LayerId(layer.0 - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_fall_into_epochs() {
        let layers = LayersPerEpoch(NonZeroU32::new(4032).unwrap());
        assert_eq!(layers.epoch(LayerId(8063)), EpochId(1));
        assert_eq!(layers.epoch(LayerId(8064)), EpochId(2));
        assert_eq!(layers.first_layer(EpochId(30)), Some(LayerId(120_960)));
        assert_eq!(layers.effective_genesis(), Some(LayerId(8063)));
        assert_eq!(layers.first_layer(EpochId(u32::MAX)), None);
    }
}
