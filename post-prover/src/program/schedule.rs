//! Whose turn it is when many identities share disks and cores.
//!
//! One reading run per physical disk and one k2pow search at a time, the most urgent deadline first; a search of one identity
//! goes on beside the reading of others. [`Schedule`] decides, without clock, threads or locks; [`Scheduler`] lets threads wait
//! for what it decides.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use crate::{
    prove::{Gate, Stage},
    read::POLL,
};

/// Number of a run.
pub type RunId = u64;

/// Who waits for what, and who works. `T` is a time.
#[derive(Debug)]
pub struct Schedule<T> {
    waiting: Vec<Wish<T>>,
    working: HashMap<RunId, Resources>,
}

/// A wish to begin a stage.
#[derive(Debug, Clone)]
pub struct Wish<T> {
    /// Whose.
    pub run: RunId,
    /// When the proof must be there.
    pub deadline: T,
    /// What it needs for itself.
    pub needs: Resources,
}

/// What only one run has at a time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// The cores, for k2pow.
    pub cores: bool,
    /// Disks, by name.
    pub disks: BTreeSet<String>,
}

impl Resources {
    fn overlap(&self, other: &Self) -> bool {
        (self.cores && other.cores) || !self.disks.is_disjoint(&other.disks)
    }
}

impl<T> Default for Schedule<T> {
    fn default() -> Self {
        Self { waiting: Vec::new(), working: HashMap::new() }
    }
}

impl<T: Ord + Copy> Schedule<T> {
    /// A run wants to begin a stage. Returns the runs that may begin now.
    pub fn on_wish(&mut self, wish: Wish<T>) -> Vec<RunId> {
        self.waiting.push(wish);
        self.grant()
    }

    /// A run has ended its stage, or does not want to begin one any more. Returns the runs that may begin now.
    pub fn on_leave(&mut self, run: RunId) -> Vec<RunId> {
        self.working.remove(&run);
        self.waiting.retain(|wish| wish.run != run);
        self.grant()
    }

    /// Whether a run has its turn.
    pub fn has_turn(&self, run: RunId) -> bool {
        self.working.contains_key(&run)
    }

    /// The most urgent first. What a more urgent run waits for is not given to a less urgent one, so that one that needs
    /// several disks gets them.
    fn grant(&mut self) -> Vec<RunId> {
        self.waiting.sort_by_key(|wish| (wish.deadline, wish.run));
        let mut granted = Vec::new();
        let mut reserved: Vec<Resources> = self.working.values().cloned().collect();
        self.waiting.retain(|wish| {
            let free = !reserved.iter().any(|other| other.overlap(&wish.needs));
            reserved.push(wish.needs.clone());
            if free {
                granted.push(wish.run);
                self.working.insert(wish.run, wish.needs.clone());
            }
            !free
        });
        granted
    }
}

/// A [`Schedule`] that threads wait on.
#[derive(Debug, Default)]
pub struct Scheduler {
    schedule: Mutex<Schedule<Instant>>,
    changed: Condvar,
}

impl Scheduler {
    fn lock(&self) -> std::sync::MutexGuard<'_, Schedule<Instant>> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The gate of one run.
#[derive(Debug)]
pub struct Turnstile<'a> {
    /// Shared by all runs.
    pub scheduler: &'a Scheduler,
    /// Which run this is; no two runs at a time have the same number.
    pub run: RunId,
    /// When the proof must be there.
    pub deadline: Instant,
    /// Disks its data lies on.
    pub disks: BTreeSet<String>,
    /// Whether k2pow is searched on this machine.
    pub local_pow: bool,
}

impl Gate for Turnstile<'_> {
    fn enter(&self, stage: Stage, stop: &AtomicBool) -> bool {
        let needs = match stage {
            Stage::Pow => Resources { cores: self.local_pow, disks: BTreeSet::new() },
            Stage::Reading => Resources { cores: false, disks: self.disks.clone() },
        };
        let mut schedule = self.scheduler.lock();
        schedule.on_wish(Wish { run: self.run, deadline: self.deadline, needs });
        self.scheduler.changed.notify_all();
        while !schedule.has_turn(self.run) {
            if stop.load(Ordering::Relaxed) {
                schedule.on_leave(self.run);
                self.scheduler.changed.notify_all();
                return false;
            }
            schedule = self.scheduler.changed.wait_timeout(schedule, POLL).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn leave(&self, _: Stage) {
        self.scheduler.lock().on_leave(self.run);
        self.scheduler.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{cmp::Reverse, collections::BinaryHeap};

    use proptest::prelude::*;

    use super::*;

    /// Simulates runs of one search and one reading each on a virtual clock; returns when each reading began, in order, and
    /// checks that nothing overlaps.
    fn simulate(runs: &[(u64, u64, u64, &[&str])]) -> Vec<(u64, RunId)> {
        let mut schedule = Schedule::<u64>::default();
        let mut ends = BinaryHeap::new();
        let mut reading: BTreeSet<RunId> = BTreeSet::new();
        let mut busy: HashMap<&str, RunId> = HashMap::new();
        let mut began = Vec::new();
        let mut now = 0;
        let disks = |run: RunId| runs[run as usize].3;
        let mut granted = Vec::new();
        for (run, (deadline, ..)) in (0..).zip(runs) {
            let needs = Resources { cores: true, disks: BTreeSet::new() };
            granted.extend(schedule.on_wish(Wish { run, deadline: *deadline, needs }));
        }
        loop {
            for run in std::mem::take(&mut granted) {
                let (_, pow, read, _) = runs[run as usize];
                if reading.contains(&run) {
                    for disk in disks(run) {
                        assert_eq!(busy.insert(disk, run), None, "two on {disk}");
                    }
                    began.push((now, run));
                    ends.push(Reverse((now + read, run)));
                } else {
                    ends.push(Reverse((now + pow, run)));
                }
            }
            let Some(Reverse((end, run))) = ends.pop() else { break };
            now = end;
            granted.extend(schedule.on_leave(run));
            if reading.insert(run) {
                let needs = Resources { cores: false, disks: disks(run).iter().map(|d| (*d).to_owned()).collect() };
                granted.extend(schedule.on_wish(Wish { run, deadline: runs[run as usize].0, needs }));
            } else {
                for disk in disks(run) {
                    assert_eq!(busy.remove(disk), Some(run));
                }
            }
        }
        assert_eq!(began.len(), runs.len(), "everybody had a turn");
        began
    }

    #[test]
    fn eight_identities_on_two_disks() {
        let disk = |i: u64| if i.is_multiple_of(2) { &["a"][..] } else { &["b"][..] };
        let runs: Vec<_> = (0..8).map(|i| (100 - i, 10, 30, disk(i))).collect();
        let began = simulate(&runs);
        // searches one after the other, the latest number being the most urgent; each reads as soon as its disk is free
        assert_eq!(began[0], (10, 0), "who came first began when nobody more urgent was there");
        let order: Vec<_> = began.iter().map(|(_, run)| *run).collect();
        assert_eq!(order[1..4], [7, 6, 5]);
        // two disks work at the same time: 8 readings of 30 take little more than 4 * 30
        assert!(began.last().unwrap().0 <= 10 + 4 * 30, "{began:?}");
    }

    #[test]
    fn the_most_urgent_is_first_when_a_disk_becomes_free() {
        let mut schedule = Schedule::<u64>::default();
        let needs = |disks: &[&str]| Resources { cores: false, disks: disks.iter().map(|d| (*d).to_owned()).collect() };
        let wish = |run, deadline, disks: &[&str]| Wish { run, deadline, needs: needs(disks) };
        assert_eq!(schedule.on_wish(wish(1, 50, &["a"])), [1]);
        assert!(schedule.on_wish(wish(2, 40, &["a"])).is_empty());
        assert!(schedule.on_wish(wish(3, 30, &["a", "b"])).is_empty());
        assert!(schedule.on_wish(wish(4, 60, &["b"])).is_empty(), "kept for the more urgent one");
        assert_eq!(schedule.on_wish(wish(5, 60, &["c"])), [5]);
        assert_eq!(schedule.on_leave(1), [3]);
        assert_eq!(schedule.on_leave(3), [2, 4]);
        assert!(schedule.has_turn(2) && !schedule.has_turn(3));
    }

    proptest! {
        #[test]
        fn everybody_has_a_turn_and_no_disk_two_readers(
            runs in prop::collection::vec((0_u64..100, 1_u64..20, 1_u64..50, 0_usize..4), 1..20),
        ) {
            const DISKS: [&[&str]; 4] = [&["a"], &["b"], &["a", "c"], &["c"]];
            let runs: Vec<_> = runs.into_iter().map(|(d, p, r, i)| (d, p, r, DISKS[i])).collect();
            simulate(&runs);
        }
    }
}
