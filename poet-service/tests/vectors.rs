//! The golden vectors: every rule of the proof of elapsed time against the independent reference.

use std::{sync::atomic::AtomicBool, time::Duration};

use kernels::posw::{Backend, Node, PADDING, Statement, sha256};
use poet_service::{
    certificate, membership,
    merkle::{self, Join},
    pow,
    proof::{challenged_leaves, verify, verify_opening},
    prove::{Tree, root_of_units},
    schedule::{RoundId, Schedule, Time},
    tree::{Grower, Shape},
};
use proto::{
    ids::NodeId,
    poet::{Element, Leaves, MembershipProof, MerkleProof, PoetProof},
    scale,
};
use serde_json::Value;

/// Nothing stops these.
static GO: AtomicBool = AtomicBool::new(false);

fn load(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

macro_rules! vectors {
    ($name:literal) => {
        load(include_str!(concat!("../testdata/", $name, ".json")))
    };
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(text(value)).unwrap()
}

fn node(value: &Value) -> Node {
    bytes(value).try_into().unwrap()
}

fn element(value: &Value) -> Element {
    Element::try_from(&*bytes(value)).unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| text(value).parse().unwrap())
}

fn nodes(value: &Value) -> Vec<Node> {
    list(value).iter().map(node).collect()
}

fn elements(value: &Value) -> Vec<Element> {
    list(value).iter().map(element).collect()
}

fn numbers(value: &Value) -> Vec<u64> {
    list(value).iter().map(number).collect()
}

fn proof_of(value: &Value) -> PoetProof {
    PoetProof {
        merkle: MerkleProof {
            root: element(&value["root"]),
            proven_leaves: elements(&value["proven_leaves"]),
            proof_nodes: elements(&value["proof_nodes"]),
        },
        leaf_count: Leaves(number(&value["leaves"])),
    }
}

/// Grows a tree and keeps what its shape keeps.
fn grow(statement: &Statement, shape: Shape, leaves: u64) -> (Grower, Vec<Node>) {
    let mut grower = Grower::new(statement.clone());
    let mut kept = Vec::new();
    for _ in 0..leaves {
        grower.grow(|level, node| {
            if level >= shape.lowest() {
                kept.push(*node);
            }
        });
    }
    (grower, kept)
}

#[test]
fn trees_have_the_leaves_parked_nodes_and_roots_of_the_vectors() {
    let vectors = vectors!("posw_roots");
    for backend in Backend::available() {
        let statement = Statement::with_backend(&bytes(&vectors["statement"]), backend);
        let trees = list(&vectors["trees"]);
        // the portable way takes the small ones only
        let largest = if backend == Backend::fastest() { u64::MAX } else { 5000 };
        let mut grower = Grower::new(statement.clone());
        let mut last = PADDING;
        for tree in trees.iter().filter(|tree| number(&tree["leaves"]) <= largest) {
            while grower.leaves().0 < number(&tree["leaves"]) {
                let index = grower.leaves().0 as usize;
                grower.grow(|level, node| last = if level == 0 { *node } else { last });
                if let Some(expected) = list(&vectors["first_leaves"]).get(index) {
                    assert_eq!(last, node(expected));
                }
            }
            assert_eq!(last, node(&tree["last_leaf"]));
            assert_eq!(grower.root(), Some(node(&tree["root"])), "{} leaves", tree["leaves"]);
            assert_eq!(u64::from(merkle::root_level(grower.leaves().0)), number(&tree["height"]));
            let mut parked = vec![Value::Null; list(&tree["parked_nodes_after_last_leaf"]).len()];
            for (level, node) in grower.parked() {
                parked[level as usize] = hex::encode(node).into();
            }
            assert_eq!(&parked, list(&tree["parked_nodes_after_last_leaf"]));
        }
        assert!(grower.leaves().0 > 1000);
    }
}

#[test]
fn challenged_leaves_are_those_of_the_vectors() {
    let vectors = vectors!("fiat_shamir");
    for case in list(&vectors["cases"]) {
        let leaves = Leaves(number(&case["space_size"]));
        let count = number(&case["security_param"]) as usize;
        assert_eq!(challenged_leaves(&bytes(&case["challenge"]), leaves, count), numbers(&case["indices"]));
    }
}

#[test]
fn proofs_are_made_and_checked_as_in_the_vectors() {
    let mut seen = 0;
    for file in [vectors!("nip_proofs_small"), vectors!("nip_proof_65536"), vectors!("nip_proof_100003")] {
        let statement = Statement::new(&bytes(&file["statement"]));
        for case in list(&file["proofs"]) {
            let expected = proof_of(case);
            let count = number(&case["security_param"]) as usize;
            assert_eq!(challenged_leaves(&expected.merkle.root, expected.leaf_count, count), numbers(&case["indices"]));
            assert_eq!(verify_opening(&statement, &expected, count), Ok(()));
            assert_eq!(verify(&statement, &expected).is_ok(), case["valid_with_T150"].as_bool().unwrap());
            if let Some(message) = case["error_with_T150"].as_str() {
                assert_eq!(verify(&statement, &expected).unwrap_err().to_string(), message);
            }
            let encoded = scale::encode(&expected).unwrap();
            assert_eq!(encoded.len() as u64, number(&case["scale_len"]));
            assert_eq!(hex::encode(sha256(Backend::Portable, &encoded)), text(&case["scale_sha256"]));
            assert_eq!(hex::encode(expected.reference().unwrap().0), text(&case["poet_proof_ref"]));
            // whatever is kept of the tree, the proof is the same
            let lowest: &[u32] = if expected.leaf_count.0 < 5000 { &[0, 1, 3, 10, 20] } else { &[10] };
            for lowest in lowest {
                let shape = Shape::new(*lowest);
                let (_, kept) = grow(&statement, shape, expected.leaf_count.0);
                let tree = Tree { statement: &statement, shape, leaves: expected.leaf_count, nodes: &kept };
                assert_eq!(tree.prove(count, 2, &GO).unwrap(), expected, "{} leaves, level {lowest}", expected.leaf_count);
            }
            seen += 1;
        }
    }
    assert!(seen > 10);
}

fn mutate(proof: &mut PoetProof, statement: &mut [u8], mutation: &Value) {
    fn flip(bytes: &mut [u8], bit: u64) {
        bytes[bit as usize / 8] ^= 1 << (bit % 8);
    }
    fn flip_element(element: &mut Element, bit: u64) {
        let mut bytes = element.to_vec();
        flip(&mut bytes, bit);
        *element = Element::try_from(&*bytes).unwrap();
    }
    let at = |key: &str| mutation[key].as_u64().unwrap_or(0) as usize;
    let op = text(&mutation["op"]);
    if op == "none" {
        return;
    }
    if op == "set_leaf_count" {
        proof.leaf_count = Leaves(number(&mutation["value"]));
        return;
    }
    let elements = match (text(&mutation["field"]), op) {
        ("root", "flip_bit") => return flip_element(&mut proof.merkle.root, number(&mutation["bit"])),
        ("statement", "flip_bit") => return flip(statement, number(&mutation["bit"])),
        ("proven_leaves", _) => &mut proof.merkle.proven_leaves,
        ("proof_nodes", _) => &mut proof.merkle.proof_nodes,
        other => panic!("unknown mutation {other:?}"),
    };
    match op {
        "flip_bit" => flip_element(&mut elements[at("index")], number(&mutation["bit"])),
        "remove" => drop(elements.remove(at("index"))),
        "append" => elements.push(element(&mutation["value"])),
        "insert" => elements.insert(at("index"), element(&mutation["value"])),
        "swap" => elements.swap(at("i"), at("j")),
        "truncate" => elements[at("index")] = Element::try_from(&elements[at("index")][..at("len")]).unwrap(),
        other => panic!("unknown operation {other}"),
    }
}

#[test]
fn mutated_and_forged_proofs_get_the_verdict_of_the_vectors() {
    let vectors = vectors!("verify_negative");
    let statement = bytes(&vectors["statement"]);
    let files = [vectors!("nip_proofs_small"), vectors!("nip_proof_65536"), vectors!("nip_proof_100003")];
    let base = |leaves: u64| {
        files.iter().flat_map(|file| list(&file["proofs"])).find(|case| number(&case["leaves"]) == leaves).map(proof_of)
    };
    for case in list(&vectors["mutations"]) {
        let mut proof = base(number(&case["base_leaves"])).unwrap();
        let mut statement = statement.clone();
        mutate(&mut proof, &mut statement, &case["mutation"]);
        let verdict = verify(&Statement::new(&statement), &proof);
        assert_eq!(verdict.is_ok(), case["valid"].as_bool().unwrap(), "{}: {verdict:?}", case["mutation"]);
    }
    for case in list(&vectors["forged"]) {
        let verdict = verify(&Statement::new(&statement), &proof_of(case));
        assert_eq!(verdict.unwrap_err().to_string(), text(&case["reference_error"]), "{}", case["note"]);
    }
}

/// Nodes without a salt, as in the vectors of the plain tree.
struct Plain;

impl Join for Plain {
    fn join(&self, left: &[u8], right: &[u8]) -> Node {
        sha256(Backend::fastest(), &[left, right].concat())
    }
}

/// The levels of a plain tree whose leaves are their own numbers.
fn plain_levels(count: u64) -> Vec<Vec<Node>> {
    let leaf = |number: u64| {
        let mut leaf = PADDING;
        leaf[..8].copy_from_slice(&number.to_le_bytes());
        leaf
    };
    let mut levels = vec![(0..count).map(leaf).collect::<Vec<_>>()];
    while levels[levels.len() - 1].len() > 1 {
        let below = &levels[levels.len() - 1];
        let above = below.chunks(2).map(|pair| Plain.join(&pair[0], pair.get(1).unwrap_or(&PADDING))).collect();
        levels.push(above);
    }
    levels
}

/// Checks the root, and makes the expected proof for some leaves and leads them to the root with it.
fn check_plain_tree(count: u64, root: &Value, indices: &[u64], proof: &Value) -> Vec<Vec<Vec<u8>>> {
    let levels = plain_levels(count);
    assert_eq!(merkle::root(&Plain, levels[0].clone()), Some(node(root)));
    if indices.is_empty() {
        return Vec::new();
    }
    let mut made: Vec<Node> = Vec::new();
    merkle::for_each_proof_node(count, indices, |level, position| {
        made.push(levels[level as usize].get(position as usize).copied().unwrap_or(PADDING));
        Ok::<(), ()>(())
    })
    .unwrap();
    assert_eq!(made, nodes(proof));
    let leaves: Vec<&[u8]> = indices.iter().map(|i| &levels[0][*i as usize][..]).collect();
    let reached = merkle::reconstruct(&Plain, indices, &leaves, &made).unwrap();
    assert_eq!(reached.root.as_ref(), node(root));
    reached.left_siblings.iter().map(|s| s.iter().map(|node| node.as_ref().to_vec()).collect()).collect()
}

#[test]
fn plain_trees_are_those_of_the_vectors() {
    let vectors = vectors!("merkle_plain");
    for case in list(&vectors["trees"]) {
        let count = number(&case["leaves"]);
        // a forced height only matters to the reference's own sub-trees
        if number(&case["min_height"]) > u64::from(merkle::root_level(count)) {
            continue;
        }
        let indices = numbers(&case["prove"]);
        let found = check_plain_tree(count, &case["root"], &indices, &case["proof"]);
        if indices.is_empty() {
            continue;
        }
        let expected: Vec<Vec<Vec<u8>>> = list(&case["parking_snapshots"])
            .iter()
            .map(|snapshot| list(snapshot).iter().filter(|node| !node.is_null()).map(bytes).collect())
            .collect();
        assert_eq!(found, expected);
    }
    for case in list(&vectors["validator_argument_errors"]) {
        let leaves = vec![&PADDING[..]; number(&case["leaves"]) as usize];
        assert!(merkle::reconstruct(&Plain, &numbers(&case["indices"]), &leaves, &[PADDING]).is_err(), "{case}");
    }
    for case in list(&vectors!("merkle_tree")["cases"]) {
        let indices = if case["leaves_to_prove"].is_null() { Vec::new() } else { numbers(&case["leaves_to_prove"]) };
        check_plain_tree(number(&case["leaf_count"]), &case["root"], &indices, &case["proof"]);
    }
}

#[test]
fn membership_is_that_of_the_vectors() {
    let vectors = vectors!("membership");
    for tree in list(&vectors["trees"]) {
        let members = nodes(&tree["members"]);
        let root = node(&tree["root"]);
        assert_eq!(membership::statement(members.clone()), Some(root));
        for case in list(&tree["proofs"]) {
            let position = number(&case["leaf_index"]);
            let proof = membership::prove(&members, position as usize).unwrap();
            assert_eq!(proof, MembershipProof { nodes: nodes(&case["nodes"]), leaf_index: position });
            assert_eq!(hex::encode(scale::encode(&proof).unwrap()), text(&case["scale"]));
            let leaf = &members[position as usize][..];
            assert_eq!(proto::merkle::verify(&root, &[position], &[leaf], &proof.nodes), Ok(true));
        }
        for case in list(&tree["multi_proofs"]) {
            let indices = numbers(&case["leaf_indices"]);
            let leaves: Vec<&[u8]> = indices.iter().map(|i| &members[*i as usize][..]).collect();
            assert_eq!(proto::merkle::verify(&root, &indices, &leaves, &nodes(&case["nodes"])), Ok(true));
        }
        assert!(membership::prove(&members, members.len()).is_none());
    }
    for case in list(&vectors["validation"]) {
        let leaf = bytes(&case["leaf"]);
        let verdict =
            proto::merkle::verify(&node(&case["root"]), &[number(&case["leaf_index"])], &[&leaf], &nodes(&case["nodes"]));
        assert_eq!(verdict == Ok(true), case["valid"].as_bool().unwrap(), "{}", case["note"]);
    }
    for round in list(&vectors!("round_statement")["rounds"]) {
        let mut registrations: Vec<_> =
            list(&round["registrations_in_arrival_order"]).iter().map(|r| (node(&r["node_id"]), node(&r["challenge"]))).collect();
        registrations.sort_unstable();
        let members: Vec<Node> = registrations.into_iter().map(|(_, challenge)| challenge).collect();
        assert_eq!(members, nodes(&round["members_in_proof_order"]));
        assert_eq!(membership::statement(members), Some(node(&round["statement"])));
    }
    assert_eq!(membership::statement(Vec::new()), None);
}

#[test]
fn certificates_get_the_verdict_of_the_vectors() {
    let vectors = vectors!("certificates");
    let mut checked = 0;
    for case in list(&vectors["cases"]) {
        let Some(accepted) = case["accepted"].as_bool() else { continue };
        let verdict = certificate::check(
            &bytes(&case["verify_with"]),
            &bytes(&case["data"]),
            &bytes(&case["signature"]),
            &NodeId(node(&case["node_id"])),
            number(&case["now"]),
        );
        assert_eq!(verdict.is_ok(), accepted, "{}: {verdict:?}", case["note"]);
        checked += 1;
    }
    assert!(checked > 8);
}

#[test]
fn signatures_get_the_verdict_of_the_vectors() {
    let vectors = vectors!("submit_signature");
    for case in list(&vectors["signature_cases"]) {
        let message = [bytes(&case["prefix"]), bytes(&case["challenge"])].concat();
        let valid = certificate::signature_is_valid(&bytes(&case["pubkey"]), &message, &bytes(&case["signature"]));
        assert_eq!(valid, case["signature_valid"].as_bool().unwrap(), "{}", case["note"]);
    }
}

#[test]
fn proofs_of_work_are_those_of_the_vectors() {
    let vectors = vectors!("pow");
    for case in list(&vectors["leading_zero_bits"]) {
        let bits = u32::try_from(number(&case["bits"])).unwrap();
        assert_eq!(pow::has_leading_zero_bits(&bytes(&case["data"]), bits), case["ok"].as_bool().unwrap(), "{case}");
    }
    for case in list(&vectors["pow"]) {
        let difficulty = number(&case["difficulty"]) as u32;
        let params = pow::Params { challenge: bytes(&case["pow_challenge"]), difficulty };
        let (id, challenge) = (NodeId(node(&case["node_id"])), bytes(&case["poet_challenge"]));
        let nonce = number(&case["first_nonce"]);
        assert_eq!(hex::encode(pow::hash(&params.challenge, &id, &challenge, nonce)), text(&case["hash"]));
        assert!(pow::is_valid(&params, &id, &challenge, nonce));
        // only small searches are repeated
        if nonce < 100_000 {
            for threads in [1, 3] {
                assert_eq!(pow::find(&params, &id, &challenge, threads, &GO), Some(nonce));
            }
        }
    }
    let impossible = pow::Params { challenge: Vec::new(), difficulty: 257 };
    assert_eq!(pow::find(&impossible, &NodeId([1; 32]), &[], 2, &AtomicBool::new(true)), None);
}

/// Nanoseconds since 1970 of `2023-07-14T08:00:00.5Z`.
fn time(value: &Value) -> Time {
    Time(humantime(text(value)))
}

fn humantime(text: &str) -> i128 {
    let (date, clock) = text.trim_end_matches('Z').split_once('T').unwrap();
    let parts: Vec<i128> = date.split('-').map(|p| p.parse().unwrap()).collect();
    let (year, month, day) = (parts[0], parts[1], parts[2]);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let hms: Vec<i128> = clock.split(':').map(|p| p.parse().unwrap()).collect();
    let years = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = years * 365 + years / 4 - years / 100 + years / 400 + day_of_year - 719_468;
    let seconds = days * 86_400 + hms[0] * 3600 + hms[1] * 60 + hms[2];
    seconds * 1_000_000_000 + format!("{fraction:0<9}").parse::<i128>().unwrap()
}

#[test]
fn rounds_are_those_of_the_vectors() {
    let vectors = vectors!("rounds");
    for case in list(&vectors["schedules"]) {
        let seconds = |key: &str| Duration::from_secs(number(&case[key]));
        let schedule =
            Schedule::new(time(&case["genesis"]), seconds("epoch_duration_s"), seconds("phase_shift_s"), seconds("cycle_gap_s"))
                .unwrap();
        assert_eq!(schedule.duration(), seconds("round_duration_s"));
        for round in list(&case["rounds"]) {
            let id: RoundId = text(&round["round_id"]).parse().unwrap();
            assert_eq!(schedule.start(id), time(&round["execution_start"]));
            assert_eq!(schedule.end(id), time(&round["execution_end"]));
            assert_eq!(schedule.opens(id), round["registration_opens"].as_str().map(|t| Time(humantime(t))));
        }
        for moment in list(&case["open_round_at"]) {
            assert_eq!(u64::from(schedule.open_round(time(&moment["time"])).0), number(&moment["open_round"]), "{moment}");
        }
        for submit in list(&case["submit_deadline"]) {
            let open = schedule.open_round(time(&submit["now"]));
            assert_eq!(u64::from(open.0), number(&submit["open_round"]));
            assert_eq!(schedule.end(open), time(&submit["round_end"]));
            assert_eq!(schedule.end(open) <= time(&submit["deadline"]), submit["accepted"].as_bool().unwrap());
        }
    }
    for case in list(&vectors["ticks"]) {
        let ticks = Leaves(number(&case["leaf_count"])).ticks(number(&case["tick_size"]));
        assert_eq!(ticks.0, number(&case["ticks"]));
    }
}

#[test]
fn every_single_bit_mutation_of_a_small_proof_is_rejected() {
    let statement = Statement::new(&[7; 32]);
    let shape = Shape::new(2);
    let (_, kept) = grow(&statement, shape, 151);
    let tree = Tree { statement: &statement, shape, leaves: Leaves(151), nodes: &kept };
    let proof = tree.prove(150, 1, &GO).unwrap();
    assert_eq!(verify(&statement, &proof), Ok(()));
    let flipped = |element: &Element, bit: usize| {
        let mut bytes = element.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        Element::try_from(&*bytes).unwrap()
    };
    for bit in 0..256 {
        let mut bad = proof.clone();
        bad.merkle.root = flipped(&proof.merkle.root, bit);
        assert!(verify(&statement, &bad).is_err());
        for place in 0..proof.merkle.proof_nodes.len() {
            let mut bad = proof.clone();
            bad.merkle.proof_nodes[place] = flipped(&proof.merkle.proof_nodes[place], bit);
            assert!(verify(&statement, &bad).is_err());
        }
        for place in 0..150 {
            let mut bad = proof.clone();
            bad.merkle.proven_leaves[place] = flipped(&proof.merkle.proven_leaves[place], bit);
            assert!(verify(&statement, &bad).is_err());
        }
        let mut other = statement.as_bytes().to_vec();
        other[bit / 8] ^= 1 << (bit % 8);
        assert!(verify(&Statement::new(&other), &proof).is_err());
    }
    for bit in 0..64 {
        let mut bad = proof.clone();
        bad.leaf_count = Leaves(0x97 ^ (1 << bit));
        assert!(verify(&statement, &bad).is_err(), "bit {bit} of the leaf count");
    }
}

/// A proof may carry nodes of other lengths; what matters is that the hashes of the raw bytes agree.
#[test]
fn a_short_node_is_hashed_as_it_is() {
    let statement = Statement::new(&[9; 32]);
    let shape = Shape::new(0);
    let (_, kept) = grow(&statement, shape, 300);
    // the padding beside the right edge (node 75 of level 2 and its like) never gets work; a forger may leave it empty
    let tree = Tree { statement: &statement, shape, leaves: Leaves(300), nodes: &kept };
    let honest = tree.prove(150, 1, &GO).unwrap();
    let join = |left: &[u8], right: &[u8]| statement.node(left, right);
    let at = |level: u32, position: u64| kept[shape.place(level, position) as usize];
    // 300 = 256 + 32 + 8 + 4: the right edge by hand, with an empty node in place of padding
    let edge = join(&at(3, 36), &join(&at(2, 74), &[]));
    let edge = join(&at(5, 8), &join(&edge, &[]));
    let edge = join(&join(&edge, &[]), &[]);
    let root = join(&at(8, 0), &edge);
    let root = Element::from(root);
    let indices = challenged_leaves(&root, Leaves(300), 150);
    let mut forged = PoetProof { merkle: MerkleProof { root, ..MerkleProof::default() }, leaf_count: Leaves(300) };
    forged.merkle.proven_leaves = indices.iter().map(|index| Element::from(at(0, *index))).collect();
    merkle::for_each_proof_node(300, &indices, |level, position| {
        let end = (position + 1) << level;
        let node = if position << level >= 300 {
            Element::default()
        } else if end <= 300 {
            at(level, position).into()
        } else {
            panic!("150 of 300 leaves leave no part of the right edge out")
        };
        forged.merkle.proof_nodes.push(node);
        Ok::<(), ()>(())
    })
    .unwrap();
    assert_ne!(forged.merkle.root, honest.merkle.root);
    assert_eq!(verify(&statement, &forged), Ok(()));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]

    #[test]
    fn proofs_of_any_tree_verify(leaves in 150..3000u64, lowest in 0..12u32, seed: [u8; 32], cut in 0..3000u64) {
        let statement = Statement::new(&seed);
        let shape = Shape::new(lowest);
        let (grower, kept) = grow(&statement, shape, leaves);
        let tree = Tree { statement: &statement, shape, leaves: Leaves(leaves), nodes: &kept };
        let proof = tree.prove(150, 2, &GO).unwrap();
        proptest::prop_assert_eq!(proof.merkle.root, Element::from(grower.root().unwrap()));
        proptest::prop_assert_eq!(verify(&statement, &proof), Ok(()));
        // any prefix of the kept nodes continues to the same tree
        let units = shape.units_covered(cut.min(kept.len() as u64));
        proptest::prop_assert!(shape.kept(units) <= kept.len() as u64 && shape.kept(units + 1) > cut.min(kept.len() as u64));
        let mut resumed = Grower::resume(statement.clone(), shape, units, &kept).unwrap();
        proptest::prop_assert_eq!(resumed.root(), root_of_units(&statement, shape, units, &kept).unwrap());
        while resumed.leaves().0 < leaves {
            resumed.grow(|_, _| ());
        }
        proptest::prop_assert_eq!(resumed.root(), grower.root());
    }
}
