//! The running server behind its network side: checks submissions and drives the [`Registry`].
//!
//! One thread owns the registry; everybody else sends it commands over a bounded queue. It collects registrations into batches,
//! closes rounds at their time, tells workers which round to run, and stores the proofs they bring.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use kernels::posw::Statement;
use proto::{
    grpc::{poet_link_v1, poet_v1 as wire},
    ids::NodeId,
    poet::{Leaves, PoetProof},
};
use tokio::sync::oneshot;

use crate::{
    certificate::{self, CertificateError},
    limit::Limiter,
    metrics::Counters,
    pow::{self, Params},
    proof,
    registry::{Accepted, PlanError, Refused, Registration, Registry},
    runner::Next,
    schedule::{PhaseChange, RoundId, Schedule, Time},
    store::{RocksStore, Store as _, StoreError},
    worker::Progress,
};

/// Commands that may wait for the registry.
const QUEUE: usize = 8192;

/// How often the registry looks at the clock.
const TICK: Duration = Duration::from_millis(20);

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

/// What anybody may know without asking the registry.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The round that takes registrations.
    pub open: RoundId,
    /// Its members.
    pub members: u64,
    /// What proofs of work are made for, the announced one first.
    pub pow: Vec<Params>,
    /// The round that is to be run now, and its members.
    pub running: Option<(RoundId, u64)>,
    /// Whether registration is paused.
    pub paused: bool,
    /// The first round that is not to be run until the operator says so.
    pub held_from: Option<RoundId>,
    /// The rounds' times.
    pub schedule: Schedule,
}

/// Settings of the service.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The most registrations written at once.
    pub max_batch: usize,
    /// The longest a registration waits for others to be written with.
    pub flush_interval: Duration,
    /// Take registrations only and publish the members without a proof.
    pub disable_worker: bool,
    /// Requests per second of one client; any number if zero.
    pub client_rate: u32,
    /// Largest answer of the gRPC side in bytes.
    pub max_grpc_answer: usize,
    /// Where the operator's backups go.
    pub backup_folder: Option<PathBuf>,
    /// Where certifiers can be asked for certificates, as announced.
    pub certifier_url: Option<String>,
}

type Planned = Result<Option<PhaseChange>, PlanError>;

enum Command {
    Register(Registration, oneshot::Sender<Result<Accepted, Refused>>),
    Next(Vec<RoundId>, oneshot::Sender<Next>),
    Deliver(RoundId, Box<PoetProof>, oneshot::Sender<Result<(), Failure>>),
    Pause(bool, oneshot::Sender<()>),
    Hold(bool, oneshot::Sender<Result<(), StoreError>>),
    ChangePhase(Duration, oneshot::Sender<Planned>),
}

/// A proof as it is sent.
#[derive(Debug)]
pub struct EncodedProof {
    /// How much time it proves.
    pub leaves: Leaves,
    /// As a frame of gRPC; nothing if it is too long for one.
    pub grpc: Option<axum::body::Bytes>,
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
    /// Settings.
    pub settings: Settings,
    /// For the metrics page.
    pub counters: Counters,
    /// Requests of each client.
    pub limiter: Limiter,
    /// Of the running round, as far as its worker has told.
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
            commands,
            snapshot: RwLock::new(snapshot(&registry)),
            keys: RwLock::new(keys),
            store: registry.store().clone(),
            proofs: Mutex::default(),
            loading: tokio::sync::Mutex::default(),
            pubkey,
            limiter: Limiter::new(settings.client_rate),
            settings,
            counters: Counters::default(),
            progress: Arc::default(),
        });
        let mut keeper =
            Keeper { service: service.clone(), registry, stop, answers: Vec::new(), batch_since: None, warned: None };
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

    fn command(&self, command: Command) -> Result<(), Failure> {
        self.commands.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => busy(),
            TrySendError::Disconnected(_) => Self::stopping(),
        })
    }

    /// The answer of a server that is going down.
    pub fn stopping() -> Failure {
        Failure::new(tonic::Code::Unavailable, "the server is stopping")
    }

    /// Stops or resumes registration.
    pub async fn pause(&self, paused: bool) -> Result<(), Failure> {
        let (answer, answered) = oneshot::channel();
        self.command(Command::Pause(paused, answer))?;
        answered.await.map_err(|_| Self::stopping())
    }

    /// Lets the rounds that are closed run, and none after them; or all again.
    pub async fn hold(&self, held: bool) -> Result<(), Failure> {
        let (answer, answered) = oneshot::channel();
        self.command(Command::Hold(held, answer))?;
        answered.await.map_err(|_| Self::stopping())?.map_err(|e| Failure::new(tonic::Code::Internal, e.to_string()))
    }

    /// Plans another phase shift for the rounds after the open one.
    pub async fn change_phase(&self, phase_shift: Duration) -> Result<Option<PhaseChange>, Failure> {
        let (answer, answered) = oneshot::channel();
        self.command(Command::ChangePhase(phase_shift, answer))?;
        answered.await.map_err(|_| Self::stopping())?.map_err(|error| {
            let code = match error {
                PlanError::Store(_) => tonic::Code::Internal,
                PlanError::UnderWay(_) => tonic::Code::FailedPrecondition,
            };
            Failure::new(code, error.to_string())
        })
    }

    /// Asks which round is to be run, and which of the rounds `held` by a worker are done.
    pub fn ask_next(&self, held: &[RoundId]) -> Result<oneshot::Receiver<Next>, Failure> {
        let (answer, answered) = oneshot::channel();
        self.command(Command::Next(held.to_vec(), answer))?;
        Ok(answered)
    }

    /// Hands over the proof of a round; it is stored when that is answered.
    pub fn hand_over(&self, round: RoundId, proof: PoetProof) -> Result<oneshot::Receiver<Result<(), Failure>>, Failure> {
        let (answer, answered) = oneshot::channel();
        self.command(Command::Deliver(round, Box::new(proof), answer))?;
        Ok(answered)
    }

    /// Notes how far a worker on another machine is.
    pub fn told(&self, told: &poet_link_v1::Progress) {
        let progress = &self.progress;
        progress.leaves.store(told.leaves, Ordering::Relaxed);
        progress.rate.store(told.leaves_per_second, Ordering::Relaxed);
        progress.rate_on_cpu.store(told.leaves_per_cpu_second, Ordering::Relaxed);
        progress.on_cpu.store(told.on_cpu_permille, Ordering::Relaxed);
        progress.share_of_bound.store(told.share_of_bound_permille, Ordering::Relaxed);
    }

    /// Who this server is.
    pub fn info(&self) -> wire::InfoResponse {
        let own = self.keys().own;
        let url = self.settings.certifier_url.clone();
        let Snapshot { open, schedule, .. } = self.snapshot();
        wire::InfoResponse {
            service_pubkey: self.pubkey.to_vec(),
            phase_shift: Some(wire_duration(schedule.phase_shift_of(open))),
            cycle_gap: Some(wire_duration(schedule.cycle_gap())),
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
        self.command(Command::Register(registration, answer))?;
        let accepted = answered.await.map_err(|_| Self::stopping())??;
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
        let (leaves, grpc) = (record.proof.leaf_count, crate::api::proof_frame(&record));
        let proof = Arc::new(EncodedProof { leaves, grpc, json: json.into(), gzip: gzip.into() });
        let mut proofs = self.proofs.lock().unwrap_or_else(PoisonError::into_inner);
        proofs.insert(round, proof.clone());
        while proofs.len() > CACHED_PROOFS {
            proofs.pop_first();
        }
        Ok(Some(proof))
    }

    /// Members by round, and whether there is a proof, for the operator.
    pub fn rounds(&self) -> Result<Vec<(RoundId, u64, bool)>, StoreError> {
        let (closed, finished) = (self.store.closed()?, self.store.finished()?);
        Ok(closed.into_iter().map(|(round, closed)| (round, closed.members, finished.contains(&round))).collect())
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

fn snapshot(registry: &Registry<Arc<RocksStore>>) -> Snapshot {
    Snapshot {
        open: registry.open_round(),
        members: registry.open_members(),
        pow: registry.pow_params(),
        running: registry.next_run().map(|run| (run.round, run.members)),
        paused: registry.is_paused(),
        held_from: registry.held_from(),
        schedule: *registry.schedule(),
    }
}

type Answer = (Accepted, oneshot::Sender<Result<Accepted, Refused>>);

/// How often the log says that a round waits for the operator.
const REMIND_EVERY: Duration = Duration::from_secs(60);

/// The thread that owns the registry.
struct Keeper {
    service: Arc<Service>,
    registry: Registry<Arc<RocksStore>>,
    stop: Arc<AtomicBool>,
    /// Who waits for the current batch to be written.
    answers: Vec<Answer>,
    batch_since: Option<Instant>,
    warned: Option<Instant>,
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
            self.tick(now());
            if self.stop.load(Ordering::Relaxed) {
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
                // one moment for both: were the round to be closed in between, its batch would be written unseen
                let now = now();
                self.tick(now);
                match self.registry.on_register(now, &registration) {
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
            // who asked and went away asks again
            Command::Next(mut held, answer) => {
                held.retain(|round| self.registry.store().is_finished(*round).unwrap_or(false));
                let run = self.registry.next_run().filter(|_| !self.service.settings.disable_worker);
                drop(answer.send(Next { run, done: held }));
                return;
            }
            // those who get these answers look at the state next
            Command::Deliver(round, proof, answer) => {
                let outcome = self.deliver(round, *proof);
                self.publish();
                drop(answer.send(outcome));
                return;
            }
            Command::Pause(paused, answer) => {
                self.registry.set_paused(paused);
                tracing::info!(paused, "registration by the operator's order");
                self.publish();
                let _ = answer.send(());
                return;
            }
            Command::Hold(held, answer) => {
                let outcome = self.registry.hold(held);
                tracing::info!(from = ?self.registry.held_from(), "rounds held by the operator's order");
                self.publish();
                drop(answer.send(outcome));
                return;
            }
            Command::ChangePhase(phase_shift, answer) => {
                let outcome = self.registry.change_phase(phase_shift);
                tracing::info!(?outcome, "planned the phase shift by the operator's order");
                self.publish();
                drop(answer.send(outcome));
                return;
            }
        }
        self.publish();
    }

    fn tick(&mut self, now: Time) {
        let due = self.batch_since.is_some_and(|since| since.elapsed() >= self.service.settings.flush_interval);
        let closing = now >= self.registry.next_close();
        if due || closing {
            self.flush();
        }
        let open = self.registry.open_round();
        if closing {
            tracing::info!(round = %open, members = self.registry.open_members(), "closing a round");
        }
        if let Err(error) = self.registry.on_tick(now) {
            tracing::error!(round = %open, %error, "failed to close a round, trying again");
        }
        if self.registry.open_round() != open {
            tracing::info!(closed = %open, open = %self.registry.open_round(), "closed");
            self.publish();
        }
        while let Some(run) = self.registry.next_run().filter(|_| self.service.settings.disable_worker) {
            // the record then says who registered, and the proof is made elsewhere
            if let Err(error) = self.registry.on_proof(run.round, PoetProof::default()) {
                tracing::error!(round = %run.round, %error, "failed to store the members of a round, trying again");
                break;
            }
            self.publish();
        }
        if let Some(round) = self.registry.held().next()
            && self.warned.is_none_or(|warned| warned.elapsed() >= REMIND_EVERY)
        {
            tracing::warn!(%round, "a round with members is held by the operator: it loses leaves");
            self.warned = Some(Instant::now());
        }
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
        self.service.counters.batch_write.observe(started.elapsed());
        for (accepted, answer) in self.answers.drain(..) {
            // a client that went away does not matter: its registration counts
            let _ = answer.send(if written.is_ok() { Ok(accepted) } else { Err(Refused::Storage) });
        }
    }

    fn publish(&self) {
        *self.service.snapshot.write().unwrap_or_else(PoisonError::into_inner) = snapshot(&self.registry);
    }

    /// Stores a proof, unless it is none.
    fn deliver(&mut self, round: RoundId, proof: PoetProof) -> Result<(), Failure> {
        let failed = |error: StoreError| {
            tracing::error!(%round, %error, "failed to store a proof");
            Failure::new(tonic::Code::Internal, "failed to store the proof")
        };
        let Some(statement) = self.registry.statement(round) else {
            // handed over before
            let known = self.registry.store().is_finished(round).map_err(failed)?;
            return if known { Ok(()) } else { Err(Failure::new(tonic::Code::InvalidArgument, "there is no such round")) };
        };
        proof::verify(&Statement::new(&statement), &proof)
            .map_err(|error| Failure::new(tonic::Code::InvalidArgument, error.to_string()))?;
        let leaves = proof.leaf_count;
        self.registry.on_proof(round, proof).map_err(failed)?;
        tracing::info!(%round, %leaves, "stored the proof of a round");
        Ok(())
    }
}
