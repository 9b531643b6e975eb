//! The wgpu backend on every adapter of this machine, software Vulkan included: golden vectors, the processor's labels, memory.

#[path = "support/gpu.rs"]
mod support;

use std::{
    collections::HashSet,
    env,
    process::Command,
    time::{Duration, Instant},
};

use kernels::label::{
    Device, DeviceError,
    gpu::{GpuClass, Tuned, Tuning, autotune},
    wgpu::{Adapter, enumerate, kernel_version},
};
use proto::{ids::Commitment, post::ScryptN};
use support::{GAPS, Open, SMALL, n};

/// Runs a test on every adapter.
fn on_all(test: impl Fn(&Adapter, Open<'_>)) {
    let adapters = enumerate().expect("an adapter; a software one comes with mesa-vulkan-drivers and libvulkan1");
    for adapter in &adapters {
        println!("{}", adapter.info().name);
        test(adapter, &|n, tuning| Ok(Box::new(adapter.open(n, tuning)?)));
    }
}

#[test]
fn golden_labels() {
    on_all(|_, open| {
        support::golden_labels(open, SMALL, 1);
        support::golden_labels(open, Tuning { gap: 3, movers: 8, ..SMALL }, 5);
    });
}

#[test]
fn golden_ranges_and_searches() {
    on_all(|_, open| {
        let several_batches = Tuning { group: 32, lanes: 96, ..SMALL };
        support::golden_ranges(open, several_batches);
        support::golden_searches(open, Tuning { gap: 4, movers: 8, ..several_batches });
    });
}

#[test]
fn random_ranges_equal_the_processor_for_every_gap() {
    on_all(|_, open| {
        for gap in GAPS {
            for movers in [1, 8] {
                support::equals_cpu(open, Tuning { gap, movers, group: 16, lanes: 48, ..SMALL }, 128, 6, 110);
            }
            support::equals_cpu(open, Tuning { gap, group: 16, lanes: 32, ..SMALL }, 8192, 2, 40);
        }
    });
}

/// Software Vulkan ends long loops silently.
#[test]
fn long_dispatches_stay_right() {
    on_all(|_, open| {
        for gap in [1, 8] {
            support::equals_cpu(open, Tuning { gap, movers: 8, slice_ms: 60_000, ..SMALL }, 16384, 4, 8);
        }
    });
}

#[test]
fn a_batch_of_several_shards_is_one_range() {
    on_all(|adapter, open| {
        // 128 MiB, the least that adapters bind, are 128 labels: with 320 in flight there are three shards on such an adapter.
        support::equals_cpu(open, Tuning { group: 64, lanes: 320, ..adapter.default_tuning() }, 8192, 1, 330);
    });
}

#[cfg(target_os = "linux")]
#[test]
fn the_host_sleeps_while_the_device_works() {
    on_all(|_, open| support::sleeps(open, Tuning { group: 64, lanes: 128, ..SMALL }));
}

#[test]
fn arguments_and_memory() {
    on_all(|_, open| support::behaves(open));
}

#[test]
fn dispatches_are_far_shorter_than_the_work() {
    on_all(|adapter, _| {
        let tuning = Tuning { slice_ms: 10, gap: 8, group: 32, lanes: 256, ..SMALL };
        let mut device = adapter.open(ScryptN::MAINNET, tuning).expect("a device");
        let mut out = vec![0; 256 * 16];
        device.labels(&Commitment([1; 32]), 0, &mut out).expect("labels");
        let start = Instant::now();
        device.labels(&Commitment([1; 32]), 256, &mut out).expect("labels");
        // A share and not a time, since other programs run.
        let (longest, whole) = (device.longest_dispatch(), start.elapsed());
        assert!(longest > Duration::ZERO && longest < whole / 3, "{longest:?} of {whole:?}");
    });
}

#[test]
fn a_device_that_does_not_answer_counts_as_hung() {
    on_all(|adapter, _| {
        let mut device = adapter.open(n(1024), Tuning { lanes: 64, ..SMALL }).expect("a device");
        device.set_patience(Duration::ZERO);
        let commitment = Commitment([1; 32]);
        assert_eq!(device.labels(&commitment, 0, &mut [0; 64 * 16]), Err(DeviceError::Hung { seconds: 0 }));
        // It is not used again.
        assert!(matches!(device.labels(&commitment, 0, &mut [0; 16]), Err(DeviceError::Lost(_))));
    });
}

#[test]
fn a_work_group_that_does_not_fit_a_buffer_is_refused() {
    on_all(|adapter, open| {
        let too_much = Tuning { group: 256, ..SMALL };
        let refused = open(n(1 << 20), too_much).map(|_| ());
        // 32 GiB in one buffer.
        assert!(matches!(refused, Err(DeviceError::Unsupported(_))), "{}: {refused:?}", adapter.info().name);
    });
}

#[test]
fn more_labels_than_memory_are_fewer_labels() {
    on_all(|adapter, _| {
        if adapter.info().class != GpuClass::Software {
            return;
        }
        // 16 GiB are wanted of an adapter that reports 2 GiB.
        let mut device = adapter.open(n(1 << 17), Tuning { lanes: 1024, ..SMALL }).expect("a device");
        let lanes = device.lanes().expect("some memory");
        assert!((8..=128).contains(&lanes) && lanes.is_multiple_of(8), "{lanes}");
        assert_eq!(device.info().lanes, lanes as usize);
    });
}

#[test]
fn adapters_are_described() {
    let adapters = enumerate().expect("an adapter");
    let keys: HashSet<_> = adapters.iter().map(|adapter| adapter.info().key.clone()).collect();
    assert_eq!(keys.len(), adapters.len(), "{keys:?}");
    let again: HashSet<_> = enumerate().expect("an adapter").iter().map(|adapter| adapter.info().key.clone()).collect();
    assert_eq!(keys, again);
    for adapter in &adapters {
        let info = adapter.info();
        assert!(!info.name.is_empty() && !info.driver.is_empty());
        assert!(info.tuning_key(&kernel_version()).contains(&info.driver));
        if info.backend == "vulkan" {
            assert!(info.memory.is_some_and(|bytes| bytes > 1 << 20), "{info:?}");
        }
        if info.class == GpuClass::Software {
            assert_eq!(info.uuid, None);
        }
    }
}

#[test]
fn what_is_missing_is_told_apart() {
    // The loader is asked for drivers in a process of its own, with none to be found.
    let output = Command::new(env::current_exe().expect("this program"))
        .args(["child_prints_what_it_finds", "--exact", "--ignored", "--nocapture"])
        .env("VK_ICD_FILENAMES", "/nonexistent.json")
        .env("VK_DRIVER_FILES", "/nonexistent.json")
        .output()
        .expect("a child");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(cfg!(not(target_os = "linux")) || text.contains("found nothing: no Vulkan, Metal or DirectX 12 driver"), "{text}");
}

#[test]
#[ignore = "a child process"]
fn child_prints_what_it_finds() {
    match enumerate() {
        Ok(adapters) => println!("found {}", adapters.len()),
        Err(e) => println!("found nothing: {e}"),
    }
}

#[test]
fn tuning_ends_and_is_kept_as_text() {
    on_all(|adapter, open| {
        let start = Tuning { lanes: 32, group: 32, ..adapter.default_tuning() };
        let mut trials = 0;
        let rate = |tuning| support::rate(open, n(64), tuning);
        let tuned = autotune(adapter.info().class, start, Duration::from_secs(3), rate, |_| trials += 1).expect("a tuning");
        assert!(trials > 1 && tuned.labels_per_second > 0.0);
        let text = serde_json::to_string(&tuned).expect("text");
        assert_eq!(serde_json::from_str::<Tuned>(&text).expect("the same").tuning, tuned.tuning);
    });
}
