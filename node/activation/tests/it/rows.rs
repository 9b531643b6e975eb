//! What identities keep: whatever changes are made comes back, after a kill as well.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use activation::{
    builder::{BestProof, Challenge, Change, InitialPost, Nipost, Registration, Saved, SignedActivation, Unsigned},
    rows::{Certificate, MAX_CERTIFICATE, Rows},
    timeline::Moment,
};
use proptest::prelude::*;
use proto::{
    activation::{
        v1::{InnerActivationTxV1, NipostChallengeV1, NipostV1, PostMetadataV1},
        v2::{ActivationTxV2, InitialPartsV2, MarriageCertificate, MembershipProofV2, NipostV2, SubPostV2},
    },
    ids::{Address, AtxId, EdSignature, Hash32, NodeId, PoetProofRef},
    layers::EpochId,
    poet::MembershipProof,
    post::Proof,
    scale::Bytes,
    units::{Labels, SpaceUnits, VrfNonce},
};
use store::{
    check::check,
    engine::{Batch, Durability, Engine as _},
    memory::Memory,
    rocks::Rocks,
    schema::{Database, Family},
};

fn proof(n: u8) -> Proof {
    Proof { nonce: n.into(), indices: vec![n; usize::from(n) * 3], pow: u64::from(n) << 33 }
}

fn membership(n: u8) -> MembershipProof {
    MembershipProof { nodes: vec![[n; 32]; usize::from(n % 5)], leaf_index: n.into() }
}

fn challenge(n: u8) -> Challenge {
    let some = n.is_multiple_of(2);
    Challenge {
        parts: NipostChallengeV1 {
            publish_epoch: EpochId(n.into()),
            sequence: n.into(),
            prev_atx_id: AtxId([n; 32]),
            positioning_atx_id: AtxId([n ^ 1; 32]),
            commitment_atx_id: some.then_some(AtxId([n ^ 2; 32])),
            initial_post: some.then(|| proof(n)),
        },
        best: n.is_multiple_of(3).then(|| BestProof { reference: PoetProofRef([n; 32]), membership: membership(n) }),
    }
}

fn unsigned(n: u8) -> Unsigned {
    if n.is_multiple_of(2) {
        Unsigned::V1(InnerActivationTxV1 {
            challenge: challenge(n).parts,
            coinbase: Address([n; 24]),
            num_units: SpaceUnits(n.into()),
            nipost: n.is_multiple_of(4).then(|| NipostV1 {
                membership: membership(n),
                post: Some(proof(n)),
                post_metadata: Some(PostMetadataV1 { challenge: [n; 32].into(), labels_per_unit: Labels(n.into()) }),
            }),
            node_id: Some(NodeId([n; 32])),
            vrf_nonce: Some(VrfNonce(n.into())),
        })
    } else {
        Unsigned::V2(ActivationTxV2 {
            publish_epoch: EpochId(n.into()),
            positioning_atx: AtxId([n; 32]),
            coinbase: Address([n; 24]),
            initial: n.is_multiple_of(3).then(|| InitialPartsV2 { commitment_atx: AtxId([n; 32]), post: proof(n) }),
            previous_atxs: vec![AtxId([n; 32])],
            niposts: vec![NipostV2 {
                membership: MembershipProofV2 { nodes: membership(n).nodes },
                challenge: PoetProofRef([n; 32]),
                posts: vec![SubPostV2 {
                    marriage_index: 0,
                    prev_atx_index: 0,
                    membership_leaf_index: n.into(),
                    post: proof(n),
                    num_units: SpaceUnits(n.into()),
                }],
            }],
            vrf_nonce: VrfNonce(n.into()),
            marriages: vec![MarriageCertificate { reference_atx: AtxId([n; 32]), signature: EdSignature([n; 64]) }],
            marriage_atx: Some(AtxId([n; 32])),
            smesher_id: NodeId([n; 32]),
            signature: EdSignature::default(),
        })
    }
}

fn registration(poet: u8, n: u8) -> Registration {
    let end = Moment(i64::from(n) * if n.is_multiple_of(2) { -1 } else { 1 << 40 });
    Registration { poet: format!("https://poet-{}.example/ö", poet % 4), challenge: Hash32([n; 32]), round: n.to_string(), end }
}

/// One of the changes that there are.
fn change(kind: u8, n: u8) -> Change {
    match kind % 10 {
        0 => Change::InitialPost(InitialPost {
            post: proof(n),
            commitment: AtxId([n; 32]),
            num_units: SpaceUnits(n.into()),
            vrf_nonce: VrfNonce(n.into()),
        }),
        1 => Change::NoInitialPost,
        2 => Change::Challenge(challenge(n)),
        3 => Change::NoChallenge,
        4 => Change::Registered(registration(n, n)),
        5 => Change::NoRegistrations,
        6 => Change::Nipost(Nipost {
            post: proof(n),
            num_units: SpaceUnits(n.into()),
            vrf_nonce: VrfNonce(n.into()),
            labels_per_unit: Labels(u64::from(n) << 32),
            reference: PoetProofRef([n; 32]),
            membership: membership(n),
        }),
        7 => Change::NoNipost,
        8 => Change::Assembled(Box::new(unsigned(n))),
        _ => Change::Signed(SignedActivation {
            id: AtxId([n; 32]),
            activation: unsigned(n).with(NodeId([n; 32]), EdSignature([n; 64])),
        }),
    }
}

fn apply_all(saved: &mut Saved, changes: Vec<Change>) {
    for change in changes {
        saved.apply(change);
    }
}

const ME: NodeId = NodeId([7; 32]);
const OTHER: NodeId = NodeId([8; 32]);

proptest! {
    #[test]
    fn what_was_saved_comes_back(steps in prop::collection::vec(prop::collection::vec((0u8..10, any::<u8>()), 0..5), 0..9)) {
        let memory = Memory::default();
        let untouched = vec![change(4, 1), change(2, 5), change(9, 3)];
        let (mut expected, mut others) = (Saved::default(), Saved::default());
        Rows::new(Arc::new(memory.clone())).apply(&OTHER, &untouched).unwrap();
        apply_all(&mut others, untouched);
        for step in steps {
            let changes: Vec<Change> = step.into_iter().map(|(kind, n)| change(kind, n)).collect();
            // as after a restart, each time
            let rows = Rows::new(Arc::new(memory.clone()));
            rows.apply(&ME, &changes).unwrap();
            apply_all(&mut expected, changes);
            prop_assert_eq!(&rows.load(&ME).unwrap(), &expected);
        }
        prop_assert_eq!(Rows::new(Arc::new(memory.clone())).load(&OTHER).unwrap(), others);
        prop_assert_eq!(check(&memory, Database::Local, &|| false).faults, Vec::<String>::new());
    }
}

#[test]
fn certificates_stay_until_they_are_refused() {
    let rows = Rows::new(Arc::new(Memory::default()));
    let certificate = |n: u8| Certificate { data: Bytes(vec![n; 37]), signature: EdSignature([n; 64]) };
    assert_eq!(rows.certificate(&ME, &[1; 32]).unwrap(), None);
    rows.put_certificate(&ME, &[1; 32], &certificate(1)).unwrap();
    rows.put_certificate(&ME, &[2; 32], &certificate(2)).unwrap();
    rows.put_certificate(&ME, &[1; 32], &certificate(3)).unwrap();
    assert_eq!(rows.certificate(&ME, &[1; 32]).unwrap(), Some(certificate(3)));
    assert_eq!(rows.certificate(&OTHER, &[1; 32]).unwrap(), None);
    rows.remove_certificate(&ME, &[1; 32]).unwrap();
    assert_eq!(rows.certificate(&ME, &[1; 32]).unwrap(), None);
    assert_eq!(rows.certificate(&ME, &[2; 32]).unwrap(), Some(certificate(2)));
    let large = Certificate { data: Bytes(vec![0; MAX_CERTIFICATE + 1]), signature: EdSignature([0; 64]) };
    assert!(rows.put_certificate(&ME, &[1; 32], &large).is_err());
}

#[test]
fn damaged_rows_are_noticed() {
    let memory = Memory::default();
    let rows = Rows::new(Arc::new(memory.clone()));
    for kind in [0, 2, 4, 6, 8, 9] {
        rows.apply(&ME, &[change(kind, 4)]).unwrap();
    }
    for family in [Family::InitialPost, Family::Challenge, Family::Nipost, Family::Assembled, Family::SignedAtx] {
        for damaged in [vec![], vec![2, 0], vec![1, 9, 9, 9]] {
            let mut batch = Batch::default();
            batch.put(family, ME.0, damaged);
            memory.write(&batch, Durability::Power).unwrap();
            assert!(rows.load(&ME).is_err(), "{family:?}");
        }
        let mut batch = Batch::default();
        batch.delete(family, ME.0);
        memory.write(&batch, Durability::Power).unwrap();
        rows.load(&ME).unwrap();
    }
}

/// How often something is killed: 5 times, 100 with `SOAK=1`.
fn kills() -> u64 {
    if std::env::var_os("SOAK").is_some() { 100 } else { 5 }
}

/// A challenge and all that comes with it in one change, then nothing of it in the next.
fn round(n: u64) -> Vec<Change> {
    let n = (n % 200) as u8 + 1;
    vec![change(2, n), change(4, n), Change::Registered(registration(n + 1, n)), change(6, n), change(8, n)]
}

const END: [Change; 3] = [Change::NoRegistrations, Change::NoNipost, Change::NoChallenge];

/// What is killed.
#[test]
#[ignore = "a child of the test below"]
fn child() {
    let Ok(dir) = std::env::var("ROWS_DIR") else { return };
    let from: u64 = std::env::var("ROWS_FROM").unwrap().parse().unwrap();
    let rows = Rows::new(Arc::new(Rocks::open(dir.as_ref(), Database::Local).unwrap()));
    for n in from.. {
        rows.apply(&ME, &END).unwrap();
        rows.apply(&ME, &round(n)).unwrap();
        let mut out = std::io::stdout().lock();
        out.write_all(format!("ack {n}.\n").as_bytes()).and_then(|()| out.flush()).unwrap();
    }
}

#[test]
fn kills_leave_all_of_a_change_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut next = 0;
    for kill in 0..kills() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["rows::child", "--exact", "--ignored", "--nocapture"])
            .env("ROWS_DIR", dir.path())
            .env("ROWS_FROM", next.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let number = |line: String| line.split("ack ").nth(1).and_then(|n| n.strip_suffix('.')?.parse::<u64>().ok());
        let first = lines.by_ref().find_map(number).unwrap();
        std::thread::sleep(Duration::from_millis(kill * 7 % 40));
        child.kill().unwrap();
        child.wait().unwrap();
        let last = lines.filter_map(number).last().unwrap_or(first);
        let rows = Rows::new(Arc::new(Rocks::open(dir.path(), Database::Local).unwrap()));
        let found = rows.load(&ME).unwrap();
        let state = |changes: Vec<Change>| {
            let mut saved = Saved::default();
            apply_all(&mut saved, changes);
            saved
        };
        let possible = [state(round(last)), Saved::default(), state(round(last + 1))];
        assert!(possible.contains(&found), "kill {kill} after {last}: {found:?}");
        next = last + 1;
    }
}
