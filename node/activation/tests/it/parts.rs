//! An identity at work with the real parts of a node and a real PoET server, in real time. Only proofs of space are cheap ones, and
//! the network is a list.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

use activation::{
    builder::PostAnswer,
    clock::Clock,
    handler::{Config, Fetch, Fetching, Handler, Outcome, Peer, Source},
    knowledge::Knowledge,
    poet::{Databases, Home as _, Poets},
    positioning::{Chains, Positioning},
    rows::Rows,
    smesher::{Answer, Parts, Prove, Publish, Services as _, Settings, SignError, Smeshers},
    timeline::{Moment, Timeline},
};
use poet_service::schedule::Time;
use proto::{
    activation::{Activation, Versions},
    ids::{Address, AtxId, NodeId, PoetProofRef},
    layers::LayersPerEpoch,
    preset::{Base64Key, PoetServer},
    units::{Labels, SpaceUnits, VrfNonce},
};
use store::{guard::Guard, memory::Memory};
use tokio::sync::{mpsc, watch};

use crate::{
    fixture::key,
    network::{CheapProofs, GOLDEN, NETWORK, encode, prove, rules, vrf_nonce},
    poets::settings,
    real,
};

const SECOND: Duration = Duration::from_secs(1);

/// A second is a layer, twelve an epoch.
fn timeline(genesis: Moment) -> Timeline {
    Timeline {
        genesis,
        layer: SECOND,
        layers_per_epoch: LayersPerEpoch(NonZeroU32::new(12).unwrap()),
        phase_shift: 6 * SECOND,
        cycle_gap: 4 * SECOND,
        grace: 3 * SECOND,
        positioning: Some(SECOND),
    }
}

/// Nobody else is there.
struct Alone;

impl Fetch for Alone {
    fn activations<'a>(&'a self, _: &'a [AtxId], _: Option<&'a Peer>) -> Fetching<'a> {
        Box::pin(async { Err("nobody is there".into()) })
    }

    fn poet_proofs<'a>(&'a self, _: &'a [PoetProofRef], _: Option<&'a Peer>) -> Fetching<'a> {
        Box::pin(async { Err("nobody is there".into()) })
    }
}

/// What went out, and how often.
#[derive(Default)]
struct Sent(Mutex<BTreeMap<Vec<u8>, usize>>);

impl Publish for Sent {
    fn publish<'a>(&'a self, bytes: &'a [u8]) -> Answer<'a, Result<(), String>> {
        *self.0.lock().unwrap().entry(bytes.to_vec()).or_default() += 1;
        Box::pin(async { Ok(()) })
    }
}

impl Sent {
    fn activations(&self) -> Vec<Activation> {
        let sent = self.0.lock().unwrap();
        let mut all: Vec<_> = sent.keys().map(|bytes| Activation::decode(bytes, &Versions::default()).unwrap()).collect();
        all.sort_by_key(Activation::publish_epoch);
        all
    }
}

/// Proves at once.
struct Quick;

impl Prove for Quick {
    fn prove<'a>(&'a self, id: &'a NodeId, challenge: [u8; 32]) -> Answer<'a, Result<PostAnswer, String>> {
        let units = SpaceUnits(4);
        let answer = PostAnswer {
            post: prove(id, &GOLDEN, &challenge, units),
            num_units: units,
            labels_per_unit: Labels(rules().post.labels_per_unit),
            commitment: GOLDEN,
            vrf_nonce: Some(VrfNonce(vrf_nonce(id))),
        };
        Box::pin(async { Ok(answer) })
    }

    fn set_idle(&self, _: &NodeId) {}
}

/// What survives a restart.
struct Disk {
    state: Memory,
    local: Memory,
    sent: Arc<Sent>,
    servers: Vec<PoetServer>,
    timeline: Timeline,
}

impl Disk {
    fn databases(&self) -> Databases {
        let knowledge = Knowledge::new(Arc::new(self.state.clone()), self.timeline.layers_per_epoch, [key(1).node_id()]);
        Databases { rows: Arc::new(Rows::new(Arc::new(self.local.clone()))), knowledge: Arc::new(knowledge) }
    }

    /// The parts of a program that begins.
    fn parts(&self) -> Parts {
        let clock = Clock::system();
        let databases = Arc::new(self.databases());
        let knowledge = databases.knowledge.clone();
        let proofs = Arc::new(CheapProofs);
        let config = Config {
            rules: rules(),
            versions: Versions::default(),
            timeline: self.timeline.clone(),
            clock: clock.clone(),
            parallel: 2,
        };
        let (malfeasance, _) = mpsc::channel(1);
        let handler = Handler::new(config, knowledge.clone(), proofs.clone(), Arc::new(Alone), malfeasance);
        let chains = Chains { knowledge, proofs: proofs.clone(), golden: GOLDEN };
        let poets = activation::poet::Settings {
            network: NETWORK,
            epoch: 12 * SECOND,
            phase_shift: self.timeline.phase_shift,
            cycle_gap: self.timeline.cycle_gap,
            retry_delay: Duration::from_millis(100),
            retry_max: 20,
            ..settings()
        };
        Parts {
            rows: Rows::new(Arc::new(self.local.clone())),
            guard: Arc::new(Guard::new(Arc::new(self.local.clone()), NETWORK)),
            handler,
            positioning: Arc::new(Positioning::new(chains, Duration::ZERO, clock.clone())),
            proofs,
            provers: Arc::new(Quick),
            poets: Arc::new(Poets::new(&self.servers, poets, databases, clock).unwrap()),
            network: self.sent.clone(),
        }
    }

    fn smeshers(&self) -> Smeshers {
        let parts = self.parts();
        let settings = Settings {
            golden: GOLDEN,
            timeline: self.timeline.clone(),
            versions: Versions::default(),
            poets: parts.poets.addresses(),
            retry: SECOND,
            regossip: 2 * SECOND,
        };
        let synced = watch::Sender::new(true);
        let smeshers = Smeshers::new(settings, Arc::new(parts), Clock::system(), synced.subscribe());
        smeshers.register("1.key", key(1));
        smeshers
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_identity_makes_two_activations_with_a_real_server() {
    let genesis = Moment::now();
    let timeline = timeline(genesis);
    let server = real::start(12 * SECOND, timeline.phase_shift, timeline.cycle_gap, Time(genesis.0.into())).await;
    let disk = Disk {
        state: Memory::default(),
        local: Memory::default(),
        sent: Arc::default(),
        servers: vec![PoetServer { address: server.address.clone(), pubkey: Some(Base64Key(real::SERVER)) }],
        timeline,
    };
    // The program starts anew again and again, each time with another account for the rewards.
    for life in 1.. {
        let smeshers = disk.smeshers();
        smeshers.set_coinbase(Address([life; 24]));
        smeshers.start().unwrap();
        tokio::time::sleep(Duration::from_millis(2700)).await;
        if disk.sent.activations().len() == 2 {
            // and once more, so that the last one is sent again
            tokio::time::sleep(Duration::from_millis(2300)).await;
            smeshers.stop().await.unwrap();
            break;
        }
        assert!(life < 40, "{:?}", smeshers.status());
        smeshers.stop().await.unwrap();
    }
    let sent = disk.sent.activations();
    let [Activation::V1(first), Activation::V1(second)] = &sent[..] else { panic!("{} activations", sent.len()) };
    assert!(first.inner.challenge.publish_epoch < second.inner.challenge.publish_epoch);
    assert_eq!((first.inner.challenge.sequence, second.inner.challenge.sequence), (0, 1));
    assert_eq!(second.inner.challenge.prev_atx_id, sent[0].id().unwrap());
    assert_eq!(
        (first.inner.challenge.positioning_atx_id, second.inner.challenge.positioning_atx_id),
        (GOLDEN, sent[0].id().unwrap())
    );
    assert!(sent.iter().all(|atx| atx.is_signed(&NETWORK)));
    assert!(*disk.sent.0.lock().unwrap().get(&encode(&sent[1])).unwrap() > 1, "not sent again");

    // another node takes them, with the proofs of their rounds
    let parts = disk.parts();
    let other = Disk { state: Memory::default(), local: Memory::default(), sent: Arc::default(), servers: Vec::new(), ..disk };
    let (here, elsewhere) = (parts.handler.knowledge(), other.parts());
    for atx in [first, second] {
        let metadata = atx.inner.nipost.as_ref().unwrap().post_metadata.as_ref().unwrap();
        let proof = here.poet(&PoetProofRef((*metadata.challenge).try_into().unwrap())).unwrap().unwrap();
        other.databases().keep(&proof).unwrap();
    }
    elsewhere.handler.set_synced();
    for atx in &sent {
        let outcome = elsewhere.handler.activation(&encode(atx), Source::Gossip(Peer(vec![1]))).await;
        assert_eq!(outcome, Outcome::Accept);
    }
    // the guard knows what was signed, and signs nothing else for these epochs
    let mut changed = first.inner.clone();
    changed.coinbase = Address([0xff; 24]);
    let refused = parts.sign(&key(1), &activation::builder::Unsigned::V1(changed));
    assert!(matches!(&refused, Err(SignError::Refused(why)) if why.contains("has already signed")), "{refused:?}");
}
