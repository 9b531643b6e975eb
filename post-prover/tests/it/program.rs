//! The program from the outside: command line, exit codes, restarts.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use proto::post::{Params, Preset};
use serde_json::{Value, json};

use crate::data;

/// The program, silent but for errors.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_post-prover"));
    command.env("RUST_LOG", "warn");
    command
}

/// Ends a process however the test ends.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until something is true.
pub(crate) fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(120);
    while !done() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{output:?}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The options that describe a vector's base case with overrides.
fn options(entry: &Value) -> Vec<String> {
    let mut options = Vec::new();
    for (name, option) in [
        ("node_id", "--node-id"),
        ("commitment_atx_id", "--commitment-atx-id"),
        ("challenge", "--challenge"),
        ("num_units", "--num-units"),
        ("labels_per_unit", "--labels-per-unit"),
        ("scrypt_n", "--scrypt-n"),
        ("k1", "--k1"),
        ("k2", "--k2"),
        ("pow_difficulty", "--pow-difficulty"),
        ("min_num_units", "--min-num-units"),
        ("max_num_units", "--max-num-units"),
    ] {
        let value = &entry[name];
        options.extend([option.to_owned(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)]);
    }
    options
}

fn proof_json(proof: &Value) -> Value {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let indices = STANDARD.encode(hex::decode(proof["indices"].as_str().unwrap()).unwrap());
    json!({ "nonce": proof["nonce"], "indices": indices, "pow": proof["pow"].as_str().unwrap().parse::<u64>().unwrap() })
}

fn mode(mode: &Value) -> (String, String) {
    match mode["mode"].as_str().unwrap() {
        "All" => ("all".to_owned(), String::new()),
        "One" => (format!("one:{}", mode["index"]), String::new()),
        "Subset" => (format!("subset:{}", mode["k3"]), mode["seed"].as_str().unwrap().to_owned()),
        other => panic!("mode {other}"),
    }
}

fn entries() -> Vec<Value> {
    let file: Value = serde_json::from_str(include_str!("../../testdata/proofs_small_b.json")).unwrap();
    file["proofs"].as_array().unwrap().clone()
}

#[test]
fn verdicts_of_the_command_line_are_those_of_the_reference() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("proof.json");
    let entry = &entries()[0];
    let mut seen = std::collections::HashSet::new();
    for check in entry["checks"].as_array().unwrap() {
        // one of each kind is enough here: starting a program for each takes its time
        if !seen.insert((check["expect"]["kind"].to_string(), check["mode"]["mode"].to_string())) {
            continue;
        }
        let mut entry = entry.clone();
        for (name, value) in check["overrides"].as_object().unwrap() {
            entry[name] = value.clone();
        }
        std::fs::write(&file, proof_json(&check["proof"]).to_string()).unwrap();
        let (mode, seed) = mode(&check["mode"]);
        let output = program()
            .args(["verify", "--json", "--mode", &mode, "--seed", &seed, "--proof"])
            .arg(&file)
            .args(options(&entry))
            .output()
            .unwrap();
        let verdict: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
        assert_eq!(verdict, check["expect"], "{}", check["name"]);
        assert_eq!(code(&output), if verdict["ok"] == true { 0 } else { 3 }, "{}", check["name"]);
    }
    assert!(seen.len() > 8);
}

#[test]
fn a_batch_is_judged_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("batch.jsonl");
    let mut lines = String::new();
    let mut expected = Vec::new();
    for entry in &entries()[..2] {
        for check in entry["checks"].as_array().unwrap() {
            let mut line = entry.clone();
            for (name, value) in check["overrides"].as_object().unwrap() {
                line[name] = value.clone();
            }
            let object = line.as_object_mut().unwrap();
            object.retain(|name, _| !matches!(name.as_str(), "checks" | "files" | "indices" | "name" | "proof"));
            let (mode, seed) = mode(&check["mode"]);
            (line["proof"], line["mode"], line["seed"]) = (proof_json(&check["proof"]), mode.into(), seed.into());
            lines += &line.to_string();
            lines.push('\n');
            expected.push(check["expect"].clone());
        }
    }
    std::fs::write(&file, &lines).unwrap();
    let output = program().args(["verify", "--json", "--threads", "2", "--batch"]).arg(&file).output().unwrap();
    assert_eq!(code(&output), 3, "{}", text(&output.stderr));
    let verdicts: Vec<Value> = text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(verdicts, expected);

    std::fs::write(&file, format!("{lines}{{\"proof\":7}}\n")).unwrap();
    let output = program().args(["verify", "--json", "--batch"]).arg(&file).output().unwrap();
    assert_eq!(code(&output), 2);
    assert!(text(&output.stderr).contains(&format!("line {}", expected.len() + 1)));
}

/// Data on which a proof takes seconds of k2pow and reading with one thread.
fn slow_data(dir: &Path) -> (Params, Vec<String>) {
    let params = Params { labels_per_unit: 1 << 20, k1: 26, k2: 30, ..Preset::Fastnet.params() };
    data::write(dir, &data::metadata(5, &params, 2, 1 << 20), params.scrypt_n);
    let options = format!("--preset fastnet --k1 {} --k2 {} --nonces 16 --threads 1 --randomx-mode light", params.k1, params.k2);
    let mut options: Vec<String> = options.split_whitespace().map(str::to_owned).collect();
    options.extend(["--pow-difficulty".to_owned(), format!("02{}", "00".repeat(31))]);
    (params, options)
}

/// What a run has put on disk.
pub(crate) fn state_of(dir: &Path) -> Value {
    std::fs::read(dir.join(post_prover::state::STATE_FILE))
        .ok()
        .and_then(|text| serde_json::from_slice::<Value>(&text).ok())
        .map_or(Value::Null, |sealed| sealed["state"].clone())
}

#[test]
fn killed_and_interrupted_runs_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (_, options) = slow_data(dir.path());
    let out: PathBuf = dir.path().join("proof.json");
    let challenge = "37".repeat(32);
    let start = || {
        let mut command = program();
        command.args(["prove", "--challenge", &challenge, "--data-dir"]).arg(dir.path()).arg("--out").arg(&out);
        command.args(&options).stdout(Stdio::null()).stderr(Stdio::null());
        Running(command.spawn().unwrap())
    };
    // killed as soon as the first k2pow is on disk
    let mut run = start();
    wait_for("a k2pow", || state_of(dir.path())["pows"]["0"].is_u64() || run.0.try_wait().unwrap().is_some());
    run.0.kill().unwrap();
    run.0.wait().unwrap();
    let first = state_of(dir.path())["pows"].clone();
    assert!(first["0"].is_u64());

    // interrupted in the middle of the next search
    let mut run = start();
    std::thread::sleep(Duration::from_millis(900));
    if run.0.try_wait().unwrap().is_none() {
        let told = Instant::now();
        let killed = Command::new("sh").args(["-c", &format!("kill -TERM {}", run.0.id())]).status().unwrap();
        assert!(killed.success());
        let status = run.0.wait().unwrap();
        // within a second, but machines that run tests may be slow
        assert!(told.elapsed() < Duration::from_secs(10), "{:?}", told.elapsed());
        assert!(matches!(status.code(), Some(4 | 0)), "{status}");
    }
    let mut run = start();
    assert_eq!(run.0.wait().unwrap().code(), Some(0));
    let state = state_of(dir.path());
    assert_eq!(state["pows"]["0"], first["0"], "the first k2pow was kept");
    let proof: Value = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
    assert_eq!(proof, state["proof"].as_object().map(|p| json!(p)).unwrap());

    let output = program()
        .args(["verify", "--strict", "--challenge", &challenge, "--data-dir"])
        .arg(dir.path())
        .arg("--proof")
        .arg(&out)
        .args(["--preset", "fastnet", "--k1", "26", "--k2", "30", "--pow-difficulty", &format!("02{}", "00".repeat(31))])
        .output()
        .unwrap();
    assert_eq!((text(&output.stdout).trim(), code(&output)), ("valid", 0), "{}", text(&output.stderr));
}

#[test]
fn exit_codes_tell_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let params = Preset::Fastnet.params();
    data::write(dir.path(), &data::metadata(1, &params, 2, 100), params.scrypt_n);
    let run = |arguments: &str| {
        let arguments = arguments.replace("DIR", dir.path().to_str().unwrap()).replace("HEX", &"00".repeat(32));
        let output = program().args(arguments.split_whitespace()).output().unwrap();
        (code(&output), text(&output.stderr))
    };
    assert_eq!(run("prove --data-dir DIR --out DIR/p").0, 2);
    assert_eq!(run("prove --data-dir DIR --out DIR/p --challenge 12").0, 2);
    assert_eq!(run("prove --data-dir DIR --out DIR/p --challenge HEX --nonces 17").0, 2);
    assert_eq!(run("prove --data-dir DIR/none --out DIR/p --challenge HEX").0, 1);
    let (code, why) = run("prove --data-dir DIR --out DIR/p --challenge HEX");
    assert_eq!(code, 3, "two units are too few for mainnet");
    assert!(why.contains("2 units are out of range"), "{why}");
    std::fs::remove_file(dir.path().join("postdata_1.bin")).unwrap();
    let (code, why) = run("prove --preset fastnet --data-dir DIR --out DIR/p --challenge HEX");
    assert_eq!(code, 3);
    assert!(why.contains("postdata_1.bin is missing"), "{why}");
    std::fs::write(dir.path().join("p"), "{}").unwrap();
    assert_eq!(run("verify --preset fastnet --data-dir DIR --proof DIR/p --challenge HEX").0, 2);
    assert_eq!(run("verify --preset fastnet --data-dir DIR --proof DIR/q --challenge HEX").0, 1);
    assert_eq!(run("serve --data-dir DIR").0, 2);
    assert_eq!(run("k2pow serve --bind-address 0.0.0.0:1").0, 2);
    assert_eq!(run("--version").0, 0);
}

/// `docs/post-prover-cli.md` holds the help of every command. `UPDATE_DOCS=1` writes it again.
#[test]
fn the_command_line_reference_is_up_to_date() {
    let commands = ["", "serve", "move", "prove", "verify", "tune", "rehearse", "bench", "status", "k2pow serve", "certifier"];
    let mut doc = "# Command line of post-prover\n\nGenerated from the program; a test keeps it true.\n".to_owned();
    for command in commands {
        let output = program().args(command.split_whitespace()).arg("--help").env("COLUMNS", "120").output().unwrap();
        let help = text(&output.stdout);
        let help: Vec<&str> = help.lines().map(str::trim_end).collect();
        doc += &["\n## ", format!("post-prover {command}").trim_end(), "\n\n```text\n", help.join("\n").trim_end(), "\n```\n"]
            .concat();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/post-prover-cli.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &doc).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap() == doc,
        "run the tests once with UPDATE_DOCS=1 and commit docs/post-prover-cli.md"
    );
}

#[test]
fn the_documentation_names_options_that_exist() {
    let page = include_str!("../../../docs/post-prover.md");
    let reference = [include_str!("../../../docs/post-prover-cli.md"), include_str!("../../src/program/official.rs")].concat();
    let mut seen = 0;
    for word in page.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').filter(|word| word.starts_with("--")) {
        let field = word.trim_start_matches('-').replace('-', "_");
        assert!(reference.contains(&format!("{word} ")) || reference.contains(&format!("    {field}:")), "{word}");
        seen += 1;
    }
    assert!(seen > 20);
}

#[test]
fn the_dashboard_shows_metrics_that_exist() {
    let dashboard: Value = serde_json::from_str(include_str!("../../etc/grafana-dashboard.json")).unwrap();
    let sources = [include_str!("../../src/program/serve/identity.rs"), include_str!("../../src/program/k2pow/server.rs")];
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(!panels.is_empty());
    for panel in panels {
        let expression = panel["targets"][0]["expr"].as_str().unwrap();
        let names = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for name in names.filter(|name| name.starts_with("post_prover") || name.starts_with("k2pow")) {
            assert!(sources.iter().any(|source| source.contains(name)), "{name}");
        }
    }
}
