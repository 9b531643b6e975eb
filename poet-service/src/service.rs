//! The running server behind its network side: checks submissions, drives the [`Registry`] and the hashing thread.
//!
//! One thread owns the registry; everybody else sends it commands over a bounded queue. It collects registrations into batches,
//! closes rounds at their time, and keeps one hashing thread busy with the rounds that wait.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use proto::{grpc::poet_v1 as wire, ids::NodeId, poet::PoetProof};
use tokio::sync::oneshot;

use crate::{
    certificate::{self, CertificateError},
    pow::{self, Params},
    registry::{Accepted, Refused, Registration, Registry, Run},
    schedule::{RoundId, Time},
    store::{Record, RocksStore, Store as _, StoreError},
    worker::{Job, Outcome, Progress, WorkError},
};

/// Commands that may wait for the registry.
const QUEUE: usize = 8192;

/// How often the registry looks at the clock.
const TICK: Duration = Duration::from_millis(20);

/// How long a round rests after it failed, for example on a full disk.
const RETRY: Duration = Duration::from_secs(5);

/// The present, by the wall clock.
pub fn now() -> Time {
    Time::from(SystemTime::now())
}

/// An answer that is an error: the code is that of gRPC.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Code of gRPC (poet.md section 5.3).
    pub code: tonic::Code,
    /// Text for the client.
    pub message: String,
}

impl Failure {
    /// An error with its text.
    pub fn new(code: tonic::Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        let code = match refused {
            Refused::TooLate => tonic::Code::FailedPrecondition,
            Refused::Full => tonic::Code::ResourceExhausted,
            Refused::Conflict => tonic::Code::AlreadyExists,
            Refused::Paused => tonic::Code::Unavailable,
            Refused::Storage => tonic::Code::Internal,
        };
        Self::new(code, refused.to_string())
    }
}

/// The certifiers whose certificates count.
#[derive(Debug, Clone, Default)]
pub struct TrustedKeys {
    /// The announced certifier.
    pub own: Option<[u8; 32]>,
    /// The others, from the trusted directory.
    pub others: Vec<[u8; 32]>,
}

impl TrustedKeys {
    fn check(&self, hint: &[u8], cert: &wire::submit_request::Certificate, id: &NodeId) -> Result<(), CertificateError> {
        let now = u64::try_from(now().unix_seconds()).unwrap_or(0);
        let check = |key: &[u8; 32]| certificate::check(key, &cert.data, &cert.signature, id, now);
        if hint.is_empty() {
            return check(self.own.as_ref().ok_or(CertificateError::NoKey)?);
        }
        let fitting: Vec<_> = self.own.iter().chain(&self.others).filter(|key| key.starts_with(hint)).collect();
        match &fitting[..] {
            [] => Err(CertificateError::NoKey),
            [key] => check(key),
            several if several.iter().any(|key| check(key).is_ok()) => Ok(()),
            _ => Err(CertificateError::NoneFits),
        }
    }
}

/// Counters for the metrics page.
#[derive(Debug, Default)]
pub struct Counters {
    /// Submissions with a certificate: valid, invalid, expired.
    pub with_cert: [AtomicU64; 3],
    /// Submissions with a proof of work: valid, invalid.
    pub with_pow: [AtomicU64; 2],
    /// Batches written, by latency: up to 1 ms × 1.5^k, and beyond.
    pub batch_latency: [AtomicU64; 21],
    /// Sum of those latencies in microseconds.
    pub batch_latency_sum: AtomicU64,
    /// Requests by status class (2xx, 4xx, 5xx).
    pub requests: [AtomicU64; 3],
}

/// What anybody may know without asking the registry.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The round that takes registrations.
    pub open: RoundId,
    /// Its members.
    pub members: u64,
    /// What proofs of work are made for, the announced one first.
    pub pow: Vec<Params>,
    /// The round that is running.
    pub running: Option<(RoundId, u64)>,
    /// Whether registration is paused.
    pub paused: bool,
}

/// Settings of the service.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where rounds do their work: one folder per round.
    pub work_folder: PathBuf,
    /// The most registrations written at once.
    pub max_batch: usize,
    /// The longest a registration waits for others to be written with.
    pub flush_interval: Duration,
    /// Take registrations only and run nothing.
    pub disable_worker: bool,
    /// The processor for the hashing thread.
    pub cpu: Option<usize>,
    /// Threads for making proofs.
    pub threads: usize,
    /// The lowest level of the tree that is kept.
    pub lowest_level: u32,
    /// Where the operator's backups go.
    pub backup_folder: Option<PathBuf>,
    /// Where certifiers can be asked for certificates, as announced.
    pub certifier_url: Option<String>,
}

enum Command {
    Register(Registration, oneshot::Sender<Result<Accepted, Refused>>),
    Ran(RoundId, Result<Outcome, WorkError>),
    Pause(bool),
}

/// A proof as it is sent.
#[derive(Debug)]
pub struct EncodedProof {
    /// The record.
    pub record: Record,
    /// Its JSON.
    pub json: axum::body::Bytes,
    /// Its JSON, compressed.
    pub gzip: axum::body::Bytes,
}

/// The service, shared by all that answer requests.
pub struct Service {
    commands: SyncSender<Command>,
    snapshot: RwLock<Snapshot>,
    keys: RwLock<TrustedKeys>,
    store: Arc<RocksStore>,
    proofs: Mutex<BTreeMap<RoundId, Arc<EncodedProof>>>,
    loading: tokio::sync::Mutex<()>,
    /// Public key of the server.
    pub pubkey: [u8; 32],
    /// The rounds' times.
    pub schedule: crate::schedule::Schedule,
    /// Settings.
    pub settings: Settings,
    /// For the metrics page.
    pub counters: Counters,
    /// Of the running round.
    pub progress: Arc<Progress>,
}

/// Proofs kept ready to be sent.
const CACHED_PROOFS: usize = 2;

impl Service {
    /// Starts the thread of the registry. It ends, with everything written, once `stop` is set.
    pub fn start(
        registry: Registry<Arc<RocksStore>>,
        keys: TrustedKeys,
        settings: Settings,
        pubkey: [u8; 32],
        stop: Arc<AtomicBool>,
    ) -> std::io::Result<(Arc<Self>, JoinHandle<()>)> {
        let (commands, queue) = sync_channel(QUEUE);
        let service = Arc::new(Self {
            commands: commands.clone(),
            snapshot: RwLock::new(snapshot(&registry, None)),
            keys: RwLock::new(keys),
            store: registry.store().clone(),
            proofs: Mutex::default(),
            loading: tokio::sync::Mutex::default(),
            pubkey,
            schedule: *registry.schedule(),
            settings,
            counters: Counters::default(),
            progress: Arc::default(),
        });
        let mut keeper = Keeper {
            service: service.clone(),
            registry,
            stop,
            commands,
            answers: Vec::new(),
            batch_since: None,
            running: None,
            retry_at: None,
        };
        let thread = thread::Builder::new().name("poet-registry".into()).spawn(move || keeper.run(&queue))?;
        Ok((service, thread))
    }

    /// The state anybody may know.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the trusted keys.
    pub fn set_keys(&self, keys: TrustedKeys) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// The trusted keys.
    pub fn keys(&self) -> TrustedKeys {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The database, for backups.
    pub fn store(&self) -> &RocksStore {
        &self.store
    }

    /// Stops or resumes registration.
    pub fn pause(&self, paused: bool) -> Result<(), Failure> {
        self.commands.try_send(Command::Pause(paused)).map_err(|_| busy())
    }

    /// Who this server is.
    pub fn info(&self) -> wire::InfoResponse {
        let own = self.keys().own;
        let url = self.settings.certifier_url.clone();
        wire::InfoResponse {
            service_pubkey: self.pubkey.to_vec(),
            phase_shift: Some(wire_duration(self.schedule.phase_shift())),
            cycle_gap: Some(wire_duration(self.schedule.cycle_gap())),
            certifier: own.zip(url).map(|(key, url)| wire::info_response::Cerifier { url, pubkey: key.to_vec() }),
        }
    }

    /// What proofs of work are made for.
    pub fn pow_params(&self) -> wire::PowParamsResponse {
        let params = self.snapshot().pow.into_iter().next();
        let params = params.map(|p| wire::PowParams { difficulty: p.difficulty, challenge: p.challenge });
        wire::PowParamsResponse { pow_params: params }
    }

    /// Takes a registration; returns when it is on disk.
    pub async fn submit(&self, request: wire::SubmitRequest) -> Result<wire::SubmitResponse, Failure> {
        let registration = self.check(&request)?;
        let (answer, answered) = oneshot::channel();
        self.commands.try_send(Command::Register(registration, answer)).map_err(|error| match error {
            TrySendError::Full(_) => busy(),
            TrySendError::Disconnected(_) => Failure::new(tonic::Code::Unavailable, "the server is stopping"),
        })?;
        let accepted = answered.await.map_err(|_| Failure::new(tonic::Code::Unavailable, "the server is stopping"))??;
        let left = accepted.end.since(now());
        Ok(wire::SubmitResponse { round_id: accepted.round.to_string(), round_end: Some(wire_duration(left)) })
    }

    /// The checks of a submission that need no storage, in the order of poet.md section 5.6.
    pub fn check(&self, request: &wire::SubmitRequest) -> Result<Registration, Failure> {
        let invalid = |text: &str| Failure::new(tonic::Code::InvalidArgument, text);
        let Ok(member) = <[u8; 32]>::try_from(&*request.pubkey) else { return Err(invalid("invalid public key")) };
        // a challenge of another length would make every member's proof worthless, so it is refused before the signature
        // has cost anything
        let Ok(challenge) = <[u8; 32]>::try_from(&*request.challenge) else {
            let message = [&*request.prefix, &*request.challenge].concat();
            let signed = certificate::signature_is_valid(&member, &message, &request.signature);
            return Err(invalid(if signed { "invalid challenge length" } else { "invalid signature" }));
        };
        let message = [&*request.prefix, &challenge[..]].concat();
        if !certificate::signature_is_valid(&member, &message, &request.signature) {
            return Err(invalid("invalid signature"));
        }
        let hint = &*request.certificate_pubkey_hint;
        if !hint.is_empty() && hint.len() != 4 {
            return Err(invalid("invalid certificate public key hint"));
        }
        let member = NodeId(member);
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        // clients crash on a refused certificate where `info` names no certifier, so both depend on the same thing
        let certified = keys.own.is_some() && self.settings.certifier_url.is_some();
        if let Some(certificate) = request.certificate.as_ref().filter(|_| certified) {
            let checked = keys.check(hint, certificate, &member);
            let place = match &checked {
                Ok(()) => 0,
                Err(CertificateError::Expired(_)) => 2,
                Err(_) => 1,
            };
            self.counters.with_cert[place].fetch_add(1, Ordering::Relaxed);
            checked.map_err(|e| Failure::new(tonic::Code::Unauthenticated, format!("invalid certificate\n{e}")))?;
        } else {
            let checked = self.check_pow(request, &member);
            self.counters.with_pow[usize::from(checked.is_err())].fetch_add(1, Ordering::Relaxed);
            checked?;
        }
        let deadline = request.deadline.as_ref();
        let deadline = deadline.map(|d| Time(i128::from(d.seconds) * 1_000_000_000 + i128::from(d.nanos)));
        Ok(Registration { member, challenge, deadline })
    }

    fn check_pow(&self, request: &wire::SubmitRequest, member: &NodeId) -> Result<(), Failure> {
        let invalid = |text: &str| Failure::new(tonic::Code::InvalidArgument, text);
        let given = request.pow_params.clone().unwrap_or_default();
        let given = Params { challenge: given.challenge, difficulty: given.difficulty };
        let snapshot = self.snapshot.read().unwrap_or_else(PoisonError::into_inner);
        if !snapshot.pow.contains(&given) {
            return Err(invalid("invalid proof of work parameters"));
        }
        if !pow::is_valid(&given, member, &request.challenge, request.nonce) {
            return Err(invalid("invalid proof of work: invalid leading zero bits"));
        }
        Ok(())
    }

    /// The proof of a finished round, encoded once.
    pub async fn proof(self: &Arc<Self>, round: &str) -> Result<Arc<EncodedProof>, Failure> {
        let not_found = || Failure::new(tonic::Code::NotFound, "proof not found");
        // one spelling per round, so that the answers of different addresses cannot differ
        let round = round.parse::<RoundId>().ok().filter(|id| id.to_string() == round).ok_or_else(not_found)?;
        let cached = || self.proofs.lock().unwrap_or_else(PoisonError::into_inner).get(&round).cloned();
        if let Some(proof) = cached() {
            return Ok(proof);
        }
        // a network that comes for a proof at once waits for one encoding
        let _loading = self.loading.lock().await;
        if let Some(proof) = cached() {
            return Ok(proof);
        }
        let service = self.clone();
        let loaded = tokio::task::spawn_blocking(move || service.load(round)).await;
        let internal = |error: &dyn std::fmt::Display| {
            tracing::error!(%round, %error, "failed to load a proof");
            Failure::new(tonic::Code::Internal, "failed to load the proof")
        };
        loaded.map_err(|e| internal(&e))?.map_err(|e| internal(&e))?.ok_or_else(not_found)
    }

    fn load(&self, round: RoundId) -> Result<Option<Arc<EncodedProof>>, StoreError> {
        let Some(record) = self.store.record(round)? else { return Ok(None) };
        let json = crate::json::proof(&record);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        // writing to memory does not fail
        let gzip = std::io::Write::write_all(&mut gzip, json.as_bytes()).and_then(|()| gzip.finish()).unwrap_or_default();
        let proof = Arc::new(EncodedProof { record, json: json.into(), gzip: gzip.into() });
        let mut proofs = self.proofs.lock().unwrap_or_else(PoisonError::into_inner);
        proofs.insert(round, proof.clone());
        while proofs.len() > CACHED_PROOFS {
            proofs.pop_first();
        }
        Ok(Some(proof))
    }

    /// Members by round, for the operator.
    pub fn rounds(&self) -> Result<Vec<(RoundId, u64, bool)>, StoreError> {
        let closed = self.store.closed()?;
        let finished = |round| self.store.is_finished(round);
        closed.into_iter().map(|(round, closed)| Ok((round, closed.members, finished(round)?))).collect()
    }
}

fn busy() -> Failure {
    Failure::new(tonic::Code::Unavailable, "the server is busy, try again")
}

/// A duration as the network writes it.
pub fn wire_duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: duration.subsec_nanos().cast_signed(),
    }
}

fn snapshot(registry: &Registry<Arc<RocksStore>>, running: Option<(RoundId, u64)>) -> Snapshot {
    Snapshot {
        open: registry.open_round(),
        members: registry.open_members(),
        pow: registry.pow_params(),
        running,
        paused: registry.is_paused(),
    }
}

type Answer = (Accepted, oneshot::Sender<Result<Accepted, Refused>>);

/// The thread that owns the registry.
struct Keeper {
    service: Arc<Service>,
    registry: Registry<Arc<RocksStore>>,
    stop: Arc<AtomicBool>,
    commands: SyncSender<Command>,
    /// Who waits for the current batch to be written.
    answers: Vec<Answer>,
    batch_since: Option<Instant>,
    running: Option<(Run, u64, JoinHandle<()>)>,
    retry_at: Option<Instant>,
}

impl Keeper {
    fn run(&mut self, queue: &Receiver<Command>) {
        loop {
            let wait = self
                .batch_since
                .map_or(TICK, |since| self.service.settings.flush_interval.saturating_sub(since.elapsed()).min(TICK));
            match queue.recv_timeout(wait) {
                Ok(command) => self.handle(command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.tick();
            if self.stop.load(Ordering::Relaxed) {
                self.flush();
                // the hashing thread sees the same flag; what it has done is on disk when it ends
                while self.running.as_ref().is_some_and(|(_, _, thread)| !thread.is_finished()) {
                    if let Ok(command) = queue.recv_timeout(TICK) {
                        self.handle(command);
                    }
                }
                for command in queue.try_iter() {
                    self.handle(command);
                }
                self.flush();
                return;
            }
        }
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Register(registration, answer) => {
                self.tick();
                match self.registry.on_register(now(), &registration) {
                    Ok(accepted) => {
                        self.batch_since.get_or_insert_with(Instant::now);
                        self.answers.push((accepted, answer));
                    }
                    Err(refused) => drop(answer.send(Err(refused))),
                }
                if self.answers.len() >= self.service.settings.max_batch.max(1) {
                    self.flush();
                }
            }
            Command::Pause(paused) => self.registry.set_paused(paused),
            Command::Ran(round, outcome) => self.ran(round, outcome),
        }
        self.publish();
    }

    fn tick(&mut self) {
        let due = self.batch_since.is_some_and(|since| since.elapsed() >= self.service.settings.flush_interval);
        if due || now() >= self.registry.next_close() {
            self.flush();
        }
        let open = self.registry.open_round();
        if let Err(error) = self.registry.on_tick(now()) {
            tracing::error!(round = %open, %error, "failed to close a round, trying again");
        }
        if self.registry.open_round() != open {
            tracing::info!(closed = %open, open = %self.registry.open_round(), "closed a round");
            self.publish();
        }
        self.start_round();
    }

    /// Writes the batch and answers everybody in it.
    fn flush(&mut self) {
        self.batch_since = None;
        let started = Instant::now();
        let written = self.registry.flush();
        if let Err(error) = &written {
            tracing::error!(%error, registrations = self.answers.len(), "failed to store registrations");
        }
        if self.answers.is_empty() {
            return;
        }
        let micros = started.elapsed().as_micros() as u64;
        let bucket = (0..20).find(|k| micros as f64 <= 1000.0 * 1.5f64.powi(*k)).unwrap_or(20) as usize;
        self.service.counters.batch_latency[bucket].fetch_add(1, Ordering::Relaxed);
        self.service.counters.batch_latency_sum.fetch_add(micros, Ordering::Relaxed);
        for (accepted, answer) in self.answers.drain(..) {
            // a client that went away does not matter: its registration counts
            let _ = answer.send(if written.is_ok() { Ok(accepted) } else { Err(Refused::Storage) });
        }
    }

    fn publish(&self) {
        let running = self.running.as_ref().map(|(run, members, _)| (run.round, *members));
        *self.service.snapshot.write().unwrap_or_else(PoisonError::into_inner) = snapshot(&self.registry, running);
    }

    fn start_round(&mut self) {
        let resting = self.retry_at.is_some_and(|at| Instant::now() < at);
        if self.running.is_some() || resting || self.stop.load(Ordering::Relaxed) {
            return;
        }
        self.retry_at = None;
        let run = match self.registry.next_run() {
            Ok(Some(run)) => run,
            Ok(None) => return,
            Err(error) => {
                tracing::error!(%error, "failed to find the next round");
                self.retry_at = Some(Instant::now() + RETRY);
                return;
            }
        };
        if self.service.settings.disable_worker {
            // the record then says who registered, and the proof is made elsewhere
            self.store(run.round, PoetProof::default());
            return;
        }
        let settings = &self.service.settings;
        let job = Job {
            statement: run.statement.to_vec(),
            end: run.end,
            folder: settings.work_folder.join(run.round.to_string()),
            lowest_level: settings.lowest_level,
            threads: settings.threads,
            cpu: settings.cpu,
        };
        let (stop, progress, commands) = (self.stop.clone(), self.service.progress.clone(), self.commands.clone());
        let thread = thread::Builder::new().name("poet-hasher".into()).spawn(move || {
            let outcome = job.run(now, &stop, &progress);
            // the registry goes away only after it has joined this thread
            let _ = commands.send(Command::Ran(run.round, outcome));
        });
        match thread {
            Ok(thread) => {
                let members = self.registry.store().count(run.round).unwrap_or(0);
                tracing::info!(round = %run.round, members, ends_in_s = run.end.since(now()).as_secs(), "running a round");
                self.running = Some((run, members, thread));
                self.publish();
            }
            Err(error) => {
                tracing::error!(round = %run.round, %error, "no thread to run a round with");
                self.retry_at = Some(Instant::now() + RETRY);
            }
        }
    }

    fn ran(&mut self, round: RoundId, outcome: Result<Outcome, WorkError>) {
        self.running = None;
        match outcome {
            Ok(Outcome::Finished(proof)) => self.store(round, *proof),
            Ok(Outcome::Stopped) => tracing::info!(%round, "stopped; the round continues at the next start"),
            Err(error) => {
                tracing::error!(%round, %error, "the round failed, trying again");
                self.retry_at = Some(Instant::now() + RETRY);
            }
        }
        self.start_round();
    }

    /// Stores a proof; the work behind it is thrown away only after that.
    fn store(&mut self, round: RoundId, proof: PoetProof) {
        let leaves = proof.leaf_count;
        match self.registry.on_proof(round, proof) {
            Ok(()) => {
                tracing::info!(%round, %leaves, "the round has its proof");
                let folder = self.service.settings.work_folder.join(round.to_string());
                if let Err(error) = std::fs::remove_dir_all(&folder)
                    && error.kind() != std::io::ErrorKind::NotFound
                {
                    tracing::warn!(%round, %error, "failed to remove the round's work");
                }
            }
            Err(error) => {
                tracing::error!(%round, %error, "failed to store a proof, making it again");
                self.retry_at = Some(Instant::now() + RETRY);
            }
        }
        self.publish();
    }
}
