//! Data made by `post-init` is proven and verified, with the label function and the k2pow of mainnet.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use kernels::{
    pow::{BuildOptions, Mode as PowMode, Shared},
    scan::Backend,
};
use post_init::{
    data_dir::{DataDirs, DirSpec},
    event::Silent,
    init::{self, Request as InitRequest},
    pool::PoolOptions,
    stop::Stop,
    storage::Disk as InitDisk,
};
use post_prover::{
    data::DataSet,
    prove::{Job, LocalPow, Nonces, Open, Options, Progress},
    read::Disk,
    state::StateFile,
    verify::{Claim, Invalid, Mode, Request, Verifier, leniencies},
};
use proto::{
    ids::{AtxId, Challenge, NodeId},
    post::{Params, Preset},
    units::SpaceUnits,
};

#[test]
fn data_of_post_init_is_proven_and_verified() {
    let mainnet = Preset::Mainnet.params();
    // 4 units of 512 labels, a k2pow of eight hashes; the functions, K1 and K2 are mainnet's
    let params = Params { labels_per_unit: 512, pow_difficulty: [0x7f; 32], ..mainnet };
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let specs = dirs.iter().map(|dir| DirSpec { path: dir.path().to_owned(), cap: Some(1 << 14) }).collect();
    let request = InitRequest {
        node_id: Some(NodeId([7; 32])),
        commitment_atx_id: Some(AtxId([8; 32])),
        num_units: Some(SpaceUnits(4)),
        labels_per_unit: Some(params.labels_per_unit),
        max_file_size: Some(8192),
        ..InitRequest::new(Preset::Mainnet)
    };
    let made = DataDirs::new(specs, Arc::new(InitDisk)).unwrap();
    init::run(&request, &made, &PoolOptions::all(), &Stop::default(), &Silent).unwrap();

    let data = DataSet::open(&dirs.each_ref().map(|dir| dir.path().to_owned())).unwrap();
    assert!((0..4).any(|file| data.file(file).unwrap().starts_with(dirs[1].path())), "both directories are used");
    let metadata = data.metadata();
    assert!(metadata.nonce.is_some(), "as the initial proof needs it");
    let randomx = Shared::new(BuildOptions { mode: PowMode::Light, large_pages: false, threads: 1 });
    let challenge = Challenge([9; 32]);
    let job = Job {
        data: &data,
        challenge: &challenge,
        params: &params,
        options: Options { nonces: Nonces::new(64).unwrap(), threads: 2, backend: Backend::best() },
        source: &Disk::default(),
        pow: &LocalPow { randomx: &randomx, threads: 2 },
        gate: &Open,
        progress: &Progress::default(),
        stop: &AtomicBool::new(false),
    };
    let proof = job.run(&mut StateFile::in_memory(), &|e| panic!("{e}")).unwrap();

    let claim = Claim {
        node_id: metadata.node_id,
        commitment_atx_id: metadata.commitment_atx_id,
        challenge,
        num_units: metadata.num_units,
    };
    let mut verifier = Verifier::new(&randomx.get(&AtomicBool::new(false)).unwrap()).unwrap();
    let mut verdict =
        |claim: &Claim, mode: Mode| verifier.verify(&Request { proof: &proof, claim, params: &params, mode: &mode }).unwrap();
    assert_eq!(verdict(&claim, Mode::All), Ok(()));
    assert_eq!(verdict(&claim, Mode::Subset { k3: 1, seed: b"a peer".to_vec() }), Ok(()));
    assert_eq!(leniencies(&proof, &claim, &params), []);
    // the labels of another identity are no proof
    let other = Claim { commitment_atx_id: AtxId([10; 32]), ..claim };
    assert!(matches!(verdict(&other, Mode::All), Err(Invalid::Msb { .. } | Invalid::Lsb { .. })));
    assert!(job.progress.hashes.load(Ordering::Relaxed) > 0, "k2pow was searched");
}
