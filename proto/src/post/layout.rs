//! Which label lies in which file (post.md section 5).

use std::ops::Range;

use super::LABEL_BYTES;
use crate::units::{Labels, SpaceUnits};

/// How the labels of an identity are spread over files: `postdata_0.bin`, `postdata_1.bin`, …, each a plain concatenation of
/// 16-byte labels, all of the same length but the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    labels_per_unit: u64,
    num_units: SpaceUnits,
    max_file_size: u64,
    num_labels: u64,
}

/// The sizes do not describe any data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Not even one label per file.
    #[error("the maximum file size must be at least 16 bytes, got {0}")]
    FileSize(u64),
    /// Nothing to store.
    #[error("labels per unit and number of units must not be 0")]
    Empty,
    /// More labels or bytes than 64 bits can count.
    #[error("{num_units} units of {labels_per_unit} labels are more than 2^64 bytes")]
    TooLarge {
        /// Labels in one unit.
        labels_per_unit: u64,
        /// Number of units.
        num_units: SpaceUnits,
    },
}

impl Layout {
    /// Checks the sizes: all byte positions fit 64 bits. `max_file_size` is in bytes; what is left of a division by 16 is
    /// unused.
    pub fn new(labels_per_unit: u64, num_units: SpaceUnits, max_file_size: u64) -> Result<Self, LayoutError> {
        if max_file_size < LABEL_BYTES {
            return Err(LayoutError::FileSize(max_file_size));
        }
        if labels_per_unit == 0 || num_units.0 == 0 {
            return Err(LayoutError::Empty);
        }
        let num_labels = labels_per_unit.checked_mul(num_units.0.into());
        match num_labels {
            Some(num_labels) if num_labels.checked_mul(LABEL_BYTES).is_some() => {
                Ok(Self { labels_per_unit, num_units, max_file_size, num_labels })
            }
            _ => Err(LayoutError::TooLarge { labels_per_unit, num_units }),
        }
    }

    /// Labels in one unit.
    pub const fn labels_per_unit(&self) -> u64 {
        self.labels_per_unit
    }

    /// Number of units.
    pub const fn num_units(&self) -> SpaceUnits {
        self.num_units
    }

    /// Bytes of a full file, as the metadata states it.
    pub const fn max_file_size(&self) -> u64 {
        self.max_file_size
    }

    /// All labels.
    pub const fn num_labels(&self) -> Labels {
        Labels(self.num_labels)
    }

    /// Bytes of all labels.
    pub const fn num_bytes(&self) -> u64 {
        self.num_labels * LABEL_BYTES
    }

    /// Labels in a full file.
    pub const fn labels_per_file(&self) -> u64 {
        self.max_file_size / LABEL_BYTES
    }

    /// Number of files.
    pub const fn file_count(&self) -> u64 {
        self.num_labels.div_ceil(self.labels_per_file())
    }

    /// Indices of the labels in file `file`; empty beyond the last file.
    pub fn file_labels(&self, file: u64) -> Range<u64> {
        let start = file.saturating_mul(self.labels_per_file()).min(self.num_labels);
        start..start.saturating_add(self.labels_per_file()).min(self.num_labels)
    }

    /// Bytes of file `file` when complete.
    pub fn file_bytes(&self, file: u64) -> u64 {
        let labels = self.file_labels(file);
        (labels.end - labels.start) * LABEL_BYTES
    }

    /// The file that holds label `index`.
    pub const fn file_of(&self, index: u64) -> u64 {
        index / self.labels_per_file()
    }
}

/// `postdata_<file>.bin`.
pub fn file_name(file: u64) -> String {
    format!("postdata_{file}.bin")
}

/// The number in `postdata_<number>.bin`; `None` for other names, leading zeros included.
pub fn parse_file_name(name: &str) -> Option<u64> {
    let number = name.strip_prefix("postdata_")?.strip_suffix(".bin")?.parse().ok()?;
    (file_name(number) == name).then_some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn mainnet_unit_is_sixteen_files() {
        let layout = Layout::new(1 << 32, SpaceUnits(4), 1 << 32).unwrap();
        assert_eq!(layout.num_bytes(), 256 << 30);
        assert_eq!(layout.file_count(), 64);
        assert_eq!(layout.file_bytes(63), 1 << 32);
        assert_eq!(layout.file_labels(64), (1 << 34)..(1 << 34));
    }

    #[test]
    fn impossible_sizes_are_refused() {
        assert_eq!(Layout::new(10, SpaceUnits(1), 15), Err(LayoutError::FileSize(15)));
        assert_eq!(Layout::new(0, SpaceUnits(1), 16), Err(LayoutError::Empty));
        assert_eq!(Layout::new(1, SpaceUnits(0), 16), Err(LayoutError::Empty));
        assert!(matches!(Layout::new(1 << 60, SpaceUnits(1), 16), Err(LayoutError::TooLarge { .. })));
        assert!(matches!(Layout::new(1 << 33, SpaceUnits(u32::MAX), 16), Err(LayoutError::TooLarge { .. })));
    }

    #[test]
    fn only_canonical_names_are_data_files() {
        assert_eq!(parse_file_name("postdata_0.bin"), Some(0));
        assert_eq!(parse_file_name("postdata_18446744073709551615.bin"), Some(u64::MAX));
        for name in ["postdata_.bin", "postdata_01.bin", "postdata_+1.bin", "postdata_1.bin.tmp", "postdata_1xbin", "1.bin"] {
            assert_eq!(parse_file_name(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn files_cover_all_labels_once(lpu in 1_u64..5000, units in 1_u32..20, size in 16_u64..9000) {
            let layout = Layout::new(lpu, SpaceUnits(units), size).unwrap();
            let mut next = 0;
            for file in 0..layout.file_count() {
                let labels = layout.file_labels(file);
                prop_assert_eq!(labels.start, next);
                prop_assert!(labels.end > labels.start);
                prop_assert_eq!(layout.file_of(labels.start), file);
                prop_assert_eq!(layout.file_of(labels.end - 1), file);
                next = labels.end;
            }
            prop_assert_eq!(Labels(next), layout.num_labels());
        }
    }
}
