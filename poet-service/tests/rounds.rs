//! A month of rounds in virtual time: registrations at every boundary, restarts, a clock that jumps.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use kernels::posw::Node;
use poet_service::{
    registry::{Limits, PlanError, Refused, Registration, Registry},
    schedule::{RoundId, Schedule, Time},
    store::{Closed, MemoryStore, Plans, PowChallenges, Record, Store, StoreError},
};
use proptest::prelude::*;
use proto::{
    ids::NodeId,
    poet::{Leaves, PoetProof},
};

const MINUTE: i128 = 60_000_000_000;
const LIMITS: Limits = Limits { max_round_members: 1000, pow_difficulty: 0 };

fn schedule() -> Schedule {
    let hours = |h: u64| Duration::from_secs(3600 * h);
    Schedule::new(Time(0), hours(24), hours(6), hours(2)).unwrap()
}

/// A store whose process dies at one of its next writes: before it or after it, but before anybody learns of it.
struct Mortal {
    inner: MemoryStore,
    /// Writes to go; none while it is immortal.
    left: Mutex<Option<(u32, bool)>>,
}

impl Mortal {
    fn new() -> Self {
        Self { inner: MemoryStore::default(), left: Mutex::new(None) }
    }

    fn dies_at(&self, write: u32, after: bool) {
        *self.left.lock().unwrap() = Some((write, after));
    }

    fn revive(&self) {
        *self.left.lock().unwrap() = None;
    }

    fn write(&self, write: impl FnOnce() -> Result<(), StoreError>) -> Result<(), StoreError> {
        let dead = || Err(StoreError::Io(std::io::Error::other("dead")));
        let mut left = self.left.lock().unwrap();
        match &mut *left {
            None => write(),
            Some((0, after)) => {
                if std::mem::take(after) {
                    write()?;
                }
                dead()
            }
            Some((writes, _)) => {
                *writes -= 1;
                write()
            }
        }
    }
}

impl Store for Mortal {
    fn registration(&self, round: RoundId, member: &NodeId) -> Result<Option<Node>, StoreError> {
        self.inner.registration(round, member)
    }

    fn register(&self, round: RoundId, members: &[(NodeId, Node)]) -> Result<(), StoreError> {
        self.write(|| self.inner.register(round, members))
    }

    fn members(&self, round: RoundId) -> Result<Vec<Node>, StoreError> {
        self.inner.members(round)
    }

    fn count(&self, round: RoundId) -> Result<u64, StoreError> {
        self.inner.count(round)
    }

    fn rounds_with_members(&self) -> Result<Vec<RoundId>, StoreError> {
        self.inner.rounds_with_members()
    }

    fn close(&self, round: RoundId, closed: &Closed) -> Result<(), StoreError> {
        self.write(|| self.inner.close(round, closed))
    }

    fn closed(&self) -> Result<BTreeMap<RoundId, Closed>, StoreError> {
        self.inner.closed()
    }

    fn finish(&self, round: RoundId, record: &Record, pow: &PowChallenges) -> Result<(), StoreError> {
        self.write(|| self.inner.finish(round, record, pow))
    }

    fn record(&self, round: RoundId) -> Result<Option<Record>, StoreError> {
        self.inner.record(round)
    }

    fn is_finished(&self, round: RoundId) -> Result<bool, StoreError> {
        self.inner.is_finished(round)
    }

    fn finished(&self) -> Result<BTreeSet<RoundId>, StoreError> {
        self.inner.finished()
    }

    fn pow_challenges(&self) -> Result<Option<PowChallenges>, StoreError> {
        self.inner.pow_challenges()
    }

    fn set_pow_challenges(&self, pow: &PowChallenges) -> Result<(), StoreError> {
        self.write(|| self.inner.set_pow_challenges(pow))
    }

    fn plans(&self) -> Result<Option<Plans>, StoreError> {
        self.inner.plans()
    }

    fn set_plans(&self, plans: &Plans) -> Result<(), StoreError> {
        self.write(|| self.inner.set_plans(plans))
    }

    fn page_of_members(&self, round: RoundId, after: Option<&NodeId>, limit: usize) -> Result<Vec<(NodeId, Node)>, StoreError> {
        self.inner.page_of_members(round, after, limit)
    }
}

fn open<S: Store>(store: &Arc<S>, now: Time) -> Registry<Arc<S>> {
    Registry::new(store.clone(), schedule(), LIMITS, [1; 32], &[2; 32], now).unwrap()
}

fn registration(number: u64) -> Registration {
    let mut id = [0; 32];
    id[24..].copy_from_slice(&number.to_be_bytes());
    Registration { member: NodeId(id), challenge: id, deadline: None }
}

fn proof_of(round: RoundId, statement: Node) -> PoetProof {
    // it names its round by its root
    let mut proof = PoetProof { leaf_count: Leaves(u64::from(round.0) + 150), ..PoetProof::default() };
    proof.merkle.root = statement.into();
    proof
}

#[derive(Debug, Clone)]
enum Step {
    /// So many minutes pass.
    Wait(u32),
    /// To the nanosecond before, of, or after the next change of rounds.
    ToBoundary(i8),
    Register(u8),
    /// The process dies: what was not written is gone, and nobody was told that it counts.
    Crash,
    /// It dies at one of its next writes: a batch, the closing of a round, a proof, a plan.
    DieAtWrite(u32, bool),
    /// The clock is set, by minutes.
    Jump(i32),
    Flush,
    /// The worker, if it is there, delivers what it has finished, some of it twice.
    Deliver,
    /// The worker is lost or comes back.
    Worker(bool),
    Hold(bool),
    /// The phase shift changes to so many hours.
    Phase(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (1..900u32).prop_map(Step::Wait),
        4 => (-1..=1i8).prop_map(Step::ToBoundary),
        8 => (1..5u8).prop_map(Step::Register),
        2 => Just(Step::Crash),
        2 => (0..4u32, any::<bool>()).prop_map(|(write, after)| Step::DieAtWrite(write, after)),
        2 => (-3000..3000i32).prop_map(Step::Jump),
        4 => Just(Step::Flush),
        4 => Just(Step::Deliver),
        1 => any::<bool>().prop_map(Step::Worker),
        1 => any::<bool>().prop_map(Step::Hold),
        1 => (0..20u8).prop_map(Step::Phase),
    ]
}

/// A server of registrations in virtual time, with the members that were promised something.
struct World {
    store: Arc<Mortal>,
    registry: Registry<Arc<Mortal>>,
    now: Time,
    members: u64,
    worker: bool,
    /// What members were told: their round, and when it ends.
    promised: BTreeMap<Node, (RoundId, Time)>,
    unwritten: Vec<(Node, RoundId, Time)>,
    /// Times of the rounds that were run.
    run: BTreeMap<RoundId, (Time, Time)>,
}

impl World {
    fn new() -> Self {
        let store = Arc::new(Mortal::new());
        let registry = open(&store, Time(0));
        Self {
            registry,
            store,
            now: Time(0),
            members: 0,
            worker: true,
            promised: BTreeMap::new(),
            unwritten: Vec::new(),
            run: BTreeMap::new(),
        }
    }

    fn restart(&mut self) {
        self.unwritten.clear();
        self.store.revive();
        // the operator has followed the changes in the configuration
        let phase_shift = self.store.plans().unwrap().map_or(schedule().phase_shift(), |plans| plans.phase_shift);
        let schedule = schedule().with_phase_shift(phase_shift);
        self.registry = Registry::new(self.store.clone(), schedule, LIMITS, [1; 32], &[2; 32], self.now).unwrap();
    }

    /// As the server does: what is written is promised, and what is not is gone.
    fn flush(&mut self) -> Result<(), StoreError> {
        let written = self.registry.flush();
        let batch = std::mem::take(&mut self.unwritten);
        if written.is_ok() {
            self.promised.extend(batch.into_iter().map(|(member, round, end)| (member, (round, end))));
        }
        written
    }

    fn tick(&mut self) -> Result<(), StoreError> {
        if self.now >= self.registry.next_close() {
            self.flush()?;
        }
        let before = self.registry.open_round();
        self.registry.on_tick(self.now)?;
        assert!(self.registry.open_round() >= before, "a round opened again");
        Ok(())
    }

    fn register(&mut self, count: u8) -> Result<(), TestCaseError> {
        for _ in 0..count {
            if self.tick().is_err() {
                self.restart();
            }
            self.members += 1;
            let registration = registration(self.members);
            let answer = match self.registry.on_register(self.now, &registration) {
                Ok(answer) => answer,
                Err(Refused::Storage) => {
                    self.restart();
                    continue;
                }
                Err(other) => return Err(TestCaseError::fail(other.to_string())),
            };
            // never into a round that has begun
            prop_assert!(self.now < self.registry.schedule().start(answer.round));
            prop_assert_eq!(answer.end, self.registry.schedule().end(answer.round));
            self.unwritten.push((registration.challenge, answer.round, answer.end));
            prop_assert_eq!(self.registry.on_register(self.now, &registration), Ok(answer));
            let other = Registration { challenge: [0xff; 32], ..registration };
            prop_assert_eq!(self.registry.on_register(self.now, &other), Err(Refused::Conflict));
        }
        Ok(())
    }

    /// The worker runs what it is told, and hands over what has ended.
    fn deliver(&mut self) -> Result<(), StoreError> {
        while let Some(run) = self.registry.next_run().filter(|run| run.end <= self.now) {
            let start = self.registry.schedule().start(run.round);
            self.run.insert(run.round, (start, run.end));
            let proof = proof_of(run.round, run.statement);
            self.registry.on_proof(run.round, proof.clone())?;
            // an answer may get lost
            if run.round.0.is_multiple_of(2) {
                self.registry.on_proof(run.round, proof)?;
            }
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let outcome = match *step {
            Step::Wait(minutes) => {
                self.now = Time(self.now.0 + i128::from(minutes) * MINUTE);
                Ok(())
            }
            Step::ToBoundary(side) => {
                self.now = Time(self.now.0.max(self.registry.next_close().0 + i128::from(side)));
                Ok(())
            }
            Step::Jump(minutes) => {
                self.now = Time((self.now.0 + i128::from(minutes) * MINUTE).max(0));
                Ok(())
            }
            Step::Register(count) => return self.register(count),
            Step::Crash => {
                self.restart();
                Ok(())
            }
            Step::DieAtWrite(write, after) => {
                self.store.dies_at(write, after);
                Ok(())
            }
            Step::Flush => self.flush(),
            Step::Deliver if self.worker => self.deliver(),
            Step::Deliver => Ok(()),
            Step::Worker(there) => {
                self.worker = there;
                Ok(())
            }
            Step::Hold(held) => self.registry.hold(held),
            Step::Phase(hours) => match self.registry.change_phase(Duration::from_secs(3600 * u64::from(hours))) {
                Err(PlanError::Store(error)) => Err(error),
                Ok(_) | Err(PlanError::UnderWay(_)) => Ok(()),
            },
        };
        if outcome.and_then(|()| self.tick()).is_err() {
            self.restart();
        }
        Ok(())
    }

    fn end(mut self) -> Result<Self, TestCaseError> {
        self.restart();
        self.registry.hold(false).unwrap();
        self.now = Time(self.registry.schedule().end(self.registry.open_round()).0.max(self.now.0) + 1);
        self.tick().unwrap();
        self.now = Time(i128::MAX / 4);
        self.deliver().unwrap();
        let mut proven: BTreeMap<Node, RoundId> = BTreeMap::new();
        for (round, closed) in self.store.closed().unwrap() {
            let record = self.store.record(round).unwrap();
            prop_assert_eq!(record.is_some(), closed.statement.is_some(), "round {}", round);
            for member in record.map_or_else(Vec::new, |record| record.members) {
                prop_assert_eq!(proven.insert(member, round), None);
            }
        }
        for (member, (round, end)) in &self.promised {
            prop_assert_eq!(proven.get(member), Some(round));
            prop_assert_eq!(&self.run[round].1, end, "round {} ended at another time than promised", round);
        }
        let times: Vec<_> = self.run.iter().collect();
        for pair in times.windows(2) {
            let [(before, (_, end)), (after, (start, _))] = pair else { unreachable!("windows of two") };
            prop_assert!(start >= end, "rounds {} and {} overlap", before, after);
        }
        Ok(self)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if std::env::var_os("SOAK").is_some() { 20_000 } else { 400 }))]

    #[test]
    fn every_accepted_member_is_in_exactly_one_proof(steps in prop::collection::vec(step(), 50..300)) {
        let mut world = World::new();
        for step in steps {
            world.step(&step)?;
        }
        world.end()?;
    }
}

/// A month without surprises besides restarts: registrations at the nanosecond before, of, and after every change of rounds.
#[test]
fn a_month_of_rounds_loses_nobody() {
    let mut world = World::new();
    for day in 0..30 {
        let boundary = schedule().start(RoundId(day));
        for (side, round) in [(-1, day), (0, day + 1), (1, day + 1)] {
            world.now = Time(boundary.0 + side);
            world.step(&Step::Register(3)).unwrap();
            assert_eq!(world.unwritten.last().unwrap().1, RoundId(round), "day {day}, side {side}");
            world.step(&Step::Flush).unwrap();
            if day % 3 == 0 {
                world.step(&Step::Crash).unwrap();
            }
        }
        world.step(&Step::Deliver).unwrap();
    }
    let world = world.end().unwrap();
    assert_eq!(world.promised.len(), 30 * 9);
    assert_eq!(world.run.len(), 31);
}

#[test]
fn a_round_takes_no_more_members_than_allowed() {
    let store = Arc::new(MemoryStore::default());
    let limits = Limits { max_round_members: 2, ..LIMITS };
    let mut registry = Registry::new(store, schedule(), limits, [1; 32], &[2; 32], Time(0)).unwrap();
    let now = Time(1);
    assert!(registry.on_register(now, &registration(1)).is_ok());
    registry.flush().unwrap();
    assert!(registry.on_register(now, &registration(2)).is_ok());
    assert_eq!(registry.on_register(now, &registration(3)), Err(Refused::Full));
    // who is in stays in
    assert!(registry.on_register(now, &registration(1)).is_ok());
    assert!(registry.on_register(now, &registration(2)).is_ok());
    let late = Registration { deadline: Some(Time(schedule().end(RoundId(0)).0 - 1)), ..registration(1) };
    assert_eq!(registry.on_register(now, &late), Err(Refused::TooLate));
}

#[test]
fn challenges_of_proofs_of_work_change_with_each_proof_and_survive_a_restart() {
    let store = Arc::new(MemoryStore::default());
    let mut registry = open(&store, Time(0));
    assert_eq!(registry.pow_params().len(), 1);
    assert_eq!(registry.pow_params()[0].challenge, [2; 32]);
    registry.on_register(Time(0), &registration(1)).unwrap();
    let end = schedule().end(RoundId(0));
    registry.on_tick(end).unwrap();
    let run = registry.next_run().unwrap();
    registry.on_proof(run.round, proof_of(run.round, run.statement)).unwrap();
    let params = registry.pow_params();
    assert_eq!(params.len(), 2);
    assert_eq!(params[1].challenge, [2; 32]);
    assert_eq!(open(&store, end).pow_params(), params);
}

/// A million members: closing the round, and the one encoding of its answer.
#[test]
fn a_million_members_fit() {
    let count: u64 = if std::env::var_os("SOAK").is_some() { 1_000_000 } else { 50_000 };
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(poet_service::store::RocksStore::open(dir.path()).unwrap());
    let limits = Limits { max_round_members: u64::MAX, ..LIMITS };
    let mut registry = Registry::new(store.clone(), schedule(), limits, [1; 32], &[2; 32], Time(0)).unwrap();
    for number in 0..count {
        registry.on_register(Time(0), &registration(number)).unwrap();
        if number % 5000 == 0 {
            registry.flush().unwrap();
        }
    }
    let end = schedule().end(RoundId(0));
    let started = std::time::Instant::now();
    registry.on_tick(end).unwrap();
    println!("closed a round of {count} members in {:?}", started.elapsed());
    let run = registry.next_run().unwrap();
    let proof = PoetProof { leaf_count: Leaves(150), ..PoetProof::default() };
    registry.on_proof(run.round, proof).unwrap();
    let record = store.record(run.round).unwrap().unwrap();
    assert_eq!(record.members.len() as u64, count);
    let json = poet_service::json::proof(&record);
    println!("its answer has {} MB", json.len() / 1_000_000);
    let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(parsed["proof"]["members"].as_array().unwrap().len() as u64, count);
}
