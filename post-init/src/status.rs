//! `status`: what lies in the directories, without computing anything.

use std::path::PathBuf;

use proto::post::LABEL_BYTES;
use serde::Serialize;

use crate::{
    check::Existing,
    data_dir::{DataDirs, Origin},
    error::Error,
    size::show_size,
};

/// What `status` tells.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// Hex.
    pub node_id: String,
    /// Hex.
    pub commitment_atx_id: String,
    /// Recorded N, else the one in force by flag or preset.
    pub scrypt_n: u32,
    /// Labels in one unit.
    pub labels_per_unit: u64,
    /// Units declared.
    pub num_units: u32,
    /// Units the identity is growing to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub growing_to: Option<u32>,
    /// Bytes of a full file.
    pub max_file_size: u64,
    /// Labels there should be.
    pub labels_total: u64,
    /// Whole labels that are there.
    pub labels_on_disk: u64,
    /// Whether all labels are there and a nonce is recorded.
    pub complete: bool,
    /// Files there should be.
    pub files_total: u64,
    /// Files that have all their labels.
    pub files_complete: u64,
    /// Files that have some labels.
    pub files_partial: u64,
    /// Files that are not there.
    pub files_missing: u64,
    /// Files with labels beyond the declared units, or bytes beyond their size: longer than needed.
    pub longer_than_needed: Vec<Longer>,
    /// Files that end in a torn label.
    pub torn: Vec<String>,
    /// The VRF nonce.
    pub nonce: Option<u64>,
    /// Hex of the label at the nonce.
    pub nonce_value: Option<String>,
    /// Whether the metadata had to be taken from the side file.
    pub metadata_damaged: bool,
    /// Whether a process works on the data.
    pub in_use: bool,
    /// Each directory.
    pub directories: Vec<Directory>,
    /// Directories of this identity that were not named.
    pub not_named: Vec<PathBuf>,
}

/// A file that is longer than needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Longer {
    /// Name of the file.
    pub file: String,
    /// Bytes it has.
    pub bytes: u64,
    /// Bytes it needs.
    pub needed: u64,
}

/// A directory of the identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Directory {
    /// Its path.
    pub path: PathBuf,
    /// Data files in it.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Free bytes of its file system.
    pub free: Option<u64>,
}

/// Looks.
pub fn status(existing: &Existing, dirs: &DataDirs) -> Result<Status, Error> {
    let Existing { metadata, layout, found, .. } = existing;
    let (mut on_disk, mut complete, mut partial) = (0, 0, 0);
    let (mut longer, mut torn) = (Vec::new(), Vec::new());
    for (number, file) in found {
        let needed = DataDirs::wanted(layout, *number) * LABEL_BYTES;
        let labels = DataDirs::whole_labels(found, layout, *number);
        on_disk += labels;
        match labels * LABEL_BYTES {
            0 => {}
            bytes if bytes == needed => complete += 1,
            _ => partial += 1,
        }
        let name = || proto::post::file_name(*number);
        if file.bytes > needed {
            longer.push(Longer { file: name(), bytes: file.bytes, needed });
        }
        if file.bytes % LABEL_BYTES != 0 {
            torn.push(name());
        }
    }
    let directories = dirs.dirs.iter().enumerate().map(|(position, dir)| {
        let here = || found.values().filter(move |f| f.dir == position);
        Directory {
            path: dir.path.clone(),
            files: here().count(),
            bytes: here().map(|f| f.bytes).sum(),
            free: dirs.storage.free_bytes(&dir.path).ok(),
        }
    });
    let total = layout.num_labels().0;
    Ok(Status {
        node_id: metadata.node_id.to_string(),
        commitment_atx_id: metadata.commitment_atx_id.to_string(),
        scrypt_n: existing.n.get(),
        labels_per_unit: metadata.labels_per_unit,
        num_units: metadata.num_units.0,
        growing_to: existing.growing_to,
        max_file_size: metadata.max_file_size,
        labels_total: total,
        labels_on_disk: on_disk,
        complete: on_disk == total && metadata.nonce.is_some(),
        files_total: layout.file_count(),
        files_complete: complete,
        files_partial: partial,
        files_missing: layout.file_count() - complete - partial,
        longer_than_needed: longer,
        torn,
        nonce: metadata.nonce,
        nonce_value: metadata.nonce_value.map(hex::encode),
        metadata_damaged: existing.origin == Origin::SideFile,
        in_use: dirs.in_use(),
        directories: directories.collect(),
        not_named: dirs.forgotten()?,
    })
}

impl Status {
    /// For people.
    pub fn show(&self) -> String {
        let mut lines = vec![
            format!("identity        {}", self.node_id),
            format!("commitment ATX  {}", self.commitment_atx_id),
            format!(
                "size            {} units of {} labels = {}, N = {}",
                self.num_units,
                self.labels_per_unit,
                show_size(self.labels_total * LABEL_BYTES),
                self.scrypt_n
            ),
            format!(
                "labels          {} of {} on disk ({:.2} %)",
                self.labels_on_disk,
                self.labels_total,
                100.0 * self.labels_on_disk as f64 / self.labels_total as f64
            ),
            format!(
                "files           {} complete, {} partial, {} missing of {}",
                self.files_complete, self.files_partial, self.files_missing, self.files_total
            ),
            match self.nonce {
                Some(nonce) => format!("VRF nonce       {nonce}"),
                None => "VRF nonce       none yet".to_owned(),
            },
        ];
        if let Some(units) = self.growing_to {
            lines.push(format!("growing         to {units} units; run `post-init init` to go on"));
        }
        for dir in &self.directories {
            let free = dir.free.map_or_else(|| "unknown".to_owned(), show_size);
            lines.push(format!(
                "directory       {}: {} files, {}, {free} free",
                dir.path.display(),
                dir.files,
                show_size(dir.bytes)
            ));
        }
        for path in &self.not_named {
            lines.push(format!("not named       {}: pass it with --data-dir, too", path.display()));
        }
        for longer in &self.longer_than_needed {
            lines.push(format!(
                "longer          {} has {} bytes, {} are needed (`post-init prune` removes the rest)",
                longer.file, longer.bytes, longer.needed
            ));
        }
        for file in &self.torn {
            lines.push(format!("torn            {file} ends in the middle of a label; `post-init init` cuts that off"));
        }
        if self.metadata_damaged {
            lines.push("metadata        empty, cut off or missing; `post-init init` writes it again".to_owned());
        }
        let state = match (self.in_use, self.complete) {
            (true, _) => "a process is working on it",
            (false, true) => "complete",
            (false, false) => "not complete; `post-init init` goes on",
        };
        lines.push(format!("state           {state}"));
        lines.join("\n")
    }
}
