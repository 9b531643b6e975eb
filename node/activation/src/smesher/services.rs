//! What identities need of the rest of the node.

use std::pin::Pin;

use proto::{
    ids::{AtxId, EdSignature, NodeId},
    keys::IdentityKey,
    layers::EpochId,
    post::Proof,
    units::{SpaceUnits, TickHeight},
};

use crate::{
    builder::{Change, OwnActivation, PostAnswer, Registration, RoundProof, Saved, SignedActivation, Unsigned, Verdict},
    poet::{PoetError, Submission},
    timeline::Moment,
};

/// An answer that takes its time. Whoever drops it wants it no longer.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why an activation is not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// It must not be, now or ever.
    #[error("{0}")]
    Refused(String),
    /// It could not be found out; the same question may be asked again.
    #[error("{0}")]
    Failed(String),
}

/// What identities need of the rest of the node. Errors are in words, for people. The first methods wait for the disk and are called
/// where that does no harm.
pub trait Services: Send + Sync + 'static {
    /// The rows of an identity.
    fn load(&self, id: &NodeId) -> Result<Saved, String>;

    /// Changes the rows of an identity, all at once; they survive a loss of power when this returns.
    fn save(&self, id: &NodeId, changes: &[Change]) -> Result<(), String>;

    /// The last activation in which an identity has a part: of the latest epoch, and of those the one received last.
    fn own(&self, id: &NodeId) -> Result<Option<OwnActivation>, String>;

    /// Signs an activation, through the guard.
    fn sign(&self, key: &IdentityKey, activation: &Unsigned) -> Result<(AtxId, EdSignature), SignError>;

    /// A proof of space by the identity's proving service, whenever that comes.
    fn prove<'a>(&'a self, id: &'a NodeId, challenge: [u8; 32]) -> Answer<'a, Result<PostAnswer, String>>;

    /// No proof is needed now: the proving service may rest.
    fn set_idle(&self, id: &NodeId);

    /// Verifies all labels of an initial proof of space.
    fn verify<'a>(&'a self, id: &'a NodeId, post: &'a Proof, commitment: AtxId, num_units: SpaceUnits) -> Answer<'a, Verdict>;

    /// The highest activation published before `publish` whose proofs are valid, those of `trusted` being taken for valid; none for
    /// the golden one.
    fn positioning<'a>(
        &'a self,
        publish: EpochId,
        trusted: &'a NodeId,
        until: Option<Moment>,
    ) -> Answer<'a, Option<(AtxId, TickHeight)>>;

    /// Gets a certificate from a PoET server's certifier.
    fn certify<'a>(&'a self, poet: &'a str, id: &'a NodeId) -> Answer<'a, Result<(), PoetError>>;

    /// Registers a challenge with a PoET server: the round and its end.
    fn register<'a>(
        &'a self,
        poet: &'a str,
        key: &'a IdentityKey,
        submission: &'a Submission,
    ) -> Answer<'a, Result<(String, Moment), PoetError>>;

    /// The proof of a round once it is over.
    fn fetch<'a>(&'a self, registration: &'a Registration, until: Moment) -> Answer<'a, Result<RoundProof, PoetError>>;

    /// Publishes an activation, through the node's own validation.
    fn publish<'a>(&'a self, activation: &'a SignedActivation) -> Answer<'a, Result<(), String>>;

    /// Sends the activation that an identity published in an epoch again; whether there is one.
    fn regossip<'a>(&'a self, id: &'a NodeId, epoch: EpochId) -> Answer<'a, Result<bool, String>>;
}
