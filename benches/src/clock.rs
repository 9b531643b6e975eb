//! Processor time and the speed of the processor.

use std::hint::black_box;

use rustix::time::{ClockId, Timespec, clock_gettime};

fn seconds(time: Timespec) -> f64 {
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Processor seconds of this thread.
pub(crate) fn thread_time() -> f64 {
    seconds(clock_gettime(ClockId::ThreadCPUTime))
}

/// Processor seconds of this process, all threads together.
pub(crate) fn process_time() -> f64 {
    seconds(clock_gettime(ClockId::ProcessCPUTime))
}

/// Cycles per second of the core this runs on, by a chain of additions that depend on each other and take one cycle each; the
/// time stamp counter runs at another speed.
pub(crate) fn cycles_per_second() -> f64 {
    const ROUNDS: u64 = 20_000_000;
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = thread_time();
        let mut x = black_box(1_u64);
        for _ in 0..ROUNDS {
            // A rotation and an addition cannot be merged over the rounds by the compiler: 2 cycles each, 8 per round.
            x = x.rotate_left(7).wrapping_add(x);
            x = x.rotate_left(9).wrapping_add(x);
            x = x.rotate_left(13).wrapping_add(x);
            x = x.rotate_left(18).wrapping_add(x);
        }
        black_box(x);
        best = best.min(thread_time() - start);
    }
    ROUNDS as f64 * 8.0 / best
}

/// The value in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
