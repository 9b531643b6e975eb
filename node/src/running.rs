//! A node at work: its parts, tied together.
//!
//! ```text
//!   other nodes ◄──► p2p ──► Judge ──► Handler ──► Knowledge ──► state database      (running/network.rs)
//!                     ▲                   │ ▲
//!                     │                   ▼ │ Fetcher
//!   PoET servers ◄── Poets ◄── Smeshers ──► PostServices ◄── proving services
//!                                 │
//!   wallets, operators ──► API ──►┘                                                   (running/answers.rs)
//! ```

mod answers;
mod network;

use std::{num::NonZeroUsize, sync::Arc, thread, time::Duration};

use activation::{
    clock::Clock,
    handler::{self, Fetch, Handler, News},
    knowledge::Knowledge,
    poet::{self, Poets},
    positioning::{Chains, Positioning},
    post_service::PostServices,
    rows::Rows,
    smesher::{self, Smeshers, Told},
    validate::{Proofs, Rules},
    verification::{self, Priority, Verifiers},
};
use api::{events::Events, listen, node::Constants};
use p2p::{Host, Multiaddr, Network, Topic};
use proto::{
    activation::{Version, Versions},
    ids::Address,
    layers::EpochId,
};
use store::{
    data_dir::{Born, DataDir},
    engine::Engine,
    identities::{self, Named},
};
use tokio::{
    sync::{broadcast::error::RecvError, mpsc, watch},
    task::JoinSet,
};

use self::{
    answers::Answers,
    network::{Fetcher, Judge, Late, Out},
};
use crate::error::Error;

/// Proofs of malfeasance that may wait to be published.
const PROOFS: usize = 256;

/// What an operator decides.
pub(crate) struct Settings {
    /// The network.
    pub(crate) born: Born,
    /// Where rewards go; without it nothing is smeshed.
    pub(crate) coinbase: Option<Address>,
    /// Whether what the node knows is all there is: for the first nodes of a network.
    pub(crate) synced: bool,
    /// Where nodes find this one, instead of what the preset says.
    pub(crate) listen: Vec<Multiaddr>,
    /// Nodes to ask first, beside those of the preset.
    pub(crate) bootnodes: Vec<Multiaddr>,
    /// Nodes that are always connected.
    pub(crate) direct: Vec<Multiaddr>,
    /// Where programs find this one.
    pub(crate) listeners: listen::Listeners,
}

/// Runs a node until `stop` turns true.
pub(crate) async fn run(data: DataDir, settings: Settings, mut stop: watch::Receiver<bool>) -> Result<(), Error> {
    let node = Box::pin(Node::start(data, settings)).await?;
    let ended = tokio::select! {
        _ = stop.wait_for(|stopped| *stopped) => Ok(()),
        fatal = node.smeshers.fatal() => Err(Error::Fatal(Box::new(fatal))),
    };
    node.stop().await;
    ended
}

/// A running node.
struct Node {
    smeshers: Smeshers,
    posts: PostServices,
    verifiers: Verifiers,
    handler: Late<Handler>,
    network: Late<Network>,
    api: listen::Running,
    stop_api: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

fn versions(network: &proto::preset::Network) -> Result<Versions, Error> {
    let entries = network.main.atx_versions.iter().map(|(epoch, version)| Ok((EpochId(*epoch), Version::try_from(*version)?)));
    let entries: Result<Vec<_>, proto::activation::UnknownVersion> = entries.collect();
    let entries = entries.map_err(|error| Error::Usage(error.to_string()))?;
    Versions::new(entries).map_err(|error| Error::Usage(error.to_string()))
}

/// Whether a node knows the activations of its network: it was there from the first two epochs on, or it knows some of the
/// present or the last epoch. A node that was away for longer has to fetch what it missed, which it cannot do yet; if its identities made
/// activations without that, they could follow the wrong ones, which costs an identity everything.
fn knows_network(knowledge: &Knowledge, epoch: EpochId) -> Result<bool, Error> {
    let latest = knowledge.atxs().latest_epoch()?;
    Ok(epoch.0 <= 1 || latest.is_some_and(|latest| latest.0.saturating_add(1) >= epoch.0))
}

impl Node {
    async fn start(data: DataDir, settings: Settings) -> Result<Self, Error> {
        let network = settings.born.network.clone();
        let genesis = data.genesis().clone();
        let version = env!("CARGO_PKG_VERSION");
        let constants = Constants::new(version, option_env!("SMESH_COMMIT").unwrap_or_default(), &network, genesis.clone())
            .map_err(|error| Error::Usage(error.to_string()))?;
        let timeline = constants.timeline.clone();
        let (clock, golden, versions) = (Clock::system(), genesis.golden_atx(), versions(&network)?);
        let named = identities::read(&data.identities()?)?;

        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| Error::Start(format!("no random numbers: {error}")))?;
        let params = network.post_params();
        let verifiers = Verifiers::start(verification::Config::new(params.clone(), seed.to_vec()))
            .map_err(|error| Error::Start(format!("failed to start the verifiers: {error}")))?;
        let state: Arc<dyn Engine> = data.state().clone();
        let knowledge = Arc::new(Knowledge::new(state, timeline.layers_per_epoch, named.iter().map(|named| named.key.node_id())));

        let (late_network, late_handler) = (Late::default(), Late::default());
        let fetcher: Arc<dyn Fetch> = Arc::new(Fetcher { network: late_network.clone(), handler: late_handler.clone() });
        let (proofs, mut found_proofs) = mpsc::channel(PROOFS);
        let config = handler::Config {
            rules: Rules { network: genesis.id(), golden, post: params, tick_size: network.main.tick_size },
            versions: versions.clone(),
            timeline: timeline.clone(),
            clock: clock.clone(),
            parallel: thread::available_parallelism().map_or(2, NonZeroUsize::get).max(2),
        };
        let verifier: Arc<dyn Proofs + Send + Sync> = Arc::new(verifiers.at(Priority::Normal));
        let handler = Handler::new(config, knowledge.clone(), verifier, fetcher, proofs);
        late_handler.set(Some(handler.clone()));

        let posts = PostServices::default();
        let rows = || Rows::new(data.local().clone());
        let databases = Arc::new(poet::Databases { rows: Arc::new(rows()), knowledge: knowledge.clone() });
        let poets = Poets::new(&network.main.poet_servers, poet::Settings::new(&network, genesis.id()), databases, clock.clone())
            .map_err(|error| Error::Usage(error.to_string()))?;
        let poets = Arc::new(poets);
        if !named.is_empty() {
            poets.check().await.map_err(|error| Error::Fatal(Box::new(error.into())))?;
        }
        let chains = Chains { knowledge: knowledge.clone(), proofs: Arc::new(verifiers.at(Priority::High)), golden };
        let positioning = Arc::new(Positioning::new(chains, network.main.post_valid_delay.0, clock.clone()));
        let synced = settings.synced || knows_network(&knowledge, timeline.epoch_at(clock.now()))?;
        let (tell_synced, is_synced) = watch::channel(synced);
        let smeshers = Smeshers::new(
            smesher::Settings {
                golden,
                timeline: timeline.clone(),
                versions,
                poets: poets.addresses(),
                retry: network.hare3.preround_delay.0,
                regossip: network.main.regossip_atx_interval.0,
            },
            Arc::new(smesher::Parts {
                rows: rows(),
                guard: data.guard().clone(),
                handler: handler.clone(),
                positioning: positioning.clone(),
                proofs: Arc::new(verifiers.at(Priority::High)),
                provers: Arc::new(posts.clone()),
                poets,
                network: Arc::new(Out(late_network.clone())),
            }),
            clock.clone(),
            is_synced.clone(),
        );
        let any = !named.is_empty();
        for Named { name, key } in named {
            let id = key.node_id();
            posts.register_identity(id, &*name);
            verifiers.add_own(id);
            tracing::info!(identity = %id, name, "an identity");
            smeshers.register(&name, key);
        }
        if let Some(coinbase) = settings.coinbase {
            smeshers.set_coinbase(coinbase);
            posts.allow(true);
        }

        let mut peering = p2p::Config::of(&network, genesis.id(), constants.effective_genesis, data.path())
            .map_err(|error| Error::Usage(error.to_string()))?;
        if !settings.listen.is_empty() {
            peering.listen = settings.listen;
        }
        peering.bootnodes.extend(settings.bootnodes);
        peering.direct = settings.direct;
        let judge = Arc::new(Judge { handler: handler.clone(), network: late_network.clone() });
        let host = Host::start(peering, judge).await.map_err(|error| Error::Start(error.to_string()))?;
        tracing::info!(id = %host.id(), "peers know this node by its id");
        late_network.set(Some(host.clone()));
        // What it misses of old epochs it fetches when something new names it.
        handler.set_synced();

        let answers = Arc::new(Answers {
            events: Events::new(timeline.clone(), network.main.tick_size),
            constants,
            knowledge,
            positioning,
            smeshers: smeshers.clone(),
            network: late_network.clone(),
            synced: is_synced,
        });
        let (stop_api, stopping_api) = watch::channel(false);
        let metrics = api::metrics::install().map_err(|error| Error::Start(format!("no metrics: {error}")))?;
        let (post, post_info) = (posts.clone(), posts.clone());
        let offer = listen::Offer {
            node: answers.clone(),
            post: Box::new(move |routes| routes.add_service(post.post_service())),
            post_info: Box::new(move |routes| routes.add_service(post_info.post_info_service())),
            metrics: Some(metrics),
        };
        let api =
            listen::start(&settings.listeners, &offer, stopping_api).await.map_err(|error| Error::Start(error.to_string()))?;

        let mut tasks = JoinSet::new();
        let mut told = smeshers.subscribe();
        let events = answers.clone();
        tasks.spawn(async move {
            // The sender lives as long as its receivers here.
            loop {
                match told.recv().await {
                    Ok(Told { at, id, notice }) => {
                        let all = events.smeshers.status();
                        let deadline = all.iter().find(|status| status.id == id).and_then(|status| status.deadline);
                        events.events.tell(at, &id, &notice, deadline);
                    }
                    Err(RecvError::Lagged(lost)) => tracing::warn!(lost, "events were lost"),
                    Err(RecvError::Closed) => return,
                }
            }
        });
        tasks.spawn(async move {
            while let Some(proof) = found_proofs.recv().await {
                if let Err(error) = host.publish(Topic::Malfeasance, proof).await {
                    tracing::warn!(%error, "a proof of malfeasance was not published");
                }
            }
        });
        tasks.spawn(verifiers.clone().shrink_while(posts.proving()));
        let mut news = handler.news();
        tasks.spawn(async move {
            loop {
                match news.recv().await {
                    Ok(News::Activation { known, own }) => {
                        let (id, row) = (known.id, &known.row);
                        tracing::info!(%id, smesher = %row.smesher, epoch = %row.publish_epoch, weight = row.weight.0, own, "accepted an activation");
                    }
                    Ok(News::Malicious { identity, own, .. }) => tracing::warn!(%identity, own, "an identity is malicious"),
                    Err(RecvError::Lagged(lost)) => tracing::warn!(lost, "news were lost"),
                    Err(RecvError::Closed) => return,
                }
            }
        });
        tasks.spawn(async move {
            // Nobody else may tell that the node knows the network: it waits until the end.
            tell_synced.closed().await;
        });

        if !synced {
            tracing::warn!(
                "this node was not there in the last two epochs and cannot fetch what it missed yet: its identities make no activations"
            );
        }
        match (any, smeshers.coinbase()) {
            (true, Some(_)) => smeshers.start().map_err(|error| Error::Start(error.to_string()))?,
            (true, None) => tracing::warn!("nothing is smeshed without an account for the rewards: give one with --coinbase"),
            (false, _) => tracing::info!("no identities: this node judges what others do"),
        }
        Ok(Self { smeshers, posts, verifiers, handler: late_handler, network: late_network, api, stop_api, tasks })
    }

    /// Ends everything, within some seconds at most; what was done is on disk.
    async fn stop(self) {
        const WITHIN: Duration = Duration::from_secs(3);
        let Self { smeshers, posts, verifiers, handler, network, api, stop_api, mut tasks } = self;
        // refused where nothing was started
        let _ = smeshers.stop().await;
        posts.close();
        stop_api.send_replace(true);
        if let Some(network) = network.get() {
            network.shutdown().await;
        }
        network.set(None);
        handler.set(None);
        let _ = tokio::time::timeout(WITHIN, api.ended()).await;
        tasks.shutdown().await;
        let _ = tokio::task::spawn_blocking(move || verifiers.stop()).await;
    }
}
