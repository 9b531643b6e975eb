//! The members of a round: their tree, whose root is the round's statement, and the proofs nodes take from it
//! (poet.md section 4). Nodes check them with [`proto::merkle::verify`].

use kernels::posw::Node;
use proto::poet::MembershipProof;

use crate::merkle::{self, Join};

/// The hash of the members' tree: `BLAKE3(0x01 || left || right)`.
#[derive(Debug, Clone, Copy)]
pub struct MemberHash;

impl Join for MemberHash {
    fn join(&self, left: &[u8], right: &[u8]) -> Node {
        proto::merkle::join(left, right)
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
