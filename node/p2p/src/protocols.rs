//! The request protocols: their deployed names and how many requests are taken (p2p-sync.md section 8).
//!
//! A protocol that is served gets a variant with its row in [`Protocol::limits`] and an arm in `server.rs`, nothing else. Still
//! to come, with their deployed rows: `ax/1` (10 waiting, 1 per second), `ld/1` (1000, 100), `as/1` (10, 1), `mh/1` (1000, 100),
//! `ml/1` (100, 10), `lp/2` (10000, 1000). `hare4/full_exchange` and `/peersync/1.0/` have framings of their own.

/// A request protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    /// Objects by hash (p2p-sync.md section 9.1).
    Objects,
}

/// How many requests of a protocol are taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Requests that may wait or run.
    pub(crate) queue: usize,
    /// Requests started in a second.
    pub(crate) per_second: u32,
}

impl Protocol {
    /// All that are served.
    pub(crate) const ALL: [Self; 1] = [Self::Objects];

    /// The name on the wire.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Objects => "hs/1",
        }
    }

    /// How many requests are taken.
    pub(crate) const fn limits(self) -> Limits {
        match self {
            Self::Objects => Limits { queue: 2000, per_second: 200 },
        }
    }

    /// The protocol of a name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.name() == name)
    }

    /// Its place in tables with a row per protocol.
    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

/// The most bytes of a request (p2p-sync.md section 8).
pub(crate) const MAX_REQUEST: usize = 10_240;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_a_row_for_every_protocol() {
        for (at, protocol) in Protocol::ALL.into_iter().enumerate() {
            assert_eq!(protocol.index(), at);
            assert_eq!(Protocol::named(protocol.name()), Some(protocol));
        }
        assert_eq!(Protocol::named("xx/1"), None);
    }
}
