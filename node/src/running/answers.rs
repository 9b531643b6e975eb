//! The node as its API sees it.

use std::{sync::Arc, time::SystemTime};

use ::activation::{
    builder::Notice,
    knowledge::Knowledge,
    positioning::Positioning,
    smesher::{self, Smeshers},
};
use api::{
    events::Events,
    node::{Activation, Answer, Constants, Identity, IdentityState, Malfeasance, Node, Peer, QueryError, Refused, Status},
};
use p2p::Network;
use proto::{
    activation,
    grpc::spacemesh_v1 as wire,
    ids::{Address, AtxId, NodeId},
    layers::LayerId,
    malfeasance::{MalfeasanceProof, Offence},
    scale,
};
use tokio::sync::watch;

use super::network::Late;

/// What the API is answered from.
pub(super) struct Answers {
    pub(super) constants: Constants,
    pub(super) events: Events,
    pub(super) knowledge: Arc<Knowledge>,
    pub(super) positioning: Arc<Positioning>,
    pub(super) smeshers: Smeshers,
    pub(super) network: Late<Network>,
    pub(super) synced: watch::Receiver<bool>,
}

/// The deployed name of what an identity is doing.
fn state(status: &smesher::Status) -> IdentityState {
    match status.state.as_ref().map(|(_, notice)| notice) {
        None => IdentityState::Unspecified,
        Some(Notice::WaitingForSync) => IdentityState::WaitForAtxSynced,
        Some(Notice::WaitingForRegistration { .. }) => IdentityState::WaitingForPoetRegistrationWindow,
        Some(Notice::Registered { .. }) => IdentityState::PoetRegistered,
        Some(Notice::WaitingForProof { .. }) => IdentityState::WaitForPoetRoundEnd,
        Some(Notice::ProofFetched { .. } | Notice::BestProof { .. }) => IdentityState::PoetProofReceived,
        Some(Notice::Proving { .. }) => IdentityState::GeneratingPostProof,
        Some(Notice::Proven { .. }) => IdentityState::PostProofReady,
        Some(Notice::WaitingForEpoch { .. }) => IdentityState::AtxReady,
        Some(Notice::Published { .. }) => IdentityState::AtxBroadcasted,
        Some(Notice::ProvingFailed { .. } | Notice::Abandoned { .. } | Notice::Trouble { .. }) => IdentityState::Retrying,
    }
}

fn query(error: impl std::fmt::Display) -> QueryError {
    QueryError(error.to_string())
}

impl Node for Answers {
    fn constants(&self) -> &Constants {
        &self.constants
    }

    fn events(&self) -> &Events {
        &self.events
    }

    fn status(&self) -> Status {
        let synced = *self.synced.borrow();
        let latest = if synced { self.constants.timeline.layer_at(self.now()) } else { LayerId::default() };
        Status { connected_peers: self.peers().len(), synced, latest, applied: LayerId::default() }
    }

    fn peer_id(&self) -> String {
        self.network.get().map(|network| network.id().to_string()).unwrap_or_default()
    }

    fn peers(&self) -> Vec<Peer> {
        let now = SystemTime::now();
        let peers = self.network.get().map(|network| network.peers()).unwrap_or_default().into_iter();
        let peers = peers.map(|peer| Peer {
            id: peer.id.to_string(),
            address: peer.address.to_string(),
            outbound: peer.outbound,
            connected: now.duration_since(peer.since).unwrap_or_default(),
        });
        peers.collect()
    }

    fn identities(&self) -> Vec<Identity> {
        let all = self.smeshers.status().into_iter().map(|status| {
            let published = status.published.map(|(_, id)| id);
            Identity {
                id: status.id,
                state: state(&status),
                publish: status.publish,
                last_error: status.trouble.map(|(_, what)| what),
                deadline: status.deadline.map(|(what, at)| (what.to_owned(), at)),
                last_activation: published.or_else(|| self.knowledge.last_of(&status.id).ok().flatten().map(|last| last.id)),
                name: status.name,
            }
        });
        all.collect()
    }

    fn coinbase(&self) -> Option<Address> {
        self.smeshers.coinbase()
    }

    fn set_coinbase(&self, coinbase: Address) -> Answer<'_, ()> {
        self.smeshers.set_coinbase(coinbase);
        Box::pin(async { Ok(()) })
    }

    fn is_smeshing(&self) -> Result<bool, Refused> {
        Err(Refused::NotSupervised)
    }

    fn start_smeshing(&self, _: Address, _: wire::PostSetupOpts) -> Answer<'_, ()> {
        Box::pin(async { Err(Refused::NotSupervised) })
    }

    fn stop_smeshing(&self, _: bool) -> Answer<'_, ()> {
        Box::pin(async { Err(Refused::NotSupervised) })
    }

    fn post_setup(&self) -> wire::PostSetupStatus {
        // the data of remote services is not set up here
        wire::PostSetupStatus { state: wire::post_setup_status::State::NotStarted.into(), ..Default::default() }
    }

    fn post_providers(&self, _: bool) -> Answer<'_, Vec<wire::PostSetupProvider>> {
        // devices are the business of `post-init`, on the machine that makes the data
        Box::pin(async { Ok(Vec::new()) })
    }

    fn activation(&self, id: &AtxId) -> Result<Option<Activation>, QueryError> {
        let Some(row) = self.knowledge.atxs().get(id).map_err(query)? else { return Ok(None) };
        let previous = match self.knowledge.activation(id).map_err(query)? {
            Some(activation::Activation::V1(atx)) => vec![atx.inner.challenge.prev_atx_id],
            Some(activation::Activation::V2(atx)) => atx.previous_atxs,
            None => Vec::new(),
        };
        Ok(Some(Activation {
            id: *id,
            publish: row.publish_epoch,
            smesher: row.smesher,
            coinbase: row.coinbase,
            previous: previous.into_iter().filter(|id| !id.is_empty()).collect(),
            num_units: row.effective_units,
            sequence: row.sequence,
            weight: row.weight,
            height: row.height(),
        }))
    }

    fn highest_activation(&self) -> Result<Option<Activation>, QueryError> {
        let id = self.positioning.highest().map_err(query)?;
        self.activation(&id)
    }

    fn malfeasance(&self, id: &NodeId) -> Result<Option<Malfeasance>, QueryError> {
        use wire::malfeasance_proof::MalfeasanceType as Kind;

        let found = self.knowledge.malfeasance(id).map_err(query)?;
        let Some((_, bytes)) = found else { return Ok(None) };
        let proof: MalfeasanceProof = scale::decode(&bytes).map_err(query)?;
        let (kind, info) = match &proof.offence {
            Offence::MultipleAtxs(_) => (Kind::MalfeasanceAtx, "two activations in one epoch"),
            Offence::MultipleBallots(_) => (Kind::MalfeasanceBallot, "two ballots in one layer"),
            Offence::HareEquivocation(_) => (Kind::MalfeasanceHare, "two messages in one round of hare"),
            Offence::InvalidPostIndex(_) => (Kind::MalfeasancePostIndex, "a proof of space with a bad label"),
            Offence::InvalidPrevAtx(_) => (Kind::MalfeasanceIncorrectPrevAtx, "two activations after the same one"),
        };
        Ok(Some(Malfeasance { layer: proof.layer, kind, info: info.to_owned() }))
    }
}
