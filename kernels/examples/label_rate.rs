//! Labels per second of CPU time, one thread, for the reference and for every backend of this machine.
//!
//! `cargo run --release -p kernels --example label_rate -- [N] [seconds per backend]`

use std::time::{Duration, Instant};

use kernels::label::{
    Device, Scratch,
    cpu::{Cpu, Isa},
    reference,
};
use proto::{ids::Commitment, post::ScryptN};

/// Seconds this thread has had a core.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the only way to ask")]
fn cpu_seconds(_start: Instant) -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the time it is given a place for.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Seconds on the clock.
#[cfg(not(target_os = "linux"))]
fn cpu_seconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64()
}

/// Calls `work`, which tells how many labels it made, until `time` is over; the best of its rates and their median.
fn rates(time: Duration, mut work: impl FnMut() -> usize) -> (f64, f64) {
    let start = Instant::now();
    let mut rates = Vec::new();
    while start.elapsed() < time || rates.is_empty() {
        let before = cpu_seconds(start);
        let labels = work();
        rates.push(labels as f64 / (cpu_seconds(start) - before));
    }
    rates.sort_by(f64::total_cmp);
    (rates[rates.len() - 1], rates[rates.len() / 2])
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let n = args.next().map_or(Ok(ScryptN::MAINNET.get() as u64), |arg| arg.parse())?;
    let n = ScryptN::new(n)?;
    let time = Duration::from_secs_f64(args.next().map_or(Ok(3.0), |arg| arg.parse())?);
    let only: Vec<String> = args.collect();
    let wanted = |name: &str| only.is_empty() || only.iter().any(|only| only == name);
    let commitment = Commitment([7; 32]);

    println!("labels/s, N = {}: best, median", n.get());
    if wanted("reference") {
        let mut scratch = Scratch::new(n)?;
        let mut index = 0;
        let (best, median) = rates(time, || {
            for _ in 0..64 {
                std::hint::black_box(reference::full_label(&commitment, index, n, &mut scratch));
                index += 1;
            }
            64
        });
        println!("{:12}{best:8.0}{median:8.0}", "reference");
    }
    for isa in Isa::available() {
        if !wanted(&isa.to_string()) {
            continue;
        }
        let mut cpu = Cpu::new(isa, n)?;
        let mut out = vec![0; cpu.info().lanes * 8 * 16];
        let mut first = 0;
        let (best, median) = rates(time, || {
            let labels = out.len() / 16;
            cpu.labels(&commitment, first, &mut out).expect("a valid range");
            first += labels as u64;
            labels
        });
        println!("{:12}{best:8.0}{median:8.0}", isa.to_string());
    }
    Ok(())
}
