//! What happens to one identity does not stop the service for the others: disks that fail, workers that lie.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use kernels::pow::{BuildOptions, Mode as PowMode};
use post_prover::{
    program::{
        cli::ParamArgs,
        serve::{
            config::{IdentityConfig, Reconnect},
            identity::{Identity, Machine},
        },
    },
    prove::Nonces,
    read::{Disk, Source, SourceFile},
};
use proto::grpc::spacemesh_v1::{GenProofRequest, GenProofResponse, NodeRequest, node_request, service_response::Kind};

use crate::{
    data,
    serve::{check, garbage_worker, is_error, small},
};

/// A disk on which one directory cannot be read.
struct Broken(PathBuf);

struct BrokenFile;

impl Source for Broken {
    fn open(&self, path: &Path) -> io::Result<Box<dyn SourceFile>> {
        if path.starts_with(&self.0) { Ok(Box::new(BrokenFile)) } else { Disk::default().open(path) }
    }
}

impl SourceFile for BrokenFile {
    fn read_at(&mut self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Err(io::Error::other("the disk says no"))
    }
}

fn ask(identity: &Arc<Identity>, challenge: [u8; 32]) -> GenProofResponse {
    let request = GenProofRequest { challenge: challenge.to_vec() };
    let request = NodeRequest { kind: Some(node_request::Kind::GenProof(request)) };
    match identity.answer(request).kind {
        Some(Kind::GenProof(response)) => response,
        other => panic!("{other:?}"),
    }
}

/// Asks until there is a proof or an error.
async fn outcome(identity: &Arc<Identity>, challenge: [u8; 32]) -> GenProofResponse {
    let end = Instant::now() + Duration::from_secs(120);
    loop {
        let response = ask(identity, challenge);
        if is_error(&response) || response.proof.is_some() {
            return response;
        }
        assert!(Instant::now() < end, "nothing happens");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_error_and_a_lying_worker_are_told_and_others_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let lying = garbage_worker("18446744073709551615").await;
    let light = BuildOptions { mode: PowMode::Light, large_pages: false, threads: 1 };
    let machine = Arc::new(Machine { source: Box::new(Broken(dir.path().join("0"))), ..Machine::new(light) });
    let identity = |seed: u8, remote_k2pow: Vec<String>| {
        let (params, metadata) = small(0x60 + seed);
        let data_dir = dir.path().join(seed.to_string());
        fs::create_dir(&data_dir).unwrap();
        data::write(&data_dir, &metadata, params.scrypt_n);
        let config = IdentityConfig {
            data_dirs: vec![data_dir],
            disks: Vec::new(),
            node: "http://127.0.0.1:1".to_owned(),
            tls: None,
            network: ParamArgs {
                preset: Some(proto::post::Preset::Testnet),
                k2: Some(params.k2),
                pow_difficulty: Some(params.pow_difficulty),
                ..ParamArgs::default()
            },
            nonces: Some(Nonces::new(16).unwrap()),
            threads: 1,
            window: None,
            remote_k2pow,
            remote_k2pow_parallelism: 1,
            remote_k2pow_backoff: 0,
            k2pow_token: None,
            reconnect: Reconnect::default(),
        };
        (Arc::new(Identity::new(config, Arc::clone(&machine)).unwrap()), metadata, params)
    };
    let (broken, ..) = identity(0, Vec::new());
    let (betrayed, ..) = identity(1, vec![lying]);
    let (good, metadata, params) = identity(2, Vec::new());
    let last_error = |identity: &Arc<Identity>| identity.report()["last_error"].as_str().unwrap().to_owned();
    for round in 0..2 {
        let challenge = [0x31 + round; 32];
        let all = tokio::join!(outcome(&broken, challenge), outcome(&betrayed, challenge), outcome(&good, challenge));
        assert!(is_error(&all.0));
        let told = last_error(&broken);
        assert!(told.contains("0/postdata_") && told.contains("the disk says no"), "{told}");
        assert!(is_error(&all.1));
        assert!(last_error(&betrayed).contains("wrong k2pow"), "{}", last_error(&betrayed));
        check(&all.2, &metadata, &params, challenge);
    }
    for one in [broken, betrayed, good] {
        one.stop();
        one.join();
    }
}
