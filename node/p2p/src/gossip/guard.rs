//! Watches how often a peer opens its gossip stream anew. The router closes a stream that carries a frame it cannot take, for
//! instance one that is too large, and after the fifth stream turns gossip on that connection off without a word. Whoever needs
//! that many is disconnected: a harmful peer is rid of, an honest one starts afresh.

use std::{
    collections::VecDeque,
    task::{Context, Poll},
};

use libp2p_core::{Endpoint, Multiaddr, transport::PortUse};
use libp2p_identity::PeerId;
use libp2p_swarm::{
    CloseConnection, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm, handler::ConnectionEvent,
};

/// Gossip streams a peer may open on one connection; one is what it needs.
const STREAMS: u32 = 3;

/// A behaviour that is watched.
pub(crate) struct Guard<B: NetworkBehaviour> {
    /// What is watched.
    pub(crate) inner: B,
    to_close: VecDeque<(PeerId, ConnectionId)>,
}

impl<B: NetworkBehaviour> Guard<B> {
    pub(crate) fn new(inner: B) -> Self {
        Self { inner, to_close: VecDeque::new() }
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for Guard<B> {
    type ConnectionHandler = GuardedHandler<THandler<B>>;
    type ToSwarm = B::ToSwarm;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner.handle_pending_inbound_connection(id, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(id, peer, local, remote).map(GuardedHandler::new)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.inner.handle_pending_outbound_connection(id, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_outbound_connection(id, peer, address, role, port).map(GuardedHandler::new)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {
            Told::Inner(event) => self.inner.on_connection_handler_event(peer, connection, event),
            Told::TooManyStreams => self.to_close.push_back((peer, connection)),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        match self.to_close.pop_front() {
            Some((peer_id, connection)) => {
                tracing::info!(peer = %peer_id, "disconnecting a peer that opened its gossip stream too often");
                Poll::Ready(ToSwarm::CloseConnection { peer_id, connection: CloseConnection::One(connection) })
            }
            None => self.inner.poll(cx),
        }
    }
}

/// What the handler of a connection tells.
#[derive(Debug)]
pub(crate) enum Told<T> {
    /// Something for the watched behaviour.
    Inner(T),
    /// The peer opened one stream too many.
    TooManyStreams,
}

/// Counts streams of a connection.
pub(crate) struct GuardedHandler<H> {
    inner: H,
    streams: u32,
    told: bool,
}

impl<H> GuardedHandler<H> {
    fn new(inner: H) -> Self {
        Self { inner, streams: 0, told: false }
    }
}

impl<H: ConnectionHandler> ConnectionHandler for GuardedHandler<H> {
    type FromBehaviour = H::FromBehaviour;
    type ToBehaviour = Told<H::ToBehaviour>;
    type InboundProtocol = H::InboundProtocol;
    type OutboundProtocol = H::OutboundProtocol;
    type InboundOpenInfo = H::InboundOpenInfo;
    type OutboundOpenInfo = H::OutboundOpenInfo;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol, Self::InboundOpenInfo> {
        self.inner.listen_protocol()
    }

    fn connection_keep_alive(&self) -> bool {
        self.inner.connection_keep_alive()
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Self::ToBehaviour>> {
        if self.streams > STREAMS && !self.told {
            self.told = true;
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(Told::TooManyStreams));
        }
        self.inner.poll(cx).map(|event| event.map_custom(Told::Inner))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::ToBehaviour>> {
        self.inner.poll_close(cx).map(|event| event.map(Told::Inner))
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        self.inner.on_behaviour_event(event);
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, Self::InboundOpenInfo, Self::OutboundOpenInfo>,
    ) {
        if matches!(event, ConnectionEvent::FullyNegotiatedInbound(_)) {
            self.streams += 1;
        }
        self.inner.on_connection_event(event);
    }
}
