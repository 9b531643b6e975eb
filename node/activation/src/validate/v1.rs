//! The rules for activations of one identity (activation.md sections 7.1 and 7.2).

use proto::{
    activation::v1::{ActivationTxV1, InnerActivationTxV1, NipostV1, PostMetadataV1},
    eligibility::{effective_units, weight},
    ids::{AtxId, PoetProofRef},
    layers::EpochId,
    units::VrfNonce,
};

use super::{
    Atx, Checked, Dependencies, Invalid, Known, PostClaim, PostError, Proofs, Refusal, Share, Validator, View, check_height,
};

/// Whether it is the first of its identity.
fn is_first(inner: &InnerActivationTxV1) -> bool {
    inner.challenge.prev_atx_id.is_empty()
}

/// The PoET proof for which space was proven. A name of another length names nothing.
fn reference(metadata: &PostMetadataV1) -> Option<PoetProofRef> {
    Some(PoetProofRef((*metadata.challenge).try_into().ok()?))
}

pub(super) fn dependencies(atx: &ActivationTxV1) -> Dependencies {
    let challenge = &atx.inner.challenge;
    let metadata = atx.inner.nipost.as_ref().and_then(|nipost| nipost.post_metadata.as_ref());
    Dependencies {
        poets: metadata.and_then(reference).into_iter().collect(),
        atxs: [Some(challenge.prev_atx_id), Some(challenge.positioning_atx_id), challenge.commitment_atx_id]
            .into_iter()
            .flatten()
            .collect(),
    }
}

impl<V: View, P: Proofs> Validator<V, P> {
    pub(super) fn v1_alone(&self, atx: &ActivationTxV1, current: EpochId) -> Result<(), Refusal> {
        let inner = &atx.inner;
        let challenge = &inner.challenge;
        let nipost = inner.nipost.as_ref().ok_or(Invalid::NoNipost)?;
        Self::check_epoch(challenge.publish_epoch, current)?;
        if challenge.positioning_atx_id.is_empty() {
            return Err(Invalid::NoPositioning.into());
        }
        if is_first(inner) {
            return self.v1_first_alone(atx, nipost);
        }
        if inner.node_id.is_some() {
            return Err(Invalid::SecondNodeId.into());
        }
        if challenge.initial_post.is_some() {
            return Err(Invalid::SecondInitialPost.into());
        }
        if challenge.commitment_atx_id.is_some() {
            return Err(Invalid::SecondCommitment.into());
        }
        Ok(())
    }

    fn v1_first_alone(&self, atx: &ActivationTxV1, nipost: &NipostV1) -> Result<(), Refusal> {
        let inner = &atx.inner;
        let challenge = &inner.challenge;
        let initial = challenge.initial_post.as_ref().ok_or(Invalid::NoInitialPost)?;
        inner.node_id.ok_or(Invalid::NoNodeId)?;
        let nonce = inner.vrf_nonce.ok_or(Invalid::NoVrfNonce)?;
        let commitment = challenge.commitment_atx_id.filter(|id| !id.is_empty()).ok_or(Invalid::NoCommitment)?;
        if challenge.sequence != 0 {
            return Err(Invalid::Sequence { found: challenge.sequence, expected: 0 }.into());
        }
        let metadata = nipost.post_metadata.as_ref().ok_or(Invalid::NoPostMetadata)?;
        self.check_vrf(&atx.smesher_id, &commitment, nonce, (inner.num_units, metadata.labels_per_unit))?;
        self.check_initial_post(atx.smesher_id, commitment, inner.num_units, initial)
    }

    pub(super) fn v1_with_dependencies(&self, atx: &ActivationTxV1) -> Result<Known, Refusal> {
        let (inner, smesher) = (&atx.inner, atx.smesher_id);
        let challenge = &inner.challenge;
        let publish = challenge.publish_epoch;
        let nipost = inner.nipost.as_ref().ok_or(Invalid::NoNipost)?;
        let commitment = match challenge.commitment_atx_id {
            Some(commitment) => commitment,
            None => self.view.commitment(&smesher)?.ok_or(Invalid::UnknownCommitment(smesher))?,
        };
        let (vrf_nonce, before) = if is_first(inner) {
            self.check_commitment(&commitment, publish)?;
            (inner.vrf_nonce.ok_or(Invalid::NoVrfNonce)?, None)
        } else {
            let previous = self.v1_previous(atx)?;
            let declared =
                previous.units_of(&smesher).ok_or(Invalid::NoPreviousUnits { id: smesher, previous: challenge.prev_atx_id })?;
            let nonce = self.v1_vrf_nonce(atx, nipost, &previous, &commitment)?;
            (nonce, Some(declared))
        };
        let base = self.base(&challenge.positioning_atx_id, publish)?;
        let leaves = self.v1_nipost(atx, nipost, commitment)?;

        let units = effective_units(inner.num_units, before);
        let ticks = leaves.ticks(self.rules.tick_size);
        check_height(base, ticks)?;
        let previous = challenge.prev_atx_id;
        let share = Share {
            previous: (!previous.is_empty()).then_some(previous),
            previous_index: 0,
            units: inner.num_units,
            publish_epoch: publish,
        };
        let row = Atx {
            publish_epoch: publish,
            sequence: challenge.sequence,
            commitment: challenge.commitment_atx_id,
            marriage: None,
            coinbase: inner.coinbase,
            effective_units: units,
            base_height: base,
            ticks,
            vrf_nonce,
            smesher,
            weight: weight(units, ticks).map_err(Invalid::from)?,
            received: 0,
            validity: self.validity(),
        };
        Ok(Known { id: inner.id().map_err(Invalid::from)?, row, shares: vec![(smesher, share)] })
    }

    fn v1_previous(&self, atx: &ActivationTxV1) -> Result<Known, Refusal> {
        let challenge = &atx.inner.challenge;
        let id: AtxId = challenge.prev_atx_id;
        let previous = self.view.atx(&id)?.ok_or(Invalid::Previous(id))?;
        if previous.row.smesher != atx.smesher_id {
            return Err(Invalid::PreviousOfOther(id).into());
        }
        if previous.row.publish_epoch >= challenge.publish_epoch {
            return Err(Invalid::PreviousEpoch(id).into());
        }
        let expected = previous.row.sequence.wrapping_add(1);
        if challenge.sequence != expected {
            return Err(Invalid::Sequence { found: challenge.sequence, expected }.into());
        }
        Ok(previous)
    }

    /// Given or taken over; checked where it is given or has to suit more units.
    fn v1_vrf_nonce(
        &self,
        atx: &ActivationTxV1,
        nipost: &NipostV1,
        previous: &Known,
        commitment: &AtxId,
    ) -> Result<VrfNonce, Refusal> {
        let inner = &atx.inner;
        let nonce = inner.vrf_nonce.unwrap_or(previous.row.vrf_nonce);
        if inner.vrf_nonce.is_some() || inner.num_units > previous.row.effective_units {
            let metadata = nipost.post_metadata.as_ref().ok_or(Invalid::NoPostMetadata)?;
            let labels = (inner.num_units, metadata.labels_per_unit);
            self.check_vrf(&atx.smesher_id, commitment, nonce, labels)?;
        }
        Ok(nonce)
    }

    /// Proof of space, proof of elapsed time and membership; gives the elapsed time.
    fn v1_nipost(&self, atx: &ActivationTxV1, nipost: &NipostV1, commitment: AtxId) -> Result<proto::poet::Leaves, Refusal> {
        let (inner, id) = (&atx.inner, atx.smesher_id);
        self.rules.post.check_units(inner.num_units).map_err(|e| Invalid::Units(e.to_string()))?;
        let proof = nipost.post.as_ref().ok_or(Invalid::NoPost)?;
        let metadata = nipost.post_metadata.as_ref().ok_or(Invalid::NoPostMetadata)?;
        let least = self.rules.post.labels_per_unit;
        if metadata.labels_per_unit.0 < least {
            return Err(Invalid::LabelsPerUnit { found: metadata.labels_per_unit.0, least }.into());
        }
        let Some(reference) = reference(metadata) else {
            return Err(Invalid::Post { id, error: PostError::Invalid("a challenge of another length than 32".into()) }.into());
        };
        let claim = PostClaim { id, commitment, challenge: reference.0, units: inner.num_units, proof, labels: Checked::Some };
        match self.proofs.post(&claim) {
            Ok(()) => {}
            Err(PostError::Index(index)) => return Err(Refusal::Malfeasance { index }),
            Err(e) => return Err(Refusal::post(id, e)),
        }
        let round = self.view.round(&reference)?.ok_or(Invalid::PoetProof(reference))?;
        let member = inner.challenge.hash().map_err(Invalid::from)?;
        let leads =
            proto::merkle::verify(&round.statement.0, &[nipost.membership.leaf_index], &[member.0], &nipost.membership.nodes);
        if leads == Ok(true) { Ok(round.leaves) } else { Err(Invalid::Membership(reference).into()) }
    }
}
