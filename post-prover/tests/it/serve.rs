//! The services: a node that plays every turn, and some that do not play by the rules; k2pow workers, good and bad.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use post_prover::verify::{Claim, Mode, Request, Verifier};
use proto::{
    grpc::spacemesh_v1::{
        GenProofRequest, GenProofResponse, GenProofStatus, Metadata as WireMetadata, MetadataRequest, NodeRequest,
        ServiceResponse, node_request, post_service_server, service_response,
    },
    ids::{Challenge, NodeId},
    post::{Metadata, Params, Preset, Proof, file_name},
};
use serde_json::Value;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::{Stream, StreamExt as _, wrappers::TcpListenerStream};
use tonic::{Response, Status, Streaming};

use crate::{
    data,
    program::{Running, program, wait_for},
    vectors,
};

/// One stream of a service that registered.
pub(crate) struct Connection {
    pub(crate) requests: mpsc::Sender<Result<NodeRequest, Status>>,
    responses: Streaming<ServiceResponse>,
}

pub(crate) struct Node(pub(crate) mpsc::Sender<Connection>);

#[tonic::async_trait]
impl post_service_server::PostService for Node {
    type RegisterStream = Pin<Box<dyn Stream<Item = Result<NodeRequest, Status>> + Send>>;

    async fn register(
        &self,
        request: tonic::Request<Streaming<ServiceResponse>>,
    ) -> Result<Response<Self::RegisterStream>, Status> {
        let (requests, outgoing) = mpsc::channel(1);
        let connection = Connection { requests, responses: request.into_inner() };
        self.0.send(connection).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(outgoing))))
    }
}

/// Listens as a node does.
pub(crate) async fn node() -> (SocketAddr, mpsc::Receiver<Connection>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, connections) = mpsc::channel(16);
    let service = post_service_server::PostServiceServer::new(Node(sender));
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)));
    (address, connections)
}

pub(crate) async fn connected(connections: &mut mpsc::Receiver<Connection>) -> Connection {
    tokio::time::timeout(Duration::from_secs(60), connections.recv()).await.expect("nobody registered").unwrap()
}

impl Connection {
    async fn ask(&mut self, kind: Option<node_request::Kind>) -> service_response::Kind {
        self.requests.send(Ok(NodeRequest { kind })).await.unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(60), self.responses.next()).await.expect("no answer");
        answer.unwrap().unwrap().kind.unwrap()
    }

    pub(crate) async fn metadata(&mut self) -> WireMetadata {
        match self.ask(Some(node_request::Kind::Metadata(MetadataRequest {}))).await {
            service_response::Kind::Metadata(response) => response.meta.unwrap(),
            service_response::Kind::GenProof(other) => panic!("{other:?}"),
        }
    }

    pub(crate) async fn gen_proof(&mut self, challenge: &[u8]) -> GenProofResponse {
        let request = GenProofRequest { challenge: challenge.to_vec() };
        match self.ask(Some(node_request::Kind::GenProof(request))).await {
            service_response::Kind::GenProof(response) => response,
            service_response::Kind::Metadata(other) => panic!("{other:?}"),
        }
    }

    /// Asks as a node does until the proof is there.
    pub(crate) async fn proof(&mut self, challenge: &[u8]) -> GenProofResponse {
        let end = Instant::now() + Duration::from_secs(120);
        loop {
            let response = self.gen_proof(challenge).await;
            assert_eq!(response.status(), GenProofStatus::Ok);
            if response.proof.is_some() {
                return response;
            }
            assert!(Instant::now() < end, "no proof");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

pub(crate) fn is_pending(response: &GenProofResponse) -> bool {
    response.status() == GenProofStatus::Ok && response.proof.is_none() && response.metadata.is_none()
}

pub(crate) fn is_error(response: &GenProofResponse) -> bool {
    response.status() == GenProofStatus::Error && response.proof.is_none()
}

/// Checks an answer with a proof completely.
pub(crate) fn check(response: &GenProofResponse, metadata: &Metadata, params: &Params, challenge: [u8; 32]) {
    let about = response.metadata.as_ref().unwrap();
    assert_eq!(about.challenge, challenge);
    assert_eq!(about.meta.as_ref().unwrap().node_id, metadata.node_id.0);
    let wire = response.proof.as_ref().unwrap();
    let proof = Proof { nonce: wire.nonce, indices: wire.indices.clone(), pow: wire.pow };
    let claim = Claim {
        node_id: metadata.node_id,
        commitment_atx_id: metadata.commitment_atx_id,
        challenge: Challenge(challenge),
        num_units: metadata.num_units,
    };
    let request = Request { proof: &proof, claim: &claim, params, mode: &Mode::All };
    assert_eq!(Verifier::new(vectors::randomx()).unwrap().verify(&request).unwrap(), Ok(()));
}

/// Small data with mainnet's label function and a real k2pow.
pub(crate) fn small(seed: u8) -> (Params, Metadata) {
    let params = Params { labels_per_unit: 256, pow_difficulty: [0x1f; 32], k1: 26, k2: 20, ..Preset::Testnet.params() };
    let metadata = data::metadata(seed, &params, 2, 200);
    (params, metadata)
}

/// The options that describe [`small`] data.
pub(crate) fn small_options(command: &mut Command) {
    command.args(["--preset", "testnet", "--k1", "26", "--k2", "20", "--pow-difficulty", &"1f".repeat(32)]);
    command.args(["--nonces", "16", "--threads", "1", "--randomx-mode", "light"]);
}

pub(crate) fn spawn(command: &mut Command) -> Running {
    Running(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
}

/// The program under the name of the official service, reconnecting every second.
pub(crate) fn official(dir: &Path, data: &Path, node: &str, nonces: u32) -> Command {
    let link = dir.join("post-service");
    if !link.exists() {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_post-prover"), &link).unwrap();
    }
    let mut command = Command::new(link);
    command.env("RUST_LOG", "off").arg("--dir").arg(data).args(["--address", node, "--nonces", &nonces.to_string()]);
    command.args("--min-num-units 1 --max-num-units 4 --k1 26 --k2 20 -n 8192 -r 1 -p 1 --threads 1".split(' '));
    command.args(["--pow-difficulty", &"1f".repeat(32), "--randomx-mode", "light", "--reconnect-interval-s", "1"]);
    command
}

pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub(crate) async fn get(url: String) -> Option<Value> {
    reqwest::get(url).await.ok()?.text().await.ok().and_then(|text| serde_json::from_str(&text).ok())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_turn_of_the_protocol() {
    let (dir, links) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (params, metadata) = small(1);
    data::write(dir.path(), &metadata, params.scrypt_n);
    let (address, mut connections) = node().await;
    let operator = format!("127.0.0.1:{}", free_port());
    let _service = spawn(official(links.path(), dir.path(), &address.to_string(), 16).args(["--operator-address", &operator]));
    let mut node = connected(&mut connections).await;

    let meta = node.metadata().await;
    assert_eq!(meta.node_id, metadata.node_id.0);
    assert_eq!(meta.commitment_atx_id, metadata.commitment_atx_id.0);
    assert_eq!((meta.nonce, meta.num_units, meta.labels_per_unit), (Some(1), 2, 256));
    assert_eq!(get(format!("http://{operator}/status")).await.unwrap(), "Idle");

    // requests that cannot be met
    assert!(is_error(&node.gen_proof(&[1; 31]).await));
    let empty = node.ask(None).await;
    assert!(matches!(&empty, service_response::Kind::GenProof(response) if is_error(response)));

    // the initial proof: pending at once, the same again, another one refused
    let asked = Instant::now();
    assert!(is_pending(&node.gen_proof(&[0; 32]).await));
    assert!(asked.elapsed() < Duration::from_secs(1), "RandomX is not built inside a request");
    let second = node.gen_proof(&[0; 32]).await;
    if is_pending(&second) {
        assert!(is_error(&node.gen_proof(&[9; 32]).await));
    }
    let first = node.proof(&[0; 32]).await;
    check(&first, &metadata, &params, [0; 32]);

    // the stream drops in the middle of a run, which goes on
    assert!(is_pending(&node.gen_proof(&[7; 32]).await));
    drop(node);
    let mut node = connected(&mut connections).await;
    assert_eq!(node.metadata().await, meta);
    // the proof made meanwhile is not given out for another challenge
    wait_status(&operator, "DoneProving").await;
    assert!(is_pending(&node.gen_proof(&[8; 32]).await));
    check(&node.proof(&[8; 32]).await, &metadata, &params, [8; 32]);
    check(&node.proof(&[7; 32]).await, &metadata, &params, [7; 32]);

    // duplicate registration, as nodes say it
    node.requests.send(Err(Status::unknown("post service already registered"))).await.unwrap();
    let mut node = connected(&mut connections).await;
    assert_eq!(node.metadata().await, meta);

    // a message of 100 MB
    let huge = node_request::Kind::GenProof(GenProofRequest { challenge: vec![1; 100_000_000] });
    node.requests.send(Ok(NodeRequest { kind: Some(huge) })).await.unwrap();
    let mut node = connected(&mut connections).await;
    // a proof before metadata
    check(&node.proof(&[8; 32]).await, &metadata, &params, [8; 32]);
}

async fn wait_status(operator: &str, wanted: &str) {
    let end = Instant::now() + Duration::from_secs(120);
    while get(format!("http://{operator}/status")).await.is_none_or(|status| status != wanted) {
        assert!(Instant::now() < end, "the status does not become {wanted}");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_identity_in_trouble_does_not_disturb_another() {
    let (good, bad) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ((params, of_good), (_, of_bad)) = (small(1), small(2));
    data::write(good.path(), &of_good, params.scrypt_n);
    data::write(bad.path(), &of_bad, params.scrypt_n);
    let lost = bad.path().join(file_name(1));
    let contents = fs::read(&lost).unwrap();
    fs::remove_file(&lost).unwrap();
    let (address, mut connections) = node().await;
    let mut command = program();
    command.args(["serve", "--node", &address.to_string(), "--data-dir"]).arg(good.path()).arg("--data-dir").arg(bad.path());
    small_options(&mut command);
    let mut service = spawn(command.env("RUST_LOG", "off"));
    let (mut one, mut two) = (connected(&mut connections).await, connected(&mut connections).await);
    if one.metadata().await.node_id != of_good.node_id.0 {
        std::mem::swap(&mut one, &mut two);
    }
    let wait_error = async |node: &mut Connection| {
        wait_async(async || {
            let response = node.gen_proof(&[3; 32]).await;
            assert!(is_pending(&response) || is_error(&response), "{response:?}");
            is_error(&response)
        })
        .await;
    };
    // a missing file, then one that is one label short, then one that cannot be read
    wait_error(&mut two).await;
    fs::write(&lost, &contents[..contents.len() - 16]).unwrap();
    wait_error(&mut two).await;
    fs::remove_file(&lost).unwrap();
    fs::create_dir(&lost).unwrap();
    wait_error(&mut two).await;
    // wrong metadata
    fs::remove_dir(&lost).unwrap();
    fs::write(&lost, &contents).unwrap();
    let metadata_file = bad.path().join(proto::post::METADATA_FILE);
    fs::write(&metadata_file, of_good.to_json()).unwrap();
    wait_error(&mut two).await;
    fs::write(&metadata_file, of_bad.to_json()).unwrap();
    // labels that are not this identity's
    fs::write(&lost, fs::read(good.path().join(file_name(1))).unwrap()).unwrap();
    wait_error(&mut two).await;
    fs::write(&lost, contents).unwrap();

    check(&one.proof(&[5; 32]).await, &of_good, &params, [5; 32]);
    check(&two.proof(&[3; 32]).await, &of_bad, &params, [3; 32]);

    // stops within a second, also in the middle of a run; machines that run tests may be slow
    assert!(is_pending(&one.gen_proof(&[6; 32]).await));
    let told = Instant::now();
    assert!(Command::new("sh").args(["-c", &format!("kill -TERM {}", service.0.id())]).status().unwrap().success());
    assert_eq!(service.0.wait().unwrap().code(), Some(0));
    assert!(told.elapsed() < Duration::from_secs(10), "{:?}", told.elapsed());
}

pub(crate) async fn wait_async(mut done: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(120);
    while !done().await {
        assert!(Instant::now() < end, "it does not happen");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_identity_has_one_service_and_one_node() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (params, metadata) = small(3);
    data::write(dir.path(), &metadata, params.scrypt_n);
    data::write(copy.path(), &metadata, params.scrypt_n);
    let (address, mut connections) = node().await;
    let serve = |dirs: &[&Path], node: &str| {
        let mut command = program();
        command.args(["serve", "--node", node]).stderr(Stdio::piped());
        for dir in dirs {
            command.arg("--data-dir").arg(dir);
        }
        small_options(&mut command);
        command
    };
    let refused = |mut command: Command, status: i32, why: &str| {
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "{text}");
        assert!(text.contains(why), "{text}");
    };
    let node = address.to_string();
    refused(serve(&[dir.path(), copy.path()], &node), 2, "configured twice");
    let service = spawn(serve(&[dir.path()], &node).stderr(Stdio::null()));
    assert_eq!(connected(&mut connections).await.metadata().await.node_id, metadata.node_id.0);
    refused(serve(&[dir.path()], &node), 1, "another post-prover");
    let mut hand_over = program();
    hand_over.args(["move", "--node", "127.0.0.1:1", "--data-dir"]).arg(dir.path());
    refused(hand_over, 1, "another post-prover");
    drop(service);
    refused(serve(&[dir.path()], "127.0.0.1:1"), 2, "post-prover move");
    let mut hand_over = program();
    hand_over.args(["move", "--node", "127.0.0.1:1", "--data-dir"]).arg(dir.path());
    let output = hand_over.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    refused(serve(&[dir.path()], &node), 2, "post-prover move");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_identities_on_two_disks() {
    let dir = tempfile::tempdir().unwrap();
    let params = Params { labels_per_unit: 1 << 17, pow_difficulty: [0x1f; 32], k1: 26, k2: 20, ..Preset::Fastnet.params() };
    let identities: Vec<Metadata> = (0..8).map(|i| data::metadata(0x40 + i, &params, 2, 100_000)).collect();
    let (address, mut connections) = node().await;
    let operator = format!("127.0.0.1:{}", free_port());
    let head = format!(
        "operator_address = \"{operator}\"\nrandomx_mode = \"light\"\nnode = \"{address}\"\npreset = \"fastnet\"\n\
         k1 = 26\nk2 = 20\nnonces = 16\nthreads = 1\npow_difficulty = \"{}\"\n",
        "1f".repeat(32)
    );
    let mut config = head;
    for (i, metadata) in identities.iter().enumerate() {
        let data = dir.path().join(i.to_string());
        fs::create_dir(&data).unwrap();
        data::write(&data, metadata, params.scrypt_n);
        if i == 6 {
            // the last two are added later
            fs::write(dir.path().join("farm.toml"), &config).unwrap();
        }
        config += &["[[identity]]", &format!("data_dirs = [{data:?}]"), &format!("disk = \"disk-{}\"", i % 2), ""].join("\n");
    }
    let mut command = program();
    command.env("RUST_LOG", "off").args(["serve", "--config"]).arg(dir.path().join("farm.toml"));
    let service = spawn(&mut command);
    let mut nodes = Vec::new();
    for _ in 0..6 {
        nodes.push(connected(&mut connections).await);
    }
    // read again without stopping
    fs::write(dir.path().join("farm.toml"), &config).unwrap();
    assert!(Command::new("sh").args(["-c", &format!("kill -HUP {}", service.0.id())]).status().unwrap().success());
    for _ in 0..2 {
        nodes.push(connected(&mut connections).await);
    }
    let watching = tokio::spawn(async move {
        let mut most = 0;
        loop {
            let Some(Value::Array(all)) = get(format!("http://{operator}/identities")).await else { return most };
            let reading: Vec<&str> =
                all.iter().filter(|one| one["run"]["phase"] == "reading").map(|one| one["disks"][0].as_str().unwrap()).collect();
            let distinct: std::collections::BTreeSet<_> = reading.iter().collect();
            assert_eq!(distinct.len(), reading.len(), "two readers on one disk: {reading:?}");
            most = most.max(reading.len());
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    });
    let mut proofs = tokio::task::JoinSet::new();
    for (i, mut node) in nodes.into_iter().enumerate() {
        proofs.spawn(async move {
            let challenge = [i as u8 + 1; 32];
            let node_id = NodeId(node.metadata().await.node_id.try_into().unwrap());
            (node_id, challenge, node.proof(&challenge).await)
        });
    }
    while let Some(done) = proofs.join_next().await {
        let (node_id, challenge, response) = done.unwrap();
        let metadata = identities.iter().find(|m| m.node_id == node_id).unwrap();
        check(&response, metadata, &params, challenge);
    }
    drop(service);
    watching.await.unwrap();
}

/// A worker that answers what it should not.
pub(crate) async fn garbage_worker(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = axum::Router::new().fallback(move || async move { answer });
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k2pow_workers_are_used_but_not_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let (params, metadata) = small(4);
    data::write(dir.path(), &metadata, params.scrypt_n);
    let token = dir.path().join("token");
    fs::write(&token, "sesame\n").unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = program();
    command.args(["k2pow", "serve", "--threads", "1", "--randomx-mode", "light", "--queue", "1", "--bind-address", &address]);
    let _worker = spawn(command.arg("--token-file").arg(&token));
    let base = format!("http://{address}");
    wait_async(async || reqwest::get(&base).await.is_ok()).await;

    // the deployed interface
    let client = reqwest::Client::new();
    let ask = async |path: &str| {
        let response = client.get(format!("{base}{path}")).bearer_auth("sesame").send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!(ask("/").await, (200, "{ 'message': 'ok' }".to_owned()));
    assert_eq!(ask("/nothing").await.0, 404);
    let job =
        |group: u32, difficulty: &str| format!("/job/{}/{group}/{}/{}", "ab".repeat(32), "cd".repeat(8), difficulty.repeat(32));
    assert_eq!(reqwest::get(format!("{base}{}", job(1, "ff"))).await.unwrap().status(), 401);
    for bad in [job(256, "ff"), job(1, "f"), job(1, "fff"), "/job/x/1/2/3".to_owned()] {
        assert_eq!(ask(&bad).await.0, 400, "{bad}");
    }
    let post = client.post(format!("{base}{}", job(1, "ff"))).bearer_auth("sesame").send().await.unwrap();
    assert_eq!(post.status(), 405);
    assert_eq!(ask(&job(1, "00")).await, (201, String::new()), "a hopeless job");
    assert_eq!(ask(&job(1, "00")).await, (201, String::new()), "the same one");
    wait_async(async || {
        let metrics = client.get(format!("{base}/metrics")).bearer_auth("sesame").send().await.unwrap();
        metrics.text().await.unwrap().contains("k2pow_jobs_running 1")
    })
    .await;
    assert_eq!(ask(&job(2, "ff")).await.0, 201, "one may wait");
    assert_eq!(ask(&job(3, "ff")).await.0, 429, "not two");
    let cancel = client.delete(format!("{base}{}", job(1, "00"))).bearer_auth("sesame").send().await.unwrap();
    assert_eq!(cancel.status(), 204);
    wait_async(async || ask(&job(2, "ff")).await == (200, "0".to_owned())).await;

    // a run with that worker, one that is not there and two that answer nonsense
    let dead = format!("http://127.0.0.1:{}", free_port());
    let out = dir.path().join("proof.json");
    let prove = |workers: &[&str]| {
        let mut command = program();
        command.args(["prove", "--challenge", &"66".repeat(32), "--data-dir"]).arg(dir.path()).arg("--out").arg(&out);
        small_options(&mut command);
        command.arg("--k2pow-token-file").arg(&token).env("RUST_LOG", "off");
        for worker in workers {
            command.args(["--remote-k2pow", worker]);
        }
        command
    };
    let (wrong, nonsense) = (garbage_worker("18446744073709551615").await, garbage_worker("no number").await);
    let hopeless = tokio::task::spawn_blocking({
        let mut command = prove(&[&wrong, &nonsense]);
        move || command.output().unwrap()
    });
    let output = hopeless.await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("no k2pow worker is left") && text.contains("wrong k2pow"), "{text}");
    let mut command = prove(&[&wrong, &dead, &nonsense, &base]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(out.exists());
}

#[test]
fn the_program_waits_for_its_parent_if_told() {
    let (dir, links) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (params, metadata) = small(5);
    data::write(dir.path(), &metadata, params.scrypt_n);
    let mut parent = Command::new("sleep").arg("600").spawn().unwrap();
    let node = format!("127.0.0.1:{}", free_port());
    let mut service = spawn(official(links.path(), dir.path(), &node, 16).args(["--watch-pid", &parent.id().to_string()]));
    std::thread::sleep(Duration::from_millis(1500));
    assert!(service.0.try_wait().unwrap().is_none());
    // dead but not waited for: a zombie
    parent.kill().unwrap();
    wait_for("the end of the service", || service.0.try_wait().unwrap().is_some());
    parent.wait().unwrap();

    // nobody is listening
    let mut service = spawn(official(links.path(), dir.path(), &node, 16).args(["--max-retries", "1"]));
    wait_for("the service gives up", || service.0.try_wait().unwrap().is_some());
    assert_eq!(service.0.wait().unwrap().code(), Some(1));
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pinned_cores_are_the_only_ones_used() {
    let (dir, links) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (params, metadata) = small(9);
    data::write(dir.path(), &metadata, params.scrypt_n);
    let allowed = |status: &Path| {
        let text = fs::read_to_string(status).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:").map(|list| list.trim().to_owned()))
    };
    let all = allowed(Path::new("/proc/self/status")).unwrap();
    let first = all.split([',', '-']).next().unwrap();
    let (address, mut connections) = node().await;
    let mut service =
        spawn(official(links.path(), dir.path(), &address.to_string(), 16).args(["--pinned-cores", first]).stderr(Stdio::null()));
    let mut stream = connected(&mut connections).await;
    check(&stream.proof(&[4; 32]).await, &metadata, &params, [4; 32]);
    let mut threads = 0;
    for thread in fs::read_dir(format!("/proc/{}/task", service.0.id())).unwrap() {
        // a thread may have ended meanwhile
        let Some(cores) = allowed(&thread.unwrap().path().join("status")) else { continue };
        assert_eq!(cores, first);
        threads += 1;
    }
    assert!(threads > 1);
    service.0.kill().unwrap();
    // no machine has this one
    let mut service = spawn(
        official(links.path(), dir.path(), &address.to_string(), 16).args(["--pinned-cores", "1023"]).stderr(Stdio::null()),
    );
    assert_eq!(service.0.wait().unwrap().code(), Some(2));
}
