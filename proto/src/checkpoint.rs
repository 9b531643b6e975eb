//! Checkpoints: the state of a network at a layer, as a JSON file from which a node can start (types.md section 12).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    ids::{Address, AtxId, EdSignature, NodeId},
    layers::{EpochId, LayerId},
    poet::Ticks,
    scale::Bytes,
    units::{AccountNonce, Smidge, SpaceUnits, TickHeight, VrfNonce},
};

/// The only version there is.
pub const VERSION: &str = "https://spacemesh.io/checkpoint.schema.json.1.0";

/// Why a file is no checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Not JSON, or not of the form of a checkpoint.
    #[error("not a checkpoint: {0}")]
    Json(#[from] serde_json::Error),
    /// Another version.
    #[error("version {0:?}, expected {VERSION:?}")]
    Version(String),
    /// The name of the snapshot does not say of which layer it is.
    #[error("{0:?} does not name a layer")]
    Id(String),
}

/// A checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// How it was made; for information only.
    pub command: String,
    /// [`VERSION`].
    pub version: String,
    /// The state.
    pub data: Data,
}

/// The state of a network at a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data {
    /// `snapshot-` and the layer.
    pub id: String,
    /// The latest activations of every identity.
    pub atxs: Vec<Atx>,
    /// All accounts.
    pub accounts: Vec<Account>,
    /// All marriages, by their number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub marriages: BTreeMap<u64, Vec<Marriage>>,
}

/// What later activations need to know of one that is referred to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Atx {
    /// Its id.
    pub id: AtxId,
    /// The epoch of publication.
    pub epoch: EpochId,
    /// What the labels of its publisher are bound to.
    pub commitment_atx: AtxId,
    /// Where its identities married; anything but 32 bytes counts as absent.
    #[serde(default, deserialize_with = "marriage_atx", skip_serializing_if = "Option::is_none")]
    pub marriage_atx: Option<AtxId>,
    /// The VRF nonce of its publisher.
    pub vrf_nonce: VrfNonce,
    /// Ticks below it.
    pub base_tick_height: TickHeight,
    /// Its own ticks.
    pub tick_count: Ticks,
    /// The publisher.
    pub public_key: NodeId,
    /// How many of the publisher's came before.
    pub sequence: u64,
    /// The account that gets the rewards.
    pub coinbase: Address,
    /// The space that counts, of all its identities.
    pub num_units: SpaceUnits,
    /// The space that each of them declared.
    pub units: BTreeMap<NodeId, SpaceUnits>,
}

fn marriage_atx<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<AtxId>, D::Error> {
    let text = Option::<Bytes>::deserialize(from)?;
    Ok(text.and_then(|bytes| <[u8; 32]>::try_from(bytes.0).ok()).map(AtxId))
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The address.
    pub address: Address,
    /// Its money.
    pub balance: Smidge,
    /// The number of its next transaction.
    pub nonce: AccountNonce,
    /// What it is; none before it is spawned.
    pub template: Option<Address>,
    /// What it was spawned with.
    pub state: Option<Bytes>,
}

/// An identity of a marriage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Marriage {
    /// Where it married.
    pub atx: AtxId,
    /// Which of the certificates there is its.
    pub index: u32,
    /// The publisher of the activation.
    pub married_to: NodeId,
    /// The identity.
    pub signer: NodeId,
    /// Its consent.
    pub signature: EdSignature,
}

impl Checkpoint {
    /// Reads a checkpoint of the known version.
    pub fn from_json(text: &[u8]) -> Result<Self, CheckpointError> {
        let checkpoint: Self = serde_json::from_slice(text)?;
        if checkpoint.version != VERSION {
            return Err(CheckpointError::Version(checkpoint.version));
        }
        checkpoint.layer()?;
        Ok(checkpoint)
    }

    /// The layer of the snapshot.
    pub fn layer(&self) -> Result<LayerId, CheckpointError> {
        let number = self.data.id.strip_prefix("snapshot-").and_then(|number| number.parse().ok());
        number.map(LayerId).ok_or_else(|| CheckpointError::Id(self.data.id.clone()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn sample() -> Value {
        let file: Value = serde_json::from_str(include_str!("../testdata/node/checkpoint_sample.json")).unwrap();
        file["file"].clone()
    }

    #[test]
    fn the_sample_survives() {
        let checkpoint = Checkpoint::from_json(sample().to_string().as_bytes()).unwrap();
        assert_eq!(checkpoint.layer().unwrap(), LayerId(1152));
        assert_eq!(serde_json::to_value(&checkpoint).unwrap(), sample());
    }

    #[test]
    fn large_numbers_and_marriages_survive() {
        let mut text = sample();
        text["data"]["atxs"][0]["baseTickHeight"] = u64::MAX.into();
        text["data"]["atxs"][0]["marriageAtx"] = "AAEC".into();
        let (id, signature) = (AtxId([7; 32]).to_base64(), EdSignature([1; 64]).to_base64());
        text["data"]["marriages"] =
            json!({ "3": [{ "atx": id, "index": 1, "marriedTo": id, "signer": id, "signature": signature }] });
        let checkpoint = Checkpoint::from_json(text.to_string().as_bytes()).unwrap();
        assert_eq!(checkpoint.data.atxs[0].base_tick_height.0, u64::MAX);
        assert_eq!(checkpoint.data.atxs[0].marriage_atx, None);
        assert_eq!(checkpoint.data.marriages[&3][0].index, 1);
        text["data"]["atxs"][0]["marriageAtx"] = id.into();
        let checkpoint = Checkpoint::from_json(text.to_string().as_bytes()).unwrap();
        assert_eq!(checkpoint.data.atxs[0].marriage_atx, Some(AtxId([7; 32])));
    }

    #[test]
    fn other_files_are_refused() {
        let mut text = sample();
        text["version"] = "2.0".into();
        assert!(matches!(Checkpoint::from_json(text.to_string().as_bytes()), Err(CheckpointError::Version(_))));
        let mut text = sample();
        text["data"]["id"] = "snapshot".into();
        assert!(matches!(Checkpoint::from_json(text.to_string().as_bytes()), Err(CheckpointError::Id(_))));
        let mut text = sample();
        text["data"]["atxs"][0].as_object_mut().unwrap().remove("units");
        assert!(matches!(Checkpoint::from_json(text.to_string().as_bytes()), Err(CheckpointError::Json(_))));
    }
}
