//! Asks peers for objects (p2p-sync.md section 10, for single objects): in batches, from one of the best peers, from another one
//! where that has not got it. Never dials.

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures::{StreamExt as _, stream};
use libp2p_identity::PeerId;
use metrics::{counter, histogram};
use proto::ids::Hash32;
use rand::seq::IndexedRandom as _;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::{Instant, timeout},
};

use crate::{
    Limits,
    error::{FetchError, RequestError},
    framing::{read_answer, write_request},
    hashes::{self, Hint},
    host::Command,
    protocols::{MAX_REQUEST, Protocol},
    ranking::Ranking,
    timed::Timed,
};

/// Objects asked for in one request (`fetch.batchsize`).
const BATCH: usize = 10;

/// Requests of one call that run at once.
const CALL_REQUESTS: usize = 8;

/// Requests of all calls that run at once.
const REQUESTS: usize = 100;

/// The peers one is drawn from (p2p-sync.md section 10).
const CHOICE: usize = 5;

/// The most peers that are asked for an object in one call.
const TRIES: usize = 10;

/// An object a peer gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// What was asked for. Whether the bytes deserve this name is for the caller to check.
    pub hash: Hash32,
    /// Its bytes.
    pub data: Vec<u8>,
    /// Who gave it.
    pub from: PeerId,
}

/// What became of the objects that were asked for.
#[derive(Debug, Default)]
pub struct Answer {
    /// Those that came, in no order.
    pub objects: Vec<Object>,
    /// Those that did not.
    pub failed: Vec<(Hash32, FetchError)>,
}

/// What was tried for an object.
#[derive(Debug, Default)]
struct Tried {
    peers: HashSet<PeerId>,
    last: Option<RequestError>,
}

impl Tried {
    fn error(self) -> FetchError {
        let asked = self.peers.len();
        match self.last {
            _ if asked == 0 => FetchError::NoPeers,
            Some(last) => FetchError::Failed { asked, last },
            None => FetchError::NotFound { asked },
        }
    }
}

/// Asks peers.
pub(crate) struct Client {
    commands: mpsc::Sender<Command>,
    limits: Limits,
    ranking: Mutex<Ranking>,
    permits: Semaphore,
}

impl Client {
    pub(crate) fn new(commands: mpsc::Sender<Command>, limits: Limits) -> Self {
        Self { commands, limits, ranking: Mutex::default(), permits: Semaphore::new(REQUESTS) }
    }

    /// The peers that can be asked.
    pub(crate) fn ranking(&self) -> MutexGuard<'_, Ranking> {
        self.ranking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for objects, first the peer that is preferred, each object from at most [`TRIES`] peers.
    pub(crate) async fn fetch(&self, hint: Hint, hashes: &[Hash32], prefer: Option<PeerId>) -> Answer {
        let mut answer = Answer::default();
        let mut pending: HashMap<Hash32, Tried> = hashes.iter().map(|hash| (*hash, Tried::default())).collect();
        counter!("spacemesh_fetch_hash_reqs", "hint" => hint.name()).increment(pending.len() as u64);
        loop {
            let groups = self.targets(&mut pending, prefer, &mut answer.failed);
            if groups.is_empty() {
                break;
            }
            let mut batches: Vec<(PeerId, Vec<Hash32>)> = Vec::new();
            for (peer, hashes) in groups {
                batches.extend(hashes.chunks(BATCH).map(|batch| (peer, batch.to_vec())));
            }
            let mut results = stream::iter(batches)
                .map(|(peer, batch)| async move {
                    let result = self.batch(hint, peer, &batch).await;
                    (peer, batch, result)
                })
                .buffer_unordered(CALL_REQUESTS);
            while let Some((peer, batch, result)) = results.next().await {
                // an answer may be cut short, so a peer that gave something is asked for the rest again
                let (found, last) = match result {
                    Ok(found) => (found, None),
                    Err(error) => (Vec::new(), Some(error)),
                };
                let tried = found.is_empty();
                for (hash, data) in found {
                    if pending.remove(&hash).is_some() {
                        answer.objects.push(Object { hash, data, from: peer });
                    }
                }
                let error = if last.is_some() { "spacemesh_fetch_hash_peer_err" } else { "spacemesh_fetch_hash_missing" };
                for hash in &batch {
                    if let Some(left) = pending.get_mut(hash).filter(|_| tried) {
                        counter!(error, "hint" => hint.name()).increment(1);
                        left.peers.insert(peer);
                        left.last.clone_from(&last);
                    }
                }
            }
        }
        answer
    }

    /// Whom to ask for what; objects nobody is left for go to `failed`.
    fn targets(
        &self,
        pending: &mut HashMap<Hash32, Tried>,
        prefer: Option<PeerId>,
        failed: &mut Vec<(Hash32, FetchError)>,
    ) -> HashMap<PeerId, Vec<Hash32>> {
        let best = self.ranking().best(usize::MAX, |_| true);
        let prefer = prefer.filter(|peer| best.contains(peer));
        let mut groups: HashMap<PeerId, Vec<Hash32>> = HashMap::new();
        let hashes: Vec<_> = pending.keys().copied().collect();
        for hash in hashes {
            let Some(tried) = pending.get(&hash).map(|tried| &tried.peers) else { continue };
            let left: Vec<_> = best.iter().filter(|peer| !tried.contains(peer)).take(CHOICE).copied().collect();
            let preferred = prefer.filter(|peer| !tried.contains(peer));
            match preferred.or_else(|| left.choose(&mut rand::rng()).copied()).filter(|_| tried.len() < TRIES) {
                Some(peer) => groups.entry(peer).or_default().push(hash),
                None => failed.extend(pending.remove(&hash).map(|tried| (hash, tried.error()))),
            }
        }
        groups
    }

    async fn batch(&self, hint: Hint, peer: PeerId, hashes: &[Hash32]) -> Result<Vec<(Hash32, Vec<u8>)>, RequestError> {
        let (id, request) = hashes::request(hint, hashes).ok_or(RequestError::Answer("too many objects"))?;
        let data = self.request(peer, Protocol::Objects, &request, hashes::MAX_ANSWER).await?;
        hashes::answer(id, hashes, &data).map_err(RequestError::Answer)
    }

    /// One request to a connected peer, and an answer of at most `limit` bytes.
    async fn request(&self, peer: PeerId, protocol: Protocol, request: &[u8], limit: usize) -> Result<Vec<u8>, RequestError> {
        if request.len() > MAX_REQUEST {
            return Err(RequestError::Stream(format!("a request of {} bytes", request.len())));
        }
        // the semaphore is never closed
        let _permit = self.permits.acquire().await;
        let start = Instant::now();
        let result = timeout(self.limits.hard_timeout, self.exchange(peer, protocol, request, limit)).await;
        let result = result.unwrap_or_else(|_| Err(RequestError::Stream("no answer in time".to_owned())));
        let (state, bytes) = match &result {
            Ok(data) => ("succeeded", data.len()),
            Err(RequestError::Peer(_)) => ("server_error", 0),
            Err(_) => ("failed", 0),
        };
        self.ranking().sample(&peer, start.elapsed(), bytes, result.is_ok());
        counter!("spacemesh_server_client_requests", "protocol" => protocol.name(), "state" => state).increment(1);
        histogram!("spacemesh_server_client_latency_seconds", "protocol" => protocol.name(), "result" => state)
            .record(start.elapsed());
        result
    }

    async fn exchange(&self, peer: PeerId, protocol: Protocol, request: &[u8], limit: usize) -> Result<Vec<u8>, RequestError> {
        let (to, opened) = oneshot::channel();
        let asked = self.commands.send(Command::Open { peer, protocol, to }).await;
        asked.map_err(|_| RequestError::NotConnected)?;
        // a connection that goes down takes its requests along
        let stream = opened.await.map_err(|_| RequestError::NotConnected)??;
        let mut stream = Timed::new(stream, self.limits.soft_timeout, self.limits.hard_timeout);
        let failed = |e: io::Error| RequestError::Stream(e.to_string());
        write_request(&mut stream, request).await.map_err(failed)?;
        read_answer(&mut stream, limit).await.map_err(failed)?.map_err(RequestError::Peer)
    }
}
