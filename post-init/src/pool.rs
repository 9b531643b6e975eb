//! Devices computing label ranges at once, results in the order of the ranges.
//!
//! Every device has a thread (`worker`), a core of the processor being one device. It takes batches from the common queue
//! (`queue`), as large as it makes in half a second or a little more, so a slow device never holds back a fast one for long.
//! Finished batches wait in a bounded window until it is their turn, so files grow from front to back.
//!
//! Graphics processors are not trusted: of each of their batches the processor computes some labels again before anybody gets it.
//! What a device was working on when it failed is made by another one; the device is opened again after a while. One that has
//! been wrong or has hung three times is not used any more. A device that does not come back from a call loses its range and is left
//! alone with its thread, which owns nothing that others need.

mod inspect;
mod queue;
mod worker;

use std::{
    fmt,
    ops::{ControlFlow, Range},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use kernels::label::{
    Device, DeviceError, DeviceKind, Smallest,
    cpu::{Cpu, Isa},
    gpu::GpuInfo,
};
use proto::{
    ids::Commitment,
    post::{LABEL_BYTES, ScryptN},
};

use self::{
    inspect::{Inspector, inspect},
    queue::{Asking, Queue, Ranges},
    worker::{Flight, Worker},
};
use crate::{
    control::Control,
    error::Error,
    event::{DeviceProgress, DeviceState, Event, Report},
    sensors::{Reading, Sensors},
    stop::Stop,
};

/// Seconds of work in a batch of a core of the processor.
const CPU_BATCH: f64 = 0.5;
/// The same of a graphics processor, where it is rounded down to whole sets of lanes.
const GPU_BATCH: f64 = 0.75;
/// Most labels in a batch: 16 MiB.
const MAX_BATCH: u64 = 1 << 20;
/// A batch is at most this part of the window.
const BATCHES_IN_WINDOW: u64 = 8;
/// Bytes of labels that may be handed out but not yet consumed when graphics processors are at work, and when not; part of the
/// memory the program may take beside scratch.
const WINDOW: u64 = 256 << 20;
const CPU_WINDOW: u64 = 32 << 20;
/// How long waiting threads may go without looking whether something has changed.
const TICK: Duration = Duration::from_millis(100);
/// How long a device that was asked to stop may still take: for its batch to be used, and to end in good order.
const STOP_PATIENCE: Duration = Duration::from_millis(900);
const CLOSE_PATIENCE: Duration = Duration::from_millis(500);
/// Longest step of the clock that counts as time in which a device could have worked: the whole process may have been stopped.
const LONGEST_STEP: Duration = Duration::from_secs(1);
/// How often a device may be wrong or hang.
const STRIKES: u32 = 3;
/// So many failures in a row, and no other device: then there is no hope.
const HOPELESS: u32 = 5;
/// The longest time until a failed device is tried again.
const LONGEST_RETRY: Duration = Duration::from_secs(300);
/// Degrees by which a device must have cooled below the limit, and part of the limit of power it must be below, to go on.
const COOLER: f64 = 5.0;
const WEAKER: f64 = 0.9;

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

/// Opens a device for this cost: at the start, and again after it was lost. May take its time (to compile, to tune), tells what
/// it does and ends early when asked to stop.
pub type Open = Arc<dyn Fn(ScryptN, &Stop, &dyn Report) -> Result<Box<dyn Device>, DeviceError> + Send + Sync>;

/// Where a device comes from.
#[derive(Clone)]
pub struct Source {
    /// For people; the same for all threads of the processor.
    pub name: String,
    /// What runs the kernels; only the processor is trusted.
    pub kind: DeviceKind,
    /// What sensors know it by.
    pub gpu: Option<GpuInfo>,
    /// How it is opened.
    pub open: Open,
}

impl Source {
    fn cpu(isa: Isa) -> Self {
        let open: Open = Arc::new(move |n, _, _| Ok(Box::new(Cpu::new(isa, n)?)));
        Self { name: format!("cpu {isa}"), kind: DeviceKind::Cpu, gpu: None, open }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("name", &self.name).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// When a graphics processor has to pause. Its settings are never touched.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Limits {
    /// Degrees Celsius.
    pub celsius: Option<f64>,
    /// Watts.
    pub watts: Option<f64>,
}

impl Limits {
    /// Why a device has to pause; one that does needs more than to be just below a limit.
    fn exceeded(&self, reading: &Reading, pauses: bool) -> Option<String> {
        let over = |value: Option<f64>, limit: Option<f64>, enough: f64, unit: &str| {
            let (value, limit) = (value?, limit?);
            let over = value > if pauses { enough } else { limit };
            over.then(|| format!("{value:.0} {unit}, the limit is {limit:.0} {unit}"))
        };
        let cool = self.celsius.unwrap_or_default() - COOLER;
        let weak = self.watts.unwrap_or_default() * WEAKER;
        over(reading.celsius, self.celsius, cool, "°C").or_else(|| over(reading.watts, self.watts, weak, "W"))
    }
}

/// How patient the pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// A call hangs when it takes longer than this and than 20 times what is expected.
    pub hang: Duration,
    /// Time until a failed device is tried again, doubled with every failure in a row, up to 5 minutes.
    pub retry: Duration,
    /// Time between two looks at the sensors.
    pub sense: Duration,
    /// How long those that are ready wait for those that take their time to open.
    pub gather: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { hang: seconds(10), retry: seconds(1), sense: seconds(2), gather: seconds(2) }
    }
}

/// What to use.
#[derive(Clone)]
pub struct PoolOptions {
    /// Threads of the CPU; 0 leaves it out.
    pub cpu_threads: usize,
    /// Their instruction set.
    pub isa: Isa,
    /// Further devices.
    pub gpus: Vec<Source>,
    /// Pauses, and the share of the time to compute.
    pub control: Control,
    /// Bytes that may be computed but not yet consumed: by default 256 MiB, 32 MiB without further devices.
    pub window: Option<u64>,
    /// When devices pause by themselves.
    pub limits: Limits,
    /// What tells how they are.
    pub sensors: Option<Arc<dyn Sensors>>,
    /// Patience.
    pub timing: Timing,
}

impl fmt::Debug for PoolOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu_threads, isa, gpus, .. } = self;
        let mut out = f.debug_struct("PoolOptions");
        out.field("cpu_threads", cpu_threads).field("isa", isa).field("gpus", gpus).finish_non_exhaustive()
    }
}

impl PoolOptions {
    /// All cores, the best instruction set, nothing else.
    pub fn all() -> Self {
        Self::cpu(std::thread::available_parallelism().map_or(1, usize::from), Isa::best())
    }

    /// Threads of the processor.
    pub fn cpu(cpu_threads: usize, isa: Isa) -> Self {
        Self {
            cpu_threads,
            isa,
            gpus: Vec::new(),
            control: Control::new(100),
            window: None,
            limits: Limits::default(),
            sensors: None,
            timing: Timing::default(),
        }
    }

    /// Scratch memory the pool will take of the machine, in bytes.
    pub fn scratch_bytes(&self, n: ScryptN) -> u64 {
        let check = u64::from(n.get()) * 128;
        (Cpu::scratch_bytes(self.isa, n) + check) * self.cpu_threads as u64 + 2 * check * self.gpus.len() as u64
    }
}

/// A place at the queue: what everybody may know of a device.
struct Seat {
    name: String,
    trusted: bool,
    /// Changes when the thread of the device is given up; what that one still does counts for nothing.
    generation: u64,
    state: DeviceState,
    /// The call the device is in.
    flight: Option<Flight>,
    /// After a failure: when to try again.
    retry: Option<Instant>,
    /// Until when it rests, to use only a share of the time.
    rest: Option<Instant>,
    /// Why it has to pause.
    limit: Option<String>,
    /// Labels computed together.
    lanes: u64,
    /// Labels per second; 0 until measured.
    rate: f64,
    labels: u64,
    batches: u64,
    /// Seconds of finished calls.
    busy: f64,
    strikes: u32,
    /// Failures since the last success.
    failures: u32,
    /// Bytes held on the device.
    allocated: u64,
    /// The last failure.
    cause: String,
}

impl Seat {
    fn new(source: &Source) -> Self {
        Self {
            name: source.name.clone(),
            trusted: source.kind == DeviceKind::Cpu,
            generation: 0,
            state: DeviceState::Opening,
            flight: None,
            retry: None,
            rest: None,
            limit: None,
            lanes: 1,
            rate: 0.0,
            labels: 0,
            batches: 0,
            busy: 0.0,
            strikes: 0,
            failures: 0,
            allocated: 0,
            cause: String::new(),
        }
    }

    /// Labels of a batch.
    fn batch(&self, most: u64) -> u64 {
        let seconds = if self.trusted { CPU_BATCH } else { GPU_BATCH };
        let wanted = ((self.rate * seconds) as u64).clamp(self.lanes, most.max(self.lanes));
        wanted - wanted % self.lanes
    }

    /// Whether it takes ranges.
    fn is_at_work(&self) -> bool {
        matches!(self.state, DeviceState::Working | DeviceState::Idle)
    }

    /// Whether it will never take a range again.
    fn is_over(&self) -> bool {
        matches!(self.state, DeviceState::Quarantined | DeviceState::Failed)
    }

    /// Whether to go on without waiting for it.
    fn is_hopeless(&self) -> bool {
        self.is_over() || (self.state == DeviceState::Waiting && self.failures >= HOPELESS)
    }
}

/// What threads share.
struct State {
    /// Counts the tasks; results of earlier ones are not wanted.
    task: u64,
    queue: Option<Queue>,
    /// Nothing new is handed out.
    closed: bool,
    seats: Vec<Seat>,
    /// What is to be told.
    events: Vec<Event>,
    /// Why the task cannot go on.
    fatal: Option<Error>,
    /// When the task began, and the time of those before.
    since: Option<Instant>,
    before: Duration,
}

struct Shared {
    state: Mutex<State>,
    /// Work may be there, for devices.
    work: Condvar,
    /// Something was done, for the one who consumes.
    done: Condvar,
    /// The pool ends.
    closing: Stop,
    control: Control,
    timing: Timing,
    commitment: Commitment,
    n: ScryptN,
    window: u64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn most_in_batch(&self) -> u64 {
        (self.window / BATCHES_IN_WINDOW / LABEL_BYTES).clamp(1, MAX_BATCH)
    }

    /// Everybody looks what has changed.
    fn wake(&self) {
        self.work.notify_all();
        self.done.notify_all();
    }

    /// A batch of a device has been checked.
    fn settle(&self, number: usize, task: u64, batch: Batch, verdict: Result<(), Trouble>) {
        let mut state = self.lock();
        match verdict {
            // Of one that was found to be wrong meanwhile nothing is taken any more.
            Ok(()) if state.seats[number].is_over() => {
                if let Some(queue) = state.queue_of(task) {
                    queue.give_back(&batch.range);
                }
            }
            Ok(()) => {
                let seat = &mut state.seats[number];
                seat.labels += batch.range.end - batch.range.start;
                seat.batches += 1;
                seat.failures = 0;
                if let Some(queue) = state.queue_of(task) {
                    queue.finish(batch);
                }
                drop(state);
                return self.done.notify_one();
            }
            Err(trouble) => state.fail(number, Some((task, batch.range)), trouble, &self.timing),
        }
        drop(state);
        self.wake();
    }
}

impl State {
    /// The next range for a device, if there is one.
    fn take(&mut self, number: usize, most: u64) -> Option<Range<u64>> {
        if self.closed {
            return None;
        }
        let queue = self.queue.as_mut()?;
        let at_work = || self.seats.iter().enumerate().filter(|(i, seat)| *i != number && seat.is_at_work());
        let seat = &self.seats[number];
        queue.take(&Asking {
            labels: seat.batch(most),
            rate: seat.rate,
            fastest: at_work().map(|(_, other)| other.rate).fold(0.0, f64::max),
            others: at_work().map(|(_, other)| other.rate).sum(),
        })
    }

    fn tell(&mut self, number: usize, text: String) {
        let Seat { name, state, .. } = &self.seats[number];
        self.events.push(Event::Device { device: name.clone(), state: *state, text });
    }

    /// The queue, if it is still that of this task.
    fn queue_of(&mut self, task: u64) -> Option<&mut Queue> {
        self.queue.as_mut().filter(|_| task == self.task)
    }

    /// A device failed, perhaps with a range of a task: somebody else gets that, and the device may go on, has to wait or is not
    /// used any more.
    fn fail(&mut self, number: usize, range: Option<(u64, Range<u64>)>, trouble: Trouble, timing: &Timing) {
        if let Some((task, range)) = range
            && let Some(queue) = self.queue_of(task)
        {
            queue.give_back(&range);
        }
        let seat = &mut self.seats[number];
        if seat.is_over() {
            return;
        }
        seat.cause = trouble.to_string();
        if seat.trusted {
            // What all others are measured by.
            seat.state = DeviceState::Failed;
            self.fatal.get_or_insert(trouble.into_error(seat.name.clone()));
            return;
        }
        let strike = matches!(trouble, Trouble::Wrong { .. } | Trouble::Device(DeviceError::Hung { .. }));
        seat.strikes += u32::from(strike);
        if seat.strikes >= STRIKES {
            seat.state = DeviceState::Quarantined;
            let text = format!("{trouble}; {}", trouble.remedy());
            self.tell(number, text);
            return;
        }
        let text = match trouble {
            Trouble::Wrong { .. } => {
                format!("{trouble}; the batch is discarded and made again (strike {} of {STRIKES})", seat.strikes)
            }
            Trouble::Device(DeviceError::Unsupported(_) | DeviceError::Unavailable(_)) => {
                seat.state = DeviceState::Failed;
                format!("{trouble}; it is not used")
            }
            Trouble::Device(_) => {
                let wait = timing.retry.saturating_mul(1 << seat.failures.min(16)).min(LONGEST_RETRY);
                seat.failures += 1;
                seat.retry = Some(Instant::now() + wait);
                seat.state = DeviceState::Waiting;
                let strike = if strike { format!(" (strike {} of {STRIKES})", seat.strikes) } else { String::new() };
                format!("{trouble}; others make its batch, it is tried again in {} s{strike}", wait.as_secs_f64().ceil())
            }
        };
        self.tell(number, text);
    }

    /// Why nothing can be done any more, if that is so.
    fn nobody_left(&self) -> Result<(), Error> {
        if !self.seats.iter().all(Seat::is_hopeless) {
            return Ok(());
        }
        let causes = self.seats.iter().map(|seat| format!("{}: {}", seat.name, seat.cause));
        Err(Error::NoDeviceLeft(causes.collect::<Vec<_>>().join("; ")))
    }

    fn elapsed(&self) -> f64 {
        (self.before + self.since.map_or(Duration::ZERO, |since| since.elapsed())).as_secs_f64()
    }

    /// What each device did, those of the same name together.
    fn progress(&self) -> Vec<DeviceProgress> {
        let elapsed = self.elapsed();
        let mut devices: Vec<DeviceProgress> = Vec::new();
        for seat in &self.seats {
            let found = devices.iter().position(|d| d.name == seat.name && seat.trusted);
            let place = found.unwrap_or_else(|| {
                devices.push(DeviceProgress::new(seat.name.clone(), seat.state));
                devices.len() - 1
            });
            let device = &mut devices[place];
            let now = seat.flight.as_ref().filter(|flight| flight.range.is_some());
            let mut busy = seat.busy + now.map_or(0.0, |flight| flight.started.elapsed().as_secs_f64());
            if elapsed > 0.0 {
                busy = busy.min(elapsed);
            }
            device.workers += 1;
            device.labels += seat.labels;
            device.batches += seat.batches;
            device.labels_per_second += seat.rate;
            device.busy_seconds += busy;
            device.strikes += seat.strikes;
            device.allocated_bytes += seat.allocated;
            if seat.state == DeviceState::Working {
                device.state = seat.state;
            }
        }
        for device in &mut devices {
            let whole = elapsed * device.workers as f64;
            device.busy_share = if whole > 0.0 { (device.busy_seconds / whole).min(1.0) } else { 0.0 };
            device.idle_share = 1.0 - device.busy_share;
        }
        devices
    }
}

/// What went wrong with a device.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("label {index} of a batch is {found}, the processor says {expected}")]
    Wrong { index: u64, found: String, expected: String },
}

impl Trouble {
    fn into_error(self, device: String) -> Error {
        match self {
            Self::Device(source) => Error::Device { device, source },
            Self::Wrong { index, found, expected } => Error::WrongResult { device, index, found, expected },
        }
    }

    /// What to do about a device that is not used any more.
    fn remedy(&self) -> &'static str {
        match self {
            Self::Wrong { .. } => {
                "it was wrong too often and is not used any more (nothing of it was written): take back overclocking, look at its \
                 temperature, update its driver, and leave it out with --devices until it is right"
            }
            Self::Device(_) => {
                "it hung too often and is not used any more: restart the machine or its driver, and leave it out with --devices until then"
            }
        }
    }
}

/// Devices for one commitment and N.
pub struct Pool {
    shared: Arc<Shared>,
    sources: Vec<Source>,
    /// The thread of each device.
    threads: Vec<Option<JoinHandle<()>>>,
    sensing: Option<JoinHandle<()>>,
    supervised: Instant,
    paused: bool,
}

impl Pool {
    /// Starts a thread for each device, which opens it.
    pub fn new(options: &PoolOptions, commitment: Commitment, n: ScryptN) -> Result<Self, Error> {
        let cores = if options.gpus.is_empty() { options.cpu_threads.max(1) } else { options.cpu_threads };
        let cores = std::iter::repeat_n(Source::cpu(options.isa), cores);
        let sources: Vec<Source> = options.gpus.iter().cloned().chain(cores).collect();
        let window = options.window.unwrap_or(if options.gpus.is_empty() { CPU_WINDOW } else { WINDOW });
        let state = State {
            task: 0,
            queue: None,
            closed: false,
            seats: sources.iter().map(Seat::new).collect(),
            events: Vec::new(),
            fatal: None,
            since: None,
            before: Duration::ZERO,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            work: Condvar::new(),
            done: Condvar::new(),
            closing: Stop::default(),
            control: options.control.clone(),
            timing: options.timing,
            commitment,
            n,
            window,
        });
        let threads = sources.iter().map(|_| None).collect();
        let mut pool = Self { shared, sources, threads, sensing: None, supervised: Instant::now(), paused: false };
        for number in 0..pool.sources.len() {
            pool.spawn(number)?;
        }
        if let Some(sensors) = &options.sensors
            && options.limits != Limits::default()
        {
            let gpus: Vec<(usize, GpuInfo)> =
                pool.sources.iter().enumerate().filter_map(|(i, source)| Some((i, source.gpu.clone()?))).collect();
            let (shared, sensors, limits) = (pool.shared.clone(), sensors.clone(), options.limits);
            pool.sensing = Some(thread("sensors", move || sense(&shared, &gpus, &*sensors, limits))?);
        }
        Ok(pool)
    }

    /// Starts the thread of a device, in place of one that was given up.
    fn spawn(&mut self, number: usize) -> Result<(), Error> {
        let source = &self.sources[number];
        let trusted = source.kind == DeviceKind::Cpu;
        let inspector = Inspector::new(self.shared.commitment, self.shared.n, trusted)?;
        let inspected = if trusted { None } else { Some(inspect(self.shared.clone(), number, &source.name)?) };
        let generation = self.shared.lock().seats[number].generation;
        let worker = Worker::new(self.shared.clone(), number, generation, source.clone(), inspector, inspected);
        self.threads[number] = Some(thread(&source.name, move || worker.run())?);
        Ok(())
    }

    /// Waits until the devices are ready, or at least one is and some seconds have passed; labels per second of those that are.
    pub fn ready(&mut self, stop: &Stop, report: &dyn Report) -> Result<f64, Error> {
        let begun = Instant::now();
        loop {
            stop.check()?;
            self.supervise(report)?;
            let state = self.shared.lock();
            let rate: f64 = state.seats.iter().filter(|seat| !seat.is_over()).map(|seat| seat.rate).sum();
            let opening = state.seats.iter().any(|seat| seat.state == DeviceState::Opening);
            if !opening || (rate > 0.0 && begun.elapsed() >= self.shared.timing.gather) {
                return Ok(rate * f64::from(self.shared.control.duty()) / 100.0);
            }
            drop(self.shared.done.wait_timeout(state, TICK));
        }
    }

    /// Lets the devices work for about this time and throws the labels away; labels per second of all together.
    pub fn measure(&mut self, time: Duration, stop: &Stop, report: &dyn Report) -> Result<f64, Error> {
        self.ready(stop, report)?;
        let begun = Instant::now();
        let mut over = |_: Batch| Ok(if begun.elapsed() < time { ControlFlow::Continue(()) } else { ControlFlow::Break(()) });
        self.compute(std::iter::once(0..u64::MAX), stop, report, &mut |_| Ok(()), &mut over)?;
        // Whole batches by the time they took: how many fit into the time says less.
        let rate = |seat: &Seat| if seat.busy > 0.0 { seat.labels as f64 / seat.busy } else { seat.rate };
        let sum: f64 = self.shared.lock().seats.iter().filter(|seat| !seat.is_over()).map(rate).sum();
        Ok(sum * f64::from(self.shared.control.duty()) / 100.0)
    }

    /// What each device did, those of the same name together.
    pub fn progress(&self) -> Vec<DeviceProgress> {
        self.shared.lock().progress()
    }

    /// Computes all ranges, which ascend and do not overlap, and hands the batches to `consume`, in order, on the calling thread.
    /// No batch reaches beyond its range. Ends early when `consume` says so or fails, when no device is left, when the processor
    /// itself is wrong, or when asked to stop (then with [`Error::Stopped`], after the batches that were in order have been
    /// consumed).
    ///
    /// `tick` is called several times a second with what the devices did so far.
    pub fn compute(
        &mut self,
        ranges: impl Iterator<Item = Range<u64>> + Send + 'static,
        stop: &Stop,
        report: &dyn Report,
        tick: &mut dyn FnMut(&[DeviceProgress]) -> Result<(), Error>,
        consume: &mut dyn FnMut(Batch) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        self.begin(Box::new(ranges));
        let result = self.drive(stop, report, tick, consume);
        let mut state = self.shared.lock();
        state.task += 1;
        state.queue = None;
        let took = state.since.take().map_or(Duration::ZERO, |since| since.elapsed());
        state.before += took;
        drop(state);
        self.tell(report);
        result
    }

    fn begin(&self, ranges: Ranges) {
        let mut state = self.shared.lock();
        state.task += 1;
        state.queue = Some(Queue::new(ranges, self.shared.window));
        state.closed = false;
        state.since = Some(Instant::now());
        drop(state);
        self.shared.work.notify_all();
    }

    fn drive(
        &mut self,
        stop: &Stop,
        report: &dyn Report,
        tick: &mut dyn FnMut(&[DeviceProgress]) -> Result<(), Error>,
        consume: &mut dyn FnMut(Batch) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        let mut ticked = Instant::now();
        let mut stopped: Option<Instant> = None;
        loop {
            if ticked.elapsed() >= TICK {
                ticked = Instant::now();
                self.supervise(report)?;
                tick(&self.progress())?;
            }
            let mut state = self.shared.lock();
            if stop.is_set() {
                state.closed = true;
                stopped.get_or_insert_with(Instant::now);
            }
            let Some(queue) = &mut state.queue else { return Ok(()) };
            if let Some(batch) = queue.pop() {
                drop(state);
                let range = batch.range.clone();
                let flow = consume(batch)?;
                if let Some(queue) = &mut self.shared.lock().queue {
                    queue.consumed(&range);
                }
                self.shared.work.notify_all();
                if flow.is_break() {
                    return Ok(());
                }
            } else if queue.is_finished() || stopped.is_some_and(|since| queue.is_idle() || since.elapsed() >= STOP_PATIENCE) {
                return stop.check();
            } else {
                drop(self.shared.done.wait_timeout(state, TICK));
            }
        }
    }

    /// Looks after the devices and tells what there is to tell.
    fn supervise(&mut self, report: &dyn Report) -> Result<(), Error> {
        let step = self.supervised.elapsed().min(LONGEST_STEP);
        self.supervised = Instant::now();
        let mut forgotten = Vec::new();
        let mut state = self.shared.lock();
        for number in 0..state.seats.len() {
            let seat = &mut state.seats[number];
            let Some(flight) = &mut seat.flight else { continue };
            flight.watched += step;
            if flight.watched > flight.allowed && !seat.trusted {
                let seconds = flight.watched.as_secs();
                seat.generation += 1;
                seat.allocated = 0;
                let range = flight.range.take().map(|range| (flight.task, range));
                seat.flight = None;
                state.fail(number, range, DeviceError::Hung { seconds }.into(), &self.shared.timing);
                if !state.seats[number].is_over() {
                    forgotten.push(number);
                }
            }
        }
        let fatal = state.fatal.take();
        let left = state.nobody_left();
        drop(state);
        for number in forgotten {
            self.shared.work.notify_all();
            // The old thread is left to itself.
            self.spawn(number)?;
        }
        let paused = self.shared.control.is_paused();
        if paused != self.paused {
            self.paused = paused;
            report.event(if paused { &Event::Paused } else { &Event::Resumed });
        }
        self.tell(report);
        fatal.map_or(left, Err)
    }

    fn tell(&self, report: &dyn Report) {
        let events = std::mem::take(&mut self.shared.lock().events);
        for event in &events {
            report.event(event);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.closing.set();
        self.shared.work.notify_all();
        let deadline = Instant::now() + CLOSE_PATIENCE;
        for thread in self.threads.drain(..).chain([self.sensing.take()]).flatten() {
            while !thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    let thread = std::thread::Builder::new().name(name.replace('\0', " ")).spawn(work);
    thread.map_err(|source| Error::Io { action: "start a thread for", path: name.into(), source })
}

/// Looks at the sensors from time to time and makes devices pause.
fn sense(shared: &Shared, gpus: &[(usize, GpuInfo)], sensors: &dyn Sensors, limits: Limits) {
    let mut blind = vec![false; gpus.len()];
    loop {
        for ((number, gpu), blind) in gpus.iter().zip(&mut blind) {
            let reading = sensors.read(gpu).unwrap_or_default();
            let mut state = shared.lock();
            let unknown =
                (limits.celsius.is_some() && reading.celsius.is_none()) || (limits.watts.is_some() && reading.watts.is_none());
            if unknown && !*blind {
                *blind = true;
                state.tell(*number, "its temperature or power cannot be read: what cannot be read is not limited".to_owned());
            }
            let before = state.seats[*number].limit.is_some();
            let limit = limits.exceeded(&reading, before);
            if limit.is_some() != before {
                let text = limit.clone().map_or_else(|| "below the limit again".to_owned(), |limit| format!("pauses at {limit}"));
                state.seats[*number].limit = limit;
                state.tell(*number, text);
                shared.work.notify_all();
            }
        }
        if shared.closing.sleep(shared.timing.sense).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_pauses_above_a_limit_and_goes_on_well_below() {
        let limits = Limits { celsius: Some(70.0), watts: Some(200.0) };
        let at = |celsius, watts| Reading { celsius: Some(celsius), watts: Some(watts), free: None };
        assert_eq!(limits.exceeded(&at(70.0, 200.0), false), None);
        assert_eq!(limits.exceeded(&at(71.0, 0.0), false).unwrap(), "71 °C, the limit is 70 °C");
        assert!(limits.exceeded(&at(66.0, 0.0), true).is_some());
        assert_eq!(limits.exceeded(&at(65.0, 180.0), true), None);
        assert_eq!(limits.exceeded(&at(20.0, 250.0), false).unwrap(), "250 W, the limit is 200 W");
        assert!(limits.exceeded(&at(20.0, 190.0), true).is_some());
        assert_eq!(limits.exceeded(&Reading::default(), false), None);
        assert_eq!(Limits::default().exceeded(&at(500.0, 5000.0), false), None);
    }
}
