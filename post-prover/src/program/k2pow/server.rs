//! The worker: one job at a time on all threads, others wait in a queue; what was found is remembered.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use axum::{
    Router,
    extract::{Path, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::get,
};
use kernels::pow::{BuildOptions, Mode as PowMode, PowError, Puzzle, Shared, search};
use tokio::{net::TcpListener, sync::watch};

use super::{Token, parse_job};
use crate::program::{Failure, log_to_stderr};

/// Results remembered; a farm of a thousand identities needs a few ten thousand per epoch.
const REMEMBERED: usize = 1 << 16;
/// After so long without a job the memory of RandomX is given back.
const IDLE: Duration = Duration::from_secs(10 * 60);

/// How a worker runs.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen.
    pub address: SocketAddr,
    /// Threads that search.
    pub threads: usize,
    /// RandomX mode.
    pub mode: PowMode,
    /// Use reserved large pages.
    pub large_pages: bool,
    /// Jobs that may wait.
    pub queue: usize,
    /// What requests must carry.
    pub token: Option<Token>,
}

#[derive(Debug, Default)]
struct Jobs {
    running: Option<(Puzzle, Arc<AtomicBool>)>,
    queue: VecDeque<Puzzle>,
    results: HashMap<Puzzle, Result<u64, String>>,
    /// Order in which results came, for forgetting the oldest.
    order: VecDeque<Puzzle>,
}

/// What a worker knows and does.
#[derive(Debug)]
pub struct Worker {
    config: Config,
    randomx: Shared,
    jobs: Mutex<Jobs>,
    changed: Condvar,
    stop: AtomicBool,
    hashes: AtomicU64,
    solved: AtomicU64,
}

impl Worker {
    /// A worker that has not begun; see [`Worker::work`] and [`Worker::router`].
    pub fn new(config: Config) -> Arc<Self> {
        let options = BuildOptions { mode: config.mode, large_pages: config.large_pages, threads: config.threads };
        Arc::new(Self {
            config,
            randomx: Shared::new(options),
            jobs: Mutex::default(),
            changed: Condvar::new(),
            stop: AtomicBool::new(false),
            hashes: AtomicU64::new(0),
            solved: AtomicU64::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends [`Worker::work`] within a second.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some((_, cancel)) = &self.lock().running {
            cancel.store(true, Ordering::Relaxed);
        }
        self.changed.notify_all();
    }

    /// Works on jobs until told to stop.
    pub fn work(&self) {
        while let Some((puzzle, cancel)) = self.next_job() {
            tracing::info!(miner = %puzzle.node_id, group = puzzle.group, "searching");
            let found = self
                .randomx
                .get(&cancel)
                .and_then(|randomx| search(&randomx, &puzzle, self.config.threads, &cancel, &self.hashes));
            let mut jobs = self.lock();
            jobs.running = None;
            let result = match found {
                Ok(pow) => {
                    self.solved.fetch_add(1, Ordering::Relaxed);
                    tracing::info!(miner = %puzzle.node_id, group = puzzle.group, pow, "found");
                    Ok(pow)
                }
                // cancelled: as if it had never been asked for
                Err(PowError::Stopped) => continue,
                Err(error) => {
                    tracing::error!(miner = %puzzle.node_id, group = puzzle.group, "search failed: {error}");
                    Err(error.to_string())
                }
            };
            jobs.results.insert(puzzle, result);
            jobs.order.push_back(puzzle);
            if jobs.order.len() > REMEMBERED
                && let Some(oldest) = jobs.order.pop_front()
            {
                jobs.results.remove(&oldest);
            }
        }
    }

    fn next_job(&self) -> Option<(Puzzle, Arc<AtomicBool>)> {
        let mut jobs = self.lock();
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            if let Some(puzzle) = jobs.queue.pop_front() {
                let cancel = Arc::new(AtomicBool::new(false));
                jobs.running = Some((puzzle, Arc::clone(&cancel)));
                return Some((puzzle, cancel));
            }
            self.randomx.free_idle(IDLE);
            jobs = self.changed.wait_timeout(jobs, Duration::from_millis(500)).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes a job, or tells how it stands.
    fn ask(&self, puzzle: Puzzle) -> Response {
        let mut jobs = self.lock();
        match jobs.results.get(&puzzle) {
            Some(Ok(pow)) => return pow.to_string().into_response(),
            Some(Err(why)) => {
                // told once; asking again tries again
                let why = why.clone();
                jobs.results.remove(&puzzle);
                jobs.order.retain(|one| *one != puzzle);
                return (StatusCode::INTERNAL_SERVER_ERROR, why).into_response();
            }
            None => {}
        }
        let known = jobs.running.as_ref().is_some_and(|(one, _)| *one == puzzle) || jobs.queue.contains(&puzzle);
        if known {
            return StatusCode::CREATED.into_response();
        }
        let waiting = jobs.queue.len() + usize::from(jobs.running.is_some());
        if waiting > self.config.queue {
            return StatusCode::TOO_MANY_REQUESTS.into_response();
        }
        jobs.queue.push_back(puzzle);
        self.changed.notify_all();
        StatusCode::CREATED.into_response()
    }

    /// Forgets a job, whatever its state.
    fn cancel(&self, puzzle: &Puzzle) -> bool {
        let mut jobs = self.lock();
        let before = jobs.queue.len();
        jobs.queue.retain(|one| one != puzzle);
        let mut known = jobs.queue.len() != before || jobs.results.remove(puzzle).is_some();
        jobs.order.retain(|one| one != puzzle);
        if let Some((_, cancel)) = jobs.running.as_ref().filter(|(one, _)| one == puzzle) {
            cancel.store(true, Ordering::Relaxed);
            known = true;
        }
        known
    }

    fn metrics(&self) -> String {
        let jobs = self.lock();
        format!(
            "# TYPE k2pow_hashes_total counter\nk2pow_hashes_total {}\n\
             # TYPE k2pow_solved_total counter\nk2pow_solved_total {}\n\
             # TYPE k2pow_jobs_waiting gauge\nk2pow_jobs_waiting {}\n\
             # TYPE k2pow_jobs_running gauge\nk2pow_jobs_running {}\n",
            self.hashes.load(Ordering::Relaxed),
            self.solved.load(Ordering::Relaxed),
            jobs.queue.len(),
            u8::from(jobs.running.is_some()),
        )
    }

    /// The HTTP interface.
    pub fn router(self: &Arc<Self>) -> Router {
        let jobs = get(ask).delete(cancel);
        Router::new()
            .route("/job/{miner}/{nonce_group}/{challenge}/{difficulty}", jobs)
            .route("/metrics", get(|State(worker): State<Arc<Self>>| async move { worker.metrics() }))
            .layer(middleware::from_fn_with_state(Arc::clone(self), authorize))
            // for load balancers, which have no token
            .route("/", get(|| async { "{ 'message': 'ok' }" }))
            .route("/health", get(|| async { "ok" }))
            .with_state(Arc::clone(self))
    }
}

async fn authorize(State(worker): State<Arc<Worker>>, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()?.strip_prefix("Bearer "));
    match &worker.config.token {
        Some(token) if !given.is_some_and(|given| token.is(given)) => StatusCode::UNAUTHORIZED.into_response(),
        _ => next.run(request).await,
    }
}

type JobPath = Path<(String, String, String, String)>;

async fn ask(State(worker): State<Arc<Worker>>, Path((miner, group, challenge, difficulty)): JobPath) -> Response {
    match parse_job(&miner, &group, &challenge, &difficulty) {
        Ok(puzzle) => worker.ask(puzzle),
        Err(why) => (StatusCode::BAD_REQUEST, why).into_response(),
    }
}

async fn cancel(State(worker): State<Arc<Worker>>, Path((miner, group, challenge, difficulty)): JobPath) -> Response {
    match parse_job(&miner, &group, &challenge, &difficulty) {
        Ok(puzzle) if worker.cancel(&puzzle) => StatusCode::NO_CONTENT.into_response(),
        Ok(_) => StatusCode::NOT_FOUND.into_response(),
        Err(why) => (StatusCode::BAD_REQUEST, why).into_response(),
    }
}

/// Serves until SIGINT or SIGTERM.
pub fn serve(config: &Config) -> Result<(), Failure> {
    log_to_stderr();
    let worker = Worker::new(config.clone());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(config.address)
            .await
            .map_err(|e| Failure::Failed(format!("failed to listen on {}: {e}", config.address).into()))?;
        tracing::info!(address = %listener.local_addr()?, threads = config.threads, mode = %config.mode, "k2pow worker is ready");
        let (stop, mut stopped) = watch::channel(false);
        let searching = {
            let worker = Arc::clone(&worker);
            thread::spawn(move || worker.work())
        };
        let signal = tokio::spawn(async move {
            crate::program::serve::shutdown_signal().await;
            // The receiver lives as long as the server.
            let _ = stop.send(true);
        });
        let served = tokio::select! {
            served = axum::serve(listener, worker.router()) => served,
            _ = stopped.changed() => Ok(()),
        };
        worker.stop();
        signal.abort();
        if searching.join().is_err() {
            return Err(Failure::Failed("the search ended unexpectedly".into()));
        }
        Ok(served?)
    })
}
