//! The metrics page, in the text format of Prometheus, with the names of deployed servers (poet.md section 8).

use std::{
    array,
    fmt::Write as _,
    future::Future,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use crate::service::{Failure, Service};

/// How often something took how long: up to `first × factor^k` seconds for each of `N` buckets, and longer.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    first: f64,
    factor: f64,
    buckets: [AtomicU64; N],
    count: AtomicU64,
    micros: AtomicU64,
}

impl<const N: usize> Histogram<N> {
    fn new(first: f64, factor: f64) -> Self {
        Self {
            first,
            factor,
            buckets: array::from_fn(|_| AtomicU64::new(0)),
            count: AtomicU64::new(0),
            micros: AtomicU64::new(0),
        }
    }

    fn bounds(&self) -> impl Iterator<Item = f64> {
        std::iter::successors(Some(self.first), |bound| Some(bound * self.factor))
    }

    /// Counts one more.
    pub fn observe(&self, took: Duration) {
        let place = self.bounds().take(N).position(|bound| took.as_secs_f64() <= bound);
        if let Some(bucket) = place.and_then(|place| self.buckets.get(place)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
    }

    /// Samples of the family `name`; `labels` is empty or ends with a comma.
    fn print(&self, page: &mut String, name: &str, labels: &str) {
        let (mut below, count) = (0, load(&self.count));
        for (bucket, bound) in self.buckets.iter().zip(self.bounds()) {
            below += load(bucket);
            let _ = writeln!(page, "{name}_bucket{{{labels}le=\"{bound}\"}} {below}");
        }
        let _ = writeln!(page, "{name}_bucket{{{labels}le=\"+Inf\"}} {count}");
        let labels = match labels.trim_end_matches(',') {
            "" => String::new(),
            labels => format!("{{{labels}}}"),
        };
        let _ = writeln!(page, "{name}_sum{labels} {}\n{name}_count{labels} {count}", load(&self.micros) as f64 / 1e6);
    }
}

/// The calls of both interfaces: deployed servers translate REST to gRPC, so their counters of gRPC count both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// `PoetService.PowParams`.
    PowParams,
    /// `PoetService.Submit`.
    Submit,
    /// `PoetService.Info`.
    Info,
    /// `PoetService.Proof`.
    Proof,
    /// `ConfigurationService.ReloadTrustedKeys`.
    ReloadTrustedKeys,
}

impl Call {
    const ALL: [Self; 5] = [Self::PowParams, Self::Submit, Self::Info, Self::Proof, Self::ReloadTrustedKeys];

    const fn labels(self) -> (&'static str, &'static str) {
        const POET: &str = "rpc.api.v1.PoetService";
        match self {
            Self::PowParams => (POET, "PowParams"),
            Self::Submit => (POET, "Submit"),
            Self::Info => (POET, "Info"),
            Self::Proof => (POET, "Proof"),
            Self::ReloadTrustedKeys => ("rpc.api.v1.ConfigurationService", "ReloadTrustedKeys"),
        }
    }
}

/// Names of gRPC's codes, by their number.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

#[derive(Debug)]
struct Calls {
    started: AtomicU64,
    by_code: [AtomicU64; CODES.len()],
    took: Histogram<16>,
}

/// Everything that is counted.
#[derive(Debug)]
pub struct Counters {
    /// Submissions with a certificate: valid, invalid, expired.
    pub with_cert: [AtomicU64; 3],
    /// Submissions with a proof of work: valid, invalid.
    pub with_pow: [AtomicU64; 2],
    /// Requests by status class (2xx, 4xx, 5xx).
    pub requests: [AtomicU64; 3],
    /// Requests turned away because their client asks too often.
    pub limited: AtomicU64,
    /// Batches of registrations written.
    pub batch_write: Histogram<20>,
    calls: [Calls; Call::ALL.len()],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            with_cert: Default::default(),
            with_pow: Default::default(),
            requests: Default::default(),
            limited: AtomicU64::default(),
            batch_write: Histogram::new(0.001, 1.5),
            calls: array::from_fn(|_| Calls {
                started: AtomicU64::default(),
                by_code: Default::default(),
                took: Histogram::new(0.001, 2.0),
            }),
        }
    }
}

impl Counters {
    /// Counts a call and its outcome.
    pub async fn call<T>(&self, call: Call, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let calls = &self.calls[call as usize];
        calls.started.fetch_add(1, Ordering::Relaxed);
        let started = Instant::now();
        let outcome = work.await;
        let code = outcome.as_ref().map_or_else(|failure| failure.code as usize, |_| 0);
        if let Some(counter) = calls.by_code.get(code) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        calls.took.observe(started.elapsed());
        outcome
    }
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn head(page: &mut String, name: &str, kind: &str, help: &str) {
    let _ = write!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

/// The page as it is now.
pub fn page(service: &Service) -> String {
    let (snapshot, counters) = (service.snapshot(), &service.counters);
    let mut page = String::new();
    let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, u64)]| {
        head(&mut page, name, kind, help);
        for (labels, value) in samples {
            let _ = writeln!(page, "{name}{labels} {value}");
        }
    };
    let running: Vec<_> = snapshot.running.iter().collect();
    let of_running = |value: u64| running.iter().map(|(id, _)| (format!("{{id=\"{id}\"}}"), value)).collect::<Vec<_>>();
    family("poet_round_leaves_total", "counter", "leaves of the running round", &of_running(load(&service.progress.leaves)));
    let mut members: Vec<_> = running.iter().map(|(id, members)| (format!("{{id=\"{id}\"}}"), *members)).collect();
    members.push((format!("{{id=\"{}\"}}", snapshot.open), snapshot.members));
    family("poet_round_members_total", "counter", "members of the open and the running round", &members);
    let by = |label: &str, names: &[&str], counts: &[AtomicU64]| {
        names.iter().zip(counts).map(|(name, count)| (format!("{{{label}=\"{name}\"}}"), load(count))).collect::<Vec<_>>()
    };
    let results = ["valid", "invalid", "expired"];
    let with_cert = by("result", &results, &counters.with_cert);
    family("poet_registration_with_cert_total", "counter", "submissions with a certificate", &with_cert);
    let with_pow = by("result", &results, &counters.with_pow);
    family("poet_registration_with_pow_total", "counter", "submissions with a proof of work", &with_pow);
    let classes = by("class", &["2xx", "4xx", "5xx"], &counters.requests);
    family("poet_rest_requests_total", "counter", "REST requests by class of status", &classes);
    let one = |value: u64| vec![(String::new(), value)];
    family("poet_requests_limited_total", "counter", "requests of clients that ask too often", &one(load(&counters.limited)));
    let paused = u64::from(snapshot.paused);
    family("poet_registration_paused", "gauge", "whether the operator has paused registration", &one(paused));
    let held = u64::from(snapshot.held_from.is_some());
    family("poet_rounds_held", "gauge", "whether the operator holds the rounds to come", &one(held));
    hashing(&mut page, &service.progress);
    let name = "poet_round_batch_write_latency_seconds";
    head(&mut page, name, "histogram", "time to write a batch of registrations");
    counters.batch_write.print(&mut page, name, "");
    calls(&mut page, counters);
    process(&mut page);
    page
}

/// The page of a server that only runs rounds.
pub fn worker_page(progress: &crate::worker::Progress) -> String {
    let mut page = String::new();
    head(&mut page, "poet_worker_leaves", "gauge", "leaves of the round this worker runs");
    let _ = writeln!(page, "poet_worker_leaves {}", load(&progress.leaves));
    hashing(&mut page, progress);
    process(&mut page);
    page
}

fn hashing(page: &mut String, progress: &crate::worker::Progress) {
    let gauges = [
        ("poet_hashing_leaves_per_second", "leaves of the last second", &progress.rate),
        (
            "poet_hashing_leaves_per_cpu_second",
            "leaves per second of processor time of the hashing thread",
            &progress.rate_on_cpu,
        ),
        (
            "poet_hashing_on_cpu_permille",
            "part of the last second for which the hashing thread had a processor",
            &progress.on_cpu,
        ),
        (
            "poet_hashing_share_of_bound_permille",
            "speed of the last second relative to that of the bare chain on this processor",
            &progress.share_of_bound,
        ),
    ];
    for (name, help, value) in gauges {
        head(page, name, "gauge", help);
        let _ = writeln!(page, "{name} {}", load(value));
    }
}

fn calls(page: &mut String, counters: &Counters) {
    let labelled = |call: Call| {
        let (service, method) = call.labels();
        format!("grpc_type=\"unary\",grpc_service=\"{service}\",grpc_method=\"{method}\"")
    };
    let all = || Call::ALL.into_iter().map(labelled).zip(&counters.calls);
    for (name, help, sent) in [
        ("grpc_server_started_total", "calls that were begun", false),
        ("grpc_server_msg_received_total", "messages received", false),
        ("grpc_server_msg_sent_total", "messages sent", true),
    ] {
        head(page, name, "counter", help);
        for (labels, calls) in all() {
            let count = if sent { &calls.by_code[0] } else { &calls.started };
            let _ = writeln!(page, "{name}{{{labels}}} {}", load(count));
        }
    }
    let name = "grpc_server_handled_total";
    head(page, name, "counter", "calls that were answered, by code");
    for (labels, calls) in all() {
        for (code, count) in CODES.iter().zip(&calls.by_code) {
            let _ = writeln!(page, "{name}{{{labels},grpc_code=\"{code}\"}} {}", load(count));
        }
    }
    let name = "grpc_server_handling_seconds";
    head(page, name, "histogram", "time to answer a call");
    for (labels, calls) in all() {
        calls.took.print(page, name, &format!("{labels},"));
    }
}

/// What the usual client libraries tell about the process; nothing where the system does not tell.
fn process(page: &mut String) {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    head(page, "process_cpu_seconds_total", "counter", "processor time of the process");
    let _ = writeln!(page, "process_cpu_seconds_total {}.{:03}", used.tv_sec, used.tv_nsec / 1_000_000);
    if let Some(resident) = resident_bytes("VmRSS:") {
        head(page, "process_resident_memory_bytes", "gauge", "memory of the process");
        let _ = writeln!(page, "process_resident_memory_bytes {resident}");
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        head(page, "process_open_fds", "gauge", "open files and connections");
        let _ = writeln!(page, "process_open_fds {}", open.count());
    }
    if let Some(limit) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        head(page, "process_max_fds", "gauge", "files and connections that may be open");
        let _ = writeln!(page, "process_max_fds {limit}");
    }
}

/// A line of `/proc/self/status` that is an amount of memory, such as `VmRSS:` or `VmHWM:`.
pub fn resident_bytes(line: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let rest = status.lines().find_map(|text| text.strip_prefix(line))?;
    rest.split_whitespace().next()?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_are_cumulative_and_their_last_bucket_holds_all() {
        let histogram = Histogram::<3>::new(0.001, 2.0);
        for micros in [500, 1000, 1500, 3900, 9000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let mut page = String::new();
        histogram.print(&mut page, "x", "a=\"b\",");
        let expected = "x_bucket{a=\"b\",le=\"0.001\"} 2\nx_bucket{a=\"b\",le=\"0.002\"} 3\nx_bucket{a=\"b\",le=\"0.004\"} 4\n\
                        x_bucket{a=\"b\",le=\"+Inf\"} 5\nx_sum{a=\"b\"} 0.0159\nx_count{a=\"b\"} 5\n";
        assert_eq!(page, expected);
    }

    #[test]
    fn codes_have_the_numbers_of_grpc() {
        for (number, name) in (0..).zip(CODES) {
            let code = tonic::Code::from_i32(number);
            let theirs = format!("{code:?}");
            assert_eq!(theirs.to_lowercase().replace("cancelled", "canceled"), name.to_lowercase());
        }
    }
}
