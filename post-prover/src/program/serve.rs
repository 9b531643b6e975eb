//! The proving service (`docs/spec/post.md` section 15).
//!
//! - [`config`]: which identities, for which nodes, with which settings
//! - [`identity`]: one identity: its session with its node and the thread that makes its proofs
//! - [`register`]: the stream to a node
//! - [`operator`]: what operators and their tools see over HTTP

pub mod config;
pub mod identity;
pub mod operator;
pub mod register;

use std::{
    collections::HashMap,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use kernels::pow::BuildOptions;
use proto::ids::NodeId;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use self::{
    config::{Config, IdentityConfig},
    identity::{Identity, Machine},
};
use super::{Failure, cli, log_to_stderr};
use crate::{data::read_metadata, state::replace};

/// Keeps two services from working on one directory.
const LOCK_FILE: &str = "postprover.lock";
/// Remembers which node an identity works for.
const NODE_FILE: &str = "postprover_node";
/// After so long without use the memory of RandomX is given back.
const RANDOMX_IDLE: Duration = Duration::from_secs(10 * 60);

/// Arguments of `serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Configuration of a farm (TOML); read again on SIGHUP
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data_dir", "node"])]
    pub config: Option<PathBuf>,
    /// Data of an identity; repeat it for several
    #[arg(long, value_name = "DIR", required_unless_present = "config")]
    pub data_dir: Vec<PathBuf>,
    /// Address of the node: `http://host:port`, `https://host:port` or `host:port`
    #[arg(long, value_name = "ADDRESS", required_unless_present = "config")]
    pub node: Option<String>,
    /// Where to answer operators
    #[arg(long, value_name = "IP:PORT")]
    pub operator_address: Option<std::net::SocketAddr>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "shown as options")]
    pub params: cli::ParamArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "shown as options")]
    pub work: cli::WorkArgs,
    /// Hours in which a proof must be made [default: as the preset says, else 12]
    #[arg(long, value_name = "HOURS")]
    pub window: Option<f64>,
    /// CA certificate the node's certificate is checked with (PEM)
    #[arg(long, value_name = "FILE", requires_all = ["cert", "key"])]
    pub ca_cert: Option<PathBuf>,
    /// Certificate to show the node (PEM)
    #[arg(long, value_name = "FILE", requires_all = ["ca_cert", "key"])]
    pub cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", requires_all = ["ca_cert", "cert"])]
    pub key: Option<PathBuf>,
    /// Name the node's certificate must have [default: the host of the address]
    #[arg(long, value_name = "NAME")]
    pub domain: Option<String>,
}

/// Arguments of `move`.
#[derive(Debug, Args)]
pub struct MoveArgs {
    /// Data of the identity
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Address of the node it shall work for from now on
    #[arg(long, value_name = "ADDRESS")]
    pub node: String,
}

/// Hands an identity over: the next `serve` may register it with another node.
pub fn hand_over(args: &MoveArgs) -> Result<(), Failure> {
    let node = register::parse_address(&args.node).map_err(Failure::Usage)?;
    let (_, metadata) = read_metadata(std::slice::from_ref(&args.data_dir))?;
    // Nobody may be working for the old node.
    let _lock = lock(&args.data_dir)?;
    let path = args.data_dir.join(NODE_FILE);
    let before = bound_to(&args.data_dir)?;
    replace(&path, node.as_bytes())?;
    println!(
        "identity {} works for {node} from now on{}",
        metadata.node_id,
        before.map_or_else(String::new, |b| format!(", no longer for {b}"))
    );
    println!(
        "make sure that the old node does not have the identity's key any more: two nodes with one key lose the identity for ever"
    );
    Ok(())
}

/// The node an identity works for, when that was recorded.
fn bound_to(dir: &Path) -> Result<Option<String>, Failure> {
    match fs::read_to_string(dir.join(NODE_FILE)) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Failure::Failed(format!("failed to read {}: {e}", dir.join(NODE_FILE).display()).into())),
    }
}

/// Takes the lock of a directory, which lasts as long as the file is open.
pub(super) fn lock(dir: &Path) -> Result<Option<File>, Failure> {
    let path = dir.join(LOCK_FILE);
    let file = match File::options().write(true).create(true).truncate(false).open(&path) {
        Ok(file) => file,
        // data on a read-only file system can be served all the same
        Err(e) if matches!(e.kind(), std::io::ErrorKind::ReadOnlyFilesystem | std::io::ErrorKind::PermissionDenied) => {
            tracing::warn!("cannot lock {}: {e}", dir.display());
            return Ok(None);
        }
        Err(e) => return Err(Failure::Failed(format!("failed to open {}: {e}", path.display()).into())),
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => {
            Err(Failure::Failed(format!("another post-prover works with {}", dir.display()).into()))
        }
        Err(fs::TryLockError::Error(e)) => Err(Failure::Failed(format!("failed to lock {}: {e}", path.display()).into())),
    }
}

/// Ends when SIGINT or SIGTERM arrives.
pub async fn shutdown_signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let Ok(mut term) = signal(SignalKind::terminate()) else { return };
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = term.recv() => {}
        }
    }
    #[cfg(not(unix))]
    {
        // An error means that there are no signals to wait for.
        let _ = tokio::signal::ctrl_c().await;
    }
}

/// One identity being served.
struct Served {
    identity: Arc<Identity>,
    register: JoinHandle<()>,
    _lock: Option<File>,
}

/// All that is being served.
struct Farm {
    served: HashMap<NodeId, Served>,
    machine: Arc<Machine>,
    list: watch::Sender<Vec<Arc<Identity>>>,
    failed: tokio::sync::mpsc::Sender<Failure>,
}

impl Farm {
    /// Serves what the configuration says: begins with what is new, ends what is gone, changes the settings of the rest.
    fn apply(&mut self, config: &Config) -> Result<(), Failure> {
        let mut wanted: HashMap<NodeId, &IdentityConfig> = HashMap::new();
        for identity in &config.identities {
            let (_, metadata) = read_metadata(&identity.data_dirs)?;
            if wanted.insert(metadata.node_id, identity).is_some() {
                return Err(Failure::Usage(format!(
                    "identity {} is configured twice: only one service and one node may work for it",
                    metadata.node_id
                )));
            }
            let params = identity.params(&metadata);
            params.check_units(metadata.num_units).map_err(|e| Failure::Usage(format!("identity {}: {e}", metadata.node_id)))?;
            if let Some(bound) = bound_to(&identity.data_dirs[0])?
                && bound != identity.node
            {
                return Err(Failure::Usage(format!(
                    "identity {} works for {bound}, not for {node}; to hand it over: post-prover move --data-dir {} --node {node}",
                    metadata.node_id,
                    identity.data_dirs[0].display(),
                    node = identity.node,
                )));
            }
        }
        let gone: Vec<NodeId> = self.served.keys().filter(|id| !wanted.contains_key(id)).copied().collect();
        for id in gone {
            if let Some(served) = self.served.remove(&id) {
                tracing::info!(identity = %id, "no longer configured");
                served.register.abort();
                served.identity.stop();
            }
        }
        for (id, config) in wanted {
            if let Some(served) = self.served.get(&id) {
                served.identity.configure(config.clone());
                continue;
            }
            let lock = lock(&config.data_dirs[0])?;
            if let Err(error) = replace(&config.data_dirs[0].join(NODE_FILE), config.node.as_bytes()) {
                tracing::warn!(identity = %id, "cannot record the node the identity works for: {error}");
            }
            let identity = Arc::new(Identity::new(config.clone(), Arc::clone(&self.machine))?);
            tracing::info!(identity = %id, node = config.node, disks = ?identity.disks(), "serving");
            let register = tokio::spawn(register::run(Arc::clone(&identity), self.failed.clone()));
            self.served.insert(id, Served { identity, register, _lock: lock });
        }
        let mut list: Vec<_> = self.served.values().map(|served| Arc::clone(&served.identity)).collect();
        list.sort_by_key(|identity| identity.node_id());
        self.list.send_replace(list);
        Ok(())
    }
}

/// Serves until SIGINT or SIGTERM.
pub fn run(args: &ServeArgs) -> Result<(), Failure> {
    serve(&|| Config::from_args(args), None)
}

/// Serves what `load` gives, until a signal arrives or the process `watched` is gone.
pub(super) fn serve(load: &dyn Fn() -> Result<Config, Failure>, watched: Option<u32>) -> Result<(), Failure> {
    log_to_stderr();
    let config = load()?;
    let options = BuildOptions { mode: config.randomx_mode, large_pages: config.large_pages, threads: super::all_cores() };
    let machine = Arc::new(Machine::new(options));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(async {
        let (list, lists) = watch::channel(Vec::new());
        let (failed, mut failures) = tokio::sync::mpsc::channel(1);
        let mut farm = Farm { served: HashMap::new(), machine: Arc::clone(&machine), list, failed };
        farm.apply(&config)?;
        if let Some(address) = config.operator_address {
            let listener = TcpListener::bind(address)
                .await
                .map_err(|e| Failure::Failed(format!("failed to listen on {address}: {e}").into()))?;
            tracing::info!(address = %listener.local_addr()?, "operator API");
            let app = operator::router(lists);
            tokio::spawn(async move { axum::serve(listener, app).await });
        }
        let mut shutdown = std::pin::pin!(shutdown_signal());
        let mut housekeeping = tokio::time::interval(Duration::from_secs(1));
        let mut reload = Reload::new()?;
        let result = loop {
            tokio::select! {
                () = &mut shutdown => break Ok(()),
                Some(failure) = failures.recv() => break Err(failure),
                () = reload.asked() => match load().and_then(|config| farm.apply(&config)) {
                    Ok(()) => tracing::info!("configuration read again"),
                    Err(failure) => tracing::error!("the new configuration is not used: {failure:?}"),
                },
                _ = housekeeping.tick() => {
                    if machine.randomx.free_idle(RANDOMX_IDLE) {
                        tracing::info!("memory of RandomX given back");
                    }
                    for served in farm.served.values() {
                        served.identity.alarms();
                    }
                    if watched.is_some_and(|pid| !is_running(pid)) {
                        tracing::info!("the watched process is gone");
                        break Ok(());
                    }
                }
            }
        };
        tracing::info!("stopping; what was done is kept");
        for served in farm.served.values() {
            served.register.abort();
            served.identity.stop();
        }
        for served in farm.served.values() {
            let identity = Arc::clone(&served.identity);
            // Runs end within a second of the flag.
            let _ = tokio::task::spawn_blocking(move || identity.join()).await;
        }
        result
    });
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}

/// SIGHUP.
struct Reload {
    #[cfg(unix)]
    signal: tokio::signal::unix::Signal,
}

impl Reload {
    fn new() -> Result<Self, Failure> {
        Ok(Self {
            #[cfg(unix)]
            signal: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?,
        })
    }

    async fn asked(&mut self) {
        #[cfg(unix)]
        self.signal.recv().await;
        #[cfg(not(unix))]
        std::future::pending::<()>().await;
    }
}

/// Whether a process exists and is neither dead nor a zombie.
fn is_running(pid: u32) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        // the state follows the name, which is in parentheses and may contain anything
        Ok(stat) => {
            stat.rsplit_once(')').is_some_and(|(_, rest)| !matches!(rest.trim_start().chars().next(), Some('Z' | 'X' | 'x')))
        }
        // without /proc nothing can be told
        Err(_) => !Path::new("/proc/self/stat").exists(),
    }
}
