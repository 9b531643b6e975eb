//! Which devices to use: what `--backend`, `--devices` and `--with-cpu` mean.

use std::sync::Arc;

use kernels::label::{DeviceError, DeviceKind};

use crate::{
    error::Error,
    gpu::{DeviceId, Found, Gpu},
    pool::{Open, Source},
    tuning::{Cache, for_use},
};

/// What to compute on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// All graphics processors; the processor if there is none.
    Auto,
    /// The processor.
    Cpu,
    /// Graphics processors through Vulkan, Metal or DirectX 12, software ones included.
    Wgpu,
    /// Graphics processors through CUDA.
    Cuda,
    /// Everything there is.
    All,
}

impl Backend {
    fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Wgpu => "wgpu",
            Self::Cuda => "cuda",
            Self::All => "all",
        }
    }

    /// Whether it reaches a graphics processor in this way.
    fn reaches(self, gpu: &Gpu) -> bool {
        match self {
            Self::Auto | Self::All => true,
            Self::Cpu => false,
            Self::Wgpu => !gpu.is_cuda(),
            Self::Cuda => gpu.is_cuda(),
        }
    }
}

/// What was chosen.
#[derive(Debug, Clone)]
pub struct Choice {
    /// Each graphics processor once.
    pub gpus: Vec<Gpu>,
    /// Whether the processor computes, too.
    pub cpu: bool,
}

/// Chooses from what `find` finds, which is asked only if that matters. `named` are devices by name; none means those of the
/// backend.
pub fn choose(backend: Backend, named: &[DeviceId], with_cpu: bool, find: impl FnOnce() -> Found) -> Result<Choice, Error> {
    let cpu = with_cpu || named.contains(&DeviceId::Cpu);
    let names_gpus = named.iter().any(|id| *id != DeviceId::Cpu);
    if !names_gpus && (backend == Backend::Cpu || !named.is_empty()) {
        return Ok(Choice { gpus: Vec::new(), cpu: true });
    }
    let found = find();
    if names_gpus {
        for id in named.iter().filter(|id| **id != DeviceId::Cpu) {
            let mut ways = found.gpus.iter().filter(|gpu| gpu.is(id)).peekable();
            if ways.peek().is_none() {
                return Err(Error::Usage(format!("there is no device {id}; `post-init devices` lists those of this machine")));
            }
            if !ways.any(|gpu| backend.reaches(gpu)) {
                return Err(Error::Usage(format!("--backend {} does not reach device {id}", backend.name())));
            }
        }
        let gpus = found.once(|gpu| backend.reaches(gpu) && named.iter().any(|id| gpu.is(id)));
        return Ok(Choice { gpus, cpu });
    }
    let gpus = found.once(|gpu| backend.reaches(gpu) && (backend != Backend::Auto || !gpu.is_software()));
    match backend {
        Backend::Auto => Ok(Choice { cpu: cpu || gpus.is_empty(), gpus }),
        Backend::Wgpu | Backend::Cuda if gpus.is_empty() => {
            let absent = found.absent(backend.name());
            Err(Error::NoBackend {
                backend: backend.name(),
                why: absent.map_or_else(|| "it reaches no device".to_owned(), |absent| absent.why.clone()),
                advice: absent.map_or_else(|| "Use --backend auto.".to_owned(), |absent| absent.advice.clone()),
            })
        }
        Backend::Wgpu | Backend::Cuda => Ok(Choice { gpus, cpu }),
        Backend::Cpu | Backend::All => Ok(Choice { gpus, cpu: true }),
    }
}

/// A graphics processor for the pool: opened with the parameters that suit it, which are found first where they are not known.
pub fn source(gpu: Gpu, cache: Cache) -> Source {
    let info = gpu.info().clone();
    let name = format!("{} {} ({})", gpu.id(), info.name, info.backend);
    let kind = if gpu.is_cuda() { DeviceKind::Cuda } else { DeviceKind::Wgpu };
    let open: Open = Arc::new(move |n, stop, report| {
        let tuned = for_use(&gpu, n, &cache, stop, report).map_err(|error| match error {
            Error::Device { source, .. } => source,
            other => DeviceError::Failed(other.to_string()),
        })?;
        gpu.open(n, &tuned.tuning)
    });
    Source { name, kind, gpu: Some(info), open }
}

#[cfg(test)]
mod tests {
    use kernels::label::gpu::GpuClass;

    use super::*;
    use crate::gpu::{Absent, fake::fake};

    fn gpu(id: usize, backend: &str, class: GpuClass) -> Gpu {
        let place = id.to_string();
        let pci = (class != GpuClass::Software).then_some(place.as_str());
        Gpu::new(id, fake(backend, &place, pci, class, |_| Err(DeviceError::Unavailable("fake".into()))))
    }

    /// An NVIDIA card seen twice, one of another vendor, software.
    fn everything() -> Found {
        use GpuClass::{Discrete, Software};
        let gpus =
            vec![gpu(0, "cuda", Discrete), gpu(0, "vulkan", Discrete), gpu(1, "vulkan", Discrete), gpu(2, "vulkan", Software)];
        Found { gpus, absent: Vec::new() }
    }

    fn software() -> Found {
        let absent = |backend| Absent { backend, why: "none here".into(), advice: "Install it.".into() };
        Found { gpus: vec![gpu(0, "vulkan", GpuClass::Software)], absent: vec![absent("cuda"), absent("wgpu")] }
    }

    /// Keys of the chosen GPUs, and `cpu`.
    fn keys(found: fn() -> Found, backend: Backend, named: &[&str], with_cpu: bool) -> Result<Vec<String>, Error> {
        let named: Vec<DeviceId> = named.iter().map(|text| text.parse().unwrap()).collect();
        let choice = choose(backend, &named, with_cpu, found)?;
        let gpus = choice.gpus.iter().map(|gpu| gpu.info().key.clone());
        Ok(gpus.chain(choice.cpu.then(|| "cpu".to_owned())).collect())
    }

    #[test]
    fn backends_mean_what_the_documentation_says() {
        use Backend::{All, Auto, Cpu, Cuda, Wgpu};
        let of = |backend, named: &[&str], with_cpu| keys(everything, backend, named, with_cpu).unwrap();
        assert_eq!(of(Auto, &[], false), ["cuda:0", "vulkan:1"]);
        assert_eq!(of(Auto, &[], true), ["cuda:0", "vulkan:1", "cpu"]);
        assert_eq!(of(Wgpu, &[], false), ["vulkan:0", "vulkan:1", "vulkan:2"]);
        assert_eq!(of(Cuda, &[], true), ["cuda:0", "cpu"]);
        assert_eq!(of(All, &[], false), ["cuda:0", "vulkan:1", "vulkan:2", "cpu"]);
        assert_eq!(of(Cpu, &[], false), ["cpu"]);
        assert_eq!(of(Auto, &["0", "2", "cpu"], false), ["cuda:0", "vulkan:2", "cpu"]);
        assert_eq!(of(Auto, &["vulkan:0"], false), ["vulkan:0"]);
        assert_eq!(of(Wgpu, &["0"], false), ["vulkan:0"]);
        assert_eq!(of(Auto, &["cpu"], false), ["cpu"]);
        assert_eq!(of(Cuda, &["cpu"], false), ["cpu"]);
        for (backend, named) in [(Cuda, "1"), (Cpu, "0"), (Auto, "3")] {
            let error = keys(everything, backend, &[named], false).unwrap_err();
            assert!(matches!(&error, Error::Usage(text) if text.contains(named)), "{error}");
        }
    }

    #[test]
    fn software_is_used_only_when_asked_for_and_absence_is_told() {
        use Backend::{All, Auto, Cuda, Wgpu};
        let of = |backend, with_cpu| keys(software, backend, &[], with_cpu);
        assert_eq!(of(Auto, false).unwrap(), ["cpu"]);
        assert_eq!(of(Wgpu, false).unwrap(), ["vulkan:0"]);
        assert_eq!(of(All, false).unwrap(), ["vulkan:0", "cpu"]);
        let error = of(Cuda, true).unwrap_err();
        assert_eq!((error.exit_code(), error.advice()), (2, Some("Install it.")));
        assert!(error.to_string().contains("none here"));
    }

    #[test]
    fn nobody_looks_for_gpus_when_the_processor_is_asked_for() {
        let never = || panic!("not asked for");
        assert!(choose(Backend::Cpu, &[], false, never).unwrap().cpu);
        assert!(choose(Backend::Auto, &[DeviceId::Cpu], false, never).unwrap().cpu);
    }
}
