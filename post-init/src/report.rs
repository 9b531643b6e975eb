//! How news is shown: a progress bar on a terminal, plain lines elsewhere, JSON lines for programs, metrics for Prometheus.

use std::{
    io::{self, IsTerminal as _, Write as _},
    net::SocketAddr,
    sync::Mutex,
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use metrics::{counter, gauge};
use metrics_exporter_prometheus::PrometheusBuilder;

use crate::{
    error::Error,
    event::{DeviceProgress, Event, Report},
    size::{show_duration, show_size},
};

/// Time between two progress lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// One JSON object per line on standard output.
pub struct JsonLines;

impl Report for JsonLines {
    fn event(&self, event: &Event) {
        if let Ok(line) = serde_json::to_string(event) {
            // Nobody reading is no reason to stop working.
            let _ = writeln!(io::stdout().lock(), "{line}");
        }
    }
}

/// Lines and a progress bar on standard error.
pub struct Human {
    bars: MultiProgress,
    state: Mutex<State>,
}

struct State {
    total: Option<ProgressBar>,
    devices: Vec<ProgressBar>,
    lined: Instant,
}

impl Default for Human {
    fn default() -> Self {
        Self::new()
    }
}

impl Human {
    /// Nothing is drawn until there is news.
    pub fn new() -> Self {
        Self { bars: MultiProgress::new(), state: Mutex::new(State { total: None, devices: Vec::new(), lined: Instant::now() }) }
    }

    fn line(&self, text: &str) {
        if io::stderr().is_terminal() {
            let _ = self.bars.println(text);
        } else {
            let _ = writeln!(io::stderr().lock(), "{text}");
        }
    }

    fn progress(&self, done: u64, total: u64, bytes: u64, rate: f64, eta: Option<f64>, devices: &[DeviceProgress]) {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let eta = eta.map_or_else(|| "unknown".to_owned(), show_duration);
        let numbers = format!("{} / {}, {rate:.0} labels/s, {eta} left", show_size(bytes), show_size(total * 16));
        if !io::stderr().is_terminal() {
            if state.lined.elapsed() >= LINE_EVERY {
                state.lined = Instant::now();
                self.line(&format!("{:.1} %: {numbers}", 100.0 * done as f64 / total.max(1) as f64));
            }
            return;
        }
        let Some(bar) = &state.total else { return };
        bar.set_position(done.min(total));
        bar.set_message(numbers);
        while state.devices.len() < devices.len() {
            let line = self.bars.add(ProgressBar::no_length());
            line.set_style(ProgressStyle::with_template("  {msg}").unwrap_or_else(|_| ProgressStyle::default_bar()));
            state.devices.push(line);
        }
        for (line, device) in state.devices.iter().zip(devices) {
            line.set_message(format!(
                "{} × {}: {:.0} labels/s, {} labels, {:.0} % busy, {}",
                device.name,
                device.workers,
                device.labels_per_second,
                device.labels,
                100.0 * device.busy_share,
                device.state
            ));
        }
    }
}

impl Report for Human {
    fn event(&self, event: &Event) {
        match event {
            Event::Note { text } => self.line(text),
            Event::Warning { text } => self.line(&format!("warning: {text}")),
            Event::Started { task, labels_done, labels_total, .. } => {
                let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                for bar in state.total.take().into_iter().chain(state.devices.drain(..)) {
                    bar.finish_and_clear();
                }
                if io::stderr().is_terminal() {
                    let bar = self.bars.add(ProgressBar::new(*labels_total));
                    let style = ProgressStyle::with_template("{prefix} [{wide_bar}] {percent} %  {msg}");
                    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
                    bar.set_prefix(*task);
                    bar.set_position(*labels_done);
                    state.total = Some(bar);
                }
            }
            Event::Progress { labels_done, labels_total, bytes_done, labels_per_second, eta_seconds, devices } => {
                self.progress(*labels_done, *labels_total, *bytes_done, *labels_per_second, *eta_seconds, devices);
            }
            Event::Nonce { .. } => {}
            Event::Device { device, text, .. } => self.line(&format!("{device}: {text}")),
            Event::Paused => self.line("paused; going on with SIGUSR2 or `post-init control resume`"),
            Event::Resumed => self.line("going on"),
            Event::WaitingForSpace { dir, missing_bytes } => self.line(&format!(
                "{dir} is full: {missing_bytes} bytes ({}) are missing; waiting for room",
                show_size(*missing_bytes)
            )),
            Event::SpaceAgain { dir } => self.line(&format!("{dir}: there is room again, going on")),
            Event::WrongLabels { file, first, last } if first == last => self.line(&format!("{file}: label {first} is wrong")),
            Event::WrongLabels { file, first, last } => {
                self.line(&format!("{file}: labels {first} to {last} are wrong ({})", last - first + 1));
            }
            Event::MissingLabels { file, found: 0, expected } => self.line(&format!("{file}: missing ({expected} labels)")),
            Event::MissingLabels { file, found, expected } => {
                self.line(&format!("{file}: only {found} of {expected} labels"));
            }
            Event::Done { task, labels, seconds, text } => {
                let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                for bar in state.total.take().into_iter().chain(state.devices.drain(..)) {
                    bar.finish_and_clear();
                }
                drop(state);
                let rate = if *labels > 0 && *seconds > 0.0 {
                    format!(" ({}, {:.0} labels/s)", show_duration(*seconds), *labels as f64 / seconds)
                } else {
                    String::new()
                };
                self.line(&format!("{task}: {text}{rate}"));
            }
        }
    }
}

/// Prometheus metrics under `/metrics` and a health check under `/health`.
pub struct Metrics;

impl Metrics {
    /// Starts to serve; fails when the address cannot be used.
    pub fn serve(address: SocketAddr) -> Result<Self, Error> {
        PrometheusBuilder::new()
            .with_http_listener(address)
            .install()
            .map_err(|error| Error::Usage(format!("cannot serve metrics on {address}: {error}")))?;
        Ok(Self)
    }
}

impl Report for Metrics {
    fn event(&self, event: &Event) {
        match event {
            Event::Started { labels_done, labels_total, .. } => {
                gauge!("post_init_labels_done").set(*labels_done as f64);
                gauge!("post_init_labels_total").set(*labels_total as f64);
                gauge!("post_init_waiting_for_space").set(0.0);
            }
            Event::Progress { labels_done, labels_per_second, eta_seconds, devices, .. } => {
                gauge!("post_init_labels_done").set(*labels_done as f64);
                gauge!("post_init_labels_per_second").set(*labels_per_second);
                if let Some(eta) = eta_seconds {
                    gauge!("post_init_eta_seconds").set(*eta);
                }
                for device in devices {
                    counter!("post_init_device_labels_total", "device" => device.name.clone()).absolute(device.labels);
                    gauge!("post_init_device_labels_per_second", "device" => device.name.clone()).set(device.labels_per_second);
                    gauge!("post_init_device_busy_share", "device" => device.name.clone()).set(device.busy_share);
                    gauge!("post_init_device_allocated_bytes", "device" => device.name.clone())
                        .set(device.allocated_bytes as f64);
                    counter!("post_init_device_strikes_total", "device" => device.name.clone()).absolute(device.strikes.into());
                }
            }
            Event::WaitingForSpace { missing_bytes, .. } => {
                gauge!("post_init_waiting_for_space").set(1.0);
                gauge!("post_init_missing_bytes").set(*missing_bytes as f64);
            }
            Event::SpaceAgain { .. } => gauge!("post_init_waiting_for_space").set(0.0),
            Event::Paused => gauge!("post_init_paused").set(1.0),
            Event::Resumed => gauge!("post_init_paused").set(0.0),
            Event::WrongLabels { first, last, .. } => counter!("post_init_wrong_labels_total").increment(last - first + 1),
            Event::Note { .. }
            | Event::Warning { .. }
            | Event::Nonce { .. }
            | Event::Device { .. }
            | Event::MissingLabels { .. }
            | Event::Done { .. } => {}
        }
    }
}
