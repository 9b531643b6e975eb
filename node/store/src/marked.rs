//! A database whose growth is recorded beside it, so that one that was truncated or replaced by an older copy is noticed.
//!
//! RocksDB takes a log that ends too early for one that a crash cut off, and goes on without what is missing. The mark is a
//! count of changes that are known to have been written: a database with fewer has lost some.
//!
//! The file has two places of 16 bytes, written in turn and synced: `sequence (8, big-endian) || BLAKE3(sequence)[..8]`. A crash
//! in the middle leaves the other place, whose count is at most one change behind.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    StoreError,
    engine::{Batch, Durability, Engine, Range, Read, Visit},
    files::{io_error, private_options},
    rocks::Rocks,
    schema::{Database, Family},
};

const PLACE: usize = 16;

/// The recorded growth of a database.
struct Mark {
    path: PathBuf,
    file: File,
    recorded: u64,
    place: usize,
}

fn place(sequence: u64) -> [u8; PLACE] {
    let sequence = sequence.to_be_bytes();
    let mut place = [0; PLACE];
    place[..8].copy_from_slice(&sequence);
    place[8..].copy_from_slice(&blake3::hash(&sequence).as_bytes()[..8]);
    place
}

impl Mark {
    fn open(path: &Path, create: bool) -> Result<Self, StoreError> {
        let opened = private_options().read(true).write(true).create(create).truncate(false).open(path);
        let file = opened.map_err(io_error(path))?;
        let content = crate::files::read(path)?.unwrap_or_default();
        let found = content.chunks_exact(PLACE).enumerate().filter_map(|(index, bytes)| {
            let sequence = u64::from_be_bytes(bytes[..8].try_into().ok()?);
            (place(sequence) == bytes).then_some((sequence, index))
        });
        let (recorded, index) = match found.max() {
            Some(found) => found,
            None if content.is_empty() => (0, 1),
            None => return Err(StoreError::File { path: path.to_owned(), what: "no count in it is whole".to_owned() }),
        };
        Ok(Self { path: path.to_owned(), file, recorded, place: index })
    }

    /// Records the count; survives a power failure when it returns.
    fn record(&mut self, sequence: u64) -> Result<(), StoreError> {
        use std::io::{Seek as _, SeekFrom, Write as _};

        if sequence == self.recorded {
            return Ok(());
        }
        let next = (self.place + 1) % 2;
        let at = SeekFrom::Start((next * PLACE) as u64);
        let written = self.file.seek(at).and_then(|_| self.file.write_all(&place(sequence))).and_then(|()| self.file.sync_data());
        written.map_err(io_error(&self.path))?;
        (self.recorded, self.place) = (sequence, next);
        Ok(())
    }
}

/// A database on disk with its mark.
pub struct Marked {
    rocks: Rocks,
    mark: Mutex<Mark>,
    every_write: bool,
    // the last field: the directory is free once the database is closed
    _lock: Arc<File>,
}

impl Marked {
    /// Opens or makes a database and its mark; refuses one that has fewer changes than were recorded, unless these are given up.
    pub(crate) fn open(
        folder: &Path,
        database: Database,
        create: bool,
        give_up: bool,
        lock: &Arc<File>,
    ) -> Result<Self, StoreError> {
        let path = folder.join(format!("{}.mark", database.folder()));
        if !give_up && !path.exists() && folder.join(database.folder()).join("CURRENT").exists() {
            return Err(StoreError::File { path, what: "it is missing, but there is a database".to_owned() });
        }
        let mut mark = Mark::open(&path, create || give_up)?;
        let rocks = Rocks::open(&folder.join(database.folder()), database)?;
        let found = rocks.sequence();
        if found < mark.recorded && !give_up {
            return Err(StoreError::Behind { database, recorded: mark.recorded, found });
        }
        // What is not synced yet must not be recorded: a power failure would make it a loss.
        rocks.sync()?;
        mark.record(found)?;
        Ok(Self { rocks, mark: Mutex::new(mark), every_write: database == Database::Local, _lock: lock.clone() })
    }

    /// The database itself.
    pub fn rocks(&self) -> &Rocks {
        &self.rocks
    }

    fn record(&self) -> Result<(), StoreError> {
        let mut mark = self.mark.lock().unwrap_or_else(PoisonError::into_inner);
        // under the lock, so that counts are recorded in their order
        mark.record(self.rocks.sequence())
    }
}

impl Read for Marked {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.rocks.get(family, key)
    }

    fn scan(&self, family: Family, range: Range<'_>, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.rocks.scan(family, range, visit)
    }
}

impl Engine for Marked {
    fn write(&self, batch: &Batch, durability: Durability) -> Result<(), StoreError> {
        if self.every_write {
            self.rocks.write(batch, Durability::Power)?;
            self.record()
        } else {
            self.rocks.write(batch, durability)
        }
    }

    fn snapshot(&self) -> Box<dyn Read + '_> {
        self.rocks.snapshot()
    }

    fn sequence(&self) -> u64 {
        self.rocks.sequence()
    }
}

impl Drop for Marked {
    fn drop(&mut self) {
        // Nobody is left to be told; the mark of the last opening stays.
        if self.rocks.sync().is_ok() {
            let _ = self.record();
        }
    }
}
