//! Messages, clients and servers generated from the files under `proto/`, one module per package.

// Generated code finds other packages by their place, so these two are nested as their packages are.
pub mod google {
    //! Packages of Google's that others build on.

    /// Package `google.rpc`: the status inside of an answer.
    #[expect(missing_docs, reason = "generated")]
    pub mod rpc {
        tonic::include_proto!("google.rpc");
    }
}

mod spacemesh {
    /// Package `spacemesh.v1`: the services of a node (api.md section 4), and the stream between it and its proving services
    /// (post.md section 15).
    #[expect(missing_docs, clippy::pedantic, reason = "generated")]
    pub mod v1 {
        tonic::include_proto!("spacemesh.v1");
    }

    /// Package `spacemesh.v2alpha1`: newer services of a node (api.md section 5).
    #[expect(missing_docs, clippy::pedantic, reason = "generated")]
    pub mod v2alpha1 {
        tonic::include_proto!("spacemesh.v2alpha1");
    }

    /// Package `spacemesh.v2beta1`: the same again under another name.
    #[expect(missing_docs, clippy::pedantic, reason = "generated")]
    pub mod v2beta1 {
        tonic::include_proto!("spacemesh.v2beta1");
    }
}

pub use spacemesh::{v1 as spacemesh_v1, v2alpha1 as spacemesh_v2alpha1, v2beta1 as spacemesh_v2beta1};

/// Package `smesh.node.v1`: what `smesh-node status` asks.
#[expect(missing_docs, clippy::pedantic, reason = "generated")]
pub mod node_v1 {
    tonic::include_proto!("smesh.node.v1");
}

/// Package `rpc.api.v1`: the services of a PoET server (poet.md section 5).
#[expect(missing_docs, clippy::pedantic, reason = "generated")]
pub mod poet_v1 {
    tonic::include_proto!("rpc.api.v1");
}

/// Package `smesh.poet.v1`: between the two parts of a PoET server that runs on two machines.
#[expect(missing_docs, clippy::pedantic, reason = "generated")]
pub mod poet_link_v1 {
    tonic::include_proto!("smesh.poet.v1");
}

/// The descriptions of all services, as reflection serves them.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

#[cfg(test)]
mod tests {
    use prost::Message;
    use serde_json::Value;

    use super::spacemesh_v1::*;

    fn bytes(value: &Value) -> Vec<u8> {
        hex::decode(value.as_str().unwrap()).unwrap()
    }

    fn number(value: &Value) -> u64 {
        value.as_u64().unwrap_or_else(|| value.as_str().unwrap().parse().unwrap())
    }

    fn meta(fields: &Value) -> Metadata {
        Metadata {
            node_id: bytes(&fields["node_id"]),
            commitment_atx_id: bytes(&fields["commitment_atx_id"]),
            nonce: (!fields["nonce"].is_null()).then(|| number(&fields["nonce"])),
            num_units: number(&fields["num_units"]) as u32,
            labels_per_unit: number(&fields["labels_per_unit"]),
        }
    }

    fn check<M: Message + Default + PartialEq + std::fmt::Debug>(message: &M, encoded: &[u8]) {
        assert_eq!(hex::encode(message.encode_to_vec()), hex::encode(encoded));
        assert_eq!(M::decode(encoded).unwrap(), *message);
    }

    #[test]
    fn messages_are_encoded_as_the_reference_does() {
        let file: Value = serde_json::from_str(include_str!("../testdata/post_service_wire.json")).unwrap();
        let vectors = file["vectors"].as_array().unwrap();
        assert!(!vectors.is_empty());
        for v in vectors {
            let (fields, encoded) = (&v["fields"], bytes(&v["bytes"]));
            let kind = fields["kind"].as_str();
            match v["message"].as_str().unwrap() {
                "spacemesh.v1.NodeRequest" => {
                    let kind = kind.map(|kind| match kind {
                        "metadata" => node_request::Kind::Metadata(MetadataRequest {}),
                        "gen_proof" => node_request::Kind::GenProof(GenProofRequest { challenge: bytes(&fields["challenge"]) }),
                        other => panic!("kind {other}"),
                    });
                    check(&NodeRequest { kind }, &encoded);
                }
                "spacemesh.v1.ServiceResponse" => {
                    let kind = kind.map(|kind| match kind {
                        "metadata" => service_response::Kind::Metadata(MetadataResponse { meta: Some(meta(fields)) }),
                        "gen_proof" => {
                            let (proof, metadata) = (&fields["proof"], &fields["metadata"]);
                            service_response::Kind::GenProof(GenProofResponse {
                                status: number(&fields["status"]) as i32,
                                proof: (!proof.is_null()).then(|| Proof {
                                    nonce: number(&proof["nonce"]) as u32,
                                    indices: bytes(&proof["indices"]),
                                    pow: number(&proof["pow"]),
                                }),
                                metadata: (!metadata.is_null()).then(|| ProofMetadata {
                                    challenge: bytes(&metadata["challenge"]),
                                    meta: Some(meta(metadata)),
                                }),
                            })
                        }
                        other => panic!("kind {other}"),
                    });
                    check(&ServiceResponse { kind }, &encoded);
                }
                other => panic!("message {other}"),
            }
        }
    }
}
