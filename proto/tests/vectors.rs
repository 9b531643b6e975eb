//! The golden vectors: every object is decoded, shown and encoded again, every id, signature and draw is computed and compared.

mod vectors {
    mod activation;
    mod addresses;
    mod codec;
    mod consensus;
    mod eligibility;
    mod keys;
    mod malfeasance;
    mod mesh;
    mod poet;
    mod transactions;
}

use base64::{Engine as _, engine::general_purpose::STANDARD};
use proto::{
    ids::GenesisId,
    keys::IdentityKey,
    objects::Kind,
    scale::{self, Decode, Encode},
    signing::Signed,
};
use serde_json::Value;

macro_rules! load {
    ($name:literal) => {
        serde_json::from_str::<serde_json::Value>(include_str!(concat!("../../testdata/", $name))).unwrap()
    };
}
pub(crate) use load;

pub(crate) fn list(value: &Value) -> &[Value] {
    let items = value.as_array().unwrap();
    assert!(!items.is_empty());
    items
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}"))
}

pub(crate) fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(text(value)).unwrap()
}

pub(crate) fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().unwrap()
}

/// Numbers stand as such or, when they may be large, as decimal texts.
pub(crate) fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| text(value).parse().unwrap())
}

pub(crate) fn number32(value: &Value) -> u32 {
    number(value).try_into().unwrap()
}

pub(crate) fn network(file: &Value) -> GenesisId {
    GenesisId(array(&file["genesis_id"]))
}

/// The keys of a file, whose public halves are checked.
pub(crate) fn keys(file: &Value) -> Vec<IdentityKey> {
    let key = |row: &Value| {
        let key = IdentityKey::from_seed(&array(&row["seed"]));
        assert_eq!(key.node_id().0, array(&row["node_id"]));
        key
    };
    list(&file["keys"]).iter().map(key).collect()
}

/// Decodes, and encodes to the same bytes.
pub(crate) fn round_trip<T: Encode + Decode>(encoded: &[u8]) -> T {
    let value = scale::decode::<T>(encoded).unwrap();
    assert_eq!(hex::encode(scale::encode(&value).unwrap()), hex::encode(encoded));
    value
}

/// Decodes by the name of the type, encodes to the same bytes, and shows the fields that the vector names.
pub(crate) fn check_fields(kind: &str, encoded: &[u8], fields: &Value) {
    let kind = Kind::find(kind).unwrap_or_else(|| panic!("no kind {kind}"));
    assert_eq!(hex::encode(kind.recode(encoded).unwrap()), hex::encode(encoded));
    let mut shown = kind.to_json(encoded).unwrap();
    assert_eq!(shown["canonical"], true);
    // the vectors name the fields of a header among those of its transaction
    if let Some(Value::Object(header)) = shown["object"].get("tx_header").cloned() {
        let object = shown["object"].as_object_mut().unwrap();
        object.remove("tx_header");
        object.extend(header);
    }
    compare(fields, &shown["object"], kind.name);
}

/// A signature is the key's, verifies, and covers what it should.
pub(crate) fn check_signature<M: Signed>(message: &M, key: &IdentityKey, network: &GenesisId, signed_bytes: &Value) {
    assert_eq!(*message.signer(), key.node_id());
    let signed = message.signed_bytes().unwrap();
    assert_eq!(hex::encode(&signed), text(signed_bytes));
    assert_eq!(key.sign(network, M::DOMAIN, &signed), *message.signature());
    assert!(message.is_signed(network));
    assert!(!message.is_signed(&GenesisId([7; 20])));
}

/// Compares fields named and written as the specification does with our JSON.
fn compare(expected: &Value, shown: &Value, path: &str) {
    match (expected, shown) {
        (Value::Object(expected), Value::Object(shown)) => {
            let plain = |name: &str| name.replace('_', "").to_lowercase();
            assert_eq!(expected.len(), shown.len(), "{path}: {expected:?} / {shown:?}");
            for (name, value) in expected {
                let found = shown.iter().find(|(other, _)| plain(other) == plain(name));
                let (_, found) = found.unwrap_or_else(|| panic!("{path}: no {name} in {shown:?}"));
                compare(value, found, &format!("{path}.{name}"));
            }
        }
        (Value::Array(expected), Value::Array(shown)) => {
            assert_eq!(expected.len(), shown.len(), "{path}");
            for (index, pair) in expected.iter().zip(shown).enumerate() {
                compare(pair.0, pair.1, &format!("{path}[{index}]"));
            }
        }
        (Value::String(expected), Value::String(shown)) => {
            let decoded = match shown.strip_prefix("0x") {
                Some(digits) => hex::decode(digits).unwrap(),
                None => STANDARD.decode(shown).unwrap(),
            };
            // bytes stand as hex, the few texts as themselves
            let is_text = *expected.as_bytes() == *decoded;
            assert!(is_text || hex::encode(decoded) == *expected, "{path}: {expected} / {shown}");
        }
        (Value::String(expected), Value::Number(shown)) => assert_eq!(*expected, shown.to_string(), "{path}"),
        _ => assert_eq!(expected, shown, "{path}"),
    }
}
