//! How many nonces to try per pass (`docs/spec/post.md` section 12.5): more of them make a pass likelier to succeed and slower.

use std::time::Duration;

use kernels::scan::{MAX_GROUP, NONCES_PER_GROUP};
use proto::units::Labels;

/// Probability that one nonce has at least `k2` good labels among `num_labels`, of which `k1` are good on average:
/// `P(Binomial(num_labels, k1 / num_labels) >= k2)`.
pub fn nonce_success(num_labels: Labels, k1: u32, k2: u32) -> f64 {
    let n = num_labels.0 as f64;
    if k2 == 0 {
        return 1.0;
    }
    if f64::from(k2) > n || k1 == 0 {
        return 0.0;
    }
    let q = f64::from(k1) / n;
    if q >= 1.0 {
        return 1.0;
    }
    // The terms below k2 as a recurrence, begun as a logarithm, since the first may be tiny.
    let mut log_term = n * (-q).ln_1p();
    let odds = (q / (1.0 - q)).ln();
    let mut below = 0.0;
    for k in 0..k2 {
        below += log_term.exp();
        log_term += ((n - f64::from(k)) / f64::from(k + 1)).ln() + odds;
    }
    (1.0 - below).clamp(0.0, 1.0)
}

/// Probability that at least one of `nonces` nonces succeeds.
pub fn pass_success(per_nonce: f64, nonces: u32) -> f64 {
    1.0 - (1.0 - per_nonce).powi(nonces.cast_signed())
}

/// What was measured, and what is at stake.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// Bytes of data.
    pub bytes: u64,
    /// Bytes per second the disk gives.
    pub disk: f64,
    /// Bytes per second all threads together scan, times the number of nonces: the scan of one nonce group.
    pub scan_per_group: f64,
    /// Hashes one k2pow takes on average.
    pub hashes_per_group: f64,
    /// RandomX hashes per second of all threads.
    pub hash_rate: f64,
    /// Probability of one nonce, see [`nonce_success`].
    pub per_nonce: f64,
    /// Time in which a proof must be made.
    pub window: Duration,
}

/// What to expect of a number of nonces.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outlook {
    /// Nonces per pass.
    pub nonces: u32,
    /// Probability that a pass succeeds.
    pub pass_success: f64,
    /// Time k2pow takes per pass.
    pub pow: Duration,
    /// Time reading and scanning takes per pass.
    pub read: Duration,
    /// Probability that no proof is made within the window.
    pub miss: f64,
    /// Time until a proof is made, on average.
    pub expected: Duration,
}

fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or(Duration::MAX)
}

/// What to expect of `nonces` per pass.
pub fn outlook(measured: &Measured, nonces: u32) -> Outlook {
    let groups = f64::from(nonces / NONCES_PER_GROUP);
    let pow = groups * measured.hashes_per_group / measured.hash_rate;
    let read = measured.bytes as f64 / measured.disk.min(measured.scan_per_group / groups);
    let passes_in_window = (measured.window.as_secs_f64() / (pow + read)).floor();
    let success = pass_success(measured.per_nonce, nonces);
    // After the 4096th nonce there is nothing more to try.
    let passes = passes_in_window.min(f64::from((MAX_GROUP + 1) * NONCES_PER_GROUP / nonces));
    Outlook {
        nonces,
        pass_success: success,
        pow: seconds(pow),
        read: seconds(read),
        miss: (1.0 - success).powf(passes),
        expected: seconds((pow + read) / success),
    }
}

/// The number of nonces with the shortest expected time among those whose chance to miss the window is at most `target`; if no
/// number reaches the target, the one that comes closest.
pub fn best(measured: &Measured, target: f64) -> Outlook {
    let all = (1..=MAX_GROUP + 1).map(|groups| outlook(measured, groups * NONCES_PER_GROUP));
    let safe = all.clone().filter(|o| o.miss <= target).min_by_key(|o| o.expected);
    let least = |a: &Outlook, b: &Outlook| a.miss.total_cmp(&b.miss).then(a.expected.cmp(&b.expected));
    safe.or_else(|| all.min_by(least)).unwrap_or_else(|| outlook(measured, NONCES_PER_GROUP))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mainnet() -> f64 {
        nonce_success(Labels(1 << 34), 26, 37)
    }

    #[test]
    fn chances_are_those_of_the_specification() {
        assert!((mainnet() - 0.024_380_2).abs() < 5e-8, "{}", mainnet());
        for (nonces, percent, digits) in [
            (16, 32.63, 2),
            (64, 79.40, 2),
            (96, 90.65, 2),
            (128, 95.75, 2),
            (192, 99.13, 2),
            (288, 99.918, 3),
            (512, 99.9997, 4),
        ] {
            let got = pass_success(mainnet(), nonces) * 100.0;
            assert!((got - percent).abs() <= 0.5 * 10_f64.powi(-digits) * 1.01, "{nonces}: {got}");
        }
    }

    #[test]
    fn extremes_are_probabilities() {
        assert!((nonce_success(Labels(100), 100, 37) - 1.0).abs() < 1e-12);
        assert!(nonce_success(Labels(30), 26, 37) == 0.0);
        assert!((nonce_success(Labels(u64::MAX), 26, 0) - 1.0).abs() < 1e-12);
        let two_of_three = nonce_success(Labels(3), 1, 2);
        // 3 * (1/3)^2 * 2/3 + (1/3)^3
        assert!((two_of_three - 7.0 / 27.0).abs() < 1e-12);
    }

    #[test]
    fn slow_disks_get_more_nonces_and_slow_cpus_fewer() {
        let measured = Measured {
            bytes: 256 << 30,
            disk: 150e6,
            scan_per_group: 18e9,
            hashes_per_group: 18750.0,
            hash_rate: 2000.0,
            per_nonce: mainnet(),
            window: Duration::from_secs(12 * 3600),
        };
        let plan = best(&measured, 1e-4);
        assert!(plan.miss <= 1e-4);
        // 30 minutes to read, 24 passes would fit; nonces cost 9 s per 16
        assert!(plan.nonces >= 96, "{plan:?}");
        let hdd = best(&Measured { bytes: 4 << 40, ..measured }, 1e-4);
        assert!(hdd.nonces > plan.nonces, "one pass of 8 hours must do: {hdd:?}");
        let slow = best(&Measured { hash_rate: 20.0, ..measured }, 1e-4);
        assert!(slow.nonces < plan.nonces, "{slow:?}");
        let hopeless = best(&Measured { disk: 1e6, ..measured }, 1e-4);
        assert!(hopeless.miss > 0.99);
    }
}
