//! The life of rounds and registrations, without clock, sockets, disk or threads of its own.
//!
//! A [`Registry`] is fed with submissions and the current time and talks to a [`Store`]. It closes rounds when their time has
//! come, says which closed round is to be run next, and takes finished ones. Everything it needs after a restart it finds in the
//! store. Two rules keep every accepted member in exactly one proof, whatever the clock does:
//!
//! - a round that was closed never opens again: after a step backwards of the clock registrations go on into the round after;
//! - a round that has members is run, in order, and be it only for the smallest proof because its time is over already.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use kernels::posw::Node;
use proto::{ids::NodeId, poet::PoetProof};

use crate::{
    membership,
    pow::Params,
    schedule::{PhaseChange, RoundId, Schedule, Time},
    store::{Closed, Plans, PowChallenges, Record, Store, StoreError},
};

/// Why there is no registry.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The storage failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Rounds with members have other times than the configuration says.
    #[error("phase-shift is {configured:?} but the rounds in the database have {recorded:?}: set it so, and plan the change")]
    PhaseShift {
        /// What the configuration says.
        configured: Duration,
        /// What the rounds have.
        recorded: Duration,
    },
}

/// Why the phase shift cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The storage failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Rounds of the change before are not over.
    #[error("the change planned before is under way: wait until round {0} has its proof")]
    UnderWay(RoundId),
}

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
    /// How many members it has.
    pub members: u64,
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
    /// Closed with members and without proof: statement and number of members.
    waiting: BTreeMap<RoundId, (Node, u64)>,
    pow: PowChallenges,
    pubkey: [u8; 32],
    paused: bool,
    held_from: Option<RoundId>,
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
    ) -> Result<Self, OpenError> {
        let pow = if let Some(pow) = store.pow_challenges()? {
            pow
        } else {
            let pow = PowChallenges { current: fresh.to_vec(), previous: None };
            store.set_pow_challenges(&pow)?;
            pow
        };
        let closed = store.closed()?;
        let with_members = store.rounds_with_members()?;
        let fresh_start = closed.is_empty() && with_members.is_empty();
        let (schedule, plans) = planned(schedule, store.plans()?, fresh_start)?;
        store.set_plans(&plans)?;
        let mut open = schedule.open_round(now);
        if let Some((last, _)) = closed.last_key_value() {
            open = open.max(schedule.following(*last));
        }
        // a round with members that the clock now finds in the future was opened by an earlier, later clock
        if let Some(last) = with_members.last() {
            open = open.max(*last);
        }
        let finished = store.finished()?;
        let mut registry = Self {
            members: store.count(open)?,
            store,
            schedule,
            limits,
            open,
            batch: HashMap::new(),
            waiting: BTreeMap::new(),
            pow,
            pubkey,
            paused: false,
            held_from: plans.held_from,
        };
        for (round, closed) in closed {
            if let Some(statement) = closed.statement.filter(|_| !finished.contains(&round)) {
                registry.waiting.insert(round, (statement, closed.members));
            }
        }
        for round in with_members {
            if round < open && !registry.waiting.contains_key(&round) && !finished.contains(&round) {
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

    /// The first round that is not to be run until the operator says so.
    pub fn held_from(&self) -> Option<RoundId> {
        self.held_from
    }

    /// Lets the rounds that are closed run, and none after them; or all again. Registration goes on.
    pub fn hold(&mut self, held: bool) -> Result<(), StoreError> {
        let held_from = if held { self.held_from.or(Some(self.open)) } else { None };
        self.store.set_plans(&Plans { held_from, ..self.plans() })?;
        self.held_from = held_from;
        Ok(())
    }

    /// Changes the phase shift after the open round, whose members count on its times. The shift of the open round itself
    /// takes a planned change back.
    pub fn change_phase(&mut self, phase_shift: Duration) -> Result<Option<PhaseChange>, PlanError> {
        let mut schedule = self.schedule;
        if let Some(change) = schedule.change().filter(|change| self.open >= change.first) {
            if let Some((waiting, _)) = self.waiting.first_key_value().filter(|(round, _)| **round <= change.last) {
                return Err(PlanError::UnderWay(*waiting));
            }
            // the change is over: its phase shift is that of all rounds that still matter
            schedule = schedule.with_phase_shift(change.phase_shift).with_change(None);
        }
        schedule = if phase_shift == schedule.phase_shift() {
            schedule.with_change(None)
        } else {
            schedule.with_phase_shift_after(self.open, phase_shift)
        };
        let (phase_shift, change) = (schedule.phase_shift(), schedule.change());
        self.store.set_plans(&Plans { phase_shift, change, held_from: self.held_from })?;
        self.schedule = schedule;
        Ok(change)
    }

    fn plans(&self) -> Plans {
        Plans { phase_shift: self.schedule.phase_shift(), change: self.schedule.change(), held_from: self.held_from }
    }

    /// Closes the open round if its time has come. What was accepted for it is written first.
    pub fn on_tick(&mut self, now: Time) -> Result<(), StoreError> {
        while now >= self.schedule.start(self.open) {
            self.flush()?;
            let round = self.open;
            self.close(round)?;
            // a clock that jumped over rounds finds them empty
            let next = self.schedule.open_round(now).max(self.schedule.following(round));
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
        if let Some(statement) = closed.statement {
            self.waiting.insert(round, (statement, count));
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

    /// The round to run now: the earliest one that is closed and has no proof, if it is not held.
    pub fn next_run(&self) -> Option<Run> {
        let (round, (statement, members)) = self.waiting.first_key_value().map(|(round, closed)| (*round, *closed))?;
        let held = self.held_from.is_some_and(|from| round >= from);
        (!held).then(|| Run { round, statement, members, end: self.schedule.end(round) })
    }

    /// Closed rounds that run only once the operator says so.
    pub fn held(&self) -> impl Iterator<Item = RoundId> {
        self.waiting.keys().copied().filter(|round| self.held_from.is_some_and(|from| *round >= from))
    }

    /// The statement of a round that waits for its proof.
    pub fn statement(&self, round: RoundId) -> Option<Node> {
        self.waiting.get(&round).map(|(statement, _)| *statement)
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

/// The schedule of the configuration with what was planned. A configuration may have the phase shift from before a change or
/// the one from after it; where there are no rounds yet, any.
fn planned(schedule: Schedule, plans: Option<Plans>, fresh_start: bool) -> Result<(Schedule, Plans), OpenError> {
    let configured = schedule.phase_shift();
    let Some(plans) = plans.filter(|plans| !fresh_start || plans.change.is_some()) else {
        return Ok((
            schedule,
            Plans { phase_shift: configured, change: None, held_from: plans.and_then(|plans| plans.held_from) },
        ));
    };
    if configured != plans.phase_shift && plans.change.is_none_or(|change| change.phase_shift != configured) {
        return Err(OpenError::PhaseShift { configured, recorded: plans.phase_shift });
    }
    Ok((schedule.with_phase_shift(plans.phase_shift).with_change(plans.change), plans))
}
