//! When rounds open, run and end (poet.md section 3). Plain arithmetic on times that the caller brings.

use std::{fmt, str::FromStr, time::Duration};

/// A moment: nanoseconds since 1970, before it negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub i128);

impl Time {
    /// This much later.
    #[must_use]
    pub const fn after(self, duration: Duration) -> Self {
        Self(self.0 + duration.as_nanos().cast_signed())
    }

    /// How long after `earlier`; zero when it is not.
    pub fn since(self, earlier: Self) -> Duration {
        let nanos = u128::try_from(self.0 - earlier.0).unwrap_or(0);
        Duration::new(u64::try_from(nanos / 1_000_000_000).unwrap_or(u64::MAX), (nanos % 1_000_000_000) as u32)
    }

    /// Whole seconds since 1970, rounded down.
    pub const fn unix_seconds(self) -> i128 {
        self.0.div_euclid(1_000_000_000)
    }
}

impl From<std::time::SystemTime> for Time {
    fn from(time: std::time::SystemTime) -> Self {
        match time.duration_since(std::time::UNIX_EPOCH) {
            Ok(after) => Self(after.as_nanos().cast_signed()),
            Err(before) => Self(-before.duration().as_nanos().cast_signed()),
        }
    }
}

/// A round: its number is that of the epoch in which it begins, its name the decimal form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoundId(pub u32);

impl RoundId {
    /// The round before; none before the first.
    pub fn previous(self) -> Option<Self> {
        self.0.checked_sub(1).map(Self)
    }

    /// The round after.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for RoundId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RoundId {
    type Err = std::num::ParseIntError;

    /// Takes the name of a round.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// Why durations make no schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Epochs without length.
    #[error("the epoch duration is zero")]
    NoEpoch,
    /// Nothing is left of an epoch to work in.
    #[error("the cycle gap is not shorter than the epoch")]
    NoTimeToWork,
}

/// The times of all rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    genesis: Time,
    epoch: Duration,
    phase_shift: Duration,
    cycle_gap: Duration,
}

impl Schedule {
    /// The schedule of a network: the cycle gap must be shorter than the epoch.
    pub fn new(genesis: Time, epoch: Duration, phase_shift: Duration, cycle_gap: Duration) -> Result<Self, ScheduleError> {
        if epoch.is_zero() {
            return Err(ScheduleError::NoEpoch);
        }
        if cycle_gap >= epoch {
            return Err(ScheduleError::NoTimeToWork);
        }
        Ok(Self { genesis, epoch, phase_shift, cycle_gap })
    }

    /// When round `id` begins to run and stops taking registrations.
    pub fn start(&self, RoundId(id): RoundId) -> Time {
        Time(self.genesis.after(self.phase_shift).0 + i128::from(id) * self.epoch.as_nanos().cast_signed())
    }

    /// When round `id` ends.
    pub fn end(&self, id: RoundId) -> Time {
        self.start(id).after(self.duration())
    }

    /// How long rounds run.
    pub fn duration(&self) -> Duration {
        self.epoch.saturating_sub(self.cycle_gap)
    }

    /// The round that takes registrations at `now`.
    pub fn open_round(&self, now: Time) -> RoundId {
        let since_first = now.0 - self.start(RoundId(0)).0;
        if since_first < 0 {
            return RoundId(0);
        }
        let number = since_first / self.epoch.as_nanos().cast_signed() + 1;
        RoundId(u32::try_from(number).unwrap_or(u32::MAX))
    }

    /// Since when round `id` takes registrations; the first one always has.
    pub fn opens(&self, id: RoundId) -> Option<Time> {
        id.previous().map(|previous| self.start(previous))
    }

    /// The time between registering and the start of a round's epoch.
    pub fn phase_shift(&self) -> Duration {
        self.phase_shift
    }

    /// The pause between two rounds.
    pub fn cycle_gap(&self) -> Duration {
        self.cycle_gap
    }
}
