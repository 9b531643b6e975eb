//! The golden vectors: proofs made and judged as the reference does.

use std::{
    collections::HashMap,
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64},
    },
};

use kernels::{
    pow::{BuildOptions, Mode as PowMode, PowError, Puzzle, RandomX, Shared},
    scan::{Backend, GroupPow},
};
use post_prover::{
    data::DataSet,
    prove::{Job, LocalPow, Nonces, Open, Options, PowClient, PowSource, PowSourceError, Progress},
    read::Disk,
    state::StateFile,
    verify::{Claim, Mode, Request, Verifier, random_subset, verdict_json},
};
use proto::{
    ids::Challenge,
    post::{Metadata, Params, Preset, Proof, ScryptN},
    units::SpaceUnits,
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

pub(crate) fn randomx() -> &'static RandomX {
    static ONE: OnceLock<RandomX> = OnceLock::new();
    let options = BuildOptions { mode: PowMode::Light, large_pages: false, threads: 1 };
    ONE.get_or_init(|| RandomX::build(options, &AtomicBool::new(false), &AtomicU64::new(0)).unwrap())
}

/// One for all tests that search.
pub(crate) fn shared() -> &'static Shared {
    static ONE: OnceLock<Shared> = OnceLock::new();
    ONE.get_or_init(|| Shared::new(BuildOptions { mode: PowMode::Light, large_pages: false, threads: 1 }))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| value.as_str().unwrap().parse().unwrap())
}

fn units(value: &Value) -> SpaceUnits {
    SpaceUnits(number(value) as u32)
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn proof(value: &Value) -> Proof {
    Proof { nonce: number(&value["nonce"]) as u32, indices: bytes(&value["indices"]), pow: number(&value["pow"]) }
}

fn params(v: &Value) -> Params {
    Params {
        scrypt_n: ScryptN::new(number(&v["scrypt_n"])).unwrap(),
        labels_per_unit: number(&v["labels_per_unit"]),
        min_num_units: units(&v["min_num_units"]),
        max_num_units: units(&v["max_num_units"]),
        k1: number(&v["k1"]) as u32,
        k2: number(&v["k2"]) as u32,
        pow_difficulty: bytes(&v["pow_difficulty"]).try_into().unwrap(),
        ..Preset::Mainnet.params()
    }
}

fn claim(v: &Value) -> Claim {
    Claim {
        node_id: v["node_id"].as_str().unwrap().parse().unwrap(),
        commitment_atx_id: v["commitment_atx_id"].as_str().unwrap().parse().unwrap(),
        challenge: v["challenge"].as_str().unwrap().parse().unwrap(),
        num_units: units(&v["num_units"]),
    }
}

fn mode(v: &Value) -> Mode {
    match v["mode"].as_str().unwrap() {
        "All" => Mode::All,
        "One" => Mode::One(number(&v["index"]) as u32),
        "Subset" => Mode::Subset { k3: number(&v["k3"]) as u32, seed: bytes(&v["seed"]) },
        other => panic!("mode {other}"),
    }
}

/// Judges every check alone and all of them in one batch.
fn check_verdicts(text: &str) {
    let file: Value = serde_json::from_str(text).unwrap();
    let entries = file["proofs"].as_array().unwrap();
    assert!(!entries.is_empty());
    let mut cases = Vec::new();
    for entry in entries {
        for check in entry["checks"].as_array().unwrap() {
            let mut entry = entry.clone();
            for (name, value) in check["overrides"].as_object().unwrap() {
                assert!(entry.get(name).is_some(), "{name}");
                entry[name] = value.clone();
            }
            let what = format!("{}: {}", entry["name"], check["name"]);
            cases.push((what, proof(&check["proof"]), claim(&entry), params(&entry), mode(&check["mode"]), &check["expect"]));
        }
    }
    let mut verifier = Verifier::new(randomx()).unwrap();
    let requests: Vec<_> =
        cases.iter().map(|(_, proof, claim, params, mode, _)| Request { proof, claim, params, mode }).collect();
    let together = verifier.verify_all(&requests).unwrap();
    for (((what, .., expect), verdict), request) in cases.iter().zip(&together).zip(&requests) {
        assert_eq!(verdict_json(verdict), **expect, "{what}");
        if what.contains("valid") {
            assert_eq!(verifier.verify(request).unwrap(), *verdict, "{what}");
        }
    }
}

#[test]
fn verification_stops_when_told() {
    let file: Value = serde_json::from_str(include_str!("../../testdata/proofs_small_a.json")).unwrap();
    let entry = &file["proofs"][0];
    let (proof, claim, params) = (proof(&entry["proof"]), claim(entry), params(entry));
    let requests = [Request { proof: &proof, claim: &claim, params: &params, mode: &Mode::All }];
    let (mut verifier, stop) = (Verifier::new(randomx()).unwrap(), AtomicBool::new(false));
    assert_eq!(verifier.verify_all_unless(&stop, &requests), Ok(vec![Ok(())]));
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(verifier.verify_all_unless(&stop, &requests), Err(PowError::Stopped.into()));
}

#[test]
fn verdicts_of_small_proofs_match_the_reference() {
    check_verdicts(include_str!("../../testdata/proofs_small_a.json"));
    check_verdicts(include_str!("../../testdata/proofs_small_b.json"));
}

#[test]
fn verdicts_of_proofs_with_mainnet_labels_match_the_reference() {
    check_verdicts(include_str!("../../testdata/proofs_scrypt8192.json"));
}

/// Searches every solution once; sets the top byte, as one vector has it.
struct Once {
    local: LocalPow<'static>,
    top_byte: u64,
    known: Mutex<HashMap<u8, u64>>,
}

impl PowSource for Once {
    fn solve(&self, puzzles: &[Puzzle], client: &mut PowClient<'_>) -> Result<(), PowSourceError> {
        let mut known = self.known.lock().unwrap();
        let new: Vec<Puzzle> = puzzles.iter().filter(|p| !known.contains_key(&p.group)).copied().collect();
        let mut keep = |one: GroupPow| {
            known.insert(one.group, one.pow | self.top_byte);
        };
        self.local.solve(&new, &mut PowClient { found: &mut keep, ..*client })?;
        for p in puzzles {
            (client.found)(GroupPow { group: p.group, pow: known[&p.group] });
        }
        Ok(())
    }
}

fn check_proving(text: &str) {
    let file: Value = serde_json::from_str(text).unwrap();
    for entry in file["proofs"].as_array().unwrap() {
        let (params, claim) = (params(entry), claim(entry));
        let dir = tempfile::tempdir().unwrap();
        let metadata = Metadata {
            node_id: claim.node_id,
            commitment_atx_id: claim.commitment_atx_id,
            labels_per_unit: params.labels_per_unit,
            num_units: claim.num_units,
            max_file_size: number(&entry["labels_per_file"]) * 16,
            nonce: None,
            nonce_value: None,
            last_position: None,
        };
        crate::data::write(dir.path(), &metadata, params.scrypt_n);
        for file in entry["files"].as_array().unwrap() {
            let contents = std::fs::read(dir.path().join(file["file"].as_str().unwrap())).unwrap();
            assert_eq!(hex::encode(Sha256::digest(&contents)), file["sha256"].as_str().unwrap());
        }
        let data = DataSet::open(&[dir.path().to_owned()]).unwrap();
        let expected = proof(&entry["proof"]);
        let pow = Once {
            local: LocalPow { randomx: shared(), threads: 2 },
            top_byte: expected.pow & 0xff << 56,
            known: Mutex::default(),
        };
        for (backend, threads) in Backend::ALL.into_iter().filter(|b| b.is_available()).zip([1, 3, 2, 1, 4]) {
            let job = Job {
                data: &data,
                challenge: &claim.challenge,
                params: &params,
                options: Options {
                    nonces: Nonces::new(number(&entry["prover_nonces_per_pass"]) as u32).unwrap(),
                    threads,
                    backend,
                },
                source: &Disk::default(),
                pow: &pow,
                gate: &Open,
                progress: &Progress::default(),
                stop: &AtomicBool::new(false),
            };
            let got = job.run(&mut StateFile::in_memory(), &|e| panic!("{e}")).unwrap();
            assert_eq!(got, expected, "{} with {} on {threads} threads", entry["name"], backend.name());
        }
    }
}

#[test]
fn small_proofs_are_those_of_the_reference() {
    check_proving(include_str!("../../testdata/proofs_small_a.json"));
    check_proving(include_str!("../../testdata/proofs_small_b.json"));
}

#[test]
fn proofs_with_mainnet_labels_are_those_of_the_reference() {
    check_proving(include_str!("../../testdata/proofs_scrypt8192.json"));
}

#[test]
fn subsets_match_the_reference() {
    let file: Value = serde_json::from_str(include_str!("../../testdata/random_subset.json")).unwrap();
    let vectors = file["vectors"].as_array().unwrap();
    assert!(!vectors.is_empty());
    for v in vectors {
        let parts: Vec<Vec<u8>> = v["seed_parts"].as_array().unwrap().iter().map(bytes).collect();
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let expected: Vec<u32> = v["permutation"].as_array().unwrap().iter().map(|i| number(i) as u32).collect();
        let len = number(&v["len"]) as u32;
        assert_eq!(random_subset(&parts, len, len), expected);
        let half = expected.len() / 2;
        assert_eq!(random_subset(&parts, len, half as u32), expected[..half]);
    }
}

#[test]
fn the_zero_challenge_is_a_challenge() {
    assert_eq!("0".repeat(64).parse::<Challenge>().unwrap(), Challenge([0; 32]));
}
