//! RocksDB and its twin in memory do the same.

use std::{ops::ControlFlow, sync::Arc};

use proptest::prelude::*;
use proto::poet::PoetProofMessage;
use store::{
    atxs::Saved,
    check::check,
    engine::{Batch, Durability, Engine, Range, Read},
    memory::Memory,
    poets::{Poets, malicious, put_malicious, reference},
    rocks::Rocks,
    schema::{Database, Family},
};

fn entries(read: &dyn Read, family: Family, range: Range<'_>, most: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut entries = Vec::new();
    read.scan(family, range, &mut |key, value| {
        entries.push((key.to_vec(), value.to_vec()));
        Ok(if entries.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })
    .unwrap();
    entries
}

/// Few different bytes, so that keys and prefixes meet; 255 for the end of the range.
fn key() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(254), Just(255)], 0..4)
}

type Change = (bool, Vec<u8>, Option<u8>);

fn batch(changes: &[Change]) -> Batch {
    let mut batch = Batch::default();
    for (first, key, value) in changes {
        let family = if *first { Family::Atx } else { Family::Share };
        match value {
            Some(value) => batch.put(family, key.clone(), [*value]),
            None => batch.delete(family, key.clone()),
        }
    }
    batch
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn both_engines_do_the_same(
        batches in proptest::collection::vec(proptest::collection::vec((any::<bool>(), key(), any::<Option<u8>>()), 0..12), 1..6),
        questions in proptest::collection::vec((key(), proptest::option::of(key()), any::<bool>(), 1..20usize), 20),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (rocks, memory) = (Rocks::open(dir.path(), Database::State).unwrap(), Memory::default());
        let engines: [&dyn Engine; 2] = [&rocks, &memory];
        let (last, earlier) = batches.split_last().unwrap();
        for engine in engines {
            for changes in earlier {
                engine.write(&batch(changes), Durability::Process).unwrap();
            }
        }
        let before = engines.map(Engine::snapshot);
        for engine in engines {
            engine.write(&batch(last), Durability::Power).unwrap();
        }
        prop_assert_eq!(rocks.sequence(), memory.sequence());
        let now = engines.map(Engine::snapshot);
        for (prefix, from, backwards, most) in questions {
            // the first key of a scan lies within its prefix
            let from = from.map(|from| [prefix.clone(), from].concat());
            let range = Range { prefix: &prefix, from: from.as_deref(), backwards };
            for family in [Family::Atx, Family::Share] {
                for [ours, theirs] in [&before, &now] {
                    prop_assert_eq!(entries(&**ours, family, range, most), entries(&**theirs, family, range, most));
                    prop_assert_eq!(ours.get(family, &prefix).unwrap(), theirs.get(family, &prefix).unwrap());
                }
                prop_assert_eq!(entries(&rocks, family, range, most), entries(&memory, family, range, most));
            }
        }
    }
}

fn message(service: u8, round: &str, root: u8) -> PoetProofMessage {
    let mut message = PoetProofMessage {
        proof: proto::poet::PoetProof::default(),
        service_id: [service; 32].into(),
        round_id: round.as_bytes().try_into().unwrap(),
        statement: [1; 32],
        signature: [0; 64],
    };
    message.proof.merkle.root = [root; 32].into();
    message
}

#[test]
fn poet_proofs_are_found_by_reference_and_round() {
    let dir = tempfile::tempdir().unwrap();
    let (rocks, memory) = (Rocks::open(dir.path(), Database::State).unwrap(), Memory::default());
    for engine in [Arc::new(rocks) as Arc<dyn Engine>, Arc::new(memory)] {
        let poets = Poets::new(engine.clone());
        let (first, saved) = poets.save(&message(1, "7", 1)).unwrap();
        assert_eq!((saved, first), (Saved::New, reference(&message(1, "7", 1)).unwrap()));
        assert_eq!(poets.save(&message(1, "7", 1)).unwrap(), (first, Saved::Known));
        // another proof for the same round is kept as well, the first stays that of the round
        let (second, saved) = poets.save(&message(1, "7", 2)).unwrap();
        assert_eq!(saved, Saved::New);
        assert_eq!(poets.of_round(&[1; 32], b"7").unwrap(), Some(first));
        assert_eq!(poets.of_round(&[2; 32], b"7").unwrap(), None);
        assert_eq!(poets.get(&second).unwrap(), Some(message(1, "7", 2)));
        assert_eq!(poets.get(&[9; 32]).unwrap(), None);
        assert_eq!(check(&*engine, Database::State, &|| false).faults, Vec::<String>::new());
    }
}

#[test]
fn the_first_proof_of_malfeasance_stays() {
    let memory = Memory::default();
    let id = proto::ids::NodeId([3; 32]);
    for (received, saved) in [(5, Saved::New), (6, Saved::Known)] {
        let mut batch = Batch::default();
        assert_eq!(put_malicious(&memory, &mut batch, &id, received, b"proof").unwrap(), saved);
        memory.write(&batch, Durability::Process).unwrap();
    }
    assert_eq!(malicious(&memory, &id).unwrap(), Some((5, b"proof".to_vec())));
}
