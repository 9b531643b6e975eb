//! What must not be opened is refused, with words that say why.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use proto::{ids::NodeId, keys::IdentityKey, preset::Preset};
use store::{
    StoreError,
    data_dir::{DataDir, Open},
    engine::{Batch, Engine, Read as _},
    guard::{Bar, Statement},
    schema::{Database, Family, Schema},
};

use super::{born, local, open};

/// A directory with something in both databases.
fn filled() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let data = open(&dir.path().join("data"));
    let key = IdentityKey::from_seed(&[1; 32]);
    for layer in 0..20 {
        data.guard().sign(&key, &Statement::ballot(layer, [1; 32])).unwrap();
    }
    let mut batch = Batch::default();
    for n in 0..100u8 {
        batch.put(Family::Malicious, [n; 32], [1; 109]);
    }
    data.state().write(&batch, store::engine::Durability::Process).unwrap();
    drop(data);
    dir
}

fn refused(path: &Path) -> StoreError {
    DataDir::open(path, &local()).map(drop).unwrap_err()
}

/// Copies a folder as `cp -r` does.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn the_directory_is_private_and_locked() {
    let dir = filled();
    let path = dir.path().join("data");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for name in ["LOCK", "genesis.json", "data-dir.json", "state.mark", "local.mark"] {
        assert_eq!(mode(&path.join(name)), 0o600, "{name}");
    }
    let data = open(&path);
    let message = refused(&path).to_string();
    assert!(message.contains("only one program") && message.contains(&std::process::id().to_string()), "{message}");
    drop(data);
    open(&path);
    let genesis = fs::read_to_string(path.join("genesis.json")).unwrap();
    let genesis: serde_json::Value = serde_json::from_str(&genesis).unwrap();
    assert_eq!(genesis["GenesisTime"], "2027-01-15T08:00:00Z");
    assert_eq!(genesis["ExtraData"], "local");
    assert_eq!(genesis["Accounts"].as_object().unwrap().len(), 2);
    assert!(matches!(DataDir::open(dir.path(), &Open::Existing), Err(StoreError::NoDataDir { .. })));
    DataDir::open(&path, &Open::Existing).unwrap();
}

#[test]
fn another_network_is_refused_with_both_values() {
    let dir = filled();
    let path = dir.path().join("data");
    for preset in [Preset::Mainnet, Preset::Testnet, Preset::Fastnet, Preset::Standalone] {
        let error = DataDir::open(&path, &Open::For(born(preset.network()))).unwrap_err();
        assert!(matches!(error, StoreError::OtherNetwork(_)), "{error}");
    }
    // the same genesis, one parameter changed
    let mut network = Preset::Local.network().clone();
    network.post.k2 = 38;
    let changed = born(&network);
    let error = DataDir::open(&path, &Open::For(changed.clone())).unwrap_err();
    assert!(error.to_string().contains("post.post-k2: bound to 37, asked for 38"), "{error}");
    assert!(error.advice().unwrap().contains("rebind"));
    // what a node may change by itself
    let mut own = Preset::Local.network().clone();
    own.p2p.min_peers = 77;
    DataDir::open(&path, &Open::For(born(&own))).unwrap();
    // a network that changes its parameters
    DataDir::open(&path, &Open::Rebind(changed.clone())).unwrap();
    DataDir::open(&path, &Open::For(changed)).unwrap();
    assert!(matches!(refused(&path), StoreError::OtherNetwork(_)));
    // the genesis never changes
    let mut reborn = born(&network);
    reborn.genesis_time.0 += 1;
    for how in [Open::For(reborn.clone()), Open::Rebind(reborn)] {
        let message = DataDir::open(&path, &how).unwrap_err().to_string();
        assert!(message.contains("2027-01-15T08:00:00Z") && message.contains("2027-01-15T08:00:01Z"), "{message}");
    }
    let mut rich = network.clone();
    rich.genesis.accounts.insert("stest1".to_owned(), 5);
    let message = DataDir::open(&path, &Open::Rebind(born(&rich))).unwrap_err().to_string();
    assert!(message.contains("genesis.accounts"), "{message}");
}

#[test]
fn a_newer_database_is_refused_and_an_older_one_migrated() {
    fn first(database: Database, engine: &dyn Engine, batch: &mut Batch) -> Result<(), StoreError> {
        if database == Database::Local {
            return Ok(());
        }
        // every record once more under another key
        engine.scan(Family::Malicious, store::engine::Range::all(), &mut |key, value| {
            let other: Vec<u8> = key.iter().map(|byte| byte ^ 0x80).collect();
            batch.put(Family::Malicious, other, value);
            Ok(std::ops::ControlFlow::Continue(()))
        })
    }
    #[expect(clippy::unnecessary_wraps, reason = "steps may fail")]
    fn second(database: Database, _: &dyn Engine, batch: &mut Batch) -> Result<(), StoreError> {
        if database == Database::State {
            batch.put(Family::Malicious, [0xfe; 32], [1; 9]);
        }
        Ok(())
    }
    fn fails(_: Database, _: &dyn Engine, batch: &mut Batch) -> Result<(), StoreError> {
        batch.put(Family::Malicious, [0xfd; 32], [1; 9]);
        Err(StoreError::damaged(Family::Malicious, &[], "the machine went off"))
    }
    let dir = filled();
    let path = dir.path().join("data");
    let as_version = |version, steps| DataDir::open_as(&path, &local(), &Schema { version, steps });
    let has = |data: &DataDir, n: u8| data.state().get(Family::Malicious, &[n; 32]).unwrap().is_some();
    // interrupted in the second step: the first one stays, of the second one nothing
    assert!(as_version(4, &[first, fails]).is_err());
    let data = as_version(3, &[first]).unwrap();
    assert!(has(&data, 0xe3) && !has(&data, 0xfd));
    drop(data);
    let data = as_version(4, &[first, second]).unwrap();
    assert!(has(&data, 0xfe));
    drop(data);
    for (known, steps) in [(2, &[] as &[store::schema::Migration]), (3, &[first])] {
        let error = DataDir::open_as(&path, &local(), &Schema { version: known, steps: steps.to_vec().leak() }).unwrap_err();
        assert!(matches!(error, StoreError::Newer { found: 4, .. }), "{error}");
        assert!(error.to_string().contains("use the newer program"));
    }
    assert!(matches!(as_version(6, &[second]).unwrap_err(), StoreError::NoMigration { found: 4, .. }));
}

#[test]
fn copies_are_refused_until_they_are_adopted() {
    let dir = filled();
    let (path, copied) = (dir.path().join("data"), dir.path().join("copy"));
    copy(&path, &copied);
    let error = refused(&copied);
    assert!(matches!(error, StoreError::Copied { .. }) && error.to_string().contains("is a copy"), "{error}");
    DataDir::open(&copied, &Open::Adopt).unwrap();
    open(&copied);
    // the original is as it was
    open(&path);
    // one database of another directory
    let other = dir.path().join("other");
    drop(open(&other));
    fs::remove_dir_all(other.join("local")).unwrap();
    copy(&path.join("local"), &other.join("local"));
    let error = refused(&other);
    assert!(matches!(error, StoreError::OtherDirectory { .. }) && error.to_string().contains("local was copied"), "{error}");
    assert!(matches!(DataDir::open(&other, &Open::Adopt), Err(StoreError::OtherDirectory { .. })));
    // moving is no copying
    let moved = dir.path().join("moved");
    fs::rename(&path, &moved).unwrap();
    open(&moved);
}

#[test]
fn a_backup_opens_after_it_was_adopted() {
    let dir = filled();
    let (path, backup) = (dir.path().join("data"), dir.path().join("backup"));
    let data = open(&path);
    data.backup(&backup).unwrap();
    assert!(matches!(data.backup(&backup), Err(StoreError::Io { .. })));
    let signed = data.guard().history().unwrap();
    drop(data);
    assert!(DataDir::open(&backup, &local()).is_err());
    let data = DataDir::open(&backup, &Open::Adopt).unwrap();
    assert_eq!(data.guard().history().unwrap(), signed);
    data.guard().raise_bar(&NodeId([1; 32]), Bar { epoch: 1, layer: 1 }).unwrap();
    drop(data);
    open(&backup);
}

/// The files of a database with their lengths, the longest first.
fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.to_str().unwrap().ends_with(end)).collect();
    files.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).unwrap().len()));
    files
}

#[test]
fn truncated_databases_are_refused() {
    let dir = filled();
    let path = dir.path().join("data");
    let mut tried = 0;
    for database in ["state", "local"] {
        for end in [".log", ".sst", "CURRENT"] {
            // the write-ahead log as it is, and after it became a table
            if end == ".sst" {
                drop(open(&path));
            }
            let Some(name) = files(&path.join(database), end).first().map(|file| file.file_name().unwrap().to_owned()) else {
                continue;
            };
            let length = fs::metadata(path.join(database).join(&name)).unwrap().len();
            for left in [0, length / 2, length.saturating_sub(1)] {
                let copied = dir.path().join(format!("{database}-{end}-{left}"));
                copy(&path, &copied);
                let file = fs::OpenOptions::new().write(true).open(copied.join(database).join(&name)).unwrap();
                file.set_len(left).unwrap();
                // adopting a copy gives up the count of changes: to see that, only the copied directory's id is replaced
                let error = refused(&copied);
                if length > left {
                    assert!(!matches!(error, StoreError::Copied { .. }), "{database} {end} {left}: {error}");
                    assert!(error.is_data() && error.advice().is_some(), "{error}");
                    tried += 1;
                }
            }
        }
    }
    assert!(tried >= 8, "{tried}");
}

#[test]
fn an_older_state_of_a_database_is_refused() {
    let dir = filled();
    let (path, old) = (dir.path().join("data"), dir.path().join("old"));
    copy(&path.join("local"), &old);
    let data = open(&path);
    let key = IdentityKey::from_seed(&[1; 32]);
    data.guard().sign(&key, &Statement::ballot(99, [1; 32])).unwrap();
    drop(data);
    fs::remove_dir_all(path.join("local")).unwrap();
    copy(&old, &path.join("local"));
    let error = refused(&path);
    assert!(matches!(error, StoreError::Behind { .. }), "{error}");
    assert!(error.to_string().contains("truncated or replaced by an older copy"), "{error}");
    // neither is a database that is gone, or its mark
    fs::remove_dir_all(path.join("local")).unwrap();
    assert!(matches!(refused(&path), StoreError::Behind { .. }));
    copy(&old, &path.join("local"));
    fs::remove_file(path.join("local.mark")).unwrap();
    assert!(matches!(refused(&path), StoreError::File { .. }));
    DataDir::open(&path, &Open::Adopt).unwrap();
    open(&path);
    // a directory without its id, or with a damaged one
    fs::write(path.join("data-dir.json"), "{}").unwrap();
    assert!(matches!(refused(&path), StoreError::File { .. }));
    fs::remove_file(path.join("data-dir.json")).unwrap();
    assert!(refused(&path).to_string().contains("there are databases"));
}

#[test]
fn a_directory_whose_making_was_interrupted_is_completed() {
    // every prefix of the steps in which a directory is made
    let whole = tempfile::tempdir().unwrap();
    drop(open(&whole.path().join("data")));
    for steps in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        for name in ["LOCK", "genesis.json", "data-dir.json"].into_iter().take(steps) {
            fs::copy(whole.path().join("data").join(name), path.join(name)).unwrap();
        }
        drop(open(&path));
        drop(open(&path));
    }
}
