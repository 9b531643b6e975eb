//! Compares what devices make with the plain reference.
//!
//! Of a core of the processor one label in some thousands: unstable hardware shows. Of any other device some labels of every batch
//! and the one that is claimed to be the smallest, all 32 bytes of it, by a thread of its own, so that the device does not wait.

use std::{ops::Range, sync::Arc};

use crossbeam_channel::{Receiver, Sender, bounded};
use kernels::label::Smallest;
use proto::{
    ids::Commitment,
    post::{LABEL_BYTES, ScryptN},
};

use super::{Batch, Shared, Trouble, thread};
use crate::{checker::Checker, error::Error};

/// One in so many labels of the processor is computed again, at a cost below 0.3 %.
const CHECK_EVERY: u64 = 2048;
/// So many labels of each batch of any other device are, besides its smallest one.
const CHECKS: usize = 4;

/// Decides whether a batch is right.
pub(super) struct Inspector {
    checker: Checker,
    /// Whether few checks are enough.
    trusts: bool,
    /// Labels since the last check of a trusted device; the first batch is always checked.
    unchecked: u64,
}

impl Inspector {
    pub(super) fn new(commitment: Commitment, n: ScryptN, trusts: bool) -> Result<Self, Error> {
        Ok(Self { checker: Checker::new(commitment, n)?, trusts, unchecked: CHECK_EVERY })
    }

    /// Compares some labels of a range with the reference, and full labels with the smallest one.
    pub(super) fn check(&mut self, range: &Range<u64>, labels: &[u8], smallest: &Smallest) -> Result<(), Trouble> {
        let any = || rand::random_range(range.clone());
        if self.trusts {
            self.unchecked += range.end - range.start;
            if self.unchecked >= CHECK_EVERY {
                self.unchecked = 0;
                self.compare(any(), range, labels)?;
            }
            return Ok(());
        }
        if !range.contains(&smallest.index) {
            return Err(wrong(smallest.index, &smallest.label, b"in another range"));
        }
        let label = self.compare(smallest.index, range, labels)?;
        if label != smallest.label {
            return Err(wrong(smallest.index, &smallest.label, &label));
        }
        for index in std::iter::repeat_with(any).take(CHECKS) {
            let label = self.compare(index, range, labels)?;
            // What is claimed to be the smallest label is not.
            if smallest.min(Smallest { index, label }) != *smallest {
                return Err(wrong(smallest.index, &smallest.label, &label));
            }
        }
        Ok(())
    }

    /// The full label of an index, if the first half of it is what the device made.
    fn compare(&mut self, index: u64, range: &Range<u64>, labels: &[u8]) -> Result<[u8; 32], Trouble> {
        let made = &labels[((index - range.start) * LABEL_BYTES) as usize..][..LABEL_BYTES as usize];
        let full = self.checker.full_label(index);
        if full[..16] == *made { Ok(full) } else { Err(wrong(index, made, &full[..16])) }
    }
}

fn wrong(index: u64, found: &[u8], expected: &[u8]) -> Trouble {
    Trouble::Wrong { index, found: hex::encode(found), expected: hex::encode(expected) }
}

/// A batch and the task it belongs to.
pub(super) type Made = (u64, Batch);

/// Starts a thread that checks batches of a device, one after the other, and hands on what is right. It ends with the sender.
pub(super) fn inspect(shared: Arc<Shared>, number: usize, name: &str) -> Result<Sender<Made>, Error> {
    // One is checked while the next one is made.
    let (sender, receiver) = bounded(1);
    let inspector = Inspector::new(shared.commitment, shared.n, false)?;
    thread(name, move || run(&shared, number, inspector, &receiver))?;
    Ok(sender)
}

fn run(shared: &Shared, number: usize, mut inspector: Inspector, batches: &Receiver<Made>) {
    for (task, batch) in batches {
        let verdict = inspector.check(&batch.range, &batch.labels, &batch.smallest);
        shared.settle(number, task, batch, verdict);
    }
}
