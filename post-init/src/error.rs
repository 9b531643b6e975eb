//! Everything that can go wrong, with the exit code and the advice that go with it.

use std::{io, path::PathBuf};

use kernels::label::DeviceError;
use proto::{
    ids::NodeId,
    keys::KeyFileError,
    post::{LayoutError, MetadataError, NoThreshold, UnitsOutOfRange},
};

use crate::storage::is_full;

/// Why a task did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line asks for something that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// What was asked for and what the directory holds differ.
    #[error("{what} differs in {place}: there it is {found}, asked for was {wanted}", place = place.display())]
    Mismatch {
        /// Name of the value.
        what: &'static str,
        /// Where it is recorded.
        place: PathBuf,
        /// The recorded value.
        found: String,
        /// The value asked for.
        wanted: String,
    },
    /// The number of units is not allowed on this network.
    #[error(transparent)]
    Units(#[from] UnitsOutOfRange),
    /// The sizes describe no data.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Too few labels for a VRF nonce.
    #[error(transparent)]
    Threshold(#[from] NoThreshold),
    /// There is no data where data was expected.
    #[error("no PoST data in {place}: {why}", place = place.display())]
    NoData {
        /// The directory.
        place: PathBuf,
        /// What is missing.
        why: &'static str,
    },
    /// The metadata file (or the side file) cannot be understood.
    #[error("cannot read {place}: {source}", place = path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: MetadataError,
    },
    /// The side file cannot be understood.
    #[error("cannot read {place}: {why}", place = path.display())]
    SideFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Labels on disk are not those of this identity, commitment and N.
    #[error("{place}: label {index} is {found}, but this identity, commitment and N = {scrypt_n} give {expected}", place = path.display())]
    WrongLabel {
        /// The file.
        path: PathBuf,
        /// Index of the label.
        index: u64,
        /// Hex of what is on disk.
        found: String,
        /// Hex of what should be there.
        expected: String,
        /// The N in force.
        scrypt_n: u32,
    },
    /// One file number in two directories.
    #[error("file {name} exists twice: in {first} and in {second}", first = first.display(), second = second.display())]
    Twice {
        /// Name of the file.
        name: String,
        /// One directory.
        first: PathBuf,
        /// The other directory.
        second: PathBuf,
    },
    /// Data was checked and is not all right; the findings have been reported.
    #[error("{0}")]
    BadData(String),
    /// A key file cannot be used.
    #[error("key file {place}: {source}", place = path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: KeyFileError,
    },
    /// The system refused something.
    #[error("cannot {action} {place}: {source}", place = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// Another process works on the directory.
    #[error("{place} is in use by another process", place = dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The disk is full and waiting was not wanted.
    #[error("no space left for {place}: {missing} more bytes are needed", place = dir.display())]
    NoSpace {
        /// The directory.
        dir: PathBuf,
        /// How many bytes are missing.
        missing: u64,
    },
    /// A device failed.
    #[error("device {device}: {source}")]
    Device {
        /// Name of the device.
        device: String,
        /// What happened.
        source: DeviceError,
    },
    /// A device made a wrong label; nothing of its batch was used.
    #[error("device {device} computed label {index} as {found}, the reference says {expected}")]
    WrongResult {
        /// Name of the device.
        device: String,
        /// Index of the label.
        index: u64,
        /// Hex of the device's label.
        found: String,
        /// Hex of the reference label.
        expected: String,
    },
    /// All devices failed for good or are not trusted any more.
    #[error("no device is left to compute on ({0})")]
    NoDeviceLeft(String),
    /// A backend was asked for that reaches no device here.
    #[error("--backend {backend} reaches no device of this machine: {why}")]
    NoBackend {
        /// The backend.
        backend: &'static str,
        /// What is missing.
        why: String,
        /// What to do about it.
        advice: String,
    },
    /// Deleting was not confirmed.
    #[error("not confirmed: type the identity {0} (or pass it with --confirm) to go on; nothing was deleted")]
    NotConfirmed(NodeId),
    /// Interrupted by Ctrl-C or SIGTERM; everything done so far is on disk.
    #[error("interrupted; what is done is saved")]
    Stopped,
}

impl Error {
    /// The documented exit code: 1 failed, 2 bad usage or configuration, 3 data invalid, 4 interrupted and resumable.
    pub fn exit_code(&self) -> u8 {
        match self {
            // A disk can be full for other files than labels, too.
            Self::Io { source, .. } | Self::Key { source: KeyFileError::Io(source), .. } if is_full(source) => 4,
            Self::Usage(_)
            | Self::NoBackend { .. }
            | Self::Mismatch { .. }
            | Self::Units(_)
            | Self::Layout(_)
            | Self::Threshold(_)
            | Self::Key { .. }
            | Self::NotConfirmed(_) => 2,
            Self::NoData { .. }
            | Self::Metadata { .. }
            | Self::SideFile { .. }
            | Self::WrongLabel { .. }
            | Self::Twice { .. }
            | Self::BadData(_) => 3,
            Self::Io { .. } | Self::InUse { .. } | Self::Device { .. } | Self::WrongResult { .. } | Self::NoDeviceLeft(_) => 1,
            Self::NoSpace { .. } | Self::Stopped => 4,
        }
    }

    /// A short name for machines.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Usage(_) => "usage",
            Self::Mismatch { .. } => "mismatch",
            Self::Units(_) => "units-out-of-range",
            Self::Layout(_) => "sizes",
            Self::Threshold(_) => "too-few-labels",
            Self::NoData { .. } => "no-data",
            Self::Metadata { .. } => "metadata",
            Self::SideFile { .. } => "side-file",
            Self::WrongLabel { .. } => "wrong-label",
            Self::Twice { .. } => "file-twice",
            Self::BadData(_) => "bad-data",
            Self::Key { .. } => "key-file",
            Self::Io { .. } => "io",
            Self::InUse { .. } => "in-use",
            Self::NoSpace { .. } => "no-space",
            Self::Device { .. } => "device",
            Self::WrongResult { .. } => "wrong-result",
            Self::NoDeviceLeft(_) => "no-device-left",
            Self::NoBackend { .. } => "no-backend",
            Self::NotConfirmed(_) => "not-confirmed",
            Self::Stopped => "stopped",
        }
    }

    /// What the user can do about it, where there is something to say.
    pub fn advice(&self) -> Option<&str> {
        Some(match self {
            Self::Mismatch { .. } => {
                "Nothing was changed. Use another directory, or leave the flag away to go on with what is recorded there."
            }
            Self::Metadata { source: MetadataError::Empty | MetadataError::Truncated(_), .. } => {
                "Nothing was changed. Pass --node-id, --commitment-atx-id, --num-units, --labels-per-unit and --max-file-size of this \
                 data to `post-init init`: they are checked against the labels on disk, then the file is written again."
            }
            Self::Metadata { .. } | Self::SideFile { .. } => {
                "Nothing was changed. If the file was edited by hand, undo that; if it is beyond repair, move it away and pass \
                 --node-id, --commitment-atx-id, --num-units, --labels-per-unit, --max-file-size and --scrypt-n to `post-init init`: \
                 they are checked against the labels on disk."
            }
            Self::NoData { .. } => "Check --data-dir.",
            Self::WrongLabel { .. } => {
                "Nothing was changed. Either this file belongs to other data (move it away) or --scrypt-n is not the N it was made \
                 with, or the disk damaged it (`post-init repair` computes wrong labels again)."
            }
            Self::Twice { .. } => "Nothing was changed. Compare the two and move one of them away.",
            Self::InUse { .. } => "Wait for it or stop it; `post-init status` can be used meanwhile.",
            Self::Io { source, .. } | Self::Key { source: KeyFileError::Io(source), .. } if is_full(source) => {
                "The disk is full. Make room and run the same command again."
            }
            Self::NoSpace { .. } => "What is done is saved. Make room (or add a --data-dir) and run the same command again.",
            Self::Stopped => "Run the same command again to go on.",
            Self::WrongResult { .. } => {
                "Nothing wrong was written. The hardware is unstable (overclocking, heat, memory): have it tested before you go on."
            }
            Self::NoBackend { advice, .. } => advice,
            Self::NoDeviceLeft(_) => {
                "What is done is saved. See to the devices and run the same command again, or go on with --backend cpu."
            }
            Self::Device { source: DeviceError::OutOfMemory { .. }, .. } => {
                "Use fewer threads (--cpu-threads) or a backend with fewer labels in flight (--cpu-isa portable)."
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "Check the owner and the permissions of the directory and its files."
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                "The file system is mounted read-only; after a disk error the system does that by itself: look at its log."
            }
            _ => return None,
        })
    }
}

/// Attaches to an I/O error what was tried and where.
pub(crate) trait IoContext<T> {
    fn context(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T, Error>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn context(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T, Error> {
        self.map_err(|source| Error::Io { action, path: path.into(), source })
    }
}
