//! The few operations on files that everything goes through.
//!
//! They are a trait so that tests can make any of them fail: a full disk, a read error, a write that stops half-way.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// How to open a label file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Must exist; reading only.
    Read,
    /// Must exist.
    Write,
    /// Must not exist; created with mode 0600.
    Create,
}

/// An open file of labels.
pub trait LabelFile: Send {
    /// Its visible size in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Fills the buffer from this offset; an error when the file ends before.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes all bytes at this offset. On an error some of them may be on disk.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the file to this size.
    fn cut(&mut self, size: u64) -> io::Result<()>;
    /// Waits until everything written is on the disk.
    fn sync(&mut self) -> io::Result<()>;
    /// Asks for disk space up to this size without changing the visible size; a wish, not a need.
    fn preallocate(&mut self, size: u64) -> io::Result<()>;
}

/// The file system, as far as data directories need it.
pub trait Storage: Send + Sync + fmt::Debug {
    /// Opens a label file.
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Box<dyn LabelFile>>;
    /// Bytes that can still be written on the file system of this directory.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
    /// Replaces a small file as a whole: after a crash there is the old or the new one, never a part.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Waits until the names in a directory are on the disk.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// The real file system.
#[derive(Debug, Clone, Copy)]
pub struct Disk;

impl Storage for Disk {
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Box<dyn LabelFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(mode != Mode::Read).create_new(mode == Mode::Create);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Ok(Box::new(DiskFile(options.open(path)?)))
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        fs4::available_space(dir)
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        // A symbolic link stays one: the file it points to is replaced.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let mut temporary = path.clone().into_os_string();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let written = options.open(&temporary).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        if let Err(error) = written {
            // Half a temporary file helps nobody; the old file is untouched.
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        fs::rename(&temporary, &path)?;
        path.parent().map_or(Ok(()), |dir| self.sync_dir(dir))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        // Windows cannot open directories; its journal keeps the order of renames.
        if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
    }
}

struct DiskFile(File);

impl LabelFile for DiskFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    #[cfg(unix)]
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.0, buffer, offset)
    }

    #[cfg(unix)]
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.0, bytes, offset)
    }

    #[cfg(not(unix))]
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        use io::{Read as _, Seek as _};
        let mut file = &self.0;
        file.seek(io::SeekFrom::Start(offset))?;
        file.read_exact(buffer)
    }

    #[cfg(not(unix))]
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        use io::Seek as _;
        self.0.seek(io::SeekFrom::Start(offset))?;
        self.0.write_all(bytes)
    }

    fn cut(&mut self, size: u64) -> io::Result<()> {
        self.0.set_len(size)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    #[cfg(target_os = "linux")]
    fn preallocate(&mut self, size: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(&self.0, rustix::fs::FallocateFlags::KEEP_SIZE, 0, size)?)
    }

    #[cfg(not(target_os = "linux"))]
    fn preallocate(&mut self, _size: u64) -> io::Result<()> {
        Ok(())
    }
}

/// Whether an error means that the disk (or the user's share of it) is full.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preallocation_keeps_the_visible_size() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut file = Disk.open(&path, Mode::Create).unwrap();
        let _ = file.preallocate(1 << 20);
        assert_eq!(file.size().unwrap(), 0);
        file.write_at(0, b"abc").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 3);
        assert!(Disk.open(&path, Mode::Create).is_err());
    }

    #[test]
    fn replacing_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.json");
        Disk.replace(&path, b"one").unwrap();
        Disk.replace(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(Disk.replace(&dir.path().join("no/such/dir"), b"x").is_err());
    }
}
