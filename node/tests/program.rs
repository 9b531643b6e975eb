//! The real program.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_smesh-node");
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn run(words: &[&str]) -> Output {
    // The help is wrapped to the width of COLUMNS.
    let mut command = Command::new(PROGRAM);
    command.env_remove("COLUMNS").args(words).stdin(Stdio::null()).output().unwrap()
}

/// Runs a command that must end with this code; both outputs.
#[track_caller]
fn expect(code: i32, words: &[&str]) -> (String, String) {
    let output = run(words);
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(code), "{words:?}\n{out}{err}");
    (out, err)
}

struct Dir(TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }
}

const LOCAL: [&str; 4] = ["--preset", "local", "--genesis-time", "2020-01-01T00:00:00Z"];

fn vectors(name: &str) -> Value {
    let path = Path::new(ROOT).join("proto/testdata").join(name);
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn identities_are_made_listed_moved_and_never_shown() {
    let dir = Dir::new();
    let (data, other, moving) = (dir.path("data"), dir.path("other"), dir.path("moving"));
    let at = |data: &str, words: &[&str]| [words, &["--data-dir", data]].concat().iter().map(|w| (*w).to_owned()).collect();
    let with = |data: &str, words: &[&str]| -> Vec<String> { at(data, words) };
    let go = |code, words: Vec<String>| expect(code, &words.iter().map(String::as_str).collect::<Vec<_>>());
    // a directory is made for a network only
    let (_, error) = go(2, with(&data, &["identity", "new"]));
    assert!(error.contains("--preset makes it"), "{error}");
    assert!(go(2, with(&data, &["identity", "new", "--preset", "local"])).1.contains("--genesis-time"));
    let (made, notes) = go(0, with(&data, &[&["identity", "new"], &LOCAL[..]].concat()));
    let key_file = PathBuf::from(&data).join("identities/local.key");
    let key = fs::read_to_string(&key_file).unwrap();
    assert_eq!(made, format!("{} local.key\n", &key[64..]));
    assert!(!made.contains(&key[..64]) && !notes.contains(&key[..64]));
    // a second one would keep the node from starting
    assert!(go(2, with(&data, &["identity", "new"])).1.contains("--name"));
    assert!(go(2, with(&data, &["identity", "new", "--name", "two"])).1.contains("local.key must be the only key"));
    let (list, _) = go(0, with(&data, &["identity", "list", "--json"]));
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!((&list[0]["id"], &list[0]["name"], &list[0]["barred"]), (&key[64..].into(), &"local.key".into(), &Value::Null));
    // to another directory, with its history
    go(0, with(&data, &["identity", "export", "local", "--to", &moving, "--retire"]));
    assert!(!key_file.exists() && go(0, with(&data, &["identity", "list"])).0.is_empty());
    let (moved, history) = (format!("{moving}/local.key"), format!("{moving}/history.json"));
    assert_eq!(fs::read_to_string(&moved).unwrap(), key);
    let import = ["identity", "import", &moved, "--history", &history];
    let (_, notes) = go(0, with(&other, &[&import, &LOCAL[..]].concat()));
    assert!(notes.contains("no other node") && !notes.contains("signs nothing"), "{notes}");
    assert!(go(2, with(&other, &["identity", "import", &moved, "--name", "again"])).1.contains("same identity"));
    // without its history it is barred from all that has begun
    let third = dir.path("third");
    let (_, notes) = go(0, with(&third, &[&["identity", "import", &moved, "--name", "b"], &LOCAL[..]].concat()));
    assert!(notes.contains("signs nothing up to epoch"), "{notes}");
    let (list, _) = go(0, with(&third, &["identity", "list", "--json"]));
    let list: Value = serde_json::from_str(&list).unwrap();
    assert!(list[0]["barred"]["epoch"].as_u64().unwrap() > 1_000_000, "{list}");
    // histories of other networks, and what is none
    let fourth = dir.path("fourth");
    go(0, with(&fourth, &["identity", "new", "--preset", "mainnet"]));
    assert!(go(2, with(&fourth, &["history", "import", &history])).1.contains("is of network"));
    go(3, with(&fourth, &["history", "import", &moved]));
    fs::write(&moved, "xx").unwrap();
    go(3, with(&dir.path("fifth"), &[&["identity", "import", &moved], &LOCAL[..]].concat()));
}

#[test]
fn histories_are_exported_merged_and_shown() {
    let dir = Dir::new();
    let (data, file) = (dir.path("data"), dir.path("history.json"));
    expect(0, &[&["identity", "new", "--data-dir", &data], &LOCAL[..]].concat());
    expect(0, &["history", "export", &file, "--data-dir", &data]);
    let mut history: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let entry = |kind: &str, digest: &str| serde_json::json!({ "identity": "11".repeat(32), "kind": kind, "layer": 7, "digests": [digest.repeat(32)] });
    history["entries"] = serde_json::json!([entry("ballot", "22"), entry("ballot", "33"), entry("proposal", "22")]);
    fs::write(&file, history.to_string()).unwrap();
    let (_, notes) = expect(0, &["history", "import", &file, "--data-dir", &data]);
    assert!(notes.contains("2 added, 0 known already, 1 contradictions"), "{notes}");
    let (shown, _) = expect(0, &["history", "show", "--data-dir", &data]);
    assert!(shown.contains(&format!("the ballot of layer 7: {}, {}", "22".repeat(32), "33".repeat(32))), "{shown}");
    let (none, _) = expect(0, &["history", "show", "--data-dir", &data, "--identity", &"44".repeat(32)]);
    assert!(none.is_empty());
    expect(1, &["history", "export", &file, "--data-dir", &data]);
}

#[test]
fn addresses_are_those_of_wallets() {
    let dir = Dir::new();
    let words = dir.path("words");
    let cases = vectors("ledger/hd_wallet.json");
    let mut tried = 0;
    for case in cases["cases"].as_array().unwrap().iter().filter(|case| case["kind"] == "mnemonic") {
        let Some(index) = case["path"].as_str().and_then(|path| path.strip_prefix("m/44'/540'/0'/0'/")?.strip_suffix('\''))
        else {
            continue;
        };
        fs::write(&words, case["mnemonic"].as_str().unwrap()).unwrap();
        let (shown, _) = expect(0, &["address", "show", "--words-file", &words, "--index", index]);
        assert_eq!(shown.trim(), case["address"].as_str().unwrap());
        let (shown, _) = expect(0, &["address", "show", "--public-key", case["public"].as_str().unwrap()]);
        assert_eq!(shown.trim(), case["address"].as_str().unwrap());
        tried += 1;
    }
    assert!(tried >= 2);
    let new = dir.path("new");
    let (address, _) = expect(0, &["address", "new", "--preset", "local", "--words-file", &new]);
    assert!(address.starts_with("stest1") && address.lines().count() == 1);
    assert_eq!(expect(0, &["address", "show", "--preset", "local", "--words-file", &new]).0, address);
    let (shown, _) = expect(0, &["address", "show", "--preset", "local", address.trim()]);
    assert!(shown.starts_with("bytes    00000000") && shown.ends_with(&address));
    let (shown, _) = expect(0, &["address", "new"]);
    assert_eq!(shown.lines().next().unwrap().split(' ').count(), 24);
    for bad in [&["address", "show", address.trim()][..], &["address", "show", "sm1x"], &["address", "show"]] {
        expect(2, bad);
    }
    fs::write(&new, "not a wallet").unwrap();
    expect(2, &["address", "show", "--words-file", &new]);
    expect(1, &["address", "new", "--words-file", &new]);
}

#[test]
fn databases_are_checked_backed_up_bound_and_adopted() {
    let dir = Dir::new();
    let (data, backup, preset) = (dir.path("data"), dir.path("backup"), dir.path("net.toml"));
    let local = |file: &str| fs::write(&preset, format!("preset = \"local\"\n{file}")).unwrap();
    local("[genesis]\ngenesis-time = 2020-01-01T00:00:00Z\n");
    expect(0, &["identity", "new", "--data-dir", &data, "--preset", &preset]);
    assert!(expect(0, &["db", "check", "--data-dir", &data]).0.ends_with("clean\n"));
    let (stats, _) = expect(0, &["db", "stats", "--data-dir", &data, "--json"]);
    let stats: Value = serde_json::from_str(&stats).unwrap();
    assert_eq!((&stats["genesis_time"], &stats["format"]), (&"2020-01-01T00:00:00Z".into(), &2.into()));
    expect(0, &["db", "backup", "--data-dir", &data, "--to", &backup]);
    expect(1, &["db", "backup", "--data-dir", &data, "--to", &backup]);
    // another parameter, another genesis
    local("[genesis]\ngenesis-time = 2020-01-01T00:00:00Z\n[post]\npost-k2 = 38\n");
    let (_, error) = expect(2, &["identity", "new", "--data-dir", &data, "--preset", &preset, "--name", "x"]);
    assert!(error.contains("post.post-k2: bound to 37, asked for 38") && error.contains("db rebind"), "{error}");
    let (shown, _) = expect(0, &["db", "rebind", "--data-dir", &data, "--preset", &preset]);
    assert_eq!(shown, "post.post-k2: bound to 37, asked for 38\n");
    local("[genesis]\ngenesis-time = 2020-01-01T00:00:01Z\n");
    let (_, error) = expect(2, &["db", "rebind", "--data-dir", &data, "--preset", &preset]);
    assert!(error.contains("2020-01-01T00:00:00Z") && error.contains("2020-01-01T00:00:01Z"), "{error}");
    expect(2, &["db", "rebind", "--data-dir", &data]);
    // a copy
    let (_, error) = expect(3, &["db", "check", "--data-dir", &backup]);
    assert!(error.contains("db adopt"), "{error}");
    expect(2, &["db", "adopt", "--data-dir", &backup]);
    fs::create_dir(format!("{backup}/identities")).unwrap();
    fs::copy(format!("{data}/identities/local.key"), format!("{backup}/identities/local.key")).unwrap();
    let (_, notes) = expect(0, &["db", "adopt", "--data-dir", &backup, "--original-is-gone"]);
    assert!(notes.contains("signs nothing up to epoch"), "{notes}");
    expect(0, &["db", "check", "--data-dir", &backup]);
    // what is no directory of a node, and a damaged one
    expect(2, &["db", "check", "--data-dir", &dir.path("nowhere")]);
    fs::write(format!("{backup}/local/CURRENT"), "MANIFEST-999999\n").unwrap();
    let (_, error) = expect(3, &["db", "check", "--data-dir", &backup]);
    assert!(error.contains("restore a backup"), "{error}");
}

#[test]
fn presets_are_shown_and_checked() {
    let dir = Dir::new();
    for name in ["mainnet", "testnet", "fastnet", "standalone", "local"] {
        let (toml, _) = expect(0, &["preset", "show", name]);
        let (json, _) = expect(0, &["preset", "show", name, "--json"]);
        let (toml_file, json_file) = (dir.path("net.toml"), dir.path("net.json"));
        fs::write(&toml_file, &toml).unwrap();
        fs::write(&json_file, &json).unwrap();
        let (checked, _) = expect(0, &["preset", "check", &toml_file]);
        assert_eq!(expect(0, &["preset", "check", &json_file]).0, checked);
        assert_eq!(expect(0, &["preset", "show", &toml_file]).0, toml);
        assert!(checked.starts_with(&format!("{name}: born ")), "{checked}");
    }
    let (born, _) = expect(0, &["preset", "show", "local", "--genesis-time", "2030-01-02T03:04:05Z"]);
    let file = dir.path("ours.toml");
    fs::write(&file, born).unwrap();
    let (checked, warnings) = expect(0, &["preset", "check", &file]);
    assert!(checked.contains("born at 2030-01-02T03:04:05Z") && checked.contains("genesis id"), "{checked}");
    assert!(warnings.contains("bootnodes is empty"), "{warnings}");
    let official = dir.path("config.json");
    fs::write(&official, r#"{"main": {"data-folder": "x"}, "p2p": {"bootnodez": [], "min-peers": 3}}"#).unwrap();
    let (_, error) = expect(2, &["preset", "check", &official]);
    assert!(error.contains("unknown keys: p2p.bootnodez") && !error.contains("data-folder"), "{error}");
    fs::write(&official, r#"{"main": {"data-folder": "x"}, "p2p": {"min-peers": 3}}"#).unwrap();
    assert!(expect(0, &["preset", "check", &official]).1.contains("ignored: main.data-folder"));
    fs::write(&file, "preset = \"local\"\n[genesis.accounts]\nsm1x = 5\n").unwrap();
    assert!(expect(2, &["preset", "check", &file]).1.contains("genesis.accounts: sm1x"));
    expect(2, &["preset", "show", "moon"]);
}

#[test]
fn objects_are_shown() {
    let atx = "00".repeat(4);
    let messages = vectors("node/consensus_messages.json");
    let ballot = messages["proposal"]["ballot"].as_str().unwrap();
    let (shown, _) = expect(0, &["decode", "ballot", ballot]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["kind"], "ballot");
    assert_eq!(shown["object"]["layer"], messages["proposal"]["layer"]);
    let (_, error) = expect(3, &["decode", "atx-v1", &atx]);
    assert!(error.contains("at byte"), "{error}");
    assert!(expect(2, &["decode", "nothing", "00"]).1.contains("decode --list"));
    expect(2, &["decode", "ballot", "xyz"]);
    expect(2, &["decode"]);
    assert!(expect(0, &["decode", "--list"]).0.lines().count() > 40);
}

/// Every command of the page is run, in its order.
#[test]
fn the_page_for_operators_is_true() {
    let dir = Dir::new();
    let page = fs::read_to_string(Path::new(ROOT).join("docs/smesh-node.md")).unwrap();
    let blocks: Vec<&str> = page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let commands: Vec<&str> = blocks.iter().flat_map(|block| block.lines()).collect();
    assert!(commands.len() > 12);
    let proof = vectors("node/poet_go.json");
    let proof = find(&proof, "message").expect("a proof among the vectors");
    fs::write(dir.path("proof.bin"), proof).unwrap();
    let path = Path::new(PROGRAM).parent().unwrap().to_str().unwrap();
    let path = format!("{path}:{}", std::env::var("PATH").unwrap());
    let shell = |command: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).env("PATH", &path).current_dir(dir.0.path()).stdin(Stdio::null());
        shell
    };
    let mut running = None;
    for command in commands {
        if command.starts_with("smesh-node run ") {
            let log = fs::File::create(dir.path("run.log")).unwrap();
            running = Some(shell(&format!("exec {command}")).stderr(log).spawn().unwrap());
            let started = Instant::now();
            while !shell("smesh-node status").output().unwrap().status.success() {
                let log = fs::read_to_string(dir.path("run.log")).unwrap();
                assert!(started.elapsed() < Duration::from_secs(60), "{command} does not answer: {log}");
                thread::sleep(Duration::from_millis(200));
            }
            continue;
        }
        let output = shell(command).output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        if let Some(mut node) = running.take_if(|_| command.starts_with("smesh-node status")) {
            // the shell's own, as `kill` is not installed everywhere
            assert!(shell(&format!("kill {}", node.id())).status().unwrap().success());
            let asked = Instant::now();
            assert!(node.wait().unwrap().success(), "{}", fs::read_to_string(dir.path("run.log")).unwrap());
            assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
        }
    }
    assert!(running.is_none());
}

/// What operators copy fits the program.
#[test]
fn deployment_files_fit_the_program() {
    let read = |name: &str| fs::read_to_string(Path::new(ROOT).join("node/deploy").join(name)).unwrap();
    let help = expect(0, &["run", "--help"]).0;
    let unit = read("smesh-node.service");
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/smesh-node run ")).unwrap();
    let flags: Vec<&str> = start.split(' ').filter(|word| word.starts_with("--")).collect();
    assert!(flags.len() >= 4 && flags.iter().all(|flag| help.contains(flag)), "{start}");
    assert!(read("Containerfile").contains("ENTRYPOINT [\"smesh-node\"]"));
    let dashboard: Value = serde_json::from_str(&read("grafana.json")).unwrap();
    let metrics = fs::read_to_string(Path::new(ROOT).join("node/api/src/metrics.rs")).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let words = target["expr"].as_str().unwrap().split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            let named: Vec<&str> = words.filter(|word| word.starts_with("smesh_")).collect();
            assert!(!named.is_empty() && named.iter().all(|name| metrics.contains(&format!("\"{name}\""))), "{target}");
        }
    }
}

/// The first hex text under a key, wherever it is.
fn find(value: &Value, key: &str) -> Option<Vec<u8>> {
    match value {
        Value::Object(map) => {
            let here = map.get(key).and_then(Value::as_str).and_then(|text| hex::decode(text).ok());
            here.or_else(|| map.values().find_map(|value| find(value, key)))
        }
        Value::Array(items) => items.iter().find_map(|value| find(value, key)),
        _ => None,
    }
}

/// `docs/smesh-node-cli.md` holds the help of every command. `UPDATE_DOCS=1` writes it again.
#[test]
fn the_command_line_reference_is_up_to_date() {
    let commands = [
        "",
        "run",
        "status",
        "activation",
        "identity new",
        "identity import",
        "identity export",
        "identity list",
        "history show",
        "history export",
        "history import",
        "address new",
        "address show",
        "db check",
        "db backup",
        "db stats",
        "db rebind",
        "db adopt",
        "preset show",
        "preset check",
        "decode",
    ];
    let mut text = "# Command line of smesh-node\n\nGenerated from the program; a test keeps it true.\n".to_owned();
    for command in commands {
        let words: Vec<&str> = command.split(' ').filter(|word| !word.is_empty()).chain(["--help"]).collect();
        let help = expect(0, &words).0;
        let help: Vec<&str> = help.lines().map(str::trim_end).collect();
        let title = format!("smesh-node {command}");
        text.extend(["\n## ", title.trim(), "\n\n```text\n", help.join("\n").trim_end(), "\n```\n"]);
    }
    let path = Path::new(ROOT).join("docs/smesh-node-cli.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap() == text,
        "run the tests once with UPDATE_DOCS=1 and commit docs/smesh-node-cli.md"
    );
    // every command is there
    for group in ["identity", "history", "address", "db", "preset"] {
        let help = expect(0, &[group, "--help"]).0;
        let names = help.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1).map(str::trim);
        let names = names.take_while(|line| !line.is_empty()).filter_map(|line| line.split(' ').next());
        for name in names.filter(|name| *name != "help") {
            assert!(commands.contains(&format!("{group} {name}").as_str()), "{group} {name} is missing in this test");
        }
    }
}
