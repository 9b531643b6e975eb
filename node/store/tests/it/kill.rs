//! kill -9 at any moment: the databases open, the check finds nothing, everything acknowledged is there; and no second
//! signature ever comes out.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use proto::{
    activation::Version,
    eligibility::Weight,
    ids::{Address, AtxId, NodeId},
    keys::IdentityKey,
    layers::EpochId,
    poet::Ticks,
    units::{SpaceUnits, TickHeight, VrfNonce},
};
use store::{
    StoreError,
    atxs::{Atx, AtxWriter, Atxs, NewAtx, Saved, Share, Validity},
    check::check,
    data_dir::DataDir,
    engine::{Batch, Durability, Engine, Range, Read, Visit},
    guard::{Guard, GuardError, Statement},
    poets::put_malicious,
    schema::{Database, Family},
};

use super::{local, open};

/// How often something is killed: 5 times, 200 with `SOAK=1`.
fn kills() -> u32 {
    if std::env::var_os("SOAK").is_some() { 200 } else { 5 }
}

/// Starts this test program as a child that does `role` in a directory.
fn start(role: &str, dir: &Path, from: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["kill::child", "--exact", "--ignored", "--nocapture"])
        .env("STORE_CHILD", role)
        .env("STORE_DIR", dir)
        .env("STORE_FROM", from.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// Lets a child run until it has acknowledged something, and a little longer; kills it and returns its lines.
fn run_and_kill(role: &str, dir: &Path, from: u64, longer: Duration) -> Vec<String> {
    let mut child = start(role, dir, from);
    let output = child.stdout.take().unwrap();
    let (send, lines) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(output).lines() {
            // the last line may be cut off; what the test harness prints is not ours
            let Ok(line) = line else { break };
            if let Some(line) = line.split("ack ").nth(1) {
                let _ = send.send(line.to_owned());
            }
        }
    });
    let first = lines.recv_timeout(Duration::from_secs(120)).expect("the child does something");
    std::thread::sleep(longer);
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap();
    std::iter::once(first).chain(lines.try_iter()).filter(|line| line.ends_with('.')).collect()
}

fn acknowledge(what: impl std::fmt::Display) {
    // in one write, so that a line is whole or not there
    let line = format!("ack {what}.\n");
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).and_then(|()| out.flush()).unwrap();
}

/// What is killed.
#[test]
#[ignore = "a child of the tests below"]
fn child() {
    let Ok(role) = std::env::var("STORE_CHILD") else { return };
    let dir = std::env::var("STORE_DIR").unwrap();
    let from = std::env::var("STORE_FROM").unwrap().parse::<u64>().unwrap();
    if role == "make" {
        return make(Path::new(&dir), from);
    }
    let data = open(Path::new(&dir));
    match role.as_str() {
        "write" => write(&data, from),
        "sign" => sign(&data, from),
        "die" => die(&data, from),
        other => panic!("{other}"),
    }
}

/// Makes one directory after the other.
fn make(dir: &Path, from: u64) {
    for n in from.. {
        drop(open(&dir.join(n.to_string())));
        acknowledge(n);
    }
}

#[test]
fn directories_that_were_being_made_are_completed() {
    let dir = tempfile::tempdir().unwrap();
    let mut next = 0;
    for kill in 0..kills() {
        let lines = run_and_kill("make", dir.path(), next, Duration::from_millis(u64::from(kill) * 29 % 100));
        let last: u64 = lines.last().unwrap().trim_end_matches('.').parse().unwrap();
        for n in next..=last + 1 {
            // the last one may be anything between nothing and whole
            let data = open(&dir.path().join(n.to_string()));
            assert_eq!(check(&**data.local(), Database::Local, &|| false).faults, Vec::<String>::new(), "kill {kill}");
        }
        next = last + 2;
    }
}

fn atx(n: u64) -> NewAtx {
    let id = |salt: u64| scrambled(&[n, salt]);
    let smesher = NodeId(id(1));
    NewAtx {
        id: AtxId(id(0)),
        atx: Atx {
            publish_epoch: EpochId((n / 50) as u32),
            sequence: n,
            commitment: Some(AtxId(id(2))),
            marriage: None,
            coinbase: Address::EMPTY,
            effective_units: SpaceUnits(4),
            base_height: TickHeight(n),
            ticks: Ticks(7),
            vrf_nonce: VrfNonce(n),
            smesher,
            weight: Weight(28),
            received: n,
            validity: Validity::Unknown,
        },
        wire: Some((Version::V1, n.to_be_bytes().repeat(40))),
        shares: vec![(
            smesher,
            Share { previous: None, previous_index: 0, units: SpaceUnits(4), publish_epoch: EpochId((n / 50) as u32) },
        )],
    }
}

/// 32 bytes that look random and are the same in every process.
fn scrambled(numbers: &[u64]) -> [u8; 32] {
    let mut state = [0u8; 32];
    for (index, byte) in state.iter_mut().enumerate() {
        let mut x = numbers.iter().fold(index as u64 + 1, |x, n| (x ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29));
        x ^= x >> 31;
        *byte = x as u8;
    }
    state
}

/// One change after the other, of several entries each; every second activation comes with a proof of malfeasance.
fn write(data: &DataDir, from: u64) {
    let atxs = AtxWriter::new(data.state().clone());
    for n in from.. {
        let new = atx(n);
        let mut more = Batch::default();
        if n % 2 == 0 {
            put_malicious(&**data.state(), &mut more, &new.atx.smesher, n, b"proof").unwrap();
        }
        atxs.save(&new, more, Durability::Process).unwrap();
        acknowledge(n);
    }
}

#[test]
fn everything_acknowledged_survives_kills() {
    let dir = tempfile::tempdir().unwrap();
    let (mut path, mut next, mut written) = (dir.path().to_owned(), 0, 0);
    for kill in 0..kills() {
        // a new directory now and then, so that the check does not become the whole test
        if kill % 20 == 0 {
            (path, next) = (dir.path().join(format!("data-{kill}")), 0);
        }
        let lines = run_and_kill("write", &path, next, Duration::from_millis(u64::from(kill) * 37 % 400));
        let last: u64 = lines.last().unwrap().trim_end_matches('.').parse().unwrap();
        let data = open(&path);
        for database in Database::ALL {
            let engine = if database == Database::State { data.state() } else { data.local() };
            assert_eq!(check(&*engine.snapshot(), database, &|| false).faults, Vec::<String>::new(), "kill {kill}");
        }
        let atxs = Atxs::new(&**data.state());
        for n in next..=last {
            let new = atx(n);
            assert_eq!(atxs.get(&new.id).unwrap().as_ref(), Some(&new.atx), "kill {kill}: {n} of {last}");
            assert_eq!(atxs.wire(&new.id).unwrap(), new.wire);
        }
        // what was under way is there as a whole, with all that belongs to it, or not at all
        let unacknowledged = atx(last + 1);
        let there = atxs.get(&unacknowledged.id).unwrap().is_some();
        let proof = store::poets::malicious(&**data.state(), &unacknowledged.atx.smesher).unwrap().is_some();
        assert_eq!(proof, there && last % 2 == 1, "kill {kill}");
        written += last + 1 - next;
        next = last + 1;
        let saved = AtxWriter::new(data.state().clone()).save(&unacknowledged, Batch::default(), Durability::Process).unwrap();
        assert_eq!(saved, if there { Saved::Known } else { Saved::New });
        next += 1;
    }
    println!("{} kills, {written} acknowledged activations, all there", kills());
}

fn key() -> IdentityKey {
    IdentityKey::from_seed(&[5; 32])
}

/// Asks for signatures of ballots that often contradict each other: eight different ones per layer.
fn sign(data: &DataDir, from: u64) {
    let guard = data.guard();
    for n in from.. {
        let layer = (n / 3) as u32;
        let variant = scrambled(&[n, u64::from(std::process::id())])[0] % 8;
        match guard.sign(&key(), &Statement::ballot(layer, [variant; 32])) {
            Ok(signature) => acknowledge(format_args!("{n} {layer} {signature}")),
            Err(GuardError::Conflict { .. }) => acknowledge(format_args!("{n} {layer} refused")),
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn no_layer_ever_gets_two_signatures() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let mut signed = BTreeMap::<u32, String>::new();
    let (mut next, mut refused, mut again) = (0u64, 0, 0);
    for kill in 0..kills() {
        for line in run_and_kill("sign", &path, next, Duration::from_millis(u64::from(kill) * 53 % 300)) {
            let mut words = line.trim_end_matches('.').split(' ');
            let (n, layer, signature) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            next = n.parse::<u64>().unwrap() + 1;
            if signature == "refused" {
                refused += 1;
                continue;
            }
            let before = signed.entry(layer.parse().unwrap()).or_insert_with(|| signature.to_owned());
            assert_eq!(before, signature, "two signatures for layer {layer}");
            again += 1;
        }
        // back by some layers: the next one asks again for what was asked before, and for other things
        next = next.saturating_sub(12);
    }
    assert!(refused > 0 && signed.len() > 1);
    println!("{} kills, {} layers signed, {again} signatures, {refused} requests refused", kills(), signed.len());
}

/// A database that ends the process once a change is written, before anybody hears of it.
struct DiesAfterWrite(Arc<dyn Engine>);

impl Read for DiesAfterWrite {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.get(family, key)
    }

    fn scan(&self, family: Family, range: Range<'_>, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.0.scan(family, range, visit)
    }
}

impl Engine for DiesAfterWrite {
    fn write(&self, batch: &Batch, durability: Durability) -> Result<(), StoreError> {
        self.0.write(batch, durability)?;
        acknowledge("written");
        std::process::abort()
    }

    fn snapshot(&self) -> Box<dyn Read + '_> {
        self.0.snapshot()
    }

    fn sequence(&self) -> u64 {
        self.0.sequence()
    }
}

fn die(data: &DataDir, layer: u64) {
    let dies = DiesAfterWrite(data.local().clone());
    let guard = Guard::new(Arc::new(dies), data.genesis().id());
    let signed = guard.sign(&key(), &Statement::ballot(layer as u32, [1; 32]));
    panic!("the process should have ended: {signed:?}");
}

#[test]
fn an_end_between_record_and_signature_bars_the_layer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    for layer in 0..u64::from(kills().min(20)) {
        assert_eq!(run_and_kill("die", &path, layer, Duration::from_millis(5)), ["written."]);
        let data = DataDir::open(&path, &local()).unwrap();
        let guard = data.guard();
        let other = guard.sign(&key(), &Statement::ballot(layer as u32, [2; 32]));
        assert!(matches!(other, Err(GuardError::Conflict { .. })), "{other:?}");
        guard.sign(&key(), &Statement::ballot(layer as u32, [1; 32])).unwrap();
    }
}
