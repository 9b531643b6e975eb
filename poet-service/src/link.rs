//! Between the two parts of a server: the one that takes registrations and the one that runs rounds (poet.md section 5.11).
//!
//! In one process they talk directly ([`Local`]). On two machines the worker calls the registration side over gRPC, and both show
//! certificates of the operator's own authority ([`Remote`], [`serve`]). Everything is asked by the number of a round and may be
//! repeated, so either side may be away, restart, or be replaced. Several workers may run the same round: the first valid proof
//! counts.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use proto::{
    grpc::poet_link_v1::{self as wire, rounds_client::RoundsClient, rounds_server},
    poet::PoetProof,
    scale,
};
use tokio::{net::TcpListener, sync::watch};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig};
use zeroize::Zeroizing;

use crate::{
    registry::Run,
    runner::{Next, Rounds, RoundsError},
    schedule::{RoundId, Time},
    service::{Failure, Service},
    worker::Progress,
};

/// How long a call may take.
const CALL_WITHIN: Duration = Duration::from_secs(10);

/// How long running calls may go on after a stop.
const DRAIN: Duration = Duration::from_millis(500);

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// A certificate or key cannot be read.
    #[error("failed to read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Address, certificate or key are no good.
    #[error("failed to set up the link: {0}")]
    Transport(String),
}

impl From<tonic::transport::Error> for LinkError {
    fn from(error: tonic::transport::Error) -> Self {
        Self::Transport(full(&error))
    }
}

/// An error with its causes: tonic tells the cause only there.
fn full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// PEM files of one side of the link.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Certificate of the authority that both sides' certificates come from.
    pub authority: PathBuf,
    /// This side's certificate.
    pub certificate: PathBuf,
    /// This side's private key.
    pub key: PathBuf,
}

impl Credentials {
    fn read(&self) -> Result<(Certificate, Identity), LinkError> {
        let read = |path: &Path| {
            let read = std::fs::read(path).map(Zeroizing::new);
            read.map_err(|source| LinkError::Read { path: path.into(), source })
        };
        let identity = Identity::from_pem(&*read(&self.certificate)?, &*read(&self.key)?);
        Ok((Certificate::from_pem(&*read(&self.authority)?), identity))
    }
}

/// The registration side in this process.
pub struct Local(pub Arc<Service>);

fn away(failure: &Failure) -> RoundsError {
    match failure.code {
        tonic::Code::InvalidArgument => RoundsError::Refused(failure.message.clone()),
        _ => RoundsError::Away(failure.message.clone()),
    }
}

impl Rounds for Local {
    fn next(&self, held: &[RoundId], _: Option<(RoundId, &Progress)>) -> Result<Next, RoundsError> {
        self.0.ask_next(held).and_then(|answer| answer.blocking_recv().map_err(|_| Service::stopping())).map_err(|e| away(&e))
    }

    fn deliver(&self, round: RoundId, proof: &PoetProof) -> Result<(), RoundsError> {
        let answer = self.0.hand_over(round, proof.clone()).map_err(|e| away(&e))?;
        answer.blocking_recv().map_err(|_| away(&Service::stopping()))?.map_err(|e| away(&e))
    }
}

/// The registration side on another machine.
pub struct Remote {
    runtime: tokio::runtime::Runtime,
    channel: Channel,
}

impl Remote {
    /// A link to `address` (`https://host:port`); the connection is made, and made again, when it is needed.
    pub fn new(address: &str, credentials: &Credentials) -> Result<Self, LinkError> {
        let (authority, identity) = credentials.read()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("poet-link")
            .enable_all()
            .build()
            .map_err(|e| LinkError::Transport(e.to_string()))?;
        let inside = runtime.enter();
        let tls = ClientTlsConfig::new().ca_certificate(authority).identity(identity);
        let endpoint = Endpoint::from_shared(address.to_owned())?.tls_config(tls)?;
        let endpoint = endpoint.connect_timeout(CALL_WITHIN).timeout(CALL_WITHIN).keep_alive_while_idle(true);
        let channel = endpoint.http2_keep_alive_interval(Duration::from_secs(20)).connect_lazy();
        drop(inside);
        Ok(Self { runtime, channel })
    }

    fn client(&self) -> RoundsClient<Channel> {
        RoundsClient::new(self.channel.clone())
    }
}

fn refused(status: &tonic::Status) -> RoundsError {
    match status.code() {
        tonic::Code::InvalidArgument => RoundsError::Refused(status.message().to_owned()),
        _ => RoundsError::Away(full(status)),
    }
}

impl Rounds for Remote {
    fn next(&self, held: &[RoundId], running: Option<(RoundId, &Progress)>) -> Result<Next, RoundsError> {
        let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let progress = running.map(|(round, progress)| wire::Progress {
            round: round.0,
            leaves: load(&progress.leaves),
            leaves_per_second: load(&progress.rate),
            leaves_per_cpu_second: load(&progress.rate_on_cpu),
            on_cpu_permille: load(&progress.on_cpu),
            share_of_bound_permille: load(&progress.share_of_bound),
        });
        let request = wire::NextRequest { held: held.iter().map(|round| round.0).collect(), progress };
        let answer = self.runtime.block_on(self.client().next(request)).map_err(|status| refused(&status))?.into_inner();
        let run = answer.run.map(|run| {
            let statement = run.statement.try_into().map_err(|_| RoundsError::Away("a statement has 32 bytes".into()))?;
            let end = run.end.unwrap_or_default();
            let end = Time(i128::from(end.seconds) * 1_000_000_000 + i128::from(end.nanos));
            Ok::<_, RoundsError>(Run { round: RoundId(run.round), statement, members: 0, end })
        });
        Ok(Next { run: run.transpose()?, done: answer.done.into_iter().map(RoundId).collect() })
    }

    fn deliver(&self, round: RoundId, proof: &PoetProof) -> Result<(), RoundsError> {
        let proof = scale::encode(proof).map_err(|e| RoundsError::Refused(e.to_string()))?;
        let request = wire::DeliverRequest { round: round.0, proof };
        self.runtime.block_on(self.client().deliver(request)).map_err(|status| refused(&status))?;
        Ok(())
    }
}

struct Answers(Arc<Service>);

#[tonic::async_trait]
impl rounds_server::Rounds for Answers {
    async fn next(
        &self,
        request: tonic::Request<wire::NextRequest>,
    ) -> Result<tonic::Response<wire::NextResponse>, tonic::Status> {
        let request = request.into_inner();
        let held: Vec<RoundId> = request.held.into_iter().map(RoundId).collect();
        let answer = self.0.ask_next(&held)?;
        let next = answer.await.map_err(|_| Service::stopping())?;
        if let Some(progress) = request.progress
            && next.run.is_some_and(|run| run.round.0 == progress.round)
        {
            self.0.told(&progress);
        }
        let run = next.run.map(|run| wire::Run {
            round: run.round.0,
            statement: run.statement.to_vec(),
            end: Some(prost_types::Timestamp {
                seconds: i64::try_from(run.end.unix_seconds()).unwrap_or(i64::MAX),
                nanos: run.end.0.rem_euclid(1_000_000_000) as i32,
            }),
        });
        Ok(tonic::Response::new(wire::NextResponse { run, done: next.done.into_iter().map(|round| round.0).collect() }))
    }

    async fn deliver(
        &self,
        request: tonic::Request<wire::DeliverRequest>,
    ) -> Result<tonic::Response<wire::DeliverResponse>, tonic::Status> {
        let request = request.into_inner();
        let proof = scale::decode(&request.proof).map_err(|error| tonic::Status::invalid_argument(error.to_string()))?;
        let answer = self.0.hand_over(RoundId(request.round), proof)?;
        answer.await.map_err(|_| Service::stopping())??;
        Ok(tonic::Response::new(wire::DeliverResponse {}))
    }
}

/// Serves workers on `listener` until `stop` changes. Only those whose certificate comes from the authority get through.
pub async fn serve(
    listener: TcpListener,
    service: Arc<Service>,
    credentials: &Credentials,
    mut stop: watch::Receiver<bool>,
) -> Result<(), LinkError> {
    let (authority, identity) = credentials.read()?;
    let tls = ServerTlsConfig::new().identity(identity).client_ca_root(authority);
    let mut server = Server::builder().tls_config(tls)?.concurrency_limit_per_connection(16);
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    let mut told = stop.clone();
    let serving = server.add_service(rounds_server::RoundsServer::new(Answers(service))).serve_with_incoming_shutdown(
        incoming,
        async move {
            let _ = told.changed().await;
        },
    );
    tokio::select! {
        outcome = serving => Ok(outcome?),
        () = async {
            let _ = stop.changed().await;
            tokio::time::sleep(DRAIN).await;
        } => Ok(()),
    }
}
