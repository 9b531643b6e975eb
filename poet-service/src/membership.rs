//! The members of a round: their tree, whose root is the round's statement, and the proofs nodes take from it
//! (poet.md section 4).

use kernels::posw::Node;
use proto::poet::MembershipProof;

use crate::merkle::{self, Join, PathError};

/// The hash of the members' tree: `BLAKE3(0x01 || left || right)`.
#[derive(Debug, Clone, Copy)]
pub struct MemberHash;

impl Join for MemberHash {
    fn join(&self, left: &[u8], right: &[u8]) -> Node {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[0x01]).update(left).update(right);
        hasher.finalize().into()
    }
}

/// The statement of a round with these members (their challenges, ordered by ascending node id); none without members.
pub fn statement(members: Vec<Node>) -> Option<Node> {
    merkle::root(&MemberHash, members)
}

/// Proves that the member at `position` belongs to the list; none for a position beyond it.
pub fn prove(members: &[Node], position: usize) -> Option<MembershipProof> {
    members.get(position)?;
    let leaf_index = position as u64;
    let mut level: Vec<Node> = members.to_vec();
    let mut nodes = Vec::new();
    let mut position = position;
    while level.len() > 1 {
        nodes.push(level.get(position ^ 1).copied().unwrap_or(kernels::posw::PADDING));
        level = level.chunks(2).map(|pair| MemberHash.join(&pair[0], pair.get(1).unwrap_or(&kernels::posw::PADDING))).collect();
        position >>= 1;
    }
    Some(MembershipProof { nodes, leaf_index })
}

/// Whether `nodes` lead the challenges at `indices` to `statement`. Bits of an index above the length of the path are ignored
/// and an inner node may pose as a leaf: nodes accept both (poet.md section 4).
pub fn verify(statement: &Node, challenges: &[&[u8]], indices: &[u64], nodes: &[Node]) -> Result<bool, PathError> {
    let reached = merkle::reconstruct(&MemberHash, indices, challenges, nodes)?;
    Ok(reached.left_siblings.len() == challenges.len() && reached.root.as_ref() == statement)
}
