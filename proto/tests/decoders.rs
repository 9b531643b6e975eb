//! Whatever bytes a peer sends: no decoder panics, none allocates more than a small multiple of what it was given, and what is
//! accepted survives encoding, JSON and decoding. A short run always; a million inputs for each decoder where SOAK is set.

use std::{alloc::System, collections::BTreeMap};

use proto::{
    address::Network,
    ids::{Address, Beacon, NodeId},
    objects::{KINDS, Kind},
    transaction::raw::Call,
    wallet::{Path, Words},
};
use serde_json::Value;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes that may be allocated for each byte of input, by decoding and by encoding again. The most is needed by lists of byte
/// strings of at most 32 bytes, which may be empty.
const PER_BYTE: usize = 40;

/// Bytes that may be allocated in any case: boxes, and the first steps of growing buffers.
const FIXED: usize = 2048;

fn inputs() -> u64 {
    if std::env::var_os("SOAK").is_some() { 1_000_000 } else { 3_000 }
}

/// Random numbers that a failure can be repeated with: xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 33) as usize % limit.max(1)
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| (self.next() >> 56) as u8).collect()
    }

    /// Pieces that decoders stumble over: tags, counts at the limits of their modes, announced sizes without content.
    fn piece(&mut self) -> Vec<u8> {
        const PIECES: [&[u8]; 14] = [
            &[0],
            &[1],
            &[2],
            &[0xff],
            &[0xfc],
            &[1, 0],
            &[1, 1],
            &[2, 0, 1, 0],
            &[0xfe, 0xff, 0xff, 0xff],
            &[3, 0, 0, 0, 0x40],
            &[3, 0xff, 0xff, 0xff, 0xff],
            &[0x13, 0, 0, 0, 0x40, 0, 0, 0, 0],
            &[0x13, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[2, 0x48, 0xe8, 1],
        ];
        PIECES[self.below(PIECES.len())].to_vec()
    }

    /// One change, somewhere.
    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len() + 1);
        let end = at + self.below((input.len() - at).min(64) + 1);
        match self.below(7) {
            0 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << self.below(8);
                }
            }
            1 => {
                let count = self.below(12);
                let bytes = self.bytes(count);
                input.splice(at..end, bytes);
            }
            2 => drop(input.splice(at..at, self.piece())),
            3 => {
                let piece = self.piece();
                let end = (at + piece.len()).min(input.len());
                input.splice(at..end, piece);
            }
            4 => input.truncate(at),
            5 => drop(input.drain(at..end)),
            _ => {
                let copy = input[at..end].to_vec();
                input.splice(at..at, copy);
            }
        }
    }

    fn input(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        if seeds.is_empty() || self.below(8) == 0 {
            let count = self.below(300);
            return self.bytes(count);
        }
        let mut input = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(4) {
            self.change(&mut input);
        }
        input
    }
}

/// Valid encodings by the name of their kind, as the vectors have them.
fn seeds() -> BTreeMap<&'static str, Vec<Vec<u8>>> {
    let mut seeds: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let files: [(Value, &str, &str); 2] = [
        (serde_json::from_str(include_str!("../testdata/node/decode_go.json")).unwrap(), "rows", "hex"),
        (serde_json::from_str(include_str!("../testdata/node/wire_misc_go.json")).unwrap(), "rows", "encoded"),
    ];
    for (file, rows, field) in files {
        for row in file[rows].as_array().unwrap() {
            let bytes = hex::decode(row[field].as_str().unwrap()).unwrap();
            if let Some(kind) = Kind::find(row["type"].as_str().unwrap())
                && kind.recode(&bytes).is_ok()
            {
                seeds.entry(kind.name).or_default().push(bytes);
            }
        }
    }
    let file: Value = serde_json::from_str(include_str!("../testdata/ledger/transactions.json")).unwrap();
    for case in file["cases"].as_array().unwrap() {
        let raw = hex::decode(case["raw"].as_str().unwrap()).unwrap();
        let (_, signatures) = Call::parse(&raw).unwrap();
        seeds.entry("call").or_default().push(raw[..raw.len() - signatures.len()].to_vec());
    }
    // kinds without a row: whatever is accepted of the seeds of others, or of zeros, is a beginning
    let known: Vec<Vec<u8>> = seeds.values().flatten().cloned().collect();
    for kind in KINDS {
        let own = seeds.entry(kind.name).or_default();
        if own.is_empty() {
            let zeros = (0..600).map(|count| vec![0; count]);
            own.extend(known.iter().cloned().chain(zeros).filter(|bytes| kind.recode(bytes).is_ok()).take(20));
        }
        assert!(!own.is_empty(), "{}", kind.name);
    }
    seeds
}

fn check(kind: &Kind, input: &[u8], also_json: bool) -> bool {
    let region = Region::new(ALLOCATOR);
    let decoded = kind.recode(input);
    let allocated = region.change().bytes_allocated;
    let allowed = PER_BYTE * input.len() + FIXED;
    assert!(allocated <= allowed, "{}: {allocated} bytes for {} of {}", kind.name, input.len(), hex::encode(input));
    let Ok(encoded) = decoded else {
        if also_json {
            assert!(kind.to_json(input).is_err());
        }
        return false;
    };
    assert_eq!(kind.recode(&encoded).as_ref(), Ok(&encoded), "{}: {}", kind.name, hex::encode(input));
    if also_json {
        let shown = kind.to_json(input).unwrap_or_else(|error| panic!("{}: {error}: {}", kind.name, hex::encode(input)));
        assert_eq!(kind.from_json(&shown["object"]).as_ref(), Ok(&encoded), "{}: {}", kind.name, hex::encode(input));
    }
    true
}

/// One test, so that nothing else allocates while a decoder is watched.
#[test]
fn decoders_stay_within_bounds() {
    let seeds = seeds();
    let inputs = inputs();
    for (number, kind) in KINDS.iter().enumerate() {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 + number as u64);
        let seeds = &seeds[kind.name];
        for seed in seeds {
            assert!(check(kind, seed, true));
        }
        let mut accepted = 0u64;
        for round in 0..inputs {
            let input = random.input(seeds);
            accepted += u64::from(check(kind, &input, round % 16 == 0));
        }
        // neither all garbage nor all good
        assert!(accepted > 0 && accepted < inputs, "{}: {accepted} accepted", kind.name);
    }
    texts(inputs);
}

/// The same for what people type: only a panic is of interest.
fn texts(inputs: u64) {
    let mut random = Random(7);
    let seeds: Vec<Vec<u8>> = [
        "sm1qqqqqqx7jk9v2nullulhjj02lf3exe83x7pycvcsmvqmr",
        "9eebff023abb17ccb775c602daade8ed708f0a50d3149a42801184f5b74f2865",
        "nf1m8lUbFA0LqGHS6QMy0Zge0wAAAAAAAAAAAAAAAAA=",
        "AQIDBA==",
        "m/44'/540'/0'/0'/4294967295'",
        "film theme cheese broken kingdom destroy inch ready wear inspire shove pudding",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    let mut accepted = [0u64; 5];
    for _ in 0..inputs {
        let input = random.input(&seeds);
        let text = String::from_utf8_lossy(&input);
        let found = [
            Address::parse(&text, Network::Mainnet).is_ok(),
            text.parse::<NodeId>().is_ok(),
            text.parse::<Beacon>().is_ok(),
            text.parse::<Path>().is_ok(),
            Words::parse(&text).is_ok(),
        ];
        for (count, found) in accepted.iter_mut().zip(found) {
            *count += u64::from(found);
        }
    }
    assert!(accepted[1] > 0 && accepted[3] > 0, "{accepted:?}");
}
