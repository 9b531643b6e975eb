//! What the tests of all GPU backends share: golden vectors, random ranges against the processor, memory.

use kernels::label::{
    Device, DeviceError, FullLabel, Smallest,
    cpu::{Cpu, Isa},
    gpu::Tuning,
};
use proptest::{prelude::*, test_runner::TestRunner};
use proto::{ids::Commitment, post::ScryptN};
use serde::{Deserialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

/// Opens a device; every test takes one of these for each device found.
pub(crate) type Open<'a> = &'a dyn Fn(ScryptN, Tuning) -> Result<Box<dyn Device>, DeviceError>;

/// Small batches, as one label of a test is computed with all others of its work-group.
pub(crate) const SMALL: Tuning = Tuning { gap: 1, group: 8, movers: 1, lanes: 8, slice_ms: 100 };

/// The gaps that golden vectors and random ranges are tried with.
pub(crate) const GAPS: [u32; 5] = [1, 2, 3, 4, 8];

pub(crate) fn n(value: u64) -> ScryptN {
    ScryptN::new(value).expect("a power of two")
}

#[derive(Deserialize)]
struct File<T> {
    vectors: Vec<T>,
}

fn vectors<T: DeserializeOwned>(text: &str) -> Vec<T> {
    let file: File<T> = serde_json::from_str(text).expect("a vector file");
    assert!(!file.vectors.is_empty());
    file.vectors
}

fn unhex<const L: usize>(text: &str) -> [u8; L] {
    let mut bytes = [0; L];
    hex::decode_to_slice(text, &mut bytes).expect("hex of the right length");
    bytes
}

#[derive(Deserialize)]
struct LabelVector {
    n: u64,
    commitment: String,
    index: String,
    label32: String,
}

/// Every `step`-th vector of `labels.json` with these parameters. Full labels are seen as the smallest of a range of one.
pub(crate) fn golden_labels(open: Open<'_>, tuning: Tuning, step: usize) {
    let vectors = vectors::<LabelVector>(include_str!("../../testdata/labels.json"));
    let mut costs: Vec<u64> = vectors.iter().map(|vector| vector.n).collect();
    costs.dedup();
    let mut beyond = 0;
    for cost in costs {
        let mut device = open(n(cost), tuning).expect("a device");
        for vector in vectors.iter().filter(|vector| vector.n == cost).step_by(step) {
            let index = vector.index.parse().expect("an index");
            let label: FullLabel = unhex(&vector.label32);
            let mut stored = [0; 16];
            let smallest = device.labels(&Commitment(unhex(&vector.commitment)), index, &mut stored).expect("a label");
            assert_eq!(smallest, Smallest { index, label }, "N = {cost}, {tuning:?}");
            assert_eq!(stored, label[..16], "N = {cost}, {tuning:?}");
            beyond += usize::from(index > u32::MAX as u64);
        }
    }
    assert!(beyond > 50 / step, "the vectors contain indices above 2^32");
}

#[derive(Deserialize)]
struct RangeVector {
    n: u64,
    commitment: String,
    start: String,
    count: usize,
    sha256: String,
}

/// The vectors of `label_ranges.json`, which cross 2^32.
pub(crate) fn golden_ranges(open: Open<'_>, tuning: Tuning) {
    for vector in vectors::<RangeVector>(include_str!("../../testdata/label_ranges.json")) {
        let mut device = open(n(vector.n), tuning).expect("a device");
        let mut out = vec![0; vector.count * 16];
        device.labels(&Commitment(unhex(&vector.commitment)), vector.start.parse().expect("an index"), &mut out).expect("labels");
        assert_eq!(<[u8; 32]>::from(Sha256::digest(&out)), unhex(&vector.sha256), "N = {}, {tuning:?}", vector.n);
    }
}

#[derive(Deserialize)]
struct Found {
    index: String,
    label32: String,
}

#[derive(Deserialize)]
struct SearchVector {
    n: u64,
    commitment: String,
    start: String,
    count: usize,
    difficulty: String,
    found: Option<Found>,
}

/// The vectors of `vrf_search.json`: the smallest label of a range.
pub(crate) fn golden_searches(open: Open<'_>, tuning: Tuning) {
    for vector in vectors::<SearchVector>(include_str!("../../testdata/vrf_search.json")) {
        let mut device = open(n(vector.n), tuning).expect("a device");
        let difficulty: FullLabel = unhex(&vector.difficulty);
        let found =
            vector.found.map(|found| Smallest { index: found.index.parse().expect("an index"), label: unhex(&found.label32) });
        let mut out = vec![0; vector.count * 16];
        let smallest = device
            .labels(&Commitment(unhex(&vector.commitment)), vector.start.parse().expect("an index"), &mut out)
            .expect("labels");
        assert_eq!(Some(smallest).filter(|s| s.label < difficulty), found, "N = {}, {tuning:?}", vector.n);
    }
}

/// Any index, the edges of 32 and 64 bits more often than chance would have it.
fn index() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0..100_u64,
        (1_u64 << 32) - 50..(1 << 32) + 50,
        (5_u64 << 32) - 20..(5 << 32) + 20,
        u64::MAX - 200..=u64::MAX
    ]
}

/// The device gives what the processor gives, for random ranges with these parameters.
pub(crate) fn equals_cpu(open: Open<'_>, tuning: Tuning, cost: u64, cases: u32, longest: usize) {
    let mut device = open(n(cost), tuning).expect("a device");
    let mut cpu = Cpu::new(Isa::best(), n(cost)).expect("a processor");
    let mut runner = TestRunner::new(ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() });
    let device = std::cell::RefCell::new(&mut device);
    let cpu = std::cell::RefCell::new(&mut cpu);
    runner
        .run(&(any::<[u8; 32]>(), index(), 1..=longest), |(commitment, first, count)| {
            let count = count.min(usize::try_from(u64::MAX - first).unwrap_or(usize::MAX).saturating_add(1));
            let commitment = Commitment(commitment);
            let (mut from_device, mut from_cpu) = (vec![0; count * 16], vec![0; count * 16]);
            let found = device.borrow_mut().labels(&commitment, first, &mut from_device).expect("labels");
            let expected = cpu.borrow_mut().labels(&commitment, first, &mut from_cpu).expect("labels");
            prop_assert_eq!(&from_device, &from_cpu, "first {}, {:?}", first, tuning);
            prop_assert_eq!(found, expected, "first {}, {:?}", first, tuning);
            Ok(())
        })
        .expect("the same labels");
}

/// Bad arguments, and memory that comes and goes.
pub(crate) fn behaves(open: Open<'_>) {
    let commitment = Commitment([7; 32]);
    let mut device = open(n(64), SMALL).expect("a device");
    assert_eq!(device.labels(&commitment, 0, &mut []), Err(DeviceError::OutputSize { bytes: 0 }));
    assert_eq!(device.labels(&commitment, 0, &mut [0; 17]), Err(DeviceError::OutputSize { bytes: 17 }));
    let overflow = DeviceError::RangeOverflow { first: u64::MAX, count: 2 };
    assert_eq!(device.labels(&commitment, u64::MAX, &mut [0; 32]), Err(overflow));
    assert_eq!(device.allocated(), 0, "no memory before the first label");

    let mut before = [0; 20 * 16];
    let smallest = device.labels(&commitment, 3, &mut before).expect("labels");
    let held = device.allocated();
    assert!(held >= 8 * 64 * 128, "{held}");
    device.release();
    assert_eq!(device.allocated(), 0, "a paused device holds nothing");
    device.release();
    let mut after = [0; 20 * 16];
    assert_eq!(device.labels(&commitment, 3, &mut after), Ok(smallest));
    assert_eq!(before, after);
    assert_eq!(device.allocated(), held);

    for bad in [
        Tuning { gap: 0, ..SMALL },
        Tuning { gap: 65, ..SMALL },
        Tuning { group: 12, ..SMALL },
        Tuning { group: 4, movers: 8, ..SMALL },
        Tuning { group: 512, ..SMALL },
        Tuning { movers: 2, ..SMALL },
        Tuning { lanes: 0, ..SMALL },
        Tuning { slice_ms: 0, ..SMALL },
    ] {
        assert!(matches!(open(n(64), bad).map(|_| ()), Err(DeviceError::Unsupported(_))), "{bad:?}");
    }
}

/// Whoever asks for labels sleeps while the device works: below 10 % of a core.
#[cfg(target_os = "linux")]
pub(crate) fn sleeps(open: Open<'_>, tuning: Tuning) {
    // Fields 14 and 15 of the line are user and system time of this thread in hundredths of a second.
    let cpu = || -> f64 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("Linux");
        let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
        (fields[11].parse::<f64>().expect("ticks") + fields[12].parse::<f64>().expect("ticks")) / 100.0
    };
    let mut device = open(n(8192), tuning).expect("a device");
    let mut out = vec![0; tuning.lanes as usize * 16];
    device.labels(&Commitment([2; 32]), 0, &mut out).expect("labels");
    let (start, before) = (std::time::Instant::now(), cpu());
    let mut first = 0;
    while start.elapsed().as_secs_f64() < 2.0 {
        device.labels(&Commitment([2; 32]), first, &mut out).expect("labels");
        first += tuning.lanes as u64;
    }
    let (used, wall) = (cpu() - before, start.elapsed().as_secs_f64());
    assert!(used < wall / 10.0, "{used} s of {wall} s");
}
