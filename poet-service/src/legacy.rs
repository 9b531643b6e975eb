//! What deployed servers leave on disk, to be taken over: registrations and proofs in LevelDB, running rounds, `poet.conf`
//! (poet.md sections 3, 7 and 8). Their own files are only read.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
    thread,
};

use kernels::posw::{Node, Statement};
use proto::{
    ids::NodeId,
    poet::{Element, Leaves, MAX_PROOF_NODES, MerkleProof, PROVEN_LEAVES, PoetProof},
};
use rusty_leveldb::LdbIterator as _;

use crate::{
    config::Options,
    log::{LogError, NodeLog},
    schedule::RoundId,
    store::{Record, Store, StoreError},
    tree::{Grower, Shape, Unit},
};

/// Why files of a deployed server cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum LegacyError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    File {
        /// File or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A record is not what deployed servers write.
    #[error("{what} is damaged: {problem}")]
    Damaged {
        /// Which record.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Our own database fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Our own files of the round fail.
    #[error("failed to write the round's nodes: {0}")]
    Log(#[from] LogError),
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> LegacyError {
    let path = path.to_path_buf();
    move |source| LegacyError::File { path, source }
}

fn damaged(what: impl Into<String>, problem: impl Into<String>) -> LegacyError {
    LegacyError::Damaged { what: what.into(), problem: problem.into() }
}

/// Reads XDR: everything big-endian, byte strings with their length before and padding to four bytes after.
struct Xdr<'a>(&'a [u8]);

impl<'a> Xdr<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let count = self.u32()? as usize;
        let bytes = self.take(count)?;
        self.take(count.next_multiple_of(4) - count)?;
        Some(bytes)
    }

    fn list(&mut self, limit: usize) -> Option<Vec<&'a [u8]>> {
        let count = self.u32()? as usize;
        // each item has at least its length
        if count > limit.min(self.0.len() / 4) {
            return None;
        }
        (0..count).map(|_| self.bytes()).collect()
    }

    fn merkle_proof(&mut self) -> Option<MerkleProof> {
        let element = |bytes: &[u8]| Element::try_from(bytes).ok();
        let root = element(self.bytes()?)?;
        let proven_leaves = self.list(PROVEN_LEAVES)?.into_iter().map(element).collect::<Option<_>>()?;
        let proof_nodes = self.list(MAX_PROOF_NODES)?.into_iter().map(element).collect::<Option<_>>()?;
        Some(MerkleProof { root, proven_leaves, proof_nodes })
    }
}

/// The state of a round that runs or ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoundState {
    /// The root of its members' tree.
    pub statement: Vec<u8>,
    /// Leaves at the last checkpoint.
    pub leaves: Leaves,
    /// Its proof, once it has ended.
    pub proof: Option<MerkleProof>,
}

/// Reads the state of a round; none where it never began.
pub fn round_state(bytes: &[u8]) -> Result<Option<RoundState>, LegacyError> {
    let read = || {
        let mut from = Xdr(bytes);
        from.bytes()?;
        if from.u32()? == 0 {
            return Some(None);
        }
        from.u32()?;
        from.list(usize::MAX)?;
        let statement = from.bytes()?.to_vec();
        from.list(64)?;
        let leaves = Leaves(from.u64()?);
        let proof = if from.u32()? == 0 { None } else { Some(from.merkle_proof()?) };
        from.0.is_empty().then_some(Some(RoundState { statement, leaves, proof }))
    };
    read().ok_or_else(|| damaged("the state of a round", "not of the known form"))
}

/// Reads the record of a finished round. A member's challenge that is not 32 bytes long is cut or filled up as clients do.
pub fn proof_record(bytes: &[u8]) -> Result<Record, LegacyError> {
    let read = || {
        let mut from = Xdr(bytes);
        let merkle = from.merkle_proof()?;
        let members = from.list(usize::MAX)?.into_iter().map(|member| {
            let mut node = Node::default();
            let count = member.len().min(node.len());
            node[..count].copy_from_slice(&member[..count]);
            node
        });
        let members = members.collect();
        let leaf_count = Leaves(from.u64()?);
        let pubkey = from.bytes()?.try_into().ok()?;
        from.bytes()?;
        from.0.is_empty().then_some(Record { proof: PoetProof { merkle, leaf_count }, members, pubkey })
    };
    read().ok_or_else(|| damaged("the record of a proof", "not of the known form"))
}

/// Reads `poet.conf`. Returns what it sets and the lines that mean nothing here.
pub fn conf(text: &str) -> (Options, Vec<String>) {
    let (mut options, mut unknown) = (Options::default(), Vec::new());
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with([';', '#', '[']) {
            continue;
        }
        let (key, value) = line.split_once('=').map_or((line, "true"), |(key, value)| (key.trim(), value.trim()));
        let value = value.trim_matches('"');
        // what kind of value a key has is known to `Options`: text, a number or a yes
        let text = toml::Value::from(value).to_string();
        let yes = match value {
            "1" | "t" | "T" | "TRUE" | "True" => "true",
            "0" | "f" | "F" | "FALSE" | "False" => "false",
            other => other,
        };
        let set = [&*text, value, yes].into_iter().find_map(|value| toml::from_str(&format!("{key} = {value}")).ok());
        match set {
            // the last line counts
            Some(set) => options = Options::or(set, options),
            None => unknown.push(line.to_owned()),
        }
    }
    (options, unknown)
}

/// Keys with their values.
pub type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// The entries of a LevelDB. Opening one changes it, so it is copied to `scratch` first.
pub fn read_leveldb(folder: &Path, scratch: &Path) -> Result<Entries, LegacyError> {
    if scratch.exists() {
        fs::remove_dir_all(scratch).map_err(file_error(scratch))?;
    }
    fs::create_dir_all(scratch).map_err(file_error(scratch))?;
    for entry in fs::read_dir(folder).map_err(file_error(folder))? {
        let path = entry.map_err(file_error(folder))?.path();
        let Some(name) = path.file_name().filter(|name| *name != "LOCK" && path.is_file()) else { continue };
        fs::copy(&path, scratch.join(name)).map_err(file_error(&path))?;
    }
    let copy = scratch.to_path_buf();
    // the reader trusts its files, so it has a thread to fail in
    let reading = thread::spawn(move || {
        let options =
            rusty_leveldb::Options { create_if_missing: false, paranoid_checks: true, ..rusty_leveldb::Options::default() };
        let mut db = rusty_leveldb::DB::open(&copy, options).map_err(|e| e.to_string())?;
        let mut iterator = db.new_iter().map_err(|e| e.to_string())?;
        let mut entries = Vec::new();
        while let Some((key, value)) = iterator.next() {
            entries.push((key, value));
        }
        Ok::<_, String>(entries)
    });
    let what = || format!("the database {}", folder.display());
    let read = reading.join().map_err(|_| damaged(what(), "cannot be read"))?;
    fs::remove_dir_all(scratch).map_err(file_error(scratch))?;
    read.map_err(|problem| damaged(what(), problem))
}

/// What was found and taken over.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Rounds with a proof.
    pub proofs: Vec<RoundId>,
    /// Rounds without one, and their members.
    pub registrations: Vec<(RoundId, u64)>,
    /// Running rounds and their leaves.
    pub running: Vec<(RoundId, Leaves)>,
    /// What could not be taken over, and why.
    pub left: Vec<String>,
}

/// The folders of a deployed server.
#[derive(Debug, Clone)]
pub struct Folders {
    /// Key and running rounds.
    pub data: PathBuf,
    /// Databases.
    pub db: PathBuf,
}

/// Registrations written at once.
const BATCH: usize = 10_000;

/// Takes rounds, registrations and proofs over into `store` and the work folder `work`.
pub fn take_over(from: &Folders, store: &dyn Store, work: &Path) -> Result<Taken, LegacyError> {
    let mut taken = Taken::default();
    let scratch = work.join("import");
    proofs(from, store, &scratch, &mut taken)?;
    for round in numbered(&from.db.join("rounds"))? {
        if store.is_finished(round)? {
            continue;
        }
        let entries = read_leveldb(&from.db.join("rounds").join(round.to_string()), &scratch)?;
        let mut members = Vec::with_capacity(entries.len());
        for (id, challenge) in entries {
            match (id.try_into(), challenge.try_into()) {
                (Ok(id), Ok(challenge)) => members.push((NodeId(id), challenge)),
                _ => taken.left.push(format!("round {round}: a registration whose node id or challenge has not 32 bytes")),
            }
        }
        register(store, round, &members)?;
        taken.registrations.push((round, members.len() as u64));
    }
    for round in numbered(&from.data.join("rounds"))? {
        if store.is_finished(round)? {
            continue;
        }
        let folder = from.data.join("rounds").join(round.to_string());
        match running(&folder, round, store, &work.join(round.to_string())) {
            Ok(Some(leaves)) => taken.running.push((round, leaves)),
            Ok(None) => {}
            // the members are there, so the round begins again
            Err(error @ (LegacyError::File { .. } | LegacyError::Damaged { .. })) => {
                taken.left.push(format!("the work on round {round}: {error}"));
                remove(&work.join(round.to_string()))?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(taken)
}

fn remove(folder: &Path) -> Result<(), LegacyError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file_error(folder)(error)),
        _ => Ok(()),
    }
}

/// Folders named by rounds; none where there is no such folder.
fn numbered(folder: &Path) -> Result<Vec<RoundId>, LegacyError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(file_error(folder)(error)),
    };
    let mut rounds = Vec::new();
    for entry in entries {
        let name = entry.map_err(file_error(folder))?.file_name();
        rounds.extend(name.to_str().and_then(|name| name.parse::<RoundId>().ok()));
    }
    rounds.sort_unstable();
    Ok(rounds)
}

fn register(store: &dyn Store, round: RoundId, members: &[(NodeId, Node)]) -> Result<(), StoreError> {
    members.chunks(BATCH).try_for_each(|batch| store.register(round, batch))
}

fn proofs(from: &Folders, store: &dyn Store, scratch: &Path, taken: &mut Taken) -> Result<(), LegacyError> {
    use crate::store::{Closed, PowChallenges};

    let folder = from.db.join("proofs");
    if !folder.exists() {
        return Ok(());
    }
    let (mut current, mut previous) = (None, None);
    for (key, value) in read_leveldb(&folder, scratch)? {
        match &*key {
            b"pow_challenge" => current = Some(value),
            b"pow_challenge_previous" => previous = Some(value).filter(|challenge| !challenge.is_empty()),
            name => {
                let Some(round) = std::str::from_utf8(name).ok().and_then(|name| name.parse::<RoundId>().ok()) else { continue };
                let record = match proof_record(&value) {
                    Ok(record) => record,
                    Err(error) => {
                        taken.left.push(format!("the proof of round {round}: {error}"));
                        continue;
                    }
                };
                // the record has the challenges alone; numbers in place of node ids keep their order
                let numbered = record.members.iter().zip(0u64..).map(|(challenge, number)| {
                    let mut id = [0; 32];
                    id[24..].copy_from_slice(&number.to_be_bytes());
                    (NodeId(id), *challenge)
                });
                register(store, round, &numbered.collect::<Vec<_>>())?;
                let statement = crate::membership::statement(record.members.clone());
                store.close(round, &Closed { statement, members: record.members.len() as u64 })?;
                let pow = PowChallenges { current: record.proof.merkle.root.to_vec(), previous: None };
                store.finish(round, &record, &pow)?;
                taken.proofs.push(round);
            }
        }
    }
    taken.proofs.sort_unstable();
    if let Some(current) = current {
        store.set_pow_challenges(&PowChallenges { current, previous })?;
    }
    Ok(())
}

/// Takes over the tree of a running round, as far as its last checkpoint. Returns its leaves; none where there are none yet.
fn running(folder: &Path, round: RoundId, store: &dyn Store, work: &Path) -> Result<Option<Leaves>, LegacyError> {
    let path = folder.join("state.bin");
    let Some(state) = round_state(&fs::read(&path).map_err(file_error(&path))?)? else { return Ok(None) };
    let what = || format!("round {round}");
    let members = crate::membership::statement(store.members(round)?);
    if members.map(|node| node.to_vec()) != Some(state.statement.clone()) {
        return Err(damaged(what(), "its statement is not that of its members"));
    }
    let statement = Statement::new(&state.statement);
    let shape = Shape::new(crate::tree::LOWEST_LEVEL);
    let units = shape.units(state.leaves);
    if units == 0 {
        return Ok(None);
    }
    fs::create_dir_all(work).map_err(file_error(work))?;
    let mut log = NodeLog::open(&work.join("nodes"), &state.statement)?;
    log.truncate(0)?;
    let mut tree = Grower::new(statement.clone());
    let layer = |level: u32| folder.join(format!("layercache_{level}.bin"));
    let level = (0..=shape.lowest()).rev().find(|level| layer(*level).exists());
    let level = level.ok_or_else(|| damaged(what(), "there are no layer files"))?;
    let mut file = BufReader::with_capacity(1 << 20, File::open(layer(level)).map_err(file_error(&layer(level)))?);
    for _ in 0..units << (shape.lowest() - level) {
        let mut node = Node::default();
        file.read_exact(&mut node).map_err(file_error(&layer(level)))?;
        let mut kept = Vec::new();
        tree.add(level, node, |level, node| {
            if level >= shape.lowest() {
                kept.push(*node);
            }
        });
        log.append(&kept)?;
    }
    log.sync()?;
    // a few units computed again tell whether these are the nodes of this statement
    for unit in [0, units / 2, units - 1] {
        use crate::tree::Nodes as _;
        let computed = Unit::compute(&statement, shape, tree.leaves(), &[unit], &log)?;
        let kept = log.node(shape.place(shape.lowest(), unit))?;
        if computed.iter().any(|computed| computed.node(&statement, shape.lowest(), unit) != kept) {
            return Err(damaged(what(), "its nodes are not those of its leaves"));
        }
    }
    Ok(Some(tree.leaves()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proto::span::Span;

    use super::*;
    use crate::{membership, proof, prove::Tree, store::MemoryStore};

    fn vectors() -> serde_json::Value {
        serde_json::from_str(include_str!("../testdata/legacy_disk.json")).unwrap()
    }

    fn bytes(value: &serde_json::Value) -> Vec<u8> {
        hex::decode(value.as_str().unwrap()).unwrap()
    }

    #[test]
    fn states_and_records_are_read_as_in_the_vectors() {
        let vectors = vectors();
        let states: Vec<_> = vectors["round_state"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| round_state(&bytes(&s["bytes"])).unwrap().unwrap())
            .collect();
        assert_eq!(states.iter().map(|state| state.leaves.0).collect::<Vec<_>>(), [0, 1 << 24, 3]);
        assert!(states[0].proof.is_none() && states[1].proof.is_none());
        assert_eq!(states[2].proof.as_ref().unwrap().proven_leaves.len(), 3);
        let wire = &vectors["proof_record"];
        let record = proof_record(&bytes(&wire["bytes"])).unwrap();
        assert_eq!(record.proof.leaf_count, Leaves(3));
        let members: Vec<String> = record.members.iter().map(hex::encode).collect();
        assert_eq!(serde_json::json!(members), wire["members"]);
        for cut in 0..bytes(&wire["bytes"]).len() {
            assert!(proof_record(&bytes(&wire["bytes"])[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn poet_conf_is_read() {
        let text = "; the sample\n[Application Options]\ngenesis-time = 2023-07-14T08:00:00Z\nepoch-duration=336h\nphase-shift=\"240h\"\n\
                    pow-difficulty=20\nmetrics-port=9090\ndebuglog=1\njsonlog\nlps=70000\nno-such-key=7\nphase-shift=12h\n";
        let (options, unknown) = conf(text);
        assert_eq!(unknown, ["no-such-key=7"]);
        assert_eq!(options.phase_shift, Some(Span(Duration::from_secs(12 * 3600))));
        assert_eq!((options.pow_difficulty, options.metrics_port), (Some(20), Some(9090)));
        assert_eq!((options.debuglog, options.jsonlog, options.lps), (Some(true), Some(true), Some(70_000)));
        assert!(options.genesis_time.is_some());
    }

    fn leveldb(folder: &Path, entries: &[(Vec<u8>, Vec<u8>)]) {
        fs::create_dir_all(folder).unwrap();
        // compressed, as deployed servers have it
        let options = rusty_leveldb::Options {
            compressor: <rusty_leveldb::compressor::SnappyCompressor as rusty_leveldb::CompressorId>::ID,
            ..rusty_leveldb::Options::default()
        };
        let mut db = rusty_leveldb::DB::open(folder, options).unwrap();
        for (key, value) in entries {
            db.put(key, value).unwrap();
        }
        // half in a table, half in the log
        db.flush().unwrap();
    }

    fn opaque(bytes: &[u8]) -> Vec<u8> {
        let mut text = (bytes.len() as u32).to_be_bytes().to_vec();
        text.extend(bytes);
        text.resize(text.len().next_multiple_of(4), 0);
        text
    }

    #[test]
    fn rounds_registrations_and_proofs_are_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let from = Folders { data: dir.path().join("data"), db: dir.path().join("db") };
        let record = bytes(&vectors()["proof_record"]["bytes"]);
        leveldb(&from.db.join("proofs"), &[(b"3".to_vec(), record), (b"pow_challenge".to_vec(), vec![9; 32])]);
        let members: Vec<(Vec<u8>, Vec<u8>)> = (0..50u8).map(|n| (vec![n; 32], vec![n ^ 0x55; 32])).collect();
        leveldb(&from.db.join("rounds/4"), &members);
        leveldb(&from.db.join("rounds/5"), &members[..7]);

        // a running round, its lower layers as files
        let statement = membership::statement(members.iter().map(|(_, c)| c.clone().try_into().unwrap()).collect()).unwrap();
        let (salt, shape) = (Statement::new(&statement), Shape::new(crate::tree::LOWEST_LEVEL));
        let mut layers = vec![Vec::new(); 12];
        let mut tree = Grower::new(salt.clone());
        let leaves = 5 * 1024 + 77;
        for _ in 0..leaves {
            tree.grow(|level, node| {
                if let Some(layer) = layers.get_mut(level as usize) {
                    layer.extend(node);
                }
            });
        }
        let folder = from.data.join("rounds/4");
        fs::create_dir_all(&folder).unwrap();
        let state = [
            opaque(b"2023-07-24T08:00:00Z"),
            [0, 0, 0, 1, 0, 0, 0, 150, 0, 0, 0, 0].to_vec(),
            opaque(&statement),
            [0; 4].to_vec(),
            u64::to_be_bytes(leaves).to_vec(),
            [0; 4].to_vec(),
        ];
        fs::write(folder.join("state.bin"), state.concat()).unwrap();
        let work = dir.path().join("work");
        // by whichever layer there is: the lowest level we keep, or one below it
        for level in [10, 7] {
            fs::remove_file(folder.join("layercache_10.bin")).ok();
            fs::write(folder.join(format!("layercache_{level}.bin")), &layers[level]).unwrap();
            let store = MemoryStore::default();
            let taken = take_over(&from, &store, &work).unwrap();
            assert_eq!(taken.left, Vec::<String>::new());
            assert_eq!(taken.proofs, [RoundId(3)]);
            assert_eq!(taken.registrations, [(RoundId(4), 50), (RoundId(5), 7)]);
            assert_eq!(taken.running, [(RoundId(4), Leaves(5 * 1024))]);
            assert_eq!(store.record(RoundId(3)).unwrap().unwrap().members.len(), 2);
            assert_eq!(store.pow_challenges().unwrap().unwrap().current, [9; 32]);
            assert_eq!(store.count(RoundId(4)).unwrap(), 50);
            // what was taken over proves
            let log = NodeLog::open(&work.join("4/nodes"), &statement).unwrap();
            let tree = Tree { statement: &salt, shape, leaves: Leaves(5 * 1024), nodes: &log };
            let made = tree.prove(PROVEN_LEAVES, 1, &std::sync::atomic::AtomicBool::new(false)).unwrap();
            assert_eq!(proof::verify(&salt, &made), Ok(()));
        }
        // spoiled work is left, its members are not
        // in the first unit: the ones that are computed again are the first, the last and the one in the middle
        layers[7][100] ^= 1;
        fs::write(folder.join("layercache_7.bin"), &layers[7]).unwrap();
        let taken = take_over(&from, &MemoryStore::default(), &work).unwrap();
        assert_eq!((taken.registrations.len(), taken.running.len(), taken.left.len()), (2, 0, 1), "{:?}", taken.left);
        fs::write(from.db.join("rounds/5/CURRENT"), "nonsense").unwrap();
        assert!(matches!(take_over(&from, &MemoryStore::default(), &work), Err(LegacyError::Damaged { .. })));
    }
}
