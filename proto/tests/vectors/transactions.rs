use proto::{
    address::{AccountKey, MultisigArguments},
    ids::{Address, GenesisId},
    keys::IdentityKey,
    scale, signing,
    transaction::{
        raw::{Action, Call, SignaturePart, SpawnArguments},
        transaction_id,
    },
};
use serde_json::Value;

use crate::{array, bytes, list, load, number, text};

fn address(value: &Value) -> Address {
    Address(array(value))
}

/// What the vector says of the action, which differs from kind to kind.
fn check_action(case: &Value, call: &Call, keys: &[IdentityKey]) {
    let keys = || keys.iter().map(|key| AccountKey(key.node_id().0)).collect::<Vec<_>>();
    match (text(&case["kind"]), &call.action) {
        ("wallet.spend" | "multisig.spend", Action::Spend(spend)) => {
            assert_eq!((spend.destination, spend.amount.0), (address(&case["destination"]), number(&case["amount"])));
        }
        ("wallet.self_spawn", Action::Spawn(arguments @ SpawnArguments::Wallet(wallet))) => {
            assert_eq!(wallet.public_key, AccountKey(array(&case["public_key"])));
            assert_eq!(arguments.principal(), Ok(call.principal));
        }
        ("wallet.spawn_other(wallet)", Action::Spawn(arguments @ SpawnArguments::Wallet(_))) => {
            assert_eq!(arguments.principal(), Ok(address(&case["target"])));
        }
        ("vesting.self_spawn", Action::Spawn(arguments @ SpawnArguments::Vesting(vesting))) => {
            assert_eq!(*vesting, MultisigArguments { required: number(&case["required"]) as u8, keys: keys() });
            assert_eq!(arguments.principal(), Ok(call.principal));
        }
        ("vesting.spawn_vault", Action::Spawn(arguments @ SpawnArguments::Vault(vault))) => {
            assert_eq!(scale::encode(vault).unwrap(), bytes(&case["vault_args"]));
            assert_eq!(arguments.principal(), Ok(address(&case["vault"])));
        }
        ("vesting.drain_vault", Action::DrainVault(drain)) => {
            let expected = (address(&case["vault"]), address(&case["destination"]), number(&case["amount"]));
            assert_eq!((drain.vault, drain.destination, drain.amount.0), expected);
        }
        (kind, action) => panic!("{kind}: {action:?}"),
    }
}

#[test]
fn are_read_and_made_again() {
    let file = load!("ledger/transactions.json");
    for case in list(&file["cases"]) {
        let (raw, network) = (bytes(&case["raw"]), GenesisId(array(&case["genesis_id"])));
        assert_eq!(transaction_id(&raw).to_string(), text(&case["tx_id"]));
        let (call, signatures) = Call::parse(&raw).unwrap();
        let unsigned = &raw[..raw.len() - signatures.len()];
        assert_eq!(scale::encode(&call).unwrap(), unsigned);
        assert_eq!(call.principal, address(&case["principal"]));
        assert_eq!((call.payload.nonce.0, call.payload.gas_price), (number(&case["nonce"]), number(&case["gas_price"])));
        let key = |seed: &Value| IdentityKey::from_seed(&array(seed));
        if let Some(seed) = case.get("ed25519_seed") {
            let key = key(seed);
            check_action(case, &call, &[]);
            assert_eq!(call.sign(&network, &key).unwrap().0, raw);
            let signature = scale::decode(signatures).unwrap();
            assert!(signing::verify_transaction(&network, &key.node_id().0, unsigned, &signature));
            assert!(!signing::verify_transaction(&network, &key.node_id().0, &raw, &signature));
        } else {
            let keys: Vec<_> = list(&case["seeds"]).iter().map(key).collect();
            check_action(case, &call, &keys);
            let signers: Vec<_> = list(&case["signers"]).iter().map(|n| (number(n) as u8, &keys[number(n) as usize])).collect();
            assert_eq!(call.sign_multisig(&network, &signers).unwrap().0, raw);
            let mut rest = signatures;
            for (number, key) in signers {
                let (part, behind) = scale::decode_prefix::<SignaturePart>(rest).unwrap();
                assert_eq!(part.key, number);
                assert!(signing::verify_transaction(&network, &key.node_id().0, unsigned, &part.signature));
                rest = behind;
            }
            assert!(rest.is_empty());
        }
    }
}
