//! Faults of the disk, injected where labels and small files are written: whatever fails, labels that were on disk stay as they
//! were, and a later run ends with the same bytes as one in one go.

use std::{
    collections::BTreeMap,
    fs, io,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use kernels::label::cpu::Isa;
use post_init::{
    data_dir::{DataDirs, DirSpec, LOCK_FILE, SIDE_FILE},
    error::Error,
    event::{Event, Report, Silent},
    init::{self, Request},
    pool::PoolOptions,
    stop::Stop,
    storage::{Disk, LabelFile, Mode, Storage},
};
use proto::{
    ids::{AtxId, NodeId},
    post::{LABEL_BYTES, METADATA_FILE, Metadata, Preset, ScryptN, parse_file_name},
    units::SpaceUnits,
};
use tempfile::TempDir;

const NO_LIMIT: u64 = u64::MAX;
/// What the disk claims to have; only the injected limit counts.
const FREE: u64 = 1 << 40;
const FILE_BYTES: u64 = 8192;

/// What can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Create,
    Open,
    Read,
    Write,
    Sync,
    Preallocate,
    Replace,
    SyncDir,
}

const OPS: [Op; 8] = [Op::Create, Op::Open, Op::Read, Op::Write, Op::Sync, Op::Preallocate, Op::Replace, Op::SyncDir];

/// One fault: the operation fails once, after so many that went well.
#[derive(Debug, Clone, Copy)]
struct Fault {
    op: Op,
    after: u64,
    kind: io::ErrorKind,
    /// The operation takes effect although it reports an error, as when the machine dies just behind it. A write takes effect
    /// up to a byte inside a label.
    effect: bool,
}

/// A disk with faults.
#[derive(Debug)]
struct Faulty {
    faults: Mutex<Vec<Fault>>,
    /// Bytes that still can be written.
    room: AtomicU64,
}

impl Faulty {
    fn new(faults: &[Fault]) -> Arc<Self> {
        Arc::new(Self { faults: Mutex::new(faults.to_vec()), room: AtomicU64::new(NO_LIMIT) })
    }

    fn with_room(bytes: u64) -> Arc<Self> {
        let disk = Self::new(&[]);
        disk.room.store(bytes, Ordering::SeqCst);
        disk
    }

    /// The fault that is due now.
    fn due(&self, op: Op) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        let position = faults.iter().position(|fault| fault.op == op)?;
        if faults[position].after == 0 {
            return Some(faults.remove(position));
        }
        faults[position].after -= 1;
        None
    }

    fn run<T>(&self, op: Op, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self.due(op) {
            None => work(),
            Some(fault) => {
                if fault.effect {
                    work()?;
                }
                Err(fault.kind.into())
            }
        }
    }

    /// Takes room for some bytes; how many there was room for.
    fn take(&self, bytes: u64) -> u64 {
        let take = |room| if room == NO_LIMIT { room } else { room - bytes.min(room) };
        let before = self.room.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |room| Some(take(room))).unwrap();
        before.min(bytes)
    }
}

#[derive(Debug)]
struct FaultyStorage(Arc<Faulty>);

struct FaultyFile {
    disk: Arc<Faulty>,
    file: Box<dyn LabelFile>,
}

impl Storage for FaultyStorage {
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Box<dyn LabelFile>> {
        let op = if mode == Mode::Create { Op::Create } else { Op::Open };
        let file = self.0.run(op, || Disk.open(path, mode))?;
        Ok(Box::new(FaultyFile { disk: self.0.clone(), file }))
    }

    /// The directory with less in it has more room, so that files go to all directories in turn.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let files =
            fs::read_dir(dir)?.filter_map(Result::ok).filter(|e| e.file_name().to_str().and_then(parse_file_name).is_some());
        Ok(FREE - files.count() as u64)
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if self.0.take(bytes.len() as u64) < bytes.len() as u64 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.run(Op::Replace, || Disk.replace(path, bytes))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.run(Op::SyncDir, || Disk.sync_dir(dir))
    }
}

impl LabelFile for FaultyFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.disk.run(Op::Read, || self.file.read_at(offset, buffer))
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if let Some(fault) = self.disk.due(Op::Write) {
            if fault.effect {
                self.file.write_at(offset, &bytes[..bytes.len() * 2 / 3 + 5])?;
            }
            return Err(fault.kind.into());
        }
        let room = self.disk.take(bytes.len() as u64) as usize;
        self.file.write_at(offset, &bytes[..room])?;
        if room < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn cut(&mut self, size: u64) -> io::Result<()> {
        self.file.cut(size)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.disk.run(Op::Sync, || self.file.sync())
    }

    fn preallocate(&mut self, size: u64) -> io::Result<()> {
        self.disk.run(Op::Preallocate, || self.file.preallocate(size))
    }
}

/// Gives room back when told that it is missed, and notes what it was told.
struct Caretaker {
    disk: Arc<Faulty>,
    waited: AtomicU64,
    went_on: AtomicU64,
}

impl Caretaker {
    fn new(disk: &Arc<Faulty>) -> Self {
        Self { disk: disk.clone(), waited: AtomicU64::new(0), went_on: AtomicU64::new(0) }
    }
}

impl Report for Caretaker {
    fn event(&self, event: &Event) {
        match event {
            Event::WaitingForSpace { missing_bytes, .. } => {
                assert!(*missing_bytes > 0);
                self.disk.room.store(NO_LIMIT, Ordering::SeqCst);
                self.waited.fetch_add(1, Ordering::SeqCst);
            }
            Event::SpaceAgain { .. } => {
                self.went_on.fetch_add(1, Ordering::SeqCst);
            }
            _ => {}
        }
    }
}

fn request(units: u32, wait: bool) -> Request {
    Request {
        node_id: Some(NodeId([7; 32])),
        commitment_atx_id: Some(AtxId([9; 32])),
        num_units: Some(SpaceUnits(units)),
        labels_per_unit: Some(500),
        min_num_units: Some(SpaceUnits(1)),
        max_num_units: Some(SpaceUnits(8)),
        max_file_size: Some(FILE_BYTES),
        scrypt_n: Some(ScryptN::new(16).unwrap()),
        wait,
        ..Request::new(Preset::Standalone)
    }
}

fn run(request: &Request, dirs: &[&Path], storage: Arc<dyn Storage>, report: &dyn Report) -> Result<Metadata, Error> {
    let specs = dirs.iter().map(|path| DirSpec { path: path.to_path_buf(), cap: None }).collect();
    let options = PoolOptions::cpu(1, Isa::best());
    init::run(request, &DataDirs::new(specs, storage)?, &options, &Stop::default(), report)
}

fn faulty(request: &Request, dir: &TempDir, disk: &Arc<Faulty>) -> Result<Metadata, Error> {
    run(request, &[dir.path()], Arc::new(FaultyStorage(disk.clone())), &Caretaker::new(disk))
}

type Contents = BTreeMap<String, Vec<u8>>;

/// All files of some directories, as if they were one; the lock is of no interest.
fn contents(dirs: &[&Path]) -> Contents {
    let entries = dirs.iter().flat_map(|dir| fs::read_dir(dir).unwrap()).map(Result::unwrap);
    let files = entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()));
    files.filter(|(name, _)| name != LOCK_FILE).collect()
}

/// A directory of 4 units made in one go.
fn reference() -> Contents {
    let dir = tempfile::tempdir().unwrap();
    run(&request(4, false), &[dir.path()], Arc::new(Disk), &Silent).unwrap();
    let made = contents(&[dir.path()]);
    assert_eq!(made.len(), 4 + 2);
    made
}

/// Every whole label on disk is the right one, and none that was there before is gone.
#[track_caller]
fn assert_labels_last(before: &Contents, now: &Contents, reference: &Contents) {
    for (name, bytes) in now.iter().filter(|(name, _)| parse_file_name(name).is_some()) {
        let whole = bytes.len() - bytes.len() % LABEL_BYTES as usize;
        assert!(bytes[..whole] == reference[name][..whole], "{name} holds wrong labels");
    }
    for (name, old) in before.iter().filter(|(name, _)| parse_file_name(name).is_some()) {
        let whole = old.len() - old.len() % LABEL_BYTES as usize;
        assert!(now.get(name).is_some_and(|bytes| bytes.len() >= whole), "{name} lost labels");
    }
}

#[track_caller]
fn assert_same(now: &Contents, reference: &Contents) {
    assert_eq!(now.keys().collect::<Vec<_>>(), reference.keys().collect::<Vec<_>>());
    for (name, bytes) in now {
        assert!(bytes == &reference[name], "{name} differs");
    }
}

/// A run with one fault fails with this kind; labels last; a run without faults ends as one in one go.
#[track_caller]
fn fails_and_recovers(fault: Fault, reference: &Contents) {
    let dir = tempfile::tempdir().unwrap();
    let disk = Faulty::new(&[fault]);
    match faulty(&request(4, false), &dir, &disk) {
        Err(Error::Io { source, .. }) => assert_eq!(source.kind(), fault.kind, "{fault:?}"),
        Err(error @ Error::NoSpace { .. }) => {
            assert_eq!(fault.kind, io::ErrorKind::StorageFull, "{fault:?}: {error}");
            assert_eq!(error.exit_code(), 4);
        }
        other => panic!("{fault:?}: {other:?}"),
    }
    assert_labels_last(&Contents::new(), &contents(&[dir.path()]), reference);
    run(&request(4, false), &[dir.path()], Arc::new(Disk), &Silent).unwrap();
    assert_same(&contents(&[dir.path()]), reference);
}

#[test]
fn every_error_is_told_and_costs_no_label() {
    let reference = reference();
    let eio = io::ErrorKind::Other;
    for op in [Op::Create, Op::Write, Op::Sync, Op::Replace, Op::SyncDir] {
        for after in 0..2 {
            for effect in [false, true] {
                fails_and_recovers(Fault { op, after, kind: eio, effect }, &reference);
            }
        }
    }
}

#[test]
fn read_errors_leave_a_directory_as_it_is() {
    let reference = reference();
    let dir = tempfile::tempdir().unwrap();
    run(&request(4, false), &[dir.path()], Arc::new(Disk), &Silent).unwrap();
    for op in [Op::Open, Op::Read] {
        for after in [0, 3] {
            let fault = Fault { op, after, kind: io::ErrorKind::Other, effect: false };
            let error = faulty(&request(4, false), &dir, &Faulty::new(&[fault])).unwrap_err();
            assert!(matches!(error, Error::Io { .. }), "{error}");
            assert_same(&contents(&[dir.path()]), &reference);
        }
    }
}

#[test]
fn a_refused_preallocation_is_no_error() {
    let reference = reference();
    let dir = tempfile::tempdir().unwrap();
    let faults: Vec<_> =
        (0..4).map(|_| Fault { op: Op::Preallocate, after: 0, kind: io::ErrorKind::StorageFull, effect: false }).collect();
    let disk = Faulty::new(&faults);
    faulty(&request(4, false), &dir, &disk).unwrap();
    assert!(disk.faults.lock().unwrap().is_empty());
    assert_same(&contents(&[dir.path()]), &reference);
}

#[test]
fn without_waiting_a_full_disk_ends_the_run_with_all_labels_kept() {
    let reference = reference();
    // nothing, not all of the metadata, the first bytes of labels, a torn label, the end of a file, a later file
    for room in [0, 100, 1000, 2001, 8192, 12345, 30000] {
        let dir = tempfile::tempdir().unwrap();
        let error = faulty(&request(4, false), &dir, &Faulty::with_room(room)).unwrap_err();
        assert!(matches!(error, Error::NoSpace { missing: 1.., .. }), "room for {room}: {error}");
        assert_eq!(error.exit_code(), 4);
        assert_labels_last(&Contents::new(), &contents(&[dir.path()]), &reference);
        run(&request(4, false), &[dir.path()], Arc::new(Disk), &Silent).unwrap();
        assert_same(&contents(&[dir.path()]), &reference);
    }
}

#[test]
fn waiting_ends_when_there_is_room_again() {
    let reference = reference();
    let threads = [0, 100, 5001, 20000].map(|room| {
        let reference = reference.clone();
        std::thread::spawn(move || {
            let dir = tempfile::tempdir().unwrap();
            let disk = Faulty::with_room(room);
            let caretaker = Caretaker::new(&disk);
            run(&request(4, true), &[dir.path()], Arc::new(FaultyStorage(disk.clone())), &caretaker).unwrap();
            assert_eq!(caretaker.waited.into_inner(), 1, "room for {room}");
            assert_eq!(caretaker.went_on.into_inner(), 1, "room for {room}");
            assert_same(&contents(&[dir.path()]), &reference);
        })
    });
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_full_disk_is_waited_for_wherever_it_is_noticed() {
    let reference = reference();
    let threads = [(Op::Create, 0), (Op::Create, 2), (Op::Write, 1), (Op::Replace, 0), (Op::Replace, 1), (Op::Replace, 2)].map(
        |(op, after)| {
            let reference = reference.clone();
            std::thread::spawn(move || {
                let fault = Fault { op, after, kind: io::ErrorKind::StorageFull, effect: false };
                let dir = tempfile::tempdir().unwrap();
                let disk = Faulty::new(&[fault]);
                let caretaker = Caretaker::new(&disk);
                run(&request(4, true), &[dir.path()], Arc::new(FaultyStorage(disk.clone())), &caretaker).unwrap();
                assert_eq!(caretaker.waited.into_inner(), 1, "{fault:?}");
                assert_same(&contents(&[dir.path()]), &reference);
                fails_and_recovers(fault, &reference);
            })
        },
    );
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn waiting_for_room_ends_at_once_when_asked_to_stop() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Faulty::with_room(100);
    let stop = Stop::default();
    let storage: Arc<dyn Storage> = Arc::new(FaultyStorage(disk));
    let dirs = DataDirs::new(vec![DirSpec { path: dir.path().to_owned(), cap: None }], storage).unwrap();
    let options = PoolOptions::cpu(1, Isa::best());
    let asked = std::thread::scope(|scope| {
        let stopper = scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(600));
            stop.set();
            Instant::now()
        });
        let error = init::run(&request(4, true), &dirs, &options, &stop, &Silent).unwrap_err();
        assert!(matches!(error, Error::Stopped), "{error}");
        stopper.join().unwrap()
    });
    assert!(asked.elapsed() < Duration::from_secs(1));
}

/// A small generator (xorshift), so that a printed seed repeats a run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// Makes 4 units through fault after fault, in one or two directories, growing and shrinking, with metadata lost on the way.
fn random_faults(seed: u64, reference: &Contents) {
    println!("seed {seed}: set FAULTS_SEED={seed} to repeat");
    let mut random = Random(seed);
    let holder = tempfile::tempdir().unwrap();
    let paths: Vec<_> = (0..=random.below(2)).map(|i| holder.path().join(i.to_string())).collect();
    for path in &paths {
        fs::create_dir(path).unwrap();
    }
    let dirs: Vec<&Path> = paths.iter().map(|path| &**path).collect();
    for _ in 0..6 {
        let before = contents(&dirs);
        let units = 1 + random.below(4) as u32;
        let mut faults = Vec::new();
        for _ in 0..=random.below(3) {
            faults.push(Fault {
                op: OPS[random.below(8) as usize],
                after: random.below(6),
                kind: if random.below(2) == 0 { io::ErrorKind::Other } else { io::ErrorKind::StorageFull },
                effect: random.below(2) == 0,
            });
        }
        let disk = Faulty::new(&faults);
        if random.below(3) == 0 {
            disk.room.store(random.below(20000), Ordering::SeqCst);
        }
        let result = run(&request(units, false), &dirs, Arc::new(FaultyStorage(disk)), &Silent);
        assert!(matches!(result, Ok(_) | Err(Error::Io { .. } | Error::NoSpace { .. })), "{result:?}");
        assert_labels_last(&before, &contents(&dirs), reference);
        let metadata = dirs[random.below(dirs.len() as u64) as usize].join(METADATA_FILE);
        if random.below(4) == 0 && metadata.exists() && metadata.with_file_name(SIDE_FILE).exists() {
            fs::write(&metadata, "").unwrap();
        }
    }
    run(&request(4, false), &dirs, Arc::new(Disk), &Silent).unwrap();
    let mut expected = reference.clone();
    if dirs.len() > 1 {
        // It names the directories there.
        expected.insert(SIDE_FILE.to_owned(), contents(&dirs)[SIDE_FILE].clone());
        let metadata: Vec<_> = dirs.iter().map(|dir| fs::read(dir.join(METADATA_FILE)).unwrap()).collect();
        assert_eq!(metadata[0], metadata[1]);
    }
    assert!(!String::from_utf8_lossy(&contents(&dirs)[SIDE_FILE]).contains("target"));
    assert_same(&contents(&dirs), &expected);
}

#[test]
fn through_any_faults_it_ends_byte_identical() {
    let reference = reference();
    if let Ok(seed) = std::env::var("FAULTS_SEED") {
        return random_faults(seed.parse().unwrap(), &reference);
    }
    let count = if std::env::var_os("SOAK").is_some() { 300 } else { 10 };
    let first = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    for i in 0..count {
        random_faults((first + i).max(1), &reference);
    }
}
