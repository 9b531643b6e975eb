//! How often one client may ask: a bucket of tokens per address.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Clients that are remembered at once; a few megabytes.
const CLIENTS: usize = 1 << 16;

/// A client may save up the requests of so many seconds.
const BURST_SECONDS: f64 = 10.0;

/// How often full buckets are looked for where there are too many; looking takes a millisecond.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Counts the requests of clients.
#[derive(Debug)]
pub struct Limiter {
    rate: f64,
    clients: Mutex<Clients>,
}

#[derive(Debug, Default)]
struct Clients {
    buckets: HashMap<IpAddr, Bucket>,
    swept: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Limiter {
    /// Allows every client `rate` requests per second, and any number if that is zero.
    pub fn new(rate: u32) -> Self {
        Self { rate: f64::from(rate), clients: Mutex::default() }
    }

    /// Whether `client` may ask at `now`; counts the request if so.
    pub fn allows(&self, client: IpAddr, now: Instant) -> bool {
        if self.rate == 0.0 {
            return true;
        }
        let full = self.rate * BURST_SECONDS;
        let level =
            |bucket: &Bucket| (bucket.tokens + self.rate * now.saturating_duration_since(bucket.filled).as_secs_f64()).min(full);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let Clients { buckets, swept } = &mut *clients;
        let client = network(client);
        if buckets.len() >= CLIENTS && !buckets.contains_key(&client) {
            if swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP_EVERY) {
                // who has a full bucket is as good as unknown
                buckets.retain(|_, bucket| level(bucket) < full);
                *swept = Some(now);
            }
            if buckets.len() >= CLIENTS {
                // more addresses than are remembered: the limits of connections and queue hold
                return true;
            }
        }
        let bucket = buckets.entry(client).or_insert(Bucket { tokens: full, filled: now });
        *bucket = Bucket { tokens: level(bucket), filled: now };
        let allowed = bucket.tokens >= 1.0;
        bucket.tokens -= f64::from(u8::from(allowed));
        allowed
    }
}

/// What one client can easily have many addresses of counts as one.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_a_burst_and_then_its_rate() {
        let limiter = Limiter::new(5);
        let (start, client) = (Instant::now(), IpAddr::from([10, 0, 0, 1]));
        let allowed = |count: usize, client, at| (0..count).filter(|_| limiter.allows(client, at)).count();
        assert_eq!(allowed(100, client, start), 50);
        assert_eq!(allowed(100, client, start + Duration::from_secs(2)), 10);
        assert_eq!(allowed(100, client, start + Duration::from_secs(60)), 50);
        assert_eq!(allowed(100, IpAddr::from([10, 0, 0, 2]), start), 50);
        // the same network counts as one client, however it is written
        let v6 = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 7, 0, 0, 0, last]);
        assert_eq!(allowed(30, v6(1), start) + allowed(30, v6(2), start), 50);
        assert_eq!(allowed(1, "::ffff:10.0.0.2".parse().unwrap(), start), 0);
        assert_eq!((0..1000).filter(|_| Limiter::new(0).allows(client, start)).count(), 1000);
    }

    #[test]
    fn many_clients_need_bounded_memory() {
        let limiter = Limiter::new(1);
        let now = Instant::now();
        for client in 0..2 * CLIENTS as u32 {
            assert!(limiter.allows(IpAddr::from(client.to_be_bytes()), now));
        }
        assert!(limiter.clients.lock().unwrap().buckets.len() <= CLIENTS);
        // later all of them are forgotten
        assert!(limiter.allows(IpAddr::from([255; 4]), now + Duration::from_secs(60)));
        assert_eq!(limiter.clients.lock().unwrap().buckets.len(), 1);
    }
}
