//! The commands.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
    time::Duration,
};

use serde_json::Value;

use crate::support::*;

fn repository(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn help(command: &str) -> String {
    let help = Command::new(env!("CARGO_BIN_EXE_poet-service")).args([command, "--help"]).output().unwrap();
    String::from_utf8(help.stdout).unwrap()
}

/// Words of `text` that begin like this, without what follows the name.
fn names<'a>(text: &'a str, start: &'a str) -> impl Iterator<Item = &'a str> {
    let words = text.split(|c: char| c.is_whitespace() || c == '`' || c == '[' || c == '(');
    words.filter_map(move |word| word.strip_prefix(start)).map(|word| {
        let end = word.find(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_').unwrap_or(word.len());
        &word[..end]
    })
}

#[test]
fn the_documentation_names_every_key_and_none_that_does_not_exist() {
    let (page, run) = (repository("../docs/poet-service.md"), help("run"));
    let keys: BTreeSet<&str> = names(&run, "--").collect();
    for key in keys.iter().filter(|key| !["config", "help"].contains(key)) {
        assert!(page.contains(&format!("`{key}`")), "{key} is not in docs/poet-service.md");
    }
    let all = ["import", "prove", "verify", "bench", "config"].map(help).concat() + &run;
    let flags: BTreeSet<&str> = names(&all, "--").collect();
    let ours = page.lines().filter(|line| !line.trim_start().starts_with("openssl")).collect::<Vec<_>>().join("\n");
    for flag in names(&ours, "--").filter(|flag| !flag.is_empty() && !flag.starts_with('-')) {
        assert!(flags.contains(flag), "docs/poet-service.md names --{flag}");
    }
    // the first column of the table of keys
    for line in page.lines().skip_while(|line| !line.starts_with("| key |")).skip(2).take_while(|line| line.starts_with('|')) {
        let column = line.split('|').nth(1).unwrap();
        for key in column.split(',').map(|key| key.trim().trim_matches('`')) {
            assert!(keys.contains(key), "docs/poet-service.md names the key {key}");
        }
    }
}

#[test]
fn deployment_files_fit_the_program() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/mainnet.toml");
    let config = ["config", "--config", config.to_str().unwrap()];
    let printed = Command::new(env!("CARGO_BIN_EXE_poet-service")).args(config).output().unwrap();
    assert!(printed.status.success());
    assert!(String::from_utf8_lossy(&printed.stdout).contains("phase-shift = \"240h\""));

    let unit = repository("deploy/poet-service.service");
    let mut section = "";
    let mut settings = BTreeMap::new();
    for line in unit.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
        } else {
            let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{line} is no setting"));
            settings.insert((section, key), value);
        }
    }
    assert_eq!(settings[&("Service", "Type")], "notify");
    assert_eq!(settings[&("Install", "WantedBy")], "multi-user.target");
    let start: Vec<&str> = settings[&("Service", "ExecStart")].split_whitespace().collect();
    assert_eq!(start, ["/usr/local/bin/poet-service", "run", "--config", "/etc/poet-service.toml"]);
    // the program reports every five seconds
    assert!(settings[&("Service", "WatchdogSec")].parse::<u32>().unwrap() >= 15);

    let recipe = repository("deploy/Containerfile");
    let run = help("run");
    for variable in recipe.lines().filter_map(|line| line.strip_prefix("ENV ")).flat_map(|line| line.split(' ')) {
        let (name, _) = variable.split_once('=').unwrap();
        assert!(run.contains(&format!("[env: {name}=")), "{name} is no variable of the program");
    }
    assert!(recipe.contains("ENTRYPOINT [\"poet-service\"]") && recipe.contains("CMD [\"run\"]"));

    // every metric of the dashboard is on the page
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &as_strs(&quiet_schedule()));
    let metrics = server.metrics();
    let dashboard: Value = serde_json::from_str(&repository("deploy/grafana.json")).unwrap();
    let mut seen = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            for name in words.filter(|word| ["poet_", "grpc_server_", "process_"].iter().any(|start| word.starts_with(start))) {
                let family = format!("# TYPE {} ", name.trim_end_matches("_bucket"));
                assert!(metrics.contains(&family), "{name} is no metric of the server");
                seen += 1;
            }
        }
    }
    assert!(seen > 10);
}

/// What systemd is told: readiness, signs of life, and the stop.
#[test]
fn the_service_manager_is_kept_informed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let listen = ["--restlisten", "127.0.0.1:0", "--rpclisten", "127.0.0.1:0", "--config-rpclisten", "127.0.0.1:0"];
    let mut child = Command::new(env!("CARGO_BIN_EXE_poet-service"))
        .args(["run", "--preset", "mainnet", "--poetdir", dir.path().to_str().unwrap()])
        .args(listen)
        .env("NOTIFY_SOCKET", &path)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let said = || {
        let mut text = [0; 64];
        let count = socket.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..count]).into_owned()
    };
    let mut first = [said(), said()];
    first.sort();
    assert_eq!(first, ["READY=1", "WATCHDOG=1"]);
    assert_eq!(terminate(&mut child).0, Some(0));
    assert_eq!(said(), "STOPPING=1");
}

#[test]
fn a_server_is_moved_by_import() {
    let dir = tempfile::tempdir().unwrap();
    let old = dir.path().join("old");
    std::fs::create_dir_all(old.join("data")).unwrap();
    let legacy = vectors("legacy_disk.json");
    std::fs::write(old.join("data/state.bin"), hex::decode(legacy["key_state"]["bytes"].as_str().unwrap()).unwrap()).unwrap();
    let conf = dir.path().join("poet.conf");
    let text = format!(
        "genesis-time=2023-07-14T08:00:00Z\nepoch-duration=336h\nphase-shift=240h\ncycle-gap=12h\npoetdir={}\nlps=78000\nnat=1\n",
        old.display()
    );
    std::fs::write(&conf, text).unwrap();
    let (new, out) = (dir.path().join("new"), dir.path().join("poet-service.toml"));
    let import = || {
        let paths = [&conf, &new, &out].map(|path| path.to_str().unwrap());
        let args = ["import", "--conf", paths[0], "--to", paths[1], "--out", paths[2]];
        Command::new(env!("CARGO_BIN_EXE_poet-service")).args(args).output().unwrap()
    };
    let output = import();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("left out of the configuration: nat=1"), "{said}");
    assert!(said.contains(legacy["key_state"]["pubkey"].as_str().unwrap()), "{said}");
    // not twice
    assert_eq!(import().status.code(), Some(1));
    let server = Server::start(&new, &["--config", out.to_str().unwrap()]);
    let info = server.get("/v1/info").json();
    assert_eq!(info["phaseShift"], "864000s");
    let pubkey = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, info["servicePubkey"].as_str().unwrap());
    assert_eq!(hex::encode(pubkey.unwrap()), legacy["key_state"]["pubkey"].as_str().unwrap());
    assert!(server.get("/v1/proofs/3").status == 404);
    assert!(std::fs::read_to_string(new.join("log")).unwrap().contains("lps is set but has no effect"));
}

#[test]
fn offline_tools_make_and_judge_proofs() {
    let dir = tempfile::tempdir().unwrap();
    let program = |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_poet-service")).args(args).output().unwrap();
    let file = dir.path().join("proof.json");
    let file = file.to_str().unwrap();
    let vectors = vectors("nip_proofs_small.json");
    let statement = vectors["statement"].as_str().unwrap();
    let expected = vectors["proofs"].as_array().unwrap().iter().find(|p| p["leaves"] == 4097).unwrap();
    assert_eq!(program(&["prove", "--statement", statement, "--leaves", "4097", "--out", file]).status.code(), Some(0));
    let made: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    for key in ["root", "proven_leaves", "proof_nodes", "leaves"] {
        assert_eq!(made[key], expected[key], "{key}");
    }
    let verify = |statement: &str| program(&["verify", "--statement", statement, "--proof", file]);
    assert_eq!(verify(statement).status.code(), Some(0));
    let wrong = verify(&"00".repeat(32));
    assert_eq!(wrong.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("merkle proof not valid"));
    std::fs::write(file, "{}").unwrap();
    assert_eq!(verify(statement).status.code(), Some(3));
    assert_eq!(program(&["verify", "--statement", "00", "--proof", "/nowhere"]).status.code(), Some(1));
    assert_eq!(program(&["run", "--poetdir", dir.path().to_str().unwrap()]).status.code(), Some(2));
    assert_eq!(program(&["dance"]).status.code(), Some(2));
}
