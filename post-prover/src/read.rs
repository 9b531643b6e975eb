//! Reading data at the speed of its disk: large aligned sequential reads into a few buffers that go round between the reader and
//! the scan, past the page cache where the system allows.

use std::{
    fs::File,
    io,
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::SyncSender,
    },
    time::Duration,
};

use crate::{
    data::{DataError, DataSet},
    state::Pass,
};

/// Bytes of a read: the batch of the deployed prover (post.md section 1), so that the same labels are scanned. Several reads in
/// flight are as fast as large ones, and small buffers stay in the caches.
pub const BLOCK_BYTES: usize = 1 << 20;
/// Bytes of a read of somebody who has one read in flight only and nothing else to do.
pub const PLAIN_READ_BYTES: usize = 4 << 20;
/// Direct I/O wants offsets, lengths and addresses to be multiples of this.
const ALIGNMENT: usize = 4096;
/// How often somebody who waits looks at the stop flag.
pub(crate) const POLL: Duration = Duration::from_millis(100);

/// Memory for a block, aligned for direct I/O.
#[derive(Debug)]
pub struct Buffer {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Buffer {
    /// A buffer of `len` bytes.
    pub fn with_len(len: usize) -> Self {
        let memory = vec![0; len + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Self { memory, start, len }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..][..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..][..self.len]
    }
}

/// A piece of a file on its way to the scan.
#[derive(Debug)]
pub struct Block {
    /// Index of the first label.
    pub first_index: u64,
    /// Position of the block, in bytes from the start of the data.
    pub start: u64,
    /// The labels.
    pub labels: Buffer,
}

/// Where labels come from. The real one is [`Disk`]; tests put others in its place.
pub trait Source: Sync {
    /// Opens a data file.
    fn open(&self, path: &Path) -> io::Result<Box<dyn SourceFile>>;
}

/// An open data file, read from one thread.
pub trait SourceFile {
    /// Fills `buffer` from `offset` on, but for what is beyond the end of the file; returns the number of bytes.
    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

/// Files of the file system.
#[derive(Debug, Clone, Copy)]
pub struct Disk {
    /// Go past the page cache where the file system can.
    pub direct: bool,
}

impl Default for Disk {
    fn default() -> Self {
        Self { direct: true }
    }
}

impl Source for Disk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn SourceFile>> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if self.direct {
            use std::os::unix::fs::OpenOptionsExt as _;
            let flag = rustix::fs::OFlags::DIRECT.bits().cast_signed();
            if let Ok(file) = File::options().read(true).custom_flags(flag).open(path) {
                return Ok(Box::new(DirectFile { direct: Some(file), path: path.to_owned(), buffered: None }));
            }
        }
        BufferedFile::open(path).map(|file| Box::new(file) as _)
    }
}

/// Fills the buffer as far as the file goes.
fn read_fully(buffer: &mut [u8], mut read: impl FnMut(&mut [u8], usize) -> io::Result<usize>) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match read(&mut buffer[done..], done) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

#[cfg(unix)]
fn pread(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, offset)
}

#[cfg(windows)]
fn pread(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, offset)
}

/// Read through the page cache, which is told to forget what was read.
struct BufferedFile(File);

impl BufferedFile {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        #[cfg(target_os = "linux")]
        // Advice: a refusal costs only speed.
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Sequential);
        Ok(Self(file))
    }
}

impl SourceFile for BufferedFile {
    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let done = read_fully(buffer, |rest, done| pread(&self.0, rest, offset + done as u64))?;
        #[cfg(target_os = "linux")]
        if let Some(len) = std::num::NonZeroU64::new(done as u64) {
            // Advice: a refusal leaves more in the page cache than is good for others.
            let _ = rustix::fs::fadvise(&self.0, offset, Some(len), rustix::fs::Advice::DontNeed);
        }
        Ok(done)
    }
}

/// Read past the page cache. File systems may refuse that at the first read only; then the page cache is used.
#[cfg(any(target_os = "linux", target_os = "android"))]
struct DirectFile {
    direct: Option<File>,
    buffered: Option<BufferedFile>,
    path: PathBuf,
}

#[cfg(any(target_os = "linux", target_os = "android"))]
impl SourceFile for DirectFile {
    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if let Some(file) = &self.direct {
            // A read that is cut short stands at the end of the file; going on from there would not be aligned.
            let read = loop {
                match pread(file, buffer, offset) {
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    other => break other,
                }
            };
            match read {
                Ok(done) if done == buffer.len() => return Ok(done),
                Ok(done) if offset + done as u64 >= file.metadata()?.len() => return Ok(done),
                // unaligned, refused, or cut short elsewhere
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::InvalidInput => {}
                Err(e) => return Err(e),
            }
            self.direct = None;
        }
        if self.buffered.is_none() {
            self.buffered = Some(BufferedFile::open(&self.path)?);
        }
        match &mut self.buffered {
            Some(file) => file.read_at(buffer, offset),
            None => Ok(0),
        }
    }
}

/// Whether the file system of a directory lets files in it be read past the page cache.
pub fn supports_direct(path: &Path) -> bool {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        let flag = rustix::fs::OFlags::DIRECT.bits().cast_signed();
        let Ok(file) = File::options().read(true).custom_flags(flag).open(path) else { return false };
        let mut buffer = Buffer::with_len(ALIGNMENT);
        pread(&file, &mut buffer, 0).is_ok()
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = path;
        false
    }
}

/// Reads in flight per disk: while some are being handed over, the disk works on the next.
pub(crate) const LANES: u64 = 3;

/// A part of the reading: every [`LANES`]-th block of one disk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lane {
    /// Position of the disk in [`DataSet::disks`].
    pub(crate) disk: usize,
    /// The first block.
    pub(crate) lane: u64,
}

/// Reads a lane, but for the blocks that are done, and sends it; the buffers come from `pool`. All lanes together read everything.
///
/// Ends early, without an error, when the receiver is gone or `stop` is set.
pub(crate) fn stream(
    data: &DataSet,
    source: &dyn Source,
    lane: Lane,
    pass: &Pass,
    pool: &Pool,
    blocks: &SyncSender<Block>,
    stop: &AtomicBool,
) -> Result<(), DataError> {
    let layout = data.layout();
    let full = layout.file_bytes(0);
    let mut number = 0;
    for (file, path) in data.files_on(lane.disk) {
        let io = |source| DataError::Io { path: path.to_owned(), source };
        let len = layout.file_bytes(file);
        let mut open = None;
        for offset in (0..len).step_by(BLOCK_BYTES) {
            let start = file * full + offset;
            if pass.is_done(start) {
                continue;
            }
            number += 1;
            if number % LANES != lane.lane {
                continue;
            }
            let Some(mut labels) = pool.take(stop) else { return Ok(()) };
            let open = match &mut open {
                Some(open) => open,
                none => none.insert(source.open(path).map_err(io)?),
            };
            let wanted = (len - offset).min(BLOCK_BYTES as u64) as usize;
            // Whole pages, so that a last block can be read directly; the file may be longer than its labels.
            labels.len = wanted.next_multiple_of(ALIGNMENT);
            let found = open.read_at(&mut labels, offset).map_err(io)?;
            if found < wanted {
                return Err(DataError::Short { path: path.to_owned(), expected: len, found: offset + found as u64 });
            }
            labels.len = wanted;
            let first_index = layout.file_labels(file).start + offset / proto::post::LABEL_BYTES;
            if blocks.send(Block { first_index, start, labels }).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Buffers that go round. The one that came back last is given out first: its memory is still in the caches, and disks that are
/// emulated or encrypted copy into it several times as fast.
#[derive(Debug)]
pub(crate) struct Pool {
    free: Mutex<Vec<Buffer>>,
    returned: Condvar,
}

impl Pool {
    /// So many buffers.
    pub(crate) fn new(buffers: usize) -> Self {
        let free = std::iter::repeat_with(|| Buffer::with_len(BLOCK_BYTES)).take(buffers).collect();
        Self { free: Mutex::new(free), returned: Condvar::new() }
    }

    /// Gives a buffer back.
    pub(crate) fn put(&self, buffer: Buffer) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        self.returned.notify_one();
    }

    /// Waits for a buffer; none comes when it is time to stop.
    fn take(&self, stop: &AtomicBool) -> Option<Buffer> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while !stop.load(Ordering::Relaxed) {
            if let Some(buffer) = free.pop() {
                return Some(buffer);
            }
            free = self.returned.wait_timeout(free, POLL).unwrap_or_else(PoisonError::into_inner).0;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned() {
        for _ in 0..10 {
            let buffer = Buffer::with_len(BLOCK_BYTES);
            assert_eq!(buffer.as_ptr().align_offset(ALIGNMENT), 0);
            assert_eq!(buffer.len(), BLOCK_BYTES);
        }
    }
}
