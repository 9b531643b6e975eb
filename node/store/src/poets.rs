//! Proofs of elapsed time, and proofs of malfeasance: small tables of what other nodes ask for by hash.

use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
};

use proto::{
    ids::NodeId,
    poet::PoetProofMessage,
    scale::{self},
};

use crate::{
    StoreError,
    atxs::{Saved, id_at},
    engine::{Batch, Durability, Engine, Range, Read},
    schema::{Family, VALUE_VERSION, body, record, value},
};

/// Proofs of elapsed time. A database has one of these.
pub struct Poets {
    engine: Arc<dyn Engine>,
    turn: Mutex<()>,
}

/// The reference of a proof: BLAKE3 of its encoding (types.md section 9).
pub type Reference = [u8; 32];

/// The key of a server's round.
pub(crate) fn round_key(message: &PoetProofMessage) -> Vec<u8> {
    round(&message.service_id, &message.round_id)
}

fn round(service: &[u8], round: &[u8]) -> Vec<u8> {
    [&blake3::hash(service).as_bytes()[..], round].concat()
}

/// The reference of a proof.
pub fn reference(message: &PoetProofMessage) -> Result<Reference, StoreError> {
    Ok(*blake3::hash(&scale::encode(&message.proof)?).as_bytes())
}

impl Poets {
    /// The proofs of a database.
    pub fn new(engine: Arc<dyn Engine>) -> Self {
        Self { engine, turn: Mutex::new(()) }
    }

    /// Saves a proof; the first one of a server's round stays that round's.
    pub fn save(&self, message: &PoetProofMessage) -> Result<(Reference, Saved), StoreError> {
        let reference = reference(message)?;
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if self.engine.get(Family::Poet, &reference)?.is_some() {
            return Ok((reference, Saved::Known));
        }
        let mut batch = Batch::default();
        batch.put(Family::Poet, reference, value(message)?);
        let round = round_key(message);
        if self.engine.get(Family::PoetRound, &round)?.is_none() {
            batch.put(Family::PoetRound, round, [&[VALUE_VERSION][..], &reference].concat());
        }
        self.engine.write(&batch, Durability::Process)?;
        Ok((reference, Saved::New))
    }

    /// A proof by its reference.
    pub fn get(&self, reference: &Reference) -> Result<Option<PoetProofMessage>, StoreError> {
        self.engine.get(Family::Poet, reference)?.map(|value| record(Family::Poet, reference, &value)).transpose()
    }

    /// The proof of a server's round.
    pub fn of_round(&self, service: &[u8], round_id: &[u8]) -> Result<Option<Reference>, StoreError> {
        let key = round(service, round_id);
        self.engine.get(Family::PoetRound, &key)?.map(|value| read_reference(&key, &value)).transpose()
    }
}

pub(crate) fn read_reference(key: &[u8], value: &[u8]) -> Result<Reference, StoreError> {
    let body = body(Family::PoetRound, key, value)?;
    body.try_into().map_err(|_| StoreError::damaged(Family::PoetRound, key, "not a reference of 32 bytes"))
}

/// The identities that are proven malicious, ascending.
pub fn all_malicious(read: &dyn Read) -> Result<Vec<NodeId>, StoreError> {
    let mut all = Vec::new();
    read.scan(Family::Malicious, Range::all(), &mut |key, _| {
        all.push(NodeId(id_at(Family::Malicious, key, 0)?));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(all)
}

/// Adds the proof that an identity is malicious to a change, unless there is one already: the first stays.
pub fn put_malicious(
    engine: &dyn Engine,
    batch: &mut Batch,
    identity: &NodeId,
    received: u64,
    proof: &[u8],
) -> Result<Saved, StoreError> {
    if malicious(engine, identity)?.is_some() {
        return Ok(Saved::Known);
    }
    let value = [&[VALUE_VERSION][..], &received.to_be_bytes(), proof].concat();
    batch.put(Family::Malicious, *identity.as_bytes(), value);
    Ok(Saved::New)
}

/// The proof that an identity is malicious, and when it arrived in nanoseconds since 1970.
pub fn malicious(engine: &dyn Engine, identity: &NodeId) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
    let key = identity.as_bytes();
    let found = engine.get(Family::Malicious, key)?;
    found.map(|value| read_malicious(key, &value).map(|(received, proof)| (received, proof.to_vec()))).transpose()
}

pub(crate) fn read_malicious<'a>(key: &[u8], value: &'a [u8]) -> Result<(u64, &'a [u8]), StoreError> {
    let short = || StoreError::damaged(Family::Malicious, key, "shorter than a time");
    let (received, proof) = body(Family::Malicious, key, value)?.split_first_chunk::<8>().ok_or_else(short)?;
    Ok((u64::from_be_bytes(*received), proof))
}
