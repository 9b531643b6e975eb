//! Finds the graphics processors of this machine and opens them, whatever backend reaches them.
//!
//! Looking is instant: drivers are asked what there is, nothing is run. A backend whose driver is absent is no error: what is absent
//! is told in words, with what to do about it. With both backends left out of the build everything here still works and finds nothing.

use std::{
    cmp::Reverse,
    fmt,
    str::FromStr,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use kernels::label::{
    Device, DeviceError,
    gpu::{Ceiling, GpuClass, GpuInfo, Tuning, each_once},
};
use proto::post::ScryptN;
use serde::Serialize;

use crate::{error::Error, stop::Stop};

/// One way to one graphics processor: what a backend found.
pub trait Adapter: fmt::Debug + Send + Sync {
    /// What it is.
    fn info(&self) -> &GpuInfo;
    /// What to start with before it is tuned.
    fn default_tuning(&self) -> Tuning;
    /// Names the kernels it would run.
    fn kernel_version(&self) -> String;
    /// What it can do at most, where the driver tells enough.
    fn ceiling(&self) -> Option<Ceiling> {
        None
    }
    /// Makes it ready for labels of this cost; memory for labels is taken at the first use.
    fn open(&self, n: ScryptN, tuning: Tuning) -> Result<Box<dyn Device>, DeviceError>;
    /// Looks for the same device anew, as after a restart of its driver.
    fn again(&self) -> Option<Arc<dyn Adapter>> {
        None
    }
}

/// The part of [`Adapter`] that all backends of `kernels` answer alike.
#[cfg(any(feature = "cuda", feature = "wgpu"))]
macro_rules! adapter {
    ($backend:ident $(, $ceiling:ident)?) => {
        impl Adapter for kernels::label::$backend::Adapter {
            fn info(&self) -> &GpuInfo {
                self.info()
            }
            fn default_tuning(&self) -> Tuning {
                self.default_tuning()
            }
            fn kernel_version(&self) -> String {
                kernels::label::$backend::kernel_version()
            }
            $(fn $ceiling(&self) -> Option<Ceiling> {
                self.$ceiling()
            })?
            fn open(&self, n: ScryptN, tuning: Tuning) -> Result<Box<dyn Device>, DeviceError> {
                Ok(Box::new(self.open(n, tuning)?))
            }
            fn again(&self) -> Option<Arc<dyn Adapter>> {
                let found = kernels::label::$backend::enumerate().ok()?;
                let same = found.into_iter().find(|other| other.info().key == self.info().key)?;
                Some(Arc::new(same))
            }
        }
    };
}
#[cfg(feature = "cuda")]
adapter!(cuda, ceiling);
#[cfg(feature = "wgpu")]
adapter!(wgpu);

/// A graphics processor, reached in one way. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Gpu {
    id: usize,
    adapter: Arc<dyn Adapter>,
}

impl Gpu {
    /// With a number of its own.
    pub fn new(id: usize, adapter: Arc<dyn Adapter>) -> Self {
        Self { id, adapter }
    }

    /// Its number among those of this machine, the same for all backends that reach it.
    pub fn id(&self) -> usize {
        self.id
    }

    /// What it is.
    pub fn info(&self) -> &GpuInfo {
        self.adapter.info()
    }

    /// Whether these words name it.
    pub fn is(&self, id: &DeviceId) -> bool {
        match id {
            DeviceId::Cpu => false,
            DeviceId::Number(number) => self.id == *number,
            DeviceId::Key(key) => self.info().key == *key,
        }
    }

    /// Whether it is a program that plays GPU on the processor.
    pub fn is_software(&self) -> bool {
        self.info().class == GpuClass::Software
    }

    /// Whether it is reached through CUDA.
    pub fn is_cuda(&self) -> bool {
        self.info().backend == "cuda"
    }

    /// What to start with before it is tuned.
    pub fn default_tuning(&self) -> Tuning {
        self.adapter.default_tuning()
    }

    /// What it can do at most, where the driver tells enough.
    pub fn ceiling(&self) -> Option<Ceiling> {
        self.adapter.ceiling()
    }

    /// What its tuning is kept under: another device, driver, kernel or cost may want another one.
    pub fn tuning_key(&self, n: ScryptN) -> String {
        format!("{} | N = {n}", self.info().tuning_key(&self.adapter.kernel_version()))
    }

    /// Makes it ready for labels. When its driver has restarted since it was found, it is looked for again.
    pub fn open(&self, n: ScryptN, tuning: &Tuning) -> Result<Box<dyn Device>, DeviceError> {
        match self.adapter.open(n, *tuning) {
            Err(first @ (DeviceError::Lost(_) | DeviceError::Failed(_))) => {
                self.adapter.again().map_or(Err(first), |adapter| adapter.open(n, *tuning))
            }
            opened => opened,
        }
    }
}

/// How a device is named on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceId {
    /// The processor, all its threads.
    Cpu,
    /// A graphics processor by its number.
    Number(usize),
    /// A graphics processor and the way to it, by the key that `post-init devices` shows.
    Key(String),
}

impl FromStr for DeviceId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "cpu" => Ok(Self::Cpu),
            key if key.contains(':') => Ok(Self::Key(key.to_owned())),
            number => number
                .parse()
                .map(Self::Number)
                .map_err(|_| format!("{number:?} names no device; `cpu`, numbers and keys as `post-init devices` shows them do")),
        }
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Number(number) => number.fmt(f),
            Self::Key(key) => f.write_str(key),
        }
    }
}

/// A backend that reaches no graphics processor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Absent {
    /// `cuda` or `wgpu`.
    pub backend: &'static str,
    /// What is missing.
    pub why: String,
    /// What to do about it, one sentence.
    pub advice: String,
}

/// What there is and what not.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Every way to every graphics processor, software ones last; those with the same number are the same piece of hardware.
    pub gpus: Vec<Gpu>,
    /// The backends that reach none.
    pub absent: Vec<Absent>,
}

impl Found {
    /// Numbers what the backends found.
    fn new(mut adapters: Vec<Arc<dyn Adapter>>, absent: Vec<Absent>) -> Self {
        // The same order each time: by place in the machine, software behind hardware.
        adapters.sort_by_key(|adapter| {
            let info = adapter.info();
            (info.class == GpuClass::Software, Reverse(info.pci.is_some()), info.pci.clone(), info.key.clone())
        });
        let infos: Vec<GpuInfo> = adapters.iter().map(|adapter| adapter.info().clone()).collect();
        let first_ways = each_once(&infos);
        let number = |i: usize| {
            let same = |way: &usize| infos[*way].is_same_device(&infos[i]);
            let alike = |way: &usize| infos[*way].backend != infos[i].backend && infos[*way].name == infos[i].name;
            let position = |what: &dyn Fn(&usize) -> bool| first_ways.iter().position(what);
            // DirectX tells no place, so there a name has to do.
            position(&|way| *way == i).or_else(|| position(&same)).or_else(|| position(&alike)).unwrap_or(i)
        };
        let numbers: Vec<usize> = (0..infos.len()).map(number).collect();
        let gpus = numbers.into_iter().zip(adapters).map(|(id, adapter)| Gpu::new(id, adapter)).collect();
        Self { gpus, absent }
    }

    /// Of the wanted ways one to each piece of hardware, CUDA before the others.
    pub fn once(&self, wanted: impl Fn(&Gpu) -> bool) -> Vec<Gpu> {
        let gpus: Vec<&Gpu> = self.gpus.iter().filter(|gpu| wanted(gpu)).collect();
        let infos: Vec<GpuInfo> = gpus.iter().map(|gpu| gpu.info().clone()).collect();
        each_once(&infos).into_iter().map(|i| gpus[i].clone()).collect()
    }

    /// What a backend lacks, if it does.
    pub fn absent(&self, backend: &str) -> Option<&Absent> {
        self.absent.iter().find(|absent| absent.backend == backend)
    }
}

/// Asks the drivers of all backends what there is.
pub fn find() -> Found {
    let mut adapters: Vec<Arc<dyn Adapter>> = Vec::new();
    let mut absent = Vec::new();
    match cuda() {
        Ok(found) => adapters.extend(found),
        Err(missing) => absent.push(missing),
    }
    match wgpu() {
        Ok(found) => {
            if found.iter().all(|adapter| adapter.info().class == GpuClass::Software) {
                absent.push(Absent {
                    backend: "wgpu",
                    why: "no Vulkan, Metal or DirectX 12 driver serves a GPU, only software on the processor does".into(),
                    advice: DRIVER.into(),
                });
            }
            adapters.extend(found);
        }
        Err(missing) => absent.push(missing),
    }
    Found::new(adapters, absent)
}

const DRIVER: &str = "If this machine has a GPU, install its driver (mesa-vulkan-drivers for AMD and Intel, NVIDIA's own for NVIDIA); \
                      `post-init doctor` tells more.";

/// What a backend found, or why it found nothing.
type Adapters = Result<Vec<Arc<dyn Adapter>>, Absent>;

#[cfg(feature = "cuda")]
fn cuda() -> Adapters {
    use kernels::label::cuda::{Missing, enumerate};
    let advice = |missing: &Missing| match missing {
        Missing::Library(_) => "If this machine has an NVIDIA GPU, install NVIDIA's driver; `post-init doctor` tells more.",
        Missing::Driver(_) => "Restart the machine; if that does not help, install NVIDIA's driver again.",
        Missing::Device => "If there is an NVIDIA GPU, `post-init doctor` tells why the driver may not see it.",
    };
    let missing = |missing: Missing| Absent { backend: "cuda", why: missing.to_string(), advice: advice(&missing).into() };
    Ok(enumerate().map_err(missing)?.into_iter().map(|adapter| Arc::new(adapter) as _).collect())
}

#[cfg(not(feature = "cuda"))]
fn cuda() -> Adapters {
    Err(left_out("cuda"))
}

#[cfg(feature = "wgpu")]
fn wgpu() -> Adapters {
    use kernels::label::wgpu::{Missing, enumerate};
    let advice = |missing: &Missing| match missing {
        Missing::Loader(_) => "Install it (libvulkan1 on Debian and Ubuntu, vulkan-loader on Fedora) and the driver of the GPU.",
        Missing::Driver => DRIVER,
    };
    let missing = |missing: Missing| Absent { backend: "wgpu", why: missing.to_string(), advice: advice(&missing).into() };
    Ok(enumerate().map_err(missing)?.into_iter().map(|adapter| Arc::new(adapter) as _).collect())
}

#[cfg(not(feature = "wgpu"))]
fn wgpu() -> Adapters {
    Err(left_out("wgpu"))
}

#[cfg(not(all(feature = "cuda", feature = "wgpu")))]
fn left_out(backend: &'static str) -> Absent {
    let advice = format!("Build post-init with its feature {backend}.");
    Absent { backend, why: "it was left out when this program was built".into(), advice }
}

/// Runs what waits for a driver, and therefore cannot be interrupted, on a thread of its own. It is left behind after `patience`, and
/// when asked to stop. `tick` is called several times a second.
pub(crate) fn apart<T: Send + 'static>(
    stop: &Stop,
    patience: Duration,
    tick: &mut dyn FnMut(),
    work: impl FnOnce() -> Result<T, DeviceError> + Send + 'static,
) -> Result<Result<T, DeviceError>, Error> {
    let started = Instant::now();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        // Nobody may be listening any more.
        let _ = sender.send(work());
    });
    loop {
        stop.check()?;
        let answer = receiver.recv_timeout(Duration::from_millis(50));
        tick();
        match answer {
            Ok(result) => return Ok(result),
            Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(Err(DeviceError::Failed("its driver gave up".into()))),
            Err(mpsc::RecvTimeoutError::Timeout) if started.elapsed() > patience => {
                return Ok(Err(DeviceError::Hung { seconds: patience.as_secs() }));
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
    }
}

#[cfg(test)]
pub(crate) mod fake {
    //! Devices that are not there.

    use super::*;

    /// What opens a device.
    type Open = fn(Tuning) -> Result<Box<dyn Device>, DeviceError>;

    #[derive(Debug)]
    struct Fake(GpuInfo, Open);

    impl Adapter for Fake {
        fn info(&self) -> &GpuInfo {
            &self.0
        }
        fn default_tuning(&self) -> Tuning {
            Tuning::GPU
        }
        fn kernel_version(&self) -> String {
            "fake".into()
        }
        fn open(&self, _: ScryptN, tuning: Tuning) -> Result<Box<dyn Device>, DeviceError> {
            (self.1)(tuning)
        }
    }

    /// An adapter that a backend might have found.
    pub(crate) fn fake(backend: &str, name: &str, pci: Option<&str>, class: GpuClass, open: Open) -> Arc<dyn Adapter> {
        let info = GpuInfo {
            key: format!("{backend}:{}", pci.unwrap_or(name)),
            name: name.into(),
            backend: backend.into(),
            class,
            driver: "1.0".into(),
            memory: None,
            free: None,
            pci: pci.map(Into::into),
            uuid: None,
        };
        Arc::new(Fake(info, open))
    }

    /// A device of this number, in a place of its own.
    pub(crate) fn fake_gpu(id: usize, class: GpuClass, open: Open) -> Gpu {
        Gpu::new(id, fake("vulkan", "A", Some(&format!("0000:{id:02x}:00.0")), class, open))
    }
}

#[cfg(test)]
mod tests {
    use super::{fake::fake, *};

    #[test]
    fn hardware_has_one_number_and_the_order_is_the_same_each_time() {
        use GpuClass::{Discrete, Software};
        let (one, two) = (Some("0000:01:00.0"), Some("0000:0a:00.0"));
        let lost = |_| Err(DeviceError::Lost("never opened".into()));
        let mut adapters = vec![
            fake("vulkan", "llvmpipe", None, Software, lost),
            fake("vulkan", "B", two, Discrete, lost),
            fake("vulkan", "A", one, Discrete, lost),
            fake("cuda", "A", one, Discrete, lost),
            fake("dx12", "B", None, Discrete, lost),
        ];
        for _ in 0..adapters.len() {
            adapters.rotate_left(1);
            let found = Found::new(adapters.clone(), Vec::new());
            let ids: Vec<(usize, &str)> = found.gpus.iter().map(|gpu| (gpu.id(), gpu.info().key.as_str())).collect();
            let expected = [
                (0, "cuda:0000:01:00.0"),
                (0, "vulkan:0000:01:00.0"),
                (1, "vulkan:0000:0a:00.0"),
                (1, "dx12:B"),
                (2, "vulkan:llvmpipe"),
            ];
            assert_eq!(ids, expected);
            let keys = |gpus: Vec<Gpu>| gpus.iter().map(|gpu| gpu.info().key.clone()).collect::<Vec<_>>();
            assert_eq!(keys(found.once(|gpu| !gpu.is_software())), ["cuda:0000:01:00.0", "vulkan:0000:0a:00.0"]);
            let vulkan = found.once(|gpu| !gpu.is_cuda() && !gpu.is_software());
            assert_eq!(keys(vulkan), ["vulkan:0000:01:00.0", "vulkan:0000:0a:00.0"]);
            let id: DeviceId = "vulkan:0000:01:00.0".parse().unwrap();
            assert_eq!(found.gpus.iter().filter(|gpu| gpu.is(&id)).count(), 1);
            assert_eq!(found.gpus.iter().filter(|gpu| gpu.is(&DeviceId::Number(0))).count(), 2);
        }
    }

    #[test]
    fn devices_have_names() {
        assert_eq!("cpu".parse(), Ok(DeviceId::Cpu));
        assert_eq!(" 2".parse(), Ok(DeviceId::Number(2)));
        for good in ["cpu", "7", "cuda:0000:01:00.0"] {
            assert_eq!(good.parse::<DeviceId>().unwrap().to_string(), good);
        }
        for bad in ["", "gpu", "-1", "1.5"] {
            assert!(bad.parse::<DeviceId>().is_err(), "{bad}");
        }
    }

    /// Whatever this machine has: looking does not fail, and a backend without a GPU says why.
    #[test]
    fn looking_always_gives_an_answer() {
        let found = find();
        for backend in ["cuda", "wgpu"] {
            let hardware = found.gpus.iter().any(|gpu| gpu.is_cuda() == (backend == "cuda") && !gpu.is_software());
            assert_eq!(found.absent(backend).is_none(), hardware, "{found:?}");
        }
        assert!(found.absent.iter().all(|absent| !absent.why.is_empty() && absent.advice.ends_with('.')));
    }
}
