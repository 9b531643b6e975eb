//! The commands about devices: `devices`, `doctor`, `tune`, and `bench --roofline`.

use std::time::Duration;

use clap::Args;
use kernels::label::gpu::{Measured, Tuning};
use post_init::{
    devices::devices,
    doctor::doctor,
    error::Error,
    gpu::{DeviceId, Found, Gpu, find},
    roofline::{GAPS, Peak, measure},
    select::choose,
    sensors::System,
    stop::Stop,
    tuning::{Cache, tune},
};
use serde_json::json;

use super::{BenchArgs, NetworkArgs, parse_positive, print};

#[derive(Debug, Args)]
pub(super) struct DevicesArgs {
    /// Write JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl DevicesArgs {
    pub(super) fn run(&self) {
        let list = devices(&find(), &System::open());
        print(&if self.json { json!(list).to_string() } else { list.show() });
    }
}

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Write JSON lines to standard output
    #[arg(long)]
    pub(super) json: bool,
}

impl DoctorArgs {
    pub(super) fn run(&self, stop: &Stop) -> Result<(), Error> {
        doctor(&find(), &System::open(), stop, &mut |finding| {
            print(&if self.json { json!(finding).to_string() } else { finding.show() });
        })
    }
}

#[derive(Debug, Args)]
pub(super) struct TuneArgs {
    /// Only these, as `post-init devices` names them: `0,2` [default: all but software]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    devices: Vec<DeviceId>,
    /// Seconds per device, about
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    #[command(flatten)]
    network: NetworkArgs,
    /// Write JSON lines to standard output
    #[arg(long)]
    pub(super) json: bool,
}

impl TuneArgs {
    pub(super) fn run(&self, stop: &Stop) -> Result<(), Error> {
        let n = self.network.scrypt_n.unwrap_or(self.network.preset.params().scrypt_n);
        let cache = Cache::of_user();
        for gpu in self.chosen(&find())? {
            let tuned = tune(&gpu, n, Duration::from_secs(self.seconds), stop, &mut |trial| self.show("trial", &gpu, trial))?;
            self.show("tuned", &gpu, &Measured { tuning: tuned.tuning, result: Ok(tuned.labels_per_second) });
            let file = cache.path().unwrap_or("the cache of the user".as_ref());
            cache.put(&gpu, n, &tuned).map_err(|source| Error::Io { action: "keep the tuning in", path: file.into(), source })?;
        }
        Ok(())
    }

    /// The devices asked for; each way to one that has several.
    fn chosen(&self, found: &Found) -> Result<Vec<Gpu>, Error> {
        if self.devices.is_empty() {
            let gpus: Vec<Gpu> = found.gpus.iter().filter(|gpu| !gpu.is_software()).cloned().collect();
            if gpus.is_empty() {
                return Err(Error::Usage("there is no GPU to tune; `post-init doctor` tells why".to_owned()));
            }
            return Ok(gpus);
        }
        let mut chosen = Vec::new();
        for id in &self.devices {
            let ways: Vec<Gpu> = found.gpus.iter().filter(|gpu| gpu.is(id)).cloned().collect();
            if ways.is_empty() {
                return Err(Error::Usage(format!("device {id} is no GPU of this machine; `post-init devices` lists them")));
            }
            chosen.extend(ways);
        }
        Ok(chosen)
    }

    fn show(&self, event: &str, gpu: &Gpu, trial: &Measured) {
        let key = &gpu.info().key;
        let error = trial.result.as_ref().err().map(ToString::to_string);
        if self.json {
            let rate = trial.result.as_ref().ok();
            let line = json!({"event": event, "device": key, "tuning": trial.tuning, "labels_per_second": rate, "error": error});
            return print(&line.to_string());
        }
        let Tuning { gap, group, movers, lanes, .. } = trial.tuning;
        let result = trial.result.as_ref().map_or_else(ToString::to_string, |rate| format!("{rate:.0} labels/s"));
        print(&format!("{event} {key}: gap {gap}, groups of {group}, {movers} movers, {lanes} in flight: {result}"));
    }
}

#[derive(Debug, Args)]
pub(super) struct RooflineArgs {
    /// Tell what a label costs with each lookup gap, the most each GPU can make, and the share of it that it does make
    #[arg(long)]
    roofline: bool,
    /// Lookup gaps to measure [default: 1,2,3,4,8]
    #[arg(long, value_name = "LIST", value_delimiter = ',', requires = "roofline", value_parser = clap::value_parser!(u32).range(1..=64))]
    gaps: Vec<u32>,
    /// Labels to make with each gap at least
    #[arg(long, value_name = "N", requires = "roofline", default_value = "0")]
    labels: u64,
    /// Integer operations that the GPU does at most, in 10^12 per second [default: by what its driver tells]
    #[arg(long, value_name = "TERA", requires = "roofline", value_parser = parse_positive)]
    peak_operations: Option<f64>,
    /// Bytes that the memory of the GPU moves at most, in 10^9 per second [default: by what its driver tells]
    #[arg(long, value_name = "GIGA", requires = "roofline", value_parser = parse_positive)]
    peak_bandwidth: Option<f64>,
}

impl RooflineArgs {
    pub(super) fn is_wanted(&self) -> bool {
        self.roofline
    }

    pub(super) fn run(&self, bench: &BenchArgs, stop: &Stop) -> Result<(), Error> {
        let n = bench.network.scrypt_n.unwrap_or(bench.network.preset.params().scrypt_n);
        let found = find();
        let gpus = choose(bench.devices.backend.into(), &bench.devices.devices, false, || found.clone())?.gpus;
        if gpus.is_empty() {
            let why = "there is no GPU to measure: `post-init doctor` tells why; --backend wgpu measures software";
            return Err(Error::Usage(why.to_owned()));
        }
        let peak = Peak {
            operations_per_second: self.peak_operations.map(|tera| tera * 1e12),
            bytes_per_second: self.peak_bandwidth.map(|giga| giga * 1e9),
        };
        let gaps = if self.gaps.is_empty() { &GAPS[..] } else { &self.gaps };
        let (cache, time) = (Cache::of_user(), Duration::from_secs(bench.seconds));
        for gpu in gpus {
            let usual = cache.get(&gpu, n).map_or_else(|| gpu.default_tuning(), |tuned| tuned.tuning);
            for (i, gap) in gaps.iter().enumerate() {
                let tuning = Tuning { gap: *gap, ..usual };
                let row = measure(&gpu, peak.of(&gpu, &found), n, tuning, time, self.labels, stop)?;
                match (bench.json, i) {
                    (true, _) => print(&json!(row).to_string()),
                    (false, 0) => print(&format!("{}\n{}", row.head(), row.show())),
                    (false, _) => print(&row.show()),
                }
            }
        }
        Ok(())
    }
}
