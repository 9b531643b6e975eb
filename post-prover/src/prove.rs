//! Making a proof (`docs/spec/post.md` section 12): passes over the data until a nonce has K2 good labels.
//!
//! A pass first finds the k2pow of its nonce groups, then a few threads per disk read the data in blocks, in turns, and others scan
//! them. All disks are read at the same time.
//! What the scans find is put in the order of the data again before it counts, so the same proof comes out whatever the number
//! of threads: the one of the deployed prover on a single thread. Pows found, position and good labels are kept in a
//! [`StateFile`]; a run that was ended at any point goes on from there.

use std::{
    error::Error,
    num::NonZeroU32,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};

use kernels::{
    pow::{PowError, Puzzle, Shared, search},
    scan::{Backend, Difficulty, DifficultyError, GroupPow, MAX_GROUP, NONCES_PER_GROUP, Scanner},
};
use proto::{
    ids::Challenge,
    post::{Params, Proof, index_bits, pack_indices},
};

use crate::{
    data::{DataError, DataSet},
    read::{Block, LANES, Lane, POLL, Pool, Source, stream},
    state::{Pass, StateFile, Stretch},
};

/// How often the position is put on disk: what a killed run has to read again at most.
const SAVE_EVERY: Duration = Duration::from_secs(10);

/// Nonces to try per pass: a multiple of 16, from 16 to 4096 (post.md section 12.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nonces(u32);

/// Not a number of nonces a pass can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the number of nonces must be a multiple of 16 from 16 to 4096, got {0}")]
pub struct InvalidNonces(pub u32);

impl Nonces {
    /// Checks the number.
    pub fn new(nonces: u32) -> Result<Self, InvalidNonces> {
        let ok = nonces.is_multiple_of(NONCES_PER_GROUP) && (1..=MAX_GROUP + 1).contains(&(nonces / NONCES_PER_GROUP));
        if ok { Ok(Self(nonces)) } else { Err(InvalidNonces(nonces)) }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }

    const fn groups(self) -> u32 {
        self.0 / NONCES_PER_GROUP
    }
}

impl std::str::FromStr for Nonces {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text.parse().map_err(|e| format!("not a number: {e}"))?).map_err(|e| e.to_string())
    }
}

/// How a proof is made.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Nonces per pass.
    pub nonces: Nonces,
    /// Threads that scan; reading has its own.
    pub threads: usize,
    /// Instruction set of the scan.
    pub backend: Backend,
}

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// The data cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The parameters and the size of the data do not go together.
    #[error("no difficulty for this data: {0}")]
    Difficulty(#[from] DifficultyError),
    /// No k2pow was found.
    #[error("failed to find a k2pow: {0}")]
    Pow(#[source] Box<dyn Error + Send + Sync>),
    /// None of the 4096 nonces has enough good labels.
    #[error("none of the {} nonces has {k2} good labels", (MAX_GROUP + 1) * NONCES_PER_GROUP)]
    Exhausted {
        /// Good labels needed.
        k2: u32,
    },
    /// Asked to stop. What was done is kept.
    #[error("stopped")]
    Stopped,
}

/// Where k2pows come from.
pub trait PowSource: Sync {
    /// Solves all puzzles, in any order, and reports each solution as soon as it is found; ends early with
    /// [`PowSourceError::Stopped`] within a second of being told.
    fn solve(&self, puzzles: &[Puzzle], client: &mut PowClient<'_>) -> Result<(), PowSourceError>;
}

/// Who wants puzzles to be solved.
pub struct PowClient<'a> {
    /// Takes the solutions.
    pub found: &'a mut dyn FnMut(GroupPow),
    /// Tells when to stop.
    pub stop: &'a AtomicBool,
    /// Counts the hashes computed on this machine.
    pub hashes: &'a AtomicU64,
}

impl std::fmt::Debug for PowClient<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PowClient").field("stop", self.stop).field("hashes", self.hashes).finish_non_exhaustive()
    }
}

/// Why puzzles were not solved.
#[derive(Debug, thiserror::Error)]
pub enum PowSourceError {
    /// Asked to stop.
    #[error("stopped")]
    Stopped,
    /// Anything else.
    #[error(transparent)]
    Failed(Box<dyn Error + Send + Sync>),
}

impl From<PowError> for PowSourceError {
    fn from(error: PowError) -> Self {
        match error {
            PowError::Stopped => Self::Stopped,
            other => Self::Failed(Box::new(other)),
        }
    }
}

/// k2pow on this machine.
#[derive(Debug)]
pub struct LocalPow<'a> {
    /// The memory of RandomX.
    pub randomx: &'a Shared,
    /// Threads that search.
    pub threads: usize,
}

impl PowSource for LocalPow<'_> {
    fn solve(&self, puzzles: &[Puzzle], client: &mut PowClient<'_>) -> Result<(), PowSourceError> {
        if puzzles.is_empty() {
            return Ok(());
        }
        let randomx = self.randomx.get(client.stop)?;
        for puzzle in puzzles {
            let pow = search(&randomx, puzzle, self.threads, client.stop, client.hashes)?;
            (client.found)(GroupPow { group: puzzle.group, pow });
        }
        Ok(())
    }
}

/// The two parts of a pass, which compete for different things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Finding k2pows: all cores.
    Pow,
    /// Reading: a disk.
    Reading,
}

/// Lets a run wait for its turn before a part of its work.
pub trait Gate: Sync {
    /// Waits until the stage may begin; `false` when it is time to stop instead.
    fn enter(&self, stage: Stage, stop: &AtomicBool) -> bool;

    /// The stage is over.
    fn leave(&self, stage: Stage);
}

/// No waiting.
#[derive(Debug, Clone, Copy)]
pub struct Open;

impl Gate for Open {
    fn enter(&self, _: Stage, _: &AtomicBool) -> bool {
        true
    }

    fn leave(&self, _: Stage) {}
}

/// Where a run is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// What it is doing.
    pub phase: Phase,
    /// First nonce of the pass.
    pub first_nonce: u32,
    /// Nonce after the last one of the pass.
    pub end_nonce: u32,
    /// k2pows found of those the pass needs.
    pub pows_found: u32,
    /// When this run began to search them, and the hashes it had computed then.
    pub pow_since: Option<(Instant, u64)>,
    /// Hashes a k2pow takes on average.
    pub hashes_per_pow: f64,
    /// Bytes of data scanned without a gap; 0 before reading begins.
    pub position: u64,
    /// Bytes of data scanned.
    pub scanned: u64,
    /// When this run began to read, and the bytes that were scanned then.
    pub read_since: Option<(Instant, u64)>,
}

impl Snapshot {
    /// Bytes scanned per second by this run.
    pub fn read_rate(&self) -> Option<f64> {
        let (since, from) = self.read_since?;
        (self.scanned > from).then(|| (self.scanned - from) as f64 / since.elapsed().as_secs_f64())
    }

    /// Time the stage this run is in will take still; unknown before anything of it is done. `hashes` are those computed by now,
    /// `total` is the size of the data.
    pub fn remaining(&self, hashes: u64, total: u64) -> Option<Duration> {
        let seconds = match self.phase {
            Phase::Pow => {
                let (since, from) = self.pow_since.filter(|(_, from)| hashes > *from)?;
                let rate = (hashes - from) as f64 / since.elapsed().as_secs_f64();
                let left = (self.end_nonce - self.first_nonce) / NONCES_PER_GROUP - self.pows_found;
                f64::from(left) * self.hashes_per_pow / rate
            }
            Phase::Reading => total.saturating_sub(self.scanned) as f64 / self.read_rate()?,
            _ => return None,
        };
        Duration::try_from_secs_f64(seconds).ok()
    }
}

/// What a run is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// Not begun.
    #[default]
    Idle,
    /// Waiting for its turn to search k2pows.
    WaitingForPow,
    /// Searching k2pows.
    Pow,
    /// Waiting for its disk.
    WaitingForDisk,
    /// Reading and scanning.
    Reading,
    /// A proof was found.
    Done,
}

impl Phase {
    /// A word for reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::WaitingForPow => "waiting for k2pow",
            Self::Pow => "k2pow",
            Self::WaitingForDisk => "waiting for disk",
            Self::Reading => "reading",
            Self::Done => "done",
        }
    }
}

/// Where a run is, for others to look at.
#[derive(Debug, Default)]
pub struct Progress {
    snapshot: Mutex<Snapshot>,
    /// RandomX hashes computed here.
    pub hashes: AtomicU64,
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, Snapshot> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the run is now.
    pub fn get(&self) -> Snapshot {
        self.lock().clone()
    }
}

/// Everything one run needs.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// The data.
    pub data: &'a DataSet,
    /// What to answer.
    pub challenge: &'a Challenge,
    /// The rules of the network.
    pub params: &'a Params,
    /// How to go about it.
    pub options: Options,
    /// How files are read.
    pub source: &'a dyn Source,
    /// Where k2pows come from.
    pub pow: &'a dyn PowSource,
    /// Whom to ask before each part.
    pub gate: &'a dyn Gate,
    /// Where the run is.
    pub progress: &'a Progress,
    /// Ends the run within a second.
    pub stop: &'a AtomicBool,
}

impl std::fmt::Debug for Job<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("challenge", &self.challenge).field("options", &self.options).finish_non_exhaustive()
    }
}

impl Job<'_> {
    /// Makes the proof, or goes on making it from where `state` stands.
    ///
    /// `warn` is told when the state cannot be kept; the run goes on.
    pub fn run(&self, state: &mut StateFile, warn: &dyn Fn(&std::io::Error)) -> Result<Proof, ProveError> {
        if let Some(proof) = &state.state.proof {
            self.progress.lock().phase = Phase::Done;
            return Ok(proof.clone());
        }
        let num_labels = self.data.layout().num_labels();
        let difficulty = Difficulty::new(self.params.k1, num_labels)?;
        let save = |state: &StateFile| state.save().unwrap_or_else(|e| warn(&e));
        let mut next_group = 0;
        loop {
            let mut pass = match state.state.pass.take() {
                Some(pass) if pass.groups > 0 && pass.first_group + pass.groups <= MAX_GROUP + 1 => pass,
                _ => {
                    let groups = self.options.nonces.groups().min(MAX_GROUP + 1 - next_group);
                    Pass { first_group: next_group, groups, ..Pass::default() }
                }
            };
            next_group = pass.first_group + pass.groups;
            state.state.pass = Some(pass.clone());
            *self.progress.lock() = Snapshot {
                first_nonce: pass.first_group * NONCES_PER_GROUP,
                end_nonce: next_group * NONCES_PER_GROUP,
                ..Snapshot::default()
            };
            let groups = self.pows(&pass, state, &save)?;

            self.progress.lock().phase = Phase::WaitingForDisk;
            let turn = Turn::take(self.gate, Stage::Reading, self.stop)?;
            let scanner = Scanner::with_backend(self.options.backend, self.challenge, &groups, difficulty);
            let winner = self.read(&scanner, &mut pass, state, &save);
            drop(turn);
            if let Some(nonce) = winner? {
                let indices = pass.good.remove(&nonce).unwrap_or_default();
                let pow = groups.iter().find(|g| u32::from(g.group) == nonce / NONCES_PER_GROUP).map_or(0, |g| g.pow);
                let proof = Proof { nonce, indices: pack_indices(&indices, index_bits(num_labels)), pow };
                state.state.pass = None;
                state.state.proof = Some(proof.clone());
                save(state);
                self.progress.lock().phase = Phase::Done;
                return Ok(proof);
            }
            state.state.pass = None;
            if next_group > MAX_GROUP {
                return Err(ProveError::Exhausted { k2: self.params.k2 });
            }
        }
    }

    /// The k2pow of every group of the pass: those known already and the others.
    fn pows(&self, pass: &Pass, state: &mut StateFile, save: &dyn Fn(&StateFile)) -> Result<Vec<GroupPow>, ProveError> {
        // A group is at most 255, as was checked.
        let groups = (pass.first_group..pass.first_group + pass.groups).map(|group| group as u8);
        let units = NonZeroU32::new(self.data.layout().num_units().0).unwrap_or(NonZeroU32::MIN);
        let node_id = self.data.metadata().node_id;
        let missing: Vec<Puzzle> = groups
            .clone()
            .filter(|group| !state.state.pows.contains_key(group))
            .map(|group| Puzzle::new(node_id, self.challenge, group, &self.params.pow_difficulty, units))
            .collect();
        self.progress.lock().pows_found = pass.groups - missing.len() as u32;
        if !missing.is_empty() {
            self.progress.lock().phase = Phase::WaitingForPow;
            let turn = Turn::take(self.gate, Stage::Pow, self.stop)?;
            {
                let mut progress = self.progress.lock();
                progress.phase = Phase::Pow;
                progress.pow_since = Some((Instant::now(), self.progress.hashes.load(Ordering::Relaxed)));
                progress.hashes_per_pow = missing.first().map_or(0.0, Puzzle::expected_hashes);
            }
            let mut found = |one: GroupPow| {
                state.state.pows.insert(one.group, one.pow);
                save(state);
                self.progress.lock().pows_found += 1;
            };
            let mut client = PowClient { found: &mut found, stop: self.stop, hashes: &self.progress.hashes };
            let solved = self.pow.solve(&missing, &mut client);
            drop(turn);
            solved.map_err(|e| match e {
                PowSourceError::Stopped => ProveError::Stopped,
                PowSourceError::Failed(why) => ProveError::Pow(why),
            })?;
        }
        groups
            .map(|group| match state.state.pows.get(&group) {
                Some(&pow) => Ok(GroupPow { group, pow }),
                None => Err(ProveError::Pow(format!("nobody solved the puzzle of nonce group {group}").into())),
            })
            .collect()
    }

    /// Reads the rest of the data; the winning nonce, if any.
    fn read(
        &self,
        scanner: &Scanner,
        pass: &mut Pass,
        state: &mut StateFile,
        save: &dyn Fn(&StateFile),
    ) -> Result<Option<u32>, ProveError> {
        let threads = self.options.threads.max(1);
        let lanes = (0..self.data.disks().len()).flat_map(|disk| (0..LANES).map(move |lane| Lane { disk, lane }));
        let buffers = 2 * threads + 4 * lanes.clone().count();
        let pool = Pool::new(buffers);
        let (block_sender, blocks) = mpsc::sync_channel::<Block>(buffers);
        let (hit_sender, hits) = mpsc::sync_channel(buffers);
        let blocks = Mutex::new(blocks);
        let begun = pass.clone();
        {
            let mut progress = self.progress.lock();
            progress.phase = Phase::Reading;
            (progress.position, progress.scanned) = (begun.position, begun.done());
            progress.read_since = Some((Instant::now(), progress.scanned));
        }
        // set when the rest of the data is no longer of interest
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let readers: Vec<_> = lanes
                .map(|lane| {
                    let (begun, pool, done, sender) = (&begun, &pool, &done, block_sender.clone());
                    scope.spawn(move || {
                        let read = stream(self.data, self.source, lane, begun, pool, &sender, done);
                        if read.is_err() {
                            // there is a hole now, so the rest is of no use
                            done.store(true, Ordering::Relaxed);
                        }
                        read
                    })
                })
                .collect();
            drop(block_sender);
            for _ in 0..threads {
                let (sender, pool, blocks) = (hit_sender.clone(), &pool, &blocks);
                scope.spawn(move || scan_blocks(scanner, blocks, &sender, pool));
            }
            drop(hit_sender);
            let winner = self.collect(&hits, pass, state, save);
            // Whoever still sends finds nobody who takes it.
            done.store(true, Ordering::Relaxed);
            drop(hits);
            let read = readers
                .into_iter()
                .map(|reader| reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .fold(Ok(()), Result::and);
            match (winner?, read) {
                (Some(nonce), _) => Ok(Some(nonce)),
                (None, read) => read.map(|()| None).map_err(ProveError::Data),
            }
        })
    }

    /// Takes what the scans found in the order of the data, until a nonce wins or there is nothing more.
    fn collect(
        &self,
        hits: &Receiver<Scanned>,
        pass: &mut Pass,
        state: &mut StateFile,
        save: &dyn Fn(&StateFile),
    ) -> Result<Option<u32>, ProveError> {
        let mut saved = Instant::now();
        let keep = |pass: &Pass, state: &mut StateFile| {
            state.state.pass = Some(pass.clone());
            save(state);
        };
        loop {
            if self.stop.load(Ordering::Relaxed) {
                keep(pass, state);
                return Err(ProveError::Stopped);
            }
            match hits.recv_timeout(POLL) {
                Ok(Scanned { start, stretch }) => {
                    self.progress.lock().scanned += stretch.end - start;
                    pass.put(start, stretch);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    keep(pass, state);
                    return Ok(None);
                }
            }
            for (nonce, index) in pass.advance() {
                let good = pass.good.entry(nonce).or_default();
                good.push(index);
                if good.len() as u64 == u64::from(self.params.k2) {
                    return Ok(Some(nonce));
                }
            }
            self.progress.lock().position = pass.position;
            if saved.elapsed() >= SAVE_EVERY {
                keep(pass, state);
                saved = Instant::now();
            }
        }
    }
}

/// A turn at a gate; given back when dropped.
pub(crate) struct Turn<'a> {
    gate: &'a dyn Gate,
    stage: Stage,
}

impl<'a> Turn<'a> {
    /// Waits for it.
    pub(crate) fn take(gate: &'a dyn Gate, stage: Stage, stop: &AtomicBool) -> Result<Self, ProveError> {
        if gate.enter(stage, stop) { Ok(Self { gate, stage }) } else { Err(ProveError::Stopped) }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.gate.leave(self.stage);
    }
}

struct Scanned {
    start: u64,
    stretch: Stretch,
}

/// Scans blocks until there are no more or nobody wants to know.
fn scan_blocks(scanner: &Scanner, blocks: &Mutex<Receiver<Block>>, sender: &SyncSender<Scanned>, pool: &Pool) {
    loop {
        let next = blocks.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(block) = next else { return };
        let mut hits = Vec::new();
        scanner.scan(&block.labels, block.first_index, &mut hits);
        let hits = hits.iter().map(|hit| (hit.nonce, hit.index)).collect();
        let stretch = Stretch { end: block.start + block.labels.len() as u64, hits };
        pool.put(block.labels);
        let gone = sender.send(Scanned { start: block.start, stretch }).is_err();
        if gone {
            return;
        }
    }
}
