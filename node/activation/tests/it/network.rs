//! What a node knows, in memory, and proofs that are cheap to make: each is a hash of everything that the real one is bound to,
//! so that a proof of another identity, challenge or number of units is noticed.

use std::{num::NonZeroU32, ops::ControlFlow, sync::Arc};

use activation::{
    knowledge::{Kept, Knowledge},
    timeline::Moment,
    validate::{Checked, Known, PostClaim, PostError, Proofs, Rules, Validator},
};
use proto::{
    activation::Activation,
    ids::{AtxId, GenesisId, Hash32, NodeId, PoetProofRef},
    layers::LayersPerEpoch,
    poet::{Leaves, MerkleProof, PoetProof, PoetProofMessage},
    post::{Params, Preset, Proof},
    scale,
    units::SpaceUnits,
};
use store::{
    atxs::{AtxWriter, NewAtx},
    engine::{Batch, Durability, Engine as _, Range, Read as _},
    memory::Memory,
    poets::Poets,
    schema::{Family, value},
};

pub(crate) const GOLDEN: AtxId = AtxId([0x60; 32]);
pub(crate) const NETWORK: GenesisId = GenesisId([7; 20]);
pub(crate) const TICK: u64 = 10;

pub(crate) fn rules() -> Rules {
    let post = Params { min_num_units: SpaceUnits(2), max_num_units: SpaceUnits(8), ..Preset::Fastnet.params() };
    Rules { network: NETWORK, golden: GOLDEN, post, tick_size: TICK }
}

/// A node's knowledge in memory.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) memory: Memory,
    pub(crate) knowledge: Arc<Knowledge>,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self::on(Memory::default())
    }

    /// As after a restart.
    pub(crate) fn on(memory: Memory) -> Self {
        let layers = LayersPerEpoch(NonZeroU32::new(24).expect("not zero"));
        let knowledge = Arc::new(Knowledge::new(Arc::new(memory.clone()), layers, []));
        Self { memory, knowledge }
    }

    /// A round with these members; nothing verifies its proof.
    pub(crate) fn put_round(&self, statement: Hash32, leaves: Leaves) -> PoetProofRef {
        let message = round_message(statement, leaves);
        Poets::new(Arc::new(self.memory.clone())).save(&message).expect("writable");
        message.proof.reference().expect("encodable")
    }

    /// Takes an activation that was checked.
    pub(crate) fn keep(&self, known: Known, atx: &Activation) -> Kept {
        let bytes = encode(atx);
        self.knowledge.keep(known, atx, &bytes, Moment(1_000)).expect("nothing is in the way")
    }

    /// Takes over the entries of another one.
    pub(crate) fn copy(&self, from: &Self, family: Family) {
        let mut batch = Batch::default();
        let copied = from.memory.scan(family, Range::all(), &mut |key, value| {
            batch.put(family, key, value);
            Ok(ControlFlow::Continue(()))
        });
        copied.and_then(|()| self.memory.write(&batch, Durability::Process)).expect("writable");
    }

    /// Changes what is known of an activation, or makes it up.
    pub(crate) fn put(&self, known: &Known) {
        let mut batch = Batch::default();
        batch.put(Family::Atx, known.id.0, value(&known.row).expect("encodable"));
        // the twin of what is there, so that the indexes are there too
        let new = NewAtx { id: known.id, atx: known.row.clone(), wire: None, shares: known.shares.clone() };
        AtxWriter::new(Arc::new(self.memory.clone())).save(&new, Batch::default(), Durability::Process).expect("writable");
        self.memory.write(&batch, Durability::Process).expect("writable");
    }
}

/// Has the statement in place of a proof, so that every round has another name.
pub(crate) fn round_message(statement: Hash32, leaves: Leaves) -> PoetProofMessage {
    let merkle = MerkleProof { root: statement.0.into(), ..MerkleProof::default() };
    PoetProofMessage {
        proof: PoetProof { merkle, leaf_count: leaves },
        service_id: [8; 32].into(),
        round_id: statement.0.into(),
        statement: statement.0,
        signature: [0; 64],
    }
}

pub(crate) fn encode(atx: &Activation) -> Vec<u8> {
    match atx {
        Activation::V1(atx) => scale::encode(atx).expect("encodable"),
        Activation::V2(atx) => scale::encode(atx).expect("encodable"),
    }
}

/// A proof of space: bound to identity, commitment, challenge and units.
pub(crate) fn prove(id: &NodeId, commitment: &AtxId, challenge: &[u8; 32], units: SpaceUnits) -> Proof {
    let bound = Hash32::of(&[&id.0, &commitment.0, challenge, &units.0.to_le_bytes()]);
    Proof { nonce: 3, indices: bound.0.to_vec(), pow: 5 }
}

/// The nonce in a proof that fails at an index; its indices say at which.
pub(crate) const BAD_INDEX: u32 = 13;
/// The nonce in a proof that nobody can verify now.
pub(crate) const UNAVAILABLE: u32 = 14;

/// The nonce in a proof with a wrong label that few look at.
pub(crate) const BAD_SOMEWHERE: u32 = 15;

/// The VRF nonce that suits the most labels.
pub(crate) fn vrf_nonce(id: &NodeId) -> u64 {
    u64::from(id.0[0])
}

/// Verifies what [`prove`] makes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CheapProofs;

impl Proofs for CheapProofs {
    fn post(&self, claim: &PostClaim<'_>) -> Result<(), PostError> {
        match claim.proof.nonce {
            BAD_INDEX => return Err(PostError::Index(u32::from(claim.proof.indices[0]))),
            UNAVAILABLE => return Err(PostError::Unavailable("no memory".into())),
            BAD_SOMEWHERE if claim.labels == Checked::All => return Err(PostError::Index(1)),
            BAD_SOMEWHERE => return Ok(()),
            _ => {}
        }
        let expected = prove(&claim.id, &claim.commitment, &claim.challenge, claim.units);
        if *claim.proof == expected { Ok(()) } else { Err(PostError::Invalid("another proof".into())) }
    }

    /// Small enough for any space at the nonce, for the least space beside it, for none elsewhere.
    fn label(&self, id: &NodeId, _commitment: &AtxId, index: u64) -> Result<[u8; 32], PostError> {
        let mut label = [0xff; 32];
        match index.wrapping_sub(vrf_nonce(id)) {
            0 => label = [0; 32],
            // 2 units of fastnet are 256 labels: the threshold begins with 0x08, that of 512 labels with 0x04.
            1 => label[0] = 0x05,
            _ => {}
        }
        Ok(label)
    }
}

pub(crate) fn validator(node: &Node) -> Validator<Arc<Knowledge>, CheapProofs> {
    Validator { rules: rules(), view: node.knowledge.clone(), proofs: CheapProofs }
}
