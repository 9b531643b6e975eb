//! The task that owns the libp2p swarm: it keeps connections up, hands gossip to validation and its verdicts to the router, opens
//! streams, and does what handles ask for.

use std::{
    collections::{HashMap, HashSet},
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::StreamExt as _;
use libp2p_connection_limits::{self as connection_limits, ConnectionLimits};
use libp2p_core::{Multiaddr, transport::TransportError};
use libp2p_gossipsub::{self as gossipsub, MessageAcceptance};
use libp2p_identify as identify;
use libp2p_identity::PeerId;
use libp2p_ping as ping;
use libp2p_swarm::{
    self as swarm, ConnectionError, DialError, NetworkBehaviour, Swarm, SwarmEvent,
    dial_opts::{DialOpts, PeerCondition},
};
use metrics::{counter, gauge};
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, Interval, MissedTickBehavior, interval, timeout},
};

use crate::{
    Config, Handler, Network, PublishError, StartError, Topic, Verdict, address,
    client::Client,
    config::MAX_MESSAGE,
    connected::{self, Known, MOST_ADDRESSES},
    dialer::{Dialer, Kind},
    gossip::{
        self, BOOTNODE_SCORE, GRAYLIST, Router,
        guard::Guard,
        validation::{Judged, Taken, Validation},
        waiting::Waiting,
    },
    identity,
    network::{Event, Inner, Peer, SharedView},
    protocols::Protocol,
    server::Server,
    streams::{self, Opened},
    transport,
};

/// Commands that may wait for the task.
const COMMANDS: usize = 1024;

/// Events a slow reader may lag behind.
const EVENTS: usize = 256;

/// How often the state of connections is looked at.
const TICK: Duration = Duration::from_secs(1);

/// How often the list of connected peers is written (p2p-sync.md section 2.2).
const SAVE_EVERY: Duration = Duration::from_secs(30 * 60);

/// Connections never end for being idle: deployed nodes keep them.
const IDLE: Duration = Duration::from_secs(365 * 24 * 3600);

/// How often a connection is tried by a ping, and how long it may be silent.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(60);

/// The most characters of what a peer calls itself.
const AGENT_CHARACTERS: usize = 64;

/// What handles and the server ask for.
#[derive(Debug)]
pub(crate) enum Command {
    /// Send a message the handler accepted.
    Publish { topic: Topic, message: Vec<u8>, done: oneshot::Sender<Result<(), PublishError>> },
    /// Open a stream; without a connection `to` is dropped.
    Open { peer: PeerId, protocol: Protocol, to: Opened },
    /// Close all connections to a peer.
    Disconnect { peer: PeerId, reason: String },
}

/// Everything libp2p does for a host. Limits come first: they keep the others from seeing connections that are refused.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p_swarm::derive_prelude")]
struct Behaviour {
    limits: connection_limits::Behaviour,
    gossip: Guard<Router>,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    streams: streams::Behaviour,
}

/// The host.
#[derive(Debug)]
pub struct Host;

impl Host {
    /// Starts a host: reads or makes its key, listens, and keeps connections up until [`Network::shutdown`].
    ///
    /// Must be called within a tokio runtime.
    pub async fn start(config: Config, handler: Arc<dyn Handler>) -> Result<Network, StartError> {
        let direct = Config::named("p2p.direct", &config.direct)?;
        let bootnodes = Config::named("p2p.bootnodes", &config.bootnodes)?;
        let key = identity::load_or_create(&config.folder)?;
        let id = key.public().to_peer_id();

        let mut dialer = Dialer::default();
        let now = Instant::now();
        for (kind, named) in [(Kind::Direct, &direct), (Kind::Bootnode, &bootnodes)] {
            for (peer, address) in named.iter().filter(|(peer, _)| *peer != id) {
                dialer.add(kind, *peer, [address.clone()], now);
            }
        }
        let known = connected::read(&config.folder).unwrap_or_else(|error| {
            tracing::warn!(%error, "the peers of earlier runs are forgotten");
            Vec::new()
        });
        for Known { id: peer, addresses } in known.into_iter().filter(|known| known.id != id) {
            let addresses: Vec<_> = addresses.into_iter().filter(|address| dialable(address, config.private_network)).collect();
            if !addresses.is_empty() {
                dialer.add(Kind::Backup, peer, addresses, now);
            }
        }

        let (commands, received) = mpsc::channel(COMMANDS);
        let (stop, stopping) = watch::channel(false);
        let (running, stopped) = watch::channel(());
        let (events, _) = broadcast::channel(EVENTS);
        let server = Server::new(handler.clone(), config.limits.clone(), commands.clone(), stopping.clone());
        let client = Arc::new(Client::new(commands.clone(), config.limits.clone()));
        let view = Arc::new(SharedView::default());

        let limits = ConnectionLimits::default()
            .with_max_pending_incoming(Some(config.limits.handshakes))
            .with_max_established_incoming(Some((config.high_peers.saturating_mul(4) / 5).max(1)))
            .with_max_established(Some((config.high_peers.saturating_mul(11) / 10).max(1)))
            .with_max_established_per_peer(Some(2));
        let mut limits = connection_limits::Behaviour::new(limits);
        let mut router = gossip::router()?;
        for (peer, _) in &direct {
            limits.bypass_peer_id(peer);
            router.add_explicit_peer(peer);
        }
        let identify = identify::Config::new(String::new(), key.public()).with_agent_version(config.agent.clone());
        let behaviour = Behaviour {
            limits,
            gossip: Guard::new(router),
            identify: identify::Behaviour::new(identify.with_hide_listen_addrs(!config.advertise.is_empty())),
            ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_EVERY).with_timeout(PING_TIMEOUT)),
            streams: streams::Behaviour::new(server.clone()),
        };
        let transport = transport::build(&key, config.prologue(), config.limits.handshake_timeout)?;
        let settings = swarm::Config::with_tokio_executor().with_idle_connection_timeout(IDLE);
        let mut swarm = Swarm::new(transport, behaviour, id, settings);
        for address in &config.listen {
            let failed = |e: TransportError<io::Error>| StartError::Listen { address: address.clone(), why: chain(&e) };
            swarm.listen_on(address.clone()).map_err(failed)?;
        }
        config.advertise.iter().for_each(|address| swarm.add_external_address(address.clone()));

        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut task = Task {
            swarm,
            dialer,
            validation: Validation::new(handler.clone(), config.limits.clone()),
            waiting: Waiting::default(),
            server,
            client: client.clone(),
            view: view.clone(),
            events: events.clone(),
            resolving: JoinSet::new(),
            reasons: HashMap::new(),
            direct: direct.into_iter().map(|(peer, _)| peer).collect(),
            bootnodes: bootnodes.into_iter().map(|(peer, _)| peer).collect(),
            min_peers: config.min_peers as usize,
            private_network: config.private_network,
            folder: config.folder,
            saved: now,
            ticks,
        };
        tracing::info!(peer_id = %id, genesis = %config.genesis_id, "local node identity");
        // addresses of interfaces come a moment later
        let all = config.listen.len();
        let _ = timeout(TICK, task.until_listening(all)).await;
        tokio::spawn(async move {
            task.run(received, stopping).await;
            drop(running);
        });
        Ok(Network { inner: Arc::new(Inner { id, handler, commands, client, view, events, stop, stopped }) })
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let more = error.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        next = error.source();
    }
    words
}

/// Whether an address that others told is worth dialling.
fn dialable(address: &Multiaddr, private_network: bool) -> bool {
    address::is_tcp(address) && (private_network || !address::is_private(address))
}

struct Task {
    swarm: Swarm<Behaviour>,
    dialer: Dialer,
    validation: Validation,
    waiting: Waiting,
    server: Arc<Server>,
    client: Arc<Client>,
    view: Arc<SharedView>,
    events: broadcast::Sender<Event>,
    /// Names of hosts on their way to numbers.
    resolving: JoinSet<(PeerId, Vec<Multiaddr>)>,
    /// Why peers are being disconnected.
    reasons: HashMap<PeerId, String>,
    direct: HashSet<PeerId>,
    bootnodes: HashSet<PeerId>,
    min_peers: usize,
    private_network: bool,
    folder: PathBuf,
    saved: Instant,
    ticks: Interval,
}

impl Task {
    async fn until_listening(&mut self, count: usize) {
        while self.view.lock().listening.len() < count {
            let event = self.swarm.select_next_some().await;
            self.on_event(event);
        }
    }

    async fn run(&mut self, mut commands: mpsc::Receiver<Command>, mut stop: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                // an error: the last handle is gone
                _ = stop.wait_for(|stopped| *stopped) => break,
                event = self.swarm.select_next_some() => self.on_event(event),
                judged = self.validation.judged() => self.on_judged(judged),
                Some(command) = commands.recv() => self.on_command(command),
                Some(resolved) = self.resolving.join_next() => match resolved {
                    Ok((peer, addresses)) => self.dial(peer, addresses),
                    Err(error) => tracing::error!(%error, "resolving a name failed"),
                },
                _ = self.ticks.tick() => self.on_tick(),
            }
        }
        self.save();
        tracing::info!("the network has stopped");
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::NewListenAddr { address, .. } => {
                tracing::info!(%address, "listening");
                self.view.lock().listening.push(address.clone());
                self.tell(Event::Listening(address));
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.view.lock().listening.retain(|other| *other != address);
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "listening"),
            SwarmEvent::ListenerClosed { reason: Err(error), addresses, .. } => {
                tracing::error!(%error, ?addresses, "no longer listening");
            }
            SwarmEvent::ConnectionEstablished { peer_id, endpoint, num_established, .. } => {
                counter!("spacemesh_p2p_total_connections").increment(1);
                if num_established.get() == 1 {
                    self.on_connected(peer_id, endpoint.get_remote_address().clone(), endpoint.is_dialer());
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, cause, .. } => self.on_disconnected(peer_id, cause),
            SwarmEvent::OutgoingConnectionError { peer_id, error, .. } => self.on_dial_error(peer_id, &error),
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                counter!("spacemesh_p2p_refused_connections", "direction" => "in").increment(1);
                let reason = chain(&error);
                tracing::debug!(address = %send_back_addr, reason, "a connection to this host did not come about");
                self.tell(Event::Failed { address: Some(send_back_addr), reason });
            }
            _ => {}
        }
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Gossip(gossipsub::Event::Message { propagation_source, message_id, message }) => {
                // the router lets no other topics through
                let Some(topic) = Topic::of(&message.topic) else { return };
                let taken = self.validation.take(topic, message_id.clone(), message, propagation_source);
                if taken != Taken::Yes {
                    self.report(&message_id, propagation_source, MessageAcceptance::Ignore);
                }
                if taken == Taken::Flood {
                    self.disconnect(propagation_source, "it floods this host with messages".to_owned());
                }
            }
            BehaviourEvent::Gossip(gossipsub::Event::Subscribed { topic, .. }) => {
                let Some(topic) = Topic::of(&topic) else { return };
                for message in self.waiting.take(topic) {
                    if let Err(error) = self.publish(topic, message) {
                        tracing::warn!(%topic, %error, "a message that waited for peers is not sent");
                    }
                }
            }
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                if let Some(peer) = self.view.lock().peers.get_mut(&peer_id) {
                    peer.agent = Some(info.agent_version.chars().take(AGENT_CHARACTERS).collect());
                    peer.listens = info.listen_addrs.into_iter().take(MOST_ADDRESSES).collect();
                }
            }
            BehaviourEvent::Ping(ping::Event { peer, connection, result: Err(ping::Failure::Timeout) }) => {
                tracing::debug!(%peer, "closing a connection that does not answer");
                self.swarm.close_connection(connection);
            }
            _ => {}
        }
    }

    fn on_connected(&mut self, id: PeerId, address: Multiaddr, outbound: bool) {
        self.dialer.connected(&id);
        if self.bootnodes.contains(&id) {
            self.swarm.behaviour_mut().gossip.inner.set_application_score(&id, BOOTNODE_SCORE);
        }
        let since = SystemTime::now();
        let peer = Peer { id, address, outbound, since, agent: None, listens: Vec::new() };
        tracing::info!(peer = %id, address = %peer.address, outbound, "connected");
        self.client.ranking().add(id);
        self.view.lock().peers.insert(id, peer.clone());
        self.count_peers();
        self.tell(Event::Connected(peer));
        self.check_score(id);
    }

    fn on_disconnected(&mut self, peer: PeerId, cause: Option<ConnectionError>) {
        self.dialer.disconnected(&peer, Instant::now());
        self.client.ranking().remove(&peer);
        self.server.forget(&peer);
        self.validation.forget(&peer);
        self.view.lock().peers.remove(&peer);
        self.count_peers();
        let reason = self.reasons.remove(&peer).or_else(|| cause.map(|cause| chain(&cause)));
        tracing::info!(%peer, reason, "disconnected");
        self.tell(Event::Disconnected { peer, reason });
    }

    fn on_dial_error(&mut self, peer: Option<PeerId>, error: &DialError) {
        // the router dials direct peers by itself and knows no addresses
        if matches!(error, DialError::NoAddresses | DialError::DialPeerConditionFalse(_)) {
            return;
        }
        counter!("spacemesh_p2p_refused_connections", "direction" => "out").increment(1);
        let address = match error {
            DialError::Transport(errors) => errors.first().map(|(address, _)| address.clone()),
            DialError::WrongPeerId { address, .. } | DialError::LocalPeerId { address } => Some(address.clone()),
            _ => None,
        };
        let reason = chain(error);
        tracing::info!(peer = peer.map(tracing::field::display), reason, "a connection from this host did not come about");
        if let Some(peer) = peer {
            self.dialer.failed(&peer, Instant::now());
        }
        self.tell(Event::Failed { address, reason });
    }

    fn on_judged(&mut self, Judged { topic, id, from, verdict }: Judged) {
        let acceptance = match verdict {
            Verdict::Accept => MessageAcceptance::Accept,
            Verdict::Ignore => MessageAcceptance::Ignore,
            Verdict::Reject => MessageAcceptance::Reject,
        };
        self.report(&id, from, acceptance);
        if verdict == Verdict::Reject {
            counter!("spacemesh_p2p_rejected", "protocol" => topic.name()).increment(1);
            if self.swarm.is_connected(&from) {
                counter!("spacemesh_p2p_dropped_connections_validation_reject").increment(1);
                self.disconnect(from, format!("it sent an invalid message on {topic}"));
            }
        }
    }

    fn report(&mut self, id: &gossipsub::MessageId, from: PeerId, acceptance: MessageAcceptance) {
        let in_time = self.swarm.behaviour_mut().gossip.inner.report_message_validation_result(id, &from, acceptance);
        if !in_time {
            counter!("spacemesh_p2p_late_verdicts").increment(1);
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Publish { topic, message, done } => {
                // nobody may be waiting for the answer any more
                let _ = done.send(self.publish(topic, message));
            }
            Command::Open { peer, protocol, to } => {
                if self.swarm.is_connected(&peer) {
                    self.swarm.behaviour_mut().streams.open(peer, protocol, to);
                }
            }
            Command::Disconnect { peer, reason } => self.disconnect(peer, reason),
        }
    }

    fn publish(&mut self, topic: Topic, message: Vec<u8>) -> Result<(), PublishError> {
        let bytes = message.len();
        match self.swarm.behaviour_mut().gossip.inner.publish(topic.hash(), message.clone()) {
            Ok(_) | Err(gossipsub::PublishError::Duplicate) => Ok(()),
            Err(gossipsub::PublishError::NoPeersSubscribedToTopic) => {
                self.waiting.push(topic, message);
                Ok(())
            }
            // peers hear of it with the next heartbeat and ask for it
            Err(gossipsub::PublishError::AllQueuesFull(peers)) => {
                tracing::warn!(%topic, peers, "the queues to all peers are full");
                Ok(())
            }
            Err(gossipsub::PublishError::MessageTooLarge) => Err(PublishError::TooLarge { bytes, limit: MAX_MESSAGE }),
            Err(e) => Err(PublishError::Library(e.to_string())),
        }
    }

    fn disconnect(&mut self, peer: PeerId, reason: String) {
        if self.swarm.is_connected(&peer) {
            tracing::info!(%peer, reason, "disconnecting");
            self.reasons.insert(peer, reason);
            // an error: it is gone already
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    /// Whoever gossip no longer listens to is of no use as a peer.
    fn check_score(&mut self, peer: PeerId) {
        let score = self.swarm.behaviour().gossip.inner.peer_score(&peer);
        if score.is_some_and(|score| score < GRAYLIST) && !self.direct.contains(&peer) {
            self.disconnect(peer, "it sent too many invalid messages".to_owned());
        }
    }

    fn on_tick(&mut self) {
        let connected: HashSet<_> = self.swarm.connected_peers().copied().collect();
        for (peer, addresses) in self.dialer.due(&connected, self.min_peers, Instant::now()) {
            self.resolving.spawn(async move {
                let mut numbers = Vec::new();
                for address in addresses {
                    match address::resolve(&address).await {
                        Ok(found) => numbers.extend(found),
                        Err(error) => tracing::warn!(%address, %error, "a name is not known"),
                    }
                }
                (peer, numbers)
            });
        }
        for peer in connected {
            self.check_score(peer);
        }
        if self.saved.elapsed() >= SAVE_EVERY {
            self.save();
        }
    }

    fn dial(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        if addresses.is_empty() {
            return self.dialer.failed(&peer, Instant::now());
        }
        let options = DialOpts::peer_id(peer).condition(PeerCondition::DisconnectedAndNotDialing).addresses(addresses);
        match self.swarm.dial(options.build()) {
            Ok(()) => {}
            // the other side was faster
            Err(DialError::DialPeerConditionFalse(_)) => self.dialer.failed(&peer, Instant::now()),
            Err(error) => self.on_dial_error(Some(peer), &error),
        }
    }

    /// Remembers the connected peers for the next run; without any the old list stays.
    fn save(&mut self) {
        self.saved = Instant::now();
        let reachable = |peer: &Peer| {
            let own = peer.outbound.then(|| address::split(&peer.address).0);
            let all = own.into_iter().chain(peer.listens.iter().map(|address| address::split(address).0));
            let mut addresses: Vec<_> = all.filter(|address| dialable(address, self.private_network)).collect();
            addresses.sort_unstable();
            addresses.dedup();
            addresses.truncate(MOST_ADDRESSES);
            (!addresses.is_empty()).then_some(Known { id: peer.id, addresses })
        };
        let known: Vec<_> = self.view.lock().peers.values().filter_map(reachable).collect();
        if !known.is_empty()
            && let Err(error) = connected::write(&self.folder, &known)
        {
            tracing::warn!(%error, "the connected peers are not remembered");
        }
    }

    fn count_peers(&self) {
        gauge!("spacemesh_p2p_total_peers").set(self.view.lock().peers.len() as f64);
    }

    fn tell(&self, event: Event) {
        // nobody may be listening
        let _ = self.events.send(event);
    }
}
