//! Which peers to ask first (p2p-sync.md section 10.1): those that answered fast and failed rarely.

use std::collections::HashMap;

use libp2p_identity::PeerId;
use std::time::Duration;

/// Weights of a new sample: one in so many.
const OWN_WEIGHT: f64 = 10.0;
const GLOBAL_WEIGHT: f64 = 25.0;

/// A peer nobody asked yet counts as a little better than the average.
const UNTESTED: f64 = 0.9;

/// What is known about a peer. Latencies are nanoseconds per KiB.
#[derive(Debug, Default, Clone, Copy)]
struct Record {
    average: Option<f64>,
    answers: u32,
    failures: u32,
}

/// What is known about all connected peers.
#[derive(Debug, Default)]
pub(crate) struct Ranking {
    peers: HashMap<PeerId, Record>,
    average: Option<f64>,
}

impl Ranking {
    /// A peer is connected.
    pub(crate) fn add(&mut self, peer: PeerId) {
        self.peers.entry(peer).or_default();
    }

    /// A peer is gone.
    pub(crate) fn remove(&mut self, peer: &PeerId) {
        self.peers.remove(peer);
    }

    /// A request took so long for so many bytes, and went well or not. Peers that are gone do not count.
    pub(crate) fn sample(&mut self, peer: &PeerId, took: Duration, bytes: usize, good: bool) {
        let Some(record) = self.peers.get_mut(peer) else { return };
        let latency = took.as_nanos() as f64 / (bytes / 1024).max(1) as f64;
        moving(&mut record.average, latency, OWN_WEIGHT);
        moving(&mut self.average, latency, GLOBAL_WEIGHT);
        *(if good { &mut record.answers } else { &mut record.failures }) += 1;
    }

    /// Lower is better.
    fn score(&self, record: &Record) -> f64 {
        let global = self.average.unwrap_or(0.0);
        match record.average {
            None => UNTESTED * global,
            Some(average) => {
                let all = f64::from(record.answers) + f64::from(record.failures);
                average + f64::from(record.failures) / all * global
            }
        }
    }

    /// The `count` best peers that `among` lets through, the best first.
    pub(crate) fn best(&self, count: usize, among: impl Fn(&PeerId) -> bool) -> Vec<PeerId> {
        let mut scored: Vec<_> =
            self.peers.iter().filter(|(peer, _)| among(peer)).map(|(peer, record)| (self.score(record), *peer)).collect();
        scored.sort_by(|(a, first), (b, second)| a.total_cmp(b).then_with(|| first.to_bytes().cmp(&second.to_bytes())));
        scored.truncate(count);
        scored.into_iter().map(|(_, peer)| peer).collect()
    }
}

fn moving(average: &mut Option<f64>, sample: f64, weight: f64) {
    *average = Some(average.map_or(sample, |average| average + (sample - average) / weight));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranking(count: usize) -> (Ranking, Vec<PeerId>) {
        let mut ranking = Ranking::default();
        let mut peers: Vec<_> = (0..count).map(|_| PeerId::random()).collect();
        peers.sort_by_key(|peer| peer.to_bytes());
        for peer in &peers {
            ranking.add(*peer);
        }
        (ranking, peers)
    }

    fn seconds(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn the_fast_come_first() {
        let (mut ranking, peers) = ranking(3);
        for (peer, took) in peers.iter().zip([3, 1, 2]) {
            ranking.sample(peer, seconds(took), 0, true);
        }
        assert_eq!(ranking.best(3, |_| true), [peers[1], peers[2], peers[0]]);
        assert_eq!(ranking.best(1, |_| true), [peers[1]]);
        assert_eq!(ranking.best(2, |peer| *peer != peers[1]), [peers[2], peers[0]]);
        assert!(ranking.best(0, |_| true).is_empty());
        // a second fast answer moves the average a tenth of the way
        for _ in 0..30 {
            ranking.sample(&peers[0], Duration::from_millis(1), 0, true);
        }
        assert_eq!(ranking.best(1, |_| true), [peers[0]]);
        ranking.remove(&peers[0]);
        ranking.sample(&peers[0], Duration::ZERO, 0, true);
        assert_eq!(ranking.best(9, |_| true), [peers[1], peers[2]]);
    }

    #[test]
    fn failures_large_answers_and_newcomers_count() {
        let (mut ranking, peers) = ranking(4);
        ranking.sample(&peers[0], seconds(1), 0, false);
        ranking.sample(&peers[1], seconds(1), 0, true);
        ranking.sample(&peers[2], seconds(8), 16 << 10, true);
        // 16 KiB in eight seconds is half a second for each; the newcomer stands at nine tenths of the average
        assert_eq!(ranking.best(4, |_| true), [peers[2], peers[3], peers[1], peers[0]]);
    }

    #[test]
    fn equals_are_ordered_by_name() {
        let (ranking, peers) = ranking(20);
        assert_eq!(ranking.best(20, |_| true), peers);
        assert!(Ranking::default().best(5, |_| true).is_empty());
    }
}
