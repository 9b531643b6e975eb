//! What is found to stand on, and what the activations of an epoch are worth.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use activation::{
    clock::Clock,
    grades::{Grades, SetError},
    positioning::{ChainError, Chains, Positioning, Trust},
    timeline::Moment,
    validate::{Known, PostClaim, PostError, Proofs, Validity, View as _},
};
use proto::{
    activation::ActiveSet,
    eligibility::{Grade, Weight},
    ids::{AtxId, NodeId},
    keys::IdentityKey,
    layers::EpochId,
    malfeasance::MalfeasanceProof,
    preset::{MinimalWeight, Preset},
    scale,
    span::Span,
    units::{SpaceUnits, TickHeight},
};
use serde_json::Value;
use store::memory::Memory;

use crate::{
    fixture::{Fixture, key, sign_v1, sign_v2},
    network::{BAD_SOMEWHERE, CheapProofs, GOLDEN},
    simulation::timeline,
};

/// Counts what is verified, and can be slow or out of order.
#[derive(Default)]
struct Slow {
    verified: AtomicUsize,
    pause: Duration,
    broken: AtomicBool,
}

impl Proofs for Slow {
    fn post(&self, claim: &PostClaim<'_>) -> Result<(), PostError> {
        self.verified.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(self.pause);
        if self.broken.load(Ordering::Relaxed) {
            return Err(PostError::Unavailable("no memory".into()));
        }
        CheapProofs.post(claim)
    }

    fn label(&self, id: &NodeId, commitment: &AtxId, index: u64) -> Result<[u8; 32], PostError> {
        CheapProofs.label(id, commitment, index)
    }
}

const NEVER: Duration = Duration::from_nanos(i64::MAX as u64);

fn chains(all: &Fixture, proofs: &Arc<Slow>) -> Chains {
    Chains { knowledge: all.node.knowledge.clone(), proofs: proofs.clone(), golden: GOLDEN }
}

fn positioning(all: &Fixture, proofs: &Arc<Slow>, delay: Duration) -> Positioning {
    Positioning::new(chains(all, proofs), delay, Clock::new(|| Moment(1_000_000)))
}

fn validity(all: &Fixture, id: &AtxId) -> Validity {
    all.node.knowledge.atx(id).unwrap().unwrap().row.validity
}

/// The second activation of an identity: its first one is of so many leaves, its proof is good or not.
fn second(all: &Fixture, who: &IdentityKey, leaves: u64, nonce: Option<u32>) -> (Known, Known) {
    let first = all.accept(&sign_v1(who, all.v1(who, Fixture::first_challenge(who, 4), 4, leaves)));
    let mut inner = all.next(who, &first);
    if let Some(nonce) = nonce {
        inner.nipost.as_mut().unwrap().post.as_mut().unwrap().nonce = nonce;
    }
    (first, all.accept(&sign_v1(who, inner)))
}

#[tokio::test]
async fn the_highest_whose_chain_holds() {
    let (all, proofs) = (Fixture::new(), Arc::new(Slow::default()));
    let find = positioning(&all, &proofs, NEVER);
    let anybody = key(9).node_id();
    assert_eq!(find.find(EpochId(7), anybody, None).await, None);
    assert_eq!(find.highest().unwrap(), GOLDEN);
    assert_eq!(find.commitment(&anybody).await.unwrap(), GOLDEN);
    // the highest has a bad proof, the next one stands on somebody with a bad proof, the third is malicious
    let (_, bad) = second(&all, &key(1), 900, Some(BAD_SOMEWHERE));
    let (root, holds) = second(&all, &key(2), 700, None);
    let mut spoilt = all.v1(&key(3), Fixture::first_challenge(&key(3), 4), 4, 60);
    spoilt.nipost.as_mut().unwrap().post.as_mut().unwrap().nonce = BAD_SOMEWHERE;
    let spoilt = all.accept(&sign_v1(&key(3), spoilt));
    let mut over = Fixture::next_challenge(&all.accept_first(&key(4)));
    over.positioning_atx_id = spoilt.id;
    let over = all.accept(&sign_v1(&key(4), all.v1(&key(4), over, 4, 800)));
    let (_, of_malicious) = second(&all, &key(5), 750, None);
    let file: Value = serde_json::from_str(include_str!("../../testdata/malfeasance_go.json")).unwrap();
    let proof = hex::decode(file["proofs"][0]["proof"].as_str().unwrap()).unwrap();
    let proof: MalfeasanceProof = scale::decode(&proof).unwrap();
    all.node.knowledge.keep_malfeasance(&key(5).node_id(), &proof, Moment(5)).unwrap();
    let (first, good) = second(&all, &key(6), 500, None);
    let heights = [&bad, &over, &of_malicious, &holds, &good].map(|known| known.row.height());
    assert!(heights.is_sorted_by(|a, b| a > b), "{heights:?}");

    let found = find.find(EpochId(7), anybody, None).await.unwrap();
    assert_eq!(found, (holds.id, holds.row.height()));
    assert_eq!(validity(&all, &bad.id), Validity::Invalid);
    assert_eq!((validity(&all, &found.0), validity(&all, &root.id)), (Validity::Valid, Validity::Valid));
    assert_eq!(validity(&all, &good.id), Validity::Unknown);
    // the answer is there for everybody now
    let verified = proofs.verified.load(Ordering::Relaxed);
    assert_eq!(find.find(EpochId(7), key(8).node_id(), Some(Moment(0))).await, Some(found));
    assert_eq!(proofs.verified.load(Ordering::Relaxed), verified);
    // what an activation says of the one below it
    let stop = AtomicBool::new(false);
    let trust = Trust { before: Moment(0), identity: None };
    assert!(!chains(&all, &proofs).verify(over.id, &trust, &stop).unwrap());
    assert_eq!((validity(&all, &over.id), validity(&all, &spoilt.id)), (Validity::Invalid, Validity::Invalid));
    // of the epoch before there are others
    let before = find.find(EpochId(6), anybody, None).await.unwrap();
    assert_eq!(all.node.knowledge.atx(&before.0).unwrap().unwrap().row.publish_epoch, EpochId(5));
    // the API does not verify, but leaves malicious ones out
    assert_eq!(find.highest().unwrap(), bad.id);
    assert_eq!(find.commitment(&key(6).node_id()).await.unwrap(), GOLDEN);
    assert_eq!(find.commitment(&key(8).node_id()).await.unwrap(), found.0);
    assert!(first.row.height() > TickHeight(0));
}

#[tokio::test]
async fn trust_saves_work() {
    let all = Fixture::new();
    let proofs = Arc::new(Slow::default());
    let (first, last) = second(&all, &key(1), 500, None);
    let stop = AtomicBool::new(false);
    let chains = chains(&all, &proofs);
    // received at 1000
    for trust in [Trust { before: Moment(1001), identity: None }, Trust { before: Moment(0), identity: Some(key(1).node_id()) }] {
        assert!(chains.verify(last.id, &trust, &stop).unwrap());
    }
    assert_eq!((proofs.verified.load(Ordering::Relaxed), validity(&all, &last.id)), (0, Validity::Unknown));
    // without a delay everything is old enough
    let find = positioning(&all, &proofs, Duration::ZERO);
    assert_eq!(find.find(EpochId(7), key(2).node_id(), None).await, Some((last.id, last.row.height())));
    assert_eq!(proofs.verified.load(Ordering::Relaxed), 0);
    // those of a checkpoint have nothing to verify
    let mut checkpointed = first.clone();
    (checkpointed.id, checkpointed.row.received) = (AtxId([0x77; 32]), 0);
    all.node.put(&checkpointed);
    assert!(chains.verify(checkpointed.id, &Trust { before: Moment(0), identity: None }, &stop).unwrap());
}

#[tokio::test]
async fn grown_and_merged_activations_hold() {
    let (all, proofs) = (Fixture::new(), Arc::new(Slow::default()));
    let stop = AtomicBool::new(false);
    let nobody = Trust { before: Moment(0), identity: None };
    let (a, b, of_a, of_b, _) = all.couple();
    let merged = all.accept(&sign_v2(&a, all.merged(&a, &b, &of_a, &of_b)));
    assert_eq!(merged.row.effective_units, SpaceUnits(8));
    assert!(chains(&all, &proofs).verify(merged.id, &nobody, &stop).unwrap());
    let who = key(7);
    let first = all.accept_first(&who);
    let grown = all.accept(&sign_v1(&who, all.v1(&who, Fixture::next_challenge(&first), 6, 100)));
    assert_eq!(grown.row.effective_units, SpaceUnits(4));
    assert!(chains(&all, &proofs).verify(grown.id, &nobody, &stop).unwrap());
    for id in [merged.id, of_a.id, of_b.id, grown.id, first.id] {
        assert_eq!(validity(&all, &id), Validity::Valid);
    }
}

#[tokio::test]
async fn no_verdict_leaves_no_trace() {
    let (all, proofs) = (Fixture::new(), Arc::new(Slow::default()));
    let (first, last) = second(&all, &key(1), 500, None);
    proofs.broken.store(true, Ordering::Relaxed);
    let find = positioning(&all, &proofs, NEVER);
    assert_eq!(find.find(EpochId(7), key(2).node_id(), None).await, None);
    assert_eq!((validity(&all, &first.id), validity(&all, &last.id)), (Validity::Unknown, Validity::Unknown));
    // that was no answer for good
    proofs.broken.store(false, Ordering::Relaxed);
    assert_eq!(find.find(EpochId(7), key(2).node_id(), None).await.map(|found| found.0), Some(last.id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_search_ends_in_time() {
    let proofs = Arc::new(Slow { pause: Duration::from_millis(400), ..Slow::default() });
    let all = Fixture::new();
    let who = key(1);
    let mut known = all.accept_first(&who);
    for _ in 0..5 {
        known = all.accept(&sign_v1(&who, all.next(&who, &known)));
    }
    let find = Positioning::new(chains(&all, &proofs), NEVER, Clock::system());
    let begun = std::time::Instant::now();
    let until = Moment::now() + Duration::from_millis(150);
    assert_eq!(find.find(EpochId(11), key(2).node_id(), Some(until)).await, None);
    // all of them would take 2.4 seconds
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    // when nobody looks any more, nothing more is verified
    tokio::time::sleep(Duration::from_millis(900)).await;
    let verified = proofs.verified.load(Ordering::Relaxed);
    assert!(verified < 6, "{verified}");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(proofs.verified.load(Ordering::Relaxed), verified);
    let stopped = AtomicBool::new(true);
    let trust = Trust { before: Moment(0), identity: None };
    assert!(matches!(chains(&all, &proofs).verify(known.id, &trust, &stopped), Err(ChainError::Stopped)));
}

/// An activation of epoch 5 by somebody, received at a time.
fn received(all: &Fixture, who: u8, at: Moment) -> Known {
    let key = key(who);
    let atx = sign_v1(&key, all.first(&key));
    let known = all.check(&atx).unwrap();
    all.node.knowledge.keep(known.clone(), &atx, &crate::network::encode(&atx), at).unwrap();
    known
}

#[test]
fn active_sets() {
    let all = Fixture::new();
    let delay = Duration::from_secs(600);
    let target = EpochId(6);
    let start = timeline().start(target);
    let local = Memory::default();
    let grades_on = |local: &Memory, good_percent| {
        let mut network = Preset::Mainnet.network().clone();
        network.main.atx_grade_delay = Span(delay);
        network.main.miner_good_atxs_percent = good_percent;
        network.tortoise.minimal_active_set_weight =
            vec![MinimalWeight { epoch: 2, weight: 5 }, MinimalWeight { epoch: 6, weight: 50 }];
        Grades::new(&network, timeline(), all.node.knowledge.clone(), Arc::new(local.clone()))
    };
    let grades = |good_percent| grades_on(&local, good_percent);
    let nothing = || Ok(None);
    assert!(matches!(grades(50).active_set(target, None, nothing), Err(SetError::None(_))));
    let early: Vec<Known> = (1..=3).map(|who| received(&all, who, start.before(delay * 5))).collect();
    let late = received(&all, 4, start.before(delay * 4));
    let too_late = received(&all, 5, start.before(delay * 3));
    let graded = grades(50).of(target).unwrap();
    let grade = |known: &Known| graded.iter().find(|atx| atx.id == known.id).unwrap().grade;
    assert_eq!((grade(&early[0]), grade(&late), grade(&too_late)), (Grade::Good, Grade::Acceptable, Grade::Evil));
    assert!(graded.is_sorted_by_key(|atx| atx.id));
    assert_eq!((grades(50).min_weight(EpochId(5)), grades(50).min_weight(target)), (Weight(5), Weight(50)));
    // three of five are 60 percent, which is not more than 60
    let few = grades(60).active_set(target, None, nothing);
    assert!(matches!(few, Err(SetError::TooFewGood { good: 3, total: 5, .. })), "{few:?}");
    // without a word about it 90 are asked for
    assert!(matches!(grades(0).active_set(target, None, nothing), Err(SetError::TooFewGood { percent: 90, .. })));
    // a chain that says what counts is believed then, if it names what is known
    let unknown = grades(60).active_set(target, None, || Ok(Some(vec![GOLDEN])));
    assert!(matches!(unknown, Err(SetError::Unknown(GOLDEN, _))));
    assert!(matches!(grades(60).active_set(target, Some(vec![]), nothing), Err(SetError::Empty)));
    assert_eq!(grades(60).prepared(target).unwrap(), None);
    let prepared = grades(59).active_set(target, None, nothing).unwrap();
    let mut ids: Vec<AtxId> = early.iter().map(|known| known.id).collect();
    ids.sort_unstable();
    assert_eq!(prepared.active, ActiveSet { epoch: target, set: ids });
    assert_eq!((prepared.id, prepared.weight), (prepared.active.hash(), Weight(120)));
    // it stays, whatever comes
    assert_eq!(grades(99).active_set(target, Some(vec![late.id]), nothing).unwrap(), prepared);
    // whom somebody trusts comes before what arrived, the chain after it
    let fresh = |good_percent| grades_on(&Memory::default(), good_percent);
    assert_eq!(fresh(10).active_set(target, Some(vec![late.id]), nothing).unwrap().active.set, [late.id]);
    let of_chain = fresh(60).active_set(target, None, || Ok(Some(vec![late.id, early[0].id, late.id]))).unwrap();
    assert_eq!(of_chain.active.set.len(), 2);
    assert_eq!(fresh(59).active_set(target, None, || panic!("not asked")).unwrap(), prepared);
}
