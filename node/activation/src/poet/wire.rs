//! What PoET servers and certifiers say, in the JSON of the proto3 mapping (poet.md section 5.3): base64 in either alphabet, numbers
//! as numbers or text, `null` and what is missing as nothing, unknown names ignored.

use std::{fmt, time::Duration};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};
use poet_service::pow::Params;
use proto::{
    ids::{EdSignature, NodeId},
    poet::Element,
    signing::{self, Domain},
};
use serde::{Deserialize, Deserializer, de};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::Authorization;
use crate::{knowledge::LastProof, rows::Certificate, timeline::Moment};

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const ANY_STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const ANY_URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Takes a value out of text, without a copy of the text.
struct Text<F>(F, &'static str);

impl<T, F: FnOnce(&str) -> Option<T>> de::Visitor<'_> for Text<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).ok_or_else(|| E::custom(format_args!("expected {}", self.1)))
    }
}

fn unbase64(text: &str) -> Option<Vec<u8>> {
    let engine = if text.contains(['-', '_']) { &ANY_URL_SAFE } else { &ANY_STANDARD };
    engine.decode(text).ok()
}

/// Bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(Text(unbase64, "base64")).map(Self)
    }
}

/// A member of a round: longer ones are cut, shorter ones filled with zeros (poet.md section 4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member(pub(super) [u8; 32]);

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Bytes(bytes) = Bytes::deserialize(from)?;
        let mut member = [0; 32];
        for (to, from) in member.iter_mut().zip(bytes) {
            *to = from;
        }
        Ok(Self(member))
    }
}

/// A whole number that is not negative.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Number(pub(super) u64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(u64),
            Text(String),
        }
        match Form::deserialize(from).map_err(|_| de::Error::custom("expected a whole number"))? {
            Form::Number(number) => Ok(Self(number)),
            Form::Text(text) => text.parse().map(Self).map_err(|_| de::Error::custom("expected a whole number")),
        }
    }
}

/// A duration such as `1166399.123456789s`; no negative one makes sense here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

fn span(text: &str) -> Option<Span> {
    let (whole, fraction) = text.strip_suffix('s').map(|number| number.split_once('.').unwrap_or((number, "")))?;
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || fraction.len() > 9 || !digits(whole) || !digits(fraction) {
        return None;
    }
    let nanos = format!("{fraction:0<9}").parse().ok()?;
    Some(Span(Duration::new(whole.parse().ok()?, nanos)))
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(Text(span, "a duration such as 30s"))
    }
}

fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// `GET /v1/info` (poet.md section 5.4).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Info {
    #[serde(default, alias = "service_pubkey", deserialize_with = "or_default")]
    pub(super) service_pubkey: Bytes,
    #[serde(alias = "phase_shift")]
    pub(super) phase_shift: Span,
    pub(super) certifier: Option<Certifier>,
}

/// Where a server sends nodes for certificates.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Certifier {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) url: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) pubkey: Bytes,
}

#[derive(Deserialize)]
struct PowParams {
    #[serde(default, deserialize_with = "or_default")]
    difficulty: Number,
    #[serde(default, deserialize_with = "or_default")]
    challenge: Bytes,
}

/// `GET /v1/pow_params` (poet.md section 5.5).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PowParamsAnswer {
    #[serde(alias = "pow_params")]
    pow_params: PowParams,
}

impl PowParamsAnswer {
    pub(super) fn params(self) -> Params {
        let PowParams { difficulty: Number(difficulty), challenge: Bytes(challenge) } = self.pow_params;
        Params { challenge, difficulty: u32::try_from(difficulty).unwrap_or(u32::MAX) }
    }
}

/// `POST /v1/submit` (poet.md section 5.6).
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Submitted {
    #[serde(alias = "round_id")]
    pub(super) round_id: String,
    #[serde(alias = "round_end")]
    pub(super) round_end: Span,
}

/// `GET /v1/proofs/{round}` (poet.md section 5.10).
#[derive(Debug, Deserialize)]
pub(super) struct ProofAnswer {
    pub(super) proof: ProofOfRound,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) pubkey: Bytes,
}

#[derive(Debug, Deserialize)]
pub(super) struct ProofOfRound {
    pub(super) proof: Opening,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) members: Vec<Member>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) leaves: Number,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Opening {
    pub(super) root: Node,
    #[serde(default, alias = "proven_leaves", deserialize_with = "or_default")]
    pub(super) proven_leaves: Vec<Node>,
    #[serde(default, alias = "proof_nodes", deserialize_with = "or_default")]
    pub(super) proof_nodes: Vec<Node>,
}

/// A node of a proof, at most 32 bytes.
#[derive(Debug)]
pub(super) struct Node(pub(super) Element);

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Bytes(bytes) = Bytes::deserialize(from)?;
        Element::try_from(&*bytes).map(Self).map_err(de::Error::custom)
    }
}

/// `POST {certifier}/certify` (poet.md section 5.7).
#[derive(Deserialize)]
pub(super) struct Certified {
    pub(super) certificate: Bytes,
    pub(super) signature: Bytes,
    pub(super) pub_key: Bytes,
}

/// An error of a PoET server.
#[derive(Deserialize)]
pub(super) struct Failure {
    pub(super) message: String,
}

/// The body of a registration. The signature covers network and challenge (poet.md section 5.6).
pub(super) fn submission(
    network: &proto::ids::GenesisId,
    id: &NodeId,
    challenge: &[u8],
    signature: &EdSignature,
    deadline: Moment,
    authorization: &Authorization,
) -> Value {
    let time = OffsetDateTime::from_unix_timestamp_nanos(deadline.0.into()).ok().and_then(|time| time.format(&Rfc3339).ok());
    let mut body = json!({
        "prefix": STANDARD.encode(signing::prefix(network, Domain::Poet)),
        "challenge": STANDARD.encode(challenge),
        "pubkey": id.to_base64(),
        "signature": STANDARD.encode(signature.0),
        "deadline": time,
    });
    match authorization {
        Authorization::Certificate(Certificate { data, signature }) => {
            body["certificate"] = json!({ "data": STANDARD.encode(&**data), "signature": STANDARD.encode(signature.0) });
        }
        Authorization::Work { params, nonce } => {
            body["nonce"] = nonce.to_string().into();
            body["powParams"] = json!({ "difficulty": params.difficulty, "challenge": STANDARD.encode(&params.challenge) });
        }
    }
    body
}

/// The body of a request for a certificate.
pub(super) fn certify(id: &NodeId, space: &LastProof) -> Value {
    let LastProof { proof, commitment, challenge, units } = space;
    json!({
        "proof": proof,
        "metadata": {
            "node_id": id.to_base64(),
            "commitment_atx_id": commitment.to_base64(),
            "challenge": STANDARD.encode(challenge),
            "num_units": units,
        },
    })
}

#[cfg(test)]
mod tests;
