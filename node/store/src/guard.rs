//! Signs nothing that contradicts what was signed before.
//!
//! An identity that signs two different activations for one epoch, two activations after the same one, two ballots for one layer
//! or two hare messages for one round loses everything it earns (types.md section 10). So every signature an identity gives as a
//! smesher passes here: the guard looks up the [`Slot`]s of the [`Statement`], records its digest, waits until the record is on
//! the disk, and only then signs. Whatever happens in between, the record is there, and allows the same statement alone.
//!
//! `docs/signing-guard.md` says what this cannot prevent.

mod history;
mod statement;

use std::sync::{Arc, Mutex, PoisonError};

pub use history::{Entry, History, HistoryError, Merged};
pub use statement::{Digest, Slot, Statement};

use crate::{
    StoreError,
    engine::{Batch, Durability, Engine, Range},
    schema::{Family, VALUE_VERSION, body},
};
use proto::{
    ids::{EdSignature, GenesisId, NodeId},
    keys::IdentityKey,
};

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// Another statement was signed in its place.
    #[error("{identity} has already signed {} for {slot}, and asks for {asked}", list(.signed))]
    Conflict {
        /// Who asks.
        identity: NodeId,
        /// The place that is taken.
        slot: Slot,
        /// What was signed there.
        signed: Vec<Digest>,
        /// What was asked for.
        asked: Digest,
    },
    /// The identity signs no more for this time.
    #[error("{identity} is barred from signing for {slot}: its history up to {until} is not known here")]
    Barred {
        /// Who asks.
        identity: NodeId,
        /// What for.
        slot: Slot,
        /// Up to when.
        until: Bar,
    },
    /// The record cannot be read or written; nothing was signed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn list(digests: &[Digest]) -> String {
    digests.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

/// The last epoch and layer for which an identity does not sign, because somebody else may have signed for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Bar {
    /// Publish epochs of activations and epochs of beacons, up to this one.
    pub epoch: u32,
    /// Layers up to this one.
    pub layer: u32,
}

impl std::fmt::Display for Bar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "epoch {} and layer {}", self.epoch, self.layer)
    }
}

/// The guard over the signatures of a network's identities.
pub struct Guard {
    engine: Arc<dyn Engine>,
    genesis: GenesisId,
    // one statement after the other: look up, record, sign
    turn: Mutex<()>,
}

impl Guard {
    /// A guard that keeps its history in this database, which must have no other.
    pub fn new(engine: Arc<dyn Engine>, genesis: GenesisId) -> Self {
        Self { engine, genesis, turn: Mutex::new(()) }
    }

    /// Signs a statement, unless it contradicts one that was signed before. The record is on the disk before the signature is
    /// made. The same statement gets the same signature again.
    pub fn sign(&self, key: &IdentityKey, statement: &Statement) -> Result<EdSignature, GuardError> {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let identity = key.node_id();
        let bar = self.bar(&identity)?;
        let mut batch = Batch::default();
        for slot in statement.slots() {
            if let Some(until) = bar.filter(|bar| slot.is_barred(*bar)) {
                return Err(GuardError::Barred { identity, slot: slot.clone(), until });
            }
            let signed = self.signed(&identity, slot)?;
            match signed.as_slice() {
                [] => batch.put(Family::Signed, slot.key(&identity), value(&[statement.digest()])),
                [only] if *only == statement.digest() => {}
                _ => {
                    let asked = statement.digest();
                    return Err(GuardError::Conflict { identity, slot: slot.clone(), signed, asked });
                }
            }
        }
        if !batch.is_empty() {
            self.engine.write(&batch, Durability::Power)?;
        }
        drop(turn);
        Ok(key.sign(&self.genesis, statement.domain(), statement.message()))
    }

    /// What an identity signed in a slot: one digest, or several where merged histories contradict each other.
    pub fn signed(&self, identity: &NodeId, slot: &Slot) -> Result<Vec<Digest>, StoreError> {
        let key = slot.key(identity);
        self.engine.get(Family::Signed, &key)?.map_or(Ok(Vec::new()), |value| digests(&key, &value))
    }

    /// For what an identity does not sign.
    pub fn bar(&self, identity: &NodeId) -> Result<Option<Bar>, StoreError> {
        let value = self.engine.get(Family::Barred, identity.as_bytes())?;
        value.map(|value| read_bar(identity.as_bytes(), &value)).transpose()
    }

    /// Bars an identity from signing for epochs and layers up to these; an earlier bar stays where it reaches further.
    pub fn raise_bar(&self, identity: &NodeId, bar: Bar) -> Result<(), StoreError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batch = Batch::default();
        self.put_bar(&mut batch, identity, bar)?;
        self.engine.write(&batch, Durability::Power)
    }

    fn put_bar(&self, batch: &mut Batch, identity: &NodeId, bar: Bar) -> Result<(), StoreError> {
        let there = self.bar(identity)?.unwrap_or(bar);
        let value = [&[VALUE_VERSION][..], &there.epoch.max(bar.epoch).to_be_bytes(), &there.layer.max(bar.layer).to_be_bytes()];
        batch.put(Family::Barred, identity.as_bytes().to_vec(), value.concat());
        Ok(())
    }

    /// The whole history.
    pub fn history(&self) -> Result<History, StoreError> {
        let view = self.engine.snapshot();
        let mut history = History::new(self.genesis);
        view.scan(Family::Signed, Range::all(), &mut |key, value| {
            let (identity, slot) =
                Slot::parse(key).ok_or_else(|| StoreError::damaged(Family::Signed, key, "no slot has this key"))?;
            history.entries.push(Entry { identity, slot, digests: digests(key, value)? });
            Ok(std::ops::ControlFlow::Continue(()))
        })?;
        view.scan(Family::Barred, Range::all(), &mut |key, value| {
            let id = key.try_into().map_err(|_| StoreError::damaged(Family::Barred, key, "not 32 bytes"))?;
            history.barred.insert(NodeId(id).to_string(), read_bar(key, value)?);
            Ok(std::ops::ControlFlow::Continue(()))
        })?;
        Ok(history)
    }

    /// Adds a history to this one, in one atomic change. Where both have signed something else, the slot is barred for good.
    pub fn merge(&self, history: &History) -> Result<Merged, HistoryError> {
        history.check(self.genesis)?;
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut batch, mut merged) = (Batch::default(), Merged::default());
        // entries of one slot may be given apart
        let mut slots = std::collections::BTreeMap::<Vec<u8>, Vec<Digest>>::new();
        for entry in &history.entries {
            slots.entry(entry.slot.key(&entry.identity)).or_default().extend(&entry.digests);
        }
        for (key, given) in slots {
            let there = self.engine.get(Family::Signed, &key)?.map_or(Ok(Vec::new()), |value| digests(&key, &value))?;
            let mut all = [there.as_slice(), &given].concat();
            all.sort_unstable();
            all.dedup();
            if all == there {
                merged.known += 1;
                continue;
            }
            merged.added += 1;
            merged.contradictions += usize::from(all.len() > 1);
            batch.put(Family::Signed, key, value(&all));
        }
        for (identity, bar) in &history.barred {
            let identity = identity.parse().map_err(|e| HistoryError::Identity(identity.clone(), e))?;
            self.put_bar(&mut batch, &identity, *bar)?;
        }
        self.engine.write(&batch, Durability::Power)?;
        Ok(merged)
    }
}

fn value(digests: &[Digest]) -> Vec<u8> {
    let mut value = vec![VALUE_VERSION];
    value.extend(digests.iter().flat_map(|digest| digest.0));
    value
}

pub(crate) fn digests(key: &[u8], value: &[u8]) -> Result<Vec<Digest>, StoreError> {
    let body = body(Family::Signed, key, value)?;
    let (digests, rest) = body.as_chunks::<32>();
    if digests.is_empty() || !rest.is_empty() || !digests.is_sorted() {
        return Err(StoreError::damaged(Family::Signed, key, "not a sorted list of digests of 32 bytes"));
    }
    Ok(digests.iter().copied().map(Digest).collect())
}

pub(crate) fn read_bar(key: &[u8], value: &[u8]) -> Result<Bar, StoreError> {
    match body(Family::Barred, key, value)? {
        [a, b, c, d, e, f, g, h] => {
            Ok(Bar { epoch: u32::from_be_bytes([*a, *b, *c, *d]), layer: u32::from_be_bytes([*e, *f, *g, *h]) })
        }
        _ => Err(StoreError::damaged(Family::Barred, key, "not 8 bytes")),
    }
}

#[cfg(test)]
mod tests;
