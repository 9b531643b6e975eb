//! Proofs of elapsed time as they are sent, stored and hashed (poet.md section 2).

use std::fmt;

use serde::{Deserialize, Serialize};

pub use crate::ids::PoetProofRef;
use crate::{
    json,
    scale::{self, Decode, DecodeError, Encode, EncodeError, Reader, Writer},
    units::count,
};

/// Leaves that a proof opens, and the security parameter of the network (poet.md section 1.4).
pub const PROVEN_LEAVES: usize = 150;

/// The most nodes a proof may carry.
pub const MAX_PROOF_NODES: usize = 5400;

/// The most nodes a membership proof may carry.
pub const MAX_MEMBERSHIP_NODES: usize = 32;

count! {
    /// A number of leaves, which is what elapsed time is counted in.
    Leaves, u64
}
count! {
    /// Leaves in units of the network's tick size: what the weight of an activation is multiplied by.
    Ticks, u64
}

impl Leaves {
    /// Whole ticks in this many leaves; none where the tick size is zero.
    pub const fn ticks(self, tick_size: u64) -> Ticks {
        match self.0.checked_div(tick_size) {
            Some(ticks) => Ticks(ticks),
            None => Ticks(0),
        }
    }
}

/// A byte string of at most 32 bytes. Elements of honest proofs have exactly 32; others exist, and are hashed as they are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Element {
    bytes: [u8; 32],
    length: u8,
}

impl std::ops::Deref for Element {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl AsRef<[u8]> for Element {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Element({})", hex::encode(&**self))
    }
}

impl From<[u8; 32]> for Element {
    fn from(bytes: [u8; 32]) -> Self {
        Self { bytes, length: 32 }
    }
}

impl TryFrom<&[u8]> for Element {
    type Error = EncodeError;

    fn try_from(from: &[u8]) -> Result<Self, EncodeError> {
        let mut bytes = [0; 32];
        let Some(part) = bytes.get_mut(..from.len()) else {
            return Err(EncodeError::TooLong { found: from.len(), limit: 32 });
        };
        part.copy_from_slice(from);
        Ok(Self { bytes, length: from.len() as u8 })
    }
}

impl Serialize for Element {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        json::base64::serialize(self, to)
    }
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let bytes: Vec<u8> = json::base64::deserialize(from)?;
        Self::try_from(&*bytes).map_err(serde::de::Error::custom)
    }
}

impl Encode for Element {
    fn encode(&self, to: &mut Writer) -> Result<(), EncodeError> {
        to.bytes(self, 32)
    }
}

impl Decode for Element {
    const MIN_BYTES: usize = 1;

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let bytes = from.bytes(32)?;
        Self::try_from(bytes).map_err(|_| DecodeError::TooLong { found: bytes.len() as u32, limit: 32 })
    }
}

/// The opened leaves of a tree and the nodes that lead from them to its root (poet.md section 1.5).
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, Deserialize)]
pub struct MerkleProof {
    /// The root of the tree.
    pub root: Element,
    /// Labels of the opened leaves, by ascending leaf number.
    #[scale(max = PROVEN_LEAVES)]
    pub proven_leaves: Vec<Element>,
    /// The nodes beside the paths, in the order in which a reconstruction from left to right takes them.
    #[scale(max = MAX_PROOF_NODES)]
    pub proof_nodes: Vec<Element>,
}

/// A proof of elapsed time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, Deserialize)]
pub struct PoetProof {
    /// The opened tree.
    #[serde(flatten)]
    pub merkle: MerkleProof,
    /// Leaves of the tree.
    pub leaf_count: Leaves,
}

impl PoetProof {
    /// The reference under which activations name this proof. Statement, server and round are not part of it.
    pub fn reference(&self) -> Result<PoetProofRef, EncodeError> {
        Ok(PoetProofRef(blake3::hash(&scale::encode(self)?).into()))
    }
}

/// A proof with its origin, as nodes store it and send it to each other.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct PoetProofMessage {
    /// The proof.
    #[serde(flatten)]
    pub proof: PoetProof,
    /// Public key of the server.
    #[serde(rename = "poet_service_id")]
    pub service_id: Element,
    /// Name of the round: a decimal number from honest servers, any bytes from others.
    pub round_id: Element,
    /// The root of the members' tree, with which every hash of the proof is salted.
    #[serde(with = "json::base64")]
    pub statement: [u8; 32],
    /// Zeros in practice; nobody verifies it.
    #[serde(with = "json::base64")]
    pub signature: [u8; 64],
}

/// The path from a member's challenge to the statement of a round (poet.md section 4).
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, Deserialize)]
pub struct MembershipProof {
    /// Siblings from the bottom up.
    #[scale(max = MAX_MEMBERSHIP_NODES)]
    #[serde(with = "json::base64_list")]
    pub nodes: Vec<[u8; 32]>,
    /// Position of the member in the round's list.
    pub leaf_index: u64,
}

/// A certifier's word that an identity has initialised its space (poet.md section 5.7).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Certificate {
    /// The identity's public key; a certificate with one of another length than 32 bytes fits nobody.
    pub pubkey: Element,
    /// Unix seconds after which the certificate is void; `None` never.
    pub expiration: Option<u64>,
}

impl Certificate {
    /// Reads a certificate; bytes after it are ignored, as servers in use do.
    pub fn parse(data: &[u8]) -> Result<Self, DecodeError> {
        scale::decode_prefix(data).map(|(certificate, _)| certificate)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Message {
        poet_service_id: String,
        round_id: String,
        statement: String,
        signature: String,
        scale: String,
    }

    #[derive(Deserialize)]
    struct Proof {
        #[serde(rename = "merkle_proof")]
        merkle: String,
        #[serde(rename = "poet_proof")]
        poet: String,
        #[serde(rename = "poet_proof_ref")]
        reference: String,
        message: Option<Message>,
    }

    #[derive(Deserialize)]
    struct DecodeCase {
        note: String,
        r#type: String,
        scale: String,
        ok: bool,
        value: Option<String>,
    }

    #[derive(Deserialize)]
    struct Vectors {
        proofs: Vec<Proof>,
        decode_cases: Vec<DecodeCase>,
    }

    #[derive(Deserialize)]
    struct CertificateCase {
        data: String,
        pubkey: Option<String>,
        expiration: Option<String>,
        decodes: bool,
    }

    #[derive(Deserialize)]
    struct CertificateVectors {
        cases: Vec<CertificateCase>,
    }

    fn bytes(text: &str) -> Vec<u8> {
        hex::decode(text).unwrap()
    }

    #[test]
    fn proofs_are_encoded_as_in_the_vectors() {
        let vectors: Vectors = serde_json::from_str(include_str!("../testdata/poet/scale.json")).unwrap();
        let mut messages = 0;
        for case in vectors.proofs {
            let proof: PoetProof = scale::decode(&bytes(&case.poet)).unwrap();
            assert_eq!(hex::encode(scale::encode(&proof).unwrap()), case.poet);
            assert_eq!(hex::encode(scale::encode(&proof.merkle).unwrap()), case.merkle);
            assert_eq!(hex::encode(proof.reference().unwrap().0), case.reference);
            if let Some(expected) = case.message {
                let message: PoetProofMessage = scale::decode(&bytes(&expected.scale)).unwrap();
                assert_eq!(message.proof, proof);
                assert_eq!(hex::encode(&*message.service_id), expected.poet_service_id);
                assert_eq!(*message.round_id, *expected.round_id.as_bytes());
                assert_eq!(hex::encode(message.statement), expected.statement);
                assert_eq!(hex::encode(message.signature), expected.signature);
                assert_eq!(hex::encode(scale::encode(&message).unwrap()), expected.scale);
                messages += 1;
            }
        }
        assert!(messages > 3);
        assert!(vectors.decode_cases.len() > 10);
        for case in vectors.decode_cases {
            let data = bytes(&case.scale);
            match case.r#type.as_str() {
                "MerkleProof" => assert_eq!(scale::decode::<MerkleProof>(&data).is_ok(), case.ok, "{}", case.note),
                "compact64" => {
                    let value = scale::decode::<u64>(&data);
                    assert_eq!(value.is_ok(), case.ok, "{}: {value:?}", case.note);
                    if let Some(expected) = case.value {
                        assert_eq!(value.unwrap().to_string(), expected);
                    }
                }
                other => panic!("unknown type {other}"),
            }
        }
    }

    #[test]
    fn certificates_are_read_as_in_the_vectors() {
        let vectors: CertificateVectors = serde_json::from_str(include_str!("../testdata/poet/certificates.json")).unwrap();
        for case in vectors.cases {
            let data = bytes(&case.data);
            let parsed = Certificate::parse(&data);
            assert_eq!(parsed.is_ok(), case.decodes, "{}", case.data);
            let (Ok(certificate), Some(pubkey), Some(expiration)) = (parsed, case.pubkey, case.expiration) else { continue };
            assert_eq!(hex::encode(&*certificate.pubkey), pubkey);
            assert_eq!(certificate.expiration.map(|e| e.to_string()), Some(expiration));
            assert_eq!(scale::encode(&certificate).unwrap(), data);
        }
    }

    proptest! {
        #[test]
        fn what_decodes_encodes_again(data in prop::collection::vec(0..9u8, 0..80)) {
            if let Ok(proof) = scale::decode::<PoetProof>(&data) {
                prop_assert_eq!(scale::encode(&proof).unwrap(), data.clone());
            }
            if let Ok(proof) = scale::decode::<MembershipProof>(&data) {
                prop_assert_eq!(scale::encode(&proof).unwrap(), data);
            }
        }
    }
}
