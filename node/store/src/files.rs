//! Small files beside the databases: written as a whole, or not at all.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::Path,
};

use crate::StoreError;

pub(crate) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Io { path: path.to_owned(), source }
}

/// Makes a folder that only its owner may look into; it may exist.
pub(crate) fn private_folder(path: &Path) -> Result<(), StoreError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(io_error(path))
}

/// A file that only its owner may read.
pub(crate) fn private_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Replaces a file: after a crash it holds the old content or the new one.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let temporary = Path::new(&name);
    let written = private_options().write(true).create(true).truncate(true).open(temporary).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(temporary, path)).map_err(io_error(path))?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// Makes names in a folder survive a power failure.
pub(crate) fn sync_folder(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(io_error(path))
}

/// A small file's content; `None` where there is no such file.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    use io::Read as _;

    const MOST: u64 = 16 << 20;
    let mut content = Vec::new();
    match File::open(path).and_then(|file| file.take(MOST).read_to_end(&mut content)) {
        Ok(_) => Ok(Some(content)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io_error(path)(e)),
    }
}
