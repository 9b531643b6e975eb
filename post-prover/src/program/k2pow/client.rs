//! Asking workers: several at once, none of them trusted.
//!
//! Every answer is checked. A worker that answers wrongly is not asked again during the run; one that cannot be reached, or does
//! not know a job any more, loses the job to another one.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kernels::{
    pow::{BuildOptions, Mode as PowMode, Puzzle, Shared},
    scan::GroupPow,
};
use reqwest::{Client, StatusCode, header};
use tokio::sync::mpsc;

use super::{Token, job_path};
use crate::prove::{PowClient, PowSource, PowSourceError};

/// How workers are asked.
#[derive(Debug, Clone)]
pub struct RemoteOptions {
    /// Their base URLs.
    pub urls: Vec<String>,
    /// What requests carry.
    pub token: Option<Token>,
    /// Jobs at a time, all workers together.
    pub parallelism: usize,
    /// Time between two questions about a job.
    pub backoff: Duration,
    /// Time a worker has to answer a question.
    pub timeout: Duration,
}

impl Default for RemoteOptions {
    fn default() -> Self {
        Self { urls: Vec::new(), token: None, parallelism: 5, backoff: Duration::from_secs(5), timeout: Duration::from_secs(10) }
    }
}

/// k2pow on other machines.
#[derive(Debug)]
pub struct RemotePow {
    options: RemoteOptions,
    client: Client,
    /// For checking answers.
    randomx: Shared,
}

/// Why workers cannot be of use any more.
#[derive(Debug, thiserror::Error)]
enum RemoteError {
    /// All of them have answered wrongly or refused.
    #[error("no k2pow worker is left: {0}")]
    NoWorkerLeft(String),
    /// The runtime for asking them could not be had.
    #[error("failed to start asking workers: {0}")]
    Runtime(#[from] std::io::Error),
}

/// Failures in a row after which a job is taken to another worker.
const PATIENCE: u32 = 3;

impl RemotePow {
    /// Checks the URLs; nobody is asked yet.
    pub fn new(mut options: RemoteOptions) -> Result<Self, String> {
        for url in &mut options.urls {
            let parsed = reqwest::Url::parse(url).map_err(|e| format!("{url} is not a URL: {e}"))?;
            if !matches!(parsed.scheme(), "http" | "https") {
                return Err(format!("{url} is neither http nor https"));
            }
            url.truncate(url.trim_end_matches('/').len());
        }
        if options.urls.is_empty() {
            return Err("no k2pow worker given".to_owned());
        }
        let mut headers = header::HeaderMap::new();
        if let Some(token) = &options.token {
            let mut value = header::HeaderValue::from_str(&format!("Bearer {}", token.0.as_str()))
                .map_err(|_| "the token has characters that HTTP does not carry".to_owned())?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        let client = Client::builder()
            .default_headers(headers)
            .timeout(options.timeout)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| super::super::chain(&e))?;
        let light = BuildOptions { mode: PowMode::Light, large_pages: false, threads: 1 };
        Ok(Self { options, client, randomx: Shared::new(light) })
    }
}

/// What a worker said.
enum Said {
    Pow(u64),
    Wait,
    Full,
    Wrong(String),
    Unreachable(String),
}

/// One worker as the run sees it.
struct Peer {
    url: String,
    /// Not asked again.
    bad: AtomicBool,
}

impl PowSource for RemotePow {
    fn solve(&self, puzzles: &[Puzzle], client: &mut PowClient<'_>) -> Result<(), PowSourceError> {
        let stop = client.stop;
        let failed = |e: RemoteError| PowSourceError::Failed(Box::new(e));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| failed(e.into()))?;
        let mut hasher = self.randomx.get(stop)?.hasher()?;
        let peers: Vec<Peer> =
            self.options.urls.iter().map(|url| Peer { url: url.clone(), bad: AtomicBool::new(false) }).collect();
        let jobs: Mutex<VecDeque<Puzzle>> = Mutex::new(puzzles.iter().copied().collect());
        let why = Mutex::new(String::new());
        let (sender, mut answers) = mpsc::channel(16);
        let lanes = self.options.parallelism.clamp(1, 64).max(peers.len().min(64)).min(puzzles.len().max(1));
        let run = async {
            let asking = join_all((0..lanes).map(|lane| self.lane(lane, &peers, &jobs, &why, sender.clone())).collect());
            let mut asking = std::pin::pin!(asking);
            let mut left = puzzles.len();
            while left > 0 {
                let (puzzle, pow, peer) = tokio::select! {
                    biased;
                    Some(answer) = answers.recv() => answer,
                    // lanes end only when there is nobody left to ask
                    () = &mut asking => return Err(failed(RemoteError::NoWorkerLeft(lock(&why).clone()))),
                    () = stopped(stop) => return Err(PowSourceError::Stopped),
                };
                if puzzle.is_solved_by(&mut hasher, pow) {
                    (client.found)(GroupPow { group: puzzle.group, pow });
                    left -= 1;
                } else {
                    let peer: &Peer = &peers[peer];
                    tracing::error!(worker = peer.url, group = puzzle.group, pow, "wrong k2pow, worker is not used any more");
                    note(&why, &peer.url, "answered with a wrong k2pow");
                    peer.bad.store(true, Ordering::Relaxed);
                    lock(&jobs).push_back(puzzle);
                }
            }
            Ok(())
        };
        runtime.block_on(run)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(why: &Mutex<String>, url: &str, what: &str) {
    let mut why = lock(why);
    if !why.is_empty() {
        why.push_str("; ");
    }
    // Writing to a String cannot fail.
    let _ = write!(why, "{url}: {what}");
}

async fn stopped(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(crate::read::POLL).await;
    }
}

/// Waits for all of them.
async fn join_all<F: Future<Output = ()>>(futures: Vec<F>) {
    let mut futures: Vec<_> = futures.into_iter().map(|f| Some(Box::pin(f))).collect();
    std::future::poll_fn(|context| {
        let mut all_ready = true;
        for slot in &mut futures {
            if let Some(future) = slot {
                if future.as_mut().poll(context).is_ready() {
                    *slot = None;
                } else {
                    all_ready = false;
                }
            }
        }
        if all_ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

impl RemotePow {
    /// Takes one job after the other and stays with it until some worker has answered.
    async fn lane(
        &self,
        lane: usize,
        peers: &[Peer],
        jobs: &Mutex<VecDeque<Puzzle>>,
        why: &Mutex<String>,
        sender: mpsc::Sender<(Puzzle, u64, usize)>,
    ) {
        let mut at = lane % peers.len();
        loop {
            if peers.iter().all(|peer| peer.bad.load(Ordering::Relaxed)) {
                return;
            }
            let next = lock(jobs).pop_front();
            let Some(puzzle) = next else {
                // one may come back from a worker that answered wrongly
                tokio::time::sleep(crate::read::POLL).await;
                continue;
            };
            let mut failures = 0;
            loop {
                // the next one that is not known to be bad
                let Some(turn) = (0..peers.len()).find(|i| !peers[(at + i) % peers.len()].bad.load(Ordering::Relaxed)) else {
                    lock(jobs).push_back(puzzle);
                    return;
                };
                at = (at + turn) % peers.len();
                let peer = &peers[at];
                match self.ask(peer, &puzzle).await {
                    Said::Pow(pow) => {
                        if sender.send((puzzle, pow, at)).await.is_err() {
                            return;
                        }
                        break;
                    }
                    Said::Wait => failures = 0,
                    Said::Full => at = (at + 1) % peers.len(),
                    Said::Wrong(text) => {
                        tracing::error!(worker = peer.url, "worker is not used any more: {text}");
                        note(why, &peer.url, &text);
                        peer.bad.store(true, Ordering::Relaxed);
                        continue;
                    }
                    Said::Unreachable(text) => {
                        failures += 1;
                        tracing::warn!(worker = peer.url, group = puzzle.group, "worker cannot be reached: {text}");
                        if failures >= PATIENCE {
                            failures = 0;
                            at = (at + 1) % peers.len();
                        }
                    }
                }
                tokio::time::sleep(self.options.backoff).await;
            }
        }
    }

    async fn ask(&self, peer: &Peer, puzzle: &Puzzle) -> Said {
        // A decimal number of 64 bits and what a proxy may add to it.
        const MAX_ANSWER: u64 = 1024;
        let response = match self.client.get(format!("{}{}", peer.url, job_path(puzzle))).send().await {
            Ok(response) => response,
            Err(error) => return Said::Unreachable(super::super::chain(&error)),
        };
        match response.status() {
            StatusCode::OK if response.content_length().is_some_and(|len| len > MAX_ANSWER) => {
                Said::Wrong("the answer is too long".to_owned())
            }
            StatusCode::OK => match read_short(response, MAX_ANSWER as usize).await {
                Ok(text) => match text.trim().parse() {
                    Ok(pow) => Said::Pow(pow),
                    Err(_) => Said::Wrong("the answer is not a number".to_owned()),
                },
                Err(Some(error)) => Said::Unreachable(super::super::chain(&error)),
                Err(None) => Said::Wrong("the answer is too long".to_owned()),
            },
            StatusCode::CREATED => Said::Wait,
            StatusCode::TOO_MANY_REQUESTS => Said::Full,
            status if status.is_server_error() => Said::Unreachable(format!("status {status}")),
            status => Said::Wrong(format!("status {status}")),
        }
    }
}

/// The body, if it is short; `Err(None)` if it is not.
async fn read_short(mut response: reqwest::Response, limit: usize) -> Result<String, Option<reqwest::Error>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Some)? {
        if body.len() + chunk.len() > limit {
            return Err(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}
