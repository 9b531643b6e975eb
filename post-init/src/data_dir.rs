//! The directories that hold the data of one identity: files, metadata, side file, lock.
//!
//! The metadata file is the deployed one (post.md section 6). Beside it stands a side file of ours, [`SIDE_FILE`], with what the
//! deployed format has no place for: N, the other directories, and what a growing identity grows to. It also repeats the fixed
//! part of the metadata, so that a metadata file lost in a crash can be written again.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use proto::{
    ids::{AtxId, NodeId},
    post::{Layout, METADATA_FILE, Metadata, MetadataError, NonceValue, ScryptN, file_name, parse_file_name},
    units::SpaceUnits,
};
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, IoContext as _},
    size::parse_size,
    storage::Storage,
};

/// Name of the side file.
pub const SIDE_FILE: &str = "post-init.json";
/// Name of the lock file; it is empty and stays behind.
pub const LOCK_FILE: &str = "post-init.lock";
/// Name of the key file that is made when no identity was given.
pub const KEY_FILE: &str = "identity.key";
/// Metadata is a few hundred bytes; what is much larger is something else.
const MAX_SMALL_FILE: u64 = 1 << 20;

/// A directory as given on the command line: `DIR` or `DIR,size=8T`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirSpec {
    /// The directory.
    pub path: PathBuf,
    /// Bytes of data files it may hold at most.
    pub cap: Option<u64>,
}

impl FromStr for DirSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err("the name of the directory is empty".to_owned());
        }
        match text.rsplit_once(",size=") {
            Some((path, size)) => Ok(Self { path: path.into(), cap: Some(parse_size(size)?) }),
            None => Ok(Self { path: text.into(), cap: None }),
        }
    }
}

impl fmt::Display for DirSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

/// What a growing identity grows to; the metadata keeps the old, provable number until all labels are there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Units to reach.
    pub num_units: u32,
    /// Smallest label below the new threshold so far.
    pub nonce: Option<u64>,
    /// Hex of that label.
    pub nonce_value: Option<String>,
    /// Where the search beyond the data stands.
    pub last_position: Option<u64>,
}

/// Contents of the side file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideFile {
    /// Version of this format, 1.
    pub version: u32,
    /// Cost parameter of the label function.
    pub scrypt_n: u64,
    /// Hex.
    pub node_id: String,
    /// Hex.
    pub commitment_atx_id: String,
    /// As in the metadata.
    pub labels_per_unit: u64,
    /// As in the metadata.
    pub num_units: u32,
    /// As in the metadata.
    pub max_file_size: u64,
    /// All directories of the identity, absolute; empty when there is only this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub directories: Vec<PathBuf>,
    /// Present while the identity grows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
}

impl SideFile {
    const VERSION: u32 = 1;

    fn parse(text: &[u8]) -> Result<Self, String> {
        let side: Self = serde_json::from_slice(text).map_err(|e| e.to_string())?;
        if side.version > Self::VERSION {
            return Err(format!("version {} is newer than this program; update it", side.version));
        }
        Ok(side)
    }

    /// The cost parameter, checked.
    pub fn n(&self) -> Result<ScryptN, String> {
        ScryptN::new(self.scrypt_n).map_err(|e| e.to_string())
    }

    /// The metadata as far as it is repeated here.
    pub fn to_metadata(&self) -> Result<Metadata, String> {
        Ok(Metadata {
            node_id: self.node_id.parse().map_err(|e| format!("node_id: {e}"))?,
            commitment_atx_id: self.commitment_atx_id.parse().map_err(|e| format!("commitment_atx_id: {e}"))?,
            labels_per_unit: self.labels_per_unit,
            num_units: SpaceUnits(self.num_units),
            max_file_size: self.max_file_size,
            nonce: None,
            nonce_value: None,
            last_position: None,
        })
    }
}

/// Where the metadata that was read comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// From intact metadata files.
    Metadata,
    /// From a side file, because the metadata was empty, cut off or missing: the nonce is unknown.
    SideFile,
}

/// What the small files of all directories say together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The metadata.
    pub metadata: Metadata,
    /// The recorded N; `None` when no program of ours has worked here.
    pub scrypt_n: Option<ScryptN>,
    /// What the identity grows to.
    pub target: Option<Target>,
    /// How good the metadata is.
    pub origin: Origin,
    /// Directory that the metadata was read from.
    pub place: PathBuf,
}

/// A data file that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Position of its directory in [`DataDirs::dirs`].
    pub dir: usize,
    /// Its size.
    pub bytes: u64,
}

/// The directories of one identity.
#[derive(Debug, Clone)]
pub struct DataDirs {
    /// The directories in the order given.
    pub dirs: Vec<DirSpec>,
    /// How files are reached.
    pub storage: Arc<dyn Storage>,
}

/// Held while a task writes; released when dropped or when the process ends in whatever way.
#[derive(Debug)]
pub struct Locks {
    _files: Vec<File>,
}

impl DataDirs {
    /// No directory is touched yet; the same directory twice is refused.
    pub fn new(dirs: Vec<DirSpec>, storage: Arc<dyn Storage>) -> Result<Self, Error> {
        let real = |dir: &DirSpec| fs::canonicalize(&dir.path).unwrap_or_else(|_| dir.path.clone());
        for (i, dir) in dirs.iter().enumerate() {
            if dirs[..i].iter().any(|other| real(other) == real(dir)) {
                return Err(Error::Usage(format!("directory {dir} is given twice")));
            }
        }
        if dirs.is_empty() {
            return Err(Error::Usage("no data directory given".to_owned()));
        }
        Ok(Self { dirs, storage })
    }

    /// Creates missing directories with mode 0700.
    pub fn create(&self) -> Result<(), Error> {
        for dir in &self.dirs {
            if !dir.path.is_dir() {
                let mut builder = fs::DirBuilder::new();
                builder.recursive(true);
                #[cfg(unix)]
                std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
                builder.create(&dir.path).context("create the directory", &dir.path)?;
            }
        }
        Ok(())
    }

    /// Takes the lock of every directory, or none.
    pub fn lock(&self) -> Result<Locks, Error> {
        let mut files = Vec::new();
        for dir in &self.dirs {
            let path = dir.path.join(LOCK_FILE);
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let file = options.open(&path).context("open the lock file", &path)?;
            // `status` looks at the lock by taking it for an instant.
            let mut tries = 5;
            loop {
                match file.try_lock() {
                    Ok(()) => break,
                    Err(TryLockError::WouldBlock) if tries > 0 => std::thread::sleep(Duration::from_millis(40)),
                    Err(TryLockError::WouldBlock) => return Err(Error::InUse { dir: dir.path.clone() }),
                    Err(TryLockError::Error(source)) => return Err(Error::Io { action: "lock", path, source }),
                }
                tries -= 1;
            }
            files.push(file);
        }
        Ok(Locks { _files: files })
    }

    /// Whether another process holds the lock of a directory.
    pub fn in_use(&self) -> bool {
        self.dirs.iter().any(|dir| {
            OpenOptions::new()
                .read(true)
                .open(dir.path.join(LOCK_FILE))
                .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
        })
    }

    /// The data files of all directories by number. Torn tails count as they lie there.
    pub fn files(&self) -> Result<BTreeMap<u64, Found>, Error> {
        let mut files = BTreeMap::<u64, Found>::new();
        for (position, dir) in self.dirs.iter().enumerate() {
            for entry in fs::read_dir(&dir.path).context("read the directory", &dir.path)? {
                let entry = entry.context("read the directory", &dir.path)?;
                let Some(number) = entry.file_name().to_str().and_then(parse_file_name) else { continue };
                // Follows symbolic links: files may live elsewhere.
                let metadata = fs::metadata(entry.path()).context("look at", entry.path())?;
                if !metadata.is_file() {
                    return Err(Error::Io {
                        action: "use",
                        path: entry.path(),
                        source: io::Error::other("it has the name of a data file but is none"),
                    });
                }
                if let Some(other) = files.insert(number, Found { dir: position, bytes: metadata.len() }) {
                    return Err(Error::Twice {
                        name: file_name(number),
                        first: self.dirs[other.dir].path.clone(),
                        second: dir.path.clone(),
                    });
                }
            }
        }
        Ok(files)
    }

    /// Path of a data file in one of the directories.
    pub fn path(&self, dir: usize, file: u64) -> PathBuf {
        self.dirs[dir].path.join(file_name(file))
    }

    /// Path of the metadata in the first directory.
    pub fn metadata_path(&self) -> PathBuf {
        self.dirs[0].path.join(METADATA_FILE)
    }

    /// Reads the small files of all directories and checks that they belong together. `None` when there are none.
    ///
    /// Metadata that is empty, cut off or missing is replaced by what the side file repeats; when there is no side file either,
    /// that is an error as long as `damaged` is not wanted.
    pub fn describe(&self) -> Result<Option<Description>, Error> {
        let mut whole: Option<Description> = None;
        let mut damage = None;
        for dir in &self.dirs {
            let side = read_side_file(&dir.path)?;
            let metadata = match read_metadata(&dir.path) {
                Ok(found) => found,
                // What a crash leaves behind can be mended.
                Err(Error::Metadata { path, source: source @ (MetadataError::Empty | MetadataError::Truncated(_)) }) => {
                    damage = Some(Error::Metadata { path, source });
                    None
                }
                Err(other) => return Err(other),
            };
            let place = dir.path.join(SIDE_FILE);
            let bad_side = |why| Error::SideFile { path: place.clone(), why };
            let (origin, metadata) = match (metadata, &side) {
                (Some(metadata), _) => (Origin::Metadata, metadata),
                (None, Some(side)) => (Origin::SideFile, side.to_metadata().map_err(bad_side)?),
                (None, None) => continue,
            };
            let scrypt_n = side.as_ref().map(|side| side.n().map_err(bad_side)).transpose()?;
            if let (Some(side), Origin::Metadata) = (&side, origin) {
                same_data(&side.to_metadata().map_err(bad_side)?, &metadata, &place)?;
            }
            let target = side.and_then(|side| side.target);
            let next = Description { metadata, scrypt_n, target, origin, place: dir.path.clone() };
            whole = Some(match whole {
                None => next,
                Some(sum) => join(sum, next)?,
            });
        }
        match (whole, damage) {
            (Some(whole), _) => Ok(Some(whole)),
            (None, Some(error)) => Err(error),
            (None, None) => Ok(None),
        }
    }

    /// Writes the metadata into every directory.
    pub fn write_metadata(&self, metadata: &Metadata) -> Result<(), Error> {
        for dir in &self.dirs {
            let path = dir.path.join(METADATA_FILE);
            self.storage.replace(&path, metadata.to_json().as_bytes()).context("write", path)?;
        }
        Ok(())
    }

    /// Writes the side file into every directory.
    pub fn write_side_file(&self, metadata: &Metadata, n: ScryptN, target: Option<&Target>) -> Result<(), Error> {
        let directories = match self.dirs.len() {
            1 => Vec::new(),
            _ => self.dirs.iter().map(|dir| fs::canonicalize(&dir.path).context("find", &dir.path)).collect::<Result<_, _>>()?,
        };
        let side = SideFile {
            version: SideFile::VERSION,
            scrypt_n: n.get().into(),
            node_id: metadata.node_id.to_string(),
            commitment_atx_id: metadata.commitment_atx_id.to_string(),
            labels_per_unit: metadata.labels_per_unit,
            num_units: metadata.num_units.0,
            max_file_size: metadata.max_file_size,
            directories,
            target: target.cloned(),
        };
        let mut text = serde_json::to_vec_pretty(&side).map_err(io::Error::from).context("write", SIDE_FILE)?;
        text.push(b'\n');
        for dir in &self.dirs {
            let path = dir.path.join(SIDE_FILE);
            self.storage.replace(&path, &text).context("write", path)?;
        }
        Ok(())
    }

    /// Directories of this identity that the side files name but that are not among [`dirs`](Self::dirs).
    pub fn forgotten(&self) -> Result<Vec<PathBuf>, Error> {
        let here: Vec<PathBuf> = self.dirs.iter().filter_map(|dir| fs::canonicalize(&dir.path).ok()).collect();
        let named = self.dirs.iter().map(|dir| Ok(read_side_file(&dir.path)?.map(|side| side.directories).unwrap_or_default()));
        let named = named.collect::<Result<Vec<_>, Error>>()?;
        // Each is one of as many as are here: all are, whatever their names were before they were moved.
        if named.iter().all(|names| !names.is_empty() && names.len() <= here.len()) {
            return Ok(Vec::new());
        }
        let mut forgotten = Vec::new();
        for names in named {
            for other in names {
                if !here.contains(&other) && !forgotten.contains(&other) {
                    forgotten.push(other);
                }
            }
        }
        Ok(forgotten)
    }

    /// Refuses to work on a part of the directories of an identity, which would seem to have lost data.
    pub fn refuse_a_part(&self) -> Result<(), Error> {
        let forgotten = self.forgotten()?;
        if forgotten.is_empty() {
            return Ok(());
        }
        let names = forgotten.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        Err(Error::Usage(format!("this identity also has data in {names}: name all its directories with --data-dir")))
    }

    /// Labels a complete file has.
    pub fn wanted(layout: &Layout, file: u64) -> u64 {
        let labels = layout.file_labels(file);
        labels.end - labels.start
    }

    /// Whole labels of a file that are on disk, at most those it should have.
    pub fn whole_labels(files: &BTreeMap<u64, Found>, layout: &Layout, file: u64) -> u64 {
        let found = files.get(&file).map_or(0, |f| f.bytes / proto::post::LABEL_BYTES);
        found.min(Self::wanted(layout, file))
    }
}

fn read_small(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    use io::Read as _;
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Io { action: "open", path: path.to_owned(), source }),
    };
    let mut text = Vec::new();
    file.take(MAX_SMALL_FILE).read_to_end(&mut text).context("read", path)?;
    Ok(Some(text))
}

/// The metadata of one directory.
pub fn read_metadata(dir: &Path) -> Result<Option<Metadata>, Error> {
    let path = dir.join(METADATA_FILE);
    let Some(text) = read_small(&path)? else { return Ok(None) };
    let read = Metadata::from_json(&text).and_then(|metadata| metadata.check_position().map(|()| metadata));
    read.map(Some).map_err(|source| Error::Metadata { path, source })
}

/// The side file of one directory; one that was left empty by a crash counts as absent.
pub fn read_side_file(dir: &Path) -> Result<Option<SideFile>, Error> {
    let path = dir.join(SIDE_FILE);
    let Some(text) = read_small(&path)? else { return Ok(None) };
    if text.iter().all(|byte| *byte == 0 || byte.is_ascii_whitespace()) {
        return Ok(None);
    }
    SideFile::parse(&text).map(Some).map_err(|why| Error::SideFile { path, why })
}

/// Refuses two descriptions that differ in what labels or files depend on.
pub fn same_data(found: &Metadata, wanted: &Metadata, place: &Path) -> Result<(), Error> {
    let differ = |what, found: String, wanted: String| {
        if found == wanted { Ok(()) } else { Err(Error::Mismatch { what, place: place.to_owned(), found, wanted }) }
    };
    differ("the node id", found.node_id.to_string(), wanted.node_id.to_string())?;
    differ("the commitment ATX", found.commitment_atx_id.to_string(), wanted.commitment_atx_id.to_string())?;
    differ("the number of labels per unit", found.labels_per_unit.to_string(), wanted.labels_per_unit.to_string())?;
    differ("the maximum file size", found.max_file_size.to_string(), wanted.max_file_size.to_string())
}

/// One description from two directories of the same identity.
fn join(first: Description, second: Description) -> Result<Description, Error> {
    same_data(&first.metadata, &second.metadata, &first.place)?;
    if let (Some(a), Some(b)) = (first.scrypt_n, second.scrypt_n)
        && a != b
    {
        return Err(Error::Mismatch {
            what: "scrypt N",
            place: first.place,
            found: a.to_string(),
            wanted: format!("{b} (in {})", second.place.display()),
        });
    }
    // A crash between the renames of a growing or shrinking identity leaves two numbers: the smaller one is provable.
    let num_units = first.metadata.num_units.min(second.metadata.num_units);
    let (mut best, other) = match (first.origin, second.origin) {
        (Origin::SideFile, Origin::Metadata) => (second, first),
        _ => (first, second),
    };
    best.metadata.num_units = num_units;
    best.scrypt_n = best.scrypt_n.or(other.scrypt_n);
    best.target = best.target.or(other.target);
    if smaller_nonce(&other.metadata, &best.metadata) {
        best.metadata.nonce = other.metadata.nonce;
        best.metadata.nonce_value = other.metadata.nonce_value;
        best.metadata.last_position = other.metadata.last_position;
    }
    Ok(best)
}

/// Whether the nonce of `a` is to be preferred to the nonce of `b`: a smaller value, of equal ones the lower index.
pub fn smaller_nonce(a: &Metadata, b: &Metadata) -> bool {
    let key = |m: &Metadata| m.nonce.map(|index| (m.nonce_value.unwrap_or(NonceValue::from([0xff; 16])), index));
    match (key(a), key(b)) {
        (Some(a), Some(b)) => a < b,
        (Some(_), None) => true,
        (None, _) => false,
    }
}

/// The ids of a description for people.
pub fn show_ids(node_id: &NodeId, atx: &AtxId) -> String {
    format!("identity {node_id}, commitment ATX {atx}")
}
