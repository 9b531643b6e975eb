//! The real program: real sockets, real files, real kills.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signer as _, SigningKey};
use kernels::posw::{Node, Statement};
use poet_service::{membership, proof};
use prost::Message as _;
use proto::{
    grpc::poet_v1 as wire,
    poet::{Element, Leaves, MerkleProof, PoetProof},
};
use serde_json::{Value, json};

const HOUR: u64 = 3600;

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A server process; killed when dropped.
struct Server {
    child: Child,
    rest: SocketAddr,
    grpc: u16,
    config_grpc: u16,
    metrics: u16,
    admin: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }
}

impl Server {
    fn start(dir: &Path, flags: &[&str]) -> Self {
        let ports = [free_port(), free_port(), free_port(), free_port(), free_port()];
        let child = Command::new(env!("CARGO_BIN_EXE_poet-service"))
            .args(["run", "--poetdir", dir.to_str().unwrap(), "--restlisten", &format!("127.0.0.1:{}", ports[0])])
            .args(["--rpclisten", &format!("127.0.0.1:{}", ports[1])])
            .args(["--config-rpclisten", &format!("127.0.0.1:{}", ports[2])])
            .args(["--metrics-port", &ports[3].to_string(), "--admin-listen", &format!("127.0.0.1:{}", ports[4])])
            .args(flags)
            .stdout(Stdio::null())
            .stderr(if std::env::var_os("SHOW_LOGS").is_some() { Stdio::inherit() } else { Stdio::null() })
            .spawn()
            .unwrap();
        let rest = SocketAddr::from(([127, 0, 0, 1], ports[0]));
        let server = Self { child, rest, grpc: ports[1], config_grpc: ports[2], metrics: ports[3], admin: ports[4] };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(server.rest).is_err() || TcpStream::connect(("127.0.0.1", server.admin)).is_err() {
            assert!(Instant::now() < deadline, "the server does not come up");
            thread::sleep(Duration::from_millis(20));
        }
        server
    }

    fn get(&self, path: &str) -> Reply {
        request(self.rest, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"), b"").unwrap()
    }

    fn submit(&self, body: &[u8]) -> Reply {
        post(self.rest, "/v1/submit", body).unwrap()
    }

    /// Sends SIGTERM and waits; returns the exit code and how long it took.
    fn terminate(mut self) -> (Option<i32>, Duration) {
        let started = Instant::now();
        let pid = rustix::process::Pid::from_raw(self.child.id().cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        (status.code(), started.elapsed())
    }
}

fn post(address: SocketAddr, path: &str, body: &[u8]) -> std::io::Result<Reply> {
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    request(address, &head, body)
}

fn request(address: SocketAddr, head: &str, body: &[u8]) -> std::io::Result<Reply> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(&[head.as_bytes(), body].concat())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let broken = || std::io::Error::from(std::io::ErrorKind::InvalidData);
    let split = bytes.windows(4).position(|w| w == b"\r\n\r\n").ok_or_else(broken)?;
    let head = String::from_utf8_lossy(&bytes[..split]).to_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(broken)?;
    Ok(Reply { status, head, body: bytes[split + 4..].to_vec() })
}

fn vectors(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

fn rfc3339(unix: u64) -> String {
    let (days, seconds) = (unix.cast_signed() / 86400, unix % 86400);
    let z = days + 719_468;
    let era = z / 146_097;
    let doe = z - era * 146_097;
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// A registration of a new identity, with the announced parameters and difficulty 0.
fn registration(seed: u64, params: &Value) -> (Value, Node) {
    let mut secret = [7; 32];
    secret[..8].copy_from_slice(&seed.to_le_bytes());
    let key = SigningKey::from_bytes(&secret);
    let mut challenge = [9; 32];
    challenge[..8].copy_from_slice(&seed.to_le_bytes());
    let prefix = [1; 21];
    let signature = key.sign(&[&prefix[..], &challenge].concat());
    let body = json!({
        "nonce": "0",
        "powParams": params["powParams"],
        "prefix": STANDARD.encode(prefix),
        "challenge": STANDARD.encode(challenge),
        "pubkey": STANDARD.encode(key.verifying_key().to_bytes()),
        "signature": STANDARD.encode(signature.to_bytes()),
    });
    (body, challenge)
}

fn quiet_schedule() -> Vec<String> {
    // nothing happens for an hour
    let genesis = rfc3339(unix_now() - 10);
    ["--genesis-time", &genesis, "--epoch-duration", "4h", "--phase-shift", "1h", "--cycle-gap", "30m"]
        .map(str::to_owned)
        .to_vec()
}

fn as_strs(flags: &[String]) -> Vec<&str> {
    flags.iter().map(String::as_str).collect()
}

/// A proof answer, checked in full; returns its members.
fn check_proof(answer: &Value) -> Vec<Node> {
    let bytes = |value: &Value| STANDARD.decode(value.as_str().unwrap()).unwrap();
    let elements =
        |value: &Value| value.as_array().unwrap().iter().map(|v| Element::try_from(&*bytes(v)).unwrap()).collect::<Vec<_>>();
    let members: Vec<Node> =
        answer["proof"]["members"].as_array().unwrap().iter().map(|m| bytes(m).try_into().unwrap()).collect();
    let merkle = &answer["proof"]["proof"];
    let poet = PoetProof {
        merkle: MerkleProof {
            root: Element::try_from(&*bytes(&merkle["root"])).unwrap(),
            proven_leaves: elements(&merkle["provenLeaves"]),
            proof_nodes: elements(&merkle["proofNodes"]),
        },
        leaf_count: Leaves(answer["proof"]["leaves"].as_str().unwrap().parse().unwrap()),
    };
    let statement = membership::statement(members.clone()).unwrap();
    assert_eq!(proof::verify(&Statement::new(&statement), &poet), Ok(()));
    members
}

#[test]
fn answers_and_errors_are_those_of_the_vectors() {
    let dir = tempfile::tempdir().unwrap();
    let certificates = vectors("certificates.json");
    let certifier = hex::decode(certificates["certifier_pubkey"].as_str().unwrap()).unwrap();
    let mut flags = quiet_schedule();
    let pubkey = STANDARD.encode(&certifier);
    flags.extend(
        ["--certifier-url", "http://certifier.example", "--certifier-pubkey", &pubkey, "--pow-difficulty", "0"]
            .map(str::to_owned),
    );
    flags.extend(["--max-round-members", "3"].map(str::to_owned));
    let server = Server::start(dir.path(), &as_strs(&flags));

    let rest = vectors("rest_grpc.json");
    let expected = |case: &str| {
        let errors = rest["errors"].as_array().unwrap();
        errors.iter().find(|e| e["case"] == case).unwrap_or_else(|| panic!("no case {case}")).clone()
    };
    let check = |reply: Reply, case: &str| {
        let expected = expected(case);
        assert_eq!(
            u64::from(reply.status),
            expected["http_status"].as_u64().unwrap(),
            "{case}: {}",
            String::from_utf8_lossy(&reply.body)
        );
        assert_eq!(reply.json(), expected["json"], "{case}");
        assert!(reply.head.contains("content-type: application/json"));
    };

    let info = server.get("/v1/info").json();
    assert_eq!(info["phaseShift"], "3600s");
    assert_eq!(info["cycleGap"], "1800s");
    assert_eq!(info["certifier"], json!({ "url": "http://certifier.example", "pubkey": pubkey }));
    assert_eq!(STANDARD.decode(info["servicePubkey"].as_str().unwrap()).unwrap().len(), 32);
    let params = server.get("/v1/pow_params").json();
    assert_eq!(params["powParams"]["difficulty"], 0);

    check(server.get("/v1/proofs/3"), "unknown round");
    check(server.get("/v1/proofs/03"), "unknown round");
    check(server.get("/v1/proofs/pow_challenge"), "unknown round");
    check(server.get("/v2/nothing"), "unknown path");
    check(server.get("/v1/submit"), "wrong method on known path");
    check(post(server.rest, "/v1/info", b"{}").unwrap(), "wrong method on known path");

    let (good, _) = registration(1, &params);
    let with = |change: &dyn Fn(&mut Value)| {
        let mut body = good.clone();
        change(&mut body);
        server.submit(body.to_string().as_bytes())
    };
    check(with(&|b| b["pubkey"] = "AAAA".into()), "pubkey length != 32");
    check(server.submit(b""), "pubkey length != 32");
    check(server.submit(b"{\"unknown\": [1, {\"x\": null}]}"), "pubkey length != 32");
    check(with(&|b| b["signature"] = "AAAA".into()), "bad signature");
    check(with(&|b| b["prefix"] = "AAAA".into()), "bad signature");
    check(with(&|b| b["certificatePubkeyHint"] = "AAAA".into()), "hint length != 4");
    check(with(&|b| b["powParams"]["difficulty"] = 1.into()), "pow params unknown");
    check(with(&|b| b["powParams"] = Value::Null), "pow params unknown");
    check(with(&|b| b["deadline"] = "2023-10-06T20:00:00Z".into()), "deadline before round end");

    // an authentic request with a challenge that is too short would spoil the round for everybody
    let key = SigningKey::from_bytes(&[3; 32]);
    let short = json!({
        "powParams": params["powParams"], "challenge": STANDARD.encode([5; 31]),
        "pubkey": STANDARD.encode(key.verifying_key().to_bytes()), "signature": STANDARD.encode(key.sign(&[5; 31]).to_bytes()),
    });
    let reply = server.submit(short.to_string().as_bytes());
    assert_eq!((reply.status, reply.json()["code"].as_u64()), (400, Some(3)));

    let reply = server.submit(good.to_string().as_bytes());
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    assert_eq!(reply.json()["roundId"], "0");
    let end: f64 = reply.json()["roundEnd"].as_str().unwrap().trim_end_matches('s').parse().unwrap();
    // opens in an hour less ten seconds, runs three and a half
    assert!((end - 4.5 * HOUR as f64 + 10.0).abs() < 20.0, "{end}");
    assert_eq!(server.submit(good.to_string().as_bytes()).status, 200);
    let mut other = [7; 32];
    other[..8].copy_from_slice(&1u64.to_le_bytes());
    let other = SigningKey::from_bytes(&other);
    check(
        with(&|b| {
            b["challenge"] = STANDARD.encode([0; 32]).into();
            b["signature"] = STANDARD.encode(other.sign(&[&[1; 21][..], &[0; 32]].concat()).to_bytes()).into();
        }),
        "other challenge already registered for node id",
    );

    // certificates, as the vectors judge them; each case by the identity it names, whose key only some of them have
    let wrong = |b: &mut Value| b["certificate"] = json!({ "data": "AAAA", "signature": STANDARD.encode([0; 64]) });
    check(with(&wrong), "certificate signature mismatch");
    check(
        with(&|b| {
            wrong(b);
            b["certificatePubkeyHint"] = STANDARD.encode(b"none").into();
        }),
        "certificate: no key for hint / no default key",
    );
    let certifier_key =
        SigningKey::from_bytes(&hex::decode(certificates["certifier_seed"].as_str().unwrap()).unwrap().try_into().unwrap());
    let certified = |seed: u64, expiration: Option<u64>| {
        let (mut body, _) = registration(seed, &json!({}));
        let pubkey = STANDARD.decode(body["pubkey"].as_str().unwrap()).unwrap();
        let certificate = proto::poet::Certificate { pubkey: Element::try_from(&*pubkey).unwrap(), expiration };
        let data = proto::scale::encode(&certificate).unwrap();
        let signature = certifier_key.sign(&data).to_bytes();
        body["certificate"] = json!({ "data": STANDARD.encode(data), "signature": STANDARD.encode(signature) });
        body
    };
    assert_eq!(server.submit(certified(2, None).to_string().as_bytes()).status, 200);
    let mut hinted = certified(3, Some(unix_now() + 100));
    hinted["certificate_pubkey_hint"] = STANDARD.encode(&certifier[..4]).into();
    assert_eq!(server.submit(hinted.to_string().as_bytes()).status, 200);
    let expired = server.submit(certified(4, Some(unix_now() - 100)).to_string().as_bytes());
    assert_eq!(expired.status, 401);
    assert!(expired.json()["message"].as_str().unwrap().starts_with("invalid certificate\ncertificate expired at "));
    check(server.submit(registration(5, &params).0.to_string().as_bytes()), "round full");

    // what no client should send
    assert_eq!(server.submit(b"{\"pubkey\": \"***\"}").status, 400);
    assert_eq!(server.submit(b"{\"nonce\": -1}").status, 400);
    assert_eq!(server.submit(b"[]").status, 400);
    assert_eq!(server.submit(b"{").status, 400);
    let oversize = format!("{{\"challenge\": \"{}\"}}", "A".repeat(200_000));
    let reply = post(server.rest, "/v1/submit", oversize.as_bytes());
    assert!(reply.map_or(true, |reply| reply.status == 400));

    let metrics = request(
        SocketAddr::from(([127, 0, 0, 1], server.metrics)),
        "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        b"",
    )
    .unwrap();
    let page = String::from_utf8(metrics.body).unwrap();
    for line in [
        "poet_registration_with_cert_total{result=\"valid\"} 2",
        "poet_registration_with_cert_total{result=\"expired\"} 1",
        "poet_round_members_total{id=\"0\"} 3",
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
    let admin = request(
        SocketAddr::from(([127, 0, 0, 1], server.admin)),
        "POST /v1/pause HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
        b"",
    );
    assert_eq!(admin.unwrap().status, 200);
    assert_eq!(server.submit(certified(6, None).to_string().as_bytes()).status, 503);

    let (code, took) = server.terminate();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn both_encodings_of_messages_are_those_of_the_vectors() {
    let bytes = |value: &Value| hex::decode(value.as_str().unwrap()).unwrap();
    for request in vectors("submit_signature.json")["requests"].as_array().unwrap() {
        let parsed = poet_service::json::submit_request(request["json"].to_string().as_bytes()).unwrap();
        assert_eq!(hex::encode(parsed.encode_to_vec()), request["protobuf"].as_str().unwrap());
    }
    let vectors = vectors("rest_grpc.json");
    for input in vectors["accepted_inputs"].as_array().unwrap() {
        let parsed = poet_service::json::submit_request(input["json"].to_string().as_bytes()).unwrap();
        assert_eq!(hex::encode(parsed.encode_to_vec()), input["protobuf"].as_str().unwrap(), "{}", input["note"]);
    }
    for response in vectors["responses"].as_array().unwrap() {
        let encoded = bytes(&response["protobuf"]);
        let json = match response["message"].as_str().unwrap() {
            "rpc.api.v1.PowParamsResponse" => {
                poet_service::json::pow_params(&wire::PowParamsResponse::decode(&*encoded).unwrap())
            }
            "rpc.api.v1.InfoResponse" => poet_service::json::info(&wire::InfoResponse::decode(&*encoded).unwrap()),
            "rpc.api.v1.SubmitResponse" => poet_service::json::submit_response(&wire::SubmitResponse::decode(&*encoded).unwrap()),
            "rpc.api.v1.ProofResponse" => {
                let message = wire::ProofResponse::decode(&*encoded).unwrap();
                let proof = message.proof.clone().unwrap();
                let merkle = proof.proof.clone().unwrap();
                let elements = |list: Vec<Vec<u8>>| list.iter().map(|e| Element::try_from(&**e).unwrap()).collect();
                let record = poet_service::store::Record {
                    proof: PoetProof {
                        merkle: MerkleProof {
                            root: Element::try_from(&*merkle.root).unwrap(),
                            proven_leaves: elements(merkle.proven_leaves),
                            proof_nodes: elements(merkle.proof_nodes),
                        },
                        leaf_count: Leaves(proof.leaves),
                    },
                    members: proof.members.iter().map(|m| m.clone().try_into().unwrap()).collect(),
                    pubkey: message.pubkey.clone().try_into().unwrap(),
                };
                assert_eq!(hex::encode(poet_service::api::proof_response(&record).encode_to_vec()), hex::encode(&encoded));
                serde_json::from_str(&poet_service::json::proof(&record)).unwrap()
            }
            other => panic!("unknown message {other}"),
        };
        assert_eq!(json, response["json"]);
    }
}

#[test]
fn grpc_says_the_same_as_rest() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &as_strs(&quiet_schedule()));
    let params = server.get("/v1/pow_params").json();
    let request = |seed| poet_service::json::submit_request(registration(seed, &params).0.to_string().as_bytes()).unwrap();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let address = format!("http://127.0.0.1:{}", server.grpc);
        let mut client = wire::poet_service_client::PoetServiceClient::connect(address).await.unwrap();
        let info = client.info(wire::InfoRequest {}).await.unwrap().into_inner();
        assert_eq!(poet_service::json::info(&info), server.get("/v1/info").json());
        assert_eq!(info.certifier, None);
        let pow = client.pow_params(wire::PowParamsRequest {}).await.unwrap().into_inner();
        assert_eq!(poet_service::json::pow_params(&pow), params);
        let submitted = client.submit(request(1)).await.unwrap().into_inner();
        assert_eq!(submitted.round_id, "0");
        let bad = wire::SubmitRequest { signature: vec![0; 64], ..request(2) };
        let status = client.submit(bad).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (tonic::Code::InvalidArgument, "invalid signature"));
        let status = client.proof(wire::ProofRequest { round_id: "0".into() }).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (tonic::Code::NotFound, "proof not found"));
        let address = format!("http://127.0.0.1:{}", server.config_grpc);
        let mut client = wire::configuration_service_client::ConfigurationServiceClient::connect(address).await.unwrap();
        let status = client.reload_trusted_keys(wire::ReloadTrustedKeysRequest {}).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (tonic::Code::Unknown, "certificate is not supported"));
    });
}

#[test]
fn slow_clients_are_turned_away_and_hold_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut flags = quiet_schedule();
    flags.extend(["--max-connections", "20"].map(str::to_owned));
    let server = Server::start(dir.path(), &as_strs(&flags));
    let mut slow: Vec<TcpStream> = (0..19).map(|_| TcpStream::connect(server.rest).unwrap()).collect();
    for stream in &mut slow {
        stream.write_all(b"POST /v1/sub").unwrap();
    }
    let started = Instant::now();
    assert_eq!(server.get("/v1/info").status, 200);
    assert!(started.elapsed() < Duration::from_secs(2));
    // five seconds for the headers
    slow[0].set_read_timeout(Some(Duration::from_secs(9))).unwrap();
    let mut rest = Vec::new();
    slow[0].read_to_end(&mut rest).unwrap();
    assert!((4..9).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
}

/// Ten thousand submissions over 500 connections, on the way to the start of the round.
#[test]
fn a_burst_of_submissions_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &as_strs(&quiet_schedule()));
    let params = server.get("/v1/pow_params").json();
    let soak = std::env::var_os("SOAK").is_some();
    let (connections, each) = if soak { (500, 20) } else { (100, 10) };
    let latencies = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for connection in 0..connections {
            let (params, latencies) = (&params, &latencies);
            let rest = server.rest;
            scope.spawn(move || {
                let mut stream = TcpStream::connect(rest).unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
                for number in 0..each {
                    let body = registration(1000 + connection * each + number, params).0.to_string();
                    let request = format!("POST /v1/submit HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                    let started = Instant::now();
                    stream.write_all(request.as_bytes()).unwrap();
                    let mut reply = [0; 2048];
                    let count = stream.read(&mut reply).unwrap();
                    assert!(reply[..count].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&reply[..count]));
                    latencies.lock().unwrap().push(started.elapsed());
                }
            });
        }
    });
    let mut latencies = latencies.into_inner().unwrap();
    latencies.sort_unstable();
    println!("{} submissions, p99 {:?}", latencies.len(), latencies[latencies.len() * 99 / 100]);
    assert_eq!(latencies.len() as u64, connections * each);
    let page = request(
        SocketAddr::from(([127, 0, 0, 1], server.metrics)),
        "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        b"",
    );
    let page = String::from_utf8(page.unwrap().body).unwrap();
    assert!(page.contains(&format!("poet_round_members_total{{id=\"0\"}} {}", connections * each)), "{page}");
}

/// Members register all the time while the server is killed at the worst moments: each is in exactly one proof.
#[test]
fn kills_lose_neither_rounds_nor_members() {
    let soak = std::env::var_os("SOAK").is_some();
    let kills = if soak { 100 } else { 5 };
    let dir = tempfile::tempdir().unwrap();
    // round n starts at genesis + 2 + 7n and runs for 4 seconds
    let genesis = unix_now() + 1;
    let flags = ["--genesis-time", &rfc3339(genesis), "--epoch-duration", "7s", "--phase-shift", "2s", "--cycle-gap", "3s"];
    let mut server = Server::start(dir.path(), &flags);
    let address = Arc::new(Mutex::new(server.rest));
    let done = Arc::new(AtomicBool::new(false));
    let members = thread::spawn({
        let (address, done) = (address.clone(), done.clone());
        move || {
            let mut members: BTreeMap<Node, String> = BTreeMap::new();
            let mut seed = 0;
            while !done.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(40));
                let address = *address.lock().unwrap();
                let head = "GET /v1/pow_params HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
                let Ok(params) = request(address, head, b"") else { continue };
                seed += 1;
                let (body, challenge) = registration(seed, &params.json());
                // only an answer makes a member; without one the registration may be stored or not
                if let Ok(reply) = post(address, "/v1/submit", body.to_string().as_bytes())
                    && reply.status == 200
                {
                    members.insert(challenge, reply.json()["roundId"].as_str().unwrap().to_owned());
                }
            }
            members
        }
    });
    let start_of = |round: u64| genesis as f64 + 2.0 + 7.0 * round as f64;
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    // in the first second of a round, while it grows and writes, at its end, while the proof is made, at the hand-over
    let moments = [0.3, 2.1, 4.0, 4.4, 6.99];
    for kill in 0..kills {
        let round = kill as u64 / 2;
        // soak: the same moments, each time shifted a little
        let moment = moments[(kill * 3) % 5] + 0.01 * (kill / 5) as f64;
        let mut at = start_of(round) + moment;
        while at < now() {
            at += 7.0;
        }
        thread::sleep(Duration::from_secs_f64((at - now()).max(0.0)));
        server.child.kill().unwrap();
        server.child.wait().unwrap();
        server = Server::start(dir.path(), &flags);
        *address.lock().unwrap() = server.rest;
    }
    thread::sleep(Duration::from_millis(500));
    done.store(true, Ordering::Relaxed);
    let members = members.join().unwrap();
    assert!(members.len() > 30, "{} members", members.len());
    let rounds: std::collections::BTreeSet<&String> = members.values().collect();
    assert!(rounds.len() >= 2, "{rounds:?}");
    let mut proven: BTreeMap<Node, String> = BTreeMap::new();
    for round in rounds {
        let deadline = Instant::now() + Duration::from_secs(60);
        let answer = loop {
            let reply = server.get(&format!("/v1/proofs/{round}"));
            if reply.status == 200 {
                assert!(reply.head.contains("cache-control: public"));
                break reply.json();
            }
            assert_eq!(reply.status, 404);
            assert!(Instant::now() < deadline, "round {round} never gets its proof");
            thread::sleep(Duration::from_millis(200));
        };
        for member in check_proof(&answer) {
            assert_eq!(proven.insert(member, round.clone()), None, "a member of two rounds");
        }
    }
    for (member, round) in &members {
        assert_eq!(proven.get(member), Some(round), "a member is missing");
    }
    // proofs are sent compressed to those who ask
    let round = members.values().next().unwrap();
    let head = format!("GET /v1/proofs/{round} HTTP/1.1\r\nhost: x\r\naccept-encoding: gzip\r\nconnection: close\r\n\r\n");
    let zipped = request(server.rest, &head, b"").unwrap();
    assert!(zipped.head.contains("content-encoding: gzip"));
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&*zipped.body).read_to_end(&mut plain).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&plain).unwrap(), server.get(&format!("/v1/proofs/{round}")).json());
    let (code, took) = server.terminate();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn documentation_and_deployment_files_fit_the_program() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let help = Command::new(env!("CARGO_BIN_EXE_poet-service")).args(["run", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let page = read("../docs/poet-service.md");
    for flag in help.split_whitespace().filter_map(|word| word.strip_prefix("--")) {
        let documented = page.contains(&format!("`{flag}`")) || ["config", "help"].contains(&flag);
        assert!(documented, "--{flag} is not in docs/poet-service.md");
    }
    let config = root.join("deploy/mainnet.toml");
    let printed =
        Command::new(env!("CARGO_BIN_EXE_poet-service")).args(["config", "--config", config.to_str().unwrap()]).output();
    assert!(printed.unwrap().status.success());
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana.json")).unwrap();
    let metrics = read("src/metrics.rs");
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            let at = expression.find("poet_").unwrap();
            let name = expression[at..].split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap();
            assert!(metrics.contains(name.trim_end_matches("_bucket")), "{name} is no metric of the server");
        }
    }
}

#[test]
fn offline_tools_make_and_judge_proofs() {
    let dir = tempfile::tempdir().unwrap();
    let program = |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_poet-service")).args(args).output().unwrap();
    let file = dir.path().join("proof.json");
    let file = file.to_str().unwrap();
    let vectors = vectors("nip_proofs_small.json");
    let statement = vectors["statement"].as_str().unwrap();
    let expected = vectors["proofs"].as_array().unwrap().iter().find(|p| p["leaves"] == 4097).unwrap();
    assert_eq!(program(&["prove", "--statement", statement, "--leaves", "4097", "--out", file]).status.code(), Some(0));
    let made: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    for key in ["root", "proven_leaves", "proof_nodes", "leaves"] {
        assert_eq!(made[key], expected[key], "{key}");
    }
    let verify = |statement: &str| program(&["verify", "--statement", statement, "--proof", file]);
    assert_eq!(verify(statement).status.code(), Some(0));
    let wrong = verify(&"00".repeat(32));
    assert_eq!(wrong.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("merkle proof not valid"));
    std::fs::write(file, "{}").unwrap();
    assert_eq!(verify(statement).status.code(), Some(3));
    assert_eq!(program(&["verify", "--statement", "00", "--proof", "/nowhere"]).status.code(), Some(1));
    assert_eq!(program(&["run", "--poetdir", dir.path().to_str().unwrap()]).status.code(), Some(2));
    assert_eq!(program(&["dance"]).status.code(), Some(2));
}
