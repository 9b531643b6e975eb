//! Puts labels into files: opens and places them, appends, syncs, and waits while a disk is full.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use proto::post::{LABEL_BYTES, Layout};

use crate::{
    data_dir::{DataDirs, Found},
    error::{Error, IoContext as _},
    event::{Event, Report},
    stop::Stop,
    storage::{LabelFile, Mode, is_full},
};

/// Longest time labels stay unsynced.
const SYNC_EVERY: Duration = Duration::from_secs(10);
/// How often a full disk is looked at again.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Room that is asked for when a small file cannot be written: a block of any file system.
const SMALL_FILE: u64 = 4096;

/// What to do when a disk is full.
#[derive(Clone, Copy)]
pub(crate) struct Patience<'a> {
    /// Wait for room, instead of giving up.
    pub(crate) wait: bool,
    pub(crate) stop: &'a Stop,
    pub(crate) report: &'a dyn Report,
}

impl Patience<'_> {
    /// Tells what is missing and waits a moment, or gives up.
    fn lacking(&self, dir: &Path, missing: u64, told: &mut bool) -> Result<(), Error> {
        if !self.wait {
            return Err(Error::NoSpace { dir: dir.to_owned(), missing });
        }
        if !*told {
            self.report.event(&Event::WaitingForSpace { dir: dir.display().to_string(), missing_bytes: missing });
            *told = true;
        }
        self.stop.sleep(LOOK_EVERY)
    }

    fn room_again(&self, dir: &Path) {
        self.report.event(&Event::SpaceAgain { dir: dir.display().to_string() });
    }

    /// Writes small files with `write`, which can be repeated; they have to wait for room like labels.
    pub(crate) fn write_small(&self, write: impl Fn() -> Result<(), Error>) -> Result<(), Error> {
        let mut told = false;
        let mut full = PathBuf::new();
        loop {
            match write() {
                Err(Error::Io { path, source, .. }) if is_full(&source) => {
                    path.parent().unwrap_or(&path).clone_into(&mut full);
                    self.lacking(&full, SMALL_FILE, &mut told)?;
                }
                result => {
                    if told && result.is_ok() {
                        self.room_again(&full);
                    }
                    return result;
                }
            }
        }
    }
}

/// The file that is being written.
struct Open {
    file: Box<dyn LabelFile>,
    number: u64,
    dir: usize,
    path: PathBuf,
    dirty: bool,
}

/// Appends to the files of an identity, one file after the other.
pub(crate) struct Writer<'a> {
    dirs: &'a DataDirs,
    layout: Layout,
    files: BTreeMap<u64, Found>,
    open: Option<Open>,
    synced: Instant,
    /// Bytes this run still has to write.
    remaining: u64,
    patience: Patience<'a>,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(
        dirs: &'a DataDirs,
        layout: Layout,
        files: BTreeMap<u64, Found>,
        remaining: u64,
        patience: Patience<'a>,
    ) -> Self {
        Self { dirs, layout, files, open: None, synced: Instant::now(), remaining, patience }
    }

    /// Waits until there is room for all that is to be written into these files (or gives up at once if waiting is not wanted).
    ///
    /// Nothing is computed before: weeks of work that end on a full disk help nobody.
    pub(crate) fn wait_for_all(&self, files: Range<u64>) -> Result<(), Error> {
        // A cap does not change while waiting.
        let caps = (0..self.dirs.dirs.len()).fold(0_u64, |sum, dir| sum.saturating_add(self.cap_left(dir)));
        if caps < self.remaining {
            return Err(Error::NoSpace { dir: self.dirs.dirs[0].path.clone(), missing: self.remaining - caps });
        }
        self.place_below_caps(files)?;
        let mut told = false;
        loop {
            let free = self.free_everywhere()?;
            // Disk space reserved for a file earlier is part of neither its size nor the free space.
            let needed = self.remaining.saturating_sub(self.reserved());
            if free >= needed {
                if told {
                    self.patience.room_again(&self.dirs.dirs[0].path);
                }
                return Ok(());
            }
            self.lacking(0, needed - free, &mut told)?;
        }
    }

    /// Refuses caps between which files do not fit as a whole, or of which one is of no use.
    fn place_below_caps(&self, files: Range<u64>) -> Result<(), Error> {
        let mut rooms: Vec<u64> = (0..self.dirs.dirs.len()).map(|dir| self.room_below_cap(dir)).collect();
        let new = || files.clone().filter(|number| !self.files.contains_key(number)).map(|number| self.layout.file_bytes(number));
        let Some(smallest) = new().min() else { return Ok(()) };
        for (dir, spec) in self.dirs.dirs.iter().enumerate() {
            if rooms[dir] < smallest && self.files.values().all(|found| found.dir != dir) {
                return Err(Error::Usage(format!(
                    "size= of {spec} leaves no room for a whole file, which takes {smallest} bytes"
                )));
            }
        }
        if self.dirs.dirs.iter().all(|spec| spec.cap.is_none()) {
            return Ok(());
        }
        // The last file may be a smaller one; all others are alike, so any order that finds places finds them for all.
        for bytes in new() {
            let Some(room) = rooms.iter_mut().max().filter(|room| **room >= bytes) else {
                let limits = self.dirs.dirs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
                return Err(Error::Usage(format!("size= of {limits} leaves no room for whole files of {bytes} bytes")));
            };
            *room -= bytes;
        }
        Ok(())
    }

    /// Writes labels that continue a file (or begin it).
    pub(crate) fn append(&mut self, first: u64, labels: &[u8]) -> Result<(), Error> {
        let number = self.layout.file_of(first);
        if self.open.as_ref().is_none_or(|open| open.number != number) {
            self.close()?;
            self.open = Some(self.open(number)?);
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        let offset = (first - self.layout.file_labels(number).start) * LABEL_BYTES;
        let (dir, path) = (open.dir, open.path.clone());
        let mut told = false;
        loop {
            let Some(open) = &mut self.open else { return Ok(()) };
            open.dirty = true;
            match open.file.write_at(offset, labels) {
                Ok(()) => break,
                // Whatever part was written is written again: the same bytes at the same place.
                Err(error) if is_full(&error) => self.lacking(dir, self.missing_in(dir), &mut told)?,
                Err(error) => return Err(error).context("write", path),
            }
        }
        if told {
            self.patience.room_again(&self.dirs.dirs[dir].path);
        }
        self.remaining = self.remaining.saturating_sub(labels.len() as u64);
        self.sync_if_due()
    }

    /// [`sync`](Self::sync), if the last one is long enough ago.
    pub(crate) fn sync_if_due(&mut self) -> Result<(), Error> {
        if self.synced.elapsed() >= SYNC_EVERY { self.sync() } else { Ok(()) }
    }

    /// Waits until everything written is on the disk.
    pub(crate) fn sync(&mut self) -> Result<(), Error> {
        if let Some(open) = &mut self.open
            && open.dirty
        {
            open.file.sync().context("sync", &open.path)?;
            open.dirty = false;
        }
        self.synced = Instant::now();
        Ok(())
    }

    /// Syncs and closes the open file.
    pub(crate) fn close(&mut self) -> Result<(), Error> {
        self.sync()?;
        self.open = None;
        Ok(())
    }

    fn open(&mut self, number: u64) -> Result<Open, Error> {
        let bytes = self.layout.file_bytes(number);
        if let Some(found) = self.files.get(&number) {
            let path = self.dirs.path(found.dir, number);
            let mut file = self.dirs.storage.open(&path, Mode::Write).context("open", &path)?;
            let _ = file.preallocate(bytes);
            return Ok(Open { file, number, dir: found.dir, path, dirty: false });
        }
        let dir = self.choose(bytes)?;
        let path = self.dirs.path(dir, number);
        let mut told = false;
        let mut file = loop {
            match self.dirs.storage.open(&path, Mode::Create) {
                Ok(file) => break file,
                Err(error) if is_full(&error) => self.lacking(dir, self.missing_in(dir), &mut told)?,
                Err(error) => return Err(error).context("create", path),
            }
        };
        // Keeps large files in one piece; if it is refused, writing will tell whether there is room.
        let _ = file.preallocate(bytes);
        self.dirs.storage.sync_dir(&self.dirs.dirs[dir].path).context("sync", &self.dirs.dirs[dir].path)?;
        self.files.insert(number, Found { dir, bytes: 0 });
        Ok(Open { file, number, dir, path, dirty: true })
    }

    /// The directory for a new file of this size: the one with most room; the first of equal ones.
    fn choose(&self, bytes: u64) -> Result<usize, Error> {
        let mut best: Option<(u64, usize)> = None;
        for dir in 0..self.dirs.dirs.len() {
            let cap = self.room_below_cap(dir);
            if cap < bytes {
                continue;
            }
            let room = self.free(dir)?.min(cap);
            if best.is_none_or(|(most, _)| room > most) {
                best = Some((room, dir));
            }
        }
        // A cap does not change while waiting.
        best.map(|(_, dir)| dir).ok_or_else(|| Error::NoSpace { dir: self.dirs.dirs[0].path.clone(), missing: self.remaining })
    }

    fn room_below_cap(&self, dir: usize) -> u64 {
        let used: u64 =
            self.files.iter().filter(|(_, f)| f.dir == dir).map(|(n, f)| self.layout.file_bytes(*n).max(f.bytes)).sum();
        self.dirs.dirs[dir].cap.map_or(u64::MAX, |cap| cap.saturating_sub(used))
    }

    /// Bytes that may still be put into a directory, in new files and in those that are incomplete.
    fn cap_left(&self, dir: usize) -> u64 {
        let here = self.files.iter().filter(|(_, f)| f.dir == dir);
        let incomplete: u64 = here.map(|(n, f)| self.layout.file_bytes(*n).saturating_sub(f.bytes)).sum();
        self.room_below_cap(dir).saturating_add(incomplete)
    }

    fn free(&self, dir: usize) -> Result<u64, Error> {
        let path = &self.dirs.dirs[dir].path;
        self.dirs.storage.free_bytes(path).context("ask for the free space of", path)
    }

    /// Room in all directories together; file systems that several directories share count once.
    fn free_everywhere(&self) -> Result<u64, Error> {
        let mut systems: Vec<(Option<u64>, u64, u64)> = Vec::new();
        for (dir, spec) in self.dirs.dirs.iter().enumerate() {
            let (free, cap) = (self.free(dir)?, self.cap_left(dir));
            let device = device_of(&spec.path);
            match systems.iter_mut().find(|(other, ..)| device.is_some() && *other == device) {
                Some((_, _, caps)) => *caps = caps.saturating_add(cap),
                None => systems.push((device, free, cap)),
            }
        }
        Ok(systems.iter().fold(0, |sum, (_, free, cap)| sum.saturating_add(*free.min(cap))))
    }

    /// Disk space that incomplete files hold beyond their visible size.
    fn reserved(&self) -> u64 {
        let beyond = |(number, found): (&u64, &Found)| {
            let missing = self.layout.file_bytes(*number).saturating_sub(found.bytes);
            allocated(&self.dirs.path(found.dir, *number)).saturating_sub(found.bytes).min(missing)
        };
        self.files.iter().map(beyond).sum()
    }

    fn missing_in(&self, dir: usize) -> u64 {
        let free = self.free(dir).unwrap_or(0);
        self.remaining.saturating_sub(free).max(1)
    }

    fn lacking(&self, dir: usize, missing: u64, told: &mut bool) -> Result<(), Error> {
        self.patience.lacking(&self.dirs.dirs[dir].path, missing, told)
    }
}

#[cfg(unix)]
fn device_of(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|m| std::os::unix::fs::MetadataExt::dev(&m))
}

#[cfg(not(unix))]
fn device_of(_path: &Path) -> Option<u64> {
    None
}

#[cfg(unix)]
fn allocated(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |m| std::os::unix::fs::MetadataExt::blocks(&m) * 512)
}

#[cfg(not(unix))]
fn allocated(_path: &Path) -> u64 {
    0
}
