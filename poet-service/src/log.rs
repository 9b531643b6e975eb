//! The kept nodes of a round on disk: one file that only grows, from which everything else follows.
//!
//! The file is a sequence of pages, each with 127 nodes, their number and a checksum that binds them to their place and to the
//! statement of the round. Nodes stand in the order in which they arise, so any prefix of the file is the state of the tree at
//! an earlier moment: recovery needs no other file. A page whose checksum is wrong is as good as missing; [`Mended`] computes
//! what was on it again.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use kernels::posw::{Node, Statement};
use proto::poet::Leaves;

use crate::{
    merkle::Join as _,
    tree::{Nodes, Shape, Unit},
};

const PAGE: usize = 4096;
const NODE: usize = 32;
/// The last 32 bytes of a page are its number of nodes and its checksum.
const NODES_PER_PAGE: u64 = ((PAGE - NODE) / NODE) as u64;
const COUNT_AT: usize = PAGE - NODE;
const CHECKSUM_AT: usize = COUNT_AT + 8;

/// Why kept nodes cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file system says no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A page is not what was written: its checksum is wrong, or it is not there.
    #[error("page {page} of the tree's nodes is damaged or missing")]
    Damaged {
        /// Number of the page.
        page: u64,
    },
}

/// The file of kept nodes.
#[derive(Debug)]
pub struct NodeLog {
    file: File,
    /// Binds pages to their round.
    key: [u8; 32],
    nodes: u64,
    /// The last page, as far as it is filled.
    tail: Box<[u8; PAGE]>,
    tail_is_written: bool,
}

impl NodeLog {
    /// Opens the file of a round, or makes it. Of an existing file the valid prefix is kept, as far as its end can tell: pages
    /// before the last valid one are checked when they are read.
    pub fn open(path: &Path, statement: &[u8]) -> Result<Self, LogError> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let key = blake3::derive_key("poet-service 2026 kept nodes of a round", statement);
        let mut log = Self { file, key, nodes: 0, tail: Box::new([0; PAGE]), tail_is_written: true };
        for page in (0..log.file.metadata()?.len().div_ceil(PAGE as u64)).rev() {
            match log.read_page(page) {
                // a page that is not the last must be full to count
                Ok((bytes, count)) => {
                    log.nodes = page * NODES_PER_PAGE + count;
                    if count < NODES_PER_PAGE {
                        *log.tail = *bytes;
                    }
                    break;
                }
                Err(LogError::Damaged { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(log)
    }

    /// Nodes in the file, the unwritten tail included.
    pub fn len(&self) -> u64 {
        self.nodes
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes == 0
    }

    /// Forgets all nodes after the first `nodes`.
    pub fn truncate(&mut self, nodes: u64) -> Result<(), LogError> {
        let nodes = nodes.min(self.nodes);
        let (page, slot) = (nodes / NODES_PER_PAGE, nodes % NODES_PER_PAGE);
        let mut tail = Box::new([0; PAGE]);
        if slot > 0 {
            let kept = slot as usize * NODE;
            let bytes = if page == self.nodes / NODES_PER_PAGE { self.tail.clone() } else { self.read_page(page)?.0 };
            tail[..kept].copy_from_slice(&bytes[..kept]);
        }
        self.tail = tail;
        self.nodes = nodes;
        self.tail_is_written = false;
        self.file.set_len(page * PAGE as u64)?;
        self.flush()
    }

    /// Appends nodes; full pages reach the operating system at once.
    pub fn append(&mut self, nodes: &[Node]) -> Result<(), LogError> {
        for node in nodes {
            let slot = self.nodes % NODES_PER_PAGE;
            self.tail[slot as usize * NODE..][..NODE].copy_from_slice(node);
            self.tail_is_written = false;
            if slot + 1 == NODES_PER_PAGE {
                self.write_tail(self.nodes / NODES_PER_PAGE, NODES_PER_PAGE)?;
                self.nodes += 1;
                *self.tail = [0; PAGE];
                self.tail_is_written = true;
            } else {
                self.nodes += 1;
            }
        }
        Ok(())
    }

    /// Hands the partly filled last page to the operating system as well.
    pub fn flush(&mut self) -> Result<(), LogError> {
        let slot = self.nodes % NODES_PER_PAGE;
        if !self.tail_is_written && slot > 0 {
            self.write_tail(self.nodes / NODES_PER_PAGE, slot)?;
        }
        self.tail_is_written = true;
        Ok(())
    }

    /// [`NodeLog::flush`], and waits until the disk has everything.
    pub fn sync(&mut self) -> Result<(), LogError> {
        self.flush()?;
        Ok(self.file.sync_data()?)
    }

    fn write_tail(&mut self, page: u64, count: u64) -> Result<(), LogError> {
        self.tail[COUNT_AT..CHECKSUM_AT].copy_from_slice(&count.to_le_bytes());
        let checksum = self.checksum(page, &self.tail);
        self.tail[CHECKSUM_AT..].copy_from_slice(&checksum);
        Ok(self.file.write_all_at(&*self.tail, page * PAGE as u64)?)
    }

    fn read_page(&self, page: u64) -> Result<(Box<[u8; PAGE]>, u64), LogError> {
        let mut bytes = Box::new([0; PAGE]);
        match self.file.read_exact_at(&mut *bytes, page * PAGE as u64) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(LogError::Damaged { page }),
            Err(error) => return Err(error.into()),
        }
        let mut count = [0; 8];
        count.copy_from_slice(&bytes[COUNT_AT..CHECKSUM_AT]);
        let count = u64::from_le_bytes(count);
        if bytes[CHECKSUM_AT..] != self.checksum(page, &bytes) || count > NODES_PER_PAGE {
            return Err(LogError::Damaged { page });
        }
        Ok((bytes, count))
    }

    fn checksum(&self, page: u64, bytes: &[u8; PAGE]) -> [u8; PAGE - CHECKSUM_AT] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&page.to_le_bytes()).update(&bytes[..CHECKSUM_AT]);
        let mut checksum = [0; PAGE - CHECKSUM_AT];
        hasher.finalize_xof().fill(&mut checksum);
        checksum
    }
}

impl Nodes for NodeLog {
    type Error = LogError;

    fn node(&self, place: u64) -> Result<Node, LogError> {
        let (page, slot) = (place / NODES_PER_PAGE, place % NODES_PER_PAGE);
        let mut node = [0; NODE];
        let in_page = slot as usize * NODE..(slot as usize + 1) * NODE;
        if page == self.nodes / NODES_PER_PAGE && place < self.nodes {
            node.copy_from_slice(&self.tail[in_page]);
            return Ok(node);
        }
        let (bytes, count) = self.read_page(page)?;
        if slot >= count {
            return Err(LogError::Damaged { page });
        }
        node.copy_from_slice(&bytes[in_page]);
        Ok(node)
    }
}

/// The nodes of a log, those on damaged pages computed again: from their children, or from the leaves of their unit.
#[derive(Debug)]
pub struct Mended<'a> {
    log: &'a NodeLog,
    statement: &'a Statement,
    shape: Shape,
    /// Damaged pages that were computed again.
    pages: Mutex<BTreeMap<u64, Arc<Vec<Node>>>>,
}

/// A page while it is computed again: what it depends on is on it already or on a page before.
struct Mending<'m, 'a> {
    mended: &'m Mended<'a>,
    first: u64,
    nodes: Vec<Node>,
}

impl Nodes for Mending<'_, '_> {
    type Error = LogError;

    fn node(&self, place: u64) -> Result<Node, LogError> {
        let here = place.checked_sub(self.first).and_then(|slot| self.nodes.get(slot as usize));
        here.map_or_else(|| self.mended.node(place), |node| Ok(*node))
    }
}

impl Nodes for Mended<'_> {
    type Error = LogError;

    fn node(&self, place: u64) -> Result<Node, LogError> {
        match self.log.node(place) {
            // beyond the end there is nothing to mend
            Err(LogError::Damaged { page }) if place < self.log.len() => {
                let slot = (place % NODES_PER_PAGE) as usize;
                self.mend(page)?.get(slot).copied().ok_or(LogError::Damaged { page })
            }
            other => other,
        }
    }
}

impl<'a> Mended<'a> {
    /// The nodes that `log` keeps of the tree over `statement`.
    pub fn new(log: &'a NodeLog, statement: &'a Statement, shape: Shape) -> Self {
        Self { log, statement, shape, pages: Mutex::default() }
    }

    /// The leaves of the tree that the log covers.
    pub fn leaves(&self) -> Leaves {
        self.shape.leaves(self.shape.units_covered(self.log.len()))
    }

    fn known(&self, page: u64) -> Option<Arc<Vec<Node>>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner).get(&page).cloned()
    }

    /// Computes a damaged page again, after the damaged ones right before it: neighbours depend on each other, so this order
    /// keeps the recursion flat.
    fn mend(&self, page: u64) -> Result<Arc<Vec<Node>>, LogError> {
        if let Some(nodes) = self.known(page) {
            return Ok(nodes);
        }
        let mut first = page;
        while first > 0 && self.known(first - 1).is_none() && self.log.read_page(first - 1).is_err() {
            first -= 1;
        }
        let mut last = Arc::default();
        for page in first..=page {
            tracing::warn!(page, "a page of the tree's nodes is damaged: computing it again");
            last = Arc::new(self.compute(page)?);
            self.pages.lock().unwrap_or_else(PoisonError::into_inner).insert(page, Arc::clone(&last));
        }
        Ok(last)
    }

    fn compute(&self, page: u64) -> Result<Vec<Node>, LogError> {
        let (statement, shape) = (self.statement, self.shape);
        let first = page * NODES_PER_PAGE;
        let mut mending = Mending { mended: self, first, nodes: Vec::new() };
        for place in first..(first + NODES_PER_PAGE).min(self.log.len()) {
            let unit = shape.units_covered(place);
            let above = (place - shape.kept(unit)) as u32;
            let node = if above == 0 {
                let leaves = shape.leaves(unit + 1);
                let units = Unit::compute(statement, shape, leaves, &[unit], &mending)?;
                let computed = units.first().map(|computed| computed.node(statement, shape.lowest(), unit));
                computed.ok_or(LogError::Damaged { page })?
            } else {
                let (level, position) = (shape.lowest() + above - 1, ((unit + 1) >> above) - 1);
                let left = mending.node(shape.place(level, 2 * position))?;
                let right = mending.node(shape.place(level, 2 * position + 1))?;
                statement.join(&left, &right)
            };
            mending.nodes.push(node);
        }
        Ok(mending.nodes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tree::Grower;

    fn grown(statement: &Statement, shape: Shape, leaves: u64) -> Vec<Node> {
        let mut tree = Grower::new(statement.clone());
        let mut kept = Vec::new();
        for _ in 0..leaves {
            tree.grow(|level, node| {
                if level >= shape.lowest() {
                    kept.push(*node);
                }
            });
        }
        kept
    }

    fn written(path: &Path, statement: &Statement, nodes: &[Node]) -> NodeLog {
        let mut log = NodeLog::open(path, statement.as_bytes()).unwrap();
        log.append(nodes).unwrap();
        log.sync().unwrap();
        log
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Whatever remains of the file, the tree grows on from it to what it would have been.
        #[test]
        fn any_prefix_of_the_file_is_an_earlier_state(leaves in 1..1200u64, keep in 0..=100u64, flip in prop::option::of(any::<u64>())) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("nodes");
            let statement = Statement::new(&[1; 32]);
            let shape = Shape::new(1);
            let nodes = grown(&statement, shape, leaves);
            drop(written(&path, &statement, &nodes));
            let length = std::fs::metadata(&path).unwrap().len() * keep / 100;
            let mut bytes = std::fs::read(&path).unwrap();
            bytes.truncate(length as usize);
            if let (Some(flip), false) = (flip, bytes.is_empty()) {
                let at = flip as usize % bytes.len();
                bytes[at] ^= 1;
            }
            std::fs::write(&path, bytes).unwrap();
            let mut log = NodeLog::open(&path, statement.as_bytes()).unwrap();
            prop_assert!(log.len() <= nodes.len() as u64);
            let units = shape.units_covered(log.len());
            log.truncate(shape.kept(units)).unwrap();
            let mut tree = {
                let mended = Mended::new(&log, &statement, shape);
                prop_assert_eq!(mended.leaves(), shape.leaves(units));
                Grower::resume(statement.clone(), shape, units, &mended).unwrap()
            };
            while tree.leaves().0 < leaves {
                let mut new = Vec::new();
                tree.grow(|level, node| if level >= 1 { new.push(*node) });
                log.append(&new).unwrap();
            }
            log.sync().unwrap();
            let log = NodeLog::open(&path, statement.as_bytes()).unwrap();
            prop_assert_eq!(log.len(), nodes.len() as u64);
            let mended = Mended::new(&log, &statement, shape);
            for (place, node) in nodes.iter().enumerate() {
                prop_assert_eq!(mended.node(place as u64).unwrap(), *node);
            }
        }
    }

    #[test]
    fn pages_of_another_round_or_place_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nodes");
        let statement = Statement::new(&[2; 32]);
        let nodes = grown(&statement, Shape::new(0), 300);
        drop(written(&path, &statement, &nodes));
        assert!(NodeLog::open(&path, &[3; 32]).unwrap().is_empty());
        let mut bytes = std::fs::read(&path).unwrap();
        // the second page in place of the first
        bytes.copy_within(PAGE..2 * PAGE, 0);
        std::fs::write(&path, bytes).unwrap();
        let log = NodeLog::open(&path, statement.as_bytes()).unwrap();
        assert!(matches!(log.node(0), Err(LogError::Damaged { page: 0 })));
        let mended = Mended::new(&log, &statement, Shape::new(0));
        assert_eq!(mended.node(0).unwrap(), nodes[0]);
        assert!(matches!(mended.node(nodes.len() as u64), Err(LogError::Damaged { .. })));
    }
}
