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
    change: Option<PhaseChange>,
}

/// A change of the phase shift, after which no round runs before its predecessor has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PhaseChange {
    /// The last round with the phase shift from before.
    pub last: RoundId,
    /// The first round with the new one; rounds between the two do not exist.
    pub first: RoundId,
    /// The new phase shift.
    pub phase_shift: Duration,
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
        Ok(Self { genesis, epoch, phase_shift, cycle_gap, change: None })
    }

    /// This schedule with another phase shift after round `last`: the first round with it is the earliest that begins when
    /// `last` has ended. A change planned before is forgotten.
    #[must_use]
    pub fn with_phase_shift_after(self, last: RoundId, phase_shift: Duration) -> Self {
        let old = Self { change: None, ..self };
        let new = Self { phase_shift, ..old };
        let mut first = last.next();
        while new.start(first) < old.end(last) && first < first.next() {
            first = first.next();
        }
        old.with_change(Some(PhaseChange { last, first, phase_shift }))
    }

    /// This schedule with `change`, as it was planned once.
    #[must_use]
    pub const fn with_change(self, change: Option<PhaseChange>) -> Self {
        Self { change, ..self }
    }

    /// This schedule with another phase shift for the rounds before a change.
    #[must_use]
    pub const fn with_phase_shift(self, phase_shift: Duration) -> Self {
        Self { phase_shift, ..self }
    }

    /// The planned change of the phase shift.
    pub const fn change(&self) -> Option<PhaseChange> {
        self.change
    }

    /// When round `id` begins to run and stops taking registrations.
    pub fn start(&self, id: RoundId) -> Time {
        Time(self.genesis.after(self.phase_shift_of(id)).0 + i128::from(id.0) * self.epoch.as_nanos().cast_signed())
    }

    /// When round `id` ends.
    pub fn end(&self, id: RoundId) -> Time {
        self.start(id).after(self.duration())
    }

    /// How long rounds run.
    pub fn duration(&self) -> Duration {
        self.epoch.saturating_sub(self.cycle_gap)
    }

    /// The round that takes registrations at `now`: the first that begins later.
    pub fn open_round(&self, now: Time) -> RoundId {
        let within = |phase_shift: Duration| {
            let since_first = now.0 - self.genesis.after(phase_shift).0;
            if since_first < 0 {
                return RoundId(0);
            }
            let number = since_first / self.epoch.as_nanos().cast_signed() + 1;
            RoundId(u32::try_from(number).unwrap_or(u32::MAX))
        };
        match self.change {
            Some(change) if within(self.phase_shift) > change.last => within(change.phase_shift).max(change.first),
            _ => within(self.phase_shift),
        }
    }

    /// The round after `id`.
    pub fn following(&self, id: RoundId) -> RoundId {
        match self.change {
            Some(change) if id == change.last => change.first,
            _ => id.next(),
        }
    }

    /// Since when round `id` takes registrations; the first one always has.
    pub fn opens(&self, id: RoundId) -> Option<Time> {
        let previous = self.change.filter(|change| change.first == id).map_or_else(|| id.previous(), |change| Some(change.last));
        previous.map(|previous| self.start(previous))
    }

    /// The phase shift of the rounds before a planned change.
    pub const fn phase_shift(&self) -> Duration {
        self.phase_shift
    }

    /// From the start of its epoch to the start of round `id`.
    pub fn phase_shift_of(&self, id: RoundId) -> Duration {
        self.change.filter(|change| id >= change.first).map_or(self.phase_shift, |change| change.phase_shift)
    }

    /// The pause between two rounds.
    pub fn cycle_gap(&self) -> Duration {
        self.cycle_gap
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever the two phase shifts: rounds do not overlap, none waits longer than it must, and at any time exactly one is open.
        #[test]
        fn a_phase_change_overlaps_no_rounds(
            before in 0..5000u64, after in 0..5000u64, gap in 0..100u64, last in 0..20u32, at in 0..60_000i128,
        ) {
            let seconds = Duration::from_secs;
            let old = Schedule::new(Time(0), seconds(1000), seconds(before), seconds(gap)).unwrap();
            let last = RoundId(last);
            let schedule = old.with_phase_shift_after(last, seconds(after));
            let first = schedule.following(last);
            prop_assert!(schedule.start(first) >= schedule.end(last));
            if let Some(skipped) = first.previous().filter(|skipped| *skipped > last) {
                let new = Schedule::new(Time(0), seconds(1000), seconds(after), seconds(gap)).unwrap();
                prop_assert!(new.start(skipped) < schedule.end(last));
            }
            prop_assert_eq!(schedule.opens(first), Some(schedule.start(last)));
            let now = Time(at * 1_000_000_000);
            let open = schedule.open_round(now);
            prop_assert!(open <= last || open >= first);
            prop_assert!(schedule.start(open) > now);
            prop_assert!(schedule.opens(open).is_none_or(|opens| opens <= now), "{} opens later", open);
            let shift = if open <= last { before } else { after };
            prop_assert_eq!(schedule.phase_shift_of(open), seconds(shift));
        }
    }
}
