//! What identities sign, and what contradicts it.

use std::fmt;

use proto::{
    ids::{AtxId, NodeId},
    scale::Writer,
    signing::Domain,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Bar;

/// What stands for a statement in the history: the id of an activation, BLAKE3 of the signed message of anything else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut bytes = [0; 32];
        let text = String::deserialize(from)?;
        hex::decode_to_slice(&text, &mut bytes).map_err(|e| serde::de::Error::custom(format!("a digest: {e}")))?;
        Ok(Self(bytes))
    }
}

/// A place that one statement of an identity can take (types.md section 10.1).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Slot {
    /// The activation published in an epoch.
    Atx {
        /// The publish epoch.
        epoch: u32,
    },
    /// The activation that follows another one; the first follows the id of zeros.
    AtxAfter {
        /// The activation it follows, in hex.
        previous: Digest,
    },
    /// The ballot of a layer.
    Ballot {
        /// The layer.
        layer: u32,
    },
    /// The proposal of a layer.
    Proposal {
        /// The layer.
        layer: u32,
    },
    /// The hare message of a round.
    Hare {
        /// The layer.
        layer: u32,
        /// The absolute round.
        round: u32,
    },
    /// The vote for the certificate of a layer's block.
    Certificate {
        /// The layer.
        layer: u32,
    },
    /// The first votes on the beacon of an epoch.
    BeaconFirst {
        /// The epoch.
        epoch: u32,
    },
    /// Later votes on it.
    BeaconFollowing {
        /// The epoch.
        epoch: u32,
        /// The round.
        round: u32,
    },
    /// The consent to a marriage, once in a life.
    Marriage,
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Atx { epoch } => write!(f, "the activation of epoch {epoch}"),
            Self::AtxAfter { previous } => write!(f, "the activation after {previous}"),
            Self::Ballot { layer } => write!(f, "the ballot of layer {layer}"),
            Self::Proposal { layer } => write!(f, "the proposal of layer {layer}"),
            Self::Hare { layer, round } => write!(f, "round {round} of the hare in layer {layer}"),
            Self::Certificate { layer } => write!(f, "the certificate of layer {layer}"),
            Self::BeaconFirst { epoch } => write!(f, "the first beacon votes of epoch {epoch}"),
            Self::BeaconFollowing { epoch, round } => write!(f, "the beacon votes of epoch {epoch}, round {round}"),
            Self::Marriage => f.write_str("a marriage"),
        }
    }
}

impl Slot {
    /// `identity (32) || kind (1) || what tells slots of one kind apart`.
    pub(super) fn key(&self, identity: &NodeId) -> Vec<u8> {
        let mut key = identity.as_bytes().to_vec();
        let mut put = |kind: u8, numbers: &[u32]| {
            key.push(kind);
            key.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
        };
        match self {
            Self::Atx { epoch } => put(0, &[*epoch]),
            Self::Proposal { layer } => put(1, &[*layer]),
            Self::Ballot { layer } => put(2, &[*layer]),
            Self::Hare { layer, round } => put(3, &[*layer, *round]),
            Self::Certificate { layer } => put(4, &[*layer]),
            Self::Marriage => put(5, &[]),
            Self::AtxAfter { previous } => {
                put(6, &[]);
                key.extend(previous.0);
            }
            Self::BeaconFirst { epoch } => put(10, &[*epoch]),
            Self::BeaconFollowing { epoch, round } => put(11, &[*epoch, *round]),
        }
        key
    }

    /// The identity and slot of a key.
    pub(crate) fn parse(key: &[u8]) -> Option<(NodeId, Self)> {
        let (identity, rest) = key.split_first_chunk::<32>()?;
        let (kind, rest) = rest.split_first()?;
        let (numbers, odd) = rest.as_chunks::<4>();
        let numbers: Vec<u32> = numbers.iter().copied().map(u32::from_be_bytes).collect();
        let slot = match (kind, numbers.as_slice()) {
            (6, _) => Self::AtxAfter { previous: Digest(rest.try_into().ok()?) },
            (0, [epoch]) => Self::Atx { epoch: *epoch },
            (1, [layer]) => Self::Proposal { layer: *layer },
            (2, [layer]) => Self::Ballot { layer: *layer },
            (3, [layer, round]) => Self::Hare { layer: *layer, round: *round },
            (4, [layer]) => Self::Certificate { layer: *layer },
            (5, []) => Self::Marriage,
            (10, [epoch]) => Self::BeaconFirst { epoch: *epoch },
            (11, [epoch, round]) => Self::BeaconFollowing { epoch: *epoch, round: *round },
            _ => return None,
        };
        odd.is_empty().then_some((NodeId(*identity), slot))
    }

    /// Whether a bar covers it. What has no time (a marriage, an activation's place in the chain) is not covered.
    pub(super) fn is_barred(&self, bar: Bar) -> bool {
        match self {
            Self::Atx { epoch } | Self::BeaconFirst { epoch } | Self::BeaconFollowing { epoch, .. } => *epoch <= bar.epoch,
            Self::Ballot { layer } | Self::Proposal { layer } | Self::Hare { layer, .. } | Self::Certificate { layer } => {
                *layer <= bar.layer
            }
            Self::AtxAfter { .. } | Self::Marriage => false,
        }
    }
}

/// Something that an identity signs as a smesher: the bytes, and the slots it takes.
///
/// The bytes are made here from what names the slot, so that a statement cannot say something else than it is guarded for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    domain: Domain,
    slots: Vec<Slot>,
    digest: Digest,
    message: Vec<u8>,
}

impl Statement {
    fn new(domain: Domain, slot: Slot, message: Vec<u8>) -> Self {
        Self { domain, slots: vec![slot], digest: Digest(*blake3::hash(&message).as_bytes()), message }
    }

    fn atx(epoch: u32, previous: &[AtxId], id: &AtxId, message: Vec<u8>) -> Self {
        let after = previous.iter().map(|previous| Slot::AtxAfter { previous: Digest(*previous.as_bytes()) });
        let slots = std::iter::once(Slot::Atx { epoch }).chain(after).collect();
        Self { domain: Domain::Atx, slots, digest: Digest(*id.as_bytes()), message }
    }

    /// An activation of version 1: `publish epoch || id`. The first of an identity follows the id of zeros.
    pub fn atx_v1(epoch: u32, previous: AtxId, id: AtxId) -> Self {
        Self::atx(epoch, &[previous], &id, numbers_and_hash(&[epoch], id.as_bytes()))
    }

    /// An activation of version 2: its id. `previous` are those that the signer itself follows; none if it is its first.
    pub fn atx_v2(epoch: u32, previous: &[AtxId], id: AtxId) -> Self {
        let first = [AtxId([0; 32])];
        let previous = if previous.is_empty() { &first } else { previous };
        Self::atx(epoch, previous, &id, id.as_bytes().to_vec())
    }

    /// A ballot; `inner` is the hash of its inner part.
    pub fn ballot(layer: u32, inner: [u8; 32]) -> Self {
        Self::new(Domain::Ballot, Slot::Ballot { layer }, numbers_and_hash(&[layer], &inner))
    }

    /// A proposal; `inner` is the hash of its inner part.
    pub fn proposal(layer: u32, inner: [u8; 32]) -> Self {
        Self::new(Domain::Proposal, Slot::Proposal { layer }, numbers_and_hash(&[layer], &inner))
    }

    /// A hare message; `body` is the hash of its body, `round` counts from the beginning of the layer.
    pub fn hare(layer: u32, round: u32, body: [u8; 32]) -> Self {
        Self::new(Domain::Hare, Slot::Hare { layer, round }, numbers_and_hash(&[layer, round], &body))
    }

    /// A vote for a block's certificate: what follows the layer in its encoding.
    pub fn certificate(layer: u32, rest: &[u8]) -> Self {
        Self::new(Domain::Hare, Slot::Certificate { layer }, numbers_and_hash(&[layer], rest))
    }

    /// First votes on a beacon: what follows the epoch in their encoding.
    pub fn beacon_first(epoch: u32, rest: &[u8]) -> Self {
        Self::new(Domain::BeaconFirst, Slot::BeaconFirst { epoch }, numbers_and_hash(&[epoch], rest))
    }

    /// Later votes on a beacon: what follows epoch and round in their encoding.
    pub fn beacon_following(epoch: u32, round: u32, rest: &[u8]) -> Self {
        let slot = Slot::BeaconFollowing { epoch, round };
        Self::new(Domain::BeaconFollowing, slot, numbers_and_hash(&[epoch, round], rest))
    }

    /// The consent to a marriage, given to the publisher of its activation.
    pub fn marriage(publisher: &NodeId) -> Self {
        Self::new(Domain::Marriage, Slot::Marriage, publisher.as_bytes().to_vec())
    }

    pub(super) fn domain(&self) -> Domain {
        self.domain
    }

    /// The slots it takes.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// What stands for it in the history.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What is signed, after genesis id and domain (types.md section 3.1).
    pub fn message(&self) -> &[u8] {
        &self.message
    }
}

fn numbers_and_hash(numbers: &[u32], rest: &[u8]) -> Vec<u8> {
    let mut to = Writer::default();
    for number in numbers {
        to.compact32(*number);
    }
    to.raw(rest);
    to.into_bytes()
}
