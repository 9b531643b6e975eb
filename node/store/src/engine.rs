//! The small trait between tables and database.

use std::ops::ControlFlow;

use crate::{StoreError, schema::Family};

/// What is called for each entry of a scan; `Break` ends it.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, StoreError> + 'a;

/// Which entries a scan visits.
#[derive(Debug, Clone, Copy)]
pub struct Range<'a> {
    /// What their keys begin with.
    pub prefix: &'a [u8],
    /// The first key, or where there is none of this name the next in the order of the scan; must begin with the prefix.
    pub from: Option<&'a [u8]>,
    /// From the largest key to the smallest.
    pub backwards: bool,
}

impl<'a> Range<'a> {
    /// All entries whose key begins so, ascending.
    pub fn prefix(prefix: &'a [u8]) -> Self {
        Self { prefix, from: None, backwards: false }
    }

    /// All entries, ascending.
    pub fn all() -> Self {
        Self::prefix(&[])
    }

    /// From the largest key to the smallest.
    #[must_use]
    pub fn backwards(self) -> Self {
        Self { backwards: true, ..self }
    }

    /// Beginning with this key.
    #[must_use]
    pub fn from(self, from: &'a [u8]) -> Self {
        Self { from: Some(from), ..self }
    }
}

/// Looking things up.
pub trait Read {
    /// The value of a key.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Visits entries in the order of their keys.
    fn scan(&self, family: Family, range: Range<'_>, visit: &mut Visit<'_>) -> Result<(), StoreError>;
}

/// A database.
pub trait Engine: Read + Send + Sync {
    /// Makes all changes of a batch, or none of them.
    fn write(&self, batch: &Batch, durability: Durability) -> Result<(), StoreError>;

    /// The database as it is now, for readers that need everything of one moment.
    fn snapshot(&self) -> Box<dyn Read + '_>;

    /// A count of changes that only grows.
    fn sequence(&self) -> u64;
}

/// What a change survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The end of the process, however it ends.
    Process,
    /// A power failure as well.
    Power,
}

/// Changes that belong together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    changes: Vec<Change>,
}

/// One change: a value put, or a key deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where.
    pub family: Family,
    /// Which key.
    pub key: Vec<u8>,
    /// The new value; `None` deletes.
    pub value: Option<Vec<u8>>,
}

impl Batch {
    /// Sets a value.
    pub fn put(&mut self, family: Family, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.changes.push(Change { family, key: key.into(), value: Some(value.into()) });
    }

    /// Deletes a key.
    pub fn delete(&mut self, family: Family, key: impl Into<Vec<u8>>) {
        self.changes.push(Change { family, key: key.into(), value: None });
    }

    /// The changes in their order.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}
