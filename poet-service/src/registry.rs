//! The life of rounds and registrations, without clock, sockets, disk or threads of its own.
//!
//! A [`Registry`] is fed with submissions and the current time and talks to a [`Store`]. It closes rounds when their time has
//! come, says which closed round is to be run next, and takes finished ones. Everything it needs after a restart it finds in the
//! store. Two rules keep every accepted member in exactly one proof, whatever the clock does:
//!
//! - a round that was closed never opens again: after a step backwards of the clock registrations go on into the round after;
//! - a round that has members is run, in order, and be it only for the smallest proof because its time is over already.

use std::collections::{BTreeSet, HashMap};

use kernels::posw::Node;
use proto::{ids::NodeId, poet::PoetProof};

use crate::{
    membership,
    pow::Params,
    schedule::{RoundId, Schedule, Time},
    store::{Closed, PowChallenges, Record, Store, StoreError},
};

/// What a server allows.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Members of a round.
    pub max_round_members: u64,
    /// Leading zero bits of a proof of work.
    pub pow_difficulty: u32,
}

/// A registration whose signature and authorisation are good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registration {
    /// Who.
    pub member: NodeId,
    /// What for.
    pub challenge: Node,
    /// The latest end of a round that is of use to the member.
    pub deadline: Option<Time>,
}

/// Where a registration went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// The round.
    pub round: RoundId,
    /// When it will end.
    pub end: Time,
}

/// Why a registration is not taken. The texts are those of the servers in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The open round ends too late.
    #[error("too late to register for the desired round")]
    TooLate,
    /// The round has as many members as this server allows.
    #[error("maximum number of round members reached")]
    Full,
    /// The identity is registered with another challenge.
    #[error("conflicting registration")]
    Conflict,
    /// The operator has paused this server.
    #[error("registration is paused by the operator")]
    Paused,
    /// The storage failed.
    #[error("unknown error submitting challenge")]
    Storage,
}

/// A closed round to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The round.
    pub round: RoundId,
    /// The root of its members' tree.
    pub statement: Node,
    /// When it ends; possibly in the past.
    pub end: Time,
}

/// The state between two events.
pub struct Registry<S> {
    store: S,
    schedule: Schedule,
    limits: Limits,
    open: RoundId,
    members: u64,
    /// Accepted, not yet written.
    batch: HashMap<NodeId, Node>,
    /// Closed with members and without proof.
    waiting: BTreeSet<RoundId>,
    pow: PowChallenges,
    pubkey: [u8; 32],
    paused: bool,
}

impl<S: Store> Registry<S> {
    /// Continues from what the store knows. `fresh` are random bytes, used where there never was a proof of work challenge.
    pub fn new(
        store: S,
        schedule: Schedule,
        limits: Limits,
        pubkey: [u8; 32],
        fresh: &[u8; 32],
        now: Time,
    ) -> Result<Self, StoreError> {
        let pow = if let Some(pow) = store.pow_challenges()? {
            pow
        } else {
            let pow = PowChallenges { current: fresh.to_vec(), previous: None };
            store.set_pow_challenges(&pow)?;
            pow
        };
        let closed = store.closed()?;
        let mut open = schedule.open_round(now);
        if let Some((last, _)) = closed.last_key_value() {
            open = open.max(last.next());
        }
        // a round with members that the clock now finds in the future was opened by an earlier, later clock
        let with_members = store.rounds_with_members()?;
        if let Some(last) = with_members.last() {
            open = open.max(*last);
        }
        let mut registry = Self {
            members: store.count(open)?,
            store,
            schedule,
            limits,
            open,
            batch: HashMap::new(),
            waiting: BTreeSet::new(),
            pow,
            pubkey,
            paused: false,
        };
        for (round, closed) in closed {
            if closed.statement.is_some() && !registry.store.is_finished(round)? {
                registry.waiting.insert(round);
            }
        }
        for round in with_members {
            if round < open && !registry.waiting.contains(&round) && !registry.store.is_finished(round)? {
                registry.close(round)?;
            }
        }
        registry.on_tick(now)?;
        Ok(registry)
    }

    /// The round that takes registrations.
    pub fn open_round(&self) -> RoundId {
        self.open
    }

    /// Members of the open round, the unwritten ones included.
    pub fn open_members(&self) -> u64 {
        self.members
    }

    /// The rounds' times.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// The storage.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// When the open round will be closed.
    pub fn next_close(&self) -> Time {
        self.schedule.start(self.open)
    }

    /// What proofs of work may be made for: the announced parameters first.
    pub fn pow_params(&self) -> Vec<Params> {
        let difficulty = self.limits.pow_difficulty;
        let params = |challenge: &Vec<u8>| Params { challenge: challenge.clone(), difficulty };
        std::iter::once(&self.pow.current).chain(&self.pow.previous).map(params).collect()
    }

    /// Stops or resumes taking registrations.
    pub fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Whether registrations are stopped.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Closes the open round if its time has come. What was accepted for it is written first.
    pub fn on_tick(&mut self, now: Time) -> Result<(), StoreError> {
        while now >= self.schedule.start(self.open) {
            self.flush()?;
            let round = self.open;
            self.close(round)?;
            // a clock that jumped over rounds finds them empty
            let next = self.schedule.open_round(now).max(round.next());
            if next == round {
                break;
            }
            self.members = self.store.count(next)?;
            self.open = next;
        }
        Ok(())
    }

    fn close(&mut self, round: RoundId) -> Result<(), StoreError> {
        let members = self.store.members(round)?;
        let count = members.len() as u64;
        let closed = Closed { statement: membership::statement(members), members: count };
        self.store.close(round, &closed)?;
        if closed.statement.is_some() {
            self.waiting.insert(round);
        }
        Ok(())
    }

    /// Takes a registration into the current batch, or says why not. It counts only once [`Registry::flush`] has written it.
    pub fn on_register(&mut self, now: Time, registration: &Registration) -> Result<Accepted, Refused> {
        self.on_tick(now).map_err(|_| Refused::Storage)?;
        if self.paused {
            return Err(Refused::Paused);
        }
        let accepted = Accepted { round: self.open, end: self.schedule.end(self.open) };
        if registration.deadline.is_some_and(|deadline| accepted.end > deadline) {
            return Err(Refused::TooLate);
        }
        let known = match self.batch.get(&registration.member) {
            Some(challenge) => Some(*challenge),
            None => self.store.registration(self.open, &registration.member).map_err(|_| Refused::Storage)?,
        };
        match known {
            Some(challenge) if challenge == registration.challenge => Ok(accepted),
            Some(_) => Err(Refused::Conflict),
            None if self.members >= self.limits.max_round_members => Err(Refused::Full),
            None => {
                self.batch.insert(registration.member, registration.challenge);
                self.members += 1;
                Ok(accepted)
            }
        }
    }

    /// Registrations taken and not yet written.
    pub fn unwritten(&self) -> usize {
        self.batch.len()
    }

    /// Writes what was taken. After an error nothing of the batch counts, and its members must be told so.
    pub fn flush(&mut self) -> Result<(), StoreError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch: Vec<_> = self.batch.drain().collect();
        let outcome = self.store.register(self.open, &batch);
        if outcome.is_err() {
            self.members = self.members.saturating_sub(batch.len() as u64);
        }
        outcome
    }

    /// The round to run now: the earliest one that is closed and has no proof.
    pub fn next_run(&self) -> Result<Option<Run>, StoreError> {
        let Some(round) = self.waiting.first().copied() else { return Ok(None) };
        let closed = self.store.closed()?.get(&round).copied();
        let statement = closed.and_then(|closed| closed.statement);
        Ok(statement.map(|statement| Run { round, statement, end: self.schedule.end(round) }))
    }

    /// Stores the proof of a round. Only after this may its work be thrown away.
    pub fn on_proof(&mut self, round: RoundId, proof: PoetProof) -> Result<(), StoreError> {
        if self.store.is_finished(round)? {
            self.waiting.remove(&round);
            return Ok(());
        }
        let pow = self.pow.clone().rotated(&proof.merkle.root);
        let record = Record { proof, members: self.store.members(round)?, pubkey: self.pubkey };
        self.store.finish(round, &record, &pow)?;
        self.pow = pow;
        self.waiting.remove(&round);
        Ok(())
    }
}
