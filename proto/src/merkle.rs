//! The binary tree whose leaves are taken as they are: members of a PoET round, the parts of an activation (types.md sections
//! 4.3 and 4.6).
//!
//! A node is `BLAKE3(0x01 || left || right)`. Where a level ends with an odd node, 32 zero bytes stand beside it. Leaves may
//! have any length, and nothing tells a leaf from a node; the checks below are exactly as strict as the network is.

/// A node of the tree.
pub type Node = [u8; 32];

/// What stands where no leaf is below.
pub const PADDING: Node = [0; 32];

/// The node above two others.
pub fn join(left: &[u8], right: &[u8]) -> Node {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[0x01]).update(left).update(right);
    hasher.finalize().into()
}

/// A tree with all its levels.
#[derive(Debug, Clone)]
pub struct Tree {
    leaves: Vec<Vec<u8>>,
    /// From the parents of the leaves up to the root; none above a single leaf.
    levels: Vec<Vec<Node>>,
}

impl Tree {
    /// The tree over `leaves`. An empty leaf in an even position is left out and the next one takes its place, as the deployed
    /// library does; in an odd position it counts as an empty string.
    pub fn new<L: AsRef<[u8]>>(leaves: impl IntoIterator<Item = L>) -> Self {
        let mut kept: Vec<Vec<u8>> = Vec::new();
        for leaf in leaves {
            if !leaf.as_ref().is_empty() || kept.len() % 2 == 1 {
                kept.push(leaf.as_ref().to_vec());
            }
        }
        let mut tree = Self { leaves: kept, levels: Vec::new() };
        if tree.leaves.len() > 1 {
            let mut level = parents(&tree.leaves);
            while level.len() > 1 {
                let next = parents(&level);
                tree.levels.push(level);
                level = next;
            }
            tree.levels.push(level);
        }
        tree
    }

    /// The root: a single leaf is its own, and without leaves it is empty.
    pub fn root(&self) -> &[u8] {
        match self.levels.last() {
            Some(top) => &top[0],
            None => self.leaves.first().map_or(&[], Vec::as_slice),
        }
    }

    /// The siblings from the leaf at `position` up to the root; none for a position without a leaf. A sibling in the level of
    /// the leaves is as long as that leaf is.
    pub fn path(&self, position: usize) -> Option<Vec<Vec<u8>>> {
        self.leaves.get(position)?;
        if self.levels.is_empty() {
            return Some(Vec::new());
        }
        let mut path = vec![self.leaves.get(position ^ 1).cloned().unwrap_or_else(|| PADDING.to_vec())];
        let mut position = position >> 1;
        for level in &self.levels[..self.levels.len() - 1] {
            path.push(level.get(position ^ 1).unwrap_or(&PADDING).to_vec());
            position >>= 1;
        }
        Some(path)
    }
}

fn parents(level: &[impl AsRef<[u8]>]) -> Vec<Node> {
    level.chunks(2).map(|pair| join(pair[0].as_ref(), pair.get(1).map_or(&PADDING[..], AsRef::as_ref))).collect()
}

/// The root over nodes of 32 bytes; none without nodes.
pub fn root(nodes: &[Node]) -> Option<Node> {
    let mut level = match nodes {
        [] => return None,
        [single] => return Some(*single),
        _ => parents(nodes),
    };
    while level.len() > 1 {
        level = parents(&level);
    }
    level.pop()
}

/// Why leaves cannot be led to a root at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Not as many leaves as indices.
    #[error("{leaves} leaves for {indices} indices")]
    Count {
        /// Leaves given.
        leaves: usize,
        /// Indices given.
        indices: usize,
    },
    /// Nothing to prove.
    #[error("no leaves")]
    Empty,
    /// The indices do not ascend.
    #[error("indices are not sorted")]
    NotSorted,
    /// An index occurs twice.
    #[error("an index occurs twice")]
    Duplicate,
}

/// Whether there is an index for each leaf and they ascend.
pub fn check_indices(leaves: usize, indices: &[u64]) -> Result<(), PathError> {
    if leaves != indices.len() {
        return Err(PathError::Count { leaves, indices: indices.len() });
    }
    if indices.is_empty() {
        return Err(PathError::Empty);
    }
    if !indices.is_sorted() {
        return Err(PathError::NotSorted);
    }
    if indices.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(PathError::Duplicate);
    }
    Ok(())
}

/// Whether `nodes` lead the `leaves` at `indices` to `root` (types.md section 4.6). Bits of an index above the length of the
/// path are ignored, an inner node may pose as a leaf, and leaves that the walk never reaches prove nothing and harm nothing:
/// the network accepts all of that.
pub fn verify<L: AsRef<[u8]>, N: AsRef<[u8]>>(
    root: &[u8],
    indices: &[u64],
    leaves: &[L],
    nodes: &[N],
) -> Result<bool, PathError> {
    check_indices(leaves.len(), indices)?;
    let leaves = indices.iter().copied().zip(leaves.iter().map(AsRef::as_ref));
    let mut walk = Walk { leaves: leaves.peekable(), nodes: nodes.iter().map(AsRef::as_ref) };
    Ok(walk.climb(None) == root)
}

struct Walk<'a, L: Iterator<Item = (u64, &'a [u8])>, N> {
    leaves: std::iter::Peekable<L>,
    nodes: N,
}

impl<'a, L: Iterator<Item = (u64, &'a [u8])>, N: Iterator<Item = &'a [u8]>> Walk<'a, L, N> {
    /// From the next leaf up to level `stop`, or until the nodes run out. Each call begins above the one it comes from, so the
    /// recursion is at most as deep as an index has bits.
    fn climb(&mut self, stop: Option<u32>) -> Vec<u8> {
        let Some((mut position, leaf)) = self.leaves.next() else { return PADDING.to_vec() };
        let mut value = leaf.to_vec();
        let mut level = 0u32;
        while Some(level) != stop {
            let beside = position ^ 1;
            let is_next = self.leaves.peek().is_some_and(|(index, _)| index.checked_shr(level).unwrap_or(0) == beside);
            let sibling = if is_next {
                self.climb(Some(level))
            } else {
                match self.nodes.next() {
                    Some(node) => node.to_vec(),
                    None => break,
                }
            };
            value = if position & 1 == 1 { join(&sibling, &value) } else { join(&value, &sibling) }.to_vec();
            position >>= 1;
            level += 1;
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_leaf_is_led_to_the_root(leaves in prop::collection::vec(any::<[u8; 32]>(), 1..40), high: u32) {
            let tree = Tree::new(&leaves);
            prop_assert_eq!(tree.root(), root(&leaves).unwrap());
            for (position, leaf) in leaves.iter().enumerate() {
                let path = tree.path(position).unwrap();
                prop_assert_eq!(verify(tree.root(), &[position as u64], &[leaf], &path), Ok(true));
                // bits above the tree are ignored
                let index = (u64::from(high) << path.len()) + position as u64;
                prop_assert_eq!(verify(tree.root(), &[index], &[leaf], &path), Ok(true));
                prop_assert_eq!(verify(tree.root(), &[index], &[[1; 31]], &path), Ok(false));
            }
            prop_assert_eq!(tree.path(leaves.len()), None);
        }
    }

    #[test]
    fn an_index_of_ones_does_not_overflow() {
        let nodes = vec![PADDING; 200];
        assert_eq!(verify(&PADDING, &[u64::MAX - 1, u64::MAX], &[PADDING, PADDING], &nodes), Ok(false));
    }
}
