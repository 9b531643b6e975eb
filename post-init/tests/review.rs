//! Corners in which the real program once went astray: damaged descriptions, hasty orders, and what two processes do at once.

#[cfg(target_os = "linux")]
#[path = "support/mounts.rs"]
mod mounts;

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use post_init::{
    check::Existing,
    data_dir::{DataDirs, DirSpec},
    error::Error,
    event::Silent,
    prune::prune,
    stop::Stop,
    storage::Disk,
};
use proto::post::Preset;
use tempfile::TempDir;

const NODE: &str = "0707070707070707070707070707070707070707070707070707070707070707";
const ATX: &str = "0909090909090909090909090909090909090909090909090909090909090909";
const SMALL: [&str; 10] =
    ["--num-units", "4", "--labels-per-unit", "500", "--max-file-size", "8192", "--scrypt-n", "16", "--cpu-threads", "1"];

fn program(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_post-init"));
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What the program says when it ends within a few seconds, with this exit code.
#[track_caller]
fn expect(code: i32, words: &[&str]) -> String {
    let mut child = program(words).spawn().unwrap();
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > Duration::from_secs(20) {
            child.kill().unwrap();
            panic!("{words:?} does not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert_eq!(status.code(), Some(code), "{words:?}\n{text}");
    text
}

fn init<'a>(dir: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut words = vec!["init", "--data-dir", dir];
    words.extend(SMALL);
    words.extend(more);
    words
}

fn made() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    expect(0, &init(text(dir.path()), &["--node-id", NODE, "--commitment-atx-id", ATX]));
    dir
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn metadata_that_speaks_of_countless_files_is_told_at_once() {
    let dir = made();
    let path = dir.path().join("postdata_metadata.json");
    let metadata = fs::read_to_string(&path).unwrap();
    let mad = metadata.replace(": 500,", ": 288230376151711743,").replace(": 8192,", ": 16,").replace(": 4,", ": 1,");
    fs::write(&path, &mad).unwrap();
    fs::remove_file(dir.path().join("post-init.json")).unwrap();
    let said = expect(3, &["verify", "--data-dir", text(dir.path()), "--scrypt-n", "16"]);
    assert!(said.contains("288230376151711739 labels missing"), "{}", &said[said.len() - 400..]);
    expect(0, &["status", "--data-dir", text(dir.path())]);
}

#[test]
fn a_cap_that_can_never_suffice_is_refused_instead_of_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let capped = format!("{},size=20000", text(dir.path()));
    let said = expect(4, &init(&capped, &["--node-id", NODE, "--commitment-atx-id", ATX]));
    assert!(said.contains("12000 more bytes"), "{said}");
}

#[test]
fn data_without_metadata_never_gets_a_new_identity() {
    let dir = made();
    fs::remove_file(dir.path().join("postdata_metadata.json")).unwrap();
    fs::remove_file(dir.path().join("post-init.json")).unwrap();
    let said = expect(3, &init(text(dir.path()), &["--commitment-atx-id", ATX]));
    assert!(said.contains("--node-id"), "{said}");
    assert!(!dir.path().join("identity.key").exists());
    expect(0, &init(text(dir.path()), &["--commitment-atx-id", ATX, "--node-id", NODE]));
}

#[test]
fn what_was_confirmed_is_not_deleted_once_it_is_needed_again() {
    let dir = made();
    expect(0, &["init", "--data-dir", text(dir.path()), "--num-units", "2", "--min-num-units", "1"]);
    let dirs = DataDirs::new(vec![DirSpec { path: dir.path().to_owned(), cap: None }], Arc::new(Disk)).unwrap();
    let existing = Existing::open(&dirs, Preset::Mainnet, None).unwrap();
    // Between the look and the confirmation somebody grows the identity again.
    expect(0, &init(text(dir.path()), &[]));
    let error = prune(&existing, &dirs, Some(existing.metadata.node_id), &Stop::default(), &Silent).unwrap_err();
    assert!(matches!(error, Error::Usage(_)), "{error}");
    expect(0, &["verify", "--data-dir", text(dir.path()), "--all"]);
}

#[test]
fn a_hole_that_a_power_loss_left_among_the_last_labels_is_filled() {
    let dir = made();
    for (name, size, hole) in [("postdata_2.bin", 5000, 1600..3200), ("postdata_3.bin", 7424, 160..4256)] {
        let path = dir.path().join(name);
        let whole = fs::read(&path).unwrap();
        let mut harmed = whole[..size].to_vec();
        harmed[hole].fill(0);
        fs::write(&path, &harmed).unwrap();
        expect(0, &init(text(dir.path()), &[]));
        assert!(fs::read(&path).unwrap() == whole, "{name}");
    }
}

#[test]
fn directories_that_were_moved_are_still_those_of_the_identity() {
    let holder = tempfile::tempdir().unwrap();
    let path = |name: &str| holder.path().join(name).to_str().unwrap().to_owned();
    let [first, capped, second, moved] = [path("a"), format!("{},size=16384", path("a")), path("b"), path("c")];
    expect(0, &init(&capped, &["--data-dir", &second, "--node-id", NODE, "--commitment-atx-id", ATX]));
    fs::rename(&second, &moved).unwrap();
    let said = expect(2, &init(&first, &[]));
    assert!(said.contains("also has data in"), "{said}");
    expect(0, &init(&first, &["--data-dir", &moved]));
    expect(0, &init(&moved, &["--data-dir", &first]));
}

#[cfg(target_os = "linux")]
#[test]
fn a_key_that_does_not_fit_on_the_disk_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let script = format!(
        "cd '{}'; mkdir disk; mount -t tmpfs -o size=32k none disk; mkdir disk/data
         head -c 100000 /dev/zero > disk/other 2>&1 || true
         '{}' init --data-dir disk/data {} --no-wait || echo code $?
         test ! -e disk/data/identity.key",
        text(dir.path()),
        env!("CARGO_BIN_EXE_post-init"),
        SMALL.join(" ")
    );
    let said = mounts::run(&script);
    assert!(said.contains("code 4"), "{said}");
}
