//! A token bucket: a burst at once, then one after the other.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep};

/// Lets `burst` through at once and refills one every `step`.
#[derive(Debug)]
pub(crate) struct Bucket {
    step: Duration,
    burst: Duration,
    /// When everything that was let through would have been, one every `step`.
    paid: Mutex<Instant>,
}

impl Bucket {
    /// A full bucket of `per_second` tokens, refilled within a second.
    pub(crate) fn new(per_second: u32) -> Self {
        let second = Duration::from_secs(1);
        Self { step: second / per_second.max(1), burst: second, paid: Mutex::new(Instant::now()) }
    }

    /// Takes a token, and waits until it is there.
    pub(crate) async fn take(&self) {
        let wait = self.reserve(Instant::now());
        if !wait.is_zero() {
            sleep(wait).await;
        }
    }

    fn reserve(&self, now: Instant) -> Duration {
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        *paid = (*paid).max(now) + self.step;
        paid.saturating_duration_since(now).saturating_sub(self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_through_and_the_rest_waits() {
        let bucket = Bucket::new(4);
        let now = Instant::now() + Duration::from_secs(1);
        let waits: Vec<_> = (0..6).map(|_| bucket.reserve(now).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 250, 500]);
        let later = now + Duration::from_secs(1);
        assert_eq!(bucket.reserve(later).as_millis(), 0);
        // it holds no more than a burst, however long nothing happens
        let much_later = now + Duration::from_secs(100);
        let waits: Vec<_> = (0..5).map(|_| bucket.reserve(much_later).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 250]);
    }
}
