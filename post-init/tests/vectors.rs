//! Directories, scenarios and nonces against what the reference programs made, for every instruction set of this machine.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use kernels::label::cpu::{Cpu, Isa};
use post_init::{
    check,
    data_dir::{DataDirs, DirSpec},
    error::Error,
    event::Silent,
    init::{self, Request},
    nonce::Search,
    pool::PoolOptions,
    stop::Stop,
    storage::Disk,
};
use proto::{
    ids::{AtxId, NodeId},
    post::{METADATA_FILE, Metadata, Preset, ScryptN, commitment, vrf_threshold},
    units::SpaceUnits,
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

fn load(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn options(isa: Isa) -> PoolOptions {
    PoolOptions::cpu(2, isa)
}

fn dirs(path: &Path) -> DataDirs {
    DataDirs::new(vec![DirSpec { path: path.to_owned(), cap: None }], Arc::new(Disk)).unwrap()
}

fn run(request: &Request, path: &Path, isa: Isa) -> Result<Metadata, Error> {
    init::run(request, &dirs(path), &options(isa), &Stop::default(), &Silent)
}

/// The request for the ids and parameters of a vector.
fn request(ids: &Value, params: &Value) -> Request {
    let number = |name: &str| params[name].as_u64();
    Request {
        node_id: Some(ids["node_id"].as_str().unwrap().parse().unwrap()),
        commitment_atx_id: Some(ids["commitment_atx_id"].as_str().unwrap().parse().unwrap()),
        num_units: Some(SpaceUnits(number("num_units").unwrap() as u32)),
        min_num_units: Some(SpaceUnits(1)),
        labels_per_unit: number("labels_per_unit"),
        max_file_size: number("max_file_size"),
        scrypt_n: Some(ScryptN::new(number("scrypt_n").unwrap()).unwrap()),
        from_file: number("from_file").filter(|file| *file > 0),
        to_file: number("to_file"),
        ..Request::new(Preset::Mainnet)
    }
}

/// Names, sizes and hashes of the data files.
fn files_of(path: &Path) -> BTreeMap<String, (u64, String)> {
    let entries = fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    entries
        .filter(|name| Path::new(name).extension().is_some_and(|e| e == "bin"))
        .map(|name| {
            let bytes = fs::read(path.join(&name)).unwrap();
            (name, (bytes.len() as u64, hex::encode(Sha256::digest(&bytes))))
        })
        .collect()
}

fn files_in(list: &Value) -> BTreeMap<String, (u64, String)> {
    let files = list.as_array().unwrap().iter();
    files
        .map(|f| (f["file"].as_str().unwrap().into(), (f["bytes"].as_u64().unwrap(), f["sha256"].as_str().unwrap().into())))
        .collect()
}

fn metadata_text(path: &Path) -> String {
    fs::read_to_string(path.join(METADATA_FILE)).unwrap()
}

/// What must be valid, and need not be equal, about a nonce that was found behind the data.
fn assert_valid_nonce(metadata: &Metadata, n: ScryptN) {
    let commitment = commitment(&metadata.node_id, &metadata.commitment_atx_id);
    let mut label = [[0; 32]];
    Cpu::new(Isa::Portable, n).unwrap().full_labels(&[(commitment, metadata.nonce.unwrap())], &mut label).unwrap();
    assert!(label[0] < vrf_threshold(metadata.layout().unwrap().num_labels().0).unwrap());
    assert_eq!(label[0][..16], metadata.nonce_value.unwrap());
}

#[test]
fn plain_directories_of_the_go_initializer_are_reproduced() {
    let file = load("init_scenarios_go.json");
    let plain = || file["scenarios"].as_array().unwrap().iter().filter(|s| s["name"] == "plain");
    assert!(plain().count() > 5);
    for (scenario, isa) in plain().flat_map(|s| Isa::available().into_iter().map(move |isa| (s, isa))) {
        let dir = tempfile::tempdir().unwrap();
        let step = &scenario["steps"][0];
        let mut request = request(scenario, &step["params"]);
        let expected = step["metadata_text"].as_str().unwrap();
        if !request.max_file_size.unwrap().is_multiple_of(16) {
            // Refused for new data, but what exists is continued.
            assert!(matches!(run(&request, dir.path(), isa), Err(Error::Usage(_))));
            let metadata = Metadata { nonce: None, nonce_value: None, ..Metadata::from_json(expected.as_bytes()).unwrap() };
            fs::write(dir.path().join(METADATA_FILE), metadata.to_json()).unwrap();
            request.max_file_size = None;
        }
        run(&request, dir.path(), isa).unwrap();
        assert_eq!(files_of(dir.path()), files_in(&step["files"]), "{isa}");
        assert_eq!(metadata_text(dir.path()), expected, "{isa}");
    }
}

#[test]
fn the_resume_shrink_mismatch_scenario_ends_as_specified() {
    let file = load("init_scenarios_go.json");
    let scenario =
        file["scenarios"].as_array().unwrap().iter().find(|s| s["name"].as_str().unwrap().starts_with("resume-shrink")).unwrap();
    for isa in Isa::available() {
        let dir = tempfile::tempdir().unwrap();
        let mut done = 0;
        for step in scenario["steps"].as_array().unwrap() {
            let before = step["before"].as_str().unwrap();
            let request = request(step, &step["params"]);
            let metadata_before = fs::read_to_string(dir.path().join(METADATA_FILE)).ok();
            if before.starts_with("postdata_1.bin truncated") {
                fs::File::options().write(true).open(dir.path().join("postdata_1.bin")).unwrap().set_len(37 * 16).unwrap();
                fs::remove_file(dir.path().join("postdata_4.bin")).unwrap();
            }
            if before.contains("grow") || before.contains("go back to 3 units") {
                // Growing is refused there and possible here: tested with the real program.
                continue;
            }
            done += 1;
            let result = run(&request, dir.path(), isa);
            if before.starts_with("other scrypt N") {
                assert!(matches!(result, Err(Error::Mismatch { what: "scrypt N", .. })), "should be noticed: {result:?}");
                assert_eq!(Some(metadata_text(dir.path())), metadata_before);
            } else if step["result"] == "ok" {
                result.unwrap();
                let files = files_of(dir.path());
                for (name, expected) in files_in(&step["files"]) {
                    assert_eq!(files[&name], expected, "{isa}: {before}");
                }
                assert_eq!(metadata_text(dir.path()), step["metadata_text"].as_str().unwrap(), "{isa}: {before}");
                if before.starts_with("shrink") {
                    // Files beyond the target stay until they are pruned.
                    assert_eq!(files.len(), 6);
                }
            } else {
                assert!(matches!(result, Err(Error::Mismatch { .. })), "{before}: {result:?}");
                assert_eq!(Some(metadata_text(dir.path())), metadata_before);
            }
        }
        assert!(done >= 10);
    }
}

#[test]
fn metadata_of_another_identity_is_never_overwritten() {
    let file = load("init_scenarios_go.json");
    let scenario = file["scenarios"].as_array().unwrap().iter().find(|s| s.get("metadata_before").is_some()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let before = scenario["metadata_before"].as_str().unwrap();
    fs::write(dir.path().join(METADATA_FILE), before).unwrap();
    let result = run(&request(scenario, &scenario["steps"][0]["params"]), dir.path(), Isa::best());
    assert!(matches!(result, Err(Error::Mismatch { .. })), "{result:?}");
    assert_eq!(metadata_text(dir.path()), before);
}

#[test]
fn a_nonce_is_found_behind_the_data_when_there_is_none_in_it() {
    let file = load("init_scenarios_go.json");
    let all = file["scenarios"].as_array().unwrap();
    let scenarios: Vec<_> = all.iter().filter(|s| s["name"].as_str().unwrap().starts_with("no nonce within")).collect();
    assert!(scenarios.len() >= 3);
    for (scenario, isa) in scenarios.into_iter().flat_map(|s| Isa::available().into_iter().map(move |isa| (s, isa))) {
        let dir = tempfile::tempdir().unwrap();
        let step = &scenario["steps"][0];
        let request = request(scenario, &step["params"]);
        let metadata = run(&request, dir.path(), isa).unwrap();
        assert_eq!(files_of(dir.path()), files_in(&step["files"]));
        assert!(metadata.nonce.unwrap() >= metadata.layout().unwrap().num_labels().0);
        // Ours is the first valid one, whatever the batch size, so it is never behind the reference's.
        let theirs = Metadata::from_json(step["metadata_text"].as_str().unwrap().as_bytes()).unwrap();
        assert!(metadata.nonce <= theirs.nonce);
        assert_valid_nonce(&metadata, request.scrypt_n.unwrap());
        assert_eq!(run(&request, dir.path(), isa).unwrap(), metadata);

        // A directory as the reference leaves it (a nonce without value) is completed, not searched again.
        let text = step["metadata_text"].as_str().unwrap();
        fs::write(dir.path().join(METADATA_FILE), text).unwrap();
        run(&request, dir.path(), isa).unwrap();
        assert_eq!(metadata_text(dir.path()), scenario["steps"][1]["metadata_text"].as_str().unwrap());
    }
}

#[test]
fn a_lost_nonce_is_found_in_the_labels_on_disk() {
    let file = load("init_scenarios_go.json");
    let all = file["scenarios"].as_array().unwrap();
    let scenario = all.iter().find(|s| s["name"] == "search for lost nonce in existing data").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let request = request(scenario, &scenario["params"]);
    run(&request, dir.path(), Isa::best()).unwrap();
    assert_eq!(metadata_text(dir.path()), scenario["metadata_after_init"].as_str().unwrap());
    let whole = Metadata::from_json(metadata_text(dir.path()).as_bytes()).unwrap();
    for lost in [
        Metadata { nonce: None, nonce_value: None, ..whole.clone() },
        Metadata { nonce: Some(3), nonce_value: None, ..whole.clone() },
        Metadata { nonce_value: None, ..whole.clone() },
        whole,
    ] {
        fs::write(dir.path().join(METADATA_FILE), lost.to_json()).unwrap();
        let n = request.scrypt_n;
        check::nonce(Preset::Mainnet, n, &dirs(dir.path()), &options(Isa::best()), &Stop::default(), &Silent).unwrap();
        assert_eq!(metadata_text(dir.path()), scenario["metadata_text"].as_str().unwrap());
    }
}

#[test]
fn directories_of_post_rs_are_reproduced_and_taken_over() {
    let file = load("init_dirs_postrs.json");
    let vectors = file["vectors"].as_array().unwrap();
    assert!(!vectors.is_empty());
    for (vector, isa) in vectors.iter().flat_map(|v| Isa::available().into_iter().map(move |isa| (v, isa))) {
        let dir = tempfile::tempdir().unwrap();
        let text = vector["postdata_metadata_json_text"].as_str().unwrap();
        let theirs = Metadata::from_json(text.as_bytes()).unwrap();
        let request =
            Request { max_file_size: Some(theirs.max_file_size), min_num_units: Some(SpaceUnits(1)), ..request(vector, vector) };
        let ours = run(&request, dir.path(), isa).unwrap();
        assert_eq!(files_of(dir.path()), files_in(&vector["files"]), "{isa}");
        // post-rs keeps the smallest label of all, which is our nonce whenever it is below the production threshold.
        if let Some(nonce) = theirs.nonce
            && ours.last_position.is_none()
        {
            assert_eq!(ours.nonce, Some(nonce));
        }
        fs::remove_file(dir.path().join(post_init::data_dir::SIDE_FILE)).unwrap();
        fs::write(dir.path().join(METADATA_FILE), text).unwrap();
        let taken = run(&request, dir.path(), isa).unwrap();
        assert_eq!(taken, ours, "{isa}");
        assert_eq!(metadata_text(dir.path()), ours.to_json());
        assert_eq!(files_of(dir.path()), files_in(&vector["files"]));
    }
}

#[test]
fn nonces_are_judged_like_the_go_reference_does() {
    let file = load("vrf_verify_go.json");
    let vectors = file["vectors"].as_array().unwrap();
    let mut kernels: BTreeMap<(String, u64), Cpu> = BTreeMap::new();
    let mut seen = [0, 0];
    for vector in vectors {
        let text = |name: &str| vector[name].as_str().unwrap();
        let number = |name: &str| vector[name].as_u64().unwrap();
        let nonce: u64 = text("nonce").parse().unwrap();
        let node_id: NodeId = text("node_id").parse().unwrap();
        let atx: AtxId = text("commitment_atx_id").parse().unwrap();
        let n = ScryptN::new(number("scrypt_n")).unwrap();
        let threshold = vrf_threshold(number("num_units") * number("labels_per_unit")).unwrap();
        let search = Search::new(threshold, None);
        for isa in Isa::available() {
            let key = (isa.to_string(), number("scrypt_n"));
            let kernel = kernels.entry(key).or_insert_with(|| Cpu::new(isa, n).unwrap());
            let mut label = [[0; 32]];
            kernel.full_labels(&[(commitment(&node_id, &atx), nonce)], &mut label).unwrap();
            let valid = search.is_valid(nonce, &label[0]);
            assert_eq!(valid, vector["valid"].as_bool().unwrap(), "{isa}: {vector}");
            seen[usize::from(valid)] += 1;
        }
    }
    assert!(seen[0] > 0 && seen[1] > 0);
}
