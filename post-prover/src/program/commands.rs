//! The commands that do one thing and end.

mod measure;
mod verify;

use std::{
    collections::BTreeMap,
    fs, io,
    io::{IsTerminal as _, Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use kernels::{
    pow::{BuildOptions, Mode as PowMode, RandomX, Shared},
    scan::{Backend, NONCES_PER_GROUP},
};
use proto::{
    ids::Challenge,
    post::{Metadata, Params, Proof},
};

pub use measure::{bench, scan_file, tune};
pub(crate) use measure::{disk_rates, hash_rate, random_labels, scan_rate};
pub use verify::verify;

use super::{
    Failure,
    choose::{Occasion, Rates},
    cli::{ProveArgs, RehearseArgs, StatusArgs, WorkArgs},
    k2pow::{RemoteOptions, RemotePow},
    log_to_stderr, stop_on_signals,
};
use crate::{
    data::{DataError, DataSet},
    prove::{Job, LocalPow, Open, Options, Phase, PowSource, Progress},
    read::Disk,
    state::{STATE_FILE, StateFile, replace},
    verify::{Claim, Mode, Request, Verifier},
};

/// The parameters of a network with the size of a unit taken from the data, unless told otherwise.
fn params_for(args: &super::cli::ParamArgs, metadata: &Metadata) -> Params {
    Params { labels_per_unit: args.labels_per_unit.unwrap_or(metadata.labels_per_unit), ..args.params() }
}

/// Time for a proof: as the network says, else twelve hours.
pub(super) fn window_of(params: &Params) -> Duration {
    Duration::from_secs(params.proving_window.unwrap_or(12 * 3600))
}

/// Makes one proof, verifies it and writes it to a file.
pub fn prove(args: &ProveArgs) -> Result<(), Failure> {
    log_to_stderr();
    let stop = stop_on_signals()?;
    let data = DataSet::open(&args.data_dir)?;
    // a service that works on the same data would use the same state
    let _lock = args.data_dir.first().map(|dir| super::serve::lock(dir)).transpose()?;
    let params = params_for(&args.params, data.metadata());
    let proof = make_proof(&data, &args.challenge, &params, &args.work, state_path(&data), &stop)?;
    let text = serde_json::to_string(&proof)?;
    replace(&args.out, text.as_bytes()).map_err(|source| DataError::Io { path: args.out.clone(), source })?;
    println!("proof with nonce {} written to {}", proof.nonce, args.out.display());
    Ok(())
}

/// Where the state of the data is kept: beside its metadata.
pub(super) fn state_path(data: &DataSet) -> Option<PathBuf> {
    data.dirs().first().map(|dir| dir.join(STATE_FILE))
}

/// Makes a proof for a random challenge.
pub fn rehearse(args: &RehearseArgs) -> Result<(), Failure> {
    log_to_stderr();
    let stop = stop_on_signals()?;
    let data = DataSet::open(&args.data_dir)?;
    let params = params_for(&args.params, data.metadata());
    // Nobody can prepare for the time of day in nanoseconds, and nothing more is needed.
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos();
    let challenge = Challenge(blake3::hash(&seed.to_le_bytes()).into());
    let started = Instant::now();
    let proof = make_proof(&data, &challenge, &params, &args.work, None, &stop)?;
    let took = started.elapsed();
    let window = window_of(&params);
    println!(
        "a valid proof (nonce {}) took {}, {:.1} % of the window of {} h",
        proof.nonce,
        human(took),
        took.as_secs_f64() / window.as_secs_f64() * 100.0,
        window.as_secs() / 3600,
    );
    Ok(())
}

/// `1 h 02 min`, `3 min 20 s` or `4.5 s`.
pub(super) fn human(time: Duration) -> String {
    match time.as_secs() {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        s @ 60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        s => format!("{} h {:02} min", s / 3600, s / 60 % 60),
    }
}

fn make_proof(
    data: &DataSet,
    challenge: &Challenge,
    params: &Params,
    work: &WorkArgs,
    state: Option<PathBuf>,
    stop: &AtomicBool,
) -> Result<Proof, Failure> {
    let metadata = data.metadata();
    params.check_units(metadata.num_units).map_err(|e| Failure::Invalid(e.to_string()))?;
    let mut state = match state {
        Some(path) => {
            StateFile::open(path.clone(), metadata, params, challenge).map_err(|source| DataError::Io { path, source })?
        }
        None => StateFile::in_memory(),
    };
    let threads = work.threads();
    let mode = work.randomx_mode;
    let randomx = Shared::new(BuildOptions { mode, large_pages: work.randomx_large_pages, threads });
    let remote = if work.remote_k2pow.is_empty() {
        None
    } else {
        let token = work.k2pow_token_file.as_deref().map(super::k2pow::read_token).transpose()?;
        let options = RemoteOptions { urls: work.remote_k2pow.clone(), token, ..RemoteOptions::default() };
        Some(RemotePow::new(options).map_err(Failure::Usage)?)
    };
    let local = LocalPow { randomx: &randomx, threads };
    let pow: &dyn PowSource = remote.as_ref().map_or(&local as _, |remote| remote as _);
    let occasion = Occasion {
        data,
        params,
        state: &state.state,
        threads,
        window: window_of(params),
        randomx: remote.is_none().then_some(&randomx),
        gate: &Open,
        stop,
    };
    let nonces = Rates::default().choose(work.nonces.0, &occasion)?;
    let progress = Progress::default();
    let job = Job {
        data,
        challenge,
        params,
        options: Options { nonces, threads, backend: Backend::best() },
        source: &Disk::default(),
        pow,
        gate: &Open,
        progress: &progress,
        stop,
    };
    let warn = |e: &io::Error| eprintln!("post-prover: warning: failed to keep the position, a restart will begin anew: {e}");
    let over = AtomicBool::new(false);
    let proof = thread::scope(|scope| {
        scope.spawn(|| report(&progress, data.layout().num_bytes(), &over));
        let proof = job.run(&mut state, &warn);
        over.store(true, Ordering::Relaxed);
        proof
    })?;
    let claim = Claim {
        node_id: metadata.node_id,
        commitment_atx_id: metadata.commitment_atx_id,
        challenge: *challenge,
        num_units: metadata.num_units,
    };
    drop(randomx);
    let verdict = check(&proof, &claim, params, stop)?;
    if let Err(why) = verdict {
        state.state.proof = None;
        state.save()?;
        return Err(Failure::Invalid(format!(
            "the proof made from this data is not valid: {why}; check the data and --scrypt-n"
        )));
    }
    Ok(proof)
}

/// Verifies a proof of our own completely.
pub(super) fn check(
    proof: &Proof,
    claim: &Claim,
    params: &Params,
    stop: &AtomicBool,
) -> Result<crate::verify::Verdict, crate::verify::VerifyError> {
    let light = BuildOptions { mode: PowMode::Light, large_pages: false, threads: 1 };
    let randomx = RandomX::build(light, stop, &AtomicU64::new(0))?;
    Verifier::new(&randomx)?.verify(&Request { proof, claim, params, mode: &Mode::All })
}

/// Tells on stderr where the run is, until it is over.
fn report(progress: &Progress, total: u64, over: &AtomicBool) {
    let every = if io::stderr().is_terminal() { Duration::from_secs(2) } else { Duration::from_secs(30) };
    let mut last = Instant::now();
    while !over.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(50));
        if last.elapsed() < every {
            continue;
        }
        last = Instant::now();
        let now = progress.get();
        let nonces = format!("nonces {}..{}", now.first_nonce, now.end_nonce);
        let hashes = progress.hashes.load(Ordering::Relaxed);
        let left = now.remaining(hashes, total).map_or_else(String::new, |time| format!(", {} left", human(time)));
        match now.phase {
            Phase::Pow => eprintln!(
                "{nonces}: k2pow {} of {}, {hashes} hashes{left}",
                now.pows_found,
                (now.end_nonce - now.first_nonce) / NONCES_PER_GROUP,
            ),
            Phase::Reading => eprintln!(
                "{nonces}: {:.1} % read, {:.0} MB/s{left}",
                now.scanned as f64 / total as f64 * 100.0,
                now.read_rate().unwrap_or(0.0) / 1e6
            ),
            other => eprintln!("{nonces}: {}", other.name()),
        }
    }
}

/// Prints what the operator API of a running service tells.
pub fn status(args: &StatusArgs) -> Result<(), Failure> {
    let address = args.operator_address;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))
        .map_err(|e| Failure::Failed(format!("failed to reach the service at {address}: {e}").into()))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET /identities HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(16 << 20).read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    // The answer has a known length and is not chunked; anything else is not our service.
    let identities: Vec<BTreeMap<String, serde_json::Value>> =
        serde_json::from_str(body).map_err(|e| Failure::Failed(format!("{address} is not a post-prover: {e}").into()))?;
    println!("{}", serde_json::to_string_pretty(&identities)?);
    Ok(())
}

/// Reads a file of at most `limit` bytes.
fn read_limited(path: &std::path::Path, limit: u64) -> Result<Vec<u8>, Failure> {
    let io = |source| DataError::Io { path: path.to_owned(), source };
    let mut contents = Vec::new();
    fs::File::open(path).map_err(io)?.take(limit + 1).read_to_end(&mut contents).map_err(io)?;
    if contents.len() as u64 > limit {
        return Err(Failure::Usage(format!("{} is longer than {limit} bytes", path.display())));
    }
    Ok(contents)
}

/// For threads that share it.
type Stop = Arc<AtomicBool>;
