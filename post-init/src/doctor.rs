//! `doctor`: what keeps each backend from the graphics processors of this machine, and what to do about it.
//!
//! Facts about the system are gathered first and judged afterwards, so that tests can judge machines that are not here. Every device that
//! opens makes a few labels, which are compared with the reference.

use std::{
    env, fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use kernels::label::{DeviceError, cpu::Isa, gpu::Tuning};
use proto::{
    ids::Commitment,
    post::{LABEL_BYTES, ScryptN},
};
use serde::Serialize;

use crate::{
    checker::Checker,
    error::Error,
    gpu::{Found, Gpu, apart},
    sensors::Sensors,
    stop::Stop,
};

/// How long a device may take for the first labels; drivers compile the kernels before.
const PATIENCE: Duration = Duration::from_secs(60);
/// The first driver with what the kernels need of CUDA, 11.0.
const OLDEST_NVIDIA: u32 = 450;

/// How good a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It works.
    Good,
    /// It is not there, which may be all right.
    Absent,
    /// Something that is there does not work.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// `cpu`, `cuda`, `wgpu`, or a device.
    pub about: String,
    /// How good it is.
    pub verdict: Verdict,
    /// What was found.
    pub text: String,
    /// What to do about it, where there is something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Finding {
    fn new(about: impl Into<String>, verdict: Verdict, text: impl Into<String>) -> Self {
        Self { about: about.into(), verdict, text: text.into(), advice: None }
    }

    fn advise(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }

    /// For people.
    pub fn show(&self) -> String {
        let mark = match self.verdict {
            Verdict::Good => "good",
            Verdict::Absent => "absent",
            Verdict::Bad => "BAD",
        };
        let advice = self.advice.as_ref().map(|advice| format!("\n        {advice}")).unwrap_or_default();
        format!("{mark:<7} {}: {}{advice}", self.about, self.text)
    }
}

/// Makers of graphics processors that labels can be computed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Maker {
    Nvidia,
    Amd,
    Intel,
}

impl Maker {
    fn of(vendor: u16) -> Option<Self> {
        match vendor {
            0x10de => Some(Self::Nvidia),
            0x1002 => Some(Self::Amd),
            0x8086 => Some(Self::Intel),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Nvidia => "NVIDIA",
            Self::Amd => "AMD",
            Self::Intel => "Intel",
        }
    }
}

/// A graphics processor on the PCI bus, whether a driver serves it or not.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Card {
    place: String,
    maker: Maker,
    /// Its kernel driver.
    driver: Option<String>,
}

/// A device file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    path: PathBuf,
    /// Whether this user may read and write it.
    usable: bool,
}

/// What matters of a Linux system; elsewhere there is nothing to see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Facts {
    cards: Vec<Card>,
    nodes: Vec<Node>,
    /// Version of NVIDIA's kernel module.
    nvidia: Option<String>,
    /// Descriptions of Vulkan drivers.
    manifests: usize,
    /// The variable that tells where to look for them, and what it says.
    manifests_from: Option<(&'static str, String)>,
    container: bool,
    /// Windows' Linux, which has one device file for all GPUs.
    wsl: bool,
}

impl Facts {
    fn gather(root: &Path) -> Self {
        let entries = |path: &str| {
            let mut found: Vec<PathBuf> =
                fs::read_dir(root.join(path)).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
            found.sort();
            found
        };
        let named = |path: &PathBuf, start: &str| {
            let rest = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(start));
            rest.is_some_and(|rest| rest == "ctl" || (!rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit())))
        };
        let nvidia = entries("dev").into_iter().filter(|path| named(path, "nvidia") || path.ends_with("nvidia-uvm"));
        let render = entries("dev/dri").into_iter().filter(|path| named(path, "renderD"));
        let nodes = nvidia.chain(render).map(|path| Node { usable: usable(&path), path }).collect();
        let manifests = ["usr/share", "usr/local/share", "etc"].iter().flat_map(|dir| entries(&format!("{dir}/vulkan/icd.d")));
        let manifests = manifests.filter(|path| path.extension().is_some_and(|extension| extension == "json")).count();
        let variable = |name: &'static str| env::var(name).ok().map(|value| (name, value));
        let version = fs::read_to_string(root.join("sys/module/nvidia/version"));
        Self {
            cards: entries("sys/bus/pci/devices").iter().filter_map(|path| Card::read(path)).collect(),
            nodes,
            nvidia: version.ok().map(|version| version.trim().to_owned()),
            manifests,
            manifests_from: variable("VK_DRIVER_FILES").or_else(|| variable("VK_ICD_FILENAMES")),
            container: [".dockerenv", "run/.containerenv"].iter().any(|name| root.join(name).exists())
                || env::var_os("KUBERNETES_SERVICE_HOST").is_some(),
            wsl: root.join("dev/dxg").exists(),
        }
    }

    fn node(&self, start: &str) -> Option<&Node> {
        let of = |node: &&Node| node.path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start));
        // One that can be used tells most.
        self.nodes.iter().filter(of).max_by_key(|node| node.usable)
    }
}

impl Card {
    fn read(path: &Path) -> Option<Self> {
        let number = |name: &str| {
            let text = fs::read_to_string(path.join(name)).ok()?;
            u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
        };
        // Displays, and processors without one.
        let class = number("class")? >> 8;
        if class >> 8 != 0x03 && class != 0x1200 {
            return None;
        }
        let driver = fs::read_link(path.join("driver")).ok();
        Some(Self {
            place: path.file_name()?.to_str()?.to_owned(),
            maker: Maker::of(number("vendor")? as u16)?,
            driver: driver.and_then(|driver| Some(driver.file_name()?.to_str()?.to_owned())),
        })
    }
}

#[cfg(unix)]
fn usable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK).is_ok()
}

#[cfg(not(unix))]
fn usable(_path: &Path) -> bool {
    true
}

/// Looks at everything; `tell` gets each finding as soon as it is there.
pub fn doctor(found: &Found, sensors: &dyn Sensors, stop: &Stop, tell: &mut dyn FnMut(&Finding)) -> Result<(), Error> {
    let isa = Isa::best();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    tell(&Finding::new("cpu", Verdict::Good, format!("{threads} threads with {isa}; works without any GPU")));
    for finding in judge(&Facts::gather(Path::new("/")), found) {
        tell(&finding);
    }
    for gpu in &found.gpus {
        tell(&try_out(gpu, stop)?);
        if !gpu.is_software() {
            let about = name(gpu);
            let reading = sensors.read(gpu.info()).unwrap_or_default();
            tell(&match reading.celsius {
                Some(celsius) => Finding::new(about, Verdict::Good, format!("its temperature can be read: {celsius:.0} °C")),
                None => Finding::new(about, Verdict::Absent, "its temperature cannot be read, so --max-temp cannot watch it"),
            });
        }
    }
    Ok(())
}

fn name(gpu: &Gpu) -> String {
    format!("device {} [{}]", gpu.id(), gpu.info().key)
}

/// What the facts say about each card and each backend.
fn judge(facts: &Facts, found: &Found) -> Vec<Finding> {
    let mut findings = Vec::new();
    for card in &facts.cards {
        let about = format!("{} GPU at {}", card.maker.name(), card.place);
        let ways = found.gpus.iter().filter(|gpu| gpu.info().pci.as_deref() == Some(card.place.as_str()));
        let ways: Vec<&str> = ways.map(|gpu| gpu.info().backend.as_str()).collect();
        findings.push(if ways.is_empty() {
            let (text, advice) = unreached(card, facts);
            Finding::new(about, Verdict::Bad, text).advise(advice)
        } else {
            Finding::new(about, Verdict::Good, format!("reached through {}", ways.join(" and ")))
        });
    }
    findings.push(cuda(facts, found));
    findings.push(wgpu(facts, found));
    findings
}

/// Why no backend reaches a card, and what to do.
fn unreached(card: &Card, facts: &Facts) -> (String, String) {
    let driver = match (card.driver.as_deref(), card.maker) {
        (None, Maker::Nvidia) => return ("no kernel driver serves it".into(), INSTALL_NVIDIA.into()),
        (None, _) => {
            let advice = "Install the firmware of the GPU (firmware-amd-graphics, firmware-misc-nonfree) and a current kernel, then restart.";
            return ("no kernel driver serves it".into(), advice.into());
        }
        (Some("vfio-pci"), _) => {
            return ("it is set apart for a virtual machine (vfio-pci)".into(), "Use it from within that machine.".into());
        }
        (Some("nouveau"), _) => return ("it is served by nouveau, which knows no CUDA".into(), INSTALL_NVIDIA.into()),
        (Some(driver), _) => driver,
    };
    let (start, flag, group) =
        if driver == "nvidia" { ("nvidia", "--gpus all", "video") } else { ("renderD", "--device /dev/dri", "render") };
    match facts.node(start) {
        None if facts.container => (
            format!("the kernel serves it ({driver}), but this container has no device files for it"),
            format!("Start the container with `{flag}`{}.", if driver == "nvidia" { " (NVIDIA Container Toolkit)" } else { "" }),
        ),
        None => (
            format!("the kernel serves it ({driver}), but there are no device files for it"),
            format!("Restart the machine{}.", if driver == "nvidia" { ", or run `nvidia-modprobe -c 0 -u` as root" } else { "" }),
        ),
        Some(node) if !node.usable => (
            format!("this user may not use {}", node.path.display()),
            format!("Add the user to the group that owns it (`sudo usermod -aG {group} $USER`) and log in again."),
        ),
        Some(_) => (
            format!("the kernel serves it ({driver}), but no backend does"),
            if driver == "nvidia" {
                "Install the libraries that belong to the kernel module, of the very same version.".into()
            } else {
                "Install its Vulkan driver (mesa-vulkan-drivers) and the loader (libvulkan1).".into()
            },
        ),
    }
}

const INSTALL_NVIDIA: &str = "Install NVIDIA's driver (nvidia-driver on Debian, `ubuntu-drivers install` on Ubuntu) and restart.";

fn cuda(facts: &Facts, found: &Found) -> Finding {
    let about = "cuda";
    let major = facts.nvidia.as_deref().and_then(|version| version.split('.').next()?.parse::<u32>().ok());
    if let (Some(version), Some(major)) = (&facts.nvidia, major)
        && major < OLDEST_NVIDIA
    {
        return Finding::new(about, Verdict::Bad, format!("NVIDIA's driver {version} is too old"))
            .advise(format!("Install version {OLDEST_NVIDIA} or newer."));
    }
    let gpus = found.gpus.iter().filter(|gpu| gpu.is_cuda()).count();
    let Some(absent) = found.absent("cuda") else {
        return Finding::new(about, Verdict::Good, format!("{gpus} GPUs"));
    };
    let has_card = facts.nvidia.is_some() || facts.cards.iter().any(|card| card.maker == Maker::Nvidia);
    let verdict = if has_card { Verdict::Bad } else { Verdict::Absent };
    let finding = Finding::new(about, verdict, &absent.why);
    if facts.wsl {
        finding.advise("Install NVIDIA's driver in Windows, and let the loader find its library: `echo /usr/lib/wsl/lib > /etc/ld.so.conf.d/wsl.conf && ldconfig`.")
    } else if has_card && facts.container {
        finding.advise("Start the container with `--gpus all` and NVIDIA_DRIVER_CAPABILITIES=all (NVIDIA Container Toolkit).")
    } else if has_card {
        finding.advise(&absent.advice)
    } else if facts.cards.is_empty() {
        finding
    } else {
        finding.advise("Not needed: there is no NVIDIA GPU.")
    }
}

fn wgpu(facts: &Facts, found: &Found) -> Finding {
    let about = "wgpu";
    let gpus = found.gpus.iter().filter(|gpu| !gpu.is_cuda() && !gpu.is_software()).count();
    let Some(absent) = found.absent("wgpu") else {
        return Finding::new(about, Verdict::Good, format!("{gpus} GPUs"));
    };
    let verdict = if facts.cards.is_empty() { Verdict::Absent } else { Verdict::Bad };
    let finding = Finding::new(about, verdict, &absent.why);
    if let Some((variable, value)) = &facts.manifests_from {
        return finding.advise(format!("{variable} is set to {value:?}, so no other Vulkan driver is looked at: unset it."));
    }
    let nvidia = facts.cards.iter().any(|card| card.maker == Maker::Nvidia);
    if facts.container && nvidia {
        finding.advise("Start the container with `--gpus all` and NVIDIA_DRIVER_CAPABILITIES=all (NVIDIA Container Toolkit).")
    } else if cfg!(target_os = "linux") && facts.manifests == 0 && !absent.why.contains("loader") {
        finding.advise("No Vulkan driver is installed: NVIDIA's own, or mesa-vulkan-drivers for AMD and Intel, brings one.")
    } else {
        finding.advise(&absent.advice)
    }
}

/// A few labels on a device, compared with the reference.
fn try_out(gpu: &Gpu, stop: &Stop) -> Result<Finding, Error> {
    let device = gpu.clone();
    let result = apart(stop, PATIENCE, &mut || (), move || few_labels(&device))?;
    let about = name(gpu);
    Ok(match result {
        Ok(true) => {
            let text = format!("{} makes right labels", gpu.info().name);
            if gpu.is_software() {
                let text = format!("{text}, in software: slower than the processor's own backend");
                Finding::new(about, Verdict::Absent, text)
            } else {
                Finding::new(about, Verdict::Good, text)
            }
        }
        Ok(false) => Finding::new(about, Verdict::Bad, format!("{} makes wrong labels", gpu.info().name))
            .advise("Undo overclocking, update the driver; if that does not help, have the hardware tested."),
        Err(error) => Finding::new(about, Verdict::Bad, error.to_string()).advise(match error {
            DeviceError::OutOfMemory { .. } => "End other programs that use the memory of the GPU.",
            _ => "Update the driver and restart; the log of the system (dmesg) may tell more.",
        }),
    })
}

fn few_labels(gpu: &Gpu) -> Result<bool, DeviceError> {
    let n = ScryptN::MAINNET;
    let start = gpu.default_tuning();
    // One work-group needs little memory.
    let tuning = Tuning { lanes: start.group, ..start };
    let commitment = Commitment([0x3c; 32]);
    let first = (1 << 32) - 4;
    let mut labels = [0; 8 * LABEL_BYTES as usize];
    let smallest = gpu.open(n, &tuning)?.labels(&commitment, first, &mut labels)?;
    let mut checker = Checker::new(commitment, n).map_err(|e| DeviceError::Failed(e.to_string()))?;
    let mut right = checker.full_label(smallest.index) == smallest.label;
    for (index, label) in (first..).zip(labels.as_chunks::<{ LABEL_BYTES as usize }>().0) {
        right &= checker.full_label(index)[..LABEL_BYTES as usize] == *label;
    }
    Ok(right)
}

#[cfg(test)]
mod tests {
    use kernels::label::{
        Device,
        cpu::Cpu,
        faulty::{Fault, Faulty},
        gpu::GpuClass,
    };

    use super::*;
    use crate::gpu::{Absent, fake::fake};

    const PLACE: &str = "0000:01:00.0";

    fn card(maker: Maker, driver: &str) -> Card {
        Card { place: PLACE.into(), maker, driver: (!driver.is_empty()).then(|| driver.into()) }
    }

    fn node(path: &str, usable: bool) -> Node {
        Node { path: path.into(), usable }
    }

    fn nothing() -> Found {
        let absent = |backend, why: &str| Absent { backend, why: why.into(), advice: "Advice.".into() };
        Found { gpus: vec![], absent: vec![absent("cuda", "no CUDA driver: x"), absent("wgpu", "no Vulkan loader: y")] }
    }

    /// What is said of a machine, one line each.
    fn said(facts: &Facts, found: &Found) -> Vec<String> {
        let findings = judge(facts, found);
        assert_eq!(findings.len(), facts.cards.len() + 2);
        findings.iter().map(|finding| finding.show().replace("\n        ", " ")).collect()
    }

    #[test]
    fn what_keeps_a_card_from_its_backends_is_named() {
        use Maker::{Amd, Intel, Nvidia};
        let nvidia = || Facts { nvidia: Some("550.54.14".into()), ..Facts::default() };
        let cases = [
            (card(Nvidia, ""), Facts::default(), vec!["no kernel driver serves it", "NVIDIA's driver"]),
            (card(Amd, ""), Facts::default(), vec!["no kernel driver serves it", "firmware"]),
            (card(Nvidia, "nouveau"), Facts::default(), vec!["nouveau", "Install NVIDIA's driver"]),
            (card(Nvidia, "vfio-pci"), Facts::default(), vec!["virtual machine"]),
            (card(Nvidia, "nvidia"), nvidia(), vec!["no device files", "nvidia-modprobe"]),
            (card(Nvidia, "nvidia"), Facts { container: true, ..nvidia() }, vec!["this container", "--gpus all"]),
            (
                card(Nvidia, "nvidia"),
                Facts { nodes: vec![node("/dev/nvidia0", false), node("/dev/nvidiactl", false)], ..nvidia() },
                vec!["may not use /dev/nvidia", "usermod -aG video"],
            ),
            (
                card(Nvidia, "nvidia"),
                Facts { nodes: vec![node("/dev/nvidia0", true)], ..nvidia() },
                vec!["no backend does", "of the very same version"],
            ),
            (card(Amd, "amdgpu"), Facts { container: true, ..Facts::default() }, vec!["this container", "--device /dev/dri"]),
            (card(Intel, "i915"), Facts::default(), vec!["no device files", "Restart"]),
            (
                card(Intel, "xe"),
                Facts { nodes: vec![node("/dev/dri/renderD128", false)], ..Facts::default() },
                vec!["may not use /dev/dri/renderD128", "usermod -aG render"],
            ),
            (
                card(Amd, "amdgpu"),
                Facts { nodes: vec![node("/dev/dri/renderD128", true)], ..Facts::default() },
                vec!["no backend does", "mesa-vulkan-drivers"],
            ),
        ];
        for (card, facts, expected) in cases {
            let facts = Facts { cards: vec![card], ..facts };
            let line = &said(&facts, &nothing())[0];
            assert!(line.starts_with("BAD") && expected.iter().all(|part| line.contains(part)), "{facts:?}: {line}");
        }
    }

    #[test]
    fn an_absent_backend_is_bad_only_where_there_is_a_card_for_it() {
        let lines = said(&Facts::default(), &nothing());
        assert!(lines[0].starts_with("absent  cuda: no CUDA driver: x"), "{lines:?}");
        assert!(lines[1].starts_with("absent  wgpu: no Vulkan loader: y Advice."), "{lines:?}");

        let amd = Facts { cards: vec![card(Maker::Amd, "amdgpu")], ..Facts::default() };
        let lines = said(&amd, &nothing());
        assert!(lines[1].starts_with("absent  cuda") && lines[1].contains("Not needed"), "{lines:?}");
        assert!(lines[2].starts_with("BAD     wgpu"), "{lines:?}");

        let nvidia = Facts { cards: vec![card(Maker::Nvidia, "nvidia")], nvidia: Some("550.1".into()), ..Facts::default() };
        assert!(said(&nvidia, &nothing())[1].starts_with("BAD     cuda: no CUDA driver: x Advice."));
        let inside = Facts { container: true, ..nvidia.clone() };
        assert!(said(&inside, &nothing())[1].contains("NVIDIA_DRIVER_CAPABILITIES"));
        let old = Facts { nvidia: Some("440.33.01".into()), ..nvidia };
        assert!(said(&old, &nothing())[1].contains("440.33.01 is too old Install version 450"));

        let forced = Facts { manifests_from: Some(("VK_DRIVER_FILES", String::new())), ..Facts::default() };
        assert!(said(&forced, &nothing())[1].contains("unset it"));
        let wsl = Facts { wsl: true, ..Facts::default() };
        assert!(said(&wsl, &nothing())[0].contains("in Windows"));
    }

    type Make = fn(Tuning) -> Result<Box<dyn Device>, DeviceError>;

    fn make(make: Make) -> Gpu {
        Gpu::new(3, fake("vulkan", "A", Some(PLACE), GpuClass::Discrete, make))
    }

    fn cpu(faults: Vec<Fault>) -> Result<Box<dyn Device>, DeviceError> {
        Ok(Box::new(Faulty::new(Cpu::new(Isa::best(), ScryptN::MAINNET)?, faults)))
    }

    #[test]
    fn devices_are_tried_out() {
        let look = |open| try_out(&make(open), &Stop::default()).unwrap();
        let good = look(|_| cpu(vec![]));
        assert_eq!((good.verdict, good.about.as_str()), (Verdict::Good, "device 3 [vulkan:0000:01:00.0]"));
        let cases: [(Make, &str, &str); 4] = [
            (|_| cpu(vec![Fault::WrongLabel { from: 0, place: 7 }]), "wrong labels", "overclocking"),
            (|_| cpu(vec![Fault::InventedSmallest { from: 0 }]), "wrong labels", "overclocking"),
            (|_| cpu(vec![Fault::OutOfMemory { from: 0 }]), "no memory", "other programs"),
            (|_| Err(DeviceError::Lost("gone".into())), "gone", "dmesg"),
        ];
        for (open, text, advice) in cases {
            let bad = look(open);
            assert!(bad.verdict == Verdict::Bad && bad.show().contains(text) && bad.show().contains(advice), "{bad:?}");
        }
        let stop = Stop::default();
        stop.set();
        assert!(matches!(try_out(&make(|_| cpu(vec![])), &stop), Err(Error::Stopped)));
    }

    #[test]
    fn a_card_that_is_reached_is_good() {
        let found = Found { gpus: vec![make(|_| cpu(vec![]))], absent: nothing().absent[..1].to_vec() };
        let lines = said(&Facts { cards: vec![card(Maker::Amd, "amdgpu")], ..Facts::default() }, &found);
        assert!(
            lines[0] == "good    AMD GPU at 0000:01:00.0: reached through vulkan" && lines[2] == "good    wgpu: 1 GPUs",
            "{lines:?}"
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn facts_are_read_from_the_system() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for (place, class, vendor) in [
            ("0000:01:00.0", "0x030000", "0x10de"),
            ("0000:02:00.0", "0x120000", "0x1002"),
            // The sound of a card, and the display of a server's management.
            ("0000:01:00.1", "0x040300", "0x10de"),
            ("0000:03:00.0", "0x030000", "0x1a03"),
        ] {
            write(&format!("sys/bus/pci/devices/{place}/class"), &format!("{class}\n"));
            write(&format!("sys/bus/pci/devices/{place}/vendor"), &format!("{vendor}\n"));
        }
        let driver = root.join("sys/bus/pci/devices/0000:01:00.0/driver");
        std::os::unix::fs::symlink("../../../../bus/pci/drivers/nvidia", driver).unwrap();
        write("sys/module/nvidia/version", "550.54.14\n");
        for name in ["nvidia0", "nvidiactl", "nvidia-uvm", "nvidia-caps", "dri/renderD128", "dri/card0"] {
            write(&format!("dev/{name}"), "");
        }
        write("usr/share/vulkan/icd.d/nvidia_icd.json", "{}");
        write("usr/share/vulkan/icd.d/README", "");
        write(".dockerenv", "");
        let facts = Facts::gather(root);
        let other = Card { place: "0000:02:00.0".into(), maker: Maker::Amd, driver: None };
        assert_eq!(facts.cards, [card(Maker::Nvidia, "nvidia"), other]);
        let nodes: Vec<PathBuf> = facts.nodes.iter().map(|node| node.path.strip_prefix(root).unwrap().to_owned()).collect();
        assert_eq!(nodes, ["dev/nvidia-uvm", "dev/nvidia0", "dev/nvidiactl", "dev/dri/renderD128"].map(PathBuf::from));
        assert_eq!((facts.nvidia.as_deref(), facts.manifests, facts.container, facts.wsl), (Some("550.54.14"), 1, true, false));
    }
}
