//! The configuration of the service: from the command line, or from a file for a farm.

use std::{net::SocketAddr, path::PathBuf};

use kernels::pow::Mode as PowMode;
use proto::post::{Metadata, Params, Preset, ScryptN};
use serde::Deserialize;

use super::{ServeArgs, register};
use crate::{
    program::{
        Failure, all_cores,
        choose::NonceChoice,
        cli::{ParamArgs, parse_difficulty},
        k2pow::{Token, read_token},
    },
    prove::Nonces,
};

/// What the service does.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where operators are answered.
    pub operator_address: Option<SocketAddr>,
    /// RandomX mode.
    pub randomx_mode: PowMode,
    /// Reserved large pages for RandomX.
    pub large_pages: bool,
    /// The identities.
    pub identities: Vec<IdentityConfig>,
}

/// How one identity is served.
#[derive(Debug, Clone)]
pub struct IdentityConfig {
    /// Where its data lies.
    pub data_dirs: Vec<PathBuf>,
    /// Names of the disks it lies on, instead of finding out: one, or one for each directory.
    pub disks: Vec<String>,
    /// Address of its node, with scheme.
    pub node: String,
    /// Certificates for the way to the node.
    pub tls: Option<Tls>,
    /// The rules of the network.
    pub network: ParamArgs,
    /// Nonces per pass; chosen by measurement when absent.
    pub nonces: Option<Nonces>,
    /// Threads that scan and search.
    pub threads: usize,
    /// Seconds in which a proof must be made; as the network says when absent.
    pub window: Option<f64>,
    /// Workers to ask for k2pow instead of searching here.
    pub remote_k2pow: Vec<String>,
    /// Jobs the workers get at a time.
    pub remote_k2pow_parallelism: usize,
    /// Seconds between two questions about a job.
    pub remote_k2pow_backoff: u64,
    /// What the workers want to see.
    pub k2pow_token: Option<Token>,
    /// How to reconnect.
    pub reconnect: Reconnect,
}

/// How to reconnect to a node.
#[derive(Debug, Clone, Copy)]
pub struct Reconnect {
    /// Seconds before the first try.
    pub interval: u64,
    /// The time doubles with every try, up to this.
    pub at_most: u64,
    /// Failed tries in a row after which the program gives up; for ever when absent.
    pub max_retries: Option<u64>,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self { interval: 5, at_most: 60, max_retries: None }
    }
}

/// Mutual TLS: PEM files.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// What the node's certificate is checked with.
    pub ca_cert: PathBuf,
    /// What is shown to the node.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Name the node's certificate must have; the host of the address when absent.
    pub domain: Option<String>,
}

impl IdentityConfig {
    /// The rules for this data.
    pub fn params(&self, metadata: &Metadata) -> Params {
        Params { labels_per_unit: self.network.labels_per_unit.unwrap_or(metadata.labels_per_unit), ..self.network.params() }
    }
}

/// The file of a farm. What stands above the identities goes for all of them, unless one says otherwise.
#[derive(Debug, Deserialize)]
struct File {
    operator_address: Option<SocketAddr>,
    #[serde(default)]
    large_pages: bool,
    randomx_mode: Option<String>,
    #[serde(flatten)]
    all: Settings,
    #[serde(default)]
    identity: Vec<FileIdentity>,
}

#[derive(Debug, Deserialize)]
struct FileIdentity {
    data_dirs: Vec<PathBuf>,
    #[serde(default)]
    disk: DiskNames,
    #[serde(flatten)]
    own: Settings,
}

/// `disk = "name"`, or a list with a name for each directory.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum DiskNames {
    One(String),
    Each(Vec<String>),
}

impl Default for DiskNames {
    fn default() -> Self {
        Self::Each(Vec::new())
    }
}

/// `nonces = 288` or `nonces = "auto"`.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum FileNonces {
    Number(u32),
    Word(String),
}

impl FileNonces {
    fn choice(&self) -> Result<Option<Nonces>, String> {
        match self {
            Self::Number(nonces) => Nonces::new(*nonces).map(Some).map_err(|e| e.to_string()),
            Self::Word(word) => word.parse::<NonceChoice>().map(|choice| choice.0),
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Settings {
    node: Option<String>,
    tls: Option<Tls>,
    preset: Option<String>,
    scrypt_n: Option<u64>,
    k1: Option<u32>,
    k2: Option<u32>,
    pow_difficulty: Option<String>,
    min_num_units: Option<u32>,
    max_num_units: Option<u32>,
    nonces: Option<FileNonces>,
    threads: Option<usize>,
    window_hours: Option<f64>,
    remote_k2pow: Option<Vec<String>>,
    k2pow_token_file: Option<PathBuf>,
}

/// Names that may stand above the identities only.
const TOP: [&str; 4] = ["operator_address", "large_pages", "randomx_mode", "identity"];
/// Names that may stand in an identity only.
const OWN: [&str; 2] = ["data_dirs", "disk"];
/// Names of [`Settings`].
const SETTINGS: [&str; 14] = [
    "node",
    "tls",
    "preset",
    "scrypt_n",
    "k1",
    "k2",
    "pow_difficulty",
    "min_num_units",
    "max_num_units",
    "nonces",
    "threads",
    "window_hours",
    "remote_k2pow",
    "k2pow_token_file",
];

/// A misspelt name must not be passed over.
fn check_names(table: &toml::Table) -> Result<(), String> {
    let unknown = |table: &toml::Table, more: &[&str]| {
        table.keys().find(|key| !SETTINGS.contains(&key.as_str()) && !more.contains(&key.as_str())).cloned()
    };
    let identities = table.get("identity").and_then(toml::Value::as_array).into_iter().flatten();
    let mut found = unknown(table, &TOP);
    for identity in identities.filter_map(toml::Value::as_table) {
        found = found.or_else(|| unknown(identity, &OWN));
    }
    found.map_or(Ok(()), |name| Err(format!("unknown name {name:?}")))
}

impl Settings {
    fn or(self, all: &Self) -> Self {
        let all = all.clone();
        Self {
            node: self.node.or(all.node),
            tls: self.tls.or(all.tls),
            preset: self.preset.or(all.preset),
            scrypt_n: self.scrypt_n.or(all.scrypt_n),
            k1: self.k1.or(all.k1),
            k2: self.k2.or(all.k2),
            pow_difficulty: self.pow_difficulty.or(all.pow_difficulty),
            min_num_units: self.min_num_units.or(all.min_num_units),
            max_num_units: self.max_num_units.or(all.max_num_units),
            nonces: self.nonces.or(all.nonces),
            threads: self.threads.or(all.threads),
            window_hours: self.window_hours.or(all.window_hours),
            remote_k2pow: self.remote_k2pow.or(all.remote_k2pow),
            k2pow_token_file: self.k2pow_token_file.or(all.k2pow_token_file),
        }
    }

    fn network(&self) -> Result<ParamArgs, String> {
        Ok(ParamArgs {
            preset: self.preset.as_deref().map(str::parse::<Preset>).transpose().map_err(|e| e.to_string())?,
            scrypt_n: self.scrypt_n.map(ScryptN::new).transpose().map_err(|e| e.to_string())?,
            labels_per_unit: None,
            k1: self.k1,
            k2: self.k2,
            pow_difficulty: self.pow_difficulty.as_deref().map(parse_difficulty).transpose()?,
            min_num_units: self.min_num_units,
            max_num_units: self.max_num_units,
        })
    }
}

fn threads_or_all(threads: usize) -> usize {
    if threads == 0 { all_cores() } else { threads }
}

impl Config {
    /// From the command line or the file it names.
    pub fn from_args(args: &ServeArgs) -> Result<Self, Failure> {
        if let Some(path) = &args.config {
            let text =
                std::fs::read_to_string(path).map_err(|e| Failure::Usage(format!("failed to read {}: {e}", path.display())))?;
            let usage = |e: String| Failure::Usage(format!("{}: {e}", path.display()));
            let mut config = Self::from_toml(&text).map_err(usage)?;
            config.operator_address = args.operator_address.or(config.operator_address);
            return Ok(config);
        }
        let node = args.node.as_deref().unwrap_or_default();
        let tls = match (&args.ca_cert, &args.cert, &args.key) {
            (Some(ca_cert), Some(cert), Some(key)) => {
                Some(Tls { ca_cert: ca_cert.clone(), cert: cert.clone(), key: key.clone(), domain: args.domain.clone() })
            }
            _ => None,
        };
        let token = args.work.k2pow_token_file.as_deref().map(read_token).transpose()?;
        let mut identities = Vec::new();
        for dir in &args.data_dir {
            identities.push(IdentityConfig {
                data_dirs: vec![dir.clone()],
                disks: Vec::new(),
                node: register::parse_address(node).map_err(Failure::Usage)?,
                tls: tls.clone(),
                network: args.params.clone(),
                nonces: args.work.nonces.0,
                threads: args.work.threads(),
                window: args.window.map(|hours| hours * 3600.0),
                remote_k2pow: args.work.remote_k2pow.clone(),
                remote_k2pow_parallelism: 5,
                remote_k2pow_backoff: 5,
                k2pow_token: token.clone(),
                reconnect: Reconnect::default(),
            });
        }
        let config = Self {
            operator_address: args.operator_address,
            randomx_mode: args.work.randomx_mode,
            large_pages: args.work.randomx_large_pages,
            identities,
        };
        config.check().map_err(Failure::Usage)?;
        Ok(config)
    }

    /// From the text of a configuration file.
    pub fn from_toml(text: &str) -> Result<Self, String> {
        let table: toml::Table = toml::from_str(text).map_err(|e| e.to_string())?;
        check_names(&table)?;
        let file: File = table.try_into().map_err(|e: toml::de::Error| e.to_string())?;
        if file.identity.is_empty() {
            return Err("no [[identity]] is configured".to_owned());
        }
        let mut identities = Vec::new();
        for identity in file.identity {
            let what = identity.data_dirs.first().map_or_else(String::new, |dir| dir.display().to_string());
            let error = |e: String| format!("identity {what}: {e}");
            if identity.data_dirs.is_empty() {
                return Err("an [[identity]] has no data_dirs".to_owned());
            }
            let disks = match identity.disk {
                DiskNames::One(name) => vec![name],
                DiskNames::Each(names) => names,
            };
            if disks.len() > 1 && disks.len() != identity.data_dirs.len() {
                return Err(error(format!("{} names of disks for {} directories", disks.len(), identity.data_dirs.len())));
            }
            let own = identity.own.or(&file.all);
            let token = match &own.k2pow_token_file {
                Some(path) => Some(read_token(path).map_err(|_| error(format!("failed to read {}", path.display())))?),
                None => None,
            };
            identities.push(IdentityConfig {
                node: register::parse_address(own.node.as_deref().unwrap_or_default()).map_err(error)?,
                network: own.network().map_err(error)?,
                nonces: own.nonces.as_ref().map_or(Ok(None), FileNonces::choice).map_err(error)?,
                threads: threads_or_all(own.threads.unwrap_or(0)),
                window: own.window_hours.map(|hours| hours * 3600.0),
                remote_k2pow: own.remote_k2pow.unwrap_or_default(),
                remote_k2pow_parallelism: 5,
                remote_k2pow_backoff: 5,
                k2pow_token: token,
                tls: own.tls,
                data_dirs: identity.data_dirs,
                disks,
                reconnect: Reconnect::default(),
            });
        }
        let config = Self {
            operator_address: file.operator_address,
            randomx_mode: file.randomx_mode.as_deref().map_or(Ok(PowMode::Fast), str::parse)?,
            large_pages: file.large_pages,
            identities,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        for identity in &self.identities {
            if identity.node.starts_with("https:") && identity.tls.is_none() {
                return Err(format!("{} needs a CA certificate, a certificate and a key", identity.node));
            }
            if identity.window.is_some_and(|w| !(w > 0.0 && w < 1e9)) {
                return Err("the window must be a positive number of hours".to_owned());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_farm_is_read() {
        let config = Config::from_toml(
            r#"
            operator_address = "127.0.0.1:50051"
            randomx_mode = "light"
            node = "127.0.0.1:9094"
            preset = "testnet"
            nonces = 64
            [[identity]]
            data_dirs = ["/a", "/b"]
            disk = "one"
            [[identity]]
            data_dirs = ["/c"]
            node = "http://other:1"
            nonces = 128
            k1 = 7
            "#,
        )
        .unwrap();
        assert_eq!(config.randomx_mode, PowMode::Light);
        let [one, two] = &config.identities[..] else { panic!() };
        assert_eq!(
            (one.node.as_str(), one.nonces.map(Nonces::get), one.disks.as_slice()),
            ("http://127.0.0.1:9094", Some(64), &["one".to_owned()][..])
        );
        assert_eq!((two.node.as_str(), two.nonces.map(Nonces::get), two.network.params().k1), ("http://other:1", Some(128), 7));
        assert_eq!(one.network.params().min_num_units.0, 2);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, what) in [
            ("", "no [[identity]]"),
            ("nodes = 'x:1'", "unknown name \"nodes\""),
            ("node = 'x:1'\n[[identity]]\ndata_dirs = ['/a']\nnonce = 7", "unknown name \"nonce\""),
            ("[[identity]]\ndata_dirs = []", "no data_dirs"),
            ("[[identity]]\ndata_dirs = ['/a']", "address"),
            ("node = 'ftp://x'\n[[identity]]\ndata_dirs = ['/a']", "ftp"),
            ("node = 'https://x:1'\n[[identity]]\ndata_dirs = ['/a']", "certificate"),
            ("node = 'x:1'\nnonces = 17\n[[identity]]\ndata_dirs = ['/a']", "multiple of 16"),
            ("node = 'x:1'\n[[identity]]\ndata_dirs = ['/a']\ndisk = ['b', 'c']", "2 names of disks for 1"),
            ("node = 'x:1'\npreset = 'y'\n[[identity]]\ndata_dirs = ['/a']", "unknown preset"),
        ] {
            let error = Config::from_toml(text).unwrap_err();
            assert!(error.contains(what), "{text}: {error}");
        }
    }
}
