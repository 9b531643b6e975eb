//! Activations and their indexes (p2p-sync.md section 17, types.md sections 4.5 and 14).
//!
//! Saving one is a single atomic change: row, wire bytes, what each identity in it declared, and all indexes. What is known
//! already is left alone.

use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
};

use proto::{
    activation::Version,
    eligibility::Weight,
    ids::{Address, AtxId, NodeId},
    layers::EpochId,
    poet::Ticks,
    scale::{Decode, DecodeError, Encode, EncodeError, Reader, Writer},
    units::{SpaceUnits, TickHeight, VrfNonce},
};

use crate::{
    StoreError,
    engine::{Batch, Durability, Engine, Range, Read},
    schema::{Family, VALUE_VERSION, body, record, value},
};

/// Whether all proofs of an activation, and of those it builds on, were verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// Nobody has looked.
    Unknown,
    /// They are valid.
    Valid,
    /// They are not.
    Invalid,
}

/// What a node knows of an activation without reading its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Atx {
    /// The epoch in which it was published.
    pub publish_epoch: EpochId,
    /// Its number among those of its publisher.
    pub sequence: u64,
    /// What the labels are bound to, in an initial one.
    pub commitment: Option<AtxId>,
    /// The activation that married its identities.
    pub marriage: Option<AtxId>,
    /// Who is rewarded.
    pub coinbase: Address,
    /// Units that count: the least of what was declared before and now.
    pub effective_units: SpaceUnits,
    /// Ticks below it.
    pub base_height: TickHeight,
    /// Ticks of its own.
    pub ticks: Ticks,
    /// The VRF nonce that holds from here on.
    pub vrf_nonce: VrfNonce,
    /// Who published it.
    pub smesher: NodeId,
    /// Units times ticks.
    pub weight: Weight,
    /// When it arrived, in nanoseconds since 1970; 0 for those of a checkpoint.
    pub received: u64,
    /// Whether its proofs were verified.
    pub validity: Validity,
}

impl Atx {
    /// Ticks up to it.
    pub fn height(&self) -> TickHeight {
        TickHeight(self.base_height.0.saturating_add(self.ticks.0))
    }
}

impl Encode for Validity {
    fn encode(&self, to: &mut Writer) -> Result<(), EncodeError> {
        let byte: u8 = match self {
            Self::Unknown => 0,
            Self::Valid => 1,
            Self::Invalid => 2,
        };
        to.raw(&[byte]);
        Ok(())
    }
}

impl Decode for Validity {
    const MIN_BYTES: usize = 1;

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match from.raw(1)? {
            [0] => Ok(Self::Unknown),
            [1] => Ok(Self::Valid),
            [2] => Ok(Self::Invalid),
            _ => Err(DecodeError::Invalid { what: "validity" }),
        }
    }
}

/// What an activation says of one identity in it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Share {
    /// The activation that the identity continues.
    pub previous: Option<AtxId>,
    /// Its position among the previous ones of a merged activation.
    pub previous_index: u32,
    /// Units as declared.
    pub units: SpaceUnits,
    /// The epoch in which the activation was published.
    pub publish_epoch: EpochId,
}

/// Everything that is saved of an activation at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAtx {
    /// Its id.
    pub id: AtxId,
    /// The row.
    pub atx: Atx,
    /// Its version and bytes as they arrived; none for those of a checkpoint.
    pub wire: Option<(Version, Vec<u8>)>,
    /// What it says of each identity in it.
    pub shares: Vec<(NodeId, Share)>,
}

/// Whether something was new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saved {
    /// It was saved.
    New,
    /// It was there already, and stays as it was.
    Known,
}

/// Entries of the indexes: family and key; the values are empty.
type Index = Vec<(Family, Vec<u8>)>;

/// Sorts the latest first.
fn latest32(number: u32) -> [u8; 4] {
    (!number).to_be_bytes()
}

fn latest64(number: u64) -> [u8; 8] {
    (!number).to_be_bytes()
}

pub(crate) fn atx_index(id: &AtxId, atx: &Atx) -> Index {
    let (epoch, id) = (atx.publish_epoch.0, id.as_bytes());
    vec![
        (Family::AtxEpoch, [&epoch.to_be_bytes()[..], id].concat()),
        (Family::AtxHeight, [&epoch.to_be_bytes()[..], &latest64(atx.height().0), id].concat()),
        (Family::AtxSmesher, [&atx.smesher.as_bytes()[..], &latest32(epoch), &latest64(atx.received), id].concat()),
    ]
}

pub(crate) fn share_index(id: &AtxId, identity: &NodeId, share: &Share) -> Index {
    let previous = share.previous.unwrap_or(AtxId([0; 32]));
    let identity = identity.as_bytes();
    vec![
        (Family::ShareEpoch, [identity, &latest32(share.publish_epoch.0)[..], id.as_bytes()].concat()),
        (Family::ShareAfter, [&identity[..], previous.as_bytes(), id.as_bytes()].concat()),
    ]
}

pub(crate) fn id_at(family: Family, key: &[u8], from: usize) -> Result<[u8; 32], StoreError> {
    let id = key.get(from..).and_then(|rest| rest.first_chunk::<32>());
    id.copied().ok_or_else(|| StoreError::damaged(family, key, "the key is too short"))
}

/// Changes activations. A database has one.
pub struct AtxWriter {
    engine: Arc<dyn Engine>,
    // look up, then write: one at a time
    turn: Mutex<()>,
}

impl AtxWriter {
    /// For the activations of a database.
    pub fn new(engine: Arc<dyn Engine>) -> Self {
        Self { engine, turn: Mutex::new(()) }
    }

    /// Saves an activation with everything that belongs to it, as one change. `more` is made with it: a proof of malfeasance
    /// that the activation is part of, say. Own activations must survive a power failure before anybody hears of them.
    pub fn save(&self, new: &NewAtx, more: Batch, durability: Durability) -> Result<Saved, StoreError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let id = new.id.as_bytes();
        if self.engine.get(Family::Atx, id)?.is_some() {
            return Ok(Saved::Known);
        }
        let mut batch = more;
        batch.put(Family::Atx, *id, value(&new.atx)?);
        if let Some((version, bytes)) = &new.wire {
            batch.put(Family::AtxBlob, *id, [&[VALUE_VERSION, (*version).into()][..], bytes].concat());
        }
        let mut index = atx_index(&new.id, &new.atx);
        for (identity, share) in &new.shares {
            batch.put(Family::Share, [&id[..], identity.as_bytes()].concat(), value(share)?);
            index.extend(share_index(&new.id, identity, share));
        }
        for (family, key) in index {
            batch.put(family, key, []);
        }
        self.engine.write(&batch, durability)?;
        Ok(Saved::New)
    }

    /// Records whether an activation's proofs are valid; says whether there is such an activation.
    pub fn set_validity(&self, id: &AtxId, validity: Validity) -> Result<bool, StoreError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(atx) = Atxs::new(&*self.engine).get(id)? else { return Ok(false) };
        let mut batch = Batch::default();
        batch.put(Family::Atx, *id.as_bytes(), value(&Atx { validity, ..atx })?);
        self.engine.write(&batch, Durability::Process)?;
        Ok(true)
    }
}

/// Activations, of a database or of a snapshot.
#[derive(Clone, Copy)]
pub struct Atxs<'a>(&'a dyn Read);

impl<'a> Atxs<'a> {
    /// What is there.
    pub fn new(read: &'a dyn Read) -> Self {
        Self(read)
    }

    /// The row of an activation.
    pub fn get(&self, id: &AtxId) -> Result<Option<Atx>, StoreError> {
        let key = id.as_bytes();
        self.0.get(Family::Atx, key)?.map(|value| record(Family::Atx, key, &value)).transpose()
    }

    /// Version and bytes of an activation as they arrived.
    pub fn wire(&self, id: &AtxId) -> Result<Option<(Version, Vec<u8>)>, StoreError> {
        let key = id.as_bytes();
        let found = self.0.get(Family::AtxBlob, key)?;
        found.map(|value| read_wire(key, &value).map(|(version, bytes)| (version, bytes.to_vec()))).transpose()
    }

    /// What an activation says of an identity.
    pub fn share(&self, id: &AtxId, identity: &NodeId) -> Result<Option<Share>, StoreError> {
        let key = [&id.as_bytes()[..], identity.as_bytes()].concat();
        self.0.get(Family::Share, &key)?.map(|value| record(Family::Share, &key, &value)).transpose()
    }

    /// What an activation says of all identities in it, by ascending identity.
    pub fn shares(&self, id: &AtxId) -> Result<Vec<(NodeId, Share)>, StoreError> {
        let mut shares = Vec::new();
        self.0.scan(Family::Share, Range::prefix(id.as_bytes()), &mut |key, value| {
            shares.push((NodeId(id_at(Family::Share, key, 32)?), record(Family::Share, key, value)?));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(shares)
    }

    /// The activations published in an epoch, by ascending id.
    pub fn of_epoch(&self, epoch: EpochId) -> Result<Vec<AtxId>, StoreError> {
        self.ids(Family::AtxEpoch, Range::prefix(&epoch.0.to_be_bytes()), 4, usize::MAX)
    }

    /// The activations published in an epoch, the highest first; at most so many.
    pub fn highest(&self, epoch: EpochId, most: usize) -> Result<Vec<AtxId>, StoreError> {
        self.ids(Family::AtxHeight, Range::prefix(&epoch.0.to_be_bytes()), 12, most)
    }

    /// The latest epoch that has activations.
    pub fn latest_epoch(&self) -> Result<Option<EpochId>, StoreError> {
        let mut latest = None;
        self.0.scan(Family::AtxEpoch, Range::all().backwards(), &mut |key, _| {
            latest = key.first_chunk::<4>().map(|epoch| EpochId(u32::from_be_bytes(*epoch)));
            Ok(ControlFlow::Break(()))
        })?;
        Ok(latest)
    }

    /// The activations that an identity published, the latest first; at most so many.
    pub fn published_by(&self, smesher: &NodeId, most: usize) -> Result<Vec<AtxId>, StoreError> {
        self.ids(Family::AtxSmesher, Range::prefix(smesher.as_bytes()), 44, most)
    }

    /// The activations that an identity published in an epoch: two of them are malfeasance.
    pub fn published_in(&self, smesher: &NodeId, epoch: EpochId) -> Result<Vec<AtxId>, StoreError> {
        let prefix = [&smesher.as_bytes()[..], &latest32(epoch.0)].concat();
        self.ids(Family::AtxSmesher, Range::prefix(&prefix), 44, usize::MAX)
    }

    /// The last activation that an identity published.
    pub fn last_published_by(&self, smesher: &NodeId) -> Result<Option<AtxId>, StoreError> {
        Ok(self.published_by(smesher, 1)?.pop())
    }

    /// What an identity's labels are bound to, by its latest activation that says so.
    pub fn commitment(&self, smesher: &NodeId) -> Result<Option<AtxId>, StoreError> {
        for id in self.published_by(smesher, usize::MAX)? {
            if let Some(commitment) = self.get(&id)?.and_then(|atx| atx.commitment) {
                return Ok(Some(commitment));
            }
        }
        Ok(None)
    }

    /// The activations that an identity has a share in, the latest first, before an epoch if one is given; at most so many.
    pub fn with_share_of(&self, identity: &NodeId, before: Option<EpochId>, most: usize) -> Result<Vec<AtxId>, StoreError> {
        let from = before.map(|epoch| match epoch.0.checked_sub(1) {
            Some(last) => [&identity.as_bytes()[..], &latest32(last)].concat(),
            // nothing is before the first epoch
            None => [&identity.as_bytes()[..], &[0xff; 37]].concat(),
        });
        let range = Range { from: from.as_deref(), ..Range::prefix(identity.as_bytes()) };
        self.ids(Family::ShareEpoch, range, 36, most)
    }

    /// The activations of an epoch that an identity has a share in: two of them are malfeasance.
    pub fn with_share_in(&self, identity: &NodeId, epoch: EpochId) -> Result<Vec<AtxId>, StoreError> {
        let prefix = [&identity.as_bytes()[..], &latest32(epoch.0)].concat();
        self.ids(Family::ShareEpoch, Range::prefix(&prefix), 36, usize::MAX)
    }

    /// The activations in which an identity continues this one, or none: two of them are malfeasance.
    pub fn after(&self, identity: &NodeId, previous: Option<&AtxId>) -> Result<Vec<AtxId>, StoreError> {
        let previous = previous.map_or([0; 32], |id| *id.as_bytes());
        let prefix = [&identity.as_bytes()[..], &previous].concat();
        self.ids(Family::ShareAfter, Range::prefix(&prefix), 64, usize::MAX)
    }

    fn ids(&self, family: Family, range: Range<'_>, at: usize, most: usize) -> Result<Vec<AtxId>, StoreError> {
        let mut ids = Vec::new();
        if most == 0 {
            return Ok(ids);
        }
        self.0.scan(family, range, &mut |key, _| {
            ids.push(AtxId(id_at(family, key, at)?));
            Ok(if ids.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        Ok(ids)
    }
}

pub(crate) fn read_wire<'a>(key: &[u8], value: &'a [u8]) -> Result<(Version, &'a [u8]), StoreError> {
    let damaged = || StoreError::damaged(Family::AtxBlob, key, "no version of activations");
    let (version, bytes) = body(Family::AtxBlob, key, value)?.split_first().ok_or_else(damaged)?;
    Ok((Version::try_from(*version).map_err(|_| damaged())?, bytes))
}

#[cfg(test)]
mod tests;
