//! How one identity makes its activations, epoch after epoch: a state machine without clock, network and disk
//! (activation.md sections 3, 4 and 12).
//!
//! ```text
//!  synced ─► initial PoST ─► challenge ─► registration ─► PoET proof ─► PoST ─► publish ─┐
//!                               ▲                                                        │
//!                               └────────────────────────────────────────────────────────┘
//! ```
//!
//! The shell around it answers every [`Action`] with an [`Event`]. Where the identity stands follows from [`Saved`], what is on
//! disk: after a restart a builder made from it goes on where the last one was, whenever that ended. An [`Action::Save`] must be
//! on disk before the actions behind it are carried out.
//!
//! An activation is kept on disk before it is signed, so that an identity never has two activations in one epoch,
//! whatever becomes of its coinbase in between (section 13).

mod notice;
mod saved;

use std::collections::{BTreeMap, BTreeSet};

use proto::{
    activation::{
        Version, Versions,
        v1::{InnerActivationTxV1, NipostChallengeV1, NipostV1, PostMetadataV1},
        v2::{ActivationTxV2, InitialPartsV2, MembershipProofV2, NipostChallengeV2, NipostV2, SubPostV2},
    },
    ids::{Address, AtxId, EdSignature, Hash32, NodeId, PoetProofRef},
    layers::EpochId,
    poet::{Leaves, MembershipProof},
    scale::EncodeError,
    units::{Labels, SpaceUnits, TickHeight, VrfNonce},
};

pub use notice::Notice;
pub use saved::{BestProof, Challenge, Change, InitialPost, Nipost, Registration, Saved, SignedActivation, Unsigned};

use crate::timeline::{Deadlines, Moment, Timeline};

/// What does not change while a builder lives.
#[derive(Debug, Clone)]
pub struct Config {
    /// The identity.
    pub id: NodeId,
    /// The first activation of all.
    pub golden: AtxId,
    /// The clock.
    pub timeline: Timeline,
    /// Which version activations have.
    pub versions: Versions,
    /// Addresses of the PoET servers.
    pub poets: Vec<String>,
    /// The wait before PoET servers are asked again.
    pub retry: std::time::Duration,
}

/// Tells answers to the latest question from late ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ticket(u64);

/// The identity's last activation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnActivation {
    /// Its id.
    pub id: AtxId,
    /// Its publish epoch.
    pub publish: EpochId,
    /// How many came before it.
    pub sequence: u64,
    /// Where its ticks end.
    pub height: TickHeight,
    /// The VRF nonce known for it; none where that is not known.
    pub vrf_nonce: Option<VrfNonce>,
}

/// What a proving service answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostAnswer {
    /// The proof.
    pub post: proto::post::Proof,
    /// Its space.
    pub num_units: SpaceUnits,
    /// Labels in a unit.
    pub labels_per_unit: Labels,
    /// What the labels are bound to.
    pub commitment: AtxId,
    /// The VRF nonce; without one there is no activation.
    pub vrf_nonce: Option<VrfNonce>,
}

/// The end of a verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The proof is valid.
    Valid,
    /// The proof is not valid, which is a definite finding.
    Invalid,
    /// It could not be found out.
    Unknown,
}

/// A proof of elapsed time in which the identity's challenge is a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoundProof {
    /// The proof's name.
    pub reference: PoetProofRef,
    /// Leads from the challenge to the round's statement.
    pub membership: MembershipProof,
    /// How much time.
    pub leaves: Leaves,
}

/// What happens to a builder.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Begins, or goes on after a restart.
    Start,
    /// A moment that was asked for has come. An alarm too early or too often does no harm.
    Alarm,
    /// The node knows the activations of the network; before that nothing begins.
    Synced,
    /// Answers [`Action::FindOwn`].
    Own(Ticket, Option<OwnActivation>),
    /// Answers [`Action::Prove`].
    Proven(Ticket, Result<PostAnswer, String>),
    /// Answers [`Action::VerifyPost`].
    Verified(Ticket, Verdict),
    /// Answers [`Action::FindPositioning`] with an activation and its height; none is the golden one.
    Positioning(Ticket, Option<(AtxId, TickHeight)>),
    /// Answers [`Action::Register`]: the round and the moment at which it ends.
    Registered(Ticket, String, Result<(String, Moment), String>),
    /// Answers [`Action::Fetch`].
    Fetched(Ticket, String, Result<RoundProof, String>),
    /// Answers [`Action::Sign`] with the id of the activation and its signature; an error if something else was signed for this
    /// epoch.
    Signed(Ticket, Result<(AtxId, EdSignature), String>),
    /// Answers [`Action::Publish`].
    Published(Ticket, Result<(), String>),
}

/// What the shell does for a builder.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Brings changes to the disk, together and before anything else happens.
    Save(Vec<Change>),
    /// Sends an [`Event::Alarm`] at that moment.
    Wake(Moment),
    /// Looks for the identity's last activation: of the latest epoch, and of those the one received last.
    FindOwn(Ticket),
    /// Asks the proving service for a proof, for as long as there is time.
    Prove {
        /// For the answer.
        ticket: Ticket,
        /// What is proven for.
        challenge: [u8; 32],
        /// No answer is needed afterwards; none for the initial proof.
        until: Option<Moment>,
    },
    /// Verifies all labels of an initial proof of space, for the challenge of zeros.
    VerifyPost {
        /// For the answer.
        ticket: Ticket,
        /// The proof.
        post: proto::post::Proof,
        /// What the labels are bound to.
        commitment: AtxId,
        /// Its space.
        num_units: SpaceUnits,
    },
    /// Looks for the activation to stand on: the highest one that was verified, published before `publish`.
    FindPositioning {
        /// For the answer.
        ticket: Ticket,
        /// The epoch of the activation that will stand on it.
        publish: EpochId,
        /// The golden one is the answer when this has passed.
        until: Option<Moment>,
    },
    /// Gets a certificate from a PoET server's certifier beforehand. No answer.
    Certify(String),
    /// Registers a challenge with a PoET server.
    Register {
        /// For the answer.
        ticket: Ticket,
        /// The server.
        poet: String,
        /// What is registered.
        challenge: Hash32,
        /// Registration ends.
        until: Moment,
        /// The server must refuse if its round ends later.
        proof_until: Moment,
    },
    /// Fetches and verifies the proof of a round in which the challenge must be a member.
    Fetch {
        /// For the answer.
        ticket: Ticket,
        /// Server and round.
        registration: Registration,
        /// Not before that, and a little later, so that not all ask at once.
        at: Moment,
        /// No proof is of use afterwards.
        until: Moment,
    },
    /// Signs an activation; the signing guard may refuse.
    Sign(Ticket, Box<Unsigned>),
    /// Publishes an activation, through the node's own validation.
    Publish(Ticket, SignedActivation),
    /// Tells people and programs.
    Tell(Notice),
    /// Ends the program: it would throw away registrations of this epoch.
    Fatal(Mismatch),
}

/// Registrations are there, but with none of the configured PoET servers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "identity {id} is registered with {} for epoch {publish}, and none of these servers is configured: configure one of them until \
     that epoch is over",
    registered.join(", ")
)]
pub struct Mismatch {
    /// The identity.
    pub id: NodeId,
    /// The epoch.
    pub publish: EpochId,
    /// Where it is registered.
    pub registered: Vec<String>,
}

/// What a builder is waiting for.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    /// Has not begun.
    New,
    /// For [`Event::Synced`].
    Sync,
    /// For a moment, after which it looks where it stands.
    Pause(Moment),
    /// For the last own activation, to know whether an initial proof is needed.
    OwnAtFirst,
    /// For the initial proof.
    InitialPost,
    /// For its verification.
    CheckNew(InitialPost),
    /// For the last own activation, to know when registration opens.
    OwnBeforeWindow,
    /// For the window of registration.
    Window(EpochId),
    /// For the last own activation: what the challenge follows.
    OwnInWindow(EpochId),
    /// For the verification of the initial proof before it is used.
    CheckAgain(EpochId),
    /// For the positioning activation.
    Positioning(EpochId, Option<OwnActivation>),
    /// For PoET servers, these being left.
    Register(BTreeSet<String>),
    /// For proofs of elapsed time, with the best so far and its server.
    Fetch(BTreeSet<String>, Option<(String, RoundProof)>),
    /// For the proof of space.
    Prove,
    /// For the verification of the initial proof against what the proving service holds now.
    CheckService(Nipost),
    /// For the beginning of the publish epoch.
    Epoch,
    /// For the own activation that this one follows, whose VRF nonce need not be repeated.
    OwnAtLast,
    /// For the signature.
    Sign,
    /// For the network.
    Publish,
    /// Nothing any more.
    Ended,
}

/// Makes the activations of one identity.
#[derive(Debug)]
pub struct Builder {
    config: Config,
    coinbase: Address,
    saved: Saved,
    synced: bool,
    step: Step,
    ticket: Ticket,
    actions: Vec<Action>,
}

impl Builder {
    /// One that goes on from what is on disk. It does nothing before [`Event::Start`].
    pub fn new(config: Config, coinbase: Address, saved: Saved) -> Self {
        Self { config, coinbase, saved, synced: false, step: Step::New, ticket: Ticket::default(), actions: Vec::new() }
    }

    /// Rewards of activations that are not signed yet go to this account.
    pub fn set_coinbase(&mut self, coinbase: Address) {
        self.coinbase = coinbase;
    }

    /// What is on disk, or will be when the last actions are done.
    pub fn saved(&self) -> &Saved {
        &self.saved
    }

    /// The next deadline that matters to people: its meaning and moment.
    pub fn deadline(&self) -> Option<(&'static str, Moment)> {
        let publish = self.saved.challenge.as_ref()?.publish();
        let deadlines = self.config.timeline.of(publish);
        Some(match self.step {
            Step::Register(_) => ("registration with PoET ends", deadlines.register),
            Step::Fetch(..) => ("last moment for a PoET proof", deadlines.proof),
            _ => ("last moment to publish", deadlines.publish),
        })
    }

    /// Takes an event and says what is to be done, in this order.
    pub fn on_event(&mut self, now: Moment, event: Event) -> Vec<Action> {
        self.take(now, event);
        std::mem::take(&mut self.actions)
    }

    fn take(&mut self, now: Moment, event: Event) {
        match (&self.step, event) {
            (Step::New, Event::Start) => {
                for poet in self.config.poets.clone() {
                    self.actions.push(Action::Certify(poet));
                }
                self.resume(now);
            }
            (Step::Sync, Event::Synced) => {
                self.synced = true;
                self.resume(now);
            }
            (_, Event::Synced) => self.synced = true,
            (_, Event::Alarm) => self.alarm(now),
            (_, Event::Own(ticket, own)) if ticket == self.ticket => self.on_own(now, own),
            (_, Event::Proven(ticket, answer)) if ticket == self.ticket => self.on_proven(now, answer),
            (_, Event::Verified(ticket, verdict)) if ticket == self.ticket => self.on_verified(now, verdict),
            (Step::Positioning(..), Event::Positioning(ticket, found)) if ticket == self.ticket => {
                self.on_positioning(now, found);
            }
            (Step::Register(_), Event::Registered(ticket, poet, answer)) if ticket == self.ticket => {
                self.on_registered(now, &poet, answer);
            }
            (Step::Fetch(..), Event::Fetched(ticket, poet, answer)) if ticket == self.ticket => {
                self.on_fetched(now, &poet, answer);
            }
            (Step::Sign, Event::Signed(ticket, answer)) if ticket == self.ticket => self.on_signed(now, answer),
            (Step::Publish, Event::Published(ticket, answer)) if ticket == self.ticket => self.on_published(now, answer),
            // Too late, or not asked for.
            _ => {}
        }
    }

    // ---- small parts ----

    fn ask(&mut self) -> Ticket {
        self.ticket.0 += 1;
        self.ticket
    }

    fn tell(&mut self, notice: Notice) {
        self.actions.push(Action::Tell(notice));
    }

    fn save(&mut self, changes: Vec<Change>) {
        for change in &changes {
            self.saved.apply(change.clone());
        }
        self.actions.push(Action::Save(changes));
    }

    fn wait(&mut self, step: Step, until: Moment) {
        self.step = step;
        self.actions.push(Action::Wake(until));
    }

    /// Later again, keeping everything.
    fn trouble(&mut self, what: String, again: Moment) {
        // Answers to what was asked before are not wanted any more.
        self.ask();
        self.tell(Notice::Trouble { what, again });
        self.wait(Step::Pause(again), again);
    }

    fn trouble_until_next_layer(&mut self, now: Moment, what: String) {
        let again = self.config.timeline.next_layer(now);
        self.trouble(what, again);
    }

    fn find_own(&mut self, step: Step) {
        self.step = step;
        let ticket = self.ask();
        self.actions.push(Action::FindOwn(ticket));
    }

    fn verify(&mut self, step: Step, initial: InitialPost) {
        self.step = step;
        let ticket = self.ask();
        let InitialPost { post, commitment, num_units, .. } = initial;
        self.actions.push(Action::VerifyPost { ticket, post, commitment, num_units });
    }

    fn deadlines(&self, publish: EpochId) -> Deadlines {
        self.config.timeline.of(publish)
    }

    /// Forgets what was begun for an epoch; `post` too if the initial proof is wrong.
    fn abandon(&mut self, publish: EpochId, post: bool) {
        let mut changes = vec![Change::NoRegistrations, Change::NoNipost, Change::NoChallenge];
        if post {
            changes.push(Change::NoInitialPost);
        }
        self.save(changes);
        self.tell(Notice::Abandoned { publish });
    }

    /// Too late for this epoch.
    fn expired(&mut self, now: Moment, publish: EpochId, what: &str) {
        self.abandon(publish, false);
        self.trouble_until_next_layer(now, format!("too late for epoch {publish}: {what}"));
    }

    // ---- where it stands ----

    /// Goes on by what is on disk (activation.md section 12).
    fn resume(&mut self, now: Moment) {
        if !self.synced {
            self.step = Step::Sync;
            self.tell(Notice::WaitingForSync);
            return;
        }
        let Some(challenge) = &self.saved.challenge else {
            // Whether an initial proof is needed, and then what comes next.
            let step = if self.saved.initial.is_some() { Step::OwnBeforeWindow } else { Step::OwnAtFirst };
            return self.find_own(step);
        };
        let publish = challenge.publish();
        if publish < self.config.timeline.epoch_at(now) {
            self.abandon(publish, false);
            return self.resume(now);
        }
        let deadlines = self.deadlines(publish);
        if let Some(signed) = self.saved.signed.clone() {
            self.publish(signed);
        } else if let Some(assembled) = self.saved.assembled.clone() {
            self.step = Step::Sign;
            let ticket = self.ask();
            self.actions.push(Action::Sign(ticket, Box::new(assembled)));
            self.actions.push(Action::Wake(deadlines.publish));
        } else if self.saved.nipost.is_some() {
            if now < deadlines.publish_from {
                self.tell(Notice::WaitingForEpoch { publish, until: deadlines.publish_from });
                self.wait(Step::Epoch, deadlines.publish_from);
            } else {
                self.find_own(Step::OwnAtLast);
            }
        } else if let Some(best) = &challenge.best {
            let challenge = best.reference.0;
            self.step = Step::Prove;
            let ticket = self.ask();
            self.tell(Notice::Proving { challenge });
            self.actions.push(Action::Prove { ticket, challenge, until: Some(deadlines.publish) });
            self.actions.push(Action::Wake(deadlines.publish));
        } else {
            self.register(now);
        }
    }

    fn alarm(&mut self, now: Moment) {
        let publish = self.saved.challenge.as_ref().map(Challenge::publish);
        match (&self.step, publish) {
            (Step::Pause(until), _) if now >= *until => self.resume(now),
            (Step::Window(publish), _) if now >= self.deadlines(*publish).opens => {
                let publish = *publish;
                self.find_own(Step::OwnInWindow(publish));
            }
            (Step::Register(_), Some(publish)) if now >= self.deadlines(publish).register => self.registration_over(now),
            (Step::Fetch(_, best), Some(publish))
                if now >= self.deadlines(publish).proof || (best.is_some() && now >= self.enough_waiting()) =>
            {
                self.fetching_over(now);
            }
            (Step::Epoch, Some(publish)) if now >= self.deadlines(publish).publish_from => self.resume(now),
            (Step::Prove | Step::CheckService(_) | Step::OwnAtLast | Step::Sign | Step::Publish, Some(publish))
                if now >= self.deadlines(publish).publish =>
            {
                self.expired(now, publish, "the next epoch has begun");
            }
            _ => {}
        }
    }

    // ---- initial proof and challenge ----

    fn on_own(&mut self, now: Moment, own: Option<OwnActivation>) {
        match self.step.clone() {
            Step::OwnAtFirst if own.is_none() => {
                self.step = Step::InitialPost;
                let ticket = self.ask();
                self.tell(Notice::Proving { challenge: [0; 32] });
                self.actions.push(Action::Prove { ticket, challenge: [0; 32], until: None });
            }
            Step::OwnAtFirst | Step::OwnBeforeWindow => {
                let publish = self.config.timeline.next_publish(now, own.map(|own| own.publish));
                let opens = self.deadlines(publish).opens;
                if now < opens {
                    self.tell(Notice::WaitingForRegistration { publish, until: opens });
                    self.wait(Step::Window(publish), opens);
                } else {
                    self.find_own(Step::OwnInWindow(publish));
                }
            }
            Step::OwnInWindow(publish) => self.build_challenge(now, publish, own),
            Step::OwnAtLast => self.keep(now, own),
            _ => {}
        }
    }

    fn build_challenge(&mut self, now: Moment, publish: EpochId, own: Option<OwnActivation>) {
        if now >= self.deadlines(publish).register || own.as_ref().is_some_and(|own| own.publish >= publish) {
            // The machine slept, or the activation came from elsewhere: another epoch is meant.
            return self.resume(now);
        }
        match (&self.saved.initial, own) {
            (_, Some(own)) => self.find_positioning(publish, Some(own)),
            (Some(initial), None) => {
                let initial = initial.clone();
                self.verify(Step::CheckAgain(publish), initial);
            }
            (None, None) => self.trouble_until_next_layer(now, "the identity's own activations are gone".into()),
        }
    }

    fn find_positioning(&mut self, publish: EpochId, own: Option<OwnActivation>) {
        self.step = Step::Positioning(publish, own);
        let ticket = self.ask();
        let until = self.deadlines(publish).positioning;
        self.actions.push(Action::FindPositioning { ticket, publish, until });
    }

    fn on_positioning(&mut self, now: Moment, found: Option<(AtxId, TickHeight)>) {
        let Step::Positioning(publish, own) = self.step.clone() else { return };
        let golden = self.config.golden;
        // The highest one; of equal ones the own (activation.md section 3.3).
        let positioning = match (&own, found) {
            (None, found) => found.map_or(golden, |(id, _)| id),
            (Some(own), Some((id, height))) if id != golden && height > own.height => id,
            (Some(own), _) => own.id,
        };
        let challenge = match (own, &self.saved.initial) {
            (Some(own), _) => NipostChallengeV1 {
                publish_epoch: publish,
                sequence: own.sequence.saturating_add(1),
                prev_atx_id: own.id,
                positioning_atx_id: positioning,
                commitment_atx_id: None,
                initial_post: None,
            },
            (None, Some(initial)) => NipostChallengeV1 {
                publish_epoch: publish,
                sequence: 0,
                prev_atx_id: AtxId::default(),
                positioning_atx_id: positioning,
                commitment_atx_id: Some(initial.commitment),
                initial_post: Some(initial.post.clone()),
            },
            (None, None) => return self.resume(now),
        };
        self.save(vec![Change::Challenge(Challenge { parts: challenge, best: None })]);
        self.resume(now);
    }

    // ---- registration ----

    /// The hash that PoET servers get, in the form of the version of its epoch.
    fn challenge_hash(&self) -> Option<Result<Hash32, EncodeError>> {
        let Challenge { parts, .. } = self.saved.challenge.as_ref()?;
        Some(match self.config.versions.of(parts.publish_epoch) {
            Version::V1 => parts.hash(),
            Version::V2 => NipostChallengeV2 {
                publish_epoch: parts.publish_epoch,
                prev_atx_id: parts.prev_atx_id,
                positioning_atx_id: parts.positioning_atx_id,
                initial_post: parts.initial_post.clone(),
            }
            .hash(),
        })
    }

    fn register(&mut self, now: Moment) {
        let (Some(challenge), Some(hash)) = (&self.saved.challenge, self.challenge_hash()) else { return };
        let publish = challenge.publish();
        let hash = match hash {
            Ok(hash) => hash,
            Err(e) => return self.trouble_until_next_layer(now, format!("the challenge has no encoding: {e}")),
        };
        let deadlines = self.deadlines(publish);
        let done: BTreeSet<&String> = self.saved.registrations.keys().collect();
        let missing: BTreeSet<String> = self.config.poets.iter().filter(|poet| !done.contains(poet)).cloned().collect();
        let usable = self.config.poets.iter().any(|poet| done.contains(poet));
        if missing.is_empty() && usable {
            return self.fetch(now);
        }
        if now >= deadlines.register {
            if self.saved.registrations.is_empty() {
                self.expired(now, publish, "no PoET server took the registration before its round began");
            } else if usable {
                self.fetch(now);
            } else {
                self.step = Step::Ended;
                let registered = self.saved.registrations.keys().cloned().collect();
                self.actions.push(Action::Fatal(Mismatch { id: self.config.id, publish, registered }));
            }
            return;
        }
        let ticket = self.ask();
        for poet in &missing {
            let action = Action::Register {
                ticket,
                poet: poet.clone(),
                challenge: hash,
                until: deadlines.register,
                proof_until: deadlines.proof,
            };
            self.actions.push(action);
        }
        if missing.is_empty() {
            return self.trouble_until_next_layer(now, "no PoET server is configured".into());
        }
        self.wait(Step::Register(missing), deadlines.register);
    }

    fn on_registered(&mut self, now: Moment, poet: &str, answer: Result<(String, Moment), String>) {
        let Step::Register(left) = &mut self.step else { return };
        if !left.remove(poet) {
            return;
        }
        let all = left.is_empty();
        let Some(Ok(challenge)) = self.challenge_hash() else { return };
        match answer {
            Ok((round, end)) => {
                let registration = Registration { poet: poet.to_owned(), challenge, round: round.clone(), end };
                self.save(vec![Change::Registered(registration)]);
                self.tell(Notice::Registered { poet: poet.to_owned(), round });
            }
            Err(e) => {
                let again = now + self.config.retry;
                self.tell(Notice::Trouble { what: format!("PoET server {poet} did not take the registration: {e}"), again });
            }
        }
        if all {
            self.registration_over(now);
        }
    }

    /// All servers have answered, or the round has begun.
    fn registration_over(&mut self, now: Moment) {
        if self.config.poets.iter().any(|poet| self.saved.registrations.contains_key(poet)) {
            self.fetch(now);
        } else if let Some(challenge) = &self.saved.challenge {
            let publish = challenge.publish();
            if now >= self.deadlines(publish).register {
                self.register(now);
            } else {
                self.trouble("no PoET server took the registration".into(), now + self.config.retry);
            }
        }
    }

    // ---- proof of elapsed time ----

    fn fetch(&mut self, now: Moment) {
        let Some(challenge) = &self.saved.challenge else { return };
        let publish = challenge.publish();
        let deadlines = self.deadlines(publish);
        if now >= deadlines.proof {
            return self.expired(now, publish, "no proof of elapsed time came in time");
        }
        let known: BTreeMap<String, Registration> = self
            .saved
            .registrations
            .iter()
            .filter(|(poet, _)| self.config.poets.contains(poet))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        let ticket = self.ask();
        let last = known.values().map(|registration| registration.end).max().unwrap_or(now);
        self.tell(Notice::WaitingForProof { publish, until: last });
        for registration in known.values() {
            let at = registration.end;
            self.actions.push(Action::Fetch { ticket, registration: registration.clone(), at, until: deadlines.proof });
        }
        self.wait(Step::Fetch(known.into_keys().collect(), None), deadlines.proof);
    }

    fn on_fetched(&mut self, now: Moment, poet: &str, answer: Result<RoundProof, String>) {
        let Step::Fetch(left, best) = &mut self.step else { return };
        if !left.remove(poet) {
            return;
        }
        let all = left.is_empty();
        match answer {
            Ok(proof) => {
                let leaves = proof.leaves;
                // Of equal ones the first.
                if best.as_ref().is_none_or(|(_, best)| leaves.0 > best.leaves.0) {
                    *best = Some((poet.to_owned(), proof));
                }
                let round = self.round_of(poet);
                self.tell(Notice::ProofFetched { poet: poet.to_owned(), round, leaves });
            }
            Err(e) => {
                let again = now + self.config.retry;
                self.tell(Notice::Trouble { what: format!("no proof from PoET server {poet}: {e}"), again });
            }
        }
        let enough = self.enough_waiting();
        if all || (matches!(&self.step, Step::Fetch(_, Some(_))) && now >= enough) {
            self.fetching_over(now);
        } else {
            self.actions.push(Action::Wake(enough));
        }
    }

    /// The round in which a server took the challenge.
    fn round_of(&self, poet: &str) -> String {
        self.saved.registrations.get(poet).map(|registration| registration.round.clone()).unwrap_or_default()
    }

    /// When a proof in hand is worth more than a better one: whoever waits for a server that does not answer misses the next
    /// registration.
    fn enough_waiting(&self) -> Moment {
        let ends = self.saved.registrations.values().map(|registration| registration.end);
        ends.max().unwrap_or_default() + self.config.timeline.cycle_gap / 12
    }

    /// All servers have answered, or there is no more time.
    fn fetching_over(&mut self, now: Moment) {
        let Step::Fetch(_, best) = self.step.clone() else { return };
        let Some(challenge) = self.saved.challenge.clone() else { return };
        match best {
            Some((poet, RoundProof { reference, membership, leaves })) => {
                let best = Some(BestProof { reference, membership });
                self.save(vec![Change::Challenge(Challenge { best, ..challenge })]);
                let round = self.round_of(&poet);
                self.tell(Notice::BestProof { poet, round, leaves });
                self.resume(now);
            }
            None if now >= self.deadlines(challenge.publish()).proof => {
                self.expired(now, challenge.publish(), "no proof of elapsed time came in time");
            }
            None => self.trouble("no PoET server has a proof yet".into(), now + self.config.retry),
        }
    }

    // ---- proof of space ----

    fn on_proven(&mut self, now: Moment, answer: Result<PostAnswer, String>) {
        let answer = match answer {
            Ok(answer) => answer,
            Err(e) => {
                let best = self.saved.challenge.as_ref().and_then(|challenge| challenge.best.as_ref());
                let challenge = if self.step == Step::InitialPost { None } else { best.map(|best| best.reference.0) };
                self.tell(Notice::ProvingFailed { challenge: challenge.unwrap_or_default() });
                return self.trouble_until_next_layer(now, format!("no proof of space: {e}"));
            }
        };
        let Some(vrf_nonce) = answer.vrf_nonce else {
            return self.trouble_until_next_layer(now, "the proving service knows no VRF nonce".into());
        };
        let PostAnswer { post, num_units, labels_per_unit, commitment, .. } = answer;
        match (&self.step, &self.saved.challenge) {
            (Step::InitialPost, _) => {
                let initial = InitialPost { post, commitment, num_units, vrf_nonce };
                self.verify(Step::CheckNew(initial.clone()), initial);
            }
            (Step::Prove, Some(Challenge { parts, best: Some(best) })) => {
                let nipost = Nipost {
                    post,
                    num_units,
                    vrf_nonce,
                    labels_per_unit,
                    reference: best.reference,
                    membership: best.membership.clone(),
                };
                match &parts.initial_post {
                    // Does it still belong to what the service holds?
                    Some(post) => {
                        let initial = InitialPost { post: post.clone(), commitment, num_units, vrf_nonce };
                        self.verify(Step::CheckService(nipost), initial);
                    }
                    None => self.proven(now, nipost),
                }
            }
            _ => {}
        }
    }

    fn proven(&mut self, now: Moment, nipost: Nipost) {
        let challenge = nipost.reference.0;
        self.save(vec![Change::Nipost(nipost)]);
        self.tell(Notice::Proven { challenge });
        self.resume(now);
    }

    fn on_verified(&mut self, now: Moment, verdict: Verdict) {
        match (self.step.clone(), verdict) {
            (Step::CheckNew(initial), Verdict::Valid) => {
                self.save(vec![Change::InitialPost(initial)]);
                self.tell(Notice::Proven { challenge: [0; 32] });
                self.resume(now);
            }
            (Step::CheckNew(_), _) => {
                self.trouble_until_next_layer(now, "the initial proof of space is not valid".into());
            }
            (Step::CheckAgain(publish), Verdict::Valid) => self.find_positioning(publish, None),
            (Step::CheckService(nipost), Verdict::Valid) => self.proven(now, nipost),
            // Only a definite finding may cost the proof.
            (Step::CheckAgain(publish), Verdict::Invalid) => self.initial_is_wrong(now, publish),
            (Step::CheckService(_), Verdict::Invalid) => {
                let publish = self.saved.challenge.as_ref().map_or_else(EpochId::default, Challenge::publish);
                self.initial_is_wrong(now, publish);
            }
            (Step::CheckAgain(_) | Step::CheckService(_), Verdict::Unknown) => {
                self.trouble_until_next_layer(now, "the initial proof of space could not be verified".into());
            }
            _ => {}
        }
    }

    fn initial_is_wrong(&mut self, now: Moment, publish: EpochId) {
        self.abandon(publish, true);
        let what = "the initial proof of space is not valid for what the proving service holds: it is made again";
        self.trouble_until_next_layer(now, what.into());
    }

    // ---- publication ----

    /// The activation is kept before it is signed, so that after a restart the same one is signed again.
    fn keep(&mut self, now: Moment, own: Option<OwnActivation>) {
        let (Some(challenge), Some(nipost)) = (&self.saved.challenge, &self.saved.nipost) else { return };
        let assembled = self.assemble(challenge, nipost, own);
        self.save(vec![Change::Assembled(Box::new(assembled))]);
        self.resume(now);
    }

    /// The activation without its signature (activation.md section 3.4).
    fn assemble(&self, challenge: &Challenge, nipost: &Nipost, own: Option<OwnActivation>) -> Unsigned {
        let parts = challenge.parts.clone();
        let initial = parts.prev_atx_id.is_empty();
        match self.config.versions.of(parts.publish_epoch) {
            Version::V1 => {
                // The nonce of the previous activation holds until another one is given.
                let before = own.filter(|own| own.id == parts.prev_atx_id).and_then(|own| own.vrf_nonce);
                let changed = before.is_some_and(|before| before != nipost.vrf_nonce);
                Unsigned::V1(InnerActivationTxV1 {
                    challenge: parts,
                    coinbase: self.coinbase,
                    num_units: nipost.num_units,
                    nipost: Some(NipostV1 {
                        membership: nipost.membership.clone(),
                        post: Some(nipost.post.clone()),
                        post_metadata: Some(PostMetadataV1 {
                            challenge: nipost.reference.0.into(),
                            labels_per_unit: nipost.labels_per_unit,
                        }),
                    }),
                    node_id: initial.then_some(self.config.id),
                    vrf_nonce: (initial || changed).then_some(nipost.vrf_nonce),
                })
            }
            Version::V2 => Unsigned::V2(ActivationTxV2 {
                publish_epoch: parts.publish_epoch,
                positioning_atx: parts.positioning_atx_id,
                coinbase: self.coinbase,
                initial: parts
                    .initial_post
                    .zip(parts.commitment_atx_id)
                    .map(|(post, commitment_atx)| InitialPartsV2 { commitment_atx, post }),
                previous_atxs: if initial { Vec::new() } else { vec![parts.prev_atx_id] },
                niposts: vec![NipostV2 {
                    membership: MembershipProofV2 { nodes: nipost.membership.nodes.clone() },
                    challenge: nipost.reference,
                    posts: vec![SubPostV2 {
                        marriage_index: 0,
                        prev_atx_index: 0,
                        membership_leaf_index: nipost.membership.leaf_index,
                        post: nipost.post.clone(),
                        num_units: nipost.num_units,
                    }],
                }],
                vrf_nonce: nipost.vrf_nonce,
                marriages: Vec::new(),
                marriage_atx: None,
                smesher_id: self.config.id,
                signature: EdSignature::default(),
            }),
        }
    }

    fn on_signed(&mut self, now: Moment, answer: Result<(AtxId, EdSignature), String>) {
        let Some(publish) = self.saved.challenge.as_ref().map(Challenge::publish) else { return };
        let Some(unsigned) = self.saved.assembled.clone() else { return };
        match answer {
            Ok((id, signature)) => {
                let signed = SignedActivation { id, activation: unsigned.with(self.config.id, signature) };
                self.save(vec![Change::Signed(signed)]);
                self.resume(now);
            }
            Err(e) => self.expired(now, publish, &e),
        }
    }

    fn publish(&mut self, signed: SignedActivation) {
        self.step = Step::Publish;
        let ticket = self.ask();
        let publish = signed.activation.publish_epoch();
        self.actions.push(Action::Publish(ticket, signed));
        self.actions.push(Action::Wake(self.deadlines(publish).publish));
    }

    fn on_published(&mut self, now: Moment, answer: Result<(), String>) {
        let Some(signed) = self.saved.signed.clone() else { return };
        match answer {
            Ok(()) => {
                let publish = signed.activation.publish_epoch();
                self.save(vec![Change::NoRegistrations, Change::NoNipost, Change::NoChallenge]);
                self.tell(Notice::Published { publish, id: signed.id });
                self.resume(now);
            }
            // The deadline ends it.
            Err(e) => self.trouble(format!("the activation could not be published: {e}"), now + self.config.retry),
        }
    }
}
