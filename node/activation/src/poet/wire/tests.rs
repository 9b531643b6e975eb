use ed25519_dalek::Signer as _;
use poet_service::json;
use proptest::prelude::*;
use prost::Message as _;
use proto::{
    grpc::poet_v1 as grpc,
    ids::{AtxId, GenesisId},
    keys::IdentityKey,
    post::Proof,
    units::SpaceUnits,
};

use super::*;

fn vectors(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn duration(of: Option<prost_types::Duration>) -> Duration {
    of.unwrap().try_into().unwrap()
}

fn parse<T: for<'de> Deserialize<'de>>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

/// Every answer of the vectors says what its binary form says.
#[test]
fn answers_are_read_as_in_the_vectors() {
    let vectors = vectors(include_str!("../../../testdata/poet/rest_grpc.json"));
    let mut kinds = std::collections::BTreeSet::new();
    for case in list(&vectors["responses"]) {
        let (json, binary, kind) = (&case["json"], bytes(&case["protobuf"]), case["message"].as_str().unwrap());
        kinds.insert(kind.to_owned());
        match kind.rsplit('.').next().unwrap() {
            "InfoResponse" => {
                let (info, expected): (Info, _) = (parse(json), grpc::InfoResponse::decode(&*binary).unwrap());
                assert_eq!(info.service_pubkey.0, expected.service_pubkey);
                assert_eq!(info.phase_shift.0, duration(expected.phase_shift));
                let certifier = expected.certifier.map(|known| Certifier { url: known.url, pubkey: Bytes(known.pubkey) });
                assert_eq!(info.certifier, certifier);
            }
            "PowParamsResponse" => {
                let params = parse::<PowParamsAnswer>(json).params();
                let expected = grpc::PowParamsResponse::decode(&*binary).unwrap().pow_params.unwrap();
                assert_eq!((params.difficulty, params.challenge), (expected.difficulty, expected.challenge));
            }
            "SubmitResponse" => {
                let (submitted, expected): (Submitted, _) = (parse(json), grpc::SubmitResponse::decode(&*binary).unwrap());
                assert_eq!(submitted.round_id, expected.round_id);
                assert_eq!(submitted.round_end.0, duration(expected.round_end));
            }
            "ProofResponse" => {
                let (answer, expected): (ProofAnswer, _) = (parse(json), grpc::ProofResponse::decode(&*binary).unwrap());
                let proof = expected.proof.unwrap();
                assert_eq!(answer.pubkey.0, expected.pubkey);
                assert_eq!(answer.proof.leaves.0, proof.leaves);
                let members: Vec<Vec<u8>> = answer.proof.members.iter().map(|member| member.0.to_vec()).collect();
                assert_eq!(members, proof.members);
                let (opening, known) = (answer.proof.proof, proof.proof.unwrap());
                assert_eq!(*opening.root.0, *known.root);
                let plain = |nodes: &[Node]| nodes.iter().map(|node| node.0.to_vec()).collect::<Vec<_>>();
                assert_eq!(plain(&opening.proven_leaves), known.proven_leaves);
                assert_eq!(plain(&opening.proof_nodes), known.proof_nodes);
            }
            other => panic!("unknown message {other}"),
        }
    }
    assert_eq!(kinds.len(), 4);
    for case in list(&vectors["errors"]) {
        let failure: Failure = parse(&case["json"]);
        assert_eq!(failure.message, case["json"]["message"].as_str().unwrap());
    }
}

/// What is sent is what servers in use take for the same message, with the same signature.
#[test]
fn registrations_are_those_of_the_vectors() {
    let vectors = vectors(include_str!("../../../testdata/poet/submit_signature.json"));
    let requests = list(&vectors["requests"]);
    assert!(requests.len() > 3);
    for request in requests {
        let key = IdentityKey::from_seed(&bytes(&request["seed"]).try_into().unwrap());
        let expected = grpc::SubmitRequest::decode(&*bytes(&request["protobuf"])).unwrap();
        let network = GenesisId(expected.prefix[..20].try_into().unwrap());
        let signature = key.sign(&network, Domain::Poet, &expected.challenge);
        let params = expected.pow_params.clone().unwrap();
        let work = Authorization::Work {
            params: Params { challenge: params.challenge, difficulty: params.difficulty },
            nonce: expected.nonce,
        };
        let (authorization, expected) = match expected.certificate.clone() {
            None => (work, grpc::SubmitRequest { certificate_pubkey_hint: Vec::new(), ..expected }),
            // one or the other, and no hint
            Some(grpc::submit_request::Certificate { data, signature }) => (
                Authorization::Certificate(Certificate {
                    data: proto::scale::Bytes(data),
                    signature: EdSignature(signature.try_into().unwrap()),
                }),
                grpc::SubmitRequest { nonce: 0, pow_params: None, certificate_pubkey_hint: Vec::new(), ..expected },
            ),
        };
        let deadline = expected.deadline.unwrap();
        let deadline = Moment(deadline.seconds * 1_000_000_000 + i64::from(deadline.nanos));
        let body = submission(&network, &key.node_id(), &expected.challenge, &signature, deadline, &authorization);
        assert_eq!(json::submit_request(body.to_string().as_bytes()).unwrap(), expected);
    }
}

#[test]
fn certificates_are_asked_for_with_the_proof_and_what_it_is_bound_to() {
    let space = LastProof {
        proof: Proof { nonce: 7, indices: vec![1, 2, 3], pow: u64::MAX },
        commitment: AtxId([4; 32]),
        challenge: [0; 32],
        units: SpaceUnits(5),
    };
    let expected = json!({
        "proof": { "nonce": 7, "indices": "AQID", "pow": u64::MAX },
        "metadata": {
            "node_id": STANDARD.encode([9; 32]),
            "commitment_atx_id": STANDARD.encode([4; 32]),
            "challenge": STANDARD.encode([0; 32]),
            "num_units": 5,
        },
    });
    assert_eq!(certify(&NodeId([9; 32]), &space), expected);
}

#[test]
fn signatures_of_certifiers_are_plain_ones() {
    let vectors = vectors(include_str!("../../../testdata/poet/certificates.json"));
    let seed: [u8; 32] = bytes(&vectors["certifier_seed"]).try_into().unwrap();
    let certifier = ed25519_dalek::SigningKey::from_bytes(&seed);
    let mut judged = 0;
    for case in list(&vectors["cases"]).iter().filter(|case| case["accepted"].is_boolean()) {
        let id = NodeId(bytes(&case["node_id"]).try_into().unwrap());
        let (data, signature) = (bytes(&case["data"]), bytes(&case["signature"]));
        let now = case["now"].as_str().unwrap().parse().unwrap();
        let verdict = poet_service::certificate::check(&bytes(&case["verify_with"]), &data, &signature, &id, now);
        assert_eq!(verdict.is_ok(), case["accepted"].as_bool().unwrap(), "{case}");
        if verdict.is_ok() {
            assert_eq!(certifier.sign(&data).to_bytes(), *signature);
        }
        judged += 1;
    }
    assert!(judged > 5);
}

#[test]
fn other_forms_of_the_same_are_understood() {
    let info: Info =
        serde_json::from_str(r#"{"service_pubkey":"-__-Pw","phaseShift":"0.5s","certifier":null,"more":[1]}"#).unwrap();
    assert_eq!(info.service_pubkey.0, [0xfb, 0xff, 0xfe, 0x3f]);
    assert_eq!(info.phase_shift.0, Duration::from_millis(500));
    let submitted: Submitted = serde_json::from_str(r#"{"round_id":"3","round_end":"1s"}"#).unwrap();
    assert_eq!(submitted, Submitted { round_id: "3".into(), round_end: Span(Duration::from_secs(1)) });
    for wrong in [
        r#"{"phaseShift":"-1s"}"#,
        r#"{"phaseShift":"1"}"#,
        r#"{"phaseShift":"1.1234567890s"}"#,
        r#"{"phaseShift":".5s"}"#,
        r#"{"phaseShift":"1e3s"}"#,
        r#"{"phaseShift":5}"#,
        "{}",
        r#"{"phaseShift":"1s","servicePubkey":"?"}"#,
        "[]",
    ] {
        assert!(serde_json::from_str::<Info>(wrong).is_err(), "{wrong}");
    }
    // cut, or filled with zeros
    let members: Vec<Member> = serde_json::from_value(json!([STANDARD.encode([7; 40]), STANDARD.encode([7; 3])])).unwrap();
    let mut short = [0; 32];
    short[..3].fill(7);
    assert_eq!(members, [Member([7; 32]), Member(short)]);
}

proptest! {
    #[test]
    fn durations_are_what_servers_write(seconds in 0..u64::MAX / 2, nanos in 0..1_000_000_000u32) {
        let text = format!("\"{seconds}.{nanos:09}s\"");
        prop_assert_eq!(serde_json::from_str::<Span>(&text).unwrap().0, Duration::new(seconds, nanos));
    }

    #[test]
    fn nothing_that_is_sent_does_any_harm(text in "[\\[\\]{}\":,a-zA-Z0-9.=s-]{0,80}") {
        let _ = serde_json::from_str::<Info>(&text);
        let _ = serde_json::from_str::<ProofAnswer>(&text);
        let _ = serde_json::from_str::<Submitted>(&text);
    }
}
