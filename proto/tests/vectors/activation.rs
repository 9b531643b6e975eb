use proto::{
    activation::{
        Activation, Version, Versions,
        v1::{ActivationTxV1, NipostChallengeV1},
        v2::{self, ActivationTxV2, NipostChallengeV2},
    },
    ids::{AtxId, EdSignature},
    merkle::{self, Tree},
    scale,
    signing::{Domain, Signed as _},
};
use serde_json::Value;

use crate::{array, bytes, check_fields, check_signature, keys, list, load, network, number, round_trip, text};

fn hex_of(bytes: impl AsRef<[u8]>) -> String {
    hex::encode(bytes)
}

fn check_path(root: &[u8], index: u64, leaf: &[u8], path: &[Vec<u8>], expected: &Value) {
    let expected: Vec<Vec<u8>> = list(expected).iter().map(bytes).collect();
    assert_eq!(path, expected);
    assert_eq!(merkle::verify(root, &[index], &[leaf], path), Ok(true));
}

#[test]
fn first_version() {
    let file = load!("node/atx_v1_go.json");
    let (network, keys) = (network(&file), keys(&file));
    let versions = Versions::default();
    for case in list(&file["atxs"]) {
        let blob = bytes(&case["blob"]);
        check_fields("ActivationTxV1", &blob, &case["fields"]);
        let atx: ActivationTxV1 = round_trip(&blob);
        assert_eq!(scale::encode(&atx.inner).unwrap().len() as u64, number(&case["inner_len"]));
        assert_eq!(atx.inner.id().unwrap().to_string(), text(&case["id"]));
        assert_eq!(hex_of(scale::encode(&atx.inner.challenge).unwrap()), text(&case["challenge_encoded"]));
        assert_eq!(atx.inner.challenge.hash().unwrap().to_string(), text(&case["challenge_hash"]));
        round_trip::<NipostChallengeV1>(&bytes(&case["challenge_encoded"]));
        check_signature(&atx, &keys[number(&case["key"]) as usize], &network, &case["signed_bytes"]);
        let either = Activation::decode(&blob, &versions).unwrap();
        assert_eq!(either.id(), atx.inner.id());
        assert!(either.is_signed(&network));
    }
}

#[test]
fn second_version() {
    let file = load!("node/atx_v2_go.json");
    let (network, keys) = (network(&file), keys(&file));
    for case in list(&file["atxs"]) {
        let blob = bytes(&case["blob"]);
        check_fields("ActivationTxV2", &blob, &case["fields"]);
        let atx: ActivationTxV2 = round_trip(&blob);
        let leaves = &case["tree_leaves"];
        let names = ["publish_epoch", "positioning_atx", "coinbase", "initial_root", "previous_atxs_root", "niposts_root"];
        let names = names.into_iter().chain(["vrf_nonce", "marriages_root", "marriage_atx"]);
        for (name, leaf) in names.zip(atx.leaves().unwrap()) {
            assert_eq!(hex_of(leaf), text(&leaves[name]), "{name}");
        }
        assert_eq!(atx.id().unwrap().to_string(), text(&case["id"]));
        assert_eq!(u64::from(atx.total_num_units().0), number(&case["total_num_units_u32"]));
        check_signature(&atx, &keys[number(&case["key"]) as usize], &network, &case["id"]);
        for (nipost, expected) in atx.niposts.iter().zip(case["niposts"].as_array().unwrap()) {
            assert_eq!(hex_of(scale::encode(&nipost.membership).unwrap()), text(&expected["membership_encoded"]));
            assert_eq!(hex_of(nipost.root(&atx.previous_atxs).unwrap()), text(&expected["root"]));
            for (post, expected) in nipost.posts.iter().zip(expected["sub_posts"].as_array().unwrap()) {
                assert_eq!(hex_of(post.root(&atx.previous_atxs)), text(&expected["root"]));
            }
        }
        if let Some(expected) = case.get("challenge_of_first_previous") {
            let challenge = NipostChallengeV2 {
                publish_epoch: atx.publish_epoch,
                prev_atx_id: atx.previous_atxs.first().copied().unwrap_or_default(),
                positioning_atx_id: atx.positioning_atx,
                initial_post: atx.initial.as_ref().map(|initial| initial.post.clone()),
            };
            assert_eq!(hex_of(scale::encode(&challenge).unwrap()), text(&expected["encoded"]));
            assert_eq!(challenge.hash().unwrap().to_string(), text(&expected["hash"]));
            round_trip::<NipostChallengeV2>(&bytes(&expected["encoded"]));
        }
        let (tree, marriages) = (atx.tree().unwrap(), atx.marriages_tree());
        let path = tree.path(v2::MARRIAGES_LEAF as usize).unwrap();
        check_path(tree.root(), v2::MARRIAGES_LEAF, marriages.root(), &path, &case["marriages_root_proof"]);
        for (index, (certificate, expected)) in atx.marriages.iter().zip(case["certificates"].as_array().unwrap()).enumerate() {
            assert_eq!(hex_of(certificate.root()), text(&expected["root"]));
            let path = marriages.path(index).unwrap();
            check_path(marriages.root(), index as u64, &certificate.root(), &path, &expected["proof"]);
        }
        let either = Activation::decode_version(&blob, Version::V2).unwrap();
        assert_eq!(either.id(), atx.id());
        assert!(either.is_signed(&network));
    }
    for case in list(&file["trees"]) {
        let leaves: Vec<Vec<u8>> = list(&case["leaves"]).iter().map(bytes).collect();
        assert_eq!(hex_of(Tree::new(leaves).root()), text(&case["root"]));
    }
}

#[test]
fn independent_rows() {
    let file = load!("node/atx.json");
    let signing = load!("node/signing.json");
    let network = proto::ids::GenesisId(array(&signing["signatures"][0]["prefix"]));
    for case in list(&file["merkle"]["cases"]).iter().chain([&file["merkle"]["empty_leaf_case"]]) {
        let leaves: Vec<Vec<u8>> = list(&case["leaves"]).iter().map(bytes).collect();
        assert_eq!(hex_of(Tree::new(leaves).root()), text(&case["root"]));
    }
    for case in list(&file["challenges"]) {
        let encoded = bytes(&case["encoded"]);
        let hash = match number(&case["version"]) {
            1 => round_trip::<NipostChallengeV1>(&encoded).hash(),
            _ => round_trip::<NipostChallengeV2>(&encoded).hash(),
        };
        assert_eq!(hash.unwrap().to_string(), text(&case["hash"]));
    }
    for case in list(&file["atx_v1"]) {
        let atx: ActivationTxV1 = round_trip(&bytes(&case["blob"]));
        assert_eq!(hex_of(scale::encode(&atx.inner).unwrap()), text(&case["inner"]));
        assert_eq!(atx.inner.id().unwrap().to_string(), text(&case["atx_id"]));
        assert_eq!(hex_of(atx.signed_bytes().unwrap()), text(&case["signed_bytes"]));
        assert_eq!(atx.signature, EdSignature(array(&case["signature"])));
        assert!(atx.is_signed(&network));
    }
    let mut marriages = 0;
    for case in list(&file["atx_v2"]) {
        let atx: ActivationTxV2 = round_trip(&bytes(&case["blob"]));
        let leaves = &case["tree_leaves"];
        for (leaf, name) in [(3, "initial_root"), (4, "previous_atxs_root"), (5, "niposts_root"), (7, "marriages_root")] {
            assert_eq!(hex_of(&atx.leaves().unwrap()[leaf]), text(&leaves[name]));
        }
        assert_eq!(atx.id(), Ok(AtxId(array(&case["atx_id"]))));
        assert_eq!(atx.signature, EdSignature(array(&case["signature"])));
        assert!(atx.is_signed(&network));
        let tree = atx.tree().unwrap();
        let path = tree.path(v2::MARRIAGES_LEAF as usize).unwrap();
        check_path(tree.root(), 7, atx.marriages_tree().root(), &path, &case["marriages_root_proof"]);
        if atx.marriages.len() == 2 {
            let parts = &file["double_marry_proof_parts"];
            let (tree, index) = (atx.marriages_tree(), number(&parts["certificate_index"]));
            assert_eq!(hex_of(tree.root()), text(&parts["marriage_root"]));
            let path = tree.path(index as usize).unwrap();
            check_path(tree.root(), index, &atx.marriages[index as usize].root(), &path, &parts["certificate_proof"]);
            let second = &list(&signing["keys"])[1];
            let second = proto::ids::NodeId(array(&second["public"]));
            let certificate = &atx.marriages[1].signature;
            assert!(proto::signing::verify(&network, Domain::Marriage, &second, &atx.smesher_id.0, certificate));
            marriages += 1;
        }
    }
    assert!(marriages > 0);
}
