//! Marriages of identities (activation.md section 8.3).
//!
//! Identities that married share activations. A later activation counts them by their place in the set, so sets keep the order
//! in which identities came into the database: every one gets the next number of a count that only grows. A set is called by the
//! number of its first identity.

use std::{collections::BTreeSet, ops::ControlFlow};

use proto::{
    ids::{AtxId, EdSignature, NodeId},
    scale::{Decode, Encode},
};

use crate::{
    StoreError,
    atxs::id_at,
    engine::{Batch, Range, Read},
    schema::{Family, MARRIED, record, value},
};

/// How an identity was married.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Marriage {
    /// The set it belongs to.
    pub set: u64,
    /// Its number among all identities that ever married.
    pub number: u64,
    /// The activation with its certificate.
    pub atx: AtxId,
    /// Which of the certificates.
    pub index: u32,
    /// Who published the activation.
    pub publisher: NodeId,
    /// Its consent.
    pub signature: EdSignature,
}

pub(crate) fn marriage_index(identity: &NodeId, marriage: &Marriage) -> (Family, Vec<u8>) {
    let key = [&marriage.set.to_be_bytes()[..], &marriage.number.to_be_bytes(), identity.as_bytes()].concat();
    (Family::Married, key)
}

/// The marriage of an identity.
pub fn marriage(read: &dyn Read, identity: &NodeId) -> Result<Option<Marriage>, StoreError> {
    let key = identity.as_bytes();
    read.get(Family::Marriage, key)?.map(|found| record(Family::Marriage, key, &found)).transpose()
}

/// The identities of a set, in the order in which they were married.
pub fn married(read: &dyn Read, set: u64) -> Result<Vec<NodeId>, StoreError> {
    let mut identities = Vec::new();
    read.scan(Family::Married, Range::prefix(&set.to_be_bytes()), &mut |key, _| {
        identities.push(NodeId(id_at(Family::Married, key, 16)?));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(identities)
}

/// Adds the marriages of an activation to a change: those who consented, in the order of their certificates. Who is married
/// already stays as they are, and all sets that are touched become one.
///
/// Nothing else may change marriages between this and the writing of the batch.
pub fn put_marriages(
    read: &dyn Read,
    batch: &mut Batch,
    atx: &AtxId,
    publisher: &NodeId,
    consents: &[(NodeId, EdSignature)],
) -> Result<(), StoreError> {
    let mut next = match read.get(Family::Meta, MARRIED)? {
        Some(count) => u64::from_be_bytes(
            count.try_into().map_err(|_| StoreError::damaged(Family::Meta, MARRIED, "not a count of 8 bytes"))?,
        ),
        None => 0,
    };
    let (mut sets, mut rows) = (BTreeSet::new(), Vec::new());
    for (index, (identity, signature)) in (0u32..).zip(consents) {
        if let Some(known) = marriage(read, identity)? {
            sets.insert(known.set);
            continue;
        }
        rows.push((*identity, Marriage { set: 0, number: next, atx: *atx, index, publisher: *publisher, signature: *signature }));
        next += 1;
    }
    // a new set has a larger number than all there are
    let set = sets.pop_first().or_else(|| rows.first().map(|(_, row)| row.number));
    let Some(set) = set else { return Ok(()) };
    for old in sets {
        for identity in married(read, old)? {
            if let Some(row) = marriage(read, &identity)? {
                let (family, key) = marriage_index(&identity, &row);
                batch.delete(family, key);
                rows.push((identity, row));
            }
        }
    }
    for (identity, row) in rows {
        let row = Marriage { set, ..row };
        let (family, key) = marriage_index(&identity, &row);
        batch.put(family, key, []);
        batch.put(Family::Marriage, *identity.as_bytes(), value(&row)?);
    }
    batch.put(Family::Meta, MARRIED, next.to_be_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::{Durability, Engine as _},
        memory::Memory,
    };

    fn marry(memory: &Memory, atx: u8, who: &[u8]) {
        let consents: Vec<_> = who.iter().map(|n| (NodeId([*n; 32]), EdSignature([*n; 64]))).collect();
        let mut batch = Batch::default();
        put_marriages(memory, &mut batch, &AtxId([atx; 32]), &consents[0].0, &consents).unwrap();
        memory.write(&batch, Durability::Process).unwrap();
    }

    fn set_of(memory: &Memory, who: u8) -> Vec<u8> {
        let Some(marriage) = marriage(memory, &NodeId([who; 32])).unwrap() else { return Vec::new() };
        married(memory, marriage.set).unwrap().iter().map(|id| id.0[0]).collect()
    }

    #[test]
    fn sets_keep_the_order_in_which_identities_came() {
        let memory = Memory::default();
        marry(&memory, 1, &[9, 3]);
        marry(&memory, 2, &[7, 1]);
        assert_eq!((set_of(&memory, 3), set_of(&memory, 7), set_of(&memory, 5)), (vec![9, 3], vec![7, 1], vec![]));
        // two sets become one: the order is that of coming, not of the set that was joined
        marry(&memory, 3, &[5, 1, 3]);
        assert_eq!(set_of(&memory, 9), [9, 3, 7, 1, 5]);
        assert_eq!(set_of(&memory, 5), set_of(&memory, 9));
        // who was married stays with the first activation
        let one = marriage(&memory, &NodeId([1; 32])).unwrap().unwrap();
        assert_eq!((one.atx, one.index, one.publisher), (AtxId([2; 32]), 1, NodeId([7; 32])));
        let five = marriage(&memory, &NodeId([5; 32])).unwrap().unwrap();
        assert_eq!((five.atx, five.index, five.set, five.number), (AtxId([3; 32]), 0, 0, 4));
        // the next ones have a set of their own
        marry(&memory, 4, &[20]);
        assert_eq!((set_of(&memory, 20), set_of(&memory, 9).len()), (vec![20], 5));
        // and the same again changes nothing
        marry(&memory, 4, &[20]);
        assert_eq!(set_of(&memory, 20), [20]);
    }
}
