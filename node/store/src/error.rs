//! Why something cannot be stored or found.

use std::path::PathBuf;

use proto::{
    preset::Difference,
    scale::{DecodeError, EncodeError},
};

use crate::schema::{Database, Family};

/// Why the store fails or refuses.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database says no: a full disk, missing or damaged files.
    #[error("database: {0}")]
    Rocks(#[from] rocksdb::Error),
    /// A file beside the databases cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A record is not what was written.
    #[error("record {} of {}: {what}", hex::encode(.key), .family.name())]
    Damaged {
        /// Where it lies.
        family: Family,
        /// Its key.
        key: Vec<u8>,
        /// What is wrong with it.
        what: String,
    },
    /// A record cannot be written.
    #[error("a record cannot be encoded: {0}")]
    Encode(#[from] EncodeError),
    /// A file beside the databases is not what was written.
    #[error("{path} is damaged: {what}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Another process uses the directory.
    #[error("only one program can use {path} at a time{holder}")]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Who has it, as far as known.
        holder: String,
    },
    /// There is no data directory.
    #[error("{path} is no data directory of a node")]
    NoDataDir {
        /// Where one was expected.
        path: PathBuf,
    },
    /// A newer program made the database.
    #[error("{} has format {found}, this program knows formats up to {known}: use the newer program", .database.folder())]
    Newer {
        /// Which database.
        database: Database,
        /// Its format.
        found: u32,
        /// The newest format known.
        known: u32,
    },
    /// No migration leads from this format to the present one.
    #[error("{} has format {found}, from which no migration leads on", .database.folder())]
    NoMigration {
        /// Which database.
        database: Database,
        /// Its format.
        found: u32,
    },
    /// The directory holds data of another network.
    #[error("the data directory belongs to another network or other parameters: {}", list(.0))]
    OtherNetwork(Vec<Difference>),
    /// The database was made in another data directory.
    #[error("{} was copied here: it belongs to data directory {found}, this is {expected}", .database.folder())]
    OtherDirectory {
        /// Which database.
        database: Database,
        /// Where it was made.
        found: String,
        /// Where it is.
        expected: String,
    },
    /// The whole data directory is a copy.
    #[error(
        "this data directory is a copy of {id}: if the original is used as well, its identities sign contradictions and lose everything"
    )]
    Copied {
        /// The directory.
        id: String,
    },
    /// The database lacks changes that it once had.
    #[error("{} lacks changes it had: {recorded} were recorded, {found} are there; it was truncated or replaced by an older copy", .database.folder())]
    Behind {
        /// Which database.
        database: Database,
        /// Changes known to have been written.
        recorded: u64,
        /// Changes there are.
        found: u64,
    },
}

/// What the system says when it is not the data's fault.
fn is_out_of_reach(message: &str) -> bool {
    ["No space left", "Permission denied", "Too many open files", "Read-only file system", "Disk quota"]
        .iter()
        .any(|words| message.contains(words))
}

fn list(differences: &[Difference]) -> String {
    differences.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl StoreError {
    /// A record that is not what was written.
    pub fn damaged(family: Family, key: &[u8], what: impl Into<String>) -> Self {
        Self::Damaged { family, key: key.to_vec(), what: what.into() }
    }

    /// A record that does not decode.
    pub fn decode(family: Family, key: &[u8]) -> impl FnOnce(DecodeError) -> Self {
        move |error| Self::damaged(family, key, error.to_string())
    }

    /// Whether the data is invalid, rather than out of reach.
    pub fn is_data(&self) -> bool {
        match self {
            // RocksDB says "IO error" for files that are missing as well as for disks that are full
            Self::Rocks(error) => !is_out_of_reach(error.as_ref()),
            Self::Io { .. } | Self::Locked { .. } | Self::NoDataDir { .. } | Self::OtherNetwork(_) | Self::Encode(_) => false,
            _ => true,
        }
    }

    /// What to do about it.
    pub fn advice(&self) -> Option<&'static str> {
        Some(match self {
            Self::Rocks(error) if is_out_of_reach(error.as_ref()) => return None,
            Self::Rocks(_) | Self::Damaged { .. } | Self::File { .. } => {
                "`smesh-node db check` lists the damage; restore a backup, then `smesh-node db adopt`"
            }
            Self::OtherNetwork(differences) if differences.iter().any(Difference::is_genesis) => {
                "give the preset of this directory's network, or another directory"
            }
            Self::OtherNetwork(_) => "if the network itself changed its parameters, record them with `smesh-node db rebind`",
            Self::Copied { .. } | Self::Behind { .. } => {
                "make sure that nothing else uses the original or the newer data, then run `smesh-node db adopt`: it bars the \
                 identities from signing for layers and epochs that have begun"
            }
            Self::OtherDirectory { .. } => "put back the database of this directory",
            _ => return None,
        })
    }
}
