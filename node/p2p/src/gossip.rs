//! Gossip: topics, message ids, and the router's settings (p2p-sync.md sections 7.1 to 7.3 and 18.4).
//!
//! Messages are anonymous: they carry their topic and their bytes, nothing else. The router passes a message on only after
//! [`validation`] accepted it.

pub(crate) mod guard;
pub(crate) mod validation;
pub(crate) mod waiting;

use std::{collections::HashMap, fmt, io, time::Duration};

use libp2p_gossipsub::{
    self as gossipsub, ConfigBuilder, DataTransform, IdentTopic, Message, MessageAuthenticity, MessageId, PeerScoreParams,
    PeerScoreThresholds, RawMessage, TopicHash, TopicScoreParams, ValidationMode,
};
use proto::ids::Hash32;

use crate::{config::MAX_MESSAGE, error::StartError};

/// What is gossiped.
///
/// Still to come, with their deployed names: proposals `pp1` (scored like ATXs), transactions `tx1`, certify messages `bc1`,
/// hare `/h/3.0` and `/h/4.0`, beacons `bp1`, `bf1`, `bo1`, `bw1` (p2p-sync.md section 7.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Activations.
    Atx,
    /// Proofs that an identity broke a rule.
    Malfeasance,
}

impl Topic {
    /// All topics this node takes part in.
    pub const ALL: [Self; 2] = [Self::Atx, Self::Malfeasance];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Atx => "ax1",
            Self::Malfeasance => "mp1",
        }
    }

    /// Its place in tables with a row per topic.
    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// Whether deliveries count for a peer's score.
    const fn scored(self) -> bool {
        matches!(self, Self::Atx)
    }

    pub(crate) fn of(hash: &TopicHash) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.name() == hash.as_str())
    }

    pub(crate) fn hash(self) -> TopicHash {
        TopicHash::from_raw(self.name())
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// BLAKE3 of topic and bytes (p2p-sync.md section 7.1).
fn message_id(topic: &str, data: &[u8]) -> MessageId {
    MessageId::from(Hash32::of(&[topic.as_bytes(), data]).0.to_vec())
}

/// Lets messages of our topics through as they are. The router would keep those of other topics in memory for as long as it
/// waits for a verdict, and nobody would ever give one.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct OurTopics;

impl DataTransform for OurTopics {
    fn inbound_transform(&self, raw: RawMessage) -> Result<Message, io::Error> {
        if Topic::of(&raw.topic).is_none() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(Message { source: raw.source, data: raw.data, sequence_number: raw.sequence_number, topic: raw.topic })
    }

    fn outbound_transform(&self, _: &TopicHash, data: Vec<u8>) -> Result<Vec<u8>, io::Error> {
        Ok(data)
    }
}

/// The router.
pub(crate) type Router = gossipsub::Behaviour<OurTopics>;

/// Slack for what the receiving side counts besides one message: framing, and the read behind it (p2p-sync.md section 18.4).
const RECEIVE_SLACK: usize = 64 << 10;

/// Heartbeats (seconds) for which a message waits for its verdict; later ones cannot be passed on any more.
const HISTORY: usize = 120;

/// The score below which a peer's gossip is not looked at.
pub(crate) const GRAYLIST: f64 = -2500.0;

/// What a bootnode's score is raised by.
pub(crate) const BOOTNODE_SCORE: f64 = 10_000.0;

/// A router with the deployed settings, subscribed to our topics.
pub(crate) fn router() -> Result<Router, StartError> {
    let refused = |e: &dyn fmt::Display| StartError::Library(e.to_string());
    let config = ConfigBuilder::default()
        .validation_mode(ValidationMode::Anonymous)
        .validate_messages()
        .message_id_fn(|message| message_id(message.topic.as_str(), &message.data))
        .mesh_n(6)
        .mesh_n_low(4)
        .mesh_n_high(8)
        .mesh_outbound_min(3)
        .retain_scores(4)
        .gossip_lazy(8)
        .gossip_factor(0.1)
        .heartbeat_initial_delay(Duration::from_millis(100))
        .heartbeat_interval(Duration::from_secs(1))
        .history_length(HISTORY)
        .history_gossip(3)
        .flood_publish(false)
        .iwant_followup_time(Duration::from_secs(5))
        .duplicate_cache_time(Duration::from_secs(120))
        .idontwant_message_size_threshold(1024)
        .max_transmit_size(MAX_MESSAGE + RECEIVE_SLACK)
        .max_control_message_size(MAX_MESSAGE + RECEIVE_SLACK)
        .connection_handler_queue_len(8192)
        .build()
        .map_err(|e| refused(&e))?;
    let mut router = Router::new_with_transform(MessageAuthenticity::Anonymous, config, OurTopics).map_err(|e| refused(&e))?;
    router.with_peer_score(score(), thresholds()).map_err(|e| refused(&e))?;
    for topic in Topic::ALL {
        router.subscribe(&IdentTopic::new(topic.name())).map_err(|e| refused(&e))?;
    }
    Ok(router)
}

/// Peer scoring (p2p-sync.md section 7.2).
fn score() -> PeerScoreParams {
    const DECAY_TO_ZERO: f64 = 0.01;
    let second = Duration::from_secs(1);
    let hour = gossipsub::score_parameter_decay_with_base(Duration::from_secs(3600), second, DECAY_TO_ZERO);
    let topic = TopicScoreParams {
        topic_weight: 0.1,
        time_in_mesh_weight: 0.00027,
        time_in_mesh_quantum: second,
        time_in_mesh_cap: 1.0,
        first_message_deliveries_weight: 5.0,
        first_message_deliveries_decay: hour,
        first_message_deliveries_cap: 100.0,
        invalid_message_deliveries_weight: -1000.0,
        invalid_message_deliveries_decay: hour,
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        ..TopicScoreParams::default()
    };
    let topics: HashMap<_, _> =
        Topic::ALL.into_iter().filter(|topic| topic.scored()).map(|scored| (scored.hash(), topic.clone())).collect();
    PeerScoreParams {
        topics,
        topic_score_cap: 0.0,
        app_specific_weight: 1.0,
        ip_colocation_factor_weight: 0.0,
        behaviour_penalty_weight: -10.0,
        behaviour_penalty_threshold: 6.0,
        behaviour_penalty_decay: hour,
        decay_interval: second,
        decay_to_zero: DECAY_TO_ZERO,
        retain_score: Duration::from_secs(6 * 3600),
        slow_peer_weight: 0.0,
        ..PeerScoreParams::default()
    }
}

fn thresholds() -> PeerScoreThresholds {
    PeerScoreThresholds {
        gossip_threshold: -500.0,
        publish_threshold: -1000.0,
        graylist_threshold: GRAYLIST,
        accept_px_threshold: 1000.0,
        opportunistic_graft_threshold: 3.5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_ids_are_the_deployed_ones() {
        let id = message_id(Topic::Atx.name(), &vec![0x2a; 100_000]);
        assert_eq!(hex::encode(id.0), "f5c8390c888476931cb5ecf274b9a0c2b5765b05bc1353f64f84627baee45c29");
    }

    #[test]
    fn the_router_takes_the_settings() {
        let router = router().unwrap();
        assert_eq!(router.topics().count(), Topic::ALL.len());
        let decay = score().topics[&Topic::Atx.hash()].first_message_deliveries_decay;
        assert!((decay - 0.998_721_603_9).abs() < 1e-9, "{decay}");
        for (at, topic) in Topic::ALL.into_iter().enumerate() {
            assert_eq!((topic.index(), Topic::of(&topic.hash())), (at, Some(topic)));
        }
    }

    #[test]
    fn messages_of_other_topics_go_no_further() {
        let message = |topic: &str| RawMessage {
            source: None,
            data: vec![1],
            sequence_number: None,
            topic: TopicHash::from_raw(topic),
            signature: None,
            key: None,
            validated: false,
        };
        assert_eq!(OurTopics.inbound_transform(message("ax1")).unwrap().data, [1]);
        assert!(OurTopics.inbound_transform(message("xx1")).is_err());
        assert!(OurTopics.inbound_transform(message("")).is_err());
    }
}
