//! How far a task is and how fast it goes: turns finished labels into [`Event::Progress`].

use std::{
    cell::RefCell,
    collections::VecDeque,
    time::{Duration, Instant},
};

use proto::post::LABEL_BYTES;

use crate::{
    error::Error,
    event::{DeviceProgress, Event, Report},
};

/// Time between two progress events.
const EVERY: Duration = Duration::from_millis(500);
/// The rate is an average over this time.
const AVERAGE: Duration = Duration::from_secs(30);

/// Counts the labels of one task.
pub struct Meter<'a> {
    report: &'a dyn Report,
    done: u64,
    total: u64,
    told: Instant,
    samples: VecDeque<(Instant, u64)>,
}

impl<'a> Meter<'a> {
    /// Tells that the task starts. `rate` is what the pool was measured to do, 0 if it was not.
    pub fn start(report: &'a dyn Report, task: &'static str, done: u64, total: u64, rate: f64) -> Self {
        let estimate_seconds = (rate > 0.0).then(|| (total - done) as f64 / rate);
        report.event(&Event::Started { task, labels_done: done, labels_total: total, labels_per_second: rate, estimate_seconds });
        let now = Instant::now();
        Self { report, done, total, told: now, samples: VecDeque::from([(now, done)]) }
    }

    /// Some more labels are done.
    pub fn add(&mut self, labels: u64) {
        self.done += labels;
    }

    /// Tells the progress if it was not told just now.
    pub fn tick(&mut self, devices: &[DeviceProgress]) {
        if self.told.elapsed() >= EVERY {
            self.tell(devices);
        }
    }

    /// What does that several times a second.
    pub fn ticker(meter: &RefCell<Self>) -> impl FnMut(&[DeviceProgress]) -> Result<(), Error> {
        |devices| {
            meter.borrow_mut().tick(devices);
            Ok(())
        }
    }

    fn tell(&mut self, devices: &[DeviceProgress]) {
        let now = Instant::now();
        self.told = now;
        while self.samples.len() > 1 && now - self.samples[0].0 > AVERAGE {
            self.samples.pop_front();
        }
        let (since, labels) = self.samples[0];
        let rate = (self.done - labels) as f64 / (now - since).as_secs_f64().max(1e-3);
        self.samples.push_back((now, self.done));
        self.report.event(&Event::Progress {
            labels_done: self.done,
            labels_total: self.total,
            bytes_done: self.done * LABEL_BYTES,
            labels_per_second: rate,
            // A search may take longer than expected.
            eta_seconds: (rate > 0.0).then(|| self.total.saturating_sub(self.done) as f64 / rate),
            devices: devices.to_vec(),
        });
    }

    /// Tells the last progress.
    pub fn finish(mut self, devices: &[DeviceProgress]) {
        self.tell(devices);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Silent;

    #[test]
    fn a_search_may_take_longer_than_expected() {
        let mut meter = Meter::start(&Silent, "looking for a nonce", 0, 10, 1.0);
        meter.add(25);
        meter.finish(&[]);
    }
}
