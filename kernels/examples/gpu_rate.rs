//! Labels per second of every adapter that wgpu finds, after a first batch that compiles the kernels.
//!
//! `cargo run --release -p kernels --features wgpu --example gpu_rate -- [labels] [gap] [group] [movers] [lanes]`

use std::time::Instant;

use kernels::label::{
    Device,
    wgpu::{enumerate, kernel_version},
};
use proto::{ids::Commitment, post::ScryptN};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<u32>());
    let mut next = |default| args.next().unwrap_or(Ok(default));
    let labels = next(2048)?;
    println!("kernels {}", kernel_version());
    for adapter in enumerate() {
        println!("{:?}", adapter.info());
        let mut tuning = adapter.default_tuning();
        tuning.gap = next(tuning.gap)?;
        tuning.group = next(tuning.group)?;
        tuning.movers = next(tuning.movers)?;
        tuning.lanes = next(tuning.lanes)?;
        let mut device = adapter.open(ScryptN::MAINNET, tuning)?;
        let lanes = device.lanes()?;
        let commitment = Commitment([7; 32]);
        device.labels(&commitment, 0, &mut vec![0; lanes as usize * 16])?;
        let mut out = vec![0; labels as usize * 16];
        let (start, cpu) = (Instant::now(), cpu_seconds());
        device.labels(&commitment, 1 << 33, &mut out)?;
        let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        println!("{tuning:?}, {lanes} lanes, {} bytes held", device.allocated());
        println!(
            "{labels} labels: {:.0} labels/s, {:.0} labels per CPU-second, longest dispatch {:?}",
            labels as f64 / wall,
            labels as f64 / cpu,
            device.longest_dispatch()
        );
    }
    Ok(())
}

/// Processor time of this process so far, where the system tells.
fn cpu_seconds() -> f64 {
    // Fields 14 and 15 of the line are user and system time in hundredths of a second; the name may contain spaces.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|field| field.parse::<f64>().ok()).unwrap_or(f64::NAN);
    (ticks(11) + ticks(12)) / 100.0
}
