use proto::{
    beacon::{self, FirstVotingMessage, FollowingVotingMessage, ProposalMessage, WeakCoinMessage},
    block::{Certificate, CertifyMessage},
    hare::{CompactIdRequest, CompactIdResponse, Hare3Message, Hare3Value, Hare4Message, Round, reference},
    ids::{Beacon, CompactProposalId, GenesisId, Hash32, ProposalId, VrfSignature},
    keys::IdentityKey,
    layers::LayerId,
    scale::{self, Bytes, Writer},
    signing::Signed as _,
    units::VrfNonce,
    vrf::{self, CERTIFIER_ROUND, Message},
};
use serde_json::Value;

use crate::{array, bytes, check_fields, check_signature, keys, list, load, network, number, round_trip, text};

/// The draw in a message is the key's and verifies.
fn check_draw(key: &IdentityKey, message: Message, draw: &VrfSignature, expected: &Value) {
    assert_eq!(hex::encode(message.to_bytes()), text(expected));
    assert_eq!(key.prove(&message.to_bytes()), *draw);
    assert!(vrf::verify(&key.node_id(), &message.to_bytes(), draw));
}

#[test]
fn hare3() {
    let file = load!("node/consensus_go.json");
    let (network, keys) = (network(&file), keys(&file));
    for case in list(&file["hare3"]) {
        let encoded = bytes(&case["message"]);
        check_fields("hare3.Message", &encoded, &case["fields"]);
        let message: Hare3Message = round_trip(&encoded);
        let (body, key) = (&message.body, &keys[number(&case["key"]) as usize]);
        assert_eq!(u64::from(body.absolute_round()), number(&case["absolute_round"]));
        assert_eq!(scale::encode(body).unwrap().len() as u64, number(&case["body_len"]));
        assert_eq!(body.hash().unwrap().to_string(), text(&case["msg_hash"]));
        check_signature(&message, key, &network, &case["signed_bytes"]);
        assert_eq!(body.is_valid(), case["validate"] == "ok");
        let drawn = Message::Hare { beacon: Beacon(array(&case["beacon"])), round: body.absolute_round(), layer: body.layer };
        check_draw(key, drawn, &body.eligibility.proof, &case["vrf_message"]);
    }
    for case in list(&file["hare_reference_rule"]) {
        let round = Round(number(&case["round"]) as u8);
        assert_eq!(round.has_messages(), case["message_round"].as_bool().unwrap());
        let encoded = bytes(&list(&file["hare3"])[0]["message"]);
        let mut message: Hare3Message = round_trip(&encoded);
        let hash = case["has_reference"].as_bool().unwrap().then_some(Hash32::EMPTY);
        message.body.round = round;
        message.body.value = Hare3Value { proposals: Vec::new(), reference: hash };
        assert_eq!(message.body.is_valid(), case["valid"].as_bool().unwrap(), "{case}");
    }
}

#[test]
fn hare4() {
    let file = load!("node/consensus_go.json");
    let (network, keys) = (network(&file), keys(&file));
    let mut compact_ones = 0;
    for case in list(&file["hare4"]) {
        let key = &keys[number(&case["key"]) as usize];
        let sent: Hare4Message = round_trip(&bytes(&case["message"]));
        let full = match case.get("full_form") {
            None => sent,
            Some(full_form) => {
                let full: Hare4Message = round_trip(&bytes(full_form));
                let compact = list(&case["compact_ids"]).iter().map(|id| CompactProposalId(array(id))).collect();
                assert_eq!(full.compacted(compact), sent);
                let mut names = full.body.value.proposals.clone();
                names.reverse();
                assert_eq!(sent.restored(names.clone()), full);
                assert_eq!(sent.body.hash().unwrap().to_string(), text(&case["message_id"]));
                let request = CompactIdRequest { msg_id: sent.body.hash().unwrap() };
                assert_eq!(hex::encode(scale::encode(&request).unwrap()), text(&case["compact_id_request"]));
                names.reverse();
                let response = scale::encode(&CompactIdResponse { ids: names }).unwrap();
                assert_eq!(hex::encode(&response), text(&case["compact_id_response"]));
                let mut framed = Writer::default();
                framed.bytes(&response, response.len()).unwrap();
                assert_eq!(hex::encode(framed.into_bytes()), text(&case["compact_id_response_framed"]));
                compact_ones += 1;
                full
            }
        };
        check_fields("hare4.Message", &scale::encode(&full).unwrap(), &case["fields"]);
        assert_eq!(full.body.hash().unwrap().to_string(), text(&case["signed_form_msg_hash"]));
        assert_eq!(u64::from(full.body.absolute_round()), number(&case["absolute_round"]));
        assert!(full.body.is_valid());
        check_signature(&full, key, &network, &case["signed_bytes"]);
    }
    assert!(compact_ones > 0);
}

#[test]
fn certificates() {
    let file = load!("node/consensus_go.json");
    let (network, keys) = (network(&file), keys(&file));
    for case in list(&file["certify"]) {
        let encoded = bytes(&case["message"]);
        check_fields("CertifyMessage", &encoded, &case["fields"]);
        let message: CertifyMessage = round_trip(&encoded);
        let key = &keys[number(&case["key"]) as usize];
        check_signature(&message, key, &network, &case["signed_bytes"]);
        let layer = message.content.layer_id;
        let drawn = Message::Hare { beacon: Beacon(array(&case["beacon"])), round: CERTIFIER_ROUND, layer };
        check_draw(key, drawn, &message.content.proof, &case["vrf_message"]);
    }
    let encoded = bytes(&file["certificate"]["encoded"]);
    check_fields("Certificate", &encoded, &file["certificate"]["fields"]);
    assert_eq!(round_trip::<Certificate>(&encoded).signatures.len(), list(&file["certificate"]["fields"]["Signatures"]).len());
}

#[test]
fn beacon_messages() {
    let file = load!("node/consensus_go.json");
    let (network, keys) = (network(&file), keys(&file));
    for case in list(&file["beacon"]) {
        let (encoded, key) = (bytes(&case["message"]), &keys[number(&case["key"]) as usize]);
        let nonce = || VrfNonce(number(&case["vrf_nonce"]));
        match text(&case["kind"]) {
            "proposal" => {
                check_fields("beacon.ProposalMessage", &encoded, &case["fields"]);
                let message: ProposalMessage = round_trip(&encoded);
                check_draw(key, message.drawn(nonce()), &message.vrf_signature, &case["vrf_message"]);
                assert_eq!(message.vrf_signature.beacon().to_string(), text(&case["proposal"]));
            }
            "first vote" => {
                check_fields("beacon.FirstVotingMessage", &encoded, &case["fields"]);
                check_signature(&round_trip::<FirstVotingMessage>(&encoded), key, &network, &case["signed_bytes"]);
            }
            "following vote" => {
                check_fields("beacon.FollowingVotingMessage", &encoded, &case["fields"]);
                let message: FollowingVotingMessage = round_trip(&encoded);
                check_signature(&message, key, &network, &case["signed_bytes"]);
                let (all, supported) = (list(&case["first_list"]), case["supported"].as_array().unwrap());
                let votes: Vec<bool> = all.iter().map(|proposal| supported.contains(proposal)).collect();
                assert_eq!(beacon::pack_votes(&votes), message.body.votes_bit_vector);
                assert_eq!(beacon::unpack_votes(&message.body.votes_bit_vector, all.len()), votes);
            }
            "weak coin" => {
                check_fields("weakcoin.Message", &encoded, &case["fields"]);
                let message: WeakCoinMessage = round_trip(&encoded);
                check_draw(key, message.drawn(nonce()), &message.vrf_signature, &case["vrf_message"]);
                assert_eq!(u64::from(message.vrf_signature.coin()), number(&case["coin"]));
            }
            other => panic!("{other}"),
        }
    }
    let supported = |case: &Value| -> Vec<bool> {
        let indices: Vec<u64> = case["supported_indices"].as_array().unwrap().iter().map(number).collect();
        (0..number(&case["list_len"])).map(|index| indices.contains(&index)).collect()
    };
    for case in list(&file["beacon_bits_decode"]) {
        let votes = supported(case);
        assert_eq!(beacon::unpack_votes(&bytes(&case["bit_vector"]), votes.len()), votes, "{case}");
    }
    for case in list(&file["beacon_bits_encode"]) {
        assert_eq!(beacon::pack_votes(&supported(case)), Bytes(bytes(&case["bit_vector"])), "{case}");
    }
    for case in list(&file["beacon_list_hash"]) {
        let mut proposals: Vec<Beacon> = case["sorted"].as_array().unwrap().iter().map(|b| Beacon(array(b))).collect();
        proposals.reverse();
        assert_eq!(beacon::hash(proposals).to_string(), text(&case["hash"]));
    }
    for case in list(&file["vrf_order"]) {
        let [a, b] = ["a", "b"].map(|name| VrfSignature(array(&case[name])));
        assert_eq!(a.cmp(&b) as i64, case["cmp"].as_i64().unwrap());
    }
}

#[test]
fn messages_of_the_main_network() {
    let file = load!("node/consensus_messages.json");
    let network = GenesisId(array(&load!("node/signing.json")["signatures"][0]["prefix"]));
    for case in list(&file["hare3"]["messages"]) {
        let message: Hare3Message = round_trip(&bytes(&case["message"]));
        assert_eq!(message.body.layer, LayerId(120_000));
        assert_eq!(hex::encode(scale::encode(&message.body).unwrap()), text(&case["body"]));
        assert_eq!(message.body.hash().unwrap().to_string(), text(&case["msg_hash"]));
        assert_eq!(hex::encode(message.signed_bytes().unwrap()), text(&case["signed_metadata"]));
        assert!(message.is_signed(&network));
        let drawn = Message::Hare {
            beacon: Beacon([0xaa, 0xbb, 0xcc, 0xdd]),
            round: message.body.absolute_round(),
            layer: message.body.layer,
        };
        assert!(vrf::verify(&message.sender, &drawn.to_bytes(), &message.body.eligibility.proof));
    }
    let proposals: Vec<_> = list(&file["hare3"]["messages"][0]["proposals"]).iter().map(|id| ProposalId(array(id))).collect();
    assert_eq!(reference(proposals).to_string(), text(&file["hare3"]["reference"]));
    for case in list(&file["hare4"]["messages"]) {
        let message: Hare4Message = round_trip(&bytes(&case["message"]));
        assert_eq!(message.body.hash().unwrap().to_string(), text(&case["msg_hash"]));
        assert!(message.is_signed(&network));
    }
    let certify: CertifyMessage = round_trip(&bytes(&file["certify"]["message"]));
    assert_eq!(hex::encode(certify.signed_bytes().unwrap()), text(&file["certify"]["content"]));
    assert!(certify.is_signed(&network));
    let file = &file["beacon"];
    let proposal: ProposalMessage = round_trip(&bytes(&file["proposal"]));
    let drawn = proposal.drawn(VrfNonce(12345)).to_bytes();
    assert!(vrf::verify(&proposal.node_id, &drawn, &proposal.vrf_signature));
    let first: FirstVotingMessage = round_trip(&bytes(&file["first_vote"]));
    assert_eq!(hex::encode(first.signed_bytes().unwrap()), text(&file["first_vote_body"]));
    let following: FollowingVotingMessage = round_trip(&bytes(&file["following"]));
    assert_eq!(hex::encode(following.signed_bytes().unwrap()), text(&file["following_body"]));
    assert!(first.is_signed(&network) && following.is_signed(&network));
    let coin: WeakCoinMessage = round_trip(&bytes(&file["weak_coin"]));
    assert!(vrf::verify(&coin.node_id, &coin.drawn(VrfNonce(12345)).to_bytes(), &coin.vrf_signature));
}
