use super::*;
use crate::{check::check, memory::Memory, schema::Database};

pub(crate) fn new_atx(n: u8, epoch: u32, smesher: u8, previous: Option<u8>, ticks: u64) -> NewAtx {
    let atx = Atx {
        publish_epoch: EpochId(epoch),
        sequence: 1,
        commitment: previous.is_none().then_some(AtxId([200; 32])),
        marriage: None,
        coinbase: Address::EMPTY,
        effective_units: SpaceUnits(4),
        base_height: TickHeight(10),
        ticks: Ticks(ticks),
        vrf_nonce: VrfNonce(77),
        smesher: NodeId([smesher; 32]),
        weight: Weight(4 * ticks),
        received: u64::from(n),
        validity: Validity::Unknown,
    };
    let share = Share {
        previous: previous.map(|n| AtxId([n; 32])),
        previous_index: 0,
        units: SpaceUnits(4),
        publish_epoch: EpochId(epoch),
    };
    NewAtx { id: AtxId([n; 32]), atx, wire: Some((Version::V1, vec![n; 300])), shares: vec![(NodeId([smesher; 32]), share)] }
}

fn sound(memory: &Memory) -> bool {
    check(memory, Database::State, &|| false).faults.is_empty()
}

#[test]
fn activations_are_found_by_all_that_is_asked_for() {
    let memory = Memory::default();
    let (writer, atxs) = (AtxWriter::new(Arc::new(memory.clone())), Atxs::new(&memory));
    let ids = |numbers: &[u8]| numbers.iter().map(|n| AtxId([*n; 32])).collect::<Vec<_>>();
    assert_eq!(atxs.latest_epoch().unwrap(), None);
    for (n, epoch, smesher, previous, ticks) in
        [(1, 4, 50, None, 5), (2, 5, 50, Some(1), 9), (3, 5, 51, None, 7), (4, 5, 52, None, 900), (5, 6, 50, Some(2), 1)]
    {
        let new = new_atx(n, epoch, smesher, previous, ticks);
        assert_eq!(writer.save(&new, Batch::default(), Durability::Process).unwrap(), Saved::New);
        // known, whatever comes with it
        let mut more = Batch::default();
        more.put(Family::Malicious, [1; 32], [1; 9]);
        assert_eq!(writer.save(&new, more, Durability::Power).unwrap(), Saved::Known);
        assert_eq!(atxs.get(&new.id).unwrap().as_ref(), Some(&new.atx));
        assert_eq!(atxs.wire(&new.id).unwrap(), new.wire);
        assert_eq!(atxs.share(&new.id, &new.atx.smesher).unwrap().as_ref(), Some(&new.shares[0].1));
    }
    assert!(sound(&memory) && memory.get(Family::Malicious, &[1; 32]).unwrap().is_none());
    let (one, epoch) = (NodeId([50; 32]), EpochId);
    assert_eq!(atxs.of_epoch(epoch(5)).unwrap(), ids(&[2, 3, 4]));
    assert_eq!(atxs.highest(epoch(5), 2).unwrap(), ids(&[4, 2]));
    assert_eq!(atxs.latest_epoch().unwrap(), Some(epoch(6)));
    assert_eq!(atxs.last_published_by(&one).unwrap(), Some(AtxId([5; 32])));
    assert_eq!(atxs.last_published_by(&NodeId([99; 32])).unwrap(), None);
    assert_eq!(atxs.with_share_of(&one, None, 9).unwrap(), ids(&[5, 2, 1]));
    assert_eq!(atxs.with_share_of(&one, Some(epoch(6)), 1).unwrap(), ids(&[2]));
    assert_eq!(atxs.with_share_of(&one, Some(epoch(0)), 1).unwrap(), []);
    assert_eq!(atxs.with_share_in(&one, epoch(5)).unwrap(), ids(&[2]));
    assert_eq!(atxs.after(&one, Some(&AtxId([1; 32]))).unwrap(), ids(&[2]));
    assert_eq!(atxs.after(&one, None).unwrap(), ids(&[1]));
    assert!(writer.set_validity(&AtxId([2; 32]), Validity::Invalid).unwrap());
    assert!(!writer.set_validity(&AtxId([99; 32]), Validity::Valid).unwrap());
    assert_eq!(atxs.get(&AtxId([2; 32])).unwrap().unwrap().validity, Validity::Invalid);
    assert!(sound(&memory));
}

#[test]
fn the_check_sees_what_is_missing_or_too_much() {
    let memory = Memory::default();
    AtxWriter::new(Arc::new(memory.clone())).save(&new_atx(1, 4, 50, None, 5), Batch::default(), Durability::Process).unwrap();
    assert!(sound(&memory));
    let mut entries = Vec::new();
    for family in Database::State.families() {
        memory
            .scan(family, Range::all(), &mut |key, value| {
                entries.push((family, key.to_vec(), value.to_vec()));
                Ok(ControlFlow::Continue(()))
            })
            .unwrap();
    }
    assert_eq!(entries.len(), 8);
    for (family, key, value) in entries {
        // every single entry is missed, except bytes and shares: checkpoints have none
        let mut batch = Batch::default();
        batch.delete(family, key.clone());
        memory.write(&batch, Durability::Process).unwrap();
        assert_eq!(sound(&memory), family == Family::AtxBlob, "{family:?}");
        let mut batch = Batch::default();
        batch.put(family, key.clone(), value.clone());
        memory.write(&batch, Durability::Process).unwrap();
        // every key that is longer, and every value of another version
        for (key, value) in [([&key[..], &[0]].concat(), value.clone()), (key.clone(), vec![9; 3])] {
            let before = memory.get(family, &key).unwrap();
            let mut batch = Batch::default();
            batch.put(family, key.clone(), value);
            memory.write(&batch, Durability::Process).unwrap();
            assert!(!sound(&memory), "{family:?}");
            let mut batch = Batch::default();
            match before {
                Some(value) => batch.put(family, key, value),
                None => batch.delete(family, key),
            }
            memory.write(&batch, Durability::Process).unwrap();
        }
        assert!(sound(&memory));
    }
    // an entry of an index that no record makes
    let mut batch = Batch::default();
    batch.put(Family::AtxEpoch, [3; 36], []);
    memory.write(&batch, Durability::Process).unwrap();
    assert!(!sound(&memory));
}
