//! The activations of an epoch: their weights and grades, and the set of them that counts (activation.md section 6.1).
//!
//! Which set a node prepares is its own choice; how weights and grades are computed is not.

use std::{sync::Arc, time::Duration};

use proto::{
    activation::ActiveSet,
    eligibility::{Grade, Weight, grade, min_weight},
    ids::{AtxId, Hash32, NodeId},
    layers::EpochId,
    preset::Network,
    scale::{Decode, Encode},
    units::TickHeight,
};
use store::{
    StoreError,
    atxs::Atx,
    engine::{Batch, Durability, Engine},
    schema::{Family, record, value},
};

use crate::{knowledge::Knowledge, timeline::Timeline};

/// An activation of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Graded {
    /// The activation.
    pub id: AtxId,
    /// Its publisher.
    pub smesher: NodeId,
    /// What it counts.
    pub weight: Weight,
    /// Where its ticks end.
    pub height: TickHeight,
    /// How it came in.
    pub grade: Grade,
    /// Whether its publisher is malicious, whenever that was found.
    pub malicious: bool,
}

/// A set that this node prepared for an epoch. What is said in that epoch refers to it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Prepared {
    /// The name of the set.
    pub id: Hash32,
    /// The weight of all its members.
    pub weight: Weight,
    /// The epoch in which it counts, and the members by ascending id.
    pub active: ActiveSet,
}

/// Why there is no set.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// A database says no.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nobody published for the epoch.
    #[error("there are no activations for epoch {0}")]
    None(EpochId),
    /// Too few of the activations came in time to be sure that others know them too.
    #[error("{good} of {total} activations for epoch {epoch} are good, which is not more than {percent} percent")]
    TooFewGood {
        /// The epoch.
        epoch: EpochId,
        /// Those that are good.
        good: usize,
        /// All.
        total: usize,
        /// What is asked for.
        percent: u32,
    },
    /// A member is not known, or no activation for the epoch.
    #[error("activation {0} is not one for epoch {1}")]
    Unknown(AtxId, EpochId),
    /// The members weigh nothing.
    #[error("the set is empty")]
    Empty,
}

/// Grades activations and prepares sets.
pub struct Grades {
    knowledge: Arc<Knowledge>,
    /// Remembers what was prepared.
    local: Arc<dyn Engine>,
    timeline: Timeline,
    delay: Duration,
    good_percent: u32,
    min_weights: Vec<(EpochId, Weight)>,
}

/// Where a network says nothing about it.
const GOOD_PERCENT: u32 = 90;

impl Grades {
    /// By the parameters of a network. What is prepared is kept in the local database.
    pub fn new(network: &Network, timeline: Timeline, knowledge: Arc<Knowledge>, local: Arc<dyn Engine>) -> Self {
        let weights = network.tortoise.minimal_active_set_weight.iter();
        let mut min_weights: Vec<_> = weights.map(|entry| (EpochId(entry.epoch), Weight(entry.weight))).collect();
        min_weights.sort_unstable();
        Self {
            knowledge,
            local,
            timeline,
            delay: network.main.atx_grade_delay.0,
            good_percent: Some(network.main.miner_good_atxs_percent).filter(|percent| *percent > 0).unwrap_or(GOOD_PERCENT),
            min_weights,
        }
    }

    /// All activations that count in an epoch, by ascending id.
    pub fn of(&self, target: EpochId) -> Result<Vec<Graded>, StoreError> {
        let Some(publish) = target.0.checked_sub(1).map(EpochId) else { return Ok(Vec::new()) };
        let start = self.timeline.start(target).0;
        let delay = i64::try_from(self.delay.as_nanos()).unwrap_or(i64::MAX);
        let mut all = Vec::new();
        for id in self.knowledge.atxs().of_epoch(publish)? {
            let Some(Atx { smesher, weight, received, base_height, ticks, .. }) = self.knowledge.atxs().get(&id)? else {
                continue;
            };
            let received = i64::try_from(received).unwrap_or(i64::MAX);
            let proven = self.knowledge.malfeasance(&smesher)?.map(|(moment, _)| moment.0);
            let grade = grade(start, delay, received, proven);
            let height = TickHeight(base_height.0.saturating_add(ticks.0));
            let malicious = proven.is_some() || self.knowledge.is_malicious(&smesher)?;
            all.push(Graded { id, smesher, weight, height, grade, malicious });
        }
        Ok(all)
    }

    /// The least weight that all activations of an epoch are held to have together.
    pub fn min_weight(&self, target: EpochId) -> Weight {
        min_weight(&self.min_weights, target)
    }

    /// The set for an epoch: what was prepared before, or `trusted` members if somebody whom this node trusts named some, or the
    /// good activations if they are most of all, or what `chain` says: the members that the first block of the epoch implies,
    /// which can be known only once there is one. A new set is kept.
    pub fn active_set(
        &self,
        target: EpochId,
        trusted: Option<Vec<AtxId>>,
        chain: impl FnOnce() -> Result<Option<Vec<AtxId>>, StoreError>,
    ) -> Result<Prepared, SetError> {
        if let Some(prepared) = self.prepared(target)? {
            return Ok(prepared);
        }
        let set = match trusted {
            Some(set) => set,
            None => match self.good(target) {
                Ok(set) => set,
                Err(e @ (SetError::None(_) | SetError::TooFewGood { .. })) => chain()?.ok_or(e)?,
                Err(e) => return Err(e),
            },
        };
        self.prepare(target, set)
    }

    /// The good activations, if there are enough of them.
    fn good(&self, target: EpochId) -> Result<Vec<AtxId>, SetError> {
        let all = self.of(target)?;
        let total = all.len();
        let good: Vec<AtxId> = all.iter().filter(|atx| atx.grade == Grade::Good).map(|atx| atx.id).collect();
        if total == 0 {
            return Err(SetError::None(target));
        }
        if good.len() * 100 / total > self.good_percent as usize {
            Ok(good)
        } else {
            Err(SetError::TooFewGood { epoch: target, good: good.len(), total, percent: self.good_percent })
        }
    }

    fn prepare(&self, target: EpochId, mut set: Vec<AtxId>) -> Result<Prepared, SetError> {
        set.sort_unstable();
        set.dedup();
        let mut weight = 0u64;
        for id in &set {
            let row = self.knowledge.atxs().get(id)?.filter(|row| row.publish_epoch.0.checked_add(1) == Some(target.0));
            weight = weight.wrapping_add(row.ok_or(SetError::Unknown(*id, target))?.weight.0);
        }
        if weight == 0 {
            return Err(SetError::Empty);
        }
        let active = ActiveSet { epoch: target, set };
        let prepared = Prepared { id: active.hash(), weight: Weight(weight), active };
        let mut batch = Batch::default();
        batch.put(Family::ActiveSet, target.0.to_be_bytes(), value(&prepared)?);
        self.local.write(&batch, Durability::Power)?;
        Ok(prepared)
    }

    /// What was prepared for an epoch.
    pub fn prepared(&self, target: EpochId) -> Result<Option<Prepared>, StoreError> {
        let key = target.0.to_be_bytes();
        self.local.get(Family::ActiveSet, &key)?.map(|found| record(Family::ActiveSet, &key, &found)).transpose()
    }
}
