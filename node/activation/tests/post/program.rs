//! Our own proving service, as a process of its own, which is killed while it proves.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use activation::{
    validate::{Checked, PostClaim},
    verification::{Config, Priority, Verifiers},
};
use clap::Parser as _;
use kernels::label::{
    Device as _,
    cpu::{Cpu, Isa},
};
use proto::{
    ids::{AtxId, NodeId},
    post::{METADATA_FILE, Metadata, Params, Preset, commitment, file_name},
    units::SpaceUnits,
};

use crate::service::{Node, PATIENCE, QUICK, wait};

/// Arguments for [`post_prover_itself`], one per line.
const ARGUMENTS: &str = "POST_PROVER_ARGUMENTS";

/// The program, as a test of this binary that other tests start as a process.
#[test]
#[ignore = "does something only for the tests that start it"]
fn post_prover_itself() {
    let Ok(arguments) = std::env::var(ARGUMENTS) else { return };
    let parsed = post_prover::program::cli::Cli::try_parse_from(["post-prover"].into_iter().chain(arguments.lines()));
    let post_prover::program::cli::Command::Serve(args) = parsed.unwrap().command else { panic!("serve only") };
    post_prover::program::serve::run(&args).unwrap();
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // SIGKILL
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn post_prover(arguments: &[&str]) -> Running {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "program::post_prover_itself", "--nocapture"]);
    command.env(ARGUMENTS, arguments.join("\n")).env("RUST_LOG", "off");
    Running(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

/// Labels and their description.
fn write(folder: &Path, id: NodeId, params: &Params) -> Metadata {
    let metadata = Metadata {
        node_id: id,
        commitment_atx_id: AtxId([5; 32]),
        labels_per_unit: params.labels_per_unit,
        num_units: SpaceUnits(2),
        max_file_size: 1 << 20,
        nonce: Some(6),
        nonce_value: None,
        last_position: None,
    };
    let mut labels = vec![0; params.labels_per_unit as usize * 2 * 16];
    let mut cpu = Cpu::new(Isa::best(), params.scrypt_n).unwrap();
    cpu.labels(&commitment(&id, &metadata.commitment_atx_id), 0, &mut labels).unwrap();
    std::fs::write(folder.join(file_name(0)), labels).unwrap();
    std::fs::write(folder.join(METADATA_FILE), metadata.to_json()).unwrap();
    metadata
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proofs_of_our_own_service_are_valid_also_when_it_is_killed() {
    let id = crate::service::A;
    // mainnet's labels, few of them
    let params = Params {
        labels_per_unit: 512,
        min_num_units: SpaceUnits(1),
        k2: 24,
        pow_difficulty: [0x1f; 32],
        ..Preset::Mainnet.params()
    };
    let data = tempfile::tempdir().unwrap();
    let metadata = write(data.path(), id, &params);
    let node = Node::start(QUICK).await;
    let (folder, address) = (data.path().to_str().unwrap(), node.address.to_string());
    let difficulty = hex::encode(params.pow_difficulty);
    let arguments = [
        ["serve", "--data-dir", folder, "--node", &address].as_slice(),
        &["--preset", "mainnet", "--k2", "24", "--pow-difficulty", &difficulty, "--min-num-units", "1"],
        &["--nonces", "32", "--threads", "1", "--randomx-mode", "light"],
    ]
    .concat();
    let verifiers = Verifiers::start(Config::new(params, b"peer".to_vec())).unwrap();

    // killed as soon as it has been asked, and once while it may be at any point
    let services = node.services.clone();
    let proving = tokio::spawn(async move { services.prove(&id, [8; 32]).await });
    for more in [0, 300] {
        let running = post_prover(&arguments);
        wait("the service is asked", || *node.services.proving().borrow() == 1 && node.is_connected(id)).await;
        tokio::time::sleep(Duration::from_millis(more)).await;
        drop(running);
        wait("it is gone", || !node.is_connected(id) || proving.is_finished()).await;
    }
    let _running = post_prover(&arguments);
    let answer = tokio::time::timeout(PATIENCE * 2, proving).await.expect("no proof").unwrap().unwrap();
    assert_eq!(answer.commitment, metadata.commitment_atx_id);
    assert_eq!(answer.vrf_nonce.map(|nonce| nonce.0), metadata.nonce);
    let claim = PostClaim {
        id,
        commitment: answer.commitment,
        challenge: [8; 32],
        units: answer.num_units,
        proof: &answer.post,
        labels: Checked::All,
    };
    assert_eq!(verifiers.verify(&claim, Priority::High).await, Ok(()));
    assert_eq!(verifiers.verify(&PostClaim { labels: Checked::Some, ..claim }, Priority::High).await, Ok(()));
    assert!(verifiers.verify(&PostClaim { challenge: [9; 32], ..claim }, Priority::High).await.is_err());
}
