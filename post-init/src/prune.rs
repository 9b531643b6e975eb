//! `prune`: deletes labels beyond the declared units. The only task that deletes, and only when the owner confirms it.

use std::fs;

use proto::{ids::NodeId, post::LABEL_BYTES};

use crate::{
    check::Existing,
    data_dir::DataDirs,
    error::{Error, IoContext as _},
    event::{Event, Report},
    size::show_size,
    stop::Stop,
    storage::Mode,
};

/// What goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excess {
    /// Number of the file.
    pub file: u64,
    /// Position of its directory.
    pub dir: usize,
    /// Bytes it has.
    pub bytes: u64,
    /// Bytes that stay; 0 when the file goes as a whole.
    pub keep: u64,
}

/// Lists what is beyond the declared units, without changing anything.
pub fn excess(existing: &Existing) -> Result<Vec<Excess>, Error> {
    if let Some(units) = existing.growing_to {
        return Err(Error::Usage(format!("the identity is growing to {units} units; its labels beyond are not in excess")));
    }
    let list = existing.found.iter().filter_map(|(number, found)| {
        let keep = DataDirs::wanted(&existing.layout, *number) * LABEL_BYTES;
        (found.bytes > keep).then_some(Excess { file: *number, dir: found.dir, bytes: found.bytes, keep })
    });
    Ok(list.collect())
}

/// Deletes what [`excess`] lists, the last files first. `confirmed` is what the owner typed.
pub fn prune(
    existing: &Existing,
    dirs: &DataDirs,
    confirmed: Option<NodeId>,
    stop: &Stop,
    report: &dyn Report,
) -> Result<(), Error> {
    dirs.refuse_a_part()?;
    let list = excess(existing)?;
    for item in &list {
        report.note(describe(dirs, item));
    }
    let freed: u64 = list.iter().map(|item| item.bytes - item.keep).sum();
    if !list.is_empty() {
        let id = existing.metadata.node_id;
        if confirmed != Some(id) {
            return Err(Error::NotConfirmed(id));
        }
        let _locks = dirs.lock()?;
        // While the owner was thinking another process may have grown the identity: then what was in excess no longer is.
        let now = dirs
            .describe()?
            .map(|now| (now.metadata.num_units, now.target.is_some_and(|t| t.num_units > now.metadata.num_units.0)));
        if now != Some((existing.metadata.num_units, false)) || dirs.files()? != existing.found {
            return Err(Error::Usage("the data has changed since it was looked at; nothing was deleted".to_owned()));
        }
        for item in list.iter().rev() {
            stop.check()?;
            let path = dirs.path(item.dir, item.file);
            if item.keep == 0 {
                fs::remove_file(&path).context("delete", &path)?;
            } else {
                let mut file = dirs.storage.open(&path, Mode::Write).context("open", &path)?;
                file.cut(item.keep).context("shorten", &path)?;
                file.sync().context("sync", &path)?;
            }
        }
    }
    let text = if list.is_empty() { "there is nothing to delete".to_owned() } else { format!("{} deleted", show_size(freed)) };
    report.event(&Event::Done { task: "prune", labels: freed / LABEL_BYTES, seconds: 0.0, text });
    Ok(())
}

/// `postdata_5.bin: all of it (4.0 GiB)`.
pub fn describe(dirs: &DataDirs, item: &Excess) -> String {
    let path = dirs.path(item.dir, item.file);
    let what = if item.keep == 0 { "all of it" } else { "its end" };
    format!("goes: {}, {what} ({})", path.display(), show_size(item.bytes - item.keep))
}
