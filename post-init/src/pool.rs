//! Devices computing label ranges at once, results in the order of the ranges.
//!
//! Every worker (a thread of the CPU, later a GPU) takes the next batch of the common queue, as large as it can make in about
//! half a second, so a slow device never holds back a fast one for long. Batches may end out of order; they wait in a bounded
//! window until it is their turn, so files grow from front to back.

use std::{
    collections::BTreeMap,
    ops::{ControlFlow, Range},
    sync::{Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crossbeam_channel::{RecvTimeoutError, bounded};
use kernels::label::{
    Device, DeviceError, Smallest,
    cpu::{Cpu, Isa},
};
use proto::{
    ids::Commitment,
    post::{LABEL_BYTES, ScryptN},
};

use crate::{checker::Checker, error::Error, event::DeviceProgress, stop::Stop};

/// Seconds of work in a batch.
const BATCH_SECONDS: f64 = 0.5;
/// Most labels in a batch: 4 MiB.
const MAX_BATCH: u64 = 1 << 18;
/// Bytes of labels that may be handed out but not yet consumed; part of the memory the program may take beside scratch.
const WINDOW: u64 = 32 << 20;
/// One in so many labels of a CPU is computed again by the plain reference: unstable hardware shows, at a cost below 0.3 %.
const CHECK_EVERY: u64 = 2048;
/// How long waiting threads may go without looking whether they should stop.
const TICK: Duration = Duration::from_millis(100);

/// Labels of a range, in its order.
#[derive(Debug)]
pub struct Batch {
    /// The range.
    pub range: Range<u64>,
    /// 16 bytes per label.
    pub labels: Vec<u8>,
    /// The smallest full label of the batch.
    pub smallest: Smallest,
}

/// What to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolOptions {
    /// Threads of the CPU.
    pub cpu_threads: usize,
    /// Instruction set.
    pub isa: Isa,
    /// Share of the time that workers compute, in percent: below 100 they pause after each batch.
    pub duty: u8,
}

impl PoolOptions {
    /// All cores, the best instruction set, no pauses.
    pub fn all() -> Self {
        let cpu_threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { cpu_threads, isa: Isa::best(), duty: 100 }
    }

    /// Scratch memory the pool will take, in bytes.
    pub fn scratch_bytes(&self, n: ScryptN) -> u64 {
        (Cpu::scratch_bytes(self.isa, n) + u64::from(n.get()) * 128) * self.cpu_threads as u64
    }
}

/// One thread's means.
struct Worker {
    device: Box<dyn Device>,
    checker: Checker,
    /// Labels since the last spot check.
    unchecked: u64,
    /// Labels per second; 0 until measured.
    rate: f64,
    labels: u64,
    busy: f64,
}

/// Devices for one commitment and N.
pub struct Pool {
    workers: Vec<Worker>,
    commitment: Commitment,
    duty: u8,
}

/// The queue: what comes next and how much is on its way.
struct Queue<'a> {
    ranges: &'a mut (dyn Iterator<Item = Range<u64>> + Send),
    current: Range<u64>,
    sequence: u64,
    outstanding: u64,
    closed: bool,
}

impl Pool {
    /// Takes the memory of all workers.
    pub fn new(options: &PoolOptions, commitment: Commitment, n: ScryptN) -> Result<Self, Error> {
        let device = || -> Result<Box<dyn Device>, DeviceError> { Ok(Box::new(Cpu::new(options.isa, n)?)) };
        let devices = (0..options.cpu_threads.max(1))
            .map(|_| device().map_err(|source| Error::Device { device: format!("cpu {}", options.isa), source }));
        Self::with_devices(devices.collect::<Result<_, _>>()?, commitment, n, options.duty)
    }

    /// A pool of given devices, one worker each.
    pub fn with_devices(devices: Vec<Box<dyn Device>>, commitment: Commitment, n: ScryptN, duty: u8) -> Result<Self, Error> {
        let worker = |device| {
            let checker = Checker::new(commitment, n)?;
            // The first batch is always checked.
            Ok(Worker { device, checker, unchecked: CHECK_EVERY, rate: 0.0, labels: 0, busy: 0.0 })
        };
        let workers = devices.into_iter().map(worker).collect::<Result<_, Error>>()?;
        Ok(Self { workers, commitment, duty: duty.clamp(1, 100) })
    }

    /// Measures every worker for a moment, all at once; labels per second together.
    pub fn measure(&mut self, time: Duration) -> Result<f64, Error> {
        let commitment = self.commitment;
        std::thread::scope(|scope| {
            let threads: Vec<_> = self.workers.iter_mut().map(|w| scope.spawn(move || w.measure(&commitment, time))).collect();
            let mut sum = 0.0;
            for thread in threads {
                sum += thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            Ok(sum * f64::from(self.duty) / 100.0)
        })
    }

    /// What each device did, workers of the same name together. Only between calls of [`compute`](Self::compute).
    pub fn progress(&self) -> Vec<DeviceProgress> {
        sum_up(self.workers.iter().map(|w| (w.device.info().name.as_str(), w.labels, w.busy, w.rate)))
    }

    /// Computes all ranges and hands the batches to `consume`, in order, on the calling thread. No batch reaches beyond its
    /// range. Ends early when `consume` says so or fails, when a device fails, or when asked to stop (then with
    /// [`Error::Stopped`], after the batches that were in order have been consumed).
    ///
    /// `tick` is called several times a second with what the devices did so far.
    pub fn compute(
        &mut self,
        ranges: &mut (dyn Iterator<Item = Range<u64>> + Send),
        stop: &Stop,
        tick: &mut dyn FnMut(&[DeviceProgress]) -> Result<(), Error>,
        consume: &mut dyn FnMut(Batch) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        let (commitment, duty) = (self.commitment, self.duty);
        let queue = Mutex::new(Queue { ranges, current: 0..0, sequence: 0, outstanding: 0, closed: false });
        let room = Condvar::new();
        // More than the window holds is never under way, so sending does not block for long.
        let (sender, receiver) = bounded(1024);
        let names: Vec<String> = self.workers.iter().map(|w| w.device.info().name.clone()).collect();
        let done: Mutex<Vec<(u64, f64, f64)>> = Mutex::new(vec![(0, 0.0, 0.0); names.len()]);
        let close = || {
            queue.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
            room.notify_all();
        };
        std::thread::scope(|scope| {
            for (number, worker) in self.workers.iter_mut().enumerate() {
                let (queue, room, sender, done) = (&queue, &room, sender.clone(), &done);
                scope.spawn(move || {
                    while let Some((sequence, range)) = take(queue, room, worker, stop) {
                        let started = Instant::now();
                        let batch = worker.batch(&commitment, range);
                        let failed = batch.is_err();
                        done.lock().unwrap_or_else(PoisonError::into_inner)[number] = (worker.labels, worker.busy, worker.rate);
                        if sender.send((sequence, batch)).is_err() || failed {
                            return;
                        }
                        if duty < 100 {
                            let pause = started.elapsed().mul_f64(f64::from(100 - duty) / f64::from(duty));
                            if stop.sleep(pause).is_err() {
                                return;
                            }
                        }
                    }
                });
            }
            drop(sender);
            let mut waiting = BTreeMap::new();
            let mut next = 0;
            let mut ticked = Instant::now();
            let result = loop {
                if ticked.elapsed() >= TICK {
                    ticked = Instant::now();
                    let now = done.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    let progress =
                        sum_up(names.iter().zip(now).map(|(name, (labels, busy, rate))| (name.as_str(), labels, busy, rate)));
                    if let Err(error) = tick(&progress) {
                        break Err(error);
                    }
                }
                match receiver.recv_timeout(TICK) {
                    Ok((_, Err(error))) => break Err(error),
                    Ok((sequence, Ok(batch))) => {
                        waiting.insert(sequence, batch);
                    }
                    Err(RecvTimeoutError::Timeout) => continue,
                    // All workers are through.
                    Err(RecvTimeoutError::Disconnected) => break stop.check(),
                }
                let mut ended = None;
                while let Some(batch) = waiting.remove(&next) {
                    next += 1;
                    let bytes = batch_bytes(&batch.range);
                    match consume(batch) {
                        Ok(ControlFlow::Continue(())) => {}
                        Ok(ControlFlow::Break(())) => ended = Some(Ok(())),
                        Err(error) => ended = Some(Err(error)),
                    }
                    queue.lock().unwrap_or_else(PoisonError::into_inner).outstanding -= bytes;
                    room.notify_all();
                    if ended.is_some() {
                        break;
                    }
                }
                if let Some(result) = ended {
                    break result;
                }
            };
            // Workers that are computing finish their batch and find nobody to take it.
            close();
            drop(receiver);
            result
        })
    }
}

fn batch_bytes(range: &Range<u64>) -> u64 {
    (range.end - range.start) * LABEL_BYTES
}

/// Takes the next batch for a worker; waits while the window is full. `None` when there is nothing more to do.
fn take(queue: &Mutex<Queue<'_>>, room: &Condvar, worker: &Worker, stop: &Stop) -> Option<(u64, Range<u64>)> {
    let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
    while !queue.closed && queue.outstanding >= WINDOW {
        if stop.is_set() {
            return None;
        }
        queue = room.wait_timeout(queue, TICK).unwrap_or_else(PoisonError::into_inner).0;
    }
    if queue.closed || stop.is_set() {
        return None;
    }
    while queue.current.is_empty() {
        queue.current = queue.ranges.next()?;
    }
    let range = queue.current.start..queue.current.end.min(queue.current.start.saturating_add(worker.batch_size()));
    queue.current.start = range.end;
    queue.outstanding += batch_bytes(&range);
    queue.sequence += 1;
    Some((queue.sequence - 1, range))
}

fn sum_up<'a>(workers: impl Iterator<Item = (&'a str, u64, f64, f64)>) -> Vec<DeviceProgress> {
    let mut devices: Vec<DeviceProgress> = Vec::new();
    for (name, labels, busy, rate) in workers {
        if let Some(device) = devices.iter_mut().find(|d| d.name == name) {
            device.workers += 1;
            device.labels += labels;
            device.labels_per_second += rate;
            device.busy_seconds += busy;
        } else {
            let name = name.to_owned();
            devices.push(DeviceProgress { name, workers: 1, labels, labels_per_second: rate, busy_seconds: busy });
        }
    }
    devices
}

impl Worker {
    fn batch_size(&self) -> u64 {
        let lanes = self.device.info().lanes as u64;
        let wanted = ((self.rate * BATCH_SECONDS) as u64).clamp(lanes, MAX_BATCH.max(lanes));
        wanted - wanted % lanes
    }

    fn error(&self, source: DeviceError) -> Error {
        Error::Device { device: self.device.info().name.clone(), source }
    }

    /// Labels per second, and the first guess for batch sizes.
    fn measure(&mut self, commitment: &Commitment, time: Duration) -> Result<f64, Error> {
        let mut labels = vec![0; self.device.info().lanes * LABEL_BYTES as usize];
        let started = Instant::now();
        let mut made = 0_u64;
        while made == 0 || started.elapsed() < time {
            self.device.labels(commitment, made, &mut labels).map_err(|e| self.error(e))?;
            made += self.device.info().lanes as u64;
        }
        self.rate = made as f64 / started.elapsed().as_secs_f64();
        Ok(self.rate)
    }

    fn batch(&mut self, commitment: &Commitment, range: Range<u64>) -> Result<Batch, Error> {
        let count = range.end - range.start;
        let mut labels = vec![0; (count * LABEL_BYTES) as usize];
        let started = Instant::now();
        let smallest = self.device.labels(commitment, range.start, &mut labels).map_err(|e| self.error(e))?;
        let seconds = started.elapsed().as_secs_f64();
        self.labels += count;
        self.busy += seconds;
        self.unchecked += count;
        if seconds > 0.01 || self.rate == 0.0 {
            let rate = count as f64 / seconds.max(1e-9);
            self.rate = if self.rate == 0.0 { rate } else { 0.7 * self.rate + 0.3 * rate };
        }
        if self.unchecked >= CHECK_EVERY {
            self.unchecked = 0;
            let index = range.start + rand::random_range(0..count);
            self.spot_check(index, &labels[((index - range.start) * LABEL_BYTES) as usize..][..16])?;
        }
        Ok(Batch { range, labels, smallest })
    }

    fn spot_check(&mut self, index: u64, label: &[u8]) -> Result<(), Error> {
        let full = self.checker.full_label(index);
        if full[..16] == *label {
            return Ok(());
        }
        Err(Error::WrongResult {
            device: self.device.info().name.clone(),
            index,
            found: hex::encode(label),
            expected: hex::encode(&full[..16]),
        })
    }
}
