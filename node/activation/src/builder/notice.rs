//! What a builder tells people and programs.

use std::fmt;

use proto::{
    ids::{AtxId, Hash32},
    layers::EpochId,
    poet::Leaves,
};

use crate::timeline::Moment;

/// What people and programs are told.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// Waits until the node knows the activations of the network.
    WaitingForSync,
    /// Nothing to do before registration opens for this publish epoch.
    WaitingForRegistration {
        /// The epoch.
        publish: EpochId,
        /// When it opens.
        until: Moment,
    },
    /// A PoET server took the challenge.
    Registered {
        /// The server.
        poet: String,
        /// Its round.
        round: String,
    },
    /// Waits for the end of PoET rounds.
    WaitingForProof {
        /// The epoch.
        publish: EpochId,
        /// When the last of them ends.
        until: Moment,
    },
    /// A proof of elapsed time came.
    ProofFetched {
        /// The server.
        poet: String,
        /// Its round.
        round: String,
        /// How much time.
        leaves: Leaves,
    },
    /// The best of them was chosen.
    BestProof {
        /// The server.
        poet: String,
        /// Its round.
        round: String,
        /// How much time.
        leaves: Leaves,
    },
    /// The proving service is asked; the post state is Proving.
    Proving {
        /// What is proven for.
        challenge: [u8; 32],
    },
    /// The proving service is done; the post state is Idle.
    Proven {
        /// What was proven for.
        challenge: [u8; 32],
    },
    /// The proving service failed and will be asked again; the post state remains Proving.
    ProvingFailed {
        /// What was to be proven for.
        challenge: [u8; 32],
    },
    /// What was begun for an epoch is given up; the post state is Idle.
    Abandoned {
        /// The epoch.
        publish: EpochId,
    },
    /// Everything is there, the publish epoch is not.
    WaitingForEpoch {
        /// The epoch.
        publish: EpochId,
        /// When it begins.
        until: Moment,
    },
    /// An activation is out.
    Published {
        /// Its epoch.
        publish: EpochId,
        /// Its id.
        id: AtxId,
    },
    /// Something failed and will be tried again.
    Trouble {
        /// In words.
        what: String,
        /// When it is tried again.
        again: Moment,
    },
}

impl Notice {
    /// The name of the event in deployed nodes (activation.md section 11); where they have none, one of the same kind.
    pub fn name(&self) -> &'static str {
        match self {
            Self::WaitingForSync => "WaitingForATXSync",
            Self::WaitingForRegistration { .. } => "WaitingForPoETRegistrationWindow",
            Self::Registered { .. } => "RegisteredInPoet",
            Self::WaitingForProof { .. } => "WaitingForPoETRoundEnd",
            Self::ProofFetched { .. } => "ProofDownloadedFromPoet",
            Self::BestProof { .. } => "BestProofSelected",
            Self::Proving { .. } => "PostStart",
            Self::Proven { .. } => "PostComplete",
            Self::ProvingFailed { .. } => "PostFailure",
            Self::Abandoned { .. } => "ChallengeDropped",
            Self::WaitingForEpoch { .. } => "WaitingForPublishEpoch",
            Self::Published { .. } => "AtxPublished",
            Self::Trouble { .. } => "Retrying",
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WaitingForSync => f.write_str("waits until the activations of the network are known"),
            Self::WaitingForRegistration { publish, until } => {
                write!(f, "registration for epoch {publish} opens at {until}")
            }
            Self::Registered { poet, round } => write!(f, "registered in round {round} of {poet}"),
            Self::WaitingForProof { publish, until } => {
                write!(f, "waits for the end of the PoET rounds for epoch {publish} at {until}")
            }
            Self::ProofFetched { poet, round, leaves } => write!(f, "round {round} of {poet} has {leaves} leaves"),
            Self::BestProof { poet, round, leaves } => {
                write!(f, "round {round} of {poet} with {leaves} leaves is the best one")
            }
            Self::Proving { challenge } => write!(f, "asks for a proof of space for {}", Hash32(*challenge).short()),
            Self::Proven { challenge } => write!(f, "space is proven for {}", Hash32(*challenge).short()),
            Self::ProvingFailed { challenge } => write!(f, "no proof of space for {}", Hash32(*challenge).short()),
            Self::Abandoned { publish } => write!(f, "what was begun for epoch {publish} is given up"),
            Self::WaitingForEpoch { publish, until } => write!(f, "waits for epoch {publish}, which begins at {until}"),
            Self::Published { publish, id } => write!(f, "activation {id} is published in epoch {publish}"),
            Self::Trouble { what, again } => write!(f, "{what}; tries again at {again}"),
        }
    }
}
