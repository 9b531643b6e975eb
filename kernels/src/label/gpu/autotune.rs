//! Finds the parameters of a device by trying some.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{GpuClass, Tuning};
use crate::label::DeviceError;

/// What was found for a device. The file it is kept in is the caller's business; [`GpuInfo::tuning_key`](super::GpuInfo::tuning_key) is
/// what to keep it under.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuned {
    /// The fastest parameters.
    pub tuning: Tuning,
    /// Labels per second with them.
    pub labels_per_second: f64,
}

/// One trial, for those who watch.
#[derive(Debug, Clone)]
pub struct Measured {
    /// What was tried.
    pub tuning: Tuning,
    /// Labels per second, or why there are none.
    pub result: Result<f64, DeviceError>,
}

/// The parameters tried after `start`, one list after the other; in each list one parameter varies around the best of the lists
/// before: first who moves a row, then the gap, then the size of a work-group, then the labels in flight.
pub fn candidates(class: GpuClass, round: usize, best: Tuning) -> Vec<Tuning> {
    let software = class == GpuClass::Software;
    let others: Vec<Tuning> = match round {
        0 => [1, 8].map(|movers| Tuning { movers, ..best }).into(),
        1 => [1, 2, 3, 4, 6, 8].map(|gap| Tuning { gap, ..best }).into(),
        2 => [32, 64, 128].map(|group| Tuning { group, ..best }).into(),
        3 if software => [32, 64, 256].map(|lanes| Tuning { lanes, ..best }).into(),
        3 => [2, 4].map(|share| Tuning { lanes: (best.lanes / share).max(best.group), ..best }).into(),
        _ => Vec::new(),
    };
    others.into_iter().filter(|other| *other != best).collect()
}

/// Tries parameters until no more are left or the time is over; `measure` opens the device with some, makes labels, and tells how many per
/// second. Fails only if not even `start` works.
pub fn autotune(
    class: GpuClass,
    start: Tuning,
    time: Duration,
    mut measure: impl FnMut(Tuning) -> Result<f64, DeviceError>,
    mut watch: impl FnMut(&Measured),
) -> Result<Tuned, DeviceError> {
    let begun = Instant::now();
    let mut measure = |tuning| {
        let result = measure(tuning);
        watch(&Measured { tuning, result: result.clone() });
        result
    };
    let mut best = Tuned { tuning: start, labels_per_second: measure(start)? };
    for round in 0.. {
        let others = candidates(class, round, best.tuning);
        if others.is_empty() && round > 3 {
            break;
        }
        for tuning in others {
            if begun.elapsed() >= time {
                return Ok(best);
            }
            // Parameters that do not fit the device are no reason to stop.
            if let Ok(labels_per_second) = measure(tuning)
                && labels_per_second > best.labels_per_second
            {
                best = Tuned { tuning, labels_per_second };
            }
        }
    }
    Ok(best)
}
