//! What PoET clients keep on a node, in its databases.

use std::sync::Arc;

use proto::{
    ids::{NodeId, PoetProofRef},
    poet::PoetProofMessage,
};

use super::Home;
use crate::{
    knowledge::{Knowledge, LastProof},
    rows::{Certificate, Rows},
};

/// The databases of a node.
#[derive(Debug)]
pub struct Databases {
    /// Certificates and initial proofs.
    pub rows: Arc<Rows>,
    /// Proofs of elapsed time and activations.
    pub knowledge: Arc<Knowledge>,
}

impl Home for Databases {
    fn certificate(&self, id: &NodeId, certifier: &[u8; 32]) -> Result<Option<Certificate>, String> {
        self.rows.certificate(id, certifier).map_err(|e| e.to_string())
    }

    fn put_certificate(&self, id: &NodeId, certifier: &[u8; 32], certificate: &Certificate) -> Result<(), String> {
        self.rows.put_certificate(id, certifier, certificate).map_err(|e| e.to_string())
    }

    fn remove_certificate(&self, id: &NodeId, certifier: &[u8; 32]) -> Result<(), String> {
        self.rows.remove_certificate(id, certifier).map_err(|e| e.to_string())
    }

    /// The initial proof, or else that of the last activation (activation.md section 4.2).
    fn space(&self, id: &NodeId) -> Result<Option<LastProof>, String> {
        let saved = self.rows.load(id).map_err(|e| e.to_string())?;
        match saved.initial {
            Some(initial) => Ok(Some(LastProof {
                proof: initial.post,
                commitment: initial.commitment,
                challenge: [0; 32],
                units: initial.num_units,
            })),
            None => self.knowledge.last_proof(id).map_err(|e| e.to_string()),
        }
    }

    fn keep(&self, message: &PoetProofMessage) -> Result<PoetProofRef, String> {
        self.knowledge.keep_poet(message).map_err(|e| e.to_string())?;
        message.proof.reference().map_err(|e| e.to_string())
    }
}
