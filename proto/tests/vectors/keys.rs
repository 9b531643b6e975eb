use std::num::NonZeroU32;

use proto::{
    ids::{Beacon, EdSignature, GenesisId, NodeId, VrfSignature},
    keys::IdentityKey,
    layers::{EpochId, LayerId, LayersPerEpoch},
    signing::{self, Domain},
    units::VrfNonce,
    vrf::{self, CERTIFIER_ROUND, Message},
};
use serde_json::Value;

use crate::{array, bytes, keys, list, load, network, number, number32, text};

fn domain(byte: &Value) -> Domain {
    Domain::ALL.into_iter().find(|domain| u64::from(domain.byte()) == number(byte)).unwrap()
}

#[test]
fn signatures() {
    let file = load!("node/signing.json");
    let dir = tempfile::tempdir().unwrap();
    for (index, row) in list(&file["keys"]).iter().enumerate() {
        let path = dir.path().join(index.to_string());
        let content = row.get("key_file_content").unwrap_or(&row["private_64"]);
        std::fs::write(&path, text(content)).unwrap();
        let key = IdentityKey::read(&path).unwrap();
        assert_eq!(key.node_id().to_string(), text(&row["public"]));
        // one row has no network, which is no signature that ours could make
        for case in list(&file["signatures"]).iter().filter(|case| case["key"] == row["name"] && case["prefix"] != "") {
            let network = GenesisId(array(&case["prefix"]));
            let (domain, message) = (domain(&case["domain_byte"]), bytes(&case["message"]));
            let signed = [&signing::prefix(&network, domain)[..], &message].concat();
            assert_eq!(hex::encode(signed), text(&case["signed_input"]));
            assert_eq!(key.sign(&network, domain, &message), EdSignature(array(&case["signature"])));
        }
    }
    for (name, byte) in file["domains"].as_object().unwrap() {
        let plain = |name: &str| name.replace('_', "").to_lowercase().replace("msg", "").replace("up", "");
        let found = format!("{:?}", domain(byte)).replace("Following", "Follow");
        assert_eq!(plain(&found), plain(name));
    }
    let file = load!("node/signing_go.json");
    let (network, keys) = (network(&file), keys(&file));
    for case in list(&file["signatures"]) {
        let (domain, message) = (domain(&case["domain_byte"]), bytes(&case["message"]));
        let signature = keys[number(&case["key"]) as usize].sign(&network, domain, &message);
        assert_eq!(signature, EdSignature(array(&case["signature"])));
    }
    for case in list(&file["verify"]) {
        let signer = NodeId(array(&case["node_id"]));
        let signature = EdSignature(array(&case["signature"]));
        let found = signing::verify(&network, domain(&case["domain_byte"]), &signer, &bytes(&case["message"]), &signature);
        assert_eq!(found, case["valid"].as_bool().unwrap(), "{}", case["what"]);
    }
}

#[test]
fn draws() {
    let file = load!("node/vrf.json");
    for case in list(&file["rfc"]) {
        let key = IdentityKey::from_seed(&array(&case["seed"]));
        let alpha = bytes(&case["alpha"]);
        assert_eq!(key.node_id().to_string(), text(&case["public"]));
        assert_eq!(key.prove(&alpha).to_string(), text(&case["proof"]));
        assert!(vrf::verify(&key.node_id(), &alpha, &key.prove(&alpha)));
    }
    let signing = load!("node/signing.json");
    for case in list(&file["spacemesh"]) {
        let row = list(&signing["keys"]).iter().find(|row| row["name"] == case["key"]).unwrap();
        let key = IdentityKey::from_seed(&array::<64>(&row["private_64"])[..32].try_into().unwrap());
        let proof = VrfSignature(array(&case["proof"]));
        let message = message(text(&case["name"]), &case["fields"]);
        assert_eq!(hex::encode(message.to_bytes()), text(&case["message"]));
        assert_eq!(key.prove(&message.to_bytes()), proof);
        assert_eq!(hex::encode(proof.beacon().0), text(&case["first4"]));
        assert_eq!(u64::from(proof.coin()), number(&case["lsb"]));
        assert_eq!(proof.fraction56(), number(&case["first8_le_u64"]) & ((1 << 56) - 1));
        if let Some(layer) = case.get("eligible_layer_lpe4032") {
            let layers = LayersPerEpoch(NonZeroU32::new(4032).unwrap());
            let epoch = EpochId(number32(&case["fields"]["epoch"]));
            assert_eq!(proof.slot_layer(epoch, layers), Some(LayerId(number32(layer))));
        }
    }
    let file = load!("node/signing_go.json");
    for case in list(&file["vrf_verify"]) {
        let (key, proof) = (NodeId(array(&case["node_id"])), VrfSignature(array(&case["proof"])));
        let found = vrf::verify(&key, &bytes(&case["message"]), &proof);
        assert_eq!(found, case["valid"].as_bool().unwrap(), "{}", case["what"]);
    }
    let file = load!("node/eligibility_go.json");
    let key = IdentityKey::from_seed(&array(&file["key"]["seed"]));
    assert_eq!(key.node_id().to_string(), text(&file["key"]["node_id"]));
    for case in list(&file["vrf"]) {
        let message = message(text(&case["kind"]), case);
        assert_eq!(hex::encode(message.to_bytes()), text(&case["message"]));
        let proof = key.prove(&message.to_bytes());
        assert_eq!(proof.to_string(), text(&case["proof"]));
        assert!(vrf::verify(&key.node_id(), &message.to_bytes(), &proof));
        if let Some(layer) = case.get("layer_lpe4032") {
            let layers = LayersPerEpoch(NonZeroU32::new(4032).unwrap());
            assert_eq!(proof.slot_layer(EpochId(number32(&case["epoch"])), layers), Some(LayerId(number32(layer))));
        }
        if let Some(fraction) = case.get("frac56") {
            assert_eq!(proof.fraction56(), number(fraction));
        }
    }
}

fn message(kind: &str, fields: &Value) -> Message {
    let beacon = || Beacon(array(&fields["beacon"]));
    let nonce = || VrfNonce(number(fields.get("nonce").unwrap_or(&fields["vrf_nonce"])));
    let small = |name: &str| number32(&fields[name]);
    let epoch = || EpochId(small("epoch"));
    match kind {
        "beacon proposal" => Message::BeaconProposal { nonce: nonce(), epoch: epoch() },
        "hare" | "hare eligibility" | "hare certify" => {
            assert!(kind != "hare certify" || small("round") == CERTIFIER_ROUND);
            Message::Hare { beacon: beacon(), round: small("round"), layer: LayerId(small("layer")) }
        }
        "proposal slot" => Message::ProposalSlot { beacon: beacon(), epoch: epoch(), nonce: nonce(), counter: small("counter") },
        "weak coin" => Message::WeakCoin { nonce: nonce(), epoch: epoch(), round: small("round"), unit: small("unit") },
        other => panic!("{other}"),
    }
}
