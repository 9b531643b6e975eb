//! When what happens in the life of an activation (activation.md section 1).
//!
//! An activation with publish epoch P uses the PoET round that begins in epoch P - 1, and counts in epoch P + 1.

use std::{fmt, ops::Add, time::Duration};

use proto::{
    layers::{EpochId, LayerId, LayersPerEpoch},
    preset::Network,
};

/// A moment, in nanoseconds since 1970. Sums stop at the ends of what 64 bits hold, the years 1677 and 2262.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(pub i64);

impl Moment {
    /// What a clock of this machine shows.
    pub fn now() -> Self {
        let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        Self(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }

    /// How long it is until `later`; nothing if that is earlier.
    pub fn until(self, later: Self) -> Duration {
        let nanos = (i128::from(later.0) - i128::from(self.0)).max(0);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// That much earlier.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(span)))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(nanos(span)))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        proto::genesis::UnixSeconds(self.0.div_euclid(1_000_000_000)).fmt(f)
    }
}

fn nanos(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

/// The clock of a network and the rhythm of its PoET rounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeline {
    /// The beginning of layer 0.
    pub genesis: Moment,
    /// Length of a layer; not zero.
    pub layer: Duration,
    /// Layers in an epoch.
    pub layers_per_epoch: LayersPerEpoch,
    /// From the start of an epoch to the start of the round in it.
    pub phase_shift: Duration,
    /// From the end of a round to the start of the next one.
    pub cycle_gap: Duration,
    /// How long before a round registration begins.
    pub grace: Duration,
    /// How long a positioning activation may be looked for; `None` for as long as it takes.
    pub positioning: Option<Duration>,
}

/// A network whose clock does not go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("layers and epochs need a length")]
pub struct NoClock;

impl Timeline {
    /// That of a network which began at `genesis`.
    pub fn new(network: &Network, genesis: Moment) -> Result<Self, NoClock> {
        let layers_per_epoch = network.main.layers_per_epoch.try_into().map_err(|_| NoClock)?;
        let layer = network.main.layer_duration.0;
        if layer.is_zero() {
            return Err(NoClock);
        }
        let positioning = network.poet.positioning_atx_selection_timeout.0;
        Ok(Self {
            genesis,
            layer,
            layers_per_epoch: LayersPerEpoch(layers_per_epoch),
            phase_shift: network.poet.phase_shift.0,
            cycle_gap: network.poet.cycle_gap.0,
            grace: network.poet.grace_period.0,
            positioning: (!positioning.is_zero()).then_some(positioning),
        })
    }

    /// The layer at a moment; layer 0 before the genesis.
    pub fn layer_at(&self, now: Moment) -> LayerId {
        let layers = self.genesis.until(now).as_nanos() / self.layer.as_nanos();
        LayerId(u32::try_from(layers).unwrap_or(u32::MAX))
    }

    /// The epoch at a moment; epoch 0 before the genesis.
    pub fn epoch_at(&self, now: Moment) -> EpochId {
        self.layers_per_epoch.epoch(self.layer_at(now))
    }

    /// When a layer begins.
    pub fn layer_start(&self, LayerId(layer): LayerId) -> Moment {
        self.after_layers(layer.into())
    }

    fn after_layers(&self, layers: u64) -> Moment {
        let nanos = self.layer.as_nanos() * u128::from(layers);
        self.genesis + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// When the layer after the present one begins.
    pub fn next_layer(&self, now: Moment) -> Moment {
        if now < self.genesis { self.genesis } else { self.layer_start(LayerId(self.layer_at(now).0.saturating_add(1))) }
    }

    /// When an epoch begins.
    pub fn start(&self, EpochId(epoch): EpochId) -> Moment {
        self.after_layers(u64::from(epoch) * u64::from(self.layers_per_epoch.0.get()))
    }

    /// When the round of an epoch begins: by then everybody has registered for activations of the next epoch.
    pub fn round_start(&self, epoch: EpochId) -> Moment {
        self.start(epoch) + self.phase_shift
    }

    /// When the round that begins in an epoch ends.
    pub fn round_end(&self, EpochId(epoch): EpochId) -> Moment {
        (self.start(EpochId(epoch.saturating_add(1))) + self.phase_shift).before(self.cycle_gap)
    }

    /// The moments of activations with this publish epoch.
    pub fn of(&self, publish: EpochId) -> Deadlines {
        let EpochId(p) = publish;
        let round = self.round_start(EpochId(p.saturating_sub(1)));
        let target = self.start(EpochId(p.saturating_add(1)));
        let opens = round.before(self.grace);
        Deadlines {
            opens,
            positioning: self.positioning.map(|span| opens + span),
            register: round,
            publish_from: self.start(publish),
            proof: target.before(self.cycle_gap),
            publish: target,
        }
    }

    /// The publish epoch of a challenge built now by an identity whose last activation was published in `last`
    /// (activation.md section 3.2, steps 3 and 4).
    pub fn next_publish(&self, now: Moment, last: Option<EpochId>) -> EpochId {
        let current = self.epoch_at(now).max(last.unwrap_or_default());
        let late = now >= self.round_start(current);
        EpochId(current.0.saturating_add(1 + u32::from(late)))
    }
}

/// The moments in the life of an activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// The challenge is built no earlier.
    pub opens: Moment,
    /// A positioning activation is looked for until then.
    pub positioning: Option<Moment>,
    /// Registration with a PoET ends.
    pub register: Moment,
    /// The publish epoch begins; nothing is published before.
    pub publish_from: Moment,
    /// The last moment to obtain a PoET proof.
    pub proof: Moment,
    /// The last moment to publish.
    pub publish: Moment,
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000_000;

    fn mainnet() -> Timeline {
        let network = proto::preset::Preset::Mainnet.network();
        Timeline::new(network, Moment(1_000 * HOUR)).expect("a clock")
    }

    /// The table of activation.md section 1.
    #[test]
    fn the_moments_of_mainnet() {
        let time = mainnet();
        let day = |epoch: i64, days: f64| Moment(1_000 * HOUR + epoch * 14 * 24 * HOUR + (days * 24.0) as i64 * HOUR);
        let deadlines = time.of(EpochId(5));
        assert_eq!(deadlines.opens, day(4, 10.0).before(Duration::from_secs(3600)));
        assert_eq!(deadlines.positioning, Some(deadlines.opens + Duration::from_secs(50 * 60)));
        assert_eq!(deadlines.register, day(4, 10.0));
        assert_eq!(time.round_end(EpochId(4)), day(5, 9.5));
        assert_eq!(deadlines.publish_from, day(5, 0.0));
        assert_eq!(deadlines.proof, day(6, 0.0).before(Duration::from_secs(12 * 3600)));
        assert_eq!(deadlines.publish, day(6, 0.0));
    }

    #[test]
    fn the_clock_of_layers() {
        let time = mainnet();
        assert_eq!(time.layer_at(Moment(0)), LayerId(0));
        assert_eq!(time.next_layer(Moment(0)), time.genesis);
        for layer in [0, 1, 4031, 4032, 1_000_000] {
            let start = time.layer_start(LayerId(layer));
            assert_eq!(time.layer_at(start), LayerId(layer));
            assert_eq!(time.layer_at(start.before(Duration::from_nanos(1))), LayerId(layer.max(1) - 1));
            assert_eq!(time.next_layer(start), time.layer_start(LayerId(layer + 1)));
            assert_eq!(time.epoch_at(start), EpochId(layer / 4032));
        }
        assert_eq!(
            time.layer_at(Moment(i64::MAX)).0,
            u32::try_from((i64::MAX - time.genesis.0) / (300 * 1_000_000_000)).unwrap()
        );
    }

    #[test]
    fn a_challenge_is_for_the_next_round_that_can_be_joined() {
        let time = mainnet();
        let round = time.round_start(EpochId(7));
        assert_eq!(time.next_publish(round.before(Duration::from_nanos(1)), None), EpochId(8));
        assert_eq!(time.next_publish(round, None), EpochId(9));
        // What was published, or is to be, is not built again.
        assert_eq!(time.next_publish(time.start(EpochId(7)), Some(EpochId(7))), EpochId(8));
        assert_eq!(time.next_publish(time.start(EpochId(7)), Some(EpochId(8))), EpochId(9));
        assert_eq!(time.next_publish(Moment(0), None), EpochId(1));
    }
}
