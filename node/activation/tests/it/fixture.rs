//! Activations whose proofs suit them.

use activation::validate::{Known, Refusal, View as _};
use proto::{
    activation::{
        Activation,
        v1::{ActivationTxV1, InnerActivationTxV1, NipostChallengeV1, NipostV1, PostMetadataV1},
        v2::{ActivationTxV2, InitialPartsV2, MarriageCertificate, MembershipProofV2, NipostChallengeV2, NipostV2, SubPostV2},
    },
    ids::{Address, AtxId, EdSignature, Hash32, NodeId, PoetProofRef},
    keys::IdentityKey,
    layers::EpochId,
    merkle::Tree,
    poet::{Leaves, MembershipProof},
    signing::{Domain, Signed as _},
    units::{Labels, SpaceUnits, VrfNonce},
};

use crate::network::{GOLDEN, NETWORK, Node, prove, rules, validator, vrf_nonce};

pub(crate) const NOW: EpochId = EpochId(9);
pub(crate) const NOBODY: AtxId = AtxId([0x99; 32]);

pub(crate) fn key(number: u8) -> IdentityKey {
    IdentityKey::from_seed(&[number; 32])
}

/// A node and what its tests make for it.
pub(crate) struct Fixture {
    pub(crate) node: Node,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self { node: Node::new() }
    }

    /// A round in which these are members, beside others; gives its name and where each of them stands.
    pub(crate) fn round(&self, members: &[Hash32], leaves: u64) -> (PoetProofRef, Tree) {
        let others = [Hash32([1; 32]), Hash32([2; 32]), Hash32([3; 32])];
        let tree = Tree::new(others.iter().chain(members).map(|member| member.0));
        let statement = Hash32(tree.root().try_into().expect("32 bytes"));
        (self.node.put_round(statement, Leaves(leaves)), tree)
    }

    pub(crate) fn commitment(&self, id: &NodeId) -> AtxId {
        self.node.knowledge.commitment(id).expect("readable").unwrap_or(GOLDEN)
    }

    /// An activation of version 1 whose proofs suit its challenge.
    pub(crate) fn v1(&self, who: &IdentityKey, challenge: NipostChallengeV1, units: u32, leaves: u64) -> InnerActivationTxV1 {
        let id = who.node_id();
        let (reference, tree) = self.round(&[challenge.hash().expect("encodable")], leaves);
        let nodes = tree.path(3).expect("a leaf").into_iter().map(|node| node.try_into().expect("32 bytes")).collect();
        let commitment = challenge.commitment_atx_id.unwrap_or_else(|| self.commitment(&id));
        let first = challenge.prev_atx_id.is_empty();
        InnerActivationTxV1 {
            challenge,
            coinbase: Address([4; 24]),
            num_units: SpaceUnits(units),
            nipost: Some(NipostV1 {
                membership: MembershipProof { nodes, leaf_index: 3 },
                post: Some(prove(&id, &commitment, &reference.0, SpaceUnits(units))),
                post_metadata: Some(PostMetadataV1 {
                    challenge: reference.0.into(),
                    labels_per_unit: Labels(rules().post.labels_per_unit),
                }),
            }),
            node_id: first.then_some(id),
            vrf_nonce: first.then_some(VrfNonce(vrf_nonce(&id))),
        }
    }

    pub(crate) fn first_challenge(who: &IdentityKey, units: u32) -> NipostChallengeV1 {
        NipostChallengeV1 {
            publish_epoch: EpochId(5),
            sequence: 0,
            prev_atx_id: AtxId::default(),
            positioning_atx_id: GOLDEN,
            commitment_atx_id: Some(GOLDEN),
            initial_post: Some(prove(&who.node_id(), &GOLDEN, &[0; 32], SpaceUnits(units))),
        }
    }

    pub(crate) fn first(&self, who: &IdentityKey) -> InnerActivationTxV1 {
        self.v1(who, Self::first_challenge(who, 4), 4, 100)
    }

    pub(crate) fn next_challenge(known: &Known) -> NipostChallengeV1 {
        NipostChallengeV1 {
            publish_epoch: EpochId(known.row.publish_epoch.0 + 1),
            sequence: known.row.sequence + 1,
            prev_atx_id: known.id,
            positioning_atx_id: known.id,
            commitment_atx_id: None,
            initial_post: None,
        }
    }

    pub(crate) fn next(&self, who: &IdentityKey, known: &Known) -> InnerActivationTxV1 {
        self.v1(who, Self::next_challenge(known), 4, 100)
    }

    pub(crate) fn check(&self, atx: &Activation) -> Result<Known, Refusal> {
        let validator = validator(&self.node);
        validator.check_alone(atx, NOW)?;
        validator.check_with_dependencies(atx)
    }

    pub(crate) fn accept(&self, atx: &Activation) -> Known {
        let known = self.check(atx).expect("valid");
        self.node.keep(known.clone(), atx);
        known
    }

    pub(crate) fn accept_first(&self, who: &IdentityKey) -> Known {
        self.accept(&sign_v1(who, self.first(who)))
    }

    /// A first activation of version 2.
    pub(crate) fn v2_first(&self, who: &IdentityKey, units: u32) -> ActivationTxV2 {
        let id = who.node_id();
        let post = prove(&id, &GOLDEN, &[0; 32], SpaceUnits(units));
        let mut atx = self.v2(&[(who, AtxId::default())], 5, units, Some(&post));
        atx.initial = Some(InitialPartsV2 { commitment_atx: GOLDEN, post });
        atx
    }

    /// An activation of version 2 by the first of these, who follow these activations, each with so many units.
    pub(crate) fn v2(
        &self,
        who: &[(&IdentityKey, AtxId)],
        publish: u32,
        units: u32,
        initial: Option<&proto::post::Proof>,
    ) -> ActivationTxV2 {
        let challenges = who.iter().map(|(_, previous)| NipostChallengeV2 {
            publish_epoch: EpochId(publish),
            prev_atx_id: *previous,
            positioning_atx_id: GOLDEN,
            initial_post: initial.cloned(),
        });
        let members: Vec<Hash32> = challenges.map(|challenge| challenge.hash().expect("encodable")).collect();
        let (reference, _) = self.round(&members, 200);
        // All leaves of the tree from the fourth on are proven; the three before them are what is missing.
        let others: Vec<[u8; 32]> = vec![proto::merkle::join(&[1; 32], &[2; 32]), [3; 32]];
        let nodes = match members.len() {
            1 => vec![others[1], others[0]],
            2 => vec![others[1], others[0], [0; 32], [0; 32]],
            _ => unreachable!("one or two"),
        };
        let posts = who.iter().enumerate().map(|(i, (who, _))| {
            let id = who.node_id();
            SubPostV2 {
                marriage_index: i as u32,
                prev_atx_index: i as u32,
                membership_leaf_index: 3 + i as u64,
                post: prove(&id, &self.commitment(&id), &reference.0, SpaceUnits(units)),
                num_units: SpaceUnits(units),
            }
        });
        ActivationTxV2 {
            publish_epoch: EpochId(publish),
            positioning_atx: GOLDEN,
            coinbase: Address([4; 24]),
            initial: None,
            previous_atxs: who.iter().map(|(_, previous)| *previous).filter(|id| !id.is_empty()).collect(),
            niposts: vec![NipostV2 { membership: MembershipProofV2 { nodes }, challenge: reference, posts: posts.collect() }],
            vrf_nonce: VrfNonce(vrf_nonce(&who[0].0.node_id())),
            marriages: Vec::new(),
            marriage_atx: None,
            smesher_id: who[0].0.node_id(),
            signature: EdSignature::default(),
        }
    }

    /// Two identities with first activations of epoch 5, married by one of them in epoch 6.
    pub(crate) fn couple(&self) -> (IdentityKey, IdentityKey, Known, Known, AtxId) {
        let (a, b) = (key(1), key(2));
        let first = self.accept_first(&a);
        let of_b = self.accept_first(&b);
        let mut wedding = self.v2(&[(&a, first.id)], 6, 4, None);
        wedding.marriages = vec![certificate(&a, &a, AtxId::default()), certificate(&b, &a, of_b.id)];
        let of_a = self.accept(&sign_v2(&a, wedding));
        let atx = of_a.id;
        (a, b, of_a, of_b, atx)
    }

    /// A valid activation of the couple.
    pub(crate) fn merged(&self, a: &IdentityKey, b: &IdentityKey, of_a: &Known, of_b: &Known) -> ActivationTxV2 {
        let mut atx = self.v2(&[(a, of_a.id), (b, of_b.id)], 8, 4, None);
        atx.marriage_atx = Some(of_a.id);
        atx
    }
}

pub(crate) fn certificate(who: &IdentityKey, publisher: &IdentityKey, reference_atx: AtxId) -> MarriageCertificate {
    MarriageCertificate { reference_atx, signature: who.sign(&NETWORK, Domain::Marriage, &publisher.node_id().0) }
}

pub(crate) fn sign_v1(who: &IdentityKey, inner: InnerActivationTxV1) -> Activation {
    let mut atx = ActivationTxV1 { inner, smesher_id: who.node_id(), signature: EdSignature::default() };
    atx.signature = who.sign(&NETWORK, Domain::Atx, &atx.signed_bytes().expect("encodable"));
    Activation::V1(Box::new(atx))
}

pub(crate) fn sign_v2(who: &IdentityKey, mut atx: ActivationTxV2) -> Activation {
    atx.signature = who.sign(&NETWORK, Domain::Atx, &atx.signed_bytes().expect("encodable"));
    Activation::V2(Box::new(atx))
}
