//! Streams for requests: one per request, under the deployed names without a leading slash (p2p-sync.md sections 8 and 18.2).
//!
//! The names are plain text here, because the library's own type for names insists on the slash; what negotiates them is the
//! patched copy under `vendor/multistream-select`. Streams are never a reason to dial.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use libp2p_core::{Endpoint, InboundUpgrade, Multiaddr, OutboundUpgrade, UpgradeInfo, transport::PortUse};
use libp2p_identity::PeerId;
use libp2p_swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler,
    Stream, StreamUpgradeError, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
    handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
};
use tokio::sync::oneshot;

use crate::{error::RequestError, protocols::Protocol, server::Server};

/// Where a new stream goes.
pub(crate) type Opened = oneshot::Sender<Result<Stream, RequestError>>;

/// Asks a connection for a stream.
#[derive(Debug)]
pub(crate) struct Open {
    protocol: Protocol,
    to: Opened,
}

/// Opens streams on existing connections and gives those of peers to the server.
pub(crate) struct Behaviour {
    server: Arc<Server>,
    requests: VecDeque<(PeerId, Open)>,
}

impl Behaviour {
    pub(crate) fn new(server: Arc<Server>) -> Self {
        Self { server, requests: VecDeque::new() }
    }

    /// Opens a stream to a peer that is connected; otherwise `to` is dropped.
    pub(crate) fn open(&mut self, peer: PeerId, protocol: Protocol, to: Opened) {
        self.requests.push_back((peer, Open { protocol, to }));
    }

    fn handler(&self, peer: PeerId) -> Handler {
        Handler { peer, server: self.server.clone(), requests: VecDeque::new() }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        match self.requests.pop_front() {
            Some((peer_id, event)) => Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::Any, event }),
            None => Poll::Pending,
        }
    }
}

/// The streams of one connection.
pub(crate) struct Handler {
    peer: PeerId,
    server: Arc<Server>,
    requests: VecDeque<Open>,
}

/// What is negotiated at the start of a stream: one of these names, and then nothing more.
pub(crate) struct Names(Vec<Protocol>);

impl UpgradeInfo for Names {
    type Info = &'static str;
    type InfoIter = Vec<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.iter().map(|protocol| protocol.name()).collect()
    }
}

impl InboundUpgrade<Stream> for Names {
    type Output = (Stream, &'static str);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, name: &'static str) -> Self::Future {
        ready(Ok((stream, name)))
    }
}

impl OutboundUpgrade<Stream> for Names {
    type Output = Stream;
    type Error = Infallible;
    type Future = Ready<Result<Stream, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, _: &'static str) -> Self::Future {
        ready(Ok(stream))
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = Infallible;
    type InboundProtocol = Names;
    type OutboundProtocol = Names;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Open;

    fn listen_protocol(&self) -> SubstreamProtocol<Names> {
        SubstreamProtocol::new(Names(Protocol::ALL.to_vec()), ())
    }

    fn on_behaviour_event(&mut self, request: Open) {
        self.requests.push_back(request);
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Names, Open, Infallible>> {
        // whoever stopped waiting needs no stream
        while let Some(request) = self.requests.pop_front() {
            if !request.to.is_closed() {
                let protocol = SubstreamProtocol::new(Names(vec![request.protocol]), request);
                return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
            }
        }
        Poll::Pending
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Names, Names, (), Open>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: (stream, name), .. }) => {
                if let Some(protocol) = Protocol::named(name) {
                    self.server.admit(self.peer, protocol, stream);
                }
            }
            // a receiver that is gone needs no stream
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: stream, info }) => {
                let _ = info.to.send(Ok(stream));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, info: Open { protocol, to } }) => {
                let _ = to.send(Err(match error {
                    StreamUpgradeError::NegotiationFailed => RequestError::Unsupported(protocol.name()),
                    StreamUpgradeError::Apply(never) => match never {},
                    other => RequestError::Stream(other.to_string()),
                }));
            }
            _ => {}
        }
    }
}
