//! Labels per core-second: each CPU backend, the plain loop, the whole pipeline, and the official program where it is at hand.

use std::{
    env,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Instant,
};

use kernels::label::{
    Device as _, Scratch,
    cpu::{Cpu, Isa},
    reference,
};
use post_init::{
    data_dir::{DataDirs, DirSpec},
    event::Silent,
    init::{self, Request},
    pool::PoolOptions,
    stop::Stop,
    storage::Disk,
};
use proto::{
    ids::{AtxId, Commitment, NodeId},
    post::{Preset, ScryptN},
    units::SpaceUnits,
};

use crate::{
    Result,
    clock::{cycles_per_second, median, process_time, thread_time},
};

/// Runs of each kind; the median is shown.
const RUNS: usize = 5;
/// 32-bit operations of one label at N = 8192 (post.md section 22): 832 per step of the first loop, 864 of the second.
const OPERATIONS: f64 = 8192.0 * (832.0 + 864.0);
/// What the official CPU initialiser did on one core of an AMD EPYC (Zen 4), recorded with its own benchmark.
const RECORDED: &str = "526 labels per core-second (recorded 2026-11-21 on a Zen 4 core)";

/// 32-bit operations per cycle that the vector units of the processor can start at most: lanes × units.
///
/// AVX-512: two units of 16 lanes. AVX2: three of 8. NEON: two of 4 (more on large cores). The portable code is compiled for the
/// least processor of its kind: on x86-64 SSE2, three units of 4 lanes.
fn operations_per_cycle(isa: Isa) -> f64 {
    match isa {
        Isa::Avx512 => 32.0,
        Isa::Avx2 => 24.0,
        Isa::Portable => 12.0,
        Isa::Neon => 8.0,
    }
}

fn reference_rate(labels: u64, scratch: &mut Scratch) -> f64 {
    let start = thread_time();
    for index in 0..labels {
        std::hint::black_box(reference::full_label(&Commitment([7; 32]), index, ScryptN::MAINNET, scratch));
    }
    labels as f64 / (thread_time() - start)
}

fn device_rate(device: &mut Cpu, labels: usize) -> Result<f64> {
    let mut out = vec![0; labels * 16];
    let start = thread_time();
    device.labels(&Commitment([7; 32]), 0, &mut out)?;
    Ok(labels as f64 / (thread_time() - start))
}

/// A whole `init` with one thread: key, metadata, spot checks, files and all.
fn pipeline_rate(isa: Isa, threads: usize, labels: u64) -> Result<(f64, f64)> {
    let dir = tempfile::tempdir()?;
    let dirs = DataDirs::new(vec![DirSpec { path: dir.path().to_owned(), cap: None }], Arc::new(Disk))?;
    let request = Request {
        node_id: Some(NodeId([1; 32])),
        commitment_atx_id: Some(AtxId([2; 32])),
        num_units: Some(SpaceUnits(4)),
        labels_per_unit: Some(labels / 4),
        ..Request::new(Preset::Mainnet)
    };
    let (cpu, wall) = (process_time(), Instant::now());
    init::run(&request, &dirs, &PoolOptions::cpu(threads, isa), &Stop::default(), &Silent)?;
    let labels = labels as f64;
    Ok((labels / (process_time() - cpu), labels / wall.elapsed().as_secs_f64()))
}

/// The official program: labels per second of its processor time.
fn peer_rate(program: &Path, labels: u64) -> Result<f64> {
    let dir = tempfile::tempdir()?;
    let before = children_time();
    let status = Command::new(program)
        .args(["-n", "8192", "-l", &labels.to_string(), "-u", "1", "--output"])
        .arg(dir.path())
        .arg("cpu")
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .status()?;
    if !status.success() {
        return Err(format!("{} ended with {status}", program.display()).into());
    }
    Ok(labels as f64 / (children_time() - before))
}

/// Processor seconds of all children that have ended.
fn children_time() -> f64 {
    // "utime stime cutime cstime" are fields 14 to 17, in ticks of 1/100 s; the name in field 2 may hold blanks.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(13) + ticks(14)) / 100.0
}

/// Prints the tables of `docs/performance.md`.
pub(crate) fn run() -> Result<()> {
    let hertz = cycles_per_second();
    println!("## Labels on the CPU (N = 8192)\n");
    println!("Core clock while measuring: {:.2} GHz.\n", hertz / 1e9);
    let mut scratch = Scratch::new(ScryptN::MAINNET)?;
    let mut plain_all = Vec::new();
    println!("| backend | labels per core-second | cycles per label | times the plain loop | share of the arithmetic bound |");
    println!("|---|---|---|---|---|");
    for isa in Isa::available() {
        let mut device = Cpu::new(isa, ScryptN::MAINNET)?;
        let (mut rates, mut ratios) = (Vec::new(), Vec::new());
        device_rate(&mut device, 64)?;
        for _ in 0..RUNS {
            // Taking turns.
            let plain = reference_rate(400, &mut scratch);
            let rate = device_rate(&mut device, 2048)?;
            rates.push(rate);
            ratios.push(rate / plain);
            plain_all.push(plain);
        }
        let rate = median(rates);
        let bound = hertz * operations_per_cycle(isa) / OPERATIONS;
        println!(
            "| {isa} | {rate:.0} | {:.0} | {:.2} | {:.0} % of {bound:.0} |",
            hertz / rate,
            median(ratios),
            100.0 * rate / bound
        );
    }
    println!("| plain one-label loop | {:.0} | {:.0} | 1 | |", median(plain_all.clone()), hertz / median(plain_all));

    println!("\n| whole pipeline (`init`) | labels per core-second |");
    println!("|---|---|");
    for isa in Isa::available().into_iter().rev() {
        let rates = (0..RUNS).map(|_| Ok(pipeline_rate(isa, 1, 8192)?.0)).collect::<Result<Vec<_>>>()?;
        println!("| {isa}, one thread | {:.0} |", median(rates));
    }

    println!("\n| threads ({}) | labels/s | per core-second |", Isa::best());
    println!("|---|---|---|");
    let cores = std::thread::available_parallelism()?.get();
    let mut threads = 1;
    loop {
        let (per_core, per_second) = pipeline_rate(Isa::best(), threads, 16384 * threads as u64)?;
        println!("| {threads} | {per_second:.0} | {per_core:.0} |");
        if threads == cores {
            break;
        }
        threads = (threads * 2).min(cores);
    }

    println!("\n| official CPU initialiser | labels per core-second | ours / official |");
    println!("|---|---|---|");
    if let Some(program) = env::var_os("PEER_INITIALIZER") {
        let (mut rates, mut ratios) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            let peer = peer_rate(Path::new(&program), 2048)?;
            let (ours, _) = pipeline_rate(Isa::best(), 1, 8192)?;
            rates.push(peer);
            ratios.push(ours / peer);
        }
        println!("| measured in turns with ours ({}) | {:.0} | {:.2} |", Isa::best(), median(rates), median(ratios));
    } else {
        println!("| not at hand (set PEER_INITIALIZER) | {RECORDED} | |");
    }
    Ok(())
}
