//! Whom to dial and when (p2p-sync.md section 5, without the distributed table): direct peers always; peers of earlier runs and
//! then bootnodes while there are too few peers. Plain state, without clock and network.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use tokio::time::Instant;

/// How long after a failure the same peer is tried again, at first and at most.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Why a peer is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The operator wants it connected.
    Direct,
    /// It was connected in an earlier run.
    Backup,
    /// The network names it as a first contact.
    Bootnode,
}

#[derive(Debug)]
struct Target {
    kind: Kind,
    addresses: Vec<Multiaddr>,
    dialing: bool,
    next: Instant,
    wait: Duration,
    failed: bool,
}

/// The peers that can be dialled.
#[derive(Debug, Default)]
pub(crate) struct Dialer {
    targets: HashMap<PeerId, Target>,
}

impl Dialer {
    /// Makes a peer known. Whoever is known for several reasons is so for the first one given; addresses add up.
    pub(crate) fn add(&mut self, kind: Kind, peer: PeerId, addresses: impl IntoIterator<Item = Multiaddr>, now: Instant) {
        let target = self.targets.entry(peer).or_insert_with(|| Target {
            kind,
            addresses: Vec::new(),
            dialing: false,
            next: now,
            wait: FIRST_WAIT,
            failed: false,
        });
        target.addresses.extend(addresses);
    }

    /// Whom to dial now; they count as being dialled from here on.
    pub(crate) fn due(&mut self, connected: &HashSet<PeerId>, min_peers: usize, now: Instant) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let few = connected.len() < min_peers;
        let backups_left =
            self.targets.iter().any(|(peer, target)| target.kind == Kind::Backup && !target.failed && !connected.contains(peer));
        let wanted = |kind| match kind {
            Kind::Direct => true,
            Kind::Backup => few,
            Kind::Bootnode => few && !backups_left,
        };
        let due = self
            .targets
            .iter_mut()
            .filter(|(peer, target)| wanted(target.kind) && !target.dialing && target.next <= now && !connected.contains(peer));
        due.map(|(peer, target)| {
            target.dialing = true;
            (*peer, target.addresses.clone())
        })
        .collect()
    }

    /// A peer is connected, whoever dialled.
    pub(crate) fn connected(&mut self, peer: &PeerId) {
        if let Some(target) = self.targets.get_mut(peer) {
            (target.dialing, target.failed, target.wait) = (false, false, FIRST_WAIT);
        }
    }

    /// A peer is gone.
    pub(crate) fn disconnected(&mut self, peer: &PeerId, now: Instant) {
        if let Some(target) = self.targets.get_mut(peer) {
            target.next = now + FIRST_WAIT;
        }
    }

    /// Dialling a peer failed; it is tried again later, and ever later.
    pub(crate) fn failed(&mut self, peer: &PeerId, now: Instant) {
        if let Some(target) = self.targets.get_mut(peer).filter(|target| target.dialing) {
            target.next = now + target.wait;
            target.wait = (2 * target.wait).min(LONGEST_WAIT);
            (target.dialing, target.failed) = (false, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Case {
        dialer: Dialer,
        connected: HashSet<PeerId>,
        now: Instant,
    }

    impl Case {
        fn due(&mut self, after: u64) -> Vec<PeerId> {
            self.now += Duration::from_secs(after);
            self.dialer.due(&self.connected, 2, self.now).into_iter().map(|(peer, _)| peer).collect()
        }

        fn fail(&mut self, peer: &PeerId) {
            self.dialer.failed(peer, self.now);
        }
    }

    fn case(kinds: &[Kind]) -> (Case, Vec<PeerId>) {
        let (mut dialer, now) = (Dialer::default(), Instant::now());
        let peers: Vec<_> = kinds.iter().map(|_| PeerId::random()).collect();
        for (kind, peer) in kinds.iter().zip(&peers) {
            dialer.add(*kind, *peer, ["/ip4/127.0.0.1/tcp/1".parse().unwrap()], now);
        }
        (Case { dialer, connected: HashSet::new(), now }, peers)
    }

    #[test]
    fn bootnodes_come_after_peers_of_earlier_runs() {
        let (mut case, peers) = case(&[Kind::Backup, Kind::Bootnode]);
        assert_eq!(case.due(0), peers[..1]);
        assert!(case.due(100).is_empty(), "still dialling");
        case.fail(&peers[0]);
        assert_eq!(case.due(0), peers[1..]);
        assert_eq!(case.due(1), peers[..1]);
        case.fail(&peers[0]);
        assert!(case.due(1).is_empty(), "the wait doubles");
        assert_eq!(case.due(1), peers[..1]);
        for _ in 0..9 {
            case.fail(&peers[0]);
            assert_eq!(case.due(10), peers[..1]);
        }
    }

    #[test]
    fn enough_peers_are_enough_but_direct_ones_are_always_wanted() {
        let (mut case, peers) = case(&[Kind::Direct, Kind::Bootnode]);
        case.connected.extend([PeerId::random(), PeerId::random()]);
        assert_eq!(case.due(0), peers[..1]);
        case.connected.insert(peers[0]);
        case.dialer.connected(&peers[0]);
        assert!(case.due(100).is_empty());
        case.connected.remove(&peers[0]);
        case.dialer.disconnected(&peers[0], case.now);
        assert!(case.due(0).is_empty());
        assert_eq!(case.due(1), peers[..1]);
        case.connected.clear();
        assert_eq!(case.due(0), peers[1..]);
    }
}
