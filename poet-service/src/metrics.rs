//! The metrics page, in the text format of Prometheus, with the names of deployed servers (poet.md section 8).

use std::{fmt::Write as _, sync::atomic::Ordering};

use crate::service::Service;

/// The page as it is now.
pub fn page(service: &Service) -> String {
    let (snapshot, counters, progress) = (service.snapshot(), &service.counters, &service.progress);
    let mut page = String::new();
    let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, u64)]| {
        let _ = write!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (labels, value) in samples {
            let _ = writeln!(page, "{name}{labels} {value}");
        }
    };
    let running: Vec<_> = snapshot.running.iter().collect();
    let of_running = |value: u64| running.iter().map(|(id, _)| (format!("{{id=\"{id}\"}}"), value)).collect::<Vec<_>>();
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    family("poet_round_leaves_total", "counter", "leaves of the running round", &of_running(load(&progress.leaves)));
    let mut members: Vec<_> = running.iter().map(|(id, members)| (format!("{{id=\"{id}\"}}"), *members)).collect();
    members.push((format!("{{id=\"{}\"}}", snapshot.open), snapshot.members));
    family("poet_round_members_total", "counter", "members of the open and the running round", &members);
    let cert = ["valid", "invalid", "expired"];
    let by_result = |names: &[&str], counts: &[std::sync::atomic::AtomicU64]| {
        names.iter().zip(counts).map(|(name, count)| (format!("{{result=\"{name}\"}}"), load(count))).collect::<Vec<_>>()
    };
    family(
        "poet_registration_with_cert_total",
        "counter",
        "submissions with a certificate",
        &by_result(&cert, &counters.with_cert),
    );
    family(
        "poet_registration_with_pow_total",
        "counter",
        "submissions with a proof of work",
        &by_result(&cert[..2], &counters.with_pow),
    );
    let one = |value: u64| vec![(String::new(), value)];
    family("poet_hashing_leaves_per_second", "gauge", "leaves of the last second", &one(load(&progress.rate)));
    family(
        "poet_hashing_leaves_per_cpu_second",
        "gauge",
        "leaves per second of processor time of the hashing thread",
        &one(load(&progress.rate_on_cpu)),
    );
    family(
        "poet_hashing_on_cpu_permille",
        "gauge",
        "part of the last second for which the hashing thread had a processor",
        &one(load(&progress.on_cpu)),
    );
    let classes = ["2xx", "4xx", "5xx"].iter().zip(&counters.requests);
    let classes: Vec<_> = classes.map(|(name, count)| (format!("{{class=\"{name}\"}}"), load(count))).collect();
    family("poet_rest_requests_total", "counter", "REST requests by class of status", &classes);

    let name = "poet_round_batch_write_latency_seconds";
    let _ = write!(page, "# HELP {name} time to write a batch of registrations\n# TYPE {name} histogram\n");
    let mut below = 0;
    let mut bound_seconds = 0.001;
    for (k, count) in counters.batch_latency.iter().enumerate() {
        below += load(count);
        let bound = if k < 20 { format!("{bound_seconds:.9}") } else { "+Inf".into() };
        bound_seconds *= 1.5;
        let _ = writeln!(page, "{name}_bucket{{le=\"{bound}\"}} {below}");
    }
    let sum = load(&counters.batch_latency_sum) as f64 / 1e6;
    let _ = write!(page, "{name}_sum {sum}\n{name}_count {below}\n");
    page
}
