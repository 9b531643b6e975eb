//! Making the proof of a finished tree (poet.md sections 1.4, 1.5 and 10).
//!
//! The kept nodes give everything from the lowest kept level up. What lies below is in at most 150 units, and the one at the
//! right edge, which are computed again on all cores.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use kernels::posw::{Node, PADDING, Statement};
use proto::poet::{Element, Leaves, MerkleProof, PoetProof};

use crate::{
    merkle::{self, Join as _},
    proof::challenged_leaves,
    tree::{Grower, Nodes, Shape, Unit},
};

/// Why a tree has no proof.
#[derive(Debug, thiserror::Error)]
pub enum ProveError<E: std::error::Error + 'static> {
    /// No leaf, no root.
    #[error("the tree has no leaves")]
    NoLeaves,
    /// A node that is needed cannot be read.
    #[error("failed to read the tree: {0}")]
    Nodes(#[source] E),
    /// Told to stop before it was done.
    #[error("stopped")]
    Stopped,
    /// A thread that computed a part of the tree did not come back.
    #[error("a worker thread failed")]
    Worker,
}

/// A finished tree: how many leaves it has and where its nodes are.
#[derive(Debug)]
pub struct Tree<'a, N> {
    /// The statement that salts every hash.
    pub statement: &'a Statement,
    /// Which nodes are kept.
    pub shape: Shape,
    /// Leaves of the tree.
    pub leaves: Leaves,
    /// The kept nodes.
    pub nodes: &'a N,
}

impl<N: Nodes> Tree<'_, N> {
    /// The proof that opens `count` leaves, computed on `threads` threads, unless `stop` gets set meanwhile.
    pub fn prove(&self, count: usize, threads: usize, stop: &AtomicBool) -> Result<PoetProof, ProveError<N::Error>> {
        if self.leaves.0 == 0 {
            return Err(ProveError::NoLeaves);
        }
        // the unit at the right edge is needed for the root already, unless it has no leaves
        let whole_units = self.shape.units(self.leaves);
        let mut units = Units::default();
        if self.shape.leaves(whole_units) < self.leaves {
            units.compute(self, &[whole_units].into(), 1, stop)?;
        }
        let root_level = merkle::root_level(self.leaves.0);
        let root = self.node(&units, root_level, 0).map_err(ProveError::Nodes)?;
        let indices = challenged_leaves(&root, self.leaves, count);
        let needed = indices.iter().map(|index| index >> self.shape.lowest()).collect();
        units.compute(self, &needed, threads, stop)?;

        let mut proven_leaves = Vec::with_capacity(indices.len());
        for index in &indices {
            proven_leaves.push(Element::from(self.node(&units, 0, *index).map_err(ProveError::Nodes)?));
        }
        let mut proof_nodes = Vec::new();
        merkle::for_each_proof_node(self.leaves.0, &indices, |level, position| {
            proof_nodes.push(Element::from(self.node(&units, level, position)?));
            Ok(())
        })
        .map_err(ProveError::Nodes)?;
        Ok(PoetProof { merkle: MerkleProof { root: root.into(), proven_leaves, proof_nodes }, leaf_count: self.leaves })
    }

    /// A node of the tree: kept, part of a computed unit, padding, or hashed from those.
    fn node(&self, units: &Units, level: u32, position: u64) -> Result<Node, N::Error> {
        let lowest = self.shape.lowest();
        // the root of a large tree covers more leaves than a u64 counts
        let end = (u128::from(position) + 1) << level;
        if u128::from(position) << level >= u128::from(self.leaves.0) {
            return Ok(PADDING);
        }
        if level < lowest || (level == lowest && end > u128::from(self.leaves.0)) {
            let number = (position << level) >> lowest;
            // only units that were asked for are looked into
            return Ok(units.done.get(&number).map_or(PADDING, |unit| unit.node(self.statement, level, position)));
        }
        if end <= u128::from(self.leaves.0) {
            return self.nodes.node(self.shape.place(level, position));
        }
        let left = self.node(units, level - 1, 2 * position)?;
        let right = self.node(units, level - 1, 2 * position + 1)?;
        Ok(self.statement.join(&left, &right))
    }
}

/// The root of a tree of which only whole units are needed: read from the kept nodes.
pub fn root_of_units<N: Nodes>(statement: &Statement, shape: Shape, units: u64, nodes: &N) -> Result<Option<Node>, N::Error> {
    Ok(Grower::resume(statement.clone(), shape, units, nodes)?.root())
}

#[derive(Default)]
struct Units {
    done: BTreeMap<u64, Unit>,
}

impl Units {
    /// Computes the units `needed` that are not there yet, two at a time on each thread.
    fn compute<N: Nodes>(
        &mut self,
        tree: &Tree<'_, N>,
        needed: &BTreeSet<u64>,
        threads: usize,
        stop: &AtomicBool,
    ) -> Result<(), ProveError<N::Error>> {
        let missing: Vec<u64> = needed.iter().copied().filter(|number| !self.done.contains_key(number)).collect();
        let pairs: Vec<&[u64]> = missing.chunks(2).collect();
        let next = AtomicUsize::new(0);
        let found = Mutex::new(Vec::with_capacity(missing.len()));
        let work = || {
            while let Some(pair) = pairs.get(next.fetch_add(1, Ordering::Relaxed)) {
                if stop.load(Ordering::Relaxed) {
                    return Err(ProveError::Stopped);
                }
                let units =
                    Unit::compute(tree.statement, tree.shape, tree.leaves, pair, tree.nodes).map_err(ProveError::Nodes)?;
                found.lock().unwrap_or_else(PoisonError::into_inner).extend(units);
            }
            Ok(())
        };
        thread::scope(|scope| {
            let others: Vec<_> = (1..threads.min(pairs.len())).map(|_| scope.spawn(work)).collect();
            let mut outcome = work();
            for other in others {
                outcome = outcome.and(other.join().map_err(|_| ProveError::Worker).flatten());
            }
            outcome
        })?;
        let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.done.extend(found.into_iter().map(|unit| (unit.number, unit)));
        Ok(())
    }
}
