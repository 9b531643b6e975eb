//! Devices that fail, hang, are wrong, slow or hot beside the processor: whatever they do, nothing wrong is written and the
//! directory ends as the processor alone would have made it.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use kernels::label::{
    Device, DeviceError, DeviceInfo, DeviceKind, Smallest,
    cpu::{Cpu, Isa},
    faulty::{Fault, Faulty, Switch},
    gpu::{GpuClass, GpuInfo},
};
use post_init::{
    check::{self, Existing, Extent},
    control::Control,
    data_dir::{DataDirs, DirSpec},
    error::Error,
    event::{DeviceProgress, DeviceState, Event, Report, Silent},
    gpu,
    init::{self, Request},
    pool::{Limits, Open, Pool, PoolOptions, Source, Timing},
    select::{Backend, choose, source},
    sensors::{Reading, Sensors},
    stop::Stop,
    storage::Disk,
    tuning::Cache,
};
use proto::{
    ids::{AtxId, Commitment, NodeId},
    post::{Metadata, Preset, ScryptN, parse_file_name},
    units::SpaceUnits,
};
use tempfile::TempDir;

/// So many labels in four units.
const LABELS: u64 = 16_000;
/// Without waiting longer than a test should.
const HASTY: Timing = Timing {
    hang: Duration::from_millis(400),
    retry: Duration::from_millis(10),
    sense: Duration::from_millis(10),
    gather: Duration::from_secs(300),
};

/// The processor seen as an untrusted device.
fn disguised(cpu: Cpu) -> Faulty<Cpu> {
    with_faults(cpu, Vec::new())
}

fn with_faults(cpu: Cpu, faults: Vec<Fault>) -> Faulty<Cpu> {
    let info = DeviceInfo { name: "gpu".into(), kind: DeviceKind::Wgpu, ..cpu.info().clone() };
    Faulty::new(cpu, faults).with_info(info)
}

fn named(name: &str, open: Open) -> Source {
    Source { name: name.into(), kind: DeviceKind::Wgpu, gpu: None, open }
}

/// A device that has these faults each time it is opened. Two calls are made to try it, then come batches.
fn faulty(faults: &[Fault]) -> Source {
    let faults = faults.to_vec();
    named("faulty", Arc::new(move |n, _, _| Ok(Box::new(with_faults(Cpu::new(Isa::Portable, n)?, faults.clone())))))
}

/// Everything it computes is that of another identity.
struct Stranger(Faulty<Cpu>);

impl Device for Stranger {
    fn info(&self) -> &DeviceInfo {
        self.0.info()
    }
    fn labels(&mut self, _: &Commitment, first: u64, out: &mut [u8]) -> Result<Smallest, DeviceError> {
        self.0.labels(&Commitment([0xee; 32]), first, out)
    }
}

fn request() -> Request {
    request_for(LABELS, 256)
}

fn request_for(labels: u64, n: u64) -> Request {
    Request {
        node_id: Some(NodeId([7; 32])),
        commitment_atx_id: Some(AtxId([9; 32])),
        num_units: Some(SpaceUnits(4)),
        labels_per_unit: Some(labels / 4),
        max_file_size: Some(51_200),
        scrypt_n: Some(ScryptN::new(n).unwrap()),
        ..Request::new(Preset::Mainnet)
    }
}

fn data_dirs(dir: &TempDir) -> DataDirs {
    DataDirs::new(vec![DirSpec { path: dir.path().to_owned(), cap: None }], Arc::new(Disk)).unwrap()
}

fn init(dir: &TempDir, options: &PoolOptions, report: &dyn Report) -> Result<Metadata, Error> {
    make(&request(), dir, options, report)
}

fn make(request: &Request, dir: &TempDir, options: &PoolOptions, report: &dyn Report) -> Result<Metadata, Error> {
    init::run(request, &data_dirs(dir), options, &Stop::default(), report)
}

type Contents = BTreeMap<String, Vec<u8>>;

fn contents(dir: &Path) -> Contents {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

/// What the processor alone makes.
fn reference() -> Contents {
    let dir = tempfile::tempdir().unwrap();
    init(&dir, &PoolOptions::cpu(1, Isa::best()), &Silent).unwrap();
    contents(dir.path())
}

#[track_caller]
fn assert_reference(dir: &TempDir) {
    assert_same(dir, &reference());
}

#[track_caller]
fn assert_same(dir: &TempDir, reference: &Contents) {
    let now = contents(dir.path());
    assert_eq!(now.keys().collect::<Vec<_>>(), reference.keys().collect::<Vec<_>>());
    for (name, bytes) in now {
        assert!(bytes == reference[&name], "{name} differs");
    }
}

/// Bytes of labels in a directory.
fn written(dir: &TempDir) -> usize {
    contents(dir.path()).iter().filter(|(name, _)| parse_file_name(name).is_some()).map(|(_, bytes)| bytes.len()).sum()
}

/// Keeps what is told.
#[derive(Default)]
struct Told(Mutex<Vec<Event>>);

impl Report for Told {
    fn event(&self, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
}

impl Told {
    /// States of a device and what was said about it.
    fn of(&self, name: &str) -> Vec<(DeviceState, String)> {
        let events = self.0.lock().unwrap();
        let news = events.iter().filter_map(|event| match event {
            Event::Device { device, state, text } if device == name => Some((*state, text.clone())),
            _ => None,
        });
        news.collect()
    }

    #[track_caller]
    fn expect(&self, name: &str, state: DeviceState, part: &str) {
        let news = self.of(name);
        assert!(news.iter().any(|(s, text)| *s == state && text.contains(part)), "no {state} {part:?} in {news:?}");
    }

    fn last_progress(&self) -> Vec<DeviceProgress> {
        let events = self.0.lock().unwrap();
        let mut progress = events.iter().rev().filter_map(|event| match event {
            Event::Progress { devices, .. } => Some(devices.clone()),
            _ => None,
        });
        progress.next().expect("there was progress")
    }
}

/// Beside a processor that is slow enough to leave them something.
fn beside_cpu(gpus: Vec<Source>) -> PoolOptions {
    PoolOptions { gpus, timing: HASTY, ..PoolOptions::cpu(1, Isa::Portable) }
}

fn alone(gpu: Source) -> PoolOptions {
    PoolOptions { gpus: vec![gpu], timing: HASTY, ..PoolOptions::cpu(0, Isa::best()) }
}

#[test]
fn wrong_labels_are_caught_before_a_byte_is_written() {
    let stranger =
        || named("stranger", Arc::new(|n, _: &_, _: &_| Ok(Box::new(Stranger(disguised(Cpu::new(Isa::Portable, n)?))) as _)));
    let (dir, told) = (tempfile::tempdir().unwrap(), Told::default());
    let error = init(&dir, &alone(stranger()), &told).unwrap_err();
    assert!(matches!(&error, Error::NoDeviceLeft(causes) if causes.contains("the processor says")), "{error}");
    assert_eq!((error.exit_code(), written(&dir)), (1, 0));
    told.expect("stranger", DeviceState::Quarantined, "--devices");
    // The processor goes on without it, in the same directory.
    let told = Told::default();
    init(&dir, &beside_cpu(vec![stranger()]), &told).unwrap();
    assert_reference(&dir);
    told.expect("stranger", DeviceState::Quarantined, "it was wrong too often");
    assert_eq!(told.of("stranger").len(), 3);
}

#[test]
fn a_device_that_turns_bad_is_caught_and_quarantined() {
    // Batches of one label, so that each check sees the wrong one; and a smallest label that is none.
    for (fault, window) in [(Fault::WrongLabel { from: 40, place: 0 }, Some(128)), (Fault::InventedSmallest { from: 4 }, None)] {
        let (dir, told) = (tempfile::tempdir().unwrap(), Told::default());
        let single = named(
            "turncoat",
            Arc::new(move |n, _, _| {
                let device = with_faults(Cpu::new(Isa::Portable, n)?, vec![fault.clone()]);
                let info = DeviceInfo { lanes: 1, ..device.info().clone() };
                Ok(Box::new(device.with_info(info)))
            }),
        );
        let options = PoolOptions { window, ..alone(single.clone()) };
        assert!(matches!(init(&dir, &options, &told), Err(Error::NoDeviceLeft(_))));
        told.expect("turncoat", DeviceState::Quarantined, "not used any more");
        // What it had made before it turned bad was right and stays.
        let good = contents(dir.path());
        let reference = reference();
        for (name, bytes) in good.iter().filter(|(name, _)| parse_file_name(name).is_some()) {
            assert!(reference[name].starts_with(bytes), "{name}");
        }
        init(&dir, &beside_cpu(vec![single]), &Silent).unwrap();
        assert_reference(&dir);
    }
}

#[test]
fn a_label_that_is_not_the_smallest_does_not_pass_for_it() {
    let n = ScryptN::new(4).unwrap();
    let mut pool = Pool::new(&alone(faulty(&[Fault::WrongSmallest { from: 2 }])), Commitment([1; 32]), n).unwrap();
    let told = Told::default();
    let result = pool.compute(std::iter::once(0..u64::MAX), &Stop::default(), &told, &mut |_| Ok(()), &mut |_| {
        Ok(std::ops::ControlFlow::Continue(()))
    });
    assert!(matches!(result, Err(Error::NoDeviceLeft(_))), "{result:?}");
    told.expect("faulty", DeviceState::Quarantined, "the processor says");
}

#[test]
fn whatever_fails_others_make_it() {
    let cases = [
        (Fault::Dies { from: 2 }, DeviceState::Waiting, "device lost"),
        (Fault::Dies { from: 0 }, DeviceState::Waiting, "device lost"),
        (Fault::OutOfMemory { from: 0 }, DeviceState::Waiting, "no memory"),
        (Fault::OutOfMemory { from: 2 }, DeviceState::Waiting, "no memory"),
    ];
    for (fault, state, part) in cases {
        let (dir, told) = (tempfile::tempdir().unwrap(), Told::default());
        init(&dir, &beside_cpu(vec![faulty(std::slice::from_ref(&fault)), faulty(&[])]), &told).unwrap();
        assert_reference(&dir);
        told.expect("faulty", state, part);
        // Alone it is hopeless, which is told; nothing wrong is left behind.
        let dir = tempfile::tempdir().unwrap();
        let error = init(&dir, &alone(faulty(std::slice::from_ref(&fault))), &told).unwrap_err();
        assert!(matches!(&error, Error::NoDeviceLeft(causes) if causes.contains(part)), "{fault:?}: {error}");
        init(&dir, &beside_cpu(Vec::new()), &told).unwrap();
        assert_reference(&dir);
    }
}

#[test]
fn a_device_that_hangs_holds_up_nobody() {
    let (dir, told) = (tempfile::tempdir().unwrap(), Told::default());
    let switches: Arc<Mutex<Vec<Switch>>> = Arc::default();
    let opened = switches.clone();
    let hanging = named(
        "hanging",
        Arc::new(move |n, _, _| {
            let device = with_faults(Cpu::new(Isa::Portable, n)?, vec![Fault::Hangs { from: 2 }]);
            opened.lock().unwrap().push(device.switch());
            Ok(Box::new(device))
        }),
    );
    init(&dir, &beside_cpu(vec![hanging.clone()]), &told).unwrap();
    assert_reference(&dir);
    told.expect("hanging", DeviceState::Waiting, "has not answered");
    // Coming back late changes nothing, neither then nor while others work.
    for switch in switches.lock().unwrap().iter() {
        switch.release();
    }
    assert_reference(&dir);
    // Alone it is tried again, then given up.
    let dir = tempfile::tempdir().unwrap();
    let error = init(&dir, &alone(hanging), &told).unwrap_err();
    assert!(matches!(&error, Error::NoDeviceLeft(causes) if causes.contains("has not answered")), "{error}");
    told.expect("hanging", DeviceState::Quarantined, "restart the machine");
    assert_eq!(written(&dir), 0);
}

#[test]
fn a_device_that_was_reset_is_used_again() {
    let (dir, told, opened) = (tempfile::tempdir().unwrap(), Told::default(), Arc::new(AtomicU64::new(0)));
    let count = opened.clone();
    let reset = named(
        "reset",
        Arc::new(move |n, _, _| {
            // Lost in the middle of its first batch, then not even to be opened, then as good as new.
            match count.fetch_add(1, Ordering::SeqCst) {
                0 => Ok(Box::new(with_faults(Cpu::new(Isa::Portable, n)?, vec![Fault::Dies { from: 2 }]))),
                1 => Err(DeviceError::Lost("not yet".into())),
                _ => Ok(Box::new(disguised(Cpu::new(Isa::Portable, n)?))),
            }
        }),
    );
    init(&dir, &alone(reset), &told).unwrap();
    assert_reference(&dir);
    assert_eq!(opened.load(Ordering::SeqCst), 3);
    let states: Vec<_> = told.of("reset").into_iter().map(|(state, _)| state).collect();
    assert_eq!(states, [DeviceState::Idle, DeviceState::Waiting, DeviceState::Waiting, DeviceState::Idle]);
    let progress = told.last_progress();
    assert_eq!((progress[0].labels, progress[0].strikes), (LABELS, 0));
    assert!(progress[0].batches > 0 && progress[0].busy_share > 0.0);
}

#[test]
fn a_device_that_panics_or_cannot_be_used_is_left_out() {
    let (dir, told) = (tempfile::tempdir().unwrap(), Told::default());
    let panics = named("panics", Arc::new(|_, _, _| panic!("as asked for")));
    let unfit = named("unfit", Arc::new(|_, _, _| Err(DeviceError::Unsupported("this".into()))));
    init(&dir, &beside_cpu(vec![panics, unfit]), &told).unwrap();
    assert_reference(&dir);
    told.expect("panics", DeviceState::Waiting, "gave up");
    told.expect("unfit", DeviceState::Failed, "does not do this");
}

#[test]
fn a_slow_device_holds_back_nobody() {
    // Slow from the start: it gets little. Slow from its first batch on, which would take a minute: it is given up.
    for from in [0, 2] {
        let (dir, told) = (tempfile::tempdir().unwrap(), Told::default());
        let slow = faulty(&[Fault::Slow { from, per_label: Duration::from_millis(20) }]);
        let started = Instant::now();
        init(&dir, &beside_cpu(vec![slow]), &told).unwrap();
        assert!(started.elapsed() < Duration::from_secs(50));
        assert_reference(&dir);
        let devices = told.last_progress();
        let labels = |name: &str| devices.iter().filter(|d| d.name.starts_with(name)).map(|d| d.labels).sum::<u64>();
        assert!(labels("faulty") < LABELS / 20 && labels("cpu") > LABELS * 9 / 10, "{devices:?}");
        if from > 0 {
            told.expect("faulty", DeviceState::Waiting, "has not answered");
        }
    }
}

/// A device that counts the memory it holds.
struct Holding(Faulty<Cpu>, Arc<AtomicBool>);

impl Device for Holding {
    fn info(&self) -> &DeviceInfo {
        self.0.info()
    }
    fn labels(&mut self, commitment: &Commitment, first: u64, out: &mut [u8]) -> Result<Smallest, DeviceError> {
        self.1.store(true, Ordering::SeqCst);
        self.0.labels(commitment, first, out)
    }
    fn release(&mut self) {
        self.1.store(false, Ordering::SeqCst);
    }
    fn allocated(&self) -> u64 {
        u64::from(self.1.load(Ordering::SeqCst)) * 1000
    }
}

fn holding(gpu: Option<GpuInfo>) -> Source {
    let open: Open = Arc::new(|n, _, _| {
        let device =
            with_faults(Cpu::new(Isa::Portable, n)?, vec![Fault::Slow { from: 0, per_label: Duration::from_micros(150) }]);
        Ok(Box::new(Holding(device, Arc::default())))
    });
    Source { gpu, ..named("holding", open) }
}

/// Asks for a pause when labels are made, watches it, and lets work go on.
struct Pausing {
    control: Control,
    told: Told,
    looks: AtomicU64,
}

impl Report for Pausing {
    fn event(&self, event: &Event) {
        self.told.event(event);
        let Event::Progress { devices, labels_done, .. } = event else { return };
        let gpu = devices.iter().find(|device| device.name == "holding").unwrap();
        if !self.control.is_paused() && *labels_done > 0 && self.looks.load(Ordering::SeqCst) == 0 {
            assert!(gpu.allocated_bytes > 0, "{gpu:?}");
            self.control.pause();
        } else if self.control.is_paused() {
            // Half a second after the wish the batches are done.
            if self.looks.fetch_add(1, Ordering::SeqCst) == 3 {
                assert_eq!((gpu.allocated_bytes, gpu.state), (0, DeviceState::Paused));
                self.control.resume();
            }
        }
    }
}

#[test]
fn a_pause_frees_the_memory_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let options = PoolOptions { timing: HASTY, ..alone(holding(None)) };
    let report = Pausing { control: options.control.clone(), told: Told::default(), looks: AtomicU64::new(0) };
    init(&dir, &options, &report).unwrap();
    assert_reference(&dir);
    assert!(report.looks.load(Ordering::SeqCst) > 3, "it was never paused");
    let events = report.told.0.lock().unwrap();
    let position = |wanted: &Event| events.iter().position(|event| event == wanted).expect("it is told");
    assert!(position(&Event::Paused) < position(&Event::Resumed));
}

/// Hot until it has been read some times.
struct Thermometer(AtomicU64);

impl Sensors for Thermometer {
    fn read(&self, gpu: &GpuInfo) -> Option<Reading> {
        assert_eq!(gpu.name, "holding");
        let hot = self.0.fetch_add(1, Ordering::SeqCst) < 20;
        Some(Reading { celsius: Some(if hot { 90.0 } else { 40.0 }), watts: Some(50.0), free: None })
    }
}

#[test]
fn a_hot_device_pauses_until_it_is_cool() {
    let (dir, told) = (tempfile::tempdir().unwrap(), Told::default());
    let info = GpuInfo {
        key: "test:0".into(),
        name: "holding".into(),
        backend: "test".into(),
        class: GpuClass::Discrete,
        driver: String::new(),
        memory: None,
        free: None,
        pci: None,
        uuid: None,
    };
    let options = PoolOptions {
        limits: Limits { celsius: Some(80.0), watts: Some(100.0) },
        sensors: Some(Arc::new(Thermometer(AtomicU64::new(0)))),
        ..alone(holding(Some(info)))
    };
    init(&dir, &options, &told).unwrap();
    assert_reference(&dir);
    let said: Vec<String> = told.of("holding").into_iter().map(|(_, text)| text).collect();
    assert!(said.iter().any(|text| text == "pauses at 90 °C, the limit is 80 °C"), "{said:?}");
    assert!(said.iter().any(|text| text == "below the limit again"), "{said:?}");
}

/// Every adapter of this machine, software Vulkan included, beside the processor: the same bytes, and nobody waits for long.
#[test]
fn all_adapters_and_the_processor_make_what_the_processor_makes() {
    // With all parameters as they are used.
    let labels = if std::env::var_os("SOAK").is_some() { 60_000 } else { 4_000 };
    let request = request_for(labels, 8192);
    let expected = tempfile::tempdir().unwrap();
    make(&request, &expected, &PoolOptions::cpu(1, Isa::best()), &Silent).unwrap();
    let expected = contents(expected.path());

    let (dir, told) = (tempfile::tempdir().unwrap(), Told::default());
    let cache = tempfile::tempdir().unwrap();
    let cache = Cache::at(cache.path().join("tuning.json"));
    let choice =
        choose(Backend::Wgpu, &[], true, gpu::find).expect("software Vulkan comes with mesa-vulkan-drivers and libvulkan1");
    let gpus: Vec<Source> = choice.gpus.into_iter().map(|gpu| source(gpu, cache.clone())).collect();
    let timing = Timing { gather: HASTY.gather, ..Timing::default() };
    let options = PoolOptions { gpus, timing, ..PoolOptions::cpu(1, Isa::best()) };
    make(&request, &dir, &options, &told).unwrap();
    assert_same(&dir, &expected);
    for device in told.last_progress() {
        println!("{}: {:.0} labels/s, {:.1} % idle", device.name, device.labels_per_second, 100.0 * device.idle_share);
        assert!(device.labels > 0 && device.strikes == 0, "{device:?}");
        // The last batches end at different times, which counts in a short run.
        assert!(device.idle_share < if labels > 50_000 { 0.1 } else { 0.6 }, "{device:?}");
    }
    // They find what is wrong, too, and make it anew.
    let path = dir.path().join("postdata_1.bin");
    let mut bytes = fs::read(&path).unwrap();
    bytes[16 * 77] ^= 4;
    fs::write(&path, bytes).unwrap();
    let (dirs, stop) = (data_dirs(&dir), Stop::default());
    let gpus_only = PoolOptions { cpu_threads: 0, ..options };
    let existing = Existing::open(&dirs, Preset::Mainnet, None).unwrap();
    let files = Some(1..=1);
    let findings = check::verify(&existing, &dirs, files.as_ref(), Extent::Percent(1.0), &gpus_only, &stop, &Silent).unwrap();
    assert!(findings.checked > 0 && findings.checked < 800);
    check::repair(Preset::Mainnet, None, &dirs, files.as_ref(), &gpus_only, &stop, &told).unwrap();
    assert_same(&dir, &expected);
}
