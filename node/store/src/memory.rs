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
        let entries = self.0.read().unwrap_or_else(PoisonError::into_inner).0.clone();
        entries.scan(family, range, visit)
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
        let lowest = match range.from {
            Some(from) if !range.backwards => from,
            _ => range.prefix,
        };
        let all = self.range((Bound::Included((family, lowest.to_vec())), Bound::Unbounded));
        let ours = all.take_while(|((f, key), _)| *f == family && key.starts_with(range.prefix));
        if range.backwards {
            let ours: Vec<_> = ours.filter(|((_, key), _)| range.from.is_none_or(|from| key.as_slice() <= from)).collect();
            visit_all(ours.into_iter().rev(), visit)
        } else {
            visit_all(ours, visit)
        }
    }
}

fn visit_all<'a>(
    entries: impl Iterator<Item = (&'a (Family, Vec<u8>), &'a Vec<u8>)>,
    visit: &mut Visit<'_>,
) -> Result<(), StoreError> {
    for ((_, key), value) in entries {
        if let ControlFlow::Break(()) = visit(key, value)? {
            break;
        }
    }
    Ok(())
}
