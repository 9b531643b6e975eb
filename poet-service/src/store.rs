//! What the server must not lose: registrations, closed rounds, proofs.
//!
//! [`Store`] names the operations; [`RocksStore`] keeps them on disk, [`MemoryStore`] in memory for tests. Every write is
//! durable when it returns.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Mutex,
    time::Duration,
};

use kernels::posw::Node;
use proto::{
    ids::NodeId,
    poet::PoetProof,
    scale::{self, DecodeError, EncodeError, Reader, Writer},
};

use crate::schedule::{PhaseChange, RoundId};

/// Why the store fails.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database says no.
    #[error("database: {0}")]
    Database(#[from] rocksdb::Error),
    /// A folder cannot be made.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A record is not what was written.
    #[error("a record of the database is damaged: {0}")]
    Damaged(#[from] DecodeError),
    /// A record cannot be written.
    #[error("a record cannot be encoded: {0}")]
    Encode(#[from] EncodeError),
}

/// A round that takes no registrations any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed {
    /// The root of the members' tree; none where nobody registered.
    pub statement: Option<Node>,
    /// How many registered.
    pub members: u64,
}

/// A finished round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The proof; without leaves where this server only takes registrations.
    pub proof: PoetProof,
    /// The members' challenges by ascending node id.
    pub members: Vec<Node>,
    /// Public key of the server when it stored this.
    pub pubkey: [u8; 32],
}

/// The storage of a server.
pub trait Store: Send + Sync {
    /// The challenge that `member` registered for a round.
    fn registration(&self, round: RoundId, member: &NodeId) -> Result<Option<Node>, StoreError>;
    /// Adds registrations to a round.
    fn register(&self, round: RoundId, members: &[(NodeId, Node)]) -> Result<(), StoreError>;
    /// The challenges of a round's members by ascending node id.
    fn members(&self, round: RoundId) -> Result<Vec<Node>, StoreError>;
    /// How many members a round has.
    fn count(&self, round: RoundId) -> Result<u64, StoreError>;
    /// Rounds that have members.
    fn rounds_with_members(&self) -> Result<Vec<RoundId>, StoreError>;
    /// Ends the registration of a round, for good.
    fn close(&self, round: RoundId, closed: &Closed) -> Result<(), StoreError>;
    /// Rounds that were closed.
    fn closed(&self) -> Result<BTreeMap<RoundId, Closed>, StoreError>;
    /// Stores the record of a finished round, and the challenge that proofs of work are made for from now on.
    fn finish(&self, round: RoundId, record: &Record, pow: &PowChallenges) -> Result<(), StoreError>;
    /// The record of a finished round.
    fn record(&self, round: RoundId) -> Result<Option<Record>, StoreError>;
    /// Whether a round is finished.
    fn is_finished(&self, round: RoundId) -> Result<bool, StoreError>;
    /// The finished rounds.
    fn finished(&self) -> Result<BTreeSet<RoundId>, StoreError>;
    /// What proofs of work are made for.
    fn pow_challenges(&self) -> Result<Option<PowChallenges>, StoreError>;
    /// Sets what proofs of work are made for.
    fn set_pow_challenges(&self, pow: &PowChallenges) -> Result<(), StoreError>;
    /// What the operator has planned.
    fn plans(&self) -> Result<Option<Plans>, StoreError>;
    /// Sets what the operator has planned.
    fn set_plans(&self, plans: &Plans) -> Result<(), StoreError>;
    /// The members of a round with their challenges: at most `limit`, those after `after`, by ascending node id.
    fn page_of_members(&self, round: RoundId, after: Option<&NodeId>, limit: usize) -> Result<Vec<(NodeId, Node)>, StoreError>;
}

impl<S: Store + ?Sized> Store for std::sync::Arc<S> {
    fn registration(&self, round: RoundId, member: &NodeId) -> Result<Option<Node>, StoreError> {
        (**self).registration(round, member)
    }

    fn register(&self, round: RoundId, members: &[(NodeId, Node)]) -> Result<(), StoreError> {
        (**self).register(round, members)
    }

    fn members(&self, round: RoundId) -> Result<Vec<Node>, StoreError> {
        (**self).members(round)
    }

    fn count(&self, round: RoundId) -> Result<u64, StoreError> {
        (**self).count(round)
    }

    fn rounds_with_members(&self) -> Result<Vec<RoundId>, StoreError> {
        (**self).rounds_with_members()
    }

    fn close(&self, round: RoundId, closed: &Closed) -> Result<(), StoreError> {
        (**self).close(round, closed)
    }

    fn closed(&self) -> Result<BTreeMap<RoundId, Closed>, StoreError> {
        (**self).closed()
    }

    fn finish(&self, round: RoundId, record: &Record, pow: &PowChallenges) -> Result<(), StoreError> {
        (**self).finish(round, record, pow)
    }

    fn record(&self, round: RoundId) -> Result<Option<Record>, StoreError> {
        (**self).record(round)
    }

    fn is_finished(&self, round: RoundId) -> Result<bool, StoreError> {
        (**self).is_finished(round)
    }

    fn finished(&self) -> Result<BTreeSet<RoundId>, StoreError> {
        (**self).finished()
    }

    fn pow_challenges(&self) -> Result<Option<PowChallenges>, StoreError> {
        (**self).pow_challenges()
    }

    fn set_pow_challenges(&self, pow: &PowChallenges) -> Result<(), StoreError> {
        (**self).set_pow_challenges(pow)
    }

    fn plans(&self) -> Result<Option<Plans>, StoreError> {
        (**self).plans()
    }

    fn set_plans(&self, plans: &Plans) -> Result<(), StoreError> {
        (**self).set_plans(plans)
    }

    fn page_of_members(&self, round: RoundId, after: Option<&NodeId>, limit: usize) -> Result<Vec<(NodeId, Node)>, StoreError> {
        (**self).page_of_members(round, after, limit)
    }
}

/// What the operator has planned, and the phase shift that the rounds so far had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plans {
    /// Phase shift of the rounds before a change.
    pub phase_shift: Duration,
    /// The change.
    pub change: Option<PhaseChange>,
    /// The first round that is not to be run until the operator says so.
    pub held_from: Option<RoundId>,
}

impl Plans {
    fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        fn duration(to: &mut Writer, duration: Duration) {
            to.compact64(duration.as_secs());
            to.compact32(duration.subsec_nanos());
        }
        let mut to = Writer::default();
        duration(&mut to, self.phase_shift);
        to.option_with(self.change.as_ref(), |to, change| {
            to.compact32(change.last.0);
            to.compact32(change.first.0);
            duration(to, change.phase_shift);
            Ok(())
        })?;
        to.option_with(self.held_from.as_ref(), |to, round| {
            to.compact32(round.0);
            Ok(())
        })?;
        Ok(to.into_bytes())
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        fn duration(from: &mut Reader<'_>) -> Result<Duration, DecodeError> {
            let (seconds, nanos) = (from.compact64()?, from.compact32()?);
            if nanos < 1_000_000_000 { Ok(Duration::new(seconds, nanos)) } else { Err(DecodeError::Invalid { what: "duration" }) }
        }
        let mut from = Reader::new(bytes);
        let phase_shift = duration(&mut from)?;
        let change = from.option_with(|from| {
            let (last, first) = (RoundId(from.compact32()?), RoundId(from.compact32()?));
            Ok(PhaseChange { last, first, phase_shift: duration(from)? })
        })?;
        let held_from = from.option_with(|from| from.compact32().map(RoundId))?;
        from.finish()?;
        Ok(Self { phase_shift, change, held_from })
    }
}

/// The challenges that registrations' proofs of work may be made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PowChallenges {
    /// Announced now.
    pub current: Vec<u8>,
    /// Announced before, still taken.
    pub previous: Option<Vec<u8>>,
}

impl PowChallenges {
    /// After a round: its proof's root becomes the challenge.
    #[must_use]
    pub fn rotated(self, root: &[u8]) -> Self {
        Self { current: root.to_vec(), previous: Some(self.current) }
    }

    fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let mut to = Writer::default();
        to.bytes(&self.current, 256)?;
        to.option_with(self.previous.as_ref(), |to, previous| to.bytes(previous, 256))?;
        Ok(to.into_bytes())
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(bytes);
        let current = from.bytes(256)?.to_vec();
        let previous = from.option_with(|from| from.bytes(256).map(<[u8]>::to_vec))?;
        Ok(Self { current, previous })
    }
}

fn encode_closed(closed: &Closed) -> Result<Vec<u8>, EncodeError> {
    let mut to = Writer::default();
    to.option(closed.statement.as_ref())?;
    to.compact64(closed.members);
    Ok(to.into_bytes())
}

fn decode_closed(bytes: &[u8]) -> Result<Closed, DecodeError> {
    let mut from = Reader::new(bytes);
    Ok(Closed { statement: from.option()?, members: from.compact64()? })
}

/// On disk, in RocksDB.
///
/// Keys of the column family `members` are `be32(round) || node id`; of `closed` and `proofs` `be32(round)`; of `pow` the word
/// `challenges`, of `plans` the word `plans`. A record of `proofs` holds proof and key; its members are those of `members`.
pub struct RocksStore {
    db: rocksdb::DB,
}

const MEMBERS: &str = "members";
const CLOSED: &str = "closed";
const PROOFS: &str = "proofs";
const POW: &str = "pow";
const CHALLENGES: &[u8] = b"challenges";
const PLANS: &str = "plans";

impl RocksStore {
    /// Opens or makes the database in `folder`.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let mut options = rocksdb::Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_max_open_files(256);
        options.set_keep_log_file_num(3);
        Ok(Self { db: rocksdb::DB::open_cf(&options, folder, [MEMBERS, CLOSED, PROOFS, POW, PLANS])? })
    }

    /// Writes a consistent copy of the database to `folder`, which must not exist; the copy shares its files where it can.
    pub fn backup(&self, folder: &Path) -> Result<(), StoreError> {
        Ok(rocksdb::checkpoint::Checkpoint::new(&self.db)?.create_checkpoint(folder)?)
    }

    fn family(&self, name: &'static str) -> Result<&rocksdb::ColumnFamily, StoreError> {
        self.db.cf_handle(name).ok_or(StoreError::Damaged(DecodeError::Invalid { what: "column family" }))
    }

    fn synced() -> rocksdb::WriteOptions {
        let mut options = rocksdb::WriteOptions::default();
        options.set_sync(true);
        options
    }

    /// Runs over the entries of a round.
    fn for_each_member(&self, round: RoundId, mut visit: impl FnMut(&[u8], &[u8])) -> Result<(), StoreError> {
        let prefix = round.0.to_be_bytes();
        let from = rocksdb::IteratorMode::From(&prefix, rocksdb::Direction::Forward);
        for entry in self.db.iterator_cf(self.family(MEMBERS)?, from) {
            let (key, value) = entry?;
            let Some(id) = key.strip_prefix(&prefix) else { break };
            visit(id, &value);
        }
        Ok(())
    }
}

fn round_of(key: &[u8]) -> Result<RoundId, StoreError> {
    let key = key.try_into().map_err(|_| damaged("round"))?;
    Ok(RoundId(u32::from_be_bytes(key)))
}

fn damaged(what: &'static str) -> StoreError {
    StoreError::Damaged(DecodeError::Invalid { what })
}

impl Store for RocksStore {
    fn registration(&self, round: RoundId, member: &NodeId) -> Result<Option<Node>, StoreError> {
        let found = self.db.get_cf(self.family(MEMBERS)?, [&round.0.to_be_bytes(), &member.0[..]].concat())?;
        found.map(|value| Node::try_from(value).map_err(|_| damaged("challenge"))).transpose()
    }

    fn register(&self, round: RoundId, members: &[(NodeId, Node)]) -> Result<(), StoreError> {
        let family = self.family(MEMBERS)?;
        let mut batch = rocksdb::WriteBatch::default();
        for (member, challenge) in members {
            batch.put_cf(family, [&round.0.to_be_bytes(), &member.0[..]].concat(), challenge);
        }
        Ok(self.db.write_opt(batch, &Self::synced())?)
    }

    fn members(&self, round: RoundId) -> Result<Vec<Node>, StoreError> {
        let (mut members, mut sound) = (Vec::new(), true);
        self.for_each_member(round, |_, value| match Node::try_from(value) {
            Ok(challenge) => members.push(challenge),
            Err(_) => sound = false,
        })?;
        if sound { Ok(members) } else { Err(damaged("challenge")) }
    }

    fn count(&self, round: RoundId) -> Result<u64, StoreError> {
        let mut count = 0;
        self.for_each_member(round, |_, _| count += 1)?;
        Ok(count)
    }

    fn rounds_with_members(&self) -> Result<Vec<RoundId>, StoreError> {
        let mut rounds = Vec::new();
        let mut iterator = self.db.raw_iterator_cf(self.family(MEMBERS)?);
        iterator.seek_to_first();
        while let Some([a, b, c, d, ..]) = iterator.key() {
            let round = RoundId(u32::from_be_bytes([*a, *b, *c, *d]));
            rounds.push(round);
            // from round to round, however many members there are
            match round.0.checked_add(1) {
                Some(next) => iterator.seek(next.to_be_bytes()),
                None => break,
            }
        }
        iterator.status()?;
        Ok(rounds)
    }

    fn close(&self, round: RoundId, closed: &Closed) -> Result<(), StoreError> {
        let value = encode_closed(closed)?;
        Ok(self.db.put_cf_opt(self.family(CLOSED)?, round.0.to_be_bytes(), value, &Self::synced())?)
    }

    fn closed(&self) -> Result<BTreeMap<RoundId, Closed>, StoreError> {
        let mut rounds = BTreeMap::new();
        for entry in self.db.iterator_cf(self.family(CLOSED)?, rocksdb::IteratorMode::Start) {
            let (key, value) = entry?;
            rounds.insert(round_of(&key)?, decode_closed(&value)?);
        }
        Ok(rounds)
    }

    fn finish(&self, round: RoundId, record: &Record, pow: &PowChallenges) -> Result<(), StoreError> {
        let mut value = Writer::default();
        value.raw(&record.pubkey);
        value.raw(&scale::encode(&record.proof)?);
        let mut batch = rocksdb::WriteBatch::default();
        batch.put_cf(self.family(PROOFS)?, round.0.to_be_bytes(), value.into_bytes());
        batch.put_cf(self.family(POW)?, CHALLENGES, pow.encode()?);
        Ok(self.db.write_opt(batch, &Self::synced())?)
    }

    fn record(&self, round: RoundId) -> Result<Option<Record>, StoreError> {
        let Some(value) = self.db.get_cf(self.family(PROOFS)?, round.0.to_be_bytes())? else { return Ok(None) };
        let mut from = Reader::new(&value);
        let pubkey = from.array()?;
        let proof = scale::Decode::decode(&mut from)?;
        from.finish()?;
        Ok(Some(Record { proof, members: self.members(round)?, pubkey }))
    }

    fn is_finished(&self, round: RoundId) -> Result<bool, StoreError> {
        Ok(self.db.get_pinned_cf(self.family(PROOFS)?, round.0.to_be_bytes())?.is_some())
    }

    fn finished(&self) -> Result<BTreeSet<RoundId>, StoreError> {
        let entries = self.db.iterator_cf(self.family(PROOFS)?, rocksdb::IteratorMode::Start);
        entries.map(|entry| round_of(&entry?.0)).collect()
    }

    fn pow_challenges(&self) -> Result<Option<PowChallenges>, StoreError> {
        let value = self.db.get_cf(self.family(POW)?, CHALLENGES)?;
        Ok(value.map(|value| PowChallenges::decode(&value)).transpose()?)
    }

    fn set_pow_challenges(&self, pow: &PowChallenges) -> Result<(), StoreError> {
        Ok(self.db.put_cf_opt(self.family(POW)?, CHALLENGES, pow.encode()?, &Self::synced())?)
    }

    fn plans(&self) -> Result<Option<Plans>, StoreError> {
        let value = self.db.get_cf(self.family(PLANS)?, PLANS)?;
        Ok(value.map(|value| Plans::decode(&value)).transpose()?)
    }

    fn set_plans(&self, plans: &Plans) -> Result<(), StoreError> {
        Ok(self.db.put_cf_opt(self.family(PLANS)?, PLANS, plans.encode()?, &Self::synced())?)
    }

    fn page_of_members(&self, round: RoundId, after: Option<&NodeId>, limit: usize) -> Result<Vec<(NodeId, Node)>, StoreError> {
        let prefix = round.0.to_be_bytes();
        // nothing sorts between a key and the same key with one more byte
        let from = after.map_or_else(|| prefix.to_vec(), |member| [&prefix[..], &member.0, &[0]].concat());
        let from = rocksdb::IteratorMode::From(&from, rocksdb::Direction::Forward);
        let mut page = Vec::new();
        for entry in self.db.iterator_cf(self.family(MEMBERS)?, from).take(limit) {
            let (key, value) = entry?;
            let Some(id) = key.strip_prefix(&prefix) else { break };
            let member = id.try_into().map_err(|_| damaged("member"))?;
            page.push((NodeId(member), Node::try_from(value.into_vec()).map_err(|_| damaged("challenge"))?));
        }
        Ok(page)
    }
}

/// In memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    inner: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    members: BTreeMap<RoundId, BTreeMap<NodeId, Node>>,
    closed: BTreeMap<RoundId, Closed>,
    records: BTreeMap<RoundId, Record>,
    pow: Option<PowChallenges>,
    plans: Option<Plans>,
}

impl MemoryStore {
    fn inner(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn registration(&self, round: RoundId, member: &NodeId) -> Result<Option<Node>, StoreError> {
        Ok(self.inner().members.get(&round).and_then(|members| members.get(member)).copied())
    }

    fn register(&self, round: RoundId, members: &[(NodeId, Node)]) -> Result<(), StoreError> {
        self.inner().members.entry(round).or_default().extend(members.iter().copied());
        Ok(())
    }

    fn members(&self, round: RoundId) -> Result<Vec<Node>, StoreError> {
        Ok(self.inner().members.get(&round).map_or_else(Vec::new, |members| members.values().copied().collect()))
    }

    fn count(&self, round: RoundId) -> Result<u64, StoreError> {
        Ok(self.inner().members.get(&round).map_or(0, |members| members.len() as u64))
    }

    fn rounds_with_members(&self) -> Result<Vec<RoundId>, StoreError> {
        Ok(self.inner().members.keys().copied().collect())
    }

    fn close(&self, round: RoundId, closed: &Closed) -> Result<(), StoreError> {
        self.inner().closed.insert(round, *closed);
        Ok(())
    }

    fn closed(&self) -> Result<BTreeMap<RoundId, Closed>, StoreError> {
        Ok(self.inner().closed.clone())
    }

    fn finish(&self, round: RoundId, record: &Record, pow: &PowChallenges) -> Result<(), StoreError> {
        let mut inner = self.inner();
        inner.records.insert(round, record.clone());
        inner.pow = Some(pow.clone());
        Ok(())
    }

    fn record(&self, round: RoundId) -> Result<Option<Record>, StoreError> {
        Ok(self.inner().records.get(&round).cloned())
    }

    fn is_finished(&self, round: RoundId) -> Result<bool, StoreError> {
        Ok(self.inner().records.contains_key(&round))
    }

    fn finished(&self) -> Result<BTreeSet<RoundId>, StoreError> {
        Ok(self.inner().records.keys().copied().collect())
    }

    fn pow_challenges(&self) -> Result<Option<PowChallenges>, StoreError> {
        Ok(self.inner().pow.clone())
    }

    fn set_pow_challenges(&self, pow: &PowChallenges) -> Result<(), StoreError> {
        self.inner().pow = Some(pow.clone());
        Ok(())
    }

    fn plans(&self) -> Result<Option<Plans>, StoreError> {
        Ok(self.inner().plans)
    }

    fn set_plans(&self, plans: &Plans) -> Result<(), StoreError> {
        self.inner().plans = Some(*plans);
        Ok(())
    }

    fn page_of_members(&self, round: RoundId, after: Option<&NodeId>, limit: usize) -> Result<Vec<(NodeId, Node)>, StoreError> {
        use std::ops::Bound;
        let from = after.map_or(Bound::Unbounded, |member| Bound::Excluded(*member));
        let inner = self.inner();
        let members = inner.members.get(&round).into_iter().flat_map(|members| members.range((from, Bound::Unbounded)));
        Ok(members.take(limit).map(|(member, challenge)| (*member, *challenge)).collect())
    }
}

#[cfg(test)]
mod tests {
    use proto::poet::Leaves;

    use super::*;

    fn exercise(store: &dyn Store) {
        let (first, second) = (RoundId(7), RoundId(8));
        let id = |n: u8| NodeId([n; 32]);
        store.register(first, &[(id(9), [1; 32]), (id(2), [2; 32])]).unwrap();
        store.register(second, &[(id(9), [3; 32])]).unwrap();
        store.register(first, &[(id(200), [4; 32])]).unwrap();
        assert_eq!(store.members(first).unwrap(), [[2; 32], [1; 32], [4; 32]]);
        assert_eq!(store.members(second).unwrap(), [[3; 32]]);
        assert_eq!((store.count(first).unwrap(), store.count(RoundId(9)).unwrap()), (3, 0));
        assert_eq!(store.rounds_with_members().unwrap(), [first, second]);
        assert_eq!(store.registration(first, &id(9)).unwrap(), Some([1; 32]));
        assert_eq!(store.registration(first, &id(10)).unwrap(), None);
        let closed = Closed { statement: Some([5; 32]), members: 3 };
        store.close(first, &closed).unwrap();
        assert_eq!(store.page_of_members(first, None, 2).unwrap(), [(id(2), [2; 32]), (id(9), [1; 32])]);
        assert_eq!(store.page_of_members(first, Some(&id(9)), 2).unwrap(), [(id(200), [4; 32])]);
        assert_eq!(store.page_of_members(first, Some(&id(200)), 2).unwrap(), []);
        assert_eq!(store.plans().unwrap(), None);
        let shift = Duration::new(7, 500_000_000);
        let change = Some(PhaseChange { last: first, first: second, phase_shift: shift });
        for (change, held_from) in [(None, None), (None, Some(second)), (change, None), (change, Some(first))] {
            let plans = Plans { phase_shift: Duration::from_secs(1 << 20), change, held_from };
            store.set_plans(&plans).unwrap();
            assert_eq!(store.plans().unwrap(), Some(plans));
        }
        store.close(RoundId(3), &Closed { statement: None, members: 0 }).unwrap();
        assert_eq!(store.closed().unwrap()[&first], closed);
        assert_eq!(store.closed().unwrap().len(), 2);
        assert_eq!(store.pow_challenges().unwrap(), None);
        let pow = PowChallenges { current: vec![1], previous: None };
        store.set_pow_challenges(&pow).unwrap();
        let pow = pow.rotated(&[6; 32]);
        let mut proof = PoetProof { leaf_count: Leaves(77), ..PoetProof::default() };
        proof.merkle.root = [6; 32].into();
        let record = Record { proof, members: store.members(first).unwrap(), pubkey: [8; 32] };
        assert!(!store.is_finished(first).unwrap());
        store.finish(first, &record, &pow).unwrap();
        assert_eq!(store.record(first).unwrap(), Some(record));
        assert_eq!(store.finished().unwrap(), BTreeSet::from([first]));
        assert!(store.is_finished(first).unwrap() && store.record(second).unwrap().is_none());
        assert_eq!(store.pow_challenges().unwrap(), Some(pow));
    }

    #[test]
    fn both_stores_keep_what_they_are_given() {
        exercise(&MemoryStore::default());
        let dir = tempfile::tempdir().unwrap();
        exercise(&RocksStore::open(dir.path()).unwrap());
        let again = RocksStore::open(dir.path()).unwrap();
        assert_eq!(again.members(RoundId(7)).unwrap().len(), 3);
        again.backup(&dir.path().join("copy")).unwrap();
        assert!(RocksStore::open(&dir.path().join("copy")).unwrap().is_finished(RoundId(7)).unwrap());
    }
}
