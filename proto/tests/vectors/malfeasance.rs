use proto::{
    hare::HareEligibilityGossip,
    ids::{GenesisId, NodeId},
    malfeasance::{AtxProof, Invalid, MalfeasanceGossip, MalfeasanceProof, Offence, ProofDoubleMarry},
    scale::{self, Bytes},
    signing::Signed as _,
};

use crate::{array, bytes, check_fields, list, load, network, number, round_trip};

fn signatures_valid(offence: &Offence, network: &GenesisId) -> Vec<bool> {
    match offence {
        Offence::MultipleAtxs(body) => vec![body.messages.0.is_signed(network), body.messages.1.is_signed(network)],
        Offence::MultipleBallots(body) => vec![body.messages.0.is_signed(network), body.messages.1.is_signed(network)],
        Offence::HareEquivocation(body) => vec![body.messages.0.is_signed(network), body.messages.1.is_signed(network)],
        Offence::InvalidPostIndex(body) => vec![body.atx.is_signed(network)],
        Offence::InvalidPrevAtx(body) => vec![body.atx1.is_signed(network), body.atx2.is_signed(network)],
    }
}

fn name(number: u64) -> &'static str {
    ["multiple_atxs", "multiple_ballots", "hare_equivocation", "invalid_post_index", "invalid_prev_atx"][number as usize - 1]
}

#[test]
fn proofs_of_the_reference() {
    let file = load!("node/malfeasance_go.json");
    let network = network(&file);
    for case in list(&file["proofs"]) {
        let encoded = bytes(&case["proof"]);
        let fields = serde_json::json!({ "layer": case["layer"], "type": "", "body": case["body"] });
        let shown = proto::objects::decode_any("malfeasance", &encoded).unwrap();
        assert_eq!(shown["object"]["type"], name(number(&case["type"])));
        // the name of the type is ours
        let mut object = shown["object"].clone();
        object["type"] = "".into();
        crate::compare(&fields, &object, "malfeasance");
        let proof: MalfeasanceProof = round_trip(&encoded);
        let gossip: MalfeasanceGossip = round_trip(&bytes(&case["gossip"]));
        assert_eq!((gossip.proof.clone(), gossip.eligibility.clone()), (proof.clone(), None));
        assert_eq!(u64::from(proof.offence.number()), number(&case["type"]));
        let expected: Vec<bool> = list(&case["signatures_valid"]).iter().map(|v| v.as_bool().unwrap()).collect();
        assert_eq!(signatures_valid(&proof.offence, &network), expected, "{}", case["what"]);
        let verdict = proof.check(&network);
        assert_eq!(gossip.check(&network), verdict);
        if expected.iter().all(|valid| *valid) {
            assert!(verdict.is_ok(), "{}: {verdict:?}", case["what"]);
        } else {
            assert_eq!(verdict, Err(Invalid::Signature));
        }
    }
    let gossip: MalfeasanceGossip = round_trip(&bytes(&file["gossip_with_eligibility"]));
    assert_eq!(gossip.check(&network), Err(Invalid::Eligibility));
    round_trip::<HareEligibilityGossip>(&scale::encode(&gossip.eligibility.unwrap()).unwrap());
}

#[test]
fn double_marriages() {
    let file = load!("node/malfeasance_go.json");
    let network = network(&file);
    for case in list(&file["double_marry"]) {
        let encoded = bytes(&case["encoded"]);
        check_fields("ProofDoubleMarry", &encoded, &case["fields"]);
        let proof: ProofDoubleMarry = round_trip(&encoded);
        let verdict = proof.check(&network);
        assert_eq!(verdict.is_ok(), case["valid"].as_bool().unwrap(), "{}: {verdict:?}", case["what"]);
        if let Ok(identity) = verdict {
            assert_eq!(identity, NodeId(array(&case["malicious"])));
        }
        if let Some(wrapped) = case.get("atx_proof").filter(|v| !v.is_null()) {
            let wrapped: AtxProof = round_trip(&bytes(wrapped));
            assert_eq!((wrapped.proof_type, &wrapped.proof), (AtxProof::DOUBLE_MARRY, &Bytes(encoded)));
        }
    }
}

#[test]
fn proofs_of_the_main_network() {
    let file = load!("node/malfeasance.json");
    let network = GenesisId(array(&load!("node/signing.json")["signatures"][0]["prefix"]));
    for case in list(&file["proofs"]) {
        let proof: MalfeasanceProof = round_trip(&bytes(&case["proof"]));
        assert_eq!(u64::from(proof.offence.number()), number(&case["type"]));
        assert_eq!(u64::from(proof.layer.0), number(&case["layer"]));
        // the last one is there for its encoding
        let expected = matches!(proof.offence, Offence::InvalidPrevAtx(_)).then_some(Invalid::Previous);
        assert_eq!(proof.check(&network).err(), expected, "{}", case["name"]);
        if let Some(gossip) = case.get("gossip") {
            assert_eq!(round_trip::<MalfeasanceGossip>(&bytes(gossip)).proof, proof);
        }
    }
}

#[test]
fn what_proves_nothing_is_refused() {
    let file = load!("node/malfeasance.json");
    let network = GenesisId(array(&load!("node/signing.json")["signatures"][0]["prefix"]));
    let mut seen = 0;
    for case in list(&file["proofs"]) {
        let mut proof: MalfeasanceProof = round_trip(&bytes(&case["proof"]));
        let expected = match &mut proof.offence {
            Offence::MultipleAtxs(body) => {
                body.messages.1 = body.messages.0.clone();
                Invalid::Same
            }
            Offence::MultipleBallots(body) => {
                body.messages.1.inner_msg.layer.0 += 1;
                Invalid::Signature
            }
            Offence::HareEquivocation(body) => {
                body.messages.1 = body.messages.0.clone();
                Invalid::Same
            }
            Offence::InvalidPostIndex(body) => {
                body.atx.signature.0[0] ^= 1;
                Invalid::Signature
            }
            Offence::InvalidPrevAtx(body) => {
                body.atx2 = body.atx1.clone();
                Invalid::Same
            }
        };
        assert_eq!(proof.check(&network), Err(expected));
        seen += 1;
    }
    assert_eq!(seen, 5);
}
