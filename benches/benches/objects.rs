//! What a node does with everything it is sent: decode, compute the id, verify the signature, verify the draw.

#![allow(missing_docs, reason = "the macros of criterion make public items without")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use proto::{
    activation::{Activation, Version},
    ids::GenesisId,
    keys::IdentityKey,
    objects::Kind,
    vrf,
};
use serde_json::Value;

fn bytes(value: &Value) -> Vec<u8> {
    value.as_str().and_then(|text| hex::decode(text).ok()).unwrap_or_default()
}

fn activations(c: &mut Criterion) {
    let files = [
        ("v1", Version::V1, include_str!("../../proto/testdata/node/atx_v1_go.json")),
        ("v2", Version::V2, include_str!("../../proto/testdata/node/atx_v2_go.json")),
    ];
    let mut group = c.benchmark_group("activation");
    for (name, version, text) in files {
        let Ok(file) = serde_json::from_str::<Value>(text) else { return };
        let network = GenesisId(bytes(&file["genesis_id"]).try_into().unwrap_or_default());
        let blob = bytes(&file["atxs"][5]["blob"]);
        let Ok(atx) = Activation::decode_version(&blob, version) else { return };
        group.throughput(Throughput::Bytes(blob.len() as u64));
        group.bench_function(format!("{name}/decode"), |b| b.iter(|| Activation::decode_version(black_box(&blob), version)));
        group.bench_function(format!("{name}/id"), |b| b.iter(|| black_box(&atx).id()));
        group.bench_function(format!("{name}/signature"), |b| b.iter(|| black_box(&atx).is_signed(&network)));
    }
    group.finish();
}

fn draws(c: &mut Criterion) {
    let key = IdentityKey::from_seed(&[7; 32]);
    let proof = key.prove(b"a message");
    let mut group = c.benchmark_group("vrf");
    group.bench_function("prove", |b| b.iter(|| key.prove(black_box(b"a message"))));
    group.bench_function("verify", |b| b.iter(|| vrf::verify(&key.node_id(), black_box(b"a message"), &proof)));
    group.finish();
}

fn codec(c: &mut Criterion) {
    let Ok(file) = serde_json::from_str::<Value>(include_str!("../../proto/testdata/node/mesh_go.json")) else { return };
    let Some(kind) = Kind::find("proposal") else { return };
    let blob = bytes(&file["proposals"][0]["blob"]);
    let mut group = c.benchmark_group("proposal");
    group.throughput(Throughput::Bytes(blob.len() as u64));
    group.bench_function("decode and encode", |b| b.iter(|| kind.recode(black_box(&blob))));
    group.finish();
}

criterion_group!(benches, activations, draws, codec);
criterion_main!(benches);
