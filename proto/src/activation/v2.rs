//! Activations that married identities may share (types.md section 4.3). Their id is the root of a tree over their parts, so
//! that single parts can be shown to belong to them.

use serde::{Deserialize, Serialize};

use super::challenge_hash;
use crate::{
    ids::{Address, AtxId, EdSignature, Hash32, NodeId, PoetProofRef},
    json,
    layers::EpochId,
    merkle::{self, Tree},
    poet::MAX_MEMBERSHIP_NODES,
    post::Proof,
    scale::{self, Decode, Encode, EncodeError},
    signing::{Domain, Signed},
    units::{SpaceUnits, VrfNonce},
};

/// The most previous activations, marriages and proofs of space in one list.
pub const MAX_IDENTITIES: usize = 256;

/// The most rounds of PoETs that the identities may have been members of.
pub const MAX_NIPOSTS: usize = 4;

/// The leaf of the tree at which the marriages hang.
pub const MARRIAGES_LEAF: u64 = 7;

/// What the identities register with a PoET, as the hash of it (types.md section 4.4).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct NipostChallengeV2 {
    /// The epoch in which the activation will be published.
    pub publish_epoch: EpochId,
    /// The last activation; empty for the first.
    pub prev_atx_id: AtxId,
    /// The activation on whose ticks this one stands.
    pub positioning_atx_id: AtxId,
    /// The proof of space for the challenge of zeros; in a first activation only.
    pub initial_post: Option<Proof>,
}

impl NipostChallengeV2 {
    /// What is registered with a PoET.
    pub fn hash(&self) -> Result<Hash32, EncodeError> {
        challenge_hash(self)
    }
}

/// What only a first activation has.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct InitialPartsV2 {
    /// What the labels are bound to.
    pub commitment_atx: AtxId,
    /// The proof of space for the challenge of zeros.
    pub post: Proof,
}

/// Leads several challenges to the statement of a PoET round.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, Deserialize)]
pub struct MembershipProofV2 {
    /// Siblings in the order in which they are needed.
    #[scale(max = MAX_MEMBERSHIP_NODES)]
    #[serde(with = "json::base64_list")]
    pub nodes: Vec<[u8; 32]>,
}

/// The proof of space of one identity.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct SubPostV2 {
    /// Which of the married identities.
    pub marriage_index: u32,
    /// Which of the previous activations is this identity's.
    pub prev_atx_index: u32,
    /// Position of its challenge among the members of the PoET round.
    pub membership_leaf_index: u64,
    /// The proof.
    pub post: Proof,
    /// Its space.
    pub num_units: SpaceUnits,
}

/// Proofs of space and of the time they were held, by the identities that were members of one PoET round.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct NipostV2 {
    /// Leads their challenges to the statement of the round.
    pub membership: MembershipProofV2,
    /// The PoET proof.
    pub challenge: PoetProofRef,
    /// Their proofs of space.
    #[scale(max = MAX_IDENTITIES)]
    pub posts: Vec<SubPostV2>,
}

/// An identity's consent to be married to the publisher.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct MarriageCertificate {
    /// An activation of the identity; empty for the publisher itself.
    pub reference_atx: AtxId,
    /// The identity's signature under the publisher's id.
    pub signature: EdSignature,
}

/// An activation of one or more identities.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct ActivationTxV2 {
    /// The epoch of publication.
    pub publish_epoch: EpochId,
    /// The activation on whose ticks this one stands.
    pub positioning_atx: AtxId,
    /// The account that gets the rewards.
    pub coinbase: Address,
    /// In a first activation only.
    pub initial: Option<InitialPartsV2>,
    /// The last activations of the identities.
    #[scale(max = MAX_IDENTITIES)]
    pub previous_atxs: Vec<AtxId>,
    /// The proofs.
    #[scale(max = MAX_NIPOSTS)]
    pub niposts: Vec<NipostV2>,
    /// The VRF nonce of the publisher.
    pub vrf_nonce: VrfNonce,
    /// Identities that marry.
    #[scale(max = MAX_IDENTITIES)]
    pub marriages: Vec<MarriageCertificate>,
    /// The activation in which the identities of this one married.
    pub marriage_atx: Option<AtxId>,
    /// The publisher.
    pub smesher_id: NodeId,
    /// Its signature.
    pub signature: EdSignature,
}

fn root<L: AsRef<[u8]>>(leaves: impl IntoIterator<Item = L>) -> Vec<u8> {
    Tree::new(leaves).root().to_vec()
}

/// A tree whose list of leaves was filled up to `count` with leaves of zeros.
fn filled_tree(leaves: Vec<Vec<u8>>, count: usize) -> Tree {
    let missing = count.saturating_sub(leaves.len());
    Tree::new(leaves.into_iter().chain(std::iter::repeat_n(merkle::PADDING.to_vec(), missing)))
}

fn little_endian32(value: u64) -> Vec<u8> {
    let mut bytes = vec![0; 32];
    bytes[..8].copy_from_slice(&value.to_le_bytes());
    bytes
}

fn post_root(post: &Proof) -> Vec<u8> {
    root([&post.nonce.to_le_bytes()[..], &post.indices, &post.pow.to_le_bytes()])
}

impl SubPostV2 {
    /// Empty where the index of the previous activation points nowhere, as in a first activation: the id then does not cover
    /// this proof.
    pub fn root(&self, previous: &[AtxId]) -> Vec<u8> {
        let Some(previous) = previous.get(self.prev_atx_index as usize) else { return Vec::new() };
        root([
            &self.marriage_index.to_le_bytes()[..],
            &previous.0,
            &little_endian32(self.membership_leaf_index),
            &post_root(&self.post),
            &self.num_units.0.to_le_bytes(),
        ])
    }
}

impl NipostV2 {
    /// What the id covers of the proofs.
    pub fn root(&self, previous: &[AtxId]) -> Result<Vec<u8>, EncodeError> {
        let posts = self.posts.iter().map(|post| post.root(previous)).collect();
        let posts = filled_tree(posts, MAX_IDENTITIES);
        Ok(root([&scale::encode(&self.membership)?[..], &self.challenge.0, posts.root()]))
    }
}

impl MarriageCertificate {
    /// What the id covers of the certificate.
    pub fn root(&self) -> Vec<u8> {
        root([&self.reference_atx.0[..], &self.signature.0])
    }
}

impl ActivationTxV2 {
    /// The leaves of the tree over its parts.
    pub fn leaves(&self) -> Result<[Vec<u8>; 9], EncodeError> {
        let initial = self.initial.as_ref().map(|parts| root([&parts.commitment_atx.0[..], &post_root(&parts.post)]));
        let previous = self.previous_atxs.iter().map(|id| id.0.to_vec()).collect();
        let niposts = self.niposts.iter().map(|nipost| nipost.root(&self.previous_atxs)).collect::<Result<_, _>>()?;
        Ok([
            little_endian32(self.publish_epoch.0.into()),
            self.positioning_atx.0.to_vec(),
            self.coinbase.0.to_vec(),
            initial.unwrap_or_else(|| merkle::PADDING.to_vec()),
            filled_tree(previous, MAX_IDENTITIES).root().to_vec(),
            filled_tree(niposts, MAX_NIPOSTS).root().to_vec(),
            little_endian32(self.vrf_nonce.0),
            self.marriages_tree().root().to_vec(),
            self.marriage_atx.unwrap_or_default().0.to_vec(),
        ])
    }

    /// The tree over its parts.
    pub fn tree(&self) -> Result<Tree, EncodeError> {
        Ok(Tree::new(self.leaves()?))
    }

    /// The tree over its marriage certificates.
    pub fn marriages_tree(&self) -> Tree {
        filled_tree(self.marriages.iter().map(MarriageCertificate::root).collect(), MAX_IDENTITIES)
    }

    /// The id: the root of the tree over its parts.
    pub fn id(&self) -> Result<AtxId, EncodeError> {
        // the first leaf is not empty, so the root has 32 bytes
        Ok(AtxId::from_first(self.tree()?.root()))
    }

    /// All space of all identities; the sum wraps, as the network's does.
    pub fn total_num_units(&self) -> SpaceUnits {
        let posts = self.niposts.iter().flat_map(|nipost| &nipost.posts);
        SpaceUnits(posts.fold(0, |sum: u32, post| sum.wrapping_add(post.num_units.0)))
    }
}

impl Signed for ActivationTxV2 {
    const DOMAIN: Domain = Domain::Atx;

    fn signed_bytes(&self) -> Result<Vec<u8>, EncodeError> {
        Ok(self.id()?.0.to_vec())
    }

    fn signer(&self) -> &NodeId {
        &self.smesher_id
    }

    fn signature(&self) -> &EdSignature {
        &self.signature
    }
}
