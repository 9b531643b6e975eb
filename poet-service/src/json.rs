//! The JSON of the REST side: that of the proto3 mapping (poet.md section 5.3), lenient on input, complete on output.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};
use proto::{
    grpc::poet_v1::{InfoResponse, PowParams, PowParamsResponse, SubmitRequest, SubmitResponse, submit_request},
    poet::Element,
};
use serde_json::{Map, Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::store::Record;

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent).with_decode_allow_trailing_bits(true);
const ANY_STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const ANY_URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Why a request body is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not JSON at all.
    #[error("proto: syntax error: {0}")]
    Syntax(String),
    /// Not an object where the message demands one.
    #[error("proto: unexpected token for {0}")]
    NotAnObject(&'static str),
    /// A value that its field does not take.
    #[error("proto: invalid value for {kind} field {field}")]
    Value {
        /// Type of the field.
        kind: &'static str,
        /// Name of the field.
        field: &'static str,
    },
}

/// The fields of a message, by either spelling; `null` is absence and unknown names are ignored.
struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    fn of(value: &'a Value, message: &'static str) -> Result<Self, JsonError> {
        value.as_object().map(Self).ok_or(JsonError::NotAnObject(message))
    }

    fn get(&self, camel: &str, snake: &str) -> Option<&'a Value> {
        self.0.get(camel).or_else(|| self.0.get(snake)).filter(|value| !value.is_null())
    }

    fn bytes(&self, field: &'static str, snake: &str) -> Result<Vec<u8>, JsonError> {
        let Some(value) = self.get(field, snake) else { return Ok(Vec::new()) };
        let text = value.as_str().ok_or(JsonError::Value { kind: "bytes", field })?;
        let engine = if text.contains(['-', '_']) { &ANY_URL_SAFE } else { &ANY_STANDARD };
        engine.decode(text).map_err(|_| JsonError::Value { kind: "bytes", field })
    }

    /// A number, written as one or as a string.
    fn number(&self, field: &'static str, snake: &str, kind: &'static str) -> Result<u64, JsonError> {
        let Some(value) = self.get(field, snake) else { return Ok(0) };
        let text = match value {
            Value::Number(number) => number.to_string(),
            Value::String(text) => text.clone(),
            _ => return Err(JsonError::Value { kind, field }),
        };
        // 1e3 and 7.0 are whole numbers too
        let whole = |number: f64| (number.fract() == 0.0 && (0.0..9e15).contains(&number)).then_some(number as u64);
        let number = text.parse().ok().or_else(|| text.parse().ok().and_then(whole));
        number.ok_or(JsonError::Value { kind, field })
    }
}

/// Reads the body of a submission; an empty one is an empty message.
pub fn submit_request(body: &[u8]) -> Result<SubmitRequest, JsonError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(SubmitRequest::default());
    }
    let value: Value = serde_json::from_slice(body).map_err(|e| JsonError::Syntax(e.to_string()))?;
    let fields = Fields::of(&value, "SubmitRequest")?;
    let pow_params = match fields.get("powParams", "pow_params") {
        Some(value) => {
            let fields = Fields::of(value, "PowParams")?;
            let difficulty = fields.number("difficulty", "difficulty", "uint32")?;
            let difficulty = u32::try_from(difficulty).map_err(|_| JsonError::Value { kind: "uint32", field: "difficulty" })?;
            Some(PowParams { difficulty, challenge: fields.bytes("challenge", "challenge")? })
        }
        None => None,
    };
    let certificate = match fields.get("certificate", "certificate") {
        Some(value) => {
            let fields = Fields::of(value, "Certificate")?;
            let (data, signature) = (fields.bytes("data", "data")?, fields.bytes("signature", "signature")?);
            Some(submit_request::Certificate { data, signature })
        }
        None => None,
    };
    let deadline = match fields.get("deadline", "deadline") {
        Some(value) => {
            let bad = JsonError::Value { kind: "google.protobuf.Timestamp", field: "deadline" };
            let time = value.as_str().and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok()).ok_or(bad)?;
            Some(prost_types::Timestamp { seconds: time.unix_timestamp(), nanos: time.nanosecond().cast_signed() })
        }
        None => None,
    };
    Ok(SubmitRequest {
        nonce: fields.number("nonce", "nonce", "uint64")?,
        pow_params,
        prefix: fields.bytes("prefix", "prefix")?,
        challenge: fields.bytes("challenge", "challenge")?,
        pubkey: fields.bytes("pubkey", "pubkey")?,
        signature: fields.bytes("signature", "signature")?,
        deadline,
        certificate,
        certificate_pubkey_hint: fields.bytes("certificatePubkeyHint", "certificate_pubkey_hint")?,
    })
}

/// Seconds with 0, 3, 6 or 9 decimals.
fn duration(duration: Option<&prost_types::Duration>) -> Value {
    let Some(duration) = duration else { return Value::Null };
    let negative = duration.seconds < 0 || duration.nanos < 0;
    let (seconds, nanos) = (duration.seconds.unsigned_abs(), duration.nanos.unsigned_abs());
    let sign = if negative { "-" } else { "" };
    let text = match nanos {
        0 => format!("{sign}{seconds}s"),
        n if n % 1_000_000 == 0 => format!("{sign}{seconds}.{:03}s", n / 1_000_000),
        n if n % 1_000 == 0 => format!("{sign}{seconds}.{:06}s", n / 1_000),
        n => format!("{sign}{seconds}.{n:09}s"),
    };
    Value::String(text)
}

/// The answer to `/v1/pow_params`.
pub fn pow_params(response: &PowParamsResponse) -> Value {
    let params = response.pow_params.as_ref();
    let params = params.map(|p| json!({ "difficulty": p.difficulty, "challenge": STANDARD.encode(&p.challenge) }));
    json!({ "powParams": params })
}

/// The answer to `/v1/info`.
pub fn info(response: &InfoResponse) -> Value {
    let certifier = response.certifier.as_ref();
    json!({
        "servicePubkey": STANDARD.encode(&response.service_pubkey),
        "phaseShift": duration(response.phase_shift.as_ref()),
        "cycleGap": duration(response.cycle_gap.as_ref()),
        "certifier": certifier.map(|c| json!({ "url": c.url, "pubkey": STANDARD.encode(&c.pubkey) })),
    })
}

/// The answer to `/v1/submit`.
pub fn submit_response(response: &SubmitResponse) -> Value {
    json!({ "roundId": response.round_id, "roundEnd": duration(response.round_end.as_ref()) })
}

/// An error.
pub fn error(code: i32, message: &str) -> Value {
    json!({ "code": code, "message": message, "details": [] })
}

/// The answer to `/v1/proofs/{id}`, written directly: a million members need no tree of values.
pub fn proof(record: &Record) -> String {
    let merkle = &record.proof.merkle;
    let mut text =
        String::with_capacity(512 + 48 * (record.members.len() + merkle.proof_nodes.len() + merkle.proven_leaves.len()));
    let list = |text: &mut String, name: &str, items: &mut dyn Iterator<Item = &[u8]>| {
        text.push('"');
        text.push_str(name);
        text.push_str("\":[");
        for (number, item) in items.enumerate() {
            text.push_str(if number == 0 { "\"" } else { ",\"" });
            STANDARD.encode_string(item, text);
            text.push('"');
        }
        text.push(']');
    };
    text.push_str("{\"proof\":{\"proof\":{\"root\":\"");
    STANDARD.encode_string(&*merkle.root, &mut text);
    text.push_str("\",");
    list(&mut text, "provenLeaves", &mut merkle.proven_leaves.iter().map(Element::as_ref));
    text.push(',');
    list(&mut text, "proofNodes", &mut merkle.proof_nodes.iter().map(Element::as_ref));
    text.push_str("},");
    list(&mut text, "members", &mut record.members.iter().map(|member| &member[..]));
    text.push_str(",\"leaves\":\"");
    text.push_str(&record.proof.leaf_count.to_string());
    text.push_str("\"},\"pubkey\":\"");
    STANDARD.encode_string(record.pubkey, &mut text);
    text.push_str("\"}");
    text
}
