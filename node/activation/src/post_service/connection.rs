//! The stream of one proving service: one request, one answer, in turns (post.md section 15.1).

use std::{net::SocketAddr, time::Duration};

use proto::grpc::spacemesh_v1::{
    GenProofRequest, GenProofResponse, MetadataRequest, NodeRequest, ServiceResponse, node_request, service_response,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tonic::{Code, Status, Streaming};

use super::{Broken, Info, Inner};

/// How long a service may take to read why its stream ends.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A request for a proof. If the stream ends before the answer, it is dropped.
#[derive(Debug)]
pub(super) struct Ask {
    /// What is to be proven for.
    pub(super) challenge: [u8; 32],
    /// For the answer.
    pub(super) answer: oneshot::Sender<Result<GenProofResponse, Broken>>,
}

/// A service that said whose it is.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    /// Tells connections of one identity apart.
    pub(super) number: u64,
    /// What it said.
    pub(super) info: Info,
    /// Requests for it.
    pub(super) asks: mpsc::Sender<Ask>,
}

/// Why a stream ends.
enum End {
    /// The service has left.
    Left,
    /// The node ends it.
    Status(Status),
}

impl From<Broken> for End {
    fn from(broken: Broken) -> Self {
        let text = broken.to_string();
        Self::Status(match broken {
            Broken::Silent(_) => Status::deadline_exceeded(text),
            Broken::OtherAnswer | Broken::Unasked | Broken::Message(_) | Broken::Metadata(_) => Status::invalid_argument(text),
        })
    }
}

/// What the service says next; none when it has left.
async fn next(answers: &mut Streaming<ServiceResponse>) -> Result<Option<service_response::Kind>, Broken> {
    match answers.message().await {
        Ok(Some(ServiceResponse { kind: Some(kind) })) => Ok(Some(kind)),
        Ok(Some(ServiceResponse { kind: None })) => Err(Broken::Message("it says nothing".into())),
        // What the decoder found: a message beyond the limit, or one that is none. Everything else comes from the connection and
        // names it as its source.
        Err(status)
            if status.code() == Code::OutOfRange
                || (status.code() == Code::Internal && std::error::Error::source(&status).is_none()) =>
        {
            Err(Broken::Message(status.message().to_owned()))
        }
        Ok(None) | Err(_) => Ok(None),
    }
}

/// As [`next`], for so long.
async fn answer_within(
    limit: Duration,
    answers: &mut Streaming<ServiceResponse>,
) -> Result<Option<service_response::Kind>, Broken> {
    timeout(limit, next(answers)).await.unwrap_or(Err(Broken::Silent(limit)))
}

/// Serves a stream to its end.
pub(super) async fn run(
    inner: &Inner,
    from: Option<SocketAddr>,
    mut answers: Streaming<ServiceResponse>,
    requests: mpsc::Sender<Result<NodeRequest, Status>>,
) {
    let mut closing = inner.closing.subscribe();
    let mut registered = None;
    let end = tokio::select! {
        end = serve(inner, &mut answers, &requests, &mut registered) => end.unwrap_or_else(|end| end),
        // The sender lives in `inner`.
        _ = closing.wait_for(|closing| *closing) => End::Status(Status::unavailable("the node is stopping")),
    };
    let identity = registered.map(|(info, number): (Info, u64)| {
        inner.disconnect(&info.id, number);
        info.id
    });
    match end {
        End::Left => tracing::info!(identity = ?identity, ?from, "a post service has left"),
        End::Status(status) => {
            tracing::warn!(identity = ?identity, ?from, "the stream of a post service is ended: {}", status.message());
            // A service that does not read is left to itself.
            let _ = requests.send_timeout(Err(status), LAST_WORDS).await;
        }
    }
}

/// Asks whose service it is, then passes requests and answers on. `registered` is set once it counts.
async fn serve(
    inner: &Inner,
    answers: &mut Streaming<ServiceResponse>,
    requests: &mpsc::Sender<Result<NodeRequest, Status>>,
    registered: &mut Option<(Info, u64)>,
) -> Result<End, End> {
    let ask = async |kind| requests.send(Ok(NodeRequest { kind: Some(kind) })).await.map_err(|_| End::Left);
    ask(node_request::Kind::Metadata(MetadataRequest {})).await?;
    let meta = match answer_within(inner.timing.metadata, answers).await? {
        Some(service_response::Kind::Metadata(response)) => response.meta.ok_or(Broken::OtherAnswer)?,
        Some(service_response::Kind::GenProof(_)) => return Err(Broken::OtherAnswer.into()),
        None => return Ok(End::Left),
    };
    let info = Info::try_from(meta).map_err(Broken::from)?;
    let (sender, mut asks) = mpsc::channel(1);
    let number = inner.connect(info, sender).map_err(End::Status)?;
    *registered = Some((info, number));
    tracing::info!(identity = %info.id, units = %info.num_units, "a post service has registered");
    loop {
        let Ask { challenge, answer } = tokio::select! {
            said = next(answers) => {
                return match said? {
                    Some(_) => Err(Broken::Unasked.into()),
                    None => Ok(End::Left),
                };
            }
            Some(one) = asks.recv() => one,
        };
        // Whoever asked may have gone.
        if answer.is_closed() {
            continue;
        }
        ask(node_request::Kind::GenProof(GenProofRequest { challenge: challenge.to_vec() })).await?;
        let said = match answer_within(inner.timing.answer, answers).await {
            Ok(Some(service_response::Kind::GenProof(response))) => Ok(response),
            Ok(Some(service_response::Kind::Metadata(_))) => Err(Broken::OtherAnswer),
            Ok(None) => {
                // Before whoever asked looks for another connection.
                inner.disconnect(&info.id, number);
                return Ok(End::Left);
            }
            Err(broken) => Err(broken),
        };
        let broken = said.as_ref().err().cloned();
        if broken.is_some() {
            inner.disconnect(&info.id, number);
        }
        // Whoever asked may have gone meanwhile.
        let _ = answer.send(said);
        if let Some(broken) = broken {
            return Err(broken.into());
        }
    }
}
