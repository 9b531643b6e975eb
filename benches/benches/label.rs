//! Each CPU backend for several N: `cargo bench -p benches --bench label`.

#![allow(missing_docs, reason = "the macros of criterion make public items without")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kernels::label::{
    Device as _, Scratch,
    cpu::{Cpu, Isa},
    reference,
};
use proto::{ids::Commitment, post::ScryptN};

fn labels(c: &mut Criterion) {
    let commitment = Commitment([7; 32]);
    for n in [2, 512, 8192, 65536] {
        let Ok(n) = ScryptN::new(n) else { continue };
        let mut group = c.benchmark_group(format!("label N={n}"));
        group.sample_size(10);
        for isa in Isa::available() {
            let Ok(mut device) = Cpu::new(isa, n) else { continue };
            let mut out = vec![0; device.info().lanes * 4 * 16];
            group.throughput(Throughput::Elements(out.len() as u64 / 16));
            group.bench_function(isa.to_string(), |b| b.iter(|| device.labels(&commitment, 0, &mut out)));
        }
        if let Ok(mut scratch) = Scratch::new(n) {
            group.throughput(Throughput::Elements(1));
            group.bench_function("plain", |b| b.iter(|| reference::full_label(&commitment, 0, n, &mut scratch)));
        }
        group.finish();
    }
}

criterion_group!(benches, labels);
criterion_main!(benches);
