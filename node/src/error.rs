//! Why a command fails, what to do about it, and the exit code that says so.

use std::{io, path::PathBuf};

use proto::{address::AddressError, keys::KeyFileError, objects::ObjectError, preset::LoadError, wallet::WalletError};
use store::{StoreError, guard::HistoryError, identities::IdentitiesError};

/// Why a command fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Arguments that do not fit together or to what is there.
    #[error("{0}")]
    Usage(String),
    /// No such preset, or a file that is none.
    #[error("preset: {0}")]
    Preset(#[from] LoadError),
    /// A database fails or refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The databases are damaged.
    #[error("{0} faults found")]
    Faults(usize),
    /// A signing history cannot be used.
    #[error("signing history: {0}")]
    History(#[from] HistoryError),
    /// The keys of a directory cannot be used.
    #[error("identities: {0}")]
    Identities(#[from] IdentitiesError),
    /// A key file cannot be used.
    #[error("{path}: {source}")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: KeyFileError,
    },
    /// Not an address.
    #[error("address: {0}")]
    Address(#[from] AddressError),
    /// Words that make no wallet.
    #[error("wallet: {0}")]
    Wallet(#[from] WalletError),
    /// Bytes that are no such object.
    #[error("not decoded: {0}")]
    Object(#[from] ObjectError),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A node that could not start, in words.
    #[error("{0}")]
    Start(String),
    /// A node that must not go on.
    #[error("{0}")]
    Fatal(Box<activation::smesher::Fatal>),
    /// A node that does not answer.
    #[error("no node answers at {address}: {reason}")]
    NoNode {
        /// Where.
        address: String,
        /// Why, in words.
        reason: String,
    },
    /// The node does not know it, in its words.
    #[error("{0}")]
    Unknown(String),
    /// Ctrl-C or SIGTERM.
    #[error("interrupted")]
    Stopped,
}

impl Error {
    /// 1 failed, 2 bad usage or configuration, 3 data invalid, 4 interrupted and resumable.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_)
            | Self::Fatal(_)
            | Self::Preset(_)
            | Self::Address(_)
            | Self::Wallet(_)
            | Self::Object(ObjectError::UnknownKind(_))
            | Self::Store(StoreError::OtherNetwork(_) | StoreError::NoDataDir { .. })
            | Self::History(HistoryError::OtherNetwork { .. } | HistoryError::Identity(..))
            | Self::Identities(
                IdentitiesError::Name(_) | IdentitiesError::LocalAmongOthers { .. } | IdentitiesError::Twice { .. },
            ) => 2,
            Self::Identities(IdentitiesError::Key { source, .. }) | Self::Key { source, .. } => match source {
                KeyFileError::Io(_) | KeyFileError::Random(_) => 1,
                _ => 3,
            },
            Self::Faults(_) | Self::Object(_) | Self::History(HistoryError::Format(_)) => 3,
            Self::Store(error) | Self::History(HistoryError::Store(error)) if error.is_data() => 3,
            Self::Stopped => 4,
            Self::Store(_)
            | Self::History(_)
            | Self::Identities(_)
            | Self::Io { .. }
            | Self::Start(_)
            | Self::Unknown(_)
            | Self::NoNode { .. } => 1,
        }
    }

    /// What to do about it.
    pub(crate) fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Store(error) | Self::History(HistoryError::Store(error)) => error.advice(),
            Self::Faults(_) => {
                Some("restore a backup, then `smesh-node db adopt`; `state` alone can also be deleted and fetched again")
            }
            Self::NoNode { .. } => Some("`smesh-node run` starts one; --node names its private listener if that is elsewhere"),
            Self::Object(ObjectError::UnknownKind(_)) => Some("`smesh-node decode --list` names all kinds"),
            _ => None,
        }
    }
}
