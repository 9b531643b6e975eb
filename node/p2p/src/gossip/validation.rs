//! Messages on their way to a verdict: each is judged in a task of its own, at most so many and so many bytes per topic, and
//! from a single peer only a part of that (p2p-sync.md sections 7.3 and 18.4). What finds no place is ignored and counted.

use std::{collections::HashMap, sync::Arc};

use libp2p_gossipsub::{Message, MessageId};
use libp2p_identity::PeerId;
use metrics::{counter, histogram};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::Instant,
};

use super::Topic;
use crate::{Handler, Limits, Verdict};

/// Of the places of a topic, a single peer gets one in so many.
const PEER_SHARE: usize = 4;

/// Bytes are counted in this unit, since semaphores count to four thousand million.
const UNIT: usize = 1024;

/// A message that was judged.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) topic: Topic,
    pub(crate) id: MessageId,
    pub(crate) from: PeerId,
    pub(crate) verdict: Verdict,
}

/// Places of a topic, for all peers or for one.
struct Places {
    messages: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

impl Places {
    fn new(limits: &Limits, share: usize) -> Self {
        Self {
            messages: Arc::new(Semaphore::new((limits.queued_messages / share).max(1))),
            bytes: Arc::new(Semaphore::new((limits.queued_bytes / UNIT / share).max(1))),
        }
    }

    fn take(&self, bytes: usize) -> Option<[OwnedSemaphorePermit; 2]> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).ok()?;
        Some([self.messages.clone().try_acquire_owned().ok()?, self.bytes.clone().try_acquire_many_owned(units).ok()?])
    }
}

/// What one peer has.
struct Share {
    topics: [Places; Topic::ALL.len()],
    /// Messages that found no place since the peer connected.
    refused: usize,
}

/// Where a message from a peer went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// To the handler.
    Yes,
    /// Nowhere: there are too many. The router is to ignore it.
    No,
    /// Nowhere, and the peer has sent so many of these that it is to be disconnected.
    Flood,
}

/// Judges messages.
pub(crate) struct Validation {
    handler: Arc<dyn Handler>,
    limits: Limits,
    topics: [Places; Topic::ALL.len()],
    peers: HashMap<PeerId, Share>,
    running: JoinSet<Judged>,
}

impl Validation {
    pub(crate) fn new(handler: Arc<dyn Handler>, limits: Limits) -> Self {
        let topics = Topic::ALL.map(|_| Places::new(&limits, 1));
        Self { handler, limits, topics, peers: HashMap::new(), running: JoinSet::new() }
    }

    /// Lets a message be judged; [`Validation::judged`] tells the verdict.
    pub(crate) fn take(&mut self, topic: Topic, id: MessageId, message: Message, from: PeerId) -> Taken {
        let limits = &self.limits;
        let share = self
            .peers
            .entry(from)
            .or_insert_with(|| Share { topics: Topic::ALL.map(|_| Places::new(limits, PEER_SHARE)), refused: 0 });
        let bytes = message.data.len();
        let places = share.topics[topic.index()].take(bytes).and_then(|own| Some((own, self.topics[topic.index()].take(bytes)?)));
        let Some(places) = places else {
            counter!("spacemesh_p2p_queue_full", "protocol" => topic.name()).increment(1);
            share.refused += 1;
            return if share.refused > self.limits.queued_messages { Taken::Flood } else { Taken::No };
        };
        counter!("spacemesh_p2p_received_messages_count", "protocol" => topic.name()).increment(1);
        counter!("spacemesh_p2p_received_messages_bytes", "protocol" => topic.name()).increment(bytes as u64);
        let handler = self.handler.clone();
        self.running.spawn(async move {
            let _places = places;
            let start = Instant::now();
            let verdict = handler.gossip(topic, message.data.into(), from).await;
            let result = word(verdict);
            histogram!("spacemesh_p2p_processed_messages_duration", "protocol" => topic.name(), "result" => result)
                .record(start.elapsed().as_nanos() as f64);
            Judged { topic, id, from, verdict }
        });
        Taken::Yes
    }

    /// The next verdict; waits for ever where nothing is being judged.
    pub(crate) async fn judged(&mut self) -> Judged {
        loop {
            match self.running.join_next().await {
                Some(Ok(judged)) => return judged,
                // the router forgets the message by itself
                Some(Err(error)) => tracing::error!(%error, "judging a message failed"),
                None => std::future::pending().await,
            }
        }
    }

    /// Forgets a peer that is gone; its messages are still judged.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.peers.remove(peer);
    }
}

/// How metrics call it.
fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Accept => "accept",
        Verdict::Ignore => "ignore",
        Verdict::Reject => "reject",
    }
}

#[cfg(test)]
mod tests {
    use proto::ids::Hash32;

    use super::*;
    use crate::{Boxed, Hint};

    /// Waits before the verdict, which is the first byte of the message.
    struct Gate(Semaphore);

    impl Handler for Gate {
        fn gossip(&self, _: Topic, message: Arc<[u8]>, _: PeerId) -> Boxed<'_, Verdict> {
            Box::pin(async move {
                let _open = self.0.acquire().await;
                [Verdict::Accept, Verdict::Ignore, Verdict::Reject][usize::from(message[0])]
            })
        }

        fn object(&self, _: Hint, _: Hash32) -> Boxed<'_, Result<Option<Vec<u8>>, String>> {
            Box::pin(std::future::ready(Ok(None)))
        }
    }

    fn validation(queued_messages: usize, queued_bytes: usize) -> (Validation, Arc<Gate>) {
        let gate = Arc::new(Gate(Semaphore::new(0)));
        (Validation::new(gate.clone(), Limits { queued_messages, queued_bytes, ..Limits::default() }), gate)
    }

    fn send(validation: &mut Validation, topic: Topic, verdict: u8, bytes: usize, from: PeerId) -> Taken {
        let mut data = vec![0; bytes];
        data[0] = verdict;
        let message = Message { source: None, data, sequence_number: None, topic: topic.hash() };
        validation.take(topic, MessageId::new(&[verdict]), message, from)
    }

    #[tokio::test]
    async fn a_peer_gets_its_part_and_the_topic_has_an_end() {
        let (mut validation, gate) = validation(8, 1 << 20);
        let peers: Vec<_> = (0..5).map(|_| PeerId::random()).collect();
        for peer in &peers[..4] {
            let taken: Vec<_> = (0..3).map(|_| send(&mut validation, Topic::Atx, 0, 10, *peer)).collect();
            assert_eq!(taken, [Taken::Yes, Taken::Yes, Taken::No]);
        }
        assert_eq!(send(&mut validation, Topic::Atx, 0, 10, peers[4]), Taken::No);
        // another topic is not concerned
        assert_eq!(send(&mut validation, Topic::Malfeasance, 2, 10, peers[4]), Taken::Yes);
        gate.0.add_permits(100);
        let mut verdicts = Vec::new();
        for _ in 0..9 {
            verdicts.push(validation.judged().await.verdict);
        }
        assert_eq!(verdicts.iter().filter(|verdict| **verdict == Verdict::Reject).count(), 1);
        assert_eq!(send(&mut validation, Topic::Atx, 1, 10, peers[0]), Taken::Yes);
        assert_eq!(validation.judged().await.verdict, Verdict::Ignore);
    }

    #[tokio::test]
    async fn bytes_are_limited_too() {
        let (mut validation, _gate) = validation(1000, 8 << 10);
        let peer = PeerId::random();
        assert_eq!(send(&mut validation, Topic::Atx, 0, 3000, peer), Taken::No);
        assert_eq!(send(&mut validation, Topic::Atx, 0, 2000, peer), Taken::Yes);
        assert_eq!(send(&mut validation, Topic::Atx, 0, 1, peer), Taken::No);
    }

    #[tokio::test]
    async fn too_many_too_many_are_a_flood() {
        let (mut validation, _gate) = validation(4, 1 << 20);
        let (peer, other) = (PeerId::random(), PeerId::random());
        let mut taken = || send(&mut validation, Topic::Atx, 0, 10, peer);
        assert_eq!([taken(), taken(), taken(), taken(), taken()], [Taken::Yes, Taken::No, Taken::No, Taken::No, Taken::No]);
        assert_eq!(taken(), Taken::Flood);
        assert_eq!(send(&mut validation, Topic::Atx, 0, 10, other), Taken::Yes);
        validation.forget(&peer);
        assert_eq!(send(&mut validation, Topic::Atx, 0, 10, peer), Taken::Yes);
    }
}
