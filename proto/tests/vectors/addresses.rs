use std::num::NonZeroU32;

use proto::{
    address::{AccountKey, AddressError, MultisigArguments, Network, Template, VaultArguments, WalletArguments},
    genesis::Genesis,
    ids::{Address, AtxId, Hash32, NodeId},
    keys::IdentityKey,
    layers::{EpochId, LayerId, LayersPerEpoch},
    units::Smidge,
    wallet::{self, Path, WalletError, Words},
};
use serde_json::Value;

use crate::{array, bytes, list, load, number, number32, text};

fn network(prefix: &Value) -> Network {
    Network::from_prefix(text(prefix)).unwrap()
}

fn wallet_address(key: &Value) -> Address {
    Address::principal(Template::Wallet, &WalletArguments { public_key: AccountKey(array(key)) }).unwrap()
}

#[test]
fn of_the_node() {
    let file = load!("node/addresses.json");
    for case in list(&file["valid"]) {
        let address = Address(array(&case["hex"]));
        assert_eq!(Address::parse(text(&case["text"]), network(&case["hrp"])), Ok(address));
        assert_eq!(address.to_text(network(&case["hrp"])), text(&case["text"]));
    }
    for case in list(&file["invalid"]) {
        assert!(Address::parse(text(&case["text"]), network(&case["network_hrp"])).is_err(), "{case}");
    }
    for case in list(&file["wallet_principal"]) {
        let address = wallet_address(&case["public_key"]);
        assert_eq!(address, Address(array(&case["address_hex"])));
        assert_eq!(Template::Wallet.address(), Address(array(&case["template"])));
        assert_eq!(address.to_text(Network::Mainnet), text(&case["sm"]));
        assert_eq!(address.to_text(Network::Testnet), text(&case["stest"]));
    }
    for case in list(&file["generate_address"]) {
        let address = Address::generate(&bytes(&case["input"]));
        assert_eq!(address, Address(array(&case["address_hex"])));
        for network in Network::ALL {
            assert_eq!(address.to_text(network), text(&case[network.prefix()]));
        }
    }
    let mut total = 0;
    for case in list(&file["mainnet_genesis_ledger"]) {
        assert_eq!(Address::parse(text(&case["text"]), Network::Mainnet), Ok(Address(array(&case["hex"]))));
        total += number(&case["balance_smidge"]);
    }
    assert_eq!(total, number(&file["mainnet_genesis_total_smidge"]));
}

#[test]
fn of_the_reference() {
    let file = load!("node/addresses_go.json");
    for case in list(&file["decode"]) {
        let network = network(&case["network_hrp"]);
        let found = Address::parse(text(&case["text"]), network);
        assert_eq!(found.is_ok(), case["accept"].as_bool().unwrap(), "{case}: {found:?}");
        if let Ok(address) = found {
            assert_eq!(address, Address(array(&case["hex"])));
            assert_eq!(address.to_text(network), text(&case["canonical"]));
        }
    }
    for case in list(&file["encode"]) {
        assert_eq!(Address(array(&case["hex"])).to_text(network(&case["hrp"])), text(&case["text"]));
    }
    for case in list(&file["generate"]) {
        assert_eq!(Address::generate(&bytes(&case["input"])), Address(array(&case["address"])));
    }
    for case in list(&file["genesis"]).iter().chain(list(&load!("node/genesis.json")["cases"])) {
        let unix_time = proto::genesis::UnixSeconds(number(&case["genesis_time_unix"]).cast_signed());
        let genesis = Genesis { unix_time, extra_data: text(&case["extra_data"]).to_owned() };
        assert_eq!(genesis.golden_atx().to_string(), text(&case["golden_atx"]));
        assert_eq!(genesis.id().to_string(), text(&case["genesis_id"]));
    }
    for case in list(&file["id_conversions"]) {
        let input = bytes(&case["input"]);
        let (hash, atx, node) = (Hash32::from_last(&input), AtxId::from_first(&input), NodeId::from_first(&input));
        assert_eq!(hash.to_string(), text(&case["to_hash32"]));
        assert_eq!(atx.to_string(), text(&case["to_atxid"]));
        assert_eq!(node.to_string(), text(&case["to_node_id"]));
        assert_eq!(node.to_string(), text(&case["node_id_string"]));
        assert_eq!(serde_json::to_value(hash).unwrap(), case["hash32_text"]);
        assert_eq!(serde_json::from_value::<Hash32>(case["hash32_text"].clone()).unwrap(), hash);
        assert_eq!(serde_json::to_value(atx).unwrap(), case["atxid_text"]);
        assert_eq!(serde_json::from_value::<AtxId>(case["atxid_text"].clone()).unwrap(), atx);
        assert_eq!(
            [hash.short(), atx.short(), node.short()],
            ["hash32_short", "atxid_short", "node_id_short"].map(|n| text(&case[n]))
        );
    }
    let layers = LayersPerEpoch(NonZeroU32::new(4032).unwrap());
    assert_eq!(layers.first_layer(layers.epoch(LayerId(4033))), Some(LayerId(4032)));
    assert_eq!(layers.epoch(LayerId(4031)), EpochId(0));
}

#[test]
fn of_the_ledger() {
    let file = load!("ledger/addresses.json");
    for case in list(&file["cases"]) {
        match text(&case["kind"]) {
            "parse" => {
                let found = Address::parse(text(&case["text"]), network(&case["expected_hrp"]));
                match case["error"].as_str() {
                    None => assert_eq!(found, Ok(Address(array(&case["bytes"])))),
                    Some("bech32") => assert!(matches!(found, Err(AddressError::Bech32(_))), "{case}: {found:?}"),
                    Some("wrong length") => assert!(matches!(found, Err(AddressError::Length(_))), "{case}: {found:?}"),
                    Some("wrong network") => assert!(matches!(found, Err(AddressError::Network { .. })), "{case}"),
                    Some("missing reserved space") => assert_eq!(found, Err(AddressError::Reserved), "{case}"),
                    Some(other) => panic!("{other}"),
                }
            }
            "wallet" => {
                let address = wallet_address(&case["public_key"]);
                assert_eq!(address, Address(array(&case["bytes"])));
                assert_eq!(address.to_text(network(&case["hrp"])), text(&case["text"]));
            }
            "template" => {
                let address = Address(array(&case["bytes"]));
                let template = Template::from_address(&address).unwrap();
                assert_eq!((template as u64, template.address()), (number(&case["template"]), address));
                assert_eq!(address.to_text(Network::Mainnet), text(&case["text"]));
            }
            "multisig+vesting+vault" => {
                let keys = list(&case["keys"]).iter().map(|key| AccountKey(array(key))).collect();
                let arguments = MultisigArguments { required: number(&case["required"]) as u8, keys };
                let vesting = Address::principal(Template::Vesting, &arguments).unwrap();
                let vault = VaultArguments {
                    owner: vesting,
                    total: Smidge(number(&case["vault_total"])),
                    initial_unlock: Smidge(number(&case["vault_initial"])),
                    vesting_start: LayerId(number32(&case["vault_start"])),
                    vesting_end: LayerId(number32(&case["vault_end"])),
                };
                let multisig = Address::principal(Template::Multisig, &arguments).unwrap();
                let vault = Address::principal(Template::Vault, &vault).unwrap();
                for (name, address) in [("multisig", multisig), ("vesting", vesting), ("vault", vault)] {
                    assert_eq!(address, Address(array(&case[format!("{name}_hex")])));
                    assert_eq!(address.to_text(Network::Mainnet), text(&case[name]));
                }
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn of_wallets() {
    let file = load!("ledger/hd_wallet.json");
    for case in list(&file["cases"]) {
        let words = |text: &Value| Words::parse(text.as_str().unwrap());
        let seed = match text(&case["kind"]) {
            "seed" => bytes(&case["seed"]),
            "mnemonic" => {
                let words = words(&case["mnemonic"]).unwrap();
                assert_eq!(*words.text(), text(&case["mnemonic"]));
                let seed = words.seed().to_vec();
                if let Some(expected) = case.get("bip39_seed") {
                    assert_eq!(hex::encode(&seed), text(expected));
                }
                seed
            }
            "reject_mnemonic" => {
                assert_eq!(words(&case["mnemonic"]).unwrap_err(), WalletError::Spaces);
                continue;
            }
            "path" => {
                let path: Path = text(&case["text"]).parse().unwrap();
                assert_eq!(path.0, list(&case["indices"]).iter().map(number32).collect::<Vec<_>>());
                assert_eq!(path.to_string(), text(&case["text"]));
                assert!(matches!(wallet::derive(&[1; 64], &path), Err(WalletError::NotHardened(0))));
                continue;
            }
            other => panic!("{other}"),
        };
        let path: Path = text(&case["path"]).parse().unwrap();
        let secret = wallet::derive(&seed, &path).unwrap();
        assert_eq!(hex::encode(*secret), text(&case["private_seed"]));
        let key = IdentityKey::from_seed(&secret);
        assert_eq!(key.node_id().to_string(), text(&case["public"]));
        for (name, network) in [("address", Network::Mainnet), ("address_testnet", Network::Testnet)] {
            if let Some(expected) = case.get(name) {
                assert_eq!(wallet::address(&key).unwrap().to_text(network), text(expected));
            }
        }
    }
}
