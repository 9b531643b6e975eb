//! What is told while work goes on: one type for the progress bar, the JSON lines and the metrics alike.

use std::fmt;

use serde::Serialize;

/// One piece of news.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// Something worth a line of text.
    Note {
        /// The text.
        text: String,
    },
    /// Something the user should think about; the work goes on.
    Warning {
        /// The text.
        text: String,
    },
    /// A task with a known amount of labels begins.
    Started {
        /// What is done, e.g. `initialising`.
        task: &'static str,
        /// Labels that are done already.
        labels_done: u64,
        /// All labels of the task.
        labels_total: u64,
        /// Labels per second measured just before, 0 when not measured.
        labels_per_second: f64,
        /// Estimated seconds, where a rate was measured.
        #[serde(skip_serializing_if = "Option::is_none")]
        estimate_seconds: Option<f64>,
    },
    /// How far the task is; about once a second.
    Progress {
        /// Labels done, counted like in `Started`.
        labels_done: u64,
        /// All labels of the task.
        labels_total: u64,
        /// Bytes done: 16 per label.
        bytes_done: u64,
        /// Labels per second of all devices over the last seconds.
        labels_per_second: f64,
        /// Estimated seconds left.
        eta_seconds: Option<f64>,
        /// Each device.
        devices: Vec<DeviceProgress>,
    },
    /// A smaller label than any before was found below the threshold.
    Nonce {
        /// Its index.
        index: u64,
        /// Its 16 bytes in hex.
        value: String,
    },
    /// Something about a device: it is ready, failed, was wrong, is tried again, is not used any more.
    Device {
        /// Name of the device.
        device: String,
        /// How it stands now.
        state: DeviceState,
        /// What happened, and what to do about it where there is something to do.
        text: String,
    },
    /// Somebody asked for a pause: devices stop after their batch and give their memory back.
    Paused,
    /// Work goes on after a pause.
    Resumed,
    /// The disk is full; work goes on when there is room.
    WaitingForSpace {
        /// The directory.
        dir: String,
        /// Bytes missing for the rest of the work.
        missing_bytes: u64,
    },
    /// There is room again.
    SpaceAgain {
        /// The directory.
        dir: String,
    },
    /// A range of wrong labels was found.
    WrongLabels {
        /// Name of the file.
        file: String,
        /// First wrong label.
        first: u64,
        /// Last wrong label.
        last: u64,
    },
    /// A file lacks labels at its end, or is missing.
    MissingLabels {
        /// Name of the file.
        file: String,
        /// Labels on disk.
        found: u64,
        /// Labels there should be.
        expected: u64,
    },
    /// The task ended well.
    Done {
        /// What was done.
        task: &'static str,
        /// Labels of the task.
        labels: u64,
        /// Seconds it took.
        seconds: f64,
        /// One sentence for people.
        text: String,
    },
}

/// What one device did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeviceProgress {
    /// Name of the device, the same for all threads of a CPU backend.
    pub name: String,
    /// Threads (or streams) of the device.
    pub workers: usize,
    /// Labels made so far in this task.
    pub labels: u64,
    /// Labels per second of its busy time, all workers together.
    pub labels_per_second: f64,
    /// Seconds its workers were computing, all together.
    pub busy_seconds: f64,
    /// Share of the task's time in which it was computing, from 0 to 1.
    pub busy_share: f64,
    /// The rest: it waited, was opened, paused or checked.
    pub idle_share: f64,
    /// Batches made so far.
    pub batches: u64,
    /// How often it was wrong or hung.
    pub strikes: u32,
    /// How it stands.
    pub state: DeviceState,
    /// Bytes of memory it holds on the device.
    pub allocated_bytes: u64,
}

impl DeviceProgress {
    /// Of a device that has done nothing.
    pub fn new(name: String, state: DeviceState) -> Self {
        Self {
            name,
            workers: 0,
            labels: 0,
            labels_per_second: 0.0,
            busy_seconds: 0.0,
            busy_share: 0.0,
            idle_share: 1.0,
            batches: 0,
            strikes: 0,
            state,
            allocated_bytes: 0,
        }
    }
}

/// How a device stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceState {
    /// It is being opened, which may compile and tune.
    Opening,
    /// It computes.
    Working,
    /// It waits for something to do.
    Idle,
    /// Somebody asked for a pause.
    Paused,
    /// It is too hot or draws too much power.
    Limited,
    /// It failed and will be tried again.
    Waiting,
    /// It was wrong or hung too often and is not used any more.
    Quarantined,
    /// It cannot be used.
    Failed,
}

impl fmt::Display for DeviceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Opening => "opening",
            Self::Working => "working",
            Self::Idle => "idle",
            Self::Paused => "paused",
            Self::Limited => "limited",
            Self::Waiting => "waiting",
            Self::Quarantined => "quarantined",
            Self::Failed => "failed",
        })
    }
}

/// Takes the news.
pub trait Report: Send + Sync {
    /// Called from several threads; must not block for long.
    fn event(&self, event: &Event);
}

/// Several listeners at once.
pub struct Reports(pub Vec<Box<dyn Report>>);

impl Report for Reports {
    fn event(&self, event: &Event) {
        for report in &self.0 {
            report.event(event);
        }
    }
}

/// Nobody listens.
pub struct Silent;

impl Report for Silent {
    fn event(&self, _: &Event) {}
}

impl dyn Report + '_ {
    /// Tells a line of text.
    pub fn note(&self, text: impl Into<String>) {
        self.event(&Event::Note { text: text.into() });
    }

    /// Tells a warning.
    pub fn warn(&self, text: impl Into<String>) {
        self.event(&Event::Warning { text: text.into() });
    }
}
