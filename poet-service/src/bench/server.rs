//! What the server's own threads do: the hashing thread with all its duties, a burst of submissions beside it, a round of a million
//! members.

use std::{
    cell::{Cell, RefCell},
    fmt, io,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signer as _, SigningKey};
use proto::{
    ids::NodeId,
    poet::{Leaves, PROVEN_LEAVES},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::{MAINNET_LEAVES, compressions, cycle, tenth};
use crate::{
    api,
    metrics::resident_bytes,
    proof::challenged_leaves,
    registry::{Limits, OpenError, Registration, Registry},
    schedule::{RoundId, Schedule, ScheduleError, Time},
    service::{Service, Settings, TrustedKeys, now},
    store::{RocksStore, StoreError},
    tree::LOWEST_LEVEL,
    worker::{Job, Outcome, Progress, WorkError, cpu_time},
};

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A file, a socket or a thread.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The registrations.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The times.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// The round.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// A submission was not accepted, or a proof was not there.
    #[error("the server answered: {0}")]
    Answer(String),
    /// A thread did not come back.
    #[error("a thread failed")]
    Thread,
}

/// What was measured.
#[derive(Debug)]
pub struct ServerFigures {
    /// Cycles of the hashing thread per compression.
    pub thread_cycles: f64,
    /// Leaves of the scaled-down round.
    pub leaves: Leaves,
    /// Bytes of its folder.
    pub bytes: u64,
    /// From its end to its proof on two threads, and how many units were computed again for that.
    pub proof: (Duration, u64),
    /// Submissions in a burst, over how many connections, and how long each took to be answered: median, 99 %, all.
    pub burst: Burst,
    /// Members of the large round, and how long it took to close and to encode once; bytes of its answer.
    pub large: Large,
}

/// Submissions while a round runs.
#[derive(Debug)]
pub struct Burst {
    /// Submissions answered.
    pub answered: usize,
    /// Connections.
    pub connections: usize,
    /// The whole burst.
    pub took: Duration,
    /// Half of the answers came within this.
    pub median: Duration,
    /// 99 of a hundred.
    pub p99: Duration,
    /// Leaves per second of processor time of the hashing thread while nothing else happened, and during the burst: medians.
    pub rates: (f64, f64),
    /// Drop of the rate in thousandths for each burst, against the quiet times before and after it.
    pub drops: Vec<f64>,
}

/// A round with very many members.
#[derive(Debug)]
pub struct Large {
    /// Members.
    pub members: u64,
    /// Closing the round: reading its members and hashing their tree.
    pub close: Duration,
    /// The first answer with its proof, encoded and compressed.
    pub encode: Duration,
    /// Each answer after that.
    pub again: Duration,
    /// Bytes of the answer, plain and compressed.
    pub answer: (usize, usize),
    /// Memory of the process before, and the most until the end.
    pub memory: (u64, u64),
}

/// Measures in `folder`; `scale` is 1 for figures to show, less for a quick look.
pub fn run(folder: &Path, scale: f64) -> Result<ServerFigures, BenchError> {
    let large = large(&folder.join("large"), if scale < 1.0 { 20_000 } else { 1_000_000 })?;
    let leaves = if scale < 1.0 { 1 << 16 } else { 1 << 19 };
    let (thread_cycles, bytes, proof) = round(&folder.join("round"), leaves)?;
    let (count, times) = if scale < 1.0 { (1000, 1) } else { (10_000, 5) };
    let burst = burst(&folder.join("burst"), count, times)?;
    Ok(ServerFigures { thread_cycles, leaves: Leaves(leaves), bytes, proof, burst, large })
}

fn job(folder: &Path, threads: usize) -> Job {
    let (statement, folder) = (vec![3; 32], folder.to_path_buf());
    Job { statement, end: Time(1), folder, lowest_level: LOWEST_LEVEL, threads, cpu: None, tid_file: None }
}

/// Runs a round of so many leaves. The hashing thread looks at the clock every 64 leaves; that look takes the measurements.
fn round(folder: &Path, leaves: u64) -> Result<(f64, u64, (Duration, u64)), BenchError> {
    let (looks, samples) = (Cell::new(0u64), RefCell::new(Vec::new()));
    let last = Cell::new((Instant::now(), cycle()));
    let look = || {
        let (since, before) = last.get();
        let (took, after) = (since.elapsed().as_secs_f64(), cycle());
        let number = looks.get();
        if let Some(from) = (64 * number).checked_sub(64) {
            samples.borrow_mut().push(took / before.midpoint(after) / 64.0 / compressions(from, 64));
        }
        looks.set(number + 1);
        last.set((Instant::now(), after));
        Time(i128::from(64 * number >= leaves))
    };
    let outcome = job(folder, 2).run(look, &AtomicBool::new(false), &Progress::default())?;
    let took = last.get().0.elapsed();
    let Outcome::Finished(proof) = outcome else { return Err(BenchError::Answer("the round did not end".into())) };
    let bytes = std::fs::metadata(folder.join("nodes"))?.len();
    let opened = challenged_leaves(&proof.merkle.root, proof.leaf_count, PROVEN_LEAVES);
    let units: std::collections::BTreeSet<u64> = opened.iter().map(|index| index >> LOWEST_LEVEL).collect();
    Ok((tenth(samples.into_inner()), bytes, (took, units.len() as u64)))
}

type Started = (Arc<Service>, thread::JoinHandle<()>);

fn start(registry: Registry<Arc<RocksStore>>, stop: &Arc<AtomicBool>) -> Result<Started, BenchError> {
    let settings = Settings {
        max_batch: 1000,
        flush_interval: Duration::from_millis(100),
        disable_worker: true,
        client_rate: 0,
        max_grpc_answer: usize::MAX,
        backup_folder: None,
        certifier_url: None,
    };
    Ok(Service::start(registry, TrustedKeys::default(), settings, [1; 32], stop.clone())?)
}

/// A registry in `folder` with rounds that begin after `wait`.
fn registry(folder: &Path, wait: Duration) -> Result<Registry<Arc<RocksStore>>, BenchError> {
    std::fs::create_dir_all(folder)?;
    let schedule = Schedule::new(now(), wait * 2, wait, wait)?;
    let limits = Limits { max_round_members: u64::MAX, pow_difficulty: 0 };
    let store = Arc::new(RocksStore::open(&folder.join("rocks"))?);
    Ok(Registry::new(store, schedule, limits, [1; 32], &[2; 32], now())?)
}

/// What the hashing thread has done: leaves, and nanoseconds of its processor time.
#[derive(Default)]
struct Done {
    leaves: AtomicU64,
    nanos: AtomicU64,
}

impl Done {
    /// Leaves per second of processor time since `before`, and the counters now.
    fn rate(&self, before: (u64, u64)) -> (f64, (u64, u64)) {
        let now = (self.leaves.load(Ordering::Relaxed), self.nanos.load(Ordering::Relaxed));
        ((now.0 - before.0) as f64 * 1e9 / ((now.1 - before.1) as f64).max(1.0), now)
    }
}

const CONNECTIONS: usize = 500;

/// Longer than any measurement.
const LONG: Duration = Duration::from_secs(1 << 20);

/// A round runs; now and then everybody registers at once.
fn burst(folder: &Path, count: usize, times: usize) -> Result<Burst, BenchError> {
    let stop = Arc::new(AtomicBool::new(false));
    let (service, keeper) = start(registry(folder, LONG)?, &stop)?;
    let done = Arc::new(Done::default());
    let hasher = thread::spawn({
        let (done, stop, job) = (done.clone(), stop.clone(), job(&folder.join("round"), 1));
        move || {
            let look = || {
                done.leaves.fetch_add(64, Ordering::Relaxed);
                done.nanos.store(cpu_time().as_nanos() as u64, Ordering::Relaxed);
                Time(0)
            };
            job.run(look, &stop, &Progress::default()).map(|_| ())
        }
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (tell, told) = watch::channel(false);
    let outcome = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let serving = tokio::spawn(api::serve(listener, api::router(service.clone()), 10_000, told));
        let (mut latencies, mut drops, mut quiet, mut busy) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut took = Duration::ZERO;
        for time in 0..times {
            let requests = requests(&service, time * count, count);
            let (_, from) = done.rate((0, 0));
            tokio::time::sleep(Duration::from_secs(2)).await;
            let (before, from) = done.rate(from);
            let started = Instant::now();
            latencies.extend(everybody(address, requests).await?);
            took += started.elapsed();
            let (during, from) = done.rate(from);
            tokio::time::sleep(Duration::from_secs(2)).await;
            let (after, _) = done.rate(from);
            drops.push(1000.0 * (1.0 - during / before.midpoint(after)));
            quiet.extend([before, after]);
            busy.push(during);
        }
        let _ = tell.send(true);
        let _ = serving.await;
        latencies.sort_unstable();
        let at = |part: usize| latencies.get(latencies.len() * part / 100).copied().unwrap_or_default();
        Ok::<_, BenchError>(Burst {
            answered: latencies.len() / times,
            connections: CONNECTIONS,
            took: took / times as u32,
            median: at(50),
            p99: at(99),
            rates: (middle(quiet), middle(busy)),
            drops,
        })
    });
    stop.store(true, Ordering::Relaxed);
    keeper.join().map_err(|_| BenchError::Thread)?;
    hasher.join().map_err(|_| BenchError::Thread)??;
    outcome
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Registrations of new identities, ready to be sent.
fn requests(service: &Service, first: usize, count: usize) -> Vec<Vec<u8>> {
    let params = crate::json::pow_params(&service.pow_params())["powParams"].clone();
    let request = |number: usize| {
        let mut secret = [7; 32];
        secret[..8].copy_from_slice(&(number as u64).to_le_bytes());
        let key = SigningKey::from_bytes(&secret);
        let message = [[1; 32], secret].concat();
        let body = serde_json::json!({
            "powParams": params,
            "prefix": STANDARD.encode(&message[..32]),
            "challenge": STANDARD.encode(&message[32..]),
            "pubkey": STANDARD.encode(key.verifying_key().to_bytes()),
            "signature": STANDARD.encode(key.sign(&message).to_bytes()),
        })
        .to_string();
        format!("POST /v1/submit HTTP/1.1\r\nhost: bench\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
    };
    (first..first + count).map(request).collect()
}

/// Sends all requests over [`CONNECTIONS`] connections at once; returns how long each answer took.
async fn everybody(address: std::net::SocketAddr, requests: Vec<Vec<u8>>) -> Result<Vec<Duration>, BenchError> {
    let requests = Arc::new(Mutex::new(requests));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        let requests = requests.clone();
        let next = move || requests.lock().unwrap_or_else(PoisonError::into_inner).pop();
        clients.spawn(async move {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let (mut latencies, mut answer) = (Vec::new(), [0; 2048]);
            while let Some(request) = next() {
                let started = Instant::now();
                stream.write_all(&request).await?;
                let count = stream.read(&mut answer).await?;
                if !answer[..count].starts_with(b"HTTP/1.1 200") {
                    return Err(BenchError::Answer(String::from_utf8_lossy(&answer[..count]).into_owned()));
                }
                latencies.push(started.elapsed());
            }
            Ok(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(client) = clients.join_next().await {
        latencies.extend(client.map_err(|_| BenchError::Thread)??);
    }
    Ok(latencies)
}

fn large(folder: &Path, members: u64) -> Result<Large, BenchError> {
    let before = resident_bytes("VmRSS:").unwrap_or(0);
    let mut registry = registry(folder, LONG)?;
    for number in 0..members {
        let id = <[u8; 32]>::from(blake3::hash(&number.to_le_bytes()));
        let registration = Registration { member: NodeId(id), challenge: id, deadline: None };
        registry.on_register(now(), &registration).map_err(|refused| BenchError::Answer(refused.to_string()))?;
        if registry.unwritten() == 1000 {
            registry.flush()?;
        }
    }
    registry.flush()?;
    let started = Instant::now();
    registry.on_tick(registry.next_close())?;
    let close = started.elapsed();
    let (proof, _) = super::arbitrary_proof(MAINNET_LEAVES);
    registry.on_proof(RoundId(0), proof)?;
    let stop = Arc::new(AtomicBool::new(false));
    let (service, keeper) = start(registry, &stop)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let fetch = || {
        let started = Instant::now();
        let answer = runtime.block_on(service.proof("0")).map_err(|failure| BenchError::Answer(failure.message))?;
        Ok::<_, BenchError>((answer, started.elapsed()))
    };
    let (answer, encode) = fetch()?;
    let (same, again) = fetch()?;
    if !Arc::ptr_eq(&answer, &same) {
        return Err(BenchError::Answer("the proof was encoded again".into()));
    }
    stop.store(true, Ordering::Relaxed);
    keeper.join().map_err(|_| BenchError::Thread)?;
    let answer = (answer.json.len(), answer.gzip.len());
    Ok(Large { members, close, encode, again, answer, memory: (before, resident_bytes("VmHWM:").unwrap_or(0)) })
}

impl ServerFigures {
    /// Speed of the hashing thread relative to a chain that takes so many cycles for a compression.
    pub fn share_of(&self, chain_cycles: f64) -> f64 {
        chain_cycles / self.thread_cycles
    }

    /// Bytes on disk for a mainnet round.
    pub fn mainnet_bytes(&self) -> f64 {
        self.bytes as f64 / self.leaves.0 as f64 * MAINNET_LEAVES.0 as f64
    }

    /// From the end of a mainnet round to its proof: every opened leaf in a unit of its own, and the one at the right edge alone.
    pub fn mainnet_proof(&self) -> Duration {
        let (took, units) = self.proof;
        let each = took.as_secs_f64() / units.max(1) as f64;
        Duration::from_secs_f64(each * (PROVEN_LEAVES as f64 + 2.0))
    }
}

impl fmt::Display for ServerFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let (took, units) = self.proof;
        writeln!(f, "hashing thread of the server     {:.1} cycles per compression", self.thread_cycles)?;
        writeln!(
            f,
            "a round of {} leaves         {} bytes on disk, {:.0} ms from end to proof ({units} units)",
            self.leaves,
            self.bytes,
            ms(took)
        )?;
        writeln!(
            f,
            "  scaled to 9e10 leaves          {:.2} GB, {:.2} s on 2 threads",
            self.mainnet_bytes() / 1e9,
            self.mainnet_proof().as_secs_f64()
        )?;
        let Burst { answered, connections, took, median, p99, rates: (quiet, busy), drops } = &self.burst;
        writeln!(
            f,
            "{answered} submissions, {connections} connections {:.2} s, median {:.0} ms, p99 {:.0} ms",
            took.as_secs_f64(),
            ms(*median),
            ms(*p99)
        )?;
        let drops: Vec<String> = drops.iter().map(|drop| format!("{:.2} %", drop / 10.0)).collect();
        writeln!(
            f,
            "  hashing meanwhile              {busy:.0} leaves per CPU second, quiet {quiet:.0} (drops {})",
            drops.join(", ")
        )?;
        let Large { members, close, encode, again, answer: (plain, zipped), memory: (before, most) } = &self.large;
        let mega = |bytes: u64| bytes as f64 / 1e6;
        writeln!(f, "a round of {members} members      closed in {:.2} s", close.as_secs_f64())?;
        writeln!(
            f,
            "  its answer                     {:.1} MB ({:.1} MB compressed), encoded once in {:.2} s, then {:.3} ms",
            mega(*plain as u64),
            mega(*zipped as u64),
            encode.as_secs_f64(),
            ms(*again)
        )?;
        write!(f, "  memory                         {:.0} MB before, {:.0} MB at most", mega(*before), mega(*most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_run_measures_everything() {
        let dir = tempfile::tempdir().unwrap();
        let figures = run(dir.path(), 0.05).unwrap();
        assert_eq!((figures.burst.answered, figures.large.members), (1000, 20_000));
        assert!(figures.bytes > 0 && figures.proof.1 > 0);
        assert!(figures.thread_cycles > 50.0 && figures.burst.rates.0 > 100.0 && figures.burst.rates.1 > 100.0);
        println!("{figures}");
    }
}
