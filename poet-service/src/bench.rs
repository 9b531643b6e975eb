//! What this machine can do, measured with the code that does the real work.
//!
//! Cycles are those of the core, not of the time stamp counter: between measurements runs a loop of dependent additions, which
//! takes one cycle each.

#[cfg(feature = "server")]
pub mod server;

use std::{
    hint::black_box,
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use kernels::posw::{Backend, Node, Statement, opaque};
use proto::poet::{Element, Leaves, MerkleProof, PROVEN_LEAVES, PoetProof};
use sha2::{Digest as _, Sha256};

use crate::{
    merkle, proof,
    prove::Tree,
    tree::{Grower, LOWEST_LEVEL, Shape},
};

/// Leaves of a round of two weeks, about.
const MAINNET_LEAVES: Leaves = Leaves(90_000_000_000);

/// What was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    /// How hashing was done.
    pub backend: &'static str,
    /// Cycles of one compression in the chain alone.
    pub chain_cycles: f64,
    /// Cycles of `Sha256::digest` of the `sha2` crate on a digest.
    pub sha2_cycles: f64,
    /// Cycles of two compressions in two chains side by side.
    pub pair_cycles: f64,
    /// The speed of the whole hashing loop relative to the chain alone, per compression.
    pub prover_share: f64,
    /// Leaves per second of the hashing loop.
    pub leaves_per_second: f64,
    /// Core cycles per second.
    pub cycles_per_second: f64,
    /// Time of verifying a proof of 9e10 leaves, a mainnet round.
    pub verify: Duration,
    /// Time of verifying the proof of the tree grown here: 2^20 leaves, fewer in quick runs.
    pub verify_real: Duration,
    /// Bytes kept for a mainnet round, from a scaled-down one.
    pub mainnet_bytes: f64,
    /// Time to make the proof of a mainnet round with two threads, from recomputed units.
    pub mainnet_proof: Duration,
}

/// Seconds of one dependent addition: one cycle.
fn cycle() -> f64 {
    const ADDITIONS: u32 = 40_000;
    // the second operand is not a constant: additions of constants are done by the renamer, in no time
    let (mut sum, step) = (black_box(1u64), black_box(3u64));
    let started = Instant::now();
    for _ in 0..ADDITIONS / 8 {
        for _ in 0..8 {
            sum = opaque(sum.wrapping_add(step));
        }
    }
    black_box(sum);
    started.elapsed().as_secs_f64() / f64::from(ADDITIONS)
}

/// Cycles of `work` between two calibrations each: of many runs the one that a tenth undercuts. Neighbours, above all on the
/// other thread of the same core, only ever make it slower.
fn cycles(runs: usize, mut work: impl FnMut()) -> f64 {
    let found = (0..runs)
        .map(|_| {
            let before = cycle();
            let started = Instant::now();
            work();
            let seconds = started.elapsed().as_secs_f64();
            seconds / before.midpoint(cycle())
        })
        .collect();
    tenth(found)
}

fn tenth(mut found: Vec<f64>) -> f64 {
    found.sort_by(f64::total_cmp);
    found[found.len() / 10]
}

fn fastest(runs: usize, mut work: impl FnMut()) -> Duration {
    let mut found: Vec<Duration> = (0..runs)
        .map(|_| {
            let started = Instant::now();
            work();
            started.elapsed()
        })
        .collect();
    found.sort_unstable();
    found[found.len() / 10]
}

/// Mean compressions per leaf of a leaf range: the nested hashes, the first hash with its left siblings, the inner nodes.
pub fn compressions(from: u64, leaves: u64) -> f64 {
    let blocks = |index: u64| (40 + 32 * u64::from(index.count_ones()) + 9).div_ceil(64);
    let first: u64 = (from..from + leaves).map(blocks).sum();
    let nodes: u64 = (from..from + leaves).map(|index| u64::from(index.trailing_ones())).sum();
    399.0 + (first + 2 * nodes) as f64 / leaves as f64
}

/// Measures; `scale` is 1 for figures to show, less for a quick look.
pub fn run(scale: f64) -> Figures {
    let runs = ((400.0 * scale) as usize).max(15);
    let backend = Backend::fastest();
    let mut digest: Node = [7; 32];
    let chain_cycles = cycles(runs, || digest = backend.iterate(&digest, 2000)) / 2000.0;
    let mut pair: [Node; 2] = [[8; 32], [9; 32]];
    let pair_cycles = cycles(runs, || pair = backend.iterate_pair([&pair[0], &pair[1]], 2000)) / 2000.0;
    let sha2_cycles = cycles(runs, || {
        for _ in 0..2000 {
            digest = Sha256::digest(digest).into();
        }
    }) / 2000.0;

    // the hashing loop, with everything it does besides hashing
    let statement = Statement::new(&[3; 32]);
    let shape = Shape::new(LOWEST_LEVEL);
    let mut tree = Grower::new(statement.clone());
    let mut kept = Vec::new();
    let leaves = if scale < 1.0 { 1 << 13 } else { 1 << 20 };
    let grow = |tree: &mut Grower, kept: &mut Vec<Node>, count: u64| {
        for _ in 0..count {
            tree.grow(|level, node| {
                if level >= shape.lowest() {
                    kept.push(*node);
                }
            });
        }
    };
    let (mut per_compression, mut seconds) = (Vec::new(), Vec::new());
    while tree.leaves().0 < leaves {
        let from = tree.leaves().0;
        let mut took = Duration::ZERO;
        let cost = cycles(1, || {
            let started = Instant::now();
            grow(&mut tree, &mut kept, 64);
            took = started.elapsed();
        });
        seconds.push(took.as_secs_f64() / 64.0);
        per_compression.push(cost / 64.0 / compressions(from, 64));
    }
    let prover_cycles = tenth(per_compression);
    let seconds_per_leaf = tenth(seconds);
    let seconds_per_cycle = tenth((0..runs).map(|_| cycle()).collect());

    let grown = Tree { statement: &statement, shape, leaves: tree.leaves(), nodes: &kept };
    let (mut verify_real, mut unit) = (Duration::MAX, Duration::MAX);
    if let Ok(real) = grown.prove(PROVEN_LEAVES, 2, &AtomicBool::new(false)) {
        verify_real = fastest(runs.min(40), || {
            black_box(proof::verify(&statement, &real)).ok();
        });
        // two units at a time, as the end of a round computes them
        unit = fastest(runs.min(20), || {
            black_box(crate::tree::Unit::compute(&statement, shape, tree.leaves(), &[0, 1], &kept)).ok();
        }) / 2;
    }
    let (large, indices) = arbitrary_proof(MAINNET_LEAVES);
    let verify = fastest(runs.min(40), || {
        black_box(proof::verification_work(&statement, &large, &indices)).ok();
    });
    let bytes_per_leaf = kept.len() as f64 * 32.0 * (4096.0 / 4064.0) / tree.leaves().0 as f64;
    Figures {
        backend: backend.name(),
        chain_cycles,
        sha2_cycles,
        pair_cycles,
        prover_share: chain_cycles / prover_cycles,
        leaves_per_second: 1.0 / seconds_per_leaf,
        cycles_per_second: 1.0 / seconds_per_cycle,
        verify,
        verify_real,
        mainnet_bytes: bytes_per_leaf * MAINNET_LEAVES.0 as f64,
        // every opened leaf in a unit of its own, and the one at the right edge that nothing else waits for
        mainnet_proof: unit * PROVEN_LEAVES as u32 / 2 + unit * 2,
    }
}

/// A proof of the right form for a tree too large to grow: 150 random leaves and the nodes they need, all of arbitrary bytes.
pub fn arbitrary_proof(leaves: Leaves) -> (PoetProof, Vec<u64>) {
    let element = |number: u64| Element::from(<[u8; 32]>::from(Sha256::digest(number.to_le_bytes())));
    let indices = proof::challenged_leaves(&[1; 32], leaves, PROVEN_LEAVES);
    let mut merkle = MerkleProof { root: element(0), ..MerkleProof::default() };
    merkle.proven_leaves = indices.iter().map(|index| element(*index)).collect();
    let _ = merkle::for_each_proof_node(leaves.0, &indices, |level, position| {
        merkle.proof_nodes.push(element(position << 6 | u64::from(level)));
        Ok::<(), std::convert::Infallible>(())
    });
    (PoetProof { merkle, leaf_count: leaves }, indices)
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { chain_cycles, sha2_cycles, pair_cycles, .. } = self;
        writeln!(f, "backend                          {}", self.backend)?;
        writeln!(f, "core clock                       {:.2} GHz", self.cycles_per_second / 1e9)?;
        writeln!(f, "chain alone                      {chain_cycles:.1} cycles per compression")?;
        writeln!(f, "two chains side by side          {pair_cycles:.1} cycles per two compressions")?;
        writeln!(
            f,
            "Sha256::digest of sha2           {sha2_cycles:.1} cycles, {:.2} times the chain",
            sha2_cycles / chain_cycles
        )?;
        writeln!(f, "hashing loop                     {:.1} % of the chain's speed", 100.0 * self.prover_share)?;
        writeln!(f, "                                 {:.0} leaves/s", self.leaves_per_second)?;
        let at = |ghz: f64| ghz * 1e9 / (chain_cycles / self.prover_share) / 411.5;
        writeln!(f, "the same core at 4 / 5 / 6 GHz   {:.0} / {:.0} / {:.0} leaves/s", at(4.0), at(5.0), at(6.0))?;
        writeln!(f, "verification, 9e10 leaves        {:.2} ms", self.verify.as_secs_f64() * 1e3)?;
        writeln!(f, "verification, grown tree         {:.2} ms", self.verify_real.as_secs_f64() * 1e3)?;
        writeln!(f, "disk for a mainnet round         {:.2} GB", self.mainnet_bytes / 1e9)?;
        write!(f, "proof of a mainnet round         {:.2} s on 2 threads", self.mainnet_proof.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressions_per_leaf_are_those_of_the_specification() {
        assert!((compressions(0, 1 << 16) - 406.25).abs() < 0.3, "{}", compressions(0, 1 << 16));
    }

    #[test]
    fn a_mainnet_round_needs_little_disk_and_a_proof_of_the_known_size() {
        let (proof, indices) = arbitrary_proof(MAINNET_LEAVES);
        assert_eq!(indices.len(), PROVEN_LEAVES);
        assert!((4100..4400).contains(&proof.merkle.proof_nodes.len()), "{}", proof.merkle.proof_nodes.len());
        let kept = Shape::new(LOWEST_LEVEL).kept(MAINNET_LEAVES.0 >> LOWEST_LEVEL);
        assert!(kept.div_ceil(127) * 4096 < 10_000_000_000);
    }
}
