//! Proving and verifying: the scan against what the processor can do at most, verification against RandomX alone, and reading
//! against a plain reader of the same disk.

use std::{
    env,
    fs::File,
    io::Write as _,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64},
    time::Instant,
};

use kernels::{
    label::cpu::{Cpu, Isa},
    pow::{BuildOptions, Mode as PowMode, PowError, Puzzle, RandomX},
    scan::{Backend, Difficulty, GroupPow, NONCES_PER_GROUP, Scanner},
};
use post_prover::{
    data::DataSet,
    prove::{Job, Nonces, Open, Options, PowClient, PowSource, PowSourceError, Progress, ProveError},
    read::{Buffer, Disk, PLAIN_READ_BYTES, Source as _, supports_direct},
    state::StateFile,
    verify::{Claim, Mode, Request, Verifier},
};
use proto::{
    ids::{AtxId, Challenge, NodeId},
    post::{METADATA_FILE, Metadata, Params, Preset, Proof, ScryptN, file_name, index_bits, packed_len},
    units::{Labels, SpaceUnits},
};

use crate::{
    Result,
    clock::{cycles_per_second, median, process_time, thread_time},
};

/// Runs of each kind; the median is shown.
const RUNS: usize = 5;
const GIB: f64 = (1_u64 << 30) as f64;
/// What the official prover scans per core at 288 nonces, recorded with its own profiler on a Zen 4 core.
const PEER_SCAN: f64 = 0.097;
/// Proofs of 37 labels the official verifier checks per core-second in light mode, and the RandomX hashes of that core, recorded
/// on a Zen 4 core. What both programs make of the hashes of their machine can be compared, the machines' hashes cannot.
const PEER_VERIFY: (f64, f64) = (10.1, 40.4);

fn random(len: usize, seed: u64) -> Vec<u8> {
    // A linear congruential generator in steps of 8 bytes: labels need to look random, no more.
    let mut state = seed | 1;
    let mut out = vec![0; len];
    for chunk in out.chunks_mut(8) {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let mixed = (state ^ state >> 29).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        chunk.copy_from_slice(&mixed.to_le_bytes()[..chunk.len()]);
    }
    out
}

/// The scan against what the processor can do at most.
pub(crate) fn scan() -> Result<()> {
    let backend = Backend::best();
    println!("== scan, one core, 64 MiB in memory, {}", backend.name());
    let labels = random(64 << 20, 1);
    let real = Difficulty::new(26, Labels(1 << 34))?;
    println!("nonces  difficulty  GiB/s  of the bound  bound  official prover");
    for nonces in [288, 64] {
        for (name, difficulty) in [("0", Difficulty::from_u64(0)), ("4 units", real)] {
            let groups: Vec<_> = (0..nonces / NONCES_PER_GROUP).map(|group| GroupPow { group: group as u8, pow: 7 }).collect();
            let scanner = Scanner::new(&Challenge([3; 32]), &groups, difficulty);
            let rate = median(
                (0..RUNS)
                    .map(|_| {
                        let mut hits = Vec::new();
                        let start = thread_time();
                        for (batch, first) in labels.chunks(1 << 20).zip((0..).step_by(1 << 16)) {
                            scanner.scan(batch, first, &mut hits);
                        }
                        std::hint::black_box(&hits);
                        labels.len() as f64 / GIB / (thread_time() - start)
                    })
                    .collect(),
            );
            // One instruction encrypts a round of four labels and one of them starts per cycle; of the lazy ciphers, one label
            // each, two start per cycle.
            let lazy = if difficulty.lsb == 0 { 0.0 } else { 4.0 * f64::from(nonces) / 256.0 * 10.0 / 2.0 };
            let cycles = f64::from(nonces / NONCES_PER_GROUP) * 10.0 + lazy;
            let bound = cycles_per_second() / cycles * 64.0 / GIB;
            let peer = if nonces == 288 { format!("{PEER_SCAN} ({:.1}x)", rate / PEER_SCAN) } else { "not recorded".to_owned() };
            println!("{nonces:>6}  {name:<10}  {rate:>5.2}  {:>10.0} %  {bound:>5.2}  {peer}", rate / bound * 100.0);
        }
    }
    Ok(())
}

/// A proof of 37 labels of mainnet's label function for which everything passes.
fn all_good() -> (Proof, Claim, Params) {
    let mainnet = Preset::Mainnet.params();
    let params = Params { k1: u32::MAX, pow_difficulty: [0xff; 32], min_num_units: SpaceUnits(1), ..mainnet };
    let bits = index_bits(Labels(params.labels_per_unit));
    let claim = Claim {
        node_id: NodeId([1; 32]),
        commitment_atx_id: AtxId([2; 32]),
        challenge: Challenge([3; 32]),
        num_units: SpaceUnits(1),
    };
    (Proof { nonce: 0, indices: random(packed_len(bits, params.k2) as usize, 5), pow: 0 }, claim, params)
}

/// Verification against RandomX alone, and the time a dataset takes.
pub(crate) fn verify() -> Result<()> {
    let (peer, peer_bound) = PEER_VERIFY;
    println!("== verification of 37 labels, per core-second");
    println!("official, light mode (recorded) {peer:>5.1}  {:>4.0} % of {peer_bound} hashes", peer / peer_bound * 100.0);
    let (stop, progress) = (AtomicBool::new(false), AtomicU64::new(0));
    let (proof, claim, params) = all_good();
    let request = Request { proof: &proof, claim: &claim, params: &params, mode: &Mode::All };
    let labels_alone = {
        let mut cpu = Cpu::new(Isa::best(), ScryptN::MAINNET)?;
        let jobs = vec![(proto::ids::Commitment([1; 32]), 7); 37 * 16];
        let mut out = vec![[0; 32]; jobs.len()];
        median(
            (0..RUNS)
                .map(|_| {
                    let start = thread_time();
                    cpu.full_labels(&jobs, &mut out).map(|()| 16.0 / (thread_time() - start))
                })
                .collect::<std::result::Result<_, _>>()?,
        )
    };
    println!("labels alone                  {labels_alone:>7.1}");
    let mut builds: Vec<(f64, f64)> = Vec::new();
    for (mode, threads) in [(PowMode::Light, 1), (PowMode::Fast, 1), (PowMode::Fast, 2)] {
        let (wall, cpu) = (Instant::now(), process_time());
        let randomx = match RandomX::build(BuildOptions { mode, large_pages: false, threads }, &stop, &progress) {
            Ok(randomx) => randomx,
            Err(error @ PowError::OutOfMemory { .. }) => {
                println!("{mode} mode skipped: {error}");
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        builds.push((wall.elapsed().as_secs_f64(), process_time() - cpu));
        if let [_, (one, cpu_of_one), (two, cpu_of_two)] = builds[..] {
            println!(
                "dataset: {one:.1} s on one thread, {two:.1} s on two ({:.2} of it); {cpu_of_one:.1} and {cpu_of_two:.1} core-seconds",
                two / one
            );
            continue;
        }
        let mut hasher = randomx.hasher()?;
        let puzzle = Puzzle { node_id: NodeId([9; 32]), challenge: [0; 8], group: 0, difficulty: [0; 32] };
        let hashes = if mode == PowMode::Light { 40 } else { 400 };
        let alone = median(
            (0..RUNS)
                .map(|run| {
                    let start = thread_time();
                    for pow in 0..hashes {
                        std::hint::black_box(hasher.hash(&puzzle.input(run as u64 * hashes + pow)));
                    }
                    hashes as f64 / (thread_time() - start)
                })
                .collect(),
        );
        println!("{mode} mode: RandomX alone      {alone:>7.1}");
        let both = 1.0 / (1.0 / alone + 1.0 / labels_alone);
        let mut verifier = Verifier::new(&randomx)?;
        for batch in [1, 16] {
            let requests = vec![request.clone(); batch];
            let rounds = 48 / batch;
            let mut rates = Vec::new();
            for _ in 0..RUNS {
                let start = thread_time();
                for _ in 0..rounds {
                    for verdict in verifier.verify_all(&requests)? {
                        verdict?;
                    }
                }
                rates.push((rounds * batch) as f64 / (thread_time() - start));
            }
            let rate = median(rates);
            println!(
                "{mode} mode: {batch:>2} at once         {rate:>7.1}  {:>4.0} % of RandomX alone, {:.0} % of what both allow",
                rate / alone * 100.0,
                rate / both * 100.0
            );
        }
    }
    Ok(())
}

/// Takes anything for a k2pow of the first pass and ends the run at the second.
struct FirstPass;

impl PowSource for FirstPass {
    fn solve(&self, puzzles: &[Puzzle], client: &mut PowClient<'_>) -> std::result::Result<(), PowSourceError> {
        if puzzles.iter().any(|p| p.group >= 4) {
            return Err(PowSourceError::Failed("one pass is enough".into()));
        }
        for p in puzzles {
            (client.found)(GroupPow { group: p.group, pow: 0 });
        }
        Ok(())
    }
}

/// Bytes per second of a reader that does nothing else.
fn plain_rate(path: &Path) -> Result<f64> {
    let mut file = Disk { direct: true }.open(path)?;
    let mut buffer = Buffer::with_len(PLAIN_READ_BYTES);
    let (mut offset, start) = (0, Instant::now());
    loop {
        match file.read_at(&mut buffer, offset)? {
            0 => break,
            read => offset += read as u64,
        }
    }
    Ok(offset as f64 / start.elapsed().as_secs_f64())
}

fn pass_rate(data: &DataSet, params: &Params) -> Result<f64> {
    let job = Job {
        data,
        challenge: &Challenge([1; 32]),
        params,
        options: Options {
            nonces: Nonces::new(64)?,
            threads: std::thread::available_parallelism()?.get(),
            backend: Backend::best(),
        },
        source: &Disk { direct: true },
        pow: &FirstPass,
        gate: &Open,
        progress: &Progress::default(),
        stop: &AtomicBool::new(false),
    };
    let start = Instant::now();
    match job.run(&mut StateFile::in_memory(), &|e| eprintln!("{e}")) {
        Err(ProveError::Pow(_)) => Ok(data.layout().num_bytes() as f64 / start.elapsed().as_secs_f64()),
        Err(error) => Err(error.into()),
        Ok(_) => Err("a proof where none can be".into()),
    }
}

/// Proving at 64 nonces against a plain reader, on a file of 4 GiB in BENCH_DIR or the directory of temporary files.
pub(crate) fn read() -> Result<()> {
    println!("== reading 4 GiB with direct I/O while proving with 64 nonces");
    let parent = env::var_os("BENCH_DIR").map_or_else(env::temp_dir, Into::into);
    let dir = tempfile::tempdir_in(parent)?;
    let path = dir.path().join(file_name(0));
    std::fs::write(&path, random(PLAIN_READ_BYTES, 1))?;
    if !supports_direct(&path) {
        println!("skipped: the file system of {} has no direct I/O; choose another with BENCH_DIR", dir.path().display());
        return Ok(());
    }
    // No nonce can have that many good labels, so the whole file is read.
    let params = Params { labels_per_unit: 1 << 28, k2: u32::MAX, ..Preset::Mainnet.params() };
    let metadata = Metadata {
        node_id: NodeId([1; 32]),
        commitment_atx_id: AtxId([2; 32]),
        labels_per_unit: params.labels_per_unit,
        num_units: SpaceUnits(1),
        max_file_size: 4 << 30,
        nonce: None,
        nonce_value: None,
        last_position: None,
    };
    let mut file = File::create(&path)?;
    let mut labels = random(PLAIN_READ_BYTES, 1);
    for block in 0..(4_u64 << 30) / PLAIN_READ_BYTES as u64 {
        labels[..8].copy_from_slice(&block.to_le_bytes());
        if let Err(error) = file.write_all(&labels) {
            println!("skipped: no room for 4 GiB in {}: {error}", dir.path().display());
            return Ok(());
        }
    }
    file.sync_all()?;
    drop(file);
    std::fs::write(dir.path().join(METADATA_FILE), metadata.to_json())?;
    let data = DataSet::open(&[dir.path().to_owned()])?;
    // In turns, each pass between two plain readings, so that a disk that becomes faster or slower meanwhile favours none.
    let (mut plain, mut pass, mut busy, mut ratios) = (vec![plain_rate(&path)?], Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS + 2 {
        let (cpu, wall) = (process_time(), Instant::now());
        let rate = pass_rate(&data, &params)?;
        busy.push((process_time() - cpu) / wall.elapsed().as_secs_f64());
        let before = plain.last().copied().unwrap_or(rate);
        let after = plain_rate(&path)?;
        ratios.push(rate / before.midpoint(after) * 100.0);
        plain.push(after);
        pass.push(rate);
    }
    let each: Vec<_> = ratios.iter().map(|ratio| format!("{ratio:.0}")).collect();
    println!(
        "plain reader {:.0} MB/s, proving {:.0} MB/s: {:.1} % (median of {}; {:.2} cores busy)",
        median(plain) / 1e6,
        median(pass) / 1e6,
        median(ratios),
        each.join(", "),
        median(busy)
    );
    Ok(())
}
