//! Answers requests of peers (p2p-sync.md section 8), so that no peer can take more than its part.
//!
//! ```text
//!  stream ─► a place in the queue? ─► read the request ─► turn of the peer ─► rate ─► a worker ─► answer
//!            no: closed at once       too long: peer out   its own rate
//! ```
//!
//! A request that waits holds its few kilobytes; only a few per peer hold an answer. Streams that stand still end by time-out
//! and count against their peer.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use libp2p_identity::PeerId;
use libp2p_swarm::Stream;
use metrics::{counter, histogram};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::Instant,
};

use crate::{
    Handler, Limits,
    framing::{ReadRequestError, read_request, write_answer},
    hashes,
    host::Command,
    protocols::Protocol,
    rate::Bucket,
    timed::Timed,
};

/// Of the places of a protocol, a single peer gets one in so many.
const PEER_SHARE: usize = 8;

/// Of the rate of a protocol, a single peer gets one in so many.
const PEER_RATE_SHARE: u32 = 2;

/// Requests of a peer that are answered at once, and with it answers that wait for a peer that reads slowly.
const PEER_WORKERS: usize = 4;

/// Requests that are answered at once.
const WORKERS: usize = 64;

/// How long until one request that ran into a time-out is forgiven.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// What a protocol has, for all peers or for one.
struct Share {
    places: Arc<Semaphore>,
    rate: Bucket,
}

impl Share {
    fn new(places: usize, per_second: u32) -> Self {
        Self { places: Arc::new(Semaphore::new(places.max(1))), rate: Bucket::new(per_second) }
    }
}

/// What one peer has.
struct Load {
    shares: [Share; Protocol::ALL.len()],
    workers: Semaphore,
    strikes: Mutex<(u32, Instant)>,
}

impl Load {
    fn new() -> Self {
        Self {
            shares: Protocol::ALL.map(|protocol| {
                let limits = protocol.limits();
                Share::new(limits.queue / PEER_SHARE, limits.per_second / PEER_RATE_SHARE)
            }),
            workers: Semaphore::new(PEER_WORKERS),
            strikes: Mutex::new((0, Instant::now())),
        }
    }

    /// Counts a time-out and tells how many there are.
    fn strike(&self, now: Instant) -> u32 {
        let mut strikes = self.strikes.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, since) = *strikes;
        let forgiven = (now.saturating_duration_since(since).as_secs() / FORGIVEN_AFTER.as_secs()) as u32;
        let since = if forgiven == 0 { since } else { now };
        *strikes = (count.saturating_sub(forgiven) + 1, since);
        strikes.0
    }
}

/// Answers requests.
pub(crate) struct Server {
    handler: Arc<dyn Handler>,
    limits: Limits,
    commands: mpsc::Sender<Command>,
    stop: watch::Receiver<bool>,
    shares: [Share; Protocol::ALL.len()],
    workers: Semaphore,
    peers: Mutex<HashMap<PeerId, Arc<Load>>>,
}

impl Server {
    pub(crate) fn new(
        handler: Arc<dyn Handler>,
        limits: Limits,
        commands: mpsc::Sender<Command>,
        stop: watch::Receiver<bool>,
    ) -> Arc<Self> {
        let shares = Protocol::ALL.map(|protocol| Share::new(protocol.limits().queue, protocol.limits().per_second));
        let (workers, peers) = (Semaphore::new(WORKERS), Mutex::default());
        Arc::new(Self { handler, limits, commands, stop, shares, workers, peers })
    }

    /// Forgets a peer that is gone.
    pub(crate) fn forget(&self, peer: &PeerId) {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).remove(peer);
    }

    /// Takes a stream a peer opened, or drops it where there is no place.
    pub(crate) fn admit(self: &Arc<Self>, peer: PeerId, protocol: Protocol, stream: Stream) {
        let load = {
            let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
            peers.entry(peer).or_insert_with(|| Arc::new(Load::new())).clone()
        };
        let place = |share: &Share| share.places.clone().try_acquire_owned();
        let (Ok(own), Ok(all)) = (place(&load.shares[protocol.index()]), place(&self.shares[protocol.index()])) else {
            count(protocol, "dropped");
            tracing::debug!(%peer, protocol = protocol.name(), "no place for another request");
            return;
        };
        count(protocol, "accepted");
        let (server, mut stop) = (self.clone(), self.stop.clone());
        tokio::spawn(async move {
            let _places = (own, all);
            tokio::select! {
                () = server.serve(peer, protocol, stream, &load) => {}
                _ = stop.wait_for(|stopped| *stopped) => {}
            }
        });
    }

    async fn serve(&self, peer: PeerId, protocol: Protocol, stream: Stream, load: &Load) {
        let mut stream = Timed::new(stream, self.limits.soft_timeout, self.limits.hard_timeout);
        let start = Instant::now();
        let request = match read_request(&mut stream).await {
            Ok(request) => request,
            Err(ReadRequestError::Io(e)) => return self.failed(peer, protocol, load, &e).await,
            Err(e @ ReadRequestError::TooLong(_)) => {
                count(protocol, "failed");
                return self.disconnect(peer, e.to_string()).await;
            }
        };
        // neither semaphore is ever closed
        let _turn = load.workers.acquire().await;
        load.shares[protocol.index()].rate.take().await;
        self.shares[protocol.index()].rate.take().await;
        let _worker = self.workers.acquire().await;
        let answer = match protocol {
            Protocol::Objects => hashes::serve(&*self.handler, &request).await,
        };
        if let Err(words) = &answer {
            tracing::debug!(%peer, protocol = protocol.name(), words, "request not answered");
        }
        stream.resume();
        let sent = write_answer(&mut stream, answer.as_deref().map_err(String::as_str)).await;
        histogram!("spacemesh_server_latency_seconds", "protocol" => protocol.name()).record(start.elapsed());
        match sent {
            Ok(()) => count(protocol, if answer.is_ok() { "completed" } else { "failed" }),
            Err(e) => self.failed(peer, protocol, load, &e).await,
        }
    }

    async fn failed(&self, peer: PeerId, protocol: Protocol, load: &Load, error: &io::Error) {
        count(protocol, "failed");
        tracing::debug!(%peer, protocol = protocol.name(), %error, "request failed");
        if error.kind() == io::ErrorKind::TimedOut && load.strike(Instant::now()) > self.limits.strikes {
            self.disconnect(peer, "its requests stand still".to_owned()).await;
        }
    }

    async fn disconnect(&self, peer: PeerId, reason: String) {
        // without a host there is no connection left to close
        let _ = self.commands.send(Command::Disconnect { peer, reason }).await;
    }
}

fn count(protocol: Protocol, state: &'static str) {
    counter!("spacemesh_server_requests", "protocol" => protocol.name(), "state" => state).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strikes_are_forgiven_one_by_one() {
        let load = Load::new();
        let now = Instant::now();
        assert_eq!([load.strike(now), load.strike(now), load.strike(now)], [1, 2, 3]);
        assert_eq!(load.strike(now + FORGIVEN_AFTER), 3);
        assert_eq!(load.strike(now + 10 * FORGIVEN_AFTER), 1);
    }
}
