//! Temperature, power and free memory of graphics processors, where the system tells.
//!
//! NVIDIA's management library (NVML) is opened at run time if it is there. Linux drivers of AMD, Intel and others publish
//! theirs as files under `/sys`. Reading changes nothing.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use kernels::label::gpu::{GpuClass, GpuInfo};
use nvml_wrapper::{Nvml, enum_wrappers::device::TemperatureSensor};

/// What was read of one device.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Reading {
    /// Degrees Celsius of the chip.
    pub celsius: Option<f64>,
    /// Watts drawn.
    pub watts: Option<f64>,
    /// Bytes of its own memory that are free.
    pub free: Option<u64>,
}

/// Tells how a device is.
pub trait Sensors: Send + Sync {
    /// Reads now; `None` when nothing is known of this device.
    fn read(&self, gpu: &GpuInfo) -> Option<Reading>;
}

/// Path of an NVML to use instead of the system's, for tests.
const OVERRIDE: &str = "SMESH_LIBNVML";

#[cfg(windows)]
const NAMES: [&str; 2] = ["nvml.dll", r"C:\Windows\System32\nvml.dll"];
#[cfg(not(windows))]
const NAMES: [&str; 3] = ["libnvidia-ml.so.1", "libnvidia-ml.so", "/usr/lib/wsl/lib/libnvidia-ml.so.1"];

/// The sensors of this system.
#[derive(Debug)]
pub struct System {
    nvml: Option<Nvml>,
    pci: PathBuf,
}

impl System {
    /// Opens what is there; what is not there tells nothing.
    pub fn open() -> Self {
        let names = env::var_os(OVERRIDE).map_or_else(|| NAMES.map(OsString::from).to_vec(), |path| vec![path]);
        let nvml = names.iter().find_map(|name| Nvml::builder().lib_path(name).init().ok());
        Self { nvml, pci: "/sys/bus/pci/devices".into() }
    }

    fn nvml(&self, gpu: &GpuInfo) -> Option<Reading> {
        let nvml = self.nvml.as_ref()?;
        let by_uuid = gpu.uuid.and_then(|uuid| nvml.device_by_uuid(nvml_uuid(&uuid)).ok());
        let device = by_uuid.or_else(|| nvml.device_by_pci_bus_id(gpu.pci.as_deref()?).ok())?;
        Some(Reading {
            celsius: device.temperature(TemperatureSensor::Gpu).ok().map(f64::from),
            watts: device.power_usage().ok().map(|milliwatts| f64::from(milliwatts) / 1e3),
            free: device.memory_info().ok().map(|memory| memory.free),
        })
    }
}

impl Sensors for System {
    fn read(&self, gpu: &GpuInfo) -> Option<Reading> {
        if gpu.class == GpuClass::Software {
            return None;
        }
        self.nvml(gpu).or_else(|| from_files(&self.pci, gpu))
    }
}

/// `GPU-01234567-89ab-cdef-0123-456789abcdef`.
fn nvml_uuid(uuid: &[u8; 16]) -> String {
    let text = hex::encode(uuid);
    format!("GPU-{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
}

/// What a Linux driver publishes: `hwmon` in thousandths of a degree and millionths of a watt, and for AMD the use of memory.
fn from_files(pci: &Path, gpu: &GpuInfo) -> Option<Reading> {
    let device = pci.join(gpu.pci.as_deref()?);
    let number = |path: PathBuf| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let monitors: Vec<PathBuf> = fs::read_dir(device.join("hwmon")).into_iter().flatten().flatten().map(|e| e.path()).collect();
    let first = |names: &[&str]| {
        monitors.iter().flat_map(|dir| names.iter().map(move |name| dir.join(name))).find_map(number).map(|value| value as f64)
    };
    let free = || {
        // The memory of an integrated one is that of the machine; what is set apart for it says little.
        let own = gpu.class != GpuClass::Integrated;
        let total = number(device.join("mem_info_vram_total")).filter(|_| own)?;
        Some(total.saturating_sub(number(device.join("mem_info_vram_used"))?))
    };
    let reading = Reading {
        celsius: first(&["temp1_input"]).map(|value| value / 1e3),
        watts: first(&["power1_average", "power1_input"]).map(|value| value / 1e6),
        free: free(),
    };
    (reading != Reading::default()).then_some(reading)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(class: GpuClass) -> GpuInfo {
        GpuInfo {
            key: "vulkan:0000:03:00.0".into(),
            name: "A".into(),
            backend: "vulkan".into(),
            class,
            driver: String::new(),
            memory: None,
            free: None,
            pci: Some("0000:03:00.0".into()),
            uuid: None,
        }
    }

    #[test]
    fn files_of_a_driver_are_read() {
        let root = tempfile::tempdir().unwrap();
        let system = System { nvml: None, pci: root.path().into() };
        assert_eq!(system.read(&info(GpuClass::Discrete)), None);
        let device = root.path().join("0000:03:00.0");
        let monitor = device.join("hwmon/hwmon4");
        fs::create_dir_all(&monitor).unwrap();
        assert_eq!(system.read(&info(GpuClass::Discrete)), None);
        fs::write(monitor.join("temp1_input"), "56000\n").unwrap();
        fs::write(monitor.join("power1_average"), "123000000\n").unwrap();
        fs::write(device.join("mem_info_vram_total"), "8000\n").unwrap();
        fs::write(device.join("mem_info_vram_used"), "3000\n").unwrap();
        let reading = Reading { celsius: Some(56.0), watts: Some(123.0), free: Some(5000) };
        assert_eq!(system.read(&info(GpuClass::Discrete)), Some(reading));
        assert_eq!(system.read(&info(GpuClass::Integrated)), Some(Reading { free: None, ..reading }));
        assert_eq!(system.read(&info(GpuClass::Software)), None);
        // Newer cards name the momentary value only; garbage is nothing.
        fs::rename(monitor.join("power1_average"), monitor.join("power1_input")).unwrap();
        fs::write(monitor.join("temp1_input"), "hot").unwrap();
        assert_eq!(system.read(&info(GpuClass::Discrete)), Some(Reading { celsius: None, ..reading }));
    }

    #[test]
    fn nvidia_writes_identifiers_like_this() {
        let uuid = std::array::from_fn(|i| i as u8 * 17);
        assert_eq!(nvml_uuid(&uuid), "GPU-00112233-4455-6677-8899-aabbccddeeff");
    }
}
