//! What the server is told: a TOML file with the key names of deployed servers, flags, environment variables
//! (poet.md section 8). Flags and variables go before the file, the file before the defaults.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use proto::{
    genesis::UnixSeconds,
    preset::{LoadError, Preset},
    span::Span,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    link::Credentials,
    registry::Limits,
    schedule::{Schedule, ScheduleError, Time},
    service::TrustedKeys,
};

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("failed to read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is no configuration.
    #[error("{path}: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// The times make no schedule.
    #[error("the rounds' times are impossible: {0}")]
    Schedule(#[from] ScheduleError),
    /// The preset cannot be used.
    #[error("preset: {0}")]
    Preset(#[from] LoadError),
    /// A key says something else than the preset.
    #[error("{key} is {set}, but the preset says {preset}")]
    Disagrees {
        /// The key.
        key: &'static str,
        /// What it is set to.
        set: String,
        /// What the network has.
        preset: String,
    },
    /// A key that has no default is missing.
    #[error("{0} is not set")]
    Missing(&'static str),
    /// The database was made with another configuration.
    #[error("{0}")]
    Recorded(String),
    /// Keys that only make sense together.
    #[error("certifier-url and certifier-pubkey must be set together")]
    Certifier,
    /// A role that is not possible with the other keys.
    #[error("role {role} {problem}")]
    Role {
        /// The role.
        role: Role,
        /// What does not fit.
        problem: &'static str,
    },
    /// The directory of trusted keys cannot be used.
    #[error("{path}: {reason}")]
    TrustedKeys {
        /// File or folder.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// Not the base64 of 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected the base64 of 32 bytes")]
pub struct ParseKeyError;

/// A public key in base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key(pub [u8; 32]);

impl FromStr for Key {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, ParseKeyError> {
        let text: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or(ParseKeyError)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

/// Which parts of the server run in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Takes registrations and serves proofs; workers elsewhere run the rounds
    Registration,
    /// Runs rounds for a registration side elsewhere
    Worker,
    /// Both
    All,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Registration => "registration",
            Self::Worker => "worker",
            Self::All => "all",
        })
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

macro_rules! options {
    ($($(#[doc = $doc:literal])+ $name:ident: $kind:ty, $variable:literal;)*) => {
        /// Every key, as far as it is set.
        #[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields)]
        pub struct Options {
            $($(#[doc = $doc])+
            #[arg(long, env = $variable)]
            #[serde(skip_serializing_if = "Option::is_none")]
            pub $name: Option<$kind>,)*
        }

        impl Options {
            /// These keys, and those of `other` where these are not set.
            #[must_use]
            pub fn or(self, other: Self) -> Self {
                Self { $($name: self.$name.or(other.$name),)* }
            }
        }
    };
}

options! {
    /// Network whose genesis, epochs and phase shift apply: a name such as mainnet, or the file that the node uses
    preset: String, "POET_PRESET";
    /// Time from which rounds are counted
    genesis_time: UnixSeconds, "POET_GENESIS_TIME";
    /// Folder for everything that has no folder of its own
    poetdir: PathBuf, "POET_POETDIR";
    /// Folder of the key and of running rounds
    datadir: PathBuf, "POET_DATADIR";
    /// Folder of the database
    dbdir: PathBuf, "POET_DBDIR";
    /// Log more
    debuglog: bool, "POET_DEBUGLOG";
    /// Log in JSON
    jsonlog: bool, "POET_JSONLOG";
    /// Address of the REST API, the one nodes use
    restlisten: String, "POET_RESTLISTEN";
    /// Address of the gRPC API
    rpclisten: String, "POET_RPCLISTEN";
    /// Address of the operator's gRPC API (reload of trusted keys)
    config_rpclisten: String, "POET_CONFIG_RPCLISTEN";
    /// Address of the operator's REST API (rounds, pause, backup); off without
    admin_listen: String, "POET_ADMIN_LISTEN";
    /// Port of the metrics page, on loopback; off without
    metrics_port: u16, "POET_METRICS_PORT";
    /// Length of an epoch
    epoch_duration: Span, "POET_EPOCH_DURATION";
    /// From the start of an epoch to the start of its round
    phase_shift: Span, "POET_PHASE_SHIFT";
    /// From the end of a round to the start of the next
    cycle_gap: Span, "POET_CYCLE_GAP";
    /// Leading zero bits of a proof of work
    pow_difficulty: u32, "POET_POW_DIFFICULTY";
    /// Members a round may have
    max_round_members: u64, "POET_MAX_ROUND_MEMBERS";
    /// Registrations written at once
    max_submit_batch_size: usize, "POET_MAX_SUBMIT_BATCH_SIZE";
    /// The longest a registration waits to be written
    submit_flush_interval: Span, "POET_SUBMIT_FLUSH_INTERVAL";
    /// Where clients get certificates
    certifier_url: String, "POET_CERTIFIER_URL";
    /// The certifier's public key in base64
    certifier_pubkey: Key, "POET_CERTIFIER_PUBKEY";
    /// Folder with public keys of further certifiers (*.key)
    trusted_pub_keys_dir_path: PathBuf, "POET_TRUSTED_PUB_KEYS_DIR_PATH";
    /// Take registrations only, run no rounds
    disable_worker: bool, "POET_DISABLE_WORKER";
    /// The processor (number) that the hashing thread stays on
    hashing_cpu: usize, "POET_HASHING_CPU";
    /// Threads for making a proof; as many as processors without
    proof_threads: usize, "POET_PROOF_THREADS";
    /// REST connections at the same time
    max_connections: usize, "POET_MAX_CONNECTIONS";
    /// Requests per second of one client address, ten times as many at once; 0 for any number
    max_client_rate: u32, "POET_MAX_CLIENT_RATE";
    /// Largest answer of the gRPC API in bytes
    max_grpc_resp_size: usize, "POET_MAX_GRPC_RESP_SIZE";
    /// Which parts run here; the two parts of a server may be on different machines
    role: Role, "POET_ROLE";
    /// Address for workers on other machines; none are served without
    worker_listen: String, "POET_WORKER_LISTEN";
    /// Where a worker finds its registration side (https://host:port)
    registration_address: String, "POET_REGISTRATION_ADDRESS";
    /// Certificate (PEM) of the authority behind both sides' certificates
    link_ca: PathBuf, "POET_LINK_CA";
    /// Certificate (PEM) of this side
    link_cert: PathBuf, "POET_LINK_CERT";
    /// Private key (PEM) of this side
    link_key: PathBuf, "POET_LINK_KEY";
    /// Taken for compatibility, without effect: the rate needs no estimate
    lps: u64, "POET_LPS";
    /// Taken for compatibility, without effect: what is kept of the tree is fixed
    memory: u64, "POET_MEMORY";
    /// Taken for compatibility, without effect: the tree's nodes have their own buffers
    tree_file_buffer: u64, "POET_TREE_FILE_BUFFER";
    /// Taken for compatibility, without effect: the log goes to standard error
    logdir: PathBuf, "POET_LOGDIR";
    /// Taken for compatibility, without effect: the log goes to standard error
    maxlogfiles: u64, "POET_MAXLOGFILES";
    /// Taken for compatibility, without effect: the log goes to standard error
    maxlogfilesize: u64, "POET_MAXLOGFILESIZE";
    /// Taken for compatibility, without effect: there is no profiler in this server
    cpuprofile: PathBuf, "POET_CPUPROFILE";
    /// Taken for compatibility, without effect: there is no profiler in this server
    profile: u16, "POET_PROFILE";
}

/// What a server runs, with what its link needs.
#[derive(Debug, Clone)]
pub enum Parts {
    /// Registrations, served to workers at an address.
    Registration(String, Credentials),
    /// Rounds of the registration side at an address.
    Worker(String, Credentials),
    /// Both, and workers elsewhere where there is an address for them.
    All(Option<(String, Credentials)>),
}

impl Options {
    /// Reads a configuration file.
    pub fn read(path: &std::path::Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
        toml::from_str(&text).map_err(|source| ConfigError::Parse { path: path.into(), source: Box::new(source) })
    }

    /// The times of the preset, if one is named. Where they are set as well they must be the same.
    pub fn with_preset(self) -> Result<Self, ConfigError> {
        fn same<T: fmt::Display + PartialEq>(
            key: &'static str,
            set: Option<T>,
            preset: Option<T>,
        ) -> Result<Option<T>, ConfigError> {
            match (set, preset) {
                (Some(set), Some(preset)) if set != preset => {
                    Err(ConfigError::Disagrees { key, set: set.to_string(), preset: preset.to_string() })
                }
                (set, preset) => Ok(preset.or(set)),
            }
        }
        let Some(preset) = &self.preset else { return Ok(self) };
        let network = preset.parse::<Preset>()?.network();
        Ok(Self {
            genesis_time: same("genesis-time", self.genesis_time, network.genesis.genesis_time)?,
            epoch_duration: same("epoch-duration", self.epoch_duration, network.epoch_duration().map(Span))?,
            phase_shift: same("phase-shift", self.phase_shift, Some(network.poet.phase_shift))?,
            cycle_gap: same("cycle-gap", self.cycle_gap, Some(network.poet.cycle_gap))?,
            ..self
        })
    }

    /// What applies where nothing is set. There is no default for the time of genesis.
    pub fn defaults() -> Self {
        let seconds = |s| Some(Span(Duration::from_secs(s)));
        Self {
            debuglog: Some(false),
            jsonlog: Some(false),
            restlisten: Some("localhost:8080".into()),
            rpclisten: Some("localhost:50002".into()),
            config_rpclisten: Some("localhost:50001".into()),
            epoch_duration: seconds(30),
            phase_shift: seconds(15),
            cycle_gap: seconds(10),
            pow_difficulty: Some(0),
            max_round_members: Some(1 << 32),
            max_submit_batch_size: Some(1000),
            submit_flush_interval: Some(Span(Duration::from_millis(100))),
            disable_worker: Some(false),
            max_connections: Some(10_000),
            max_client_rate: Some(50),
            role: Some(Role::All),
            ..Self::default()
        }
    }

    /// The folders: of data and of the database.
    pub fn folders(&self) -> Result<(PathBuf, PathBuf), ConfigError> {
        let within = |name: &str| self.poetdir.as_ref().map(|folder| folder.join(name));
        let data = self.datadir.clone().or_else(|| within("data")).ok_or(ConfigError::Missing("poetdir"))?;
        let db = self.dbdir.clone().or_else(|| within("db")).ok_or(ConfigError::Missing("poetdir"))?;
        Ok((data, db))
    }

    /// The rounds' times.
    pub fn schedule(&self) -> Result<Schedule, ConfigError> {
        let UnixSeconds(genesis) = self.genesis_time.ok_or(ConfigError::Missing("genesis-time"))?;
        let span = |span: Option<Span>, name| span.map(|Span(span)| span).ok_or(ConfigError::Missing(name));
        Ok(Schedule::new(
            Time(i128::from(genesis) * 1_000_000_000),
            span(self.epoch_duration, "epoch-duration")?,
            span(self.phase_shift, "phase-shift")?,
            span(self.cycle_gap, "cycle-gap")?,
        )?)
    }

    /// Which parts run here.
    pub fn parts(&self) -> Result<Parts, ConfigError> {
        let role = self.role.unwrap_or(Role::All);
        let problem = |problem| ConfigError::Role { role, problem };
        let credentials = || match (&self.link_ca, &self.link_cert, &self.link_key) {
            (Some(authority), Some(certificate), Some(key)) => {
                Ok(Credentials { authority: authority.clone(), certificate: certificate.clone(), key: key.clone() })
            }
            _ => Err(problem("needs link-ca, link-cert and link-key")),
        };
        let address = |address: &Option<String>, missing| address.clone().ok_or_else(|| problem(missing));
        match role {
            Role::Registration if self.disable_worker == Some(true) => Err(problem("does not go with disable-worker")),
            Role::Registration => Ok(Parts::Registration(address(&self.worker_listen, "needs worker-listen")?, credentials()?)),
            Role::Worker => Ok(Parts::Worker(address(&self.registration_address, "needs registration-address")?, credentials()?)),
            Role::All => {
                let served = self.worker_listen.clone().map(|address| Ok::<_, ConfigError>((address, credentials()?)));
                Ok(Parts::All(served.transpose()?))
            }
        }
    }

    /// Keys that are set and do nothing, with the reason.
    pub fn without_effect(&self) -> Vec<(&'static str, &'static str)> {
        const LOG: &str = "the log goes to standard error, where systemd and containers keep it";
        const PROFILER: &str = "there is no profiler in this server";
        let keys = [
            ("lps", self.lps.is_some(), "the rate needs no estimate"),
            ("memory", self.memory.is_some(), "what is kept of the tree is fixed and needs hardly any memory"),
            ("tree-file-buffer", self.tree_file_buffer.is_some(), "the tree's nodes have their own buffers"),
            ("logdir", self.logdir.is_some(), LOG),
            ("maxlogfiles", self.maxlogfiles.is_some(), LOG),
            ("maxlogfilesize", self.maxlogfilesize.is_some(), LOG),
            ("cpuprofile", self.cpuprofile.is_some(), PROFILER),
            ("profile", self.profile.is_some(), PROFILER),
        ];
        keys.into_iter().filter(|(_, set, _)| *set).map(|(key, _, reason)| (key, reason)).collect()
    }

    /// What the server allows.
    pub fn limits(&self) -> Limits {
        Limits { max_round_members: self.max_round_members.unwrap_or(u64::MAX), pow_difficulty: self.pow_difficulty.unwrap_or(0) }
    }

    /// The certifiers to trust, read anew from the directory.
    pub fn trusted_keys(&self) -> Result<TrustedKeys, ConfigError> {
        if self.certifier_url.is_some() != self.certifier_pubkey.is_some() {
            return Err(ConfigError::Certifier);
        }
        let mut others = Vec::new();
        let mut folders: Vec<PathBuf> = self.trusted_pub_keys_dir_path.iter().cloned().collect();
        while let Some(folder) = folders.pop() {
            let bad = |reason: &dyn fmt::Display| ConfigError::TrustedKeys { path: folder.clone(), reason: reason.to_string() };
            for entry in std::fs::read_dir(&folder).map_err(|e| bad(&e))? {
                let path = entry.map_err(|e| bad(&e))?.path();
                if path.is_dir() && !path.is_symlink() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "key") {
                    let bad =
                        |reason: &dyn fmt::Display| ConfigError::TrustedKeys { path: path.clone(), reason: reason.to_string() };
                    let text = std::fs::read_to_string(&path).map_err(|e| bad(&e))?;
                    let Key(key) = text.parse().map_err(|e| bad(&format!("invalid public key: {e}")))?;
                    others.push(key);
                }
            }
        }
        Ok(TrustedKeys { own: self.certifier_pubkey.map(|Key(key)| key), others })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preset_gives_the_times_and_nobody_disagrees() {
        let with = |text: &str| toml::from_str::<Options>(text).unwrap().with_preset();
        let hours = |h: u64| Some(Span(Duration::from_secs(3600 * h)));
        let mainnet = with("preset = \"mainnet\"").unwrap();
        assert_eq!((mainnet.epoch_duration, mainnet.phase_shift, mainnet.cycle_gap), (hours(336), hours(240), hours(12)));
        assert_eq!(mainnet.genesis_time.unwrap().to_string(), "2023-07-14T08:00:00Z");
        assert_eq!(with("preset = \"mainnet\"\nphase-shift = \"240h\"").unwrap(), mainnet);
        let error = with("preset = \"mainnet\"\nphase-shift = \"12h\"").unwrap_err();
        assert_eq!(error.to_string(), "phase-shift is 12h, but the preset says 240h");
        assert!(matches!(with("preset = \"no-such-net\""), Err(ConfigError::Preset(_))));
        // a network that is born when it is started
        let own = with("preset = \"standalone\"\ngenesis-time = \"2024-01-01T00:00:00Z\"").unwrap();
        assert!(own.schedule().is_ok());
        assert!(matches!(with("preset = \"standalone\"").unwrap().schedule(), Err(ConfigError::Missing("genesis-time"))));
        // the file that a node uses
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ours.toml");
        std::fs::write(&file, "preset = \"testnet\"\nname = \"ours\"\n[poet]\nphase-shift = \"7h\"\n").unwrap();
        let ours = with(&format!("preset = {file:?}")).unwrap();
        assert_eq!(ours.phase_shift, hours(7));
    }

    #[test]
    fn flags_go_before_the_file_and_the_file_before_the_defaults() {
        let file: Options = toml::from_str(
            "genesis-time = \"2023-07-14T08:00:00Z\"\nepoch-duration = \"336h\"\ncycle-gap = \"12h\"\nrestlisten = \"0.0.0.0:80\"",
        )
        .unwrap();
        let flags = Options { restlisten: Some("localhost:1".into()), ..Options::default() };
        let options = flags.or(file).or(Options::defaults());
        assert_eq!(options.restlisten.as_deref(), Some("localhost:1"));
        assert_eq!(options.epoch_duration, Some(Span(Duration::from_secs(1_209_600))));
        assert_eq!(options.phase_shift, Some(Span(Duration::from_secs(15))));
        let printed = toml::to_string(&options).unwrap();
        assert_eq!(toml::from_str::<Options>(&printed).unwrap(), options);
        assert!(toml::from_str::<Options>("epoch-duraton = \"1h\"").is_err());
        assert!(matches!(options.folders(), Err(ConfigError::Missing("poetdir"))));
    }

    #[test]
    fn roles_need_their_addresses_and_certificates() {
        let with = |role, text: &str| Options { role: Some(role), ..toml::from_str(text).unwrap() }.parts();
        let files = "link-ca = \"a\"\nlink-cert = \"b\"\nlink-key = \"c\"\n";
        assert!(matches!(with(Role::All, ""), Ok(Parts::All(None))));
        assert!(with(Role::All, "worker-listen = \"h:1\"").is_err());
        assert!(matches!(with(Role::All, &format!("{files}worker-listen = \"h:1\"")), Ok(Parts::All(Some(_)))));
        assert!(with(Role::Worker, files).unwrap_err().to_string().contains("role worker needs registration-address"));
        assert!(with(Role::Worker, "registration-address = \"https://h:1\"").is_err());
        assert!(with(Role::Registration, files).is_err());
        let listening = format!("{files}worker-listen = \"h:1\"\n");
        assert!(matches!(with(Role::Registration, &listening), Ok(Parts::Registration(..))));
        assert!(with(Role::Registration, &format!("{listening}disable-worker = true")).is_err());
    }

    #[test]
    fn keys_of_deployed_servers_are_taken_and_those_without_effect_named() {
        let options: Options =
            toml::from_str("lps = 78000\nmemory = 26\ntree-file-buffer = 4096\nlogdir = \"/l\"\nmax-grpc-resp-size = 8388608")
                .unwrap();
        let named: Vec<_> = options.without_effect().into_iter().map(|(key, _)| key).collect();
        assert_eq!(named, ["lps", "memory", "tree-file-buffer", "logdir"]);
        assert_eq!(Options::defaults().without_effect(), []);
    }

    #[test]
    fn trusted_keys_are_read_from_the_tree() {
        let vectors: serde_json::Value = serde_json::from_str(include_str!("../testdata/certificates.json")).unwrap();
        let file = &vectors["trusted_key_file"];
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("more")).unwrap();
        let path = dir.path().join("more").join(file["name"].as_str().unwrap());
        std::fs::write(&path, format!("{}\n", file["content"].as_str().unwrap())).unwrap();
        std::fs::write(dir.path().join("README"), "not a key").unwrap();
        let options = Options { trusted_pub_keys_dir_path: Some(dir.path().into()), ..Options::default() };
        assert_eq!(options.trusted_keys().unwrap().others.len(), 1);
        std::fs::write(&path, "AAAA").unwrap();
        assert!(options.trusted_keys().unwrap_err().to_string().contains("invalid public key"));
    }
}
