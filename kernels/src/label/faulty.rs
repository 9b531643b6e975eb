//! A device with the faults that GPUs have, for tests of those who use devices.

use std::{
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use proto::ids::Commitment;

use super::{Device, DeviceError, DeviceInfo, STORED, Smallest};

/// What goes wrong, and from which call of [`Device::labels`] on, the first one being 0.
#[derive(Debug, Clone)]
pub enum Fault {
    /// One bit of the label at `place` of every range is wrong; the smallest label is right.
    WrongLabel {
        /// First call concerned.
        from: u64,
        /// Place in the range, taken modulo its length.
        place: usize,
    },
    /// The labels are right, but another one than the smallest is claimed to be it, by its right index and label.
    WrongSmallest {
        /// First call concerned.
        from: u64,
    },
    /// The label claimed to be the smallest is none of the range.
    InventedSmallest {
        /// First call concerned.
        from: u64,
    },
    /// Half of the labels are written, then the device is lost, and stays so.
    Dies {
        /// First call concerned.
        from: u64,
    },
    /// The device is lost for some calls and then works again, as after a reset.
    Resets {
        /// First call concerned.
        from: u64,
        /// Calls that fail.
        calls: u64,
    },
    /// The call does not come back until [`Switch::release`] is called, and then fails; half of the labels are written.
    Hangs {
        /// First call concerned.
        from: u64,
    },
    /// There is no memory.
    OutOfMemory {
        /// First call concerned.
        from: u64,
    },
    /// Everything is right, after this much additional time per label.
    Slow {
        /// First call concerned.
        from: u64,
        /// Additional time.
        per_label: Duration,
    },
}

impl Fault {
    fn applies(&self, call: u64) -> bool {
        match *self {
            Self::Resets { from, calls } => (from..from.saturating_add(calls)).contains(&call),
            Self::WrongLabel { from, .. }
            | Self::WrongSmallest { from }
            | Self::InventedSmallest { from }
            | Self::Dies { from }
            | Self::Hangs { from }
            | Self::OutOfMemory { from }
            | Self::Slow { from, .. } => call >= from,
        }
    }
}

/// Watches a [`Faulty`] and ends its hanging; clones are the same switch.
#[derive(Debug, Clone, Default)]
pub struct Switch {
    calls: Arc<AtomicU64>,
    hanging: Arc<(Mutex<Hanging>, Condvar)>,
}

#[derive(Debug, Default)]
struct Hanging {
    now: bool,
    released: bool,
}

impl Switch {
    /// Calls of [`Device::labels`] so far.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// Whether a call hangs.
    pub fn is_hanging(&self) -> bool {
        self.hanging.0.lock().unwrap_or_else(PoisonError::into_inner).now
    }

    /// Lets all calls that hang, now or later, come back.
    pub fn release(&self) {
        self.hanging.0.lock().unwrap_or_else(PoisonError::into_inner).released = true;
        self.hanging.1.notify_all();
    }

    fn hang(&self) {
        let mut hanging = self.hanging.0.lock().unwrap_or_else(PoisonError::into_inner);
        hanging.now = true;
        while !hanging.released {
            hanging = self.hanging.1.wait(hanging).unwrap_or_else(PoisonError::into_inner);
        }
        hanging.now = false;
    }
}

/// A device that works but for its faults.
#[derive(Debug)]
pub struct Faulty<D> {
    device: D,
    info: DeviceInfo,
    faults: Vec<Fault>,
    switch: Switch,
}

impl<D: Device> Faulty<D> {
    /// With any number of faults; of those that end a call the first one counts.
    pub fn new(device: D, faults: Vec<Fault>) -> Self {
        let info = DeviceInfo { name: format!("faulty {}", device.info().name), ..device.info().clone() };
        Self { device, info, faults, switch: Switch::default() }
    }

    /// Named and seen as another kind of device, as which it may be treated differently.
    #[must_use]
    pub fn with_info(mut self, info: DeviceInfo) -> Self {
        self.info = info;
        self
    }

    /// To watch it from another thread.
    pub fn switch(&self) -> Switch {
        self.switch.clone()
    }
}

impl<D: Device> Device for Faulty<D> {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn labels(&mut self, commitment: &Commitment, first: u64, out: &mut [u8]) -> Result<Smallest, DeviceError> {
        let call = self.switch.calls.fetch_add(1, Ordering::SeqCst);
        let labels = super::check_range(first, out)?;
        let lost = || DeviceError::Lost("as asked for".into());
        for fault in self.faults.iter().filter(|fault| fault.applies(call)) {
            match fault {
                Fault::Dies { .. } | Fault::Hangs { .. } => {
                    let half = (out.len() / 2).next_multiple_of(STORED);
                    self.device.labels(commitment, first, &mut out[..half])?;
                    if matches!(fault, Fault::Hangs { .. }) {
                        self.switch.hang();
                    }
                    return Err(lost());
                }
                Fault::Resets { .. } => return Err(lost()),
                Fault::OutOfMemory { .. } => return Err(DeviceError::OutOfMemory { bytes: self.info.scratch_bytes }),
                Fault::Slow { per_label, .. } => {
                    std::thread::sleep(per_label.saturating_mul(u32::try_from(labels).unwrap_or(u32::MAX)));
                }
                Fault::WrongLabel { .. } | Fault::WrongSmallest { .. } | Fault::InventedSmallest { .. } => {}
            }
        }
        let mut smallest = self.device.labels(commitment, first, out)?;
        for fault in self.faults.iter().filter(|fault| fault.applies(call)) {
            match fault {
                Fault::WrongLabel { place, .. } => out[place % labels as usize * STORED] ^= 1,
                Fault::WrongSmallest { .. } if labels > 1 => {
                    let index = if smallest.index == first { first + 1 } else { first };
                    smallest = self.device.labels(commitment, index, &mut [0; STORED])?;
                }
                Fault::InventedSmallest { .. } => smallest.label[0] = smallest.label[0].wrapping_sub(1),
                _ => {}
            }
        }
        Ok(smallest)
    }

    fn release(&mut self) {
        self.device.release();
    }

    fn allocated(&self) -> u64 {
        self.device.allocated()
    }
}
