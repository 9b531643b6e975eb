//! What a host is told: which network, where it listens, whom it knows, and how much it takes from others.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use proto::{ids::GenesisId, layers::LayerId, preset::Network};

use crate::{address, error::ConfigError};

/// The most bytes of a gossiped message (p2p-sync.md section 7.1).
pub(crate) const MAX_MESSAGE: usize = 2 << 20;

/// The settings of a host (p2p-sync.md sections 2, 4 and 19).
#[derive(Debug, Clone)]
pub struct Config {
    /// Folder of the key file and the list of connected peers, `<data>/p2p`.
    pub folder: PathBuf,
    /// The network.
    pub genesis_id: GenesisId,
    /// The layer the network starts from: the last of the second epoch, or the one before a checkpoint.
    pub effective_genesis: LayerId,
    /// What the host calls itself towards peers.
    pub agent: String,
    /// Where to listen.
    pub listen: Vec<Multiaddr>,
    /// What peers are told instead of the addresses the host finds itself; empty for those.
    pub advertise: Vec<Multiaddr>,
    /// Whom to ask first, with their peer ids.
    pub bootnodes: Vec<Multiaddr>,
    /// Peers that are always kept connected, with their peer ids; the other side should name this host as well.
    pub direct: Vec<Multiaddr>,
    /// Whether addresses of private networks and of this machine that were learned from others are dialled too.
    pub private_network: bool,
    /// Peers below which the host looks for more.
    pub min_peers: u32,
    /// The most peers: from `high_peers * 4/5` on nobody is let in, from `high_peers * 11/10` on nobody is dialled.
    pub high_peers: u32,
    /// How much is taken from others.
    pub limits: Limits,
}

/// How much a host takes from others before it refuses; [`Limits::default`] is what the network is used to.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Messages of one topic that may be judged at once.
    pub queued_messages: usize,
    /// Bytes of them.
    pub queued_bytes: usize,
    /// Connections that may be shaking hands at once.
    pub handshakes: u32,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// How long a stream may stand still: it must move 4096 bytes in this time (p2p-sync.md section 8).
    pub soft_timeout: Duration,
    /// How long a request and its answer may take together.
    pub hard_timeout: Duration,
    /// Requests a peer may let run into a time-out before it is disconnected; one is forgiven every minute.
    pub strikes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queued_messages: 4096,
            queued_bytes: 64 << 20,
            handshakes: 256,
            handshake_timeout: Duration::from_secs(15),
            soft_timeout: Duration::from_secs(25),
            hard_timeout: Duration::from_secs(300),
            strikes: 8,
        }
    }
}

impl Config {
    /// The settings of a network, for a node whose data lie in `data`.
    pub fn of(network: &Network, genesis_id: GenesisId, effective_genesis: LayerId, data: &Path) -> Result<Self, ConfigError> {
        let preset = &network.p2p;
        let (min, low, high) = (preset.min_peers, preset.low_peers, preset.high_peers);
        if min > low || low > high || high == 0 {
            return Err(ConfigError::Peers { min, low, high });
        }
        let listen = addresses("p2p.listen", &preset.listen)?;
        Ok(Self {
            folder: data.join("p2p"),
            genesis_id,
            effective_genesis,
            agent: concat!("smesh-node/", env!("CARGO_PKG_VERSION")).to_owned(),
            private_network: listen.iter().all(address::is_private),
            listen,
            advertise: Vec::new(),
            bootnodes: addresses("p2p.bootnodes", &preset.bootnodes)?,
            direct: Vec::new(),
            min_peers: min,
            high_peers: high,
            limits: Limits::default(),
        })
    }

    /// What both sides of a connection must agree on: `<genesis id in hex>-<effective genesis>` (p2p-sync.md section 3).
    pub(crate) fn prologue(&self) -> Vec<u8> {
        format!("{}-{}", self.genesis_id, self.effective_genesis.0).into_bytes()
    }

    /// The peers an operator named, apart by name and address.
    pub(crate) fn named(key: &'static str, addresses: &[Multiaddr]) -> Result<Vec<(PeerId, Multiaddr)>, ConfigError> {
        let split = |whole: &Multiaddr| {
            let (address, peer) = address::split(whole);
            let peer = peer.ok_or_else(|| ConfigError::NoPeer { key, address: whole.clone() })?;
            if address::is_tcp(&address) {
                Ok((peer, address))
            } else {
                Err(ConfigError::Transport { key, address: whole.clone() })
            }
        };
        addresses.iter().map(split).collect()
    }
}

/// Reads the addresses of a setting.
pub(crate) fn addresses(key: &'static str, texts: &[String]) -> Result<Vec<Multiaddr>, ConfigError> {
    let read = |text: &String| {
        text.parse().map_err(|e: libp2p_core::multiaddr::Error| ConfigError::Address {
            key,
            text: text.clone(),
            why: e.to_string(),
        })
    };
    texts.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use proto::preset::Preset;

    use super::*;

    fn of(preset: Preset) -> Config {
        let (genesis, _) = preset.genesis();
        Config::of(preset.network(), genesis.id(), LayerId(8063), Path::new("data")).unwrap()
    }

    #[test]
    fn presets_make_hosts() {
        for preset in Preset::ALL {
            let config = of(preset);
            assert_eq!(config.listen.len(), 1, "{preset}");
            Config::named("p2p.bootnodes", &config.bootnodes).unwrap();
        }
        assert_eq!(of(Preset::Mainnet).bootnodes.len(), 10);
        assert!(!of(Preset::Mainnet).private_network);
        assert!(of(Preset::Local).private_network);
    }

    #[test]
    fn the_prologue_is_that_of_the_network() {
        assert_eq!(of(Preset::Mainnet).prologue(), b"9eebff023abb17ccb775c602daade8ed708f0a50-8063");
    }

    #[test]
    fn wrong_settings_are_named() {
        let named = |text: &str| Config::named("p2p.direct", &addresses("p2p.direct", &[text.to_owned()])?);
        assert!(matches!(named("localhost:7513"), Err(ConfigError::Address { .. })));
        assert!(matches!(named("/ip4/127.0.0.1/tcp/7513"), Err(ConfigError::NoPeer { .. })));
        let peer = PeerId::random();
        assert!(matches!(named(&format!("/ip4/127.0.0.1/udp/7513/quic-v1/p2p/{peer}")), Err(ConfigError::Transport { .. })));
        assert_eq!(named(&format!("/dns4/a.example/tcp/5000/p2p/{peer}")).unwrap()[0].0, peer);
        let mut network = Preset::Local.network().clone();
        network.p2p.min_peers = 50;
        let config = Config::of(&network, GenesisId([0; 20]), LayerId(0), Path::new(""));
        assert!(matches!(config, Err(ConfigError::Peers { min: 50, .. })));
    }
}
