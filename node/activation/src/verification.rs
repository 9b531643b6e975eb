//! Workers that verify proofs of space and compute labels (activation.md section 7.7).
//!
//! Callers put jobs into one of two bounded queues and wait while theirs is full; the prioritised one is emptied first. Jobs that
//! wait together are verified together, so that their labels are computed side by side. RandomX and the memory for labels are
//! there only while there is something to verify. While an identity of this node proves space, fewer workers are at work.

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    num::NonZeroUsize,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use kernels::{
    label::{DeviceError, FullLabel},
    pow::{BuildOptions, Mode as PowMode, Shared},
};
use post_prover::verify::{Claim, Invalid, Labeler, Mode, Request, Verdict, Verifier, VerifyError};
use proto::{
    ids::{AtxId, Challenge, Commitment, NodeId},
    post::{Params, Proof, commitment},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use crate::validate::{Checked, PostClaim, PostError, Proofs};

/// Jobs verified together. A k2pow takes ten times as long as a label in light mode: more jobs would only wait for each other.
const TOGETHER_LIGHT: usize = 4;
/// With a dataset a label takes as long as a k2pow, and as many labels as fit into the registers are computed at once.
const TOGETHER_FAST: usize = 16;
/// Labels that are enough for one batch.
const LABELS_TOGETHER: usize = 64;

/// How proofs are verified.
#[derive(Debug, Clone)]
pub struct Config {
    /// What the network demands.
    pub params: Params,
    /// Decides which K3 labels this node checks: the bytes of its peer id (section 7.2).
    pub seed: Vec<u8>,
    /// Threads.
    pub workers: NonZeroUsize,
    /// Threads while an own identity is proving.
    pub min_workers: NonZeroUsize,
    /// 256 MiB for some 40 k2pows per second and core, or 2080 MiB for some hundreds.
    pub pow: PowMode,
    /// Memory that nobody has used for so long is given back.
    pub idle: Duration,
    /// Takes every proof for valid: for private networks only.
    pub disabled: bool,
}

impl Config {
    /// The deployed defaults: half the processors, one while proving, light mode.
    pub fn new(params: Params, seed: Vec<u8>) -> Self {
        let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            params,
            seed,
            workers: NonZeroUsize::new(processors / 2).unwrap_or(NonZeroUsize::MIN),
            min_workers: NonZeroUsize::MIN,
            pow: PowMode::Light,
            idle: Duration::from_secs(60),
            disabled: false,
        }
    }

    const fn together(&self) -> usize {
        match self.pow {
            PowMode::Light => TOGETHER_LIGHT,
            PowMode::Fast => TOGETHER_FAST,
        }
    }
}

/// Which queue a job waits in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Other people's activations.
    Normal,
    /// What this node's own smeshing waits for: chains of activations that it may stand on. Proofs of own identities are
    /// prioritised whatever their callers say.
    High,
}

/// What the workers have done and are doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Proofs found valid.
    pub valid: u64,
    /// Proofs found invalid.
    pub invalid: u64,
    /// Jobs that failed, which says nothing about the proofs.
    pub failed: u64,
    /// Single labels computed.
    pub labels: u64,
    /// How often workers took jobs; several at a time if several were waiting.
    pub batches: u64,
    /// Jobs waiting.
    pub waiting: usize,
    /// Of these the prioritised ones.
    pub waiting_prioritised: usize,
    /// Workers that may work now.
    pub workers: usize,
    /// Whether the memory of RandomX is held.
    pub randomx: bool,
}

#[derive(Debug, Default)]
struct Counters {
    valid: AtomicU64,
    invalid: AtomicU64,
    failed: AtomicU64,
    labels: AtomicU64,
    batches: AtomicU64,
}

/// What a job asks for, and who waits for the answer.
#[derive(Debug)]
enum Task {
    Proof { proof: Proof, claim: Claim, mode: Mode, answer: oneshot::Sender<Result<(), PostError>> },
    Label { commitment: Commitment, index: u64, answer: oneshot::Sender<Result<FullLabel, PostError>> },
}

impl Task {
    fn is_abandoned(&self) -> bool {
        match self {
            Self::Proof { answer, .. } => answer.is_closed(),
            Self::Label { answer, .. } => answer.is_closed(),
        }
    }

    fn labels(&self, params: &Params) -> usize {
        match self {
            Self::Proof { mode: Mode::All, .. } => params.k2 as usize,
            Self::Proof { mode: Mode::Subset { k3, .. }, .. } => (*k3).min(params.k2) as usize,
            Self::Proof { mode: Mode::One(_), .. } | Self::Label { .. } => 1,
        }
    }
}

#[derive(Debug)]
struct Queues {
    /// Each job keeps its place until a worker takes it.
    normal: VecDeque<(Task, OwnedSemaphorePermit)>,
    high: VecDeque<(Task, OwnedSemaphorePermit)>,
    /// Workers that may take jobs.
    active: usize,
}

/// What all workers share.
#[derive(Debug)]
struct Pool {
    config: Config,
    randomx: Shared,
    queues: Mutex<Queues>,
    changed: Condvar,
    normal_places: Arc<Semaphore>,
    high_places: Arc<Semaphore>,
    own: Mutex<BTreeSet<NodeId>>,
    stop: AtomicBool,
    counters: Counters,
}

/// What a worker needs; it is made when needed.
#[derive(Debug, Default)]
struct Tools {
    verifier: Option<Verifier>,
    /// Goes over into the verifier once there is one.
    labeler: Option<Labeler>,
}

impl Tools {
    fn labeler(&mut self) -> &mut Labeler {
        match &mut self.verifier {
            Some(verifier) => verifier.labeler(),
            None => self.labeler.get_or_insert_default(),
        }
    }

    /// Waits while somebody builds the memory of RandomX.
    fn verifier(&mut self, randomx: &Shared, stop: &AtomicBool) -> Result<&mut Verifier, VerifyError> {
        match &mut self.verifier {
            Some(verifier) => Ok(verifier),
            none => {
                let labeler = self.labeler.take().unwrap_or_default();
                Ok(none.insert(Verifier::with(&randomx.get(stop)?, labeler)?))
            }
        }
    }
}

/// The workers. Clones are the same workers; when the last one is dropped, they end.
#[derive(Debug, Clone)]
pub struct Verifiers(Arc<Owner>);

#[derive(Debug)]
struct Owner {
    pool: Arc<Pool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.pool.stop();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is whole at every moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn stopped() -> PostError {
    PostError::Unavailable("the workers have ended".into())
}

impl Verifiers {
    /// Starts the workers; fails if the system gives no threads.
    pub fn start(config: Config) -> io::Result<Self> {
        let workers = config.workers.get();
        let places = || Arc::new(Semaphore::new((workers * config.together()).min(Semaphore::MAX_PERMITS)));
        let pool = Arc::new(Pool {
            randomx: Shared::new(BuildOptions { mode: config.pow, large_pages: false, threads: workers }),
            queues: Mutex::new(Queues { normal: VecDeque::new(), high: VecDeque::new(), active: workers }),
            changed: Condvar::new(),
            normal_places: places(),
            high_places: places(),
            own: Mutex::default(),
            stop: AtomicBool::new(false),
            counters: Counters::default(),
            config,
        });
        // If a thread cannot be started, those before it end with this.
        let verifiers = Self(Arc::new(Owner { pool: Arc::clone(&pool), threads: Mutex::default() }));
        for number in 0..workers {
            let pool = Arc::clone(&pool);
            let thread = thread::Builder::new().name(format!("verify-{number}")).spawn(move || pool.work(number))?;
            locked(&verifiers.0.threads).push(thread);
        }
        Ok(verifiers)
    }

    /// Ends the workers, within a second; everybody who waits is told so. Blocks until they have ended.
    pub fn stop(&self) {
        self.0.pool.stop();
        for thread in locked(&self.0.threads).drain(..) {
            // A worker that panicked has ended too.
            let _ = thread.join();
        }
    }

    /// From now on the proofs of this identity are prioritised.
    pub fn add_own(&self, id: NodeId) {
        locked(&self.0.pool.own).insert(id);
    }

    /// Lets fewer workers work while `proving` counts more than zero identities (section 7.7), until its sender is gone.
    pub async fn shrink_while(self, mut proving: watch::Receiver<usize>) {
        loop {
            let shrunk = *proving.borrow_and_update() > 0;
            self.shrink(shrunk);
            if proving.changed().await.is_err() {
                return;
            }
        }
    }

    fn shrink(&self, shrunk: bool) {
        let pool = &self.0.pool;
        let all = pool.config.workers.get();
        locked(&pool.queues).active = if shrunk { pool.config.min_workers.get().min(all) } else { all };
        pool.changed.notify_all();
    }

    /// Verifies a proof; where some labels are enough, with those K3 that this node picks.
    pub async fn verify(&self, claim: &PostClaim<'_>, priority: Priority) -> Result<(), PostError> {
        let config = &self.0.pool.config;
        let mode = match claim.labels {
            Checked::All => Mode::All,
            Checked::Some => Mode::Subset { k3: config.params.k3, seed: config.seed.clone() },
            Checked::One(index) => Mode::One(index),
        };
        if config.disabled {
            return Ok(());
        }
        let (answer, answered) = oneshot::channel();
        let proof = claim.proof.clone();
        let id = claim.id;
        let claim = Claim {
            node_id: id,
            commitment_atx_id: claim.commitment,
            challenge: Challenge(claim.challenge),
            num_units: claim.units,
        };
        self.submit(Task::Proof { proof, claim, mode, answer }, &id, priority).await?;
        answered.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// The full label of an identity, all 32 bytes. Computed also where proofs are not verified.
    pub async fn label(
        &self,
        id: &NodeId,
        commitment_atx: &AtxId,
        index: u64,
        priority: Priority,
    ) -> Result<FullLabel, PostError> {
        let (answer, answered) = oneshot::channel();
        self.submit(Task::Label { commitment: commitment(id, commitment_atx), index, answer }, id, priority).await?;
        answered.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Waits for a place in the queue. Whoever stops waiting leaves nothing behind.
    async fn submit(&self, task: Task, id: &NodeId, priority: Priority) -> Result<(), PostError> {
        let pool = &self.0.pool;
        let high = priority == Priority::High || locked(&pool.own).contains(id);
        let places = if high { &pool.high_places } else { &pool.normal_places };
        let place = Arc::clone(places).acquire_owned().await.map_err(|_| stopped())?;
        let mut queues = locked(&pool.queues);
        // Under the lock: after the stop nobody empties the queues any more.
        if pool.stop.load(Ordering::Relaxed) {
            return Err(stopped());
        }
        let queue = if high { &mut queues.high } else { &mut queues.normal };
        queue.push_back((task, place));
        drop(queues);
        pool.changed.notify_all();
        Ok(())
    }

    /// The same workers for blocking callers, whose jobs have this priority.
    pub fn at(&self, priority: Priority) -> Prioritised {
        Prioritised { verifiers: self.clone(), priority }
    }

    /// What the workers have done and are doing.
    pub fn figures(&self) -> Figures {
        let pool = &self.0.pool;
        let (waiting, waiting_prioritised, workers) = {
            let queues = locked(&pool.queues);
            (queues.normal.len() + queues.high.len(), queues.high.len(), queues.active)
        };
        let Counters { valid, invalid, failed, labels, batches } = &pool.counters;
        let [valid, invalid, failed, labels, batches] =
            [valid, invalid, failed, labels, batches].map(|counter| counter.load(Ordering::Relaxed));
        let randomx = pool.randomx.is_built();
        Figures { valid, invalid, failed, labels, batches, waiting, waiting_prioritised, workers, randomx }
    }
}

/// [`Verifiers`] for callers that block, with the priority of their jobs. Not for threads of an asynchronous runtime: they must
/// not wait.
#[derive(Debug, Clone)]
pub struct Prioritised {
    verifiers: Verifiers,
    priority: Priority,
}

impl Proofs for Prioritised {
    fn post(&self, claim: &PostClaim<'_>) -> Result<(), PostError> {
        pollster::block_on(self.verifiers.verify(claim, self.priority))
    }

    fn label(&self, id: &NodeId, commitment: &AtxId, index: u64) -> Result<[u8; 32], PostError> {
        pollster::block_on(self.verifiers.label(id, commitment, index, self.priority))
    }
}

/// As [`Prioritised`] with [`Priority::Normal`].
impl Proofs for Verifiers {
    fn post(&self, claim: &PostClaim<'_>) -> Result<(), PostError> {
        self.at(Priority::Normal).post(claim)
    }

    fn label(&self, id: &NodeId, commitment: &AtxId, index: u64) -> Result<[u8; 32], PostError> {
        Proofs::label(&self.at(Priority::Normal), id, commitment, index)
    }
}

impl Pool {
    fn stop(&self) {
        let mut queues = locked(&self.queues);
        self.stop.store(true, Ordering::Relaxed);
        queues.normal.clear();
        queues.high.clear();
        drop(queues);
        self.normal_places.close();
        self.high_places.close();
        self.changed.notify_all();
    }

    /// The life of a worker.
    fn work(&self, number: usize) {
        let mut tools = Tools::default();
        let mut last_work = None;
        while let Some(tasks) = self.next(number, &mut tools, &mut last_work) {
            self.counters.batches.fetch_add(1, Ordering::Relaxed);
            self.run(tasks, &mut tools);
            last_work = Some(Instant::now());
        }
    }

    /// The jobs to do next; none when it is time to end. Gives memory back while waiting.
    fn next(&self, number: usize, tools: &mut Tools, last_work: &mut Option<Instant>) -> Option<Vec<Task>> {
        let mut queues = locked(&self.queues);
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            if number < queues.active {
                let tasks = self.take(&mut queues);
                if !tasks.is_empty() {
                    return Some(tasks);
                }
            }
            queues = match *last_work {
                None => self.changed.wait(queues).unwrap_or_else(PoisonError::into_inner),
                Some(at) if at.elapsed() < self.config.idle => {
                    let rest = self.config.idle.saturating_sub(at.elapsed());
                    self.changed.wait_timeout(queues, rest).unwrap_or_else(PoisonError::into_inner).0
                }
                Some(_) => {
                    drop(queues);
                    *last_work = None;
                    *tools = Tools::default();
                    // The last worker that lets go of it is the one that frees it.
                    if self.randomx.free_idle(self.config.idle) {
                        tracing::debug!("memory of RandomX given back");
                    }
                    locked(&self.queues)
                }
            };
        }
    }

    /// This worker's share of what waits, prioritised jobs first.
    fn take(&self, queues: &mut Queues) -> Vec<Task> {
        let share = (queues.normal.len() + queues.high.len()).div_ceil(queues.active.max(1)).min(self.config.together());
        let mut tasks = Vec::new();
        let mut labels = 0;
        while tasks.len() < share && labels < LABELS_TOGETHER {
            let Some((task, _place)) = queues.high.pop_front().or_else(|| queues.normal.pop_front()) else { break };
            // Whoever asked may have gone.
            if !task.is_abandoned() {
                labels += task.labels(&self.config.params);
                tasks.push(task);
            }
        }
        tasks
    }

    /// Does jobs and answers them.
    fn run(&self, tasks: Vec<Task>, tools: &mut Tools) {
        let (mut proofs, mut single, mut single_answers) = (Vec::new(), Vec::new(), Vec::new());
        for task in tasks {
            match task {
                Task::Proof { proof, claim, mode, answer } => proofs.push((proof, claim, mode, answer)),
                Task::Label { commitment, index, answer } => {
                    single.push((commitment, index));
                    single_answers.push(answer);
                }
            }
        }
        if !single.is_empty() {
            let labels = self.labels(&single, tools);
            for (place, answer) in single_answers.into_iter().enumerate() {
                let label = labels.as_ref().map(|labels| labels[place]).map_err(|e| PostError::Unavailable(e.to_string()));
                count(if label.is_ok() { &self.counters.labels } else { &self.counters.failed });
                // Nobody waits for it any more: nothing to do.
                let _ = answer.send(label);
            }
        }
        if !proofs.is_empty() {
            let requests: Vec<Request<'_>> = proofs
                .iter()
                .map(|(proof, claim, mode, _)| Request { proof, claim, params: &self.config.params, mode })
                .collect();
            let verdicts = self.verify(&requests, tools);
            for (place, (.., answer)) in proofs.into_iter().enumerate() {
                let verdict = match &verdicts {
                    Ok(verdicts) => verdicts[place].clone().map_err(|invalid| post_error(&invalid)),
                    Err(why) => Err(PostError::Unavailable(why.to_string())),
                };
                count(match &verdict {
                    Ok(()) => &self.counters.valid,
                    Err(PostError::Unavailable(_)) => &self.counters.failed,
                    Err(_) => &self.counters.invalid,
                });
                let _ = answer.send(verdict);
            }
        }
    }

    fn verify(&self, requests: &[Request<'_>], tools: &mut Tools) -> Result<Vec<Verdict>, VerifyError> {
        tools.verifier(&self.randomx, &self.stop)?.verify_all_unless(&self.stop, requests)
    }

    fn labels(&self, jobs: &[(Commitment, u64)], tools: &mut Tools) -> Result<Vec<FullLabel>, DeviceError> {
        tools.labeler().full_labels(self.config.params.scrypt_n, jobs)
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Labels that are not good are what convicts an identity (post.md section 13); everything else is only refused.
fn post_error(invalid: &Invalid) -> PostError {
    match invalid {
        Invalid::Msb { index_id, .. } | Invalid::Lsb { index_id, .. } => PostError::Index(*index_id),
        other => PostError::Invalid(other.to_string()),
    }
}
