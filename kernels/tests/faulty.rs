//! Faults are what they say and nothing else.

use std::{
    thread,
    time::{Duration, Instant},
};

use kernels::label::{
    Device, DeviceError, Smallest,
    cpu::{Cpu, Isa},
    faulty::{Fault, Faulty},
};
use proto::{ids::Commitment, post::ScryptN};

const COMMITMENT: Commitment = Commitment([4; 32]);

fn cpu() -> Cpu {
    Cpu::new(Isa::Portable, ScryptN::new(4).expect("a power of two")).expect("a processor")
}

fn right() -> (Vec<u8>, Smallest) {
    let mut out = vec![0; 20 * 16];
    let smallest = cpu().labels(&COMMITMENT, 100, &mut out).expect("labels");
    (out, smallest)
}

fn call(device: &mut Faulty<Cpu>) -> (Vec<u8>, Result<Smallest, DeviceError>) {
    let mut out = vec![0; 20 * 16];
    let result = device.labels(&COMMITMENT, 100, &mut out);
    (out, result)
}

#[test]
fn wrong_results_begin_when_asked_for() {
    let (labels, smallest) = right();
    let mut device = Faulty::new(cpu(), vec![Fault::WrongLabel { from: 1, place: 23 }]);
    assert_eq!(call(&mut device), (labels.clone(), Ok(smallest)));
    let (wrong, found) = call(&mut device);
    assert_eq!(found, Ok(smallest));
    let differing: Vec<_> = (0..20).filter(|i| wrong[i * 16..][..16] != labels[i * 16..][..16]).collect();
    assert_eq!(differing, [3]);
    assert_eq!(device.switch().calls(), 2);

    let mut device = Faulty::new(cpu(), vec![Fault::WrongSmallest { from: 0 }]);
    let (out, found) = call(&mut device);
    let found = found.expect("labels");
    assert_eq!(out, labels);
    assert!(found.label > smallest.label);
    let place = usize::try_from(found.index - 100).expect("in the range");
    assert_eq!(labels[place * 16..][..16], found.label[..16]);

    let mut device = Faulty::new(cpu(), vec![Fault::InventedSmallest { from: 0 }]);
    assert_ne!(call(&mut device), (labels, Ok(smallest)));
}

#[test]
fn failures_end_or_stay() {
    let (labels, smallest) = right();
    let mut device = Faulty::new(cpu(), vec![Fault::Dies { from: 0 }]);
    for _ in 0..2 {
        let (out, result) = call(&mut device);
        assert!(matches!(result, Err(DeviceError::Lost(_))));
        assert!(out[..160] == labels[..160] && out[160..].iter().all(|byte| *byte == 0));
    }
    let mut device = Faulty::new(cpu(), vec![Fault::Resets { from: 1, calls: 2 }]);
    let worked: Vec<_> = (0..5).map(|_| call(&mut device).1.is_ok()).collect();
    assert_eq!(worked, [true, false, false, true, true]);
    let mut device = Faulty::new(cpu(), vec![Fault::OutOfMemory { from: 0 }]);
    assert!(matches!(call(&mut device).1, Err(DeviceError::OutOfMemory { .. })));
    let mut device = Faulty::new(cpu(), vec![Fault::Slow { from: 0, per_label: Duration::from_millis(2) }]);
    let start = Instant::now();
    assert_eq!(call(&mut device), (labels, Ok(smallest)));
    assert!(start.elapsed() >= Duration::from_millis(40));
}

#[test]
fn hanging_ends_only_by_the_switch() {
    let mut device = Faulty::new(cpu(), vec![Fault::Hangs { from: 0 }]);
    let switch = device.switch();
    let worker = thread::spawn(move || call(&mut device).1);
    while !switch.is_hanging() {
        thread::yield_now();
    }
    thread::sleep(Duration::from_millis(20));
    assert!(!worker.is_finished());
    switch.release();
    assert!(matches!(worker.join().expect("no panic"), Err(DeviceError::Lost(_))));
}
