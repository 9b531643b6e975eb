//! Forms of JSON that serde does not know by itself.

/// Byte strings as standard base64 with padding.
pub(crate) mod base64 {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(crate) fn serialize<S: Serializer>(bytes: impl AsRef<[u8]>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>, T: TryFrom<Vec<u8>>>(from: D) -> Result<T, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        let bytes = STANDARD.decode(text.as_bytes()).map_err(|e| D::Error::custom(format!("not base64: {e}")))?;
        let found = bytes.len();
        bytes.try_into().map_err(|_| D::Error::custom(format!("unexpected length of {found} bytes")))
    }
}

/// Lists of hashes, each as standard base64 with padding.
pub(crate) mod base64_list {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Item(#[serde(with = "super::base64")] [u8; 32]);

    pub(crate) fn serialize<S: Serializer>(items: &[[u8; 32]], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(items.iter().map(|item| Item(*item)))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<[u8; 32]>, D::Error> {
        Ok(Vec::<Item>::deserialize(from)?.into_iter().map(|item| item.0).collect())
    }
}
