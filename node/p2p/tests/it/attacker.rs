//! A peer that keeps to no rule: it opens streams by hand and writes into them what it likes.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{AsyncReadExt as _, AsyncWriteExt as _, future::poll_fn};
use libp2p_core::{
    Endpoint, Transport as _,
    muxing::{StreamMuxer as _, StreamMuxerBox, SubstreamBox},
    transport::{DialOpts, PortUse},
    upgrade::Version,
};
use libp2p_identity::Keypair;
use libp2p_noise as noise;
use libp2p_tcp as tcp;
use libp2p_yamux as yamux;
use multistream_select::{Negotiated, dialer_select_proto, listener_select_proto};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use p2p::{Multiaddr, PeerId};

use crate::node::SOON;

pub(crate) type RawStream = Negotiated<SubstreamBox>;

/// A connection of the attacker.
pub(crate) struct Attacker {
    open: mpsc::UnboundedSender<oneshot::Sender<SubstreamBox>>,
    closed: watch::Receiver<()>,
}

/// Connects as `key` to a host of network 1 (see `node::config`).
pub(crate) async fn connect(key: &Keypair, to: &Multiaddr) -> io::Result<Attacker> {
    let noise = noise::Config::new(key).unwrap().with_prologue(format!("{}-7", "01".repeat(20)).into_bytes());
    let mut transport = tcp::tokio::Transport::new(tcp::Config::default())
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(yamux::Config::default())
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        .boxed();
    let mut address = to.clone();
    address.pop();
    let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
    let dialled = transport.dial(address, options).map_err(io::Error::other)?;
    let (_, muxer): (PeerId, _) = dialled.await.map_err(io::Error::other)?;
    let (open, requests) = mpsc::unbounded_channel();
    let (alive, closed) = watch::channel(());
    tokio::spawn(async move {
        let mut connection = Connection { muxer, requests, waiting: Vec::new() };
        poll_fn(|cx| connection.poll(cx)).await;
        drop(alive);
    });
    Ok(Attacker { open, closed })
}

struct Connection {
    muxer: StreamMuxerBox,
    requests: mpsc::UnboundedReceiver<oneshot::Sender<SubstreamBox>>,
    waiting: Vec<oneshot::Sender<SubstreamBox>>,
}

impl Connection {
    /// Ready when the connection is closed, by whomever.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.requests.poll_recv(cx) {
                Poll::Ready(Some(request)) => self.waiting.push(request),
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        while !self.waiting.is_empty() {
            match Pin::new(&mut self.muxer).poll_outbound(cx) {
                Poll::Ready(Ok(stream)) => drop(self.waiting.remove(0).send(stream)),
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        loop {
            match Pin::new(&mut self.muxer).poll_inbound(cx) {
                Poll::Ready(Ok(stream)) => drop(tokio::spawn(listen(stream))),
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        loop {
            match Pin::new(&mut self.muxer).poll(cx) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Takes gossip of the other side and throws it away: whoever takes none is not listened to. Other streams are refused.
async fn listen(stream: SubstreamBox) {
    if let Ok((_, mut stream)) = listener_select_proto(stream, ["/meshsub/1.1.0"]).await {
        let mut thrown_away = vec![0; 1 << 16];
        while stream.read(&mut thrown_away).await.is_ok_and(|count| count > 0) {}
    }
}

impl Attacker {
    /// Opens a stream for a protocol.
    pub(crate) async fn stream(&self, protocol: &str) -> io::Result<RawStream> {
        let (to, opened) = oneshot::channel();
        self.open.send(to).map_err(io::Error::other)?;
        let stream = opened.await.map_err(io::Error::other)?;
        let (_, stream) = dialer_select_proto(stream, [protocol], Version::V1).await.map_err(io::Error::other)?;
        Ok(stream)
    }

    /// A stream on which messages are published.
    pub(crate) async fn gossip(&self) -> io::Result<RawStream> {
        self.stream("/meshsub/1.1.0").await
    }

    /// Whether the other side has closed the connection.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.has_changed().is_err()
    }

    /// Waits until the other side has closed the connection.
    pub(crate) async fn is_cut_off(&self) {
        let closed = timeout(SOON, self.closed.clone().changed()).await;
        assert!(closed.expect("still connected").is_err());
    }

    /// The same, within a time.
    pub(crate) async fn is_cut_off_within(&self, time: Duration) -> bool {
        timeout(time, self.closed.clone().changed()).await.is_ok()
    }
}

fn varint(mut value: usize, to: &mut Vec<u8>) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

fn field(tag: u8, bytes: &[u8], to: &mut Vec<u8>) {
    to.push(tag << 3 | 2);
    varint(bytes.len(), to);
    to.extend_from_slice(bytes);
}

/// A frame that publishes a message, with more fields than it may have if wanted.
pub(crate) fn frame(topic: &str, data: &[u8], more: &[(u8, &[u8])]) -> Vec<u8> {
    let mut message = Vec::new();
    field(2, data, &mut message);
    field(4, topic.as_bytes(), &mut message);
    for (tag, bytes) in more {
        field(*tag, bytes, &mut message);
    }
    let mut rpc = Vec::new();
    field(2, &message, &mut rpc);
    let mut frame = Vec::new();
    varint(rpc.len(), &mut frame);
    frame.extend(rpc);
    frame
}

/// Sends bytes, if the stream still takes them.
pub(crate) async fn send(stream: &mut RawStream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}
