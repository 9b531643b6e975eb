//! Carries out what the builder of one identity wants.
//!
//! Whatever takes time is a task of its own whose end is an event for the builder. What the builder wants saved is saved before
//! anything behind it is begun; a disk that fails holds the identity up, and nothing is lost. A driver ends when smeshing stops, and
//! with it all its tasks: to the builder that is a restart.

use std::{
    collections::BTreeSet,
    future::{Future, pending},
    sync::Arc,
    time::Duration,
};

use proto::{
    ids::{Address, NodeId},
    keys::IdentityKey,
};
use tokio::{
    sync::{Mutex, OwnedMutexGuard, watch},
    task::{AbortHandle, JoinError, JoinSet, spawn_blocking},
};

use super::{Fatal, Inner, Services, SignError};
use crate::{
    builder::{Action, Builder, Challenge, Change, Event, Notice, Ticket},
    poet::{PoetError, Submission},
    timeline::Moment,
};

/// The first wait before the disk is tried again, and the longest; it doubles.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_AT_MOST: Duration = Duration::from_secs(30);

/// The right to change an identity's rows. Work that cannot be interrupted holds a copy, so that the next driver waits for it.
type Turn = Arc<OwnedMutexGuard<()>>;

/// Makes the activations of an identity until the sender of `run` is gone.
pub(super) async fn drive(inner: Arc<Inner>, key: Arc<IdentityKey>, turn: Arc<Mutex<()>>, mut run: watch::Receiver<()>) {
    let id = key.node_id();
    let turn = Arc::new(turn.lock_owned().await);
    inner.change(&id, |status| status.running = true);
    let work = async {
        loop {
            let saved =
                insist(&inner, &turn, id, "the rows of the identity cannot be read", move |services| services.load(&id)).await;
            let coinbase = inner.coinbase.subscribe();
            let Some(account) = *coinbase.borrow() else { return };
            let builder = Builder::new(inner.builder(id), account, saved);
            let driver = Driver {
                inner: inner.clone(),
                turn: turn.clone(),
                key: key.clone(),
                id,
                builder,
                alarms: BTreeSet::new(),
                tasks: JoinSet::new(),
                asked: Vec::new(),
            };
            let error = driver.run(coinbase).await;
            inner.trouble(&id, format!("a part of the program failed: {error}"), AGAIN);
            tokio::time::sleep(AGAIN).await;
        }
    };
    tokio::select! {
        () = work => {}
        // Nothing is ever sent.
        _ = run.changed() => {}
    }
    inner.change(&id, |status| status.running = false);
}

/// Does what only the disk can keep from happening, until it is done.
async fn insist<T: Send + 'static>(
    inner: &Arc<Inner>,
    turn: &Turn,
    id: NodeId,
    what: &str,
    work: impl Fn(&dyn Services) -> Result<T, String> + Send + Sync + 'static,
) -> T {
    let work = Arc::new(work);
    let mut again = AGAIN;
    loop {
        let (services, turn, work) = (inner.services.clone(), turn.clone(), work.clone());
        let done = spawn_blocking(move || {
            let _turn = turn;
            work(&*services)
        });
        let why = match done.await {
            Ok(Ok(done)) => return done,
            Ok(Err(why)) => why,
            Err(failed) => failed.to_string(),
        };
        inner.trouble(&id, format!("{what}: {why}"), again);
        tokio::time::sleep(again).await;
        again = (again * 2).min(AGAIN_AT_MOST);
    }
}

impl Inner {
    fn trouble(&self, id: &NodeId, what: String, again: Duration) {
        self.tell(id, Notice::Trouble { what, again: self.clock.now() + again });
    }

    fn end(&self, fatal: Fatal) {
        tracing::error!("{fatal}");
        // The first reason is the one that counts.
        self.fatal.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert(fatal);
            first
        });
    }

    /// Ends the program if a PoET server has the rhythm of another network.
    fn words(&self, error: PoetError) -> String {
        let words = error.to_string();
        if let PoetError::PhaseShift(error) = error {
            self.end(error.into());
        }
        words
    }
}

struct Driver {
    inner: Arc<Inner>,
    turn: Turn,
    key: Arc<IdentityKey>,
    id: NodeId,
    builder: Builder,
    alarms: BTreeSet<Moment>,
    /// Each ends with an event, or with none.
    tasks: JoinSet<Option<Event>>,
    /// Those that answer a question.
    asked: Vec<(Ticket, AbortHandle)>,
}

impl Driver {
    /// Goes on until a task fails in a way that it must not; where the identity stands then is on disk.
    async fn run(mut self, mut coinbase: watch::Receiver<Option<Address>>) -> JoinError {
        let mut synced = self.inner.synced.clone();
        let mut is_synced = false;
        self.deliver(Event::Start).await;
        loop {
            let (clock, alarm) = (self.inner.clock.clone(), self.alarms.first().copied());
            let alarm = async move {
                match alarm {
                    Some(alarm) => clock.sleep_until(alarm).await,
                    None => pending().await,
                }
            };
            let event = tokio::select! {
                // A sender that is gone says nothing any more.
                Ok(_) = synced.wait_for(|synced| *synced), if !is_synced => {
                    is_synced = true;
                    Event::Synced
                }
                Ok(()) = coinbase.changed() => {
                    if let Some(account) = *coinbase.borrow_and_update() {
                        self.builder.set_coinbase(account);
                    }
                    continue;
                }
                Some(done) = self.tasks.join_next() => match done {
                    Ok(Some(event)) => event,
                    Ok(None) => continue,
                    Err(error) if error.is_cancelled() => continue,
                    Err(error) => return error,
                },
                () = alarm => {
                    self.alarms.pop_first();
                    Event::Alarm
                }
            };
            self.deliver(event).await;
        }
    }

    async fn deliver(&mut self, event: Event) {
        for action in self.builder.on_event(self.inner.clock.now(), event) {
            self.act(action).await;
        }
        let publish = self.builder.saved().challenge.as_ref().map(Challenge::publish);
        let deadline = self.builder.deadline();
        self.inner.change(&self.id, |status| (status.publish, status.deadline) = (publish, deadline));
    }

    async fn act(&mut self, action: Action) {
        let (inner, turn, key, id) = (self.inner.clone(), self.turn.clone(), self.key.clone(), self.id);
        let services = inner.services.clone();
        match action {
            Action::Save(changes) => {
                let may_be_certified = changes.iter().any(|change| matches!(change, Change::InitialPost(_)));
                let save = move |services: &dyn Services| services.save(&id, &changes);
                insist(&inner, &turn, id, "what was done cannot be saved", save).await;
                if may_be_certified {
                    for poet in &self.inner.settings.poets.clone() {
                        self.certify(poet.clone());
                    }
                }
            }
            Action::Wake(moment) => {
                self.alarms.insert(moment);
            }
            Action::FindOwn(ticket) => self.ask(ticket, async move {
                let what = "the activations of the identity cannot be read";
                let own = insist(&inner, &turn, id, what, move |services| services.own(&id)).await;
                Some(Event::Own(ticket, own))
            }),
            Action::Prove { ticket, challenge, until } => self.ask(ticket, async move {
                tokio::select! {
                    answer = services.prove(&id, challenge) => Some(Event::Proven(ticket, answer)),
                    () = over(&inner, until) => None,
                }
            }),
            Action::VerifyPost { ticket, post, commitment, num_units } => self.ask(ticket, async move {
                Some(Event::Verified(ticket, services.verify(&id, &post, commitment, num_units).await))
            }),
            Action::FindPositioning { ticket, publish, until } => self.ask(ticket, async move {
                let found = tokio::select! {
                    found = services.positioning(publish, &id, until) => found,
                    () = over(&inner, until) => None,
                };
                Some(Event::Positioning(ticket, found))
            }),
            Action::Certify(poet) => self.certify(poet),
            Action::Register { ticket, poet, challenge, until, proof_until } => self.ask(ticket, async move {
                let submission = Submission { challenge, until, proof_until };
                let answer = services.register(&poet, &key, &submission).await;
                Some(Event::Registered(ticket, poet, answer.map_err(|error| inner.words(error))))
            }),
            Action::Fetch { ticket, registration, until, .. } => self.ask(ticket, async move {
                let answer = services.fetch(&registration, until).await;
                Some(Event::Fetched(ticket, registration.poet, answer.map_err(|error| inner.words(error))))
            }),
            Action::Sign(ticket, unsigned) => self.ask(ticket, async move {
                let sign = move |services: &dyn Services| match services.sign(&key, &unsigned) {
                    Ok(signed) => Ok(Ok(signed)),
                    Err(SignError::Refused(why)) => Ok(Err(why)),
                    Err(SignError::Failed(why)) => Err(why),
                };
                let answer = insist(&inner, &turn, id, "the activation cannot be signed", sign).await;
                Some(Event::Signed(ticket, answer))
            }),
            Action::Publish(ticket, signed) => {
                self.ask(ticket, async move { Some(Event::Published(ticket, services.publish(&signed).await)) });
            }
            Action::Tell(notice) => {
                if let Notice::Abandoned { .. } = notice {
                    self.inner.services.set_idle(&self.id);
                }
                self.inner.tell(&self.id, notice);
            }
            Action::Fatal(mismatch) => self.inner.end(mismatch.into()),
        }
    }

    /// Begins what answers a question. Nobody wants the answers to questions before it any more.
    fn ask(&mut self, ticket: Ticket, answer: impl Future<Output = Option<Event>> + Send + 'static) {
        self.asked.retain(|(asked, task)| {
            let wanted = *asked >= ticket;
            if !wanted {
                task.abort();
            }
            wanted
        });
        let task = self.tasks.spawn(answer);
        self.asked.push((ticket, task));
    }

    /// A certificate spares the work before registration, and is of no other importance.
    fn certify(&mut self, poet: String) {
        let (inner, id) = (self.inner.clone(), self.id);
        self.tasks.spawn(async move {
            match inner.services.certify(&poet, &id).await {
                Ok(()) | Err(PoetError::NoSpace) => {}
                Err(error) => {
                    let error = inner.words(error);
                    tracing::warn!(identity = %id, poet, error, "no certificate yet");
                }
            }
            None
        });
    }
}

/// Until a moment after which no answer is wanted.
async fn over(inner: &Inner, until: Option<Moment>) {
    match until {
        Some(until) => inner.clock.sleep_until(until).await,
        None => pending().await,
    }
}
