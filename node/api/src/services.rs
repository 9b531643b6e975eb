//! The services, all on top of one [`Node`].

mod activation;
mod admin;
mod mesh;
mod node;
mod overview;
mod smesher;
mod v2;

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use proto::{
    grpc::{google::rpc, spacemesh_v1 as wire},
    ids::Address,
};
use tokio::{
    sync::{Semaphore, broadcast::error::RecvError, mpsc, watch},
    time::{MissedTickBehavior, interval},
};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Response, Status};

use crate::{
    listen::stopped,
    node::{Node, QueryError, Refused},
};

/// Questions to the database at once: more wait, so that they cannot starve what the node is there for (api.md section 1).
const QUERIES: usize = 16;

/// Messages on their way to a client.
const AHEAD: usize = 16;

/// What answers the calls.
#[derive(Clone)]
pub(crate) struct Services {
    node: Arc<dyn Node>,
    queries: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
}

/// Messages to a client, as they come.
pub(crate) type Live<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

type Sender<T> = mpsc::Sender<Result<T, Status>>;

impl Services {
    /// Streams end when `stop` turns true.
    pub(crate) fn new(node: Arc<dyn Node>, stop: watch::Receiver<bool>) -> Self {
        Self { node, queries: Arc::new(Semaphore::new(QUERIES)), stop }
    }

    /// Asks the database beside the threads that answer.
    async fn query<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&dyn Node) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, Status> {
        let slot = self.queries.clone().acquire_owned().await.map_err(|e| Status::internal(e.to_string()))?;
        let node = self.node.clone();
        let asked = tokio::task::spawn_blocking(move || {
            // held for as long as the database works, even if the client is gone
            let _slot = slot;
            ask(&*node)
        });
        let answer = asked.await.map_err(|_| Status::internal("the question to the database failed"))?;
        answer.map_err(|error| Status::internal(error.to_string()))
    }

    /// A stream that `feed` fills, until it is done, the client is gone or the node stops.
    fn stream<T, F>(&self, feed: impl FnOnce(Sender<T>) -> F) -> Response<Live<T>>
    where
        T: Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let (to, from) = mpsc::channel(AHEAD);
        let (feeding, mut stop) = (feed(to.clone()), self.stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = feeding => {}
                () = to.closed() => {}
                () = stopped(&mut stop) => {}
            }
        });
        Response::new(Box::pin(ReceiverStream::new(from)))
    }

    /// Events as messages, those of the past first if they are wanted. An event that `message` has nothing for is left out.
    fn events<T: Send + 'static>(
        &self,
        with_past: bool,
        message: impl Fn(wire::Event) -> Option<T> + Send + 'static,
    ) -> Response<Live<T>> {
        let (past, mut live) = self.node.events().watch();
        let past: Vec<T> = past.into_iter().filter(|_| with_past).filter_map(&message).collect();
        self.stream(|to| async move {
            for told in past {
                if to.send(Ok(told)).await.is_err() {
                    return;
                }
            }
            loop {
                match live.recv().await {
                    Ok(event) => {
                        let Some(told) = message(event) else { continue };
                        if to.send(Ok(told)).await.is_err() {
                            return;
                        }
                    }
                    Err(RecvError::Lagged(_)) => {
                        // the stream of a client that does not keep up ends (api.md section 3)
                        let _ = to.send(Err(Status::cancelled("buffer is full: read events faster"))).await;
                        return;
                    }
                    Err(RecvError::Closed) => return,
                }
            }
        })
    }

    /// What `look` finds, now and every second.
    fn each_second<T: Send + 'static>(&self, mut look: impl FnMut(&dyn Node) -> Option<T> + Send + 'static) -> Response<Live<T>> {
        let node = self.node.clone();
        self.stream(|to| async move {
            let mut seconds = interval(Duration::from_secs(1));
            seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                seconds.tick().await;
                let Some(found) = look(&*node) else { continue };
                if to.send(Ok(found)).await.is_err() {
                    return;
                }
            }
        })
    }

    /// An address as a message.
    fn account(&self, address: &Address) -> wire::AccountId {
        wire::AccountId { address: address.to_text(self.node.constants().addresses) }
    }

    /// The address of a message. Deployed nodes call a malformed one an unknown error (api.md section 3).
    fn address(&self, account: Option<&wire::AccountId>, field: &str) -> Result<Address, Status> {
        let account = account.ok_or_else(|| Status::invalid_argument(format!("`{field}` must be provided")))?;
        Address::parse(&account.address, self.node.constants().addresses)
            .map_err(|error| Status::unknown(format!("failed to read address {:?}: {error}", account.address)))
    }
}

impl From<Refused> for Status {
    /// Codes of activation.md section 11.
    fn from(refused: Refused) -> Self {
        let text = refused.to_string();
        match refused {
            Refused::NotSupervised => Self::failed_precondition(text),
            Refused::Invalid(_) => Self::invalid_argument(text),
            Refused::AlreadyStarted | Refused::NotStarted | Refused::Failed(_) => Self::internal(text),
        }
    }
}

/// What an answer says where all went well.
fn ok() -> rpc::Status {
    rpc::Status::default()
}
