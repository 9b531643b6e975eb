//! Activations that come twice, out of order, without what they name, at the wrong time, or prove that somebody cheats.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use activation::{
    clock::Clock,
    handler::{Config, Fetch, Fetching, Handler, MOST_DEPTH, News, Outcome, Peer, Reason, Source},
    knowledge::Knowledge,
    validate::{Invalid, Known, PostClaim, PostError, Proofs, Refusal, View as _},
};
use kernels::posw::Statement;
use poet_service::{membership, prove as poet_prove, tree::Shape};
use proptest::prelude::*;
use proto::{
    activation::{Activation, Version, Versions, v1::AtxMetadata},
    ids::{AtxId, EdSignature, GenesisId, Hash32, NodeId, PoetProofRef},
    keys::IdentityKey,
    layers::{EpochId, LayerId},
    malfeasance::{self, AtxPart, MalfeasanceGossip, MalfeasanceProof, MultipleAtxs, Offence},
    poet::{Leaves, PROVEN_LEAVES, PoetProofMessage},
    scale,
    signing::Domain,
};
use serde_json::Value;
use store::{
    check::check,
    schema::{Database, Family},
};
use tokio::sync::{broadcast, mpsc};

use crate::{
    fixture::{Fixture, NOW, key, sign_v1, sign_v2},
    network::{BAD_INDEX, CheapProofs, NETWORK, Node, UNAVAILABLE, encode, rules},
    simulation::timeline,
};

/// What another node has, and what it was asked for.
#[derive(Default)]
struct Neighbour {
    handler: OnceLock<Handler>,
    atxs: Mutex<HashMap<AtxId, Vec<u8>>>,
    rounds: OnceLock<(Node, Node)>,
    asked: Mutex<Vec<AtxId>>,
}

fn peer() -> Peer {
    Peer(b"neighbour".to_vec())
}

fn gossip() -> Source {
    Source::Gossip(peer())
}

fn requested(id: AtxId) -> Source {
    Source::Requested { from: peer(), id: Hash32(id.0) }
}

impl Fetch for Neighbour {
    fn activations<'a>(&'a self, ids: &'a [AtxId], from: Option<&'a Peer>) -> Fetching<'a> {
        Box::pin(async move {
            assert_eq!(from, Some(&peer()));
            self.asked.lock().unwrap().extend(ids);
            for id in ids {
                let bytes = self.atxs.lock().unwrap().get(id).cloned().ok_or("nobody has it")?;
                let outcome = self.handler.get().unwrap().activation(&bytes, requested(*id)).await;
                if !outcome.is_here() {
                    return Err(format!("{outcome:?}"));
                }
            }
            Ok(())
        })
    }

    fn poet_proofs<'a>(&'a self, _: &'a [PoetProofRef], _: Option<&'a Peer>) -> Fetching<'a> {
        Box::pin(async move {
            // proofs of rounds in tests prove nothing, so they come in by the back door
            let (from, to) = self.rounds.get().unwrap();
            to.copy(from, Family::Poet);
            to.copy(from, Family::PoetRound);
            Ok(())
        })
    }
}

/// The identity that is never kept waiting.
fn own() -> NodeId {
    key(33).node_id()
}

/// Counts what is verified.
#[derive(Default)]
struct Counted(AtomicUsize, AtomicBool);

impl Proofs for Counted {
    fn post(&self, claim: &PostClaim<'_>) -> Result<(), PostError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        // as long as a test wants it
        while claim.id != own() && self.1.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        CheapProofs.post(claim)
    }

    fn label(&self, id: &NodeId, commitment: &AtxId, index: u64) -> Result<[u8; 32], PostError> {
        CheapProofs.label(id, commitment, index)
    }
}

/// The node under test beside one that knows everything.
struct Scene {
    /// Makes activations, and knows them.
    all: Fixture,
    neighbour: Arc<Neighbour>,
    node: Node,
    handler: Handler,
    verified: Arc<Counted>,
    news: broadcast::Receiver<News>,
    proofs: mpsc::Receiver<Vec<u8>>,
}

impl Scene {
    fn new() -> Self {
        Self::with_network(rules().network)
    }

    fn with_network(network: GenesisId) -> Self {
        let (all, node, neighbour) = (Fixture::new(), Node::new(), Arc::new(Neighbour::default()));
        let now = timeline().start(NOW);
        let config = Config {
            rules: activation::validate::Rules { network, ..rules() },
            versions: Versions::new(vec![(EpochId(8), Version::V2)]).unwrap(),
            timeline: timeline(),
            clock: Clock::new(move || now),
            parallel: 2,
        };
        let verified = Arc::new(Counted::default());
        let (send, proofs) = mpsc::channel(9);
        let handler = Handler::new(config, node.knowledge.clone(), verified.clone(), neighbour.clone(), send);
        let _ = neighbour.handler.set(handler.clone());
        let _ = neighbour.rounds.set((all.node.clone(), node.clone()));
        let news = handler.news();
        handler.set_synced();
        Self { all, neighbour, node, handler, verified, news, proofs }
    }

    fn knowledge(&self) -> &Knowledge {
        &self.node.knowledge
    }

    fn has(&self, id: &AtxId) -> bool {
        self.knowledge().atxs().get(id).unwrap().is_some()
    }

    /// Lets the neighbour have an activation.
    fn offer(&self, atx: &Activation) -> Vec<u8> {
        let bytes = encode(atx);
        self.neighbour.atxs.lock().unwrap().insert(atx.id().unwrap(), bytes.clone());
        bytes
    }

    /// An identity's first activations, one after the other, which the neighbour has.
    fn chain(&self, who: &IdentityKey, count: usize) -> Vec<(AtxId, Vec<u8>)> {
        let mut made = Vec::new();
        let mut last: Option<Known> = None;
        for _ in 0..count {
            let inner = last.as_ref().map_or_else(|| self.all.first(who), |last| self.all.next(who, last));
            let atx = sign_v1(who, inner);
            let known = self.all.accept(&atx);
            made.push((known.id, self.offer(&atx)));
            last = Some(known);
        }
        made
    }

    async fn gossip(&self, bytes: &[u8]) -> Outcome {
        self.handler.activation(bytes, gossip()).await
    }

    /// What was learned since the last time: activations, then identities.
    fn learned(&mut self) -> (Vec<AtxId>, Vec<NodeId>) {
        let (mut atxs, mut bad) = (Vec::new(), Vec::new());
        while let Ok(news) = self.news.try_recv() {
            match news {
                News::Activation { known, .. } => atxs.push(known.id),
                News::Malicious { identity, .. } => bad.push(identity),
            }
        }
        (atxs, bad)
    }
}

fn rejected(rule: Invalid) -> Outcome {
    Outcome::Reject(Refusal::from(rule).into())
}

#[tokio::test]
async fn the_same_activation_twice() {
    let mut scene = Scene::new();
    let chain = scene.chain(&key(1), 1);
    let (id, bytes) = &chain[0];
    assert_eq!(scene.gossip(bytes).await, Outcome::Accept);
    let verified = scene.verified.0.load(Ordering::Relaxed);
    for source in [gossip(), requested(*id), Source::Own] {
        assert_eq!(scene.handler.activation(bytes, source).await, Outcome::Known);
    }
    assert_eq!(scene.verified.0.load(Ordering::Relaxed), verified);
    assert_eq!(scene.learned(), (vec![*id], vec![]));
    // bytes, row and share are what the maker has
    assert_eq!(scene.knowledge().atxs().wire(id).unwrap(), Some((Version::V1, bytes.clone())));
    let (here, there) = (scene.knowledge().atx(id).unwrap().unwrap(), scene.all.node.knowledge.atx(id).unwrap().unwrap());
    assert_eq!(here.shares, there.shares);
    assert_eq!(here.row.received, timeline().start(NOW).0 as u64);
    assert_eq!(activation::validate::Atx { received: there.row.received, ..here.row }, there.row);
    // an id is not all: the same one with another signature is nobody's
    let Activation::V1(mut forged) = Activation::decode_version(bytes, Version::V1).unwrap() else { unreachable!() };
    forged.signature = EdSignature([1; 64]);
    assert_eq!(scene.gossip(&encode(&Activation::V1(forged))).await, rejected(Invalid::Signature));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_are_one() {
    let mut scene = Scene::new();
    let (id, bytes) = scene.chain(&key(1), 2).pop().unwrap();
    let Activation::V1(mut forged) = Activation::decode_version(&bytes, Version::V1).unwrap() else { unreachable!() };
    forged.signature = EdSignature([1; 64]);
    let forged = encode(&Activation::V1(forged));
    let mut tasks = Vec::new();
    for n in 0..40 {
        let (handler, bytes) = (scene.handler.clone(), if n % 4 == 1 { forged.clone() } else { bytes.clone() });
        tasks.push((n % 4 == 1, tokio::spawn(async move { handler.activation(&bytes, gossip()).await })));
    }
    let mut accepted = 0;
    for (is_forged, task) in tasks {
        match task.await.unwrap() {
            outcome if is_forged => assert_eq!(outcome, rejected(Invalid::Signature)),
            Outcome::Accept => accepted += 1,
            outcome => assert_eq!(outcome, Outcome::Known),
        }
    }
    // three proofs: the initial one, and one of each activation
    assert_eq!((accepted, scene.verified.0.load(Ordering::Relaxed)), (1, 3));
    assert_eq!(scene.learned().0.len(), 2);
    assert!(scene.has(&id));
}

#[tokio::test]
async fn what_is_named_comes_first() {
    let mut scene = Scene::new();
    let chain = scene.chain(&key(1), 3);
    let ids: Vec<AtxId> = chain.iter().map(|(id, _)| *id).collect();
    assert_eq!(scene.gossip(&chain[2].1).await, Outcome::Accept);
    assert_eq!(*scene.neighbour.asked.lock().unwrap(), [ids[1], ids[0]]);
    assert_eq!(scene.learned(), (ids.clone(), vec![]));
    // the others come now
    assert_eq!(scene.gossip(&chain[0].1).await, Outcome::Known);
    assert_eq!(scene.gossip(&chain[1].1).await, Outcome::Known);
    let own = scene.knowledge().last_of(&key(1).node_id()).unwrap().unwrap();
    assert_eq!((own.id, own.sequence), (ids[2], 2));
}

#[tokio::test]
async fn nothing_is_taken_without_what_it_names() {
    let mut scene = Scene::new();
    let chain = scene.chain(&key(1), 3);
    let (first, _) = &chain[0];
    let kept = scene.neighbour.atxs.lock().unwrap().remove(first).unwrap();
    let outcome = scene.gossip(&chain[2].1).await;
    assert!(matches!(&outcome, Outcome::Ignore(Reason::Missing { missing: 1, error: Some(_) })), "{outcome:?}");
    assert_eq!(scene.learned(), (vec![], vec![]));
    assert!(chain.iter().all(|(id, _)| !scene.has(id)));
    // another time it is there
    scene.neighbour.atxs.lock().unwrap().insert(*first, kept);
    assert_eq!(scene.gossip(&chain[2].1).await, Outcome::Accept);
    assert!(chain.iter().all(|(id, _)| scene.has(id)));
}

#[tokio::test]
async fn what_names_an_invalid_one_is_nobodys_fault() {
    let scene = Scene::new();
    let who = key(1);
    let mut bad = scene.all.first(&who);
    bad.nipost.as_mut().unwrap().post.as_mut().unwrap().pow = 99;
    let bad = sign_v1(&who, bad);
    let bytes = scene.offer(&bad);
    // the maker is blind to this
    let mut known = scene.all.check(&sign_v1(&who, scene.all.first(&who))).unwrap();
    known.id = bad.id().unwrap();
    scene.all.node.put(&known);
    let next = sign_v1(&who, scene.all.next(&who, &known));
    assert!(matches!(scene.gossip(&encode(&next)).await, Outcome::Ignore(Reason::Missing { missing: 1, .. })));
    let outcome = scene.gossip(&bytes).await;
    assert!(matches!(outcome, Outcome::Reject(Reason::Refused(Refusal::Invalid(Invalid::Post { .. })))), "{outcome:?}");
    assert!(!scene.has(&known.id));
}

#[tokio::test]
async fn chains_have_an_end() {
    let scene = Scene::new();
    let who = key(1);
    let mut known = scene.all.accept_first(&who);
    let mut last = Vec::new();
    for _ in 0..MOST_DEPTH + 9 {
        let mut challenge = Fixture::next_challenge(&known);
        challenge.publish_epoch = EpochId(7);
        let atx = sign_v1(&who, scene.all.v1(&who, challenge, 4, 100));
        known.id = atx.id().unwrap();
        last = scene.offer(&atx);
    }
    assert!(matches!(scene.gossip(&last).await, Outcome::Ignore(Reason::Missing { .. })));
    assert_eq!(scene.neighbour.asked.lock().unwrap().len() as u32, MOST_DEPTH);
    // it was the depth, not the number: the end of the chain is there for itself
    assert!(!scene.has(&known.id));
}

#[tokio::test]
async fn what_is_malformed_or_not_what_was_asked_for_is_rejected() {
    let scene = Scene::new();
    let chain = scene.chain(&key(1), 1);
    let (id, bytes) = &chain[0];
    assert!(matches!(scene.gossip(b"").await, Outcome::Reject(Reason::Malformed(_))));
    assert!(matches!(scene.gossip(&[&bytes[..], &[0]].concat()).await, Outcome::Reject(Reason::Malformed(_))));
    let other = AtxId([5; 32]);
    let outcome = scene.handler.activation(bytes, requested(other)).await;
    assert_eq!(outcome, Outcome::Reject(Reason::NotRequested { asked: Hash32(other.0), found: Hash32(id.0) }));
    assert!(!scene.has(id));
    assert_eq!(scene.handler.activation(bytes, requested(*id)).await, Outcome::Accept);
}

#[tokio::test]
async fn gossip_waits_for_synchronisation() {
    let scene = Scene::new();
    let chain = scene.chain(&key(1), 2);
    let (send, _proofs) = mpsc::channel(9);
    let now = timeline().start(NOW);
    let config = Config {
        rules: rules(),
        versions: Versions::default(),
        timeline: timeline(),
        clock: Clock::new(move || now),
        parallel: 1,
    };
    let fresh = Handler::new(config, scene.node.knowledge.clone(), Arc::new(CheapProofs), scene.neighbour.clone(), send);
    let early = Outcome::Ignore(Reason::NotSynced);
    assert_eq!(fresh.activation(&chain[0].1, gossip()).await, early);
    assert_eq!(fresh.malfeasance(b"anything", gossip()).await, early);
    assert_eq!(fresh.activation(&chain[0].1, requested(chain[0].0)).await, Outcome::Accept);
    fresh.set_synced();
    assert_eq!(fresh.activation(&chain[1].1, gossip()).await, Outcome::Accept);
}

#[tokio::test]
async fn a_verifier_that_fails_blames_nobody() {
    let scene = Scene::new();
    let who = key(1);
    let first = scene.all.accept_first(&who);
    scene.offer(&sign_v1(&who, scene.all.first(&who)));
    let mut next = scene.all.next(&who, &first);
    next.nipost.as_mut().unwrap().post.as_mut().unwrap().nonce = UNAVAILABLE;
    let outcome = scene.gossip(&encode(&sign_v1(&who, next))).await;
    assert_eq!(outcome, Outcome::Ignore(Refusal::Undecided("no memory".into()).into()));
}

/// An activation whose proof of space fails at an index.
fn cheat(scene: &Scene, who: &IdentityKey) -> (AtxId, Vec<u8>) {
    let first = scene.all.accept_first(who);
    scene.offer(&sign_v1(who, scene.all.first(who)));
    let mut next = scene.all.next(who, &first);
    let post = next.nipost.as_mut().unwrap().post.as_mut().unwrap();
    (post.nonce, post.indices) = (BAD_INDEX, vec![21]);
    (next.id().unwrap(), encode(&sign_v1(who, next)))
}

#[tokio::test]
async fn a_wrong_label_is_told_to_the_world() {
    let mut scene = Scene::new();
    let who = key(1);
    let (id, bytes) = cheat(&scene, &who);
    let refusal = || Refusal::Malfeasance { index: 21 };
    assert_eq!(scene.gossip(&bytes).await, Outcome::Ignore(refusal().into()));
    assert!(!scene.has(&id));
    assert_eq!(scene.learned().1, [who.node_id()]);
    let proof = scene.proofs.try_recv().unwrap();
    let gossiped: MalfeasanceGossip = scale::decode(&proof).unwrap();
    assert!(matches!(&gossiped.proof.offence, Offence::InvalidPostIndex(body) if body.invalid_idx == 21));
    assert_eq!(gossiped.proof.layer, timeline().layers_per_epoch.first_layer(EpochId(6)).unwrap());
    assert!(scene.knowledge().is_malicious(&who.node_id()).unwrap());
    // once is enough
    assert_eq!(scene.gossip(&bytes).await, Outcome::Reject(refusal().into()));
    assert!(scene.proofs.try_recv().is_err());
    // others believe it, who know what the labels are bound to, but not that another label is wrong
    let other = Scene::new();
    let outcome = other.handler.malfeasance(&proof, gossip()).await;
    assert_eq!(outcome, Outcome::Reject(Reason::UnknownIdentity(who.node_id())));
    other.node.put(&scene.all.accept_first(&who));
    assert_eq!(other.handler.malfeasance(&proof, gossip()).await, Outcome::Accept);
    let mut wrong = gossiped.clone();
    if let Offence::InvalidPostIndex(body) = &mut wrong.proof.offence {
        let Activation::V1(good) = sign_v1(&who, scene.all.next(&who, &scene.all.accept_first(&who))) else { unreachable!() };
        (body.atx, body.invalid_idx) = (*good, 3);
    }
    let wrong = other.handler.malfeasance(&scale::encode(&wrong).unwrap(), gossip()).await;
    assert_eq!(wrong, Outcome::Reject(Reason::GoodIndex(3)));
    let [own, unavailable] = [Scene::new(), Scene::new()];
    own.node.knowledge.add_own(who.node_id());
    let (id, bytes) = cheat(&own, &who);
    assert!(matches!(own.gossip(&bytes).await, Outcome::Ignore(Reason::NotStored(_))));
    assert!(!own.has(&id) && !own.knowledge().is_malicious(&who.node_id()).unwrap());
    let mut cannot_tell = gossiped;
    if let Offence::InvalidPostIndex(body) = &mut cannot_tell.proof.offence {
        body.atx.inner.nipost.as_mut().unwrap().post.as_mut().unwrap().nonce = UNAVAILABLE;
        let Activation::V1(signed) = sign_v1(&who, body.atx.inner.clone()) else { unreachable!() };
        body.atx = *signed;
    }
    unavailable.node.put(&scene.all.accept_first(&who));
    let outcome = unavailable.handler.malfeasance(&scale::encode(&cannot_tell).unwrap(), gossip()).await;
    assert_eq!(outcome, Outcome::Ignore(Refusal::Undecided("no memory".into()).into()));
}

#[tokio::test]
async fn two_activations_in_one_epoch() {
    let mut scene = Scene::new();
    let who = key(1);
    let id = who.node_id();
    let chain = scene.chain(&who, 2);
    assert_eq!(scene.gossip(&chain[1].1).await, Outcome::Accept);
    let first = scene.knowledge().atx(&chain[0].0).unwrap().unwrap();
    // one more of the second epoch, for another account; it follows the first one as well, but the epoch comes first
    let mut twin = scene.all.next(&who, &first);
    twin.coinbase.0[0] ^= 1;
    let twin = sign_v1(&who, twin);
    let bytes = encode(&twin);
    scene.learned();
    assert_eq!(scene.gossip(&bytes).await, Outcome::Ignore(Reason::Malicious(id)));
    assert!(scene.has(&twin.id().unwrap()));
    assert_eq!(scene.learned(), (vec![twin.id().unwrap()], vec![id]));
    let proof = scene.proofs.try_recv().unwrap();
    let decoded: MalfeasanceGossip = scale::decode(&proof).unwrap();
    assert!(matches!(decoded.proof.offence, Offence::MultipleAtxs(_)));
    assert_eq!(decoded.check(&NETWORK), Ok(id));
    let (_, stored) = scene.knowledge().malfeasance(&id).unwrap().unwrap();
    assert_eq!(scale::decode::<MalfeasanceProof>(&stored).unwrap(), decoded.proof);
    assert_eq!(scene.knowledge().all_malicious().unwrap(), [id]);
    // another one makes no second proof, and goes the usual way
    let mut third = scene.all.next(&who, &first);
    third.coinbase.0[1] ^= 1;
    assert_eq!(scene.gossip(&encode(&sign_v1(&who, third))).await, Outcome::Accept);
    assert!(scene.proofs.try_recv().is_err());

    // what other nodes make of the proof
    let mut other = Scene::new();
    let outcome = other.handler.malfeasance(&proof, gossip()).await;
    assert_eq!(outcome, Outcome::Reject(Reason::UnknownIdentity(id)));
    other.node.put(&first);
    let asked = |id: NodeId| Source::Requested { from: peer(), id: Hash32(id.0) };
    let outcome = other.handler.malfeasance(&stored, asked(key(2).node_id())).await;
    assert!(matches!(outcome, Outcome::Reject(Reason::NotRequested { .. })));
    assert!(!other.knowledge().is_malicious(&id).unwrap());
    assert_eq!(other.handler.malfeasance(&stored, asked(id)).await, Outcome::Accept);
    assert_eq!(other.learned().1, [id]);
    for again in [gossip(), Source::Own] {
        assert_eq!(other.handler.malfeasance(&proof, again).await, Outcome::Accept);
    }
    assert_eq!(other.learned().1, []);
}

#[tokio::test]
async fn two_activations_after_the_same_one() {
    let mut scene = Scene::new();
    let who = key(1);
    let chain = scene.chain(&who, 2);
    assert_eq!(scene.gossip(&chain[1].1).await, Outcome::Accept);
    let first = scene.knowledge().atx(&chain[0].0).unwrap().unwrap();
    let mut challenge = Fixture::next_challenge(&first);
    challenge.publish_epoch = EpochId(7);
    let fork = sign_v1(&who, scene.all.v1(&who, challenge, 4, 100));
    assert_eq!(scene.gossip(&encode(&fork)).await, Outcome::Ignore(Reason::Malicious(who.node_id())));
    assert!(scene.has(&fork.id().unwrap()));
    let proof: MalfeasanceGossip = scale::decode(&scene.proofs.try_recv().unwrap()).unwrap();
    assert!(matches!(proof.proof.offence, Offence::InvalidPrevAtx(_)));
    assert_eq!(proof.check(&NETWORK), Ok(who.node_id()));

    // following an old one that nothing else follows proves nothing
    let scene = Scene::new();
    let chain = scene.chain(&who, 1);
    assert_eq!(scene.gossip(&chain[0].1).await, Outcome::Accept);
    let mut second = scene.all.first(&who);
    let mut challenge = Fixture::first_challenge(&who, 4);
    challenge.publish_epoch = EpochId(6);
    second = scene.all.v1(&who, challenge, second.num_units.0, 100);
    // two first ones follow nothing, both: that is the same
    assert_eq!(scene.gossip(&encode(&sign_v1(&who, second))).await, Outcome::Ignore(Reason::Malicious(who.node_id())));
}

#[tokio::test]
async fn own_identities_are_not_incriminated() {
    let mut scene = Scene::new();
    let who = key(1);
    scene.knowledge().add_own(who.node_id());
    let chain = scene.chain(&who, 2);
    assert_eq!(scene.gossip(&chain[1].1).await, Outcome::Accept);
    let first = scene.knowledge().atx(&chain[0].0).unwrap().unwrap();
    let mut twin = scene.all.next(&who, &first);
    twin.coinbase.0[0] ^= 1;
    let mut challenge = Fixture::next_challenge(&first);
    challenge.publish_epoch = EpochId(7);
    for inner in [twin, scene.all.v1(&who, challenge, 4, 100)] {
        let id = inner.id().unwrap();
        let bytes = encode(&sign_v1(&who, inner));
        for source in [Source::Own, gossip()] {
            let outcome = scene.handler.activation(&bytes, source).await;
            assert!(matches!(outcome, Outcome::Ignore(Reason::NotStored(_))), "{outcome:?}");
        }
        assert!(!scene.has(&id));
    }
    assert!(scene.proofs.try_recv().is_err() && !scene.knowledge().is_malicious(&who.node_id()).unwrap());
    assert_eq!(scene.learned().1, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_activations_do_not_wait_for_others() {
    let scene = Scene::new();
    scene.knowledge().add_own(own());
    let busy = scene.verified.clone();
    busy.1.store(true, Ordering::Relaxed);
    let mut others = Vec::new();
    for who in 1..9 {
        let (handler, (_, bytes)) = (scene.handler.clone(), scene.chain(&key(who), 1).remove(0));
        others.push(tokio::spawn(async move { handler.activation(&bytes, gossip()).await }));
    }
    while busy.0.load(Ordering::Relaxed) < 2 {
        tokio::task::yield_now().await;
    }
    let (_, bytes) = scene.chain(&key(33), 1).remove(0);
    assert_eq!(scene.handler.activation(&bytes, Source::Own).await, Outcome::Accept);
    assert!(others.iter().all(|task| !task.is_finished()));
    busy.1.store(false, Ordering::Relaxed);
    for task in others {
        assert_eq!(task.await.unwrap(), Outcome::Accept);
    }
}

#[tokio::test]
async fn version_2_comes_with_its_epochs() {
    let scene = Scene::new();
    let who = key(1);
    let chain = scene.chain(&who, 1);
    let atx = sign_v2(&who, scene.all.v2(&[(&who, chain[0].0)], 8, 4, None));
    let bytes = encode(&atx);
    assert_eq!(scene.gossip(&bytes).await, Outcome::Accept);
    // known ones of version 2 pass silently
    assert_eq!(scene.gossip(&bytes).await, Outcome::Accept);
    // in epochs of version 1 its bytes mean nothing
    let early = sign_v2(&who, scene.all.v2(&[(&who, chain[0].0)], 7, 4, None));
    assert!(matches!(scene.gossip(&encode(&early)).await, Outcome::Reject(Reason::Malformed(_))));
}

#[tokio::test]
async fn poet_proofs_are_verified_before_they_are_kept() {
    let scene = Scene::new();
    let members = vec![[7; 32], [9; 32]];
    let statement = membership::statement(members).unwrap();
    let proof = real_proof(&statement);
    let message = PoetProofMessage {
        proof,
        service_id: [8; 32].into(),
        round_id: (&b"3"[..]).try_into().unwrap(),
        statement,
        signature: [0; 64],
    };
    let reference = message.proof.reference().unwrap();
    let bytes = scale::encode(&message).unwrap();
    let asked = |id: [u8; 32]| Source::Requested { from: peer(), id: Hash32(id) };
    let outcome = scene.handler.poet_proof(&bytes, asked([1; 32])).await;
    assert!(matches!(outcome, Outcome::Ignore(Reason::NotRequested { .. })));
    // the reference does not cover the statement, the proof does
    let mut forged = message.clone();
    forged.statement[0] ^= 1;
    let outcome = scene.handler.poet_proof(&scale::encode(&forged).unwrap(), asked(reference.0)).await;
    assert!(matches!(outcome, Outcome::Reject(Reason::Poet(_))), "{outcome:?}");
    assert!(matches!(scene.handler.poet_proof(b"", asked(reference.0)).await, Outcome::Reject(Reason::Malformed(_))));
    assert_eq!(scene.knowledge().round(&reference).unwrap(), None);
    assert_eq!(scene.handler.poet_proof(&bytes, asked(reference.0)).await, Outcome::Accept);
    assert_eq!(scene.handler.poet_proof(&bytes, asked(reference.0)).await, Outcome::Known);
    let round = scene.knowledge().round(&reference).unwrap().unwrap();
    assert_eq!((round.statement.0, round.leaves), (statement, message.proof.leaf_count));
    assert_eq!(scene.knowledge().poet(&reference).unwrap(), Some(message));
}

/// A proof over a few hundred leaves.
fn real_proof(statement: &[u8; 32]) -> proto::poet::PoetProof {
    let (statement, kept) = (Statement::new(statement), Vec::<kernels::posw::Node>::new());
    let tree = poet_prove::Tree { statement: &statement, shape: Shape::new(20), leaves: Leaves(300), nodes: &kept };
    tree.prove(PROVEN_LEAVES, 1, &AtomicBool::new(false)).unwrap()
}

/// The proof that an identity has two first activations.
fn two_of_one_epoch(all: &Fixture, who: &IdentityKey) -> Vec<u8> {
    let part = |account: u8| {
        let mut inner = all.first(who);
        inner.coinbase.0[0] = account;
        let inner_msg = AtxMetadata { publish_epoch: EpochId(5), msg_hash: inner.id().unwrap() };
        let signature = who.sign(&NETWORK, Domain::Atx, &scale::encode(&inner_msg).unwrap());
        AtxPart { inner_msg, smesher_id: who.node_id(), signature }
    };
    let offence = Offence::MultipleAtxs(Box::new(MultipleAtxs { messages: (part(1), part(2)) }));
    let proof = MalfeasanceProof { layer: LayerId(9), offence };
    scale::encode(&MalfeasanceGossip { proof, eligibility: None }).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whatever the order in which activations come, and how often, in the end they are all there.
    #[test]
    fn the_order_does_not_matter(order in prop::collection::vec(0usize..9, 0..20), rest in Just((0..9).collect::<Vec<_>>()).prop_shuffle()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut scene = Scene::new();
            let all: Vec<_> = (1..4).flat_map(|who| scene.chain(&key(who), 3)).collect();
            let mut accepted = 0;
            for i in order.into_iter().chain(rest) {
                let (id, bytes) = &all[i];
                let outcome = if i % 2 == 0 { scene.gossip(bytes).await } else { scene.handler.activation(bytes, requested(*id)).await };
                prop_assert!(outcome.is_here(), "{:?}", outcome);
                accepted += usize::from(outcome == Outcome::Accept);
            }
            let (told, malicious) = scene.learned();
            prop_assert!(accepted <= 9 && malicious.is_empty());
            // each is told once, after the one that it follows
            let mut sorted = told.clone();
            sorted.sort_unstable();
            sorted.dedup();
            prop_assert_eq!((told.len(), sorted.len()), (9, 9));
            for (id, _) in &all {
                let known = scene.knowledge().atx(id).unwrap().unwrap();
                let made = scene.all.node.knowledge.atx(id).unwrap().unwrap();
                prop_assert_eq!((&known.shares, known.row.height()), (&made.shares, made.row.height()));
                let place = |id: &AtxId| told.iter().position(|other| other == id);
                prop_assert!(known.shares[0].1.previous.is_none_or(|previous| place(&previous) < place(id)));
            }
            prop_assert_eq!(check(&scene.node.memory, Database::State, &|| false).faults, Vec::<String>::new());
            Ok(())
        })?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Nobody can change an activation, nor the bodies of proofs of malfeasance, and nothing makes the handler fail.
    #[test]
    fn no_other_bytes_are_accepted(place: prop::sample::Index, bit in 0u8..8, cut: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let scene = Scene::new();
            let (_, bytes) = scene.chain(&key(1), 1).pop().unwrap();
            let change = |bytes: &[u8]| {
                let mut bytes = bytes.to_vec();
                let place = place.index(bytes.len());
                if cut { bytes.truncate(place) } else { bytes[place] ^= 1 << bit }
                bytes
            };
            let outcome = scene.gossip(&change(&bytes)).await;
            prop_assert!(matches!(outcome, Outcome::Reject(_)), "{:?}", outcome);
            prop_assert_eq!(scene.gossip(&bytes).await, Outcome::Accept);
            // of a proof everything counts but the layer in front and the tag at the end
            let proof = two_of_one_epoch(&scene.all, &key(1));
            let (front, body) = proof.split_at(1);
            let (body, end) = body.split_at(body.len() - 1);
            let outcome = scene.handler.malfeasance(&[front, &change(body), end].concat(), gossip()).await;
            prop_assert!(matches!(outcome, Outcome::Reject(_)), "{:?}", outcome);
            prop_assert_eq!(scene.handler.malfeasance(&proof, gossip()).await, Outcome::Accept);
            Ok(())
        })?;
    }
}

/// The golden proofs of malfeasance are accepted about identities that are known, and only with good signatures.
#[tokio::test]
async fn proofs_of_the_reference() {
    let file: Value = serde_json::from_str(include_str!("../../testdata/malfeasance_go.json")).unwrap();
    let bytes = |value: &Value| hex::decode(value.as_str().unwrap()).unwrap();
    let network = GenesisId(bytes(&file["genesis_id"]).try_into().unwrap());
    let (mut accepted, mut rejected) = (0, 0);
    for case in file["proofs"].as_array().unwrap() {
        let proof = bytes(&case["proof"]);
        let scene = Scene::with_network(network);
        let Ok(identity) = scale::decode::<MalfeasanceProof>(&proof).unwrap().check(&network) else {
            let outcome = scene.handler.malfeasance(&bytes(&case["gossip"]), gossip()).await;
            assert!(matches!(outcome, Outcome::Reject(Reason::ProvesNothing(_))), "{}: {outcome:?}", case["what"]);
            assert!(case["signatures_valid"].as_array().unwrap().contains(&false.into()));
            rejected += 1;
            continue;
        };
        let mut known = scene.all.accept_first(&key(1));
        known.row.smesher = identity;
        scene.node.put(&known);
        let outcome = scene.handler.malfeasance(&bytes(&case["gossip"]), gossip()).await;
        assert_eq!(outcome, Outcome::Accept, "{}", case["what"]);
        assert_eq!(scene.knowledge().malfeasance(&identity).unwrap().unwrap().1, proof);
        accepted += 1;
    }
    assert!(accepted >= 14 && rejected >= 1, "{accepted} {rejected}");
    let scene = Scene::with_network(network);
    let outcome = scene.handler.malfeasance(&bytes(&file["gossip_with_eligibility"]), gossip()).await;
    assert!(matches!(outcome, Outcome::Reject(Reason::ProvesNothing(malfeasance::Invalid::Eligibility))), "{outcome:?}");
    assert!(matches!(scene.handler.malfeasance(&[4, 9, 0], gossip()).await, Outcome::Reject(Reason::Malformed(_))));
}
