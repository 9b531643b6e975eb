use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{
    binding::{flatten, is_local},
    read::tree_of,
    *,
};
use crate::units::SpaceUnits;

/// All parameters as keys and values.
fn leaves(network: &Network) -> BTreeMap<String, String> {
    let mut leaves = BTreeMap::new();
    flatten(&Value::Object(tree_of(network)), String::new(), &mut leaves);
    leaves
}

#[test]
fn embedded_presets_are_complete_and_sound() {
    for preset in Preset::ALL {
        assert_eq!(preset.network().check(), Vec::<String>::new(), "{preset}");
        assert_eq!(preset.to_string().parse::<Preset>().unwrap(), preset);
        // what is shown is read back
        let text = toml::to_string(preset.network()).unwrap();
        let again = parse(&text, false).unwrap();
        assert_eq!((&again.network, again.unused.len()), (preset.network(), 0));
        let text = serde_json::to_string(preset.network()).unwrap();
        assert_eq!(parse(&text, true).unwrap().network, *preset.network());
    }
    let error = "Mainnet".parse::<Preset>().unwrap_err().to_string();
    assert_eq!(error, "unknown preset \"Mainnet\": choose mainnet, testnet, fastnet, standalone, local or the path of a file");
}

#[test]
fn genesis_is_that_of_the_networks() {
    let (mainnet, fixed) = Preset::Mainnet.genesis();
    assert!(fixed);
    assert_eq!(hex::encode(mainnet.id().0), "9eebff023abb17ccb775c602daade8ed708f0a50");
    assert_eq!(hex::encode(Preset::Testnet.genesis().0.id().0), "e956eff99be943fb70bd385dd509a3f84e9a75dd");
    assert_eq!(Preset::Mainnet.network().effective_genesis_layer(), 8063);
    assert_eq!(Preset::Fastnet.genesis().0.unix_time, UnixSeconds(0));
    for preset in [Preset::Fastnet, Preset::Standalone, Preset::Local] {
        assert!(!preset.genesis().1);
    }
    let accounts = &Preset::Mainnet.network().genesis.accounts;
    assert_eq!((accounts.len(), accounts.values().sum::<u64>()), (28, 150_000_000_000_000_000));
}

/// The figures of the reference, row by row.
#[test]
fn presets_are_those_of_the_reference() {
    let file: Value = serde_json::from_str(include_str!("../../testdata/config_presets.json")).unwrap();
    let seconds = |value: &Value| value.as_u64().map(std::time::Duration::from_secs);
    for preset in [Preset::Mainnet, Preset::Testnet, Preset::Fastnet, Preset::Standalone] {
        let (network, row) = (preset.network(), &file[preset.to_string()]);
        let same = |ours: Value, key: &str| {
            let theirs = row.pointer(key).unwrap_or(&Value::Null);
            assert!(theirs.is_null() || *theirs == ours, "{preset} {key}: {theirs} there, {ours} here");
        };
        let time = |span: crate::span::Span, key: &str| {
            if let Some(theirs) = row.pointer(key).and_then(seconds) {
                assert_eq!(span.0, theirs, "{preset} {key}");
            }
        };
        let (main, post, poet) = (&network.main, &network.post, &network.poet);
        same(main.network_hrp.clone().into(), "/hrp");
        same(main.layers_per_epoch.into(), "/layers_per_epoch");
        same(main.layer_average_size.into(), "/layer_avg_size");
        same(main.tick_size.into(), "/tick_size");
        same(main.miner_good_atxs_percent.into(), "/miner_good_atxs_percent");
        time(main.layer_duration, "/layer_duration");
        time(main.regossip_atx_interval, "/regossip_atx_interval");
        time(main.atx_grade_delay, "/atx_grade_delay");
        time(main.post_valid_delay, "/post_valid_delay");
        time(poet.phase_shift, "/poet/phase_shift");
        time(poet.cycle_gap, "/poet/cycle_gap");
        time(poet.grace_period, "/poet/grace_period");
        time(poet.positioning_atx_selection_timeout, "/poet/positioning_atx_selection_timeout");
        time(poet.info_cache_ttl, "/poet/info_cache_ttl");
        time(poet.pow_params_cache_ttl, "/poet/pow_params_cache_ttl");
        time(poet.poet_request_timeout, "/poet/request_timeout");
        time(poet.retry_delay, "/poet/request_retry_delay");
        same(poet.retry_max.into(), "/poet/max_request_retries");
        same(poet.poet_proofs_cache.into(), "/poet/poet_proofs_cache");
        same(post.min_numunits.into(), "/post/min_num_units");
        same(post.max_numunits.into(), "/post/max_num_units");
        same(post.labels_per_unit.into(), "/post/labels_per_unit");
        same(post.k1.into(), "/post/k1");
        same(post.k2.into(), "/post/k2");
        same(post.k3.into(), "/post/k3");
        same(hex::encode(post.pow_difficulty.0).into(), "/post/pow_difficulty");
        same(network.smeshing.setup.scrypt.n.get().into(), "/scrypt/n");
        same(network.smeshing.proving.nonces.into(), "/proving/nonces");
        same(network.smeshing.proving.randomx_mode.clone().into(), "/proving/randomx_mode");
        same(network.genesis.genesis_extra_data.clone().into(), "/genesis_extra_data");
        same(network.hare_eligibility.confidence_param.into(), "/hare_confidence_param");
        same(network.active_set_preparation.tries.into(), "/active_set_preparation/tries");
        time(network.active_set_preparation.window, "/active_set_preparation/window");
        time(network.active_set_preparation.retry_interval, "/active_set_preparation/retry_interval");
        same(serde_json::to_value(&network.tortoise.minimal_active_set_weight).unwrap(), "/minimal_active_set_weight");
        same(network.hare3.enable_layer.into(), "/hare3/enable_layer");
        same(network.hare3.committee.into(), "/hare3/committee");
        same(serde_json::to_value(network.hare3.committee_upgrade).unwrap(), "/hare3/committee_upgrade");
        same(network.hare4.enable.into(), "/hare4_enabled");
        same(network.certificate.committee_size.into(), "/certify_committee");
        if let Some(genesis) = row["genesis_time"].as_str() {
            assert_eq!(network.genesis.genesis_time, Some(genesis.parse().unwrap()));
        }
    }
    assert_eq!(Preset::Mainnet.network().main.post_valid_delay, crate::span::Span::MAX);
}

#[test]
fn the_local_network_is_as_asked_for() {
    let (network, params) = (Preset::Local.network(), Preset::Local.params());
    assert_eq!((params.scrypt_n.get(), params.labels_per_unit), (8192, 16_384));
    assert_eq!((params.min_num_units, params.max_num_units), (SpaceUnits(2), SpaceUnits(4)));
    assert_eq!((params.k1, params.k2, params.k3), (26, 37, 1));
    assert_eq!((network.main.layer_duration.0.as_secs(), network.main.layers_per_epoch), (5, 24));
    let times = [network.poet.phase_shift, network.poet.cycle_gap, network.poet.grace_period].map(|span| span.0.as_secs());
    assert_eq!(times, [60, 40, 20]);
    // 64 nonces are 4 groups; each costs `units * 2^256 / difficulty` hashes
    let top = u64::from_be_bytes(params.pow_difficulty[..8].try_into().unwrap());
    let hashes = 4.0 * 2.0 * 2f64.powi(64) / top as f64;
    assert!((hashes - 100.0).abs() < 0.1, "{hashes}");
}

#[test]
fn files_start_from_a_preset_or_are_complete() {
    let loaded = parse("preset = \"local\"\nname = \"mine\"\n[main]\nlayer-duration = \"7s\"\n", false).unwrap();
    assert_eq!(loaded.network.name, "mine");
    assert_eq!(loaded.network.main.layer_duration.to_string(), "7s");
    assert_eq!(loaded.network.main.layers_per_epoch, 24);
    // unquoted times and large numbers
    let text =
        "preset = \"local\"\n[genesis]\ngenesis-time = 2030-01-02T03:04:05Z\n[genesis.accounts]\na = \"18446744073709551615\"\n";
    let network = parse(text, false).unwrap().network;
    assert_eq!(network.genesis().unwrap().unix_time.to_string(), "2030-01-02T03:04:05Z");
    assert_eq!(network.genesis.accounts, BTreeMap::from([("a".to_owned(), u64::MAX)]));
    let missing = parse("name = \"mine\"\n", false).unwrap_err().to_string();
    assert!(missing.contains("active-set-preparation"), "{missing}");
    assert!(matches!(parse("preset = \"moon\"", false), Err(LoadError::UnknownName(_))));
    assert!(matches!(parse("preset = 3", false), Err(LoadError::Value { .. })));
    assert!(matches!(parse("= 3", false), Err(LoadError::Toml(_))));
    assert!(matches!(parse("[]", true), Err(LoadError::Json(_))));
}

#[test]
fn wrong_values_are_named_with_their_place() {
    let message = |text: &str| parse(&format!("preset = \"mainnet\"\n{text}"), false).unwrap_err().to_string();
    assert!(message("[main]\nlayer-duration = \"5 fortnights\"").starts_with("main.layer-duration: expected a duration"));
    assert!(message("[smeshing.smeshing-opts.smeshing-opts-scrypt]\nscryptn = 7").contains("scryptn: scrypt N must be a power"));
    assert!(message("[post]\npost-k1 = -1").starts_with("post.post-k1: "));
    let unknown = message("[main]\nlayer-durations = \"5m\"\n[moon]\na = 1\nb.c = 2");
    assert_eq!(unknown, "unknown keys: main.layer-durations, moon.a, moon.b.c");
    let unsound = message("[post]\npost-min-numunits = 9\npost-max-numunits = 8\n[hare3]\nenable-layer = 4294967295");
    assert!(unsound.contains("leave nothing; ") && unsound.contains("hare3: disable-layer"), "{unsound}");
    assert!(message("[genesis]\ngenesis-extra-data = \"\"").contains("1 to 255 bytes"));
}

#[test]
fn the_configuration_of_the_official_node_is_read() {
    let config = json!({
        "preset": "testnet",
        "main": {"Layer-Duration": "4m", "data-folder": "/data", "db-connections": 3, "atx-versions": {"7": 2},
                 "poet-servers": [{"address": "http://poet", "pubkey": "cFnqCS5oER7GOX576oPtahlxB/1y95aDibdK7RHQFVg="}]},
        "genesis": {"genesis-time": "2024-01-01T00:00:00Z", "genesis-extra-data": "x", "accounts": {}},
        "api": {"grpc-public-listener": "0.0.0.0:9092"},
        "p2p": {"bootnodes": "/dns4/a/tcp/1/p2p/x, /dns4/b/tcp/1/p2p/y", "disable-reuseport": true},
        "tortoise": {"MinimalActiveSetWeight": [{"epoch": 0, "weight": 5}, {"epoch": 9, "weight": 6}]},
        "hare3": {"CommitteeUpgrade": {"Layer": 10, "Size": 20}, "preround-delay": 1_000_000_000},
        "smeshing": {"smeshing-coinbase": "stest1", "smeshing-opts": {"smeshing-opts-datadir": "/post"}}
    });
    let loaded = parse(&config.to_string(), true).unwrap();
    let network = &loaded.network;
    assert_eq!(network.main.layer_duration.to_string(), "4m");
    assert_eq!(network.main.layers_per_epoch, 288);
    assert_eq!(network.main.atx_versions, BTreeMap::from([(7, 2)]));
    assert_eq!(network.main.poet_servers[0].address, "http://poet");
    assert_eq!(network.p2p.bootnodes.len(), 2);
    assert_eq!(network.tortoise.minimal_active_set_weight[1].weight, 6);
    assert_eq!(network.hare3.committee_upgrade, Some(CommitteeUpgrade { layer: 10, size: 20 }));
    assert_eq!(network.hare3.preround_delay.to_string(), "1s");
    let unused: BTreeSet<_> = loaded.unused.iter().map(String::as_str).collect();
    let expected = [
        "api.grpc-public-listener",
        "main.data-folder",
        "main.db-connections",
        "p2p.disable-reuseport",
        "smeshing.smeshing-coinbase",
        "smeshing.smeshing-opts.smeshing-opts-datadir",
    ];
    assert_eq!(unused, BTreeSet::from(expected));
    // no preset is mainnet
    assert_eq!(parse("{}", true).unwrap().network, *Preset::Mainnet.network());
    let unknown = parse(r#"{"p2p": {"boot-nodes": []}, "poet": {"pahse-shift": "1s"}}"#, true).unwrap_err();
    assert_eq!(unknown.to_string(), "unknown keys: p2p.boot-nodes, poet.pahse-shift");
    let old = parse(r#"{"main": {"poet-server": []}}"#, true).unwrap_err().to_string();
    assert!(old.contains("use main.poet-servers"), "{old}");
}

/// Another value of the same kind.
fn other(value: &Value) -> Value {
    match value {
        Value::Bool(yes) => (!yes).into(),
        Value::Number(number) if number.is_f64() => (number.as_f64().unwrap() + 0.125).into(),
        Value::Number(number) => (number.as_u64().unwrap() ^ 1).into(),
        Value::Array(items) if items.is_empty() => Value::Null,
        Value::Array(items) => items[1..].to_vec().into(),
        Value::String(text) if text.ends_with('Z') => "2001-02-03T04:05:06Z".into(),
        Value::String(text) if text.contains('/') && text.len() < 5 => "2/7".into(),
        Value::String(text) if text.len() == 64 => text.replace('9', "8").into(),
        Value::String(text) => match text.parse::<crate::span::Span>() {
            Ok(_) => "77s".into(),
            Err(_) => format!("{text}x").into(),
        },
        Value::Object(_) | Value::Null => Value::Null,
    }
}

/// Every parameter of mainnet, changed alone: either the binding changes as well, and says which parameter it was, or the
/// parameter is one that a node may change by itself.
#[test]
fn every_parameter_is_bound_or_local() {
    let mainnet = Preset::Mainnet.network();
    let time = mainnet.genesis.genesis_time.unwrap();
    let bound = Binding::new(mainnet, time);
    let (mut changed, mut local) = (0, 0);
    for key in leaves(mainnet).keys() {
        let mut tree = Value::Object(tree_of(mainnet));
        let pointer = format!("/{}", key.replace('.', "/"));
        let place = tree.pointer_mut(&pointer).unwrap();
        *place = match key.as_str() {
            // only 1 and N are possible here, or the value is a key word
            "smeshing.smeshing-opts.smeshing-opts-scrypt.scryptn" => 2.into(),
            "main.post-valid-delay" => "1h".into(),
            _ => other(place),
        };
        assert!(!place.is_null() || key == "tortoise.none", "{key}");
        let network: Network = serde_json::from_value(tree).unwrap_or_else(|e| panic!("{key}: {e}"));
        assert_ne!(network, *mainnet, "{key}");
        let asked = Binding::new(&network, network.genesis.genesis_time.unwrap());
        let differences = bound.differences(&asked);
        if is_local(key) {
            local += 1;
            assert_eq!(differences, [], "{key}");
        } else {
            changed += 1;
            assert_eq!(differences.len(), 1, "{key}: {differences:?}");
            assert_eq!(differences[0].key, *key);
            let (was, is) = (differences[0].bound.as_ref().unwrap(), differences[0].asked.as_ref().unwrap());
            assert!(differences[0].to_string().contains(was) && differences[0].to_string().contains(is) && was != is);
        }
    }
    assert!(changed > 60 && local > 20, "{changed} {local}");
    // what is added or left out counts as well
    let mut network = mainnet.clone();
    network.main.atx_versions.insert(50, 2);
    network.hare3.committee_upgrade = None;
    let differences = bound.differences(&Binding::new(&network, time));
    let keys: Vec<_> = differences.iter().map(|difference| difference.key.as_str()).collect();
    assert_eq!(keys, ["hare3.committee-upgrade.layer", "hare3.committee-upgrade.size", "main.atx-versions.50"]);
    assert!(differences.iter().all(|difference| !difference.is_genesis()));
    // another time of birth is another network
    let born = Binding::new(mainnet, UnixSeconds(1));
    assert!(bound.differences(&born)[0].is_genesis());
    // and it survives its way to the disk
    let text = serde_json::to_string(&bound).unwrap();
    assert_eq!(serde_json::from_str::<Binding>(&text).unwrap(), bound);
}

#[test]
fn files_are_found_by_their_path() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("office.toml");
    std::fs::write(&path, "preset = \"fastnet\"\nname = \"office\"\n[p2p]\nmin-peers = 2\n").unwrap();
    let preset: Preset = path.to_str().unwrap().parse().unwrap();
    assert_eq!((preset.to_string().as_str(), preset.network().p2p.min_peers), ("office", 2));
    assert_eq!(preset.params(), Preset::Fastnet.params());
    assert!(matches!("./mainnet".parse::<Preset>(), Err(LoadError::Read { .. })));
    std::fs::write(&path, "preset = \"fastnet\"\nx = 1\n").unwrap();
    let error = load(&path).unwrap_err().to_string();
    assert_eq!(error, format!("{}: unknown keys: x", path.display()));
    let json = dir.path().join("office.JSON");
    std::fs::write(&json, "{\"preset\": \"fastnet\", \"logging\": {\"level\": 1}}").unwrap();
    assert_eq!(load(&json).unwrap().unused, ["logging.level"]);
    std::fs::write(&json, vec![b' '; 5 << 20]).unwrap();
    assert!(load(&json).unwrap_err().to_string().contains("larger than"));
}

/// Every parameter of mainnet, given a value of another kind or left out: the error names it.
#[test]
fn every_wrong_parameter_is_named() {
    let mainnet = tree_of(Preset::Mainnet.network());
    for key in leaves(Preset::Mainnet.network()).keys() {
        let pointer = format!("/{}", key.replace('.', "/"));
        let mut tree = Value::Object(mainnet.clone());
        *tree.pointer_mut(&pointer).unwrap() = json!({ "x": [] });
        // a group of accounts is replaced as a whole, so its own name is the place
        let named = |message: &str| message.starts_with(&format!("{key}: ")) || message.starts_with("genesis.accounts: ");
        let message = parse(&tree.to_string(), true).unwrap_err().to_string();
        assert!(named(&message), "{key}: {message}");
        let (group, last) = pointer.rsplit_once('/').unwrap();
        let mut tree = Value::Object(mainnet.clone());
        let group = if group.is_empty() { &mut tree } else { tree.pointer_mut(group).unwrap() };
        group.as_object_mut().unwrap().remove(last);
        // accounts and the time of birth may be missing; without a name it is the official node's, which starts from mainnet
        let optional = key.starts_with("genesis.accounts.") || ["genesis.genesis-time", "name"].contains(&key.as_str());
        match parse(&tree.to_string(), true) {
            Ok(_) => assert!(optional, "{key}"),
            Err(e) => assert!(!optional && e.to_string().starts_with(&format!("{key}: ")), "{key}: {e}"),
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]
    #[test]
    fn no_text_breaks_the_reader(
        at in 0..4000usize, length in 0..40usize, put in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..12), json in proptest::bool::ANY,
    ) {
        let network = Preset::Local.network();
        let mut text = if json { serde_json::to_vec(network).unwrap() } else { toml::to_string(network).unwrap().into_bytes() };
        let at = at.min(text.len());
        let end = (at + length).min(text.len());
        text.splice(at..end, put);
        let _ = parse(&String::from_utf8_lossy(&text), json);
    }
}
