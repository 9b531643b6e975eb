//! The real program: killed, starved, misused, and compared byte for byte with a run in one go.

#[cfg(target_os = "linux")]
#[path = "support/mounts.rs"]
mod mounts;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_post-init");
const NODE: &str = "6dbDNJe7ehpz2wWHOXHcGniBskkI2X+NTp4Bb6zGLg8=";
const ATX: &str = "0a60661024e0ca006a1b9251e51b5340a5159e488c856b19746ff2dd8e4beaf4";

fn soak() -> bool {
    std::env::var_os("SOAK").is_some()
}

/// `post-init` with these words.
fn program(words: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    // The help is wrapped to this width.
    command.env_remove("COLUMNS");
    // Graphics drivers complain without one.
    command.env("XDG_RUNTIME_DIR", std::env::temp_dir());
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(words: &[&str]) -> Output {
    program(words).output().unwrap()
}

#[track_caller]
fn expect(code: i32, words: &[&str]) -> String {
    let output = run(words);
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{words:?}\n{text}");
    text
}

/// Words of an `init` of our test identity.
fn init<'a>(dir: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut words = vec!["init", "--data-dir", dir, "--node-id", NODE, "--commitment-atx-id", ATX];
    words.extend(more);
    words
}

const SMALL: [&str; 10] =
    ["--num-units", "4", "--labels-per-unit", "1000", "--max-file-size", "12800", "--scrypt-n", "16", "--cpu-threads", "2"];

struct Dir(TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    fn text(&self) -> &str {
        self.0.path().to_str().unwrap()
    }
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
    fn join(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
    fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        contents(self.0.path())
    }
}

/// All files of a directory.
fn contents(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(path).unwrap().map(Result::unwrap);
    entries.filter(|e| e.path().is_file()).map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap())).collect()
}

#[track_caller]
fn assert_same(got: &BTreeMap<String, Vec<u8>>, expected: &BTreeMap<String, Vec<u8>>) {
    assert_eq!(got.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, bytes) in got {
        assert!(bytes == &expected[name], "{name} differs");
    }
}

/// A directory made in one go.
fn finished(more: &[&str]) -> Dir {
    let dir = Dir::new();
    expect(0, &init(dir.text(), more));
    dir
}

#[cfg(unix)]
fn signal(child: &Child, name: &str) {
    // The shell's own, as `kill` is not installed everywhere.
    assert!(Command::new("sh").args(["-c", &format!("kill {name} {}", child.id())]).status().unwrap().success());
}

/// Small pseudo-random numbers with a seed that is printed.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos();
        println!("seed {seed}");
        Self(u64::from(seed) | 1)
    }
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[test]
fn killed_at_random_moments_and_resumed_it_ends_byte_identical() {
    let kills = if soak() { 200 } else { 5 };
    let size =
        ["--num-units", "4", "--labels-per-unit", "3000", "--max-file-size", "25600", "--scrypt-n", "1024", "--cpu-threads", "2"];
    let whole = finished(&size);
    let mut random = Random::new();
    let mut killed = 0;
    while killed < kills {
        let dir = Dir::new();
        loop {
            let mut child = program(&init(dir.text(), &size)).spawn().unwrap();
            // From before the lock is taken to the middle of the work.
            std::thread::sleep(Duration::from_millis(random.below(120)));
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success());
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            killed += 1;
            if killed >= kills {
                expect(0, &init(dir.text(), &size));
                break;
            }
        }
        assert_same(&dir.contents(), &whole.contents());
    }
}

#[test]
fn a_signal_ends_it_within_a_second_and_it_goes_on_later() {
    let size = ["--num-units", "4", "--labels-per-unit", "25000", "--scrypt-n", "1024", "--cpu-threads", "1"];
    let whole = finished(&size);
    for name in ["-TERM", "-INT"] {
        let dir = Dir::new();
        let mut child = program(&init(dir.text(), &size)).spawn().unwrap();
        while fs::metadata(dir.path("postdata_0.bin")).map_or(0, |m| m.len()) == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        signal(&child, name);
        let sent = Instant::now();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(4));
        assert!(sent.elapsed() < Duration::from_secs(3), "{:?} on a busy machine", sent.elapsed());
        let bytes = fs::metadata(dir.path("postdata_0.bin")).unwrap().len();
        assert!(bytes > 0 && bytes < 1_600_000 && bytes.is_multiple_of(16));
        expect(0, &init(dir.text(), &size));
        assert_same(&dir.contents(), &whole.contents());
    }
}

/// What a power loss can do to a directory.
type Harm = fn(&Dir);

#[test]
fn what_a_power_loss_leaves_is_mended() {
    let whole = finished(&SMALL);
    let cases: [(&str, Harm); 8] = [
        ("a torn label", |dir| cut(dir, "postdata_2.bin", 1000)),
        ("an empty metadata file", |dir| fs::write(dir.path("postdata_metadata.json"), "").unwrap()),
        ("zeros for metadata", |dir| fs::write(dir.path("postdata_metadata.json"), [0; 200]).unwrap()),
        ("half a metadata file", |dir| cut(dir, "postdata_metadata.json", 100)),
        ("no metadata file", |dir| fs::remove_file(dir.path("postdata_metadata.json")).unwrap()),
        ("an empty side file", |dir| fs::write(dir.path("post-init.json"), "").unwrap()),
        ("zeros at the end of a file", |dir| {
            cut(dir, "postdata_4.bin", 3200);
            let mut file = fs::File::options().append(true).open(dir.path("postdata_4.bin")).unwrap();
            file.write_all(&[0; 16 * 40]).unwrap();
        }),
        ("all of it", |dir| {
            cut(dir, "postdata_0.bin", 17);
            fs::remove_file(dir.path("postdata_3.bin")).unwrap();
            fs::write(dir.path("postdata_metadata.json"), "").unwrap();
        }),
    ];
    for (what, harm) in cases {
        let dir = Dir::new();
        for (name, bytes) in whole.contents() {
            fs::write(dir.path(&name), bytes).unwrap();
        }
        harm(&dir);
        expect(0, &init(dir.text(), &SMALL));
        assert_same(&dir.contents(), &whole.contents());
        println!("mended: {what}");
    }
    // Without any flags as well, as long as the side file is there.
    let dir = copy_of(&whole);
    fs::write(dir.path("postdata_metadata.json"), "").unwrap();
    cut(&dir, "postdata_1.bin", 5000);
    expect(0, &["init", "--data-dir", dir.text()]);
    assert_same(&dir.contents(), &whole.contents());
}

fn copy_of(dir: &Dir) -> Dir {
    let copy = Dir::new();
    for (name, bytes) in dir.contents() {
        fs::write(copy.path(&name), bytes).unwrap();
    }
    copy
}

fn cut(dir: &Dir, name: &str, size: u64) {
    fs::File::options().write(true).open(dir.path(name)).unwrap().set_len(size).unwrap();
}

/// Runs a shell script in a directory, with mounts of its own; `run` is the program.
#[cfg(target_os = "linux")]
#[track_caller]
fn with_mounts(script: &str, dir: &Dir) -> String {
    mounts::run(&format!("cd '{}'\nrun() {{ '{PROGRAM}' \"$@\"; }}\n{script}", dir.text()))
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_loses_nothing() {
    let words = format!("--node-id '{NODE}' --commitment-atx-id {ATX} {}", SMALL.join(" "));
    let whole = finished(&SMALL);
    // Too small from the start; then full in the middle, because somebody else fills it; then with room.
    let dir = Dir::new();
    fs::create_dir(dir.path("disk")).unwrap();
    fs::create_dir(dir.path("result")).unwrap();
    let text = with_mounts(
        &format!(
            "mount -t tmpfs -o size=48k none disk
             code=0; run init --data-dir disk {words} --no-wait || code=$?; test $code = 4
             test -z \"$(ls disk | grep bin || true)\"
             mount -o remount,size=200k disk
             run init --data-dir disk {words} --to-file 1
             code=0; head -c 1000000 /dev/zero > disk/other || true
             run init --data-dir disk {words} --no-wait || code=$?; test $code = 4
             rm disk/other
             run init --data-dir disk {words} --no-wait
             cp disk/* result/"
        ),
        &dir,
    );
    assert!(text.contains("more bytes are needed"), "{text}");
    assert_same(&contents(&dir.path("result")), &whole.contents());
}

#[cfg(target_os = "linux")]
#[test]
fn on_a_disk_that_fills_up_it_waits_and_goes_on_when_there_is_room() {
    let size = "--num-units 4 --labels-per-unit 40000 --scrypt-n 1024 --cpu-threads 2 --duty 50";
    let words = format!("--node-id '{NODE}' --commitment-atx-id {ATX} {size}");
    let dir = Dir::new();
    fs::create_dir(dir.path("disk")).unwrap();
    fs::create_dir(dir.path("result")).unwrap();
    let text = with_mounts(
        &format!(
            "mount -t tmpfs -o size=4M none disk
             '{PROGRAM}' init --data-dir disk {words} 2> log & pid=$!
             while ! [ -s disk/postdata_0.bin ]; do sleep 0.05; done
             kill -STOP $pid
             # what was reserved ahead is given back, so that the next write finds no room
             size=$(stat -c %s disk/postdata_0.bin)
             truncate -s $((size + 4096)) disk/postdata_0.bin; truncate -s $size disk/postdata_0.bin
             head -c 8000000 /dev/zero > disk/other || true
             kill -CONT $pid
             for i in $(seq 200); do grep -q 'waiting for room' log && break; sleep 0.1; done
             grep 'waiting for room' log
             kill -0 $pid
             rm disk/other
             wait $pid
             cat log
             cp disk/* result/"
        ),
        &dir,
    );
    assert!(text.contains("bytes") && text.contains("there is room again"), "{text}");
    let whole = finished(&size.split(' ').collect::<Vec<_>>());
    assert_same(&contents(&dir.path("result")), &whole.contents());
}

#[cfg(target_os = "linux")]
#[test]
fn unreadable_and_read_only_directories_are_explained() {
    let whole = finished(&SMALL);
    let dir = Dir::new();
    fs::create_dir(dir.path("disk")).unwrap();
    for (name, bytes) in whole.contents() {
        fs::write(dir.path("disk").join(name), bytes).unwrap();
    }
    cut(&dir, "disk/postdata_3.bin", 160);
    let before = contents(&dir.path("disk"));
    let text = with_mounts(
        "mount --bind disk disk; mount -o remount,bind,ro disk
         code=0; run init --data-dir disk || code=$?; test $code = 1
         run status --data-dir disk
         code=0; run verify --data-dir disk || code=$?; test $code = 3
         code=0; run init --data-dir disk/new --num-units 4 || code=$?; test $code = 1",
        &dir,
    );
    assert!(text.contains("cannot open the lock file") && text.contains("read-only"), "{text}");
    assert_same(&contents(&dir.path("disk")), &before);
    let file = dir.join("disk/postdata_0.bin");
    assert!(expect(1, &init(&file, &SMALL)).contains("postdata_0.bin"));
    assert_same(&contents(&dir.path("disk")), &before);
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_changes() {
    let whole = finished(&SMALL);
    let other = "c".repeat(64);
    let dir = copy_of(&whole);
    let refused = |code: i32, words: &[&str], parts: &[&str]| {
        let text = expect(code, words);
        for part in parts {
            assert!(text.contains(part), "{part:?} is missing in: {text}");
        }
        assert_same(&dir.contents(), &whole.contents());
    };
    let d = dir.text();
    let own = "e9d6c33497bb7a1a73db05873971dc1a7881b24908d97f8d4e9e016facc62e0f";
    refused(2, &["init", "--data-dir", d, "--node-id", &other], &["node id", own, &other]);
    refused(2, &["init", "--data-dir", d, "--commitment-atx-id", &other], &["commitment", ATX, &other]);
    refused(2, &["init", "--data-dir", d, "--scrypt-n", "32"], &["scrypt N", "16", "32"]);
    refused(2, &["init", "--data-dir", d, "--labels-per-unit", "1001"], &["labels per unit", "1000", "1001"]);
    refused(2, &["init", "--data-dir", d, "--max-file-size", "1600"], &["maximum file size", "12800", "1600"]);
    refused(2, &["init", "--data-dir", d, "--num-units", "3"], &["3 units", "4 to 4294967295"]);
    refused(2, &["init", "--data-dir", d, "--num-units", "0"], &["0 units"]);
    refused(2, &["init", "--data-dir", d, "--num-units", "9", "--max-num-units", "8"], &["9 units", "4 to 8"]);
    refused(2, &["init", "--data-dir", d, "--from-file", "2", "--to-file", "1"], &["files 2 to 1", "0 to 4"]);
    refused(2, &["init", "--data-dir", d, "--to-file", "5"], &["0 to 4"]);
    refused(2, &["init", "--data-dir", d, "--num-units", "5", "--to-file", "1"], &["growing"]);
    refused(2, &["init", "--data-dir", d, "--max-file-size", "100"], &["100"]);
    refused(2, &["init", "--data-dir", d, "--scrypt-n", "12"], &["power of two"]);
    refused(2, &["init", "--data-dir", d, "--cpu-isa", "sse9"], &["sse9"]);
    refused(2, &["init"], &["--data-dir"]);
    refused(2, &["verify", "--data-dir", d, "--scrypt-n", "32"], &["scrypt N"]);
    refused(2, &["verify", "--data-dir", d, "--files", "3..9"], &["0 to 4"]);
    refused(2, &["init", "--data-dir", d, "--data-dir", d], &["twice"]);
    let key = Dir::new();
    fs::write(key.path("k"), "abc").unwrap();
    refused(2, &["init", "--data-dir", d, "--identity", &key.join("k")], &["128 hex characters"]);
    refused(3, &["status", "--data-dir", &key.join("none")], &["no such directory"]);
    refused(3, &["verify", "--data-dir", key.text()], &["postdata_metadata.json"]);

    // New directories are not even made when the request is wrong.
    let fresh = key.join("fresh");
    expect(2, &["init", "--data-dir", &fresh]);
    expect(2, &["init", "--data-dir", &fresh, "--num-units", "1"]);
    expect(2, &["init", "--data-dir", &fresh, "--num-units", "4", "--labels-per-unit", "18446744073709551615"]);
    expect(2, &["init", "--data-dir", &fresh, "--num-units", "1", "--min-num-units", "1", "--labels-per-unit", "8"]);
    expect(2, &["init", "--data-dir", &fresh, "--num-units", "4", "--max-file-size", "0"]);
    assert!(!Path::new(&fresh).exists());
}

#[test]
fn garbage_beside_the_data_is_refused_and_nothing_changes() {
    let whole = finished(&SMALL);
    for (file, garbage) in [
        ("postdata_metadata.json", "not json at all"),
        ("postdata_metadata.json", "{\"NodeId\": 5}"),
        ("postdata_metadata.json", "[1,2]"),
        ("post-init.json", "{\"version\": 99}"),
        ("post-init.json", "xyz"),
    ] {
        let dir = copy_of(&whole);
        fs::write(dir.path(file), garbage).unwrap();
        cut(&dir, "postdata_4.bin", 160);
        let before = dir.contents();
        let text = expect(3, &init(dir.text(), &SMALL));
        assert!(text.contains(file) && text.contains("Nothing was changed"), "{text}");
        assert_same(&dir.contents(), &before);
    }
    // Data without any description.
    let dir = copy_of(&whole);
    fs::remove_file(dir.path("postdata_metadata.json")).unwrap();
    fs::remove_file(dir.path("post-init.json")).unwrap();
    let before = dir.contents();
    let text = expect(3, &["init", "--data-dir", dir.text(), "--num-units", "4"]);
    assert!(text.contains("no metadata"), "{text}");
    assert_same(&dir.contents(), &before);
    // With everything given it is checked against the labels, and taken over only if it fits.
    let mut wrong = SMALL;
    wrong[7] = "32";
    let text = expect(3, &init(dir.text(), &wrong));
    assert!(text.contains("label 0"), "{text}");
    let mut files = dir.contents();
    files.remove("post-init.lock");
    let mut files_before = before;
    files_before.remove("post-init.lock");
    assert_same(&files, &files_before);
    expect(0, &init(dir.text(), &SMALL));
    assert_same(&dir.contents(), &whole.contents());
}

#[test]
fn a_file_of_another_run_is_noticed() {
    let whole = finished(&SMALL);
    let dir = copy_of(&whole);
    cut(&dir, "postdata_4.bin", 160);
    fs::copy(dir.path("postdata_1.bin"), dir.path("postdata_2.bin")).unwrap();
    let before = dir.contents();
    let text = expect(3, &init(dir.text(), &SMALL));
    assert!(text.contains("postdata_2.bin: label 1600"), "{text}");
    assert_same(&dir.contents(), &before);
    assert!(expect(0, &["status", "--data-dir", dir.text()]).contains("partial"));
}

#[test]
fn a_second_process_is_refused() {
    let dir = Dir::new();
    let size = ["--num-units", "4", "--labels-per-unit", "20000", "--scrypt-n", "4096", "--cpu-threads", "1"];
    let mut child = program(&init(dir.text(), &size)).spawn().unwrap();
    while !dir.path("postdata_0.bin").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    for words in [init(dir.text(), &size), vec!["repair", "--data-dir", dir.text()], vec!["nonce", "--data-dir", dir.text()]] {
        let text = expect(1, &words);
        assert!(text.contains("in use by another process"), "{text}");
    }
    assert!(expect(0, &["status", "--data-dir", dir.text()]).contains("working on it"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(expect(0, &["status", "--data-dir", dir.text()]).contains("not complete"));
}

#[test]
fn shrinking_touches_no_label_and_growing_back_computes_none() {
    let whole = finished(&SMALL);
    let dir = copy_of(&whole);
    let shrink = ["init", "--data-dir", dir.text(), "--num-units", "2", "--min-num-units", "1"];
    expect(0, &shrink);
    let (before, after) = (whole.contents(), dir.contents());
    for (name, bytes) in &before {
        assert_eq!(bytes == &after[name], name != "postdata_metadata.json" && name != "post-init.json", "{name}");
    }
    let text = expect(0, &["status", "--data-dir", dir.text()]);
    assert!(text.contains("2 units") && text.contains("longer") && text.contains("postdata_4.bin"), "{text}");
    expect(0, &["verify", "--data-dir", dir.text(), "--all"]);
    expect(0, &["init", "--data-dir", dir.text(), "--num-units", "4"]);
    assert_same(&dir.contents(), &whole.contents());
}

#[test]
fn growing_keeps_the_provable_number_until_all_labels_are_there() {
    let size = |units| {
        [
            "--num-units",
            units,
            "--labels-per-unit",
            "2500",
            "--max-file-size",
            "25600",
            "--scrypt-n",
            "1024",
            "--cpu-threads",
            "2",
        ]
    };
    let whole = finished(&size("6"));
    let mut random = Random::new();
    for _ in 0..if soak() { 20 } else { 2 } {
        let dir = finished(&size("4"));
        let old = fs::read(dir.path("postdata_metadata.json")).unwrap();
        for _ in 0..6 {
            let mut child = program(&init(dir.text(), &size("6"))).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(random.below(200)));
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success());
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            let now = fs::read(dir.path("postdata_metadata.json")).unwrap();
            let complete = fs::metadata(dir.path("postdata_9.bin")).is_ok_and(|m| m.len() == 9600);
            assert!(now == old || complete, "metadata must not run ahead of the data");
        }
        expect(0, &init(dir.text(), &size("6")));
        assert_same(&dir.contents(), &whole.contents());
    }
    // Without saying the number again it goes on to where it was going.
    let dir = finished(&size("4"));
    let mut child = program(&init(dir.text(), &size("6"))).spawn().unwrap();
    while !dir.path("postdata_7.bin").exists() {
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(expect(0, &["status", "--data-dir", dir.text()]).contains("to 6 units"));
    expect(0, &["init", "--data-dir", dir.text()]);
    assert_same(&dir.contents(), &whole.contents());
}

#[test]
fn one_flipped_bit_is_found_named_and_repaired() {
    let whole = finished(&SMALL);
    let dir = copy_of(&whole);
    let mut random = Random::new();
    let (file, label, bit) = (random.below(5), random.below(800), random.below(128));
    let name = format!("postdata_{file}.bin");
    let mut bytes = fs::read(dir.path(&name)).unwrap();
    let byte = (label * 16 + bit / 8) as usize;
    bytes[byte] ^= 1 << (bit % 8);
    fs::write(dir.path(&name), &bytes).unwrap();
    let index = file * 800 + label;
    let text = expect(3, &["verify", "--data-dir", dir.text(), "--all"]);
    assert!(text.contains(&format!("{name}: label {index} is wrong")), "{text}");
    assert_eq!(fs::read(dir.path(&name)).unwrap(), bytes, "verify changes nothing");
    // As JSON, and restricted to files.
    let own = format!("{file}..{file}");
    let output = run(&["verify", "--data-dir", dir.text(), "--all", "--json", "--files", &own]);
    let lines: Vec<Value> = String::from_utf8(output.stdout).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let wrong: Vec<_> = lines.iter().filter(|l| l["event"] == "wrong-labels").collect();
    assert_eq!(wrong.len(), 1);
    assert_eq!((wrong[0]["file"].as_str(), wrong[0]["first"].as_u64()), (Some(name.as_str()), Some(index)));
    assert_eq!(lines.last().unwrap()["exit_code"], 3);
    let others = if file == 0 { "1..4".to_owned() } else { format!("0..{}", file - 1) };
    expect(0, &["verify", "--data-dir", dir.text(), "--all", "--files", &others]);
    let text = expect(0, &["repair", "--data-dir", dir.text()]);
    assert!(text.contains("1 computed again"), "{text}");
    assert_same(&dir.contents(), &whole.contents());
    expect(0, &["verify", "--data-dir", dir.text(), "--all"]);
    expect(0, &["verify", "--data-dir", dir.text(), "--fraction", "50"]);
}

#[test]
fn repair_mends_misaligned_files_but_not_with_the_wrong_n() {
    let whole = finished(&SMALL);
    let dir = copy_of(&whole);
    // What other programs make of a torn label: everything behind it is shifted.
    let mut bytes = fs::read(dir.path("postdata_1.bin")).unwrap();
    bytes.splice(5000..5000, [7; 5]);
    bytes.truncate(12800);
    fs::write(dir.path("postdata_1.bin"), &bytes).unwrap();
    let text = expect(3, &init(dir.text(), &SMALL));
    assert!(text.contains("postdata_1.bin: label 1599"), "{text}");
    expect(0, &["repair", "--data-dir", dir.text()]);
    assert_same(&dir.contents(), &whole.contents());

    // Data of another program records no N; with a wrong one every label seems wrong.
    fs::remove_file(dir.path("post-init.json")).unwrap();
    let before = dir.contents();
    let text = expect(3, &["repair", "--data-dir", dir.text(), "--scrypt-n", "32"]);
    assert!(text.contains("nothing was changed"), "{text}");
    assert_same(&dir.contents(), &before);
    expect(0, &["repair", "--data-dir", dir.text(), "--scrypt-n", "16"]);

    // What is missing is named, and not made up.
    fs::remove_file(dir.path("postdata_2.bin")).unwrap();
    cut(&dir, "postdata_4.bin", 3200);
    let text = expect(3, &["repair", "--data-dir", dir.text(), "--scrypt-n", "16"]);
    assert!(text.contains("postdata_2.bin: missing") && text.contains("only 200 of 800"), "{text}");
    assert!(!dir.path("postdata_2.bin").exists());
}

#[test]
fn subsets_of_two_machines_merge_into_what_one_machine_makes() {
    let whole = finished(&SMALL);
    let (a, b, into) = (Dir::new(), Dir::new(), Dir::new());
    let mut first = init(a.text(), &SMALL);
    first.extend(["--to-file", "2"]);
    expect(0, &first);
    let mut second = init(b.text(), &SMALL);
    second.extend(["--from-file", "3"]);
    expect(0, &second);
    let text = expect(0, &["merge", a.text(), b.text(), "--into", into.text()]);
    assert!(text.contains("complete"), "{text}");
    assert_same(&into.contents(), &whole.contents());
    assert!(!a.path("postdata_0.bin").exists());
    // Once more changes nothing.
    expect(0, &["merge", a.text(), b.text(), "--into", into.text()]);
    assert_same(&into.contents(), &whole.contents());
    expect(0, &init(into.text(), &SMALL));
    assert_same(&into.contents(), &whole.contents());

    // Into one of the two, with a file that both have and one of them only half.
    let (a, b) = (Dir::new(), Dir::new());
    let mut first = init(a.text(), &SMALL);
    first.extend(["--to-file", "2"]);
    expect(0, &first);
    let mut second = init(b.text(), &SMALL);
    second.extend(["--from-file", "2"]);
    expect(0, &second);
    cut(&a, "postdata_2.bin", 1605);
    expect(0, &["merge", b.text(), "--into", a.text()]);
    assert_same(&a.contents(), &whole.contents());
}

#[test]
fn merging_what_does_not_belong_together_moves_nothing() {
    let whole = finished(&SMALL);
    let other = Dir::new();
    let mut words = vec!["init", "--data-dir", other.text(), "--commitment-atx-id", ATX];
    words.extend(SMALL);
    expect(0, &words);
    assert!(other.path("identity.key").exists());
    let into = Dir::new();
    let before = (whole.contents(), other.contents());
    let text = expect(2, &["merge", whole.text(), other.text(), "--into", into.text()]);
    assert!(text.contains("node id"), "{text}");
    // The same number with other labels.
    let bad = copy_of(&whole);
    let mut bytes = fs::read(bad.path("postdata_1.bin")).unwrap();
    bytes[5000] ^= 1;
    fs::write(bad.path("postdata_1.bin"), bytes).unwrap();
    let text = expect(3, &["merge", whole.text(), bad.text(), "--into", into.text()]);
    assert!(text.contains("different labels"), "{text}");
    expect(3, &["merge", into.text(), "--into", whole.text()]);
    assert_same(&whole.contents(), &before.0);
    assert_same(&other.contents(), &before.1);
    assert!(!into.contents().keys().any(|name| Path::new(name).extension().is_some_and(|e| e == "bin")));
}

#[cfg(target_os = "linux")]
#[test]
fn merging_across_file_systems_copies_and_keeps_the_source() {
    let whole = finished(&SMALL);
    let dir = Dir::new();
    for name in ["from", "to", "result"] {
        fs::create_dir(dir.path(name)).unwrap();
    }
    for (name, bytes) in whole.contents() {
        fs::write(dir.path("from").join(name), bytes).unwrap();
    }
    let text = with_mounts(
        "mount -t tmpfs -o size=1M none to
         run merge from --into to
         cp to/* result/; ls from/postdata_0.bin",
        &dir,
    );
    assert!(text.contains("the source can be deleted"), "{text}");
    assert_same(&contents(&dir.path("result")), &whole.contents());
}

#[test]
fn several_directories_hold_what_one_would() {
    let whole = finished(&SMALL);
    let base = Dir::new();
    let (a, b) = (base.join("a"), base.join("b"));
    // Each file goes where most room is: b, b, a, b, a.
    let (capped_a, capped_b) = (format!("{a},size=26K"), format!("{b},size=40000"));
    let mut words = init(&capped_a, &SMALL);
    words.extend(["--data-dir", &capped_b]);
    expect(0, &words);
    let (in_a, in_b) = (contents(Path::new(&a)), contents(Path::new(&b)));
    let data =
        |files: &BTreeMap<String, Vec<u8>>| files.iter().filter(|(n, _)| n.contains("bin")).map(|(_, v)| v.len()).sum::<usize>();
    assert_eq!((data(&in_a), data(&in_b)), (2 * 12800, 3 * 12800));
    assert!(in_a.contains_key("postdata_2.bin") && in_b.contains_key("postdata_3.bin"));
    for (name, bytes) in whole.contents() {
        let here = in_a.get(&name).or(in_b.get(&name)).unwrap();
        assert!(name == "post-init.json" || here == &bytes, "{name}");
    }
    assert_eq!(in_a["postdata_metadata.json"], in_b["postdata_metadata.json"]);
    assert_eq!(in_a["post-init.json"], in_b["post-init.json"]);
    expect(0, &["verify", "--data-dir", &a, "--data-dir", &b, "--all"]);
    assert!(expect(2, &["init", "--data-dir", &a]).contains("name all its directories"));
    fs::copy(Path::new(&b).join("postdata_0.bin"), Path::new(&a).join("postdata_0.bin")).unwrap();
    assert!(expect(3, &["status", "--data-dir", &a, "--data-dir", &b]).contains("exists twice"));
    // Caps that leave no room are noticed before anything is computed.
    let (c, d) = (base.join("c"), base.join("d"));
    let (c, d) = (format!("{c},size=20K"), format!("{d},size=20K"));
    let mut words = init(&c, &SMALL);
    words.extend(["--data-dir", &d, "--no-wait"]);
    expect(4, &words);
}

#[cfg(unix)]
#[test]
fn files_behind_symbolic_links_are_used_in_place() {
    let whole = finished(&SMALL);
    let (dir, elsewhere) = (copy_of(&whole), Dir::new());
    for name in ["postdata_1.bin", "postdata_4.bin"] {
        fs::rename(dir.path(name), elsewhere.path(name)).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(name), dir.path(name)).unwrap();
    }
    cut(&elsewhere, "postdata_4.bin", 1000);
    expect(0, &init(dir.text(), &SMALL));
    assert!(dir.path("postdata_4.bin").is_symlink());
    assert_same(&dir.contents(), &whole.contents());
}

#[test]
fn prune_needs_the_identity_typed() {
    let whole = finished(&SMALL);
    let dir = copy_of(&whole);
    expect(0, &["prune", "--data-dir", dir.text()]);
    assert_same(&dir.contents(), &whole.contents());
    expect(0, &["init", "--data-dir", dir.text(), "--num-units", "2", "--min-num-units", "1"]);
    let before = dir.contents();
    let text = expect(2, &["prune", "--data-dir", dir.text()]);
    assert!(text.contains("postdata_4.bin, all of it") && text.contains("postdata_2.bin, its end"), "{text}");
    expect(2, &["prune", "--data-dir", dir.text(), "--confirm", &"d".repeat(64)]);
    assert_same(&dir.contents(), &before);
    expect(0, &["prune", "--data-dir", dir.text(), "--confirm", NODE]);
    let after = dir.contents();
    assert!(!after.contains_key("postdata_4.bin") && !after.contains_key("postdata_3.bin"));
    assert_eq!(after["postdata_2.bin"], before["postdata_2.bin"][..400 * 16]);
    assert_eq!(after["postdata_1.bin"], before["postdata_1.bin"]);
    expect(0, &["verify", "--data-dir", dir.text(), "--all"]);
}

#[test]
fn a_new_identity_gets_a_key_that_is_never_overwritten() {
    let dir = Dir::new();
    let words = ["init", "--data-dir", dir.text(), "--preset", "fastnet", "--num-units", "2"];
    let text = expect(0, &words);
    assert!(text.contains("identity.key") && text.contains("golden ATX"), "{text}");
    let first = dir.contents();
    let key = String::from_utf8(first["identity.key"].clone()).unwrap();
    assert!(text.contains(&key[64..]) && !text.contains(&key[..64]));
    assert!(expect(0, &words).contains("nothing to do"));
    assert_same(&dir.contents(), &first);
    // The key alone is enough to start again with the same identity.
    let again = Dir::new();
    fs::write(again.path("identity.key"), &key).unwrap();
    expect(0, &["init", "--data-dir", again.text(), "--preset", "fastnet", "--num-units", "2"]);
    assert_same(&again.contents(), &first);
    let third = Dir::new();
    let file = dir.join("identity.key");
    expect(0, &["init", "--data-dir", third.text(), "--preset", "fastnet", "--num-units", "2", "--identity", &file]);
    assert_eq!(third.contents()["postdata_0.bin"], first["postdata_0.bin"]);
    // A key of somebody else in the directory.
    let other = finished(&SMALL);
    fs::write(other.path("identity.key"), &key).unwrap();
    let before = other.contents();
    assert!(expect(2, &["init", "--data-dir", other.text()]).contains(&key[64..]));
    assert_same(&other.contents(), &before);
}

#[test]
fn devices_bench_and_plan_answer() {
    let started = Instant::now();
    let list: Value = serde_json::from_slice(&run(&["devices", "--json"]).stdout).unwrap();
    assert!(started.elapsed() < Duration::from_secs(2));
    assert!(list["devices"].as_array().unwrap().iter().any(|d| d["isa"] == "portable"));
    let bench = expect(0, &["bench", "--json", "--seconds", "1", "--scrypt-n", "64", "--cpu-threads", "1"]);
    for line in bench.lines() {
        let rate: Value = serde_json::from_str(line).unwrap();
        assert!(rate["labels_per_second"].as_f64().unwrap() > 0.0 && rate["scratch_bytes"].as_u64().unwrap() > 0);
    }
    let plan: Value = serde_json::from_str(&expect(0, &["plan", "--disk", "1T", "--json"])).unwrap();
    assert_eq!(plan["num_units"], 16);
    assert!(plan["init_seconds"].as_f64().unwrap() > 0.0);
    assert!(expect(2, &["plan", "--disk", "100G"]).contains("at least 4"));
}

#[test]
fn progress_is_told_in_json_and_metrics() {
    let dir = Dir::new();
    let size = ["--num-units", "4", "--labels-per-unit", "8000", "--scrypt-n", "1024", "--cpu-threads", "2", "--duty", "50"];
    let mut words = init(dir.text(), &size);
    // A port that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    words.extend(["--json", "--metrics", &address]);
    let mut child = program(&words).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut events: Vec<Value> = Vec::new();
    let mut metrics = None;
    for line in &mut lines {
        events.push(serde_json::from_str(&line.unwrap()).unwrap());
        // The line of the first one may be out before its metrics are.
        if metrics.is_none() && events.iter().filter(|event| event["event"] == "progress").count() == 2 {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            metrics = Some(text);
        }
    }
    assert!(child.wait().unwrap().success());
    let metrics = metrics.expect("there was progress");
    assert!(metrics.contains("post_init_labels_total 32000") && metrics.contains("post_init_device_labels_total"), "{metrics}");
    let of = |kind: &str| events.iter().filter(|e| e["event"] == kind).collect::<Vec<_>>();
    assert_eq!(of("started").len(), 1);
    assert!(!of("nonce").is_empty());
    let last = of("progress").pop().unwrap();
    assert_eq!((last["labels_done"].as_u64(), last["labels_total"].as_u64()), (Some(32000), Some(32000)));
    assert!(last["devices"][0]["busy_seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(events.last().unwrap()["event"], "done");
}

/// Peak resident memory of a run, in KiB.
#[cfg(target_os = "linux")]
fn peak_kib(words: &[&str]) -> u64 {
    let mut child = program(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmHWM"));
        peak = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).map_or(peak, |kib: u64| peak.max(kib));
        std::thread::sleep(Duration::from_millis(5));
    }
    peak
}

#[cfg(target_os = "linux")]
#[test]
fn memory_stays_within_what_bench_states() {
    for (n, labels) in [("8192", "500"), ("2", "400000"), ("32768", "60")] {
        let dir = Dir::new();
        // What graphics drivers take that are looked for otherwise is their own business.
        let size = ["--num-units", "4", "--labels-per-unit", labels, "--scrypt-n", n, "--cpu-threads", "2", "--backend", "cpu"];
        let peak = peak_kib(&init(dir.text(), &size));
        let bench = expect(0, &["bench", "--json", "--seconds", "1", "--scrypt-n", n, "--cpu-threads", "2"]);
        let rates: Vec<Value> = bench.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let scratch = rates.last().unwrap()["scratch_bytes"].as_u64().unwrap() / 1024;
        assert!(peak > 0 && peak <= scratch + 64 * 1024, "N = {n}: {peak} KiB of {scratch} KiB + 64 MiB");
        println!("N = {n}: peak {peak} KiB, scratch {scratch} KiB");
    }
}

#[test]
fn a_preset_may_be_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let (file, data) = (dir.path().join("office.toml"), dir.path().join("data"));
    let (preset, data) = (file.to_str().unwrap(), data.to_str().unwrap());
    fs::write(&file, "preset = \"local\"\nname = \"office\"\n[post]\npost-max-numunits = 3\n").unwrap();
    let text = expect(2, &init(data, &["--preset", preset, "--num-units", "4"]));
    assert!(text.contains("allowed are 2 to 3"), "{text}");
    fs::write(&file, "preset = \"local\"\n[post]\npost-max-units = 3\n").unwrap();
    let text = expect(2, &init(data, &["--preset", preset, "--num-units", "4"]));
    assert!(text.contains("unknown keys: post.post-max-units"), "{text}");
}

/// `docs/post-init-cli.md` holds the help of every command. `UPDATE_DOCS=1` writes it again.
#[test]
fn the_command_line_reference_is_up_to_date() {
    let commands = [
        "", "init", "status", "verify", "repair", "nonce", "merge", "control", "prune", "devices", "doctor", "tune", "bench",
        "plan",
    ];
    let mut text = "# Command line of post-init\n\nGenerated from the program; a test keeps it true.\n".to_owned();
    for command in commands {
        let words: Vec<&str> = [command, "--help"].into_iter().filter(|word| !word.is_empty()).collect();
        let help = String::from_utf8(run(&words).stdout).unwrap();
        let help: Vec<&str> = help.lines().map(str::trim_end).collect();
        let title = if command.is_empty() { "post-init".to_owned() } else { format!("post-init {command}") };
        text.extend(["\n## ", &title, "\n\n```text\n", help.join("\n").trim_end(), "\n```\n"]);
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/post-init-cli.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    assert!(fs::read_to_string(&path).unwrap() == text, "run the tests once with UPDATE_DOCS=1 and commit docs/post-init-cli.md");
}
