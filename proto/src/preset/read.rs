//! Reading presets: TOML of ours, JSON of the official node. Both have the same groups and keys.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use super::{Network, Preset};

/// Larger files are no presets.
const MAX_BYTES: u64 = 4 << 20;

/// A file that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The network.
    pub network: Network,
    /// Keys of the official node that are no part of a network: what a node does on its machine.
    pub unused: Vec<String>,
}

/// Why a preset cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No preset of this name.
    #[error("unknown preset {0:?}: choose mainnet, testnet, fastnet, standalone, local or the path of a file")]
    UnknownName(String),
    /// The file cannot be read.
    #[error("failed to read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Something in a file is wrong.
    #[error("{path}: {source}")]
    In {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<LoadError>,
    },
    /// The text is no TOML.
    #[error("not TOML: {0}")]
    Toml(#[from] Box<toml::de::Error>),
    /// The text is no JSON.
    #[error("not JSON: {0}")]
    Json(serde_json::Error),
    /// Keys that mean nothing, neither here nor to the official node.
    #[error("unknown keys: {}", .0.join(", "))]
    UnknownKeys(Vec<String>),
    /// A key has a value that is none for it, or is missing.
    #[error("{key}: {reason}")]
    Value {
        /// The key with its groups.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// Each value is fine by itself, but they make no network.
    #[error("these parameters make no network: {}", .0.join("; "))]
    Unsound(Vec<String>),
}

/// Reads a preset from a file: JSON if its name ends so, else TOML.
///
/// The key `preset` names the preset that the file starts from. Without it the file must be complete; but JSON without a `name` is
/// a configuration of the official node, and starts from mainnet as it does there (p2p-sync.md section 19).
pub fn load(path: &Path) -> Result<Loaded, LoadError> {
    let within = |source| LoadError::In { path: path.to_owned(), source: Box::new(source) };
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text));
    read.map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    if text.len() as u64 > MAX_BYTES {
        let reason = format!("larger than {MAX_BYTES} bytes");
        return Err(within(LoadError::Value { key: "file".to_owned(), reason }));
    }
    let json = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("json"));
    parse(&text, json).map_err(within)
}

/// The same for a text.
pub fn parse(text: &str, json: bool) -> Result<Loaded, LoadError> {
    let mut tree = if json { from_json(text)? } else { from_toml(text)? };
    if tree.get("main").and_then(|main| main.get("poet-server")).is_some() {
        let reason = "the official node gave it up: use main.poet-servers, a list of address and pubkey".to_owned();
        return Err(LoadError::Value { key: "main.poet-server".to_owned(), reason });
    }
    let base = match tree.remove("preset") {
        Some(Value::String(name)) if !name.is_empty() => Some(Preset::by_name(&name).ok_or(LoadError::UnknownName(name))?),
        // only our own files have names
        None | Some(Value::String(_)) => (json && !tree.contains_key("name")).then_some(Preset::Mainnet),
        Some(_) => return Err(LoadError::Value { key: "preset".to_owned(), reason: "expected a name".to_owned() }),
    };
    let mut whole = base.map(|base| tree_of(base.network())).unwrap_or_default();
    let given = Value::Object(tree.clone());
    merge(&mut whole, tree, "");
    let network = typed(&whole)?;
    let mut strange = Vec::new();
    unknown(&given, &Value::Object(tree_of(&network)), "", &mut strange);
    let (unused, unknown): (Vec<_>, Vec<_>) = strange.into_iter().partition(|key| official(key));
    if !unknown.is_empty() {
        return Err(LoadError::UnknownKeys(unknown));
    }
    let faults = network.check();
    if faults.is_empty() { Ok(Loaded { network, unused }) } else { Err(LoadError::Unsound(faults)) }
}

/// A TOML text that contains every key.
pub(super) fn complete(text: &str) -> Result<Network, LoadError> {
    Ok(parse(text, false)?.network)
}

/// The network as a tree.
pub(super) fn tree_of(network: &Network) -> Map<String, Value> {
    match serde_json::to_value(network) {
        Ok(Value::Object(tree)) => tree,
        // A struct of numbers, texts and lists always becomes an object.
        _ => Map::new(),
    }
}

fn from_toml(text: &str) -> Result<Map<String, Value>, LoadError> {
    fn convert(value: toml::Value) -> Value {
        match value {
            toml::Value::String(text) => Value::String(text),
            toml::Value::Integer(number) => number.into(),
            toml::Value::Float(number) => number.into(),
            toml::Value::Boolean(yes) => yes.into(),
            toml::Value::Datetime(time) => Value::String(time.to_string()),
            toml::Value::Array(items) => items.into_iter().map(convert).collect(),
            toml::Value::Table(table) => Value::Object(table.into_iter().map(|(key, value)| (key, convert(value))).collect()),
        }
    }
    let table: toml::Table = text.parse().map_err(Box::new)?;
    Ok(table.into_iter().map(|(key, value)| (key, convert(value))).collect())
}

/// Keys under other names where the official node derives them from its source.
const ALIASES: [(&str, &str); 4] = [
    ("historicalwindowsize", "historical-window-size"),
    ("minimalactivesetweight", "minimal-active-set-weight"),
    ("committeeupgrade", "committee-upgrade"),
    ("tallyvotesfrequency", "tally-votes-frequency"),
];

/// The official node does not care about the case of keys.
fn from_json(text: &str) -> Result<Map<String, Value>, LoadError> {
    fn lower(value: Value) -> Value {
        match value {
            Value::Object(map) => Value::Object(map.into_iter().map(|(key, value)| (name(&key), lower(value))).collect()),
            Value::Array(items) => items.into_iter().map(lower).collect(),
            other => other,
        }
    }
    fn name(key: &str) -> String {
        let key = key.to_lowercase();
        ALIASES.iter().find(|(old, _)| *old == key).map_or(key, |(_, new)| (*new).to_owned())
    }
    let map: Map<String, Value> = serde_json::from_str(text).map_err(LoadError::Json)?;
    Ok(map.into_iter().map(|(key, value)| (name(&key), lower(value))).collect())
}

/// Maps whose keys are data: a file that has one replaces it as a whole.
const DATA: [&str; 2] = ["genesis.accounts", "main.atx-versions"];

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Lays `over` over `under`.
fn merge(under: &mut Map<String, Value>, over: Map<String, Value>, path: &str) {
    for (key, value) in over {
        let path = join(path, &key);
        match (under.get_mut(&key), value) {
            (Some(Value::Object(below)), Value::Object(above)) if !DATA.contains(&path.as_str()) => merge(below, above, &path),
            (_, Value::Null) => {}
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

/// Gives the tree its types, group by group so that an error can name its place.
fn typed(tree: &Map<String, Value>) -> Result<Network, LoadError> {
    serde_json::from_value(Value::Object(tree.clone())).map_err(|whole| {
        let place = faulty(tree);
        let key = if place.is_empty() { "preset".to_owned() } else { place };
        LoadError::Value { key, reason: whole.to_string() }
    })
}

/// The first key whose value, or its absence, a sound network does not accept.
fn faulty(tree: &Map<String, Value>) -> String {
    fn search(found: &Value, sound: &Value, path: &[&str], whole: &Map<String, Value>) -> Option<String> {
        if let (Value::Object(found), Value::Object(sound), false) = (found, sound, DATA.contains(&path.join(".").as_str())) {
            return sound.iter().find_map(|(key, sound)| {
                let next = [path, &[key.as_str()]].concat();
                search(found.get(key).unwrap_or(&Value::Null), sound, &next, whole)
            });
        }
        let mut trial = Value::Object(whole.clone());
        *trial.pointer_mut(&format!("/{}", path.join("/")))? = found.clone();
        serde_json::from_value::<Network>(trial).is_err().then(|| path.join("."))
    }
    let sound = tree_of(Preset::Mainnet.network());
    search(&Value::Object(tree.clone()), &Value::Object(sound.clone()), &[], &sound).unwrap_or_default()
}

/// Collects the keys of `given` that `known` lacks.
fn unknown(given: &Value, known: &Value, path: &str, into: &mut Vec<String>) {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            for (key, value) in given {
                let path = join(path, key);
                match known.get(key) {
                    Some(known) => unknown(value, known, &path, into),
                    None if value.is_null() => {}
                    None => leaves(value, path, into),
                }
            }
        }
        (Value::Array(given), Value::Array(known)) => {
            for (index, (given, known)) in given.iter().zip(known).enumerate() {
                unknown(given, known, &format!("{path}[{index}]"), into);
            }
        }
        _ => {}
    }
}

fn leaves(value: &Value, path: String, into: &mut Vec<String>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                leaves(value, join(&path, key), into);
            }
        }
        _ => into.push(path),
    }
}

/// Keys of the official node that are no part of a network (p2p-sync.md section 19, activation.md section 2): whole groups end
/// with a dot.
const OFFICIAL: &[&str] = &[
    "api.",
    "cache.",
    "fetch.",
    "logging.",
    "public-metrics.",
    "recovery.",
    "testing.",
    "time.",
    "vm.",
    "hare3.log-stats",
    "hare4.log-stats",
    "main.config",
    "main.data-folder",
    "main.db-",
    "main.filelock",
    "main.metrics",
    "main.metrics-port",
    "main.metrics-push",
    "main.no-main-override",
    "main.pprof-server",
    "main.profiler-name",
    "main.profiler-url",
    "main.scan-malfeasant-atxs",
    "main.standalone",
    "main.testing.",
    "p2p.advertise-",
    "p2p.auto-nat-server.",
    "p2p.autoscale-peers",
    "p2p.direct",
    "p2p.disable-",
    "p2p.discovery-timings.",
    "p2p.enable-",
    "p2p.flood",
    "p2p.force-dht-server",
    "p2p.gossip-",
    "p2p.gracepeersshutdown",
    "p2p.inbound-fraction",
    "p2p.ip4-blocklist",
    "p2p.ip6-blocklist",
    "p2p.maxmessagesize",
    "p2p.outbound-fraction",
    "p2p.p2p-",
    "p2p.ping-interval",
    "p2p.ping-peers",
    "p2p.relay",
    "p2p.relay-server.",
    "p2p.routing-discovery-advertise",
    "p2p.static-relays",
    "postservice.",
    "smeshing.smeshing-coinbase",
    "smeshing.smeshing-start",
    "smeshing.smeshing-opts.smeshing-opts-",
    "smeshing.smeshing-proving-opts.smeshing-opts-",
    "smeshing.smeshing-verifying-opts.",
    "syncer.atx-sync.",
    "syncer.malfeasance-sync.",
    "syncer.maxstaleduration",
    "syncer.standalone",
    "tortoise.tortoise-enable-tracer",
    "tortoise.tortoise-collect-details",
];

/// Whether the official node knows this key.
fn official(key: &str) -> bool {
    OFFICIAL.iter().any(|known| if known.ends_with(['.', '-']) { key.starts_with(known) } else { key == *known })
}
