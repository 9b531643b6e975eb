//! Connections: tcp, secured by noise with the network's prologue, shared by yamux (p2p-sync.md sections 2 and 3).

use std::time::Duration;

use libp2p_core::{Transport as _, muxing::StreamMuxerBox, transport::Boxed, upgrade::Version};
use libp2p_identity::{Keypair, PeerId};
use libp2p_noise as noise;
use libp2p_tcp as tcp;
use libp2p_yamux as yamux;

use crate::error::StartError;

/// The most streams of one connection.
const STREAMS: usize = 2048;

/// A transport that reaches only hosts with the same prologue; another one lets the handshake fail on both sides.
pub(crate) fn build(
    key: &Keypair,
    prologue: Vec<u8>,
    handshake: Duration,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, StartError> {
    let noise = noise::Config::new(key).map_err(|e| StartError::Library(e.to_string()))?.with_prologue(prologue);
    let mut yamux = yamux::Config::default();
    yamux.set_max_num_streams(STREAMS);
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
    let secured = tcp.upgrade(Version::V1Lazy).authenticate(noise).multiplex(yamux).timeout(handshake);
    Ok(secured.map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer))).boxed())
}
