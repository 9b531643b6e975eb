//! The plain reference: one label at a time, what every doubt is settled with.

use std::path::Path;

use kernels::label::{FullLabel, Scratch, reference};
use proto::{ids::Commitment, post::ScryptN};

use crate::error::Error;

/// Computes single labels of one commitment.
#[derive(Debug)]
pub struct Checker {
    commitment: Commitment,
    n: ScryptN,
    scratch: Scratch,
}

impl Checker {
    /// Takes 128 × N bytes of memory.
    pub fn new(commitment: Commitment, n: ScryptN) -> Result<Self, Error> {
        let scratch = Scratch::new(n).map_err(|source| Error::Device { device: "cpu reference".to_owned(), source })?;
        Ok(Self { commitment, n, scratch })
    }

    /// The full label of an index.
    pub fn full_label(&mut self, index: u64) -> FullLabel {
        reference::full_label(&self.commitment, index, self.n, &mut self.scratch)
    }

    /// An error if the 16 bytes on disk are not the label of this index.
    pub fn check(&mut self, path: &Path, index: u64, on_disk: &[u8]) -> Result<(), Error> {
        let full = self.full_label(index);
        if full[..16] == *on_disk { Ok(()) } else { Err(self.wrong_label(path, index, on_disk, &full)) }
    }

    /// The error for a label on disk that is not what it should be.
    pub fn wrong_label(&self, path: &Path, index: u64, on_disk: &[u8], full: &FullLabel) -> Error {
        Error::WrongLabel {
            path: path.to_owned(),
            index,
            found: hex::encode(on_disk),
            expected: hex::encode(&full[..16]),
            scrypt_n: self.n.get(),
        }
    }
}
