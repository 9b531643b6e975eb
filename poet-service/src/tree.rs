//! Growing the tree of a round: one leaf after another, keeping only its upper part (poet.md sections 1.2 and 10).
//!
//! A [`Grower`] makes leaves and nodes in the one order there is. Of them only those from a lowest level up are kept, in the
//! order in which they arise: a [`Shape`] tells where in that sequence a node stands, and a [`Nodes`] is whatever holds it. The
//! lower levels are computed again when a proof needs them, one *unit* at a time: the leaves under one node of the lowest level
//! kept. Everything a unit depends on besides its own leaves is in the sequence before it, so units are independent.

use kernels::posw::{MAX_LEVELS, Node, PADDING, Statement};
use proto::poet::Leaves;

use crate::merkle::{self, Join as _};

/// The lowest level that rounds keep: 6 GB of nodes for two weeks, and two seconds of recomputing per core at the end.
pub const LOWEST_LEVEL: u32 = 10;

/// Places in the sequence of kept nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    lowest: u32,
}

impl Shape {
    /// The shape of a tree of which the levels from `lowest` up are kept; at most 20, where a unit takes 15 seconds.
    pub fn new(lowest: u32) -> Self {
        Self { lowest: lowest.min(20) }
    }

    /// The lowest level kept.
    pub const fn lowest(self) -> u32 {
        self.lowest
    }

    /// Leaves of a unit.
    pub const fn unit(self) -> u64 {
        1 << self.lowest
    }

    /// Whole units in this many leaves.
    pub const fn units(self, leaves: Leaves) -> u64 {
        leaves.0 >> self.lowest
    }

    /// Leaves in this many units.
    pub const fn leaves(self, units: u64) -> Leaves {
        Leaves(units << self.lowest)
    }

    /// Nodes kept after `units` units: each unit completes one node of the lowest level and those above that it fills.
    pub const fn kept(self, units: u64) -> u64 {
        2 * units - units.count_ones() as u64
    }

    /// Units that the first `kept` nodes of the sequence cover completely.
    pub const fn units_covered(self, kept: u64) -> u64 {
        // kept(u) grows with u and lies within 64 of 2u
        let mut units = kept.div_ceil(2) + 64;
        while self.kept(units) > kept {
            units -= 1;
        }
        units
    }

    /// The place of a complete node at or above the lowest level.
    pub const fn place(self, level: u32, position: u64) -> u64 {
        let above = level - self.lowest;
        let last_unit = ((position + 1) << above) - 1;
        self.kept(last_unit) + above as u64
    }
}

/// The kept nodes of a tree, read by their place in the sequence.
pub trait Nodes: Sync {
    /// Why a node cannot be had.
    type Error: std::error::Error + Send + 'static;

    /// The node at `place`.
    fn node(&self, place: u64) -> Result<Node, Self::Error>;
}

impl Nodes for Vec<Node> {
    type Error = OutOfRange;

    fn node(&self, place: u64) -> Result<Node, OutOfRange> {
        usize::try_from(place).ok().and_then(|place| self.get(place)).copied().ok_or(OutOfRange { place })
    }
}

/// A place beyond the end of the sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("node {place} is not there")]
pub struct OutOfRange {
    /// The place asked for.
    pub place: u64,
}

/// Makes leaves and nodes in order.
#[derive(Debug, Clone)]
pub struct Grower {
    statement: Statement,
    leaves: u64,
    /// `parked[h]`, where bit `h` of `leaves` is set, is the complete node of level `h` that waits for its right sibling.
    parked: [Node; MAX_LEVELS],
}

impl Grower {
    /// A tree without leaves.
    pub fn new(statement: Statement) -> Self {
        Self { statement, leaves: 0, parked: [PADDING; MAX_LEVELS] }
    }

    /// The tree of the first `units` units, from the kept nodes.
    pub fn resume<N: Nodes>(statement: Statement, shape: Shape, units: u64, nodes: &N) -> Result<Self, N::Error> {
        let mut grower = Self::new(statement);
        grower.leaves = shape.leaves(units).0;
        for above in (0..u64::BITS).filter(|above| units >> above & 1 == 1) {
            let level = shape.lowest + above;
            grower.parked[level as usize] = nodes.node(shape.place(level, (units >> above) - 1))?;
        }
        Ok(grower)
    }

    /// Leaves so far.
    pub fn leaves(&self) -> Leaves {
        Leaves(self.leaves)
    }

    /// The statement of the tree.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// Complete nodes that wait for their right sibling, by ascending level.
    pub fn parked(&self) -> impl Iterator<Item = (u32, &Node)> {
        parked(self.leaves, &self.parked)
    }

    /// Makes the next leaf and the nodes that it completes; `emit` is told each with its level, from the leaf up.
    pub fn grow(&mut self, emit: impl FnMut(u32, &Node)) {
        let left = parked(self.leaves, &self.parked).map(|(_, node)| &node[..]);
        let label = self.statement.label(self.leaves, left);
        self.add(0, label, emit);
    }

    /// Makes the next leaf of two trees at once, in hardly more time than for one.
    fn grow_pair(pair: &mut [Self; 2], mut emit: impl FnMut(usize, u32, &Node)) {
        let [first, second] = &*pair;
        let labels = first
            .statement
            .label_pair([first, second].map(|tree| (tree.leaves, parked(tree.leaves, &tree.parked).map(|(_, node)| &node[..]))));
        for (number, (tree, label)) in pair.iter_mut().zip(labels).enumerate() {
            tree.add(0, label, |level, node| emit(number, level, node));
        }
    }

    /// Adds the next complete node of a level whose leaves are known to be right: of a tree that was grown elsewhere. The tree
    /// must consist of whole nodes of that level.
    pub fn add(&mut self, at: u32, node: Node, mut emit: impl FnMut(u32, &Node)) {
        let mut node = node;
        let mut level = at;
        emit(level, &node);
        while self.leaves >> level & 1 == 1 {
            node = self.statement.join(&self.parked[level as usize], &node);
            level += 1;
            emit(level, &node);
        }
        self.parked[level as usize] = node;
        self.leaves += 1 << at;
    }

    /// The root of the tree as it is; none without leaves.
    pub fn root(&self) -> Option<Node> {
        let root_level = merkle::root_level(self.leaves);
        let mut right = None;
        let mut parked = self.parked().peekable();
        for level in 0..root_level {
            let left = parked.next_if(|(at, _)| *at == level).map(|(_, node)| node);
            right = match (left, right) {
                (Some(left), right) => Some(self.statement.join(left, &right.unwrap_or(PADDING))),
                (None, Some(right)) => Some(self.statement.join(&right, &PADDING)),
                (None, None) => None,
            };
        }
        right.or_else(|| parked.next().map(|(_, node)| *node))
    }
}

fn parked(leaves: u64, nodes: &[Node; MAX_LEVELS]) -> impl Iterator<Item = (u32, &Node)> {
    (0..u64::BITS).zip(nodes).filter(move |(level, _)| leaves >> level & 1 == 1)
}

/// All nodes of one unit below and at the lowest level kept, or of the part of it that has leaves.
#[derive(Debug)]
pub struct Unit {
    /// Number of the unit.
    pub number: u64,
    first_leaf: u64,
    leaves: u64,
    /// `levels[h]` are its complete nodes of level `h`.
    levels: Vec<Vec<Node>>,
}

impl Unit {
    /// Computes units `numbers` (two at a time in little more time than one) of a tree of `leaves` leaves again.
    pub fn compute<N: Nodes>(
        statement: &Statement,
        shape: Shape,
        leaves: Leaves,
        numbers: &[u64],
        nodes: &N,
    ) -> Result<Vec<Self>, N::Error> {
        let mut growing = Vec::with_capacity(numbers.len());
        for number in numbers {
            growing.push((Self::empty(shape, leaves, *number), Grower::resume(statement.clone(), shape, *number, nodes)?));
        }
        let mut done = Vec::with_capacity(numbers.len());
        while let Some((mut unit, mut tree)) = growing.pop() {
            // only units of the same size go side by side: all but the last one of a tree
            if let Some((other, tree2)) = growing.pop_if(|(other, _)| other.leaves == unit.leaves) {
                let mut units = [unit, other];
                let mut trees = [tree, tree2];
                for _ in 0..units[0].leaves {
                    Grower::grow_pair(&mut trees, |number, level, node| units[number].keep(level, node));
                }
                done.extend(units);
            } else {
                for _ in 0..unit.leaves {
                    tree.grow(|level, node| unit.keep(level, node));
                }
                done.push(unit);
            }
        }
        Ok(done)
    }

    fn empty(shape: Shape, leaves: Leaves, number: u64) -> Self {
        let first_leaf = shape.leaves(number).0;
        let count = leaves.0.saturating_sub(first_leaf).min(shape.unit());
        let levels = (0..=shape.lowest).map(|level| Vec::with_capacity((count >> level) as usize)).collect();
        Self { number, first_leaf, leaves: count, levels }
    }

    fn keep(&mut self, level: u32, node: &Node) {
        // the last leaf of a unit also completes nodes above it
        if let Some(nodes) = self.levels.get_mut(level as usize) {
            nodes.push(*node);
        }
    }

    /// A node of this unit, `position` counted in the whole tree; where it has leaves but not all, hashed with padding.
    pub fn node(&self, statement: &Statement, level: u32, position: u64) -> Node {
        let first = self.first_leaf >> level;
        let complete = position.checked_sub(first).and_then(|at| self.levels.get(level as usize)?.get(at as usize));
        match complete {
            Some(node) => *node,
            None if position << level >= self.first_leaf + self.leaves => PADDING,
            None if level == 0 => PADDING,
            None => {
                let below = level - 1;
                statement.join(&self.node(statement, below, 2 * position), &self.node(statement, below, 2 * position + 1))
            }
        }
    }
}
