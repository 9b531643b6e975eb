//! A month of rounds in virtual time: registrations at every boundary, restarts, a clock that jumps.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kernels::posw::Node;
use poet_service::{
    registry::{Limits, Refused, Registration, Registry},
    schedule::{RoundId, Schedule, Time},
    store::{MemoryStore, Store as _},
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

fn open(store: &Arc<MemoryStore>, now: Time) -> Registry<Arc<MemoryStore>> {
    Registry::new(store.clone(), schedule(), LIMITS, [1; 32], &[2; 32], now).unwrap()
}

fn registration(number: u64) -> Registration {
    let mut id = [0; 32];
    id[24..].copy_from_slice(&number.to_be_bytes());
    Registration { member: NodeId(id), challenge: id, deadline: None }
}

/// Runs what is to be run: a round whose end has come gets its proof, which names the round by its root.
fn work(registry: &mut Registry<Arc<MemoryStore>>, now: Time) {
    while let Some(run) = registry.next_run().unwrap().filter(|run| run.end <= now) {
        let mut proof = PoetProof { leaf_count: Leaves(u64::from(run.round.0) + 150), ..PoetProof::default() };
        proof.merkle.root = run.statement.into();
        registry.on_proof(run.round, proof).unwrap();
    }
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
    /// The clock is set, by minutes.
    Jump(i32),
    Flush,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..900u32).prop_map(Step::Wait),
        3 => (-1..=1i8).prop_map(Step::ToBoundary),
        6 => (1..5u8).prop_map(Step::Register),
        2 => Just(Step::Crash),
        2 => (-3000..3000i32).prop_map(Step::Jump),
        3 => Just(Step::Flush),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if std::env::var_os("SOAK").is_some() { 20_000 } else { 400 }))]

    #[test]
    fn every_accepted_member_is_in_exactly_one_proof(steps in prop::collection::vec(step(), 50..300)) {
        let store = Arc::new(MemoryStore::default());
        let mut now = Time(0);
        let mut registry = open(&store, now);
        let mut next = 0;
        // told to the members, and what they would be told once it is written
        let mut accepted: BTreeMap<Node, RoundId> = BTreeMap::new();
        let mut unwritten: Vec<(Node, RoundId)> = Vec::new();
        for step in steps {
            match step {
                Step::Wait(minutes) => now = Time(now.0 + i128::from(minutes) * MINUTE),
                Step::ToBoundary(side) => now = Time(now.0.max(registry.next_close().0 + i128::from(side))),
                Step::Jump(minutes) => now = Time((now.0 + i128::from(minutes) * MINUTE).max(0)),
                Step::Register(count) => {
                    for _ in 0..count {
                        next += 1;
                        let registration = registration(next);
                        let before = registry.open_round();
                        let answer = registry.on_register(now, &registration).unwrap();
                        if answer.round != before {
                            // the change of rounds has written the batch
                            accepted.extend(unwritten.drain(..));
                        }
                        // never into a round that has begun
                        prop_assert!(now < schedule().start(answer.round));
                        prop_assert_eq!(answer.end, schedule().end(answer.round));
                        unwritten.push((registration.challenge, answer.round));
                        let again = registry.on_register(now, &registration);
                        prop_assert_eq!(again, Ok(answer));
                        let other = Registration { challenge: [0xff; 32], ..registration };
                        prop_assert_eq!(registry.on_register(now, &other), Err(Refused::Conflict));
                    }
                }
                Step::Crash => {
                    unwritten.clear();
                    registry = open(&store, now);
                }
                Step::Flush => {
                    registry.flush().unwrap();
                    accepted.extend(unwritten.drain(..));
                }
            }
            let before = registry.open_round();
            registry.on_tick(now).unwrap();
            prop_assert!(registry.open_round() >= before);
            if registry.open_round() != before {
                accepted.extend(unwritten.drain(..));
            }
            work(&mut registry, now);
        }
        registry.flush().unwrap();
        accepted.extend(unwritten.drain(..));
        // let everything end
        now = Time(schedule().end(registry.open_round()).0.max(now.0) + 1);
        registry.on_tick(now).unwrap();
        work(&mut registry, Time(i128::MAX / 4));
        let mut proven: BTreeMap<Node, RoundId> = BTreeMap::new();
        for (round, closed) in store.closed().unwrap() {
            let record = store.record(round).unwrap();
            prop_assert_eq!(record.is_some(), closed.statement.is_some(), "round {}", round);
            for member in record.map_or_else(Vec::new, |record| record.members) {
                prop_assert_eq!(proven.insert(member, round), None);
            }
        }
        for (member, round) in accepted {
            prop_assert_eq!(proven.get(&member), Some(&round));
        }
    }
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
    work(&mut registry, end);
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
    let run = registry.next_run().unwrap().unwrap();
    let proof = PoetProof { leaf_count: Leaves(150), ..PoetProof::default() };
    registry.on_proof(run.round, proof).unwrap();
    let record = store.record(run.round).unwrap().unwrap();
    assert_eq!(record.members.len() as u64, count);
    let json = poet_service::json::proof(&record);
    println!("its answer has {} MB", json.len() / 1_000_000);
    let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(parsed["proof"]["members"].as_array().unwrap().len() as u64, count);
}
