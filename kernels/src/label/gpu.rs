//! What the backends for graphics processors share: how one is described and tuned, and how a range of labels becomes
//! dispatches.
//!
//! Each of the backends `wgpu` and `cuda` brings an `Engine`: memory and four kinds of dispatches. The
//! `Driver` here does the rest: it takes as much memory as there is and less when the driver refuses, cuts ROMix into
//! dispatches of a bounded length by measuring them, keeps two of them in flight, and reads the labels of one batch while the
//! next one is computed.
//!
//! **Never run on a GPU so far**: tests use a software Vulkan adapter and an emulated CUDA driver.

mod autotune;
mod roofline;

use std::{
    collections::VecDeque,
    fmt, mem,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use proto::{ids::Commitment, post::ScryptN};
use serde::{Deserialize, Serialize};

pub use autotune::{Measured, Tuned, autotune, candidates};
pub use roofline::{Bound, Ceiling, Work};

use super::{Block, Device, DeviceError, DeviceInfo, DeviceKind, STORED, Smallest, check_range};

/// What a device is, before anything runs on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GpuInfo {
    /// Names the device among all devices of this machine, and again after a restart: `vulkan:0000:01:00.0`.
    pub key: String,
    /// For people, as the driver gives it.
    pub name: String,
    /// `vulkan`, `metal`, `dx12` or `cuda`.
    pub backend: String,
    /// What it is built as.
    pub class: GpuClass,
    /// Name and version of the driver.
    pub driver: String,
    /// Bytes of memory of its own, where the driver tells.
    pub memory: Option<u64>,
    /// Bytes of it that are free now, where the driver tells.
    pub free: Option<u64>,
    /// Place on the PCI bus, `0000:01:00.0`, where there is one.
    pub pci: Option<String>,
    /// The identifier that all drivers give the same device, where they give one.
    pub uuid: Option<[u8; 16]>,
}

impl GpuInfo {
    /// Whether two backends see the same device.
    pub fn is_same_device(&self, other: &Self) -> bool {
        let same = |a: bool, b: bool| a && b;
        same(self.uuid.is_some(), self.uuid == other.uuid) || same(self.pci.is_some(), self.pci == other.pci)
    }

    /// What the result of [`autotune`] is to be kept under: another driver or another kernel may want other parameters.
    pub fn tuning_key(&self, kernel_version: &str) -> String {
        format!("{} | {} | {} | {kernel_version}", self.key, self.name, self.driver)
    }
}

/// Which of the devices of all backends to use so that each piece of hardware is used once, as places in the list.
///
/// CUDA comes before the others, and DirectX after Vulkan. Several devices of one backend are always several devices.
pub fn each_once(devices: &[GpuInfo]) -> Vec<usize> {
    let rank = |info: &GpuInfo| match info.backend.as_str() {
        "cuda" => 0,
        "dx12" => 2,
        _ => 1,
    };
    let mut order: Vec<usize> = (0..devices.len()).collect();
    order.sort_by_key(|i| rank(&devices[*i]));
    let mut kept: Vec<usize> = Vec::new();
    for i in order {
        let info = &devices[i];
        // DirectX tells no place, so there a name has to do.
        let seen = |other: &GpuInfo| {
            other.backend != info.backend && (info.is_same_device(other) || (info.backend == "dx12" && info.name == other.name))
        };
        if !kept.iter().any(|k| seen(&devices[*k])) {
            kept.push(i);
        }
    }
    kept.sort_unstable();
    kept
}

/// What a GPU is built as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GpuClass {
    /// A card with memory of its own.
    Discrete,
    /// Part of the processor, with its memory.
    Integrated,
    /// A share of a GPU of the host of this virtual machine.
    Virtual,
    /// A program that runs on the processor.
    Software,
    /// The driver does not tell.
    Unknown,
}

impl fmt::Display for GpuClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Discrete => "discrete",
            Self::Integrated => "integrated",
            Self::Virtual => "virtual",
            Self::Software => "software",
            Self::Unknown => "unknown",
        })
    }
}

/// What a device is tuned by; all values give the same labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    /// Only every `gap`-th row of V is kept, the others are computed again (post.md section 3.3). At least 1, at most 64.
    pub gap: u32,
    /// Threads of a work-group, one per label: a power of two from `movers` to 256.
    pub group: u32,
    /// Neighbouring threads that move one row of V together: 1 or 8.
    pub movers: u32,
    /// Labels in flight at most; memory may allow fewer.
    pub lanes: u32,
    /// How long a dispatch may take, in milliseconds. Desktops and Windows stop one after a few seconds and stutter long before.
    pub slice_ms: u32,
}

impl Tuning {
    /// What a GPU starts with before it is tuned.
    pub const GPU: Self = Self { gap: 2, group: 64, movers: 8, lanes: 1 << 16, slice_ms: 100 };
    /// What suits a program that plays GPU on the processor: caches instead of teams, and nobody's desktop waits for it.
    pub const SOFTWARE: Self = Self { gap: 1, group: 64, movers: 1, lanes: 128, slice_ms: 500 };

    /// Refuses what no kernel is made for.
    pub fn check(&self) -> Result<(), DeviceError> {
        let Self { gap, group, movers, lanes, slice_ms } = *self;
        let good = (1..=64).contains(&gap)
            && group.is_power_of_two()
            && (movers..=256).contains(&group)
            && (movers == 1 || movers == 8)
            && lanes > 0
            && slice_ms > 0;
        if good { Ok(()) } else { Err(DeviceError::Unsupported(format!("{self:?}"))) }
    }

    /// Rows of V that are kept.
    pub fn rows(&self, n: ScryptN) -> u32 {
        n.get().div_ceil(self.gap)
    }

    /// Bytes of device memory that one label in flight takes.
    pub fn bytes_per_lane(&self, n: ScryptN) -> u64 {
        self.rows(n) as u64 * ROW + self.state_bytes() + 3 * STORED as u64
    }

    /// Bytes of what is kept of a label between dispatches: X, and with a gap Y and the progress.
    pub(super) fn state_bytes(&self) -> u64 {
        if self.gap == 1 { ROW } else { 2 * ROW + 16 }
    }

    /// Mixes of the second loop of ROMix, recomputations included, after which nearly all labels are done.
    fn mixes(&self, n: ScryptN) -> u64 {
        let (n, gap) = (n.get() as f64, self.gap as f64);
        // Every step recomputes from none to gap - 1 rows, all numbers being as likely: the mean and four deviations.
        (n + n * (gap - 1.0) / 2.0 + 4.0 * (n * (gap * gap - 1.0) / 12.0).sqrt()) as u64
    }
}

/// Bytes of a row of V.
pub(super) const ROW: u64 = size_of::<Block>() as u64;

/// Bytes of device memory that a backend holds: tells that a paused device has given everything back.
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<AtomicU64>);

impl Meter {
    /// Bytes held now.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts an allocation until the value is dropped.
    pub(super) fn hold(&self, bytes: u64) -> Held {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Held { meter: self.clone(), bytes }
    }
}

/// Lies beside an allocation and is dropped with it.
#[derive(Debug)]
pub(super) struct Held {
    meter: Meter,
    bytes: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.meter.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A graphics processor that makes labels, whichever backend drives it.
pub struct Gpu {
    driver: Box<dyn Drive>,
    info: DeviceInfo,
    tuning: Tuning,
    n: ScryptN,
    meter: Meter,
}

impl Gpu {
    /// `patience` is how long one dispatch may take before the device counts as hung; `meter` counts what the engine allocates.
    pub(super) fn new(
        engine: impl Engine + 'static,
        found: &GpuInfo,
        kind: DeviceKind,
        (n, tuning): (ScryptN, Tuning),
        patience: Duration,
        meter: Meter,
    ) -> Self {
        let lanes = tuning.lanes.next_multiple_of(tuning.group);
        let info = DeviceInfo {
            name: format!("{} {}", found.backend, found.name),
            kind,
            lanes: lanes as usize,
            scratch_bytes: lanes as u64 * tuning.bytes_per_lane(n),
        };
        Self { driver: Box::new(Driver::new(engine, tuning, n, patience)), info, tuning, n, meter }
    }

    /// Takes memory if that has not happened, and tells for how many labels in flight it is.
    pub fn lanes(&mut self) -> Result<u32, DeviceError> {
        let lanes = self.driver.lanes()?;
        self.info.lanes = lanes as usize;
        self.info.scratch_bytes = lanes as u64 * self.tuning.bytes_per_lane(self.n);
        Ok(lanes)
    }

    /// How long one dispatch may take before the device counts as hung.
    pub fn set_patience(&mut self, patience: Duration) {
        self.driver.set_patience(patience);
    }

    /// Counts the memory held.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// The longest dispatch of ROMix so far, the first ones, which may compile, left out.
    pub fn longest_dispatch(&self) -> Duration {
        self.driver.longest_dispatch()
    }
}

impl Device for Gpu {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn labels(&mut self, commitment: &Commitment, first: u64, out: &mut [u8]) -> Result<Smallest, DeviceError> {
        check_range(first, out)?;
        self.lanes()?;
        let smallest = self.driver.labels(commitment, first, out)?;
        // Memory may have turned out to be less.
        self.lanes()?;
        Ok(smallest)
    }

    fn release(&mut self) {
        self.driver.release();
    }

    fn allocated(&self) -> u64 {
        self.meter.bytes()
    }
}

/// A [`Driver`] of any engine.
trait Drive: Send {
    /// Labels in flight, taking memory for them if that has not happened.
    fn lanes(&mut self) -> Result<u32, DeviceError>;

    /// See [`Device::labels`].
    fn labels(&mut self, commitment: &Commitment, first: u64, out: &mut [u8]) -> Result<Smallest, DeviceError>;

    /// Gives the memory back until the next call of [`Self::labels`].
    fn release(&mut self);

    /// See [`Gpu::set_patience`].
    fn set_patience(&mut self, patience: Duration);

    /// See [`Gpu::longest_dispatch`].
    fn longest_dispatch(&self) -> Duration;
}

/// The places that finished batches wait in to be read.
pub(super) const SLOTS: usize = 2;

/// Dispatches that wait on the device: one runs, the next one is there when it ends.
const IN_FLIGHT: usize = 2;

/// The smallest label of a batch as a device reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// Place in the batch.
    pub(super) place: u32,
    pub(super) label: super::FullLabel,
}

impl Found {
    /// From the record that the kernels write: eight big-endian words of the label, then the place.
    pub(super) fn parse(record: &[u8]) -> Self {
        let mut label = [0; 32];
        for (to, from) in label.chunks_exact_mut(4).zip(record.chunks_exact(4)) {
            to.copy_from_slice(&[from[3], from[2], from[1], from[0]]);
        }
        Self { place: u32::from_le_bytes([record[32], record[33], record[34], record[35]]), label }
    }
}

/// Memory and dispatches of one device. Work is done in the order it is queued.
pub(super) trait Engine: Send {
    /// Stands for a queued dispatch.
    type Ticket: Send;

    /// Labels that free memory has room for now, some being left to others.
    fn room(&self) -> u32;

    /// Takes memory for a multiple of [`Tuning::group`] labels in flight.
    fn allocate(&mut self, lanes: u32) -> Result<(), DeviceError>;

    /// Gives all memory back. No work is queued.
    fn free(&mut self);

    /// Starts a batch of at most as many labels as there is memory for.
    fn expand(&mut self, commitment: &Commitment, first: u64, count: u32) -> Result<Self::Ticket, DeviceError>;

    /// Some steps of the first loop of ROMix.
    fn fill(&mut self, rows: Range<u32>) -> Result<Self::Ticket, DeviceError>;

    /// At most so many Mixes of the second loop, or all that are left if these are the last.
    fn mix(&mut self, steps: u32, last: bool) -> Result<Self::Ticket, DeviceError>;

    /// Ends the batch; labels and the smallest one go to a slot.
    fn squeeze(&mut self, slot: usize) -> Result<Self::Ticket, DeviceError>;

    /// Waits without using the processor.
    fn wait(&mut self, ticket: Self::Ticket, patience: Duration) -> Result<(), DeviceError>;

    /// The labels of a batch whose last dispatch was waited for.
    fn read(&mut self, slot: usize, out: &mut [u8]) -> Result<Found, DeviceError>;
}

/// A number of steps that takes a wanted time, learnt from those before.
#[derive(Debug)]
struct Pace {
    target: Duration,
    steps: u32,
    /// The first dispatch may compile, so its time says nothing.
    measured: bool,
}

impl Pace {
    /// Few enough steps for any GPU.
    const FIRST: u32 = 64;
    /// So many that the time between dispatches is nothing. Software Vulkan silently ends loops after 65,535 turns, and a step has nine.
    const MOST: u32 = 4096;

    fn new(target: Duration) -> Self {
        Self { target, steps: Self::FIRST, measured: false }
    }

    /// Tells whether it was the first one.
    fn observe(&mut self, steps: u32, took: Duration) -> bool {
        if !mem::replace(&mut self.measured, true) {
            return true;
        }
        let ideal = self.target.as_secs_f64() / took.as_secs_f64().max(1e-6) * steps as f64;
        // Upwards by small factors: a short dispatch is measured badly.
        self.steps = (ideal.min(steps as f64 * 4.0) as u32).clamp(1, Self::MOST);
        false
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Expand,
    Fill,
    Mix,
    /// The last Mixes, few or none, whose number is not known beforehand.
    LastMix,
    Squeeze,
}

struct Flight<T> {
    ticket: T,
    phase: Phase,
    steps: u32,
    queued: Instant,
}

/// Runs an [`Engine`].
struct Driver<E: Engine> {
    /// None once it is lost or hangs.
    engine: Option<E>,
    tuning: Tuning,
    n: ScryptN,
    /// How long a dispatch may take before the device counts as hung.
    patience: Duration,
    /// Labels there is memory for; none while released.
    lanes: Option<u32>,
    /// What memory has allowed so far.
    limit: u32,
    fill: Pace,
    mix: Pace,
    flights: VecDeque<Flight<E::Ticket>>,
    last_done: Instant,
    longest: Duration,
}

/// A batch that is being computed or waits to be read.
struct Batch {
    first: u64,
    places: Range<usize>,
    slot: usize,
}

impl<E: Engine> Driver<E> {
    fn new(engine: E, tuning: Tuning, n: ScryptN, patience: Duration) -> Self {
        let target = Duration::from_millis(tuning.slice_ms as u64);
        Self {
            engine: Some(engine),
            tuning,
            n,
            patience,
            lanes: None,
            limit: tuning.lanes.next_multiple_of(tuning.group),
            fill: Pace::new(target),
            mix: Pace::new(target),
            flights: VecDeque::new(),
            last_done: Instant::now(),
            longest: Duration::ZERO,
        }
    }

    fn run(&mut self, commitment: &Commitment, first: u64, out: &mut [u8], lanes: u32) -> Result<Smallest, DeviceError> {
        let labels = out.len() / STORED;
        let mut smallest: Option<Smallest> = None;
        let mut ready: Option<Batch> = None;
        for (slot, start) in (0..labels).step_by(lanes as usize).enumerate() {
            let places = start..labels.min(start + lanes as usize);
            let batch = Batch { first: first + start as u64, places, slot: slot % SLOTS };
            self.queue(commitment, &batch)?;
            // Work of this batch is queued behind that of the one before, which therefore is read without idling the device.
            if let Some(batch) = ready.replace(batch) {
                self.collect(&batch, out, &mut smallest)?;
            }
        }
        self.settle()?;
        if let Some(batch) = ready {
            self.collect(&batch, out, &mut smallest)?;
        }
        smallest.ok_or(DeviceError::OutputSize { bytes: out.len() })
    }

    /// All dispatches of a batch; returns while the last ones are still to be done.
    fn queue(&mut self, commitment: &Commitment, batch: &Batch) -> Result<(), DeviceError> {
        let count = batch.places.len() as u32;
        self.submit(Phase::Expand, 0, |engine| engine.expand(commitment, batch.first, count))?;
        let mut row = 0;
        while row < self.n.get() {
            let end = row.saturating_add(self.fill.steps).min(self.n.get());
            self.submit(Phase::Fill, end - row, |engine| engine.fill(row..end))?;
            row = end;
        }
        let mut left = self.tuning.mixes(self.n);
        while left > 0 {
            let steps = (self.mix.steps as u64).min(left) as u32;
            left -= steps as u64;
            self.submit(Phase::Mix, steps, |engine| engine.mix(steps, false))?;
        }
        if self.tuning.gap > 1 {
            // Whatever label is not done by now.
            self.submit(Phase::LastMix, 0, |engine| engine.mix(0, true))?;
        }
        self.submit(Phase::Squeeze, 0, |engine| engine.squeeze(batch.slot))
    }

    /// Queues a dispatch after waiting for all but the newest one.
    fn submit(
        &mut self,
        phase: Phase,
        steps: u32,
        queue: impl FnOnce(&mut E) -> Result<E::Ticket, DeviceError>,
    ) -> Result<(), DeviceError> {
        while self.flights.len() >= IN_FLIGHT {
            self.land()?;
        }
        let ticket = queue(self.engine.as_mut().ok_or_else(gone)?)?;
        self.flights.push_back(Flight { ticket, phase, steps, queued: Instant::now() });
        Ok(())
    }

    /// Waits for the oldest dispatch and learns from the time it took.
    fn land(&mut self) -> Result<(), DeviceError> {
        let Some(flight) = self.flights.pop_front() else { return Ok(()) };
        self.engine.as_mut().ok_or_else(gone)?.wait(flight.ticket, self.patience)?;
        let now = Instant::now();
        let took = now - flight.queued.max(self.last_done);
        self.last_done = now;
        let first = match flight.phase {
            Phase::Fill => self.fill.observe(flight.steps, took),
            Phase::Mix => self.mix.observe(flight.steps, took),
            Phase::LastMix => false,
            // As long as some tens of Mixes.
            Phase::Expand | Phase::Squeeze => true,
        };
        if !first {
            self.longest = self.longest.max(took);
        }
        Ok(())
    }

    /// Waits for all dispatches.
    fn settle(&mut self) -> Result<(), DeviceError> {
        while !self.flights.is_empty() {
            self.land()?;
        }
        Ok(())
    }

    fn collect(&mut self, batch: &Batch, out: &mut [u8], smallest: &mut Option<Smallest>) -> Result<(), DeviceError> {
        let out = &mut out[batch.places.start * STORED..batch.places.end * STORED];
        let found = self.engine.as_mut().ok_or_else(gone)?.read(batch.slot, out)?;
        if found.place as usize >= batch.places.len() {
            return Err(DeviceError::Failed(format!(
                "smallest label reported at place {} of {}",
                found.place,
                batch.places.len()
            )));
        }
        let found = Smallest { index: batch.first + found.place as u64, label: found.label };
        *smallest = Some(smallest.map_or(found, |other| other.min(found)));
        Ok(())
    }
}

impl<E: Engine> Drive for Driver<E> {
    fn lanes(&mut self) -> Result<u32, DeviceError> {
        if let Some(lanes) = self.lanes {
            return Ok(lanes);
        }
        let group = self.tuning.group;
        let engine = self.engine.as_mut().ok_or_else(gone)?;
        let mut lanes = (engine.room().min(self.limit) / group * group).max(group);
        loop {
            match engine.allocate(lanes) {
                Ok(()) => break,
                Err(DeviceError::OutOfMemory { .. }) if lanes > group => {
                    engine.free();
                    lanes = (lanes / 2).next_multiple_of(group).min(lanes - group);
                }
                Err(e) => {
                    engine.free();
                    return Err(e);
                }
            }
        }
        self.lanes = Some(lanes);
        Ok(lanes)
    }

    fn release(&mut self) {
        if let Some(engine) = &mut self.engine {
            engine.free();
        }
        self.lanes = None;
    }

    fn labels(&mut self, commitment: &Commitment, first: u64, out: &mut [u8]) -> Result<Smallest, DeviceError> {
        loop {
            let lanes = self.lanes()?;
            match self.run(commitment, first, out, lanes) {
                Err(DeviceError::OutOfMemory { .. }) if lanes > self.tuning.group => {
                    // The memory was given and then not there: begin again with less.
                    self.settle()?;
                    self.release();
                    self.limit = (lanes / 2).next_multiple_of(self.tuning.group).min(lanes - self.tuning.group);
                }
                Err(e) => {
                    self.flights.clear();
                    // The driver may never return from a call that frees what a hung device works on, and the state of a
                    // failed one is unknown: what they hold is left to the end of the process or to the driver.
                    if matches!(e, DeviceError::Hung { .. }) {
                        mem::forget(self.engine.take());
                    } else {
                        self.engine = None;
                    }
                    self.lanes = None;
                    return Err(e);
                }
                Ok(smallest) => return Ok(smallest),
            }
        }
    }

    fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    fn longest_dispatch(&self) -> Duration {
        self.longest
    }
}

impl<E: Engine> Drop for Driver<E> {
    fn drop(&mut self) {
        // Whatever is queued still uses the memory.
        let settled = self.settle();
        if let Err(DeviceError::Hung { .. }) = settled {
            mem::forget(self.engine.take());
        }
    }
}

fn gone() -> DeviceError {
    DeviceError::Lost("it failed before and has to be opened again".into())
}

/// A fingerprint of kernel sources, so that what was measured with other kernels is not used.
pub(super) const fn fingerprint(sources: &[&str]) -> u64 {
    // FNV-1a.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut i = 0;
    while i < sources.len() {
        let bytes = sources[i].as_bytes();
        let mut k = 0;
        while k < bytes.len() {
            hash = (hash ^ bytes[k] as u64).wrapping_mul(0x0100_0000_01b3);
            k += 1;
        }
        i += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(backend: &str, name: &str, pci: Option<&str>, uuid: Option<u8>) -> GpuInfo {
        GpuInfo {
            key: String::new(),
            name: name.into(),
            backend: backend.into(),
            class: GpuClass::Discrete,
            driver: String::new(),
            memory: None,
            free: None,
            pci: pci.map(Into::into),
            uuid: uuid.map(|byte| [byte; 16]),
        }
    }

    #[test]
    fn hardware_is_used_once() {
        let devices = [
            info("vulkan", "A", Some("0000:01:00.0"), Some(1)),
            info("vulkan", "A", Some("0000:02:00.0"), Some(2)),
            info("vulkan", "software", None, None),
            info("dx12", "A", None, None),
            info("dx12", "A", None, None),
            info("dx12", "B", None, None),
            info("cuda", "A", None, Some(1)),
            info("cuda", "C", Some("0000:02:00.0"), None),
            info("cuda", "D", Some("0000:03:00.0"), Some(4)),
        ];
        assert_eq!(each_once(&devices), [2, 5, 6, 7, 8]);
        assert_eq!(each_once(&devices[..6]), [0, 1, 2, 5]);
        assert_eq!(each_once(&devices[3..5]), [0, 1]);
        // Nothing known is not the same.
        assert!(!info("cuda", "A", None, None).is_same_device(&info("vulkan", "A", None, None)));
    }

    #[test]
    fn dispatches_grow_to_their_length_and_shrink_at_once() {
        let mut pace = Pace::new(Duration::from_millis(100));
        // Compiling takes long, which is no reason to shorten the next one.
        assert!(pace.observe(64, Duration::from_secs(3)));
        assert_eq!(pace.steps, 64);
        assert!(!pace.observe(64, Duration::from_millis(1)));
        assert_eq!(pace.steps, 256);
        pace.observe(256, Duration::from_millis(50));
        assert_eq!(pace.steps, 512);
        pace.observe(512, Duration::from_millis(800));
        assert_eq!(pace.steps, 64);
        pace.observe(64, Duration::from_secs(60));
        assert_eq!(pace.steps, 1);
        for _ in 0..20 {
            pace.observe(pace.steps, Duration::ZERO);
        }
        assert_eq!(pace.steps, Pace::MOST);
    }

    #[test]
    fn memory_is_counted() {
        let meter = Meter::default();
        let (a, b) = (meter.hold(3), meter.clone().hold(4));
        assert_eq!(meter.bytes(), 7);
        drop(a);
        assert_eq!(meter.bytes(), 4);
        drop(b);
        assert_eq!(meter.bytes(), 0);
    }
}
