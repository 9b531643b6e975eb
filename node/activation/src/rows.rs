//! What identities keep on disk while they make their activations (activation.md section 3), in the local database of the node.
//!
//! All changes that belong together are one batch, which survives a power failure before anybody acts on it.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
};

use proto::{
    ids::{EdSignature, Hash32, NodeId},
    scale::{Bytes, Decode, Encode},
};
use store::{
    StoreError,
    engine::{Batch, Durability, Engine, Range},
    schema::{Family, record, value},
};

use crate::builder::{Change, Registration, Saved};

/// The most bytes of a PoET server's certificate.
pub const MAX_CERTIFICATE: usize = 4096;

/// A certifier's word that an identity has initialised its space, as it is shown to PoET servers.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Certificate {
    /// The certificate, see [`proto::poet::Certificate::parse`].
    #[scale(max = MAX_CERTIFICATE)]
    pub data: Bytes,
    /// The certifier's signature of it.
    pub signature: EdSignature,
}

/// The rows of all identities of a node.
pub struct Rows {
    local: Arc<dyn Engine>,
    /// Which registrations there are is looked up before they are deleted.
    turn: Mutex<()>,
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rows")
    }
}

impl Rows {
    /// The rows in a local database.
    pub fn new(local: Arc<dyn Engine>) -> Self {
        Self { local, turn: Mutex::default() }
    }

    /// Everything that an identity has saved.
    pub fn load(&self, identity: &NodeId) -> Result<Saved, StoreError> {
        Ok(Saved {
            initial: self.row(Family::InitialPost, identity)?,
            challenge: self.row(Family::Challenge, identity)?,
            registrations: self.registrations(identity)?.into_values().map(|row| (row.poet.clone(), row)).collect(),
            nipost: self.row(Family::Nipost, identity)?,
            assembled: self.row(Family::Assembled, identity)?,
            signed: self.row(Family::SignedAtx, identity)?,
        })
    }

    fn row<T: Decode>(&self, family: Family, identity: &NodeId) -> Result<Option<T>, StoreError> {
        let key = identity.as_bytes();
        self.local.get(family, key)?.map(|found| record(family, key, &found)).transpose()
    }

    /// By key.
    fn registrations(&self, identity: &NodeId) -> Result<BTreeMap<Vec<u8>, Registration>, StoreError> {
        let mut all = BTreeMap::new();
        self.local.scan(Family::Registration, Range::prefix(identity.as_bytes()), &mut |key, found| {
            all.insert(key.to_vec(), record(Family::Registration, key, found)?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(all)
    }

    /// Makes changes, all of them or none. They are on the disk when this returns.
    pub fn apply(&self, identity: &NodeId, changes: &[Change]) -> Result<(), StoreError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let id = *identity.as_bytes();
        let mut batch = Batch::default();
        for change in changes {
            match change {
                Change::InitialPost(initial) => batch.put(Family::InitialPost, id, value(initial)?),
                Change::NoInitialPost => batch.delete(Family::InitialPost, id),
                Change::Challenge(challenge) => batch.put(Family::Challenge, id, value(challenge)?),
                Change::NoChallenge => {
                    for family in [Family::Challenge, Family::Assembled, Family::SignedAtx] {
                        batch.delete(family, id);
                    }
                }
                Change::Registered(row) => batch.put(Family::Registration, registration_key(identity, &row.poet), value(row)?),
                Change::NoRegistrations => self.delete_registrations(identity, &mut batch)?,
                Change::Nipost(nipost) => batch.put(Family::Nipost, id, value(nipost)?),
                Change::NoNipost => batch.delete(Family::Nipost, id),
                Change::Assembled(unsigned) => batch.put(Family::Assembled, id, value(&**unsigned)?),
                Change::Signed(signed) => batch.put(Family::SignedAtx, id, value(signed)?),
            }
        }
        if batch.is_empty() { Ok(()) } else { self.local.write(&batch, Durability::Power) }
    }

    /// Those on disk, and those that the batch would put there.
    fn delete_registrations(&self, identity: &NodeId, batch: &mut Batch) -> Result<(), StoreError> {
        let mut keys: Vec<Vec<u8>> = self.registrations(identity)?.into_keys().collect();
        let new = batch.changes().iter().filter(|change| change.family == Family::Registration && change.value.is_some());
        keys.extend(new.map(|change| change.key.clone()));
        for key in keys {
            batch.delete(Family::Registration, key);
        }
        Ok(())
    }

    /// An identity's certificate of a certifier.
    pub fn certificate(&self, identity: &NodeId, certifier: &[u8; 32]) -> Result<Option<Certificate>, StoreError> {
        let key = certificate_key(identity, certifier);
        let found = self.local.get(Family::PoetCertificate, &key)?;
        found.map(|found| record(Family::PoetCertificate, &key, &found)).transpose()
    }

    /// Keeps an identity's certificate of a certifier, in place of an earlier one.
    pub fn put_certificate(&self, identity: &NodeId, certifier: &[u8; 32], new: &Certificate) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        batch.put(Family::PoetCertificate, certificate_key(identity, certifier), value(new)?);
        self.local.write(&batch, Durability::Power)
    }

    /// Forgets an identity's certificate of a certifier, because a PoET server refused it.
    pub fn remove_certificate(&self, identity: &NodeId, certifier: &[u8; 32]) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        batch.delete(Family::PoetCertificate, certificate_key(identity, certifier));
        self.local.write(&batch, Durability::Power)
    }
}

fn registration_key(identity: &NodeId, poet: &str) -> Vec<u8> {
    [&identity.as_bytes()[..], Hash32::of(&[poet.as_bytes()]).as_bytes()].concat()
}

fn certificate_key(identity: &NodeId, certifier: &[u8; 32]) -> Vec<u8> {
    [&identity.as_bytes()[..], certifier].concat()
}
