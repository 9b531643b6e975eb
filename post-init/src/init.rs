//! `init`: makes the labels of an identity, from nothing or from wherever an earlier run stopped.
//!
//! [`resolve`] compares what is asked for with what lies there and refuses before anything is touched; [`run`] does the rest.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    ops::{ControlFlow, Range},
    path::PathBuf,
    time::{Duration, Instant},
};

use kernels::label::Smallest;
use proto::{
    ids::{AtxId, Commitment, NodeId},
    keys::IdentityKey,
    post::{LABEL_BYTES, Layout, Metadata, MetadataError, Params, Preset, ScryptN, commitment, vrf_threshold},
    units::SpaceUnits,
};

use crate::{
    checker::Checker,
    data_dir::{DataDirs, Description, Found, KEY_FILE, Origin, Target, same_data},
    error::{Error, IoContext as _},
    event::{Event, Report},
    meter::Meter,
    nonce::{Nonce, Search, first_below},
    pool::{Pool, PoolOptions},
    size::{show_duration, show_size},
    stop::Stop,
    storage::Mode,
    writer::{Patience, Writer},
};

/// Labels that are compared with the reference before a directory is continued, at N = 8192; fewer for larger N.
const SAMPLE: u64 = 512;
/// The last so many bytes of an unfinished file are what a power loss can have harmed.
const TAIL: u64 = 64 << 20;

/// What is asked for. `None` means: what is recorded, else the preset.
#[derive(Debug, Clone)]
pub struct Request {
    /// The network.
    pub preset: Preset,
    /// Identity by its key.
    pub identity: Option<PathBuf>,
    /// Identity by its public key.
    pub node_id: Option<NodeId>,
    /// The ATX to bind labels to.
    pub commitment_atx_id: Option<AtxId>,
    /// Units to reach.
    pub num_units: Option<SpaceUnits>,
    /// Labels in one unit.
    pub labels_per_unit: Option<u64>,
    /// Fewest units allowed.
    pub min_num_units: Option<SpaceUnits>,
    /// Most units allowed.
    pub max_num_units: Option<SpaceUnits>,
    /// Bytes of a full file.
    pub max_file_size: Option<u64>,
    /// Cost of the label function.
    pub scrypt_n: Option<ScryptN>,
    /// First file to make.
    pub from_file: Option<u64>,
    /// Last file to make.
    pub to_file: Option<u64>,
    /// Wait while the disk is full.
    pub wait: bool,
}

impl Request {
    /// Everything as recorded or as the preset says.
    pub fn new(preset: Preset) -> Self {
        Self {
            preset,
            identity: None,
            node_id: None,
            commitment_atx_id: None,
            num_units: None,
            labels_per_unit: None,
            min_num_units: None,
            max_num_units: None,
            max_file_size: None,
            scrypt_n: None,
            from_file: None,
            to_file: None,
            wait: true,
        }
    }

    fn params(&self) -> Params {
        let mut params = self.preset.params();
        params.labels_per_unit = self.labels_per_unit.unwrap_or(params.labels_per_unit);
        params.min_num_units = self.min_num_units.unwrap_or(params.min_num_units);
        params.max_num_units = self.max_num_units.unwrap_or(params.max_num_units);
        params
    }
}

/// What will be done: the result of [`resolve`].
#[derive(Debug, Clone)]
pub struct Job {
    /// The metadata to start with; its number of units is the provable one while the identity grows.
    pub metadata: Metadata,
    /// Cost of the label function.
    pub n: ScryptN,
    /// Layout to reach.
    pub layout: Layout,
    /// Files to make.
    pub files: Range<u64>,
    /// Data files that exist.
    pub found: BTreeMap<u64, Found>,
    /// What was recorded.
    recorded: Option<Description>,
    /// A key has to be made first: there is no identity yet.
    pub new_key: bool,
    /// The commitment ATX was nobody's choice.
    golden: bool,
}

impl Job {
    /// Whether the identity grows.
    pub fn grows(&self) -> bool {
        self.layout.num_units() > self.metadata.num_units
    }

    fn commitment(&self) -> Commitment {
        commitment(&self.metadata.node_id, &self.metadata.commitment_atx_id)
    }

    /// Whether this run makes all files.
    fn covers_all(&self) -> bool {
        self.files == (0..self.layout.file_count())
    }

    /// Labels of the files of this run.
    pub fn labels_total(&self) -> u64 {
        self.layout.file_labels(self.files.end - 1).end - self.layout.file_labels(self.files.start).start
    }

    /// Labels of the files of this run that are on disk.
    pub fn labels_done(&self) -> u64 {
        self.found.range(self.files.clone()).map(|(file, _)| DataDirs::whole_labels(&self.found, &self.layout, *file)).sum()
    }
}

/// Decides what to do, and refuses what cannot be done. Changes nothing.
pub fn resolve(request: &Request, dirs: &DataDirs) -> Result<Job, Error> {
    let exists = dirs.dirs.iter().filter(|dir| dir.path.is_dir()).count();
    let (recorded, found) = if exists == dirs.dirs.len() {
        let complete = request.commitment_atx_id.is_some() && request.num_units.is_some();
        let recorded = match dirs.describe() {
            // Everything is given anew and will be checked against the labels.
            Err(Error::Metadata { source: MetadataError::Empty | MetadataError::Truncated(_), .. }) if complete => None,
            other => other?,
        };
        (recorded, dirs.files()?)
    } else if exists == 0 {
        (None, BTreeMap::new())
    } else {
        // One of several directories is new (a further disk).
        let there = dirs.dirs.iter().filter(|dir| dir.path.is_dir()).cloned().collect();
        let there = DataDirs::new(there, dirs.storage.clone())?;
        return Err(Error::Usage(format!(
            "some of the data directories do not exist, others do ({}); create the missing ones (is a disk not mounted?)",
            there.dirs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        )));
    };
    if exists > 0 {
        dirs.refuse_a_part()?;
    }

    let known = recorded.as_ref().map(|r| &r.metadata);
    let params = request.params();
    let (node_id, new_key) = match identity(request, dirs, known)? {
        Some(id) => (id, false),
        // A stand-in until the key is made.
        None => (NodeId([0; 32]), true),
    };
    // New labels may get a new key, labels that exist belong to one.
    let undescribed = recorded.is_none() && found.values().any(|f| f.bytes > 0);
    if undescribed && (new_key || request.commitment_atx_id.is_none()) {
        return Err(Error::NoData {
            place: dirs.dirs[0].path.clone(),
            why: "there are data files but no metadata; pass --node-id, --commitment-atx-id, --num-units (and --labels-per-unit, \
                  --max-file-size, --scrypt-n if they are not the preset's): they are checked against the labels",
        });
    }
    let golden = request.commitment_atx_id.is_none() && known.is_none();
    let metadata = Metadata {
        node_id,
        commitment_atx_id: request
            .commitment_atx_id
            .or(known.map(|k| k.commitment_atx_id))
            .unwrap_or_else(|| request.preset.genesis().0.golden_atx()),
        labels_per_unit: request.labels_per_unit.or(known.map(|k| k.labels_per_unit)).unwrap_or(params.labels_per_unit),
        num_units: SpaceUnits(0),
        max_file_size: request.max_file_size.or(known.map(|k| k.max_file_size)).unwrap_or(Params::DEFAULT_MAX_FILE_SIZE),
        nonce: known.and_then(|k| k.nonce),
        nonce_value: known.and_then(|k| k.nonce_value),
        last_position: known.and_then(|k| k.last_position),
    };
    if let Some(recorded) = &recorded {
        same_data(&recorded.metadata, &metadata, &recorded.place)?;
    }
    let recorded_n = recorded.as_ref().and_then(|r| r.scrypt_n);
    let n = request.scrypt_n.or(recorded_n).unwrap_or(params.scrypt_n);
    if let (Some(found), Some(recorded)) = (recorded_n, &recorded)
        && found != n
    {
        let (found, wanted) = (found.to_string(), n.to_string());
        return Err(Error::Mismatch { what: "scrypt N", place: recorded.place.clone(), found, wanted });
    }
    if request.max_file_size.is_some_and(|size| size < LABEL_BYTES || size % LABEL_BYTES != 0) {
        let size = metadata.max_file_size;
        return Err(Error::Usage(format!("--max-file-size must be a multiple of 16 from 16 up, got {size}")));
    }

    let target = recorded.as_ref().and_then(|r| r.target.as_ref());
    let num_units = request.num_units.or(target.map(|t| SpaceUnits(t.num_units))).or(known.map(|k| k.num_units));
    let num_units = num_units.ok_or_else(|| {
        let (min, max) = (params.min_num_units, params.max_num_units);
        Error::Usage(format!("--num-units is needed for new data; {} allows {min} to {max}", request.preset))
    })?;
    params.check_units(num_units)?;
    let layout = Layout::new(metadata.labels_per_unit, num_units, metadata.max_file_size)?;
    if layout.num_labels().0.checked_mul(params.k1.into()).is_none() {
        return Err(Error::Usage(format!("{num_units} units of {} labels are too many", metadata.labels_per_unit)));
    }
    vrf_threshold(layout.num_labels().0)?;
    let last = layout.file_count() - 1;
    let (from, to) = (request.from_file.unwrap_or(0), request.to_file.unwrap_or(last));
    if from > to || to > last {
        return Err(Error::Usage(format!("files {from} to {to} were asked for, but there are files 0 to {last}")));
    }
    let known_units = known.map_or(num_units, |k| k.num_units);
    let metadata = Metadata { num_units: known_units.min(num_units), ..metadata };
    let job = Job { metadata, n, layout, files: from..to + 1, found, recorded, new_key, golden };
    if job.grows() && !job.covers_all() {
        return Err(Error::Usage(format!(
            "growing from {known_units} to {num_units} units needs all files: leave --from-file and --to-file away"
        )));
    }
    Ok(job)
}

/// Whose data it is: from the flags, the metadata, or the key file in a data directory; all that are there must agree.
fn identity(request: &Request, dirs: &DataDirs, known: Option<&Metadata>) -> Result<Option<NodeId>, Error> {
    let read = |path: &PathBuf| IdentityKey::read(path).map_err(|source| Error::Key { path: path.clone(), source });
    let mut result = request.node_id;
    let keys_here = dirs.dirs.iter().map(|dir| dir.path.join(KEY_FILE)).filter(|path| path.exists());
    for path in request.identity.iter().cloned().chain(keys_here) {
        let found = read(&path)?.node_id();
        let wanted = *result.get_or_insert(found);
        if found != wanted {
            let (found, wanted) = (found.to_string(), wanted.to_string());
            return Err(Error::Mismatch { what: "the identity", place: path, found, wanted });
        }
    }
    // That it agrees with the metadata is checked with the rest of the metadata.
    Ok(result.or(known.map(|k| k.node_id)))
}

/// Makes what is missing. Returns the metadata as it stands at the end.
pub fn run(
    request: &Request,
    dirs: &DataDirs,
    options: &PoolOptions,
    stop: &Stop,
    report: &dyn Report,
) -> Result<Metadata, Error> {
    // Refuses before anything is created, then again under the lock.
    resolve(request, dirs)?;
    dirs.create()?;
    let locks = dirs.lock()?;
    let socket = options.control.listen(&dirs.dirs[0].path, report);
    let mut job = resolve(request, dirs)?;
    if job.new_key {
        let path = dirs.dirs[0].path.join(KEY_FILE);
        let key = IdentityKey::generate().map_err(|source| Error::Key { path: path.clone(), source })?;
        key.write_new(&path).map_err(|source| Error::Key { path: path.clone(), source })?;
        job.metadata.node_id = key.node_id();
        report.note(format!(
            "made a new identity {}; its key is {}: keep a copy in a safe place, without it the data is worthless",
            key.node_id(),
            path.display()
        ));
    }
    warn(request, &job, report);
    let patience = Patience { wait: request.wait, stop, report };
    let result = Run::new(dirs, job, patience)?.go(options, report);
    drop(socket);
    drop(locks);
    result
}

fn warn(request: &Request, job: &Job, report: &dyn Report) {
    let size = job.metadata.max_file_size;
    if size < 1024 || !size.is_multiple_of(128) {
        report.warn(format!(
            "a maximum file size of {size} bytes: official tools refuse sizes below 1024 and skip labels at the end of files whose \
             size is no multiple of 128"
        ));
    }
    if !size.is_multiple_of(LABEL_BYTES) {
        report.warn("the maximum file size is no multiple of 16: some official tools compute wrong positions for such data");
    }
    if job.golden {
        let (genesis, fixed) = request.preset.genesis();
        let atx = job.metadata.commitment_atx_id;
        if !fixed {
            report.warn(format!(
                "the labels are bound to {atx}, the golden ATX of a {} network born at Unix time {}; pass --commitment-atx-id for another one",
                request.preset, genesis.unix_time
            ));
        } else if request.preset == Preset::Mainnet {
            report.warn(format!(
                "the labels are bound to the golden ATX {atx}; a node's highest ATX is better (--commitment-atx-id): it cannot have been \
                 computed in advance"
            ));
        } else {
            report.note(format!("the labels are bound to the golden ATX {atx}"));
        }
    }
}

/// One run under way.
struct Run<'a> {
    dirs: &'a DataDirs,
    job: Job,
    /// Present while the identity grows.
    target: Option<Target>,
    search: Search,
    checker: Checker,
    stop: &'a Stop,
    patience: Patience<'a>,
}

impl<'a> Run<'a> {
    fn new(dirs: &'a DataDirs, job: Job, patience: Patience<'a>) -> Result<Self, Error> {
        let checker = Checker::new(job.commitment(), job.n)?;
        let threshold = vrf_threshold(job.layout.num_labels().0)?;
        let Patience { stop, report, .. } = patience;
        let mut run = Self { dirs, job, target: None, search: Search::new(threshold, None), checker, stop, patience };
        run.check_sample()?;
        run.mend_tails(report)?;
        run.start_nonce(report)?;
        Ok(run)
    }

    /// Compares first and last labels of the files on disk with the reference: another identity, commitment or N, a file of
    /// another run or a misaligned one is noticed before anything is added to it.
    fn check_sample(&mut self) -> Result<(), Error> {
        let budget = (SAMPLE * 8192 / u64::from(self.job.n.get())).clamp(8, SAMPLE);
        let present: Vec<(u64, Found)> =
            self.job.found.iter().filter(|(_, f)| f.bytes >= LABEL_BYTES).map(|(n, f)| (*n, *f)).collect();
        let step = (present.len() as u64 * 2).div_ceil(budget).max(1) as usize;
        for (number, found) in present.iter().step_by(step) {
            let labels = self.job.layout.labels_per_file().min(found.bytes / LABEL_BYTES);
            let path = self.dirs.path(found.dir, *number);
            let file = self.dirs.storage.open(&path, Mode::Read).context("open", &path)?;
            // Files far beyond the data may have any number.
            let Some(start) = number.checked_mul(self.job.layout.labels_per_file()) else { continue };
            if start.checked_add(labels).is_none() {
                continue;
            }
            let mut positions = vec![0, labels - 1];
            if labels < DataDirs::wanted(&self.job.layout, *number) {
                let tail = labels.min(TAIL / LABEL_BYTES);
                positions.extend((0..6).map(|_| labels - 1 - rand::random_range(0..tail)));
            }
            let mut label = [0; 16];
            for position in positions {
                self.stop.check()?;
                file.read_at(position * LABEL_BYTES, &mut label).context("read", &path)?;
                // Never a real label: space that a power loss left unwritten. Looked after below.
                if label != [0; 16] {
                    self.checker.check(&path, start + position, &label)?;
                }
            }
        }
        Ok(())
    }

    /// Deals with what a crash leaves at the end of an unfinished file: a torn label is cut off; labels of zeros, which a power
    /// loss leaves where data had not reached the disk, are computed again.
    ///
    /// The system writes a file in any order, so zeros may also have good labels behind them; only of the file written last,
    /// and only near its end.
    fn mend_tails(&mut self, report: &dyn Report) -> Result<(), Error> {
        let last = self.job.found.range(self.job.files.clone()).next_back().map(|(number, _)| *number);
        for (number, found) in self.job.found.range_mut(self.job.files.clone()) {
            let path = self.dirs.path(found.dir, *number);
            let torn = found.bytes % LABEL_BYTES;
            if torn != 0 {
                let mut file = self.dirs.storage.open(&path, Mode::Write).context("open", &path)?;
                file.cut(found.bytes - torn).context("cut the torn last label of", &path)?;
                file.sync().context("sync", &path)?;
                found.bytes -= torn;
                report.note(format!("{}: cut {torn} bytes of a torn label off its end", path.display()));
            }
            let wanted = DataDirs::wanted(&self.job.layout, *number) * LABEL_BYTES;
            if found.bytes == 0 || found.bytes > wanted {
                continue;
            }
            let file = self.dirs.storage.open(&path, Mode::Read).context("open", &path)?;
            let mut end = found.bytes;
            let mut chunk = vec![0; 1 << 16];
            'file: while end > 0 {
                self.stop.check()?;
                let start = end.saturating_sub(chunk.len() as u64);
                let bytes = &mut chunk[..(end - start) as usize];
                file.read_at(start, bytes).context("read", &path)?;
                for label in bytes.as_chunks::<16>().0.iter().rev() {
                    if label.iter().any(|byte| *byte != 0) {
                        break 'file;
                    }
                    end -= LABEL_BYTES;
                }
            }
            let mut next = if found.bytes < wanted || last == Some(*number) { end.saturating_sub(TAIL) } else { end };
            while next < end {
                self.stop.check()?;
                let bytes = &mut chunk[..(end - next).min(1 << 16) as usize];
                file.read_at(next, bytes).context("read", &path)?;
                match bytes.as_chunks::<16>().0.iter().position(|label| *label == [0; 16]) {
                    Some(position) => end = next + position as u64 * LABEL_BYTES,
                    None => next += bytes.len() as u64,
                }
            }
            if end < found.bytes {
                report.note(format!(
                    "{}: among the last {} labels are zeros that never reached the disk; they are computed again",
                    path.display(),
                    (found.bytes - end) / LABEL_BYTES
                ));
                found.bytes = end;
            }
        }
        Ok(())
    }

    /// Finds out what is known about the nonce of the labels that are on disk; looks through them where nothing is.
    fn start_nonce(&mut self, report: &dyn Report) -> Result<(), Error> {
        let layout = self.job.layout;
        let num_labels = layout.num_labels().0;
        let Some(recorded) = self.job.recorded.clone() else {
            // Nothing recorded: what lies there was never looked at.
            return self.scan(0..num_labels, report);
        };
        let old_labels = self.job.metadata.num_units.0 as u64 * self.job.metadata.labels_per_unit;
        let grows = self.job.grows();
        if grows {
            self.target = recorded.target.filter(|t| t.num_units == layout.num_units().0);
        }
        if grows && recorded.origin == Origin::SideFile {
            // The nonce of the old number went with the metadata, which is about to be written again: without one it would say
            // that these labels were looked at in vain.
            let mut old = Search::new(vrf_threshold(old_labels)?, None);
            old.scan(self.dirs, &self.job.found, &layout, 0..old_labels, &mut self.checker, self.stop)?;
            self.job.metadata.nonce = old.best().map(|nonce| nonce.index);
            self.job.metadata.nonce_value = old.best().map(|nonce| nonce.value);
        }
        // A nonce that was found beyond the data says that there is none in the data.
        let beyond = |nonce: u64, position: Option<u64>| nonce >= old_labels && position.is_some();
        let metadata = &self.job.metadata;
        let best = match &self.target {
            Some(target) => target.nonce.map(|index| (index, target.last_position)),
            None => metadata.nonce.map(|index| (index, metadata.last_position)),
        };
        let mut looked_at = match (best, recorded.origin) {
            _ if self.target.is_some() => num_labels,
            // Fewer labels have a looser threshold, so what was looked at in vain before may do now.
            (None, Origin::Metadata) if recorded.scrypt_n.is_some() && recorded.metadata.num_units <= layout.num_units() => {
                old_labels
            }
            (Some((index, position)), _) if index < old_labels || beyond(index, position) || !grows => old_labels,
            _ => 0,
        };
        if let Some((index, position)) = best {
            let full = self.checker.full_label(index);
            let mut value = [0; 16];
            value.copy_from_slice(&full[..16]);
            let nonce = Nonce { index, value };
            if self.search.is_valid(index, &full) && !(grows && beyond(index, position)) {
                self.search = Search::new(vrf_threshold(num_labels)?, Some(nonce));
            } else if !grows {
                report.warn(format!("the recorded nonce {index} is not valid for this data; looking for another one"));
                self.job.metadata.nonce = None;
                self.job.metadata.nonce_value = None;
                self.job.metadata.last_position = None;
                looked_at = 0;
            }
            if !grows && self.job.metadata.nonce.is_some() {
                self.job.metadata.nonce_value = Some(value);
            }
        }
        self.scan(looked_at..num_labels, report)
    }

    fn scan(&mut self, labels: Range<u64>, report: &dyn Report) -> Result<(), Error> {
        let layout = &self.job.layout;
        let on_disk: u64 = self
            .job
            .found
            .keys()
            .map(|file| {
                let start = layout.file_labels(*file).start;
                let end = start + DataDirs::whole_labels(&self.job.found, layout, *file);
                end.min(labels.end).saturating_sub(start.max(labels.start))
            })
            .sum();
        if on_disk > 0 {
            report.note(format!("looking for a nonce in {} of labels that are on disk", show_size(on_disk * LABEL_BYTES)));
            self.search.scan(self.dirs, &self.job.found, layout, labels, &mut self.checker, self.stop)?;
        }
        Ok(())
    }

    /// Records the best nonce (and, beyond the data, the position), in the side file while the identity grows.
    fn record(&mut self, last_position: Option<u64>) -> Result<(), Error> {
        let best = self.search.best();
        if let Some(target) = &mut self.target {
            target.nonce = best.map(|nonce| nonce.index);
            target.nonce_value = best.map(|nonce| hex::encode(nonce.value));
            target.last_position = last_position;
            return self.patience.write_small(|| self.dirs.write_side_file(&self.job.metadata, self.job.n, Some(target)));
        }
        self.job.metadata.nonce = best.map(|nonce| nonce.index);
        self.job.metadata.nonce_value = best.map(|nonce| nonce.value);
        self.job.metadata.last_position = last_position;
        self.patience.write_small(|| self.dirs.write_metadata(&self.job.metadata))
    }

    /// Writes metadata and side file for the first time, or again where they differ from what they should say.
    fn begin(&mut self) -> Result<(), Error> {
        if self.job.grows() {
            self.target.get_or_insert_with(|| Target {
                num_units: self.job.layout.num_units().0,
                nonce: None,
                nonce_value: None,
                last_position: None,
            });
            // The metadata stays as it is, but a crash may have taken it and a new directory has none yet.
            self.patience.write_small(|| self.dirs.write_metadata(&self.job.metadata))?;
            return self.record(self.target.as_ref().and_then(|t| t.last_position));
        }
        self.record(self.job.metadata.last_position)?;
        self.patience.write_small(|| self.dirs.write_side_file(&self.job.metadata, self.job.n, None))
    }

    fn go(mut self, options: &PoolOptions, report: &dyn Report) -> Result<Metadata, Error> {
        let started = Instant::now();
        let (total, done) = (self.job.labels_total(), self.job.labels_done());
        let missing = total - done;
        let layout = self.job.layout;
        report.note(format!(
            "{}: {} units of {} labels ({}) in {} files, N = {}, {} of {} labels on disk",
            crate::data_dir::show_ids(&self.job.metadata.node_id, &self.job.metadata.commitment_atx_id),
            layout.num_units(),
            layout.labels_per_unit(),
            show_size(layout.num_bytes()),
            layout.file_count(),
            self.job.n,
            done,
            total,
        ));
        let mut writer = Writer::new(self.dirs, layout, self.job.found.clone(), missing * LABEL_BYTES, self.patience);
        writer.wait_for_all(self.job.files.clone())?;
        self.begin()?;
        let covers_all = self.job.covers_all();
        if missing > 0 {
            self.fill(&mut writer, done, total, options, report)?;
        }
        if covers_all && self.search.best().is_none() {
            let num_labels = layout.num_labels().0;
            let position = self.target.as_ref().map_or(self.job.metadata.last_position, |t| t.last_position);
            if position.is_none_or(|position| position < num_labels) {
                // Cheap beside what follows, and right even if somebody lost a nonce by hand.
                self.scan(0..num_labels, report)?;
                let found = self.search.best().is_some();
                self.record(if found { None } else { Some(num_labels) })?;
            }
        }
        if covers_all && self.search.best().is_none() {
            self.beyond(options, report)?;
        }
        self.finish()?;
        let files = if covers_all { "complete" } else { "these files are complete" };
        let idle = if missing == 0 { "; there was nothing to do" } else { "" };
        let nonce = self.job.metadata.nonce.map_or_else(String::new, |nonce| format!("; VRF nonce {nonce}"));
        report.event(&Event::Done {
            task: "init",
            labels: missing,
            seconds: started.elapsed().as_secs_f64(),
            text: format!("{files}{idle}{nonce}"),
        });
        Ok(self.job.metadata)
    }

    /// Computes and writes the missing labels.
    fn fill(
        &mut self,
        writer: &mut Writer<'_>,
        done: u64,
        total: u64,
        options: &PoolOptions,
        report: &dyn Report,
    ) -> Result<(), Error> {
        let mut pool = Pool::new(options, self.job.commitment(), self.job.n)?;
        let rate = pool.ready(self.stop, report)?;
        if rate > 0.0 {
            report.note(format!("about {:.0} labels/s; {} to go", rate, show_duration((total - done) as f64 / rate)));
        }
        let (layout, files, found) = (self.job.layout, self.job.files.clone(), self.job.found.clone());
        let ranges = files.filter_map(move |file| {
            let labels = layout.file_labels(file);
            let start = labels.start + DataDirs::whole_labels(&found, &layout, file);
            (start < labels.end).then_some(start..labels.end)
        });
        let meter = RefCell::new(Meter::start(report, "initialising", done, total, rate));
        let stop = self.stop;
        let writer = RefCell::new(writer);
        let result = pool.compute(
            ranges,
            stop,
            report,
            &mut |devices| {
                meter.borrow_mut().tick(devices);
                // Slow devices may not give a batch in time.
                writer.borrow_mut().sync_if_due()
            },
            &mut |batch| {
                if self.search.offer(&batch.smallest) {
                    // Rare, and too dear to be left to a device alone: an ATX with a wrong nonce is worth nothing.
                    let Smallest { index, label } = batch.smallest;
                    let full = self.checker.full_label(index);
                    if full != label {
                        let device = "(the one that gave the smallest label)".to_owned();
                        let (found, expected) = (hex::encode(label), hex::encode(full));
                        return Err(Error::WrongResult { device, index, found, expected });
                    }
                    // First the nonce, then the labels: see the module `nonce`.
                    self.record(None)?;
                    if let Some(nonce) = self.search.best() {
                        report.event(&Event::Nonce { index: nonce.index, value: hex::encode(nonce.value) });
                    }
                }
                writer.borrow_mut().append(batch.range.start, &batch.labels)?;
                meter.borrow_mut().add(batch.range.end - batch.range.start);
                Ok(ControlFlow::Continue(()))
            },
        );
        // Whatever happened, what was written shall last.
        let closed = writer.into_inner().close();
        match (result, closed) {
            // Then it is not saved.
            (Err(Error::Stopped), Err(error)) => return Err(error),
            (result, closed) => result.and(closed)?,
        }
        meter.into_inner().finish(&pool.progress());
        Ok(())
    }

    /// No label of the data is below the threshold (it happens to one identity in 3000): goes on behind the data, without
    /// writing labels (post.md section 4.4).
    fn beyond(&mut self, options: &PoolOptions, report: &dyn Report) -> Result<(), Error> {
        let num_labels = self.job.layout.num_labels().0;
        let position = self.target.as_ref().map_or(self.job.metadata.last_position, |t| t.last_position);
        let start = position.unwrap_or(0).max(num_labels);
        report.note(format!("no label of the data is a VRF nonce; looking behind the data from label {start} on"));
        let mut pool = Pool::new(options, self.job.commitment(), self.job.n)?;
        // The chance of one label is 8 in num_labels.
        let meter = RefCell::new(Meter::start(report, "looking for a nonce", 0, num_labels / 8, 0.0));
        let mut recorded = Instant::now();
        let stop = self.stop;
        let mut nonce = None;
        let result = pool.compute(std::iter::once(start..u64::MAX), stop, report, &mut Meter::ticker(&meter), &mut |batch| {
            let next = batch.range.end;
            if self.search.is_valid(batch.smallest.index, &batch.smallest.label) {
                nonce = first_below(&self.search, &batch.labels, batch.range.start, &mut self.checker);
                return Ok(ControlFlow::Break(()));
            }
            meter.borrow_mut().add(next - batch.range.start);
            if recorded.elapsed() > Duration::from_secs(10) {
                recorded = Instant::now();
                self.record(Some(next))?;
            }
            Ok(ControlFlow::Continue(()))
        });
        result?;
        let Some(nonce) = nonce else {
            return Err(Error::BadData("no VRF nonce up to the last index; this cannot be by chance".to_owned()));
        };
        self.search = Search::new(vrf_threshold(num_labels)?, Some(nonce));
        report.event(&Event::Nonce { index: nonce.index, value: hex::encode(nonce.value) });
        self.record(Some(nonce.index))
    }

    /// All labels of this run are on disk: a grown identity changes its number of units now, in one rename.
    fn finish(&mut self) -> Result<(), Error> {
        if let Some(target) = self.target.take() {
            let best = self.search.best();
            self.job.metadata = Metadata {
                num_units: self.job.layout.num_units(),
                nonce: best.map(|nonce| nonce.index),
                nonce_value: best.map(|nonce| nonce.value),
                last_position: target.last_position,
                ..self.job.metadata.clone()
            };
            self.patience.write_small(|| self.dirs.write_metadata(&self.job.metadata))?;
            self.patience.write_small(|| self.dirs.write_side_file(&self.job.metadata, self.job.n, None))?;
        }
        Ok(())
    }
}
