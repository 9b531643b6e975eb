//! The search for the VRF nonce: the index of the smallest label below the threshold (post.md section 4).
//!
//! The nonce is recorded *before* the labels of its batch are written. So whatever moment a run dies at, every label on disk has
//! been looked at, and the recorded nonce is the smallest of them or a label that will be computed again.

use std::{collections::BTreeMap, ops::Range};

use kernels::label::{FullLabel, Smallest};
use proto::post::{LABEL_BYTES, Layout, NonceValue};

use crate::{
    checker::Checker,
    data_dir::{DataDirs, Found},
    error::{Error, IoContext as _},
    stop::Stop,
    storage::Mode,
};

/// A label below the threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nonce {
    /// Its index.
    pub index: u64,
    /// Its first 16 bytes.
    pub value: NonceValue,
}

/// Keeps the best nonce.
#[derive(Debug, Clone)]
pub struct Search {
    threshold: FullLabel,
    best: Option<Nonce>,
}

impl Search {
    /// Starts from what is known already.
    pub fn new(threshold: FullLabel, best: Option<Nonce>) -> Self {
        Self { threshold, best }
    }

    /// The best so far.
    pub fn best(&self) -> Option<Nonce> {
        self.best
    }

    /// Whether an index with this full label is a valid nonce (section 4.2). The last index of all cannot be evaluated by the
    /// deployed programs and is not.
    pub fn is_valid(&self, index: u64, label: &FullLabel) -> bool {
        index < u64::MAX && *label < self.threshold
    }

    /// Takes the smallest label of a batch; whether it is better than all before. As in the deployed programs the first 16 bytes
    /// decide between batches, and the earlier one stays when they are equal (section 4.3).
    pub fn offer(&mut self, smallest: &Smallest) -> bool {
        let mut value = NonceValue::default();
        value.copy_from_slice(&smallest.label[..16]);
        let better = self.is_valid(smallest.index, &smallest.label) && self.best.is_none_or(|best| value < best.value);
        if better {
            self.best = Some(Nonce { index: smallest.index, value });
        }
        better
    }

    /// Looks through labels that are on disk already, without computing them: only those that could be better are computed, by
    /// `checker`. A candidate that turns out to be a wrong label is an error: the data is damaged.
    pub fn scan(
        &mut self,
        dirs: &DataDirs,
        files: &BTreeMap<u64, Found>,
        layout: &Layout,
        labels: Range<u64>,
        checker: &mut Checker,
        stop: &Stop,
    ) -> Result<(), Error> {
        let mut buffer = vec![0; 1 << 20];
        for (number, found) in files.range(layout.file_of(labels.start)..) {
            let in_file = layout.file_labels(*number);
            let on_disk = DataDirs::whole_labels(files, layout, *number);
            let start = labels.start.max(in_file.start);
            let end = labels.end.min(in_file.start + on_disk);
            if start >= end {
                continue;
            }
            let path = dirs.path(found.dir, *number);
            let file = dirs.storage.open(&path, Mode::Read).context("open", &path)?;
            let mut next = start;
            while next < end {
                stop.check()?;
                let count = (end - next).min(buffer.len() as u64 / LABEL_BYTES);
                let bytes = &mut buffer[..(count * LABEL_BYTES) as usize];
                file.read_at((next - in_file.start) * LABEL_BYTES, bytes).context("read", &path)?;
                for (label, index) in bytes.as_chunks::<16>().0.iter().zip(next..) {
                    // At most the first half of the threshold, so the second half may still decide.
                    if self.best.map_or(label[..] <= self.threshold[..16], |best| *label < best.value) {
                        let full = checker.full_label(index);
                        if full[..16] != label[..] {
                            return Err(checker.wrong_label(&path, index, label, &full));
                        }
                        self.offer(&Smallest { index, label: full });
                    }
                }
                next += count;
            }
        }
        Ok(())
    }
}

/// Names the first label below the threshold in a batch of labels (the first 16 bytes of each) that starts at `first`.
///
/// Beyond the data the *first* valid label is taken, not the smallest of a batch: so the result does not depend on how the work
/// was cut into batches, on which devices, or on where it was interrupted.
pub fn first_below(search: &Search, labels: &[u8], first: u64, checker: &mut Checker) -> Option<Nonce> {
    labels.as_chunks::<16>().0.iter().zip(first..).find_map(|(label, index)| {
        let candidate = label[..] <= search.threshold[..16] && search.is_valid(index, &checker.full_label(index));
        candidate.then_some(Nonce { index, value: *label })
    })
}
