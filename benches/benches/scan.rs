//! One MiB of labels through the proving scan, for every backend of this machine.

#![allow(missing_docs, reason = "the macros of criterion make public items without")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kernels::scan::{Backend, Difficulty, GroupPow, Scanner};
use proto::{ids::Challenge, units::Labels};

fn scan(c: &mut Criterion) {
    let labels: Vec<u8> = (0_u32..1 << 20).map(|i| (i.wrapping_mul(0x9e37_79b1) >> 13) as u8).collect();
    let Ok(difficulty) = Difficulty::new(26, Labels(1 << 34)) else { return };
    let mut group = c.benchmark_group("scan");
    group.throughput(Throughput::Bytes(labels.len() as u64));
    for backend in Backend::ALL.into_iter().filter(|backend| backend.is_available()) {
        for groups in [4, 18] {
            let pows: Vec<_> = (0..groups).map(|group| GroupPow { group, pow: 1 }).collect();
            let scanner = Scanner::with_backend(backend, &Challenge([1; 32]), &pows, difficulty);
            let mut hits = Vec::new();
            group.bench_function(format!("{}/{}", backend.name(), u32::from(groups) * 16), |b| {
                b.iter(|| {
                    hits.clear();
                    scanner.scan(black_box(&labels), 0, &mut hits);
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, scan);
criterion_main!(benches);
