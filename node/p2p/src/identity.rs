//! The key of the host, `<data>/p2p/p2p.key` (p2p-sync.md section 2.1). It names the host towards peers and has nothing to do
//! with the keys of identities.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read as _, Write as _},
    path::Path,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use libp2p_identity::Keypair;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use crate::error::FileError;

/// The name of the file.
const NAME: &str = "p2p.key";

/// Bytes of an ed25519 key in libp2p's form: `08 01 12 40`, seed, public key.
const KEY_BYTES: usize = 68;

/// A key file is about 200 bytes.
const MOST_BYTES: u64 = 4096;

/// The content of the file; whoever uses it wipes the key.
#[derive(Serialize, Deserialize)]
struct KeyFile {
    #[serde(rename = "Key")]
    key: String,
    #[serde(rename = "ID", default)]
    id: String,
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

/// An error of the system about a path.
pub(crate) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> FileError {
    move |source| FileError::Io { path: path.to_owned(), source }
}

/// Makes the host's folder, which only its owner may look into.
pub(crate) fn private_folder(path: &Path) -> Result<(), FileError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(io_error(path))
}

/// Replaces a file that only its owner may read: after a crash it holds the old content or the new one.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = Path::new(&temporary);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(temporary).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    let renamed = written.and_then(|()| fs::rename(temporary, path));
    renamed.and_then(|()| fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()).map_err(io_error(path))
}

/// The key of the folder; where there is none a new one is made and written.
pub(crate) fn load_or_create(folder: &Path) -> Result<Keypair, FileError> {
    private_folder(folder)?;
    let path = folder.join(NAME);
    let mut text = Zeroizing::new(Vec::with_capacity(MOST_BYTES as usize));
    match fs::File::open(&path).and_then(|file| file.take(MOST_BYTES).read_to_end(&mut text)) {
        Ok(_) => read(&text).map_err(|why| FileError::Key { path, why }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let key = Keypair::generate_ed25519();
            replace(&path, &write(&key).map_err(|why| FileError::Key { path: path.clone(), why })?)?;
            Ok(key)
        }
        Err(e) => Err(io_error(&path)(e)),
    }
}

fn read(text: &[u8]) -> Result<Keypair, &'static str> {
    let file: KeyFile = serde_json::from_slice(text).map_err(|_| "not JSON with a Key")?;
    let bytes = Zeroizing::new(STANDARD.decode(&file.key).map_err(|_| "Key is not base64")?);
    if bytes.len() != KEY_BYTES {
        return Err("Key has not 68 bytes");
    }
    Keypair::from_protobuf_encoding(&bytes).map_err(|_| "Key is no ed25519 key of libp2p")
}

fn write(key: &Keypair) -> Result<Zeroizing<Vec<u8>>, &'static str> {
    let bytes = Zeroizing::new(key.to_protobuf_encoding().map_err(|_| "the new key has no encoding")?);
    let file = KeyFile { key: STANDARD.encode(&bytes), id: key.public().to_peer_id().to_string() };
    serde_json::to_vec(&file).map(Zeroizing::new).map_err(|_| "the new key has no text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("p2p");
        let first = load_or_create(&folder).unwrap().public().to_peer_id();
        assert_eq!(load_or_create(&folder).unwrap().public().to_peer_id(), first);
        let text: serde_json::Value = serde_json::from_slice(&fs::read(folder.join(NAME)).unwrap()).unwrap();
        assert_eq!(text["ID"], first.to_string());
        let key = STANDARD.decode(text["Key"].as_str().unwrap()).unwrap();
        assert_eq!((key.len(), &key[..4]), (68, &[8, 1, 18, 64][..]));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&folder.join(NAME)), mode(&folder)), (0o600, 0o700));
        }
    }

    #[test]
    fn a_key_of_the_official_node_is_read() {
        // seed 00 01 .. 1f and the public key that belongs to it
        let seed: Vec<u8> = (0..32).collect();
        let public = hex::decode("03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8").unwrap();
        let bytes = [&[8, 1, 18, 64][..], &seed, &public].concat();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(NAME), format!(r#"{{"Key":"{}","ID":"ignored"}}"#, STANDARD.encode(&bytes))).unwrap();
        let key = load_or_create(dir.path()).unwrap();
        assert_eq!(key.to_protobuf_encoding().unwrap(), bytes);
        assert_eq!(key.public().try_into_ed25519().unwrap().to_bytes()[..], public);
    }

    #[test]
    fn garbage_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        let short = format!(r#"{{"Key":"{}"}}"#, STANDARD.encode([1; 67]));
        let other = format!(r#"{{"Key":"{}"}}"#, STANDARD.encode([1; 68]));
        for bad in ["", "{}", "null", r#"{"Key":"*"}"#, r#"{"Key":7}"#, &short, &other, &"x".repeat(10_000)] {
            fs::write(&path, bad).unwrap();
            assert!(matches!(load_or_create(dir.path()), Err(FileError::Key { .. })), "{bad}");
            assert_eq!(fs::read_to_string(&path).unwrap(), bad);
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(load_or_create(dir.path()), Err(FileError::Io { .. })));
    }
}
