use proto::{
    merkle::{self, PathError, Tree},
    poet::{Certificate, MembershipProof, PoetProofMessage},
    scale,
};
use serde_json::Value;

use crate::{bytes, check_fields, list, load, number, round_trip, text};

fn all(value: &Value) -> Vec<Vec<u8>> {
    value.as_array().unwrap().iter().map(bytes).collect()
}

#[test]
fn of_the_reference() {
    let file = load!("node/poet_go.json");
    for case in list(&file["messages"]) {
        let encoded = bytes(&case["message"]);
        check_fields("PoetProofMessage", &encoded, &case["fields"]);
        let message: PoetProofMessage = round_trip(&encoded);
        assert_eq!(scale::encode(&message.proof).unwrap().len() as u64, number(&case["proof_encoded_len"]));
        assert_eq!(message.proof.reference().unwrap().to_string(), text(&case["ref"]));
    }
    for case in list(&file["certificates"]) {
        let certificate: Certificate = round_trip(&bytes(&case["data"]));
        assert_eq!(hex::encode(&*certificate.pubkey), text(&case["pubkey"]));
        assert_eq!(certificate.expiration, case["expiration_unix"].as_u64());
    }
    for case in list(&file["stored_membership"]) {
        check_fields("MerkleProof", &bytes(&case["encoded"]), &case["fields"]);
        round_trip::<MembershipProof>(&bytes(&case["encoded"]));
    }
    for case in list(&file["membership"]) {
        let members = all(&case["members"]);
        let tree = Tree::new(&members);
        assert_eq!(hex::encode(tree.root()), text(&case["root"]));
        for proof in list(&case["proofs"]) {
            let indices: Vec<u64> = list(&proof["indices"]).iter().map(number).collect();
            let leaves: Vec<_> = indices.iter().map(|index| &members[*index as usize]).collect();
            let nodes = all(&proof["nodes"]);
            assert_eq!(merkle::verify(tree.root(), &indices, &leaves, &nodes), Ok(true));
            if let [index] = indices[..] {
                assert_eq!(tree.path(index as usize), Some(nodes));
            }
        }
    }
    for case in list(&file["multiproof_verdicts"]) {
        let indices: Vec<u64> = case["indices"].as_array().unwrap().iter().map(number).collect();
        let verdict = merkle::verify(&bytes(&case["root"]), &indices, &all(&case["leaves"]), &all(&case["nodes"]));
        let found = match verdict {
            Ok(true) => "valid",
            Ok(false) => "invalid",
            Err(PathError::Count { .. } | PathError::Empty | PathError::NotSorted | PathError::Duplicate) => "error",
        };
        assert_eq!(found, text(&case["result"]), "{}", case["what"]);
    }
}

#[test]
fn of_the_specification() {
    let file = load!("node/poet.json");
    let case = &file["certificate"];
    let certificate: Certificate = round_trip(&bytes(&case["encoded_hex"]));
    assert_eq!(certificate.expiration, case["expiration_unix"].as_u64());
    let case = &file["poet_proof"];
    let message: PoetProofMessage = round_trip(&bytes(&case["message_encoded"]));
    assert_eq!(hex::encode(scale::encode(&message.proof).unwrap()), text(&case["encoded"]));
    assert_eq!(message.proof.reference().unwrap().to_string(), text(&case["ref"]));
    let case = &file["membership"];
    let members = all(&case["members"]);
    let tree = Tree::new(&members);
    assert_eq!(hex::encode(tree.root()), text(&case["statement_root"]));
    let index = number(&case["single"]["leaf_index"]);
    assert_eq!(tree.path(index as usize), Some(all(&case["single"]["nodes"])));
    let indices: Vec<u64> = list(&case["multi"]["leaf_indices"]).iter().map(number).collect();
    let leaves: Vec<_> = indices.iter().map(|index| &members[*index as usize]).collect();
    assert_eq!(merkle::verify(tree.root(), &indices, &leaves, &all(&case["multi"]["nodes"])), Ok(true));
}
