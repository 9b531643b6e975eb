//! The server's key (poet.md section 7). It signs nothing today: nodes know the server by its public half.

use std::{fs, io, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

/// The environment variable that may hold the key.
pub const VARIABLE: &str = "POET_PRIVATE_KEY";

/// The key file begins with the length of the key, as servers in use write it.
const LENGTH: [u8; 4] = [0, 0, 0, 64];

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The key file cannot be read or written.
    #[error("the key file {path}: {source}")]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The key file holds something else.
    #[error("the key file {0} is damaged")]
    File(std::path::PathBuf),
    /// The variable holds something else than the base64 of 64 bytes that belong together.
    #[error("{VARIABLE} is not the base64 of a 64-byte private key")]
    Variable,
    /// File and variable hold different keys.
    #[error("{VARIABLE} and the key file {0} hold different keys")]
    Differ(std::path::PathBuf),
    /// There is a key where another one is to be taken over.
    #[error("there is a key already: {0}")]
    Exists(std::path::PathBuf),
    /// No randomness to be had from the system.
    #[error("no random bytes from the system: {0}")]
    Random(String),
}

/// The public key of the server whose data lie in `folder`: from the environment, the file `state.bin`, or newly made. It is
/// written to the file, readable by the owner only.
pub fn load(folder: &Path, variable: Option<Zeroizing<String>>) -> Result<[u8; 32], IdentityError> {
    let path = folder.join("state.bin");
    let io = |source| IdentityError::Io { path: path.clone(), source };
    let stored = match fs::read(&path).map(Zeroizing::new) {
        Ok(bytes) => {
            let key = bytes.strip_prefix(&LENGTH).and_then(parse);
            Some(key.ok_or_else(|| IdentityError::File(path.clone()))?)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(io(error)),
    };
    let given = match variable {
        Some(text) => {
            let bytes = STANDARD.decode(text.trim()).map(Zeroizing::new).map_err(|_| IdentityError::Variable)?;
            Some(parse(&bytes).ok_or(IdentityError::Variable)?)
        }
        None => None,
    };
    let key = match (stored, given) {
        (Some(stored), Some(given)) if stored.to_bytes() != given.to_bytes() => return Err(IdentityError::Differ(path)),
        (Some(stored), _) => return Ok(stored.verifying_key().to_bytes()),
        (None, Some(given)) => given,
        (None, None) => {
            let mut seed = Zeroizing::new([0; 32]);
            getrandom::fill(&mut *seed).map_err(|error| IdentityError::Random(error.to_string()))?;
            SigningKey::from_bytes(&seed)
        }
    };
    let mut bytes = Zeroizing::new(LENGTH.to_vec());
    bytes.extend(Zeroizing::new(key.to_keypair_bytes()).iter());
    write_secret(&path, &bytes).map_err(io)?;
    Ok(key.verifying_key().to_bytes())
}

/// Takes over the key file of another server into `folder`, which must have none.
pub fn adopt(folder: &Path, file: &Path) -> Result<[u8; 32], IdentityError> {
    let io = |path: &Path| {
        let path = path.to_path_buf();
        move |source| IdentityError::Io { path, source }
    };
    let bytes = fs::read(file).map(Zeroizing::new).map_err(io(file))?;
    bytes.strip_prefix(&LENGTH).and_then(parse).ok_or_else(|| IdentityError::File(file.into()))?;
    let path = folder.join("state.bin");
    if path.exists() {
        return Err(IdentityError::Exists(path));
    }
    write_secret(&path, &bytes).map_err(io(&path))?;
    load(folder, None)
}

fn parse(bytes: &[u8]) -> Option<SigningKey> {
    SigningKey::from_keypair_bytes(bytes.try_into().ok()?).ok()
}

fn write_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let temporary = path.with_extension("new");
    let _ = fs::remove_file(&temporary);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vectors() -> serde_json::Value {
        let file: serde_json::Value = serde_json::from_str(include_str!("../testdata/legacy_disk.json")).unwrap();
        file["key_state"].clone()
    }

    #[test]
    fn the_key_of_an_existing_server_is_taken_over() {
        let vectors = vectors();
        let text = |key: &str| vectors[key].as_str().unwrap().to_owned();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("state.bin"), hex::decode(text("bytes")).unwrap()).unwrap();
        assert_eq!(hex::encode(load(dir.path(), None).unwrap()), text("pubkey"));
        let variable = || Some(Zeroizing::new(text("env_POET_PRIVATE_KEY")));
        assert_eq!(hex::encode(load(dir.path(), variable()).unwrap()), text("pubkey"));
        let other = tempfile::tempdir().unwrap();
        load(other.path(), None).unwrap();
        assert!(matches!(load(other.path(), variable()), Err(IdentityError::Differ(_))));
        fs::remove_file(other.path().join("state.bin")).unwrap();
        load(other.path(), variable()).unwrap();
        assert_eq!(hex::encode(fs::read(other.path().join("state.bin")).unwrap()), text("bytes"));
    }

    #[test]
    fn a_new_key_is_kept_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let key = load(dir.path(), None).unwrap();
        assert_eq!(load(dir.path(), None).unwrap(), key);
        let path = dir.path().join("state.bin");
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&fs::metadata(&path).unwrap()) & 0o777, 0o600);
        fs::write(&path, b"short").unwrap();
        assert!(matches!(load(dir.path(), None), Err(IdentityError::File(_))));
        assert!(matches!(load(dir.path(), Some(Zeroizing::new("x".into()))), Err(IdentityError::File(_))));
        fs::remove_file(&path).unwrap();
        assert!(matches!(load(dir.path(), Some(Zeroizing::new("x".into()))), Err(IdentityError::Variable)));
    }
}
