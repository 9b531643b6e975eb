//! What a node knows, in memory, and proofs that are cheap to make: each is a hash of everything that the real one is bound to,
//! so that a proof of another identity, challenge or number of units is noticed.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use activation::validate::{Known, Marriage, PostClaim, PostError, Proofs, Round, Rules, Validator, View};
use proto::{
    ids::{AtxId, GenesisId, Hash32, NodeId, PoetProofRef},
    post::{Params, Preset, Proof},
    units::SpaceUnits,
};

pub(crate) const GOLDEN: AtxId = AtxId([0x60; 32]);
pub(crate) const NETWORK: GenesisId = GenesisId([7; 20]);
pub(crate) const TICK: u64 = 10;

pub(crate) fn rules() -> Rules {
    let post = Params { min_num_units: SpaceUnits(2), max_num_units: SpaceUnits(8), ..Preset::Fastnet.params() };
    Rules { network: NETWORK, golden: GOLDEN, post, tick_size: TICK }
}

/// Everything that was accepted.
#[derive(Debug, Default)]
pub(crate) struct Store {
    pub(crate) atxs: BTreeMap<AtxId, Known>,
    /// In the order in which they came.
    pub(crate) order: Vec<AtxId>,
    pub(crate) rounds: BTreeMap<PoetProofRef, Round>,
    pub(crate) marriages: BTreeMap<NodeId, Marriage>,
    pub(crate) married: Vec<(NodeId, u64)>,
}

impl Store {
    pub(crate) fn insert(&mut self, known: Known) {
        self.order.push(known.id);
        self.atxs.insert(known.id, known);
    }
}

pub(crate) type Shared = Rc<RefCell<Store>>;

/// The view of a node on a [`Store`].
#[derive(Debug, Clone)]
pub(crate) struct Node(pub(crate) Shared);

impl View for Node {
    fn atx(&self, id: &AtxId) -> Option<Known> {
        self.0.borrow().atxs.get(id).cloned()
    }

    fn commitment(&self, id: &NodeId) -> Option<AtxId> {
        let store = self.0.borrow();
        let own = store.order.iter().rev().filter_map(|atx| store.atxs.get(atx));
        own.filter(|known| known.smesher == *id).find_map(|known| known.commitment)
    }

    fn round(&self, reference: &PoetProofRef) -> Option<Round> {
        self.0.borrow().rounds.get(reference).copied()
    }

    fn marriage(&self, id: &NodeId) -> Option<Marriage> {
        self.0.borrow().marriages.get(id).copied()
    }

    fn married(&self, set: u64) -> Vec<NodeId> {
        self.0.borrow().married.iter().filter(|(_, of)| *of == set).map(|(id, _)| *id).collect()
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

pub(crate) fn validator(store: &Shared) -> Validator<Node, CheapProofs> {
    Validator { rules: rules(), view: Node(store.clone()), proofs: CheapProofs }
}
