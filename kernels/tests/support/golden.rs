//! The golden label vectors, for the backends of every kind of device.

use kernels::label::{Device, FullLabel, Smallest};
use proto::{ids::Commitment, post::ScryptN};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use sha2::{Digest, Sha256};

/// The devices that a test is about, for labels of this cost.
pub(crate) type Open<'a> = &'a dyn Fn(ScryptN) -> Vec<Box<dyn Device>>;

#[derive(Deserialize)]
struct File<T> {
    vectors: Vec<T>,
}

fn vectors<T: DeserializeOwned>(text: &str) -> Vec<T> {
    let file: File<T> = serde_json::from_str(text).expect("a vector file");
    assert!(!file.vectors.is_empty());
    file.vectors
}

fn scrypt_n<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ScryptN, D::Error> {
    ScryptN::new(Deserialize::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// Text forms: indices are decimal strings, identifiers hex.
fn parsed<'de, D: Deserializer<'de>, T: std::str::FromStr<Err: std::fmt::Display>>(deserializer: D) -> Result<T, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

fn bytes<'de, D: Deserializer<'de>, const L: usize>(deserializer: D) -> Result<[u8; L], D::Error> {
    let mut bytes = [0; L];
    hex::decode_to_slice(String::deserialize(deserializer)?, &mut bytes).map_err(serde::de::Error::custom)?;
    Ok(bytes)
}

/// A line of `labels.json`.
#[derive(Deserialize)]
pub(crate) struct LabelVector {
    #[serde(deserialize_with = "scrypt_n")]
    pub(crate) n: ScryptN,
    #[serde(deserialize_with = "parsed")]
    pub(crate) commitment: Commitment,
    #[serde(deserialize_with = "parsed")]
    pub(crate) index: u64,
    #[serde(rename = "label32", deserialize_with = "bytes")]
    pub(crate) full: FullLabel,
    #[serde(rename = "label16", deserialize_with = "bytes")]
    pub(crate) stored: [u8; 16],
}

/// Vectors of single labels, those of one cost after those of another.
pub(crate) fn labels() -> Vec<Vec<LabelVector>> {
    let mut vectors = vectors::<LabelVector>(include_str!("../../testdata/labels.json"));
    vectors.sort_by_key(|vector| vector.n);
    let mut by_cost: Vec<Vec<LabelVector>> = Vec::new();
    for vector in vectors {
        match by_cost.last_mut() {
            Some(same) if same[0].n == vector.n => same.push(vector),
            _ => by_cost.push(vec![vector]),
        }
    }
    by_cost
}

/// A device gives the label of a vector: as a range of one, whose smallest label shows all 32 bytes.
pub(crate) fn gives(device: &mut dyn Device, vector: &LabelVector) {
    let mut stored = [0; 16];
    let smallest = device.labels(&vector.commitment, vector.index, &mut stored).expect("a label");
    let name = &device.info().name;
    assert_eq!(smallest, Smallest { index: vector.index, label: vector.full }, "{name}, N = {}", vector.n.get());
    assert_eq!(stored, vector.stored, "{name}, N = {}", vector.n.get());
}

/// The vectors of `label_ranges.json`, which cross 2^32.
pub(crate) fn ranges(open: Open<'_>) {
    #[derive(Deserialize)]
    struct Vector {
        #[serde(deserialize_with = "scrypt_n")]
        n: ScryptN,
        #[serde(deserialize_with = "parsed")]
        commitment: Commitment,
        #[serde(deserialize_with = "parsed")]
        start: u64,
        count: usize,
        #[serde(deserialize_with = "bytes")]
        sha256: [u8; 32],
        #[serde(deserialize_with = "bytes")]
        first_label16: [u8; 16],
        #[serde(deserialize_with = "bytes")]
        last_label16: [u8; 16],
    }
    for vector in vectors::<Vector>(include_str!("../../testdata/label_ranges.json")) {
        for mut device in open(vector.n) {
            let mut out = vec![0; vector.count * 16];
            device.labels(&vector.commitment, vector.start, &mut out).expect("labels");
            assert_eq!(out[..16], vector.first_label16);
            assert_eq!(out[out.len() - 16..], vector.last_label16);
            let name = &device.info().name;
            assert_eq!(<[u8; 32]>::from(Sha256::digest(&out)), vector.sha256, "{name}, N = {}", vector.n.get());
        }
    }
}

/// The vectors of `vrf_search.json`: the smallest label of a range.
pub(crate) fn searches(open: Open<'_>) {
    #[derive(Deserialize)]
    struct Found {
        #[serde(deserialize_with = "parsed")]
        index: u64,
        #[serde(deserialize_with = "bytes")]
        label32: FullLabel,
    }
    #[derive(Deserialize)]
    struct Vector {
        #[serde(deserialize_with = "scrypt_n")]
        n: ScryptN,
        #[serde(deserialize_with = "parsed")]
        commitment: Commitment,
        #[serde(deserialize_with = "parsed")]
        start: u64,
        count: usize,
        #[serde(deserialize_with = "bytes")]
        difficulty: FullLabel,
        found: Option<Found>,
    }
    for vector in vectors::<Vector>(include_str!("../../testdata/vrf_search.json")) {
        let found = vector.found.map(|found| Smallest { index: found.index, label: found.label32 });
        for mut device in open(vector.n) {
            let mut out = vec![0; vector.count * 16];
            let smallest = device.labels(&vector.commitment, vector.start, &mut out).expect("labels");
            let name = &device.info().name;
            assert_eq!(Some(smallest).filter(|s| s.label < vector.difficulty), found, "{name}, N = {}", vector.n.get());
        }
    }
}

/// Any index, the edges of 32 and 64 bits more often than chance would have it.
pub(crate) fn index() -> impl proptest::strategy::Strategy<Value = u64> {
    proptest::prop_oneof![
        proptest::prelude::any::<u64>(),
        0..100_u64,
        (1_u64 << 32) - 50..(1 << 32) + 50,
        (5_u64 << 32) - 20..(5 << 32) + 20,
        u64::MAX - 200..=u64::MAX
    ]
}
