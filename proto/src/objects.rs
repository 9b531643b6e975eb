//! All objects of the network by name, for tools that are handed bytes and told what they are.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use crate::{
    activation::{
        ActiveSet,
        v1::{ActivationTxV1, NipostChallengeV1, PostMetadataV1},
        v2::{ActivationTxV2, MembershipProofV2, NipostChallengeV2, NipostV2},
    },
    address::{MultisigArguments, VaultArguments, WalletArguments},
    ballot::{Ballot, InnerBallot, Opinion, Votes},
    beacon::{FirstVotingMessage, FollowingVotingMessage, ProposalMessage, WeakCoinMessage},
    block::{Certificate, CertifyMessage, InnerBlock, Reward},
    fetch::{
        EpochAtxs, LayerData, LayerOpinion, MaliciousIds, MeshHashRequest, MeshHashes, OpinionRequest, RequestBatch,
        RequestMessage, ResponseBatch, ResponseMessage, TimeRequest, TimeResponse,
    },
    hare::{CompactIdRequest, CompactIdResponse, Hare3Message, Hare4Message, HareEligibilityGossip},
    malfeasance::{AtxProof, MalfeasanceGossip, MalfeasanceProof, MarryProof, ProofDoubleMarry},
    poet::{self, MembershipProof, PoetProof, PoetProofMessage},
    post::Proof,
    proposal::Proposal,
    scale::{self, Decode, DecodeError, Encode, EncodeError, Reader},
    transaction::{
        Account, RawTx, Transaction, TransactionResult, TransactionWithResult, TxHeader,
        raw::{Call, DrainVault, Payload, Spend},
    },
};

/// Why bytes cannot be shown as an object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// No object of that name.
    #[error("no kind of object is called {0:?}")]
    UnknownKind(String),
    /// The bytes are not such an object.
    #[error("at byte {offset}: {source}")]
    Decode {
        /// Where reading stopped.
        offset: usize,
        /// Why.
        source: DecodeError,
    },
    /// The object has no JSON form, or the JSON is none of such an object.
    #[error("JSON: {0}")]
    Json(String),
    /// The object is not within its limits.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// A kind of object.
pub struct Kind {
    /// Its name.
    pub name: &'static str,
    /// What it is called in `docs/spec/types.md`; accepted as a name as well.
    pub spec_name: &'static str,
    /// What it is.
    pub about: &'static str,
    show: fn(&[u8]) -> Result<Value, ObjectError>,
    read: fn(&Value) -> Result<Vec<u8>, ObjectError>,
    recode: fn(&[u8]) -> Result<Vec<u8>, DecodeError>,
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kind({})", self.name)
    }
}

impl Kind {
    /// The kind called `name`.
    pub fn find(name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| [kind.name, kind.spec_name].iter().any(|known| known.eq_ignore_ascii_case(name)))
    }

    /// The object in `bytes` as JSON: `{"kind", "bytes", "canonical", "id" (where it has one), "object"}`. `canonical` is false
    /// where the network accepts these bytes and would write others.
    pub fn to_json(&self, bytes: &[u8]) -> Result<Value, ObjectError> {
        let mut shown = (self.show)(bytes)?;
        shown["kind"] = self.name.into();
        Ok(shown)
    }

    /// The bytes of an object that is given as the `object` of [`Kind::to_json`].
    pub fn from_json(&self, object: &Value) -> Result<Vec<u8>, ObjectError> {
        (self.read)(object)
    }

    /// Decodes and encodes again.
    pub fn recode(&self, bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
        (self.recode)(bytes)
    }
}

/// The object called `kind` in `bytes` as JSON, see [`Kind::to_json`]. [`KINDS`] lists the kinds.
pub fn decode_any(kind: &str, bytes: &[u8]) -> Result<Value, ObjectError> {
    Kind::find(kind).ok_or_else(|| ObjectError::UnknownKind(kind.to_owned()))?.to_json(bytes)
}

type Id<T> = fn(&T) -> Result<Value, EncodeError>;

fn show<T: Encode + Decode + Serialize>(bytes: &[u8], id: Option<Id<T>>) -> Result<Value, ObjectError> {
    let mut reader = Reader::new(bytes);
    let decoded = T::decode(&mut reader);
    let offset = bytes.len() - reader.remaining();
    let error = |source| ObjectError::Decode { offset, source };
    let value = decoded.map_err(error)?;
    reader.finish().map_err(error)?;
    let encoded = scale::encode(&value)?;
    let mut shown = Map::new();
    shown.insert("bytes".to_owned(), bytes.len().into());
    shown.insert("canonical".to_owned(), (encoded == bytes).into());
    if let Some(id) = id {
        shown.insert("id".to_owned(), id(&value)?);
    }
    shown.insert("object".to_owned(), serde_json::to_value(&value).map_err(|e| ObjectError::Json(e.to_string()))?);
    Ok(Value::Object(shown))
}

fn read<T: Encode + DeserializeOwned>(object: &Value) -> Result<Vec<u8>, ObjectError> {
    let value = T::deserialize(object).map_err(|e| ObjectError::Json(e.to_string()))?;
    Ok(scale::encode(&value)?)
}

fn recode<T: Encode + Decode>(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    scale::encode(&scale::decode::<T>(bytes)?).map_err(|_| DecodeError::Invalid { what: "value, which has no encoding" })
}

/// One row of the table below.
macro_rules! kind {
    ($name:literal, $spec:literal, $about:literal, $type:ty) => {
        kind!(@ $name, $spec, $about, $type, None)
    };
    ($name:literal, $spec:literal, $about:literal, $type:ty, $id:expr) => {
        kind!(@ $name, $spec, $about, $type, Some($id))
    };
    (@ $name:literal, $spec:literal, $about:literal, $type:ty, $id:expr) => {
        Kind {
            name: $name,
            spec_name: $spec,
            about: $about,
            show: |bytes| show::<$type>(bytes, $id),
            read: read::<$type>,
            recode: recode::<$type>,
        }
    };
}

/// All kinds.
pub const KINDS: &[Kind] = &[
    kind!("atx-v1", "ActivationTxV1", "activation of one identity", ActivationTxV1, |atx| Ok(json!(atx.inner.id()?))),
    kind!("atx-v2", "ActivationTxV2", "activation of married identities", ActivationTxV2, |atx| Ok(json!(atx.id()?))),
    kind!("nipost-challenge-v1", "NIPostChallengeV1", "what is registered with a PoET", NipostChallengeV1, |challenge| {
        Ok(json!(challenge.hash()?))
    }),
    kind!("nipost-challenge-v2", "NIPostChallengeV2", "what is registered with a PoET", NipostChallengeV2, |challenge| {
        Ok(json!(challenge.hash()?))
    }),
    kind!("nipost-v2", "NiPostsV2", "proofs of an activation of married identities", NipostV2),
    kind!("post", "PostV1", "proof of space", Proof),
    kind!("post-metadata", "PostMetadataV1", "what a proof of space was made for", PostMetadataV1),
    kind!("membership", "MerkleProof", "membership in a PoET round", MembershipProof),
    kind!("membership-v1", "MerkleProofV1", "membership in a PoET round, in an activation", MembershipProof),
    kind!("membership-v2", "MerkleProofV2", "membership of several identities in a PoET round", MembershipProofV2),
    kind!("active-set", "EpochActiveSet", "activations that count in an epoch", ActiveSet, |set| Ok(json!(set.hash()))),
    kind!("poet-proof", "PoetProof", "proof of elapsed time", PoetProof, |proof| Ok(json!(proof.reference()?))),
    kind!("poet-proof-message", "PoetProofMessage", "proof of elapsed time with its origin", PoetProofMessage, |message| {
        Ok(json!(message.proof.reference()?))
    }),
    kind!("poet-certificate", "PoetCertificate", "certificate for registering with a PoET", poet::Certificate),
    kind!("ballot", "Ballot", "votes of a smesher in a layer", Ballot, |ballot| Ok(json!(ballot.inner.id()?))),
    kind!("inner-ballot", "InnerBallot", "what the id of a ballot covers", InnerBallot, |ballot| Ok(json!(ballot.id()?))),
    kind!("votes", "Votes", "votes of a ballot", Votes),
    kind!("opinion", "Opinion", "votes with the opinion they amount to", Opinion),
    kind!("proposal", "Proposal", "ballot with transactions", Proposal, |proposal| Ok(json!(proposal.id()?))),
    kind!("block", "InnerBlock", "block", InnerBlock, |block| Ok(json!(block.id()?))),
    kind!("reward", "Reward", "what was paid to a smesher for a layer", Reward),
    kind!("certify", "CertifyMessage", "certifier's word for a block", CertifyMessage),
    kind!("certificate", "Certificate", "certificate of a block", Certificate),
    kind!("hare3", "hare3.Message", "hare message", Hare3Message, |message| Ok(json!(message.body.hash()?))),
    kind!("hare4", "hare4.Message", "hare message with short names", Hare4Message, |message| Ok(json!(message.body.hash()?))),
    kind!("hare4-request", "hare4.CompactIdRequest", "request for the full names in a hare message", CompactIdRequest),
    kind!("hare4-response", "hare4.CompactIdResponse", "full names in a hare message", CompactIdResponse),
    kind!("hare-eligibility", "HareEligibilityGossip", "seats in a hare round", HareEligibilityGossip),
    kind!("beacon-proposal", "beacon.ProposalMessage", "proposal of a beacon", ProposalMessage),
    kind!("beacon-first-vote", "beacon.FirstVotingMessage", "first vote on the beacon", FirstVotingMessage),
    kind!("beacon-following-vote", "beacon.FollowingVotingMessage", "later vote on the beacon", FollowingVotingMessage),
    kind!("weak-coin", "weakcoin.Message", "throw of the weak coin", WeakCoinMessage),
    kind!("malfeasance", "MalfeasanceProof", "proof that an identity broke a rule", MalfeasanceProof),
    kind!("malfeasance-gossip", "MalfeasanceGossip", "the same as it is sent", MalfeasanceGossip),
    kind!("atx-proof", "ATXProof", "proof of the second format", AtxProof),
    kind!("marry-proof", "MarryProof", "proof of a marriage", MarryProof),
    kind!("double-marry-proof", "ProofDoubleMarry", "proof of two marriages", ProofDoubleMarry),
    kind!("raw-transaction", "RawTx", "bytes of a transaction and its id", RawTx),
    kind!("transaction-header", "TxHeader", "what parsing finds in a transaction", TxHeader),
    kind!("transaction", "Transaction", "transaction, parsed or not", Transaction),
    kind!("transaction-result", "TransactionResult", "what became of a transaction", TransactionResult),
    kind!("transaction-with-result", "TransactionWithResult", "transaction and what became of it", TransactionWithResult),
    kind!("call", "Call", "transaction without its signatures", Call),
    kind!("payload", "tx.Payload", "number and price of a transaction", Payload),
    kind!("spend", "wallet.SpendArguments", "what sends money", Spend),
    kind!("drain-vault", "vesting.DrainVaultArguments", "what sends money from a vault", DrainVault),
    kind!("account", "Account", "state of an account", Account),
    kind!("wallet-arguments", "wallet.SpawnArguments", "what spawns a wallet", WalletArguments),
    kind!("multisig-arguments", "multisig.SpawnArguments", "what spawns a multisig or vesting account", MultisigArguments),
    kind!("vault-arguments", "vault.SpawnArguments", "what spawns a vault", VaultArguments),
    kind!("request", "RequestMessage", "request for an object", RequestMessage),
    kind!("response", "ResponseMessage", "an object that was asked for", ResponseMessage),
    kind!("request-batch", "RequestBatch", "several requests", RequestBatch),
    kind!("response-batch", "ResponseBatch", "several answers", ResponseBatch),
    kind!("mesh-hash-request", "MeshHashRequest", "request for hashes of the mesh", MeshHashRequest),
    kind!("mesh-hashes", "MeshHashes", "hashes of the mesh", MeshHashes),
    kind!("malicious-ids", "MaliciousIDs", "identities that broke rules", MaliciousIds),
    kind!("epoch-atxs", "EpochData(fetch)", "activations of an epoch", EpochAtxs),
    kind!("layer-data", "LayerData", "ballots of a layer", LayerData),
    kind!("opinion-request", "OpinionRequest", "request for what a peer holds of a layer", OpinionRequest),
    kind!("layer-opinion", "LayerOpinion", "what a peer holds of a layer", LayerOpinion),
    kind!("time-request", "TimeRequest", "request for the time", TimeRequest),
    kind!("time-response", "TimeResponse", "time at a peer", TimeResponse),
];
