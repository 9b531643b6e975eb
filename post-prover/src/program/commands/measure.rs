//! `tune` and `bench`: what this machine can do, measured with the code that does the real work.

use std::{
    hint::black_box,
    num::NonZeroU32,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use kernels::{
    pow::{BuildOptions, Mode as PowMode, PowError, Puzzle, RandomX, search},
    scan::{Backend, Difficulty, GroupPow, NONCES_PER_GROUP, Scanner},
};
use proto::{
    ids::{AtxId, Challenge, NodeId},
    post::{Params, Preset, Proof, index_bits, packed_len},
    units::{Labels, SpaceUnits},
};
use serde_json::json;

use super::{Failure, human, params_for, stop_on_signals, window_of};
use crate::{
    data::{DataError, DataSet},
    plan::{self, Measured},
    program::{
        all_cores,
        choose::together,
        cli::{BenchArgs, TuneArgs},
    },
    prove::Nonces,
    read::{BLOCK_BYTES, Buffer, Disk, PLAIN_READ_BYTES, Source as _},
    verify::{Claim, Mode, Request, Verifier},
};

const GIB: f64 = (1_u64 << 30) as f64;

/// Bytes that look like labels.
pub(crate) fn random_labels(len: usize) -> Vec<u8> {
    let mut labels = vec![0; len];
    blake3::Hasher::new().update(b"labels for a measurement").finalize_xof().fill(&mut labels);
    labels
}

fn scanner(nonces: u32, difficulty: Difficulty) -> Scanner {
    let groups: Vec<_> = (0..nonces / NONCES_PER_GROUP).map(|group| GroupPow { group: group as u8, pow: 1 }).collect();
    Scanner::new(&Challenge([7; 32]), &groups, difficulty)
}

/// Bytes per second that `threads` threads scan together, each the same labels again and again for about `time`.
pub(crate) fn scan_rate(labels: &[u8], nonces: u32, difficulty: Difficulty, threads: usize, time: Duration) -> f64 {
    let scanner = scanner(nonces, difficulty);
    let scanned = AtomicU64::new(0);
    let started = Instant::now();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut hits = Vec::new();
                while started.elapsed() < time {
                    for batch in labels.chunks(1 << 20) {
                        hits.clear();
                        scanner.scan(batch, 0, &mut hits);
                        black_box(&hits);
                        scanned.fetch_add(batch.len() as u64, Ordering::Relaxed);
                        if started.elapsed() >= time {
                            break;
                        }
                    }
                }
            });
        }
    });
    scanned.into_inner() as f64 / started.elapsed().as_secs_f64()
}

/// Bytes per second each disk of the data gives when all are read at the same time, for about `time`.
pub(crate) fn disk_rates(data: &DataSet, time: Duration, stop: &AtomicBool) -> Result<Vec<f64>, DataError> {
    thread::scope(|scope| {
        let disks: Vec<_> = (0..data.disks().len())
            .map(|disk| {
                let file = data.files_on(disk).next();
                // a directory without files holds nothing up
                scope.spawn(move || file.map_or(Ok(f64::INFINITY), |(_, path)| read_rate(path, time, stop)))
            })
            .collect();
        disks.into_iter().map(|disk| disk.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

/// Bytes per second a file is read with, from its start and again for about `time`.
fn read_rate(path: &Path, time: Duration, stop: &AtomicBool) -> Result<f64, DataError> {
    let io = |source| DataError::Io { path: path.to_owned(), source };
    let mut file = Disk::default().open(path).map_err(io)?;
    let mut buffer = Buffer::with_len(PLAIN_READ_BYTES);
    let (mut offset, mut total) = (0, 0_u64);
    let started = Instant::now();
    while started.elapsed() < time && !stop.load(Ordering::Relaxed) {
        let read = file.read_at(&mut buffer, offset).map_err(io)?;
        total += read as u64;
        offset = if read < buffer.len() { 0 } else { offset + read as u64 };
        if read == 0 && total == 0 {
            break;
        }
    }
    Ok(total as f64 / started.elapsed().as_secs_f64())
}

/// Reads and scans a file with `threads` threads for `time`, at least once from start to end; the bytes and the time it took.
pub fn scan_file(
    path: &Path,
    nonces: Nonces,
    threads: usize,
    difficulty: Difficulty,
    time: Duration,
    stop: &AtomicBool,
) -> Result<(u64, Duration), Failure> {
    let io = |source| DataError::Io { path: path.to_owned(), source };
    let len = std::fs::metadata(path).map_err(io)?.len();
    let blocks = len.div_ceil(BLOCK_BYTES as u64).max(1);
    let scanner = scanner(nonces.get(), difficulty);
    let (next, total) = (AtomicU64::new(0), AtomicU64::new(0));
    let started = Instant::now();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1))
            .map(|_| {
                scope.spawn(|| -> std::io::Result<()> {
                    let mut file = Disk::default().open(path)?;
                    let mut buffer = Buffer::with_len(BLOCK_BYTES);
                    let mut hits = Vec::new();
                    loop {
                        let block = next.fetch_add(1, Ordering::Relaxed);
                        let enough = block >= blocks && started.elapsed() >= time;
                        if enough || stop.load(Ordering::Relaxed) {
                            return Ok(());
                        }
                        let read = file.read_at(&mut buffer, block % blocks * BLOCK_BYTES as u64)?;
                        hits.clear();
                        scanner.scan(&buffer[..read], 0, &mut hits);
                        total.fetch_add(read as u64, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        workers.into_iter().try_for_each(|w| w.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
    .map_err(io)?;
    if stop.load(Ordering::Relaxed) {
        return Err(Failure::Interrupted);
    }
    Ok((total.into_inner(), started.elapsed()))
}

/// RandomX hashes per second.
pub(crate) fn hash_rate(randomx: &RandomX, threads: usize, time: Duration, stop: &AtomicBool) -> Result<f64, PowError> {
    // nothing solves this one
    let puzzle = Puzzle { node_id: NodeId([0; 32]), challenge: [0; 8], group: 0, difficulty: [0; 32] };
    let (over, hashes) = (AtomicBool::new(false), AtomicU64::new(0));
    let started = Instant::now();
    thread::scope(|scope| {
        let searching = scope.spawn(|| search(randomx, &puzzle, threads, &over, &hashes));
        while started.elapsed() < time && !stop.load(Ordering::Relaxed) && !searching.is_finished() {
            thread::sleep(Duration::from_millis(10));
        }
        over.store(true, Ordering::Relaxed);
        match searching.join() {
            Ok(Ok(_) | Err(PowError::Stopped)) => Ok(()),
            Ok(Err(error)) => Err(error),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })?;
    Ok(hashes.into_inner() as f64 / started.elapsed().as_secs_f64())
}

/// Measures the disk of the data and the cores, and tells which settings to use.
pub fn tune(args: &TuneArgs) -> Result<(), Failure> {
    let stop = stop_on_signals()?;
    let time = Duration::try_from_secs_f64(args.seconds).map_err(|e| Failure::Usage(format!("--seconds: {e}")))?;
    let data = DataSet::open(&args.data_dir)?;
    let params = params_for(&args.params, data.metadata());
    let window = match args.window {
        Some(hours) => Duration::try_from_secs_f64(hours * 3600.0).map_err(|e| Failure::Usage(format!("--window: {e}")))?,
        None => window_of(&params),
    };
    let num_labels = data.layout().num_labels();
    let difficulty = Difficulty::new(params.k1, num_labels).map_err(|e| Failure::Invalid(e.to_string()))?;
    let interrupted = || stop.load(Ordering::Relaxed);
    let disk = together(&data, &disk_rates(&data, time, &stop)?);
    let threads = all_cores();
    let randomx =
        RandomX::build(BuildOptions { mode: args.randomx_mode, large_pages: false, threads }, &stop, &AtomicU64::new(0))?;
    let hash_rate = hash_rate(&randomx, threads, time, &stop)?;
    drop(randomx);
    let labels = random_labels(PLAIN_READ_BYTES);
    let units = NonZeroU32::new(data.metadata().num_units.0).unwrap_or(NonZeroU32::MIN);
    let puzzle = Puzzle::new(data.metadata().node_id, &Challenge([0; 32]), 0, &params.pow_difficulty, units);
    let mut rows = Vec::new();
    let mut thread_counts: Vec<usize> = std::iter::successors(Some(1), |t| Some(t * 2)).take_while(|t| *t < threads).collect();
    thread_counts.push(threads);
    for threads in thread_counts {
        // Per group the speed hardly depends on the number of groups; one number in the middle stands for all.
        let nonces = 128;
        let rate = scan_rate(&labels, nonces, difficulty, threads, time / 4);
        if interrupted() {
            return Err(Failure::Interrupted);
        }
        let measured = Measured {
            bytes: data.layout().num_bytes(),
            disk,
            scan_per_group: rate * f64::from(nonces / NONCES_PER_GROUP),
            hashes_per_group: puzzle.expected_hashes(),
            hash_rate,
            per_nonce: plan::nonce_success(num_labels, params.k1, params.k2),
            window,
        };
        rows.push((threads, measured, plan::best(&measured, args.target)));
    }
    let Some((best_threads, measured, best)) = rows
        .iter()
        .min_by(|a, b| a.2.miss.max(args.target).total_cmp(&b.2.miss.max(args.target)).then(a.2.expected.cmp(&b.2.expected)))
    else {
        return Err(Failure::Interrupted);
    };
    if args.json {
        println!(
            "{}",
            json!({
                "disk_bytes_per_s": disk, "hashes_per_s": hash_rate, "threads": best_threads, "nonces": best.nonces,
                "pass_success": best.pass_success, "miss": best.miss, "pow_s": best.pow.as_secs_f64(),
                "read_s": best.read.as_secs_f64(), "window_s": window.as_secs_f64(),
            })
        );
        return Ok(());
    }
    println!("disk {:.0} MB/s, k2pow {hash_rate:.0} hashes/s, window {}", disk / 1e6, human(window));
    println!("threads nonces  chance per pass  k2pow        reading      of the window  chance to miss");
    for (threads, measured, best) in &rows {
        for nonces in [64, 128, 288] {
            print_outlook(*threads, &plan::outlook(measured, nonces), window);
        }
        if ![64, 128, 288].contains(&best.nonces) {
            print_outlook(*threads, best, window);
        }
    }
    println!();
    println!("use: --threads {best_threads} --nonces {}", best.nonces);
    if best.miss > args.target {
        println!(
            "warning: the chance to miss the window is {:.2} %; the {} is too slow for {} units",
            best.miss * 100.0,
            if measured.disk < measured.scan_per_group / f64::from(best.nonces / NONCES_PER_GROUP) {
                "disk"
            } else {
                "processor"
            },
            data.metadata().num_units,
        );
    }
    Ok(())
}

fn print_outlook(threads: usize, o: &plan::Outlook, window: Duration) {
    println!(
        "{threads:>7} {:>6}  {:>13.4} %  {:<12} {:<12} {:>11.1} %  {:.1e}",
        o.nonces,
        o.pass_success * 100.0,
        human(o.pow),
        human(o.read),
        (o.pow + o.read).as_secs_f64() / window.as_secs_f64() * 100.0,
        o.miss,
    );
}

/// Times `run` for at least `time`; runs per second.
fn rate(time: Duration, mut run: impl FnMut() -> Result<u64, Failure>) -> Result<f64, Failure> {
    run()?;
    let (started, mut count) = (Instant::now(), 0);
    while started.elapsed() < time {
        count += run()?;
    }
    Ok(count as f64 / started.elapsed().as_secs_f64())
}

/// Measures the scan, k2pow and verification with the parameters of mainnet, on one core where not said otherwise.
pub fn bench(args: &BenchArgs) -> Result<(), Failure> {
    let stop = stop_on_signals()?;
    let time = Duration::try_from_secs_f64(args.seconds).map_err(|e| Failure::Usage(format!("--seconds: {e}")))?;
    let mainnet = Preset::Mainnet.params();
    let four_units = Labels(mainnet.labels_per_unit * 4);
    let labels = random_labels(64 << 20);
    let mut figures = Vec::new();
    let mut figure = |name: String, value: f64, unit: &'static str| {
        if !args.json {
            println!("{name:<52} {value:>9.3} {unit}");
        }
        figures.push(json!({ "name": name, "value": value, "unit": unit }));
    };
    let backend = Backend::best().name();
    let real = Difficulty::new(mainnet.k1, four_units).map_err(|e| Failure::Invalid(e.to_string()))?;
    for nonces in [64, 288] {
        for (what, difficulty) in [("difficulty 0", Difficulty::from_u64(0)), ("4 units", real)] {
            let speed = scan_rate(&labels, nonces, difficulty, 1, time) / GIB;
            figure(format!("scan, {backend}, {nonces} nonces, {what}"), speed, "GiB/s");
            if stop.load(Ordering::Relaxed) {
                return Err(Failure::Interrupted);
            }
        }
    }
    let light = BuildOptions { mode: PowMode::Light, large_pages: false, threads: 1 };
    let started = Instant::now();
    let randomx = RandomX::build(light, &stop, &AtomicU64::new(0))?;
    figure("RandomX cache".to_owned(), started.elapsed().as_secs_f64(), "s");
    figure("RandomX, light mode".to_owned(), hash_rate(&randomx, 1, time, &stop)?, "hashes/s");
    let mut verifier = Verifier::new(&randomx)?;
    let (proof, claim, params) = all_good(&mainnet);
    let request = Request { proof: &proof, claim: &claim, params: &params, mode: &Mode::All };
    for batch in [1, 16] {
        let requests = vec![request.clone(); batch];
        let per_second = rate(time, || {
            for verdict in verifier.verify_all(&requests)? {
                verdict.map_err(|why| Failure::Failed(Box::new(why)))?;
            }
            Ok(batch as u64)
        })?;
        figure(format!("verify 37 labels, light mode, {batch} at once"), per_second, "proofs/s");
    }
    if args.json {
        println!("{}", serde_json::Value::Array(figures));
    }
    Ok(())
}

/// A proof whose 37 labels have to be computed with mainnet's label function and whose k2pow has to be hashed; the difficulties
/// are so low that anything passes.
pub(crate) fn all_good(mainnet: &Params) -> (Proof, Claim, Params) {
    let params = Params { k1: u32::MAX, pow_difficulty: [0xff; 32], ..mainnet.clone() };
    // barely more labels than K1, so that practically every label is good
    let params = Params { labels_per_unit: 1 << 32, min_num_units: SpaceUnits(1), ..params };
    let bits = index_bits(Labels(params.labels_per_unit));
    let len = packed_len(bits, params.k2) as usize;
    let mut indices = vec![0; len];
    blake3::Hasher::new().update(b"indices").finalize_xof().fill(&mut indices);
    let claim = Claim {
        node_id: NodeId([1; 32]),
        commitment_atx_id: AtxId([2; 32]),
        challenge: Challenge([3; 32]),
        num_units: SpaceUnits(1),
    };
    (Proof { nonce: 0, indices, pow: 0 }, claim, params)
}
