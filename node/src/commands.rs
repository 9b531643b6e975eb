//! The commands, one module each.

pub(crate) mod address;
pub(crate) mod db;
pub(crate) mod decode;
pub(crate) mod history;
pub(crate) mod identity;
pub(crate) mod preset;
pub(crate) mod run;
pub(crate) mod status;

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use proto::genesis::UnixSeconds;
use store::{data_dir::DataDir, guard::Bar};

use crate::error::Error;

/// The clock of this machine.
fn now() -> UnixSeconds {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixSeconds(since.as_secs().cast_signed())
}

/// What has begun in the network of a directory; nothing before its genesis.
fn begun(data: &DataDir) -> Result<Option<Bar>, Error> {
    Ok(data.at(now())?)
}

fn io_error(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Io { path: path.to_owned(), source }
}

/// Reads a text of limited size.
fn read_text(path: &Path) -> Result<String, Error> {
    const MOST: u64 = 256 << 20;
    let mut text = String::new();
    File::open(path).and_then(|file| file.take(MOST).read_to_string(&mut text)).map_err(io_error(path))?;
    Ok(text)
}

/// Writes a new file that only its owner may read; an existing one is left alone.
fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(io_error(path))
}
