use std::num::NonZeroU32;

use proto::{
    activation::ActiveSet,
    ballot::{Ballot, InnerBallot},
    block::InnerBlock,
    hare,
    ids::{AtxId, BlockId, EdSignature, GenesisId, Hash32, ProposalId, TransactionId},
    layers::{EpochId, LayersPerEpoch},
    opinion::OpinionHasher,
    proposal::Proposal,
    scale,
    signing::Signed as _,
    transaction::{RawTx, transaction_id},
    units::{TickHeight, VrfNonce},
    vrf::{self, Message},
};

use crate::{array, bytes, check_fields, check_signature, keys, list, load, network, number, number32, round_trip, text};

#[test]
fn hashes() {
    let file = load!("node/hashes.json");
    for case in list(&file["active_set_hash"]) {
        let set = list(&case["ids"]).iter().map(|id| AtxId(array(id))).collect();
        assert_eq!(ActiveSet { epoch: EpochId(1), set }.hash().to_string(), text(&case["hash"]));
    }
    for case in list(&file["opinion_hash"]) {
        let mut hash = None;
        for layer in list(&case["layers"]) {
            let written = bytes(&layer["written"]);
            let mut hasher = OpinionHasher::after(hash.as_ref());
            if written == [0] {
                hasher = hasher.abstain();
            } else {
                for block in written.chunks(28) {
                    let height = TickHeight(u64::from_le_bytes(block[20..].try_into().unwrap()));
                    hasher = hasher.support(&BlockId(block[..20].try_into().unwrap()), height);
                }
            }
            hash = Some(hasher.finish());
        }
        assert_eq!(hash.unwrap().to_string(), text(&case["hash"]), "{}", case["name"]);
    }
    let empty = OpinionHasher::after(None).finish().to_string();
    assert_eq!([&empty, &empty], [text(&file["empty_blake3"]), text(&file["genesis_mesh_hash"]["value"])]);
    for case in list(&file["inner_ballot"]) {
        let ballot: InnerBallot = round_trip(&bytes(&case["encoded"]));
        assert_eq!(u64::from(ballot.layer.0), number(&case["fields"]["layer"]));
        assert_eq!(ballot.id().unwrap().to_string(), text(&case["ballot_id"]));
        let ballot = Ballot {
            inner: ballot,
            signature: EdSignature::EMPTY,
            smesher_id: proto::ids::NodeId::EMPTY,
            votes: proto::ballot::Votes::default(),
            eligibility_proofs: Vec::new(),
            active_set: Vec::new(),
        };
        assert_eq!(hex::encode(ballot.signed_bytes().unwrap()), text(&case["signed_bytes_BallotMetadata"]));
    }
    for case in list(&file["block"]) {
        let block: InnerBlock = round_trip(&bytes(&case["encoded"]));
        assert_eq!(block.id().unwrap().to_string(), text(&case["block_id"]));
        assert_eq!(block.tick_height.0, number(&case["fields"]["tick_height"]));
        assert_eq!(block.rewards[0].weight.denom, number(&case["fields"]["rewards"][0]["denom"]));
    }
    for case in list(&file["transaction"]) {
        assert_eq!(transaction_id(&bytes(&case["raw"])).to_string(), text(&case["tx_id"]));
        assert_eq!(RawTx::new(bytes(&case["raw"])[..].into()).id.to_string(), text(&case["tx_id"]));
    }
}

#[test]
fn proposals_and_blocks() {
    let file = load!("node/mesh_go.json");
    let (network, keys) = (network(&file), keys(&file));
    for case in list(&file["active_sets"]) {
        let set: ActiveSet = round_trip(&bytes(&case["encoded"]));
        assert_eq!(set.hash().to_string(), text(&case["hash"]));
        assert_eq!(u64::from(set.epoch.0), number(&case["epoch"]));
        assert_eq!(set.set, list(&case["set"]).iter().map(|id| AtxId(array(id))).collect::<Vec<_>>());
    }
    for case in list(&file["blocks"]) {
        let encoded = bytes(&case["encoded"]);
        check_fields("InnerBlock", &encoded, &case["fields"]);
        let block: InnerBlock = round_trip(&encoded);
        assert_eq!(block.id().unwrap().to_string(), text(&case["id"]));
        assert_eq!(hex::encode(scale::encode(&block.vote().unwrap()).unwrap()), text(&case["as_vote"]));
    }
    for case in list(&file["hare_references"]) {
        let mut ids: Vec<_> = case["sorted_ids"].as_array().unwrap().iter().map(|id| ProposalId(array(id))).collect();
        ids.reverse();
        assert_eq!(hare::reference(ids).to_string(), text(&case["reference"]));
    }
    for case in list(&file["proposals"]) {
        let blob = bytes(&case["blob"]);
        let proposal: Proposal = round_trip(&blob);
        let (ballot, key) = (&proposal.inner.ballot, &keys[number(&case["key"]) as usize]);
        let ballot_bytes = scale::encode(ballot).unwrap();
        assert_eq!(ballot_bytes.len() as u64, number(&case["ballot_len"]));
        check_fields("Ballot", &ballot_bytes, &case["ballot_fields"]);
        assert_eq!(scale::encode(&ballot.inner).unwrap().len() as u64, number(&case["inner_ballot_len"]));
        assert_eq!(ballot.inner.id().unwrap().to_string(), text(&case["ballot_id"]));
        check_signature(ballot, key, &network, &case["ballot_signed_bytes"]);
        assert_eq!(ballot.signature, EdSignature(array(&case["ballot_signature"])));
        assert_eq!(Hash32::of(&[&scale::encode(&proposal.inner).unwrap()]).to_string(), text(&case["inner_proposal_hash"]));
        check_signature(&proposal, key, &network, &case["proposal_signed_bytes"]);
        assert_eq!(proposal.signature, EdSignature(array(&case["proposal_signature"])));
        assert_eq!(proposal.id().unwrap().to_string(), text(&case["proposal_id"]));
        assert_eq!(proposal.inner.mesh_hash.to_string(), text(&case["mesh_hash"]));
        let ids: Vec<_> = case["tx_ids"].as_array().unwrap().iter().map(|id| TransactionId(array(id))).collect();
        assert_eq!(proposal.inner.tx_ids, ids);
        let eligibility = &case["eligibility"];
        for (index, proof) in ballot.eligibility_proofs.iter().enumerate() {
            let epoch = EpochId(number32(&eligibility["epoch"]));
            let message = Message::ProposalSlot {
                beacon: proto::ids::Beacon(array(&eligibility["beacon"])),
                epoch,
                nonce: VrfNonce(number(&eligibility["vrf_nonce"])),
                counter: proof.j,
            };
            assert_eq!(key.prove(&message.to_bytes()), proof.sig);
            assert!(vrf::verify(&ballot.smesher_id, &message.to_bytes(), &proof.sig));
            if index == 0 {
                let layer = proof.sig.slot_layer(epoch, LayersPerEpoch(NonZeroU32::new(4032).unwrap())).unwrap();
                assert_eq!(u64::from(layer.0), number(&eligibility["first_proof_layer"]));
                assert_eq!(proposal.compact_id().unwrap().0, proof.sig.beacon().0);
            }
        }
    }
}

#[test]
fn a_proposal_of_the_main_network() {
    let file = load!("node/consensus_messages.json");
    let network = GenesisId(array(&load!("node/signing.json")["signatures"][0]["prefix"]));
    let case = &file["proposal"];
    let proposal: Proposal = round_trip(&bytes(&case["message"]));
    let ballot = &proposal.inner.ballot;
    assert_eq!(hex::encode(scale::encode(&ballot.inner).unwrap()), text(&case["inner_ballot"]));
    assert_eq!(hex::encode(scale::encode(ballot).unwrap()), text(&case["ballot"]));
    assert_eq!(ballot.inner.id().unwrap().to_string(), text(&case["ballot_id"]));
    assert_eq!(hex::encode(proposal.signed_bytes().unwrap()), text(&case["signed_bytes"]));
    assert_eq!(proposal.id().unwrap().to_string(), text(&case["proposal_id"]));
    assert!(ballot.is_signed(&network) && proposal.is_signed(&network));
}
