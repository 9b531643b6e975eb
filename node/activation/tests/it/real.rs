//! The client of this crate and the server of `poet-service`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use activation::{builder::Registration, poet::Submission, timeline::Moment};
use poet_service::{
    api,
    link::Local,
    registry::{Limits, Registry},
    runner::{self, Workshop},
    schedule::{Schedule, Time},
    service::{Service, Settings, TrustedKeys, now},
    store::RocksStore,
};
use proto::{ids::Hash32, merkle};
use tokio::sync::watch;

use crate::{fixture::key, poets::*};

pub(crate) const SERVER: [u8; 32] = [0x21; 32];

/// A server in this process.
pub(crate) struct Real {
    pub(crate) address: String,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    _told: watch::Sender<bool>,
    _folder: tempfile::TempDir,
}

impl Drop for Real {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

pub(crate) async fn start(epoch: Duration, phase_shift: Duration, cycle_gap: Duration, genesis: Time) -> Real {
    let folder = tempfile::tempdir().unwrap();
    let schedule = Schedule::new(genesis, epoch, phase_shift, cycle_gap).unwrap();
    let store = Arc::new(RocksStore::open(&folder.path().join("db")).unwrap());
    let limits = Limits { max_round_members: 100, pow_difficulty: 8 };
    let registry = Registry::new(store, schedule, limits, SERVER, &[8; 32], now()).unwrap();
    let settings = Settings {
        max_batch: 10,
        flush_interval: Duration::from_millis(5),
        disable_worker: false,
        client_rate: 0,
        max_grpc_answer: 1 << 20,
        backup_folder: None,
        certifier_url: None,
    };
    let stop = Arc::new(AtomicBool::new(false));
    let (service, keeper) = Service::start(registry, TrustedKeys::default(), settings, SERVER, stop.clone()).unwrap();
    let workshop = Workshop {
        folder: folder.path().join("rounds"),
        lowest_level: 4,
        threads: 1,
        cpu: None,
        tid_file: None,
        ask_every: Duration::from_millis(20),
    };
    let runner = runner::start(Arc::new(Local(service.clone())), workshop, service.progress.clone(), stop.clone()).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (told, telling) = watch::channel(false);
    tokio::spawn(api::serve(listener, api::router(service), 100, telling));
    Real { address, stop, threads: vec![runner, keeper], _told: told, _folder: folder }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn identities_register_and_fetch_their_proofs() {
    let (epoch, shift, gap) = (Duration::from_secs(6), Duration::from_secs(3), Duration::from_secs(3));
    let genesis = now();
    let real = start(epoch, shift, gap, genesis).await;
    let settings = activation::poet::Settings {
        epoch,
        phase_shift: shift,
        cycle_gap: gap,
        retry_delay: Duration::from_millis(200),
        retry_max: 10,
        ..settings()
    };
    let memory = Arc::<Memory>::default();
    let poets = clients(&[(&real.address, Some(SERVER))], settings, memory.clone());
    poets.check().await.unwrap();

    let genesis = Moment(i64::try_from(genesis.0).unwrap());
    let (until, proof_until) = (genesis + shift, genesis + 2 * epoch);
    let of = |challenge| Submission { challenge, until, proof_until };
    let mut registrations = Vec::new();
    for n in 1..4 {
        let challenge = Hash32([n * 16; 32]);
        let (round, end) = poets.register(&real.address, &key(n), &of(challenge)).await.unwrap();
        // what the server says is relative to its own clock
        assert!(
            end.until(genesis + epoch) < Duration::from_millis(500) && (genesis + epoch).until(end) < Duration::from_millis(500)
        );
        assert_eq!(round, "0");
        registrations.push(Registration { poet: real.address.clone(), challenge, round, end });
    }
    // the same again is the same registration, another challenge is refused for good
    let again = poets.register(&real.address, &key(1), &of(registrations[0].challenge)).await.unwrap();
    assert_eq!(again.0, "0");
    let other = poets.register(&real.address, &key(1), &of(Hash32([1; 32]))).await.unwrap_err();
    assert_eq!(other.to_string(), "status 409: conflicting registration");

    for registration in &registrations {
        let found = poets.fetch(registration, proof_until).await.unwrap();
        assert!(Moment::now() >= registration.end);
        let kept = memory.proofs.lock().unwrap()[0].clone();
        assert!(found.leaves.0 >= 150);
        assert_eq!((found.leaves, found.reference), (kept.proof.leaf_count, kept.proof.reference().unwrap()));
        let (place, leaf) = ([found.membership.leaf_index], [registration.challenge.0]);
        assert!(matches!(merkle::verify(&kept.statement, &place, &leaf, &found.membership.nodes), Ok(true)));
    }
    assert_eq!(memory.proofs.lock().unwrap().len(), 1);
}
