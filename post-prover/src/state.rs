//! What a proving run has achieved, kept beside the data, so that a restart goes on where it was: found k2pows, the position of
//! the pass with the good labels up to there, and the finished proof.
//!
//! The file is replaced as a whole and carries a checksum; one that is damaged, of other data or of another challenge counts as
//! absent.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use proto::{
    ids::Challenge,
    post::{Metadata, Params, Proof},
};
use serde::{Deserialize, Serialize};

/// Name of the file.
pub const STATE_FILE: &str = "postprover_state.json";

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Hash of everything that has to be the same for the rest to be of use.
    run: String,
    /// k2pow by nonce group.
    pub pows: BTreeMap<u8, u64>,
    /// The pass under way.
    pub pass: Option<Pass>,
    /// The proof, when it is made.
    pub proof: Option<Proof>,
}

/// A pass under way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pass {
    /// Its first nonce group.
    pub first_group: u32,
    /// Its number of groups.
    pub groups: u32,
    /// Bytes from the start of the data that are done.
    pub position: u64,
    /// Good labels up to there, by nonce, in the order of the scan.
    pub good: BTreeMap<u32, Vec<u64>>,
    /// What is done beyond the position, by where it starts: several disks are not equally far.
    #[serde(default)]
    pub ahead: BTreeMap<u64, Stretch>,
}

/// A part of the data that is done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// Bytes from the start of the data to its end.
    pub end: u64,
    /// Nonce and index of the good labels, in the order of the scan.
    pub hits: Vec<(u32, u64)>,
}

impl Pass {
    /// Whether the byte at `at` is done.
    pub fn is_done(&self, at: u64) -> bool {
        at < self.position || self.ahead.range(..=at).next_back().is_some_and(|(_, stretch)| at < stretch.end)
    }

    /// Bytes that are done.
    pub fn done(&self) -> u64 {
        self.position + self.ahead.iter().map(|(start, stretch)| stretch.end.saturating_sub(*start)).sum::<u64>()
    }

    /// Notes that a part is done, and joins it with what it touches.
    pub fn put(&mut self, start: u64, mut stretch: Stretch) {
        if let Some(mut after) = self.ahead.remove(&stretch.end) {
            stretch.end = after.end;
            stretch.hits.append(&mut after.hits);
        }
        match self.ahead.range_mut(..start).next_back() {
            Some((_, before)) if before.end == start => {
                before.end = stretch.end;
                before.hits.append(&mut stretch.hits);
            }
            _ => {
                self.ahead.insert(start, stretch);
            }
        }
    }

    /// Takes what follows the position, which moves to its end: the good labels in order.
    pub fn advance(&mut self) -> Vec<(u32, u64)> {
        self.ahead.remove(&self.position).map_or_else(Vec::new, |stretch| {
            self.position = stretch.end;
            stretch.hits
        })
    }
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    checksum: String,
    state: serde_json::Value,
}

/// Keeps a [`State`] on disk.
#[derive(Debug)]
pub struct StateFile {
    path: Option<PathBuf>,
    /// What was kept, or what has to be.
    pub state: State,
}

impl StateFile {
    /// The state of the run that proves `challenge` with this data, from the file at `path` if it belongs to it.
    pub fn open(path: PathBuf, metadata: &Metadata, params: &Params, challenge: &Challenge) -> io::Result<Self> {
        let run = run_id(metadata, params, challenge);
        let state = match fs::read(&path) {
            Ok(text) => parse(&text).filter(|state| state.run == run),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        Ok(Self { path: Some(path), state: state.unwrap_or_else(|| State { run, ..State::default() }) })
    }

    /// A state that is not kept.
    pub fn in_memory() -> Self {
        Self { path: None, state: State::default() }
    }

    /// Puts the state on disk: it is there, or what was there before.
    pub fn save(&self) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let state = serde_json::to_value(&self.state)?;
        let sealed = Sealed { checksum: checksum(&state), state };
        replace(path, &serde_json::to_vec(&sealed)?)
    }
}

/// Replaces a file by way of a temporary one beside it.
pub fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&temporary)?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    #[cfg(unix)]
    if let Some(dir) = path.parent() {
        // so that the new name survives a power failure, too
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

fn checksum(state: &serde_json::Value) -> String {
    // The map keeps its keys sorted, so the text is the same after reading.
    blake3::hash(state.to_string().as_bytes()).to_hex().to_string()
}

fn parse(text: &[u8]) -> Option<State> {
    let sealed: Sealed = serde_json::from_slice(text).ok()?;
    (checksum(&sealed.state) == sealed.checksum).then(|| serde_json::from_value(sealed.state).ok()).flatten()
}

fn run_id(metadata: &Metadata, params: &Params, challenge: &Challenge) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"post-prover state 1");
    hasher.update(metadata.node_id.as_bytes());
    hasher.update(metadata.commitment_atx_id.as_bytes());
    for number in
        [metadata.labels_per_unit, metadata.num_units.0.into(), metadata.max_file_size, params.k1.into(), params.k2.into()]
    {
        hasher.update(&number.to_le_bytes());
    }
    hasher.update(&params.pow_difficulty);
    hasher.update(challenge.as_bytes());
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use proto::{
        ids::{AtxId, NodeId},
        post::Preset,
        units::SpaceUnits,
    };

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_in_any_order_become_the_whole(
            ends in prop::collection::btree_set(1_u64..1000, 1..40),
            order in prop::collection::vec(any::<prop::sample::Index>(), 40),
            cut in 0_usize..40,
        ) {
            let mut parts: Vec<(u64, Stretch)> = std::iter::once(0)
                .chain(ends.iter().copied())
                .zip(&ends)
                .map(|(start, end)| (start, Stretch { end: *end, hits: vec![(7, start), (8, *end)] }))
                .collect();
            let whole: Vec<_> = parts.iter().flat_map(|(_, stretch)| stretch.hits.clone()).collect();
            let (last, mut pass, mut hits) = (ends.last().copied().unwrap(), Pass::default(), Vec::new());
            for (i, at) in order.iter().enumerate() {
                if parts.is_empty() {
                    break;
                }
                let (start, stretch) = parts.swap_remove(at.index(parts.len()));
                prop_assert!(!pass.is_done(start) && !pass.is_done(stretch.end - 1));
                pass.put(start, stretch.clone());
                if i == cut {
                    // kept and read again
                    pass = serde_json::from_value(serde_json::to_value(&pass).unwrap()).unwrap();
                }
                hits.extend(pass.advance());
                prop_assert!(pass.is_done(start) && pass.is_done(stretch.end - 1));
                let rest: u64 = parts.iter().map(|(start, stretch)| stretch.end - start).sum();
                prop_assert_eq!(pass.done(), last - rest);
            }
            if parts.is_empty() {
                prop_assert_eq!(pass.position, last);
                prop_assert!(pass.ahead.is_empty());
                prop_assert_eq!(hits, whole);
            }
        }
    }

    #[test]
    fn a_state_is_for_its_own_run_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(STATE_FILE);
        let metadata = Metadata {
            node_id: NodeId([1; 32]),
            commitment_atx_id: AtxId([2; 32]),
            labels_per_unit: 128,
            num_units: SpaceUnits(2),
            max_file_size: 1024,
            nonce: None,
            nonce_value: None,
            last_position: None,
        };
        let params = Preset::Fastnet.params();
        let open = |m: &Metadata, p: &Params, c: u8| StateFile::open(path.clone(), m, p, &Challenge([c; 32])).unwrap();
        let mut file = open(&metadata, &params, 3);
        assert!(file.state.pows.is_empty());
        file.state.pows.insert(4, u64::MAX);
        file.state.pass = Some(Pass {
            first_group: 1,
            groups: 2,
            position: 1 << 40,
            good: [(17, vec![1, u64::MAX])].into(),
            ..Pass::default()
        });
        file.save().unwrap();
        assert_eq!(open(&metadata, &params, 3).state, file.state);
        assert!(open(&metadata, &params, 4).state.pows.is_empty());
        assert!(open(&Metadata { num_units: SpaceUnits(3), ..metadata.clone() }, &params, 3).state.pows.is_empty());
        assert!(open(&metadata, &Params { k1: 13, ..params.clone() }, 3).state.pows.is_empty());
        // another nonce of the VRF does not matter
        assert_eq!(open(&Metadata { nonce: Some(7), ..metadata.clone() }, &params, 3).state, file.state);

        let text = fs::read_to_string(&path).unwrap();
        for damaged in [text[..text.len() - 9].to_owned(), text.replace("\"first_group\":1", "\"first_group\":2"), String::new()]
        {
            fs::write(&path, damaged).unwrap();
            assert!(open(&metadata, &params, 3).state.pass.is_none());
        }
    }
}
