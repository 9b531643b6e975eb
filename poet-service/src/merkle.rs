//! Trees with padding, whatever hashes them: shape, roots, paths and their reconstruction (poet.md sections 1.3, 1.5, 1.6).
//!
//! Node `(level, position)` covers the leaves `position << level` to `(position + 1) << level`; a node without any leaf is
//! [`PADDING`]. The tree of a round and the tree of its members differ only in their [`Join`].

use kernels::posw::{Node, PADDING, Statement};
pub use proto::merkle::PathError;
use proto::merkle::check_indices;

/// The hash above two children.
pub trait Join {
    /// The node above `left` and `right`, which are 32 bytes long unless a forged proof says otherwise.
    fn join(&self, left: &[u8], right: &[u8]) -> Node;
}

impl Join for Statement {
    fn join(&self, left: &[u8], right: &[u8]) -> Node {
        self.node(left, right)
    }
}

/// The level of the root of a tree of `leaves` leaves: the smallest at which one node covers all.
pub const fn root_level(leaves: u64) -> u32 {
    match leaves {
        0 | 1 => 0,
        n => u64::BITS - (n - 1).leading_zeros(),
    }
}

/// The root of a tree given by its leaves; none for no leaves.
pub fn root(hash: &impl Join, mut level: Vec<Node>) -> Option<Node> {
    while level.len() > 1 {
        // in place: the parents of a million members need no second list
        for parent in 0..level.len().div_ceil(2) {
            let right = level.get(2 * parent + 1).copied().unwrap_or(PADDING);
            level[parent] = hash.join(&level[2 * parent], &right);
        }
        level.truncate(level.len().div_ceil(2));
    }
    level.pop()
}

/// Names the nodes beside the paths of `indices` (sorted, distinct) in the order a reconstruction takes them.
pub fn for_each_proof_node<E>(leaves: u64, indices: &[u64], mut emit: impl FnMut(u32, u64) -> Result<(), E>) -> Result<(), E> {
    fn descend<E>(level: u32, position: u64, indices: &[u64], emit: &mut impl FnMut(u32, u64) -> Result<(), E>) -> Result<(), E> {
        let Some(below) = level.checked_sub(1) else { return Ok(()) };
        let (left, right) = indices.split_at(indices.partition_point(|index| index >> below <= 2 * position));
        match (left.is_empty(), right.is_empty()) {
            (true, true) => Ok(()),
            (false, true) => {
                descend(below, 2 * position, left, emit)?;
                emit(below, 2 * position + 1)
            }
            (true, false) => {
                descend(below, 2 * position + 1, right, emit)?;
                emit(below, 2 * position)
            }
            (false, false) => {
                descend(below, 2 * position, left, emit)?;
                descend(below, 2 * position + 1, right, emit)
            }
        }
    }
    descend(root_level(leaves), 0, indices, &mut emit)
}

/// The left siblings of a leaf, the lowest level first; levels without one are left out.
pub type LeftSiblings<'a> = Vec<Sibling<'a>>;

/// A node that a reconstruction met: taken from the proof or computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sibling<'a> {
    /// As the proof carries it.
    Given(&'a [u8]),
    /// The hash of its children.
    Computed(Node),
}

impl AsRef<[u8]> for Sibling<'_> {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Given(bytes) => bytes,
            Self::Computed(node) => node,
        }
    }
}

/// What a reconstruction ends with.
#[derive(Debug)]
pub struct Reconstruction<'a> {
    /// The node that was reached when the proof nodes ran out.
    pub root: Sibling<'a>,
    /// For each leaf reached, in ascending order, its left siblings; fewer than leaves where the nodes ran out before.
    pub left_siblings: Vec<LeftSiblings<'a>>,
}

/// Leads `leaves` with their `indices` up to a root with the help of `nodes` (poet.md section 1.6). Whether that is the right
/// root, and all leaves were reached, is for the caller to see.
pub fn reconstruct<'a>(
    hash: &impl Join,
    indices: &[u64],
    leaves: &[&'a [u8]],
    nodes: &'a [impl AsRef<[u8]>],
) -> Result<Reconstruction<'a>, PathError> {
    check_indices(leaves.len(), indices)?;
    let leaves = indices.iter().copied().zip(leaves.iter().copied());
    let mut walk =
        Walk { hash, leaves: leaves.peekable(), nodes: nodes.iter(), left_siblings: Vec::with_capacity(indices.len()) };
    // surplus nodes raise the root beyond any index, where every position is zero
    let root = walk.climb(None);
    Ok(Reconstruction { root, left_siblings: walk.left_siblings })
}

struct Walk<'w, 'a, H, L: Iterator<Item = (u64, &'a [u8])>, N> {
    hash: &'w H,
    leaves: std::iter::Peekable<L>,
    nodes: N,
    left_siblings: Vec<LeftSiblings<'a>>,
}

impl<'a, H: Join, L: Iterator<Item = (u64, &'a [u8])>, A: AsRef<[u8]> + 'a, N: Iterator<Item = &'a A>> Walk<'_, 'a, H, L, N> {
    /// From the next leaf up to level `stop`, or until the nodes run out. The leaves met get their places in
    /// `left_siblings` in ascending order. Depth of the recursion: each call begins above the one it comes from, so at most
    /// the 64 bits of an index.
    fn climb(&mut self, stop: Option<u32>) -> Sibling<'a> {
        let first = self.left_siblings.len();
        let Some((mut position, leaf)) = self.leaves.next() else { return Sibling::Computed(PADDING) };
        self.left_siblings.push(Vec::new());
        let mut value = Sibling::Given(leaf);
        let mut level = 0u32;
        while Some(level) != stop {
            let beside = position ^ 1;
            let is_next = self.leaves.peek().is_some_and(|(index, _)| index.checked_shr(level).unwrap_or(0) == beside);
            let join;
            if is_next {
                let middle = self.left_siblings.len();
                let right = self.climb(Some(level));
                for siblings in &mut self.left_siblings[middle..] {
                    siblings.push(value);
                }
                join = (value, right);
            } else {
                let Some(node) = self.nodes.next() else { break };
                let node = Sibling::Given(node.as_ref());
                if position & 1 == 1 {
                    for siblings in &mut self.left_siblings[first..] {
                        siblings.push(node);
                    }
                    join = (node, value);
                } else {
                    join = (value, node);
                }
            }
            value = Sibling::Computed(self.hash.join(join.0.as_ref(), join.1.as_ref()));
            position >>= 1;
            level += 1;
        }
        value
    }
}
