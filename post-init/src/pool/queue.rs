//! Which labels come next and which finished batch is next in order: the bookkeeping of the pool, without threads and clocks.
//!
//! Ranges are cut from front to back, each device getting as much as it makes in a batch. Finished batches wait until everything
//! before them has been consumed; what is handed out but not consumed is bounded by the window. When a device fails, its range
//! is handed out again before anything new. Once half of the window waits, slow devices no longer get what the others wait for,
//! but something so far ahead that they are done when its turn comes.

use std::{collections::BTreeMap, ops::Range};

use proto::post::LABEL_BYTES;

use super::Batch;

/// A device counts as slow beside one that is so many times as fast.
const SLOW: f64 = 4.0;

/// Ranges of labels, ascending and apart from each other.
pub(super) type Ranges = Box<dyn Iterator<Item = Range<u64>> + Send>;

/// A device that asks for a range.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking {
    /// Labels it makes in a batch.
    pub(super) labels: u64,
    /// Labels per second, 0 when not known.
    pub(super) rate: f64,
    /// The same of the fastest device at work.
    pub(super) fastest: f64,
    /// The same of all other devices at work together.
    pub(super) others: f64,
}

impl Asking {
    /// Whether others would wait for it.
    fn is_slow(&self) -> bool {
        self.rate * SLOW < self.fastest
    }

    /// Labels that the others make while this one makes a batch.
    fn meanwhile(&self) -> u64 {
        if self.rate > 0.0 { (self.others * self.labels as f64 / self.rate) as u64 } else { 0 }
    }
}

/// The labels of one task.
pub(super) struct Queue {
    ranges: Ranges,
    /// What is left of the last range.
    current: Range<u64>,
    /// Ranges before `current` that were given back or passed over: their ends by their starts.
    left: BTreeMap<u64, u64>,
    /// Ranges being computed, likewise.
    flying: BTreeMap<u64, u64>,
    /// Batches that wait for their turn.
    done: BTreeMap<u64, Batch>,
    /// Bytes handed out but not consumed.
    held: u64,
    window: u64,
}

impl Queue {
    /// With a window of so many bytes.
    pub(super) fn new(ranges: Ranges, window: u64) -> Self {
        let (left, flying, done) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { ranges, current: 0..0, left, flying, done, held: 0, window }
    }

    /// A range for this device; none while there is no room or nothing to do.
    pub(super) fn take(&mut self, asking: &Asking) -> Option<Range<u64>> {
        let slow_near_edge = self.held * 2 > self.window && asking.is_slow();
        let range =
            if self.left.is_empty() || slow_near_edge { self.fresh(asking, slow_near_edge)? } else { self.returned(asking)? };
        self.held += bytes(&range);
        self.flying.insert(range.start, range.end);
        Some(range)
    }

    /// The front of what was given back or passed over.
    fn returned(&mut self, asking: &Asking) -> Option<Range<u64>> {
        let (&start, &end) = self.left.first_key_value()?;
        // What all others wait for must not wait for room itself.
        if self.held >= self.window && self.first_held().is_some_and(|held| held < start) {
            return None;
        }
        self.left.remove(&start);
        let range = start..end.min(start.saturating_add(asking.labels));
        self.leave(range.end..end);
        Some(range)
    }

    /// The front of what is new, or something behind it.
    fn fresh(&mut self, asking: &Asking, ahead: bool) -> Option<Range<u64>> {
        if self.held >= self.window {
            return None;
        }
        self.refill();
        let Range { start, end } = self.current;
        if start == end {
            return None;
        }
        let labels = asking.labels.min(end - start);
        let passed: u64 = self.left.iter().map(|(start, end)| end - start).sum();
        let skip = if ahead { asking.meanwhile().saturating_sub(passed).min(end - start - labels) } else { 0 };
        self.leave(start..start + skip);
        let range = start + skip..start + skip + labels;
        self.current = range.end..end;
        Some(range)
    }

    fn leave(&mut self, range: Range<u64>) {
        if !range.is_empty() {
            self.left.insert(range.start, range.end);
        }
    }

    fn refill(&mut self) {
        while self.current.is_empty() {
            match self.ranges.next() {
                Some(range) => self.current = range,
                None => return,
            }
        }
    }

    fn first_held(&self) -> Option<u64> {
        let flying = self.flying.first_key_value().map(|(start, _)| *start);
        let done = self.done.first_key_value().map(|(start, _)| *start);
        flying.into_iter().chain(done).min()
    }

    /// A device could not make its range: somebody else shall.
    pub(super) fn give_back(&mut self, range: &Range<u64>) {
        if self.flying.remove(&range.start).is_some() {
            self.held -= bytes(range);
            self.leave(range.clone());
        }
    }

    /// A device has made its range.
    pub(super) fn finish(&mut self, batch: Batch) {
        if self.flying.remove(&batch.range.start).is_some() {
            self.done.insert(batch.range.start, batch);
        }
    }

    /// The batch whose turn it is; its bytes stay counted until [`consumed`](Self::consumed).
    pub(super) fn pop(&mut self) -> Option<Batch> {
        let first = *self.done.first_key_value()?.0;
        let before = |start: Option<&u64>| start.is_some_and(|start| *start < first);
        if before(self.left.keys().next()) || before(self.flying.keys().next()) {
            return None;
        }
        self.done.remove(&first)
    }

    /// A batch has gone where it belongs.
    pub(super) fn consumed(&mut self, range: &Range<u64>) {
        self.held -= bytes(range);
    }

    /// Whether nothing is being computed.
    pub(super) fn is_idle(&self) -> bool {
        self.flying.is_empty()
    }

    /// Whether all ranges have been popped.
    pub(super) fn is_finished(&mut self) -> bool {
        self.refill();
        self.current.is_empty() && self.left.is_empty() && self.flying.is_empty() && self.done.is_empty()
    }
}

fn bytes(range: &Range<u64>) -> u64 {
    (range.end - range.start) * LABEL_BYTES
}

#[cfg(test)]
mod tests {
    use kernels::label::Smallest;
    use proptest::prelude::*;

    use super::*;

    fn batch(range: Range<u64>) -> Batch {
        Batch { range, labels: Vec::new(), smallest: Smallest { index: 0, label: [0; 32] } }
    }

    fn asking(labels: u64, rate: f64, fastest: f64) -> Asking {
        Asking { labels, rate, fastest, others: fastest }
    }

    #[test]
    fn what_is_given_back_comes_first_and_in_parts() {
        let mut queue = Queue::new(Box::new([0..100, 200..300].into_iter()), 1 << 20);
        let device = asking(40, 1.0, 1.0);
        assert_eq!(queue.take(&device), Some(0..40));
        assert_eq!(queue.take(&device), Some(40..80));
        queue.give_back(&(0..40));
        queue.finish(batch(40..80));
        assert!(queue.pop().is_none(), "it is not its turn");
        assert_eq!(queue.take(&asking(30, 1.0, 1.0)), Some(0..30));
        assert_eq!(queue.take(&device), Some(30..40));
        assert_eq!(queue.take(&device), Some(80..100));
        assert_eq!(queue.take(&device), Some(200..240));
        queue.finish(batch(30..40));
        queue.finish(batch(0..30));
        let popped: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|batch| batch.range).collect();
        assert_eq!(popped, [0..30, 30..40, 40..80]);
        // Late results of ranges that were taken away are not wanted.
        queue.give_back(&(80..100));
        queue.finish(batch(80..100));
        assert!(queue.pop().is_none());
    }

    #[test]
    fn near_the_edge_slow_devices_get_only_ranges_ahead() {
        // Room for 1000 labels.
        let mut queue = Queue::new(Box::new(std::iter::once(0..100_000)), 16_000);
        let (fast, slow) = (asking(200, 1000.0, 1000.0), asking(10, 50.0, 1000.0));
        assert_eq!(queue.take(&slow), Some(0..10), "there is room");
        assert_eq!(queue.take(&fast), Some(10..210));
        assert_eq!(queue.take(&fast), Some(210..410));
        assert_eq!(queue.take(&fast), Some(410..610));
        queue.give_back(&(10..210));
        queue.finish(batch(210..410));
        assert_eq!(queue.take(&asking(100, 900.0, 1000.0)), Some(10..110));
        // In the 0.2 s of its batch the others make 200 labels, and 100 are left from before.
        assert_eq!(queue.take(&slow), Some(710..720));
        assert_eq!(queue.take(&fast), Some(110..210));
        assert_eq!(queue.take(&fast), Some(610..710));
        // When the fast one is gone, nobody is slow beside it.
        assert_eq!(queue.take(&asking(10, 50.0, 50.0)), Some(720..730));
    }

    #[test]
    fn a_full_window_lets_in_only_what_it_waits_for() {
        let mut queue = Queue::new(Box::new(std::iter::once(0..1000)), 3200);
        let device = asking(100, 1.0, 1.0);
        for start in [0, 100] {
            assert_eq!(queue.take(&device), Some(start..start + 100));
        }
        assert_eq!(queue.take(&device), None);
        queue.finish(batch(100..200));
        queue.give_back(&(0..100));
        assert_eq!(queue.take(&asking(150, 1.0, 1.0)), Some(0..100));
        queue.finish(batch(0..100));
        assert_eq!(queue.take(&device), None);
        let first = queue.pop().unwrap();
        queue.consumed(&first.range);
        assert_eq!(queue.take(&device), Some(200..300));
    }

    proptest! {
        /// Devices of any speed, some of which fail now and then: everything comes out once, in order, within the window.
        #[test]
        fn everything_comes_out_in_order(
            lengths in prop::collection::vec((0_u64..50, 1_u64..3000), 1..20),
            devices in prop::collection::vec((1_u64..400, 1_u32..2000), 1..6),
            window in 1_u64..64_000,
            seed in prop::collection::vec((any::<u8>(), any::<bool>(), any::<bool>()), 1..64),
        ) {
            let mut ranges = Vec::new();
            let mut end = 0;
            for (gap, length) in lengths {
                ranges.push(end + gap..end + gap + length);
                end += gap + length;
            }
            let mut queue = Queue::new(Box::new(ranges.clone().into_iter()), window);
            let rates: Vec<f64> = devices.iter().map(|(_, rate)| f64::from(*rate)).collect();
            let fastest = rates.iter().copied().fold(0.0, f64::max);
            let mut flying: Vec<Option<Range<u64>>> = vec![None; devices.len()];
            let mut out: Vec<Range<u64>> = Vec::new();
            let mut turns = 0;
            for (pick, fails, consumes) in seed.iter().cycle() {
                if queue.is_finished() {
                    break;
                }
                turns += 1;
                prop_assert!(turns < 1_000_000, "it does not end");
                let device = usize::from(*pick) % devices.len();
                match flying[device].take() {
                    Some(range) if *fails && turns % 3 == 0 => queue.give_back(&range),
                    Some(range) => queue.finish(batch(range)),
                    None => {
                        // All want their share from time to time, whatever the seed says.
                        for device in (device..devices.len()).chain(0..device) {
                            if flying[device].is_none() {
                                let others = rates.iter().sum::<f64>() - rates[device];
                                let asking = Asking { labels: devices[device].0, rate: rates[device], fastest, others };
                                flying[device] = queue.take(&asking);
                            }
                        }
                    }
                }
                let most = devices.iter().map(|(labels, _)| labels * LABEL_BYTES).sum::<u64>();
                prop_assert!(queue.held <= window + most);
                if *consumes || flying.iter().all(Option::is_none) {
                    while let Some(batch) = queue.pop() {
                        queue.consumed(&batch.range);
                        out.push(batch.range);
                    }
                }
                if turns % 7 == 0 {
                    for range in flying.iter_mut().filter_map(Option::take) {
                        queue.finish(batch(range));
                    }
                }
            }
            let mut expected = ranges.iter().filter(|range| !range.is_empty());
            let mut whole = expected.next().cloned();
            for range in out {
                let Some(at) = &mut whole else { prop_assert!(false, "too much"); break };
                prop_assert_eq!(at.start, range.start);
                at.start = range.end;
                prop_assert!(at.start <= at.end, "a batch reaches beyond its range");
                if at.is_empty() {
                    whole = expected.next().cloned();
                }
            }
            prop_assert!(whole.is_none());
            prop_assert_eq!(queue.held, 0);
        }
    }
}
