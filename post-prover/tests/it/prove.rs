//! Making proofs: faults, stops and restarts.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use kernels::{
    pow::Puzzle,
    scan::{Backend, GroupPow},
};
use post_prover::{
    data::{DataError, DataSet},
    prove::{Job, LocalPow, Nonces, Open, Options, PowClient, PowSource, PowSourceError, Progress, ProveError},
    read::{Disk, Source, SourceFile},
    state::{STATE_FILE, StateFile},
    verify::{Claim, Leniency, Mode, Request, Verifier, leniencies},
};
use proto::{
    ids::Challenge,
    post::{Metadata, Params, Preset, Proof, file_name, index_bits, pack_indices, unpack_indices},
};

use crate::{data, vectors};

/// Several blocks of data, several passes of 16 nonces until a proof is found.
fn large() -> (Params, Metadata) {
    let params = Params { labels_per_unit: 1 << 19, k1: 20, k2: 34, ..Preset::Fastnet.params() };
    let metadata = data::metadata(7, &params, 2, 400_000);
    (params, metadata)
}

struct Run {
    dirs: [tempfile::TempDir; 2],
    params: Params,
    data: DataSet,
    challenge: Challenge,
}

impl Run {
    /// All files in the first directory.
    fn new() -> Self {
        Self::spread(0)
    }

    /// The files from this number on in the other directory, on a disk of its own.
    fn spread(from: u64) -> Self {
        let (params, metadata) = large();
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        data::write(dirs[0].path(), &metadata, params.scrypt_n);
        for file in (from..metadata.layout().unwrap().file_count()).filter(|_| from > 0) {
            fs::rename(dirs[0].path().join(file_name(file)), dirs[1].path().join(file_name(file))).unwrap();
        }
        let paths = dirs.each_ref().map(|dir| dir.path().to_owned());
        let data = DataSet::open_on(&paths, &["one".to_owned(), "two".to_owned()]).unwrap();
        Self { dirs, params, data, challenge: Challenge([9; 32]) }
    }

    fn state_path(&self) -> PathBuf {
        self.dirs[0].path().join(STATE_FILE)
    }

    fn state(&self) -> StateFile {
        let path = self.state_path();
        StateFile::open(path, self.data.metadata(), &self.params, &self.challenge).unwrap()
    }

    fn prove(&self, source: &dyn Source, pow: &dyn PowSource, stop: &AtomicBool) -> Result<Proof, ProveError> {
        let options = Options { nonces: Nonces::new(16).unwrap(), threads: 2, backend: Backend::best() };
        let job = Job {
            data: &self.data,
            challenge: &self.challenge,
            params: &self.params,
            options,
            source,
            pow,
            gate: &Open,
            progress: &Progress::default(),
            stop,
        };
        job.run(&mut self.state(), &|e| panic!("{e}"))
    }
}

/// Solves puzzles at once and counts how often each was asked for.
#[derive(Default)]
struct CountingPow(Mutex<Vec<u8>>);

impl PowSource for CountingPow {
    fn solve(&self, puzzles: &[Puzzle], client: &mut PowClient<'_>) -> Result<(), PowSourceError> {
        self.0.lock().unwrap().extend(puzzles.iter().map(|p| p.group));
        LocalPow { randomx: vectors::shared(), threads: 1 }.solve(puzzles, client)
    }
}

/// A disk on which something happens at one read.
#[derive(Clone)]
struct Faulty {
    reads: Arc<AtomicU64>,
    at: u64,
    /// Stop instead of failing.
    stop: Option<Arc<AtomicBool>>,
}

struct FaultyFile(Box<dyn SourceFile>, Faulty);

impl Faulty {
    fn new(at: u64, stop: Option<Arc<AtomicBool>>) -> Self {
        Self { reads: Arc::default(), at, stop }
    }
}

impl Source for Faulty {
    fn open(&self, path: &Path) -> io::Result<Box<dyn SourceFile>> {
        Ok(Box::new(FaultyFile(Disk::default().open(path)?, self.clone())))
    }
}

impl SourceFile for FaultyFile {
    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let Self(file, fault) = self;
        if fault.reads.fetch_add(1, Ordering::Relaxed) == fault.at {
            match &fault.stop {
                None => return Err(io::Error::other("the disk says no")),
                Some(stop) => stop.store(true, Ordering::Relaxed),
            }
        }
        file.read_at(buffer, offset)
    }
}

#[test]
fn interrupted_runs_go_on_and_end_with_the_same_proof() {
    let run = Run::new();
    let counting = CountingPow::default();
    let undisturbed = run.prove(&Disk { direct: false }, &counting, &AtomicBool::new(false)).unwrap();
    let groups = undisturbed.nonce / 16 + 1;
    assert!(groups >= 2, "the test needs several passes");
    let once: Vec<u8> = (0..groups as u8).collect();
    assert_eq!(*counting.0.lock().unwrap(), once);
    fs::remove_file(run.state_path()).unwrap();

    // stopped and failed again and again, on one disk and on two
    let two = Run::spread(2);
    for run in [run, two] {
        let counting = CountingPow::default();
        let mut interruptions = 0;
        let proof = loop {
            let stop = Arc::new(AtomicBool::new(false));
            let source = Faulty::new(2, (interruptions % 2 == 0).then(|| Arc::clone(&stop)));
            match run.prove(&source, &counting, &stop) {
                Ok(proof) => break proof,
                Err(ProveError::Stopped | ProveError::Data(DataError::Io { .. })) => interruptions += 1,
                Err(other) => panic!("{other}"),
            }
            assert!(interruptions < 200, "no headway");
        };
        assert!(interruptions > 2);
        assert_eq!(proof, undisturbed);
        assert_eq!(*counting.0.lock().unwrap(), once, "no k2pow is searched twice");
        // and the finished proof is still there
        assert_eq!(run.prove(&Faulty::new(0, None), &counting, &AtomicBool::new(false)).unwrap(), undisturbed);
    }
}

/// Two disks, of which neither gives anything before both have been asked.
#[derive(Clone, Default)]
struct Both(Arc<(Mutex<BTreeSet<PathBuf>>, Condvar)>);

struct BothFile(Box<dyn SourceFile>, PathBuf, Both);

impl Source for Both {
    fn open(&self, path: &Path) -> io::Result<Box<dyn SourceFile>> {
        Ok(Box::new(BothFile(Disk::default().open(path)?, path.parent().unwrap().to_owned(), self.clone())))
    }
}

impl SourceFile for BothFile {
    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let (asked, changed) = &*self.2.0;
        let mut asked = asked.lock().unwrap();
        asked.insert(self.1.clone());
        changed.notify_all();
        let (asked, timeout) = changed.wait_timeout_while(asked, Duration::from_secs(60), |asked| asked.len() < 2).unwrap();
        drop(asked);
        assert!(!timeout.timed_out(), "only one disk is read");
        self.0.read_at(buffer, offset)
    }
}

#[test]
fn all_disks_of_an_identity_are_read_at_the_same_time() {
    let run = Run::spread(1);
    assert_eq!(run.data.disks(), ["one", "two"]);
    let of_two = run.data.files_on(1).map(|(file, _)| file);
    assert!(of_two.eq(1..run.data.layout().file_count()));
    run.prove(&Both::default(), &CountingPow::default(), &AtomicBool::new(false)).unwrap();
}

#[test]
fn proofs_are_valid_and_use_no_leniency() {
    let run = Run::new();
    let pow = LocalPow { randomx: vectors::shared(), threads: 2 };
    let proof = run.prove(&Disk::default(), &pow, &AtomicBool::new(false)).unwrap();
    let metadata = run.data.metadata();
    let claim = Claim {
        node_id: metadata.node_id,
        commitment_atx_id: metadata.commitment_atx_id,
        challenge: run.challenge,
        num_units: metadata.num_units,
    };
    let request = Request { proof: &proof, claim: &claim, params: &run.params, mode: &Mode::All };
    assert_eq!(Verifier::new(vectors::randomx()).unwrap().verify(&request).unwrap(), Ok(()));
    assert_eq!(leniencies(&proof, &claim, &run.params), []);

    // one good index again and again is a valid proof, and told
    let bits = index_bits(run.data.layout().num_labels());
    let index = unpack_indices(&proof.indices, bits, 1)[0];
    let mut repeated = Proof { indices: pack_indices(&vec![index; run.params.k2 as usize], bits), ..proof };
    if let Some(last) = repeated.indices.last_mut() {
        *last |= 0x80;
    }
    let request = Request { proof: &repeated, claim: &claim, params: &run.params, mode: &Mode::All };
    assert_eq!(Verifier::new(vectors::randomx()).unwrap().verify(&request).unwrap(), Ok(()));
    let found = leniencies(&repeated, &claim, &run.params);
    assert_eq!(found.iter().filter(|l| matches!(l, Leniency::Duplicate { .. })).count() as u32, run.params.k2 - 1);
    let padded = !(u64::from(bits) * u64::from(run.params.k2)).is_multiple_of(8);
    assert_eq!(found.contains(&Leniency::Padding), padded);
}

#[test]
fn bad_data_is_found_before_any_work() {
    let (params, metadata) = (Preset::Fastnet.params(), data::metadata(1, &Preset::Fastnet.params(), 4, 100));
    let open = |dir: &Path| DataSet::open(&[dir.to_owned()]);
    let fresh = || {
        let dir = tempfile::tempdir().unwrap();
        data::write(dir.path(), &metadata, params.scrypt_n);
        dir
    };
    let dir = fresh();
    assert_eq!(open(dir.path()).unwrap().layout().file_count(), 6);
    std::fs::remove_file(dir.path().join(file_name(3))).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(&error, DataError::Missing { name, .. } if name == "postdata_3.bin"));
    assert!(error.to_string().starts_with("postdata_3.bin is missing"));

    let dir = fresh();
    let file = std::fs::File::options().write(true).open(dir.path().join(file_name(5))).unwrap();
    file.set_len(12 * 16 - 1).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(&error, DataError::Short { expected: 192, found: 191, .. }), "{error}");
    // longer files are read as far as their labels go
    file.set_len(4096).unwrap();
    assert!(open(dir.path()).is_ok());

    // what cannot be read is named, before any k2pow
    std::fs::remove_file(dir.path().join(file_name(5))).unwrap();
    std::fs::create_dir(dir.path().join(file_name(5))).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("postdata_5.bin"), "{error}");

    let other = tempfile::tempdir().unwrap();
    assert!(matches!(open(other.path()), Err(DataError::NoMetadata(_))));
    assert!(matches!(open(&other.path().join("none")), Err(DataError::Io { .. })));
    assert!(matches!(DataSet::open(&[]), Err(DataError::NoDirectory)));
    let foreign = Metadata { num_units: proto::units::SpaceUnits(3), ..metadata.clone() };
    std::fs::write(other.path().join(proto::post::METADATA_FILE), foreign.to_json()).unwrap();
    let both = [dir.path().to_owned(), other.path().to_owned()];
    assert!(matches!(DataSet::open(&both), Err(DataError::Different { .. })));
}

#[test]
fn data_may_be_spread_over_directories() {
    let (params, metadata) = (Preset::Fastnet.params(), data::metadata(1, &Preset::Fastnet.params(), 4, 100));
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    data::write(one.path(), &metadata, params.scrypt_n);
    let dirs = [two.path().to_owned(), one.path().to_owned()];
    std::fs::copy(one.path().join(file_name(2)), two.path().join(file_name(2))).unwrap();
    assert!(matches!(DataSet::open(&dirs), Err(DataError::Twice { .. })));
    std::fs::remove_file(one.path().join(file_name(2))).unwrap();
    let data = DataSet::open(&dirs).unwrap();
    assert_eq!(data.file(2).unwrap().parent().unwrap(), two.path());
    assert_eq!(data.file(3).unwrap().parent().unwrap(), one.path());
    assert!(data.file(6).is_none());
}

/// Takes anything for a solution.
struct Free;

impl PowSource for Free {
    fn solve(&self, puzzles: &[Puzzle], client: &mut PowClient<'_>) -> Result<(), PowSourceError> {
        for p in puzzles {
            (client.found)(GroupPow { group: p.group, pow: 0 });
        }
        Ok(())
    }
}

#[test]
fn a_hopeless_challenge_ends_with_an_error() {
    let params = Params { k1: 1, k2: 100, ..Preset::Fastnet.params() };
    let dir = tempfile::tempdir().unwrap();
    data::write(dir.path(), &data::metadata(3, &params, 2, 100), params.scrypt_n);
    let data = DataSet::open(&[dir.path().to_owned()]).unwrap();
    let challenge = Challenge([1; 32]);
    let job = Job {
        data: &data,
        challenge: &challenge,
        params: &params,
        options: Options { nonces: Nonces::new(288).unwrap(), threads: 1, backend: Backend::best() },
        source: &Disk::default(),
        pow: &Free,
        gate: &Open,
        progress: &Progress::default(),
        stop: &AtomicBool::new(false),
    };
    let mut state = StateFile::in_memory();
    assert!(matches!(job.run(&mut state, &|e| panic!("{e}")), Err(ProveError::Exhausted { k2: 100 })));
    assert_eq!(state.state.pows.len(), 256, "all groups were tried");
}
