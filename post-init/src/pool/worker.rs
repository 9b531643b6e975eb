//! The thread of one device: opens it, computes, hands its labels on to be checked, lets it rest.

use std::{
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::Sender;
use kernels::label::{Device, DeviceError, DeviceKind};
use proto::post::LABEL_BYTES;

use super::{
    Batch, Shared, Source, TICK, Trouble,
    inspect::{Inspector, Made},
};
use crate::event::{DeviceState, Event, Report};

/// A device is tried before it gets work, for two calls, of which the first may compile; the small calls of the processor are
/// measured for this long.
const TRIAL: Duration = Duration::from_millis(50);
/// A call hangs when it takes so many times as long as expected.
const LATE: f64 = 20.0;
/// Compiling and tuning may take long, above all for software.
const OPENING: Duration = Duration::from_secs(600);

/// A call that a device is in.
pub(super) struct Flight {
    pub(super) task: u64,
    /// What it computes, if it does.
    pub(super) range: Option<Range<u64>>,
    pub(super) started: Instant,
    /// Time in which it could have worked.
    pub(super) watched: Duration,
    /// When to give up.
    pub(super) allowed: Duration,
}

impl Flight {
    fn new(task: u64, range: Option<Range<u64>>, allowed: Duration) -> Self {
        Self { task, range, started: Instant::now(), watched: Duration::ZERO, allowed }
    }
}

/// What to do next.
enum Order {
    Open,
    Release,
    Make(u64, Range<u64>),
}

/// A device and what it needs.
pub(super) struct Worker {
    shared: Arc<Shared>,
    number: usize,
    generation: u64,
    source: Source,
    inspector: Inspector,
    /// Who checks its batches, where that is not done on the way.
    inspected: Option<Sender<Made>>,
    device: Option<Box<dyn Device>>,
    /// Its memory was given back for a pause.
    released: bool,
}

impl Worker {
    pub(super) fn new(
        shared: Arc<Shared>,
        number: usize,
        generation: u64,
        source: Source,
        inspector: Inspector,
        inspected: Option<Sender<Made>>,
    ) -> Self {
        Self { shared, number, generation, source, inspector, inspected, device: None, released: false }
    }

    fn is_trusted(&self) -> bool {
        self.source.kind == DeviceKind::Cpu
    }

    /// Works until the pool ends or the device does.
    pub(super) fn run(mut self) {
        while let Some(order) = self.next() {
            match order {
                Order::Open => self.open(),
                Order::Release => self.release(),
                Order::Make(task, range) => self.make(task, range),
            }
        }
    }

    /// Waits for something to do; none when there will be nothing more.
    fn next(&self) -> Option<Order> {
        let shared = &self.shared;
        let mut state = shared.lock();
        loop {
            let task = state.task;
            let seat = &mut state.seats[self.number];
            if shared.closing.is_set() || seat.generation != self.generation || seat.is_over() {
                return None;
            }
            let now = Instant::now();
            let left =
                |until: Option<Instant>| until.map(|until| until.saturating_duration_since(now)).filter(|left| !left.is_zero());
            let mut wait = TICK;
            let paused = shared.control.is_paused();
            if paused || seat.limit.is_some() {
                seat.state = if paused { DeviceState::Paused } else { DeviceState::Limited };
                if self.device.is_some() && !self.released {
                    seat.flight = Some(Flight::new(task, None, shared.timing.hang));
                    return Some(Order::Release);
                }
            } else if let Some(left) = left(seat.retry) {
                wait = wait.min(left);
            } else if self.device.is_none() {
                seat.state = DeviceState::Opening;
                seat.flight = Some(Flight::new(task, None, OPENING));
                return Some(Order::Open);
            } else {
                seat.state = DeviceState::Idle;
                if let Some(left) = left(seat.rest) {
                    wait = wait.min(left);
                } else if let Some(range) = state.take(self.number, shared.most_in_batch()) {
                    let seat = &mut state.seats[self.number];
                    let expected = (range.end - range.start) as f64 / seat.rate.max(1e-3);
                    let allowed = Duration::from_secs_f64((expected * LATE).min(1e9)).max(shared.timing.hang);
                    seat.state = DeviceState::Working;
                    seat.flight = Some(Flight::new(task, Some(range.clone()), allowed));
                    return Some(Order::Make(task, range));
                }
            }
            state = shared.work.wait_timeout(state, wait).map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
        }
    }

    fn open(&mut self) {
        let news = News { shared: &self.shared };
        let opened = guarded(|| (self.source.open)(self.shared.n, &self.shared.closing, &news));
        let tried = opened.map_err(Trouble::from).and_then(|mut device| {
            let rate = self.try_out(&mut *device)?;
            Ok((device, rate))
        });
        let mut state = self.shared.lock();
        let seat = &mut state.seats[self.number];
        if seat.generation != self.generation || self.shared.closing.is_set() {
            return;
        }
        seat.flight = None;
        match tried {
            Ok((device, rate)) => {
                seat.rate = rate;
                seat.lanes = device.info().lanes.max(1) as u64;
                seat.allocated = device.allocated();
                seat.state = DeviceState::Idle;
                self.device = Some(device);
                self.released = false;
                if !seat.trusted {
                    state.tell(self.number, format!("ready, {rate:.0} labels/s"));
                }
            }
            Err(trouble) => {
                state.fail(self.number, None, trouble, &self.shared.timing);
            }
        }
        drop(state);
        self.shared.done.notify_all();
    }

    /// Labels per second of some calls, which are checked like all others.
    fn try_out(&mut self, device: &mut dyn Device) -> Result<f64, Trouble> {
        let started = Instant::now();
        let mut measured = Instant::now();
        let (mut calls, mut made) = (0_u64, 0_u64);
        while calls < 2 || (self.is_trusted() && started.elapsed() < TRIAL) {
            if self.shared.closing.is_set() {
                return Err(DeviceError::Failed("it was not needed any more".into()).into());
            }
            let count = device.info().lanes.max(1) as u64;
            let range = calls * count..(calls + 1) * count;
            let mut labels = vec![0; (count * LABEL_BYTES) as usize];
            let smallest = guarded(|| device.labels(&self.shared.commitment, range.start, &mut labels))?;
            if calls == 0 {
                self.inspector.check(&range, &labels, &smallest)?;
                measured = Instant::now();
            } else {
                made += count;
            }
            calls += 1;
        }
        Ok(made as f64 / measured.elapsed().as_secs_f64().max(1e-9))
    }

    fn release(&mut self) {
        if let Some(device) = &mut self.device {
            device.release();
            self.released = true;
            let mut state = self.shared.lock();
            let seat = &mut state.seats[self.number];
            if seat.generation == self.generation {
                seat.flight = None;
                seat.allocated = device.allocated();
            }
        }
    }

    fn make(&mut self, task: u64, range: Range<u64>) {
        let Some(device) = &mut self.device else { return };
        let count = range.end - range.start;
        let mut labels = vec![0; (count * LABEL_BYTES) as usize];
        let started = Instant::now();
        self.released = false;
        let made = guarded(|| device.labels(&self.shared.commitment, range.start, &mut labels));
        let seconds = started.elapsed().as_secs_f64();
        if made.is_err() {
            // Still under the eyes of the pool, as this may take for ever.
            self.device = None;
        }
        let mut state = self.shared.lock();
        let seat = &mut state.seats[self.number];
        if seat.generation != self.generation {
            return;
        }
        seat.flight = None;
        seat.allocated = self.device.as_ref().map_or(0, |device| device.allocated());
        let smallest = match made {
            Ok(smallest) => smallest,
            Err(error) => {
                state.fail(self.number, Some((task, range)), error.into(), &self.shared.timing);
                drop(state);
                return self.shared.wake();
            }
        };
        seat.lanes = self.device.as_ref().map_or(1, |device| device.info().lanes.max(1) as u64);
        seat.busy += seconds;
        if seconds > 0.01 {
            seat.rate = 0.7 * seat.rate + 0.3 * (count as f64 / seconds);
        }
        let duty = self.shared.control.duty();
        let rest = started.elapsed().mul_f64(f64::from(100 - duty) / f64::from(duty));
        seat.rest = (!rest.is_zero()).then(|| Instant::now() + rest);
        drop(state);
        let batch = Batch { range, labels, smallest };
        if let Some(inspected) = &self.inspected {
            // It goes on for as long as there is one who sends.
            drop(inspected.send((task, batch)));
        } else {
            let verdict = self.inspector.check(&batch.range, &batch.labels, &batch.smallest);
            self.shared.settle(self.number, task, batch, verdict);
        }
    }
}

/// Drivers may panic in the middle of a call.
fn guarded<T>(call: impl FnOnce() -> Result<T, DeviceError>) -> Result<T, DeviceError> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| Err(DeviceError::Failed("its driver gave up".into())))
}

/// What is told while a device is opened goes the way of everything else.
struct News<'a> {
    shared: &'a Shared,
}

impl Report for News<'_> {
    fn event(&self, event: &Event) {
        self.shared.lock().events.push(event.clone());
    }
}
