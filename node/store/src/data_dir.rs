//! The directory of a node: one process, one network (p2p-sync.md section 19).
//!
//! ```text
//! <data>/  0700
//!   LOCK                    held while a program uses the directory
//!   genesis.json            genesis time, extra data, accounts, as the official node writes it
//!   data-dir.json           the id of this directory
//!   state/  state.mark      what the network knows
//!   local/  local.mark      what only this node knows
//!   identities/*.key
//! ```
//!
//! A directory is made step by step; after a crash the next program goes on where the first one stopped. The databases know to
//! which directory, file of its id (by inode) and network they belong.

use std::{
    fs::{self, File, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use proto::{
    genesis::{Genesis, UnixSeconds},
    preset::{Binding, Difference, Network},
    span::Span,
};
use serde::{Deserialize, Serialize};

use crate::{
    StoreError,
    engine::{Batch, Durability, Engine, Read as _},
    files::{io_error, private_folder, private_options, read, replace},
    guard::{Bar, Guard},
    marked::Marked,
    schema::{BINDING, DIRECTORY, Database, Family, SCHEMA, Schema},
};

/// `genesis.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GenesisFile {
    genesis_time: String,
    extra_data: String,
    accounts: std::collections::BTreeMap<String, u64>,
}

/// `data-dir.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct IdFile {
    id: String,
}

/// What the databases know of the directory they lie in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    id: [u8; 16],
    /// Of `data-dir.json`; a copy has another one. 0 where files have none.
    inode: u64,
}

impl Place {
    fn to_bytes(&self) -> Vec<u8> {
        [&self.id[..], &self.inode.to_be_bytes()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (id, inode) = bytes.split_at_checked(16)?;
        Some(Self { id: id.try_into().ok()?, inode: u64::from_be_bytes(inode.try_into().ok()?) })
    }
}

/// A network and the time of its birth.
#[derive(Debug, Clone)]
pub struct Born {
    /// The network.
    pub network: Network,
    /// When it was born.
    pub genesis_time: UnixSeconds,
}

impl Born {
    /// What its nodes agree on.
    pub fn binding(&self) -> Binding {
        Binding::new(&self.network, self.genesis_time)
    }
}

/// How a directory is opened.
#[derive(Debug, Clone)]
pub enum Open {
    /// For a network; the directory is made if there is none.
    For(Born),
    /// Whatever network it belongs to.
    Existing,
    /// For a network that changed its parameters; they are recorded. The genesis must be the same.
    Rebind(Born),
    /// Although it is a copy, or lacks changes that it once had.
    Adopt,
}

/// The directory of a node. It is locked until this and all handles of its databases are dropped.
pub struct DataDir {
    path: PathBuf,
    state: Arc<Marked>,
    local: Arc<Marked>,
    guard: Arc<Guard>,
    genesis: Genesis,
    binding: Binding,
}

impl std::fmt::Debug for DataDir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DataDir({})", self.path.display())
    }
}

impl DataDir {
    /// Opens or makes a directory.
    pub fn open(path: &Path, how: &Open) -> Result<Self, StoreError> {
        Self::open_as(path, how, &Schema::NOW)
    }

    /// The same with another format of the databases.
    pub fn open_as(path: &Path, how: &Open, schema: &Schema) -> Result<Self, StoreError> {
        let born = match how {
            Open::For(born) | Open::Rebind(born) => Some(born),
            Open::Existing | Open::Adopt => None,
        };
        match how {
            Open::For(_) => private_folder(path)?,
            _ if path.join(ID_FILE).is_file() => {}
            _ => return Err(StoreError::NoDataDir { path: path.to_owned() }),
        }
        let lock = Arc::new(lock(path)?);
        if let Some(born) = born {
            check_genesis(path, born)?;
        }
        let adopt = matches!(how, Open::Adopt);
        let place = place(path)?;
        let open = |database| Marked::open(path, database, born.is_some(), adopt, &lock).map(Arc::new);
        let (state, local) = (open(Database::State)?, open(Database::Local)?);
        let mut bound = None;
        for (engine, database) in [(&state, Database::State), (&local, Database::Local)] {
            settle(engine, database, &place, born, schema)?;
            check_place(engine, database, &place, adopt)?;
            let found = engine.get(Family::Meta, BINDING)?;
            let found = found.ok_or_else(|| StoreError::damaged(Family::Meta, BINDING, "missing"))?;
            let found: Binding =
                serde_json::from_slice(&found).map_err(|e| StoreError::damaged(Family::Meta, BINDING, e.to_string()))?;
            if let Some(born) = born {
                let differences = found.differences(&born.binding());
                let genesis = differences.iter().any(Difference::is_genesis);
                if !differences.is_empty() && (genesis || matches!(how, Open::For(_))) {
                    return Err(StoreError::OtherNetwork(differences));
                }
                if !differences.is_empty() {
                    let mut batch = Batch::default();
                    batch.put(Family::Meta, BINDING, binding_bytes(&born.binding()));
                    engine.write(&batch, Durability::Power)?;
                }
            }
            bound = Some(born.map_or(found, Born::binding));
        }
        let binding = bound.unwrap_or_else(|| unreachable!("there are two databases"));
        let genesis = genesis(&binding)?;
        let guard = Arc::new(Guard::new(local.clone(), genesis.id()));
        Ok(Self { path: path.to_owned(), state, local, guard, genesis, binding })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the network knows.
    pub fn state(&self) -> &Arc<Marked> {
        &self.state
    }

    /// What only this node knows.
    pub fn local(&self) -> &Arc<Marked> {
        &self.local
    }

    /// The network it belongs to.
    pub fn binding(&self) -> &Binding {
        &self.binding
    }

    /// The epoch and layer of that network at a moment; none before its genesis (p2p-sync.md section 16.1).
    pub fn at(&self, now: UnixSeconds) -> Result<Option<Bar>, StoreError> {
        let damaged = |key: &str| StoreError::damaged(Family::Meta, BINDING, format!("{key} is missing or not usable"));
        let value = |key: &str| self.binding.get(key).ok_or_else(|| damaged(key));
        let (duration, layers) = ("main.layer-duration", "main.layers-per-epoch");
        let span: Span = value(duration)?.parse().map_err(|_| damaged(duration))?;
        let layers: u32 = value(layers)?.parse().map_err(|_| damaged(layers))?;
        let since = i128::from(now.0) - i128::from(self.genesis.unix_time.0);
        let Ok(since) = u128::try_from(since) else { return Ok(None) };
        let layer = (since * 1_000_000_000).checked_div(span.0.as_nanos()).ok_or_else(|| damaged(duration))?;
        let layer = u32::try_from(layer).unwrap_or(u32::MAX);
        let epoch = layer.checked_div(layers).ok_or_else(|| damaged("main.layers-per-epoch"))?;
        Ok(Some(Bar { epoch, layer }))
    }

    /// The genesis of that network.
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// The guard over what the identities of this directory sign.
    pub fn guard(&self) -> &Arc<Guard> {
        &self.guard
    }

    /// The folder of the identities' keys.
    pub fn identities(&self) -> Result<PathBuf, StoreError> {
        let folder = self.path.join("identities");
        private_folder(&folder)?;
        Ok(folder)
    }

    /// Copies databases and genesis to a folder that must not exist, without stopping anything.
    ///
    /// The keys are not copied. The copy is marked by the fact that it is one: it opens only after it was adopted.
    pub fn backup(&self, folder: &Path) -> Result<(), StoreError> {
        fs::DirBuilder::new().create(folder).map_err(io_error(folder))?;
        for (engine, database) in [(&self.state, Database::State), (&self.local, Database::Local)] {
            engine.rocks().backup(&folder.join(database.folder()))?;
        }
        for name in [GENESIS_FILE, ID_FILE] {
            if let Some(content) = read(&self.path.join(name))? {
                replace(&folder.join(name), &content)?;
            }
        }
        Ok(())
    }
}

fn genesis(binding: &Binding) -> Result<Genesis, StoreError> {
    let value = |key| {
        let missing = || StoreError::damaged(Family::Meta, BINDING, format!("{key} is missing"));
        binding.get(key).ok_or_else(missing)
    };
    let time = value("genesis.genesis-time")?;
    let unix_time = time.parse().map_err(|e| StoreError::damaged(Family::Meta, BINDING, format!("{time:?}: {e}")))?;
    Ok(Genesis { unix_time, extra_data: value("genesis.genesis-extra-data")?.to_owned() })
}

const LOCK_FILE: &str = "LOCK";
const GENESIS_FILE: &str = "genesis.json";
const ID_FILE: &str = "data-dir.json";

/// Takes the directory for this process. The lock ends with the process, however that ends.
fn lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join(LOCK_FILE);
    let opened = private_options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = opened.map_err(io_error(&path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let read = file.take(20).read_to_string(&mut text).is_ok() && !text.is_empty();
            let holder = if read { format!(": process {} has it", text.trim()) } else { String::new() };
            return Err(StoreError::Locked { path: folder.to_owned(), holder });
        }
        Err(TryLockError::Error(source)) => return Err(StoreError::Io { path, source }),
    }
    // for people only
    let write = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
    write.map_err(io_error(&path))?;
    Ok(file)
}

/// Writes `genesis.json`, or compares it.
fn check_genesis(folder: &Path, born: &Born) -> Result<(), StoreError> {
    let path = folder.join(GENESIS_FILE);
    let genesis = &born.network.genesis;
    let asked = GenesisFile {
        genesis_time: born.genesis_time.to_string(),
        extra_data: genesis.genesis_extra_data.clone(),
        accounts: genesis.accounts.clone(),
    };
    let Some(content) = read(&path)? else {
        let content = serde_json::to_vec_pretty(&asked).unwrap_or_default();
        return replace(&path, &content);
    };
    let damaged = |e: serde_json::Error| StoreError::File { path: path.clone(), what: e.to_string() };
    let bound: GenesisFile = serde_json::from_slice(&content).map_err(damaged)?;
    // the official node may have written another form of the same moment
    let time = |text: &str| text.parse::<UnixSeconds>().map_or_else(|_| text.to_owned(), |time| time.to_string());
    let accounts = |file: &GenesisFile| serde_json::to_string(&file.accounts).unwrap_or_default();
    let compared = [
        ("genesis.genesis-time", time(&bound.genesis_time), time(&asked.genesis_time)),
        ("genesis.genesis-extra-data", bound.extra_data.clone(), asked.extra_data.clone()),
        ("genesis.accounts", accounts(&bound), accounts(&asked)),
    ];
    let different = compared.into_iter().filter(|(_, bound, asked)| bound != asked);
    let differences: Vec<_> =
        different.map(|(key, bound, asked)| Difference { key: key.to_owned(), bound: Some(bound), asked: Some(asked) }).collect();
    if differences.is_empty() { Ok(()) } else { Err(StoreError::OtherNetwork(differences)) }
}

/// The id of the directory, made if there is none and no database either.
fn place(folder: &Path) -> Result<Place, StoreError> {
    let path = folder.join(ID_FILE);
    let damaged = |what: &str| StoreError::File { path: path.clone(), what: what.to_owned() };
    if read(&path)?.is_none() {
        let made = Database::ALL.iter().any(|database| folder.join(format!("{}.mark", database.folder())).exists());
        if made {
            return Err(damaged("it is missing, but there are databases"));
        }
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|e| damaged(&format!("no random bytes from the system: {e}")))?;
        let content = serde_json::to_vec(&IdFile { id: hex::encode(id) }).unwrap_or_default();
        replace(&path, &content)?;
    }
    let content = read(&path)?.unwrap_or_default();
    let file: IdFile = serde_json::from_slice(&content).map_err(|e| damaged(&e.to_string()))?;
    let mut id = [0; 16];
    hex::decode_to_slice(&file.id, &mut id).map_err(|e| damaged(&e.to_string()))?;
    Ok(Place { id, inode: inode(&path)? })
}

#[cfg(unix)]
fn inode(path: &Path) -> Result<u64, StoreError> {
    Ok(std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).map_err(io_error(path))?))
}

#[cfg(not(unix))]
fn inode(_: &Path) -> Result<u64, StoreError> {
    Ok(0)
}

fn binding_bytes(binding: &Binding) -> Vec<u8> {
    // a map of texts always has a JSON form
    serde_json::to_vec(binding).unwrap_or_default()
}

/// Gives a new database its format, or brings an old one to the present format.
fn settle(engine: &Marked, database: Database, place: &Place, born: Option<&Born>, schema: &Schema) -> Result<(), StoreError> {
    match (engine.get(Family::Meta, SCHEMA)?, born) {
        (Some(found), _) => {
            let found = <[u8; 4]>::try_from(found).map_err(|_| StoreError::damaged(Family::Meta, SCHEMA, "not 4 bytes"))?;
            schema.migrate(engine, database, u32::from_be_bytes(found))
        }
        (None, Some(born)) if engine.sequence() == 0 => {
            let mut batch = Batch::default();
            batch.put(Family::Meta, SCHEMA, schema.version.to_be_bytes());
            batch.put(Family::Meta, BINDING, binding_bytes(&born.binding()));
            batch.put(Family::Meta, DIRECTORY, place.to_bytes());
            engine.write(&batch, Durability::Power)
        }
        (None, _) => Err(StoreError::damaged(Family::Meta, SCHEMA, "missing: this is no database of a node")),
    }
}

/// Whether the database was made here.
fn check_place(engine: &Marked, database: Database, here: &Place, adopt: bool) -> Result<(), StoreError> {
    let found = engine.get(Family::Meta, DIRECTORY)?.as_deref().and_then(Place::from_bytes);
    let found = found.ok_or_else(|| StoreError::damaged(Family::Meta, DIRECTORY, "missing or not 24 bytes"))?;
    if found.id != here.id {
        return Err(StoreError::OtherDirectory { database, found: hex::encode(found.id), expected: hex::encode(here.id) });
    }
    if found.inode != here.inode {
        if !adopt {
            return Err(StoreError::Copied { id: hex::encode(here.id) });
        }
        let mut batch = Batch::default();
        batch.put(Family::Meta, DIRECTORY, here.to_bytes());
        engine.write(&batch, Durability::Power)?;
    }
    Ok(())
}
