//! Verifying proofs (`docs/spec/post.md` section 13) with the verdicts of the deployed verifier, its leniencies included.
//!
//! [`Verifier::verify_all`] takes any number of proofs: cheap checks and k2pow one after the other, then the labels of all proofs
//! together through the multi-label kernel. What the deployed verifier accepts though an honest prover never writes it is told
//! by [`leniencies`].

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::atomic::{AtomicBool, Ordering},
};

use kernels::{
    label::{
        DeviceError, FullLabel,
        cpu::{Cpu, Isa},
    },
    pow::{Hasher, PowError, Puzzle, RandomX},
    scan::{Difficulty, DifficultyError, MAX_GROUP, NONCES_PER_GROUP, NonceCipher, Test},
};
use proto::{
    ids::{AtxId, Challenge, Commitment, NodeId},
    post::{Params, Proof, ScryptN, commitment, index_bits, packed_len, unpack_indices},
    units::{Labels, SpaceUnits},
};

/// What a proof claims to be about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The identity.
    pub node_id: NodeId,
    /// The ATX its labels are bound to.
    pub commitment_atx_id: AtxId,
    /// What the proof answers to.
    pub challenge: Challenge,
    /// Units of data.
    pub num_units: SpaceUnits,
}

/// Which labels of a proof are computed and tested (post.md section 13).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// All.
    All,
    /// The one at this position of the proof; beyond the end nothing is tested.
    One(u32),
    /// A random selection.
    Subset {
        /// How many.
        k3: u32,
        /// Makes the selection unpredictable for the prover.
        seed: Vec<u8>,
    },
}

/// One proof to verify.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The proof.
    pub proof: &'a Proof,
    /// What it claims.
    pub claim: &'a Claim,
    /// The rules of the network.
    pub params: &'a Params,
    /// How much to test.
    pub mode: &'a Mode,
}

/// Why a proof is not valid. In the order in which the reasons are looked for; the first one found is given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Fewer units than the network allows.
    #[error("{got} units are less than the {min} that are needed")]
    NumUnitsTooSmall {
        /// Fewest allowed.
        min: SpaceUnits,
        /// Claimed.
        got: SpaceUnits,
    },
    /// More units than the network allows.
    #[error("{got} units are more than the {max} that are allowed")]
    NumUnitsTooLarge {
        /// Most allowed.
        max: SpaceUnits,
        /// Claimed.
        got: SpaceUnits,
    },
    /// There is no such nonce.
    #[error("nonce group {group} is beyond {MAX_GROUP}")]
    NonceGroupOutOfBounds {
        /// The nonce divided by 16.
        group: u32,
    },
    /// The proof of work does not meet the difficulty.
    #[error("the k2pow does not meet the difficulty")]
    Pow,
    /// Not the bytes that K2 packed indices take.
    #[error("the indices take {got} bytes instead of {expected}")]
    IndicesLen {
        /// As it must be.
        expected: u64,
        /// As it is.
        got: u64,
    },
    /// The network's parameters and the units do not go together.
    #[error("no difficulty for these labels: {0}")]
    NumLabels(NoDifficulty),
    /// A label fails the first cipher.
    #[error("index {index} (position {index_id}) is not good: first byte {msb} above {difficulty_msb}")]
    Msb {
        /// Index of the label.
        index: u64,
        /// Its position in the proof.
        index_id: u32,
        /// What the cipher gave.
        msb: u8,
        /// What it may give at most.
        difficulty_msb: u8,
        /// The label.
        label: [u8; 16],
    },
    /// A label fails the second cipher.
    #[error("index {index} (position {index_id}) is not good: lower bits {lsb} not below {difficulty_lsb}")]
    Lsb {
        /// Index of the label.
        index: u64,
        /// Its position in the proof.
        index_id: u32,
        /// What the cipher gave.
        lsb: u64,
        /// What it must be below.
        difficulty_lsb: u64,
        /// The label.
        label: [u8; 16],
    },
}

/// Why there is no difficulty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoDifficulty {
    /// As the deployed verifier says it.
    #[error(transparent)]
    Difficulty(#[from] DifficultyError),
    /// The units hold more labels than 64 bits count.
    #[error("more than 2^64 labels")]
    TooMany,
}

/// Why a verdict could not be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The labels could not be computed.
    #[error("failed to compute labels: {0}")]
    Labels(#[from] DeviceError),
    /// RandomX could not be set up.
    #[error("failed to check the k2pow: {0}")]
    Pow(#[from] PowError),
}

/// A verdict: whether a proof is valid, and if not, why.
pub type Verdict = Result<(), Invalid>;

/// Computes labels on one thread. Holds the scratch memory of the label kernel, once it has been used.
#[derive(Debug)]
pub struct Labeler {
    isa: Isa,
    cpus: HashMap<ScryptN, Cpu>,
}

impl Default for Labeler {
    fn default() -> Self {
        Self { isa: Isa::best(), cpus: HashMap::new() }
    }
}

impl Labeler {
    /// The full labels of any pairs of commitment and index, computed together.
    pub fn full_labels(&mut self, n: ScryptN, jobs: &[(Commitment, u64)]) -> Result<Vec<FullLabel>, DeviceError> {
        use std::collections::hash_map::Entry;
        let cpu = match self.cpus.entry(n) {
            Entry::Occupied(cpu) => cpu.into_mut(),
            Entry::Vacant(place) => place.insert(Cpu::new(self.isa, n)?),
        };
        let mut labels = vec![[0; 32]; jobs.len()];
        cpu.full_labels(jobs, &mut labels)?;
        Ok(labels)
    }
}

/// Verifies proofs on one thread. Holds a RandomX machine and the scratch memory of the label kernel.
#[derive(Debug)]
pub struct Verifier {
    hasher: Hasher,
    labeler: Labeler,
}

/// A proof that passed everything but the labels.
struct Pending {
    /// Position in the request.
    request: usize,
    cipher: NonceCipher,
    difficulty: Difficulty,
    scrypt_n: ScryptN,
    /// Positions in the proof and indices, in the order of testing.
    labels: Vec<(u32, u64)>,
    commitment: Commitment,
}

impl Verifier {
    /// A verifier that shares the memory of `randomx`.
    pub fn new(randomx: &RandomX) -> Result<Self, VerifyError> {
        Self::with(randomx, Labeler::default())
    }

    /// As [`Verifier::new`], with scratch memory that is there already.
    pub fn with(randomx: &RandomX, labeler: Labeler) -> Result<Self, VerifyError> {
        Ok(Self { hasher: randomx.hasher()?, labeler })
    }

    /// For other labels than those of proofs.
    pub fn labeler(&mut self) -> &mut Labeler {
        &mut self.labeler
    }

    /// Verifies one proof.
    pub fn verify(&mut self, request: &Request<'_>) -> Result<Verdict, VerifyError> {
        let mut verdicts = self.verify_all(std::slice::from_ref(request))?;
        Ok(verdicts.pop().unwrap_or(Ok(())))
    }

    /// Verifies proofs, computing the labels of all of them together; verdicts come in the order of the requests.
    pub fn verify_all(&mut self, requests: &[Request<'_>]) -> Result<Vec<Verdict>, VerifyError> {
        self.verify_all_unless(&AtomicBool::new(false), requests)
    }

    /// As [`Verifier::verify_all`]; once `stop` is set it ends with [`PowError::Stopped`] instead of the next k2pow.
    pub fn verify_all_unless(&mut self, stop: &AtomicBool, requests: &[Request<'_>]) -> Result<Vec<Verdict>, VerifyError> {
        let mut verdicts = Vec::with_capacity(requests.len());
        let mut pending = Vec::new();
        for (i, request) in requests.iter().enumerate() {
            if stop.load(Ordering::Relaxed) {
                return Err(PowError::Stopped.into());
            }
            match self.before_labels(i, request) {
                Ok(one) => {
                    pending.push(one);
                    verdicts.push(Ok(()));
                }
                Err(invalid) => verdicts.push(Err(invalid)),
            }
        }
        // Usually there is one N; a batch may mix networks.
        pending.sort_by_key(|one| one.scrypt_n);
        for same_n in pending.chunk_by(|a, b| a.scrypt_n == b.scrypt_n) {
            let jobs: Vec<(Commitment, u64)> =
                same_n.iter().flat_map(|one| one.labels.iter().map(|(_, index)| (one.commitment, *index))).collect();
            let labels = self.labeler.full_labels(same_n[0].scrypt_n, &jobs)?;
            let mut rest = labels.as_slice();
            for one in same_n {
                let (its, others) = rest.split_at(one.labels.len());
                verdicts[one.request] = one.test(its);
                rest = others;
            }
        }
        Ok(verdicts)
    }

    /// Steps 1 to 5 of post.md section 13, and the choice of labels.
    fn before_labels(&mut self, position: usize, request: &Request<'_>) -> Result<Pending, Invalid> {
        let Request { proof, claim, params, mode } = request;
        let (min, max, got) = (params.min_num_units, params.max_num_units, claim.num_units);
        if got < min {
            return Err(Invalid::NumUnitsTooSmall { min, got });
        }
        if got > max {
            return Err(Invalid::NumUnitsTooLarge { max, got });
        }
        let Some(units) = NonZeroU32::new(got.0) else {
            return Err(Invalid::NumUnitsTooSmall { min: SpaceUnits(1), got });
        };
        let group = proof.nonce / NONCES_PER_GROUP;
        let Some(group) = u8::try_from(group).ok() else {
            return Err(Invalid::NonceGroupOutOfBounds { group });
        };
        let puzzle = Puzzle::new(claim.node_id, &claim.challenge, group, &params.pow_difficulty, units);
        if !puzzle.is_solved_by(&mut self.hasher, proof.pow) {
            return Err(Invalid::Pow);
        }
        let Some(num_labels) = params.labels_per_unit.checked_mul(units.get().into()).map(Labels) else {
            return Err(Invalid::NumLabels(NoDifficulty::TooMany));
        };
        let bits = index_bits(num_labels);
        let (expected, got) = (packed_len(bits, params.k2), proof.indices.len() as u64);
        if expected != got {
            return Err(Invalid::IndicesLen { expected, got });
        }
        let difficulty = Difficulty::new(params.k1, num_labels).map_err(|e| Invalid::NumLabels(NoDifficulty::Difficulty(e)))?;
        let indices = unpack_indices(&proof.indices, bits, params.k2 as usize);
        let labels = select(mode, indices.len() as u32, claim)
            .into_iter()
            .filter_map(|id| indices.get(id as usize).map(|index| (id, *index)))
            .collect();
        Ok(Pending {
            request: position,
            cipher: NonceCipher::new(&claim.challenge, proof.nonce, proof.pow),
            difficulty,
            scrypt_n: params.scrypt_n,
            labels,
            commitment: commitment(&claim.node_id, &claim.commitment_atx_id),
        })
    }
}

impl Pending {
    /// Step 6 of post.md section 13.
    fn test(&self, full: &[FullLabel]) -> Verdict {
        for (&(index_id, index), full) in self.labels.iter().zip(full) {
            let mut label = [0; 16];
            label.copy_from_slice(&full[..16]);
            match self.cipher.test(&label, self.difficulty) {
                Test::Good => {}
                Test::MsbTooHigh { msb } => {
                    return Err(Invalid::Msb { index, index_id, msb, difficulty_msb: self.difficulty.msb, label });
                }
                Test::LsbTooHigh { lsb } => {
                    return Err(Invalid::Lsb { index, index_id, lsb, difficulty_lsb: self.difficulty.lsb, label });
                }
            }
        }
        Ok(())
    }
}

/// Positions in the proof in the order of testing.
fn select(mode: &Mode, k2: u32, claim: &Claim) -> Vec<u32> {
    match mode {
        Mode::All => (0..k2).collect(),
        Mode::One(id) if *id < k2 => vec![*id],
        Mode::One(_) => Vec::new(),
        Mode::Subset { k3, .. } if *k3 == k2 => (0..k2).collect(),
        Mode::Subset { k3, seed } => {
            random_subset(&[seed, claim.node_id.as_bytes(), claim.challenge.as_bytes()], k2, (*k3).min(k2))
        }
    }
}

/// The first `count` of a pseudo-random permutation of `0..len`, seeded by the concatenation of `seed` (post.md section 13).
///
/// The permutation is defined for at most 65535 elements; of more, all are returned, in order.
pub fn random_subset(seed: &[&[u8]], len: u32, count: u32) -> Vec<u32> {
    let Ok(len) = u16::try_from(len) else { return (0..len).collect() };
    let mut hasher = blake3::Hasher::new();
    for part in seed {
        hasher.update(part);
    }
    let mut random = hasher.finalize_xof();
    let mut next = move || {
        let mut bytes = [0; 2];
        random.fill(&mut bytes);
        u16::from_le_bytes(bytes)
    };
    let mut all: Vec<u32> = (0..u32::from(len)).collect();
    for i in 0..len.min(count.try_into().unwrap_or(u16::MAX)) {
        let rest = len - i;
        let limit = u16::MAX - u16::MAX % rest;
        let drawn = loop {
            let drawn = next();
            if drawn < limit {
                break drawn % rest;
            }
        };
        all.swap(usize::from(i), usize::from(i) + usize::from(drawn));
    }
    all.truncate(count as usize);
    all
}

/// Something the deployed verifier does not look at and an honest prover never does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Leniency {
    /// One label counted several times.
    #[error("index {index} appears at positions {first} and {second}")]
    Duplicate {
        /// The index.
        index: u64,
        /// A position in the proof.
        first: u32,
        /// A later one.
        second: u32,
    },
    /// A label that need not be stored.
    #[error("index {index} (position {index_id}) is beyond the {num_labels} labels")]
    BeyondData {
        /// The index.
        index: u64,
        /// Its position in the proof.
        index_id: u32,
        /// Labels there are.
        num_labels: u64,
    },
    /// Bits after the last index are set.
    #[error("the padding after the last index is not zero")]
    Padding,
    /// The top byte of the proof of work, which k2pow ignores but the ciphers do not.
    #[error("the top byte of the k2pow is {0}, not 0")]
    PowTopByte(u8),
}

/// The leniencies a proof uses. Says nothing about whether it is valid otherwise.
pub fn leniencies(proof: &Proof, claim: &Claim, params: &Params) -> Vec<Leniency> {
    let mut found = Vec::new();
    let num_labels = params.labels_per_unit.saturating_mul(claim.num_units.0.into());
    let bits = index_bits(Labels(num_labels));
    let indices = unpack_indices(&proof.indices, bits, params.k2 as usize);
    let mut seen = HashMap::new();
    for (index_id, &index) in (0..).zip(&indices) {
        if let Some(first) = seen.insert(index, index_id) {
            found.push(Leniency::Duplicate { index, first, second: index_id });
        }
        if index >= num_labels {
            found.push(Leniency::BeyondData { index, index_id, num_labels });
        }
    }
    if proto::post::pack_indices(&indices, bits) != proof.indices {
        found.push(Leniency::Padding);
    }
    if proof.pow >> 56 != 0 {
        found.push(Leniency::PowTopByte((proof.pow >> 56) as u8));
    }
    found
}

impl Invalid {
    /// The form verdicts have in reports: `kind` and the fields, 64-bit numbers as decimal text.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::json;
        match self {
            Self::NumUnitsTooSmall { min, got } => json!({ "kind": "NumUnitsTooSmall", "min": min.0, "got": got.0 }),
            Self::NumUnitsTooLarge { max, got } => json!({ "kind": "NumUnitsTooLarge", "max": max.0, "got": got.0 }),
            Self::NonceGroupOutOfBounds { group } => json!({ "kind": "NonceGroupOutOfBounds", "nonce_group": group }),
            Self::Pow => json!({ "kind": "InvalidPoW" }),
            Self::IndicesLen { expected, got } => json!({ "kind": "InvalidIndicesLen", "expected": expected, "got": got }),
            Self::NumLabels(why) => json!({ "kind": "InvalidNumLabels", "msg": why.to_string() }),
            Self::Msb { index, index_id, msb, difficulty_msb, label } => json!({
                "kind": "InvalidMsb", "index": index.to_string(), "index_id": index_id, "msb": msb,
                "difficulty_msb": difficulty_msb, "label16": hex::encode(label),
            }),
            Self::Lsb { index, index_id, lsb, difficulty_lsb, label } => json!({
                "kind": "InvalidLsb", "index": index.to_string(), "index_id": index_id, "lsb56": lsb.to_string(),
                "difficulty_lsb56": difficulty_lsb.to_string(), "label16": hex::encode(label),
            }),
        }
    }
}

/// A verdict in the form of reports: `{"ok":true}` or `{"ok":false,"kind":…}`.
pub fn verdict_json(verdict: &Verdict) -> serde_json::Value {
    match verdict {
        Ok(()) => serde_json::json!({ "ok": true }),
        Err(invalid) => {
            let mut value = invalid.to_json();
            value["ok"] = false.into();
            value
        }
    }
}
