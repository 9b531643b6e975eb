//! Corners in which the real program once went astray: damaged descriptions, hasty orders, and what two processes do at once.

#[cfg(target_os = "linux")]
#[path = "support/mounts.rs"]
mod mounts;

use std::{
    fs, io,
    path::Path,
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use post_init::{
    check::Existing,
    data_dir::{DataDirs, DirSpec},
    error::Error,
    event::{Event, Report, Silent},
    merge::merge,
    prune::prune,
    stop::Stop,
    storage::{Disk, LabelFile, Mode, Storage},
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
fn caps_that_fit_no_whole_file_are_refused_before_anything_is_made() {
    let holder = tempfile::tempdir().unwrap();
    let path = |name: &str| holder.path().join(name).to_str().unwrap().to_owned();
    let ids = ["--node-id", NODE, "--commitment-atx-id", ATX];
    // Four files, three of 8192 bytes and one of 7424.
    let useless = format!("{},size=7423", path("a"));
    let said = expect(2, &init(&useless, &[&["--data-dir", &path("b")][..], &ids].concat()));
    assert!(said.contains("no room for a whole file"), "{said}");
    // Enough for all bytes, but each for a file and a half.
    let halves = ["c", "d", "e"].map(|name| format!("{},size=12000", path(name)));
    let said = expect(2, &init(&halves[0], &[&["--data-dir", &halves[1], "--data-dir", &halves[2]][..], &ids].concat()));
    assert!(said.contains("no room for whole files"), "{said}");
    for name in ["a", "b", "c", "d", "e"] {
        let files = fs::read_dir(path(name)).into_iter().flatten().flatten();
        assert!(files.filter(|file| file.path().extension().is_some_and(|e| e == "bin")).count() == 0, "{name}");
    }
    // The last file may be the one for which there is less room.
    let exact = [format!("{},size=24576", path("a")), format!("{},size=7424", path("b"))];
    expect(0, &init(&exact[0], &[&["--data-dir", &exact[1]][..], &ids].concat()));
    // A limit that leaves no room for more, on a directory that has its share.
    expect(0, &init(&exact[0], &["--data-dir", &exact[1]]));
}

#[test]
fn a_part_of_the_directories_is_not_taken_for_all() {
    let holder = tempfile::tempdir().unwrap();
    let path = |name: &str| holder.path().join(name).to_str().unwrap().to_owned();
    let (first, second) = (path("a"), path("b"));
    let capped = format!("{first},size=16384");
    expect(0, &init(&capped, &["--data-dir", &second, "--node-id", NODE, "--commitment-atx-id", ATX]));
    expect(0, &["init", "--data-dir", &first, "--data-dir", &second, "--num-units", "1", "--min-num-units", "1"]);
    for words in [&["verify"][..], &["verify", "--all"], &["repair"], &["nonce"], &["prune", "--confirm", NODE]] {
        let before = fs::read_dir(&first).unwrap().count();
        let said = expect(2, &[words, &["--data-dir", &first]].concat());
        assert!(said.contains(&format!("also has data in {second}")), "{words:?}: {said}");
        assert_eq!(fs::read_dir(&first).unwrap().count(), before);
    }
    let said = expect(0, &["status", "--data-dir", &first]);
    assert!(said.contains(&format!("not named       {second}")), "{said}");
    // What lies here can be checked alone, by name.
    let here = if Path::new(&first).join("postdata_0.bin").exists() { &first } else { &second };
    expect(0, &["verify", "--data-dir", here, "--files", "0"]);
    expect(0, &["verify", "--data-dir", &first, "--data-dir", &second]);
}

#[test]
fn a_search_that_claims_to_stand_at_the_last_index_is_refused() {
    let dir = made();
    let path = dir.path().join("postdata_metadata.json");
    let metadata = fs::read_to_string(&path).unwrap();
    for position in ["18446744073709551615", "18446744073709550000"] {
        let mad = metadata.replace("\n}", &format!(",\n\t\"LastPosition\": {position}\n}}"));
        fs::write(&path, &mad).unwrap();
        for words in [&init(text(dir.path()), &[])[..], &["nonce", "--data-dir", text(dir.path())]] {
            let said = expect(3, words);
            assert!(said.contains("LastPosition") && said.contains(position), "{said}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), mad);
    }
}

/// A disk on which names of files cannot be made to last.
#[derive(Debug)]
struct Forgetful;

impl Storage for Forgetful {
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Box<dyn LabelFile>> {
        Disk.open(path, mode)
    }
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        Disk.free_bytes(dir)
    }
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        Disk.replace(path, bytes)
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Err(io::Error::other("forgotten"))
    }
}

#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Report for Notes {
    fn event(&self, event: &Event) {
        if let Event::Note { text } = event {
            self.0.lock().unwrap().push(text.clone());
        }
    }
}

#[test]
fn a_merge_says_nothing_of_files_that_are_not_safe_yet() {
    let (dir, into, notes) = (made(), tempfile::tempdir().unwrap(), Notes::default());
    let sources = [dir.path().to_owned()];
    let go = |storage: Arc<dyn Storage>| merge(&sources, into.path(), Preset::Mainnet, None, &storage, &Stop::default(), &notes);
    assert!(matches!(go(Arc::new(Forgetful)), Err(Error::Io { action: "sync", .. })));
    assert_eq!(notes.0.lock().unwrap().len(), 0);
    go(Arc::new(Disk)).unwrap();
    assert_eq!(notes.0.lock().unwrap().len(), 3);
}

#[cfg(target_os = "linux")]
#[test]
fn a_source_that_cannot_be_written_is_copied() {
    let (dir, holder) = (made(), tempfile::tempdir().unwrap());
    let script = format!(
        "cd '{}'; mkdir from into; mount -t tmpfs -o size=1M none from; cp '{}'/postdata_* '{}'/post-init.json from
         mount -o remount,ro from
         '{}' merge from --into into
         cmp from/postdata_3.bin into/postdata_3.bin; ls from",
        text(holder.path()),
        text(dir.path()),
        text(dir.path()),
        env!("CARGO_BIN_EXE_post-init"),
    );
    let said = mounts::run(&script);
    assert!(said.contains("the source can be deleted") && said.contains("postdata_0.bin"), "{said}");
    expect(0, &["verify", "--data-dir", text(&holder.path().join("into")), "--all"]);
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
