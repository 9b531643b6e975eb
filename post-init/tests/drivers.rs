//! The program and graphics processors: where nothing of them is installed, and with drivers that are emulated.

#![cfg(target_os = "linux")]

#[path = "../../kernels/tests/support/emulated.rs"]
mod emulated;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_post-init");

/// The program, knowing of no library of a GPU but those it is given, with a cache of its own.
fn program(cache: &Path, words: &[&str], environment: &[(&str, &Path)]) -> Output {
    let nowhere = Path::new("/nonexistent");
    let mut command = Command::new(PROGRAM);
    command.args(words).stdin(Stdio::null()).env("XDG_CACHE_HOME", cache);
    command.envs(["SMESH_LIBCUDA", "SMESH_LIBNVML", "VK_DRIVER_FILES", "VK_ICD_FILENAMES"].map(|name| (name, nowhere)));
    command.envs(environment.iter().copied()).output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[track_caller]
fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", text(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn json_lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", text(output));
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A folder whose Vulkan loader cannot be loaded, which comes before those of the system.
fn broken_loader() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("libvulkan.so.1"), "no library").unwrap();
    dir
}

fn management_library() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/emulated_nvml/nvml.cpp");
    BUILT.get_or_init(|| emulated::compile(&source, "libnvml")).clone()
}

#[test]
fn no_library_of_a_gpu_is_linked() {
    // What `ldd` does.
    let output = Command::new(PROGRAM).env("LD_TRACE_LOADED_OBJECTS", "1").output().unwrap();
    let text = text(&output).to_lowercase();
    println!("{text}");
    assert!(text.contains("libc.so"), "{text}");
    for library in ["cuda", "nvidia", "vulkan", "opencl", "libgl", "drm"] {
        assert!(!text.contains(library), "{text}");
    }
}

#[test]
fn without_any_library_it_starts_and_says_what_is_absent() {
    let (cache, loader) = (tempfile::tempdir().unwrap(), broken_loader());
    // A loader without a driver, and not even a loader.
    let cases: [(&[(&str, &Path)], &str); 2] = [
        (&[], "no Vulkan, Metal or DirectX 12 driver serves a device of this machine"),
        (&[("LD_LIBRARY_PATH", loader.path())], "no Vulkan loader: "),
    ];
    for (environment, why) in cases {
        let started = Instant::now();
        let listed = json(&program(cache.path(), &["devices", "--json"], environment));
        assert!(started.elapsed() < Duration::from_secs(2));
        let devices = listed["devices"].as_array().unwrap();
        assert!(devices.iter().all(|device| device["backend"] == "cpu"), "{listed}");
        assert_eq!(devices.iter().filter(|device| device["default"] == true).count(), 1);
        let reason = |backend: &str| {
            let absent = listed["absent"].as_array().unwrap().iter().find(|absent| absent["backend"] == backend).unwrap();
            assert!(absent["advice"].as_str().unwrap().ends_with('.'), "{absent}");
            absent["why"].as_str().unwrap().to_owned()
        };
        assert!(reason("cuda").starts_with("no CUDA driver: /nonexistent"), "{listed}");
        assert!(reason("wgpu").starts_with(why), "{listed}");

        let findings = json_lines(&program(cache.path(), &["doctor", "--json"], environment));
        let of = |about: &str| findings.iter().find(|finding| finding["about"] == about).unwrap();
        assert_eq!(of("cpu")["verdict"], "good");
        assert!(of("cuda")["text"].as_str().unwrap().starts_with("no CUDA driver"), "{findings:?}");
        assert!(of("wgpu")["text"].as_str().unwrap().starts_with(why), "{findings:?}");

        let tune = program(cache.path(), &["tune"], environment);
        assert!(tune.status.code() == Some(2) && text(&tune).contains("post-init doctor"), "{}", text(&tune));

        // One sentence of what to do.
        let bench = program(cache.path(), &["bench", "--backend", "cuda"], environment);
        let said = String::from_utf8_lossy(&bench.stderr).into_owned();
        assert!(
            bench.status.code() == Some(2) && said.lines().filter(|line| line.contains("NVIDIA's driver")).count() == 1,
            "{said}"
        );

        let dir = tempfile::tempdir().unwrap();
        let words = ["init", "--data-dir", dir.path().to_str().unwrap(), "--labels-per-unit", "1000", "--num-units", "4"];
        let made = program(cache.path(), &[&words[..], &["--scrypt-n", "16"]].concat(), environment);
        assert!(made.status.success(), "{}", text(&made));
        assert!(!cache.path().join("post-init").exists());
    }
}

#[test]
fn an_emulated_gpu_is_listed_examined_and_tuned() {
    let cache = tempfile::tempdir().unwrap();
    let (cuda, nvml) = (emulated::cuda_driver(), management_library());
    let environment: [(&str, &Path); 2] = [("SMESH_LIBCUDA", &cuda), ("SMESH_LIBNVML", &nvml)];
    let listed = json(&program(cache.path(), &["devices", "--json"], &environment));
    let gpu = &listed["devices"][0];
    assert_eq!((gpu["id"].as_str(), gpu["key"].as_str()), (Some("0"), Some("cuda:0000:af:00.0")), "{listed}");
    assert_eq!((gpu["name"].as_str(), gpu["default"].as_bool()), (Some("Emulated GPU"), Some(true)));
    assert_eq!(
        (gpu["celsius"].as_f64(), gpu["watts"].as_f64(), gpu["free"].as_u64()),
        (Some(42.0), Some(123.5), Some(1_500_000_000))
    );
    assert!(gpu["driver"].as_str().unwrap().contains("CUDA"), "{listed}");
    assert!(listed["devices"].as_array().unwrap()[1..].iter().all(|device| device["default"] == false));
    assert!(listed["absent"].as_array().unwrap().iter().all(|absent| absent["backend"] == "wgpu"));
    // Without sensors it is listed all the same.
    let listed = json(&program(cache.path(), &["devices", "--json"], &environment[..1]));
    assert!(listed["devices"][0]["celsius"].is_null() && listed["devices"][0]["name"] == "Emulated GPU", "{listed}");

    let findings = json_lines(&program(cache.path(), &["doctor", "--json"], &environment));
    let said: Vec<&str> = findings.iter().filter_map(|finding| finding["text"].as_str()).collect();
    assert!(said.contains(&"Emulated GPU makes right labels"), "{said:?}");
    assert!(said.contains(&"its temperature can be read: 42 °C"), "{said:?}");

    let file = cache.path().join("post-init/tuning.json");
    for before in [None, Some("garbage")] {
        if let Some(before) = before {
            fs::write(&file, before).unwrap();
        }
        let words = ["tune", "--json", "--seconds", "1", "--scrypt-n", "16"];
        // Little memory makes small batches.
        let environment = [&environment[..], &[("EMULATED_MEMORY", Path::new("1000000"))]].concat();
        let trials = json_lines(&program(cache.path(), &words, &environment));
        let last = trials.last().unwrap();
        assert_eq!((last["event"].as_str(), last["device"].as_str()), (Some("tuned"), Some("cuda:0000:af:00.0")));
        let best = trials.iter().filter_map(|trial| trial["labels_per_second"].as_f64()).fold(0.0, f64::max);
        assert!(trials.len() > 2 && last["labels_per_second"].as_f64() == Some(best) && best > 0.0, "{trials:?}");
        let kept: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        let (key, entry) = kept.as_object().unwrap().iter().next().unwrap();
        assert!(key.starts_with("cuda:0000:af:00.0 | Emulated GPU | ") && key.ends_with("| N = 16"), "{key}");
        assert_eq!(entry["tuning"], last["tuning"]);
    }
    let none = program(cache.path(), &["tune", "--devices", "7"], &environment);
    assert!(none.status.code() == Some(2) && text(&none).contains("device 7"), "{}", text(&none));
}

#[test]
fn the_roofline_states_bound_and_share() {
    let cache = tempfile::tempdir().unwrap();
    let cuda = emulated::cuda_driver();
    let environment: [(&str, &Path); 2] = [("SMESH_LIBCUDA", &cuda), ("EMULATED_MEMORY", Path::new("1000000"))];
    let words = ["bench", "--roofline", "--json", "--seconds", "1", "--scrypt-n", "16", "--labels", "100"];
    let rows = json_lines(&program(cache.path(), &words, &environment));
    let gaps: Vec<u64> = rows.iter().filter_map(|row| row["gap"].as_u64()).collect();
    assert_eq!(gaps, [1, 2, 3, 4, 8]);
    for row in &rows {
        let number = |name: &str| row[name].as_f64().unwrap();
        // 10 multiprocessors of 64 lanes at 1 GHz, 256 bits at twice 5 GHz.
        assert!((number("arithmetic_bound") * number("operations") / 640e9 - 1.0).abs() < 1e-9, "{row}");
        assert!((number("bandwidth_bound") * number("traffic") / 320e9 - 1.0).abs() < 1e-9, "{row}");
        let smaller = number("arithmetic_bound").min(number("bandwidth_bound"));
        assert!((number("share") * smaller / number("labels_per_second") - 1.0).abs() < 1e-9, "{row}");
        assert!(number("labels") >= 100.0 && number("labels_per_cpu_second") > 0.0, "{row}");
    }
    // What the driver does not know can be told.
    let more = ["--gaps", "2", "--peak-operations", "2", "--peak-bandwidth", "3"];
    let rows = json_lines(&program(cache.path(), &[&words[..], &more].concat(), &environment));
    assert!((rows[0]["bandwidth_bound"].as_f64().unwrap() * rows[0]["traffic"].as_f64().unwrap() / 3e9 - 1.0).abs() < 1e-9);
    let none = program(cache.path(), &["bench", "--roofline"], &[]);
    assert!(none.status.code() == Some(2) && text(&none).contains("no GPU to measure"), "{}", text(&none));
}

#[test]
fn a_driver_in_trouble_is_explained() {
    let cache = tempfile::tempdir().unwrap();
    let cuda = emulated::cuda_driver();
    for (code, why) in [("803", "differ in version"), ("100", "sees no device"), ("987654", "error 987654")] {
        let environment: [(&str, &Path); 2] = [("SMESH_LIBCUDA", &cuda), ("EMULATED_INIT", Path::new(code))];
        let findings = json_lines(&program(cache.path(), &["doctor", "--json"], &environment));
        let cuda = findings.iter().find(|finding| finding["about"] == "cuda").unwrap();
        assert!(cuda["text"].as_str().unwrap().contains(why), "{cuda}");
    }
}
