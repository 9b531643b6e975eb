//! The rules for activations that married identities may share (activation.md sections 7.3 and 7.4).

use std::collections::{BTreeMap, BTreeSet};

use proto::{
    activation::v2::{ActivationTxV2, NipostChallengeV2, NipostV2, SubPostV2},
    eligibility::{effective_units, sums},
    ids::{AtxId, NodeId},
    layers::EpochId,
    poet::Leaves,
    units::{Labels, SpaceUnits},
};

use super::{
    Atx, Checked, Dependencies, Invalid, Known, PostClaim, Proofs, Refusal, Share, Validator, View, check_height, is_consent,
};

pub(super) fn dependencies(atx: &ActivationTxV2) -> Dependencies {
    let mut atxs = vec![atx.positioning_atx];
    atxs.extend(&atx.previous_atxs);
    atxs.extend(atx.initial.as_ref().map(|initial| initial.commitment_atx));
    atxs.extend(atx.marriage_atx);
    atxs.extend(atx.marriages.iter().map(|certificate| certificate.reference_atx));
    Dependencies { poets: atx.niposts.iter().map(|nipost| nipost.challenge).collect(), atxs }
}

/// The part of one identity, resolved.
struct Part<'a> {
    id: NodeId,
    previous: AtxId,
    effective: SpaceUnits,
    post: &'a SubPostV2,
}

impl<V: View, P: Proofs> Validator<V, P> {
    pub(super) fn v2_alone(&self, atx: &ActivationTxV2, current: EpochId) -> Result<(), Refusal> {
        if atx.positioning_atx.is_empty() {
            return Err(Invalid::NoPositioning.into());
        }
        if !atx.marriages.is_empty() && !atx.marriages.iter().any(|certificate| certificate.reference_atx.is_empty()) {
            return Err(Invalid::NoOwnCertificate.into());
        }
        Self::check_epoch(atx.publish_epoch, current)?;
        let posts = || atx.niposts.iter().flat_map(|nipost| &nipost.posts);
        let merged = atx.marriage_atx.is_some();
        if !merged {
            let [NipostV2 { posts, .. }] = &atx.niposts[..] else { return Err(Invalid::NotOnePost.into()) };
            let [post] = &posts[..] else { return Err(Invalid::NotOnePost.into()) };
            if post.prev_atx_index != 0 {
                return Err(Invalid::PreviousIndexOfOne(post.prev_atx_index).into());
            }
        }
        if let Some(initial) = &atx.initial {
            if merged {
                return Err(Invalid::MergedInitial.into());
            }
            if initial.commitment_atx.is_empty() {
                return Err(Invalid::NoCommitment.into());
            }
            if !atx.previous_atxs.is_empty() {
                return Err(Invalid::InitialWithPrevious.into());
            }
            let units = posts().next().map_or(SpaceUnits(0), |post| post.num_units);
            let labels = (units, Labels(self.rules.post.labels_per_unit));
            self.check_vrf(&atx.smesher_id, &initial.commitment_atx, atx.vrf_nonce, labels)?;
            return self.check_initial_post(atx.smesher_id, initial.commitment_atx, units, &initial.post);
        }
        if let Some(bad) = atx.previous_atxs.iter().find(|id| id.is_empty() || **id == self.rules.golden) {
            return Err(Invalid::BadPrevious(*bad).into());
        }
        if merged {
            if !atx.marriages.is_empty() {
                return Err(Invalid::MergedMarriages.into());
            }
            let mut seen = BTreeSet::new();
            if let Some(post) = posts().find(|post| !seen.insert(post.marriage_index)) {
                return Err(Invalid::MarriageIndexTwice(post.marriage_index).into());
            }
        } else if atx.previous_atxs.len() != 1 {
            return Err(Invalid::NotOnePrevious(atx.previous_atxs.len()).into());
        }
        Ok(())
    }

    pub(super) fn v2_with_dependencies(&self, atx: &ActivationTxV2) -> Result<Known, Refusal> {
        let publish = atx.publish_epoch;
        let base = self.base(&atx.positioning_atx, publish)?;
        self.v2_marriages(atx)?;
        if let Some(initial) = &atx.initial {
            self.check_commitment(&initial.commitment_atx, publish)?;
        }
        let mut previous = Vec::with_capacity(atx.previous_atxs.len());
        for id in &atx.previous_atxs {
            let known = self.view.atx(id)?.ok_or(Invalid::Previous(*id))?;
            if known.row.publish_epoch >= publish {
                return Err(Invalid::PreviousEpoch(*id).into());
            }
            previous.push(known);
        }
        let set = self.v2_set(atx)?;
        let rounds = atx
            .niposts
            .iter()
            .map(|nipost| nipost.posts.iter().map(|post| part(atx, &set, &previous, post)).collect::<Result<Vec<_>, _>>())
            .collect::<Result<Vec<_>, _>>()?;
        let mut counted = Vec::with_capacity(rounds.len());
        for (nipost, parts) in atx.niposts.iter().zip(&rounds) {
            let leaves = self.v2_membership(atx, nipost, parts)?;
            counted.push((parts.iter().map(|part| part.effective).collect(), leaves));
        }
        let sum = sums(&counted, self.rules.tick_size).map_err(Invalid::from)?;
        check_height(base, sum.ticks)?;
        self.v2_posts(atx, &rounds)?;
        if atx.initial.is_none() {
            self.v2_vrf_nonce(atx, &rounds)?;
        }
        let share = |part: &Part<'_>| Share {
            previous: (!part.previous.is_empty()).then_some(part.previous),
            previous_index: part.post.prev_atx_index,
            units: part.post.num_units,
            publish_epoch: publish,
        };
        let row = Atx {
            publish_epoch: publish,
            sequence: 0,
            commitment: atx.initial.as_ref().map(|initial| initial.commitment_atx),
            marriage: atx.marriage_atx,
            coinbase: atx.coinbase,
            effective_units: sum.units,
            base_height: base,
            ticks: sum.ticks,
            vrf_nonce: atx.vrf_nonce,
            smesher: atx.smesher_id,
            weight: sum.weight,
            received: 0,
            validity: self.validity(),
        };
        let shares = rounds.iter().flatten().map(|part| (part.id, share(part))).collect();
        Ok(Known { id: atx.id().map_err(Invalid::from)?, row, shares })
    }

    fn v2_marriages(&self, atx: &ActivationTxV2) -> Result<(), Refusal> {
        let mut seen = BTreeSet::new();
        for certificate in &atx.marriages {
            let id = if certificate.reference_atx.is_empty() {
                atx.smesher_id
            } else {
                let known = self.view.atx(&certificate.reference_atx)?;
                known.ok_or(Invalid::CertificateAtx(certificate.reference_atx))?.row.smesher
            };
            if !is_consent(&self.rules.network, &id, &atx.smesher_id, &certificate.signature) {
                return Err(Invalid::CertificateSignature(id).into());
            }
            if !seen.insert(id) {
                return Err(Invalid::CertificateTwice(id).into());
            }
        }
        Ok(())
    }

    /// The identities that marriage indices count in.
    fn v2_set(&self, atx: &ActivationTxV2) -> Result<Vec<NodeId>, Refusal> {
        let Some(marriage_atx) = atx.marriage_atx else { return Ok(vec![atx.smesher_id]) };
        let marriage = self.view.marriage(&atx.smesher_id)?.filter(|marriage| marriage.atx == marriage_atx);
        let marriage = marriage.ok_or(Invalid::NotMarried(marriage_atx))?;
        let by = self.view.atx(&marriage_atx)?.ok_or(Invalid::NotMarried(marriage_atx))?;
        if by.row.publish_epoch.0.saturating_add(2) > atx.publish_epoch.0 {
            return Err(Invalid::MarriageEpoch(marriage_atx).into());
        }
        Ok(self.view.married(marriage.set)?)
    }

    /// The challenges of all identities are members of the round; gives its elapsed time. Of several identities with one leaf
    /// only the first one counts.
    fn v2_membership(&self, atx: &ActivationTxV2, nipost: &NipostV2, parts: &[Part<'_>]) -> Result<Leaves, Refusal> {
        let round = self.view.round(&nipost.challenge)?.ok_or(Invalid::PoetProof(nipost.challenge))?;
        let mut members = BTreeMap::new();
        for part in parts {
            if let std::collections::btree_map::Entry::Vacant(entry) = members.entry(part.post.membership_leaf_index) {
                let challenge = NipostChallengeV2 {
                    publish_epoch: atx.publish_epoch,
                    prev_atx_id: part.previous,
                    positioning_atx_id: atx.positioning_atx,
                    initial_post: atx.initial.as_ref().map(|initial| initial.post.clone()),
                };
                entry.insert(challenge.hash().map_err(Invalid::from)?.0);
            }
        }
        let indices: Vec<u64> = members.keys().copied().collect();
        let leaves: Vec<[u8; 32]> = members.into_values().collect();
        let leads = proto::merkle::verify(&round.statement.0, &indices, &leaves, &nipost.membership.nodes);
        if leads == Ok(true) { Ok(round.leaves) } else { Err(Invalid::Membership(nipost.challenge).into()) }
    }

    fn v2_posts(&self, atx: &ActivationTxV2, rounds: &[Vec<Part<'_>>]) -> Result<(), Refusal> {
        for (nipost, parts) in atx.niposts.iter().zip(rounds) {
            for part in parts {
                let claim = PostClaim {
                    id: part.id,
                    commitment: self.v2_commitment(atx, &part.id)?,
                    challenge: nipost.challenge.0,
                    units: part.post.num_units,
                    proof: &part.post.post,
                    labels: Checked::Some,
                };
                self.proofs.post(&claim).map_err(|e| Refusal::post(part.id, e))?;
            }
        }
        Ok(())
    }

    fn v2_commitment(&self, atx: &ActivationTxV2, id: &NodeId) -> Result<AtxId, Refusal> {
        let own = atx.initial.as_ref().map(|initial| initial.commitment_atx);
        let known = own.map_or_else(|| self.view.commitment(id), |own| Ok(Some(own)))?;
        Ok(known.ok_or(Invalid::UnknownCommitment(*id))?)
    }

    /// The publisher's nonce has to suit the space of all.
    fn v2_vrf_nonce(&self, atx: &ActivationTxV2, rounds: &[Vec<Part<'_>>]) -> Result<(), Refusal> {
        let publisher = atx.smesher_id;
        if !rounds.iter().flatten().any(|part| part.id == publisher) {
            return Err(Invalid::PublisherMissing.into());
        }
        let commitment = self.v2_commitment(atx, &publisher)?;
        let labels = (atx.total_num_units(), Labels(self.rules.post.labels_per_unit));
        self.check_vrf(&publisher, &commitment, atx.vrf_nonce, labels)
    }
}

/// Whose part it is, what it follows, and what it counts.
fn part<'a>(atx: &ActivationTxV2, set: &[NodeId], previous: &[Known], post: &'a SubPostV2) -> Result<Part<'a>, Invalid> {
    let id = *set.get(post.marriage_index as usize).ok_or(Invalid::MarriageIndex(post.marriage_index))?;
    if atx.initial.is_some() {
        return Ok(Part { id, previous: AtxId::default(), effective: effective_units(post.num_units, None), post });
    }
    let followed = previous.get(post.prev_atx_index as usize).ok_or(Invalid::PreviousIndex(post.prev_atx_index))?;
    let before = followed.units_of(&id).ok_or(Invalid::NoPreviousUnits { id, previous: followed.id })?;
    Ok(Part { id, previous: followed.id, effective: effective_units(post.num_units, Some(before)), post })
}
