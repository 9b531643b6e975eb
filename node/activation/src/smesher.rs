//! The identities of a node at work: one [`Builder`](crate::builder::Builder) each, with everything around it that has a clock, a
//! network or a disk.
//!
//! ```text
//!              start · stop · coinbase                      Services: disk, proving, PoETs,
//!                      │                                    verification, guard, network
//!  Smeshers ──► driver per identity ── Action ──► task ───────────┘
//!      │               ▲                            │
//!      │               └────────── Event ◄──────────┘
//!      └──► status of each identity · broadcast of what happens
//! ```
//!
//! [`Smeshers`] is what a program holds: identities are added, all of them start and stop together (activation.md sections 10 and 11).
//! What a driver does is in `driver`. [`Services`] is the one seam to the rest of the node.

mod driver;
mod parts;
mod services;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use proto::{
    activation::Versions,
    ids::{Address, AtxId, NodeId},
    keys::IdentityKey,
    layers::EpochId,
};
use tokio::{
    sync::{broadcast, watch},
    time::{Instant, timeout_at},
};

pub use parts::{Parts, Prove, Publish};
pub use services::{Answer, Services, SignError};

use crate::{
    builder::{self, Change, Mismatch, Notice},
    clock::Clock,
    poet::PhaseShift,
    timeline::{Moment, Timeline},
};

/// How long a stop waits. Nothing but a disk that hangs takes longer.
const STOP_WITHIN: Duration = Duration::from_millis(900);

/// Messages kept for a listener that is slow; older ones are lost to it.
const TOLD: usize = 1024;

/// What all identities have in common.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The first activation of all.
    pub golden: AtxId,
    /// The clock of the network.
    pub timeline: Timeline,
    /// Which version activations have.
    pub versions: Versions,
    /// Addresses of the PoET servers.
    pub poets: Vec<String>,
    /// The wait before PoET servers are asked again after all of them failed.
    pub retry: Duration,
    /// How often the activation of the present epoch is sent again; zero for never.
    pub regossip: Duration,
}

/// Something happened to an identity.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// When.
    pub at: Moment,
    /// To whom.
    pub id: NodeId,
    /// What.
    pub notice: Notice,
}

/// Where an identity stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// The identity.
    pub id: NodeId,
    /// The name of its key file.
    pub name: String,
    /// Whether anything is done for it.
    pub running: bool,
    /// The last thing that happened apart from trouble, and when; its name is the state of the identity.
    pub state: Option<(Moment, Notice)>,
    /// Whether the proving service is needed: the post state is Proving, otherwise Idle.
    pub proving: bool,
    /// The last trouble in words, since the last publication, and when it was.
    pub trouble: Option<(Moment, String)>,
    /// What comes next that has to happen in time, and until when.
    pub deadline: Option<(&'static str, Moment)>,
    /// The epoch in which the activation that is being made will be published.
    pub publish: Option<EpochId>,
    /// The last activation that was published since the start of the program.
    pub published: Option<(EpochId, AtxId)>,
}

impl Status {
    /// The state in one word (activation.md section 11).
    pub fn name_of_state(&self) -> &'static str {
        match &self.state {
            Some((_, notice)) if self.running => notice.name(),
            None if self.running => "Starting",
            _ => "Stopped",
        }
    }

    fn note(&mut self, now: Moment, notice: &Notice) {
        match notice {
            Notice::Trouble { what, .. } => return self.trouble = Some((now, what.clone())),
            Notice::Proving { .. } => self.proving = true,
            Notice::Proven { .. } | Notice::Abandoned { .. } => self.proving = false,
            Notice::Published { publish, id } => {
                self.published = Some((*publish, *id));
                self.trouble = None;
            }
            _ => {}
        }
        self.state = Some((now, notice.clone()));
    }
}

/// Why the program must end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fatal {
    /// Going on would throw registrations away.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// A PoET server does not belong to this network.
    #[error(transparent)]
    PhaseShift(#[from] PhaseShift),
}

/// Why smeshing was not started or stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// It runs.
    #[error("smeshing is started already")]
    Started,
    /// It does not run.
    #[error("smeshing is not started")]
    NotStarted,
    /// Nobody would get the rewards.
    #[error("smeshing needs an account for the rewards: set a coinbase first")]
    NoCoinbase,
    /// What was begun could not be forgotten.
    #[error("failed to forget what was begun for {id}: {why}")]
    Forget {
        /// The identity.
        id: NodeId,
        /// In words.
        why: String,
    },
}

/// One identity.
struct Entry {
    key: Arc<IdentityKey>,
    status: Status,
    /// Held by its driver: two never work on the same rows.
    turn: Arc<tokio::sync::Mutex<()>>,
}

struct State {
    identities: BTreeMap<NodeId, Entry>,
    /// Of the present run: dropped to stop it.
    run: Option<watch::Sender<()>>,
}

struct Inner {
    settings: Settings,
    services: Arc<dyn Services>,
    clock: Clock,
    synced: watch::Receiver<bool>,
    coinbase: watch::Sender<Option<Address>>,
    told: broadcast::Sender<Told>,
    fatal: watch::Sender<Option<Fatal>>,
    state: Mutex<State>,
}

/// All identities of a node. Copies are the same.
#[derive(Clone)]
pub struct Smeshers(Arc<Inner>);

impl Smeshers {
    /// No identity yet, and nothing is started. `synced` becomes true once the activations of the network are known.
    pub fn new(settings: Settings, services: Arc<dyn Services>, clock: Clock, synced: watch::Receiver<bool>) -> Self {
        Self(Arc::new(Inner {
            settings,
            services,
            clock,
            synced,
            coinbase: watch::Sender::new(None),
            told: broadcast::Sender::new(TOLD),
            fatal: watch::Sender::new(None),
            state: Mutex::new(State { identities: BTreeMap::new(), run: None }),
        }))
    }

    /// Adds an identity with the name of its key file; it starts at once where the others run. One that is there already is not
    /// added again.
    pub fn register(&self, name: &str, key: IdentityKey) {
        let id = key.node_id();
        let mut state = self.0.state();
        if state.identities.contains_key(&id) {
            return;
        }
        let status = Status {
            id,
            name: name.to_owned(),
            running: false,
            state: None,
            proving: false,
            trouble: None,
            deadline: None,
            publish: None,
            published: None,
        };
        let entry = Entry { key: Arc::new(key), status, turn: Arc::default() };
        if let Some(run) = &state.run {
            self.spawn(&entry, run);
        }
        state.identities.insert(id, entry);
    }

    /// Starts all identities.
    pub fn start(&self) -> Result<(), StateError> {
        let mut state = self.0.state();
        if state.run.is_some() {
            return Err(StateError::Started);
        }
        if self.coinbase().is_none() {
            return Err(StateError::NoCoinbase);
        }
        let run = watch::Sender::new(());
        for entry in state.identities.values() {
            self.spawn(entry, &run);
        }
        if !self.0.settings.regossip.is_zero() {
            tokio::spawn(regossip(self.0.clone(), run.subscribe()));
        }
        state.run = Some(run);
        Ok(())
    }

    fn spawn(&self, entry: &Entry, run: &watch::Sender<()>) {
        let (inner, key, turn) = (self.0.clone(), entry.key.clone(), entry.turn.clone());
        tokio::spawn(driver::drive(inner, key, turn, run.subscribe()));
    }

    /// Stops all identities, within a second. What they did is on disk, and a later start goes on from there.
    pub async fn stop(&self) -> Result<(), StateError> {
        let turns: Vec<_> = {
            let mut state = self.0.state();
            drop(state.run.take().ok_or(StateError::NotStarted)?);
            state.identities.values().map(|entry| entry.turn.clone()).collect()
        };
        let latest = Instant::now() + STOP_WITHIN;
        for turn in turns {
            // A driver that hangs on the disk keeps its turn, and a later start waits for it.
            let _ = timeout_at(latest, turn.lock()).await;
        }
        Ok(())
    }

    /// Stops all identities, and drops what they have begun for an epoch, as before the space of an identity is deleted. The initial
    /// proof is kept. An activation that was signed stays signed: nothing else will be, for its epoch.
    pub async fn stop_and_forget(&self) -> Result<(), StateError> {
        self.stop().await?;
        let entries: Vec<_> = {
            let state = self.0.state();
            state.identities.iter().map(|(id, entry)| (*id, entry.turn.clone())).collect()
        };
        for (id, turn) in entries {
            let turn = turn.lock_owned().await;
            let inner = self.0.clone();
            let changes = [Change::NoRegistrations, Change::NoNipost, Change::NoChallenge];
            let saved = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                inner.services.save(&id, &changes)
            });
            let saved = saved.await.unwrap_or_else(|e| Err(e.to_string()));
            saved.map_err(|why| StateError::Forget { id, why })?;
            self.0.services.set_idle(&id);
            if let Some(entry) = self.0.state().identities.get_mut(&id) {
                (entry.status.proving, entry.status.deadline, entry.status.publish) = (false, None, None);
            }
        }
        Ok(())
    }

    /// Whether identities are at work.
    pub fn is_smeshing(&self) -> bool {
        self.0.state().run.is_some()
    }

    /// Rewards of activations that are assembled from now on go to this account.
    pub fn set_coinbase(&self, coinbase: Address) {
        self.0.coinbase.send_replace(Some(coinbase));
    }

    /// The account for rewards.
    pub fn coinbase(&self) -> Option<Address> {
        *self.0.coinbase.borrow()
    }

    /// Where all identities stand.
    pub fn status(&self) -> Vec<Status> {
        self.0.state().identities.values().map(|entry| entry.status.clone()).collect()
    }

    /// All that happens from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Told> {
        self.0.told.subscribe()
    }

    /// Waits until there is a reason to end the program.
    pub async fn fatal(&self) -> Fatal {
        let mut fatal = self.0.fatal.subscribe();
        loop {
            if let Some(fatal) = fatal.borrow_and_update().clone() {
                return fatal;
            }
            if fatal.changed().await.is_err() {
                // The sender lives as long as `self`.
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, id: &NodeId, change: impl FnOnce(&mut Status)) {
        if let Some(entry) = self.state().identities.get_mut(id) {
            change(&mut entry.status);
        }
    }

    fn tell(&self, id: &NodeId, notice: Notice) {
        let at = self.clock.now();
        match &notice {
            Notice::Trouble { .. } | Notice::ProvingFailed { .. } => tracing::warn!(identity = %id, "{notice}"),
            _ => tracing::info!(identity = %id, "{notice}"),
        }
        self.change(id, |status| status.note(at, &notice));
        // Nobody may be listening.
        let _ = self.told.send(Told { at, id: *id, notice });
    }

    fn builder(&self, id: NodeId) -> builder::Config {
        let Settings { golden, timeline, versions, poets, retry, .. } = self.settings.clone();
        builder::Config { id, golden, timeline, versions, poets, retry }
    }
}

/// Sends the activations of the present epoch again and again: who was not there when they were published hears of them too.
async fn regossip(inner: Arc<Inner>, mut run: watch::Receiver<()>) {
    let rounds = async {
        loop {
            tokio::time::sleep(inner.settings.regossip).await;
            let epoch = inner.settings.timeline.epoch_at(inner.clock.now());
            let ids: Vec<NodeId> = inner.state().identities.keys().copied().collect();
            for id in ids {
                match inner.services.regossip(&id, epoch).await {
                    Ok(true) => tracing::debug!(identity = %id, %epoch, "sent the activation again"),
                    Ok(false) => {}
                    Err(error) => tracing::warn!(identity = %id, %epoch, error, "could not send the activation again"),
                }
            }
        }
    };
    tokio::select! {
        () = rounds => {}
        _ = run.changed() => {}
    }
}
