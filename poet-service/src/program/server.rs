//! `run`: puts the parts of the server together.

use std::{
    fs,
    future::Future,
    os::unix::net::UnixDatagram,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use poet_service::{
    api::{self, Offer},
    config::{ConfigError, Options, Span},
    identity,
    registry::Registry,
    service::{Service, Settings, now},
    store::RocksStore,
    tree,
};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use zeroize::Zeroizing;

use super::Failure;

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    start_logging(options);
    let schedule = options.schedule()?;
    let keys = options.trusted_keys()?;
    let (data, db) = options.folders()?;
    let max_connections = options.max_connections.unwrap_or(10_000);
    raise_file_limit(max_connections);
    for folder in [&data, &db] {
        fs::create_dir_all(folder).map_err(|e| Failure::failed(&format!("failed to make {}", folder.display()), &e))?;
    }
    let variable = std::env::var(identity::VARIABLE).ok().map(Zeroizing::new);
    let pubkey = identity::load(&data, variable).map_err(|e| Failure::failed("failed to load the server's key", &e))?;
    let store = RocksStore::open(&db.join("rocks")).map_err(|e| Failure::failed("failed to open the database", &e))?;
    let mut fresh = [0; 32];
    getrandom::fill(&mut fresh).map_err(|e| Failure::Failed(format!("no random bytes from the system: {e}")))?;
    let registry = Registry::new(Arc::new(store), schedule, options.limits(), pubkey, &fresh, now())
        .map_err(|e| Failure::failed("failed to read the registrations", &e))?;

    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let settings = Settings {
        work_folder: data.join("rounds"),
        max_batch: options.max_submit_batch_size.unwrap_or(1000),
        flush_interval: options.submit_flush_interval.map_or(Duration::from_millis(100), |Span(interval)| interval),
        disable_worker: options.disable_worker.unwrap_or(false),
        cpu: options.hashing_cpu,
        threads: options.proof_threads.unwrap_or(threads).max(1),
        lowest_level: tree::LOWEST_LEVEL,
        backup_folder: Some(db.join("backups")),
        certifier_url: options.certifier_url.clone(),
    };
    let stop = Arc::new(AtomicBool::new(false));
    let (service, keeper) = Service::start(registry, keys, settings, pubkey, stop.clone())
        .map_err(|e| Failure::failed("failed to start a thread", &e))?;

    // the hashing thread has a processor of its own
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.saturating_sub(1).max(1))
        .enable_all()
        .build()
        .map_err(|e| Failure::failed("failed to start the network side", &e))?;
    let outcome = runtime.block_on(serve(options, &service, stop.clone(), max_connections));
    stop.store(true, Ordering::Relaxed);
    notify("STOPPING=1");
    let kept = keeper.join();
    runtime.shutdown_timeout(Duration::from_millis(200));
    outcome?;
    kept.map_err(|_| Failure::Failed("the thread of the registrations failed".into()))?;
    tracing::info!("stopped, everything is saved");
    Ok(())
}

fn start_logging(options: &Options) {
    let level = if options.debuglog == Some(true) { tracing::Level::DEBUG } else { tracing::Level::INFO };
    let filter = tracing_subscriber::EnvFilter::builder().with_default_directive(level.into()).from_env_lossy();
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

async fn serve(options: &Options, service: &Arc<Service>, stop: Arc<AtomicBool>, max_connections: usize) -> Result<(), Failure> {
    let (tell, told) = watch::channel(false);
    let mut tasks = JoinSet::new();
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
        let (options, service) = (options.clone(), service.clone());
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
            service.set_keys(keys);
            Ok(())
        };
        tasks.spawn(grpc(listener, Offer::Configuration(Arc::new(reload)), told.clone()));
    }
    if let Some(port) = options.metrics_port {
        let listener = listen("metrics", &format!("localhost:{port}")).await?;
        tasks.spawn(api::serve(listener, api::metrics_router(service.clone()), 64, told.clone()));
    }
    if let Some(address) = &options.admin_listen {
        let listener = listen("operator's REST", address).await?;
        tasks.spawn(api::serve(listener, api::admin_router(service.clone()), 64, told.clone()));
    }
    tasks.spawn(beat(told.clone()));
    let snapshot = service.snapshot();
    tracing::info!(open = %snapshot.open, members = snapshot.members, pubkey = hex::encode(service.pubkey), "ready");
    notify("READY=1");
    signalled().await.map_err(|e| Failure::failed("failed to listen for signals", &e))?;
    tracing::info!("stopping");
    // hashing and listeners stop at the same time
    stop.store(true, Ordering::Relaxed);
    let _ = tell.send(true);
    while tasks.join_next().await.is_some() {}
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

fn signalled() -> impl Future<Output = std::io::Result<()>> {
    use tokio::signal::unix::{SignalKind, signal};
    async {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Ok(())
    }
}

/// Tells systemd's watchdog, every few seconds, that the network side is alive.
async fn beat(mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(5)) => notify("WATCHDOG=1"),
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
