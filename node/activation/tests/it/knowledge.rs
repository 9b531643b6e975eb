//! What is proven by activations of version 2, and how their identities are kept together.

use activation::{
    knowledge::{Kept, Knowledge},
    validate::{Known, View as _},
};
use proto::{
    activation::{Activation, v2::ActivationTxV2},
    ids::AtxId,
    keys::IdentityKey,
    layers::EpochId,
    units::SpaceUnits,
};
use store::{atxs::Saved, check::check, schema::Database};

use crate::{
    fixture::{Fixture, certificate, key, sign_v1, sign_v2},
    network::{GOLDEN, encode},
};

impl Fixture {
    fn take(&self, atx: &Activation) -> (Known, Kept) {
        let known = self.check(atx).expect("valid");
        (known.clone(), self.node.keep(known, atx))
    }

    fn sound(&self) -> bool {
        check(&self.node.memory, Database::State, &|| false).faults.is_empty()
    }
}

fn marked(all: &Fixture, who: &IdentityKey, atx: ActivationTxV2) -> bool {
    let (_, kept) = all.take(&sign_v2(who, atx));
    assert_eq!((kept.saved, kept.offence), (Saved::New, None));
    let malicious = all.node.knowledge.is_malicious(&who.node_id()).expect("readable");
    assert_eq!(malicious, kept.marked);
    // only this node counts it, and only until it ends
    assert_eq!(all.node.knowledge.malfeasance(&who.node_id()).expect("readable"), None);
    kept.marked
}

fn married(knowledge: &Knowledge, who: &IdentityKey) -> Vec<u8> {
    let marriage = knowledge.marriage(&who.node_id()).expect("readable").expect("married");
    let names: Vec<_> = (1..9).map(|n| (key(n).node_id(), n)).collect();
    let set = knowledge.married(marriage.set).expect("readable");
    set.iter().map(|id| names.iter().find(|(known, _)| known == id).expect("known").1).collect()
}

#[test]
fn a_marriage_is_kept_with_its_activation() {
    let all = Fixture::new();
    let (a, b, of_a, of_b, wedding) = all.couple();
    let knowledge = &all.node.knowledge;
    assert_eq!(married(knowledge, &b), [1, 2]);
    assert_eq!(knowledge.marriage(&b.node_id()).unwrap().unwrap().atx, wedding);
    assert!(all.sound());
    // both have a part in what they do together, and both go on from there
    let (merged, kept) = all.take(&sign_v2(&a, all.merged(&a, &b, &of_a, &of_b)));
    assert!(!kept.marked && all.sound());
    assert_eq!(merged.row.marriage, Some(wedding));
    for (who, nonce) in [(&a, true), (&b, false)] {
        let last = knowledge.last_of(&who.node_id()).unwrap().unwrap();
        assert_eq!((last.id, last.publish, last.vrf_nonce.is_some()), (merged.id, EpochId(8), nonce));
    }
    // all of it is on disk
    let again = Fixture { node: crate::network::Node::on(all.node.memory.clone()) };
    assert_eq!(married(&again.node.knowledge, &a), [1, 2]);
    // another couple comes, and then somebody marries one of each: who came first is first
    let (c, d) = (key(3), key(4));
    let (of_c, of_d) = (all.accept_first(&c), all.accept_first(&d));
    let mut second = all.v2(&[(&d, of_d.id)], 6, 4, None);
    second.marriages = vec![certificate(&d, &d, AtxId::default()), certificate(&c, &d, of_c.id)];
    assert!(!marked(&all, &d, second));
    assert_eq!(married(knowledge, &c), [4, 3]);
    let e = key(5);
    let of_e = all.accept_first(&e);
    let mut third = all.v2(&[(&e, of_e.id)], 6, 4, None);
    let consent = |who: &IdentityKey, of: &Known| certificate(who, &e, of.id);
    third.marriages = vec![consent(&c, &of_c), certificate(&e, &e, AtxId::default()), consent(&b, &of_b)];
    // which is forbidden to both of them, but the publisher is who is blamed
    assert!(marked(&all, &e, third));
    assert_eq!(married(knowledge, &e), [1, 2, 4, 3, 5]);
    assert!(all.sound());
}

#[test]
fn what_was_published_and_proven_is_found_again() {
    let all = Fixture::new();
    let (a, knowledge) = (key(1), &all.node.knowledge);
    assert_eq!(knowledge.last_proof(&a.node_id()).unwrap(), None);
    let first = all.accept_first(&a);
    // it grows, but only what counts convinces a certifier
    let grown = sign_v1(&a, all.v1(&a, Fixture::next_challenge(&first), 6, 100));
    let known = all.accept(&grown);
    let found = knowledge.published_in(&a.node_id(), EpochId(6)).unwrap();
    assert_eq!(found, Some((known.id, encode(&grown))));
    assert_eq!(knowledge.published_in(&a.node_id(), EpochId(7)).unwrap(), None);
    let Activation::V1(atx) = grown else { unreachable!() };
    let nipost = atx.inner.nipost.unwrap();
    let last = knowledge.last_proof(&a.node_id()).unwrap().unwrap();
    assert_eq!((last.commitment, last.units), (GOLDEN, SpaceUnits(4)));
    assert_eq!((Some(last.proof), &last.challenge[..]), (nipost.post, &*nipost.post_metadata.unwrap().challenge));
    let again = sign_v2(&a, all.v2(&[(&a, known.id)], 8, 5, None));
    all.accept(&again);
    let Activation::V2(atx) = again else { unreachable!() };
    let last = knowledge.last_proof(&a.node_id()).unwrap().unwrap();
    assert_eq!((last.challenge, last.proof), (atx.niposts[0].challenge.0, atx.niposts[0].posts[0].post.clone()));
}

#[test]
fn two_parts_in_one_epoch() {
    let all = Fixture::new();
    let (a, b, of_a, of_b, _) = all.couple();
    all.accept(&sign_v2(&a, all.merged(&a, &b, &of_a, &of_b)));
    // b alone in the same epoch
    assert!(marked(&all, &b, all.v2(&[(&b, of_b.id)], 8, 4, None)));
}

#[test]
fn a_set_has_one_activation_in_an_epoch() {
    let all = Fixture::new();
    let (a, b, of_a, of_b, wedding) = all.couple();
    let alone = |who: &IdentityKey, of: &Known| {
        let mut atx = all.v2(&[(who, of.id)], 8, 4, None);
        atx.marriage_atx = Some(wedding);
        atx
    };
    assert!(!marked(&all, &a, alone(&a, &of_a)));
    let mut second = alone(&b, &of_b);
    second.niposts[0].posts[0].marriage_index = 1;
    assert!(marked(&all, &b, second));
}

#[test]
fn two_after_the_same_one() {
    let all = Fixture::new();
    let a = key(1);
    let first = all.accept_first(&a);
    let second = all.accept(&sign_v2(&a, all.v2(&[(&a, first.id)], 6, 4, None)));
    assert!(!all.node.knowledge.is_malicious(&a.node_id()).unwrap());
    assert!(marked(&all, &a, all.v2(&[(&a, first.id)], 7, 4, None)));
    assert_ne!(second.id, GOLDEN);
}

#[test]
fn own_identities_are_not_marked() {
    let all = Fixture::new();
    let a = key(1);
    all.node.knowledge.add_own(a.node_id());
    let first = all.accept_first(&a);
    all.accept(&sign_v2(&a, all.v2(&[(&a, first.id)], 6, 4, None)));
    assert!(!marked(&all, &a, all.v2(&[(&a, first.id)], 7, 4, None)));
}

#[test]
fn what_cannot_be_shown_is_not_stored() {
    let all = Fixture::new();
    let a = key(1);
    let first = all.accept_first(&a);
    let second = sign_v1(&a, all.next(&a, &first));
    // an activation of a checkpoint, or of version 2, in the same epoch
    let other = sign_v2(&a, all.v2(&[(&a, first.id)], 6, 4, None));
    let known = all.check(&second).expect("valid");
    all.accept(&other);
    let bytes = encode(&second);
    let error = all.node.knowledge.keep(known, &second, &bytes, activation::timeline::Moment(5)).unwrap_err();
    assert!(error.to_string().contains("contradicts"), "{error}");
    assert_eq!(all.node.knowledge.atxs().get(&second.id().unwrap()).unwrap(), None);
}
