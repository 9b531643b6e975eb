//! The parts of a node that its identities use, as one.

use std::sync::Arc;

use proto::{
    activation::Activation,
    ids::{AtxId, EdSignature, NodeId},
    keys::IdentityKey,
    layers::EpochId,
    post::Proof,
    scale::{self, EncodeError},
    units::{SpaceUnits, TickHeight},
};
use store::guard::{Guard, GuardError, Statement};
use tokio::task::spawn_blocking;

use super::{Answer, Services, SignError};
use crate::{
    builder::{Change, OwnActivation, PostAnswer, Registration, RoundProof, Saved, SignedActivation, Unsigned, Verdict},
    handler::{Handler, Outcome, Source},
    poet::{PoetError, Poets, Submission},
    positioning::Positioning,
    post_service::PostServices,
    rows::Rows,
    timeline::Moment,
    validate::{Checked, PostClaim, PostError, Proofs},
};

/// The network as those see it who have something to publish.
pub trait Publish: Send + Sync {
    /// Sends an activation to the peers; an error, in words, if nobody took it.
    fn publish<'a>(&'a self, bytes: &'a [u8]) -> Answer<'a, Result<(), String>>;
}

/// The proving services of a node.
pub trait Prove: Send + Sync {
    /// A proof by the service of an identity, whenever that is there; an error, in words, if it says that there is none.
    fn prove<'a>(&'a self, id: &'a NodeId, challenge: [u8; 32]) -> Answer<'a, Result<PostAnswer, String>>;

    /// No proof is needed now.
    fn set_idle(&self, id: &NodeId);
}

/// What identities need of a node.
pub struct Parts {
    /// What they keep.
    pub rows: Rows,
    /// What signs for them.
    pub guard: Arc<Guard>,
    /// What judges activations, their own too, and knows those there are.
    pub handler: Handler,
    /// What finds activations to stand on.
    pub positioning: Arc<Positioning>,
    /// What verifies initial proofs.
    pub proofs: Arc<dyn Proofs + Send + Sync>,
    /// What makes proofs.
    pub provers: Arc<dyn Prove>,
    /// The PoET servers.
    pub poets: Arc<Poets>,
    /// The network.
    pub network: Arc<dyn Publish>,
}

fn encode(activation: &Activation) -> Result<Vec<u8>, EncodeError> {
    match activation {
        Activation::V1(atx) => scale::encode(&**atx),
        Activation::V2(atx) => scale::encode(&**atx),
    }
}

impl Parts {
    async fn send(&self, signed: &SignedActivation) -> Result<(), String> {
        let bytes = encode(&signed.activation).map_err(|e| e.to_string())?;
        match self.handler.activation(&bytes, Source::Own).await {
            Outcome::Accept | Outcome::Known => self.network.publish(&bytes).await,
            Outcome::Ignore(reason) | Outcome::Reject(reason) => Err(reason.to_string()),
        }
    }
}

impl Services for Parts {
    fn load(&self, id: &NodeId) -> Result<Saved, String> {
        self.rows.load(id).map_err(|e| e.to_string())
    }

    fn save(&self, id: &NodeId, changes: &[Change]) -> Result<(), String> {
        self.rows.apply(id, changes).map_err(|e| e.to_string())
    }

    fn own(&self, id: &NodeId) -> Result<Option<OwnActivation>, String> {
        self.handler.knowledge().last_of(id).map_err(|e| e.to_string())
    }

    fn sign(&self, key: &IdentityKey, activation: &Unsigned) -> Result<(AtxId, EdSignature), SignError> {
        let id = activation.id().map_err(|e| SignError::Refused(e.to_string()))?;
        let statement = match activation {
            Unsigned::V1(inner) => Statement::atx_v1(inner.challenge.publish_epoch.0, inner.challenge.prev_atx_id, id),
            Unsigned::V2(atx) => Statement::atx_v2(atx.publish_epoch.0, &atx.previous_atxs, id),
        };
        match self.guard.sign(key, &statement) {
            Ok(signature) => Ok((id, signature)),
            Err(e @ (GuardError::Conflict { .. } | GuardError::Barred { .. })) => Err(SignError::Refused(e.to_string())),
            Err(e @ GuardError::Store(_)) => Err(SignError::Failed(e.to_string())),
        }
    }

    fn prove<'a>(&'a self, id: &'a NodeId, challenge: [u8; 32]) -> Answer<'a, Result<PostAnswer, String>> {
        self.provers.prove(id, challenge)
    }

    fn set_idle(&self, id: &NodeId) {
        self.provers.set_idle(id);
    }

    fn verify<'a>(&'a self, id: &'a NodeId, post: &'a Proof, commitment: AtxId, num_units: SpaceUnits) -> Answer<'a, Verdict> {
        let (proofs, id, post) = (self.proofs.clone(), *id, post.clone());
        Box::pin(async move {
            let verified = spawn_blocking(move || {
                let labels = Checked::All;
                proofs.post(&PostClaim { id, commitment, challenge: [0; 32], units: num_units, proof: &post, labels })
            });
            match verified.await {
                Ok(Ok(())) => Verdict::Valid,
                Ok(Err(PostError::Index(_) | PostError::Invalid(_))) => Verdict::Invalid,
                Ok(Err(PostError::Unavailable(_))) | Err(_) => Verdict::Unknown,
            }
        })
    }

    fn positioning<'a>(
        &'a self,
        publish: EpochId,
        trusted: &'a NodeId,
        until: Option<Moment>,
    ) -> Answer<'a, Option<(AtxId, TickHeight)>> {
        Box::pin(self.positioning.find(publish, *trusted, until))
    }

    fn certify<'a>(&'a self, poet: &'a str, id: &'a NodeId) -> Answer<'a, Result<(), PoetError>> {
        Box::pin(self.poets.certify(poet, id))
    }

    fn register<'a>(
        &'a self,
        poet: &'a str,
        key: &'a IdentityKey,
        submission: &'a Submission,
    ) -> Answer<'a, Result<(String, Moment), PoetError>> {
        Box::pin(self.poets.register(poet, key, submission))
    }

    fn fetch<'a>(&'a self, registration: &'a Registration, until: Moment) -> Answer<'a, Result<RoundProof, PoetError>> {
        Box::pin(self.poets.fetch(registration, until))
    }

    fn publish<'a>(&'a self, activation: &'a SignedActivation) -> Answer<'a, Result<(), String>> {
        Box::pin(self.send(activation))
    }

    fn regossip<'a>(&'a self, id: &'a NodeId, epoch: EpochId) -> Answer<'a, Result<bool, String>> {
        let (knowledge, id) = (self.handler.knowledge().clone(), *id);
        Box::pin(async move {
            let found = spawn_blocking(move || knowledge.published_in(&id, epoch));
            let Some((_, bytes)) = found.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())? else { return Ok(false) };
            self.network.publish(&bytes).await.map(|()| true)
        })
    }
}

impl Prove for PostServices {
    fn prove<'a>(&'a self, id: &'a NodeId, challenge: [u8; 32]) -> Answer<'a, Result<PostAnswer, String>> {
        Box::pin(async move { Self::prove(self, id, challenge).await.map_err(|e| e.to_string()) })
    }

    fn set_idle(&self, id: &NodeId) {
        Self::set_idle(self, id);
    }
}
