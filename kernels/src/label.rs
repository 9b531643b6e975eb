//! The label function of PoST (`docs/spec/post.md` section 3) behind one role, [`Device`].
//!
//! A label is `scrypt(commitment || index)` with Keccak-512 and ChaCha20/8 ("scrypt-jane"), 1 MiB of scratch memory at N = 8192.
//! Whoever needs many labels asks a [`Device`] for a range and gets the stored halves together with the [`Smallest`] full label
//! of the range, from which the VRF nonce is chosen (section 4). Devices do not know about files, thresholds or progress.
//!
//! - [`reference`](mod@reference): one label at a time, written to be read beside the specification; everything else is tested against it
//! - [`cpu`]: many labels at a time in the vector registers of one core, one file per instruction set
//! - `wgpu` and `cuda`, behind the features of these names: tens of thousands of labels at a time on a graphics processor; `gpu` is what
//!   they share
//! - `faulty`, behind the feature `testing`: a device with any of the faults that GPUs have

mod hash;
mod scratch;

pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(feature = "testing")]
pub mod faulty;
#[cfg(feature = "gpu")]
#[cfg_attr(not(any(feature = "cuda", feature = "wgpu")), expect(dead_code, reason = "only backends drive something"))]
pub mod gpu;
pub mod reference;
#[cfg(feature = "wgpu")]
pub mod wgpu;

use std::cmp::Ordering;

use proto::ids::Commitment;

pub use scratch::Scratch;

/// The 32 bytes of the label function; the first 16 are the label on disk (post.md section 3).
pub type FullLabel = [u8; 32];

/// Bytes of a label on disk, as an index type.
const STORED: usize = proto::post::LABEL_BYTES as usize;

/// The working state of one label: words 0 to 15 are block B0, words 16 to 31 block B1 (post.md section 3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(64))]
struct Block([u32; 32]);

impl Block {
    /// What fresh memory holds.
    const ZERO: Self = Self([0; 32]);
}

/// The smallest full label of a range and where it is; of equal labels the one with the lowest index (post.md section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Smallest {
    /// Index of the label.
    pub index: u64,
    /// The label.
    pub label: FullLabel,
}

impl Smallest {
    /// The smaller of two, so that the smallest of a range is the `min` of its parts in any order.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        // Arrays compare byte by byte from the front, which is the big-endian order of section 4.2.
        match other.label.cmp(&self.label).then(other.index.cmp(&self.index)) {
            Ordering::Less => other,
            Ordering::Equal | Ordering::Greater => self,
        }
    }
}

/// What runs the kernels of a [`Device`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceKind {
    /// One core of the processor.
    Cpu,
    /// A graphics processor through Vulkan, Metal or DirectX 12.
    Wgpu,
    /// A graphics processor through CUDA.
    Cuda,
}

/// What a [`Device`] is and takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// For people: `cpu avx512`.
    pub name: String,
    /// What runs the kernels.
    pub kind: DeviceKind,
    /// Labels computed together; ranges of a multiple of this waste nothing.
    pub lanes: usize,
    /// Memory held for the scratch pads of these labels.
    pub scratch_bytes: u64,
}

/// Why a [`Device`] gave no labels.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// The place for the labels is empty or not a whole number of labels.
    #[error("room for {bytes} bytes of labels is not a non-zero multiple of {STORED}")]
    OutputSize {
        /// Length of the place.
        bytes: usize,
    },
    /// The number of results does not equal the number of jobs.
    #[error("{jobs} labels asked for but room for {room}")]
    JobCount {
        /// Labels asked for.
        jobs: usize,
        /// Labels there is room for.
        room: usize,
    },
    /// The range goes beyond the last index, 2^64 - 1.
    #[error("{count} labels from index {first} reach beyond the last index")]
    RangeOverflow {
        /// First index of the range.
        first: u64,
        /// Number of labels.
        count: u64,
    },
    /// The scratch memory could not be had.
    #[error("no memory for {bytes} bytes of scratch")]
    OutOfMemory {
        /// What was asked for.
        bytes: u64,
    },
    /// This machine cannot run the backend.
    #[error("{0} is not available on this machine")]
    Unavailable(String),
    /// No kernel is made for these parameters on this device.
    #[error("this device does not do {0}")]
    Unsupported(String),
    /// The device is gone or was reset; what it worked on is lost and it has to be opened again.
    #[error("device lost: {0}")]
    Lost(String),
    /// The device does not come to an end; it cannot be used any more by this process.
    #[error("device has not answered for {seconds} s")]
    Hung {
        /// How long was waited.
        seconds: u64,
    },
    /// The device or its driver failed.
    #[error("device failed: {0}")]
    Failed(String),
}

/// One worker that turns label ranges into labels, one range at a time.
///
/// A CPU has one per thread, a GPU one per adapter.
pub trait Device: Send {
    /// What this is.
    fn info(&self) -> &DeviceInfo;

    /// Writes the labels of the indices `first ..` that fill `out`, 16 bytes each, and tells the smallest full label among them.
    ///
    /// `out` holds at least one label and only whole labels; the last index may be `u64::MAX` but not lie beyond it.
    fn labels(&mut self, commitment: &Commitment, first: u64, out: &mut [u8]) -> Result<Smallest, DeviceError>;

    /// Gives back the memory of the device until the next call of [`labels`](Self::labels), for a pause. A device that keeps its
    /// memory for life does nothing.
    fn release(&mut self) {}

    /// Bytes of memory held on the device now.
    fn allocated(&self) -> u64 {
        self.info().scratch_bytes
    }
}

/// Checks the arguments of [`Device::labels`] and tells the number of labels.
fn check_range(first: u64, out: &[u8]) -> Result<u64, DeviceError> {
    if out.is_empty() || !out.len().is_multiple_of(STORED) {
        return Err(DeviceError::OutputSize { bytes: out.len() });
    }
    let count = (out.len() / STORED) as u64;
    match first.checked_add(count - 1) {
        Some(_) => Ok(count),
        None => Err(DeviceError::RangeOverflow { first, count }),
    }
}
