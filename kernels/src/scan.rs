//! The proving scan (`docs/spec/post.md` sections 10 and 12): which labels are good for which nonces.
//!
//! A block cipher keyed per group of 16 nonces turns a label into 16 bytes, one per nonce. A byte below the first byte of the
//! [`Difficulty`] makes the label good; an equal byte leaves the decision to a cipher of that nonce alone, the *lazy* cipher.
//!
//! [`Scanner::scan`] works in tiles that fit the first-level cache. Per tile and group it encrypts all labels and compares in
//! vector registers, which leaves one bit per (label, nonce); the few bits that are set are collected and decided in a second
//! pass. Everything that depends on the CPU is two functions, one file per instruction set; [`Backend`] names them.
//!
//! [`NonceCipher`] answers the same question for one label and one nonce, as verifiers need it.

mod keys;
mod portable;

#[cfg(target_arch = "aarch64")]
mod arm;
#[cfg(target_arch = "x86_64")]
mod x86;

use proto::{ids::Challenge, units::Labels};

use self::keys::RoundKeys;

/// Nonces that share a cipher (post.md section 1).
pub const NONCES_PER_GROUP: u32 = 16;
/// The last nonce group (post.md section 1).
pub const MAX_GROUP: u32 = 255;
/// Labels at the end of a batch that do not fill a chunk of this many are not scanned (post.md section 12.3).
pub const CHUNK_LABELS: usize = 8;

const LABEL_BYTES: usize = proto::post::LABEL_BYTES as usize;
/// Labels encrypted by one step of a wide backend: 64 bytes.
const BLOCK_LABELS: usize = 4;
/// Labels per tile: 16 KiB, which stays in the first-level cache beside the keys and what is found.
const TILE_LABELS: usize = 1024;
const TILE_BLOCKS: usize = TILE_LABELS / BLOCK_LABELS;

/// The bar a label has to pass for a nonce (post.md section 10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difficulty {
    /// Compared with a byte of the group cipher.
    pub msb: u8,
    /// Compared with 56 bits of the lazy cipher when that byte is equal.
    pub lsb: u64,
}

/// No difficulty can be computed. The texts are those of the deployed verifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DifficultyError {
    /// No labels.
    #[error("number of label blocks must be > 0")]
    NoLabels,
    /// Not more labels than are expected to be good.
    #[error("number of labels ({num_labels}) must be bigger than k1 ({k1})")]
    TooFewLabels {
        /// Labels there are.
        num_labels: u64,
        /// Good labels to expect per nonce.
        k1: u32,
    },
}

impl Difficulty {
    /// `floor(2^64 * k1 / num_labels)`, of which the first byte and the rest are used apart (post.md section 10).
    pub fn new(k1: u32, num_labels: Labels) -> Result<Self, DifficultyError> {
        let Labels(num_labels) = num_labels;
        if num_labels == 0 {
            return Err(DifficultyError::NoLabels);
        }
        if num_labels <= u64::from(k1) {
            return Err(DifficultyError::TooFewLabels { num_labels, k1 });
        }
        Ok(Self::from_u64(((u128::from(k1) << 64) / u128::from(num_labels)) as u64))
    }

    /// Splits the 64-bit value.
    pub const fn from_u64(value: u64) -> Self {
        Self { msb: (value >> 56) as u8, lsb: value & LSB_MASK }
    }

    /// The 64-bit value.
    pub const fn as_u64(self) -> u64 {
        (self.msb as u64) << 56 | self.lsb
    }

    /// Bytes of the group cipher below this may be good; 0 to 256. An equal byte matters only if the lazy cipher can still win.
    fn below(self) -> u16 {
        u16::from(self.msb) + u16::from(self.lsb > 0)
    }
}

const LSB_MASK: u64 = (1 << 56) - 1;

/// The outcome of testing one label for one nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Test {
    /// The label counts.
    Good,
    /// The byte of the group cipher is above the difficulty.
    MsbTooHigh {
        /// That byte.
        msb: u8,
    },
    /// The byte is equal and the 56 bits of the lazy cipher are not below the difficulty.
    LsbTooHigh {
        /// Those bits.
        lsb: u64,
    },
}

fn group_keys(challenge: &Challenge, group: u32, pow: u64) -> (RoundKeys, blake3::Hasher) {
    let mut hasher = blake3::Hasher::new();
    hasher.update(challenge.as_bytes()).update(&group.to_le_bytes()).update(&pow.to_le_bytes());
    (expand(&hasher), hasher)
}

fn lazy_keys(group: &blake3::Hasher, nonce: u32) -> RoundKeys {
    expand(group.clone().update(&nonce.to_le_bytes()))
}

fn expand(hasher: &blake3::Hasher) -> RoundKeys {
    let mut key = [0; 16];
    key.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    RoundKeys::new(key)
}

/// Both ciphers of one nonce (post.md section 10).
#[derive(Debug, Clone)]
pub struct NonceCipher {
    group: RoundKeys,
    lazy: RoundKeys,
    offset: usize,
}

impl NonceCipher {
    /// The ciphers of `nonce` under a challenge and the proof of work of its group.
    pub fn new(challenge: &Challenge, nonce: u32, pow: u64) -> Self {
        let (group, hasher) = group_keys(challenge, nonce / NONCES_PER_GROUP, pow);
        Self { group, lazy: lazy_keys(&hasher, nonce), offset: (nonce % NONCES_PER_GROUP) as usize }
    }

    /// The byte the first cipher gives for a label.
    pub fn msb(&self, label: &[u8; 16]) -> u8 {
        portable::encrypt(&self.group, label)[self.offset]
    }

    /// The 56 bits the second cipher gives for a label.
    pub fn lsb(&self, label: &[u8; 16]) -> u64 {
        portable::lazy_bits(&self.lazy, label)
    }

    /// Whether the label is good for the nonce.
    pub fn test(&self, label: &[u8; 16], difficulty: Difficulty) -> Test {
        let msb = self.msb(label);
        if msb < difficulty.msb {
            return Test::Good;
        }
        if msb > difficulty.msb {
            return Test::MsbTooHigh { msb };
        }
        let lsb = self.lsb(label);
        if lsb < difficulty.lsb { Test::Good } else { Test::LsbTooHigh { lsb } }
    }
}

/// The instruction sets the scan is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Backend {
    /// Any CPU.
    Portable,
    /// x86-64 with AES instructions: 16 bytes at a time.
    AesNi,
    /// x86-64 with AVX2 and vector AES: 32 bytes at a time.
    Vaes256,
    /// x86-64 with AVX-512 and vector AES: 64 bytes at a time.
    Vaes512,
    /// ARMv8 with the cryptography extension.
    Arm,
}

impl Backend {
    /// All of them, the fastest last on every CPU.
    pub const ALL: [Self; 5] = [Self::Portable, Self::Arm, Self::AesNi, Self::Vaes256, Self::Vaes512];

    /// Whether this CPU can run it.
    pub fn is_available(self) -> bool {
        self.ops().is_some()
    }

    /// The fastest one this CPU can run.
    pub fn best() -> Self {
        Self::ALL.into_iter().rev().find(|b| b.is_available()).unwrap_or(Self::Portable)
    }

    /// A short name for logs and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::AesNi => "aes-ni",
            Self::Vaes256 => "vaes-256",
            Self::Vaes512 => "vaes-512",
            Self::Arm => "armv8-aes",
        }
    }

    fn ops(self) -> Option<Ops> {
        match self {
            Self::Portable => Some(portable::OPS),
            #[cfg(target_arch = "x86_64")]
            Self::AesNi => x86::aes_ni(),
            #[cfg(target_arch = "x86_64")]
            Self::Vaes256 => x86::vaes_256(),
            #[cfg(target_arch = "x86_64")]
            Self::Vaes512 => x86::vaes_512(),
            #[cfg(target_arch = "aarch64")]
            Self::Arm => arm::ops(),
            #[allow(unreachable_patterns, reason = "which arms remain depends on the target")]
            _ => None,
        }
    }
}

/// The steps that depend on the CPU. A value exists only where the CPU has the instructions, so calling them is sound.
#[derive(Clone, Copy)]
struct Ops {
    /// Encrypts blocks of four labels; bit `16 * l + o` of mask `b` tells whether byte `o` of label `4 * b + l` came out below
    /// the given bound. `labels` holds as many blocks as there are masks. `ahead` will be needed soon.
    masks: fn(keys: &RoundKeys, labels: &[u8], below: u8, masks: &mut [u64], ahead: &[u8]),
    /// Lists the numbers of the masks that have a bit set and returns how many there are.
    set_masks: fn(masks: &[u64], list: &mut [u32; TILE_BLOCKS]) -> usize,
    /// Encrypts the label of each candidate with the cipher of its nonce and keeps, in order, those whose first 56 bits are
    /// below the bound; returns how many were kept.
    lazy: fn(keys: &[RoundKeys; NONCES_PER_GROUP as usize], labels: &[u8], candidates: &mut [Candidate], below: u64) -> usize,
}

/// A label of the tile and a nonce of the group, in one word: `label * 16 + offset of the nonce`.
type Candidate = u32;

const fn candidate_label(candidate: Candidate) -> usize {
    (candidate / NONCES_PER_GROUP) as usize
}

const fn candidate_offset(candidate: Candidate) -> usize {
    (candidate % NONCES_PER_GROUP) as usize
}

/// A label that is good for a nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hit {
    /// The nonce.
    pub nonce: u32,
    /// Index of the label.
    pub index: u64,
}

/// A nonce group and the proof of work found for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupPow {
    /// The group, at most [`MAX_GROUP`].
    pub group: u8,
    /// Its proof of work.
    pub pow: u64,
}

struct Group {
    first_nonce: u32,
    keys: RoundKeys,
    lazy: Box<[RoundKeys; NONCES_PER_GROUP as usize]>,
}

/// The ciphers of one pass: finds the labels that are good for any nonce of its groups. Shared by all threads of the pass.
pub struct Scanner {
    groups: Vec<Group>,
    difficulty: Difficulty,
    ops: Ops,
    backend: Backend,
}

impl std::fmt::Debug for Scanner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scanner").field("groups", &self.groups.len()).field("backend", &self.backend).finish_non_exhaustive()
    }
}

impl Scanner {
    /// Prepares the ciphers of `groups` for the fastest backend of this CPU.
    pub fn new(challenge: &Challenge, groups: &[GroupPow], difficulty: Difficulty) -> Self {
        Self::with_backend(Backend::best(), challenge, groups, difficulty)
    }

    /// Prepares the ciphers for a given backend, or for the portable one where the CPU cannot run it.
    pub fn with_backend(backend: Backend, challenge: &Challenge, groups: &[GroupPow], difficulty: Difficulty) -> Self {
        let (backend, ops) = backend.ops().map_or((Backend::Portable, portable::OPS), |ops| (backend, ops));
        let groups = groups.iter().map(|&GroupPow { group, pow }| {
            let first_nonce = u32::from(group) * NONCES_PER_GROUP;
            let (keys, hasher) = group_keys(challenge, group.into(), pow);
            let lazy = Box::new(std::array::from_fn(|i| lazy_keys(&hasher, first_nonce + i as u32)));
            Group { first_nonce, keys, lazy }
        });
        Self { groups: groups.collect(), difficulty, ops, backend }
    }

    /// The backend in use.
    pub const fn backend(&self) -> Backend {
        self.backend
    }

    /// Scans consecutive labels of 16 bytes, the first of which has the index `first_index`, and appends what is good in the
    /// order of the deployed single-threaded prover: chunks of 8 labels, groups, labels, nonces (post.md section 12.2).
    ///
    /// Labels after the last whole chunk of 8 are left out, as there (section 12.3).
    pub fn scan(&self, labels: &[u8], first_index: u64, hits: &mut Vec<Hit>) {
        let chunk_bytes = CHUNK_LABELS * LABEL_BYTES;
        let labels = &labels[..labels.len() / chunk_bytes * chunk_bytes];
        let start = hits.len();
        let mut scratch = Scratch {
            masks: [0; TILE_BLOCKS],
            set: [0; TILE_BLOCKS],
            candidates: vec![0; TILE_LABELS * NONCES_PER_GROUP as usize],
        };
        let tile_bytes = TILE_LABELS * LABEL_BYTES;
        for (i, tile) in labels.chunks(tile_bytes).enumerate() {
            let tile_index = first_index + (i * TILE_LABELS) as u64;
            // While one tile is worked on, every group brings a part of the next one into the cache.
            let next = &labels[(i * tile_bytes + tile.len())..];
            let next = &next[..next.len().min(tile_bytes)];
            let mut parts = next.chunks(tile_bytes.div_ceil(self.groups.len()));
            for group in &self.groups {
                let good = self.scan_group(group, tile, parts.next().unwrap_or_default(), &mut scratch);
                hits.extend(good.iter().map(|&c| Hit {
                    nonce: group.first_nonce + candidate_offset(c) as u32,
                    index: tile_index + candidate_label(c) as u64,
                }));
            }
        }
        hits[start..].sort_unstable_by_key(|hit| {
            ((hit.index - first_index) / CHUNK_LABELS as u64, hit.nonce / NONCES_PER_GROUP, hit.index, hit.nonce)
        });
    }

    /// The good (label, nonce) pairs of one tile and group.
    fn scan_group<'s>(&self, group: &Group, tile: &[u8], ahead: &[u8], scratch: &'s mut Scratch) -> &'s [Candidate] {
        let Scratch { masks, set, candidates } = scratch;
        let masks = &mut masks[..tile.len() / (BLOCK_LABELS * LABEL_BYTES)];
        match u8::try_from(self.difficulty.below()) {
            Ok(below) => (self.ops.masks)(&group.keys, tile, below, masks, ahead),
            Err(_) => masks.fill(u64::MAX), // every byte is below 256
        }
        let set_count = (self.ops.set_masks)(masks, set);
        let candidates = take_apart(masks, &set[..set_count], candidates);
        let kept = if self.difficulty.msb == 0 {
            // all candidates are equal cases
            (self.ops.lazy)(&group.lazy, tile, candidates, self.difficulty.lsb)
        } else {
            // networks of a few thousand labels: nothing to be gained by speed
            keep(candidates, |candidate| {
                let Some(label) = label_at(tile, candidate) else { return false };
                let offset = candidate_offset(candidate);
                portable::encrypt(&group.keys, label)[offset] < self.difficulty.msb
                    || portable::lazy_bits(&group.lazy[offset], label) < self.difficulty.lsb
            })
        };
        &candidates[..kept]
    }
}

struct Scratch {
    masks: [u64; TILE_BLOCKS],
    /// Numbers of the masks that have a bit set.
    set: [u32; TILE_BLOCKS],
    /// Room for all labels and nonces of a tile and group.
    candidates: Vec<Candidate>,
}

/// One mask in four or five has a bit set on mainnet, which no branch predictor can foresee: so they are listed without a branch
/// and then taken apart.
fn set_masks(masks: &[u64], list: &mut [u32; TILE_BLOCKS]) -> usize {
    let mut count = 0;
    for (number, mask) in masks.iter().enumerate() {
        list[count % TILE_BLOCKS] = number as u32;
        count += usize::from(*mask != 0);
    }
    count
}

/// Writes the bits of the masks in `set` as candidates to `out`, which has room for all bits.
fn take_apart<'o>(masks: &[u64], set: &[u32], out: &'o mut [Candidate]) -> &'o mut [Candidate] {
    let mut count = 0;
    for &number in set {
        let mut mask = masks[number as usize];
        let bits = mask.count_ones() as usize;
        // Two bits at a time: hardly any mask has a third one, so this branch is foreseen. The second may not exist; then what
        // is written is overwritten by the next.
        for pair in out[count..].chunks_mut(2).take(bits.div_ceil(2).max(1)) {
            for place in pair {
                *place = number * u64::BITS + mask.trailing_zeros();
                mask &= mask.wrapping_sub(1);
            }
        }
        count += bits;
    }
    &mut out[..count]
}

/// Moves the candidates that pass to the front and returns their number.
fn keep(candidates: &mut [Candidate], mut pass: impl FnMut(Candidate) -> bool) -> usize {
    let mut kept = 0;
    for i in 0..candidates.len() {
        if pass(candidates[i]) {
            candidates[kept] = candidates[i];
            kept += 1;
        }
    }
    kept
}

fn label_at(labels: &[u8], candidate: Candidate) -> Option<&[u8; 16]> {
    labels.get(candidate_label(candidate) * LABEL_BYTES..)?.first_chunk()
}

#[cfg(test)]
mod tests;
