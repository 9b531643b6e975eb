use proptest::prelude::*;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::*;

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| value.as_str().unwrap().parse().unwrap())
}

fn bytes<const N: usize>(value: &Value) -> [u8; N] {
    hex::decode(value.as_str().unwrap()).unwrap().try_into().unwrap()
}

#[test]
fn ciphers_match_the_reference() {
    let file = parse(include_str!("../../testdata/aes.json"));
    let vectors = file["vectors"].as_array().unwrap();
    assert!(!vectors.is_empty());
    for v in vectors {
        let challenge = Challenge(bytes(&v["challenge"]));
        let (nonce, pow) = (number(&v["nonce"]) as u32, number(&v["pow"]));
        let cipher = NonceCipher::new(&challenge, nonce, pow);
        assert_eq!(cipher.group.key(), &bytes(&v["group_key"]));
        assert_eq!(cipher.lazy.key(), &bytes(&v["lazy_key"]));
        let label = bytes(&v["label16"]);
        assert_eq!(portable::encrypt(&cipher.group, &label), bytes(&v["group_block"]));
        assert_eq!(portable::encrypt(&cipher.lazy, &label), bytes(&v["lazy_block"]));
        assert_eq!(u64::from(cipher.msb(&label)), number(&v["msb_for_nonce"]));
        assert_eq!(cipher.lsb(&label), number(&v["lsb56_for_nonce"]));
    }
}

#[test]
fn difficulties_match_the_reference() {
    let file = parse(include_str!("../../testdata/difficulty.json"));
    let vectors = file["proving"].as_array().unwrap();
    assert!(!vectors.is_empty());
    for v in vectors {
        let got = Difficulty::new(number(&v["k1"]) as u32, Labels(number(&v["num_labels"])));
        if let Some(text) = v.get("error") {
            assert_eq!(got.unwrap_err().to_string(), text.as_str().unwrap());
        } else {
            let got = got.unwrap();
            assert_eq!(got.as_u64(), number(&v["difficulty"]));
            assert_eq!((u64::from(got.msb), got.lsb), (number(&v["msb"]), number(&v["lsb56"])));
        }
    }
}

#[test]
fn every_backend_finds_the_hits_of_the_reference_in_its_order() {
    let file = parse(include_str!("../../testdata/prove_scan.json"));
    let vectors = file["vectors"].as_array().unwrap();
    assert!(!vectors.is_empty());
    for v in vectors {
        let labels = labels(v);
        let groups: Vec<_> = v["pow_by_group"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(group, pow)| GroupPow { group: group.parse().unwrap(), pow: number(pow) })
            .collect();
        let mut groups = groups;
        groups.sort_by_key(|g| g.group);
        let expected: Vec<Hit> = v["hits_in_scan_order"]
            .as_array()
            .unwrap()
            .iter()
            .map(|hit| Hit { nonce: number(&hit[0]) as u32, index: number(&hit[1]) })
            .collect();
        let difficulty = Difficulty::from_u64(number(&v["difficulty"]));
        for backend in Backend::ALL.into_iter().filter(|b| b.is_available()) {
            let mut hits = Vec::new();
            let challenge = Challenge(bytes(&v["challenge"]));
            let mut scanner = Scanner::with_backend(backend, &challenge, &groups, difficulty);
            take_lazy_ciphers_as_the_reference(&mut scanner, &challenge, &groups);
            scanner.scan(&labels, 0, &mut hits);
            assert_eq!(hits, expected, "{}", backend.name());
        }
    }
}

/// The reference finds the lazy cipher of a nonce by `nonce mod nonces of the pass`, and the proof of work that makes it by
/// `group mod groups of the pass`. These are the right ones when a pass starts at a multiple of its nonces, as those of provers
/// do; one vector starts elsewhere and shows what comes of it.
fn take_lazy_ciphers_as_the_reference(scanner: &mut Scanner, challenge: &Challenge, groups: &[GroupPow]) {
    let ciphers: Vec<RoundKeys> = groups
        .iter()
        .flat_map(|g| {
            let pow = groups[usize::from(g.group) % groups.len()].pow;
            let first = u32::from(g.group) * NONCES_PER_GROUP;
            (first..first + NONCES_PER_GROUP).map(move |nonce| NonceCipher::new(challenge, nonce, pow).lazy)
        })
        .collect();
    for group in &mut scanner.groups {
        for (nonce, lazy) in (group.first_nonce..).zip(group.lazy.iter_mut()) {
            *lazy = ciphers[nonce as usize % ciphers.len()].clone();
        }
    }
}

/// The labels a vector is about.
fn labels(v: &Value) -> Vec<u8> {
    use crate::label::{Scratch, reference::full_label};
    let commitment = proto::ids::Commitment(bytes(&v["commitment"]));
    let n = proto::post::ScryptN::new(number(&v["scrypt_n"])).unwrap();
    let mut scratch = Scratch::new(n).unwrap();
    let labels: Vec<u8> =
        (0..number(&v["num_labels"])).flat_map(|i| full_label(&commitment, i, n, &mut scratch)[..16].to_vec()).collect();
    assert_eq!(hex::encode(Sha256::digest(&labels)), v["labels_sha256"].as_str().unwrap());
    labels
}

fn pseudo_random(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// What the definition says, one label and nonce at a time.
fn by_definition(challenge: &Challenge, groups: &[GroupPow], difficulty: Difficulty, labels: &[u8], first: u64) -> Vec<Hit> {
    let mut hits = Vec::new();
    for (c, chunk) in labels.chunks_exact(CHUNK_LABELS * 16).enumerate() {
        for group in groups {
            let nonces = u32::from(group.group) * 16..u32::from(group.group) * 16 + 16;
            let ciphers: Vec<_> = nonces.map(|nonce| (nonce, NonceCipher::new(challenge, nonce, group.pow))).collect();
            for (l, label) in chunk.chunks_exact(16).enumerate() {
                for (nonce, cipher) in &ciphers {
                    if cipher.test(label.try_into().unwrap(), difficulty) == Test::Good {
                        hits.push(Hit { nonce: *nonce, index: first + (c * CHUNK_LABELS + l) as u64 });
                    }
                }
            }
        }
    }
    hits
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: if std::env::var_os("SOAK").is_some() { 2000 } else { 40 }, ..ProptestConfig::default() })]
    #[test]
    fn every_backend_agrees_with_the_definition(
        seed: u64,
        labels in 0_usize..2300,
        first in 0_u64..1 << 40,
        groups in prop::collection::vec((0_u8..=255, any::<u64>()), 1..3),
        msb in prop_oneof![Just(0_u8), Just(1), Just(255), any::<u8>()],
        lsb in prop_oneof![Just(0_u64), Just(LSB_MASK), 0..=LSB_MASK],
    ) {
        let labels = pseudo_random(seed, labels * 16 + 5);
        let challenge = Challenge(pseudo_random(!seed, 32).try_into().unwrap());
        let mut groups: Vec<_> = groups.into_iter().map(|(group, pow)| GroupPow { group, pow }).collect();
        groups.sort_by_key(|g| g.group);
        groups.dedup_by_key(|g| g.group);
        let difficulty = Difficulty { msb, lsb };
        let expected = by_definition(&challenge, &groups, difficulty, &labels, first);
        for backend in Backend::ALL.into_iter().filter(|b| b.is_available()) {
            let scanner = Scanner::with_backend(backend, &challenge, &groups, difficulty);
            prop_assert_eq!(scanner.backend(), backend);
            let mut hits = Vec::new();
            scanner.scan(&labels, first, &mut hits);
            prop_assert_eq!(&hits, &expected, "{}", backend.name());
        }
    }
}

#[test]
fn this_machine_runs_more_than_the_portable_code() {
    if cfg!(target_arch = "x86_64") && std::is_x86_feature_detected!("aes") {
        assert_ne!(Backend::best(), Backend::Portable);
    }
}
