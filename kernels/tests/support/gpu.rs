//! What the tests of all GPU backends share: golden vectors, random ranges against the processor, memory.

#[path = "golden.rs"]
mod golden;

use golden::index;
use kernels::label::{
    Device, DeviceError,
    cpu::{Cpu, Isa},
    gpu::Tuning,
};
use proptest::{prelude::*, test_runner::TestRunner};
use proto::{ids::Commitment, post::ScryptN};

/// Opens a device; every test takes one of these for each device found.
pub(crate) type Open<'a> = &'a dyn Fn(ScryptN, Tuning) -> Result<Box<dyn Device>, DeviceError>;

/// Small batches, as one label of a test is computed with all others of its work-group.
pub(crate) const SMALL: Tuning = Tuning { gap: 1, group: 8, movers: 1, lanes: 8, slice_ms: 100 };

/// The gaps that golden vectors and random ranges are tried with.
pub(crate) const GAPS: [u32; 5] = [1, 2, 3, 4, 8];

pub(crate) fn n(value: u64) -> ScryptN {
    ScryptN::new(value).expect("a power of two")
}

/// Every `step`-th vector of single labels with these parameters.
pub(crate) fn golden_labels(open: Open<'_>, tuning: Tuning, step: usize) {
    let mut beyond = 0;
    for vectors in golden::labels() {
        let mut device = open(vectors[0].n, tuning).expect("a device");
        for vector in vectors.iter().step_by(step) {
            golden::gives(&mut *device, vector);
            beyond += usize::from(vector.index > u32::MAX as u64);
        }
    }
    assert!(beyond > 50 / step, "the vectors contain indices above 2^32");
}

/// The vectors of ranges.
pub(crate) fn golden_ranges(open: Open<'_>, tuning: Tuning) {
    golden::ranges(&|n| vec![open(n, tuning).expect("a device")]);
}

/// The vectors of searches for the smallest label.
pub(crate) fn golden_searches(open: Open<'_>, tuning: Tuning) {
    golden::searches(&|n| vec![open(n, tuning).expect("a device")]);
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

/// Labels per second of a batch after a first one.
pub(crate) fn rate(open: Open<'_>, n: ScryptN, tuning: Tuning) -> Result<f64, DeviceError> {
    let mut device = open(n, tuning)?;
    let mut out = vec![0; tuning.lanes as usize * 16];
    device.labels(&Commitment([1; 32]), 0, &mut out)?;
    let start = std::time::Instant::now();
    device.labels(&Commitment([1; 32]), 0, &mut out)?;
    Ok(tuning.lanes as f64 / start.elapsed().as_secs_f64())
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
