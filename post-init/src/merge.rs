//! `merge`: joins subsets of one identity, made on several machines, into one directory.
//!
//! Everything is checked before the first file moves. Files are renamed where source and target share a file system; elsewhere, and out
//! of sources that cannot be written, they are copied and the source is left for its owner to delete. An interrupted merge is
//! repeated with the same command.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use proto::post::{LABEL_BYTES, Layout, Metadata, Preset, ScryptN, commitment, vrf_threshold};

use crate::{
    checker::Checker,
    data_dir::{DataDirs, DirSpec, Found, Locks, same_data, smaller_nonce},
    error::{Error, IoContext as _},
    event::{Event, Report},
    size::show_size,
    stop::Stop,
    storage::{Mode, Storage},
};

/// One directory that takes part.
struct Part {
    dirs: DataDirs,
    metadata: Option<Metadata>,
    n: Option<ScryptN>,
    found: BTreeMap<u64, Found>,
}

impl Part {
    fn open(path: &Path, storage: &Arc<dyn Storage>) -> Result<Self, Error> {
        let dirs = DataDirs::new(vec![DirSpec { path: path.to_owned(), cap: None }], storage.clone())?;
        if !dirs.forgotten()?.is_empty() {
            return Err(Error::Usage(format!(
                "{} is one of several directories of its identity: merge works on single ones",
                path.display()
            )));
        }
        let recorded = dirs.describe()?;
        if let Some(target) = recorded.as_ref().and_then(|r| r.target.as_ref().filter(|t| t.num_units > r.metadata.num_units.0)) {
            let units = target.num_units;
            return Err(Error::Usage(format!("{} is growing to {units} units: let that end first", path.display())));
        }
        let (metadata, n) = recorded.map_or((None, None), |r| (Some(r.metadata), r.scrypt_n));
        Ok(Self { found: dirs.files()?, dirs, metadata, n })
    }

    fn path(&self) -> &Path {
        &self.dirs.dirs[0].path
    }
}

/// Joins `sources` into the directory `into`, which may be new, empty, or hold a subset already.
pub fn merge(
    sources: &[PathBuf],
    into: &Path,
    preset: Preset,
    scrypt_n: Option<ScryptN>,
    storage: &Arc<dyn Storage>,
    stop: &Stop,
    report: &dyn Report,
) -> Result<(), Error> {
    let started = Instant::now();
    for source in sources {
        if !source.is_dir() {
            return Err(Error::NoData { place: source.clone(), why: "there is no such directory" });
        }
    }
    let spec = |path: &Path| DirSpec { path: path.to_owned(), cap: None };
    // The same one twice is refused.
    DataDirs::new(sources.iter().map(PathBuf::as_path).chain([into]).map(spec).collect(), storage.clone())?;
    let parts = sources.iter().map(|path| Part::open(path, storage)).collect::<Result<Vec<_>, _>>()?;
    let first = parts.first().ok_or_else(|| Error::Usage("nothing to merge".to_owned()))?;
    let no_metadata = |part: &Part| Error::NoData { place: part.path().to_owned(), why: "there is no postdata_metadata.json" };
    let mut metadata = first.metadata.clone().ok_or_else(|| no_metadata(first))?;
    for part in &parts {
        agree(part, part.metadata.as_ref().ok_or_else(|| no_metadata(part))?, &metadata)?;
    }
    let place = DataDirs::new(vec![spec(into)], storage.clone())?;
    place.create()?;
    let mut locks = vec![place.lock()?];
    for part in &parts {
        locks.extend(lock_source(part)?);
    }
    let target = Part::open(into, storage)?;
    if let Some(found) = &target.metadata {
        agree(&target, found, &metadata)?;
    } else if target.found.values().any(|f| f.bytes > 0) {
        return Err(no_metadata(&target));
    }
    let n = common_n(parts.iter().chain([&target]), scrypt_n)?.unwrap_or(preset.params().scrypt_n);
    let layout = metadata.layout()?;
    let mut checker = Checker::new(commitment(&metadata.node_id, &metadata.commitment_atx_id), n)?;

    // Everything is looked at before anything moves.
    let mut moves: BTreeMap<u64, (&Part, u64)> = BTreeMap::new();
    for part in parts.iter().chain([&target]) {
        for (number, found) in &part.found {
            stop.check()?;
            check_ends(part, *number, *found, &layout, &mut checker)?;
        }
    }
    for part in &parts {
        for (number, found) in &part.found {
            let here = moves.get(number).map(|(other, bytes)| (*other, *bytes));
            let there = target.found.get(number).map(|f| (&target, f.bytes));
            for (other, _) in here.into_iter().chain(there) {
                same_beginning(&part.dirs.path(0, *number), &other.dirs.path(0, *number), stop)?;
            }
            // Of two files with the same beginning the longer one.
            if here.into_iter().chain(there).all(|(_, bytes)| bytes < found.bytes) {
                moves.insert(*number, (part, found.bytes));
            }
        }
    }

    metadata = Metadata { nonce: None, nonce_value: None, last_position: None, ..metadata };
    let threshold = vrf_threshold(layout.num_labels().0)?;
    for part in parts.iter().chain([&target]) {
        if let Some(mut found) = part.metadata.clone() {
            if let Some(index) = found.nonce {
                let full = checker.full_label(index);
                if full >= threshold {
                    report.warn(format!("the nonce {index} recorded in {} is not valid; it is left out", part.path().display()));
                    continue;
                }
                found.nonce_value = full[..16].try_into().ok();
            }
            if smaller_nonce(&found, &metadata) {
                metadata = found;
            }
        }
    }
    // The description first: files without one are worse than one without files.
    target.dirs.write_metadata(&metadata)?;
    target.dirs.write_side_file(&metadata, n, None)?;
    for (number, (part, bytes)) in &moves {
        stop.check()?;
        let (from, to) = (part.dirs.path(0, *number), target.dirs.path(0, *number));
        match fs::rename(&from, &to) {
            Ok(()) => {
                storage.sync_dir(into).context("sync", into)?;
                storage.sync_dir(part.path()).context("sync", part.path())?;
                report.note(format!("moved {} to {}", from.display(), to.display()));
            }
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices || is_forbidden(&error) => {
                copy(&from, &to, *bytes, &**storage, stop)?;
                storage.sync_dir(into).context("sync", into)?;
                report.note(format!("copied {} to {}; the source can be deleted", from.display(), to.display()));
            }
            Err(error) => return Err(error).context("move", from),
        }
    }
    let joined = target.dirs.files()?;
    let on_disk: u64 = joined.keys().map(|file| DataDirs::whole_labels(&joined, &layout, *file)).sum();
    let missing = layout.num_labels().0 - on_disk;
    let state = match (missing, metadata.nonce) {
        (0, Some(nonce)) => format!("complete; VRF nonce {nonce}"),
        (0, None) => "all labels are there, but no VRF nonce was found: run `post-init init`".to_owned(),
        _ => format!("{missing} labels ({}) are still missing", show_size(missing * LABEL_BYTES)),
    };
    report.event(&Event::Done { task: "merge", labels: on_disk, seconds: started.elapsed().as_secs_f64(), text: state });
    Ok(())
}

/// The lock of a source. One that cannot be written needs none, as long as nobody else works on it.
fn lock_source(part: &Part) -> Result<Option<Locks>, Error> {
    match part.dirs.lock() {
        Ok(locks) => Ok(Some(locks)),
        Err(Error::Io { source, .. }) if is_forbidden(&source) && !part.dirs.in_use() => Ok(None),
        Err(Error::Io { source, .. }) if is_forbidden(&source) => Err(Error::InUse { dir: part.path().to_owned() }),
        Err(error) => Err(error),
    }
}

/// Whether an error means that something may be read but not written.
fn is_forbidden(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

fn agree(part: &Part, found: &Metadata, wanted: &Metadata) -> Result<(), Error> {
    same_data(found, wanted, part.path())?;
    if found.num_units != wanted.num_units {
        return Err(Error::Mismatch {
            what: "the number of units",
            place: part.path().to_owned(),
            found: found.num_units.to_string(),
            wanted: wanted.num_units.to_string(),
        });
    }
    Ok(())
}

fn common_n<'a>(parts: impl Iterator<Item = &'a Part>, wanted: Option<ScryptN>) -> Result<Option<ScryptN>, Error> {
    let mut common = wanted;
    for part in parts {
        if let (Some(found), Some(wanted)) = (part.n, common)
            && found != wanted
        {
            let (found, wanted) = (found.to_string(), wanted.to_string());
            return Err(Error::Mismatch { what: "scrypt N", place: part.path().to_owned(), found, wanted });
        }
        common = common.or(part.n);
    }
    Ok(common)
}

/// The first and the last label of a file against the reference.
fn check_ends(part: &Part, number: u64, found: Found, layout: &Layout, checker: &mut Checker) -> Result<(), Error> {
    let labels = (found.bytes / LABEL_BYTES).min(layout.labels_per_file());
    let Some(start) = number.checked_mul(layout.labels_per_file()).filter(|start| start.checked_add(labels).is_some()) else {
        return Ok(());
    };
    if labels == 0 {
        return Ok(());
    }
    let path = part.dirs.path(0, number);
    let file = part.dirs.storage.open(&path, Mode::Read).context("open", &path)?;
    let mut label = [0; 16];
    for position in [0, labels - 1] {
        file.read_at(position * LABEL_BYTES, &mut label).context("read", &path)?;
        checker.check(&path, start + position, &label)?;
    }
    Ok(())
}

/// Two files of the same number must agree as far as the shorter one goes.
fn same_beginning(one: &Path, other: &Path, stop: &Stop) -> Result<(), Error> {
    let mut files = [File::open(one).context("open", one)?, File::open(other).context("open", other)?];
    let mut buffers = [vec![0; 1 << 20], vec![0; 1 << 20]];
    loop {
        stop.check()?;
        let mut lengths = [0; 2];
        for ((file, buffer), length) in files.iter_mut().zip(&mut buffers).zip(&mut lengths) {
            *length = read_full(file, buffer).context("read", one)?;
        }
        let common = lengths[0].min(lengths[1]);
        // A torn label at the end of the shorter one is no difference.
        let whole = common - common % LABEL_BYTES as usize;
        if buffers[0][..whole] != buffers[1][..whole] {
            return Err(Error::BadData(format!(
                "{} and {} hold different labels; `post-init verify` tells which is wrong; nothing was moved",
                one.display(),
                other.display()
            )));
        }
        if common < buffers[0].len() {
            return Ok(());
        }
    }
}

fn read_full(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..])? {
            0 => break,
            more => length += more,
        }
    }
    Ok(length)
}

/// Copies through a temporary name, so that a file of the right name is always whole.
fn copy(from: &Path, to: &Path, bytes: u64, storage: &dyn Storage, stop: &Stop) -> Result<(), Error> {
    let dir = to.parent().unwrap_or(Path::new("."));
    let free = storage.free_bytes(dir).context("ask for the free space of", dir)?;
    if free < bytes {
        return Err(Error::NoSpace { dir: dir.to_owned(), missing: bytes - free });
    }
    let part = to.with_extension("bin.part");
    let copied = || -> Result<(), Error> {
        let mut source = File::open(from).context("open", from)?;
        let mut options = File::options();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut target = options.open(&part).context("create", &part)?;
        let mut buffer = vec![0; 4 << 20];
        loop {
            stop.check()?;
            let length = read_full(&mut source, &mut buffer).context("read", from)?;
            target.write_all(&buffer[..length]).context("write", &part)?;
            if length < buffer.len() {
                break;
            }
        }
        target.sync_all().context("sync", &part)
    }();
    if let Err(error) = copied {
        let _ = fs::remove_file(&part);
        return Err(error);
    }
    fs::rename(&part, to).context("rename", part)
}
