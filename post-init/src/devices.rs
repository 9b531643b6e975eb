//! `devices`: what labels can be computed on. Instant, nothing is run.

use std::fmt::Write as _;

use kernels::label::{
    cpu::{Cpu, Isa},
    gpu::GpuInfo,
};
use proto::post::ScryptN;
use serde::Serialize;

use crate::{
    gpu::{Absent, Found, Gpu},
    sensors::Sensors,
    size::show_size,
};

/// What `devices` tells.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Devices {
    /// Graphics processors, then the processor with each of its instruction sets.
    pub devices: Vec<Listed>,
    /// Backends that reach no GPU, and why.
    pub absent: Vec<Absent>,
}

/// Something that labels can be computed on.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Listed {
    /// A graphics processor, by one way to it.
    Gpu(ListedGpu),
    /// The processor with one instruction set.
    Cpu(ListedCpu),
}

/// A graphics processor, by one way to it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ListedGpu {
    /// What `--devices` calls it; the same number is the same piece of hardware.
    pub id: String,
    /// What its driver says of it; its key names this way to it, for `--devices`.
    #[serde(flatten)]
    pub info: GpuInfo,
    /// Degrees Celsius.
    pub celsius: Option<f64>,
    /// Watts drawn.
    pub watts: Option<f64>,
    /// Whether it is taken when nothing else is asked for.
    pub default: bool,
}

/// The processor with one instruction set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListedCpu {
    /// What `--devices` calls it.
    pub id: &'static str,
    /// Its name.
    pub name: String,
    /// `cpu`.
    pub backend: &'static str,
    /// Instruction set.
    pub isa: String,
    /// Threads of the machine.
    pub threads: usize,
    /// Scratch memory per thread at N = 8192.
    pub scratch_bytes_per_thread: u64,
    /// Whether it is taken when nothing else is asked for.
    pub default: bool,
}

/// Lists everything.
pub fn devices(found: &Found, sensors: &dyn Sensors) -> Devices {
    let chosen = found.once(|gpu| !gpu.is_software());
    let gpu = |gpu: &Gpu| {
        let mut info = gpu.info().clone();
        let reading = sensors.read(&info).unwrap_or_default();
        info.free = reading.free.or(info.free);
        Listed::Gpu(ListedGpu {
            id: gpu.id().to_string(),
            default: chosen.iter().any(|other| other.info().key == info.key),
            info,
            celsius: reading.celsius,
            watts: reading.watts,
        })
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let cpu = |isa: Isa| {
        Listed::Cpu(ListedCpu {
            id: "cpu",
            name: format!("cpu {isa}"),
            backend: "cpu",
            isa: isa.to_string(),
            threads,
            scratch_bytes_per_thread: Cpu::scratch_bytes(isa, ScryptN::MAINNET),
            default: chosen.is_empty() && isa == Isa::best(),
        })
    };
    let devices = found.gpus.iter().map(gpu).chain(Isa::available().into_iter().rev().map(cpu)).collect();
    Devices { devices, absent: found.absent.clone() }
}

impl Devices {
    /// For people.
    pub fn show(&self) -> String {
        let mut text = String::new();
        for device in &self.devices {
            let (line, default) = match device {
                Listed::Gpu(gpu) => (gpu.show(), gpu.default),
                Listed::Cpu(cpu) => (cpu.show(), cpu.default),
            };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{line}{}", if default { "  (default)" } else { "" });
        }
        for Absent { backend, why, advice } in &self.absent {
            let _ = writeln!(text, "no GPU through {backend}: {why}. {advice}");
        }
        text.trim_end().to_owned()
    }
}

impl ListedGpu {
    fn show(&self) -> String {
        let GpuInfo { key, name, class, driver, memory, free, .. } = &self.info;
        let facts = [
            Some(class.to_string()),
            memory.map(show_size),
            free.map(|free| format!("{} free", show_size(free))),
            self.celsius.map(|celsius| format!("{celsius:.0} °C")),
            self.watts.map(|watts| format!("{watts:.0} W")),
            Some(format!("driver {driver}")),
        ];
        format!("{:<4} {name}: {}  [{key}]", self.id, facts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

impl ListedCpu {
    fn show(&self) -> String {
        let Self { id, name, threads, .. } = self;
        format!("{id:<4} {name:<14} {threads:>3} threads, {} per thread at N = 8192", show_size(self.scratch_bytes_per_thread))
    }
}

#[cfg(test)]
mod tests {
    use kernels::label::{DeviceError, gpu::GpuClass};

    use super::*;
    use crate::{gpu::fake::fake_gpu, sensors::Reading};

    struct Warm;

    impl Sensors for Warm {
        fn read(&self, gpu: &GpuInfo) -> Option<Reading> {
            (gpu.class == GpuClass::Discrete).then_some(Reading { celsius: Some(61.0), watts: None, free: Some(5 << 30) })
        }
    }

    #[test]
    fn gpus_are_the_default_where_there_are_some() {
        let lost = |_| Err(DeviceError::Lost("never opened".into()));
        let (hardware, software) = (fake_gpu(0, GpuClass::Discrete, lost), fake_gpu(1, GpuClass::Software, lost));
        let absent = vec![Absent { backend: "cuda", why: "no CUDA driver".into(), advice: "Install it.".into() }];
        let defaults = |gpus: Vec<Gpu>| {
            let listed = devices(&Found { gpus, absent: absent.clone() }, &Warm);
            let text = listed.show();
            assert!(text.contains("no GPU through cuda: no CUDA driver. Install it."), "{text}");
            let value = serde_json::to_value(&listed).unwrap();
            let list = value["devices"].as_array().unwrap().clone();
            let names: Vec<String> =
                list.iter().filter(|d| d["default"] == true).map(|d| d["id"].as_str().unwrap().into()).collect();
            (names, text)
        };
        let (names, text) = defaults(vec![hardware, software.clone()]);
        assert_eq!(names, ["0"]);
        assert!(text.contains("discrete, 5.0 GiB free, 61 °C, driver 1.0  [vulkan:0000:00:00.0]  (default)"), "{text}");
        assert_eq!(defaults(vec![software]).0, ["cpu"]);
        assert_eq!(defaults(vec![]).0, ["cpu"]);
    }
}
