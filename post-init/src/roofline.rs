//! `bench --roofline`: what a label costs with each lookup gap, the most a graphics processor can make of that, and what it does make.

use std::time::{Duration, Instant};

use kernels::label::{
    DeviceError,
    gpu::{Ceiling, Tuning, Work},
};
use proto::post::{LABEL_BYTES, ScryptN};
use serde::Serialize;

use crate::{
    error::Error,
    gpu::{Found, Gpu, apart},
    size::show_size,
    stop::Stop,
    tuning::{TRIAL, warm},
};

/// The lookup gaps that are looked at (post.md section 3.3).
pub const GAPS: [u32; 5] = [1, 2, 3, 4, 8];

/// A device may take this much longer than it was given.
const PATIENCE: Duration = Duration::from_secs(300);

/// What a device can do at most.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Peak {
    /// 32-bit integer operations per second.
    pub operations_per_second: Option<f64>,
    /// Bytes per second from and to its memory.
    pub bytes_per_second: Option<f64>,
}

impl Peak {
    /// What is given counts more than what the driver tells, by whatever way to the same device.
    pub fn of(self, gpu: &Gpu, found: &Found) -> Option<Ceiling> {
        let mut ways = found.gpus.iter().filter(|other| other.id() == gpu.id());
        let told = gpu.ceiling().or_else(|| ways.find_map(Gpu::ceiling));
        Some(Ceiling {
            operations_per_second: self.operations_per_second.or(told.map(|c| c.operations_per_second))?,
            bytes_per_second: self.bytes_per_second.or(told.map(|c| c.bytes_per_second))?,
        })
    }
}

/// One device with one lookup gap.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Names the device.
    pub key: String,
    /// Its name.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// N that was measured.
    pub scrypt_n: u32,
    /// Only every so many rows of the scratch memory are kept.
    pub gap: u32,
    /// 32-bit integer operations of a label.
    pub operations: u64,
    /// Bytes that a label moves from and to the memory of the device.
    pub traffic: u64,
    /// Bytes of memory of a label in flight.
    pub scratch: u64,
    /// Labels per second if memory were free.
    pub arithmetic_bound: Option<f64>,
    /// Labels per second if arithmetic were free.
    pub bandwidth_bound: Option<f64>,
    /// Labels in flight.
    pub lanes: usize,
    /// Labels that were made to measure.
    pub labels: u64,
    /// Labels per second.
    pub labels_per_second: f64,
    /// Labels per second of processor time, where the system tells.
    pub labels_per_cpu_second: Option<f64>,
    /// Labels per second by the smaller of the two bounds.
    pub share: Option<f64>,
}

/// What was measured of a device.
struct Measured {
    lanes: usize,
    labels: u64,
    seconds: f64,
    cpu_seconds: Option<f64>,
}

/// Measures a device with one gap, for at least this time and this number of labels.
pub fn measure(
    gpu: &Gpu,
    ceiling: Option<Ceiling>,
    n: ScryptN,
    tuning: Tuning,
    time: Duration,
    labels: u64,
    stop: &Stop,
) -> Result<Row, Error> {
    let (device, stopped) = (gpu.clone(), stop.clone());
    let work = move || run(&device, n, tuning, time, labels, &stopped);
    let measured = apart(stop, time + PATIENCE, &mut || (), work)?
        .map_err(|source| Error::Device { device: gpu.info().name.clone(), source })?;
    let work = Work::per_label(n, tuning.gap);
    let bound = ceiling.map(|ceiling| work.bound(&ceiling));
    let rate = measured.labels as f64 / measured.seconds;
    let info = gpu.info().clone();
    Ok(Row {
        key: info.key,
        name: info.name,
        driver: info.driver,
        scrypt_n: n.get(),
        gap: tuning.gap,
        operations: work.operations,
        traffic: work.traffic,
        scratch: work.scratch,
        arithmetic_bound: bound.map(|bound| bound.arithmetic),
        bandwidth_bound: bound.map(|bound| bound.bandwidth),
        lanes: measured.lanes,
        labels: measured.labels,
        labels_per_second: rate,
        labels_per_cpu_second: measured.cpu_seconds.map(|seconds| measured.labels as f64 / seconds),
        share: bound.map(|bound| rate / bound.labels_per_second()),
    })
}

fn run(gpu: &Gpu, n: ScryptN, tuning: Tuning, time: Duration, labels: u64, stop: &Stop) -> Result<Measured, DeviceError> {
    let (mut device, mut out) = warm(gpu, n, tuning)?;
    let (started, cpu) = (Instant::now(), cpu_seconds());
    let mut made = 0;
    while (started.elapsed() < time || made < labels) && !stop.is_set() {
        device.labels(&TRIAL, (1 << 33) + made, &mut out)?;
        made += out.len() as u64 / LABEL_BYTES;
    }
    let seconds = started.elapsed().as_secs_f64().max(1e-9);
    let cpu_seconds = cpu_seconds().zip(cpu).map(|(now, then)| (now - then).max(1e-9));
    Ok(Measured { lanes: device.info().lanes, labels: made, seconds, cpu_seconds })
}

/// Processor time of this process so far.
#[cfg(unix)]
#[expect(clippy::unnecessary_wraps, reason = "not every system tells")]
fn cpu_seconds() -> Option<f64> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Some(time.tv_sec as f64 + time.tv_nsec as f64 / 1e9)
}

#[cfg(not(unix))]
fn cpu_seconds() -> Option<f64> {
    None
}

impl Row {
    /// Says what device the rows that follow are of.
    pub fn head(&self) -> String {
        format!("{} [{}], driver {}, N = {}", self.name, self.key, self.driver, self.scrypt_n)
    }

    /// For people.
    pub fn show(&self) -> String {
        let bound = match (self.share, self.arithmetic_bound, self.bandwidth_bound) {
            (Some(share), Some(arithmetic), Some(bandwidth)) => {
                format!("{:.0} % of the bound ({arithmetic:.0} by arithmetic, {bandwidth:.0} by memory)", 100.0 * share)
            }
            _ => "no bound, since the driver tells too little".into(),
        };
        let cpu = self.labels_per_cpu_second.map(|rate| format!(", {rate:.0} per CPU-second")).unwrap_or_default();
        format!(
            "  gap {}: {:.2} M operations, {} moved, {} held; {:.0} labels/s{cpu} ({} labels, {} in flight): {bound}",
            self.gap,
            self.operations as f64 / 1e6,
            show_size(self.traffic),
            show_size(self.scratch),
            self.labels_per_second,
            self.labels,
            self.lanes
        )
    }
}

#[cfg(test)]
mod tests {
    use kernels::label::{
        cpu::{Cpu, Isa},
        gpu::GpuClass,
    };

    use super::*;
    use crate::gpu::fake::fake_gpu;

    #[test]
    fn a_row_states_cost_bound_and_share() {
        let n = ScryptN::new(16).unwrap();
        let gpu = fake_gpu(0, GpuClass::Discrete, |_| Ok(Box::new(Cpu::new(Isa::best(), ScryptN::new(16).unwrap())?)));
        let found = Found { gpus: vec![gpu.clone()], absent: vec![] };
        assert_eq!(Peak::default().of(&gpu, &found), None);
        let peak = Peak { operations_per_second: Some(1e12), bytes_per_second: Some(1e9) };
        let ceiling = peak.of(&gpu, &found);
        let tuning = Tuning { gap: 3, ..Tuning::GPU };
        let row = measure(&gpu, ceiling, n, tuning, Duration::ZERO, 1000, &Stop::default()).unwrap();
        let work = Work::per_label(n, 3);
        assert_eq!((row.operations, row.traffic, row.scratch), (work.operations, work.traffic, work.scratch));
        assert!(row.labels >= 1000 && row.labels_per_second > 0.0);
        let smaller = row.arithmetic_bound.unwrap().min(row.bandwidth_bound.unwrap());
        assert!((row.share.unwrap() * smaller / row.labels_per_second - 1.0).abs() < 1e-9);
        assert!(row.show().contains("gap 3") && row.show().contains("% of the bound"), "{}", row.show());
        let unknown = measure(&gpu, None, n, tuning, Duration::ZERO, 1, &Stop::default()).unwrap();
        assert!(unknown.share.is_none() && unknown.show().contains("no bound"));
    }
}
