//! The service is killed, and the same challenge goes on: no finished k2pow is searched again, and little is read again.

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use axum::{
    Router,
    extract::Path,
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::get,
};
use kernels::pow::{Puzzle, search};
use proto::{
    ids::NodeId,
    post::{METADATA_FILE, Params, Preset, file_name},
};
use tokio::net::TcpListener;

use crate::{
    data,
    program::{program, state_of},
    serve::{check, connected, free_port, get as get_json, is_pending, node, official, small, spawn, wait_async},
    vectors,
};

fn bytes<const N: usize>(text: &str) -> [u8; N] {
    hex::decode(text).unwrap().try_into().unwrap()
}

/// A k2pow worker that counts questions and keeps some answers back.
#[derive(Default)]
struct Worker {
    asked: Mutex<BTreeMap<u8, u32>>,
    /// Whether groups beyond the second are answered.
    open: AtomicBool,
}

impl Worker {
    fn answer(&self, (miner, group, challenge, difficulty): (String, u8, String, String)) -> Response {
        *self.asked.lock().unwrap().entry(group).or_default() += 1;
        if group >= 2 && !self.open.load(Ordering::Relaxed) {
            return StatusCode::CREATED.into_response();
        }
        let puzzle =
            Puzzle { node_id: NodeId(bytes(&miner)), challenge: bytes(&challenge), group, difficulty: bytes(&difficulty) };
        search(vectors::randomx(), &puzzle, 1, &AtomicBool::new(false), &AtomicU64::new(0)).unwrap().to_string().into_response()
    }

    fn asked(&self, group: u8) -> u32 {
        self.asked.lock().unwrap().get(&group).copied().unwrap_or(0)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_killed_in_k2pow_goes_on_with_what_is_missing() {
    let (dir, links) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (params, metadata) = small(7);
    data::write(dir.path(), &metadata, params.scrypt_n);
    let worker = Arc::new(Worker::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let path = "/job/{miner}/{nonce_group}/{challenge}/{difficulty}";
    let app = Router::new().route(path, {
        let worker = Arc::clone(&worker);
        get(move |Path(job)| async move { worker.answer(job) })
    });
    tokio::spawn(async move { axum::serve(listener, app).await });

    let (address, mut connections) = node().await;
    let start = || {
        let mut command = official(links.path(), dir.path(), &address.to_string(), 64);
        command.args(["--remote-k2pow", &url, "--remote-k2pow-backoff", "1"]);
        spawn(&mut command)
    };
    let challenge = [0x51; 32];
    let mut service = start();
    let mut stream = connected(&mut connections).await;
    assert!(is_pending(&stream.gen_proof(&challenge).await));
    let found = || state_of(dir.path())["pows"].as_object().map_or(0, serde_json::Map::len);
    wait_async(async || found() == 2 && worker.asked(2) > 0).await;
    service.0.kill().unwrap(); // SIGKILL
    service.0.wait().unwrap();
    let (first, second) = (worker.asked(0), worker.asked(1));
    let before = worker.asked(2);

    let _service = start();
    let mut stream = connected(&mut connections).await;
    assert!(is_pending(&stream.gen_proof(&challenge).await), "the node asks for the same");
    wait_async(async || worker.asked(2) > before).await;
    worker.open.store(true, Ordering::Relaxed);
    check(&stream.proof(&challenge).await, &metadata, &params, challenge);
    assert_eq!((worker.asked(0), worker.asked(1)), (first, second), "what was found is not asked for again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_killed_in_a_pass_reads_little_again() {
    // 16 GiB of nothing, which take no room on the disk and, with so many nonces, a minute to scan; no nonce can win
    let params = Params { labels_per_unit: 1 << 30, ..Preset::Fastnet.params() };
    let metadata = data::metadata(8, &params, 1, 1 << 28);
    let dir = tempfile::tempdir().unwrap();
    let layout = metadata.layout().unwrap();
    for file in 0..layout.file_count() {
        let sparse = fs::File::create(dir.path().join(file_name(file))).unwrap();
        sparse.set_len(layout.file_bytes(file)).unwrap();
    }
    fs::write(dir.path().join(METADATA_FILE), metadata.to_json()).unwrap();
    let (address, mut connections) = node().await;
    let operator = format!("127.0.0.1:{}", free_port());
    let start = || {
        let mut command = program();
        command.args(["serve", "--node", &address.to_string(), "--operator-address", &operator, "--data-dir"]).arg(dir.path());
        command.args(["--preset", "fastnet", "--min-num-units", "1", "--k1", "26", "--k2", "1000000"]);
        command.args(["--pow-difficulty", &"ff".repeat(32), "--nonces", "1024", "--threads", "1", "--randomx-mode", "light"]);
        spawn(command.env("RUST_LOG", "off"))
    };
    let run = async || {
        let report = get_json(format!("http://{operator}/identities")).await;
        report.map(|all| all[0]["run"].clone()).filter(|run| run["phase"] == "reading" && run["scanned"].as_u64() > Some(0))
    };
    let saved = || state_of(dir.path())["pass"]["position"].as_u64().unwrap_or(0);
    let challenge = [0x52; 32];
    let mut service = start();
    let mut stream = connected(&mut connections).await;
    assert!(is_pending(&stream.gen_proof(&challenge).await));
    wait_async(async || run().await.is_some()).await;
    let reading = Instant::now();
    wait_async(async || saved() > 0).await;
    let done = run().await.unwrap()["position"].as_u64().unwrap();
    service.0.kill().unwrap(); // SIGKILL
    service.0.wait().unwrap();
    let (kept, took) = (saved(), reading.elapsed().as_secs_f64());
    assert!(kept > 0 && kept <= layout.num_bytes().min(done + (1 << 30)));
    let again = took * (done.saturating_sub(kept) as f64 / done as f64);
    assert!(again < 30.0, "{again} s of reading are lost");

    let service = start();
    let mut stream = connected(&mut connections).await;
    assert!(is_pending(&stream.gen_proof(&challenge).await), "the node asks for the same");
    wait_async(async || run().await.is_some()).await;
    let now = run().await.unwrap();
    assert!(now["position"].as_u64().unwrap() >= kept, "the pass goes on where it was: {now}");
    assert_eq!((now["hashes"].as_u64(), now["pows_found"].as_u64()), (Some(0), Some(64)), "no k2pow is searched again");
    drop(service);
}
