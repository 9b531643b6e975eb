//! `postdata_metadata.json`, the description that lies beside the data (post.md section 6).

use std::fmt::Write as _;

use serde_json::Value;

use super::{Layout, LayoutError};
use crate::{
    ids::{AtxId, NodeId},
    units::SpaceUnits,
};

/// Name of the metadata file.
pub const METADATA_FILE: &str = "postdata_metadata.json";

/// The 16-byte label at the VRF nonce.
pub type NonceValue = [u8; 16];

/// Contents of the metadata file. It is written as the deployed Go programs write it; what post-rs writes is read too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// The identity the data belongs to.
    pub node_id: NodeId,
    /// The ATX its labels are bound to.
    pub commitment_atx_id: AtxId,
    /// Labels in one unit.
    pub labels_per_unit: u64,
    /// Units the data is declared to hold.
    pub num_units: SpaceUnits,
    /// Bytes of a full file.
    pub max_file_size: u64,
    /// The VRF nonce, when one is known.
    pub nonce: Option<u64>,
    /// The label at the nonce.
    pub nonce_value: Option<NonceValue>,
    /// Where a search beyond the data stands (post.md section 4.4).
    pub last_position: Option<u64>,
}

/// Why a metadata file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// An empty file, as a crash of another program can leave it.
    #[error("the file is empty")]
    Empty,
    /// The beginning of a metadata file, as a crash of another program can leave it.
    #[error("the file ends in the middle: {0}")]
    Truncated(String),
    /// Not JSON, or not an object.
    #[error("not a JSON object: {0}")]
    Json(String),
    /// A required field is absent.
    #[error("field {0} is missing")]
    Missing(&'static str),
    /// A field has a value of another form.
    #[error("field {field}: {why}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The search for a nonce cannot stand where the file says.
    #[error("field LastPosition: behind {0} there is no room to look for a nonce")]
    Position(u64),
    /// A format this program does not know.
    #[error("version {0} is newer than this program; update it")]
    Version(u64),
}

impl Metadata {
    /// The fields are looked up without regard to case, `null` counts as absent and unknown fields are ignored, as the deployed
    /// readers do; ids may be base64 or hex.
    pub fn from_json(text: &[u8]) -> Result<Self, MetadataError> {
        if text.iter().all(|b| b.is_ascii_whitespace() || *b == 0) {
            return Err(MetadataError::Empty);
        }
        let value: Value = serde_json::from_slice(text)
            .map_err(|e| if e.is_eof() { MetadataError::Truncated(e.to_string()) } else { MetadataError::Json(e.to_string()) })?;
        let Value::Object(object) = value else {
            return Err(MetadataError::Json("another JSON value".to_owned()));
        };
        let find = |name: &'static str| {
            let exact = object.get(name);
            exact
                .or_else(|| object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v))
                .filter(|v| !v.is_null())
        };
        let number = |field: &'static str| match find(field) {
            None => Ok(None),
            Some(v) => {
                v.as_u64().map(Some).ok_or_else(|| MetadataError::Field { field, why: format!("not a whole number: {v}") })
            }
        };
        let text = |field: &'static str| match find(field) {
            None => Ok(None),
            Some(v) => v.as_str().map(Some).ok_or_else(|| MetadataError::Field { field, why: format!("not a text: {v}") }),
        };
        let required = |field: &'static str| number(field)?.ok_or(MetadataError::Missing(field));
        let id = |field: &'static str| {
            let text = text(field)?.ok_or(MetadataError::Missing(field))?;
            text.parse::<NodeId>().map_err(|e| MetadataError::Field { field, why: e.to_string() })
        };
        if let Some(version) = number("Version")?.filter(|v| *v > 1) {
            return Err(MetadataError::Version(version));
        }
        let num_units = required("NumUnits")?;
        let nonce_value = match text("NonceValue")?.filter(|t| !t.is_empty()) {
            None => None,
            Some(digits) => {
                let mut value = [0; 16];
                hex::decode_to_slice(digits, &mut value)
                    .map_err(|e| MetadataError::Field { field: "NonceValue", why: format!("not 16 bytes of hex: {e}") })?;
                Some(value)
            }
        };
        let metadata = Self {
            node_id: id("NodeId")?,
            commitment_atx_id: AtxId(id("CommitmentAtxId")?.0),
            labels_per_unit: required("LabelsPerUnit")?,
            num_units: SpaceUnits(
                num_units
                    .try_into()
                    .map_err(|_| MetadataError::Field { field: "NumUnits", why: format!("{num_units} is too large") })?,
            ),
            max_file_size: required("MaxFileSize")?,
            nonce: number("Nonce")?,
            nonce_value,
            last_position: number("LastPosition")?,
        };
        Ok(metadata)
    }

    /// Refuses a position from which a search would come to the last index: one of 64 times the data finds nothing in one of 2^700 cases.
    pub fn check_position(&self) -> Result<(), MetadataError> {
        let labels = self.layout().map_or(0, |layout| layout.num_labels().0);
        match self.last_position {
            Some(position) if u64::MAX - position < labels.saturating_mul(64) => Err(MetadataError::Position(position)),
            _ => Ok(()),
        }
    }

    /// Exactly the bytes the Go programs write: fields in this order, one tab of indentation, no newline at the end, absent
    /// values left out.
    pub fn to_json(&self) -> String {
        let mut out = format!(
            "{{\n\t\"NodeId\": \"{}\",\n\t\"CommitmentAtxId\": \"{}\",\n\t\"LabelsPerUnit\": {},\n\t\"NumUnits\": {},\n\t\"MaxFileSize\": {}",
            self.node_id.to_base64(),
            self.commitment_atx_id.to_base64(),
            self.labels_per_unit,
            self.num_units,
            self.max_file_size,
        );
        // Writing to a String cannot fail.
        if let Some(nonce) = self.nonce {
            let _ = write!(out, ",\n\t\"Nonce\": {nonce}");
        }
        if let Some(value) = self.nonce_value {
            let _ = write!(out, ",\n\t\"NonceValue\": \"{}\"", hex::encode(value));
        }
        if let Some(position) = self.last_position {
            let _ = write!(out, ",\n\t\"LastPosition\": {position}");
        }
        out.push_str("\n}");
        out
    }

    /// The layout the metadata describes.
    pub fn layout(&self) -> Result<Layout, LayoutError> {
        Layout::new(self.labels_per_unit, self.num_units, self.max_file_size)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{option, prelude::*};

    use super::*;

    fn go_texts() -> Vec<String> {
        fn collect(value: &Value, out: &mut Vec<String>) {
            match value {
                Value::Object(map) => map.iter().for_each(|(key, v)| match v.as_str() {
                    Some(text) if key.starts_with("metadata") && text.starts_with('{') => out.push(text.to_owned()),
                    _ => collect(v, out),
                }),
                Value::Array(items) => items.iter().for_each(|v| collect(v, out)),
                _ => {}
            }
        }
        let mut out = Vec::new();
        collect(&serde_json::from_str(include_str!("../../testdata/init_scenarios_go.json")).unwrap(), &mut out);
        out
    }

    #[test]
    fn go_files_survive_a_round_trip() {
        let texts = go_texts();
        assert!(texts.len() > 20);
        for text in texts {
            assert_eq!(Metadata::from_json(text.as_bytes()).unwrap().to_json(), text);
        }
    }

    #[test]
    fn post_rs_files_are_read() {
        let file: Value = serde_json::from_str(include_str!("../../testdata/init_dirs_postrs.json")).unwrap();
        for vector in file["vectors"].as_array().unwrap() {
            let metadata = Metadata::from_json(vector["postdata_metadata_json_text"].as_str().unwrap().as_bytes()).unwrap();
            assert_eq!(metadata.node_id.to_string(), vector["node_id"].as_str().unwrap());
            assert_eq!(metadata.commitment_atx_id.to_string(), vector["commitment_atx_id"].as_str().unwrap());
            assert_eq!(metadata.nonce.map(|n| n.to_string()).as_deref(), vector["nonce"].as_str());
            assert_eq!(metadata.nonce_value, None);
            assert_eq!(metadata.layout().unwrap().labels_per_file(), vector["labels_per_file"].as_u64().unwrap());
        }
    }

    #[test]
    fn bad_files_are_explained() {
        let good = go_texts().remove(0);
        let error = |text: &str| Metadata::from_json(text.as_bytes()).unwrap_err();
        assert_eq!(error(""), MetadataError::Empty);
        assert_eq!(error("\0\0\0\0"), MetadataError::Empty);
        assert!(matches!(error("{\"NodeId\": "), MetadataError::Truncated(_)));
        for cut in 1..good.len() {
            assert!(matches!(error(&good[..cut]), MetadataError::Truncated(_)), "{cut}");
        }
        assert!(matches!(error("NodeId"), MetadataError::Json(_)));
        assert!(matches!(error("[]"), MetadataError::Json(_)));
        assert_eq!(error("{}"), MetadataError::Missing("NumUnits"));
        assert!(matches!(
            error(&good.replace("\"NumUnits\": ", "\"NumUnits\": -")),
            MetadataError::Field { field: "NumUnits", .. }
        ));
        assert!(matches!(
            error(&good.replace("\"NumUnits\": ", "\"NumUnits\": 9999999999")),
            MetadataError::Field { field: "NumUnits", .. }
        ));
        assert_eq!(error(&good.replace('{', "{\"Version\": 2,")), MetadataError::Version(2));
        assert!(matches!(
            error(&good.replace("\"NonceValue\": \"", "\"NonceValue\": \"zz")),
            MetadataError::Field { field: "NonceValue", .. }
        ));
    }

    #[test]
    fn names_are_matched_without_case_and_ids_may_be_hex() {
        let text = format!(
            "{{\"version\":1,\"nodeid\":\"{}\",\"COMMITMENTATXID\":\"{}\",\"labelsPerUnit\":5,\"numUnits\":1,\"maxFileSize\":64,\"nonce\":null,\"x\":[]}}",
            "ab".repeat(32),
            "cd".repeat(32)
        );
        let metadata = Metadata::from_json(text.as_bytes()).unwrap();
        assert_eq!(metadata.node_id, NodeId([0xab; 32]));
        assert_eq!(metadata.nonce, None);
    }

    proptest! {
        #[test]
        fn any_metadata_survives_a_round_trip(
            ids in any::<([u8; 32], [u8; 32])>(), sizes in any::<(u64, u32, u64)>(),
            nonce in option::of(any::<u64>()), value in option::of(any::<[u8; 16]>()), position in option::of(any::<u64>()),
        ) {
            let metadata = Metadata {
                node_id: NodeId(ids.0), commitment_atx_id: AtxId(ids.1), labels_per_unit: sizes.0, num_units: SpaceUnits(sizes.1),
                max_file_size: sizes.2, nonce, nonce_value: value, last_position: position,
            };
            prop_assert_eq!(Metadata::from_json(metadata.to_json().as_bytes()), Ok(metadata));
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Metadata::from_json(&bytes);
        }
    }
}
