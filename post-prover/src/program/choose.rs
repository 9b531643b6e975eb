//! The number of nonces per pass where nobody has said it: from the speed of the disks and the cores, measured once, so that the
//! window is hardly ever missed ([`crate::plan`]).

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use kernels::{
    pow::{Puzzle, Shared},
    scan::{Difficulty, NONCES_PER_GROUP},
};
use proto::{
    ids::Challenge,
    post::{Params, Preset},
};

use super::commands::{disk_rates, hash_rate, random_labels, scan_rate};
use crate::{
    data::DataSet,
    plan::{self, Measured},
    prove::{Gate, Nonces, ProveError, Stage, Turn},
    read::PLAIN_READ_BYTES,
    state::State,
};

/// Accepted chance to miss the window.
pub const MISS_TARGET: f64 = 1e-4;
/// Nonces where it does not matter: data that is read within seconds.
pub const DEFAULT_NONCES: u32 = 288;
/// Data below this is not worth measuring.
const WORTH_MEASURING: u64 = 16 << 30;
/// Time of a measurement.
const TIME: Duration = Duration::from_secs(2);

/// A number of nonces, or that it is to be chosen: `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NonceChoice(pub Option<Nonces>);

impl std::str::FromStr for NonceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "auto" { Ok(Self(None)) } else { text.parse().map(|nonces| Self(Some(nonces))) }
    }
}

/// What the machine does per second; each figure is measured when it is first needed.
#[derive(Debug, Default)]
pub struct Rates {
    /// Bytes read, by disk.
    disks: Mutex<HashMap<String, f64>>,
    /// By number of threads: bytes scanned for one nonce group.
    scan: Mutex<HashMap<usize, f64>>,
    /// By number of threads: hashes.
    hashes: Mutex<HashMap<usize, f64>>,
}

/// Whose nonces are to be chosen.
#[derive(Clone, Copy)]
pub struct Occasion<'a> {
    /// The data.
    pub data: &'a DataSet,
    /// The rules of the network.
    pub params: &'a Params,
    /// What the run has achieved already.
    pub state: &'a State,
    /// Threads that scan and search.
    pub threads: usize,
    /// Time for the proof.
    pub window: Duration,
    /// For measuring k2pow; none when other machines search.
    pub randomx: Option<&'a Shared>,
    /// Whom to ask before disk or cores are used.
    pub gate: &'a dyn Gate,
    /// Ends it.
    pub stop: &'a AtomicBool,
}

impl std::fmt::Debug for Occasion<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Occasion").field("threads", &self.threads).field("window", &self.window).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Rates {
    /// The nonces given, or else chosen ones; what is not known yet is measured.
    pub fn choose(&self, given: Option<Nonces>, occasion: &Occasion<'_>) -> Result<Nonces, ProveError> {
        if let Some(given) = given {
            return Ok(given);
        }
        let bytes = occasion.data.layout().num_bytes();
        let nonces = if let Some(pass) = &occasion.state.pass {
            // goes on as it began
            pass.groups * NONCES_PER_GROUP
        } else if bytes < WORTH_MEASURING || occasion.state.proof.is_some() {
            DEFAULT_NONCES
        } else {
            let best = plan::best(&self.measure(occasion, bytes)?, MISS_TARGET);
            if best.miss > MISS_TARGET {
                tracing::warn!(nonces = best.nonces, "the chance to miss the window is {:.2} %", best.miss * 100.0);
            }
            best.nonces
        };
        tracing::info!(nonces, "nonces per pass");
        // A pass has at least one group and at most all of them, and so has every plan.
        Nonces::new(nonces).map_err(|e| ProveError::Pow(Box::new(e)))
    }

    fn measure(&self, occasion: &Occasion<'_>, bytes: u64) -> Result<Measured, ProveError> {
        let Occasion { data, params, threads, window, randomx, gate, stop, .. } = *occasion;
        let num_labels = data.layout().num_labels();
        let units = NonZeroU32::new(data.layout().num_units().0).unwrap_or(NonZeroU32::MIN);
        let puzzle = Puzzle::new(data.metadata().node_id, &Challenge([0; 32]), 0, &params.pow_difficulty, units);
        let disks = self.disks(data, gate, stop)?;
        let turn = Turn::take(gate, Stage::Pow, stop)?;
        let scan = *lock(&self.scan).entry(threads).or_insert_with(|| scan_per_group(threads));
        let known = lock(&self.hashes).get(&threads).copied();
        let hash_rate = match (randomx, known) {
            (None, _) => f64::INFINITY,
            (Some(_), Some(rate)) => rate,
            (Some(randomx), None) => {
                let failed = |e: kernels::pow::PowError| ProveError::Pow(Box::new(e));
                let rate = hash_rate(&randomx.get(stop).map_err(failed)?, threads, TIME, stop).map_err(failed)?;
                lock(&self.hashes).insert(threads, rate);
                rate
            }
        };
        drop(turn);
        Ok(Measured {
            bytes,
            disk: together(data, &disks),
            scan_per_group: scan,
            hashes_per_group: puzzle.expected_hashes(),
            hash_rate,
            per_nonce: plan::nonce_success(num_labels, params.k1, params.k2),
            window,
        })
    }

    /// Bytes per second of each disk of the data.
    fn disks(&self, data: &DataSet, gate: &dyn Gate, stop: &AtomicBool) -> Result<Vec<f64>, ProveError> {
        let known = || data.disks().iter().map(|name| lock(&self.disks).get(name).copied()).collect::<Option<Vec<f64>>>();
        if let Some(known) = known() {
            return Ok(known);
        }
        let _turn = Turn::take(gate, Stage::Reading, stop)?;
        // another identity may have measured them meanwhile
        if let Some(known) = known() {
            return Ok(known);
        }
        let rates = disk_rates(data, TIME, stop)?;
        lock(&self.disks).extend(data.disks().iter().cloned().zip(rates.iter().copied()));
        Ok(rates)
    }
}

/// The speed of the scan of one group, measured with eight of them: the speed per group hardly depends on their number.
fn scan_per_group(threads: usize) -> f64 {
    const GROUPS: u32 = 8;
    let mainnet = Preset::Mainnet.params();
    let labels = proto::units::Labels(mainnet.labels_per_unit.saturating_mul(4));
    // No labels and few labels are the only errors, and neither is the case.
    let difficulty = Difficulty::new(mainnet.k1, labels).unwrap_or(Difficulty::from_u64(0));
    scan_rate(&random_labels(PLAIN_READ_BYTES), GROUPS * NONCES_PER_GROUP, difficulty, threads, TIME / 4) * f64::from(GROUPS)
}

/// The speed at which data is read whose disks are read at the same time: the one that needs longest counts.
pub(super) fn together(data: &DataSet, rates: &[f64]) -> f64 {
    let layout = data.layout();
    let time = |(disk, rate): (usize, &f64)| {
        let bytes: u64 = data.files_on(disk).map(|(file, _)| layout.file_bytes(file)).sum();
        bytes as f64 / rate
    };
    layout.num_bytes() as f64 / rates.iter().enumerate().map(time).fold(0.0, f64::max)
}
