//! Both interfaces over real sockets.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::{Mutex, atomic::AtomicBool},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signer as _, SigningKey};
use prost::Message as _;
use proto::{
    grpc::poet_v1 as wire,
    poet::{Element, Leaves, MerkleProof, PoetProof},
};
use serde_json::{Value, json};

use crate::support::*;

const HOUR: u64 = 3600;

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

    let page = server.metrics();
    for line in [
        "poet_registration_with_cert_total{result=\"valid\"} 2",
        "poet_registration_with_cert_total{result=\"expired\"} 1",
        "poet_round_members_total{id=\"0\"} 3",
        "grpc_server_handled_total{grpc_type=\"unary\",grpc_service=\"rpc.api.v1.PoetService\",grpc_method=\"Submit\",grpc_code=\"OK\"} 4",
        "grpc_server_handled_total{grpc_type=\"unary\",grpc_service=\"rpc.api.v1.PoetService\",grpc_method=\"Submit\",grpc_code=\"AlreadyExists\"} 1",
        "grpc_server_started_total{grpc_type=\"unary\",grpc_service=\"rpc.api.v1.PoetService\",grpc_method=\"Info\"} 1",
        "process_open_fds ",
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
    assert_eq!(server.order("/v1/pause").status, 200);
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
    let (connections, each) = (500, 20);
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
    let page = server.metrics();
    assert!(page.contains(&format!("poet_round_members_total{{id=\"0\"}} {}", connections * each)), "{page}");
}

/// Sends what a vector's request says over both interfaces; returns the code and the message, which must agree.
fn verdict(server: &Server, runtime: &tokio::runtime::Runtime, request: &wire::SubmitRequest, json: &Value) -> (u64, String) {
    let reply = server.submit(json.to_string().as_bytes());
    let rest = if reply.status == 200 {
        (0, String::new())
    } else {
        (reply.json()["code"].as_u64().unwrap(), reply.json()["message"].as_str().unwrap().to_owned())
    };
    let address = format!("http://127.0.0.1:{}", server.grpc);
    let grpc = runtime.block_on(async {
        let mut client = wire::poet_service_client::PoetServiceClient::connect(address).await.unwrap();
        client.submit(request.clone()).await
    });
    let grpc = grpc.map_or_else(|status| (status.code() as u64, status.message().to_owned()), |_| (0, String::new()));
    assert_eq!(rest, grpc);
    rest
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn signatures_get_the_verdict_of_the_vectors_over_sockets() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &as_strs(&quiet_schedule()));
    let runtime = runtime();
    let bytes = |value: &Value| hex::decode(value.as_str().unwrap()).unwrap();
    let vectors = vectors("submit_signature.json");
    // authentic ones get as far as the proof of work, which is for another server
    let authentic = (3, "invalid proof of work parameters".to_owned());
    for request in vectors["requests"].as_array().unwrap() {
        let message = wire::SubmitRequest::decode(&*bytes(&request["protobuf"])).unwrap();
        assert_eq!(verdict(&server, &runtime, &message, &request["json"]), authentic);
        let mut padded = request["json"].clone();
        padded["fieldOfTheFuture"] = json!([1, { "x": null }]);
        let text = format!(" {padded} \n");
        assert_eq!(server.submit(text.as_bytes()).json()["message"], authentic.1);
    }
    for case in vectors["signature_cases"].as_array().unwrap() {
        let message = wire::SubmitRequest {
            prefix: bytes(&case["prefix"]),
            challenge: bytes(&case["challenge"]),
            pubkey: bytes(&case["pubkey"]),
            signature: bytes(&case["signature"]),
            ..wire::SubmitRequest::default()
        };
        let text = |bytes: &[u8]| STANDARD.encode(bytes);
        let json = json!({
            "prefix": text(&message.prefix), "challenge": text(&message.challenge),
            "pubkey": text(&message.pubkey), "signature": text(&message.signature),
        });
        let expected = match (case["signature_valid"].as_bool().unwrap(), message.challenge.len()) {
            (false, _) => (3, "invalid signature".to_owned()),
            (true, 32) => authentic.clone(),
            // it would spoil the round for all members
            (true, _) => (3, "invalid challenge length".to_owned()),
        };
        assert_eq!(verdict(&server, &runtime, &message, &json), expected, "{}", case["note"]);
    }
    for input in crate::support::vectors("rest_grpc.json")["accepted_inputs"].as_array().unwrap() {
        let message = wire::SubmitRequest::decode(&*bytes(&input["protobuf"])).unwrap();
        assert_eq!(verdict(&server, &runtime, &message, &input["json"]), (3, "invalid public key".to_owned()));
    }
}

/// A registration by the key of a vector, with the fields of `more` besides.
fn signed(key: &SigningKey, more: &Value) -> (wire::SubmitRequest, Value) {
    let (prefix, challenge) = ([1; 21], [5; 32]);
    let mut json = json!({
        "prefix": STANDARD.encode(prefix), "challenge": STANDARD.encode(challenge),
        "pubkey": STANDARD.encode(key.verifying_key().to_bytes()),
        "signature": STANDARD.encode(key.sign(&[&prefix[..], &challenge].concat()).to_bytes()),
    });
    for (name, value) in more.as_object().unwrap() {
        json[name] = value.clone();
    }
    (poet_service::json::submit_request(json.to_string().as_bytes()).unwrap(), json)
}

#[test]
fn certificates_get_the_verdict_of_the_vectors_over_sockets() {
    let bytes = |value: &Value| hex::decode(value.as_str().unwrap()).unwrap();
    let file = vectors("certificates.json");
    let requests = vectors("submit_signature.json");
    let seeds = requests["requests"].as_array().unwrap();
    let certifier = bytes(&file["certifier_pubkey"]);
    let dir = tempfile::tempdir().unwrap();
    let mut flags = quiet_schedule();
    let pubkey = STANDARD.encode(&certifier);
    flags.extend(["--certifier-url", "http://certifier.example", "--certifier-pubkey", &pubkey].map(str::to_owned));
    let server = Server::start(dir.path(), &as_strs(&flags));
    let runtime = runtime();
    let mut seen = (0, 0);
    for case in file["cases"].as_array().unwrap() {
        // those whose identity has a known key and that are for this certifier
        let Some(owner) = seeds.iter().find(|request| request["pubkey"] == case["node_id"]) else { continue };
        if case["verify_with"] != file["certifier_pubkey"] {
            continue;
        }
        let key = SigningKey::from_bytes(&bytes(&owner["seed"]).try_into().unwrap());
        let data = bytes(&case["data"]);
        let certificate = json!({ "data": STANDARD.encode(&data), "signature": STANDARD.encode(bytes(&case["signature"])) });
        let (request, json) = signed(&key, &json!({ "certificate": certificate }));
        let verdict = verdict(&server, &runtime, &request, &json);
        // the vectors' time is the year 2023
        let expiration = case["expiration"].as_str().map(|text| text.parse::<u64>().unwrap());
        let expired = expiration.is_some_and(|expiration| expiration < unix_now());
        if case["accepted"] == true && !expired {
            assert_eq!(verdict, (0, String::new()), "{}", case["note"]);
            seen.0 += 1;
        } else {
            assert_eq!(verdict.0, 16, "{}: {verdict:?}", case["note"]);
            assert!(verdict.1.starts_with("invalid certificate\n"), "{verdict:?}");
            assert!(case["accepted"] == false || verdict.1.contains("certificate expired at "), "{verdict:?}");
            seen.1 += 1;
        }
    }
    assert!(seen.0 >= 1 && seen.1 >= 4, "{seen:?}");
}

#[test]
fn proofs_of_work_are_weighed_over_sockets() {
    use poet_service::{
        pow,
        store::{PowChallenges, RocksStore, Store as _},
    };
    let dir = tempfile::tempdir().unwrap();
    let vector = vectors("pow.json")["pow"].as_array().unwrap().iter().find(|v| v["difficulty"] == 12).unwrap().clone();
    let challenge = hex::decode(vector["pow_challenge"].as_str().unwrap()).unwrap();
    std::fs::create_dir_all(dir.path().join("db")).unwrap();
    {
        let store = RocksStore::open(&dir.path().join("db/rocks")).unwrap();
        store.set_pow_challenges(&PowChallenges { current: challenge.clone(), previous: None }).unwrap();
    }
    let mut flags = quiet_schedule();
    flags.extend(["--pow-difficulty", "12"].map(str::to_owned));
    let server = Server::start(dir.path(), &as_strs(&flags));
    let runtime = runtime();
    let params = server.get("/v1/pow_params").json();
    assert_eq!(params["powParams"], json!({ "difficulty": 12, "challenge": STANDARD.encode(&challenge) }));
    let key = SigningKey::from_bytes(&[8; 32]);
    let id = proto::ids::NodeId(key.verifying_key().to_bytes());
    let known = pow::Params { challenge: challenge.clone(), difficulty: 12 };
    let nonce = pow::find(&known, &id, &[5; 32], 2, &AtomicBool::new(false)).unwrap();
    let judge = |nonce: u64, params: &Value| {
        let (request, json) = signed(&key, &json!({ "nonce": nonce.to_string(), "powParams": params }));
        verdict(&server, &runtime, &request, &json)
    };
    let params = &params["powParams"];
    let weak = (0..100).find(|nonce| !pow::is_valid(&known, &id, &[5; 32], *nonce)).unwrap();
    assert_eq!(judge(weak, params), (3, "invalid proof of work: invalid leading zero bits".to_owned()));
    let unknown = (3, "invalid proof of work parameters".to_owned());
    assert_eq!(judge(nonce, &json!({ "difficulty": 11, "challenge": params["challenge"] })), unknown);
    assert_eq!(judge(nonce, &json!({ "difficulty": 12, "challenge": "" })), unknown);
    assert_eq!(judge(nonce, params), (0, String::new()));
}

/// A proof of the vectors in the database comes out of both interfaces with the same SCALE form and reference.
#[test]
fn proofs_keep_their_scale_form_over_sockets() {
    use poet_service::store::{Closed, PowChallenges, Record, RocksStore, Store as _};
    use proto::{ids::NodeId, scale};

    let file = vectors("scale.json");
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("db")).unwrap();
    let store = RocksStore::open(&dir.path().join("db/rocks")).unwrap();
    let proofs = file["proofs"].as_array().unwrap();
    let pow = PowChallenges { current: vec![1], previous: None };
    for (number, vector) in proofs.iter().enumerate() {
        let round = poet_service::schedule::RoundId(number as u32);
        let proof: PoetProof = scale::decode(&hex::decode(vector["poet_proof"].as_str().unwrap()).unwrap()).unwrap();
        store.register(round, &[(NodeId([1; 32]), [2; 32])]).unwrap();
        store.close(round, &Closed { statement: Some([3; 32]), members: 1 }).unwrap();
        store.finish(round, &Record { proof, members: vec![[2; 32]], pubkey: [4; 32] }, &pow).unwrap();
    }
    drop(store);
    let genesis = rfc3339(unix_now() - 100_000);
    let server = Server::start(dir.path(), &["--genesis-time", &genesis, "--epoch-duration", "1000s", "--phase-shift", "500s"]);
    let runtime = runtime();
    for (number, vector) in proofs.iter().enumerate() {
        let reply = server.get(&format!("/v1/proofs/{number}")).json();
        let (rest, members) = parse_proof(&reply);
        assert_eq!(members, [[2; 32]]);
        assert_eq!(hex::encode(scale::encode(&rest).unwrap()), vector["poet_proof"].as_str().unwrap());
        let reference = blake3::hash(&scale::encode(&rest).unwrap()).to_hex();
        assert_eq!(reference.as_str(), vector["poet_proof_ref"].as_str().unwrap());
        let address = format!("http://127.0.0.1:{}", server.grpc);
        let grpc = runtime.block_on(async {
            let mut client = wire::poet_service_client::PoetServiceClient::connect(address).await.unwrap();
            client.proof(wire::ProofRequest { round_id: number.to_string() }).await.unwrap().into_inner()
        });
        let record = poet_service::store::Record { proof: rest, members, pubkey: [4; 32] };
        assert_eq!(poet_service::api::proof_response(&record), grpc);
    }
}

#[test]
fn a_client_that_asks_too_often_is_turned_away_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut flags = quiet_schedule();
    flags.extend(["--max-client-rate", "2"].map(str::to_owned));
    let server = Server::start(dir.path(), &as_strs(&flags));
    // on behalf of a client, as a proxy on this machine says
    let ask = |client: &str| {
        let head = format!("GET /v1/info HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 6.6.6.6, {client}\r\nconnection: close\r\n\r\n");
        request(server.rest, &head, b"").unwrap()
    };
    let turned_away = (0..60).map(|_| ask("10.1.1.1")).filter(|reply| reply.status == 429).collect::<Vec<_>>();
    assert!((20..=40).contains(&turned_away.len()), "{} of 60", turned_away.len());
    assert_eq!(turned_away[0].json(), json!({ "code": 8, "message": "too many requests", "details": [] }));
    assert_eq!(ask("10.1.1.2").status, 200);
    // without a name it may be anybody behind the proxy
    assert_eq!((0..60).filter(|_| server.get("/v1/info").status == 200).count(), 60);
    assert!(server.metrics().contains(&format!("poet_requests_limited_total {}", turned_away.len())));
}

#[test]
fn the_operator_sees_rounds_and_members_backs_up_holds_and_plans() {
    use poet_service::store::{RocksStore, Store as _};

    let dir = tempfile::tempdir().unwrap();
    let flags = quiet_schedule();
    let server = Server::start(dir.path(), &as_strs(&flags));
    let params = server.get("/v1/pow_params").json();
    for seed in 0..5 {
        assert_eq!(server.submit(registration(seed, &params).0.to_string().as_bytes()).status, 200);
    }
    let rounds = page(server.admin, "/v1/rounds").json();
    assert_eq!(rounds["open"]["round"], 0);
    assert_eq!(rounds["open"]["members"], 5);
    assert!((3500..=3600).contains(&rounds["open"]["closes_in_seconds"].as_u64().unwrap()), "{rounds}");
    assert_eq!((&rounds["running"], &rounds["held_from"]), (&Value::Null, &Value::Null));
    let members = page(server.admin, "/v1/rounds/0/members").json();
    let all: Vec<&str> = members["members"].as_array().unwrap().iter().map(|m| m["node_id"].as_str().unwrap()).collect();
    assert_eq!(all.len(), 5);
    assert!(all.is_sorted());
    let rest = page(server.admin, &format!("/v1/rounds/0/members?after={}", all[2])).json();
    assert_eq!(rest["members"].as_array().unwrap().len(), 2);
    assert_eq!(page(server.admin, "/v1/rounds/0/members?after=xyz").status, 400);

    let backup = server.order("/v1/backup/before-upgrade");
    assert_eq!(backup.status, 200, "{}", String::from_utf8_lossy(&backup.body));
    assert_eq!(server.order("/v1/backup/before-upgrade").status, 409);
    assert_eq!(server.order("/v1/backup/..%2Fx").status, 400);
    let copy = std::path::PathBuf::from(backup.json()["backup"].as_str().unwrap());
    let copy = RocksStore::open(&copy).unwrap();
    assert_eq!(copy.count(poet_service::schedule::RoundId(0)).unwrap(), 5);

    // the next phase shift is forty minutes earlier, longer than the gap between rounds: one round is left out
    let change = server.order("/v1/phase-change/20m").json();
    let expected = json!({ "last_round_before": 0, "first_round_after": 2, "phase_shift": "20m" });
    assert_eq!(change["phase_change"], expected);
    assert_eq!(server.order("/v1/phase-change/soon").status, 400);
    assert_eq!(server.order("/v1/hold").json()["held_from"], 0);
    assert_eq!(server.get("/v1/info").json()["phaseShift"], "3600s");
    assert_eq!(server.terminate().0, Some(0));
    // plans outlast a restart, also with the new phase shift in the configuration
    for shift in ["1h", "20m"] {
        let mut flags = flags.clone();
        flags[5] = shift.to_owned();
        let server = Server::start(dir.path(), &as_strs(&flags));
        let rounds = page(server.admin, "/v1/rounds").json();
        assert_eq!(rounds["phase_change"], expected, "{shift}");
        assert_eq!(rounds["held_from"], 0);
        assert_eq!(server.get("/v1/info").json()["phaseShift"], "3600s");
    }
    // but not one that was never planned
    let mut other = flags.clone();
    other[5] = "30m".to_owned();
    let status = launch(dir.path(), &as_strs(&other)).wait().unwrap();
    assert_eq!(status.code(), Some(2));
    let server = Server::start(dir.path(), &as_strs(&flags));
    assert_eq!(server.order("/v1/phase-change/1h").json()["phase_change"], Value::Null);
    assert_eq!(server.order("/v1/release").json()["held_from"], Value::Null);
}

#[test]
fn a_held_round_waits_for_the_operator() {
    let dir = tempfile::tempdir().unwrap();
    let genesis = rfc3339(unix_now() + 2);
    let flags = ["--genesis-time", &genesis, "--epoch-duration", "600s", "--phase-shift", "1s", "--cycle-gap", "598s"];
    let server = Server::start(dir.path(), &flags);
    let params = server.get("/v1/pow_params").json();
    assert_eq!(server.submit(registration(1, &params).0.to_string().as_bytes()).status, 200);
    assert_eq!(server.order("/v1/hold").status, 200);
    let mut log = server.log();
    assert!(log.wait_for("a round with members is held by the operator"));
    assert_eq!(page(server.admin, "/v1/rounds").json()["running"], Value::Null);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(server.order("/v1/release").status, 200);
    assert_eq!(check_proof(&server.wait_for_proof("0")).len(), 1);
}

/// Where few files are allowed, the server takes what it can get and says what that means.
#[test]
fn the_limit_of_open_files_is_raised_or_complained_about() {
    let dir = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_poet-service");
    for (limits, raised, complains) in [("-S -n 300", "11024", false), ("-n 700", "700", true)] {
        let hard = std::process::Command::new("sh").args(["-c", "ulimit -H -n"]).output().unwrap();
        let hard = String::from_utf8(hard.stdout).unwrap();
        if !complains && hard.trim().parse::<u64>().is_ok_and(|hard| hard < 11_024) {
            continue;
        }
        let log = dir.path().join(raised);
        let port = free_port();
        let run = format!(
            "ulimit {limits}; exec {program} run --poetdir {} --restlisten 127.0.0.1:{port} --rpclisten 127.0.0.1:0 \
             --config-rpclisten 127.0.0.1:0 --genesis-time 2020-01-01T00:00:00Z 2>{}",
            dir.path().display(),
            log.display()
        );
        let mut child = std::process::Command::new("sh").args(["-c", &run]).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !std::fs::read_to_string(&log).unwrap_or_default().contains("ready") {
            assert!(Instant::now() < deadline, "the server does not come up");
            thread::sleep(Duration::from_millis(20));
        }
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        assert_eq!(line.split_whitespace().nth(3), Some(raised), "{line}");
        let said = std::fs::read_to_string(&log).unwrap();
        assert_eq!(said.contains("few open files are allowed"), complains, "{said}");
        assert_eq!(terminate(&mut child).0, Some(0));
    }
}
