//! Which leaves a proof opens, and whether it is valid (poet.md sections 1.4 to 1.6).

use std::collections::BTreeSet;

use kernels::posw::{Backend, Statement, sha256};
use proto::poet::{Leaves, PROVEN_LEAVES, PoetProof};

use crate::merkle::{self, PathError, Reconstruction, Sibling};

/// The leaves that the root `root` of a tree of `leaves` leaves calls for: `count` distinct ones, ascending, or all of a tree
/// that has fewer.
pub fn challenged_leaves(root: &[u8], leaves: Leaves, count: usize) -> Vec<u64> {
    let Leaves(leaves) = leaves;
    if count as u64 > leaves {
        return (0..leaves).collect();
    }
    let backend = Backend::fastest();
    let mut chosen = BTreeSet::new();
    let mut message = root.to_vec();
    let mut draw = 0u32;
    while chosen.len() < count {
        message.truncate(root.len());
        message.extend(draw.to_be_bytes());
        let [first, ..] = *sha256(backend, &message).as_chunks::<8>().0 else { break };
        // `leaves` is at least `count`, which is more than zero here
        chosen.insert(u64::from_be_bytes(first) % leaves);
        draw = draw.wrapping_add(1);
    }
    chosen.into_iter().collect()
}

/// Why a proof is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProof {
    /// Not the number of opened leaves that the network demands.
    #[error("number of proven leaves ({found}) must be equal to security param ({expected})")]
    LeafCount {
        /// Leaves in the proof.
        found: usize,
        /// Leaves demanded.
        expected: usize,
    },
    /// Leaves and challenged indices do not go together: the tree is too small.
    #[error("error while validating merkle proof: {0}")]
    Path(#[from] PathError),
    /// The leaves do not lead to the root, or the nodes run out before all leaves are reached.
    #[error("merkle proof not valid")]
    Root,
    /// A leaf is not the label that its left siblings demand.
    #[error("label at index {index} incorrect")]
    Label {
        /// Number of the leaf.
        index: u64,
    },
}

/// Checks a proof with the security parameter of the network.
pub fn verify(statement: &Statement, proof: &PoetProof) -> Result<(), InvalidProof> {
    verify_opening(statement, proof, PROVEN_LEAVES)
}

/// Checks a proof that opens `count` leaves. Consensus depends on the exact rule: what is accepted here is what every node
/// accepts.
pub fn verify_opening(statement: &Statement, proof: &PoetProof, count: usize) -> Result<(), InvalidProof> {
    let found = proof.merkle.proven_leaves.len();
    if found != count {
        return Err(InvalidProof::LeafCount { found, expected: count });
    }
    let indices = challenged_leaves(&proof.merkle.root, proof.leaf_count, count);
    let work = check_opening(statement, proof, &indices)?;
    if !work.root_matches {
        return Err(InvalidProof::Root);
    }
    work.first_wrong_label.map_or(Ok(()), |index| Err(InvalidProof::Label { index }))
}

/// What the full work of a verification found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// The leaves lead to the root and all of them were reached.
    pub root_matches: bool,
    /// The first leaf whose label is wrong, looked for only where the root matches.
    pub first_wrong_label: Option<u64>,
}

fn check_opening(statement: &Statement, proof: &PoetProof, indices: &[u64]) -> Result<Verdict, PathError> {
    let reached = lead_to_root(statement, proof, indices)?;
    let root_matches = reached.root.as_ref() == &*proof.merkle.root && reached.left_siblings.len() == indices.len();
    let first_wrong_label = if root_matches { first_wrong_label(statement, proof, indices, &reached) } else { None };
    Ok(Verdict { root_matches, first_wrong_label })
}

/// All hashing of a verification for given indices, whatever the verdict: for measuring it without a proof of two weeks.
pub fn verification_work(statement: &Statement, proof: &PoetProof, indices: &[u64]) -> Result<Verdict, PathError> {
    let reached = lead_to_root(statement, proof, indices)?;
    let first_wrong_label = first_wrong_label(statement, proof, indices, &reached);
    Ok(Verdict { root_matches: reached.root.as_ref() == &*proof.merkle.root, first_wrong_label })
}

fn lead_to_root<'a>(statement: &Statement, proof: &'a PoetProof, indices: &[u64]) -> Result<Reconstruction<'a>, PathError> {
    let leaves: Vec<&[u8]> = proof.merkle.proven_leaves.iter().map(|leaf| &**leaf).collect();
    merkle::reconstruct(statement, indices, &leaves, &proof.merkle.proof_nodes)
}

fn first_wrong_label(statement: &Statement, proof: &PoetProof, indices: &[u64], reached: &Reconstruction<'_>) -> Option<u64> {
    let leaves = indices.iter().zip(&reached.left_siblings);
    let labels = statement.labels(leaves.map(|(index, left)| (*index, left.iter().map(Sibling::as_ref))));
    let wrong = labels.iter().zip(&proof.merkle.proven_leaves).position(|(label, claimed)| label[..] != **claimed);
    wrong.map(|place| indices[place])
}
