//! The JSON of messages (api.md section 2): lenient on input, complete on output.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use prost_reflect::{DeserializeOptions, DynamicMessage, Kind, MapKey, MessageDescriptor, ReflectMessage as _, Value as Field};
use serde_json::{Map, Value};
use tonic::Status;

/// A message from the body of a request. An empty body is an empty message, unknown fields are ignored, and so is the whole
/// body where the call takes nothing.
pub(super) fn parse(kind: &MessageDescriptor, body: &[u8]) -> Result<DynamicMessage, Status> {
    if kind.full_name() == "google.protobuf.Empty" || body.iter().all(u8::is_ascii_whitespace) {
        return Ok(DynamicMessage::new(kind.clone()));
    }
    let invalid = |error: serde_json::Error| Status::invalid_argument(format!("failed to read the body: {error}"));
    let mut json = serde_json::Deserializer::from_slice(body);
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let message = DynamicMessage::deserialize_with_options(kind.clone(), &mut json, &options).map_err(invalid)?;
    json.end().map_err(invalid)?;
    Ok(message)
}

/// A message as JSON, with all fields but unset members of choices and unset optional ones.
pub(super) fn print(message: &DynamicMessage) -> Value {
    let kind = message.descriptor();
    // times and spans, which have forms of their own
    if kind.full_name().starts_with("google.protobuf.") {
        return serde_json::to_value(message).unwrap_or(Value::Null);
    }
    let mut object = Map::new();
    for field in kind.fields() {
        let value = if !field.supports_presence() || message.has_field(&field) {
            print_field(&field.kind(), &message.get_field(&field))
        } else if field.containing_oneof().is_some() {
            continue;
        } else {
            Value::Null
        };
        object.insert(field.json_name().to_owned(), value);
    }
    Value::Object(object)
}

fn print_field(kind: &Kind, value: &Field) -> Value {
    match value {
        Field::Bool(value) => Value::from(*value),
        Field::I32(value) => Value::from(*value),
        Field::U32(value) => Value::from(*value),
        Field::F32(value) => Value::from(*value),
        Field::F64(value) => Value::from(*value),
        // more than the numbers of JavaScript hold
        Field::I64(value) => Value::from(value.to_string()),
        Field::U64(value) => Value::from(value.to_string()),
        Field::String(value) => Value::from(value.clone()),
        Field::Bytes(value) => Value::from(STANDARD.encode(value)),
        Field::EnumNumber(number) => {
            let named = kind.as_enum().and_then(|kind| kind.get_value(*number));
            named.map_or_else(|| Value::from(*number), |value| Value::from(value.name()))
        }
        Field::Message(message) => print(message),
        Field::List(values) => values.iter().map(|value| print_field(kind, value)).collect(),
        Field::Map(entries) => {
            let values = kind.as_message().map(|entry| entry.map_entry_value_field().kind());
            let values = values.as_ref().unwrap_or(kind);
            entries.iter().map(|(key, value)| (print_key(key), print_field(values, value))).collect()
        }
    }
}

fn print_key(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}
