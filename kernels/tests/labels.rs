//! Every backend of the label function against the golden vectors, against the reference and against itself.

#[path = "support/golden.rs"]
mod golden;

use std::iter;

use golden::index;
use kernels::label::{
    Device, DeviceError, FullLabel, Scratch, Smallest,
    cpu::{Cpu, Isa},
    reference,
};
use proptest::{collection::vec, prelude::*};
use proto::{ids::Commitment, post::ScryptN};

/// A backend for every instruction set of this machine.
fn cpus(n: ScryptN) -> Vec<Cpu> {
    Isa::available().into_iter().map(|isa| Cpu::new(isa, n).expect("available")).collect()
}

fn devices(n: ScryptN) -> Vec<Box<dyn Device>> {
    cpus(n).into_iter().map(|cpu| Box::new(cpu) as Box<dyn Device>).collect()
}

/// The reference's answer to [`Cpu::full_labels`].
fn expected(jobs: &[(Commitment, u64)], n: ScryptN) -> Vec<FullLabel> {
    let mut scratch = Scratch::new(n).expect("memory");
    jobs.iter().map(|(commitment, index)| reference::full_label(commitment, *index, n, &mut scratch)).collect()
}

fn n(value: u64) -> ScryptN {
    ScryptN::new(value).expect("a power of two")
}

#[test]
fn labels_match_the_vectors() {
    for vectors in golden::labels() {
        let n = vectors[0].n;
        let jobs: Vec<_> = vectors.iter().map(|v| (v.commitment, v.index)).collect();
        let full: Vec<_> = vectors.iter().map(|v| v.full).collect();
        assert_eq!(expected(&jobs, n), full, "reference, N = {}", n.get());
        for mut cpu in cpus(n) {
            let mut out = vec![[0; 32]; jobs.len()];
            cpu.full_labels(&jobs, &mut out).expect("labels");
            assert_eq!(out, full, "{}, N = {}", cpu.info().name, n.get());
            for vector in vectors.iter().take(3) {
                golden::gives(&mut cpu, vector);
            }
        }
    }
}

#[test]
fn ranges_match_the_vectors() {
    golden::ranges(&devices);
}

#[test]
fn the_smallest_matches_the_vrf_vectors() {
    golden::searches(&devices);
}

fn cost() -> impl Strategy<Value = ScryptN> {
    (1..=10_u32).prop_map(|log| n(1 << log))
}

fn commitment() -> impl Strategy<Value = Commitment> {
    any::<[u8; 32]>().prop_map(Commitment)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_jobs_match_the_reference(jobs in vec((commitment(), index()), 0..80), n in cost()) {
        let expected = expected(&jobs, n);
        for mut cpu in cpus(n) {
            let mut out = vec![[0; 32]; jobs.len()];
            cpu.full_labels(&jobs, &mut out).expect("labels");
            prop_assert_eq!(&out, &expected, "{}", cpu.info().name);
        }
    }

    #[test]
    fn any_split_of_a_range_gives_the_whole(
        commitment in commitment(), first in index(), count in 1..150_usize, cuts in vec(0..150_usize, 0..4), n in cost(),
    ) {
        let count = count.min(usize::try_from(u64::MAX - first).unwrap_or(usize::MAX).saturating_add(1));
        let jobs: Vec<_> = (0..count as u64).map(|i| (commitment, first + i)).collect();
        let full = expected(&jobs, n);
        let stored: Vec<u8> = full.iter().flat_map(|label| &label[..16]).copied().collect();
        let smallest = iter::zip(&jobs, &full).map(|((_, index), label)| (*label, *index)).min().expect("not empty");
        let mut edges: Vec<_> = cuts.into_iter().map(|cut| cut.min(count)).chain([0, count]).collect();
        edges.sort_unstable();
        edges.dedup();
        for mut cpu in cpus(n) {
            let mut out = vec![0; count * 16];
            let parts: Vec<_> = edges
                .windows(2)
                .map(|part| cpu.labels(&commitment, first + part[0] as u64, &mut out[part[0] * 16..part[1] * 16]).expect("labels"))
                .collect();
            prop_assert_eq!(&out, &stored, "{}", cpu.info().name);
            let merged = parts.into_iter().rev().reduce(Smallest::min).expect("not empty");
            prop_assert_eq!((merged.label, merged.index), smallest, "{}", cpu.info().name);
        }
    }
}

#[test]
fn of_equal_labels_the_lowest_index_is_the_smallest() {
    let at = |index, byte| Smallest { index, label: [byte; 32] };
    assert_eq!(at(7, 1).min(at(3, 1)), at(3, 1));
    assert_eq!(at(3, 1).min(at(7, 1)), at(3, 1));
    assert_eq!(at(3, 2).min(at(7, 1)), at(7, 1));
    assert_eq!(at(7, 1).min(at(3, 2)), at(7, 1));
}

#[test]
fn bad_ranges_are_refused() {
    for mut cpu in cpus(n(2)) {
        let commitment = Commitment([7; 32]);
        assert_eq!(cpu.labels(&commitment, 0, &mut []), Err(DeviceError::OutputSize { bytes: 0 }));
        assert_eq!(cpu.labels(&commitment, 0, &mut [0; 17]), Err(DeviceError::OutputSize { bytes: 17 }));
        let overflow = DeviceError::RangeOverflow { first: u64::MAX, count: 2 };
        assert_eq!(cpu.labels(&commitment, u64::MAX, &mut [0; 32]), Err(overflow));
        assert!(cpu.labels(&commitment, u64::MAX, &mut [0; 16]).is_ok());
        assert!(cpu.labels(&commitment, u64::MAX - 1, &mut [0; 32]).is_ok());
        let mismatch = DeviceError::JobCount { jobs: 1, room: 2 };
        assert_eq!(cpu.full_labels(&[(commitment, 0)], &mut [[0; 32]; 2]), Err(mismatch));
    }
}

#[test]
fn instruction_sets_are_named_and_detected() {
    let available = Isa::available();
    assert!(available.contains(&Isa::Portable));
    assert_eq!(available.last(), Some(&Isa::best()));
    for isa in Isa::ALL {
        assert_eq!(isa.to_string().parse(), Ok(isa));
        match Cpu::new(isa, n(4)) {
            Ok(cpu) => {
                assert!(available.contains(&isa));
                assert_eq!(cpu.info().name, format!("cpu {isa}"));
                assert_eq!(cpu.info().scratch_bytes, Cpu::scratch_bytes(isa, n(4)));
                assert_eq!(cpu.info().scratch_bytes, cpu.info().lanes as u64 * 4 * 128);
            }
            Err(e) => {
                assert!(!available.contains(&isa));
                assert_eq!(e, DeviceError::Unavailable(format!("cpu {isa}")));
            }
        }
    }
    assert!("sse9".parse::<Isa>().is_err());
}
