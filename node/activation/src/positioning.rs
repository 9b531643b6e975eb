//! Which activation one's own stands on: the highest one whose proofs, and those it stands on, are all valid
//! (activation.md sections 3.3 and 7.6).
//!
//! Validation of what comes in looks at few labels. What somebody builds on is looked at in full, once: the verdict is kept with
//! the activation, and all identities of a node share what was found for an epoch.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use proto::{
    activation::Activation,
    ids::{AtxId, NodeId},
    layers::EpochId,
    post::Proof,
    units::{SpaceUnits, TickHeight},
};
use store::{
    StoreError,
    atxs::{Atx, Validity},
};
use tokio::sync::Mutex;

use crate::{
    clock::Clock,
    knowledge::Knowledge,
    timeline::Moment,
    validate::{Checked, PostClaim, PostError, Proofs, View as _},
};

/// Why an activation could not be verified.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The database says no.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nobody waits for the answer any more.
    #[error("there is no more time")]
    Stopped,
    /// The verifier failed.
    #[error("could not be verified: {0}")]
    Unavailable(String),
    /// Something that the verification needs is not here.
    #[error("{0} cannot be verified: {1}")]
    Missing(AtxId, &'static str),
}

/// What counts without a look at its proofs.
#[derive(Debug, Clone, Copy)]
pub struct Trust {
    /// Activations that arrived before this.
    pub before: Moment,
    /// Activations of this identity.
    pub identity: Option<NodeId>,
}

/// Verifies activations with everything they stand on (activation.md section 7.6).
pub struct Chains {
    /// What the node knows.
    pub knowledge: Arc<Knowledge>,
    /// What has to be computed.
    pub proofs: Arc<dyn Proofs + Send + Sync>,
    /// The first activation of all.
    pub golden: AtxId,
}

/// An activation under verification, and what it stands on that is not verified yet.
struct Link {
    id: AtxId,
    below: Vec<AtxId>,
}

/// A proof of space of an activation and what it is checked against.
struct Part<'a> {
    id: NodeId,
    challenge: [u8; 32],
    units: SpaceUnits,
    proof: &'a Proof,
}

impl Chains {
    /// Whether all proofs of space are valid, of the activation and of all below it. The verdict about each is kept.
    ///
    /// # Errors
    /// [`ChainError`] where there is no verdict; nothing is recorded then.
    pub fn verify(&self, id: AtxId, trust: &Trust, stopped: &AtomicBool) -> Result<bool, ChainError> {
        // a list instead of recursion: chains are as long as the network is old
        let mut links: Vec<Link> = Vec::new();
        let mut next = Some(id);
        loop {
            if let Some(id) = next.take().or_else(|| links.last_mut().and_then(|link| link.below.pop())) {
                if stopped.load(Ordering::Relaxed) {
                    return Err(ChainError::Stopped);
                }
                let verdict = self.look(id, trust)?;
                if verdict != Some(true) {
                    let below = if verdict.is_none() { self.verify_one(id)? } else { None };
                    let Some(below) = below else {
                        for id in links.into_iter().map(|link| link.id).chain([id]) {
                            self.knowledge.set_validity(&id, Validity::Invalid)?;
                        }
                        return Ok(false);
                    };
                    links.push(Link { id, below });
                }
            } else if let Some(link) = links.pop() {
                self.knowledge.set_validity(&link.id, Validity::Valid)?;
            }
            if links.is_empty() {
                return Ok(true);
            }
        }
    }

    /// What is known without a look at the proofs.
    fn look(&self, id: AtxId, trust: &Trust) -> Result<Option<bool>, ChainError> {
        if id == self.golden {
            return Ok(Some(true));
        }
        let row = self.knowledge.atxs().get(&id)?.ok_or(ChainError::Missing(id, "it is not here"))?;
        let checkpointed = row.received == 0;
        let received = Moment(i64::try_from(row.received).unwrap_or(i64::MAX));
        Ok(match row.validity {
            _ if checkpointed => Some(true),
            Validity::Valid => Some(true),
            Validity::Invalid => Some(false),
            Validity::Unknown if received < trust.before || trust.identity == Some(row.smesher) => Some(true),
            Validity::Unknown => None,
        })
    }

    /// Verifies all labels of an activation's own proofs. Gives what it stands on; none if a proof is not valid.
    fn verify_one(&self, id: AtxId) -> Result<Option<Vec<AtxId>>, ChainError> {
        let atx = self.knowledge.activation(&id)?.ok_or(ChainError::Missing(id, "its bytes are not here"))?;
        for part in self.parts(id, &atx)? {
            let initial = match &atx {
                Activation::V1(atx) => atx.inner.challenge.commitment_atx_id,
                Activation::V2(atx) => atx.initial.as_ref().map(|initial| initial.commitment_atx),
            };
            let commitment = initial.map_or_else(|| self.knowledge.commitment(&part.id), |initial| Ok(Some(initial)))?;
            let claim = PostClaim {
                id: part.id,
                commitment: commitment.ok_or(ChainError::Missing(id, "nobody knows what its labels are bound to"))?,
                challenge: part.challenge,
                units: part.units,
                proof: part.proof,
                labels: Checked::All,
            };
            match self.proofs.post(&claim) {
                Ok(()) => {}
                Err(PostError::Unavailable(why)) => return Err(ChainError::Unavailable(why)),
                Err(PostError::Index(_) | PostError::Invalid(_)) => return Ok(None),
            }
        }
        Ok(Some(below(&atx)))
    }

    /// The proofs of space, with what each identity declared. The deployed node takes the units that count instead, and so
    /// fails those that have grown.
    fn parts<'a>(&self, id: AtxId, atx: &'a Activation) -> Result<Vec<Part<'a>>, ChainError> {
        match atx {
            Activation::V1(atx) => {
                let missing = ChainError::Missing(id, "it has no proof of space");
                let Some(nipost) = &atx.inner.nipost else { return Err(missing) };
                let (Some(proof), Some(metadata)) = (&nipost.post, &nipost.post_metadata) else { return Err(missing) };
                let Ok(challenge) = (*metadata.challenge).try_into() else { return Err(missing) };
                Ok(vec![Part { id: atx.smesher_id, challenge, units: atx.inner.num_units, proof }])
            }
            Activation::V2(atx) => {
                let set = match (atx.marriage_atx, self.knowledge.marriage(&atx.smesher_id)?) {
                    (None, _) => vec![atx.smesher_id],
                    (Some(_), Some(marriage)) => self.knowledge.married(marriage.set)?,
                    (Some(_), None) => return Err(ChainError::Missing(id, "its identities are not married")),
                };
                let posts = atx.niposts.iter().flat_map(|nipost| nipost.posts.iter().map(move |post| (nipost, post)));
                let part = |(nipost, post): (&'a proto::activation::v2::NipostV2, &'a proto::activation::v2::SubPostV2)| {
                    let identity = set.get(post.marriage_index as usize).copied();
                    let identity = identity.ok_or(ChainError::Missing(id, "its identities are not married"))?;
                    Ok(Part { id: identity, challenge: nipost.challenge.0, units: post.num_units, proof: &post.post })
                };
                posts.map(part).collect()
            }
        }
    }
}

/// What an activation stands on: those before it, that from which it counts ticks, and for a first one what its labels are
/// bound to.
fn below(atx: &Activation) -> Vec<AtxId> {
    let (previous, positioning, commitment) = match atx {
        Activation::V1(atx) => {
            let challenge = &atx.inner.challenge;
            let previous = Some(challenge.prev_atx_id).filter(|id| !id.is_empty()).into_iter().collect();
            (previous, challenge.positioning_atx_id, challenge.commitment_atx_id)
        }
        Activation::V2(atx) => {
            let commitment = atx.initial.as_ref().map(|initial| initial.commitment_atx);
            (atx.previous_atxs.clone(), atx.positioning_atx, commitment)
        }
    };
    let mut below = previous;
    below.push(positioning);
    below.extend(commitment);
    below
}

type Found = (AtxId, TickHeight);

/// Finds what to stand on. A node has one of these for all its identities.
pub struct Positioning {
    chains: Arc<Chains>,
    /// Activations that have been here for longer count without a look at their proofs.
    valid_delay: Duration,
    clock: Clock,
    /// What was found, by publish epoch.
    found: Mutex<BTreeMap<EpochId, Found>>,
}

impl Positioning {
    /// For a network whose `post-valid-delay` is this.
    pub fn new(chains: Chains, valid_delay: Duration, clock: Clock) -> Self {
        Self { chains: Arc::new(chains), valid_delay, clock, found: Mutex::default() }
    }

    /// The activation to stand on for one that is published in epoch `publish` by the calling identity, which trusts its own
    /// ones. The answer is the same for all identities once there is one; none is the golden activation, which is the answer
    /// at `until` at the latest, or if nothing is found.
    pub async fn find(&self, publish: EpochId, trusted: NodeId, until: Option<Moment>) -> Option<Found> {
        let before = publish.0.checked_sub(1).map(EpochId)?;
        let search = async {
            let mut found = self.found.lock().await;
            if let Some(known) = found.get(&publish) {
                return Some(*known);
            }
            let here = self.search(before, Some(trusted)).await?;
            // old epochs are of no use any more
            found.retain(|epoch, _| epoch.0.saturating_add(2) > publish.0);
            found.insert(publish, here);
            Some(here)
        };
        let Some(until) = until else { return search.await };
        tokio::select! {
            // what is there already is the answer, however late it is
            biased;
            found = search => found,
            () = self.clock.sleep_until(until) => None,
        }
    }

    /// What a new identity's labels are to be bound to: what they are bound to already, or the highest activation of the latest
    /// epoch that holds; the golden one if there is none (activation.md section 3.3). Only of use when the node knows the
    /// activations of the network.
    pub async fn commitment(&self, identity: &NodeId) -> Result<AtxId, StoreError> {
        if let Some(commitment) = self.chains.knowledge.commitment(identity)? {
            return Ok(commitment);
        }
        let found = self.search(EpochId(u32::MAX), None).await;
        Ok(found.map_or(self.chains.golden, |(id, _)| id))
    }

    /// The highest activation of the last two epochs that have some, those of malicious identities left out and nothing
    /// verified; of equally high ones the newer; the golden one if there is none. What `Activation.Highest` of the API answers.
    pub fn highest(&self) -> Result<AtxId, StoreError> {
        let knowledge = &self.chains.knowledge;
        let Some(latest) = knowledge.atxs().latest_epoch()? else { return Ok(self.chains.golden) };
        let mut best: Option<Found> = None;
        for epoch in [Some(latest.0), latest.0.checked_sub(1)].into_iter().flatten() {
            let found = knowledge.highest_where(EpochId(epoch), |_, _| Ok::<_, StoreError>(true))?;
            if found.is_some_and(|(_, height)| best.is_none_or(|(_, high)| height > high)) {
                best = found;
            }
        }
        Ok(best.map_or(self.chains.golden, |(id, _)| id))
    }

    /// Searches the latest epoch up to `last` on a thread for it; whoever stops waiting ends the search.
    async fn search(&self, last: EpochId, identity: Option<NodeId>) -> Option<Found> {
        let chains = self.chains.clone();
        let trust = Trust { before: self.clock.now().before(self.valid_delay), identity };
        let stop = StopOnDrop(Arc::new(AtomicBool::new(false)));
        let stopped = stop.0.clone();
        let task = tokio::task::spawn_blocking(move || {
            let knowledge = &chains.knowledge;
            let Some(latest) = knowledge.atxs().latest_epoch()? else { return Ok(None) };
            knowledge.highest_where(latest.min(last), |id, _: &Atx| chains.verify(*id, &trust, &stopped))
        });
        let found: Result<Option<Found>, ChainError> = task.await.unwrap_or(Err(ChainError::Stopped));
        found.unwrap_or_else(|e| {
            tracing::warn!("no positioning activation was found: {e}");
            None
        })
    }
}

struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
