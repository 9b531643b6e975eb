//! Identity keys and their files (post.md section 7). What they sign is in `signing` and `vrf` (feature `node`).

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::Path,
};

use ed25519_dalek::SigningKey;
use zeroize::{Zeroize as _, Zeroizing};

use crate::ids::NodeId;

/// Characters of a key file: 64 bytes in hex.
const KEY_FILE_CHARS: usize = 128;

/// An ed25519 identity key. The secret half is wiped from memory when dropped and never printed.
pub struct IdentityKey(SigningKey);

impl std::fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IdentityKey(of {})", self.node_id())
    }
}

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Not exactly 128 characters, which is all that nodes accept.
    #[error("expected exactly 128 hex characters, found {found} bytes{hint}")]
    Length {
        /// Length of the file, at most one more than was read.
        found: usize,
        /// What may have happened.
        hint: &'static str,
    },
    /// A character that is no hex digit.
    #[error("not hex: {0}")]
    Hex(String),
    /// Seed and public key do not belong together: the file is damaged.
    #[error("the public key in the file does not belong to its seed: the file is damaged")]
    Mismatch,
    /// No randomness to be had from the system.
    #[error("no random bytes from the system: {0}")]
    Random(String),
}

impl IdentityKey {
    /// A new key from the system's randomness.
    pub fn generate() -> Result<Self, KeyFileError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut_slice()).map_err(|e| KeyFileError::Random(e.to_string()))?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// The key made from a seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    #[cfg(feature = "node")]
    pub(crate) fn signing_key(&self) -> &SigningKey {
        &self.0
    }

    /// The public half.
    pub fn node_id(&self) -> NodeId {
        NodeId(self.0.verifying_key().to_bytes())
    }

    /// Reads a key file: `hex(seed || public key)`, 128 characters and nothing else.
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        let mut text = Zeroizing::new(Vec::with_capacity(KEY_FILE_CHARS + 2));
        File::open(path)?.take(KEY_FILE_CHARS as u64 + 2).read_to_end(&mut text)?;
        if text.len() != KEY_FILE_CHARS {
            let newline = text.len() > KEY_FILE_CHARS && text[KEY_FILE_CHARS..].iter().all(u8::is_ascii_whitespace);
            let hint = match text.len() {
                0 => ": a crash may have left it empty; delete it to get another one",
                _ if newline => ": remove the line end, nodes refuse it",
                _ => "",
            };
            return Err(KeyFileError::Length { found: text.len(), hint });
        }
        let mut bytes = Zeroizing::new([0; 64]);
        hex::decode_to_slice(&text, bytes.as_mut_slice()).map_err(|e| KeyFileError::Hex(e.to_string()))?;
        SigningKey::from_keypair_bytes(&bytes).map(Self).map_err(|_| KeyFileError::Mismatch)
    }

    /// Writes a new key file of mode 0600 and syncs it to disk; an existing file is never touched.
    pub fn write_new(&self, path: &Path) -> Result<(), KeyFileError> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path)?;
        let mut bytes = self.0.to_keypair_bytes();
        let text = Zeroizing::new(hex::encode(bytes));
        bytes.zeroize();
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        if written.is_err() {
            // Half a key, on a full disk, would only bar the way to the next attempt.
            let _ = std::fs::remove_file(path);
        }
        Ok(written?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_key_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.key");
        let key = IdentityKey::generate().unwrap();
        key.write_new(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.len(), 128);
        assert_eq!(text[64..], key.node_id().to_string());
        assert_eq!(IdentityKey::read(&path).unwrap().node_id(), key.node_id());
        #[cfg(unix)]
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap()) & 0o777, 0o600);
        assert!(matches!(IdentityKey::generate().unwrap().write_new(&path), Err(KeyFileError::Io(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        assert!(!format!("{key:?}").contains(&text[..64]));
    }

    #[test]
    fn the_key_of_rfc_8032_is_understood() {
        let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("local.key");
        std::fs::write(&path, format!("{seed}{public}")).unwrap();
        assert_eq!(IdentityKey::read(&path).unwrap().node_id().to_string(), public);
    }

    #[test]
    fn damaged_files_are_explained() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            IdentityKey::read(&path).unwrap_err()
        };
        assert!(matches!(read(""), KeyFileError::Length { found: 0, .. }));
        assert!(read(&format!("{}\n", "a".repeat(128))).to_string().contains("line end"));
        assert!(matches!(read(&"a".repeat(5000)), KeyFileError::Length { .. }));
        assert!(matches!(read(&"x".repeat(128)), KeyFileError::Hex(_)));
        assert!(matches!(read(&"a".repeat(128)), KeyFileError::Mismatch));
        assert!(matches!(IdentityKey::read(dir.path()), Err(KeyFileError::Io(_))));
    }
}
