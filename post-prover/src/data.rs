//! The data of one identity: its metadata, and which file of which directory holds which labels.
//!
//! [`DataSet::open`] looks at everything that can be looked at without reading labels, so that a missing or short file is found
//! before any work is spent on it. Files are known by the number in their name; their labels may be spread over several
//! directories.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use proto::{
    ids::Commitment,
    post::{LABEL_BYTES, Layout, LayoutError, METADATA_FILE, Metadata, MetadataError, commitment, file_name},
};

use crate::disk::disks_of;

/// Why data cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// No directory was given.
    #[error("no data directory given")]
    NoDirectory,
    /// None of the directories has metadata.
    #[error("no {METADATA_FILE} in {}", join(.0))]
    NoMetadata(Vec<PathBuf>),
    /// The metadata cannot be understood.
    #[error("{}: {source}", path.display())]
    Metadata {
        /// The metadata file.
        path: PathBuf,
        /// What is wrong with it.
        source: MetadataError,
    },
    /// Two directories describe different data.
    #[error("{} and {} describe different data", first.display(), second.display())]
    Different {
        /// A metadata file.
        first: PathBuf,
        /// Another one.
        second: PathBuf,
    },
    /// The metadata describes no data.
    #[error("{}: {source}", path.display())]
    Layout {
        /// The metadata file.
        path: PathBuf,
        /// What is wrong with it.
        source: LayoutError,
    },
    /// Labels would straddle files.
    #[error("{}: MaxFileSize {size} is not a multiple of {LABEL_BYTES}", path.display())]
    FileSize {
        /// The metadata file.
        path: PathBuf,
        /// What it says.
        size: u64,
    },
    /// A data file is in none of the directories.
    #[error("{name} is missing: it is not in {}", join(dirs))]
    Missing {
        /// Name of the file.
        name: String,
        /// Where it was looked for.
        dirs: Vec<PathBuf>,
    },
    /// The same file is in two directories.
    #[error("{} and {} are the same part of the data: remove one of them", first.display(), second.display())]
    Twice {
        /// One.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A data file ends too early.
    #[error("{} has {found} bytes of {expected}", path.display())]
    Short {
        /// The file.
        path: PathBuf,
        /// Bytes it must have.
        expected: u64,
        /// Bytes it has.
        found: u64,
    },
    /// A file or directory cannot be read.
    #[error("failed to read {}: {source}", path.display())]
    Io {
        /// What could not be read.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn join(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Complete data of an identity.
#[derive(Debug, Clone)]
pub struct DataSet {
    metadata: Metadata,
    layout: Layout,
    dirs: Vec<PathBuf>,
    files: Vec<Place>,
    disks: Vec<String>,
}

/// Where a file lies.
#[derive(Debug, Clone)]
struct Place {
    path: PathBuf,
    /// Position of the disk's name.
    disk: usize,
}

impl DataSet {
    /// Finds the metadata and all files, and checks that each can be opened and is long enough. Longer ones are read as far as
    /// their labels go.
    pub fn open(dirs: &[PathBuf]) -> Result<Self, DataError> {
        Self::open_on(dirs, &[])
    }

    /// As [`DataSet::open`]; `names` says which disks the directories lie on (see [`disks_of`]).
    pub fn open_on(dirs: &[PathBuf], names: &[String]) -> Result<Self, DataError> {
        let metadata = read_metadata(dirs)?;
        let (path, metadata) = metadata;
        let layout = metadata.layout().map_err(|source| DataError::Layout { path: path.clone(), source })?;
        if !metadata.max_file_size.is_multiple_of(LABEL_BYTES) {
            return Err(DataError::FileSize { path, size: metadata.max_file_size });
        }
        let of_dirs = disks_of(dirs, names).map_err(|source| DataError::Io { path: path.clone(), source })?;
        let mut disks = of_dirs.clone();
        disks.sort();
        disks.dedup();
        let mut files = Vec::new();
        for file in 0..layout.file_count() {
            let (path, dir) = find_file(dirs, file, layout.file_bytes(file))?;
            let disk = disks.binary_search(&of_dirs[dir]).unwrap_or_default();
            files.push(Place { path, disk });
        }
        Ok(Self { metadata, layout, dirs: dirs.to_vec(), files, disks })
    }

    /// The metadata.
    pub const fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// How labels are spread over files.
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The directories.
    pub fn dirs(&self) -> &[PathBuf] {
        &self.dirs
    }

    /// Where a file lies. The file must exist.
    pub fn file(&self, file: u64) -> Option<&Path> {
        self.files.get(usize::try_from(file).ok()?).map(|place| place.path.as_path())
    }

    /// Names of the disks of the directories, sorted.
    pub fn disks(&self) -> &[String] {
        &self.disks
    }

    /// The files that lie on a disk, given as its position in [`DataSet::disks`]: their numbers, ascending, and where they are.
    pub fn files_on(&self, disk: usize) -> impl Iterator<Item = (u64, &Path)> {
        (0..).zip(&self.files).filter(move |(_, place)| place.disk == disk).map(|(file, place)| (file, place.path.as_path()))
    }

    /// What the labels are bound to.
    pub fn commitment(&self) -> Commitment {
        commitment(&self.metadata.node_id, &self.metadata.commitment_atx_id)
    }
}

/// The metadata found in the directories and the first file it was found in; all of them must agree on what the data is.
pub fn read_metadata(dirs: &[PathBuf]) -> Result<(PathBuf, Metadata), DataError> {
    if dirs.is_empty() {
        return Err(DataError::NoDirectory);
    }
    let mut found: Option<(PathBuf, Metadata)> = None;
    for dir in dirs {
        let path = dir.join(METADATA_FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound && dir.is_dir() => continue,
            Err(source) => return Err(DataError::Io { path, source }),
        };
        let metadata = Metadata::from_json(&text).map_err(|source| DataError::Metadata { path: path.clone(), source })?;
        let identity = |m: &Metadata| (m.node_id, m.commitment_atx_id, m.labels_per_unit, m.num_units, m.max_file_size);
        match &mut found {
            None => found = Some((path, metadata)),
            Some((_, first)) if identity(first) == identity(&metadata) => first.nonce = first.nonce.or(metadata.nonce),
            Some((first, _)) => return Err(DataError::Different { first: first.clone(), second: path }),
        }
    }
    found.ok_or_else(|| DataError::NoMetadata(dirs.to_vec()))
}

/// The file of that number and the position of its directory.
fn find_file(dirs: &[PathBuf], file: u64, expected: u64) -> Result<(PathBuf, usize), DataError> {
    let name = file_name(file);
    let mut found: Option<(PathBuf, usize)> = None;
    for (position, dir) in dirs.iter().enumerate() {
        let path = dir.join(&name);
        // Opened, so that what may not be read is known now.
        let meta = match fs::File::open(&path).and_then(|file| file.metadata()) {
            Ok(meta) if meta.is_file() => meta,
            Ok(_) => return Err(DataError::Io { path, source: io::Error::other("not a file") }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(DataError::Io { path, source }),
        };
        if let Some((first, _)) = found {
            return Err(DataError::Twice { first, second: path });
        }
        if meta.len() < expected {
            return Err(DataError::Short { path, expected, found: meta.len() });
        }
        found = Some((path, position));
    }
    found.ok_or_else(|| DataError::Missing { name, dirs: dirs.to_vec() })
}
