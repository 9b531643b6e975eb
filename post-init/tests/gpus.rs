//! The program at work with graphics processors: software Vulkan and an emulated CUDA driver. It makes what the processor makes,
//! says what is missing, and pauses by signal and by its control socket.

#![cfg(target_os = "linux")]

#[path = "../../kernels/tests/support/emulated.rs"]
mod emulated;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Three files of 2000 labels.
const SIZE: &str = "--num-units 4 --labels-per-unit 1500 --max-file-size 32000 --commitment-atx-id \
                    0909090909090909090909090909090909090909090909090909090909090909 --node-id \
                    0707070707070707070707070707070707070707070707070707070707070707";

/// The program, with these words and a cache of its own.
fn program(cache: &TempDir, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_post-init"));
    // Graphics drivers complain without the second one.
    command.env("XDG_CACHE_HOME", cache.path()).env("XDG_RUNTIME_DIR", cache.path());
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Words of an `init`.
fn init<'a>(dir: &'a TempDir, more: &'a str) -> Vec<&'a str> {
    let mut words = vec!["init", "--data-dir", text(dir.path())];
    words.extend(SIZE.split_whitespace().chain(more.split_whitespace()));
    words
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[track_caller]
fn expect(code: i32, command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{command:?}\n{out}{err}");
    output
}

/// The lines of a `--json` run.
#[track_caller]
fn events(output: &Output) -> Vec<Value> {
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Each device in the last progress.
fn devices(events: &[Value]) -> &Vec<Value> {
    let last = events.iter().rev().find(|event| event["event"] == "progress").expect("there was progress");
    last["devices"].as_array().unwrap()
}

fn contents(dir: &TempDir) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(dir.path()).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file());
    files.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

/// What the processor makes.
fn reference(n: &str) -> BTreeMap<String, Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    expect(0, &mut program(&dir, &init(&dir, &format!("--backend cpu --scrypt-n {n}"))));
    let made = contents(&dir);
    assert_eq!(made.len(), 3 + 3);
    made
}

#[test]
fn without_cuda_the_backend_is_refused_with_one_sentence_of_advice() {
    let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let data = TempDir::with_prefix_in("data", dir.path()).unwrap();
    fs::remove_dir(data.path()).unwrap();
    for words in [init(&data, "--backend cuda"), vec!["bench", "--backend", "cuda"]] {
        let output = expect(2, program(&cache, &words).env("SMESH_LIBCUDA", "/nonexistent"));
        let said = String::from_utf8(output.stderr).unwrap();
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), 2, "{said}");
        assert!(lines[0].starts_with("error: --backend cuda reaches no device of this machine: no CUDA driver"), "{said}");
        assert!(lines[1].ends_with('.') && lines[1].contains("NVIDIA"), "{said}");
    }
    assert!(!data.path().exists());
    let output = expect(2, program(&cache, &init(&data, "--devices 17")).env("SMESH_LIBCUDA", "/nonexistent"));
    assert!(String::from_utf8(output.stderr).unwrap().contains("no device 17"));
    assert!(!data.path().exists());
}

#[test]
fn an_emulated_cuda_device_makes_what_the_processor_makes() {
    let cache = tempfile::tempdir().unwrap();
    let driver = emulated::cuda_driver();
    let cuda = |words: &[&str]| {
        let mut command = program(&cache, words);
        // Little memory makes small batches.
        command.env("SMESH_LIBCUDA", &driver).env("EMULATED_MEMORY", "1000000");
        command
    };
    expect(0, &mut cuda(&["tune", "--devices", "cuda:0000:af:00.0", "--seconds", "1", "--scrypt-n", "16"]));
    for (choice, names) in [("--backend cuda", 1), ("--devices cuda:0000:af:00.0,cpu --cpu-threads 1", 2)] {
        let dir = tempfile::tempdir().unwrap();
        let events = events(&expect(0, &mut cuda(&init(&dir, &format!("{choice} --scrypt-n 16 --json")))));
        assert!(contents(&dir) == reference("16"), "{choice}");
        let devices = devices(&events);
        assert_eq!(devices.len(), names, "{devices:?}");
        assert_eq!(devices[0]["name"], "0 Emulated GPU (cuda)");
        assert_eq!(devices[0]["strikes"], 0);
        expect(0, &mut cuda(&["verify", "--data-dir", text(dir.path()), "--all", "--backend", "cuda"]));
        expect(0, &mut cuda(&["nonce", "--data-dir", text(dir.path()), "--backend", "cuda"]));
    }
    let bench = expect(0, &mut cuda(&["bench", "--backend", "cuda", "--seconds", "1", "--scrypt-n", "16", "--json"]));
    let rates = events(&bench);
    assert_eq!(rates.len(), 1);
    assert!(rates[0]["labels_per_second"].as_f64().unwrap() > 0.0 && rates[0]["gpu_bytes"].as_u64().unwrap() > 0, "{rates:?}");
}

fn signal(child: &Child, name: &str) {
    // The shell's own, as `kill` is not installed everywhere.
    assert!(Command::new("sh").args(["-c", &format!("kill {name} {}", child.id())]).status().unwrap().success());
}

/// A run under way.
struct Run {
    child: Child,
    dir: TempDir,
    cache: TempDir,
}

impl Run {
    /// One on software Vulkan that is not over before it is told to hurry.
    fn start() -> Self {
        let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let child = program(&cache, &init(&dir, "--backend wgpu --scrypt-n 2048 --duty 15 --json")).spawn().unwrap();
        Self { child, dir, cache }
    }

    /// The answer to a command on the control socket.
    fn ask(&self, words: &[&str]) -> Value {
        let words = [&["control", "--data-dir", text(self.dir.path())], words].concat();
        serde_json::from_slice(&expect(0, &mut program(&self.cache, &words)).stdout).unwrap()
    }

    fn labels(&self) -> u64 {
        contents(&self.dir).iter().filter(|(name, _)| name.contains(".bin")).map(|(_, bytes)| bytes.len() as u64 / 16).sum()
    }

    /// Waits until this holds.
    #[track_caller]
    fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let started = Instant::now();
        while !holds(self) {
            assert!(started.elapsed() < Duration::from_secs(120), "no {what}");
            assert!(self.child.try_wait().unwrap().is_none(), "ended before {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn allocated(&self) -> (u64, bool) {
        let status = &self.ask(&["status"])["status"];
        let devices = status["devices"].as_array().unwrap();
        let sum = devices.iter().map(|device| device["allocated_bytes"].as_u64().unwrap()).sum();
        (sum, !devices.is_empty() && devices.iter().all(|device| device["state"] == "paused"))
    }

    fn takes_no_harm_from_rude_clients(&self) {
        for line in ["", "garbage\n", "{\"command\":\"duty\",\"percent\":0}\n", &"x".repeat(100_000)] {
            let mut stream = UnixStream::connect(self.dir.path().join("post-init.sock")).unwrap();
            // It may have heard enough before all is said.
            let _ = stream.write_all(line.as_bytes());
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer);
            assert!(answer.is_empty() || serde_json::from_str::<Value>(&answer).unwrap()["ok"] == json!(false), "{answer}");
        }
    }
}

#[test]
fn a_run_pauses_by_socket_and_by_signal_and_frees_the_memory() {
    let mut run = Run::start();
    let socket = run.dir.path().join("post-init.sock");
    run.until("labels", |run| run.labels() > 0 && run.allocated().0 > 0);
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    for by_signal in [false, true] {
        if by_signal {
            signal(&run.child, "-USR1");
        } else {
            assert_eq!(run.ask(&["pause"])["status"]["paused"], true);
        }
        run.until("pause", |run| run.allocated() == (0, true));
        let labels = run.labels();
        std::thread::sleep(Duration::from_millis(700));
        assert_eq!((run.labels(), run.allocated().0), (labels, 0), "it goes on");
        if by_signal {
            // While it is paused, so that it is not over in the middle.
            run.takes_no_harm_from_rude_clients();
            assert_eq!(run.ask(&["duty", "100"])["status"]["duty"], 100);
            signal(&run.child, "-USR2");
        } else {
            assert_eq!(run.ask(&["resume"])["status"]["paused"], false);
        }
        run.until("labels after the pause", |run| run.labels() > labels);
    }
    let lines = BufReader::new(run.child.stdout.take().unwrap()).lines();
    let events: Vec<Value> = lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    assert!(run.child.wait().unwrap().success());
    let order: Vec<&str> =
        events.iter().filter_map(|e| e["event"].as_str()).filter(|e| e.contains("ause") || *e == "resumed").collect();
    assert_eq!(order, ["paused", "resumed", "paused", "resumed"]);
    assert!(!socket.exists());
    assert!(contents(&run.dir) == reference("2048"));
    let words = ["control", "--data-dir", text(run.dir.path()), "status"];
    assert!(String::from_utf8(expect(1, &mut program(&run.cache, &words)).stderr).unwrap().contains("post-init.sock"));
}

#[test]
fn a_signal_ends_a_run_on_gpus_and_a_paused_one() {
    let mut run = Run::start();
    run.until("labels", |run| run.labels() > 0);
    signal(&run.child, "-USR1");
    run.until("pause", |run| run.allocated() == (0, true));
    signal(&run.child, "-TERM");
    let sent = Instant::now();
    assert_eq!(run.child.wait().unwrap().code(), Some(4));
    assert!(sent.elapsed() < Duration::from_secs(3), "{:?} on a busy machine", sent.elapsed());
    // In the middle of a batch.
    let mut child = program(&run.cache, &init(&run.dir, "--backend wgpu --scrypt-n 2048")).spawn().unwrap();
    let before = run.labels();
    while run.labels() == before {
        std::thread::sleep(Duration::from_millis(5));
    }
    signal(&child, "-INT");
    let sent = Instant::now();
    assert_eq!(child.wait().unwrap().code(), Some(4));
    assert!(sent.elapsed() < Duration::from_secs(6), "{:?} on a busy machine", sent.elapsed());
    expect(0, &mut program(&run.cache, &init(&run.dir, "--backend cpu --scrypt-n 2048")));
    assert!(contents(&run.dir) == reference("2048"));
}
