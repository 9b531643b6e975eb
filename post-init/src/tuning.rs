//! The parameters that suit each graphics processor: found by a short trial, kept in a file, used from then on.
//!
//! The file is a cache: it may be lost, old or damaged, then what it does not tell is measured again. Entries belong to a device with
//! its driver, the kernels and N; what does not fit is not used.

use std::{
    cell::Cell,
    collections::BTreeMap,
    env, fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::mpsc,
    time::{Duration, Instant},
};

use kernels::label::{
    Device, DeviceError,
    gpu::{Measured, Tuned, Tuning, autotune},
};
use proto::{
    ids::Commitment,
    post::{LABEL_BYTES, ScryptN},
};
use serde_json::Value;

use crate::{
    checker::Checker,
    error::Error,
    event::Report,
    gpu::{Gpu, apart},
    stop::Stop,
    storage::{Disk, Storage as _},
};

/// How long the trial takes at most when a device is first used.
const FIRST_USE: Duration = Duration::from_secs(10);
/// Nobody has so many devices.
const MAX_FILE: u64 = 1 << 20;
/// What trials make labels of.
pub(crate) const TRIAL: Commitment = Commitment([0x5a; 32]);
/// Seconds that a full batch may take.
const BATCH: f64 = 1.0;
/// So few labels in flight are made in a moment by any GPU; other numbers are multiples of this.
const FEW: u32 = 1024;
/// How much longer the last trial may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// The file that tunings are kept in.
#[derive(Debug, Clone)]
pub struct Cache {
    path: Option<PathBuf>,
}

impl Cache {
    /// That of the user: `post-init/tuning.json` where the system keeps caches. A user without such a place has none.
    pub fn of_user() -> Self {
        let variable = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = || variable("HOME").map(|home| home.join(if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" }));
        let place = variable("XDG_CACHE_HOME").or_else(|| if cfg!(windows) { variable("LOCALAPPDATA") } else { home() });
        Self { path: place.map(|place| place.join("post-init/tuning.json")) }
    }

    /// A file of one's own.
    pub fn at(path: PathBuf) -> Self {
        Self { path: Some(path) }
    }

    /// Where it lies.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// What was found for a device, if it still fits.
    pub fn get(&self, gpu: &Gpu, n: ScryptN) -> Option<Tuned> {
        self.entries().remove(&gpu.tuning_key(n)).and_then(parse)
    }

    /// Keeps what was found for a device.
    pub fn put(&self, gpu: &Gpu, n: ScryptN, tuned: &Tuned) -> io::Result<()> {
        let Some(path) = &self.path else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "neither XDG_CACHE_HOME nor HOME is set"));
        };
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        // Several devices are tuned at once, and several processes may be.
        let lock = fs::File::options().write(true).create(true).truncate(false).open(path.with_extension("lock"))?;
        lock.lock()?;
        let mut entries = self.entries();
        entries.insert(gpu.tuning_key(n), serde_json::to_value(tuned)?);
        Disk.replace(path, &serde_json::to_vec_pretty(&entries)?)
    }

    /// Everything in the file that has the form of an entry.
    fn entries(&self) -> BTreeMap<String, Value> {
        let read = || -> Option<BTreeMap<String, Value>> {
            let mut text = Vec::new();
            fs::File::open(self.path.as_ref()?).ok()?.take(MAX_FILE).read_to_end(&mut text).ok()?;
            serde_json::from_slice(&text).ok()
        };
        read().unwrap_or_default()
    }
}

/// An entry that makes sense.
fn parse(entry: Value) -> Option<Tuned> {
    let tuned: Tuned = serde_json::from_value(entry).ok()?;
    (tuned.tuning.check().is_ok() && tuned.labels_per_second > 0.0).then_some(tuned)
}

/// What to run a device with: what is kept, else what a short trial finds, which is then kept. Software is not tried, since its
/// usual parameters are good; its rate is 0, which means not measured.
pub fn for_use(gpu: &Gpu, n: ScryptN, cache: &Cache, stop: &Stop, report: &dyn Report) -> Result<Tuned, Error> {
    if let Some(tuned) = cache.get(gpu, n) {
        return Ok(tuned);
    }
    if gpu.is_software() {
        return Ok(Tuned { tuning: gpu.default_tuning(), labels_per_second: 0.0 });
    }
    report.note(format!("{} is used for the first time: tuning it, about {} s", gpu.info().name, FIRST_USE.as_secs()));
    let tuned = tune(gpu, n, FIRST_USE, stop, &mut |_| ())?;
    if let Err(error) = cache.put(gpu, n, &tuned) {
        report.warn(format!("the tuning of {} cannot be kept for the next time: {error}", gpu.info().name));
    }
    Ok(tuned)
}

/// Tries parameters on a device for about this time. Parameters with which it makes wrong labels count as failed.
pub fn tune(gpu: &Gpu, n: ScryptN, time: Duration, stop: &Stop, watch: &mut dyn FnMut(&Measured)) -> Result<Tuned, Error> {
    let (sender, receiver) = mpsc::channel::<Measured>();
    let (device, stopped) = (gpu.clone(), stop.clone());
    let work = move || {
        let best = Cell::new(None::<Tuned>);
        let measure = |tuning| {
            if stopped.is_set() {
                return Err(DeviceError::Failed("stopped".into()));
            }
            let labels_per_second = rate(&device, n, tuning)?;
            if best.get().is_none_or(|best| best.labels_per_second < labels_per_second) {
                best.set(Some(Tuned { tuning, labels_per_second }));
            }
            Ok(labels_per_second)
        };
        // Nobody may be listening any more.
        let watch = |trial: &Measured| drop(sender.send(trial.clone()));
        let start = start(device.default_tuning(), measure, watch)?;
        let found = autotune(device.info().class, start, time, measure, watch)?;
        // Fewer labels in flight than it started with may have been better.
        Ok(best.get().unwrap_or(found))
    };
    let mut tell = || receiver.try_iter().for_each(|trial| watch(&trial));
    apart(stop, time + PATIENCE, &mut tell, work)?.map_err(|source| Error::Device { device: gpu.info().name.clone(), source })
}

/// As many labels in flight as a device makes in [`BATCH`] seconds, or the usual number if it is fast: what is begun cannot be interrupted.
fn start(
    usual: Tuning,
    measure: impl Fn(Tuning) -> Result<f64, DeviceError>,
    watch: impl Fn(&Measured),
) -> Result<Tuning, DeviceError> {
    let mut start = Tuning { lanes: usual.lanes.min(FEW), ..usual };
    while start.lanes < usual.lanes {
        let result = measure(start);
        watch(&Measured { tuning: start, result: result.clone() });
        let most = (result? * BATCH).min(usual.lanes as f64) as u32 / FEW * FEW;
        let more = start.lanes.saturating_mul(8).min(usual.lanes);
        if more > most {
            start.lanes = start.lanes.max(most);
            break;
        }
        start.lanes = more;
    }
    Ok(start)
}

/// Labels per second of a full batch, after one whose labels are compared with the reference.
fn rate(gpu: &Gpu, n: ScryptN, tuning: Tuning) -> Result<f64, DeviceError> {
    let (mut device, mut labels) = warm(gpu, n, tuning)?;
    let started = Instant::now();
    device.labels(&TRIAL, 1 << 33, &mut labels)?;
    Ok((labels.len() as u64 / LABEL_BYTES) as f64 / started.elapsed().as_secs_f64().max(1e-9))
}

/// Opens a device and makes a full batch of labels, in which kernels are compiled and dispatches find their length. The device and room
/// for another batch; wrong labels are an error.
pub(crate) fn warm(gpu: &Gpu, n: ScryptN, tuning: Tuning) -> Result<(Box<dyn Device>, Vec<u8>), DeviceError> {
    let mut device = gpu.open(n, &tuning)?;
    // The number of labels in flight is exact once memory has been taken.
    device.labels(&TRIAL, 0, &mut [0; LABEL_BYTES as usize])?;
    let mut labels = vec![0; device.info().lanes * LABEL_BYTES as usize];
    let smallest = device.labels(&TRIAL, 0, &mut labels)?;
    let mut checker = Checker::new(TRIAL, n).map_err(|e| DeviceError::Failed(e.to_string()))?;
    let count = labels.len() as u64 / LABEL_BYTES;
    for place in [0, count / 3, count - 1] {
        let label = &labels[(place * LABEL_BYTES) as usize..][..LABEL_BYTES as usize];
        if checker.full_label(place)[..LABEL_BYTES as usize] != *label {
            return Err(DeviceError::Failed(format!("label {place} is wrong")));
        }
    }
    if checker.full_label(smallest.index) != smallest.label {
        return Err(DeviceError::Failed("the smallest label is wrong".into()));
    }
    Ok((device, labels))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, thread};

    use kernels::label::{
        cpu::{Cpu, Isa},
        faulty::{Fault, Faulty},
        gpu::GpuClass,
    };

    use super::*;
    use crate::{event::Silent, gpu::fake::fake_gpu};

    fn n() -> ScryptN {
        ScryptN::new(16).unwrap()
    }

    fn with_faults(faults: Vec<Fault>) -> Result<Box<dyn Device>, DeviceError> {
        Ok(Box::new(Faulty::new(Cpu::new(Isa::best(), n())?, faults)))
    }

    /// Fast only with a gap of 3; with rows moved by single threads faster still, but wrong.
    fn device(tuning: Tuning) -> Result<Box<dyn Device>, DeviceError> {
        if tuning.movers == 1 {
            return with_faults(vec![Fault::WrongLabel { from: 0, place: 0 }]);
        }
        if tuning.gap == 3 {
            with_faults(vec![])
        } else {
            with_faults(vec![Fault::Slow { from: 0, per_label: Duration::from_micros(100) }])
        }
    }

    #[test]
    fn the_fastest_parameters_that_are_right_win_and_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().join("post-init/tuning.json"));
        let gpu = fake_gpu(0, GpuClass::Discrete, device);
        assert_eq!(cache.get(&gpu, n()), None);
        let mut trials = Vec::new();
        let tuned = tune(&gpu, n(), Duration::from_secs(60), &Stop::default(), &mut |trial| trials.push(trial.clone())).unwrap();
        assert_eq!((tuned.tuning.gap, tuned.tuning.movers), (3, 8));
        assert!(trials.iter().any(|trial| trial.tuning.movers == 1 && trial.result.is_err()), "{trials:?}");

        assert_eq!(for_use(&gpu, n(), &cache, &Stop::default(), &Silent).unwrap().tuning.gap, 3);
        let kept = cache.get(&gpu, n()).expect("kept");
        // A second time nothing is tried.
        let broken = fake_gpu(0, GpuClass::Discrete, |_| Err(DeviceError::Lost("never opened".into())));
        assert_eq!(for_use(&broken, n(), &cache, &Stop::default(), &Silent).unwrap(), kept);
        // It counts for this N, this device, and this driver only.
        assert_eq!(cache.get(&gpu, ScryptN::new(32).unwrap()), None);
        assert_eq!(cache.get(&fake_gpu(1, GpuClass::Discrete, device), n()), None);
        assert!(for_use(&broken, ScryptN::new(32).unwrap(), &cache, &Stop::default(), &Silent).is_err());
    }

    #[test]
    fn a_damaged_file_is_a_missing_one() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().join("tuning.json"));
        let path = cache.path().unwrap();
        let (one, two) = (fake_gpu(1, GpuClass::Discrete, device), fake_gpu(2, GpuClass::Discrete, device));
        let tuned = Tuned { tuning: Tuning::GPU, labels_per_second: 7.0 };
        for garbage in ["", "{", "[1, 2]", "null", "\u{0}\u{0}"] {
            fs::write(path, garbage).unwrap();
            assert_eq!(cache.get(&one, n()), None, "{garbage}");
            cache.put(&one, n(), &tuned).unwrap();
            assert_eq!(cache.get(&one, n()), Some(tuned), "{garbage}");
        }
        // A bad entry does not harm the others.
        let mut entries = cache.entries();
        for bad in [
            r#"{"tuning": 1}"#,
            r#"{"tuning": {"gap": 0, "group": 64, "movers": 8, "lanes": 1, "slice_ms": 1}, "labels_per_second": 1}"#,
        ] {
            entries.insert(two.tuning_key(n()), serde_json::from_str(bad).unwrap());
            fs::write(path, serde_json::to_vec(&entries).unwrap()).unwrap();
            assert_eq!((cache.get(&one, n()), cache.get(&two, n())), (Some(tuned), None), "{bad}");
        }
        // Nothing that is no entry of ours is lost, and nothing else is left behind.
        cache.put(&two, n(), &tuned).unwrap();
        assert_eq!((cache.get(&one, n()), cache.get(&two, n())), (Some(tuned), Some(tuned)));
        let names: BTreeSet<_> = fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert_eq!(names, ["tuning.json", "tuning.lock"].map(Into::into).into());
        // Several at once.
        thread::scope(|scope| {
            for id in 0..8 {
                let (cache, tuned) = (&cache, &tuned);
                scope.spawn(move || cache.put(&fake_gpu(id, GpuClass::Discrete, device), n(), tuned).unwrap());
            }
        });
        assert!((0..8).all(|id| cache.get(&fake_gpu(id, GpuClass::Discrete, device), n()).is_some()));
        // A place that cannot be written is told.
        assert!(Cache::at(path.join("below/a/file.json")).put(&one, n(), &tuned).is_err());
    }

    #[test]
    fn software_is_not_tried() {
        let cache = Cache { path: None };
        let gpu = fake_gpu(0, GpuClass::Software, |_| Err(DeviceError::Lost("never opened".into())));
        let tuned = for_use(&gpu, n(), &cache, &Stop::default(), &Silent).unwrap();
        assert_eq!(tuned, Tuned { tuning: gpu.default_tuning(), labels_per_second: 0.0 });
    }

    #[test]
    fn slow_devices_get_fewer_labels_in_flight() {
        // What a device makes grows with the labels in flight until all of it is busy.
        let lanes = |most: f64| {
            let measure = |tuning: Tuning| Ok(most.min(tuning.lanes as f64 * 30.0));
            start(Tuning::GPU, measure, |_| ()).unwrap().lanes
        };
        assert_eq!(lanes(1e6), Tuning::GPU.lanes);
        assert_eq!(lanes(65536.0), Tuning::GPU.lanes);
        assert_eq!(lanes(20500.0), 20480);
        assert_eq!(lanes(3000.0), 2048);
        assert_eq!(lanes(10.0), FEW);
        assert_eq!(start(Tuning::SOFTWARE, |_| Err(DeviceError::Lost("not tried".into())), |_| ()), Ok(Tuning::SOFTWARE));
    }

    #[test]
    fn a_trial_stops_at_once() {
        let gpu = fake_gpu(0, GpuClass::Discrete, |_| with_faults(vec![Fault::Hangs { from: 0 }]));
        let stop = Stop::default();
        let later = stop.clone();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            later.set();
        });
        let started = Instant::now();
        let result = tune(&gpu, n(), Duration::from_secs(60), &stop, &mut |_| ());
        assert!(matches!(result, Err(Error::Stopped)) && started.elapsed() < Duration::from_secs(1), "{result:?}");
    }
}
