//! The twin of the database in memory, for tests.

use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
    sync::{Arc, PoisonError, RwLock},
};

use crate::{
    StoreError,
    engine::{Batch, Durability, Engine, Range, Read, Visit},
    schema::Family,
};

type Entries = BTreeMap<(Family, Vec<u8>), Vec<u8>>;

/// A database in memory. Clones share their entries, as if the process had been started again.
#[derive(Debug, Clone, Default)]
pub struct Memory(Arc<RwLock<(Entries, u64)>>);

impl Read for Memory {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Read::get(&self.0.read().unwrap_or_else(PoisonError::into_inner).0, family, key)
    }

    fn scan(&self, family: Family, range: Range<'_>, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        // Visitors may write: they see the entries of the moment when the scan began, as with RocksDB.
        let found = matching(&self.0.read().unwrap_or_else(PoisonError::into_inner).0, family, range);
        visit_all(&found, visit)
    }
}

impl Engine for Memory {
    fn write(&self, batch: &Batch, _: Durability) -> Result<(), StoreError> {
        let (entries, sequence) = &mut *self.0.write().unwrap_or_else(PoisonError::into_inner);
        for change in batch.changes() {
            let key = (change.family, change.key.clone());
            match &change.value {
                Some(value) => drop(entries.insert(key, value.clone())),
                None => drop(entries.remove(&key)),
            }
            *sequence += 1;
        }
        Ok(())
    }

    fn snapshot(&self) -> Box<dyn Read + '_> {
        Box::new(self.0.read().unwrap_or_else(PoisonError::into_inner).0.clone())
    }

    fn sequence(&self) -> u64 {
        self.0.read().unwrap_or_else(PoisonError::into_inner).1
    }
}

impl Read for Entries {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.get(&(family, key.to_vec())).cloned())
    }

    fn scan(&self, family: Family, range: Range<'_>, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        visit_all(&matching(self, family, range), visit)
    }
}

type Entry = (Vec<u8>, Vec<u8>);

/// The entries of a range, in its order.
fn matching(entries: &Entries, family: Family, range: Range<'_>) -> Vec<Entry> {
    let lowest = match range.from {
        Some(from) if !range.backwards => from,
        _ => range.prefix,
    };
    let all = entries.range((Bound::Included((family, lowest.to_vec())), Bound::Unbounded));
    let ours = all.take_while(|((f, key), _)| *f == family && key.starts_with(range.prefix));
    let mut found: Vec<Entry> = ours.map(|((_, key), value)| (key.clone(), value.clone())).collect();
    if range.backwards {
        found.retain(|(key, _)| range.from.is_none_or(|from| key.as_slice() <= from));
        found.reverse();
    }
    found
}

fn visit_all(entries: &[Entry], visit: &mut Visit<'_>) -> Result<(), StoreError> {
    for (key, value) in entries {
        if let ControlFlow::Break(()) = visit(key, value)? {
            break;
        }
    }
    Ok(())
}
