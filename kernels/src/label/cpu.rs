//! Labels on one core of the processor: many at a time, in the widest registers it has.
//!
//! Every instruction set is one file with the same two parts, ROMix for several labels at once and Keccak-f\[1600\] for several
//! states at once; what goes around them is here. The choice is made while the program runs ([`Isa::best`]), so one binary
//! suits all processors of an architecture.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(any(target_arch = "x86_64", test))]
mod keccak;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod words;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::{fmt, iter, str::FromStr};

use proto::{ids::Commitment, post::ScryptN};

#[cfg(target_arch = "aarch64")]
use self::neon::Neon;
use self::portable::Portable;
#[cfg(target_arch = "x86_64")]
use self::{avx2::Avx2, avx512::Avx512};
use super::{
    Block, Device, DeviceError, DeviceInfo, DeviceKind, FullLabel, STORED, Scratch, Smallest, check_range,
    hash::{Key, State},
    reference,
};

/// The instruction sets there are kernels for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Isa {
    /// No special instructions; runs everywhere.
    Portable,
    /// x86-64 with 256-bit registers.
    Avx2,
    /// x86-64 with 512-bit registers (AVX-512 F).
    Avx512,
    /// aarch64 with its 128-bit registers.
    Neon,
}

impl Isa {
    /// All of them, slowest first.
    pub const ALL: [Self; 4] = [Self::Portable, Self::Neon, Self::Avx2, Self::Avx512];

    /// Those that this machine runs, slowest first.
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|isa| Kernel::detect(*isa).is_some()).collect()
    }

    /// The fastest of this machine.
    pub fn best() -> Self {
        Self::available().pop().unwrap_or(Self::Portable)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Neon => "neon",
        }
    }

    /// Labels in flight; known for all of them everywhere, so that memory can be planned for another machine.
    const fn lanes(self) -> usize {
        match self {
            Self::Neon => 8,
            Self::Portable | Self::Avx2 | Self::Avx512 => 16,
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No instruction set of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown instruction set {0:?} (known: portable, neon, avx2, avx512)")]
pub struct ParseIsaError(pub String);

impl FromStr for Isa {
    type Err = ParseIsaError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|isa| isa.name() == text).ok_or_else(|| ParseIsaError(text.to_owned()))
    }
}

/// What an instruction set brings. A value of an implementing type is the proof that the machine has the instructions.
trait Arithmetic<const H: usize>: Copy {
    /// Labels that cannot be computed apart; a batch is filled up to a multiple of this.
    const GROUP: usize;

    /// Fewer labels than this are done sooner one by one.
    const WORTH: usize;

    /// Keccak-f\[1600\] on `H` states.
    fn permute(self, state: &mut State<H>);

    /// ROMix (`docs/spec/post.md` section 3.3) of all blocks, a multiple of [`GROUP`](Self::GROUP) and at most [`Isa::lanes`].
    /// `v` holds exactly N blocks for each.
    fn romix(self, blocks: &mut [Block], v: &mut [Block]);
}

/// The kernel in use.
#[derive(Debug, Clone, Copy)]
enum Kernel {
    Portable(Portable),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
}

impl Kernel {
    fn detect(isa: Isa) -> Option<Self> {
        match isa {
            Isa::Portable => Some(Self::Portable(Portable)),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Avx2::detect().map(Self::Avx2),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Avx512::detect().map(Self::Avx512),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => Neon::detect().map(Self::Neon),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512 => None,
            #[cfg(not(target_arch = "aarch64"))]
            Isa::Neon => None,
        }
    }

    fn full_labels(self, n: ScryptN, jobs: &[(Commitment, u64)], out: &mut [FullLabel], v: &mut [Block]) {
        match self {
            Self::Portable(kernel) => full_labels(kernel, n, jobs, out, v),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(kernel) => full_labels(kernel, n, jobs, out, v),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(kernel) => full_labels(kernel, n, jobs, out, v),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(kernel) => full_labels(kernel, n, jobs, out, v),
        }
    }
}

/// The label function for at most [`Isa::lanes`] jobs; `v` has room for N blocks times [`Isa::lanes`].
fn full_labels<const H: usize, K: Arithmetic<H>>(
    kernel: K,
    n: ScryptN,
    jobs: &[(Commitment, u64)],
    out: &mut [FullLabel],
    v: &mut [Block],
) {
    if jobs.len() < K::WORTH {
        for ((commitment, index), out) in iter::zip(jobs, out) {
            *out = reference::full_label_in(commitment, *index, &mut v[..n.get() as usize]);
        }
        return;
    }
    let permute = |state: &mut State<H>| kernel.permute(state);
    let mut blocks = vec![Block::ZERO; jobs.len().next_multiple_of(K::GROUP)];
    let (hashed, _) = blocks.as_chunks_mut::<H>();
    let keys: Vec<_> = iter::zip(jobs.chunks(H), hashed)
        .map(|(jobs, blocks)| {
            // The last chunk may be short: its last job fills it up.
            let key = Key::new(&std::array::from_fn(|l| jobs[l.min(jobs.len() - 1)]), permute);
            key.expand(blocks, permute);
            key
        })
        .collect();
    let v = &mut v[..blocks.len() * n.get() as usize];
    kernel.romix(&mut blocks, v);
    let (hashed, _) = blocks.as_chunks::<H>();
    for ((key, blocks), out) in keys.iter().zip(hashed).zip(out.chunks_mut(H)) {
        let mut labels = [[0; 32]; H];
        key.squeeze(blocks, &mut labels, permute);
        out.copy_from_slice(&labels[..out.len()]);
    }
}

/// A [`Device`] on the core it is called on. Holds its scratch memory from the start to the end of its life.
#[derive(Debug)]
pub struct Cpu {
    info: DeviceInfo,
    kernel: Kernel,
    n: ScryptN,
    scratch: Scratch,
}

impl Cpu {
    /// Takes the scratch memory. Fails when the machine lacks the instructions or the memory.
    pub fn new(isa: Isa, n: ScryptN) -> Result<Self, DeviceError> {
        let name = format!("cpu {isa}");
        let kernel = Kernel::detect(isa).ok_or_else(|| DeviceError::Unavailable(name.clone()))?;
        let lanes = isa.lanes();
        let info = DeviceInfo { name, kind: DeviceKind::Cpu, lanes, scratch_bytes: Self::scratch_bytes(isa, n) };
        Ok(Self { info, kernel, n, scratch: Scratch::for_labels(n, lanes)? })
    }

    /// Memory that [`Cpu::new`] would take.
    pub fn scratch_bytes(isa: Isa, n: ScryptN) -> u64 {
        Scratch::bytes(n, isa.lanes())
    }

    /// The full labels of any pairs of commitment and index, computed together. `out` has one place per job.
    pub fn full_labels(&mut self, jobs: &[(Commitment, u64)], out: &mut [FullLabel]) -> Result<(), DeviceError> {
        if jobs.len() != out.len() {
            return Err(DeviceError::JobCount { jobs: jobs.len(), room: out.len() });
        }
        let lanes = self.info.lanes;
        for (jobs, out) in iter::zip(jobs.chunks(lanes), out.chunks_mut(lanes)) {
            self.batch(jobs, out);
        }
        Ok(())
    }

    /// At most as many as there are lanes.
    fn batch(&mut self, jobs: &[(Commitment, u64)], out: &mut [FullLabel]) {
        self.kernel.full_labels(self.n, jobs, out, self.scratch.blocks());
    }
}

impl Device for Cpu {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn labels(&mut self, commitment: &Commitment, first: u64, out: &mut [u8]) -> Result<Smallest, DeviceError> {
        check_range(first, out)?;
        let lanes = self.info.lanes;
        let mut smallest = Smallest { index: u64::MAX, label: [u8::MAX; 32] };
        let mut jobs = Vec::with_capacity(lanes);
        let mut full = vec![[0; 32]; lanes];
        let mut next = first;
        for out in out.chunks_mut(lanes * STORED) {
            let count = out.len() / STORED;
            jobs.clear();
            // The range was checked, only the index after the last one may wrap.
            jobs.extend((0..count as u64).map(|i| (*commitment, next.wrapping_add(i))));
            next = next.wrapping_add(count as u64);
            self.batch(&jobs, &mut full[..count]);
            for ((stored, full), (_, index)) in out.chunks_mut(STORED).zip(&full).zip(&jobs) {
                stored.copy_from_slice(&full[..STORED]);
                smallest = smallest.min(Smallest { index: *index, label: *full });
            }
        }
        Ok(smallest)
    }
}
