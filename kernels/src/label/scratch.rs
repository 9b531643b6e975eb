//! The memory of ROMix: allocated once per worker, on huge pages where the system has them.

use std::{
    alloc::{Layout, alloc, dealloc},
    ptr::NonNull,
    slice,
};

use proto::post::ScryptN;

use super::{Block, DeviceError};
use crate::huge_pages::{self, HUGE_PAGE};

/// The array V of the label function (`docs/spec/post.md` section 3.3), for one label or for several side by side.
#[derive(Debug)]
pub struct Scratch {
    start: NonNull<Block>,
    blocks: usize,
}

// SAFETY: the memory belongs to this value alone and is plain words.
#[expect(unsafe_code, reason = "an owner of plain memory")]
unsafe impl Send for Scratch {}
// SAFETY: as above; shared references give no access.
#[expect(unsafe_code, reason = "an owner of plain memory")]
unsafe impl Sync for Scratch {}

impl Scratch {
    /// Memory for one label.
    pub fn new(n: ScryptN) -> Result<Self, DeviceError> {
        Self::for_labels(n, 1)
    }

    /// Bytes that `labels` labels side by side take.
    pub(super) fn bytes(n: ScryptN, labels: usize) -> u64 {
        (labels as u64).saturating_mul(n.get() as u64 * size_of::<Block>() as u64)
    }

    /// Memory for several labels side by side.
    #[expect(unsafe_code, reason = "aligned memory that may be refused, and the advice to use huge pages before its first use")]
    pub(super) fn for_labels(n: ScryptN, labels: usize) -> Result<Self, DeviceError> {
        let bytes = Self::bytes(n, labels);
        let out_of_memory = DeviceError::OutOfMemory { bytes };
        let Some(layout) = usize::try_from(bytes).ok().and_then(Self::layout) else { return Err(out_of_memory) };
        // SAFETY: the layout is not empty, N and the number of labels being positive.
        let Some(start) = NonNull::new(unsafe { alloc(layout) }) else { return Err(out_of_memory) };
        // SAFETY: the range is the allocation made above.
        unsafe { huge_pages::advise(start.as_ptr(), layout.size()) };
        // SAFETY: as long as the allocation; bytes are valid at any value, and from here on all of it is initialised.
        unsafe { start.write_bytes(0, layout.size()) };
        Ok(Self { start: start.cast(), blocks: layout.size() / size_of::<Block>() })
    }

    fn layout(bytes: usize) -> Option<Layout> {
        let align = if bytes >= HUGE_PAGE { HUGE_PAGE } else { align_of::<Block>() };
        Layout::from_size_align(bytes, align).ok()
    }

    /// The memory.
    #[expect(unsafe_code, reason = "the view of the allocation")]
    pub(super) fn blocks(&mut self) -> &mut [Block] {
        // SAFETY: the allocation holds this many initialised blocks, is aligned for them, and is borrowed with `self`.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.blocks) }
    }
}

impl Drop for Scratch {
    #[expect(unsafe_code, reason = "the end of the allocation")]
    fn drop(&mut self) {
        if let Some(layout) = Self::layout(self.blocks * size_of::<Block>()) {
            // SAFETY: allocated in `for_labels` with the layout of the same size.
            unsafe { dealloc(self.start.as_ptr().cast(), layout) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_does_not_exist_is_an_error() {
        let n = ScryptN::new(1 << 20).expect("a power of two");
        for labels in [1 << 30, usize::MAX] {
            let bytes = Scratch::bytes(n, labels);
            assert_eq!(Scratch::for_labels(n, labels).err(), Some(DeviceError::OutOfMemory { bytes }));
        }
    }

    #[test]
    fn memory_is_aligned_and_as_long_as_asked() {
        for (n, labels) in [(2, 1), (2, 3), (1024, 16), (8192, 3)] {
            let mut scratch = Scratch::for_labels(ScryptN::new(n).expect("a power of two"), labels).expect("memory");
            let blocks = scratch.blocks();
            assert_eq!(blocks.len() as u64, n * labels as u64);
            assert_eq!(blocks.as_ptr().addr() % if blocks.len() < 1 << 14 { 64 } else { HUGE_PAGE }, 0);
            blocks.fill(Block([1; 32]));
        }
    }
}
