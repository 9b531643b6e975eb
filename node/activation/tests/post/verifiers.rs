//! The workers that verify proofs: verdicts, priorities, back-pressure, memory (activation.md section 7.7).

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use activation::{
    validate::{Checked, PostClaim, PostError, Proofs},
    verification::{Config, Priority, Verifiers},
};
use kernels::label::{FullLabel, Scratch, reference::full_label};
use proto::{
    ids::{AtxId, NodeId},
    post::{Params, Preset, Proof, ScryptN, commitment},
    units::SpaceUnits,
};
use serde_json::Value;
use tokio::{sync::watch, task::JoinHandle, time::timeout};

use crate::service::{PATIENCE, wait};

/// What a golden proof is about, with whatever is wrong with it.
#[derive(Debug, Clone)]
struct Case {
    what: String,
    id: NodeId,
    commitment: AtxId,
    challenge: [u8; 32],
    units: SpaceUnits,
    proof: Proof,
    mode: Value,
    /// The verdict of the reference.
    verdict: Value,
}

impl Case {
    fn claim(&self, labels: Checked) -> PostClaim<'_> {
        let Self { id, commitment, challenge, units, proof, .. } = self;
        PostClaim { id: *id, commitment: *commitment, challenge: *challenge, units: *units, proof, labels }
    }

    fn check(&self, verdict: &Result<(), PostError>) {
        let kind = self.verdict["kind"].as_str();
        let right = match verdict {
            Ok(()) => kind.is_none(),
            Err(PostError::Index(index)) => {
                matches!(kind, Some("InvalidMsb" | "InvalidLsb")) && self.verdict["index_id"] == *index
            }
            Err(PostError::Invalid(_)) => !matches!(kind, None | Some("InvalidMsb" | "InvalidLsb")),
            Err(PostError::Unavailable(_)) => false,
        };
        assert!(right, "{}: {verdict:?} instead of {}", self.what, self.verdict);
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| value.as_str().unwrap().parse().unwrap())
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

/// Parameters of the golden proof `one-unit-256`, and all cases made from it that keep to them. The first is valid.
fn golden() -> (Params, Vec<Case>) {
    let file: Value = serde_json::from_str(include_str!("../../testdata/proofs_small_a.json")).unwrap();
    let entry = file["proofs"].as_array().unwrap().iter().find(|entry| entry["name"] == "one-unit-256").unwrap();
    let units = |value: &Value| SpaceUnits(number(value) as u32);
    let params = Params {
        scrypt_n: ScryptN::new(number(&entry["scrypt_n"])).unwrap(),
        labels_per_unit: number(&entry["labels_per_unit"]),
        min_num_units: units(&entry["min_num_units"]),
        max_num_units: units(&entry["max_num_units"]),
        k1: number(&entry["k1"]) as u32,
        k2: number(&entry["k2"]) as u32,
        k3: 1,
        pow_difficulty: bytes(&entry["pow_difficulty"]).try_into().unwrap(),
        proving_window: None,
    };
    let about = ["num_units", "node_id", "commitment_atx_id", "challenge"];
    let mut cases = Vec::new();
    for check in entry["checks"].as_array().unwrap() {
        let overrides = check["overrides"].as_object().unwrap();
        if !overrides.keys().all(|name| about.contains(&name.as_str())) {
            continue;
        }
        let field = |name: &str| overrides.get(name).unwrap_or(&entry[name]).clone();
        let id = |name: &str| <[u8; 32]>::try_from(bytes(&field(name))).unwrap();
        let proof = &check["proof"];
        cases.push(Case {
            what: check["name"].as_str().unwrap().to_owned(),
            id: NodeId(id("node_id")),
            commitment: AtxId(id("commitment_atx_id")),
            challenge: id("challenge"),
            units: units(&field("num_units")),
            proof: Proof { nonce: number(&proof["nonce"]) as u32, indices: bytes(&proof["indices"]), pow: number(&proof["pow"]) },
            mode: check["mode"].clone(),
            verdict: check["expect"].clone(),
        });
    }
    assert!(cases.len() > 40 && cases[0].what == "valid");
    (params, cases)
}

/// As the plain loop computes it.
fn plain(id: &NodeId, atx: &AtxId, index: u64, n: ScryptN) -> FullLabel {
    full_label(&commitment(id, atx), index, n, &mut Scratch::new(n).unwrap())
}

/// One worker, whose memory stays.
fn one_worker(params: Params, seed: &[u8]) -> Config {
    Config { workers: NonZeroUsize::MIN, idle: PATIENCE * 10, ..Config::new(params, seed.to_vec()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verdicts_are_those_of_the_reference() {
    let (params, cases) = golden();
    // A subset is chosen by the node, so every seed is another node.
    let mut nodes: HashMap<Vec<u8>, Vec<Case>> = HashMap::new();
    let mut others = Vec::new();
    for case in cases {
        match case.mode["mode"].as_str().unwrap() {
            // Three nodes that check two labels of proofs in which one is bad: some find it.
            "Subset" if case.mode["k3"] == 2 => nodes.entry(bytes(&case.mode["seed"])).or_default().push(case),
            "Subset" => {}
            _ => others.push(case),
        }
    }
    let all = Arc::new(
        Verifiers::start(Config { workers: NonZeroUsize::new(3).unwrap(), ..one_worker(params.clone(), b"irrelevant") }).unwrap(),
    );
    let jobs: Vec<JoinHandle<()>> = others
        .into_iter()
        .map(|case| {
            let verifiers = Arc::clone(&all);
            tokio::spawn(async move {
                let verdict = match case.mode["mode"].as_str().unwrap() {
                    "One" => {
                        let index = number(&case.mode["index"]) as u32;
                        verifiers.verify(&case.claim(Checked::One(index)), Priority::Normal).await
                    }
                    _ => verifiers.verify(&case.claim(Checked::All), Priority::Normal).await,
                };
                case.check(&verdict);
            })
        })
        .collect();
    let count = jobs.len() as u64;
    assert!(count > 30);
    for job in jobs {
        job.await.unwrap();
    }
    let figures = all.figures();
    assert_eq!((figures.valid + figures.invalid, figures.failed, figures.waiting), (count, 0, 0));
    assert!(figures.batches < count, "jobs that wait together are verified together");
    all.stop();

    assert_eq!(nodes.len(), 3);
    for (seed, cases) in nodes {
        let verifiers = Verifiers::start(one_worker(Params { k3: 2, ..params.clone() }, &seed)).unwrap();
        for case in cases {
            case.check(&verifiers.verify(&case.claim(Checked::Some), Priority::Normal).await);
        }
    }
}

/// Puts a job into a queue; tells `done` its name when it is answered.
fn submit(verifiers: &Verifiers, case: &Case, priority: Priority, name: usize, done: &Arc<Mutex<Vec<usize>>>) -> JoinHandle<()> {
    let (verifiers, case, done) = (verifiers.clone(), case.clone(), Arc::clone(done));
    tokio::spawn(async move {
        let verdict = verifiers.verify(&case.claim(Checked::All), priority).await;
        case.check(&verdict);
        done.lock().unwrap().push(name);
    })
}

#[tokio::test]
async fn prioritised_jobs_overtake_and_full_queues_make_callers_wait() {
    let (params, cases) = golden();
    let valid = &cases[0];
    let verifiers = Verifiers::start(one_worker(params, b"")).unwrap();
    let done = Arc::default();
    // The worker first has to build its cache, which takes it long enough to fill the queues meanwhile.
    let mut jobs = vec![submit(&verifiers, valid, Priority::Normal, 0, &done)];
    wait("the worker is busy", || verifiers.figures().batches == 1).await;
    jobs.extend((1..=10).map(|name| submit(&verifiers, valid, Priority::Normal, name, &done)));
    wait("the queue is full", || verifiers.figures().waiting == 4).await;
    // What is prioritised has places of its own: some by their callers, one because of whose it is.
    jobs.extend((11..=13).map(|name| submit(&verifiers, valid, Priority::High, name, &done)));
    wait("prioritised", || verifiers.figures().waiting_prioritised == 3).await;
    verifiers.add_own(valid.id);
    jobs.push(submit(&verifiers, valid, Priority::Normal, 14, &done));
    wait("own", || verifiers.figures().waiting_prioritised == 4).await;
    let figures = verifiers.figures();
    assert_eq!((figures.waiting, figures.batches), (8, 1), "the other six callers wait");
    for job in jobs {
        timeout(PATIENCE, job).await.unwrap().unwrap();
    }
    let order = done.lock().unwrap().clone();
    assert_eq!(order[0], 0);
    assert!(order[1..5].iter().all(|name| *name > 10), "{order:?}");
    let figures = verifiers.figures();
    assert_eq!((figures.valid, figures.waiting), (15, 0));
    // four prioritised at once, then ten others four at a time at most
    assert!((5..=12).contains(&figures.batches), "{figures:?}");
}

#[tokio::test]
async fn what_nobody_waits_for_is_not_verified() {
    let (params, cases) = golden();
    let verifiers = Verifiers::start(one_worker(params, b"")).unwrap();
    let done = Arc::default();
    let first = submit(&verifiers, &cases[0], Priority::Normal, 0, &done);
    wait("the worker is busy", || verifiers.figures().batches == 1).await;
    let abandoned = submit(&verifiers, &cases[0], Priority::Normal, 1, &done);
    wait("it waits", || verifiers.figures().waiting == 1).await;
    abandoned.abort();
    assert!(abandoned.await.unwrap_err().is_cancelled());
    first.await.unwrap();
    verifiers.verify(&cases[0].claim(Checked::All), Priority::Normal).await.unwrap();
    let figures = verifiers.figures();
    assert_eq!((figures.valid, figures.failed, figures.waiting), (2, 0, 0));
}

#[tokio::test]
async fn memory_is_there_only_while_it_is_used() {
    let (params, cases) = golden();
    let config = Config { idle: Duration::from_millis(100), workers: NonZeroUsize::new(2).unwrap(), ..one_worker(params, b"") };
    let verifiers = Verifiers::start(config).unwrap();
    assert!(!verifiers.figures().randomx);
    for _ in 0..2 {
        verifiers.verify(&cases[0].claim(Checked::All), Priority::Normal).await.unwrap();
        assert!(verifiers.figures().randomx);
        wait("the memory is given back", || !verifiers.figures().randomx).await;
    }
}

#[tokio::test]
async fn labels_are_computed_without_randomx() {
    let params = Preset::Mainnet.params();
    let verifiers = Verifiers::start(Config { disabled: true, ..one_worker(params.clone(), b"") }).unwrap();
    let (id, atx) = (NodeId([1; 32]), AtxId([2; 32]));
    let jobs: Vec<_> = (0..20)
        .map(|index| {
            let verifiers = verifiers.clone();
            // far beyond any data, as a VRF nonce may be
            tokio::spawn(async move { verifiers.label(&id, &atx, index << 40, Priority::High).await })
        })
        .collect();
    for (index, job) in (0..).zip(jobs) {
        assert_eq!(job.await.unwrap().unwrap(), plain(&id, &atx, index << 40, params.scrypt_n));
    }
    let figures = verifiers.figures();
    assert_eq!((figures.labels, figures.randomx), (20, false));
    // and proofs are taken for valid without looking
    let nonsense = Proof { nonce: u32::MAX, indices: Vec::new(), pow: 0 };
    let claim =
        PostClaim { id, commitment: atx, challenge: [0; 32], units: SpaceUnits(0), proof: &nonsense, labels: Checked::All };
    assert_eq!(verifiers.verify(&claim, Priority::Normal).await, Ok(()));
    assert_eq!(verifiers.figures().valid, 0);
}

#[test]
fn callers_may_block() {
    let (params, cases) = golden();
    let verifiers = Verifiers::start(one_worker(params.clone(), b"")).unwrap();
    let bad = cases.iter().find(|case| case.what == "bad index at position 8").unwrap();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                cases[0].check(&verifiers.post(&cases[0].claim(Checked::All)));
                assert_eq!(verifiers.at(Priority::High).post(&bad.claim(Checked::All)), Err(PostError::Index(8)));
                let label = Proofs::label(&verifiers, &bad.id, &bad.commitment, 9).unwrap();
                assert_eq!(label, plain(&bad.id, &bad.commitment, 9, params.scrypt_n));
            });
        }
    });
    let figures = verifiers.figures();
    assert_eq!((figures.valid, figures.invalid, figures.labels), (3, 3, 3));
}

#[tokio::test]
async fn fewer_work_while_an_own_identity_proves() {
    let (params, cases) = golden();
    let config = Config { workers: NonZeroUsize::new(4).unwrap(), ..one_worker(params, b"") };
    let verifiers = Verifiers::start(config).unwrap();
    let (proving, seen) = watch::channel(0);
    let following = tokio::spawn(verifiers.clone().shrink_while(seen));
    wait("all", || verifiers.figures().workers == 4).await;
    proving.send_replace(2);
    wait("one", || verifiers.figures().workers == 1).await;
    proving.send_replace(1);
    verifiers.verify(&cases[0].claim(Checked::All), Priority::Normal).await.unwrap();
    assert_eq!(verifiers.figures().workers, 1);
    proving.send_replace(0);
    wait("all again", || verifiers.figures().workers == 4).await;
    drop(proving);
    timeout(PATIENCE, following).await.unwrap().unwrap();
}

#[tokio::test]
async fn stopping_tells_everybody_who_waits() {
    let (params, cases) = golden();
    let verifiers = Verifiers::start(one_worker(params, b"")).unwrap();
    let jobs: Vec<_> = (0..30)
        .map(|_| {
            let (verifiers, case) = (verifiers.clone(), cases[0].clone());
            tokio::spawn(async move { verifiers.verify(&case.claim(Checked::All), Priority::Normal).await })
        })
        .collect();
    wait("some wait", || verifiers.figures().waiting > 0).await;
    let told = Instant::now();
    tokio::task::spawn_blocking({
        let verifiers = verifiers.clone();
        move || verifiers.stop()
    })
    .await
    .unwrap();
    // a second, on a machine that may be busy
    assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
    let mut unavailable = 0;
    for job in jobs {
        let verdict = timeout(PATIENCE, job).await.expect("it hangs").unwrap();
        unavailable += usize::from(matches!(verdict, Err(PostError::Unavailable(_))));
        assert!(matches!(verdict, Ok(()) | Err(PostError::Unavailable(_))));
    }
    assert!(unavailable > 0);
    let late = verifiers.verify(&cases[0].claim(Checked::All), Priority::High).await;
    assert!(matches!(late, Err(PostError::Unavailable(_))));
    let late = verifiers.label(&cases[0].id, &cases[0].commitment, 1, Priority::Normal).await;
    assert!(matches!(late, Err(PostError::Unavailable(_))));
}
