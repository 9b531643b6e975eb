//! `prove` and `verify`: proofs in files, without a server.

use std::{fs, path::PathBuf, sync::atomic::AtomicBool};

use clap::Args;
use kernels::posw::Statement;
use poet_service::{
    proof,
    prove::Tree,
    tree::{Grower, Shape},
};
use proto::poet::{Element, Leaves, MAX_PROOF_NODES, MerkleProof, PROVEN_LEAVES, PoetProof};
use serde::{Deserialize, Serialize};

use super::Failure;

/// The largest proof file: 5550 elements of 64 digits and what is around them.
const MAX_FILE: u64 = 1 << 20;

#[derive(Args)]
pub(crate) struct Prove {
    /// Statement in hex, 32 bytes for the proofs of a network
    #[arg(long)]
    statement: String,
    /// Leaves to grow; some 70,000 take a second
    #[arg(long)]
    leaves: u64,
    /// File for the proof (JSON)
    #[arg(long)]
    out: PathBuf,
}

#[derive(Args)]
pub(crate) struct Verify {
    /// Statement in hex
    #[arg(long)]
    statement: String,
    /// File with the proof (JSON)
    #[arg(long)]
    proof: PathBuf,
}

/// A proof in a file: bytes in hex.
#[derive(Serialize, Deserialize)]
struct File {
    root: String,
    proven_leaves: Vec<String>,
    proof_nodes: Vec<String>,
    leaves: u64,
}

fn statement(text: &str) -> Result<Statement, Failure> {
    let bytes = hex::decode(text).map_err(|e| Failure::Invalid(format!("the statement is not hex: {e}")))?;
    Ok(Statement::new(&bytes))
}

impl Prove {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let statement = statement(&self.statement)?;
        if self.leaves < PROVEN_LEAVES as u64 {
            return Err(Failure::Invalid(format!("a proof opens {PROVEN_LEAVES} leaves, so there must be as many")));
        }
        let shape = Shape::new(poet_service::tree::LOWEST_LEVEL.min(self.leaves.ilog2() / 2));
        let mut tree = Grower::new(statement.clone());
        let mut kept = Vec::new();
        while tree.leaves().0 < self.leaves {
            tree.grow(|level, node| {
                if level >= shape.lowest() {
                    kept.push(*node);
                }
            });
        }
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let tree = Tree { statement: &statement, shape, leaves: Leaves(self.leaves), nodes: &kept };
        let proof = tree
            .prove(PROVEN_LEAVES, threads, &AtomicBool::new(false))
            .map_err(|e| Failure::failed("failed to make the proof", &e))?;
        let hex = |elements: &[Element]| elements.iter().map(|element| hex::encode(&**element)).collect();
        let file = File {
            root: hex::encode(&*proof.merkle.root),
            proven_leaves: hex(&proof.merkle.proven_leaves),
            proof_nodes: hex(&proof.merkle.proof_nodes),
            leaves: proof.leaf_count.0,
        };
        let text = serde_json::to_vec(&file).map_err(|e| Failure::failed("failed to write the proof", &e))?;
        poet_service::worker::write_durably(&self.out, &text)
            .map_err(|e| Failure::failed(&format!("failed to write {}", self.out.display()), &e))
    }
}

impl Verify {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let statement = statement(&self.statement)?;
        let unreadable = |e: std::io::Error| Failure::failed(&format!("failed to read {}", self.proof.display()), &e);
        if fs::metadata(&self.proof).map_err(unreadable)?.len() > MAX_FILE {
            return Err(Failure::Invalid("the file is larger than any proof".into()));
        }
        let text = fs::read(&self.proof).map_err(unreadable)?;
        let file: File = serde_json::from_slice(&text).map_err(|e| Failure::Invalid(format!("not a proof: {e}")))?;
        let element = |text: &String| {
            let bytes = hex::decode(text).map_err(|e| Failure::Invalid(format!("not hex: {e}")))?;
            Element::try_from(&*bytes).map_err(|e| Failure::Invalid(format!("an element of the proof is too long: {e}")))
        };
        if file.proof_nodes.len() > MAX_PROOF_NODES {
            return Err(Failure::Invalid(format!("more than {MAX_PROOF_NODES} nodes")));
        }
        let elements = |texts: &[String]| texts.iter().map(element).collect::<Result<Vec<_>, _>>();
        let proof = PoetProof {
            merkle: MerkleProof {
                root: element(&file.root)?,
                proven_leaves: elements(&file.proven_leaves)?,
                proof_nodes: elements(&file.proof_nodes)?,
            },
            leaf_count: Leaves(file.leaves),
        };
        proof::verify(&statement, &proof).map_err(|e| Failure::Invalid(format!("the proof is not valid: {e}")))?;
        println!("valid: {} leaves", proof.leaf_count);
        Ok(())
    }
}
