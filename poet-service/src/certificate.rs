//! Certificates and the signature of a registration (poet.md sections 5.6 and 5.7).

use ed25519_dalek::{Signature, Verifier as _, VerifyingKey};
use proto::{ids::NodeId, poet::Certificate, scale::DecodeError};

/// Why a certificate does not authorise a registration. The texts are those of the servers in use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The signature is not the certifier's.
    #[error("signature mismatch")]
    Signature,
    /// The signed bytes are no certificate.
    #[error("decoding: {0}")]
    Decode(#[from] DecodeError),
    /// It belongs to another identity.
    #[error("pubkey mismatch")]
    Identity,
    /// Its time is over.
    #[error("certificate expired at {0}")]
    Expired(u64),
    /// No key of a certifier begins like the hint, or there is no hint and no certifier configured.
    #[error("no matching cert public keys")]
    NoKey,
    /// Several keys begin like the hint and none of them fits.
    #[error("invalid certificate")]
    NoneFits,
}

/// Whether `signature` over `message` is that of `key`: cofactorless, `S` canonical, `R` compared by its bytes. Bytes that are
/// no key or no signature verify nothing.
pub fn signature_is_valid(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let (Ok(key), Ok(signature)) = (<[u8; 32]>::try_from(key), Signature::from_slice(signature)) else { return false };
    VerifyingKey::from_bytes(&key).is_ok_and(|key| key.verify(message, &signature).is_ok())
}

/// Checks a certificate of `node_id` signed by the certifier `key` at `now` (Unix seconds).
pub fn check(key: &[u8], data: &[u8], signature: &[u8], node_id: &NodeId, now: u64) -> Result<(), CertificateError> {
    if !signature_is_valid(key, data, signature) {
        return Err(CertificateError::Signature);
    }
    let certificate = Certificate::parse(data)?;
    if *certificate.pubkey != node_id.0 {
        return Err(CertificateError::Identity);
    }
    match certificate.expiration {
        Some(expiration) if expiration < now => Err(CertificateError::Expired(expiration)),
        _ => Ok(()),
    }
}
