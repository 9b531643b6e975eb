//! What an activation is worth in an epoch: its weight, its grade, the proposals it may make (activation.md sections 6 and 7.5,
//! consensus rules: they wrap, drop and round exactly as the network does).

use crate::{
    fixed::{Draws, Fixed, OutOfRange},
    ids::VrfSignature,
    layers::{EpochId, LayersPerEpoch},
    poet::{Leaves, Ticks},
    post::{NoThreshold, vrf_threshold},
    units::{Labels, SpaceUnits, count},
};

count! {
    /// Space times time: what votes and rewards are shared by.
    Weight, u64
}

/// Why an activation has no weight or no proposals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WeightError {
    /// More than 64 bits can count.
    #[error("{0} units times {1} ticks are too large a weight")]
    Overflow(u64, Ticks),
    /// More units than 32 bits can count.
    #[error("{0} units are too many for one activation")]
    Units(u64),
    /// No proofs, so no time.
    #[error("no proofs")]
    NoProofs,
    /// Nothing to take a share of.
    #[error("the weight of all activations is zero")]
    Empty,
}

/// The weight of units that were held for some time.
pub fn weight(units: SpaceUnits, ticks: Ticks) -> Result<Weight, WeightError> {
    product(u64::from(units.0), ticks).map(Weight)
}

fn product(units: u64, ticks: Ticks) -> Result<u64, WeightError> {
    units.checked_mul(ticks.0).ok_or(WeightError::Overflow(units, ticks))
}

/// What an activation of several identities is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sums {
    /// The space that counts.
    pub units: SpaceUnits,
    /// The time that all of it was held.
    pub ticks: Ticks,
    /// The weight.
    pub weight: Weight,
}

/// Adds up an activation of the second version: for each of its proofs the units that count of each identity, and the leaves of
/// the PoET proof. An addend that would make the units of one proof overflow 32 bits is dropped, the sum of weights wraps.
pub fn sums(niposts: &[(Vec<SpaceUnits>, Leaves)], tick_size: u64) -> Result<Sums, WeightError> {
    let ticks = niposts.iter().map(|(_, leaves)| leaves.ticks(tick_size)).min().ok_or(WeightError::NoProofs)?;
    let (mut units, mut weight) = (0u64, 0u64);
    for (addends, leaves) in niposts {
        let sum = addends.iter().fold(0u32, |sum, addend| sum.checked_add(addend.0).unwrap_or(sum));
        units += u64::from(sum);
        weight = weight.wrapping_add(product(sum.into(), leaves.ticks(tick_size))?);
    }
    let units = SpaceUnits(u32::try_from(units).map_err(|_| WeightError::Units(units))?);
    Ok(Sums { units, ticks, weight: Weight(weight) })
}

/// The units that count of an identity: no more than its last activation declared.
pub fn effective_units(declared: SpaceUnits, before: Option<SpaceUnits>) -> SpaceUnits {
    before.map_or(declared, |before| before.min(declared))
}

/// The least weight that all activations of an epoch are held to have together: that of the last entry at or before it. Entries
/// are sorted by epoch.
pub fn min_weight(schedule: &[(EpochId, Weight)], epoch: EpochId) -> Weight {
    schedule.iter().rev().find(|(from, _)| *from <= epoch).map_or(Weight(0), |(_, weight)| *weight)
}

/// How many proposals an activation may make in an epoch: its share of all, and at least one. The multiplications wrap.
pub fn slots(weight: Weight, total: Weight, min: Weight, layer_average: u32, layers: LayersPerEpoch) -> Result<u32, WeightError> {
    if total.0 == 0 {
        return Err(WeightError::Empty);
    }
    let all = u64::from(layer_average).wrapping_mul(layers.0.get().into());
    let share = weight.0.wrapping_mul(all) / total.max(min).0;
    Ok(share.max(1) as u32)
}

/// How an activation came in, seen from the epoch it counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// Too late, or its identity broke a rule.
    Evil,
    /// Late.
    Acceptable,
    /// In time: only these are put into an active set.
    Good,
}

/// The grade of an activation. All times are nanoseconds since 1970: when the epoch starts, the delay a message may take, when
/// the activation was received (0 when it came with a checkpoint), when a proof of malfeasance was.
pub fn grade(epoch_start: i64, delay: i64, received: i64, malfeasance: Option<i64>) -> Grade {
    let before = |delays: i64| epoch_start.saturating_sub(delay.saturating_mul(delays));
    if received < before(4) && malfeasance.is_none_or(|proof| proof >= epoch_start) {
        Grade::Good
    } else if received < before(3) && malfeasance.is_none_or(|proof| proof >= before(1)) {
        Grade::Acceptable
    } else {
        Grade::Evil
    }
}

/// Below it lies the label whose index is the VRF nonce of that much space. The product wraps and is then read as a signed
/// number, whose magnitude counts.
pub fn vrf_difficulty(units: SpaceUnits, labels_per_unit: Labels) -> Result<[u8; 32], NoThreshold> {
    let labels = u64::from(units.0).wrapping_mul(labels_per_unit.0);
    vrf_threshold(labels.cast_signed().unsigned_abs())
}

/// Why nobody can say how many seats an identity has in a committee.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SeatsError {
    /// A committee without seats.
    #[error("a committee without seats")]
    NoSeats,
    /// Nothing to take a share of.
    #[error("the weight of all activations is zero")]
    Empty,
    /// More than the deployed arithmetic can do.
    #[error("a weight of {0} is too large to draw seats for")]
    TooLarge(u64),
    /// The same, found on the way.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
}

/// The draws by which an identity gets its seats in a committee: one per unit of weight, each with the chance that fills the
/// committee on average (consensus.md section 9.2). The proof is that of the identity for layer and round.
pub fn seats(weight: Weight, total: Weight, committee: u32, proof: &VrfSignature) -> Result<Draws, SeatsError> {
    /// The most draws that the deployed arithmetic can do.
    const MOST_DRAWS: u64 = 1 << 30;
    let committee = u64::from(committee);
    match (committee, total.0) {
        (0, _) => return Err(SeatsError::NoSeats),
        (_, 0) => return Err(SeatsError::Empty),
        _ => {}
    }
    // chances are less than one
    let scale = if committee > total.0 { committee } else { 1 };
    let n = weight.0.checked_mul(scale).filter(|n| *n <= MOST_DRAWS).ok_or(SeatsError::TooLarge(weight.0))?;
    // less than the square of 32 bits where it is scaled
    let p = Fixed::ratio(committee, total.0 * scale)?;
    Ok(Draws { n, p, fraction: Fixed::fraction(proof.fraction56()) })
}
