//! Twenty identities over thirty epochs, in virtual time: PoET servers that fail, lag and lie, proving services that vanish,
//! restarts at random points. Proofs are cheap ones; builder, validation and trees are the real code.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    num::NonZeroU32,
    time::Duration,
};

use activation::{
    builder::{
        Action, Builder, Config, Event, Notice, PostAnswer, Registration, RoundProof, Saved, SignedActivation, Ticket, Verdict,
    },
    timeline::{Moment, Timeline},
    validate::{Checked, PostClaim, PostError, Proofs as _, dependencies},
};
use proto::{
    activation::{Version, Versions},
    ids::{Address, AtxId, EdSignature, Hash32, NodeId},
    keys::IdentityKey,
    layers::{EpochId, LayersPerEpoch},
    merkle::Tree,
    poet::{Leaves, MembershipProof},
    signing::Domain,
    units::{Labels, SpaceUnits, TickHeight, VrfNonce},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use store::StoreError;

use crate::network::{self, CheapProofs, GOLDEN, NETWORK, Node, prove, validator, vrf_nonce};

const POETS: [&str; 2] = ["http://one", "http://two"];
const MINUTE: Duration = Duration::from_secs(60);

/// An hour is a layer, a day an epoch.
pub(crate) fn timeline() -> Timeline {
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    Timeline {
        genesis: Moment(1_000_000_000_000_000),
        layer: hours(1),
        layers_per_epoch: LayersPerEpoch(NonZeroU32::new(24).expect("not zero")),
        phase_shift: hours(12),
        cycle_gap: hours(6),
        grace: hours(2),
        positioning: Some(hours(1)),
    }
}

/// What others stand on: the highest activation of the latest epoch before `publish`.
fn highest(node: &Node, publish: EpochId) -> Option<(AtxId, TickHeight)> {
    let knowledge = &node.knowledge;
    let latest = knowledge.atxs().latest_epoch().expect("readable")?.min(EpochId(publish.0 - 1));
    knowledge.highest_where(latest, |_, _| Ok::<_, StoreError>(true)).expect("readable")
}

/// What a PoET server does in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Good,
    /// Takes no registrations.
    Closed,
    /// Has its proof only after this time.
    Late(Duration),
    /// Takes registrations and never has a proof.
    Silent,
    /// Has a proof without the members that registered.
    Lying,
}

/// What goes wrong in an epoch, by plan.
#[derive(Debug, Clone, Copy)]
struct Weather {
    /// Of the rounds that begin in the epoch.
    poets: [Mood; 2],
    /// Proving services are away in this part of the epoch.
    away: Option<(Duration, Duration)>,
}

#[derive(Debug)]
struct Identity {
    key: IdentityKey,
    space: SpaceUnits,
    /// Outlives the builder.
    disk: Saved,
    /// The guard's memory: what was signed for an epoch.
    signed: BTreeMap<EpochId, AtxId>,
    builder: Option<Builder>,
    /// When its proving service is done with a challenge.
    proofs: BTreeMap<[u8; 32], Moment>,
    /// Tells answers to a builder from those to the one before.
    life: u32,
    coinbase: u8,
}

/// What is going to happen.
#[derive(Debug)]
enum Job {
    /// To a builder of this life.
    Event(usize, u32, Event),
    /// A program starts again.
    Birth(usize),
    /// A program dies, if it is still this life.
    Death(usize, u32),
}

struct World {
    time: Timeline,
    now: Moment,
    node: Node,
    identities: Vec<Identity>,
    /// Members by server and round.
    members: BTreeMap<(usize, EpochId), Vec<Hash32>>,
    weather: BTreeMap<EpochId, Weather>,
    /// By moment, then in the order in which they were planned.
    queue: BinaryHeap<Reverse<(Moment, u64)>>,
    jobs: BTreeMap<u64, Job>,
    count: u64,
    rng: StdRng,
    versions: Versions,
    /// All that was accepted.
    published: BTreeMap<(NodeId, EpochId), BTreeSet<AtxId>>,
    refusals: Vec<String>,
    troubles: usize,
    /// Nothing goes wrong by chance.
    calm: bool,
    /// Actions so far, and the one at which the program dies.
    actions: usize,
    fatal: Option<usize>,
}

impl World {
    fn new(seed: u64, identities: usize, epochs: u32) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut weather = BTreeMap::new();
        for epoch in 0..epochs {
            weather.insert(EpochId(epoch), Self::weather(&mut rng));
        }
        let identities = (0..identities)
            .map(|i| {
                let mut seed = [i as u8; 32];
                seed[1] = 0xaa;
                Identity {
                    key: IdentityKey::from_seed(&seed),
                    space: SpaceUnits(2 + i as u32 % 6),
                    disk: Saved::default(),
                    signed: BTreeMap::new(),
                    builder: None,
                    proofs: BTreeMap::new(),
                    life: 0,
                    coinbase: i as u8,
                }
            })
            .collect();
        Self {
            time: timeline(),
            now: timeline().genesis,
            node: Node::new(),
            identities,
            members: BTreeMap::new(),
            weather,
            queue: BinaryHeap::new(),
            jobs: BTreeMap::new(),
            count: 0,
            rng,
            versions: Versions::new(vec![(EpochId(epochs / 2), Version::V2)]).expect("rising"),
            published: BTreeMap::new(),
            refusals: Vec::new(),
            troubles: 0,
            calm: false,
            actions: 0,
            fatal: None,
        }
    }

    fn weather(rng: &mut StdRng) -> Weather {
        let mut mood = || match rng.random_range(0..30) {
            0..3 => Mood::Closed,
            3..6 => Mood::Late(Duration::from_secs(rng.random_range(0..10 * 3600))),
            6 => Mood::Silent,
            7..10 => Mood::Lying,
            _ => Mood::Good,
        };
        let poets = [mood(), mood()];
        let away = rng.random_bool(0.2).then(|| {
            let from = Duration::from_secs(rng.random_range(0..24 * 3600));
            (from, from + Duration::from_secs(rng.random_range(0..7 * 3600)))
        });
        Weather { poets, away }
    }

    fn at(&mut self, when: Moment, job: Job) {
        self.count += 1;
        self.queue.push(Reverse((when.max(self.now), self.count)));
        self.jobs.insert(self.count, job);
    }

    fn answer(&mut self, i: usize, after: Duration, event: Event) {
        let life = self.identities[i].life;
        self.at(self.now + after, Job::Event(i, life, event));
    }

    fn chance(&mut self, share: f64) -> bool {
        !self.calm && self.rng.random_bool(share)
    }

    fn id(&self, i: usize) -> NodeId {
        self.identities[i].key.node_id()
    }

    fn run(&mut self, until: Moment) {
        for i in 0..self.identities.len() {
            let after = Duration::from_secs(self.rng.random_range(0..3600));
            self.at(self.now + after, Job::Birth(i));
        }
        while let Some(Reverse((when, number))) = self.queue.pop() {
            if when > until {
                break;
            }
            self.now = when;
            match self.jobs.remove(&number).expect("planned") {
                Job::Birth(i) => self.birth(i),
                Job::Death(i, life) if life == self.identities[i].life => self.death(i),
                Job::Event(i, life, event) if life == self.identities[i].life => self.deliver(i, event),
                // Of a life that is over.
                Job::Death(..) | Job::Event(..) => {}
            }
        }
    }

    fn birth(&mut self, i: usize) {
        let config = Config {
            id: self.id(i),
            golden: GOLDEN,
            timeline: self.time.clone(),
            versions: self.versions.clone(),
            poets: POETS.map(String::from).to_vec(),
            retry: Duration::from_secs(60),
        };
        let identity = &mut self.identities[i];
        // Sometimes somebody changes the account for rewards in between.
        identity.coinbase = identity.coinbase.wrapping_add(1);
        let coinbase = Address([identity.coinbase; 24]);
        identity.builder = Some(Builder::new(config, coinbase, identity.disk.clone()));
        self.deliver(i, Event::Start);
        let synced = Duration::from_secs(self.rng.random_range(0..300));
        self.answer(i, synced, Event::Synced);
        let death = Duration::from_secs(self.rng.random_range(600..20 * 3600));
        let life = self.identities[i].life;
        if !self.calm {
            self.at(self.now + death, Job::Death(i, life));
        }
    }

    fn death(&mut self, i: usize) {
        if self.identities[i].builder.take().is_some() {
            self.identities[i].life += 1;
            let after = Duration::from_secs(self.rng.random_range(1..120));
            self.at(self.now + after, Job::Birth(i));
        }
    }

    fn deliver(&mut self, i: usize, event: Event) {
        let Some(builder) = &mut self.identities[i].builder else { return };
        let actions = builder.on_event(self.now, event);
        for action in actions {
            // A program may die between any two actions.
            self.actions += 1;
            if self.fatal == Some(self.actions) || self.chance(0.003) {
                return self.death(i);
            }
            self.act(i, action);
        }
    }

    fn act(&mut self, i: usize, action: Action) {
        match action {
            Action::Save(changes) => {
                for change in changes {
                    self.identities[i].disk.apply(change);
                }
            }
            Action::Wake(when) => {
                let life = self.identities[i].life;
                self.at(when, Job::Event(i, life, Event::Alarm));
            }
            Action::FindOwn(ticket) => {
                let own = self.node.knowledge.last_of(&self.id(i)).expect("readable");
                self.answer(i, Duration::ZERO, Event::Own(ticket, own));
            }
            Action::Prove { ticket, challenge, until } => self.prove(i, ticket, challenge, until),
            Action::VerifyPost { ticket, post, commitment, num_units } => {
                let claim = PostClaim {
                    id: self.id(i),
                    commitment,
                    challenge: [0; 32],
                    units: num_units,
                    proof: &post,
                    labels: Checked::All,
                };
                let verdict = match CheapProofs.post(&claim) {
                    _ if self.chance(0.02) => Verdict::Unknown,
                    Ok(()) => Verdict::Valid,
                    Err(PostError::Unavailable(_)) => Verdict::Unknown,
                    Err(_) => Verdict::Invalid,
                };
                self.answer(i, MINUTE, Event::Verified(ticket, verdict));
            }
            Action::FindPositioning { ticket, publish, .. } => {
                let found = highest(&self.node, publish);
                self.answer(i, MINUTE, Event::Positioning(ticket, found));
            }
            Action::Register { ticket, poet, challenge, until, proof_until } => {
                self.register(i, ticket, poet, challenge, until, proof_until);
            }
            Action::Fetch { ticket, registration, at, until } => self.fetch(i, ticket, registration, at, until),
            Action::Sign(ticket, unsigned) => {
                let atx = unsigned.id().expect("encodable");
                let publish = self.identities[i].disk.challenge.as_ref().expect("a challenge").publish();
                let identity = &mut self.identities[i];
                // The guard.
                let known = *identity.signed.entry(publish).or_insert(atx);
                let message = unsigned.with(identity.key.node_id(), EdSignature::default());
                let answer =
                    if known == atx { Ok((atx, sign(&identity.key, &message))) } else { Err("signed another one".into()) };
                self.answer(i, Duration::ZERO, Event::Signed(ticket, answer));
            }
            Action::Publish(ticket, signed) => self.publish(i, ticket, &signed),
            Action::Tell(Notice::Trouble { .. }) => self.troubles += 1,
            Action::Tell(_) | Action::Certify(_) => {}
            Action::Fatal(mismatch) => panic!("{mismatch}"),
        }
    }

    fn prove(&mut self, i: usize, ticket: Ticket, challenge: [u8; 32], until: Option<Moment>) {
        let (id, units) = (self.id(i), self.identities[i].space);
        // A proving service goes on with a proof when its node comes back.
        let takes = Duration::from_secs(self.rng.random_range(600..2 * 3600));
        let begun = *self.identities[i].proofs.entry(challenge).or_insert(self.now + takes);
        let mut done = begun.max(self.now + MINUTE);
        // The service works when it is there.
        let epoch = self.time.epoch_at(done);
        if let Some((from, to)) = self.weather.get(&epoch).and_then(|weather| weather.away) {
            let (from, to) = (self.time.start(epoch) + from, self.time.start(epoch) + to);
            if done >= from && self.now < to {
                done = to + MINUTE;
            }
        }
        if until.is_some_and(|until| done > until) {
            return;
        }
        let answer = if self.chance(0.05) {
            Err("the service hung up".into())
        } else {
            Ok(PostAnswer {
                post: prove(&id, &GOLDEN, &challenge, units),
                num_units: units,
                labels_per_unit: Labels(network::rules().post.labels_per_unit),
                commitment: GOLDEN,
                vrf_nonce: Some(VrfNonce(vrf_nonce(&id))),
            })
        };
        self.answer(i, self.now.until(done), Event::Proven(ticket, answer));
    }

    /// The round that is open for registration.
    fn open_round(&self) -> EpochId {
        let epoch = self.time.epoch_at(self.now);
        if self.now < self.time.round_start(epoch) { epoch } else { EpochId(epoch.0 + 1) }
    }

    fn mood(&self, poet: usize, round: EpochId) -> Mood {
        self.weather.get(&round).map_or(Mood::Good, |weather| weather.poets[poet])
    }

    fn register(&mut self, i: usize, ticket: Ticket, poet: String, challenge: Hash32, until: Moment, proof_until: Moment) {
        let server = POETS.iter().position(|known| *known == poet).expect("configured");
        let round = self.open_round();
        let end = self.time.round_end(round);
        let answer = if self.mood(server, round) == Mood::Closed || end > proof_until || self.now >= until {
            Err("no".to_owned())
        } else {
            let members = self.members.entry((server, round)).or_default();
            if !members.contains(&challenge) {
                members.push(challenge);
            }
            Ok((round.to_string(), end))
        };
        let after = Duration::from_secs(self.rng.random_range(1..30));
        self.answer(i, after, Event::Registered(ticket, poet, answer));
    }

    fn fetch(&mut self, i: usize, ticket: Ticket, registration: Registration, at: Moment, until: Moment) {
        let server = POETS.iter().position(|known| *known == registration.poet).expect("configured");
        let round = EpochId(registration.round.parse().expect("a number"));
        let mood = self.mood(server, round);
        let mut when = at.max(self.now) + Duration::from_secs(self.rng.random_range(1..60));
        let answer = match mood {
            Mood::Silent => {
                when = until;
                Err("no proof".into())
            }
            Mood::Lying => Err("the challenge is not a member".into()),
            Mood::Late(delay) if at + delay > until => {
                when = until;
                Err("no proof".into())
            }
            Mood::Good | Mood::Late(_) | Mood::Closed => {
                if let Mood::Late(delay) = mood {
                    when = when.max(at + delay);
                }
                Ok(self.round_proof(server, round, &registration.challenge))
            }
        };
        let after = self.now.until(when);
        self.answer(i, after, Event::Fetched(ticket, registration.poet, answer));
    }

    fn round_proof(&mut self, server: usize, round: EpochId, challenge: &Hash32) -> RoundProof {
        let members = &self.members[&(server, round)];
        let position = members.iter().position(|member| member == challenge).expect("a member");
        let tree = Tree::new(members.iter().map(|member| member.0));
        let nodes = tree.path(position).expect("a leaf").into_iter().map(|node| node.try_into().expect("32 bytes")).collect();
        let statement = Hash32(tree.root().try_into().expect("32 bytes"));
        // The second server is a little faster.
        let leaves = Leaves(1000 + 35 * server as u64);
        let reference = self.node.put_round(statement, leaves);
        RoundProof { reference, membership: MembershipProof { nodes, leaf_index: position as u64 }, leaves }
    }

    fn publish(&mut self, i: usize, ticket: Ticket, signed: &SignedActivation) {
        if self.chance(0.1) {
            return self.answer(i, MINUTE, Event::Published(ticket, Err("no peers".into())));
        }
        let publish = signed.activation.publish_epoch();
        assert!(self.time.start(publish) <= self.now, "published before its epoch");
        let is_there = |id| self.node.knowledge.atxs().get(id).expect("readable").is_some();
        if !is_there(&signed.id) {
            let all = validator(&self.node);
            let needs = dependencies(&signed.activation, &GOLDEN);
            assert!(needs.atxs.iter().all(is_there), "unknown activations");
            let result = all
                .check_alone(&signed.activation, self.time.epoch_at(self.now))
                .and_then(|()| all.check_with_dependencies(&signed.activation));
            match result {
                Ok(known) => {
                    let kept = self.node.keep(known, &signed.activation);
                    assert_eq!((kept.offence, kept.marked), (None, false), "malfeasance");
                }
                Err(e) => self.refusals.push(format!("epoch {publish}: {e}")),
            }
        }
        self.published.entry((self.id(i), publish)).or_default().insert(signed.id);
        self.answer(i, Duration::from_secs(2), Event::Published(ticket, Ok(())));
    }

    /// Whether everything was there in time for those that register for the round in this epoch and publish in the next.
    fn could_publish(&self, EpochId(round): EpochId) -> bool {
        let good = (0..2).any(|poet| self.mood(poet, EpochId(round)) == Mood::Good);
        let away = self.weather.get(&EpochId(round + 1)).is_some_and(|weather| weather.away.is_some());
        good && !away
    }
}

fn sign(key: &IdentityKey, atx: &proto::activation::Activation) -> EdSignature {
    use proto::{activation::Activation, signing::Signed};
    let bytes = match atx {
        Activation::V1(atx) => atx.signed_bytes(),
        Activation::V2(atx) => atx.signed_bytes(),
    };
    key.sign(&NETWORK, Domain::Atx, &bytes.expect("encodable"))
}

#[test]
fn twenty_identities_over_thirty_epochs() {
    let seeds = if std::env::var_os("SOAK").is_some() { 100 } else { 4 };
    for seed in 0..seeds {
        let epochs = 30;
        let mut world = World::new(seed, 20, epochs + 2);
        let end = world.time.start(EpochId(epochs));
        world.run(end);
        assert_eq!(world.refusals, Vec::<String>::new(), "seed {seed}");
        for ((id, epoch), atxs) in &world.published {
            assert_eq!(atxs.len(), 1, "seed {seed}: {id} has several activations in epoch {epoch}");
        }
        let mut expected = 0;
        for i in 0..world.identities.len() {
            let id = world.id(i);
            for round in 1..epochs - 1 {
                // What went wrong in the epoch before may have lasted until registration was over.
                if world.could_publish(EpochId(round)) && world.could_publish(EpochId(round - 1)) {
                    let epoch = EpochId(round + 1);
                    assert!(
                        world.published.contains_key(&(id, epoch)),
                        "seed {seed}: identity {i} misses epoch {epoch}: {:?}",
                        world.weather.get(&EpochId(round))
                    );
                    expected += 1;
                }
            }
        }
        assert!(expected > 20 * 4, "seed {seed}: only {expected} had to be there");
        assert!(world.troubles > 50, "seed {seed}: nothing went wrong");
        println!(
            "seed {seed}: {} activations, {expected} of them had to be there, {} troubles",
            world.published.len(),
            world.troubles
        );
    }
}

/// One identity, two epochs of each version, and a death at every single action that the program takes.
#[test]
fn a_death_at_any_action_costs_nothing() {
    let epochs = 8;
    let mut fatal = None;
    loop {
        let mut world = World::new(7, 1, epochs + 2);
        for weather in world.weather.values_mut() {
            *weather = Weather { poets: [Mood::Good; 2], away: None };
        }
        (world.calm, world.fatal) = (true, fatal);
        let end = world.time.start(EpochId(epochs));
        world.run(end);
        assert_eq!(world.refusals, Vec::<String>::new(), "death at {fatal:?}");
        let epochs: Vec<u32> = world.published.keys().map(|(_, epoch)| epoch.0).collect();
        assert_eq!(epochs, [1, 2, 3, 4, 5, 6, 7], "death at {fatal:?}");
        assert!(world.published.values().all(|atxs| atxs.len() == 1), "death at {fatal:?}");
        // The coinbase changes with every start, and what is on disk decides nevertheless.
        if fatal.is_some_and(|fatal| fatal > world.actions) {
            assert!(world.actions > 100, "{} actions", world.actions);
            break;
        }
        fatal = Some(fatal.unwrap_or(0) + 1);
    }
}
