//! What happened of late and what happens, for those who watch (api.md section 4, AdminService; activation.md section 11).

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use activation::{
    builder::Notice,
    timeline::{Moment, Timeline},
};
use proto::{
    grpc::spacemesh_v1::{self as wire, event::Details},
    ids::NodeId,
    layers::EpochId,
    poet::Leaves,
};
use tokio::sync::broadcast;

/// Events kept for those who come later, and how far behind a watcher may be.
pub const KEPT: usize = 1000;

/// The events of a node.
#[derive(Debug)]
pub struct Events {
    timeline: Timeline,
    tick_size: u64,
    state: Mutex<State>,
    live: broadcast::Sender<wire::Event>,
}

#[derive(Debug, Default)]
struct State {
    past: VecDeque<wire::Event>,
}

impl Events {
    /// None yet. A tick has `tick_size` leaves.
    pub fn new(timeline: Timeline, tick_size: u64) -> Self {
        Self { timeline, tick_size, state: Mutex::default(), live: broadcast::channel(KEPT).0 }
    }

    /// What a builder tells, at that moment, and its next deadline: what it means and when it is.
    pub fn tell(&self, at: Moment, identity: &NodeId, notice: &Notice, deadline: Option<(&str, Moment)>) {
        let mut event = self.of_notice(at, identity, notice);
        if let Some((what, when)) = deadline {
            event.help = format!("{} Next deadline: {what}, {when}.", event.help);
        }
        self.put(&mut self.lock(), event);
    }

    /// Something else that happened. `help` says it in plain words.
    pub fn add(&self, at: Moment, failure: bool, help: String, details: Option<Details>) {
        self.put(&mut self.lock(), wire::Event { timestamp: Some(timestamp(at)), failure, help, details });
    }

    /// What happened of late, and then what happens: nothing is lost or told twice in between.
    pub fn watch(&self) -> (Vec<wire::Event>, broadcast::Receiver<wire::Event>) {
        let state = self.lock();
        (state.past.iter().cloned().collect(), self.live.subscribe())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // what a panic leaves behind is whole: there is nothing between its parts that could fail
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, state: &mut State, event: wire::Event) {
        if state.past.len() == KEPT {
            state.past.pop_front();
        }
        state.past.push_back(event.clone());
        // an error says that nobody watches
        let _ = self.live.send(event);
    }

    fn ticks(&self, leaves: Leaves) -> u64 {
        leaves.0.checked_div(self.tick_size).unwrap_or(0)
    }

    fn of_notice(&self, at: Moment, identity: &NodeId, notice: &Notice) -> wire::Event {
        let smesher = || identity.0.to_vec();
        let current = self.timeline.epoch_at(at).0;
        let next = |EpochId(epoch): EpochId| epoch.saturating_add(1);
        let (help, details) = match notice {
            Notice::WaitingForSync => ("Waiting until the activations of the network are known.".to_owned(), None),
            Notice::WaitingForRegistration { publish, until } => (
                format!("Nothing to do until registration for epoch {publish} opens at {until}."),
                Some(Details::WaitingForPoetRegistrationWindow(wire::EventWaitingForPoEtRegistrationWindow {
                    current,
                    publish: publish.0,
                    round_end: Some(timestamp(*until)),
                    smesher: smesher(),
                })),
            ),
            Notice::Registered { poet, round } => {
                let details = wire::EventRegisteredInPoet { url: poet.clone(), smesher: smesher(), round_id: round.clone() };
                (format!("Registered with PoET server {poet} for its round {round}."), Some(Details::RegisteredInPoet(details)))
            }
            Notice::WaitingForProof { publish, until } => (
                format!("Waiting for the end of the PoET round for epoch {publish} at {until}."),
                Some(Details::WaitingForPoetRoundEnd(wire::EventWaitingForPoEtRoundEnd {
                    publish: publish.0,
                    target: next(*publish),
                    round_end: Some(timestamp(*until)),
                    smesher: smesher(),
                })),
            ),
            Notice::ProofFetched { poet, round, leaves } => {
                let ticks = self.ticks(*leaves);
                let details = wire::EventProofDownloadedFromPoet { url: poet.clone(), round_id: round.clone(), ticks };
                let help = format!("PoET server {poet} has proven {ticks} ticks of elapsed time.");
                (help, Some(Details::ProofDownloadedFromPoet(details)))
            }
            Notice::BestProof { poet, round, leaves } => {
                let (url, round_id, ticks) = (poet.clone(), round.clone(), self.ticks(*leaves));
                let details = wire::EventBestProofSelected { url, round_id, ticks, smesher: smesher() };
                let help = format!("The proof of PoET server {poet} is used, with {ticks} ticks.");
                (help, Some(Details::BestProofSelected(details)))
            }
            Notice::Proving { challenge } => {
                let details = wire::EventPostStart { challenge: challenge.to_vec(), smesher: smesher() };
                ("Asked the proving service for a proof of space.".to_owned(), Some(Details::PostStart(details)))
            }
            Notice::Proven { challenge } => {
                let details = wire::EventPostComplete { challenge: challenge.to_vec(), smesher: smesher() };
                ("The proof of space is made and checked.".to_owned(), Some(Details::PostComplete(details)))
            }
            Notice::ProvingFailed { .. } => ("The proving service failed; it will be asked again.".to_owned(), None),
            Notice::Abandoned { publish } => (format!("What was begun for epoch {publish} is given up."), None),
            Notice::WaitingForEpoch { publish, until } => {
                (format!("All proofs are there; the activation is published when epoch {publish} begins at {until}."), None)
            }
            Notice::Published { publish, id } => {
                let target = EpochId(next(*publish));
                let until = self.timeline.start(target);
                let details = wire::EventAtxPubished {
                    current,
                    target: target.0,
                    id: id.0.to_vec(),
                    wait: Some(duration(at.until(until))),
                    until: Some(timestamp(until)),
                    smesher: smesher(),
                };
                (
                    format!("Published activation {id}: it counts from epoch {target}, {until}."),
                    Some(Details::AtxPublished(details)),
                )
            }
            Notice::Trouble { what, again } => (format!("{}; tried again at {again}.", sentence(what)), None),
        };
        let failure = matches!(notice, Notice::Trouble { .. } | Notice::ProvingFailed { .. } | Notice::Abandoned { .. });
        wire::Event { timestamp: Some(timestamp(at)), failure, help, details }
    }
}

/// With a capital letter in front.
fn sentence(words: &str) -> String {
    let mut chars = words.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// A moment as a message.
pub fn timestamp(Moment(nanos): Moment) -> prost_types::Timestamp {
    let seconds = nanos.div_euclid(1_000_000_000);
    prost_types::Timestamp { seconds, nanos: nanos.rem_euclid(1_000_000_000) as i32 }
}

/// A span of time as a message.
pub(crate) fn duration(span: std::time::Duration) -> prost_types::Duration {
    let seconds = i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    prost_types::Duration { seconds, nanos: span.subsec_nanos().cast_signed() }
}

#[cfg(test)]
mod tests {
    use proto::{ids::AtxId, preset::Preset};

    use super::*;

    fn events() -> (Events, Moment) {
        let network = Preset::Mainnet.network();
        let genesis = Moment(Preset::Mainnet.genesis().0.unix_time.0 * 1_000_000_000);
        let timeline = Timeline::new(network, genesis).expect("a clock");
        let in_epoch_3 = timeline.start(EpochId(3)) + std::time::Duration::from_secs(3600);
        (Events::new(timeline, network.main.tick_size), in_epoch_3)
    }

    fn told(events: &Events, at: Moment, notice: &Notice) -> wire::Event {
        events.tell(at, &NodeId([1; 32]), notice, None);
        events.watch().0.pop().expect("an event")
    }

    /// Every notice, in the order in which a builder has them (activation.md section 11).
    #[test]
    fn each_step_has_its_deployed_event() {
        let (events, at) = events();
        let (publish, until) = (EpochId(4), Moment(at.0 + 1_500_000_000));
        let (poet, smesher) = ("https://poet".to_owned(), vec![1; 32]);
        let tick = Preset::Mainnet.network().main.tick_size;
        let leaves = Leaves(7 * tick + 1);
        let round_end = Some(timestamp(until));

        let event = told(&events, at, &Notice::WaitingForRegistration { publish, until });
        let expected =
            wire::EventWaitingForPoEtRegistrationWindow { current: 3, publish: 4, round_end, smesher: smesher.clone() };
        assert_eq!(event.details, Some(Details::WaitingForPoetRegistrationWindow(expected)));
        assert_eq!(event.timestamp, Some(timestamp(at)));

        let event = told(&events, at, &Notice::ProofFetched { poet: poet.clone(), round: "9".into(), leaves });
        let expected = wire::EventProofDownloadedFromPoet { url: poet.clone(), round_id: "9".into(), ticks: 7 };
        assert_eq!(event.details, Some(Details::ProofDownloadedFromPoet(expected)));
        let event = told(&events, at, &Notice::BestProof { poet: poet.clone(), round: "9".into(), leaves });
        let expected =
            wire::EventBestProofSelected { url: poet.clone(), round_id: "9".into(), ticks: 7, smesher: smesher.clone() };
        assert_eq!(event.details, Some(Details::BestProofSelected(expected)));

        let (challenge, bytes) = ([3; 32], vec![3; 32]);
        let event = told(&events, at, &Notice::Proving { challenge });
        let expected = wire::EventPostStart { challenge: bytes.clone(), smesher: smesher.clone() };
        assert_eq!(event.details, Some(Details::PostStart(expected)));
        let event = told(&events, at, &Notice::Proven { challenge });
        let expected = wire::EventPostComplete { challenge: bytes, smesher: smesher.clone() };
        assert_eq!(event.details, Some(Details::PostComplete(expected)));

        let event = told(&events, at, &Notice::Published { publish, id: AtxId([8; 32]) });
        let target = events.timeline.start(EpochId(5));
        let expected = wire::EventAtxPubished {
            current: 3,
            target: 5,
            id: vec![8; 32],
            wait: Some(duration(at.until(target))),
            until: Some(timestamp(target)),
            smesher,
        };
        assert_eq!(event.details, Some(Details::AtxPublished(expected)));

        let without = [
            (Notice::WaitingForSync, false),
            (Notice::WaitingForEpoch { publish, until }, false),
            (Notice::ProvingFailed { challenge }, true),
            (Notice::Abandoned { publish }, true),
            (Notice::Trouble { what: "no answer".into(), again: until }, true),
        ];
        for (notice, failure) in without {
            let event = told(&events, at, &notice);
            assert_eq!((event.details, event.failure, event.help.is_empty()), (None, failure, false), "{notice:?}");
        }
    }

    #[test]
    fn the_latest_are_kept() {
        let (events, at) = events();
        for number in 0..KEPT + 10 {
            events.add(at, false, number.to_string(), Some(Details::PostServiceStarted(wire::EventPostServiceStarted {})));
        }
        let (past, _) = events.watch();
        assert_eq!((past.len(), &*past[0].help, &*past[KEPT - 1].help), (KEPT, "10", "1009"));
    }

    #[test]
    fn moments_before_1970_are_moments_too() {
        assert_eq!(timestamp(Moment(-1)), prost_types::Timestamp { seconds: -1, nanos: 999_999_999 });
        assert_eq!(timestamp(Moment(2_000_000_003)), prost_types::Timestamp { seconds: 2, nanos: 3 });
    }
}
