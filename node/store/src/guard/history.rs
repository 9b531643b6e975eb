//! The guard's history as a file, to be moved with an identity or merged with that of another machine.

use std::{collections::BTreeMap, fmt};

use proto::ids::{GenesisId, NodeId, ParseIdError};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Bar, Digest, Slot};
use crate::StoreError;

const FORMAT: &str = "smesh-signing-history";
const VERSION: u32 = 1;

/// The history of a guard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    format: String,
    version: u32,
    genesis_id: String,
    /// What was signed.
    pub entries: Vec<Entry>,
    /// For what identities do not sign.
    #[serde(default)]
    pub barred: BTreeMap<String, Bar>,
}

/// What was signed in a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// By whom.
    #[serde(serialize_with = "write_id", deserialize_with = "read_id")]
    pub identity: NodeId,
    /// Where.
    #[serde(flatten)]
    pub slot: Slot,
    /// What; several where histories contradict each other.
    pub digests: Vec<Digest>,
}

fn write_id<S: Serializer>(id: &NodeId, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&hex::encode(id.as_bytes()))
}

fn read_id<'de, D: Deserializer<'de>>(from: D) -> Result<NodeId, D::Error> {
    String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
}

/// Why a history cannot be merged.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// No history, or of a later version.
    #[error("not a signing history of version {VERSION}: {0}")]
    Format(String),
    /// Of another network.
    #[error("the history is of network {found}, this is {expected}")]
    OtherNetwork {
        /// Its genesis id.
        found: String,
        /// The genesis id of this network.
        expected: String,
    },
    /// Not the text of an identity.
    #[error("identity {0:?}: {1}")]
    Identity(String, ParseIdError),
    /// The database says no.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl History {
    pub(super) fn new(genesis: GenesisId) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            genesis_id: hex::encode(genesis.0),
            entries: Vec::new(),
            barred: BTreeMap::new(),
        }
    }

    /// Reads a history from its JSON form.
    pub fn from_json(text: &str) -> Result<Self, HistoryError> {
        let history: Self = serde_json::from_str(text).map_err(|e| HistoryError::Format(e.to_string()))?;
        if history.format != FORMAT || history.version != VERSION {
            return Err(HistoryError::Format(format!("it says {} of version {}", history.format, history.version)));
        }
        if let Some(entry) = history.entries.iter().find(|entry| entry.digests.is_empty()) {
            return Err(HistoryError::Format(format!("{} of {} has no digest", entry.slot, entry.identity)));
        }
        Ok(history)
    }

    /// Its JSON form.
    pub fn to_json(&self) -> Result<String, HistoryError> {
        serde_json::to_string_pretty(self).map_err(|e| HistoryError::Format(e.to_string()))
    }

    /// Only what concerns one identity.
    #[must_use]
    pub fn of(mut self, identity: &NodeId) -> Self {
        self.entries.retain(|entry| entry.identity == *identity);
        self.barred.retain(|id, _| id.parse() == Ok(*identity));
        self
    }

    pub(super) fn check(&self, genesis: GenesisId) -> Result<(), HistoryError> {
        let expected = hex::encode(genesis.0);
        if self.genesis_id == expected {
            Ok(())
        } else {
            Err(HistoryError::OtherNetwork { found: self.genesis_id.clone(), expected })
        }
    }
}

/// What a merge did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Merged {
    /// Slots that were known with the same content.
    pub known: usize,
    /// Slots that are new or have got more.
    pub added: usize,
    /// Those of them in which the histories contradict each other.
    pub contradictions: usize,
}

impl fmt::Display for Merged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} added, {} known already, {} contradictions", self.added, self.known, self.contradictions)
    }
}
