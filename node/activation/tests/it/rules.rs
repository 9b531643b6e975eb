//! One invalid activation for every rule (activation.md section 7), each refused with that rule's own error, beside valid ones.

use activation::validate::{Dependencies, Invalid, Known, PostError, Refusal, Validity, dependencies};
use proto::{
    activation::{
        Activation,
        v1::{InnerActivationTxV1, NipostChallengeV1, NipostV1, PostMetadataV1},
        v2::{ActivationTxV2, InitialPartsV2, SubPostV2},
    },
    eligibility::Weight,
    ids::{AtxId, NodeId, PoetProofRef},
    layers::EpochId,
    poet::Ticks,
    units::{Labels, SpaceUnits, TickHeight, VrfNonce},
};
use store::schema::Family;

use crate::{
    fixture::{Fixture, NOBODY, NOW, certificate, key, sign_v1, sign_v2},
    network::{BAD_INDEX, GOLDEN, Node, UNAVAILABLE, prove, rules, validator, vrf_nonce},
};

fn invalid(rule: Invalid) -> Result<Known, Refusal> {
    Err(rule.into())
}

fn other_proof(id: NodeId) -> Invalid {
    Invalid::Post { id, error: PostError::Invalid("another proof".into()) }
}

fn worth(known: &Known) -> (SpaceUnits, Ticks, Weight) {
    (known.row.effective_units, known.row.ticks, known.row.weight)
}

#[test]
fn valid_activations_of_one_identity() {
    let all = Fixture::new();
    let a = key(1);
    let first = all.accept_first(&a);
    assert_eq!(worth(&first), (SpaceUnits(4), Ticks(10), Weight(40)));
    assert_eq!(first.row.base_height, TickHeight(0));
    assert_eq!((first.row.commitment, first.row.validity), (Some(GOLDEN), Validity::Unknown));

    // It grows: the new units count one epoch later.
    let grown = all.v1(&a, Fixture::next_challenge(&first), 6, 59);
    let second = all.accept(&sign_v1(&a, grown));
    assert_eq!(worth(&second), (SpaceUnits(4), Ticks(5), Weight(20)));
    assert_eq!((second.row.base_height, second.row.height()), (TickHeight(10), TickHeight(15)));
    assert_eq!(second.row.vrf_nonce, first.row.vrf_nonce);
    assert_eq!(second.units_of(&a.node_id()), Some(SpaceUnits(6)));

    // It shrinks at once, and gives a nonce that suits less space.
    let mut shrunk = all.v1(&a, Fixture::next_challenge(&second), 2, 60);
    shrunk.vrf_nonce = Some(VrfNonce(vrf_nonce(&a.node_id()) + 1));
    let third = all.accept(&sign_v1(&a, shrunk));
    assert_eq!(worth(&third), (SpaceUnits(2), Ticks(6), Weight(12)));
    assert_eq!(third.row.vrf_nonce, VrfNonce(vrf_nonce(&a.node_id()) + 1));

    // The same one in version 2.
    let fourth = all.accept(&sign_v2(&a, all.v2(&[(&a, third.id)], 8, 2, None)));
    assert_eq!((worth(&fourth), fourth.row.sequence), ((SpaceUnits(2), Ticks(20), Weight(40)), 0));
    let b = key(2);
    let of_b = all.accept(&sign_v2(&b, all.v2_first(&b, 4)));
    assert_eq!((of_b.row.commitment, of_b.row.weight), (Some(GOLDEN), Weight(80)));
}

#[test]
fn valid_activations_of_a_couple() {
    let all = Fixture::new();
    let (a, b, of_a, of_b, _) = all.couple();
    let known = all.accept(&sign_v2(&a, all.merged(&a, &b, &of_a, &of_b)));
    assert_eq!(worth(&known), (SpaceUnits(8), Ticks(20), Weight(160)));
    assert_eq!(known.units_of(&b.node_id()), Some(SpaceUnits(4)));
    // A married identity may go on alone, from its part in what they did together.
    let alone = all.accept(&sign_v2(&b, all.v2(&[(&b, known.id)], 9, 3, None)));
    assert_eq!(alone.row.effective_units, SpaceUnits(3));
}

#[test]
fn dependencies_are_named_once() {
    let all = Fixture::new();
    let (a, b, of_a, of_b, wedding) = all.couple();
    let merged = sign_v2(&a, all.merged(&a, &b, &of_a, &of_b));
    let mut atxs = vec![of_a.id, of_b.id];
    atxs.sort_unstable();
    let Activation::V2(atx) = &merged else { unreachable!("version 2") };
    assert_eq!(wedding, of_a.id);
    assert_eq!(dependencies(&merged, &GOLDEN), Dependencies { poets: vec![atx.niposts[0].challenge], atxs });
    let first = sign_v1(&key(5), all.first(&key(5)));
    assert_eq!(dependencies(&first, &GOLDEN).atxs, []);
    assert_eq!(dependencies(&first, &GOLDEN).poets.len(), 1);
}

/// What a change makes of a valid first activation of version 1.
fn first_with(change: impl FnOnce(&mut InnerActivationTxV1)) -> Result<Known, Refusal> {
    let (all, a) = (Fixture::new(), key(1));
    let mut inner = all.first(&a);
    change(&mut inner);
    all.check(&sign_v1(&a, inner))
}

/// What a change of the challenge, for which everything else is made then, makes of a later activation of version 1.
fn next_with(
    challenge: impl FnOnce(&mut NipostChallengeV1),
    change: impl FnOnce(&mut InnerActivationTxV1),
) -> Result<Known, Refusal> {
    let (all, a) = (Fixture::new(), key(1));
    let first = all.accept_first(&a);
    let b = all.accept_first(&key(2));
    assert_eq!(b.row.publish_epoch, first.row.publish_epoch);
    let mut parts = Fixture::next_challenge(&first);
    challenge(&mut parts);
    let mut inner = all.v1(&a, parts, 4, 100);
    change(&mut inner);
    all.check(&sign_v1(&a, inner))
}

fn nipost(inner: &mut InnerActivationTxV1) -> &mut NipostV1 {
    inner.nipost.as_mut().expect("there")
}

#[test]
fn rules_for_first_activations_of_version_1() {
    let a = key(1).node_id();
    let nonce = VrfNonce(vrf_nonce(&a));
    let units = SpaceUnits(4);
    assert!(first_with(|_| {}).is_ok());
    assert_eq!(first_with(|inner| inner.nipost = None), invalid(Invalid::NoNipost));
    assert_eq!(first_with(|inner| inner.challenge.initial_post = None), invalid(Invalid::NoInitialPost));
    assert_eq!(first_with(|inner| inner.node_id = None), invalid(Invalid::NoNodeId));
    assert_eq!(first_with(|inner| inner.vrf_nonce = None), invalid(Invalid::NoVrfNonce));
    assert_eq!(first_with(|inner| inner.challenge.commitment_atx_id = None), invalid(Invalid::NoCommitment));
    assert_eq!(first_with(|inner| inner.challenge.commitment_atx_id = Some(AtxId::default())), invalid(Invalid::NoCommitment));
    assert_eq!(first_with(|inner| inner.challenge.sequence = 1), invalid(Invalid::Sequence { found: 1, expected: 0 }));
    assert_eq!(first_with(|inner| inner.challenge.positioning_atx_id = AtxId::default()), invalid(Invalid::NoPositioning));
    // Beside the nonce of all space is that of less.
    let beside = VrfNonce(nonce.0 + 1);
    assert_eq!(first_with(|inner| inner.vrf_nonce = Some(beside)), invalid(Invalid::VrfNonce { nonce: beside, units }));
    // No threshold for eight labels or none.
    let few = first_with(|inner| nipost(inner).post_metadata.as_mut().expect("there").labels_per_unit = Labels(2));
    assert_eq!(few, invalid(Invalid::VrfNonce { nonce, units }));
    let wrong = first_with(|inner| inner.challenge.initial_post.as_mut().expect("there").pow += 1);
    assert_eq!(wrong, invalid(Invalid::InitialPost(PostError::Invalid("another proof".into()))));
    assert_eq!(
        first_with(|inner| inner.challenge.publish_epoch = EpochId(11)),
        invalid(Invalid::FutureEpoch { publish: EpochId(11), current: NOW })
    );

    let (all, who) = (Fixture::new(), key(1));
    let challenge = NipostChallengeV1 {
        commitment_atx_id: Some(NOBODY),
        initial_post: Some(prove(&a, &NOBODY, &[0; 32], SpaceUnits(4))),
        ..Fixture::first_challenge(&who, 4)
    };
    assert_eq!(all.check(&sign_v1(&who, all.v1(&who, challenge, 4, 100))), invalid(Invalid::Commitment(NOBODY)));
    // An activation of the same epoch is too young for a commitment, and so is it to stand on.
    let young = all.accept_first(&key(2)).id;
    let challenge = NipostChallengeV1 {
        commitment_atx_id: Some(young),
        initial_post: Some(prove(&a, &young, &[0; 32], SpaceUnits(4))),
        ..Fixture::first_challenge(&who, 4)
    };
    assert_eq!(all.check(&sign_v1(&who, all.v1(&who, challenge, 4, 100))), invalid(Invalid::Commitment(young)));
    let challenge = NipostChallengeV1 { positioning_atx_id: young, ..Fixture::first_challenge(&who, 4) };
    assert_eq!(all.check(&sign_v1(&who, all.v1(&who, challenge, 4, 100))), invalid(Invalid::Positioning(young)));
}

#[test]
fn rules_for_later_activations_of_version_1() {
    let a = key(1).node_id();
    assert!(next_with(|_| {}, |_| {}).is_ok());
    assert_eq!(next_with(|_| {}, |inner| inner.node_id = Some(a)), invalid(Invalid::SecondNodeId));
    let post = prove(&a, &GOLDEN, &[0; 32], SpaceUnits(4));
    assert_eq!(next_with(|parts| parts.initial_post = Some(post), |_| {}), invalid(Invalid::SecondInitialPost));
    assert_eq!(next_with(|parts| parts.commitment_atx_id = Some(GOLDEN), |_| {}), invalid(Invalid::SecondCommitment));
    assert_eq!(next_with(|parts| parts.prev_atx_id = NOBODY, |_| {}), invalid(Invalid::Previous(NOBODY)));
    assert_eq!(next_with(|parts| parts.sequence = 7, |_| {}), invalid(Invalid::Sequence { found: 7, expected: 1 }));
    assert_eq!(next_with(|parts| parts.positioning_atx_id = NOBODY, |_| {}), invalid(Invalid::Positioning(NOBODY)));

    let all = Fixture::new();
    let first = all.accept_first(&key(1));
    let of_b = all.accept_first(&key(2));
    let challenge = NipostChallengeV1 { prev_atx_id: of_b.id, ..Fixture::next_challenge(&first) };
    assert_eq!(all.check(&sign_v1(&key(1), all.v1(&key(1), challenge, 4, 100))), invalid(Invalid::PreviousOfOther(of_b.id)));
    let challenge = NipostChallengeV1 { publish_epoch: first.row.publish_epoch, ..Fixture::next_challenge(&first) };
    assert_eq!(all.check(&sign_v1(&key(1), all.v1(&key(1), challenge, 4, 100))), invalid(Invalid::PreviousEpoch(first.id)));

    // An identity that nobody has seen a commitment of, and one without a part in its previous activation.
    let mut strange = first.clone();
    (strange.id, strange.row.commitment, strange.row.smesher) = (NOBODY, None, key(3).node_id());
    all.node.put(&strange);
    let next = sign_v1(&key(3), all.next(&key(3), &strange));
    assert_eq!(all.check(&next), invalid(Invalid::UnknownCommitment(key(3).node_id())));
    strange.row.commitment = Some(GOLDEN);
    all.node.put(&strange);
    assert_eq!(all.check(&next), invalid(Invalid::NoPreviousUnits { id: key(3).node_id(), previous: NOBODY }));

    // More units want a nonce that suits them, even if it is not given again.
    let mut known = first.clone();
    let beside = VrfNonce(vrf_nonce(&a) + 1);
    known.row.vrf_nonce = beside;
    known.row.effective_units = SpaceUnits(2);
    all.node.put(&known);
    let units = SpaceUnits(4);
    assert_eq!(all.check(&sign_v1(&key(1), all.next(&key(1), &first))), invalid(Invalid::VrfNonce { nonce: beside, units }));
}

#[test]
fn rules_for_proofs_of_version_1() {
    let a = key(1).node_id();
    let units = |units| {
        let (all, who) = (Fixture::new(), key(1));
        let first = all.accept_first(&who);
        all.check(&sign_v1(&who, all.v1(&who, Fixture::next_challenge(&first), units, 100)))
    };
    assert!(matches!(units(1), Err(Refusal::Invalid(Invalid::Units(_)))));
    assert!(matches!(units(9), Err(Refusal::Invalid(Invalid::Units(_)))));
    assert!(units(8).is_ok());
    assert_eq!(next_with(|_| {}, |inner| nipost(inner).post = None), invalid(Invalid::NoPost));
    assert_eq!(next_with(|_| {}, |inner| nipost(inner).post_metadata = None), invalid(Invalid::NoPostMetadata));
    let per_unit = rules().post.labels_per_unit;
    let metadata = |inner: &mut InnerActivationTxV1| nipost(inner).post_metadata.as_mut().expect("there").clone();
    let fewer = next_with(
        |_| {},
        |inner| {
            let metadata = metadata(inner);
            nipost(inner).post_metadata = Some(PostMetadataV1 { labels_per_unit: Labels(per_unit - 1), ..metadata });
        },
    );
    assert_eq!(fewer, invalid(Invalid::LabelsPerUnit { found: per_unit - 1, least: per_unit }));
    let more = next_with(
        |_| {},
        |inner| {
            let metadata = metadata(inner);
            nipost(inner).post_metadata = Some(PostMetadataV1 { labels_per_unit: Labels(per_unit + 1), ..metadata });
        },
    );
    assert!(more.is_ok());
    let short = next_with(
        |_| {},
        |inner| {
            nipost(inner).post_metadata.as_mut().expect("there").challenge = (&[1_u8; 31][..]).try_into().expect("short enough");
        },
    );
    assert!(matches!(short, Err(Refusal::Invalid(Invalid::Post { .. }))), "{short:?}");
    assert_eq!(next_with(|_| {}, |inner| nipost(inner).post.as_mut().expect("there").pow = 9), invalid(other_proof(a)));
    let cheat = next_with(
        |_| {},
        |inner| {
            let post = nipost(inner).post.as_mut().expect("there");
            (post.nonce, post.indices) = (BAD_INDEX, vec![21]);
        },
    );
    assert_eq!(cheat, Err(Refusal::Malfeasance { index: 21 }));
    let cannot_tell = next_with(|_| {}, |inner| nipost(inner).post.as_mut().expect("there").nonce = UNAVAILABLE);
    assert_eq!(cannot_tell, Err(Refusal::Undecided("no memory".into())));
    // A challenge that is not a member, and a leaf that is somebody else's.
    let absent = next_with(|_| {}, |inner| nipost(inner).membership.leaf_index = 2);
    assert!(matches!(absent, Err(Refusal::Invalid(Invalid::Membership(_)))), "{absent:?}");
    let changed = next_with(|_| {}, |inner| inner.challenge.positioning_atx_id = GOLDEN);
    assert!(matches!(changed, Err(Refusal::Invalid(Invalid::Membership(_)))), "{changed:?}");

    let (all, who) = (Fixture::new(), key(1));
    let first = all.accept_first(&who);
    let next = sign_v1(&who, all.next(&who, &first));
    let Activation::V1(atx) = &next else { unreachable!("version 1") };
    let reference = dependencies(&next, &GOLDEN).poets[0];
    let elsewhere = Node::new();
    for family in [Family::Atx, Family::Share, Family::AtxSmesher] {
        elsewhere.copy(&all.node, family);
    }
    let missing = validator(&elsewhere).check_with_dependencies(&next);
    assert_eq!(missing, invalid(Invalid::PoetProof(reference)));
    let high = |base| {
        let mut known = first.clone();
        known.row.base_height = TickHeight(base);
        all.node.put(&known);
        all.check(&next)
    };
    assert!(high(u64::MAX - 20).is_ok());
    assert_eq!(high(u64::MAX - 19), invalid(Invalid::Height));

    let mut unsigned = atx.clone();
    unsigned.signature.0[0] ^= 1;
    assert_eq!(all.check(&Activation::V1(unsigned)), invalid(Invalid::Signature));
    let mut stolen = atx.clone();
    stolen.smesher_id = key(2).node_id();
    assert_eq!(all.check(&Activation::V1(stolen)), invalid(Invalid::Signature));
}

/// What a change makes of a valid activation of version 2 by one identity.
fn solo_with(change: impl FnOnce(&mut ActivationTxV2)) -> Result<Known, Refusal> {
    let (all, a) = (Fixture::new(), key(1));
    let first = all.accept_first(&a);
    let mut atx = all.v2(&[(&a, first.id)], 6, 4, None);
    change(&mut atx);
    all.check(&sign_v2(&a, atx))
}

#[test]
fn rules_for_version_2_by_one_identity() {
    let a = key(1);
    let id = a.node_id();
    assert!(solo_with(|_| {}).is_ok());
    assert_eq!(solo_with(|atx| atx.positioning_atx = AtxId::default()), invalid(Invalid::NoPositioning));
    assert_eq!(solo_with(|atx| atx.positioning_atx = NOBODY), invalid(Invalid::Positioning(NOBODY)));
    assert_eq!(
        solo_with(|atx| atx.publish_epoch = EpochId(11)),
        invalid(Invalid::FutureEpoch { publish: EpochId(11), current: NOW })
    );
    assert_eq!(solo_with(|atx| atx.niposts.clear()), invalid(Invalid::NotOnePost));
    assert_eq!(solo_with(|atx| atx.niposts[0].posts.clear()), invalid(Invalid::NotOnePost));
    assert_eq!(solo_with(|atx| atx.niposts[0].posts[0].prev_atx_index = 1), invalid(Invalid::PreviousIndexOfOne(1)));
    assert_eq!(solo_with(|atx| atx.niposts[0].posts[0].marriage_index = 1), invalid(Invalid::MarriageIndex(1)));
    assert_eq!(solo_with(|atx| atx.previous_atxs = vec![AtxId::default()]), invalid(Invalid::BadPrevious(AtxId::default())));
    assert_eq!(solo_with(|atx| atx.previous_atxs = vec![GOLDEN]), invalid(Invalid::BadPrevious(GOLDEN)));
    assert_eq!(solo_with(|atx| atx.previous_atxs.clear()), invalid(Invalid::NotOnePrevious(0)));
    assert_eq!(solo_with(|atx| atx.previous_atxs = vec![NOBODY]), invalid(Invalid::Previous(NOBODY)));
    assert!(matches!(solo_with(|atx| atx.publish_epoch = EpochId(5)), Err(Refusal::Invalid(Invalid::PreviousEpoch(_)))));
    assert_eq!(solo_with(|atx| atx.niposts[0].posts[0].post.pow = 9), invalid(other_proof(id)));
    assert_eq!(
        solo_with(|atx| atx.niposts[0].challenge = PoetProofRef([5; 32])),
        invalid(Invalid::PoetProof(PoetProofRef([5; 32])))
    );
    let elsewhere = solo_with(|atx| atx.niposts[0].posts[0].membership_leaf_index = 1);
    assert!(matches!(elsewhere, Err(Refusal::Invalid(Invalid::Membership(_)))), "{elsewhere:?}");
    let beside = VrfNonce(vrf_nonce(&id) + 1);
    let units = SpaceUnits(4);
    assert_eq!(solo_with(|atx| atx.vrf_nonce = beside), invalid(Invalid::VrfNonce { nonce: beside, units }));

    let own = certificate(&a, &a, AtxId::default());
    assert!(solo_with(|atx| atx.marriages = vec![own.clone()]).is_ok());
    let other = certificate(&key(2), &a, NOBODY);
    assert_eq!(solo_with(|atx| atx.marriages = vec![other.clone()]), invalid(Invalid::NoOwnCertificate));
    assert_eq!(solo_with(|atx| atx.marriages = vec![own.clone(), other]), invalid(Invalid::CertificateAtx(NOBODY)));
    assert_eq!(solo_with(|atx| atx.marriages = vec![own.clone(), own.clone()]), invalid(Invalid::CertificateTwice(id)));
    let forged = certificate(&key(2), &a, AtxId::default());
    assert_eq!(solo_with(|atx| atx.marriages = vec![forged]), invalid(Invalid::CertificateSignature(id)));

    // Nothing of an identity in the activation it says it followed.
    let all = Fixture::new();
    all.accept_first(&a);
    let of_b = all.accept_first(&key(2));
    let atx = all.v2(&[(&a, of_b.id)], 6, 4, None);
    assert_eq!(all.check(&sign_v2(&a, atx)), invalid(Invalid::NoPreviousUnits { id, previous: of_b.id }));
}

#[test]
fn rules_for_first_activations_of_version_2() {
    let a = key(1);
    let with = |change: &dyn Fn(&mut ActivationTxV2)| {
        let all = Fixture::new();
        let mut atx = all.v2_first(&a, 4);
        change(&mut atx);
        all.check(&sign_v2(&a, atx))
    };
    let initial = |atx: &mut ActivationTxV2| atx.initial.clone().expect("there");
    assert!(with(&|_| {}).is_ok());
    assert_eq!(with(&|atx| atx.marriage_atx = Some(NOBODY)), invalid(Invalid::MergedInitial));
    let empty = with(&|atx| atx.initial = Some(InitialPartsV2 { commitment_atx: AtxId::default(), ..initial(atx) }));
    assert_eq!(empty, invalid(Invalid::NoCommitment));
    assert_eq!(with(&|atx| atx.previous_atxs = vec![NOBODY]), invalid(Invalid::InitialWithPrevious));
    let post = prove(&a.node_id(), &NOBODY, &[0; 32], SpaceUnits(4));
    let unknown = with(&|atx| atx.initial = Some(InitialPartsV2 { commitment_atx: NOBODY, post: post.clone() }));
    assert_eq!(unknown, invalid(Invalid::Commitment(NOBODY)));
    let wrong = with(&|atx| atx.initial.as_mut().expect("there").post.pow = 9);
    assert_eq!(wrong, invalid(Invalid::InitialPost(PostError::Invalid("another proof".into()))));
    let beside = VrfNonce(vrf_nonce(&a.node_id()) + 1);
    let units = SpaceUnits(4);
    assert_eq!(with(&|atx| atx.vrf_nonce = beside), invalid(Invalid::VrfNonce { nonce: beside, units }));
}

#[test]
fn rules_for_several_identities() {
    let with = |change: &dyn Fn(&mut ActivationTxV2)| {
        let all = Fixture::new();
        let (a, b, of_a, of_b, _) = all.couple();
        let mut atx = all.merged(&a, &b, &of_a, &of_b);
        change(&mut atx);
        all.check(&sign_v2(&a, atx))
    };
    let (a, b) = (key(1), key(2));
    assert!(with(&|_| {}).is_ok());
    let own = certificate(&a, &a, AtxId::default());
    assert_eq!(with(&|atx| atx.marriages = vec![own.clone()]), invalid(Invalid::MergedMarriages));
    assert_eq!(with(&|atx| atx.niposts[0].posts[1].marriage_index = 0), invalid(Invalid::MarriageIndexTwice(0)));
    assert_eq!(with(&|atx| atx.niposts[0].posts[1].marriage_index = 2), invalid(Invalid::MarriageIndex(2)));
    assert_eq!(with(&|atx| atx.niposts[0].posts[1].prev_atx_index = 2), invalid(Invalid::PreviousIndex(2)));
    assert_eq!(with(&|atx| atx.marriage_atx = Some(NOBODY)), invalid(Invalid::NotMarried(NOBODY)));
    assert_eq!(with(&|atx| atx.niposts[0].posts[1].post.pow = 9), invalid(other_proof(b.node_id())));
    // The nonce has to suit the space of both.
    let beside = VrfNonce(vrf_nonce(&a.node_id()) + 1);
    let units = SpaceUnits(8);
    assert_eq!(with(&|atx| atx.vrf_nonce = beside), invalid(Invalid::VrfNonce { nonce: beside, units }));

    let all = Fixture::new();
    let (a, b, of_a, of_b, wedding) = all.couple();
    let mut early = all.v2(&[(&a, of_a.id), (&b, of_b.id)], 7, 4, None);
    early.marriage_atx = Some(wedding);
    assert_eq!(all.check(&sign_v2(&a, early)), invalid(Invalid::MarriageEpoch(wedding)));
    // Somebody outside the marriage, and a publisher who only lends the name.
    let c = key(3);
    let of_c = all.accept_first(&c);
    let mut outside = all.v2(&[(&c, of_c.id)], 8, 4, None);
    outside.marriage_atx = Some(wedding);
    assert_eq!(all.check(&sign_v2(&c, outside)), invalid(Invalid::NotMarried(wedding)));
    let mut lent = all.v2(&[(&b, of_b.id)], 8, 4, None);
    lent.marriage_atx = Some(wedding);
    lent.smesher_id = a.node_id();
    lent.niposts[0].posts[0].marriage_index = 1;
    assert_eq!(all.check(&sign_v2(&a, lent)), invalid(Invalid::PublisherMissing));
}

/// Of several identities with one leaf only the first one's challenge is looked at.
#[test]
fn one_leaf_stands_for_all_who_name_it() {
    let all = Fixture::new();
    let (a, b, of_a, of_b, _) = all.couple();
    let mut atx = all.v2(&[(&a, of_a.id)], 8, 4, None);
    let reference = atx.niposts[0].challenge;
    atx.marriage_atx = Some(of_a.id);
    atx.previous_atxs.push(of_b.id);
    atx.niposts[0].posts.push(SubPostV2 {
        marriage_index: 1,
        prev_atx_index: 1,
        membership_leaf_index: 3,
        post: prove(&b.node_id(), &GOLDEN, &reference.0, SpaceUnits(4)),
        num_units: SpaceUnits(4),
    });
    assert!(all.check(&sign_v2(&a, atx)).is_ok());
}
