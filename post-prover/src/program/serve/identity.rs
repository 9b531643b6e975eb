//! One identity: its session, the thread that makes its proofs, and what there is to tell about it.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use kernels::{
    pow::{BuildOptions, Shared},
    scan::Backend,
};
use proto::{
    grpc::spacemesh_v1 as wire,
    ids::{Challenge, NodeId},
    post::{Metadata, Proof},
};
use serde_json::{Value, json};

use super::config::IdentityConfig;
use crate::{
    data::{DataSet, read_metadata},
    disk::disks_of,
    program::{
        Failure, chain,
        choose::{Occasion, Rates},
        commands::{check, state_path, window_of},
        k2pow::{RemoteOptions, RemotePow},
        schedule::{Scheduler, Turnstile},
        session::{Answer, Session},
    },
    prove::{Job, LocalPow, Options, PowSource, Progress, ProveError},
    read::{Disk, Source},
    state::StateFile,
    verify::Claim,
};

/// Ended runs told to operators.
const HISTORY: usize = 50;
/// Parts of the window, in percent, at which a run that is not done is worth an alarm.
const ALARMS: [u32; 3] = [50, 75, 90];

/// What all identities of a machine share.
pub struct Machine {
    /// The memory of RandomX.
    pub randomx: Shared,
    /// Who may read which disk, and search.
    pub scheduler: Scheduler,
    /// What disks and cores were measured to do.
    pub rates: Rates,
    /// How files are read.
    pub source: Box<dyn Source + Send>,
}

impl Machine {
    /// Nothing is built or measured yet.
    pub fn new(options: BuildOptions) -> Self {
        let (randomx, scheduler, rates) = (Shared::new(options), Scheduler::default(), Rates::default());
        Self { randomx, scheduler, rates, source: Box::new(Disk::default()) }
    }
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").field("randomx", &self.randomx).field("scheduler", &self.scheduler).finish_non_exhaustive()
    }
}

/// An identity and its proofs.
#[derive(Debug)]
pub struct Identity {
    metadata: Metadata,
    disks: BTreeSet<String>,
    config: Mutex<Arc<IdentityConfig>>,
    machine: Arc<Machine>,
    state: Mutex<State>,
    /// Whether the node is connected.
    pub connected: AtomicBool,
    /// Ended runs.
    pub proofs: AtomicU64,
    /// Failed runs.
    pub errors: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    session: Session,
    run: Option<Run>,
    last_error: Option<String>,
    history: VecDeque<Value>,
    stopped: bool,
}

#[derive(Debug)]
struct Run {
    challenge: Challenge,
    started: Instant,
    window: Duration,
    alarms: usize,
    progress: Arc<Progress>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Numbers runs for the scheduler.
static NEXT_RUN: AtomicU64 = AtomicU64::new(0);

impl Identity {
    /// Reads the metadata, once and for all; the data is looked at when a proof is asked for.
    pub fn new(config: IdentityConfig, machine: Arc<Machine>) -> Result<Self, Failure> {
        let (_, metadata) = read_metadata(&config.data_dirs)?;
        let disks = disks_of(&config.data_dirs, &config.disks)?.into_iter().collect();
        Ok(Self {
            metadata,
            disks,
            config: Mutex::new(Arc::new(config)),
            machine,
            state: Mutex::default(),
            connected: AtomicBool::new(false),
            proofs: AtomicU64::new(0),
            errors: AtomicU64::new(0),
        })
    }

    /// Who it is.
    pub const fn node_id(&self) -> NodeId {
        self.metadata.node_id
    }

    /// Names of the disks its data lies on.
    pub const fn disks(&self) -> &BTreeSet<String> {
        &self.disks
    }

    /// The settings as they are now.
    pub fn config(&self) -> Arc<IdentityConfig> {
        Arc::clone(&self.config.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// New settings, for the next run and the next connection.
    pub fn configure(&self, config: IdentityConfig) {
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn meta(&self) -> wire::Metadata {
        let m = &self.metadata;
        wire::Metadata {
            node_id: m.node_id.0.to_vec(),
            commitment_atx_id: m.commitment_atx_id.0.to_vec(),
            nonce: m.nonce,
            num_units: m.num_units.0,
            labels_per_unit: m.labels_per_unit,
        }
    }

    /// The answer to a node's request, at once (post.md section 15.2).
    pub fn answer(self: &Arc<Self>, request: wire::NodeRequest) -> wire::ServiceResponse {
        use wire::{node_request, service_response::Kind};
        let kind = match request.kind {
            Some(node_request::Kind::Metadata(_)) => Kind::Metadata(wire::MetadataResponse { meta: Some(self.meta()) }),
            Some(node_request::Kind::GenProof(request)) => Kind::GenProof(self.gen_proof(&request.challenge)),
            None => {
                tracing::warn!(identity = %self.node_id(), "the node sent a request of no kind");
                Kind::GenProof(error_response())
            }
        };
        wire::ServiceResponse { kind: Some(kind) }
    }

    fn gen_proof(self: &Arc<Self>, challenge: &[u8]) -> wire::GenProofResponse {
        let pending = wire::GenProofResponse { status: wire::GenProofStatus::Ok.into(), proof: None, metadata: None };
        let mut state = self.lock();
        if state.stopped {
            return error_response();
        }
        match state.session.on_request(challenge) {
            Answer::Start(challenge) => {
                self.start(&mut state, challenge);
                pending
            }
            Answer::Pending => pending,
            Answer::Proof(challenge, proof) => wire::GenProofResponse {
                proof: Some(wire::Proof { nonce: proof.nonce, indices: proof.indices.clone(), pow: proof.pow }),
                metadata: Some(wire::ProofMetadata { challenge: challenge.0.to_vec(), meta: Some(self.meta()) }),
                ..pending
            },
            Answer::Error(why) => {
                tracing::warn!(identity = %self.node_id(), "the node's request is answered with an error: {why}");
                error_response()
            }
        }
    }

    fn start(self: &Arc<Self>, state: &mut State, challenge: Challenge) {
        let config = self.config();
        let params = config.params(&self.metadata);
        // Seconds from a configuration that was checked.
        let window = config.window.and_then(|w| Duration::try_from_secs_f64(w).ok()).unwrap_or_else(|| window_of(&params));
        let (progress, stop) = (Arc::new(Progress::default()), Arc::new(AtomicBool::new(false)));
        tracing::info!(identity = %self.node_id(), %challenge, "making a proof");
        let thread = {
            let (identity, progress, stop) = (Arc::clone(self), Arc::clone(&progress), Arc::clone(&stop));
            thread::Builder::new().name("prove".to_owned()).spawn(move || {
                let result = identity.prove(&config, challenge, window, &progress, &stop);
                identity.finished(challenge, result);
            })
        };
        match thread {
            Ok(thread) => {
                let thread = Some(thread);
                state.run = Some(Run { challenge, started: Instant::now(), window, alarms: 0, progress, stop, thread });
            }
            Err(error) => state.session.on_finished(challenge, Err(format!("failed to start a thread: {error}"))),
        }
    }

    /// Makes a proof and verifies it; `None` when stopped.
    fn prove(
        &self,
        config: &IdentityConfig,
        challenge: Challenge,
        window: Duration,
        progress: &Progress,
        stop: &AtomicBool,
    ) -> Result<Option<Proof>, String> {
        let data = DataSet::open_on(&config.data_dirs, &config.disks).map_err(|e| chain(&e))?;
        if !same_data(data.metadata(), &self.metadata) {
            return Err("the metadata was changed since the service was started; restart it".to_owned());
        }
        let params = config.params(&self.metadata);
        let path = state_path(&data).unwrap_or_default();
        let mut state = StateFile::open(path.clone(), &self.metadata, &params, &challenge)
            .map_err(|e| format!("failed to read {}: {e}", path.display()))?;
        let remote = if config.remote_k2pow.is_empty() {
            None
        } else {
            let options = RemoteOptions {
                urls: config.remote_k2pow.clone(),
                token: config.k2pow_token.clone(),
                parallelism: config.remote_k2pow_parallelism,
                backoff: Duration::from_secs(config.remote_k2pow_backoff),
                ..RemoteOptions::default()
            };
            Some(RemotePow::new(options)?)
        };
        let local = LocalPow { randomx: &self.machine.randomx, threads: config.threads };
        let gate = Turnstile {
            scheduler: &self.machine.scheduler,
            run: NEXT_RUN.fetch_add(1, Ordering::Relaxed),
            deadline: Instant::now() + window,
            disks: self.disks.clone(),
            local_pow: remote.is_none(),
        };
        let occasion = Occasion {
            data: &data,
            params: &params,
            state: &state.state,
            threads: config.threads,
            window,
            randomx: remote.is_none().then_some(&self.machine.randomx),
            gate: &gate,
            stop,
        };
        let nonces = match self.machine.rates.choose(config.nonces, &occasion) {
            Ok(nonces) => nonces,
            Err(ProveError::Stopped) => return Ok(None),
            Err(error) => return Err(chain(&error)),
        };
        let job = Job {
            data: &data,
            challenge: &challenge,
            params: &params,
            options: Options { nonces, threads: config.threads, backend: Backend::best() },
            source: &*self.machine.source,
            pow: remote.as_ref().map_or(&local as &dyn PowSource, |remote| remote as _),
            gate: &gate,
            progress,
            stop,
        };
        let warn = |e: &std::io::Error| {
            tracing::warn!(identity = %self.node_id(), "the position is not kept, a restart will begin anew: {e}");
        };
        let proof = match job.run(&mut state, &warn) {
            Ok(proof) => proof,
            Err(ProveError::Stopped) => return Ok(None),
            Err(error) => return Err(chain(&error)),
        };
        let claim = Claim {
            node_id: self.metadata.node_id,
            commitment_atx_id: self.metadata.commitment_atx_id,
            challenge,
            num_units: self.metadata.num_units,
        };
        match check(&proof, &claim, &params, stop) {
            Ok(Ok(())) => Ok(Some(proof)),
            Ok(Err(why)) => {
                // Made again from the start next time.
                state.state.proof = None;
                state.state.pows.clear();
                state.save().unwrap_or_else(|e| warn(&e));
                Err(format!("the proof made from this data is not valid: {why}; check the data"))
            }
            Err(_) if stop.load(Ordering::Relaxed) => Ok(None),
            Err(error) => Err(chain(&error)),
        }
    }

    fn finished(&self, challenge: Challenge, result: Result<Option<Proof>, String>) {
        let mut state = self.lock();
        let took = state.run.as_ref().map_or(Duration::ZERO, |run| run.started.elapsed());
        let mut entry = json!({
            "challenge": challenge.to_string(),
            "seconds": took.as_secs_f64(),
            "ended": SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs()),
        });
        match result {
            Ok(Some(proof)) => {
                tracing::info!(identity = %self.node_id(), nonce = proof.nonce, seconds = took.as_secs(), "proof made");
                self.proofs.fetch_add(1, Ordering::Relaxed);
                entry["nonce"] = proof.nonce.into();
                state.last_error = None;
                state.session.on_finished(challenge, Ok(Arc::new(proof)));
            }
            Ok(None) => {
                state.session.on_stopped(challenge);
                return;
            }
            Err(why) => {
                tracing::error!(identity = %self.node_id(), "no proof: {why}");
                self.errors.fetch_add(1, Ordering::Relaxed);
                entry["error"] = why.clone().into();
                state.last_error = Some(why.clone());
                state.session.on_finished(challenge, Err(why));
            }
        }
        state.history.push_back(entry);
        if state.history.len() > HISTORY {
            state.history.pop_front();
        }
    }

    /// Tells when a run takes a large part of its window.
    pub fn alarms(&self) {
        let mut state = self.lock();
        if !matches!(state.session, Session::Running(_)) {
            return;
        }
        let Some(run) = &mut state.run else { return };
        let percent = run.started.elapsed().as_secs_f64() / run.window.as_secs_f64() * 100.0;
        while let Some(alarm) = ALARMS.get(run.alarms).filter(|alarm| percent >= f64::from(**alarm)) {
            run.alarms += 1;
            let phase = run.progress.get().phase.name();
            tracing::warn!(identity = %self.metadata.node_id, phase, "{alarm} % of the window have passed without a proof");
        }
    }

    /// Ends the run within a second and answers nothing more.
    pub fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        if let Some(run) = &state.run {
            run.stop.store(true, Ordering::Relaxed);
        }
    }

    /// Waits for the end of the run.
    pub fn join(&self) {
        let thread = self.lock().run.as_mut().and_then(|run| run.thread.take());
        if let Some(thread) = thread {
            // A panic was reported by the thread itself.
            let _ = thread.join();
        }
    }

    /// The state in the deployed form (post.md section 15.4).
    pub fn status(&self) -> Value {
        let state = self.lock();
        match (&state.session, &state.run) {
            (Session::Running(_), Some(run)) => {
                let now = run.progress.get();
                json!({ "Proving": { "nonces": { "start": now.first_nonce, "end": now.end_nonce }, "position": now.position } })
            }
            (Session::Done(..), _) => json!("DoneProving"),
            _ => json!("Idle"),
        }
    }

    /// Everything there is to tell.
    pub fn report(&self) -> Value {
        let config = self.config();
        let state = self.lock();
        let mut report = json!({
            "node_id": self.metadata.node_id.to_string(),
            "num_units": self.metadata.num_units.0,
            "data_dirs": config.data_dirs,
            "disks": self.disks,
            "node": config.node,
            "connected": self.connected.load(Ordering::Relaxed),
            "state": match state.session { Session::Idle => "idle", Session::Running(_) => "proving", Session::Done(..) => "done" },
            "last_error": state.last_error,
            "history": state.history,
        });
        if let (Session::Running(_), Some(run)) = (&state.session, &state.run) {
            let now = run.progress.get();
            let hashes = run.progress.hashes.load(Ordering::Relaxed);
            report["run"] = json!({
                "challenge": run.challenge.to_string(),
                "phase": now.phase.name(),
                "nonces": [now.first_nonce, now.end_nonce],
                "pows_found": now.pows_found,
                "hashes": hashes,
                "randomx_bytes": self.machine.randomx.progress(),
                "position": now.position,
                "scanned": now.scanned,
                "bytes": self.bytes(),
                "seconds": run.started.elapsed().as_secs_f64(),
                "window_seconds": run.window.as_secs_f64(),
                "eta_seconds": now.remaining(hashes, self.bytes()).map(|time| time.as_secs_f64()),
            });
        }
        report
    }

    fn bytes(&self) -> u64 {
        self.metadata.layout().map_or(0, |layout| layout.num_bytes())
    }

    /// Samples for Prometheus: name and value.
    pub fn metrics(&self) -> [(&'static str, f64); 7] {
        let state = self.lock();
        let proving = matches!(state.session, Session::Running(_));
        let (position, window) = match &state.run {
            Some(run) if proving => (run.progress.get().position, run.started.elapsed().as_secs_f64() / run.window.as_secs_f64()),
            _ => (0, 0.0),
        };
        [
            ("post_prover_connected", f64::from(u8::from(self.connected.load(Ordering::Relaxed)))),
            ("post_prover_proving", f64::from(u8::from(proving))),
            ("post_prover_position_bytes", position as f64),
            ("post_prover_data_bytes", self.bytes() as f64),
            ("post_prover_window_used_ratio", window),
            ("post_prover_proofs_total", self.proofs.load(Ordering::Relaxed) as f64),
            ("post_prover_errors_total", self.errors.load(Ordering::Relaxed) as f64),
        ]
    }
}

fn same_data(a: &Metadata, b: &Metadata) -> bool {
    let identity = |m: &Metadata| (m.node_id, m.commitment_atx_id, m.labels_per_unit, m.num_units, m.max_file_size);
    identity(a) == identity(b)
}

fn error_response() -> wire::GenProofResponse {
    wire::GenProofResponse { status: wire::GenProofStatus::Error.into(), proof: None, metadata: None }
}
