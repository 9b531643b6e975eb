//! The commands about devices: `devices`, `doctor`, `tune`.

use std::time::Duration;

use clap::Args;
use kernels::label::gpu::Measured;
use post_init::{
    devices::devices,
    doctor::doctor,
    error::Error,
    gpu::{DeviceId, Found, Gpu, find},
    sensors::System,
    stop::Stop,
    tuning::{Cache, tune},
};
use serde_json::json;

use super::{NetworkArgs, print};

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
        let kernels::label::gpu::Tuning { gap, group, movers, lanes, .. } = trial.tuning;
        let result = trial.result.as_ref().map_or_else(ToString::to_string, |rate| format!("{rate:.0} labels/s"));
        print(&format!("{event} {key}: gap {gap}, groups of {group}, {movers} movers, {lanes} in flight: {result}"));
    }
}
