//! `doctor`: looks for what makes a host slow or unreliable.

use std::fs;

use kernels::posw::Backend;

use super::Failure;

pub(crate) fn run() -> Result<(), Failure> {
    let mut faults = 0;
    let mut report = |good: bool, text: String| {
        println!("{} {text}", if good { "ok     " } else { "problem" });
        faults += u32::from(!good);
    };
    let backend = Backend::fastest();
    report(
        backend != Backend::Portable,
        format!(
            "SHA-256 instructions: {}",
            if backend == Backend::Portable { "none, five times slower" } else { backend.name() }
        ),
    );
    match fs::read_to_string("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") {
        Ok(governor) => report(governor.trim() == "performance", format!("frequency governor: {}", governor.trim())),
        Err(_) => println!("unknown frequency governor: not visible here (usual in virtual machines)"),
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    report(cores >= 2, format!("processors: {cores}, of which hashing fills one"));
    match clock_is_synchronised() {
        Some(synchronised) => report(synchronised, format!("clock synchronised: {synchronised}")),
        None => println!("unknown clock synchronisation: nothing tells here; rounds begin and end by the clock"),
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    report(
        limit.maximum.is_none_or(|limit| limit >= 8192),
        format!("open files allowed: {}", limit.maximum.map_or("unlimited".into(), |limit| limit.to_string())),
    );
    if faults == 0 { Ok(()) } else { Err(Failure::Failed(format!("{faults} problems"))) }
}

/// What the time daemons of Linux leave behind; none where there is none of them.
fn clock_is_synchronised() -> Option<bool> {
    if fs::exists("/run/systemd/timesync").unwrap_or(false) {
        return Some(fs::exists("/run/systemd/timesync/synchronized").unwrap_or(false));
    }
    fs::exists("/run/chrony/chronyd.pid").ok().filter(|runs| *runs)
}
