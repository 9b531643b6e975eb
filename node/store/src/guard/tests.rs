use proptest::prelude::*;
use proto::{ids::AtxId, signing};

use super::*;
use crate::{
    engine::{Read, Visit},
    memory::Memory,
};

const GENESIS: GenesisId = GenesisId([7; 20]);

fn over(memory: &Memory) -> Guard {
    Guard::new(Arc::new(memory.clone()), GENESIS)
}

fn key(n: u8) -> IdentityKey {
    IdentityKey::from_seed(&[n; 32])
}

fn is_conflict(result: &Result<EdSignature, GuardError>) -> bool {
    matches!(result, Err(GuardError::Conflict { .. }))
}

/// Statements of every kind, twice: the second contradicts the first.
fn contradictions() -> Vec<(Statement, Statement)> {
    let (a, b, zero) = (AtxId([1; 32]), AtxId([2; 32]), AtxId([0; 32]));
    let pair = |make: &dyn Fn([u8; 32]) -> Statement| (make([1; 32]), make([2; 32]));
    vec![
        (Statement::atx_v1(5, zero, a), Statement::atx_v1(5, AtxId([9; 32]), b)),
        (Statement::atx_v1(5, AtxId([9; 32]), a), Statement::atx_v1(6, AtxId([9; 32]), b)),
        (Statement::atx_v2(5, &[], a), Statement::atx_v1(6, zero, b)),
        (Statement::atx_v2(5, &[AtxId([8; 32]), AtxId([9; 32])], a), Statement::atx_v2(6, &[AtxId([9; 32])], b)),
        pair(&|hash| Statement::ballot(70, hash)),
        pair(&|hash| Statement::proposal(70, hash)),
        pair(&|hash| Statement::hare(70, 6, hash)),
        pair(&|hash| Statement::certificate(70, &hash)),
        pair(&|hash| Statement::beacon_first(7, &hash)),
        pair(&|hash| Statement::beacon_following(7, 3, &hash)),
        pair(&|hash| Statement::marriage(&NodeId(hash))),
    ]
}

#[test]
fn what_contradicts_is_not_signed() {
    for (first, second) in contradictions() {
        let memory = Memory::default();
        let guard = over(&memory);
        let signature = guard.sign(&key(1), &first).unwrap();
        let message = (first.domain(), first.message());
        assert!(signing::verify(&GENESIS, message.0, &key(1).node_id(), message.1, &signature));
        // again, also after a restart
        assert_eq!(guard.sign(&key(1), &first).unwrap(), signature);
        assert_eq!(over(&memory).sign(&key(1), &first).unwrap(), signature);
        assert!(is_conflict(&over(&memory).sign(&key(1), &second)), "{second:?}");
        // nothing of a refused statement is recorded
        let slots: usize = guard.history().unwrap().entries.len();
        assert_eq!(slots, first.slots().len());
        // another identity is free
        guard.sign(&key(2), &second).unwrap();
    }
}

#[test]
fn different_times_and_kinds_do_not_contradict() {
    let memory = Memory::default();
    let guard = over(&memory);
    for n in 0..3u8 {
        let (hash, at) = ([n; 32], u32::from(n) + 1);
        let previous = if n == 0 { AtxId([0; 32]) } else { AtxId([n - 1 + 100; 32]) };
        for statement in [
            Statement::atx_v1(at, previous, AtxId([n + 100; 32])),
            Statement::ballot(at, hash),
            Statement::proposal(at, hash),
            Statement::hare(at, 0, hash),
            Statement::hare(at, 1, hash),
            Statement::certificate(at, &hash),
            Statement::beacon_first(at, &hash),
            Statement::beacon_following(at, 1, &hash),
        ] {
            guard.sign(&key(1), &statement).unwrap();
        }
    }
}

#[test]
fn messages_are_those_of_the_network() {
    // epoch 5 and layers above 63 show the compact form
    assert_eq!(Statement::atx_v1(5, AtxId([0; 32]), AtxId([3; 32])).message(), [&[20][..], &[3; 32]].concat());
    assert_eq!(Statement::atx_v2(5, &[], AtxId([3; 32])).message(), [3; 32]);
    assert_eq!(Statement::ballot(64, [3; 32]).message(), [&[1, 1][..], &[3; 32]].concat());
    assert_eq!(Statement::hare(64, 6, [3; 32]).message(), [&[1, 1, 24][..], &[3; 32]].concat());
}

/// A database that fails after the n-th write, as if the process had been killed.
struct Dies {
    memory: Memory,
    before_write: bool,
}

impl Read for Dies {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.memory.get(family, key)
    }

    fn scan(&self, family: Family, range: Range<'_>, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.memory.scan(family, range, visit)
    }
}

impl Engine for Dies {
    fn write(&self, batch: &Batch, durability: Durability) -> Result<(), StoreError> {
        assert_eq!(durability, Durability::Power, "the guard must not trust the page cache");
        if !self.before_write {
            self.memory.write(batch, durability)?;
        }
        Err(StoreError::damaged(Family::Signed, &[], "killed"))
    }

    fn snapshot(&self) -> Box<dyn Read + '_> {
        self.memory.snapshot()
    }

    fn sequence(&self) -> u64 {
        self.memory.sequence()
    }
}

#[test]
fn an_end_between_record_and_signature_lets_no_contradiction_out() {
    for (first, second) in contradictions() {
        let memory = Memory::default();
        // before the record: nothing is out, everything is possible
        let dies = Dies { memory: memory.clone(), before_write: true };
        assert!(matches!(Guard::new(Arc::new(dies), GENESIS).sign(&key(1), &first), Err(GuardError::Store(_))));
        assert!(over(&memory).history().unwrap().entries.is_empty());
        // after the record: the signature may be out, so only the same one may follow
        let dies = Dies { memory: memory.clone(), before_write: false };
        assert!(matches!(Guard::new(Arc::new(dies), GENESIS).sign(&key(1), &first), Err(GuardError::Store(_))));
        let guard = over(&memory);
        assert!(is_conflict(&guard.sign(&key(1), &second)));
        guard.sign(&key(1), &first).unwrap();
    }
}

#[test]
fn threads_get_one_signature_per_slot() {
    let memory = Memory::default();
    let guard = over(&memory);
    let signed = Mutex::new(std::collections::BTreeMap::<u32, Vec<EdSignature>>::new());
    std::thread::scope(|scope| {
        for n in 1..=8u8 {
            let (guard, signed) = (&guard, &signed);
            scope.spawn(move || {
                for layer in 0..100 {
                    if let Ok(signature) = guard.sign(&key(1), &Statement::ballot(layer, [n; 32])) {
                        signed.lock().unwrap().entry(layer).or_default().push(signature);
                    }
                }
            });
        }
    });
    let signed = signed.into_inner().unwrap();
    assert_eq!(signed.len(), 100);
    assert!(signed.values().all(|signatures| signatures.len() == 1));
}

#[test]
fn bars_cover_all_that_has_a_time() {
    let memory = Memory::default();
    let guard = over(&memory);
    let id = key(1).node_id();
    guard.raise_bar(&id, Bar { epoch: 5, layer: 50 }).unwrap();
    guard.raise_bar(&id, Bar { epoch: 4, layer: 60 }).unwrap();
    assert_eq!(guard.bar(&id).unwrap(), Some(Bar { epoch: 5, layer: 60 }));
    let barred = |statement| matches!(guard.sign(&key(1), &statement), Err(GuardError::Barred { .. }));
    assert!(barred(Statement::atx_v1(5, AtxId([0; 32]), AtxId([3; 32]))));
    assert!(!barred(Statement::atx_v1(6, AtxId([0; 32]), AtxId([3; 32]))));
    assert!(barred(Statement::ballot(60, [3; 32])) && !barred(Statement::ballot(61, [3; 32])));
    assert!(barred(Statement::hare(60, 6, [3; 32])) && !barred(Statement::hare(61, 6, [3; 32])));
    assert!(barred(Statement::beacon_first(5, &[])) && !barred(Statement::beacon_first(6, &[])));
    assert!(guard.sign(&key(2), &Statement::ballot(60, [3; 32])).is_ok());
}

#[test]
fn histories_are_moved_and_merged() {
    let (here, there) = (Memory::default(), Memory::default());
    let (here, there) = (over(&here), over(&there));
    let ballot = |layer, n| Statement::ballot(layer, [n; 32]);
    for (guard, layer, n) in [(&here, 1, 1), (&here, 2, 1), (&there, 2, 1), (&there, 3, 1), (&here, 4, 1), (&there, 4, 2)] {
        guard.sign(&key(1), &ballot(layer, n)).unwrap();
    }
    there.raise_bar(&key(3).node_id(), Bar { epoch: 9, layer: 9 }).unwrap();
    let text = there.history().unwrap().to_json().unwrap();
    let history = History::from_json(&text).unwrap();
    assert_eq!(history, there.history().unwrap());
    let merged = here.merge(&history).unwrap();
    assert_eq!(merged, Merged { known: 1, added: 2, contradictions: 1 });
    assert_eq!(here.merge(&history).unwrap(), Merged { known: 3, added: 0, contradictions: 0 });
    assert!(is_conflict(&here.sign(&key(1), &ballot(3, 2))));
    here.sign(&key(1), &ballot(3, 1)).unwrap();
    // where both signed something else nothing is signed any more
    assert!(is_conflict(&here.sign(&key(1), &ballot(4, 1))) && is_conflict(&here.sign(&key(1), &ballot(4, 2))));
    assert_eq!(here.bar(&key(3).node_id()).unwrap(), Some(Bar { epoch: 9, layer: 9 }));
    // one identity alone
    here.sign(&key(2), &ballot(1, 1)).unwrap();
    let only = here.history().unwrap().of(&key(2).node_id());
    assert_eq!((only.entries.len(), only.barred.len()), (1, 0));
    // another network, another format
    let memory = Memory::default();
    let other = Guard::new(Arc::new(memory), GenesisId([8; 20]));
    assert!(matches!(other.merge(&history), Err(HistoryError::OtherNetwork { .. })));
    for bad in ["", "{}", &text.replace("smesh-signing-history", "x"), &text.replace("\"version\": 1", "\"version\": 2")] {
        assert!(matches!(History::from_json(bad), Err(HistoryError::Format(_))), "{bad}");
    }
}

fn statement() -> impl Strategy<Value = Statement> {
    (0..9u8, 0..3u32, 0..3u32, any::<bool>()).prop_map(|(kind, a, b, c)| {
        let hash = [u8::from(c) + 1; 32];
        match kind {
            0 => Statement::atx_v1(a, AtxId([b as u8; 32]), AtxId(hash)),
            1 => Statement::atx_v2(a, &[AtxId([b as u8; 32]), AtxId([9; 32])], AtxId(hash)),
            2 => Statement::ballot(a, hash),
            3 => Statement::proposal(a, hash),
            4 => Statement::hare(a, b, hash),
            5 => Statement::certificate(a, &hash),
            6 => Statement::beacon_first(a, &hash),
            7 => Statement::beacon_following(a, b, &hash),
            _ => Statement::marriage(&NodeId(hash)),
        }
    })
}

proptest! {
    /// Whatever is asked in whatever order: what was signed never contradicts itself, and keys of slots are read back.
    #[test]
    fn no_order_of_requests_gets_two_statements_signed(requests in proptest::collection::vec(statement(), 1..40)) {
        let memory = Memory::default();
        let mut signed = std::collections::BTreeMap::new();
        for statement in requests {
            let guard = over(&memory);
            let free = statement.slots().iter().all(|slot| signed.get(slot).is_none_or(|digest| *digest == statement.digest()));
            prop_assert_eq!(guard.sign(&key(1), &statement).is_ok(), free);
            if free {
                signed.extend(statement.slots().iter().map(|slot| (slot.clone(), statement.digest())));
            }
            for slot in statement.slots() {
                let id = key(1).node_id();
                prop_assert_eq!(Slot::parse(&slot.key(&id)), Some((id, slot.clone())));
            }
        }
        let history = over(&memory).history().unwrap();
        let recorded: std::collections::BTreeMap<_, _> = history.entries.into_iter().map(|e| (e.slot, e.digests[0])).collect();
        prop_assert_eq!(recorded, signed);
    }

    #[test]
    fn no_key_breaks_the_parser(key in proptest::collection::vec(any::<u8>(), 0..80)) {
        if let Some((identity, slot)) = Slot::parse(&key) {
            prop_assert_eq!(slot.key(&identity), key);
        }
    }
}
