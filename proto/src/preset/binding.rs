//! What a data directory is bound to: the genesis and every parameter that the nodes of a network must agree on.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Network, read::tree_of};
use crate::genesis::UnixSeconds;

/// Parameters that a node may change without leaving its network; all others are part of the binding. Groups end with a dot.
const LOCAL: [&str; 19] = [
    "name",
    "main.miner-good-atxs-percent",
    "main.poet-servers",
    "main.post-valid-delay",
    "main.prune-activesets-from",
    "main.regossip-atx-interval",
    "active-set-preparation.",
    "bootstrap.",
    "certifier.",
    "p2p.",
    "poet.grace-period",
    "poet.info-cache-ttl",
    "poet.poet-",
    "poet.positioning-atx-selection-timeout",
    "poet.pow-params-cache-ttl",
    "poet.retry-",
    "post.post-k3",
    "smeshing.smeshing-proving-opts.",
    "syncer.",
];

/// The genesis and the parameters of a network, as a list of keys and values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Binding(BTreeMap<String, String>);

/// A parameter in which two networks differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The key with its groups.
    pub key: String,
    /// What the data directory is bound to; `None` where it does not know the key.
    pub bound: Option<String>,
    /// What is asked for; `None` where the key is not set.
    pub asked: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
        write!(f, "{}: bound to {}, asked for {}", self.key, show(&self.bound), show(&self.asked))
    }
}

impl Difference {
    /// Whether it concerns the genesis, which never changes.
    pub fn is_genesis(&self) -> bool {
        self.key.starts_with("genesis.")
    }
}

impl Binding {
    /// What the nodes of a network born at this time agree on.
    pub fn new(network: &Network, genesis_time: UnixSeconds) -> Self {
        let mut network = network.clone();
        network.genesis.genesis_time = Some(genesis_time);
        let mut values = BTreeMap::new();
        flatten(&Value::Object(tree_of(&network)), String::new(), &mut values);
        values.retain(|key, _| !is_local(key));
        Self(values)
    }

    /// Where `asked` differs from this.
    pub fn differences(&self, asked: &Self) -> Vec<Difference> {
        let keys: std::collections::BTreeSet<_> = self.0.keys().chain(asked.0.keys()).collect();
        let differences = keys.into_iter().filter(|key| self.0.get(*key) != asked.0.get(*key));
        differences
            .map(|key| Difference { key: key.clone(), bound: self.0.get(key).cloned(), asked: asked.0.get(key).cloned() })
            .collect()
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }
}

/// Whether a node may change this parameter without leaving its network.
pub(super) fn is_local(key: &str) -> bool {
    LOCAL.iter().any(|local| if local.ends_with(['.', '-']) { key.starts_with(local) } else { key == *local })
}

/// Lists become one value, so that their order and length count.
pub(super) fn flatten(value: &Value, path: String, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                flatten(value, if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, into);
            }
        }
        Value::String(text) => drop(into.insert(path, text.clone())),
        other => drop(into.insert(path, other.to_string())),
    }
}
