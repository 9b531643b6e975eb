//! The command lines of the official programs, so that nodes and scripts that start them can start this one under their names
//! (`docs/spec/post.md` sections 15.3, 16 and 18).

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::atomic::AtomicU64,
    time::{Duration, Instant},
};

use clap::{Args, Parser, Subcommand};
use kernels::{
    pow::{BuildOptions, Mode as PowMode, Puzzle, RandomX, search},
    scan::Difficulty,
};
use proto::{
    ids::{Challenge, NodeId},
    post::{Preset, ScryptN},
};
use serde_json::json;

use super::{
    Failure, all_cores,
    cli::{ParamArgs, parse_difficulty},
    commands::scan_file,
    k2pow,
    serve::{
        config::{Config, IdentityConfig, Reconnect, Tls},
        register::parse_address,
        serve,
    },
    stop_on_signals,
};
use crate::prove::Nonces;

fn mainnet_difficulty() -> String {
    hex::encode(Preset::Mainnet.params().pow_difficulty)
}

/// Options of `post-service` (post.md section 15.3).
#[derive(Debug, Parser)]
#[command(name = "post-service", version)]
pub struct PostService {
    /// Directory of the data
    #[arg(short, long)]
    dir: PathBuf,
    /// Address of the node
    #[arg(short, long)]
    address: String,
    /// Seconds between tries to connect
    #[arg(long, default_value_t = 5)]
    reconnect_interval_s: u64,
    /// Failed tries in a row after which to give up
    #[arg(long)]
    max_retries: Option<u64>,
    /// Process whose end ends the service
    #[arg(long)]
    watch_pid: Option<u32>,
    /// Address of the operator API
    #[arg(long)]
    operator_address: Option<SocketAddr>,
    /// Fewest units allowed
    #[arg(long, default_value_t = 4)]
    min_num_units: u32,
    /// Most units allowed
    #[arg(long, default_value_t = u32::MAX)]
    max_num_units: u32,
    /// Expected number of good labels per nonce
    #[arg(long, default_value_t = 26)]
    k1: u32,
    /// Good labels a proof must show
    #[arg(long, default_value_t = 37)]
    k2: u32,
    /// k2pow threshold for one unit
    #[arg(long, default_value_t = mainnet_difficulty())]
    pow_difficulty: String,
    /// Cost of the label function
    #[arg(short, default_value_t = 8192)]
    n: u64,
    /// Always 1
    #[arg(short, default_value_t = 1)]
    r: u64,
    /// Always 1
    #[arg(short, default_value_t = 1)]
    p: u64,
    /// Threads; 0 stands for all cores
    #[arg(long, required_unless_present = "pinned_cores")]
    threads: Option<usize>,
    /// Cores to use: as many threads as cores, and all threads stay on them
    #[arg(long, value_delimiter = ',')]
    pinned_cores: Option<Vec<usize>>,
    /// Nonces per pass
    #[arg(long, default_value = "128")]
    nonces: Nonces,
    /// fast or light
    #[arg(long, default_value = "fast")]
    randomx_mode: PowMode,
    /// CA certificate the node's certificate is checked with
    #[arg(long, requires_all = ["cert", "key"])]
    ca_cert: Option<PathBuf>,
    /// Certificate to show the node
    #[arg(long, requires_all = ["ca_cert", "key"])]
    cert: Option<PathBuf>,
    /// Its key
    #[arg(long, requires_all = ["ca_cert", "cert"])]
    key: Option<PathBuf>,
    /// Name the node's certificate must have
    #[arg(long)]
    domain: Option<String>,
    /// k2pow worker
    #[arg(long)]
    remote_k2pow: Option<String>,
    /// Jobs the worker gets at a time
    #[arg(long, default_value_t = 5)]
    remote_k2pow_parallelism: usize,
    /// Seconds between two questions about a job
    #[arg(long, default_value_t = 5)]
    remote_k2pow_backoff: u64,
}

impl PostService {
    fn config(&self) -> Result<Config, Failure> {
        let usage = |e: String| Failure::Usage(e);
        if (self.r, self.p) != (1, 1) {
            return Err(Failure::Usage("only -r 1 -p 1 are supported".to_owned()));
        }
        let tls = match (&self.ca_cert, &self.cert, &self.key) {
            (Some(ca_cert), Some(cert), Some(key)) => {
                Some(Tls { ca_cert: ca_cert.clone(), cert: cert.clone(), key: key.clone(), domain: self.domain.clone() })
            }
            _ => None,
        };
        let node = parse_address(&self.address).map_err(usage)?;
        if node.starts_with("https:") && tls.is_none() {
            return Err(Failure::Usage("https needs --ca-cert, --cert and --key".to_owned()));
        }
        let threads = match (&self.pinned_cores, self.threads) {
            (Some(cores), _) => cores.len().max(1),
            (None, Some(0) | None) => all_cores(),
            (None, Some(threads)) => threads,
        };
        let identity = IdentityConfig {
            data_dirs: vec![self.dir.clone()],
            disks: Vec::new(),
            node,
            tls,
            network: ParamArgs {
                preset: None,
                scrypt_n: Some(ScryptN::new(self.n).map_err(|e| usage(e.to_string()))?),
                labels_per_unit: None,
                k1: Some(self.k1),
                k2: Some(self.k2),
                pow_difficulty: Some(parse_difficulty(&self.pow_difficulty).map_err(usage)?),
                min_num_units: Some(self.min_num_units),
                max_num_units: Some(self.max_num_units),
            },
            nonces: Some(self.nonces),
            threads,
            window: None,
            remote_k2pow: self.remote_k2pow.iter().cloned().collect(),
            remote_k2pow_parallelism: self.remote_k2pow_parallelism,
            remote_k2pow_backoff: self.remote_k2pow_backoff,
            k2pow_token: None,
            reconnect: Reconnect {
                interval: self.reconnect_interval_s,
                at_most: self.reconnect_interval_s,
                max_retries: self.max_retries,
            },
        };
        Ok(Config {
            operator_address: self.operator_address,
            randomx_mode: self.randomx_mode,
            large_pages: false,
            identities: vec![identity],
        })
    }
}

/// Runs as `post-service`.
pub fn post_service(args: &PostService) -> Result<(), Failure> {
    if let Some(cores) = &args.pinned_cores {
        stay_on(cores)?;
    }
    serve(&|| args.config(), args.watch_pid)
}

/// Keeps the program on some cores, with all threads it begins from now on.
#[cfg(target_os = "linux")]
fn stay_on(cores: &[usize]) -> Result<(), Failure> {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let mut wanted = CpuSet::new();
    for core in cores {
        if *core >= CpuSet::MAX_CPU {
            return Err(Failure::Usage(format!("there is no core {core}")));
        }
        wanted.set(*core);
    }
    sched_setaffinity(None, &wanted).map_err(|e| Failure::Usage(format!("failed to stay on cores {cores:?}: {e}")))?;
    let given = sched_getaffinity(None)?;
    match cores.iter().find(|core| !given.is_set(**core)) {
        Some(core) => Err(Failure::Usage(format!("there is no core {core} for this program"))),
        None => Ok(()),
    }
}

/// Other systems have no common way to do that.
#[cfg(not(target_os = "linux"))]
fn stay_on(_: &[usize]) -> Result<(), Failure> {
    eprintln!("post-prover: warning: cores cannot be chosen on this system, only their number counts");
    Ok(())
}

/// Options of `k2pow-service` (post.md section 16).
#[derive(Debug, Parser)]
#[command(name = "k2pow-service", version)]
pub struct K2powService {
    /// Address to listen on
    #[arg(short, long, default_value = "0.0.0.0:3000")]
    bind_address: SocketAddr,
    /// Cores; 0 stands for all
    #[arg(long, default_value_t = 0)]
    cores: u8,
    /// fast or light
    #[arg(long, default_value = "fast")]
    randomx_mode: PowMode,
    /// Use reserved large pages
    #[arg(long)]
    randomx_large_pages: bool,
}

/// Runs as `k2pow-service`: without a queue and a token, as that one.
pub fn k2pow_service(args: &K2powService) -> Result<(), Failure> {
    k2pow::serve(&k2pow::Config {
        address: args.bind_address,
        threads: if args.cores == 0 { all_cores() } else { args.cores.into() },
        mode: args.randomx_mode,
        large_pages: args.randomx_large_pages,
        queue: 0,
        token: None,
    })
}

/// Options of `profiler` (post.md section 18).
#[derive(Debug, Parser)]
#[command(name = "profiler", version, args_conflicts_with_subcommands = true)]
pub struct Profiler {
    #[command(subcommand)]
    command: Option<ProfilerCommand>,
    #[command(flatten)]
    proving: Proving,
}

#[derive(Debug, Subcommand)]
enum ProfilerCommand {
    /// Measure reading and scanning
    Proving(Proving),
    /// Measure k2pow
    Pow(Pow),
}

#[derive(Debug, Args)]
struct Proving {
    /// File to read; a random one is made when absent
    #[arg(long)]
    data_file: Option<PathBuf>,
    /// Size of the random file, GiB
    #[arg(long, default_value_t = 1)]
    data_size: u64,
    /// Seconds to measure
    #[arg(long, default_value_t = 10)]
    duration: u64,
    /// Threads
    #[arg(short, long, default_value_t = 4)]
    threads: usize,
    /// Nonces
    #[arg(short, long, default_value = "64")]
    nonces: Nonces,
}

#[derive(Debug, Args)]
struct Pow {
    /// Searches
    #[arg(short, long, default_value_t = 5)]
    iterations: u32,
    /// Threads
    #[arg(short, long, default_value_t = 1)]
    threads: usize,
    /// Nonces the result is scaled to
    #[arg(short, long, default_value = "64")]
    nonces: Nonces,
    /// Units the result is scaled to
    #[arg(long, default_value_t = 4)]
    num_units: u32,
    /// k2pow threshold for one unit
    #[arg(short, long, default_value_t = mainnet_difficulty())]
    difficulty: String,
    /// fast or light
    #[arg(long, default_value = "fast")]
    randomx_mode: PowMode,
    /// Use reserved large pages
    #[arg(long)]
    randomx_large_pages: bool,
}

/// Runs as `profiler`.
pub fn profiler(args: &Profiler) -> Result<(), Failure> {
    match &args.command {
        None => proving(&args.proving),
        Some(ProfilerCommand::Proving(args)) => proving(args),
        Some(ProfilerCommand::Pow(args)) => pow(args),
    }
}

fn proving(args: &Proving) -> Result<(), Failure> {
    let stop = stop_on_signals()?;
    let time = Duration::from_secs(args.duration);
    let temporary = match &args.data_file {
        Some(_) => None,
        None => Some(TemporaryFile::random(args.data_size << 30)?),
    };
    let path = args.data_file.as_deref().or(temporary.as_ref().map(|file| file.0.as_path()));
    let Some(path) = path else { return Err(Failure::Usage("there is no file to read".to_owned())) };
    let (bytes, took) = scan_file(path, args.nonces, args.threads, Difficulty::from_u64(0), time, &stop)?;
    let speed = bytes as f64 / (1_u64 << 30) as f64 / took.as_secs_f64();
    println!("{}", serde_json::to_string_pretty(&json!({ "time_s": took.as_secs_f64(), "speed_gib_s": speed }))?);
    Ok(())
}

/// A file that is removed in the end.
struct TemporaryFile(PathBuf);

impl TemporaryFile {
    fn random(bytes: u64) -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("post-prover-profiler-{}", std::process::id()));
        let file = std::fs::File::create_new(&path)?;
        let this = Self(path);
        let mut random = blake3::Hasher::new().update(b"profiler").finalize_xof();
        std::io::copy(&mut std::io::Read::take(&mut random, bytes), &mut std::io::BufWriter::with_capacity(1 << 20, &file))?;
        file.sync_all()?;
        Ok(this)
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        // What cannot be removed is left to whoever cleans the directory of temporary files.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn pow(args: &Pow) -> Result<(), Failure> {
    let stop = stop_on_signals()?;
    let difficulty = parse_difficulty(&args.difficulty).map_err(Failure::Usage)?;
    let started = Instant::now();
    let options = BuildOptions { mode: args.randomx_mode, large_pages: args.randomx_large_pages, threads: args.threads.max(1) };
    let randomx = RandomX::build(options, &stop, &AtomicU64::new(0))?;
    let init = started.elapsed();
    let mut total = Duration::ZERO;
    let iterations = args.iterations.max(1);
    for iteration in 0..iterations {
        let mut challenge = [0; 32];
        challenge[..4].copy_from_slice(&iteration.to_le_bytes());
        let puzzle = Puzzle::new(NodeId([0; 32]), &Challenge(challenge), 0, &difficulty, std::num::NonZeroU32::MIN);
        let started = Instant::now();
        let pow = search(&randomx, &puzzle, args.threads, &stop, &AtomicU64::new(0))?;
        total += started.elapsed();
        eprintln!("iteration {}: pow {pow} after {:?}", iteration + 1, started.elapsed());
    }
    let groups = args.nonces.get() / kernels::scan::NONCES_PER_GROUP;
    let average = (total / iterations).saturating_mul(groups).saturating_mul(args.num_units);
    let duration = |d: Duration| json!({ "secs": d.as_secs(), "nanos": d.subsec_nanos() });
    let result =
        json!({ "randomx_vm_init_time": duration(init), "average_time": duration(average), "iterations": args.iterations });
    println!("{}", serde_json::to_string_pretty(&result)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_lines_are_consistent() {
        PostService::command().debug_assert();
        K2powService::command().debug_assert();
        Profiler::command().debug_assert();
    }

    #[test]
    fn a_supervising_node_is_understood() {
        let line = "post-service --address http://127.0.0.1:1 --min-num-units 2 --max-num-units 4 --k1 12 --k2 4 \
                    --pow-difficulty ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff --dir /d -n 2 -r 1 -p 1 \
                    --threads 0 --nonces 16 --randomx-mode light --watch-pid 7 --max-retries 10";
        let args = PostService::try_parse_from(line.split_whitespace()).unwrap();
        let config = args.config().unwrap();
        let identity = &config.identities[0];
        assert_eq!(identity.threads, all_cores());
        assert_eq!((identity.network.params().k2, identity.network.params().scrypt_n.get()), (4, 2));
        assert_eq!(identity.reconnect.max_retries, Some(10));
        let fails = |line: &str| PostService::try_parse_from(line.split_whitespace()).is_err();
        assert!(fails("post-service --dir /d --address a:1"), "threads or cores must be given");
        assert!(fails("post-service --dir /d --address a:1 --threads 1 --cert c"));
        let pinned = PostService::try_parse_from("post-service -d /d -a a:1 --threads 9 --pinned-cores 0,2,4".split_whitespace());
        assert_eq!(pinned.unwrap().config().unwrap().identities[0].threads, 3);
        let tls = PostService::try_parse_from("post-service -d /d -a https://a:1 --threads 1".split_whitespace()).unwrap();
        assert!(matches!(tls.config(), Err(Failure::Usage(_))));
    }

    #[test]
    fn the_profiler_proves_when_nothing_is_said() {
        let parse = |line: &str| Profiler::try_parse_from(line.split_whitespace());
        assert!(parse("profiler --data-size 2 -t 1 -n 32").unwrap().command.is_none());
        assert!(matches!(parse("profiler proving -n 32").unwrap().command, Some(ProfilerCommand::Proving(_))));
        assert!(matches!(parse("profiler pow -i 1 --num-units 2").unwrap().command, Some(ProfilerCommand::Pow(_))));
    }
}
