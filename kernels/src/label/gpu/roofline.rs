//! The most labels a device can make (`docs/spec/post.md` section 22).

use proto::post::ScryptN;

/// What a label costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// 32-bit additions, xors and rotations of ROMix.
    pub operations: u64,
    /// Bytes written to and read from V.
    pub traffic: u64,
    /// Bytes of V.
    pub scratch: u64,
}

/// A ChaCha20/8 block: four double rounds of eight quarter rounds of twelve, and sixteen additions.
const CHACHA: u64 = 4 * 8 * 12 + 16;
/// Mix on 128 bytes.
const MIX: u64 = 2 * (CHACHA + 16);
/// The xor with a row of V.
const MERGE: u64 = 32;
/// Keccak-f\[1600\] takes about this much.
const KECCAK: u64 = 7400;
/// Permutations for a label: the kernels do not keep the state after the key, so eleven.
const PERMUTATIONS: u64 = 11;

impl Work {
    /// The work for one label with a lookup gap.
    pub fn per_label(n: ScryptN, gap: u32) -> Self {
        let (n, gap) = (n.get() as u64, gap as u64);
        let scratch = n.div_ceil(gap) * super::ROW;
        Self {
            operations: n * MIX + n * (MIX + MERGE) + n * (gap - 1) * MIX / 2 + PERMUTATIONS * KECCAK,
            traffic: scratch + n * super::ROW,
            scratch,
        }
    }

    /// The bound for a device.
    pub fn bound(&self, ceiling: &Ceiling) -> Bound {
        Bound {
            arithmetic: ceiling.operations_per_second / self.operations as f64,
            bandwidth: ceiling.bytes_per_second / self.traffic as f64,
        }
    }
}

/// What a device can do at most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ceiling {
    /// 32-bit integer operations per second.
    pub operations_per_second: f64,
    /// Bytes per second from and to its memory.
    pub bytes_per_second: f64,
}

/// Labels per second that a device cannot exceed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    /// If memory were free.
    pub arithmetic: f64,
    /// If arithmetic were free.
    pub bandwidth: f64,
}

impl Bound {
    /// The smaller of the two.
    pub fn labels_per_second(&self) -> f64 {
        self.arithmetic.min(self.bandwidth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of section 22, in millions of operations and MiB.
    #[test]
    fn the_work_is_that_of_the_specification() {
        for (gap, operations, scratch, traffic) in [
            (1, 13.96, 1.0, 2.0),
            (2, 17.4, 0.5, 1.5),
            (3, 20.8, 0.3334, 1.3334),
            (4, 24.2, 0.25, 1.25),
            (8, 37.8, 0.125, 1.125),
            (16, 65.1, 0.0625, 1.0625),
        ] {
            let work = Work::per_label(ScryptN::MAINNET, gap);
            assert!((work.operations as f64 / 1e6 - operations).abs() < 0.1, "{gap}: {work:?}");
            assert!((work.scratch as f64 / 1_048_576.0 - scratch).abs() < 1e-4, "{gap}: {work:?}");
            assert!((work.traffic as f64 / 1_048_576.0 - traffic).abs() < 1e-4, "{gap}: {work:?}");
        }
    }

    #[test]
    fn the_bound_is_the_smaller_one() {
        let ceiling = Ceiling { operations_per_second: 20e12, bytes_per_second: 1e12 };
        let near = Work::per_label(ScryptN::MAINNET, 1).bound(&ceiling);
        assert!(near.bandwidth < near.arithmetic && near.labels_per_second() <= near.bandwidth);
        let far = Work::per_label(ScryptN::MAINNET, 8).bound(&ceiling);
        assert!(far.arithmetic < far.bandwidth && far.labels_per_second() <= far.arithmetic);
    }
}
