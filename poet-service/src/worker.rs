//! Runs one round: grows its tree until the round ends, and makes the proof.
//!
//! The hashing thread does nothing but hash: every 64 leaves (a millisecond) it looks at the clock, and at the end of a unit it
//! hands the nodes over to a writer thread, without waiting for it. What the writer has put down is enough to continue from at
//! any time ([`crate::log`]), so being killed costs at most the few seconds between two syncs; being stopped costs the unit in
//! progress, 15 ms of work.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use kernels::posw::{Backend, Node, Statement};
use proto::poet::{Leaves, PROVEN_LEAVES, PoetProof};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::{
    log::{LogError, Mended, NodeLog},
    proof::{self, InvalidProof},
    prove::{ProveError, Tree},
    schedule::Time,
    tree::{Grower, Shape},
};

/// Leaves between two looks at the clock.
const LEAVES_PER_LOOK: u64 = 64;

/// Nodes that the hashing thread holds back when the writer does not keep up; then it must wait (two hours of work).
const MAX_HELD_BACK: usize = 1 << 20;

/// How often nodes go to the operating system, and to the disk.
const FLUSH_EVERY: Duration = Duration::from_millis(500);
const SYNC_EVERY: Duration = Duration::from_secs(2);

/// Why a round cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// A file or folder of the round cannot be used.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The kept nodes cannot be used.
    #[error("failed to use the tree's nodes in {path}: {source}")]
    Log {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: LogError,
    },
    /// The proof cannot be made.
    #[error("failed to make the proof: {0}")]
    Prove(#[from] ProveError<LogError>),
    /// The proof that was made is not valid: the memory or the processor of this machine computes wrongly.
    #[error("the proof just made is not valid ({0}): this machine's memory or processor is unreliable")]
    Invalid(#[from] InvalidProof),
    /// The system did not give a thread.
    #[error("no thread to write nodes with: {0}")]
    Thread(io::Error),
}

/// A round to run.
#[derive(Debug, Clone)]
pub struct Job {
    /// The root of the members' tree.
    pub statement: Vec<u8>,
    /// When to stop growing.
    pub end: Time,
    /// The round's own folder.
    pub folder: PathBuf,
    /// The lowest level kept.
    pub lowest_level: u32,
    /// Threads for making the proof.
    pub threads: usize,
    /// The processor that the hashing thread stays on.
    pub cpu: Option<usize>,
    /// Where the number of the hashing thread is told, for those who set its priority.
    pub tid_file: Option<PathBuf>,
}

/// How far a round is; written by the hashing thread, read by anyone.
#[derive(Debug, Default)]
pub struct Progress {
    /// Leaves so far.
    pub leaves: AtomicU64,
    /// Leaves per second of the last second, and of processor time of the hashing thread.
    pub rate: AtomicU64,
    /// The same per second of processor time.
    pub rate_on_cpu: AtomicU64,
    /// How much of the last second the hashing thread had a processor, in thousandths.
    pub on_cpu: AtomicU64,
    /// Compressions of the last second in thousandths of what the chain alone would have done meanwhile.
    pub share_of_bound: AtomicU64,
}

/// How a round came to a stop.
#[derive(Debug)]
pub enum Outcome {
    /// The round has ended and this is its proof. Its folder may be removed once the proof is stored.
    Finished(Box<PoetProof>),
    /// Told to stop; everything is on disk.
    Stopped,
}

impl Job {
    /// Runs the round, from wherever it was, until it ends or `stop` is set.
    pub fn run(&self, now: impl Fn() -> Time, stop: &AtomicBool, progress: &Progress) -> Result<Outcome, WorkError> {
        let at = |path: &Path| {
            let path = path.to_path_buf();
            move |source| WorkError::File { path, source }
        };
        fs::create_dir_all(&self.folder).map_err(at(&self.folder))?;
        let path = self.folder.join("nodes");
        let in_log = |source| WorkError::Log { path: path.clone(), source };
        let finished = self.folder.join("finished");
        let statement = Statement::new(&self.statement);
        let shape = Shape::new(self.lowest_level);
        let mut log = NodeLog::open(&path, &self.statement).map_err(in_log)?;
        let covered = shape.units_covered(log.len());
        log.truncate(shape.kept(covered)).map_err(in_log)?;

        let ended_at = match read_finished(&finished) {
            Ok(leaves) => leaves.filter(|leaves| shape.units(*leaves) <= covered && leaves.0 >= PROVEN_LEAVES as u64),
            Err(source) => return Err(at(&finished)(source)),
        };
        let leaves = if let Some(leaves) = ended_at {
            leaves
        } else {
            let mended = Mended::new(&log, &statement, shape);
            let tree = Grower::resume(statement.clone(), shape, covered, &mended).map_err(in_log)?;
            if covered > 0 {
                tracing::info!(leaves = tree.leaves().0, "continuing the round where it was");
            }
            let (leaves, ended) = self.grow(tree, shape, &mut log, &now, stop, progress)?;
            log.sync().map_err(in_log)?;
            if !ended {
                return Ok(Outcome::Stopped);
            }
            write_durably(&finished, format!("{leaves}\n").as_bytes()).map_err(at(&finished))?;
            tracing::info!(leaves = leaves.0, "the round has ended");
            leaves
        };
        progress.leaves.store(leaves.0, Ordering::Relaxed);
        let started = Instant::now();
        let nodes = Mended::new(&log, &statement, shape);
        let tree = Tree { statement: &statement, shape, leaves, nodes: &nodes };
        let proof = match tree.prove(PROVEN_LEAVES, self.threads, stop) {
            Err(ProveError::Stopped) => return Ok(Outcome::Stopped),
            proof => proof?,
        };
        proof::verify(&statement, &proof)?;
        tracing::info!(leaves = leaves.0, seconds = started.elapsed().as_secs_f64(), "made the proof of the round");
        Ok(Outcome::Finished(Box::new(proof)))
    }

    /// Grows the tree; returns its leaves and whether the round has ended (else it was told to stop).
    fn grow(
        &self,
        mut tree: Grower,
        shape: Shape,
        log: &mut NodeLog,
        now: &impl Fn() -> Time,
        stop: &AtomicBool,
        progress: &Progress,
    ) -> Result<(Leaves, bool), WorkError> {
        let (sender, receiver) = sync_channel(64);
        thread::scope(|scope| {
            let writer = thread::Builder::new()
                .name("poet-writer".into())
                .spawn_scoped(scope, move || write(log, &receiver))
                .map_err(WorkError::Thread)?;
            // the writer, and later the makers of the proof, stay where they like
            let everywhere = self.cpu.and_then(pin_to);
            self.tell_thread();
            let ended = hash(&mut tree, shape, self.end, now, stop, progress, &sender);
            if let Some(everywhere) = everywhere {
                set_processors(&everywhere);
            }
            drop(sender);
            // a writer that failed was logged then; what it did not write is computed again from what it did
            if writer.join().is_err() {
                tracing::error!("the thread that writes the tree's nodes failed");
            }
            Ok((tree.leaves(), ended))
        })
    }
}

impl Job {
    fn tell_thread(&self) {
        if let Some(path) = &self.tid_file
            && let Err(error) = fs::write(path, format!("{}\n", rustix::thread::gettid().as_raw_nonzero()))
        {
            tracing::warn!(path = %path.display(), %error, "failed to tell the number of the hashing thread");
        }
    }
}

/// The hot loop: `true` when the round has ended, `false` when told to stop.
fn hash(
    tree: &mut Grower,
    shape: Shape,
    end: Time,
    now: &impl Fn() -> Time,
    stop: &AtomicBool,
    progress: &Progress,
    writer: &SyncSender<Vec<Node>>,
) -> bool {
    let mut pending = Vec::with_capacity(1024);
    let mut rate = Rate::new(tree);
    loop {
        let leaves = tree.leaves().0;
        if leaves.is_multiple_of(LEAVES_PER_LOOK) {
            progress.leaves.store(leaves, Ordering::Relaxed);
            rate.look(leaves, progress);
            let ended = now() >= end && leaves >= PROVEN_LEAVES as u64;
            // the unit in progress is not worth a file of its own
            if ended || stop.load(Ordering::Relaxed) {
                // the receiver lives until this sender is gone
                let _ = writer.send(std::mem::take(&mut pending));
                return ended;
            }
        }
        tree.grow(|level, node| {
            if level >= shape.lowest() {
                pending.push(*node);
            }
        });
        if !pending.is_empty() && tree.leaves().0.is_multiple_of(shape.unit().max(LEAVES_PER_LOOK)) {
            pending = hand_over(pending, writer);
        }
    }
}

/// Gives nodes to the writer without waiting, unless far too many are held back already.
fn hand_over(nodes: Vec<Node>, writer: &SyncSender<Vec<Node>>) -> Vec<Node> {
    let returned = if nodes.len() < MAX_HELD_BACK {
        writer.try_send(nodes)
    } else {
        tracing::error!("the disk does not take the tree's nodes: hashing waits for it");
        writer.send(nodes).map_err(|error| TrySendError::Disconnected(error.0))
    };
    match returned {
        Ok(()) => Vec::with_capacity(64),
        Err(TrySendError::Full(nodes) | TrySendError::Disconnected(nodes)) => nodes,
    }
}

/// Writes what comes until the hashing thread is done. A disk that is full or broken is tried again and again: hashing goes on
/// meanwhile.
fn write(log: &mut NodeLog, nodes: &Receiver<Vec<Node>>) {
    let mut synced = Instant::now();
    let mut unwritten: Vec<Node> = Vec::new();
    loop {
        let done = match nodes.recv_timeout(FLUSH_EVERY) {
            Ok(more) => {
                unwritten.extend(more);
                false
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => true,
        };
        let before = log.len();
        let mut outcome = log.append(&unwritten);
        unwritten.drain(..((log.len() - before) as usize).min(unwritten.len()));
        if outcome.is_ok() && (done || synced.elapsed() >= SYNC_EVERY) {
            tracing::debug!("syncing the tree's nodes");
            outcome = log.sync();
            synced = Instant::now();
        }
        if let Err(error) = outcome {
            tracing::error!(%error, held_back = unwritten.len(), "failed to write the tree's nodes");
            thread::sleep(FLUSH_EVERY);
        }
        if done {
            return;
        }
    }
}

/// Measures the rate once a second.
struct Rate {
    backend: Backend,
    since: Instant,
    cpu_since: Duration,
    leaves: u64,
}

/// Compressions that tell how fast the chain alone would be at this moment: 70 microseconds.
const SAMPLE: u32 = 2000;

impl Rate {
    fn new(tree: &Grower) -> Self {
        Self { backend: tree.statement().backend(), since: Instant::now(), cpu_since: cpu_time(), leaves: tree.leaves().0 }
    }

    fn look(&mut self, leaves: u64, progress: &Progress) {
        let wall = self.since.elapsed().as_secs_f64();
        if wall < 1.0 {
            return;
        }
        let cpu = cpu_time().saturating_sub(self.cpu_since).as_secs_f64();
        let made = leaves.saturating_sub(self.leaves) as f64;
        let sample = Instant::now();
        std::hint::black_box(self.backend.iterate(&[1; 32], SAMPLE));
        let bound = f64::from(SAMPLE) / sample.elapsed().as_secs_f64().max(1e-9);
        progress.rate.store((made / wall) as u64, Ordering::Relaxed);
        progress.rate_on_cpu.store((made / cpu.max(1e-9)) as u64, Ordering::Relaxed);
        progress.on_cpu.store((1000.0 * cpu / wall) as u64, Ordering::Relaxed);
        let share = made * compressions_per_leaf(leaves) / wall / bound;
        progress.share_of_bound.store((1000.0 * share) as u64, Ordering::Relaxed);
        *self = Self { since: Instant::now(), cpu_since: cpu_time(), leaves, ..*self };
    }
}

/// Mean compressions of a leaf in a tree of this many leaves (poet.md section 10).
fn compressions_per_leaf(leaves: u64) -> f64 {
    let height = f64::from(leaves.max(2).ilog2()) + 1.0;
    399.0 + height / 4.0 + 1.25 + 2.0
}

/// Processor time of this thread.
pub fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Keeps this thread on one processor; returns those it had before.
fn pin_to(cpu: usize) -> Option<CpuSet> {
    let before = sched_getaffinity(None).ok()?;
    let mut set = CpuSet::new();
    if cpu < CpuSet::MAX_CPU {
        set.set(cpu);
    }
    set_processors(&set);
    Some(before)
}

fn set_processors(set: &CpuSet) {
    if let Err(error) = sched_setaffinity(None, set) {
        tracing::warn!(%error, "failed to set the processors of the hashing thread");
    }
}

fn read_finished(path: &Path) -> io::Result<Option<Leaves>> {
    match fs::read_to_string(path) {
        // a damaged marker is no marker: the tree then ends where its nodes end
        Ok(text) => Ok(text.trim().parse().ok().map(Leaves)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a small file so that after a crash there is the old one or the new one: temporary file, sync, rename, sync.
pub fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn job(folder: &Path, lowest_level: u32) -> Job {
        Job {
            statement: vec![5; 32],
            end: Time(1000),
            folder: folder.into(),
            lowest_level,
            threads: 2,
            cpu: None,
            tid_file: None,
        }
    }

    /// A clock that ends the round after so many looks.
    fn clock(looks: i128) -> impl Fn() -> Time {
        let left = std::cell::Cell::new(looks);
        move || {
            left.set(left.get() - 1);
            Time(if left.get() <= 0 { 1000 } else { 0 })
        }
    }

    fn finish(job: &Job, looks: i128) -> PoetProof {
        match job.run(clock(looks), &AtomicBool::new(false), &Progress::default()).unwrap() {
            Outcome::Finished(proof) => *proof,
            Outcome::Stopped => panic!("nobody stopped it"),
        }
    }

    #[test]
    fn a_round_that_is_over_already_still_gets_its_150_leaves() {
        let dir = tempfile::tempdir().unwrap();
        let proof = finish(&job(dir.path(), 4), 0);
        assert!((150..300).contains(&proof.leaf_count.0), "{}", proof.leaf_count);
        // and the same proof again while nobody removed the folder
        assert_eq!(finish(&job(dir.path(), 4), 0), proof);
    }

    #[test]
    fn a_stopped_round_continues_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let job = job(dir.path(), 6);
        let stop = Arc::new(AtomicBool::new(false));
        let stopper = stop.clone();
        let progress = Progress::default();
        let looks = std::cell::Cell::new(0);
        let outcome = job.run(
            || {
                looks.set(looks.get() + 1);
                stopper.store(looks.get() > 100, Ordering::Relaxed);
                Time(0)
            },
            &stop,
            &progress,
        );
        assert!(matches!(outcome, Ok(Outcome::Stopped)));
        let reached = progress.leaves.load(Ordering::Relaxed);
        assert!(reached > 64);
        let proof = finish(&job, 1);
        assert!(proof.leaf_count.0 >= reached, "{} after {reached}", proof.leaf_count);
        assert_eq!(proof::verify(&Statement::new(&job.statement), &proof), Ok(()));
    }

    /// The finished round's file is cut, flipped or gone before the proof is made: never a wrong proof.
    #[test]
    fn damage_to_the_file_never_makes_a_wrong_proof() {
        let dir = tempfile::tempdir().unwrap();
        let job = job(dir.path(), 3);
        let whole = finish(&job, 60);
        let path = dir.path().join("nodes");
        let bytes = fs::read(&path).unwrap();
        assert!(bytes.len() > 3 * 4096);
        let statement = Statement::new(&job.statement);
        for case in 0..24 {
            let mut damaged = bytes.clone();
            match case % 3 {
                0 => damaged.truncate(bytes.len() * case / 24),
                1 => damaged[bytes.len() * case / 24] ^= 0x10,
                _ => damaged[4096 * (case / 12)..][..4096].fill(0),
            }
            fs::write(&path, damaged).unwrap();
            let proof = finish(&job, 60);
            assert_eq!(proof::verify(&statement, &proof), Ok(()), "case {case}");
            if case % 3 == 1 && case < 20 {
                // a flipped bit before the end is mended: nothing is lost
                assert_eq!(proof, whole, "case {case}");
            }
            fs::write(&path, &bytes).unwrap();
            fs::write(dir.path().join("finished"), format!("{}\n", whole.leaf_count)).unwrap();
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(proof::verify(&statement, &finish(&job, 60)), Ok(()));
        fs::write(&path, bytes).unwrap();
        fs::write(dir.path().join("finished"), [0xff, 0xfe]).unwrap();
        assert_eq!(proof::verify(&statement, &finish(&job, 1)), Ok(()));
    }
}
