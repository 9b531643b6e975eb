//! k2pow (`docs/spec/post.md` section 9): the RandomX puzzle that makes trying many nonces expensive.
//!
//! [`RandomX`] holds what all threads share: a cache of 256 MiB (light mode) or a dataset of 2080 MiB made from it (fast mode,
//! some tens of times faster per hash). [`Hasher`] is a virtual machine of one thread. [`search`] looks for the smallest proof
//! of work of a [`Puzzle`] on several threads, can be stopped at any time and tells how far it is. [`Shared`] builds the cache or
//! the dataset when it is first needed, hands out the same one to everybody and forgets it when nobody has used it for a while.
//!
//! RandomX itself is the C++ of the `randomx-rs` crate, bound here because that crate fills the dataset on one thread only.

mod ffi;

use std::{
    num::NonZeroU32,
    sync::{
        Arc, Mutex, TryLockError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use proto::{
    ids::{Challenge, NodeId},
    units::SpaceUnits,
};

pub use ffi::Hasher;

/// The key all RandomX caches of the network are made from (post.md section 1).
pub const CACHE_KEY: &[u8] = b"spacemesh-randomx-cache-key";
/// The last value a search tries: the puzzle takes 56 bits (post.md section 9).
pub const MAX_POW: u64 = (1 << 56) - 1;
/// Bytes of a dataset.
pub const DATASET_BYTES: u64 = 2080 << 20;

/// Why there is no hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PowError {
    /// RandomX could not have its memory.
    #[error("no memory for the RandomX {what}{hint}")]
    OutOfMemory {
        /// What the memory was for.
        what: &'static str,
        /// What may help.
        hint: &'static str,
    },
    /// Asked to stop.
    #[error("stopped")]
    Stopped,
    /// None of the 2^56 values solves the puzzle.
    #[error("no proof of work exists for nonce group {group}")]
    Exhausted {
        /// The group.
        group: u8,
    },
}

/// How much memory to spend on speed. Hashes are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// 256 MiB.
    Light,
    /// 2080 MiB, and many seconds to fill them.
    Fast,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Light => "light",
            Self::Fast => "fast",
        })
    }
}

impl std::str::FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "light" => Ok(Self::Light),
            "fast" => Ok(Self::Fast),
            other => Err(format!("unknown RandomX mode {other:?}: choose fast or light")),
        }
    }
}

/// One puzzle: everything but the value searched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Puzzle {
    /// Who proves.
    pub node_id: NodeId,
    /// The first 8 bytes of the challenge.
    pub challenge: [u8; 8],
    /// The nonce group.
    pub group: u8,
    /// A hash must be below this, as 32-byte big-endian numbers: the difficulty already divided by the units.
    pub difficulty: [u8; 32],
}

impl Puzzle {
    /// The puzzle of a nonce group. `difficulty` is the network's, for one unit.
    pub fn new(node_id: NodeId, challenge: &Challenge, group: u8, difficulty: &[u8; 32], units: NonZeroU32) -> Self {
        let mut first = [0; 8];
        first.copy_from_slice(&challenge.as_bytes()[..8]);
        Self { node_id, challenge: first, group, difficulty: scale_difficulty(difficulty, units) }
    }

    /// What is hashed: 7 bytes of `pow`, the group, 8 bytes of the challenge, the identity (post.md section 9).
    pub fn input(&self, pow: u64) -> [u8; 48] {
        let mut input = [0; 48];
        input[..7].copy_from_slice(&pow.to_le_bytes()[..7]);
        input[7] = self.group;
        input[8..16].copy_from_slice(&self.challenge);
        input[16..].copy_from_slice(self.node_id.as_bytes());
        input
    }

    /// Whether `pow` solves the puzzle. Its top byte is not looked at (post.md section 9).
    pub fn is_solved_by(&self, hasher: &mut Hasher, pow: u64) -> bool {
        hasher.hash(&self.input(pow)) < self.difficulty
    }

    /// Hashes a search needs on average; infinite when there is no solution.
    pub fn expected_hashes(&self) -> f64 {
        let difficulty = self.difficulty.iter().fold(0.0, |sum, byte| sum * 256.0 + f64::from(*byte));
        2_f64.powi(256) / difficulty
    }
}

/// `floor(difficulty / units)` of a 32-byte big-endian number (post.md section 9).
pub fn scale_difficulty(difficulty: &[u8; 32], units: NonZeroU32) -> [u8; 32] {
    let divisor = u64::from(units.get());
    let mut remainder = 0_u64;
    difficulty.map(|byte| {
        let dividend = remainder << 8 | u64::from(byte);
        remainder = dividend % divisor;
        (dividend / divisor) as u8
    })
}

/// As [`scale_difficulty`], for a count that may be zero: then nothing is divided.
pub fn scale_difficulty_by(difficulty: &[u8; 32], units: SpaceUnits) -> [u8; 32] {
    NonZeroU32::new(units.0).map_or(*difficulty, |units| scale_difficulty(difficulty, units))
}

/// The memory of RandomX, shared by the hashers of all threads.
#[derive(Debug, Clone)]
pub struct RandomX {
    memory: Arc<ffi::Memory>,
    mode: Mode,
    large_pages: bool,
}

/// How [`RandomX`] is built.
#[derive(Debug, Clone, Copy)]
pub struct BuildOptions {
    /// Memory for speed.
    pub mode: Mode,
    /// Take explicitly reserved large pages; where there are not enough of them, ordinary memory is used.
    pub large_pages: bool,
    /// Threads that fill the dataset.
    pub threads: usize,
}

impl RandomX {
    /// Takes the memory and fills it: half a second in light mode, many seconds in fast mode.
    ///
    /// `stop` is looked at between pieces of a tenth of a second of work; `progress` counts the bytes of the dataset done.
    pub fn build(options: BuildOptions, stop: &AtomicBool, progress: &AtomicU64) -> Result<Self, PowError> {
        let cache = ffi::Cache::new(CACHE_KEY, options.large_pages)?;
        if stop.load(Ordering::Relaxed) {
            return Err(PowError::Stopped);
        }
        let memory = match options.mode {
            Mode::Light => ffi::Memory::Cache(cache),
            Mode::Fast => ffi::Memory::Dataset(ffi::Dataset::new(&cache, options.large_pages, options.threads, stop, progress)?),
        };
        Ok(Self { memory: Arc::new(memory), mode: options.mode, large_pages: options.large_pages })
    }

    /// The mode it was built for.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// A machine for one thread.
    pub fn hasher(&self) -> Result<Hasher, PowError> {
        Hasher::new(Arc::clone(&self.memory), self.large_pages)
    }
}

/// Finds the smallest solution of the puzzle on `threads` threads of its own.
///
/// `stop` ends it within a hash per thread, some 30 ms in light mode; `hashes` counts as it goes.
pub fn search(
    randomx: &RandomX,
    puzzle: &Puzzle,
    threads: usize,
    stop: &AtomicBool,
    hashes: &AtomicU64,
) -> Result<u64, PowError> {
    let threads = threads.max(1);
    let hashers = (0..threads).map(|_| randomx.hasher()).collect::<Result<Vec<_>, _>>()?;
    // Thread t tries t, t + threads, …; whoever is beyond the best value found is done, so the smallest one wins.
    let best = AtomicU64::new(u64::MAX);
    thread::scope(|scope| {
        for (first, mut hasher) in hashers.into_iter().enumerate() {
            let best = &best;
            scope.spawn(move || {
                let mut pow = first as u64;
                let mut pipeline = hasher.start(&puzzle.input(pow));
                while !stop.load(Ordering::Relaxed) && pow < best.load(Ordering::Relaxed) && pow <= MAX_POW {
                    let next = pow + threads as u64;
                    let hash = pipeline.next(&puzzle.input(next));
                    hashes.fetch_add(1, Ordering::Relaxed);
                    if hash < puzzle.difficulty {
                        best.fetch_min(pow, Ordering::Relaxed);
                        return;
                    }
                    pow = next;
                }
            });
        }
    });
    if stop.load(Ordering::Relaxed) {
        return Err(PowError::Stopped);
    }
    match best.into_inner() {
        u64::MAX => Err(PowError::Exhausted { group: puzzle.group }),
        pow => Ok(pow),
    }
}

/// One [`RandomX`] for a whole program: built when first asked for, kept while used, dropped by [`Shared::free_idle`].
#[derive(Debug)]
pub struct Shared {
    options: BuildOptions,
    /// Bytes of the dataset built so far.
    progress: AtomicU64,
    slot: Mutex<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    randomx: Option<RandomX>,
    last_use: Option<Instant>,
}

impl Shared {
    /// Nothing is built yet.
    pub fn new(options: BuildOptions) -> Self {
        Self { options, progress: AtomicU64::new(0), slot: Mutex::default() }
    }

    /// Bytes of the dataset built so far, while [`Shared::get`] is at work in fast mode; 0 before, [`DATASET_BYTES`] after.
    pub fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    /// How it will be built.
    pub const fn options(&self) -> BuildOptions {
        self.options
    }

    /// The shared memory; waits while somebody else builds it.
    pub fn get(&self, stop: &AtomicBool) -> Result<RandomX, PowError> {
        let mut slot = loop {
            match self.slot.try_lock() {
                Ok(slot) => break slot,
                Err(TryLockError::Poisoned(poisoned)) => break poisoned.into_inner(),
                Err(TryLockError::WouldBlock) if stop.load(Ordering::Relaxed) => return Err(PowError::Stopped),
                Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(20)),
            }
        };
        slot.last_use = Some(Instant::now());
        if let Some(randomx) = &slot.randomx {
            return Ok(randomx.clone());
        }
        self.progress.store(0, Ordering::Relaxed);
        let randomx = RandomX::build(self.options, stop, &self.progress)?;
        slot.last_use = Some(Instant::now());
        slot.randomx = Some(randomx.clone());
        Ok(randomx)
    }

    /// Gives the memory back if nobody holds it and nobody asked for it within `idle`; tells whether it did.
    pub fn free_idle(&self, idle: Duration) -> bool {
        let Ok(mut slot) = self.slot.try_lock() else { return false };
        let unused = slot.randomx.as_ref().is_some_and(|randomx| Arc::strong_count(&randomx.memory) == 1);
        if unused && slot.last_use.is_none_or(|at| at.elapsed() >= idle) {
            slot.randomx = None;
            return true;
        }
        false
    }

    /// Whether the memory is held now or being filled; does not wait for that.
    pub fn is_built(&self) -> bool {
        match self.slot.try_lock() {
            Ok(slot) => slot.randomx.is_some(),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().randomx.is_some(),
            Err(TryLockError::WouldBlock) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn light() -> RandomX {
        static ONE: std::sync::OnceLock<RandomX> = std::sync::OnceLock::new();
        let options = BuildOptions { mode: Mode::Light, large_pages: false, threads: 1 };
        ONE.get_or_init(|| RandomX::build(options, &AtomicBool::new(false), &AtomicU64::new(0)).unwrap()).clone()
    }

    fn vectors(name: &str) -> Vec<Value> {
        let file: Value = serde_json::from_str(include_str!("../testdata/k2pow.json")).unwrap();
        let vectors = file[name].as_array().unwrap().clone();
        assert!(!vectors.is_empty());
        vectors
    }

    fn bytes<const N: usize>(value: &Value) -> [u8; N] {
        hex::decode(value.as_str().unwrap()).unwrap().try_into().unwrap()
    }

    fn number(value: &Value) -> u64 {
        value.as_u64().unwrap_or_else(|| value.as_str().unwrap().parse().unwrap())
    }

    fn puzzle(v: &Value, difficulty: &str) -> Puzzle {
        Puzzle {
            node_id: NodeId(bytes(&v["miner_id"])),
            challenge: bytes(&v["challenge8"]),
            group: number(&v["nonce_group"]) as u8,
            difficulty: v.get(difficulty).map_or([0; 32], bytes),
        }
    }

    #[test]
    fn hashes_match_the_official_implementation() {
        let cache = ffi::Cache::new(b"test key 000", false).unwrap();
        let mut hasher = Hasher::new(Arc::new(ffi::Memory::Cache(cache)), false).unwrap();
        assert_eq!(
            hex::encode(hasher.hash(b"This is a test")),
            "639183aae1bf4c9a35884cb46b09cad9175f04efd7684e7262a0ac1c2f0b4e3f"
        );
    }

    #[test]
    fn inputs_and_hashes_match_the_reference() {
        let mut hasher = light().hasher().unwrap();
        for v in vectors("hashes") {
            let input = puzzle(&v, "").input(number(&v["pow"]));
            assert_eq!(hex::encode(input), v["input"].as_str().unwrap());
            assert_eq!(hasher.hash(&input), bytes(&v["hash"]));
        }
    }

    #[test]
    fn the_smallest_solution_is_found_on_any_number_of_threads() {
        let mut threads = (1..=3).cycle();
        for v in vectors("search") {
            let puzzle = puzzle(&v, "scaled_difficulty");
            let units = NonZeroU32::new(number(&v["num_units"]) as u32).unwrap();
            assert_eq!(scale_difficulty(&bytes(&v["base_difficulty"]), units), puzzle.difficulty);
            let hashes = AtomicU64::new(0);
            let pow = search(&light(), &puzzle, threads.next().unwrap(), &AtomicBool::new(false), &hashes).unwrap();
            assert_eq!(pow, number(&v["smallest_pow"]));
            assert!(hashes.into_inner() > pow);
            assert_eq!(light().hasher().unwrap().hash(&puzzle.input(pow)), bytes(&v["hash"]));
        }
    }

    #[test]
    fn verdicts_match_the_reference() {
        let mut hasher = light().hasher().unwrap();
        for v in vectors("verify") {
            let valid = puzzle(&v, "difficulty").is_solved_by(&mut hasher, number(&v["pow"]));
            assert_eq!(valid, v["valid"].as_bool().unwrap(), "{}", v["what"]);
        }
    }

    #[test]
    fn difficulties_are_scaled_as_the_reference_does() {
        let file: Value = serde_json::from_str(include_str!("../testdata/difficulty.json")).unwrap();
        let vectors = file["pow_scaling"].as_array().unwrap();
        assert!(!vectors.is_empty());
        for v in vectors {
            let units = NonZeroU32::new(number(&v["num_units"]) as u32).unwrap();
            assert_eq!(scale_difficulty(&bytes(&v["difficulty"]), units), bytes(&v["scaled"]));
        }
    }

    #[test]
    fn a_hopeless_search_stops_when_told() {
        let hopeless = Puzzle { node_id: NodeId([1; 32]), challenge: [2; 8], group: 3, difficulty: [0; 32] };
        let (stop, hashes) = (AtomicBool::new(false), AtomicU64::new(0));
        let randomx = light();
        thread::scope(|scope| {
            let searching = scope.spawn(|| search(&randomx, &hopeless, 2, &stop, &hashes));
            while hashes.load(Ordering::Relaxed) == 0 {
                thread::yield_now();
            }
            let told = Instant::now();
            stop.store(true, Ordering::Relaxed);
            assert_eq!(searching.join().unwrap(), Err(PowError::Stopped));
            assert!(told.elapsed() < Duration::from_secs(1));
        });
    }

    #[test]
    fn the_shared_memory_is_built_once_and_freed_when_idle() {
        let shared = Shared::new(BuildOptions { mode: Mode::Light, large_pages: true, threads: 2 });
        assert!(!shared.is_built());
        let stop = AtomicBool::new(false);
        let first = shared.get(&stop).unwrap();
        let second = shared.get(&stop).unwrap();
        assert!(Arc::ptr_eq(&first.memory, &second.memory));
        drop((first, second));
        assert!(!shared.free_idle(Duration::from_secs(3600)));
        let held = shared.get(&stop).unwrap();
        assert!(!shared.free_idle(Duration::ZERO), "somebody holds it");
        drop(held);
        assert!(shared.free_idle(Duration::ZERO));
        assert!(!shared.is_built());
        stop.store(true, Ordering::Relaxed);
        assert!(matches!(shared.get(&stop), Err(PowError::Stopped)));
    }

    #[test]
    fn expected_work_is_that_of_mainnet() {
        let difficulty = proto::post::Preset::Mainnet.params().pow_difficulty;
        let puzzle = Puzzle::new(NodeId([0; 32]), &Challenge([0; 32]), 0, &difficulty, NonZeroU32::new(4).unwrap());
        assert!((puzzle.expected_hashes() - 18750.0).abs() < 1.0);
    }
}
