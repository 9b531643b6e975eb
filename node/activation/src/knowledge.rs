//! What a node knows of activations, on its database: the [`View`] that validation has, and the storing of what was accepted,
//! with the malfeasance that shows then (activation.md section 8).
//!
//! An activation is stored with everything that belongs to it in one atomic change. What contradicts it is looked up under the
//! same lock, so that of two activations that contradict each other the second one always finds the first.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use kernels::posw::Statement;
use poet_service::proof::InvalidProof;
use proto::{
    activation::{
        Activation, Version,
        v1::{ActivationTxV1, AtxMetadata},
        v2::ActivationTxV2,
    },
    ids::{AtxId, EdSignature, NodeId, PoetProofRef},
    layers::{EpochId, LayerId, LayersPerEpoch},
    malfeasance::{AtxPart, InvalidPrevAtx, MalfeasanceProof, MultipleAtxs, Offence},
    poet::PoetProofMessage,
    post::Proof,
    scale::{self, EncodeError},
    units::{SpaceUnits, TickHeight},
};
use store::{
    StoreError,
    atxs::{Atx, AtxWriter, Atxs, NewAtx, Saved, Validity},
    engine::{Batch, Durability, Engine},
    marriages,
    poets::{self, Poets},
    schema::Family,
};

use crate::{
    builder::OwnActivation,
    timeline::Moment,
    validate::{Known, Marriage, Round, View},
};

/// Rounds kept in memory, so that their proofs of up to 180 kB are not read again for each of their members.
const MOST_ROUNDS: usize = 1024;

/// Why something was not stored.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The database says no.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// One of this node's own identities has an activation in that epoch: it is not incriminated.
    #[error("own identity {identity} has activation {other} in epoch {publish} already")]
    OwnSecond {
        /// The identity.
        identity: NodeId,
        /// The epoch.
        publish: EpochId,
        /// What is there.
        other: AtxId,
    },
    /// One of this node's own identities follows another activation than its last: it is not incriminated.
    #[error("own identity {identity} follows activation {found} instead of {expected}")]
    OwnPrevious {
        /// The identity.
        identity: NodeId,
        /// What it follows; empty for none.
        found: AtxId,
        /// What it should; empty for none.
        expected: AtxId,
    },
    /// The activation contradicts one that cannot be shown.
    #[error("it contradicts activation {0}, which is no activation of version 1 with its bytes")]
    Unprovable(AtxId),
}

impl From<EncodeError> for KeepError {
    fn from(error: EncodeError) -> Self {
        Self::Store(error.into())
    }
}

/// Why a PoET proof was not stored.
#[derive(Debug, thiserror::Error)]
pub enum PoetError {
    /// It is not valid.
    #[error("the PoET proof is not valid: {0}")]
    Invalid(#[from] InvalidProof),
    /// The database says no.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What became of an activation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Whether it was new.
    pub saved: Saved,
    /// What it proved about its publisher, if that was not known to be malicious.
    pub offence: Option<MalfeasanceProof>,
    /// Its publisher broke a rule of version 2: this node counts it as malicious until it ends.
    pub marked: bool,
}

/// The proof of space of an activation, with all that certifiers want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastProof {
    /// The proof.
    pub proof: Proof,
    /// What the labels are bound to.
    pub commitment: AtxId,
    /// What was proven for.
    pub challenge: [u8; 32],
    /// The space that counts.
    pub units: SpaceUnits,
}

/// What a node knows. A database has one of these.
pub struct Knowledge {
    engine: Arc<dyn Engine>,
    atxs: AtxWriter,
    poets: Poets,
    layers: LayersPerEpoch,
    own: RwLock<BTreeSet<NodeId>>,
    /// Malicious by the rules of version 2, which nobody is told.
    marked: RwLock<BTreeSet<NodeId>>,
    rounds: Mutex<HashMap<PoetProofRef, Round>>,
    /// Look up what contradicts, then write: one at a time.
    turn: Mutex<()>,
}

impl std::fmt::Debug for Knowledge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Knowledge").field("own", &self.own).finish_non_exhaustive()
    }
}

impl Knowledge {
    /// What a node with these identities knows, on its state database.
    pub fn new(engine: Arc<dyn Engine>, layers: LayersPerEpoch, own: impl IntoIterator<Item = NodeId>) -> Self {
        Self {
            atxs: AtxWriter::new(engine.clone()),
            poets: Poets::new(engine.clone()),
            engine,
            layers,
            own: RwLock::new(own.into_iter().collect()),
            marked: RwLock::default(),
            rounds: Mutex::default(),
            turn: Mutex::default(),
        }
    }

    /// The activations themselves.
    pub fn atxs(&self) -> Atxs<'_> {
        Atxs::new(&*self.engine)
    }

    /// Adds an identity of this node.
    pub fn add_own(&self, identity: NodeId) {
        self.own.write().unwrap_or_else(PoisonError::into_inner).insert(identity);
    }

    /// Whether an identity is one of this node's.
    pub fn is_own(&self, identity: &NodeId) -> bool {
        self.own.read().unwrap_or_else(PoisonError::into_inner).contains(identity)
    }

    /// Whether an identity has ever published an activation.
    pub fn has_published(&self, identity: &NodeId) -> Result<bool, StoreError> {
        Ok(self.atxs().last_published_by(identity)?.is_some())
    }

    /// Whether an identity counts as malicious.
    pub fn is_malicious(&self, identity: &NodeId) -> Result<bool, StoreError> {
        let marked = self.marked.read().unwrap_or_else(PoisonError::into_inner).contains(identity);
        Ok(marked || self.malfeasance(identity)?.is_some())
    }

    /// The proof that an identity is malicious, and when it arrived.
    pub fn malfeasance(&self, identity: &NodeId) -> Result<Option<(Moment, Vec<u8>)>, StoreError> {
        let found = poets::malicious(&*self.engine, identity)?;
        Ok(found.map(|(received, proof)| (Moment(i64::try_from(received).unwrap_or(i64::MAX)), proof)))
    }

    /// The identities with a proof that they are malicious, ascending.
    pub fn all_malicious(&self) -> Result<Vec<NodeId>, StoreError> {
        poets::all_malicious(&*self.engine)
    }

    /// The last activation that an identity has a part in: of the latest epoch, and of those the one received last. Other than
    /// upstream's it need not have been published by the identity itself (activation.md section 3.2).
    pub fn last_of(&self, identity: &NodeId) -> Result<Option<OwnActivation>, StoreError> {
        let atxs = self.atxs();
        let Some(latest) = atxs.with_share_of(identity, None, 1)?.pop() else { return Ok(None) };
        let Some(publish) = atxs.share(&latest, identity)?.map(|share| share.publish_epoch) else { return Ok(None) };
        let mut last: Option<(AtxId, Atx)> = None;
        for id in atxs.with_share_in(identity, publish)? {
            let Some(row) = atxs.get(&id)? else { continue };
            if last.as_ref().is_none_or(|(_, best)| row.received > best.received) {
                last = Some((id, row));
            }
        }
        Ok(last.map(|(id, row)| OwnActivation {
            id,
            publish,
            sequence: row.sequence,
            height: row.height(),
            vrf_nonce: (row.smesher == *identity).then_some(row.vrf_nonce),
        }))
    }

    /// The activation that an identity published in an epoch, as it is sent; none if it came with a checkpoint.
    pub fn published_in(&self, identity: &NodeId, epoch: EpochId) -> Result<Option<(AtxId, Vec<u8>)>, StoreError> {
        let Some(id) = self.atxs().published_in(identity, epoch)?.pop() else { return Ok(None) };
        Ok(self.atxs().wire(&id)?.map(|(_, bytes)| (id, bytes)))
    }

    /// The proof of space in the last activation that an identity has a part in, which convinces certifiers
    /// (activation.md section 4.2); none if there is no such activation, or it came with a checkpoint.
    pub fn last_proof(&self, identity: &NodeId) -> Result<Option<LastProof>, StoreError> {
        let Some(own) = self.last_of(identity)? else { return Ok(None) };
        let (Some(row), Some(commitment)) = (self.atxs().get(&own.id)?, self.commitment(identity)?) else { return Ok(None) };
        let part = match self.activation(&own.id)? {
            None => None,
            Some(Activation::V1(atx)) => atx.inner.nipost.and_then(|nipost| {
                let challenge = (*nipost.post_metadata?.challenge).try_into().ok()?;
                Some((nipost.post?, challenge))
            }),
            Some(Activation::V2(atx)) => atx.niposts.into_iter().next().and_then(|nipost| {
                let post = nipost.posts.into_iter().next()?;
                Some((post.post, nipost.challenge.0))
            }),
        };
        let units = row.effective_units;
        Ok(part.map(|(proof, challenge)| LastProof { proof, commitment, challenge, units }))
    }

    /// The highest activations of an epoch with their heights, those of malicious identities left out: calls `accept` for one
    /// after the other until that says yes.
    pub fn highest_where<E: From<StoreError>>(
        &self,
        epoch: EpochId,
        mut accept: impl FnMut(&AtxId, &Atx) -> Result<bool, E>,
    ) -> Result<Option<(AtxId, TickHeight)>, E> {
        let (mut seen, mut most) = (0, 32);
        loop {
            let ids = self.atxs().highest(epoch, most)?;
            for id in ids.iter().skip(seen) {
                let Some(row) = self.atxs().get(id)? else { continue };
                if !self.is_malicious(&row.smesher)? && accept(id, &row)? {
                    return Ok(Some((*id, row.height())));
                }
            }
            if ids.len() < most {
                return Ok(None);
            }
            (seen, most) = (ids.len(), most.saturating_mul(4));
        }
    }

    /// Records whether all proofs of an activation, and of those it stands on, are valid.
    pub fn set_validity(&self, id: &AtxId, validity: Validity) -> Result<(), StoreError> {
        self.atxs.set_validity(id, validity).map(drop)
    }

    /// Stores an accepted activation, with its bytes as they arrived. Own ones are on the disk when this returns.
    ///
    /// # Errors
    /// [`KeepError`]; nothing is stored then.
    pub fn keep(&self, known: Known, activation: &Activation, bytes: &[u8], received: Moment) -> Result<Kept, KeepError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if self.atxs().get(&known.id)?.is_some() {
            return Ok(Kept { saved: Saved::Known, offence: None, marked: false });
        }
        // a time of 0 would say that it came with a checkpoint
        let received = u64::try_from(received.0).unwrap_or_default().max(1);
        let own = self.is_own(&known.row.smesher);
        let mut more = Batch::default();
        let mut offence = None;
        let version = match activation {
            Activation::V1(atx) => {
                offence = self.offence(&known, atx)?;
                if let Some(proof) = &offence {
                    let proof = scale::encode(proof)?;
                    poets::put_malicious(&*self.engine, &mut more, &known.row.smesher, received, &proof)?;
                }
                Version::V1
            }
            Activation::V2(atx) => {
                if !atx.marriages.is_empty() {
                    let consents = self.consents(atx)?;
                    marriages::put_marriages(&*self.engine, &mut more, &known.id, &atx.smesher_id, &consents)?;
                }
                Version::V2
            }
        };
        let Known { id, row, shares } = known;
        let smesher = row.smesher;
        let new = NewAtx { id, atx: Atx { received, ..row }, wire: Some((version, bytes.to_vec())), shares };
        let saved = self.atxs.save(&new, more, if own { Durability::Power } else { Durability::Process })?;
        let mut marked = false;
        if let Activation::V2(atx) = activation {
            marked = !own && self.breaks_rule_of_v2(&new, atx)?;
            if marked {
                self.marked.write().unwrap_or_else(PoisonError::into_inner).insert(smesher);
            }
        }
        Ok(Kept { saved, offence, marked })
    }

    /// Who consents to a marriage: those whom the certificates refer to.
    fn consents(&self, atx: &ActivationTxV2) -> Result<Vec<(NodeId, EdSignature)>, StoreError> {
        let mut consents = Vec::with_capacity(atx.marriages.len());
        for certificate in &atx.marriages {
            let identity = if certificate.reference_atx.is_empty() {
                atx.smesher_id
            } else {
                let reference = &certificate.reference_atx;
                let missing = || StoreError::damaged(Family::Atx, reference.as_bytes(), "missing, but a certificate names it");
                self.atxs().get(reference)?.ok_or_else(missing)?.smesher
            };
            consents.push((identity, certificate.signature));
        }
        Ok(consents)
    }

    /// Whether an activation of version 1 shows that its publisher broke a rule (activation.md section 8.1).
    fn offence(&self, new: &Known, atx: &ActivationTxV1) -> Result<Option<MalfeasanceProof>, KeepError> {
        if self.malfeasance(&new.row.smesher)?.is_some() {
            return Ok(None);
        }
        let offence = match self.double_publish(new, atx)? {
            Some(offence) => Some(offence),
            None => self.wrong_previous(new, atx)?,
        };
        let layer = self.layers.first_layer(new.row.publish_epoch).unwrap_or(LayerId(u32::MAX));
        Ok(offence.map(|offence| MalfeasanceProof { layer, offence }))
    }

    fn double_publish(&self, new: &Known, atx: &ActivationTxV1) -> Result<Option<Offence>, KeepError> {
        let (identity, publish) = (new.row.smesher, new.row.publish_epoch);
        let Some(other) = self.atxs().published_in(&identity, publish)?.pop() else { return Ok(None) };
        if self.is_own(&identity) {
            return Err(KeepError::OwnSecond { identity, publish, other });
        }
        let part = |id, signature| AtxPart {
            inner_msg: AtxMetadata { publish_epoch: publish, msg_hash: id },
            smesher_id: identity,
            signature,
        };
        let before = self.version_1(&other)?;
        let messages = (part(other, before.signature), part(new.id, atx.signature));
        Ok(Some(Offence::MultipleAtxs(Box::new(MultipleAtxs { messages }))))
    }

    fn wrong_previous(&self, new: &Known, atx: &ActivationTxV1) -> Result<Option<Offence>, KeepError> {
        let identity = new.row.smesher;
        let found = atx.inner.challenge.prev_atx_id;
        let expected = self.expected_previous(&identity, new.row.publish_epoch)?.unwrap_or_default();
        if found == expected {
            return Ok(None);
        }
        if self.is_own(&identity) {
            return Err(KeepError::OwnPrevious { identity, found, expected });
        }
        let previous = (!found.is_empty()).then_some(&found);
        let Some(other) = self.atxs().after(&identity, previous)?.into_iter().find(|other| *other != new.id) else {
            return Ok(None);
        };
        let other = self.version_1(&other)?;
        Ok(Some(Offence::InvalidPrevAtx(Box::new(InvalidPrevAtx { atx1: atx.clone(), atx2: other }))))
    }

    /// The latest activation of an identity before an epoch.
    fn expected_previous(&self, identity: &NodeId, publish: EpochId) -> Result<Option<AtxId>, StoreError> {
        Ok(self.atxs().with_share_of(identity, Some(publish), 1)?.pop())
    }

    /// An activation of version 1 as its publisher signed it.
    fn version_1(&self, id: &AtxId) -> Result<ActivationTxV1, KeepError> {
        match self.activation(id)? {
            Some(Activation::V1(atx)) => Ok(*atx),
            _ => Err(KeepError::Unprovable(*id)),
        }
    }

    /// An activation as its publisher signed it; none for those of a checkpoint.
    pub fn activation(&self, id: &AtxId) -> Result<Option<Activation>, StoreError> {
        let Some((version, bytes)) = self.atxs().wire(id)? else { return Ok(None) };
        let decoded = Activation::decode_version(&bytes, version);
        decoded.map(Some).map_err(StoreError::decode(Family::AtxBlob, id.as_bytes()))
    }

    /// Whether a stored activation of version 2 breaks a rule (activation.md section 8.2).
    fn breaks_rule_of_v2(&self, new: &NewAtx, atx: &ActivationTxV2) -> Result<bool, StoreError> {
        let (atxs, publish) = (self.atxs(), new.atx.publish_epoch);
        // somebody married twice
        for certificate in &atx.marriages {
            let reference = atxs.get(&certificate.reference_atx)?;
            let identity = reference.map_or(atx.smesher_id, |row| row.smesher);
            if marriages::marriage(&*self.engine, &identity)?.is_some_and(|marriage| marriage.atx != new.id) {
                return Ok(true);
            }
        }
        // somebody has a part in two of an epoch
        for (identity, _) in &new.shares {
            if atxs.with_share_in(identity, publish)?.iter().any(|other| *other != new.id) {
                return Ok(true);
            }
        }
        // a set has two of an epoch
        if let (Some(_), Some(marriage)) = (atx.marriage_atx, self.marriage(&atx.smesher_id)?) {
            for identity in self.married(marriage.set)? {
                for other in atxs.published_in(&identity, publish)? {
                    let merged = atxs.get(&other)?.is_some_and(|row| row.marriage == atx.marriage_atx);
                    if other != new.id && merged {
                        return Ok(true);
                    }
                }
            }
        }
        // two follow the same one, which this one should not
        for (identity, share) in &new.shares {
            let expected = self.expected_previous(identity, publish)?;
            if expected != share.previous && atxs.after(identity, share.previous.as_ref())?.len() > 1 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Stores a proof of malfeasance that was validated; the first one of an identity stays.
    pub fn keep_malfeasance(&self, identity: &NodeId, proof: &MalfeasanceProof, received: Moment) -> Result<Saved, StoreError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batch = Batch::default();
        let received = u64::try_from(received.0).unwrap_or_default();
        let saved = poets::put_malicious(&*self.engine, &mut batch, identity, received, &scale::encode(proof)?)?;
        if saved == Saved::New {
            self.engine.write(&batch, Durability::Process)?;
        }
        Ok(saved)
    }

    /// Verifies a PoET proof and stores it, which takes milliseconds.
    pub fn keep_poet(&self, message: &PoetProofMessage) -> Result<Saved, PoetError> {
        let reference = message.proof.reference().map_err(StoreError::from)?;
        if self.poets.get(&reference.0)?.is_some() {
            return Ok(Saved::Known);
        }
        poet_service::proof::verify(&Statement::new(&message.statement), &message.proof)?;
        Ok(self.poets.save(message)?.1)
    }

    /// A PoET proof.
    pub fn poet(&self, reference: &PoetProofRef) -> Result<Option<PoetProofMessage>, StoreError> {
        self.poets.get(&reference.0)
    }
}

impl View for Knowledge {
    fn atx(&self, id: &AtxId) -> Result<Option<Known>, StoreError> {
        let Some(row) = self.atxs().get(id)? else { return Ok(None) };
        Ok(Some(Known { id: *id, row, shares: self.atxs().shares(id)? }))
    }

    fn commitment(&self, id: &NodeId) -> Result<Option<AtxId>, StoreError> {
        self.atxs().commitment(id)
    }

    fn round(&self, reference: &PoetProofRef) -> Result<Option<Round>, StoreError> {
        let rounds = || self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(round) = rounds().get(reference) {
            return Ok(Some(*round));
        }
        let Some(message) = self.poet(reference)? else { return Ok(None) };
        let round = Round { statement: message.statement.into(), leaves: message.proof.leaf_count };
        let mut rounds = rounds();
        if rounds.len() >= MOST_ROUNDS {
            rounds.clear();
        }
        rounds.insert(*reference, round);
        Ok(Some(round))
    }

    fn marriage(&self, id: &NodeId) -> Result<Option<Marriage>, StoreError> {
        let found = marriages::marriage(&*self.engine, id)?;
        Ok(found.map(|marriage| Marriage { set: marriage.set, atx: marriage.atx }))
    }

    fn married(&self, set: u64) -> Result<Vec<NodeId>, StoreError> {
        marriages::married(&*self.engine, set)
    }
}
