//! The CUDA backend without a GPU: its kernels compiled as C++ and its host part run against an emulated driver
//! (`emulated_cuda/driver.cpp`), compared with golden vectors and with the processor; the checked-in PTX; the bindings that need
//! no driver to start.
//!
//! With `CUDA_DEVICE=real` the system's driver and its devices are used instead.

#![cfg(target_os = "linux")]

#[path = "support/emulated.rs"]
mod emulated;
#[path = "support/gpu.rs"]
mod support;

use std::{
    env,
    process::{Command, Output},
    sync::OnceLock,
    time::{Duration, Instant},
};

use kernels::label::{
    Device, DeviceError,
    cuda::{Adapter, enumerate, kernel_version},
    gpu::{GpuClass, Tuning, Work, autotune},
};
use proto::{ids::Commitment, post::ScryptN};
use sha2::{Digest, Sha256};
use support::{GAPS, Open, SMALL, n};

const SOURCES: [&str; 2] = [include_str!("../src/label/cuda/label.cu"), include_str!("../src/label/cuda/label.h")];
const PTX: &str = include_str!("../src/label/cuda/label.ptx");

/// What the bindings look for instead of the system's driver.
const OVERRIDE: &str = "SMESH_LIBCUDA";

/// Whether the system's driver is to be used, for which some tests are not made.
fn is_real() -> bool {
    env::var_os("CUDA_DEVICE").is_some_and(|device| device == "real")
}

/// The devices: emulated ones unless real ones are asked for.
fn adapters() -> Vec<Adapter> {
    static CHOSEN: OnceLock<()> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        if !is_real() && env::var_os(OVERRIDE).is_none() {
            #[expect(unsafe_code, reason = "the bindings are told where to look")]
            // SAFETY: the one write to the environment in this process; threads of other tests wait for it here before they read it.
            unsafe {
                env::set_var(OVERRIDE, emulated::cuda_driver());
            }
        }
    });
    enumerate().expect("a device")
}

fn on_all(test: impl Fn(&Adapter, Open<'_>)) {
    for adapter in &adapters() {
        test(adapter, &|n, tuning| Ok(Box::new(adapter.open(n, tuning)?)));
    }
}

#[test]
fn golden_labels() {
    on_all(|_, open| {
        support::golden_labels(open, Tuning { group: 1, lanes: 1, ..SMALL }, 1);
        support::golden_labels(open, Tuning { gap: 3, movers: 8, ..SMALL }, 15);
    });
}

#[test]
fn golden_ranges_and_searches() {
    on_all(|_, open| {
        let several_batches = Tuning { group: 64, lanes: 192, movers: 8, ..SMALL };
        support::golden_ranges(open, several_batches);
        support::golden_searches(open, Tuning { gap: 4, movers: 1, ..several_batches });
    });
}

#[test]
fn random_ranges_equal_the_processor_for_every_gap() {
    on_all(|_, open| {
        for gap in GAPS {
            for movers in [1, 8] {
                support::equals_cpu(open, Tuning { gap, movers, group: 64, lanes: 128, ..SMALL }, 128, 6, 300);
            }
            support::equals_cpu(open, Tuning { gap, movers: 8, group: 16, lanes: 16, ..SMALL }, 8192, 1, 16);
        }
    });
}

#[test]
fn the_host_sleeps_while_the_device_works() {
    on_all(|_, open| support::sleeps(open, Tuning { group: 32, lanes: 64, ..SMALL }));
}

#[test]
fn arguments_and_memory() {
    on_all(|_, open| support::behaves(open));
}

#[test]
fn the_device_is_described() {
    if is_real() {
        return;
    }
    let adapters = adapters();
    let info = adapters[0].info();
    assert_eq!((info.name.as_str(), info.key.as_str()), ("Emulated GPU", "cuda:0000:af:00.0"));
    assert_eq!((info.class, info.memory), (GpuClass::Discrete, Some(2 << 30)));
    assert!(info.driver.contains("CUDA 12.8"), "{}", info.driver);
    assert_eq!(info.uuid, Some([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]));
    let same = kernels::label::gpu::GpuInfo { key: "vulkan:0000:af:00.0".into(), uuid: None, ..info.clone() };
    assert!(info.is_same_device(&same));
    let other = kernels::label::gpu::GpuInfo { pci: Some("0000:b0:00.0".into()), ..same };
    assert!(!info.is_same_device(&other));
    // 10 multiprocessors of 64 lanes at 1 GHz, 256 bits at twice 5 GHz.
    let bound = Work::per_label(ScryptN::MAINNET, 1).bound(&adapters[0].ceiling().expect("known clocks"));
    assert!((bound.arithmetic - 640e9 / 13_975_232.0).abs() < 1.0, "{bound:?}");
    assert!((bound.bandwidth - 320e9 / 2_097_152.0).abs() < 1.0, "{bound:?}");
    assert!((bound.labels_per_second() - bound.arithmetic).abs() < 1.0);
}

#[test]
fn tuning_tries_what_fits() {
    on_all(|adapter, open| {
        let start = Tuning { lanes: 64, group: 32, ..adapter.default_tuning() };
        let mut tried = Vec::new();
        let rate = |tuning| support::rate(open, n(64), tuning);
        autotune(adapter.info().class, start, Duration::from_secs(5), rate, |measured| tried.push(measured.tuning))
            .expect("a tuning");
        assert!([1, 2, 3, 4, 8].iter().all(|gap| tried.iter().any(|tuning| tuning.gap == *gap)), "{tried:?}");
        assert!(adapter.info().tuning_key(&kernel_version()).contains("ptx"));
    });
}

// ---- the checked-in PTX ----

#[test]
fn the_ptx_is_made_from_its_source() {
    let mut hash = Sha256::new();
    for source in SOURCES {
        hash.update(source);
    }
    let hash = hex::encode(hash.finalize());
    assert!(
        PTX.contains(&hash),
        "label.ptx is not made from label.cu and label.h as they are: run kernels/src/label/cuda/ptx.sh"
    );
    // What drivers of CUDA 11.0 and later take, for Turing and later.
    assert!(PTX.contains(".version 7.0\n.target sm_75\n"));
}

/// The instructions of a Mix, from the text between the label of a loop and the branch back to it (post.md section 22).
#[test]
fn a_mix_is_no_more_instructions_than_the_specification_counts() {
    let kernel = PTX.split(".entry fill_own(").nth(1).expect("the kernel").split(".entry ").next().expect("its text");
    let lines: Vec<&str> = kernel.lines().map(str::trim).collect();
    let mut longest = &lines[..0];
    for (end, line) in lines.iter().enumerate() {
        let Some(target) = line.split("bra").nth(1).map(|target| target.trim_start_matches(".uni").trim().trim_end_matches(';'))
        else {
            continue;
        };
        let begin = lines.iter().position(|line| *line == format!("{target}:")).expect("a label");
        if begin < end && end - begin > longest.len() {
            longest = &lines[begin..end];
        }
    }
    let count = |names: &[&str]| longest.iter().filter(|line| names.iter().any(|name| line.starts_with(name))).count();
    let rotations = count(&["shf.l.wrap.b32", "prmt.b32"]);
    let additions = count(&["add.s32"]);
    let xors = count(&["xor.b32"]);
    assert_eq!(rotations, 256);
    // 256 + 32 of the cipher, and a few for the loop.
    assert!((288..300).contains(&additions), "{additions}");
    assert_eq!(xors, 288);
    assert_eq!(count(&["prmt.b32"]), 128, "rotations by 16 and by 8 are byte permutes");
    assert_eq!(count(&["ld.local", "st.local"]), 0, "nothing lies in local memory");
}

// ---- the driver and its moods ----

/// Runs one of the tests that are ignored here in a process of its own, since the driver is opened once per process.
fn child(test: &str, environment: &[(&str, &str)]) -> Output {
    Command::new(env::current_exe().expect("this program"))
        .args([test, "--exact", "--ignored", "--nocapture"])
        .env(OVERRIDE, emulated::cuda_driver())
        .envs(environment.iter().copied())
        .output()
        .expect("a child")
}

fn expect_success(output: &Output) {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
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
fn a_driver_that_does_not_start_is_told_apart() {
    if is_real() {
        return;
    }
    let says = |environment: &[(&str, &str)], text: &str| {
        let output = child("child_prints_what_it_finds", environment);
        expect_success(&output);
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(out.contains(text), "{out}");
    };
    says(&[], "found 1");
    says(&[("EMULATED_INIT", "100")], "found nothing: the CUDA driver sees no device");
    says(&[("EMULATED_INIT", "3")], "found nothing: the CUDA driver does not start: NotInitialized");
    // Codes of drivers newer than the bindings.
    says(&[("EMULATED_INIT", "803")], "found nothing: the CUDA driver does not start: its library and its kernel module differ");
    says(&[("EMULATED_INIT", "913")], "error 913");
    says(&[("EMULATED_INIT", "987654")], "error 987654");
    // Were `vendor/cust_raw` not in use, this program would be linked to the driver and never look for another one.
    says(&[(OVERRIDE, "/nonexistent/libcuda.so")], "found nothing: no CUDA driver: /nonexistent/libcuda.so");
}

#[test]
fn the_program_does_not_need_the_driver_to_start() {
    let output = Command::new("ldd").arg(env::current_exe().expect("this program")).output().expect("ldd");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("libc.so"), "{text}");
    assert!(!text.contains("libcuda") && !text.contains("libvulkan"), "{text}");
}

fn labels_of(tuning: Tuning, count: usize) -> Result<(Vec<u8>, u32), DeviceError> {
    let adapter = enumerate().expect("a device").swap_remove(0);
    let mut device = adapter.open(n(64), tuning)?;
    let mut out = vec![0; count * 16];
    device.labels(&Commitment([9; 32]), 5, &mut out)?;
    // Once it has failed it stays so, and is let go of without waiting.
    Ok((out, device.lanes()?))
}

const FAULTY: Tuning = Tuning { lanes: 256, group: 32, ..SMALL };

#[test]
#[ignore = "a child process"]
fn child_finds_little_memory() {
    let (labels, lanes) = labels_of(FAULTY, 600).expect("labels");
    let mut expected = vec![0; 600 * 16];
    let mut cpu = kernels::label::cpu::Cpu::new(kernels::label::cpu::Isa::best(), n(64)).expect("a processor");
    cpu.labels(&Commitment([9; 32]), 5, &mut expected).expect("labels");
    assert!(labels == expected && (32..256).contains(&lanes), "{lanes}");
}

#[test]
#[ignore = "a child process"]
fn child_finds_no_memory() {
    let result = labels_of(FAULTY, 600);
    assert!(matches!(result, Err(DeviceError::OutOfMemory { .. })), "{result:?}");
}

#[test]
#[ignore = "a child process"]
fn child_loses_the_device() {
    let adapter = enumerate().expect("a device").swap_remove(0);
    let mut device = adapter.open(n(64), FAULTY).expect("a device");
    for _ in 0..2 {
        let result = device.labels(&Commitment([9; 32]), 5, &mut [0; 600 * 16]);
        assert!(matches!(result, Err(DeviceError::Lost(_))), "{result:?}");
    }
    assert_eq!(device.allocated(), 0);
}

#[test]
fn memory_that_is_not_there_means_fewer_labels_in_flight() {
    if is_real() {
        return;
    }
    // 256 labels in flight take 2 MiB and some.
    expect_success(&child("child_finds_little_memory", &[("EMULATED_MEMORY", "1000000")]));
    // The driver shows more than it gives.
    expect_success(&child("child_finds_little_memory", &[("EMULATED_MEMORY", "1000000"), ("EMULATED_SHOWN", "900000000")]));
    expect_success(&child("child_finds_no_memory", &[("EMULATED_MEMORY", "10000"), ("EMULATED_SHOWN", "900000000")]));
    // It was given, and then launches fail for want of it.
    expect_success(&child("child_finds_no_memory", &[("EMULATED_FAIL", "7,2")]));
}

#[test]
fn a_device_that_fails_in_the_middle_is_lost() {
    if is_real() {
        return;
    }
    // Launch failed, and a code that the bindings do not know.
    for code in ["719", "9999"] {
        for launch in ["1", "7", "12"] {
            expect_success(&child("child_loses_the_device", &[("EMULATED_FAIL", &format!("{launch},{code}"))]));
        }
    }
}

#[test]
#[ignore = "a child process"]
fn child_waits_for_a_hung_device() {
    let adapter = enumerate().expect("a device").swap_remove(0);
    let mut device = adapter.open(n(64), FAULTY).expect("a device");
    device.set_patience(Duration::from_secs(1));
    let start = Instant::now();
    let result = device.labels(&Commitment([9; 32]), 5, &mut [0; 600 * 16]);
    assert_eq!(result, Err(DeviceError::Hung { seconds: 1 }));
    assert!(start.elapsed() < Duration::from_secs(20));
    assert!(matches!(device.labels(&Commitment([9; 32]), 5, &mut [0; 16]), Err(DeviceError::Lost(_))));
}

#[test]
fn a_device_that_hangs_is_left_alone() {
    if is_real() {
        return;
    }
    expect_success(&child("child_waits_for_a_hung_device", &[("EMULATED_HANG", "9")]));
}
