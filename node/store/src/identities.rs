//! The keys in a node's directory (activation.md section 10).
//!
//! Every file `*.key` directly in `identities/` is one. A single `local.key` belongs to a node that runs its own proving
//! service; other names, one or several, belong to identities whose proving services connect from elsewhere.

use std::{
    fs,
    path::{Path, PathBuf},
};

use proto::{
    ids::NodeId,
    keys::{IdentityKey, KeyFileError},
};

/// The name of the key of a node with its own proving service.
pub const LOCAL: &str = "local.key";

/// A key with the name of its file.
#[derive(Debug)]
pub struct Named {
    /// File name with `.key`.
    pub name: String,
    /// The key.
    pub key: IdentityKey,
}

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentitiesError {
    /// The folder cannot be read.
    #[error("{path}: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A key file cannot be read or written.
    #[error("{path}: {source}")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: KeyFileError,
    },
    /// Two files hold the same key.
    #[error("{first} and {second} are the same identity {id}")]
    Twice {
        /// One file.
        first: String,
        /// The other.
        second: String,
        /// Whose key they hold.
        id: NodeId,
    },
    /// `local.key` beside other keys.
    #[error(
        "local.key must be the only key, there is also {other}: give it another name if its proving service is to connect from elsewhere"
    )]
    LocalAmongOthers {
        /// Another key.
        other: String,
    },
    /// A name that is no plain file name.
    #[error("{0:?} is no name for a key")]
    Name(String),
}

/// All keys of a folder by ascending name; an empty folder has none.
pub fn read(folder: &Path) -> Result<Vec<Named>, IdentitiesError> {
    let failed = |source| IdentitiesError::Folder { path: folder.to_owned(), source };
    let mut found: Vec<Named> = Vec::new();
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        // what a link points to counts
        if path.is_file() && path.extension().is_some_and(|end| end == "key") {
            names.push(path);
        }
    }
    names.sort();
    for path in names {
        let key = IdentityKey::read(&path).map_err(|source| IdentitiesError::Key { path: path.clone(), source })?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(first) = found.iter().find(|other| other.key.node_id() == key.node_id()) {
            return Err(IdentitiesError::Twice { first: first.name.clone(), second: name, id: key.node_id() });
        }
        found.push(Named { name, key });
    }
    allowed(&found)?;
    Ok(found)
}

fn allowed(keys: &[Named]) -> Result<(), IdentitiesError> {
    match keys.iter().find(|named| named.name != LOCAL) {
        Some(other) if keys.iter().any(|named| named.name == LOCAL) => {
            Err(IdentitiesError::LocalAmongOthers { other: other.name.clone() })
        }
        _ => Ok(()),
    }
}

/// Adds a key under a name, with or without `.key`; a folder never gets one that would keep a node from starting.
pub fn add(folder: &Path, name: &str, key: IdentityKey) -> Result<Named, IdentitiesError> {
    let name = format!("{}.key", name.strip_suffix(".key").unwrap_or(name));
    let plain = name.len() <= 100 && !name.starts_with('.') && name.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c));
    if !plain {
        return Err(IdentitiesError::Name(name));
    }
    let mut keys = read(folder)?;
    if let Some(first) = keys.iter().find(|other| other.key.node_id() == key.node_id()) {
        return Err(IdentitiesError::Twice { first: first.name.clone(), second: name, id: key.node_id() });
    }
    let path = folder.join(&name);
    keys.push(Named { name, key });
    allowed(&keys)?;
    let failed = |source| IdentitiesError::Key { path: path.clone(), source };
    let named = keys.pop().unwrap_or_else(|| unreachable!("one was added"));
    named.key.write_new(&path).map_err(failed)?;
    let sync = fs::File::open(folder).and_then(|folder| folder.sync_all());
    sync.map_err(|source| IdentitiesError::Folder { path: folder.to_owned(), source })?;
    Ok(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> IdentityKey {
        IdentityKey::from_seed(&[n; 32])
    }

    #[test]
    fn keys_are_those_a_node_would_take() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).unwrap().is_empty());
        assert!(matches!(read(&dir.path().join("none")), Err(IdentitiesError::Folder { .. })));
        add(dir.path(), "b", key(1)).unwrap();
        add(dir.path(), "a.key", key(2)).unwrap();
        fs::write(dir.path().join("notes.txt"), "no key").unwrap();
        fs::create_dir(dir.path().join("old.key")).unwrap();
        let names: Vec<_> = read(dir.path()).unwrap().into_iter().map(|named| named.name).collect();
        assert_eq!(names, ["a.key", "b.key"]);
        assert!(matches!(add(dir.path(), "c", key(1)), Err(IdentitiesError::Twice { .. })));
        assert!(matches!(add(dir.path(), "a", key(3)), Err(IdentitiesError::Key { .. })));
        assert!(matches!(add(dir.path(), "local", key(3)), Err(IdentitiesError::LocalAmongOthers { .. })));
        for bad in ["", "../x", "a/b", ".hidden", &"x".repeat(200)] {
            assert!(matches!(add(dir.path(), bad, key(3)), Err(IdentitiesError::Name(_))), "{bad}");
        }
        assert_eq!(read(dir.path()).unwrap().len(), 2);
        key(1).write_new(&dir.path().join("twin.key")).unwrap();
        assert!(matches!(read(dir.path()), Err(IdentitiesError::Twice { .. })));
        fs::write(dir.path().join("twin.key"), "x").unwrap();
        assert!(matches!(read(dir.path()), Err(IdentitiesError::Key { .. })));
    }

    #[test]
    fn a_local_key_stands_alone() {
        let dir = tempfile::tempdir().unwrap();
        add(dir.path(), "local", key(1)).unwrap();
        assert!(matches!(add(dir.path(), "b", key(2)), Err(IdentitiesError::LocalAmongOthers { .. })));
        assert_eq!(read(dir.path()).unwrap().len(), 1);
    }
}
