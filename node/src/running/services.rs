//! What identities and PoET clients need of the node: its databases, the guard, the proving services, the verifiers, the network.

use std::sync::Arc;

use activation::{
    builder::{Change, OwnActivation, PostAnswer, Registration, RoundProof, Saved, SignedActivation, Unsigned, Verdict},
    handler::{Handler, Outcome, Source},
    knowledge::Knowledge,
    poet::{Home, PoetError, Poets, SignedCertificate, Space},
    positioning::Positioning,
    post_service::PostServices,
    rows::{Certificate, Rows},
    smesher::{Answer, Services, SignError},
    timeline::Moment,
    validate::{Checked, PostClaim, PostError},
    verification::{Priority, Verifiers},
};
use p2p::{Network, Topic};
use proto::{
    activation::Activation,
    ids::{AtxId, EdSignature, Hash32, NodeId, PoetProofRef},
    keys::IdentityKey,
    layers::EpochId,
    poet::PoetProofMessage,
    post::Proof,
    scale,
    units::{SpaceUnits, TickHeight},
};
use store::guard::{Guard, GuardError, Statement};

use super::network::Late;

/// In words.
fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The node as its PoET clients see it.
pub(super) struct AtHome {
    pub(super) rows: Arc<Rows>,
    pub(super) knowledge: Arc<Knowledge>,
}

impl Home for AtHome {
    fn certificate(&self, id: &NodeId, certifier: &[u8; 32]) -> Result<Option<SignedCertificate>, String> {
        let found = self.rows.certificate(id, certifier).map_err(words)?;
        Ok(found.map(|Certificate { data, signature }| SignedCertificate { data: data.0, signature: signature.0.to_vec() }))
    }

    fn put_certificate(&self, id: &NodeId, certifier: &[u8; 32], certificate: &SignedCertificate) -> Result<(), String> {
        let SignedCertificate { data, signature } = certificate.clone();
        let signature = EdSignature(signature.try_into().map_err(|_| "a signature has 64 bytes".to_owned())?);
        self.rows.put_certificate(id, certifier, &Certificate { data: (&*data).into(), signature }).map_err(words)
    }

    fn remove_certificate(&self, id: &NodeId, certifier: &[u8; 32]) -> Result<(), String> {
        self.rows.remove_certificate(id, certifier).map_err(words)
    }

    fn space(&self, id: &NodeId) -> Result<Option<Space>, String> {
        if let Some(initial) = self.rows.load(id).map_err(words)?.initial {
            let (post, commitment, num_units) = (initial.post, initial.commitment, initial.num_units);
            return Ok(Some(Space { post, commitment, challenge: [0; 32], num_units }));
        }
        published_space(&self.knowledge, id).map_err(words)
    }

    fn keep(&self, message: &PoetProofMessage) -> Result<PoetProofRef, String> {
        self.knowledge.keep_poet(message).map_err(words)?;
        message.proof.reference().map_err(words)
    }
}

/// The proof of space in the last activation of an identity (activation.md section 4.2).
fn published_space(knowledge: &Knowledge, id: &NodeId) -> Result<Option<Space>, store::StoreError> {
    use activation::validate::View as _;

    let Some(last) = knowledge.last_of(id)? else { return Ok(None) };
    let (Some(row), Some(activation)) = (knowledge.atxs().get(&last.id)?, knowledge.activation(&last.id)?) else {
        return Ok(None);
    };
    let Some(commitment) = knowledge.commitment(id)? else { return Ok(None) };
    let proof = match activation {
        Activation::V1(atx) => atx.inner.nipost.and_then(|nipost| Some((nipost.post?, nipost.post_metadata?.challenge.as_ref().try_into().ok()?))),
        Activation::V2(atx) => atx.niposts.into_iter().next().and_then(|nipost| {
            let challenge = nipost.challenge.0;
            Some((nipost.posts.into_iter().next()?.post, challenge))
        }),
    };
    Ok(proof.map(|(post, challenge)| Space { post, commitment, challenge, num_units: row.effective_units }))
}

/// The bytes of the activation that an identity published in an epoch, if it did and they are here.
fn published(knowledge: &Knowledge, id: &NodeId, epoch: EpochId) -> Result<Option<Vec<u8>>, store::StoreError> {
    let Some(last) = knowledge.last_of(id)?.filter(|last| last.publish == epoch) else { return Ok(None) };
    Ok(knowledge.atxs().wire(&last.id)?.map(|(_, bytes)| bytes))
}

/// The node as its identities see it.
pub(super) struct ForIdentities {
    pub(super) rows: Arc<Rows>,
    pub(super) guard: Arc<Guard>,
    pub(super) handler: Handler,
    pub(super) posts: PostServices,
    pub(super) verifiers: Verifiers,
    pub(super) positioning: Arc<Positioning>,
    pub(super) poets: Arc<Poets>,
    pub(super) network: Late<Network>,
}

impl ForIdentities {
    async fn send(&self, bytes: Vec<u8>) -> Result<(), String> {
        let network = self.network.get().ok_or("the network is not there yet")?;
        network.publish(Topic::Atx, bytes).await.map_err(words)
    }
}

impl Services for ForIdentities {
    fn load(&self, id: &NodeId) -> Result<Saved, String> {
        self.rows.load(id).map_err(words)
    }

    fn save(&self, id: &NodeId, changes: &[Change]) -> Result<(), String> {
        self.rows.apply(id, changes).map_err(words)
    }

    fn own(&self, id: &NodeId) -> Result<Option<OwnActivation>, String> {
        self.handler.knowledge().last_of(id).map_err(words)
    }

    fn sign(&self, key: &IdentityKey, activation: &Unsigned) -> Result<(AtxId, EdSignature), SignError> {
        let id = activation.id().map_err(|error| SignError::Refused(error.to_string()))?;
        let statement = match activation {
            Unsigned::V1(atx) => Statement::atx_v1(atx.challenge.publish_epoch.0, atx.challenge.prev_atx_id, id),
            Unsigned::V2(atx) => Statement::atx_v2(atx.publish_epoch.0, &atx.previous_atxs, id),
        };
        let signature = self.guard.sign(key, &statement).map_err(|error| match error {
            GuardError::Conflict { .. } | GuardError::Barred { .. } => SignError::Refused(error.to_string()),
            GuardError::Store(_) => SignError::Failed(error.to_string()),
        })?;
        Ok((id, signature))
    }

    fn prove<'a>(&'a self, id: &'a NodeId, challenge: [u8; 32]) -> Answer<'a, Result<PostAnswer, String>> {
        Box::pin(async move { self.posts.prove(id, challenge).await.map_err(words) })
    }

    fn verify<'a>(&'a self, id: &'a NodeId, post: &'a Proof, commitment: AtxId, num_units: SpaceUnits) -> Answer<'a, Verdict> {
        Box::pin(async move {
            let claim =
                PostClaim { id: *id, commitment, challenge: [0; 32], units: num_units, proof: post, labels: Checked::All };
            match self.verifiers.verify(&claim, Priority::High).await {
                Ok(()) => Verdict::Valid,
                Err(PostError::Unavailable(error)) => {
                    tracing::warn!(identity = %id, error, "the initial proof of space could not be verified");
                    Verdict::Unknown
                }
                Err(error) => {
                    tracing::warn!(identity = %id, %error, "the initial proof of space is not valid");
                    Verdict::Invalid
                }
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
        challenge: &'a Hash32,
        until: Moment,
        proof_until: Moment,
    ) -> Answer<'a, Result<(String, Moment), PoetError>> {
        Box::pin(self.poets.register(poet, key, challenge, until, proof_until))
    }

    fn fetch<'a>(&'a self, registration: &'a Registration, until: Moment) -> Answer<'a, Result<RoundProof, PoetError>> {
        Box::pin(self.poets.fetch(registration, until))
    }

    fn publish<'a>(&'a self, signed: &'a SignedActivation) -> Answer<'a, Result<(), String>> {
        Box::pin(async move {
            let bytes = match &signed.activation {
                Activation::V1(atx) => scale::encode(&**atx),
                Activation::V2(atx) => scale::encode(&**atx),
            };
            let bytes = bytes.map_err(words)?;
            // judged here for the reason in words; the network asks again, and hears that it is known
            match self.handler.activation(&bytes, Source::Own).await {
                Outcome::Accept | Outcome::Known => self.send(bytes).await,
                Outcome::Ignore(reason) | Outcome::Reject(reason) => Err(reason.to_string()),
            }
        })
    }

    fn regossip<'a>(&'a self, id: &'a NodeId, epoch: EpochId) -> Answer<'a, Result<bool, String>> {
        Box::pin(async move {
            match published(self.handler.knowledge(), id, epoch).map_err(words)? {
                Some(bytes) => self.send(bytes).await.map(|()| true),
                None => Ok(false),
            }
        })
    }
}
