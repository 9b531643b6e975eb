//! Labels per second of every GPU for each lookup gap, beside the bound of the device where it is known (post.md section 22).
//!
//! `cargo run --release -p kernels --features wgpu,cuda --example gpu_rate -- [labels per gap] [gaps] [key=value …]`, where gaps are
//! `1,2,4` and keys are `group`, `movers`, `lanes`, `slice_ms` of the tuning.

use std::{error::Error, time::Instant};

#[cfg(feature = "cuda")]
use kernels::label::cuda;
use kernels::label::{
    Device, DeviceError,
    gpu::{Ceiling, Gpu, GpuClass, GpuInfo, Tuning, Work},
    wgpu,
};
use proto::{ids::Commitment, post::ScryptN};

const COMMITMENT: Commitment = Commitment([7; 32]);

struct Request {
    labels: usize,
    gaps: Vec<u32>,
    settings: Vec<(String, u32)>,
}

impl Request {
    fn parse() -> Result<Self, Box<dyn Error>> {
        let mut request = Self { labels: 16384, gaps: vec![1, 2, 3, 4, 8], settings: Vec::new() };
        for (i, arg) in std::env::args().skip(1).enumerate() {
            match (i, arg.split_once('=')) {
                (_, Some((key, value))) => request.settings.push((key.to_owned(), value.parse()?)),
                (0, None) => request.labels = arg.parse()?,
                (_, None) => request.gaps = arg.split(',').map(str::parse).collect::<Result<_, _>>()?,
            }
        }
        Ok(request)
    }

    fn tuning(&self, start: Tuning, gap: u32) -> Result<Tuning, Box<dyn Error>> {
        let mut tuning = Tuning { gap, ..start };
        for (key, value) in &self.settings {
            match key.as_str() {
                "group" => tuning.group = *value,
                "movers" => tuning.movers = *value,
                "lanes" => tuning.lanes = *value,
                "slice_ms" => tuning.slice_ms = *value,
                other => return Err(format!("unknown key {other}").into()),
            }
        }
        Ok(tuning)
    }

    /// One line per gap.
    fn run(
        &self,
        info: &GpuInfo,
        start: Tuning,
        ceiling: Option<Ceiling>,
        open: impl Fn(Tuning) -> Result<Gpu, DeviceError>,
    ) -> Result<(), Box<dyn Error>> {
        println!("{} ({}), {}, driver {}", info.name, info.class, info.key, info.driver);
        // Software is there to be tested; its rate is known after a moment.
        let labels = if info.class == GpuClass::Software { self.labels.min(2048) } else { self.labels };
        for gap in &self.gaps {
            let tuning = self.tuning(start, *gap)?;
            let mut device = open(tuning)?;
            let lanes = device.lanes()?;
            // Compiles, and finds the length of dispatches.
            device.labels(&COMMITMENT, 0, &mut vec![0; lanes as usize * 16])?;
            let mut out = vec![0; labels.next_multiple_of(lanes as usize) * 16];
            let (begun, cpu) = (Instant::now(), cpu_seconds());
            device.labels(&COMMITMENT, 1 << 33, &mut out)?;
            let labels = (out.len() / 16) as f64;
            let rate = labels / begun.elapsed().as_secs_f64();
            print!("  gap {gap}: {rate:9.0} labels/s, {:9.0} per CPU-second, {lanes} in flight", labels / (cpu_seconds() - cpu));
            if let Some(ceiling) = &ceiling {
                let bound = Work::per_label(ScryptN::MAINNET, *gap).bound(ceiling);
                let share = 100.0 * rate / bound.labels_per_second();
                print!(", {share:.0} % of the bound ({:.0} by arithmetic, {:.0} by memory)", bound.arithmetic, bound.bandwidth);
            }
            println!();
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let request = Request::parse()?;
    match wgpu::enumerate() {
        Err(e) => println!("{e}"),
        Ok(adapters) => {
            for adapter in adapters {
                let open = |tuning| adapter.open(ScryptN::MAINNET, tuning);
                request.run(adapter.info(), adapter.default_tuning(), None, open)?;
            }
        }
    }
    #[cfg(feature = "cuda")]
    match cuda::enumerate() {
        Err(e) => println!("{e}"),
        Ok(adapters) => {
            for adapter in adapters {
                let open = |tuning| adapter.open(ScryptN::MAINNET, tuning);
                request.run(adapter.info(), adapter.default_tuning(), adapter.ceiling(), open)?;
            }
        }
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
