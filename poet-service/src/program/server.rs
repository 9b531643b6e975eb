//! `run`: puts the parts of the server together.

use std::{
    fs,
    future::Future,
    os::unix::net::UnixDatagram,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use poet_service::{
    api::{self, Offer},
    config::{ConfigError, Options, Parts},
    identity,
    link::{self, Credentials, Local, Remote},
    metrics,
    registry::{OpenError, Registry},
    runner::{self, Rounds, Workshop},
    service::{Service, Settings, now},
    store::RocksStore,
    tree,
    worker::Progress,
};
use proto::span::Span;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use zeroize::Zeroizing;

use super::Failure;

/// How often a worker in the same process asks for a round, and one on another machine.
const ASK_HERE: Duration = Duration::from_millis(20);
const ASK_AFAR: Duration = Duration::from_secs(1);

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    start_logging(options);
    for (key, reason) in options.without_effect() {
        tracing::warn!("{key} is set but has no effect: {reason}");
    }
    let (data, db) = options.folders()?;
    let parts = options.parts()?;
    let max_connections = options.max_connections.unwrap_or(10_000);
    raise_file_limit(max_connections);
    let stop = Arc::new(AtomicBool::new(false));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    // the hashing thread has a processor of its own
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.saturating_sub(1).max(1))
        .enable_all()
        .build()
        .map_err(|e| Failure::failed("failed to start the network side", &e))?;
    let mut workshop = Workshop {
        folder: data.join("rounds"),
        lowest_level: tree::LOWEST_LEVEL,
        threads: options.proof_threads.unwrap_or(threads).max(1),
        cpu: options.hashing_cpu,
        tid_file: Some(data.join("round.tid")),
        ask_every: ASK_HERE,
    };
    let no_thread = |e: std::io::Error| Failure::failed("failed to start a thread", &e);
    make(&data)?;
    let mut served = None;
    let (service, keeper, worker) = match parts {
        Parts::Worker(address, credentials) => {
            let remote =
                Remote::new(&address, &credentials).map_err(|e| Failure::failed("failed to reach the registration side", &e))?;
            workshop.ask_every = ASK_AFAR;
            let progress = Arc::new(Progress::default());
            let worker = runner::start(Arc::new(remote), workshop, progress.clone(), stop.clone()).map_err(no_thread)?;
            (Part::Worker(progress), None, Some(worker))
        }
        Parts::Registration(address, credentials) => {
            served = Some((address, credentials));
            let (service, keeper) = registrations(options, &data, &db, stop.clone())?;
            (Part::Registration(service), Some(keeper), None)
        }
        Parts::All(address) => {
            served = address;
            let (service, keeper) = registrations(options, &data, &db, stop.clone())?;
            let rounds: Arc<dyn Rounds> = Arc::new(Local(service.clone()));
            let worker = if service.settings.disable_worker {
                None
            } else {
                Some(runner::start(rounds, workshop, service.progress.clone(), stop.clone()).map_err(no_thread)?)
            };
            (Part::Registration(service), Some(keeper), worker)
        }
    };
    let outcome = runtime.block_on(serve(options, &service, served, stop.clone(), max_connections));
    stop.store(true, Ordering::Relaxed);
    notify("STOPPING=1");
    let ended = [worker, keeper].into_iter().flatten().map(std::thread::JoinHandle::join).fold(Ok(()), Result::and);
    runtime.shutdown_timeout(Duration::from_millis(200));
    outcome?;
    ended.map_err(|_| Failure::Failed("a thread of the server failed".into()))?;
    tracing::info!("stopped, everything is saved");
    Ok(())
}

/// What the network side speaks for.
enum Part {
    Registration(Arc<Service>),
    Worker(Arc<Progress>),
}

fn make(folder: &Path) -> Result<(), Failure> {
    fs::create_dir_all(folder).map_err(|e| Failure::failed(&format!("failed to make {}", folder.display()), &e))
}

fn registrations(
    options: &Options,
    data: &Path,
    db: &Path,
    stop: Arc<AtomicBool>,
) -> Result<(Arc<Service>, std::thread::JoinHandle<()>), Failure> {
    let (schedule, keys) = (options.schedule()?, options.trusted_keys()?);
    make(db)?;
    let variable = std::env::var(identity::VARIABLE).ok().map(Zeroizing::new);
    let pubkey = identity::load(data, variable).map_err(|e| Failure::failed("failed to load the server's key", &e))?;
    let store = RocksStore::open(&db.join("rocks")).map_err(|e| Failure::failed("failed to open the database", &e))?;
    let mut fresh = [0; 32];
    getrandom::fill(&mut fresh).map_err(|e| Failure::Failed(format!("no random bytes from the system: {e}")))?;
    let registry =
        Registry::new(Arc::new(store), schedule, options.limits(), pubkey, &fresh, now()).map_err(|error| match error {
            OpenError::Store(error) => Failure::failed("failed to read the registrations", &error),
            OpenError::PhaseShift { .. } => Failure::Config(ConfigError::Recorded(error.to_string())),
        })?;
    let settings = Settings {
        max_batch: options.max_submit_batch_size.unwrap_or(1000),
        flush_interval: options.submit_flush_interval.map_or(Duration::from_millis(100), |Span(interval)| interval),
        disable_worker: options.disable_worker.unwrap_or(false),
        client_rate: options.max_client_rate.unwrap_or(0),
        max_grpc_answer: options.max_grpc_resp_size.unwrap_or(usize::MAX),
        backup_folder: Some(db.join("backups")),
        certifier_url: options.certifier_url.clone(),
    };
    Service::start(registry, keys, settings, pubkey, stop).map_err(|e| Failure::failed("failed to start a thread", &e))
}

fn start_logging(options: &Options) {
    let level = if options.debuglog == Some(true) { "info,poet_service=debug" } else { "info" };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if options.jsonlog == Some(true) { log.json().init() } else { log.init() }
}

/// Every connection is a file; the limit is raised as far as the system lets us.
fn raise_file_limit(connections: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let wanted = connections as u64 + 1024;
    let limit = getrlimit(Resource::Nofile);
    let target = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    if limit.current.is_some_and(|current| current < target)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(target), maximum: limit.maximum })
    {
        tracing::warn!(%error, "failed to raise the limit of open files");
    }
    if getrlimit(Resource::Nofile).current.is_some_and(|current| current < wanted) {
        tracing::warn!(allowed = ?limit.maximum, wanted, "few open files are allowed: many clients at once will have to wait (ulimit -n)");
    }
}

async fn serve(
    options: &Options,
    part: &Part,
    workers: Option<(String, Credentials)>,
    stop: Arc<AtomicBool>,
    max_connections: usize,
) -> Result<(), Failure> {
    // Whoever sees that the server is there may stop it at once, and then everything is to be saved.
    let stopping = signalled().map_err(|e| Failure::failed("failed to listen for signals", &e))?;
    let (tell, told) = watch::channel(false);
    let mut tasks = JoinSet::new();
    if let Part::Registration(service) = part {
        offer(options, service, workers, max_connections, &told, &mut tasks).await?;
        let snapshot = service.snapshot();
        tracing::info!(open = %snapshot.open, members = snapshot.members, pubkey = hex::encode(service.pubkey), "ready");
    }
    if let Some(port) = options.metrics_port {
        let listener = listen("metrics", &format!("localhost:{port}")).await?;
        let router = match part {
            Part::Registration(service) => {
                let service = service.clone();
                api::metrics_router(move || metrics::page(&service))
            }
            Part::Worker(progress) => {
                let progress = progress.clone();
                api::metrics_router(move || metrics::worker_page(&progress))
            }
        };
        tasks.spawn(api::serve(listener, router, 64, told.clone()));
    }
    tasks.spawn(beat(told.clone()));
    notify("READY=1");
    stopping.await;
    tracing::info!("stopping");
    // hashing and listeners stop at the same time
    stop.store(true, Ordering::Relaxed);
    let _ = tell.send(true);
    while tasks.join_next().await.is_some() {}
    Ok(())
}

/// The listeners of the registration side.
async fn offer(
    options: &Options,
    service: &Arc<Service>,
    workers: Option<(String, Credentials)>,
    max_connections: usize,
    told: &watch::Receiver<bool>,
    tasks: &mut JoinSet<()>,
) -> Result<(), Failure> {
    if let Some(address) = &options.restlisten {
        let listener = listen("REST", address).await?;
        tasks.spawn(api::serve(listener, api::router(service.clone()), max_connections, told.clone()));
    }
    if let Some(address) = &options.rpclisten {
        let listener = listen("gRPC", address).await?;
        tasks.spawn(grpc(listener, Offer::Poet(service.clone()), told.clone()));
    }
    if let Some(address) = &options.config_rpclisten {
        let listener = listen("gRPC of the operator", address).await?;
        let (options, reloaded) = (options.clone(), service.clone());
        let reload = move || {
            if options.certifier_pubkey.is_none() {
                return Err("certificate is not supported".to_owned());
            }
            if options.trusted_pub_keys_dir_path.is_none() {
                return Err("trusted keys directory path is not set in the configuration".to_owned());
            }
            let keys = options.trusted_keys().map_err(|error| match error {
                ConfigError::TrustedKeys { reason, .. } => reason,
                other => other.to_string(),
            })?;
            tracing::info!(keys = keys.others.len(), "reloaded the trusted keys");
            reloaded.set_keys(keys);
            Ok(())
        };
        tasks.spawn(grpc(listener, Offer::Configuration(service.clone(), Arc::new(reload)), told.clone()));
    }
    if let Some(address) = &options.admin_listen {
        let listener = listen("operator's REST", address).await?;
        tasks.spawn(api::serve(listener, api::admin_router(service.clone()), 64, told.clone()));
    }
    if let Some((address, credentials)) = workers {
        let listener = listen("workers", &address).await?;
        let (service, told) = (service.clone(), told.clone());
        tasks.spawn(async move {
            if let Err(error) = link::serve(listener, service, &credentials, told).await {
                tracing::error!(%error, "workers cannot be served");
            }
        });
    }
    Ok(())
}

async fn listen(what: &str, address: &str) -> Result<TcpListener, Failure> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|e| Failure::failed(&format!("failed to listen on {address} for {what}"), &e))?;
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "listening for {what}");
    }
    Ok(listener)
}

async fn grpc(listener: TcpListener, offer: Offer, stop: watch::Receiver<bool>) {
    if let Err(error) = api::serve_grpc(listener, offer, stop).await {
        tracing::error!(%error, "gRPC ended");
    }
}

/// From now on signals do not end the program but what this gives.
fn signalled() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Tells systemd's watchdog, every few seconds, that the network side is alive.
async fn beat(mut stop: watch::Receiver<bool>) {
    loop {
        notify("WATCHDOG=1");
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(5)) => {}
            _ = stop.changed() => return,
        }
    }
}

/// Tells systemd, where it has started this program.
fn notify(state: &str) {
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET")
        && let Ok(from) = UnixDatagram::unbound()
    {
        // nobody listening is no reason to stop
        let _ = from.send_to(state.as_bytes(), socket);
    }
}
