//! What is told while work goes on: one type for the progress bar, the JSON lines and the metrics alike.

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
