//! Keeps one hashing thread busy with the rounds that somebody names.
//!
//! [`Rounds`] is the somebody: the part of the server that takes registrations, in this process or behind a network
//! ([`crate::link`]). A runner works for it on one round at a time. What it needs to go on it has on its own disk, so it goes on
//! while the other side is away, and hands the proof over when it is back; the work of a round is thrown away only when the
//! other side says that the proof is stored.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use kernels::posw::Node;
use proto::poet::PoetProof;

use crate::{
    registry::Run,
    schedule::{RoundId, Time},
    service::now,
    worker::{Job, Outcome, Progress, write_durably},
};

/// How long a round, or a delivery, rests after it failed.
const RETRY: Duration = Duration::from_secs(5);

/// How often the runner says how far it is.
const REPORT_EVERY: Duration = Duration::from_secs(2);

/// How often the log says how far the round is, and how often at most that the hashing thread is held up.
const LOG_EVERY: Duration = Duration::from_secs(600);
const WARN_EVERY: Duration = Duration::from_secs(60);

/// How soon a stop is noticed.
const NOTICE: Duration = Duration::from_millis(20);

/// The file in a round's folder that says what to do: enough to go on without asking anybody.
const ORDER: &str = "round";

/// Why the other side cannot help.
#[derive(Debug, thiserror::Error)]
pub enum RoundsError {
    /// It does not answer, or is stopping.
    #[error("the registration side does not answer: {0}")]
    Away(String),
    /// It does not take a proof.
    #[error("the registration side does not take the proof: {0}")]
    Refused(String),
}

/// What to do.
#[derive(Debug, Default)]
pub struct Next {
    /// The round to run now.
    pub run: Option<Run>,
    /// Which of the rounds asked about have their proof.
    pub done: Vec<RoundId>,
}

/// The side that knows the rounds.
pub trait Rounds: Send + Sync {
    /// What to do now, and which of the rounds `held` are done. `running` tells how far a round is.
    fn next(&self, held: &[RoundId], running: Option<(RoundId, &Progress)>) -> Result<Next, RoundsError>;
    /// Hands a proof over; it is stored when this returns. May be repeated.
    fn deliver(&self, round: RoundId, proof: &PoetProof) -> Result<(), RoundsError>;
}

/// What a runner works with.
#[derive(Debug, Clone)]
pub struct Workshop {
    /// One folder per round.
    pub folder: PathBuf,
    /// The lowest level of the tree that is kept.
    pub lowest_level: u32,
    /// Threads for making proofs.
    pub threads: usize,
    /// The processor for the hashing thread.
    pub cpu: Option<usize>,
    /// Where the number of the hashing thread is told.
    pub tid_file: Option<PathBuf>,
    /// How often to ask for work where there is none.
    pub ask_every: Duration,
}

/// Works until `stop` is set; everything is on disk when this returns.
pub fn run(rounds: &dyn Rounds, workshop: &Workshop, progress: &Progress, stop: &AtomicBool) {
    let runner = Runner { rounds, workshop, progress, stop };
    let mut complained = None;
    while !stop.load(Ordering::Relaxed) {
        let held = runner.held();
        let run = match rounds.next(&held, None) {
            Ok(next) => {
                complained = None;
                runner.forget(&next.done);
                next.run
            }
            Err(error) => {
                if every(&mut complained, WARN_EVERY) {
                    tracing::warn!(%error, "nobody says which round to run");
                }
                // what was begun goes on
                held.iter().find_map(|round| runner.order(*round))
            }
        };
        match run {
            Some(run) => runner.work(&run),
            None => runner.rest(if complained.is_some() { RETRY } else { workshop.ask_every }),
        }
    }
}

/// Whether it is time again; remembers when.
fn every(last: &mut Option<Instant>, interval: Duration) -> bool {
    let due = last.is_none_or(|last| last.elapsed() >= interval);
    if due {
        *last = Some(Instant::now());
    }
    due
}

/// Notes what is to be done, for a start at which there is nobody to ask.
fn keep_order(run: &Run, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    write_durably(&folder.join(ORDER), format!("{} {}\n", hex::encode(run.statement), run.end.0).as_bytes())
}

struct Runner<'a> {
    rounds: &'a dyn Rounds,
    workshop: &'a Workshop,
    progress: &'a Progress,
    stop: &'a AtomicBool,
}

impl Runner<'_> {
    fn folder(&self, round: RoundId) -> PathBuf {
        self.workshop.folder.join(round.to_string())
    }

    /// Rounds with work on this disk.
    fn held(&self) -> Vec<RoundId> {
        let entries = fs::read_dir(&self.workshop.folder).into_iter().flatten().flatten();
        let mut held: Vec<RoundId> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        held.sort_unstable();
        held
    }

    fn forget(&self, done: &[RoundId]) {
        for round in done {
            match fs::remove_dir_all(self.folder(*round)) {
                Ok(()) => tracing::info!(%round, "removed the work of a round that has its proof"),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => tracing::warn!(%round, %error, "failed to remove the work of a round"),
            }
        }
    }

    /// What was to be done about a round, from its folder.
    fn order(&self, round: RoundId) -> Option<Run> {
        let text = fs::read_to_string(self.folder(round).join(ORDER)).ok()?;
        let (statement, end) = text.trim().split_once(' ')?;
        let mut node = Node::default();
        hex::decode_to_slice(statement, &mut node).ok()?;
        Some(Run { round, statement: node, members: 0, end: Time(end.parse().ok()?) })
    }

    fn work(&self, run: &Run) {
        let (round, workshop) = (run.round, self.workshop);
        let job = Job {
            statement: run.statement.to_vec(),
            end: run.end,
            folder: self.folder(round),
            lowest_level: workshop.lowest_level,
            threads: workshop.threads,
            cpu: workshop.cpu,
            tid_file: workshop.tid_file.clone(),
        };
        // the order is of use only where the other side is away at the next start
        if let Err(error) = keep_order(run, &job.folder) {
            tracing::error!(%round, %error, "failed to note the round's order");
        }
        tracing::info!(%round, members = run.members, ends_in_s = run.end.since(now()).as_secs(), "running a round");
        let halt = AtomicBool::new(false);
        let finished = AtomicBool::new(false);
        let outcome = thread::scope(|scope| {
            let watch = || self.watch(round, &halt, &finished);
            let watcher = thread::Builder::new().name("poet-watch".into()).spawn_scoped(scope, watch);
            if let Err(error) = watcher {
                tracing::error!(%error, "no thread to watch over the round");
                return None;
            }
            let outcome = job.run(now, &halt, self.progress);
            finished.store(true, Ordering::Relaxed);
            Some(outcome)
        });
        match outcome {
            Some(Ok(Outcome::Finished(proof))) => self.deliver(round, &proof),
            Some(Ok(Outcome::Stopped)) => tracing::info!(%round, "stopped; the round continues at the next start"),
            Some(Err(error)) => {
                tracing::error!(%round, %error, "the round failed, trying again");
                self.rest(RETRY);
            }
            None => self.rest(RETRY),
        }
    }

    /// Beside the hashing thread: hands stops on, tells how far the round is, and learns when it is not needed any more.
    fn watch(&self, round: RoundId, halt: &AtomicBool, finished: &AtomicBool) {
        let (mut reported, mut logged, mut warned) = (None, Some(Instant::now()), None);
        while !finished.load(Ordering::Relaxed) && !halt.load(Ordering::Relaxed) {
            thread::sleep(NOTICE);
            if self.stop.load(Ordering::Relaxed) {
                halt.store(true, Ordering::Relaxed);
                return;
            }
            let progress = self.progress;
            if every(&mut reported, REPORT_EVERY) {
                match self.rounds.next(&[round], Some((round, progress))) {
                    Ok(next) if next.done.contains(&round) => {
                        tracing::info!(%round, "another worker was first with the proof");
                        halt.store(true, Ordering::Relaxed);
                    }
                    Ok(_) => {}
                    Err(error) => tracing::debug!(%error, "failed to report"),
                }
            }
            let load = |value: &std::sync::atomic::AtomicU64| value.load(Ordering::Relaxed);
            let on_cpu = load(&progress.on_cpu);
            if (1..950).contains(&on_cpu) && every(&mut warned, WARN_EVERY) {
                tracing::warn!(
                    on_cpu_permille = on_cpu,
                    "the hashing thread loses its processor to others: the proof gets fewer leaves"
                );
            }
            if every(&mut logged, LOG_EVERY) {
                tracing::info!(
                    %round,
                    leaves = load(&progress.leaves),
                    leaves_per_second = load(&progress.rate),
                    share_of_bound_permille = load(&progress.share_of_bound),
                    "the round goes on"
                );
            }
        }
    }

    fn deliver(&self, round: RoundId, proof: &PoetProof) {
        loop {
            match self.rounds.deliver(round, proof) {
                Ok(()) => {
                    tracing::info!(%round, leaves = %proof.leaf_count, "the round has its proof");
                    self.forget(&[round]);
                    return;
                }
                // made again from what is on disk, in case it was spoiled in memory
                Err(error @ RoundsError::Refused(_)) => {
                    tracing::error!(%round, %error, "making the proof again");
                    self.rest(RETRY);
                    return;
                }
                Err(error) => tracing::error!(%round, %error, "failed to hand a proof over, trying again"),
            }
            self.rest(RETRY);
            if self.stop.load(Ordering::Relaxed) {
                tracing::info!(%round, "stopped; the proof is handed over after the next start");
                return;
            }
        }
    }

    /// Sleeps, but not through a stop.
    fn rest(&self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until && !self.stop.load(Ordering::Relaxed) {
            thread::sleep(NOTICE.min(time));
        }
    }
}

/// Starts a thread with a runner on it.
pub fn start(
    rounds: Arc<dyn Rounds>,
    workshop: Workshop,
    progress: Arc<Progress>,
    stop: Arc<AtomicBool>,
) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name("poet-hasher".into()).spawn(move || run(&*rounds, &workshop, &progress, &stop))
}
