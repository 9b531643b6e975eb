//! Identities from nothing to their activations, in virtual time. What computes and what is far away are doubles; builder, driver and
//! clock are real.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    num::NonZeroU32,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use activation::{
    builder::{Change, OwnActivation, PostAnswer, Registration, RoundProof, Saved, SignedActivation, Unsigned, Verdict},
    clock::Clock,
    poet::{PhaseShift, PoetError, Submission},
    smesher::{Answer, Fatal, Services, Settings, SignError, Smeshers, StateError, Status},
    timeline::{Moment, Timeline},
};
use proto::{
    activation::{Activation, Versions},
    ids::{Address, AtxId, EdSignature, Hash32, NodeId, PoetProofRef},
    keys::IdentityKey,
    layers::{EpochId, LayersPerEpoch},
    poet::{Leaves, MembershipProof},
    post::Proof,
    units::{Labels, SpaceUnits, TickHeight, VrfNonce},
};
use tokio::{
    sync::{broadcast::error::TryRecvError, watch},
    time::{Instant, sleep},
};

use crate::fixture::key;

const MINUTE: Duration = Duration::from_secs(60);
const POETS: [&str; 2] = ["http://one", "http://two"];

/// A minute is a layer, 24 minutes an epoch.
fn timeline() -> Timeline {
    Timeline {
        genesis: Moment(1_000_000_000_000_000),
        layer: MINUTE,
        layers_per_epoch: LayersPerEpoch(NonZeroU32::new(24).unwrap()),
        phase_shift: 12 * MINUTE,
        cycle_gap: 6 * MINUTE,
        grace: 2 * MINUTE,
        positioning: Some(MINUTE),
    }
}

#[derive(Default)]
struct Kept {
    disk: BTreeMap<NodeId, Saved>,
    /// What was accepted, in order.
    atxs: Vec<(NodeId, EpochId, AtxId, Activation)>,
    /// What the guard signed.
    signed: BTreeMap<(NodeId, EpochId), AtxId>,
    certified: Vec<(String, NodeId)>,
    regossiped: Vec<(NodeId, EpochId)>,
    /// Whose proving service may rest.
    idle: Vec<NodeId>,
}

/// The rest of a node. It outlives the smeshers.
struct Node {
    clock: Clock,
    kept: Mutex<Kept>,
    /// The proving service is away.
    away: AtomicBool,
    /// Operations of the disk that will fail.
    broken: AtomicUsize,
    /// Proofs that end in a panic.
    panics: AtomicUsize,
    /// The second server belongs to another network.
    foreign: AtomicBool,
}

impl Node {
    fn disk(&self) -> Result<(), String> {
        let breaks = self.broken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok();
        if breaks { Err("no space left".into()) } else { Ok(()) }
    }
}

impl Services for Node {
    fn load(&self, id: &NodeId) -> Result<Saved, String> {
        self.disk()?;
        Ok(self.kept.lock().unwrap().disk.get(id).cloned().unwrap_or_default())
    }

    fn save(&self, id: &NodeId, changes: &[Change]) -> Result<(), String> {
        self.disk()?;
        let mut kept = self.kept.lock().unwrap();
        for change in changes {
            kept.disk.entry(*id).or_default().apply(change.clone());
        }
        Ok(())
    }

    fn own(&self, id: &NodeId) -> Result<Option<OwnActivation>, String> {
        self.disk()?;
        let kept = self.kept.lock().unwrap();
        let own: Vec<_> = kept.atxs.iter().filter(|(of, ..)| of == id).collect();
        Ok(own.last().map(|(_, publish, atx, _)| OwnActivation {
            id: *atx,
            publish: *publish,
            sequence: own.len() as u64 - 1,
            height: TickHeight(10 * own.len() as u64),
            vrf_nonce: Some(VrfNonce(5)),
        }))
    }

    fn sign(&self, key: &IdentityKey, activation: &Unsigned) -> Result<(AtxId, EdSignature), SignError> {
        self.disk().map_err(SignError::Failed)?;
        let id = activation.id().unwrap();
        let Unsigned::V1(inner) = activation else { panic!("version 2") };
        let slot = (key.node_id(), inner.challenge.publish_epoch);
        let known = *self.kept.lock().unwrap().signed.entry(slot).or_insert(id);
        if known == id { Ok((id, EdSignature([7; 64]))) } else { Err(SignError::Refused("another one is signed".into())) }
    }

    fn prove<'a>(&'a self, _: &'a NodeId, challenge: [u8; 32]) -> Answer<'a, Result<PostAnswer, String>> {
        Box::pin(async move {
            let panics = self.panics.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok();
            assert!(!panics, "on purpose");
            sleep(Duration::from_secs(40)).await;
            while self.away.load(Ordering::Relaxed) {
                sleep(MINUTE).await;
            }
            Ok(PostAnswer {
                post: Proof { nonce: 1, indices: challenge.to_vec(), pow: 2 },
                num_units: SpaceUnits(4),
                labels_per_unit: Labels(128),
                commitment: AtxId([0x60; 32]),
                vrf_nonce: Some(VrfNonce(5)),
            })
        })
    }

    fn set_idle(&self, id: &NodeId) {
        self.kept.lock().unwrap().idle.push(*id);
    }

    fn verify<'a>(&'a self, _: &'a NodeId, post: &'a Proof, _: AtxId, _: SpaceUnits) -> Answer<'a, Verdict> {
        let verdict = if post.indices == [0; 32] { Verdict::Valid } else { Verdict::Invalid };
        Box::pin(async move {
            sleep(Duration::from_secs(5)).await;
            verdict
        })
    }

    fn positioning<'a>(&'a self, _: EpochId, _: &'a NodeId, _: Option<Moment>) -> Answer<'a, Option<(AtxId, TickHeight)>> {
        // Never found in time.
        Box::pin(pending())
    }

    fn certify<'a>(&'a self, poet: &'a str, id: &'a NodeId) -> Answer<'a, Result<(), PoetError>> {
        self.kept.lock().unwrap().certified.push((poet.to_owned(), *id));
        Box::pin(async { Ok(()) })
    }

    fn register<'a>(
        &'a self,
        poet: &'a str,
        _: &'a IdentityKey,
        submission: &'a Submission,
    ) -> Answer<'a, Result<(String, Moment), PoetError>> {
        let end = (submission.until + 24 * MINUTE).before(6 * MINUTE);
        Box::pin(async move {
            sleep(Duration::from_secs(2)).await;
            if poet == POETS[1] && self.foreign.load(Ordering::Relaxed) {
                return Err(PhaseShift { poet: poet.to_owned(), found: MINUTE, expected: 12 * MINUTE }.into());
            }
            Ok((submission.until.0.to_string(), end))
        })
    }

    fn fetch<'a>(&'a self, registration: &'a Registration, _: Moment) -> Answer<'a, Result<RoundProof, PoetError>> {
        Box::pin(async move {
            self.clock.sleep_until(registration.end + Duration::from_secs(3)).await;
            let leaves = Leaves(if registration.poet == POETS[0] { 1000 } else { 2000 });
            let reference = PoetProofRef(Hash32::of(&[registration.poet.as_bytes(), &registration.challenge.0]).0);
            Ok(RoundProof { reference, membership: MembershipProof::default(), leaves })
        })
    }

    fn publish<'a>(&'a self, activation: &'a SignedActivation) -> Answer<'a, Result<(), String>> {
        let (id, publish) = (activation.activation.smesher_id(), activation.activation.publish_epoch());
        assert!(self.clock.now() >= timeline().start(publish), "published before its epoch");
        let mut kept = self.kept.lock().unwrap();
        if !kept.atxs.iter().any(|(.., known, _)| *known == activation.id) {
            kept.atxs.push((id, publish, activation.id, activation.activation.clone()));
        }
        Box::pin(async { Ok(()) })
    }

    fn regossip<'a>(&'a self, id: &'a NodeId, epoch: EpochId) -> Answer<'a, Result<bool, String>> {
        let mut kept = self.kept.lock().unwrap();
        let there = kept.atxs.iter().any(|(of, publish, ..)| (of, *publish) == (id, epoch));
        if there {
            kept.regossiped.push((*id, epoch));
        }
        Box::pin(async move { Ok(there) })
    }
}

/// A node at the beginning of epoch 0. The virtual clock begins with it.
fn node() -> Arc<Node> {
    let begin = Instant::now();
    let clock = Clock::new(move || timeline().genesis + begin.elapsed());
    Arc::new(Node {
        clock,
        kept: Mutex::default(),
        away: AtomicBool::default(),
        broken: AtomicUsize::default(),
        panics: AtomicUsize::default(),
        foreign: AtomicBool::default(),
    })
}

fn smeshers(node: &Arc<Node>, synced: &watch::Sender<bool>, identities: u8) -> Smeshers {
    let settings = Settings {
        golden: AtxId([0x60; 32]),
        timeline: timeline(),
        versions: Versions::default(),
        poets: POETS.map(String::from).to_vec(),
        retry: Duration::from_secs(5),
        regossip: 10 * MINUTE,
    };
    let smeshers = Smeshers::new(settings, node.clone(), node.clock.clone(), synced.subscribe());
    for n in 1..=identities {
        smeshers.register(&format!("{n}.key"), key(n));
    }
    smeshers.set_coinbase(Address([1; 24]));
    smeshers
}

async fn until(node: &Node, epoch: u32, minutes: u32) {
    node.clock.sleep_until(timeline().start(EpochId(epoch)) + minutes * MINUTE).await;
}

fn status(smeshers: &Smeshers, n: u8) -> Status {
    smeshers.status().into_iter().find(|status| status.id == key(n).node_id()).unwrap()
}

/// Epochs in which an identity published, checking that it never did twice.
fn epochs(node: &Node, n: u8) -> Vec<u32> {
    let kept = node.kept.lock().unwrap();
    let own = kept.atxs.iter().filter(|(id, ..)| *id == key(n).node_id());
    let epochs: Vec<u32> = own.map(|(_, publish, ..)| publish.0).collect();
    assert_eq!(epochs.iter().collect::<BTreeSet<_>>().len(), epochs.len(), "twice in an epoch");
    epochs
}

#[tokio::test(start_paused = true)]
async fn from_nothing_to_two_activations() {
    let (node, synced) = (node(), watch::Sender::new(false));
    let smeshers = smeshers(&node, &synced, 2);
    let mut told = smeshers.subscribe();
    assert_eq!(status(&smeshers, 1).name_of_state(), "Stopped");
    smeshers.start().unwrap();
    sleep(MINUTE).await;
    assert_eq!(status(&smeshers, 1).name_of_state(), "WaitingForATXSync");
    synced.send_replace(true);
    sleep(Duration::from_secs(30)).await;
    let proving = status(&smeshers, 1);
    assert_eq!((proving.name_of_state(), proving.proving, proving.name.as_str()), ("PostStart", true, "1.key"));
    until(&node, 0, 5).await;
    let waiting = status(&smeshers, 2);
    assert_eq!((waiting.name_of_state(), waiting.proving, waiting.publish), ("WaitingForPoETRegistrationWindow", false, None));
    until(&node, 0, 13).await;
    let waiting = status(&smeshers, 2);
    assert_eq!((waiting.name_of_state(), waiting.publish), ("WaitingForPoETRoundEnd", Some(EpochId(1))));
    assert_eq!(waiting.deadline, Some(("last moment for a PoET proof", timeline().of(EpochId(1)).proof)));
    until(&node, 3, 0).await;
    assert_eq!((epochs(&node, 1), epochs(&node, 2)), (vec![1, 2], vec![1, 2]));
    let done = status(&smeshers, 1);
    assert_eq!((done.published.unwrap().0, done.trouble), (EpochId(2), None));

    let mut names = Vec::new();
    loop {
        match told.try_recv() {
            Ok(told) if told.id == key(1).node_id() => names.push(told.notice.name()),
            Ok(_) => {}
            Err(TryRecvError::Empty) => break,
            Err(error) => panic!("{error}"),
        }
    }
    let round = [
        "WaitingForPoETRegistrationWindow",
        "RegisteredInPoet",
        "RegisteredInPoet",
        "WaitingForPoETRoundEnd",
        "ProofDownloadedFromPoet",
        "ProofDownloadedFromPoet",
        "BestProofSelected",
        "PostStart",
        "PostComplete",
        "AtxPublished",
    ];
    let first = ["WaitingForATXSync", "PostStart", "PostComplete"];
    assert_eq!(names[..23], [&first[..], &round, &round].concat());

    // the activations follow each other, and the first says what those of the second server proved
    let kept = node.kept.lock().unwrap();
    let own: Vec<_> = kept.atxs.iter().filter(|(id, ..)| *id == key(1).node_id()).collect();
    let (Activation::V1(first), Activation::V1(second)) = (&own[0].3, &own[1].3) else { panic!("version 2") };
    assert_eq!((first.inner.challenge.sequence, second.inner.challenge.sequence), (0, 1));
    assert_eq!(second.inner.challenge.prev_atx_id, own[0].2);
    assert_eq!(second.inner.challenge.positioning_atx_id, own[0].2);
    let saved = kept.disk[&key(1).node_id()].clone();
    assert!(saved.initial.is_some());
    // certificates are asked for at the start, and once there is a proof to show
    let wanted = kept.certified.iter().filter(|(_, id)| *id == key(1).node_id()).count();
    assert_eq!(wanted, 4);
    // 24 minutes an epoch, published at its beginning or a little after the proof: two or three times each
    let sent = kept.regossiped.iter().filter(|(id, _)| *id == key(1).node_id()).count();
    assert!((1..=5).contains(&sent), "{sent}");
}

/// Stops and starts at every minute, on the same object or on a new one, cost nothing.
#[tokio::test(start_paused = true)]
async fn restarts_cost_nothing() {
    let (node, synced) = (node(), watch::Sender::new(true));
    let mut current = smeshers(&node, &synced, 1);
    current.start().unwrap();
    for minute in 0..24 * 6u32 {
        sleep(MINUTE).await;
        current.stop().await.unwrap();
        assert!(!current.is_smeshing());
        if minute % 3 == 0 {
            current = smeshers(&node, &synced, 1);
        }
        // somebody changes the account all the time
        current.set_coinbase(Address([minute as u8; 24]));
        sleep(Duration::from_millis(300)).await;
        current.start().unwrap();
    }
    assert_eq!(epochs(&node, 1), [1, 2, 3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_takes_less_than_a_second_whatever_goes_on() {
    let (node, synced) = (node(), watch::Sender::new(false));
    let smeshers = smeshers(&node, &synced, 3);
    assert_eq!(smeshers.stop().await, Err(StateError::NotStarted));
    node.away.store(true, Ordering::Relaxed);
    let mut states = BTreeSet::new();
    for minute in 0..60 {
        smeshers.start().unwrap();
        assert_eq!(smeshers.start(), Err(StateError::Started));
        match minute {
            3 => drop(synced.send_replace(true)),
            // an identity that comes later is stopped with the others
            5 => smeshers.register("9.key", key(9)),
            8 => node.away.store(false, Ordering::Relaxed),
            _ => {}
        }
        sleep(MINUTE + Duration::from_secs(30)).await;
        states.extend(smeshers.status().iter().map(Status::name_of_state));
        let begun = Instant::now();
        smeshers.stop().await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(1), "in minute {minute}");
        assert!(smeshers.status().iter().all(|status| !status.running && status.name_of_state() == "Stopped"));
        let before: Vec<_> = smeshers.status();
        sleep(Duration::from_secs(20)).await;
        assert_eq!(smeshers.status(), before, "something went on");
    }
    assert!(smeshers.status().len() == 4 && states.len() >= 4, "{states:?}");
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_holds_up_and_loses_nothing() {
    let (node, synced) = (node(), watch::Sender::new(true));
    node.broken.store(3, Ordering::Relaxed);
    let smeshers = smeshers(&node, &synced, 1);
    smeshers.start().unwrap();
    sleep(Duration::from_millis(500)).await;
    let (_, trouble) = status(&smeshers, 1).trouble.unwrap();
    assert_eq!(trouble, "the rows of the identity cannot be read: no space left");
    // ever again, for two epochs
    while node.clock.now() < timeline().start(EpochId(3)) {
        sleep(40 * Duration::from_secs(1)).await;
        node.broken.store(2, Ordering::Relaxed);
    }
    assert_eq!(epochs(&node, 1), [1, 2]);
    // and nothing was done that is not on disk
    let kept = node.kept.lock().unwrap();
    assert_eq!(kept.signed.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_part_that_panics_is_begun_again() {
    let (node, synced) = (node(), watch::Sender::new(true));
    node.panics.store(3, Ordering::Relaxed);
    let smeshers = smeshers(&node, &synced, 1);
    smeshers.start().unwrap();
    sleep(Duration::from_secs(1)).await;
    let (_, trouble) = status(&smeshers, 1).trouble.unwrap();
    assert!(trouble.starts_with("a part of the program failed: ") && trouble.contains("on purpose"), "{trouble}");
    until(&node, 2, 0).await;
    assert_eq!(epochs(&node, 1), [1]);
}

#[tokio::test(start_paused = true)]
async fn what_must_end_the_program_is_said() {
    let (node, synced) = (node(), watch::Sender::new(true));
    node.foreign.store(true, Ordering::Relaxed);
    let foreign = smeshers(&node, &synced, 2);
    foreign.start().unwrap();
    let fatal = foreign.fatal().await;
    assert!(matches!(&fatal, Fatal::PhaseShift(shift) if shift.poet == POETS[1]), "{fatal}");
    assert!(node.clock.now() < timeline().start(EpochId(0)) + 12 * MINUTE);
    foreign.stop().await.unwrap();

    // registered with servers that are not configured any more
    until(&node, 0, 13).await;
    let settings = Settings {
        golden: AtxId([0x60; 32]),
        timeline: timeline(),
        versions: Versions::default(),
        poets: vec!["http://three".into()],
        retry: Duration::from_secs(5),
        regossip: Duration::ZERO,
    };
    let changed = Smeshers::new(settings, node.clone(), node.clock.clone(), synced.subscribe());
    changed.register("1.key", key(1));
    assert_eq!(changed.start(), Err(StateError::NoCoinbase));
    changed.set_coinbase(Address([1; 24]));
    changed.start().unwrap();
    let fatal = changed.fatal().await;
    assert!(matches!(&fatal, Fatal::Mismatch(mismatch) if mismatch.id == key(1).node_id()), "{fatal}");
    changed.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn rewards_go_to_the_account_of_the_moment() {
    let (node, synced) = (node(), watch::Sender::new(true));
    let smeshers = smeshers(&node, &synced, 1);
    smeshers.start().unwrap();
    until(&node, 2, 2).await;
    smeshers.set_coinbase(Address([2; 24]));
    assert_eq!(smeshers.coinbase(), Some(Address([2; 24])));
    until(&node, 3, 0).await;
    let kept = node.kept.lock().unwrap();
    let accounts = kept.atxs.iter().map(|(.., atx)| match atx {
        Activation::V1(atx) => atx.inner.coinbase.0[0],
        Activation::V2(atx) => atx.coinbase.0[0],
    });
    assert_eq!(accounts.collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn what_was_begun_can_be_forgotten() {
    let (node, synced) = (node(), watch::Sender::new(true));
    let smeshers = smeshers(&node, &synced, 1);
    smeshers.start().unwrap();
    until(&node, 0, 13).await;
    let id = key(1).node_id();
    assert!(node.kept.lock().unwrap().disk[&id].registrations.len() == 2);
    smeshers.stop_and_forget().await.unwrap();
    let saved = node.kept.lock().unwrap().disk[&id].clone();
    assert_eq!(saved, Saved { initial: saved.initial.clone(), ..Saved::default() });
    assert!(saved.initial.is_some());
    assert_eq!(node.kept.lock().unwrap().idle, [id]);
    assert_eq!((status(&smeshers, 1).deadline, status(&smeshers, 1).publish), (None, None));
    // the next epoch is not lost
    smeshers.start().unwrap();
    until(&node, 3, 0).await;
    assert_eq!(epochs(&node, 1), [2]);
}
