//! Validating activations: the rules of a node with its verification workers, beside what the proofs of space alone would allow,
//! and the memory that takes.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use activation::{
    validate::{Checked, Known, Marriage, PostClaim, PostError, Proofs, Refusal, Round, Rules, Validator, View},
    verification::{Config, Verifiers},
};
use kernels::{
    label::cpu::{Cpu, Isa},
    pow::{BuildOptions, Mode, Puzzle, RandomX},
};
use proto::{
    activation::{
        Activation,
        v1::{ActivationTxV1, InnerActivationTxV1, NipostChallengeV1, NipostV1, PostMetadataV1},
    },
    eligibility::Weight,
    ids::{Address, AtxId, Commitment, EdSignature, GenesisId, Hash32, NodeId, PoetProofRef},
    keys::IdentityKey,
    layers::EpochId,
    merkle::Tree,
    poet::{Leaves, MembershipProof, Ticks},
    post::{Params, Preset, Proof, index_bits, packed_len},
    signing::{Domain, Signed as _},
    units::{Labels, SpaceUnits, TickHeight, VrfNonce},
};

use store::{
    StoreError,
    atxs::{Atx, Share, Validity},
};

use crate::{
    Result,
    clock::{median, process_time, thread_time},
};

const RUNS: usize = 5;
/// Activations waiting at the same time, as they do when those of an epoch come in.
const CALLERS: usize = 32;
const UNITS: SpaceUnits = SpaceUnits(1);
const NETWORK: GenesisId = GenesisId([1; 20]);
const GOLDEN: AtxId = AtxId([2; 32]);

/// What the node knows: first activations of all identities and one PoET round.
#[derive(Default)]
struct Node {
    atxs: HashMap<AtxId, Known>,
    rounds: HashMap<PoetProofRef, Round>,
}

type Found<T> = std::result::Result<T, StoreError>;

impl View for &Node {
    fn atx(&self, id: &AtxId) -> Found<Option<Known>> {
        Ok(self.atxs.get(id).cloned())
    }

    fn commitment(&self, _: &NodeId) -> Found<Option<AtxId>> {
        Ok(Some(GOLDEN))
    }

    fn round(&self, reference: &PoetProofRef) -> Found<Option<Round>> {
        Ok(self.rounds.get(reference).copied())
    }

    fn marriage(&self, _: &NodeId) -> Found<Option<Marriage>> {
        Ok(None)
    }

    fn married(&self, _: u64) -> Found<Vec<NodeId>> {
        Ok(Vec::new())
    }
}

/// Takes every proof of space for valid.
#[derive(Clone, Copy)]
struct Nothing;

impl Proofs for Nothing {
    fn post(&self, _: &PostClaim<'_>) -> std::result::Result<(), PostError> {
        Ok(())
    }

    fn label(&self, _: &NodeId, _: &AtxId, _: u64) -> std::result::Result<[u8; 32], PostError> {
        Ok([0; 32])
    }
}

/// Mainnet's, but that every label is good and every k2pow too.
fn params() -> Params {
    Params { k1: u32::MAX, pow_difficulty: [0xff; 32], min_num_units: UNITS, ..Preset::Mainnet.params() }
}

fn rules() -> Rules {
    Rules { network: NETWORK, golden: GOLDEN, post: params(), tick_size: 1 }
}

/// So many second activations of as many identities, and what a node must know to judge them.
fn activations(count: usize) -> Result<(Node, Vec<Activation>)> {
    let mut known = Node::default();
    let mut begun = Vec::new();
    for number in 0..count as u64 {
        let seed = Hash32::of(&[&number.to_le_bytes()]).0;
        let (key, first) = (IdentityKey::from_seed(&seed), AtxId(seed));
        let id = key.node_id();
        known.atxs.insert(
            first,
            Known {
                id: first,
                row: Atx {
                    publish_epoch: EpochId(5),
                    sequence: 0,
                    commitment: Some(GOLDEN),
                    marriage: None,
                    coinbase: Address([4; 24]),
                    effective_units: UNITS,
                    base_height: TickHeight(0),
                    ticks: Ticks(1),
                    vrf_nonce: VrfNonce(1),
                    smesher: id,
                    weight: Weight(1),
                    received: 1,
                    validity: Validity::Valid,
                },
                shares: vec![(id, Share { previous: None, previous_index: 0, units: UNITS, publish_epoch: EpochId(5) })],
            },
        );
        let challenge = NipostChallengeV1 {
            publish_epoch: EpochId(6),
            sequence: 1,
            prev_atx_id: first,
            positioning_atx_id: first,
            commitment_atx_id: None,
            initial_post: None,
        };
        begun.push((key, challenge));
    }
    let members = begun.iter().map(|(_, challenge)| challenge.hash()).collect::<std::result::Result<Vec<_>, _>>()?;
    let tree = Tree::new(members.iter().map(|member| member.0));
    let statement = Hash32(tree.root().try_into().map_err(|_| "a root of another length")?);
    let reference = PoetProofRef([7; 32]);
    known.rounds.insert(reference, Round { statement, leaves: Leaves(1000) });
    let indices = vec![0x5a; packed_len(index_bits(Labels(params().labels_per_unit)), params().k2) as usize];
    let mut made = Vec::new();
    for (leaf, (key, challenge)) in begun.into_iter().enumerate() {
        let path = tree.path(leaf).ok_or("no such leaf")?;
        let nodes = path.into_iter().map(|node| node.try_into().map_err(|_| "a node of another length".into()));
        let inner = InnerActivationTxV1 {
            challenge,
            coinbase: Address([4; 24]),
            num_units: UNITS,
            nipost: Some(NipostV1 {
                membership: MembershipProof { nodes: nodes.collect::<Result<_>>()?, leaf_index: leaf as u64 },
                post: Some(Proof { nonce: 0, indices: indices.clone(), pow: 0 }),
                post_metadata: Some(PostMetadataV1 {
                    challenge: reference.0.into(),
                    labels_per_unit: Labels(params().labels_per_unit),
                }),
            }),
            node_id: None,
            vrf_nonce: None,
        };
        let mut atx = ActivationTxV1 { inner, smesher_id: key.node_id(), signature: EdSignature::default() };
        atx.signature = key.sign(&NETWORK, Domain::Atx, &atx.signed_bytes()?);
        made.push(Activation::V1(Box::new(atx)));
    }
    Ok((known, made))
}

/// Validates all of them, so many at a time; gives activations per core-second.
fn rate<P: Proofs + Clone + Send>(known: &Node, atxs: &[Activation], proofs: &P) -> Result<f64> {
    let (next, start) = (AtomicUsize::new(0), process_time());
    let refused = thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                let validator = Validator { rules: rules(), view: known, proofs: proofs.clone() };
                let next = &next;
                scope.spawn(move || -> std::result::Result<(), Refusal> {
                    while let Some(atx) = atxs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        validator.check_alone(atx, EpochId(6))?;
                        validator.check_with_dependencies(atx)?;
                    }
                    Ok(())
                })
            })
            .collect();
        callers.into_iter().find_map(|caller| match caller.join() {
            Ok(Ok(())) => None,
            Ok(Err(refusal)) => Some(refusal.to_string()),
            Err(_) => Some("a caller failed".to_owned()),
        })
    });
    match refused {
        None => Ok(atxs.len() as f64 / (process_time() - start)),
        Some(why) => Err(why.into()),
    }
}

fn median_of(runs: impl Iterator<Item = Result<f64>>) -> Result<f64> {
    Ok(median(runs.collect::<Result<_>>()?))
}

/// Core-seconds of one k2pow.
fn pow_alone(mode: Mode) -> Result<f64> {
    let (stop, progress) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut hasher = RandomX::build(BuildOptions { mode, large_pages: false, threads: 2 }, &stop, &progress)?.hasher()?;
    let puzzle = Puzzle { node_id: NodeId([9; 32]), challenge: [0; 8], group: 0, difficulty: [0; 32] };
    let hashes = if mode == Mode::Light { 40 } else { 400 };
    median_of((0..RUNS as u64).map(|run| {
        let start = thread_time();
        for pow in 0..hashes {
            std::hint::black_box(hasher.hash(&puzzle.input(run * hashes + pow)));
        }
        Ok((thread_time() - start) / hashes as f64)
    }))
}

/// Core-seconds of one label among many.
fn label_alone() -> Result<f64> {
    let mut cpu = Cpu::new(Isa::best(), params().scrypt_n)?;
    let jobs = vec![(Commitment([1; 32]), 7); 256];
    let mut out = vec![[0; 32]; jobs.len()];
    median_of((0..RUNS).map(|_| {
        let start = thread_time();
        cpu.full_labels(&jobs, &mut out)?;
        Ok((thread_time() - start) / jobs.len() as f64)
    }))
}

/// Bytes of memory this process has now; none where that cannot be told.
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

fn start(mode: Mode, idle: Duration) -> Result<Verifiers> {
    let workers = NonZeroUsize::MIN;
    Ok(Verifiers::start(Config { workers, pow: mode, idle, ..Config::new(params(), b"bench".to_vec()) })?)
}

fn memory(known: &Node, atxs: &[Activation]) -> Result<()> {
    const IDLE: Duration = Duration::from_secs(1);
    let verifiers = start(Mode::Light, IDLE)?;
    let Some(before) = resident() else {
        println!("memory: not known on this system");
        return Ok(());
    };
    rate(known, atxs, &verifiers)?;
    // all labels of a proof as well, as for first activations
    let whole = PostClaim {
        id: NodeId([1; 32]),
        commitment: GOLDEN,
        challenge: [0; 32],
        units: UNITS,
        proof: &Proof { nonce: 0, indices: vec![0; 160], pow: 0 },
        labels: Checked::All,
    };
    // whatever the verdict is
    let _ = verifiers.post(&whole);
    let during = resident().unwrap_or_default();
    let end = Instant::now() + 20 * IDLE;
    while verifiers.figures().randomx && Instant::now() < end {
        thread::sleep(IDLE / 10);
    }
    let after = resident().unwrap_or_default();
    let mb = |bytes: u64| bytes as f64 / 1e6;
    println!(
        "memory of this process: {:.0} MB with nothing to verify, {:.0} MB more while verifying in light mode, {:.0} MB after it",
        mb(before),
        mb(during) - mb(before),
        mb(after)
    );
    Ok(())
}

pub(crate) fn run() -> Result<()> {
    println!("== activations validated per core-second, one label each (K3 = 1), one worker");
    let (known, atxs) = activations(512)?;
    let label = label_alone()?;
    memory(&known, &atxs[..64])?;
    let rest = median_of((0..RUNS).map(|_| rate(&known, &atxs, &Nothing)))?;
    println!("all but the proof of space    {rest:>8.1}");
    println!("mode   validated  bound  of it    bound: one k2pow and one label");
    for (mode, count) in [(Mode::Light, 64), (Mode::Fast, atxs.len())] {
        let pow = match pow_alone(mode) {
            Ok(pow) => pow,
            Err(error) => {
                println!("{mode:<5}  skipped: {error}");
                continue;
            }
        };
        let bound = 1.0 / (pow + label);
        let verifiers = start(mode, Duration::from_secs(600))?;
        // the first ones wait for RandomX
        rate(&known, &atxs[..1], &verifiers)?;
        let reached = median_of((0..RUNS).map(|_| rate(&known, &atxs[..count], &verifiers)))?;
        println!("{mode:<5}  {reached:>9.1}  {bound:>5.1}  {:>3.0} %", reached / bound * 100.0);
    }
    Ok(())
}
