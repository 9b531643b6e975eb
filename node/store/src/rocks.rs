//! The database on disk: RocksDB.

use std::{ops::ControlFlow, path::Path};

use rocksdb::{ColumnFamily, DB, DBRawIteratorWithThreadMode, Options, ReadOptions, WriteBatch, WriteOptions};

use crate::{
    StoreError,
    engine::{Batch, Durability, Engine, Range, Read, Visit},
    schema::{Database, Family},
};

/// A database on disk.
pub struct Rocks {
    db: DB,
}

impl Rocks {
    /// Opens or makes a database in a folder.
    ///
    /// Column families that this program does not know are opened as well: the format, which says that a newer program made them,
    /// can only be read from an open database.
    pub fn open(folder: &Path, database: Database) -> Result<Self, StoreError> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_max_open_files(256);
        options.set_keep_log_file_num(3);
        options.set_compression_type(rocksdb::DBCompressionType::Lz4);
        let mut names: Vec<String> = database.families().iter().map(|family| family.name().to_owned()).collect();
        if folder.join("CURRENT").exists() {
            let there = DB::list_cf(&options, folder)?;
            names.extend(there.into_iter().filter(|name| name != "default" && !database.knows(name)));
        }
        Ok(Self { db: DB::open_cf(&options, folder, names)? })
    }

    /// Writes a consistent copy to a folder that must not exist; it shares its files with the original where it can.
    pub fn backup(&self, folder: &Path) -> Result<(), StoreError> {
        Ok(rocksdb::checkpoint::Checkpoint::new(&self.db)?.create_checkpoint(folder)?)
    }

    /// Makes sure that everything written so far survives a power failure.
    pub fn sync(&self) -> Result<(), StoreError> {
        Ok(self.db.flush_wal(true)?)
    }

    /// Entries and bytes of a column family, both estimates.
    pub fn size(&self, family: Family) -> Result<(u64, u64), StoreError> {
        let handle = self.family(family)?;
        let value = |name: &str| self.db.property_int_value_cf(handle, name).map(Option::unwrap_or_default);
        let bytes = value("rocksdb.live-sst-files-size")? + value("rocksdb.cur-size-all-mem-tables")?;
        Ok((value("rocksdb.estimate-num-keys")?, bytes))
    }

    fn family(&self, family: Family) -> Result<&ColumnFamily, StoreError> {
        self.db.cf_handle(family.name()).ok_or_else(|| StoreError::damaged(family, &[], "the column family is not open"))
    }
}

impl Read for Rocks {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.db.get_cf(self.family(family)?, key)?)
    }

    fn scan(&self, family: Family, range: Range<'_>, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let iterator = self.db.raw_iterator_cf_opt(self.family(family)?, ReadOptions::default());
        run(iterator, range, visit)
    }
}

impl Engine for Rocks {
    fn write(&self, batch: &Batch, durability: Durability) -> Result<(), StoreError> {
        let mut changes = WriteBatch::default();
        for change in batch.changes() {
            let family = self.family(change.family)?;
            match &change.value {
                Some(value) => changes.put_cf(family, &change.key, value),
                None => changes.delete_cf(family, &change.key),
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(durability == Durability::Power);
        Ok(self.db.write_opt(changes, &options)?)
    }

    fn snapshot(&self) -> Box<dyn Read + '_> {
        Box::new(Snapshot { rocks: self, at: self.db.snapshot() })
    }

    fn sequence(&self) -> u64 {
        self.db.latest_sequence_number()
    }
}

struct Snapshot<'a> {
    rocks: &'a Rocks,
    at: rocksdb::Snapshot<'a>,
}

impl Read for Snapshot<'_> {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.at.get_cf(self.rocks.family(family)?, key)?)
    }

    fn scan(&self, family: Family, range: Range<'_>, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        run(self.at.raw_iterator_cf_opt(self.rocks.family(family)?, ReadOptions::default()), range, visit)
    }
}

fn run(mut iterator: DBRawIteratorWithThreadMode<'_, DB>, range: Range<'_>, visit: &mut Visit<'_>) -> Result<(), StoreError> {
    match (range.from, range.backwards) {
        (from, false) => iterator.seek(from.unwrap_or(range.prefix)),
        (Some(from), true) => iterator.seek_for_prev(from),
        (None, true) => match after(range.prefix) {
            None => iterator.seek_to_last(),
            Some(next) => {
                iterator.seek_for_prev(&next);
                // the first key behind the prefix may exist
                if iterator.key().is_some_and(|key| key == next) {
                    iterator.prev();
                }
            }
        },
    }
    while let Some((key, value)) = iterator.item() {
        if !key.starts_with(range.prefix) || visit(key, value)? == ControlFlow::Break(()) {
            break;
        }
        if range.backwards { iterator.prev() } else { iterator.next() }
    }
    Ok(iterator.status()?)
}

/// The smallest key above all that begin with the prefix; `None` where there is none.
fn after(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut next = prefix[..=last].to_vec();
    next[last] += 1;
    Some(next)
}
