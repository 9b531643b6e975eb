//! What the server is told: a TOML file with the key names of deployed servers, flags, environment variables
//! (poet.md section 8). Flags and variables go before the file, the file before the defaults.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
pub use proto::span::Span;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
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
    /// A key that has no default is missing.
    #[error("{0} is not set")]
    Missing(&'static str),
    /// Keys that only make sense together.
    #[error("certifier-url and certifier-pubkey must be set together")]
    Certifier,
    /// The directory of trusted keys cannot be used.
    #[error("{path}: {reason}")]
    TrustedKeys {
        /// File or folder.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// Why a text is no value of its key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not a time such as `2023-07-14T08:00:00Z`.
    #[error("expected a time such as 2023-07-14T08:00:00Z")]
    Moment,
    /// Not the base64 of 32 bytes.
    #[error("expected the base64 of 32 bytes")]
    Key,
}

/// A moment, written as RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(pub Time);

impl FromStr for Moment {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let time = OffsetDateTime::parse(text.trim(), &Rfc3339).map_err(|_| ValueError::Moment)?;
        Ok(Self(Time(time.unix_timestamp_nanos())))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = OffsetDateTime::from_unix_timestamp_nanos(self.0.0).map_err(|_| fmt::Error)?;
        f.write_str(&time.format(&Rfc3339).map_err(|_| fmt::Error)?)
    }
}

/// A public key in base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key(pub [u8; 32]);

impl FromStr for Key {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let text: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or(ValueError::Key)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

as_text!(Moment, Key);

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
    /// Time from which rounds are counted
    genesis_time: Moment, "POET_GENESIS_TIME";
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
}

impl Options {
    /// Reads a configuration file.
    pub fn read(path: &std::path::Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
        toml::from_str(&text).map_err(|source| ConfigError::Parse { path: path.into(), source: Box::new(source) })
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
        let Moment(genesis) = self.genesis_time.ok_or(ConfigError::Missing("genesis-time"))?;
        let span = |span: Option<Span>, name| span.map(|Span(span)| span).ok_or(ConfigError::Missing(name));
        Ok(Schedule::new(
            genesis,
            span(self.epoch_duration, "epoch-duration")?,
            span(self.phase_shift, "phase-shift")?,
            span(self.cycle_gap, "cycle-gap")?,
        )?)
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
