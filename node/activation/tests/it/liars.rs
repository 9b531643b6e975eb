//! Servers that fail, lag and lie, one way at a time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use activation::clock::Clock;
use activation::{
    poet::{ConfigError, PhaseShift, PoetError, Poets, Submission},
    rows::Certificate as Kept,
    timeline::Moment,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signer as _, SigningKey};
use poet_service::{json as server_json, pow};
use proto::{
    ids::{EdSignature, Hash32},
    merkle,
    poet::{Certificate, Leaves},
    preset::PoetServer,
    scale::{self, Bytes},
    signing::{Domain, prefix, verify},
};
use serde_json::{Value, json};

use crate::{fixture::key, network::NETWORK, poets::*};

/// What a server says to what it is sent.
type Lie = fn(&Value) -> Say;
type Judge = fn(&PoetError) -> bool;
type Change = fn(&mut Value);

const SERVER: [u8; 32] = [0x5e; 32];
const CHALLENGE: Hash32 = Hash32([0xc4; 32]);
const POW: [u8; 32] = [0x90; 32];

fn info(certifier: &Value) -> Value {
    let shift = format!("{}s", PHASE_SHIFT.as_secs());
    json!({ "servicePubkey": STANDARD.encode(SERVER), "phaseShift": shift, "cycleGap": "20s", "certifier": certifier })
}

/// What an honest server without certifier says.
fn honest(path: &str) -> Say {
    match path {
        "/v1/info" => Say::Json(200, info(&Value::Null)),
        "/v1/pow_params" => Say::Json(200, json!({ "powParams": { "difficulty": 5, "challenge": STANDARD.encode(POW) } })),
        "/v1/submit" => Say::Json(200, json!({ "roundId": "7", "roundEnd": "990.5s" })),
        other => panic!("asked for {other}"),
    }
}

fn submission(until: Moment, proof_until: Moment) -> Submission {
    Submission { challenge: CHALLENGE, until, proof_until }
}

async fn register(poets: &Poets, poet: &str, seconds: u64) -> Result<String, PoetError> {
    poets.register(poet, &key(1), &submission(soon(seconds), soon(2000))).await.map(|(round, _)| round)
}

/// The challenge of the test among others, and a proof over them.
fn round() -> (Vec<[u8; 32]>, Vec<u8>) {
    let members: Vec<[u8; 32]> = (0..7).map(|n| if n == 4 { CHALLENGE.0 } else { [n; 32] }).collect();
    let json = server_json::proof(&finished(&members, 200, SERVER)).into_bytes();
    (members, json)
}

#[tokio::test]
async fn a_registration_says_what_servers_want_to_know() {
    let liar = Liar::start(|path, _, _| honest(path)).await;
    let poets = clients(&[(&liar.address, Some(SERVER))], settings(), Arc::default());
    poets.check().await.unwrap();
    let (until, proof_until) = (soon(10), soon(2000));
    let (round, end) = poets.register(&liar.address, &key(1), &submission(until, proof_until)).await.unwrap();
    assert_eq!(round, "7");
    let expected = soon(990);
    assert!(end > expected && end < expected + Duration::from_secs(5), "{end}");

    let submitted = &liar.heard("/v1/submit")[0];
    let request = server_json::submit_request(submitted.to_string().as_bytes()).unwrap();
    let id = key(1).node_id();
    assert_eq!((&request.prefix[..], &request.challenge[..]), (&prefix(&NETWORK, Domain::Poet)[..], &CHALLENGE.0[..]));
    assert_eq!(request.pubkey, id.0);
    let signature = EdSignature(request.signature[..].try_into().unwrap());
    assert!(verify(&NETWORK, Domain::Poet, &id, &CHALLENGE.0, &signature));
    let deadline = request.deadline.unwrap();
    assert_eq!(deadline.seconds * 1_000_000_000 + i64::from(deadline.nanos), proof_until.0);
    let params = pow::Params { challenge: POW.to_vec(), difficulty: 5 };
    assert_eq!(Some(request.nonce), pow::find(&params, &id, &CHALLENGE.0, 1, &false.into()));

    // Who the server is and what work it wants is asked once.
    register(&poets, &liar.address, 10).await.unwrap();
    assert_eq!((liar.heard("/v1/info").len(), liar.heard("/v1/pow_params").len(), liar.heard("/v1/submit").len()), (1, 1, 2));
}

#[tokio::test]
async fn what_is_kept_of_a_server_gets_old() {
    let liar = Liar::start(|path, _, _| honest(path)).await;
    let settings = activation::poet::Settings { info_ttl: Duration::ZERO, pow_params_ttl: Duration::ZERO, ..settings() };
    let poets = clients(&[(&liar.address, None)], settings, Arc::default());
    for _ in 0..2 {
        register(&poets, &liar.address, 10).await.unwrap();
    }
    assert_eq!((liar.heard("/v1/info").len(), liar.heard("/v1/pow_params").len()), (2, 2));
}

#[tokio::test]
async fn failures_pass_or_end_a_registration_by_their_kind() {
    // a status, and whether the same request is made again
    for (status, passes) in
        [(429, true), (500, true), (503, true), (501, false), (404, false), (400, false), (409, false), (302, false)]
    {
        let liar = Liar::start(move |path, before, _| match path {
            "/v1/submit" if before < 2 => Say::status(status),
            path => honest(path),
        })
        .await;
        let poets = clients(&[(&liar.address, None)], settings(), Arc::default());
        let answer = register(&poets, &liar.address, 10).await;
        let asked = liar.heard("/v1/submit").len();
        if passes {
            assert_eq!((answer, asked), (Ok("7".to_owned()), 3), "{status}");
        } else {
            let expected = PoetError::Status { status, text: format!("because of {status}") };
            assert_eq!((answer, asked), (Err(expected), 1), "{status}");
        }
    }
}

#[tokio::test]
async fn a_registration_is_tried_until_the_round_begins() {
    let says: [fn(&str) -> Say; 3] = [
        |path| if path == "/v1/submit" { Say::status(503) } else { honest(path) },
        |path| if path == "/v1/submit" { Say::Nothing } else { honest(path) },
        |path| if path == "/v1/info" { Say::status(500) } else { honest(path) },
    ];
    for say in says {
        let liar = Liar::start(move |path, _, _| say(path)).await;
        let poets = clients(&[(&liar.address, None)], settings(), Arc::default());
        let begun = Instant::now();
        assert!(matches!(register(&poets, &liar.address, 1).await, Err(PoetError::Late(_))));
        assert!(begun.elapsed() < Duration::from_secs(2));
    }
    // a server comes back after it was away for longer than one request is repeated
    let away = AtomicUsize::new(30);
    let liar = Liar::start(move |path, _, _| {
        let still = away.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok();
        if still { Say::status(500) } else { honest(path) }
    })
    .await;
    let poets = clients(&[(&liar.address, None)], settings(), Arc::default());
    assert_eq!(register(&poets, &liar.address, 30).await, Ok("7".to_owned()));
}

#[tokio::test]
async fn nobody_there_is_no_reason_not_to_start() {
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let poets = clients(&[(&nobody, Some(SERVER))], settings(), Arc::default());
    poets.check().await.unwrap();
    assert!(matches!(register(&poets, &nobody, 1).await, Err(PoetError::Late(_))));
    assert!(matches!(poets.fetch(&registration(&nobody, "1", CHALLENGE), soon(30)).await, Err(PoetError::Unreachable(_))));
    assert_eq!(register(&poets, "elsewhere", 1).await, Err(PoetError::NotConfigured("elsewhere".into())));
}

#[tokio::test]
async fn another_rhythm_is_fatal() {
    let liar = Liar::start(|path, _, _| match path {
        "/v1/info" => {
            let mut info = info(&Value::Null);
            info["phaseShift"] = "41s".into();
            Say::Json(200, info)
        }
        path => honest(path),
    })
    .await;
    let poets = clients(&[(&liar.address, None)], settings(), Arc::default());
    let expected = PhaseShift { poet: liar.address.clone(), found: Duration::from_secs(41), expected: PHASE_SHIFT };
    assert_eq!(poets.check().await, Err(expected.clone()));
    assert_eq!(register(&poets, &liar.address, 10).await, Err(PoetError::PhaseShift(expected)));
    assert_eq!(liar.heard("/v1/submit").len(), 0);
}

#[tokio::test]
async fn a_server_is_the_one_that_was_configured() {
    let (_, proof) = round();
    let liar = Liar::start(move |path, _, _| match path {
        "/v1/proofs/7" => Say::Raw(200, proof.clone()),
        path => honest(path),
    })
    .await;
    let memory = Arc::<Memory>::default();
    let poets = clients(&[(&liar.address, Some([1; 32]))], settings(), memory.clone());
    let wrong = || PoetError::Key { found: SERVER.to_vec(), configured: [1; 32] };
    assert_eq!(register(&poets, &liar.address, 10).await, Err(wrong()));
    assert_eq!(poets.fetch(&registration(&liar.address, "7", CHALLENGE), soon(30)).await, Err(wrong()));
    assert_eq!(memory.proofs.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn answers_that_make_no_sense_are_no_answers() {
    let cases: [(&str, Lie); 7] = [
        ("/v1/info", |_| Say::Raw(200, b"<html>".to_vec())),
        ("/v1/info", |_| Say::Json(200, json!({ "phaseShift": "soon" }))),
        ("/v1/pow_params", |_| Say::Json(200, json!({}))),
        ("/v1/pow_params", |_| {
            Say::Json(200, json!({ "powParams": { "difficulty": 1, "challenge": STANDARD.encode([0; 300]) } }))
        }),
        ("/v1/submit", |_| Say::Json(200, json!({ "roundId": "7" }))),
        ("/v1/submit", |_| Say::Json(200, json!({ "roundId": "", "roundEnd": "1s" }))),
        ("/v1/submit", |_| Say::Json(200, json!({ "roundId": "7".repeat(33), "roundEnd": "1s" }))),
    ];
    for (number, (lie, say)) in cases.into_iter().enumerate() {
        let liar = Liar::start(move |path, _, body| if path == lie { say(body) } else { honest(path) }).await;
        let poets = clients(&[(&liar.address, None)], settings(), Arc::default());
        let answer = register(&poets, &liar.address, 10).await;
        assert!(matches!(answer, Err(PoetError::Garbage(_))), "case {number}: {answer:?}");
    }
    // work for years, a round that never ends, an answer that never ends
    let lies: [(&str, Lie, Judge); 3] = [
        (
            "/v1/pow_params",
            |_| Say::Json(200, json!({ "powParams": { "difficulty": 60, "challenge": "" } })),
            |e| *e == PoetError::Difficulty(60),
        ),
        (
            "/v1/submit",
            |_| Say::Json(200, json!({ "roundId": "7", "roundEnd": "1200s" })),
            |e| matches!(e, PoetError::RoundEnd { .. }),
        ),
        ("/v1/info", |_| Say::Raw(200, vec![b' '; 1 << 20]), |e| *e == PoetError::TooLarge { limit: 64 * 1024 }),
    ];
    for (lie, say, expected) in lies {
        let liar = Liar::start(move |path, _, body| if path == lie { say(body) } else { honest(path) }).await;
        let poets = clients(&[(&liar.address, None)], settings(), Arc::default());
        let error = register(&poets, &liar.address, 10).await.unwrap_err();
        assert!(expected(&error), "{error}");
    }
    // a server's words reach people in parts, and without what would confuse a terminal
    let liar = Liar::start(|path, _, _| match path {
        "/v1/submit" => Say::Raw(400, [b"\x1b[2J".as_slice(), &[b'x'; 10_000]].concat()),
        path => honest(path),
    })
    .await;
    let poets = clients(&[(&liar.address, None)], settings(), Arc::default());
    let Err(PoetError::Status { status: 400, text }) = register(&poets, &liar.address, 10).await else { panic!("not refused") };
    assert!(text.starts_with("[2Jxx") && text.len() < 600, "{text:?}");
}

#[tokio::test]
async fn a_proof_is_fetched_verified_and_kept_once_for_all_identities() {
    let (members, proof) = round();
    let liar = Liar::start(move |path, before, _| match path {
        // not ready, and then the gateway has its moods
        "/v1/proofs/7" if before == 0 => Say::status(404),
        "/v1/proofs/7" if before == 1 => Say::status(500),
        "/v1/proofs/7" => Say::Raw(200, proof.clone()),
        path => honest(path),
    })
    .await;
    let memory = Arc::<Memory>::default();
    let poets = clients(&[(&liar.address, Some(SERVER))], settings(), memory.clone());
    let mut fetching = tokio::task::JoinSet::new();
    for (place, member) in members.clone().into_iter().enumerate() {
        let (poets, registration) = (poets.clone(), registration(&liar.address, "7", Hash32(member)));
        fetching.spawn(async move { (place, member, poets.fetch(&registration, soon(30)).await.unwrap()) });
    }
    for (place, member, found) in fetching.join_all().await {
        let kept = memory.proofs.lock().unwrap()[0].clone();
        assert_eq!((found.leaves, found.reference), (Leaves(200), kept.proof.reference().unwrap()));
        assert_eq!(found.membership.leaf_index, place as u64);
        let indices = [found.membership.leaf_index];
        let proven = merkle::verify(&kept.statement, &indices, &[member], &found.membership.nodes);
        assert!(matches!(proven, Ok(true)), "{proven:?}");
        assert_eq!((&*kept.service_id, &*kept.round_id), (&SERVER[..], &b"7"[..]));
    }
    assert_eq!(liar.heard("/v1/proofs/7").len(), 3);
    assert_eq!(memory.proofs.lock().unwrap().len(), 1);
    // somebody who is not in the round
    let stranger = registration(&liar.address, "7", Hash32([0xee; 32]));
    assert_eq!(poets.fetch(&stranger, soon(30)).await, Err(PoetError::NotAMember("7".into())));
}

#[tokio::test]
async fn proofs_that_prove_nothing_are_refused() {
    let (_, good) = round();
    let good: Value = serde_json::from_slice(&good).unwrap();
    let lies: [(&str, Change); 8] = [
        ("root", |answer| answer["proof"]["proof"]["root"] = STANDARD.encode([1; 32]).into()),
        ("label", |answer| answer["proof"]["proof"]["provenLeaves"][3] = STANDARD.encode([1; 32]).into()),
        ("leaves", |answer| answer["proof"]["leaves"] = "1000000".into()),
        ("too few opened", |answer| answer["proof"]["proof"]["provenLeaves"] = json!([])),
        ("another member", |answer| answer["proof"]["members"][0] = STANDARD.encode([0xdd; 32]).into()),
        ("order of members", |answer| answer["proof"]["members"].as_array_mut().unwrap().swap(0, 1)),
        ("no members", |answer| answer["proof"]["members"] = json!([])),
        ("short key", |answer| answer["pubkey"] = "AAAA".into()),
    ];
    for (lie, change) in lies {
        let mut answer = good.clone();
        change(&mut answer);
        let liar = Liar::start(move |_, _, _| Say::Json(200, answer.clone())).await;
        let memory = Arc::<Memory>::default();
        let poets = clients(&[(&liar.address, None)], settings(), memory.clone());
        let error = poets.fetch(&registration(&liar.address, "7", CHALLENGE), soon(30)).await.unwrap_err();
        let expected = match lie {
            "no members" => error == PoetError::NoMembers,
            "short key" => matches!(error, PoetError::Garbage(_)),
            _ => matches!(error, PoetError::Proof(_)),
        };
        assert!(expected, "{lie}: {error}");
        assert_eq!(memory.proofs.lock().unwrap().len(), 0, "{lie}");
    }
    let garbage = Liar::start(|_, _, _| Say::Raw(200, b"[1, 2".to_vec())).await;
    let poets = clients(&[(&garbage.address, None)], settings(), Arc::default());
    let error = poets.fetch(&registration(&garbage.address, "7", CHALLENGE), soon(30)).await.unwrap_err();
    assert!(matches!(error, PoetError::Garbage(_)), "{error}");
}

#[tokio::test]
async fn a_proof_that_never_comes_is_waited_for_in_bounds() {
    // never ready: so many attempts, shared by all who wait
    let never = Liar::start(|_, _, _| Say::status(404)).await;
    let poets = clients(&[(&never.address, None)], settings(), Arc::default());
    let wanted = registration(&never.address, "7", CHALLENGE);
    let both = tokio::join!(poets.fetch(&wanted, soon(30)), poets.fetch(&wanted, soon(30)));
    assert!(matches!(both, (Err(PoetError::Status { status: 404, .. }), Err(PoetError::Status { status: 404, .. }))), "{both:?}");
    assert_eq!(never.heard("/v1/proofs/7").len(), 4);
    // silent: as long as a request may take, and as long as the caller waits
    let silent = Liar::start(|_, _, _| Say::Nothing).await;
    let limit = Duration::from_millis(300);
    let short = activation::poet::Settings { request_timeout: limit, ..settings() };
    let poets = clients(&[(&silent.address, None)], short, Arc::default());
    let wanted = registration(&silent.address, "7", CHALLENGE);
    assert_eq!(poets.fetch(&wanted, soon(30)).await, Err(PoetError::Slow(limit)));
    let poets = clients(&[(&silent.address, None)], settings(), Arc::default());
    let until = soon(1);
    assert_eq!(poets.fetch(&wanted, until).await, Err(PoetError::Late(until)));
}

/// A certifier that signs what identities in its requests say they are.
fn certified(certifier: &SigningKey, body: &Value, expiration: Option<u64>) -> Value {
    let id: [u8; 32] = STANDARD.decode(body["metadata"]["node_id"].as_str().unwrap()).unwrap().try_into().unwrap();
    let data = scale::encode(&Certificate { pubkey: id.into(), expiration }).unwrap();
    json!({
        "certificate": STANDARD.encode(&data),
        "signature": STANDARD.encode(certifier.sign(&data).to_bytes()),
        "pub_key": STANDARD.encode(certifier.verifying_key().to_bytes()),
    })
}

fn certifier() -> SigningKey {
    SigningKey::from_bytes(&[0x77; 32])
}

/// A PoET server with a certifier at its own address; `says` may overrule it.
async fn with_certifier(says: impl Fn(&str, usize, &Value) -> Option<Say> + Send + Sync + 'static) -> Liar {
    let address = Arc::new(std::sync::OnceLock::<String>::new());
    let told = address.clone();
    let liar = Liar::start(move |path, before, body| {
        if let Some(say) = says(path, before, body) {
            return say;
        }
        match path {
            "/v1/info" => {
                let pubkey = STANDARD.encode(certifier().verifying_key().to_bytes());
                Say::Json(200, info(&json!({ "url": format!("http://{}", told.get().unwrap()), "pubkey": pubkey })))
            }
            "/certify" => Say::Json(200, certified(&certifier(), body, None)),
            path => honest(path),
        }
    })
    .await;
    address.set(liar.address.clone()).unwrap();
    liar
}

#[tokio::test]
async fn a_certificate_is_gotten_once_and_kept() {
    let liar = with_certifier(|path, before, _| (path == "/certify" && before == 0).then(|| Say::status(503))).await;
    let memory = Arc::<Memory>::default();
    let poets = clients(&[(&liar.address, None)], settings(), memory.clone());
    let id = key(1).node_id();
    let (first, second) = tokio::join!(poets.certify(&liar.address, &id), poets.certify(&liar.address, &id));
    assert_eq!((first, second), (Ok(()), Ok(())));
    register(&poets, &liar.address, 10).await.unwrap();
    assert_eq!((liar.heard("/certify").len(), liar.heard("/v1/pow_params").len()), (2, 0));
    let request = server_json::submit_request(liar.heard("/v1/submit")[0].to_string().as_bytes()).unwrap();
    let sent = request.certificate.unwrap();
    let key = certifier().verifying_key().to_bytes();
    assert_eq!(poet_service::certificate::check(&key, &sent.data, &sent.signature, &id, 0), Ok(()));
    let kept = memory.certificates.lock().unwrap()[&(id, key)].clone();
    assert_eq!(kept, Kept { data: Bytes(sent.data), signature: EdSignature(sent.signature.try_into().unwrap()) });
    // a node that starts again has it
    let poets = clients(&[(&liar.address, None)], settings(), memory);
    register(&poets, &liar.address, 10).await.unwrap();
    assert_eq!(liar.heard("/certify").len(), 2);
}

#[tokio::test]
async fn without_a_good_certificate_there_is_work() {
    let other = || SigningKey::from_bytes(&[0x11; 32]);
    let lies: [(&str, Lie); 6] = [
        ("refused", |_| Say::status(403)),
        ("down", |_| Say::status(500)),
        ("garbage", |_| Say::Raw(200, vec![0; 10])),
        ("expired", |body| Say::Json(200, certified(&certifier(), body, Some(1_000_000)))),
        ("signed by another", |body| {
            let mut answer = certified(&SigningKey::from_bytes(&[0x11; 32]), body, None);
            answer["pub_key"] = STANDARD.encode(certifier().verifying_key().to_bytes()).into();
            Say::Json(200, answer)
        }),
        ("another certifier", |body| Say::Json(200, certified(&SigningKey::from_bytes(&[0x11; 32]), body, None))),
    ];
    for (lie, say) in lies {
        let liar = with_certifier(move |path, _, body| (path == "/certify").then(|| say(body))).await;
        let memory = Arc::<Memory>::default();
        // what was kept is of no use either
        let kept = Kept { data: Bytes(vec![1]), signature: EdSignature(other().sign(&[1]).to_bytes()) };
        memory.certificates.lock().unwrap().insert((key(1).node_id(), certifier().verifying_key().to_bytes()), kept.clone());
        let poets = clients(&[(&liar.address, None)], settings(), memory.clone());
        register(&poets, &liar.address, 10).await.unwrap();
        let submitted = &liar.heard("/v1/submit")[0];
        assert!(submitted["powParams"].is_object() && submitted["certificate"].is_null(), "{lie}: {submitted}");
        assert!(memory.certificates.lock().unwrap().values().all(|now| *now == kept), "{lie}");
        let asked = if lie == "down" { 3 } else { 1 };
        assert_eq!(liar.heard("/certify").len(), asked, "{lie}");
    }
    let liar = with_certifier(|_, _, _| None).await;
    let poets = clients(&[(&liar.address, None)], settings(), Arc::new(Memory { has_no_space: true, ..Memory::default() }));
    assert_eq!(poets.certify(&liar.address, &key(1).node_id()).await, Err(PoetError::NoSpace));
    register(&poets, &liar.address, 10).await.unwrap();
    assert_eq!(liar.heard("/certify").len(), 0);
}

#[tokio::test]
async fn a_refused_certificate_is_replaced_once() {
    // refused once: a new certificate
    let liar = with_certifier(|path, before, _| (path == "/v1/submit" && before == 0).then(|| Say::status(401))).await;
    let poets = clients(&[(&liar.address, None)], settings(), Arc::default());
    register(&poets, &liar.address, 10).await.unwrap();
    assert_eq!((liar.heard("/certify").len(), liar.heard("/v1/submit").len()), (2, 2));
    // refused, and the certifier is gone: work
    let liar = with_certifier(|path, before, _| match path {
        "/v1/submit" if before == 0 => Some(Say::status(401)),
        "/certify" if before > 0 => Some(Say::status(403)),
        _ => None,
    })
    .await;
    let memory = Arc::<Memory>::default();
    let poets = clients(&[(&liar.address, None)], settings(), memory.clone());
    register(&poets, &liar.address, 10).await.unwrap();
    assert!(liar.heard("/v1/submit")[1]["powParams"].is_object());
    assert!(memory.certificates.lock().unwrap().is_empty());
    // refused for ever, and refused by a server that has no certifier at all
    let always = with_certifier(|path, _, _| (path == "/v1/submit").then(|| Say::status(401))).await;
    let without = Liar::start(|path, _, _| if path == "/v1/submit" { Say::status(401) } else { honest(path) }).await;
    for liar in [always, without] {
        let poets = clients(&[(&liar.address, None)], settings(), Arc::default());
        let answer = register(&poets, &liar.address, 10).await;
        assert!(matches!(answer, Err(PoetError::Status { status: 401, .. })), "{answer:?}");
        assert_eq!(liar.heard("/v1/submit").len(), 2);
    }
}

#[tokio::test]
async fn addresses_are_checked_at_once() {
    let of = |addresses: &[&str]| {
        let servers: Vec<PoetServer> =
            addresses.iter().map(|address| PoetServer { address: (*address).to_owned(), pubkey: None }).collect();
        Poets::new(&servers, settings(), Arc::new(Memory::default()), Clock::system()).map(|poets| poets.addresses())
    };
    assert_eq!(of(&["https://b.example/poet/", "a.example:80"]).unwrap(), ["a.example:80", "https://b.example/poet/"]);
    assert_eq!(of(&["a:1", "a:1"]), Err(ConfigError::Twice("a:1".into())));
    for wrong in ["", "ftp://a", "http://", "a b"] {
        assert!(matches!(of(&[wrong]), Err(ConfigError::Address { .. })), "{wrong}");
    }
    // a path in front of the service's own
    let liar = Liar::start(|path, _, _| honest(path.strip_prefix("/poet").unwrap())).await;
    let address = format!("http://{}/poet/", liar.address);
    let poets = clients(&[(&address, None)], settings(), Arc::default());
    register(&poets, &address, 10).await.unwrap();
    assert_eq!(liar.heard("/poet/v1/submit").len(), 1);
}
