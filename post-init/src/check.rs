//! `verify`, `repair` and `nonce`: tasks on data that exists.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    ops::{ControlFlow, Range, RangeInclusive},
    time::Instant,
};

use proto::{
    ids::Commitment,
    post::{LABEL_BYTES, Layout, Metadata, Preset, ScryptN, commitment, file_name, vrf_threshold},
};

use crate::{
    checker::Checker,
    data_dir::{DataDirs, Found, Origin},
    error::{Error, IoContext as _},
    event::{Event, Report},
    init::{self, Request},
    meter::Meter,
    nonce::{Nonce, Search},
    pool::{Pool, PoolOptions},
    stop::Stop,
    storage::{LabelFile, Mode},
};

/// Sampled labels are checked in runs of this length, which is what devices compute at once anyway.
const RUN: u64 = 32;
/// The same for graphics processors, which compute far more at once; shorter where a file would get too few runs.
const GPU_RUN: u64 = 1 << 16;
/// At least so many runs of a file are checked, as long as they are not shorter than for processors.
const RUNS: f64 = 64.0;
/// At most so many files are named one by one when they are missing.
const MOST_NAMED: usize = 1000;

/// Data that exists, with everything that describes it.
#[derive(Debug, Clone)]
pub struct Existing {
    /// The metadata.
    pub metadata: Metadata,
    /// Cost of the label function: recorded, or else as the flag or the preset says.
    pub n: ScryptN,
    /// Where labels lie.
    pub layout: Layout,
    /// Data files.
    pub found: BTreeMap<u64, Found>,
    /// Units the identity is growing to.
    pub growing_to: Option<u32>,
    /// How good the metadata is.
    pub origin: Origin,
}

impl Existing {
    /// Reads what describes the data; refuses an N other than the recorded one.
    pub fn open(dirs: &DataDirs, preset: Preset, scrypt_n: Option<ScryptN>) -> Result<Self, Error> {
        let place = || dirs.dirs[0].path.clone();
        for dir in &dirs.dirs {
            if !dir.path.is_dir() {
                return Err(Error::NoData { place: dir.path.clone(), why: "there is no such directory" });
            }
        }
        let recorded =
            dirs.describe()?.ok_or_else(|| Error::NoData { place: place(), why: "there is no postdata_metadata.json" })?;
        if let (Some(found), Some(wanted)) = (recorded.scrypt_n, scrypt_n)
            && found != wanted
        {
            let (found, wanted) = (found.to_string(), wanted.to_string());
            return Err(Error::Mismatch { what: "scrypt N", place: recorded.place, found, wanted });
        }
        let n = scrypt_n.or(recorded.scrypt_n).unwrap_or(preset.params().scrypt_n);
        let layout = recorded.metadata.layout()?;
        let growing_to = recorded.target.map(|t| t.num_units).filter(|units| *units > recorded.metadata.num_units.0);
        let found = dirs.files()?;
        Ok(Self { metadata: recorded.metadata, n, layout, found, growing_to, origin: recorded.origin })
    }

    /// What the labels are bound to.
    pub fn commitment(&self) -> Commitment {
        commitment(&self.metadata.node_id, &self.metadata.commitment_atx_id)
    }

    /// The files asked for, within what there should be.
    fn files(&self, wanted: Option<&RangeInclusive<u64>>) -> Result<Range<u64>, Error> {
        let last = self.layout.file_count() - 1;
        match wanted {
            None => Ok(0..last + 1),
            Some(files) if files.is_empty() || *files.end() > last => {
                let (from, to) = (files.start(), files.end());
                Err(Error::Usage(format!("files {from} to {to} were asked for, but there are files 0 to {last}")))
            }
            Some(files) => Ok(*files.start()..files.end() + 1),
        }
    }

    /// Labels on disk, file by file, for the files that have any.
    fn on_disk(&self, files: &Range<u64>) -> Vec<Range<u64>> {
        self.found
            .range(files.clone())
            .map(|(file, _)| {
                let start = self.layout.file_labels(*file).start;
                start..start + DataDirs::whole_labels(&self.found, &self.layout, *file)
            })
            .filter(|labels| !labels.is_empty())
            .collect()
    }
}

/// How much to check.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Extent {
    /// Every label.
    All,
    /// So many percent of each file, at random places, the first and the last labels always among them.
    Percent(f64),
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Labels compared.
    pub checked: u64,
    /// Wrong labels, as ranges that do not touch each other.
    pub wrong: Vec<Range<u64>>,
    /// Labels that should be there but are not.
    pub missing: u64,
    /// The recorded nonce is not valid.
    pub bad_nonce: bool,
}

impl Findings {
    /// Number of wrong labels.
    pub fn wrong_labels(&self) -> u64 {
        self.wrong.iter().map(|r| r.end - r.start).sum()
    }

    /// [`Error::BadData`] with everything found in one sentence, if anything was found.
    pub fn verdict(&self) -> Result<(), Error> {
        let mut parts = Vec::new();
        if self.wrong_labels() > 0 {
            parts.push(format!("{} wrong labels (run `post-init repair`)", self.wrong_labels()));
        }
        if self.missing > 0 {
            parts.push(format!("{} labels missing (run `post-init init`)", self.missing));
        }
        if self.bad_nonce {
            parts.push("the recorded VRF nonce is not valid (run `post-init nonce`)".to_owned());
        }
        if parts.is_empty() { Ok(()) } else { Err(Error::BadData(parts.join("; "))) }
    }
}

/// Compares labels on disk with computed ones. What is found is told as events and returned; nothing is changed.
pub fn verify(
    existing: &Existing,
    dirs: &DataDirs,
    files: Option<&RangeInclusive<u64>>,
    extent: Extent,
    options: &PoolOptions,
    stop: &Stop,
    report: &dyn Report,
) -> Result<Findings, Error> {
    let started = Instant::now();
    let whole = files.is_none();
    if whole {
        dirs.refuse_a_part()?;
    }
    let files = existing.files(files)?;
    let mut findings = Findings { missing: tell_missing(existing, &files, report), ..Findings::default() };
    let on_disk = existing.on_disk(&files);
    match extent {
        Extent::Percent(percent) if percent < 100.0 => {
            let run = if options.gpus.is_empty() { RUN } else { GPU_RUN };
            let total = on_disk.iter().map(|labels| sample(labels.clone(), percent, run).0).sum();
            let ranges = on_disk.into_iter().flat_map(move |labels| sample(labels, percent, run).1);
            compare(existing, dirs, (total, ranges), &mut findings, options, stop, report)?;
        }
        Extent::Percent(_) | Extent::All => {
            let total = on_disk.iter().map(|labels| labels.end - labels.start).sum();
            compare(existing, dirs, (total, on_disk.into_iter()), &mut findings, options, stop, report)?;
        }
    }
    for range in &findings.wrong {
        tell_wrong(existing, range, report);
    }
    if whole && let Some(nonce) = existing.metadata.nonce {
        let mut checker = Checker::new(existing.commitment(), existing.n)?;
        findings.bad_nonce = recorded_nonce(existing, nonce, &mut checker)?.is_none();
    }
    if findings.verdict().is_ok() {
        let nonce =
            if whole && existing.metadata.nonce.is_none() { "; no VRF nonce is recorded (run `post-init nonce`)" } else { "" };
        report.event(&Event::Done {
            task: "verify",
            labels: findings.checked,
            seconds: started.elapsed().as_secs_f64(),
            text: format!("{} labels checked, all right{nonce}", findings.checked),
        });
    }
    Ok(findings)
}

/// Tells which files lack labels; how many labels lack in all.
fn tell_missing(existing: &Existing, files: &Range<u64>, report: &dyn Report) -> u64 {
    let lacking = files.clone().filter_map(|file| {
        let expected = DataDirs::wanted(&existing.layout, file);
        let found = DataDirs::whole_labels(&existing.found, &existing.layout, file);
        (found < expected).then_some((file, found, expected))
    });
    for (file, found, expected) in lacking.take(MOST_NAMED) {
        report.event(&Event::MissingLabels { file: file_name(file), found, expected });
    }
    // Counted without going through all files: damaged metadata may speak of more than can be gone through.
    let expected = existing.layout.file_labels(files.end - 1).end - existing.layout.file_labels(files.start).start;
    expected - existing.on_disk(files).iter().map(|labels| labels.end - labels.start).sum::<u64>()
}

fn tell_wrong(existing: &Existing, range: &Range<u64>, report: &dyn Report) {
    let file = existing.layout.file_of(range.start);
    report.event(&Event::WrongLabels { file: file_name(file), first: range.start, last: range.end - 1 });
}

/// Runs of labels at random places of a file: at least the wanted share, the first and the last run always among them. Also
/// the number of their labels. The runs are drawn while they are asked for: all of a large disk would fill the memory.
fn sample(labels: Range<u64>, percent: f64, longest: u64) -> (u64, impl Iterator<Item = Range<u64>> + Send) {
    let count = labels.end - labels.start;
    let share = count as f64 * percent / 100.0;
    let length = ((share / RUNS) as u64).clamp(RUN, longest.max(RUN));
    let runs = count.div_ceil(length);
    let wanted = ((share / length as f64).ceil() as u64).clamp(2, runs.max(2)).min(runs);
    let total = wanted * length - (runs * length - count);
    let mut needed = wanted;
    let chosen = (0..runs).filter(move |run| {
        // Of the runs between here and the last one, as many as are still needed besides the last one.
        let between = runs - 1 - run;
        let take = *run == 0 || between == 0 || rand::random_range(0..between) < needed - 1;
        needed -= u64::from(take);
        take
    });
    (total, chosen.map(move |run| labels.start + run * length..(labels.start + (run + 1) * length).min(labels.end)))
}

/// Reads labels of the file that is open at the moment.
struct Reader<'a> {
    existing: &'a Existing,
    dirs: &'a DataDirs,
    open: Option<(u64, Box<dyn LabelFile>)>,
    buffer: Vec<u8>,
}

impl Reader<'_> {
    fn read(&mut self, labels: &Range<u64>) -> Result<&[u8], Error> {
        let number = self.existing.layout.file_of(labels.start);
        let path = || self.dirs.path(self.existing.found.get(&number).map_or(0, |f| f.dir), number);
        if self.open.as_ref().is_none_or(|(open, _)| *open != number) {
            let file = self.dirs.storage.open(&path(), Mode::Read).context("open", path())?;
            self.open = Some((number, file));
        }
        self.buffer.resize(((labels.end - labels.start) * LABEL_BYTES) as usize, 0);
        if let Some((_, file)) = &self.open {
            let offset = (labels.start - self.existing.layout.file_labels(number).start) * LABEL_BYTES;
            file.read_at(offset, &mut self.buffer).context("read", path())?;
        }
        Ok(&self.buffer)
    }
}

/// Computes the ranges (`total` labels) and compares them with what is on disk.
fn compare(
    existing: &Existing,
    dirs: &DataDirs,
    (total, ranges): (u64, impl Iterator<Item = Range<u64>> + Send + 'static),
    findings: &mut Findings,
    options: &PoolOptions,
    stop: &Stop,
    report: &dyn Report,
) -> Result<(), Error> {
    let mut pool = Pool::new(options, existing.commitment(), existing.n)?;
    let rate = if total > 0 { pool.ready(stop, report)? } else { 0.0 };
    let meter = RefCell::new(Meter::start(report, "checking", 0, total, rate));
    let mut reader = Reader { existing, dirs, open: None, buffer: Vec::new() };
    pool.compute(ranges, stop, report, &mut Meter::ticker(&meter), &mut |batch| {
        let on_disk = reader.read(&batch.range)?;
        let pairs = on_disk.as_chunks::<16>().0.iter().zip(batch.labels.as_chunks::<16>().0);
        for ((found, expected), index) in pairs.zip(batch.range.clone()) {
            if found != expected {
                let same_file = |other: u64| existing.layout.file_of(other) == existing.layout.file_of(index);
                match findings.wrong.last_mut() {
                    Some(last) if last.end == index && same_file(last.start) => last.end += 1,
                    _ => findings.wrong.push(index..index + 1),
                }
            }
        }
        let count = batch.range.end - batch.range.start;
        findings.checked += count;
        meter.borrow_mut().add(count);
        Ok(ControlFlow::Continue(()))
    })?;
    meter.into_inner().finish(&pool.progress());
    Ok(())
}

/// Checks everything, then computes wrong labels again and overwrites them. Returns what is still not right.
///
/// If not a single label is right, nothing is written: then it is the identity, the commitment or N that is wrong, not the data.
pub fn repair(
    preset: Preset,
    scrypt_n: Option<ScryptN>,
    dirs: &DataDirs,
    files: Option<&RangeInclusive<u64>>,
    options: &PoolOptions,
    stop: &Stop,
    report: &dyn Report,
) -> Result<Findings, Error> {
    let started = Instant::now();
    Existing::open(dirs, preset, scrypt_n)?;
    let _locks = dirs.lock()?;
    let _socket = options.control.listen(&dirs.dirs[0].path, report);
    let existing = Existing::open(dirs, preset, scrypt_n)?;
    let mut findings = verify(&existing, dirs, files, Extent::All, options, stop, &OnlyFindings(report))?;
    let wrong = std::mem::take(&mut findings.wrong);
    let count: u64 = wrong.iter().map(|r| r.end - r.start).sum();
    if count > 0 {
        if count == findings.checked && !any_right(&existing, dirs)? {
            return Err(Error::BadData(
                "not a single label is right, so it is not the disk that is wrong: check --scrypt-n and whose data this is; nothing was \
                 changed"
                    .to_owned(),
            ));
        }
        rewrite(&existing, dirs, wrong, count, options, stop, report)?;
    }
    if findings.verdict().is_ok() {
        report.event(&Event::Done {
            task: "repair",
            labels: count,
            seconds: started.elapsed().as_secs_f64(),
            text: format!("{} labels checked, {count} computed again, all right now", findings.checked),
        });
    }
    Ok(findings)
}

/// Passes on everything but the closing word, which is `repair`'s own.
struct OnlyFindings<'a>(&'a dyn Report);

impl Report for OnlyFindings<'_> {
    fn event(&self, event: &Event) {
        if !matches!(event, Event::Done { .. }) {
            self.0.event(event);
        }
    }
}

/// Whether the first label of any file is what it should be.
fn any_right(existing: &Existing, dirs: &DataDirs) -> Result<bool, Error> {
    let mut checker = Checker::new(existing.commitment(), existing.n)?;
    let mut reader = Reader { existing, dirs, open: None, buffer: Vec::new() };
    for labels in existing.on_disk(&(0..existing.layout.file_count())) {
        if reader.read(&(labels.start..labels.start + 1))? == &checker.full_label(labels.start)[..16] {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Overwrites ranges that were proven wrong, and reads them back.
fn rewrite(
    existing: &Existing,
    dirs: &DataDirs,
    wrong: Vec<Range<u64>>,
    count: u64,
    options: &PoolOptions,
    stop: &Stop,
    report: &dyn Report,
) -> Result<(), Error> {
    let layout = &existing.layout;
    let mut pool = Pool::new(options, existing.commitment(), existing.n)?;
    let rate = pool.ready(stop, report)?;
    let meter = RefCell::new(Meter::start(report, "repairing", 0, count, rate));
    let mut open: Option<(u64, Box<dyn LabelFile>)> = None;
    let mut checker = Checker::new(existing.commitment(), existing.n)?;
    let mut back = Vec::new();
    pool.compute(wrong.into_iter(), stop, report, &mut Meter::ticker(&meter), &mut |batch| {
        let number = layout.file_of(batch.range.start);
        let path = dirs.path(existing.found.get(&number).map_or(0, |f| f.dir), number);
        if open.as_ref().is_none_or(|(other, _)| *other != number) {
            open = Some((number, dirs.storage.open(&path, Mode::Write).context("open", &path)?));
        }
        let Some((_, file)) = &mut open else { return Ok(ControlFlow::Break(())) };
        // Nothing is overwritten on the word of a device alone, which may be what is broken.
        for index in [batch.range.start, batch.range.end - 1] {
            let computed = &batch.labels[((index - batch.range.start) * LABEL_BYTES) as usize..][..16];
            let full = checker.full_label(index);
            if full[..16] != *computed {
                let device = "(the one that found this label wrong)".to_owned();
                let (found, expected) = (hex::encode(computed), hex::encode(&full[..16]));
                return Err(Error::WrongResult { device, index, found, expected });
            }
        }
        let offset = (batch.range.start - layout.file_labels(number).start) * LABEL_BYTES;
        file.write_at(offset, &batch.labels).context("write", &path)?;
        file.sync().context("sync", &path)?;
        back.resize(batch.labels.len(), 0);
        file.read_at(offset, &mut back).context("read", &path)?;
        if back != batch.labels {
            return Err(Error::BadData(format!("{} does not keep what is written to it: replace the disk", path.display())));
        }
        meter.borrow_mut().add(batch.range.end - batch.range.start);
        Ok(ControlFlow::Continue(()))
    })?;
    meter.into_inner().finish(&pool.progress());
    Ok(())
}

/// The recorded nonce with its value, if it is valid for this data.
fn recorded_nonce(existing: &Existing, index: u64, checker: &mut Checker) -> Result<Option<Nonce>, Error> {
    let search = Search::new(vrf_threshold(existing.layout.num_labels().0)?, None);
    let full = checker.full_label(index);
    let mut value = [0; 16];
    value.copy_from_slice(&full[..16]);
    let valid = search.is_valid(index, &full) && existing.metadata.nonce_value.is_none_or(|recorded| recorded == value);
    Ok(valid.then_some(Nonce { index, value }))
}

/// Finds a lost nonce: in the labels on disk, else behind the data if that is complete. A valid one is left as it is.
pub fn nonce(
    preset: Preset,
    scrypt_n: Option<ScryptN>,
    dirs: &DataDirs,
    options: &PoolOptions,
    stop: &Stop,
    report: &dyn Report,
) -> Result<Nonce, Error> {
    let started = Instant::now();
    Existing::open(dirs, preset, scrypt_n)?;
    dirs.refuse_a_part()?;
    let locks = dirs.lock()?;
    let existing = Existing::open(dirs, preset, scrypt_n)?;
    let mut checker = Checker::new(existing.commitment(), existing.n)?;
    let recorded = match existing.metadata.nonce {
        Some(index) => recorded_nonce(&existing, index, &mut checker)?,
        None => None,
    };
    let num_labels = existing.layout.num_labels().0;
    let mut search = Search::new(vrf_threshold(num_labels)?, recorded);
    if recorded.is_none() {
        let text = match existing.metadata.nonce {
            Some(index) => format!("the recorded nonce {index} is not valid; looking through the labels on disk"),
            None => "no nonce is recorded; looking through the labels on disk".to_owned(),
        };
        report.note(text);
        search.scan(dirs, &existing.found, &existing.layout, 0..num_labels, &mut checker, stop)?;
    }
    let write = |nonce: Option<Nonce>, last_position: Option<u64>| {
        let metadata = Metadata {
            nonce: nonce.map(|n| n.index),
            nonce_value: nonce.map(|n| n.value),
            last_position,
            ..existing.metadata.clone()
        };
        if metadata == existing.metadata && existing.origin == Origin::Metadata { Ok(()) } else { dirs.write_metadata(&metadata) }
    };
    if let Some(nonce) = search.best() {
        let found_now = recorded.is_none();
        write(Some(nonce), if found_now { None } else { existing.metadata.last_position })?;
        let what = if found_now { "found the VRF nonce" } else { "nothing is lost: the VRF nonce is" };
        report.event(&Event::Nonce { index: nonce.index, value: hex::encode(nonce.value) });
        report.event(&Event::Done {
            task: "nonce",
            labels: 0,
            seconds: started.elapsed().as_secs_f64(),
            text: format!("{what} {}", nonce.index),
        });
        return Ok(nonce);
    }
    let on_disk: u64 = existing.on_disk(&(0..existing.layout.file_count())).iter().map(|r| r.end - r.start).sum();
    if on_disk < num_labels {
        return Err(Error::BadData(format!(
            "no VRF nonce among the {on_disk} labels on disk, and {} labels are still missing: run `post-init init`",
            num_labels - on_disk
        )));
    }
    write(None, existing.metadata.last_position.filter(|position| *position >= num_labels).or(Some(num_labels)))?;
    drop(locks);
    let mut request = Request::new(preset);
    request.scrypt_n = Some(existing.n);
    request.min_num_units = Some(existing.metadata.num_units);
    request.max_num_units = Some(existing.metadata.num_units);
    request.num_units = Some(existing.metadata.num_units);
    let metadata = init::run(&request, dirs, options, stop, report)?;
    match (metadata.nonce, metadata.nonce_value) {
        (Some(index), Some(value)) => Ok(Nonce { index, value }),
        _ => Err(Error::BadData("no VRF nonce found".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn samples_are_in_order_and_hold_both_ends(
            start in 0_u64..1000,
            count in prop_oneof![1_u64..3000, 1_u64..3_000_000],
            percent in 0.0_f64..100.0,
            longest in prop_oneof![Just(RUN), Just(GPU_RUN)],
        ) {
            let (total, runs) = sample(start..start + count, percent, longest);
            let runs: Vec<_> = runs.collect();
            prop_assert_eq!(runs[0].start, start);
            prop_assert_eq!(runs[runs.len() - 1].end, start + count);
            prop_assert!(runs.windows(2).all(|pair| pair[0].end <= pair[1].start));
            prop_assert_eq!(runs.iter().map(|run| run.end - run.start).sum::<u64>(), total);
            prop_assert!(total as f64 + GPU_RUN.min(longest) as f64 > count as f64 * percent / 100.0);
        }
    }
}
