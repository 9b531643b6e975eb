//! `bench` and `plan`: what this machine can do.

use std::{fmt::Write as _, time::Duration};

use kernels::label::cpu::Isa;
use proto::{
    ids::Commitment,
    post::{LABEL_BYTES, Params, Preset, ScryptN},
};
use serde::Serialize;

use crate::{
    error::Error,
    event::Report,
    pool::{Pool, PoolOptions, Source},
    size::{show_duration, show_size},
    stop::Stop,
};

/// What one device does.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rate {
    /// Name of the device.
    pub device: String,
    /// Threads of the processor.
    pub threads: usize,
    /// N that was measured.
    pub scrypt_n: u32,
    /// Labels per second, all threads together.
    pub labels_per_second: f64,
    /// MiB of data per second.
    pub mib_per_second: f64,
    /// Days for 1 TiB of data.
    pub days_per_tib: f64,
    /// Scratch memory of all threads, in bytes; the program takes at most 64 MiB beside it, 320 MiB with
    /// GPUs, and what the drivers take that it looks for unless told to use the processor alone.
    pub scratch_bytes: u64,
    /// Memory held on GPUs, in bytes.
    pub gpu_bytes: u64,
}

/// Measures a pool for the given time with the code that the real work uses.
pub fn bench(options: &PoolOptions, n: ScryptN, time: Duration, stop: &Stop, report: &dyn Report) -> Result<Rate, Error> {
    let mut pool = Pool::new(options, Commitment([0; 32]), n)?;
    let rate = pool.measure(time, stop, report)?;
    let progress = pool.progress();
    let names: Vec<&str> = progress.iter().map(|device| device.name.as_str()).collect();
    let gpus = progress.iter().take(options.gpus.len());
    Ok(Rate {
        device: names.join(" + "),
        threads: options.cpu_threads,
        scrypt_n: n.get(),
        labels_per_second: rate,
        mib_per_second: rate * LABEL_BYTES as f64 / (1 << 20) as f64,
        days_per_tib: (1_u64 << 40) as f64 / LABEL_BYTES as f64 / rate / 86400.0,
        scratch_bytes: options.scratch_bytes(n),
        gpu_bytes: gpus.map(|device| device.allocated_bytes).sum(),
    })
}

/// What `bench` measures one after the other: each GPU alone, the processor with each instruction set, then all at once if there
/// is more than one device.
pub fn benches(options: &PoolOptions, isas: &[Isa]) -> Vec<PoolOptions> {
    let alone = |gpu: &Source| PoolOptions { gpus: vec![gpu.clone()], cpu_threads: 0, ..options.clone() };
    let cpu = |isa: &Isa| PoolOptions { gpus: Vec::new(), isa: *isa, ..options.clone() };
    let mut list: Vec<PoolOptions> = options.gpus.iter().map(alone).collect();
    if options.cpu_threads > 0 {
        list.extend(isas.iter().map(cpu));
    }
    if options.gpus.len() + usize::from(options.cpu_threads > 0) > 1 {
        list.push(options.clone());
    }
    list
}

impl Rate {
    /// For people.
    pub fn show(&self) -> String {
        format!(
            "{:<14} {:>3} threads  {:>9.0} labels/s  {:>8.3} MiB/s  {:>8.1} days per TiB  {:>10} scratch + at most {} MiB{}  (N = {})",
            self.device,
            self.threads,
            self.labels_per_second,
            self.mib_per_second,
            self.days_per_tib,
            show_size(self.scratch_bytes),
            if self.gpu_bytes > 0 { 320 } else { 64 },
            if self.gpu_bytes > 0 { format!(", {} of GPUs", show_size(self.gpu_bytes)) } else { String::new() },
            self.scrypt_n
        )
    }
}

/// What fits on a disk and how long it takes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// The network.
    pub preset: String,
    /// Bytes of the disk.
    pub disk_bytes: u64,
    /// Bytes of one unit.
    pub unit_bytes: u64,
    /// Units that fit, within what the network allows; 0 when the disk is too small.
    pub num_units: u32,
    /// Bytes of these units.
    pub data_bytes: u64,
    /// Measured labels per second.
    pub labels_per_second: f64,
    /// Seconds to initialise.
    pub init_seconds: f64,
    /// MiB per second that the disk was assumed to read.
    pub read_mib_per_second: f64,
    /// Seconds to read all data once, which is what a proof takes at least.
    pub prove_seconds: f64,
    /// Seconds of the window in which a proof must be made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_seconds: Option<u64>,
    /// MiB per second needed to read all data once inside the window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needed_mib_per_second: Option<f64>,
}

/// Plans for a disk of `disk_bytes` (post.md sections 12.5 and 21).
pub fn plan(preset: Preset, params: &Params, disk_bytes: u64, rate: f64, read_mib_per_second: f64) -> Result<Plan, Error> {
    let unit_bytes = params
        .unit_bytes()
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| Error::Usage("a unit of that many labels is impossible".to_owned()))?;
    let fit = u32::try_from(disk_bytes / unit_bytes).unwrap_or(u32::MAX).min(params.max_num_units.0);
    let num_units = if fit < params.min_num_units.0 { 0 } else { fit };
    let data_bytes = u64::from(num_units) * unit_bytes;
    let mib = data_bytes as f64 / (1 << 20) as f64;
    Ok(Plan {
        preset: preset.to_string(),
        disk_bytes,
        unit_bytes,
        num_units,
        data_bytes,
        labels_per_second: rate,
        init_seconds: (data_bytes / LABEL_BYTES) as f64 / rate,
        read_mib_per_second,
        prove_seconds: mib / read_mib_per_second,
        window_seconds: params.proving_window,
        needed_mib_per_second: params.proving_window.map(|window| mib / window as f64),
    })
}

impl Plan {
    /// For people.
    pub fn show(&self, params: &Params) -> String {
        if self.num_units == 0 {
            return format!(
                "{} hold {} units of {}; {} needs at least {}",
                show_size(self.disk_bytes),
                self.disk_bytes / self.unit_bytes,
                show_size(self.unit_bytes),
                self.preset,
                params.min_num_units
            );
        }
        let mut text = format!(
            "{} units of {} fit: {} of {}\ninitialise: {} at {:.0} labels/s\nprove:      {} per pass if the disk reads {:.0} MiB/s",
            self.num_units,
            show_size(self.unit_bytes),
            show_size(self.data_bytes),
            show_size(self.disk_bytes),
            show_duration(self.init_seconds),
            self.labels_per_second,
            show_duration(self.prove_seconds),
            self.read_mib_per_second,
        );
        if let (Some(window), Some(needed)) = (self.window_seconds, self.needed_mib_per_second) {
            let window = show_duration(window as f64);
            // Writing to a String cannot fail.
            let _ = write!(text, "; the window of {window} needs at least {needed:.1} MiB/s");
            if needed > self.read_mib_per_second {
                text += " — too slow: spread the data over more disks or take fewer units";
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_counts_whole_units_within_the_limits() {
        let params = Preset::Mainnet.params();
        let plan = |bytes| super::plan(Preset::Mainnet, &params, bytes, 1e6, 100.0).unwrap();
        assert_eq!(plan(1 << 40).num_units, 16);
        assert_eq!(plan((1 << 40) - 1).num_units, 15);
        assert_eq!(plan(255 << 30).num_units, 0);
        // post.md section 21: 4 units at 1 M labels/s take 4.8 h; section 12.5: at least 6.1 MiB/s
        let four = plan(256 << 30);
        assert!((four.init_seconds / 3600.0 - 4.77).abs() < 0.01);
        assert!((four.needed_mib_per_second.unwrap() - 6.07).abs() < 0.01);
        assert!(plan(255 << 30).show(&params).contains("at least 4"));
    }
}
