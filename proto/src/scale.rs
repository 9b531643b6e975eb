//! The SCALE codec as the network speaks it (types.md section 1, poet.md section 2).
//!
//! Integers are *compact* unless a format says otherwise; byte strings, text and lists carry a compact count and a limit that
//! belongs to the field. Most objects are their fields one after the other and derive [`Encode`] and [`Decode`]:
//!
//! ```
//! use proto::scale::{self, Bytes, Decode, Encode};
//!
//! #[derive(Encode, Decode)]
//! struct Note {
//!     number: u64,
//!     #[scale(max = 32)]
//!     text: Bytes,
//! }
//!
//! let bytes = scale::encode(&Note { number: 1, text: Bytes::from(&b"hi"[..]) }).unwrap();
//! assert_eq!(bytes, [4, 8, b'h', b'i']);
//! assert_eq!(*scale::decode::<Note>(&bytes).unwrap().text, *b"hi");
//! ```
//!
//! A byte string or list without a limit does not compile:
//!
//! ```compile_fail
//! #[derive(proto::scale::Encode)]
//! struct Note {
//!     text: proto::scale::Bytes,
//! }
//! ```
//!
//! Leniencies of the deployed decoder that are kept, because two nodes must accept the same bytes: a `bool` or option tag other
//! than 1 means false or none, and a 64-bit integer in the big mode may have superfluous zero bytes. Nothing else is lenient.

use std::ops::Deref;

pub use proto_derive::{Decode, Encode};

use crate::json;

/// Lists and options that may be open at once in a message of a node (types.md section 1.2). No object comes near; the budget
/// is what bounds the recursion of a type that contains itself.
pub const NESTING: u32 = 6;

/// The largest value of the four-byte mode; larger ones use the big mode.
const MAX_FOUR_BYTES: u64 = (1 << 30) - 1;

/// Why a value has no encoding.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A byte string, text or list is longer than its field allows.
    #[error("{found} elements where the format allows {limit}")]
    TooLong {
        /// Elements (or bytes) of the value.
        found: usize,
        /// The limit of the field.
        limit: usize,
    },
}

/// Why bytes are not the encoding of a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a field.
    #[error("ends early: {needed} more bytes needed, {left} left")]
    UnexpectedEnd {
        /// Bytes the field needs (a lower bound for lists).
        needed: usize,
        /// Bytes there are.
        left: usize,
    },
    /// A compact integer in a longer mode than its value needs.
    #[error("compact integer {value} is not in its shortest form")]
    NotCanonical {
        /// The value.
        value: u64,
    },
    /// A compact integer that does not fit the type of the field.
    #[error("compact integer does not fit {bits} bits")]
    Overflow {
        /// Width of the field in bits.
        bits: u32,
    },
    /// A byte string, text or list is longer than its field allows.
    #[error("{found} elements where the format allows {limit}")]
    TooLong {
        /// Elements (or bytes) announced.
        found: u32,
        /// The limit of the field.
        limit: usize,
    },
    /// More lists and options inside each other than the budget allows.
    #[error("nested too deeply")]
    Nesting,
    /// The value ended before the bytes did.
    #[error("{count} bytes left over")]
    TrailingBytes {
        /// Bytes after the value.
        count: usize,
    },
    /// The codec is content but the value breaks a rule of its type.
    #[error("invalid {what}")]
    Invalid {
        /// What is invalid.
        what: &'static str,
    },
}

/// A type with a SCALE form.
pub trait Encode {
    /// Appends the form of `self`; on an error the writer holds a part of it and must be thrown away.
    fn encode(&self, to: &mut Writer) -> Result<(), EncodeError>;
}

/// A type that can be read from its SCALE form.
pub trait Decode: Sized {
    /// Bytes of the shortest form there is. Lists check their count with it, so that no more is allocated than the input
    /// justifies.
    const MIN_BYTES: usize;

    /// Reads a value and leaves the reader behind it.
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError>;
}

/// A byte string or a list, whose limit belongs to the field that holds it.
pub trait EncodeLimited {
    /// Appends the count and the elements, at most `max` of them.
    fn encode_limited(&self, max: usize, to: &mut Writer) -> Result<(), EncodeError>;
}

/// A byte string or a list, whose limit belongs to the field that holds it.
pub trait DecodeLimited: Sized {
    /// Reads the count and the elements, at most `max` of them.
    fn decode_limited(max: usize, from: &mut Reader<'_>) -> Result<Self, DecodeError>;
}

/// The encoding of a value.
pub fn encode<T: Encode + ?Sized>(value: &T) -> Result<Vec<u8>, EncodeError> {
    let mut writer = Writer::default();
    value.encode(&mut writer)?;
    Ok(writer.into_bytes())
}

/// The value that `bytes` encode; bytes left over are an error.
pub fn decode<T: Decode>(bytes: &[u8]) -> Result<T, DecodeError> {
    let mut reader = Reader::new(bytes);
    let value = T::decode(&mut reader)?;
    reader.finish()?;
    Ok(value)
}

/// The value at the beginning of `bytes` and what follows it, for the few formats that ignore the rest.
pub fn decode_prefix<T: Decode>(bytes: &[u8]) -> Result<(T, &[u8]), DecodeError> {
    let mut reader = Reader::new(bytes);
    let value = T::decode(&mut reader)?;
    Ok((value, reader.rest))
}

/// Collects the encoding of a value.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// What was written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Bytes as they are, without a length: fixed arrays, identifiers, signatures.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// A compact integer. The form depends on the value alone, so one method serves every width up to 64 bits.
    pub fn compact64(&mut self, value: u64) {
        match value {
            0..0x40 => self.bytes.push((value as u8) << 2),
            0x40..0x4000 => self.raw(&((value as u16) << 2 | 0b01).to_le_bytes()),
            0x4000..=MAX_FOUR_BYTES => self.raw(&((value as u32) << 2 | 0b10).to_le_bytes()),
            _ => {
                let count = 8 - value.leading_zeros() as usize / 8;
                self.bytes.push((count as u8 - 4) << 2 | 0b11);
                self.raw(&value.to_le_bytes()[..count]);
            }
        }
    }

    /// A compact integer of 32 bits or less.
    pub fn compact32(&mut self, value: u32) {
        self.compact64(value.into());
    }

    /// One byte, 0 or 1.
    pub fn bool(&mut self, value: bool) {
        self.bytes.push(value.into());
    }

    /// A byte string (or text) of at most `limit` bytes with its length in front.
    pub fn bytes(&mut self, bytes: &[u8], limit: usize) -> Result<(), EncodeError> {
        self.count(bytes.len(), limit)?;
        self.raw(bytes);
        Ok(())
    }

    /// A list of at most `limit` elements with its count in front.
    pub fn list<T: Encode>(&mut self, items: &[T], limit: usize) -> Result<(), EncodeError> {
        self.count(items.len(), limit)?;
        items.iter().try_for_each(|item| item.encode(self))
    }

    /// An option: one byte that says whether a value follows, then the value.
    pub fn option<T: Encode>(&mut self, value: Option<&T>) -> Result<(), EncodeError> {
        self.option_with(value, |to, value| value.encode(to))
    }

    /// An option like [`Writer::option`] whose value `some` writes.
    pub fn option_with<T: ?Sized>(
        &mut self,
        value: Option<&T>,
        some: impl FnOnce(&mut Self, &T) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        self.bool(value.is_some());
        value.map_or(Ok(()), |value| some(self, value))
    }

    fn count(&mut self, found: usize, limit: usize) -> Result<(), EncodeError> {
        if found > limit || u32::try_from(found).is_err() {
            return Err(EncodeError::TooLong { found, limit });
        }
        self.compact64(found as u64);
        Ok(())
    }
}

/// Takes values from the front of a byte string. Never allocates more than the bytes that are there justify.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
    nesting: u32,
}

impl<'a> Reader<'a> {
    /// A reader at the first of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self::with_nesting(bytes, NESTING)
    }

    /// A reader that lets at most `nesting` lists and options be open at once.
    pub fn with_nesting(bytes: &'a [u8], nesting: u32) -> Self {
        Self { rest: bytes, nesting }
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Errs if bytes are left over.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            count => Err(DecodeError::TrailingBytes { count }),
        }
    }

    /// The next `count` bytes as they are.
    pub fn raw(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) =
            self.rest.split_at_checked(count).ok_or(DecodeError::UnexpectedEnd { needed: count, left: self.rest.len() })?;
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes as they are: fixed arrays, identifiers, signatures.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.raw(N)?);
        Ok(array)
    }

    /// A compact integer of a 64-bit field. A big mode with superfluous high zero bytes is accepted, as the network does; every
    /// other value must be in its shortest form.
    pub fn compact64(&mut self) -> Result<u64, DecodeError> {
        self.compact(64)
    }

    /// A compact integer of a 32-bit field.
    pub fn compact32(&mut self) -> Result<u32, DecodeError> {
        Ok(self.compact(32)? as u32)
    }

    /// A compact integer of a 16-bit field.
    pub fn compact16(&mut self) -> Result<u16, DecodeError> {
        Ok(self.compact(16)? as u16)
    }

    /// A compact integer of an 8-bit field.
    pub fn compact8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.compact(8)? as u8)
    }

    /// A compact integer that fits `bits` bits.
    fn compact(&mut self, bits: u32) -> Result<u64, DecodeError> {
        let first = self.raw(1)?[0];
        let (value, shortest_from) = match first & 0b11 {
            0b00 => (u64::from(first >> 2), 0),
            0b01 => (u64::from(u16::from_le_bytes([first, self.raw(1)?[0]]) >> 2), 0x40),
            // an 8-bit field knows no four-byte mode and only 32 and 64 bits know the big one
            0b10 if bits == 8 => return Err(DecodeError::Overflow { bits }),
            0b10 => {
                let [b, c, d] = self.array()?;
                (u64::from(u32::from_le_bytes([first, b, c, d]) >> 2), 0x4000)
            }
            _ if bits < 32 => return Err(DecodeError::Overflow { bits }),
            _ => {
                let count = usize::from(first >> 2) + 4;
                if count > bits as usize / 8 {
                    return Err(DecodeError::Overflow { bits });
                }
                let mut value = [0; 8];
                value[..count].copy_from_slice(self.raw(count)?);
                (u64::from_le_bytes(value), MAX_FOUR_BYTES + 1)
            }
        };
        if value < shortest_from {
            return Err(DecodeError::NotCanonical { value });
        }
        if bits < 64 && value >> bits != 0 {
            return Err(DecodeError::Overflow { bits });
        }
        Ok(value)
    }

    /// One byte; 1 is true and every other value false, as the network does.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        Ok(self.raw(1)?[0] == 1)
    }

    /// A byte string of at most `limit` bytes.
    pub fn bytes(&mut self, limit: usize) -> Result<&'a [u8], DecodeError> {
        let count = self.count(limit)?;
        self.raw(count)
    }

    /// A list of at most `limit` elements.
    pub fn list<T: Decode>(&mut self, limit: usize) -> Result<Vec<T>, DecodeError> {
        self.nested(|from| {
            let count = from.count(limit)?;
            let needed = count.saturating_mul(T::MIN_BYTES.max(1));
            if needed > from.rest.len() {
                return Err(DecodeError::UnexpectedEnd { needed, left: from.rest.len() });
            }
            let mut items = Vec::with_capacity(count);
            for _ in 0..count {
                items.push(T::decode(from)?);
            }
            Ok(items)
        })
    }

    /// An option; a tag other than 1 means that nothing follows, as the network does.
    pub fn option<T: Decode>(&mut self) -> Result<Option<T>, DecodeError> {
        self.option_with(T::decode)
    }

    /// An option like [`Reader::option`] whose value `some` reads.
    pub fn option_with<T>(&mut self, some: impl FnOnce(&mut Self) -> Result<T, DecodeError>) -> Result<Option<T>, DecodeError> {
        self.nested(|from| if from.bool()? { some(from).map(Some) } else { Ok(None) })
    }

    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, DecodeError>) -> Result<T, DecodeError> {
        self.nesting = self.nesting.checked_sub(1).ok_or(DecodeError::Nesting)?;
        let value = read(self)?;
        self.nesting += 1;
        Ok(value)
    }

    fn count(&mut self, limit: usize) -> Result<usize, DecodeError> {
        let found = self.compact32()?;
        if found as usize > limit {
            return Err(DecodeError::TooLong { found, limit });
        }
        Ok(found as usize)
    }
}

impl<const N: usize> Encode for [u8; N] {
    fn encode(&self, to: &mut Writer) -> Result<(), EncodeError> {
        to.raw(self);
        Ok(())
    }
}

impl<const N: usize> Decode for [u8; N] {
    const MIN_BYTES: usize = N;

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        from.array()
    }
}

macro_rules! compact_integers {
    ($($integer:ty: $read:ident),*) => {$(
        /// In compact form.
        impl Encode for $integer {
            fn encode(&self, to: &mut Writer) -> Result<(), EncodeError> {
                to.compact64(u64::from(*self));
                Ok(())
            }
        }

        /// In compact form.
        impl Decode for $integer {
            const MIN_BYTES: usize = 1;

            fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
                from.$read()
            }
        }
    )*};
}

compact_integers!(u8: compact8, u16: compact16, u32: compact32, u64: compact64);

/// One byte.
impl Encode for bool {
    fn encode(&self, to: &mut Writer) -> Result<(), EncodeError> {
        to.bool(*self);
        Ok(())
    }
}

/// One byte; 1 is true and every other value false, as the network does.
impl Decode for bool {
    const MIN_BYTES: usize = 1;

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        from.bool()
    }
}

impl<T: Encode> Encode for Option<T> {
    fn encode(&self, to: &mut Writer) -> Result<(), EncodeError> {
        to.option(self.as_ref())
    }
}

impl<T: Decode> Decode for Option<T> {
    const MIN_BYTES: usize = 1;

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        from.option()
    }
}

impl<T: Encode> Encode for Box<T> {
    fn encode(&self, to: &mut Writer) -> Result<(), EncodeError> {
        (**self).encode(to)
    }
}

impl<T: Decode> Decode for Box<T> {
    const MIN_BYTES: usize = T::MIN_BYTES;

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        T::decode(from).map(Self::new)
    }
}

/// Two values back to back.
impl<A: Encode, B: Encode> Encode for (A, B) {
    fn encode(&self, to: &mut Writer) -> Result<(), EncodeError> {
        self.0.encode(to)?;
        self.1.encode(to)
    }
}

/// Two values back to back.
impl<A: Decode, B: Decode> Decode for (A, B) {
    const MIN_BYTES: usize = A::MIN_BYTES + B::MIN_BYTES;

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok((A::decode(from)?, B::decode(from)?))
    }
}

impl<T: Encode> EncodeLimited for Vec<T> {
    fn encode_limited(&self, max: usize, to: &mut Writer) -> Result<(), EncodeError> {
        to.list(self, max)
    }
}

impl<T: Decode> DecodeLimited for Vec<T> {
    fn decode_limited(max: usize, from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        from.list(max)
    }
}

/// A byte string with its length in front: packed data, texts that nobody promises to be UTF-8. As JSON it is base64.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bytes(pub Vec<u8>);

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bytes({})", hex::encode(&self.0))
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl serde::Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        json::base64::serialize(&self.0, to)
    }
}

impl<'de> serde::Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        json::base64::deserialize(from).map(Self)
    }
}

impl EncodeLimited for Bytes {
    fn encode_limited(&self, max: usize, to: &mut Writer) -> Result<(), EncodeError> {
        to.bytes(self, max)
    }
}

impl DecodeLimited for Bytes {
    fn decode_limited(max: usize, from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        from.bytes(max).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn compact_bytes(value: u64) -> Vec<u8> {
        encode(&value).unwrap()
    }

    #[test]
    fn compact_integers_are_those_of_the_vectors() {
        #[derive(serde::Deserialize)]
        struct Case {
            value: String,
            scale: String,
        }
        #[derive(serde::Deserialize)]
        struct Vectors {
            compact: Vec<Case>,
        }
        let vectors: Vectors = serde_json::from_str(include_str!("../testdata/poet/scale.json")).unwrap();
        assert!(vectors.compact.len() > 10);
        for case in vectors.compact {
            let value: u64 = case.value.parse().unwrap();
            assert_eq!(hex::encode(compact_bytes(value)), case.scale);
            assert_eq!(decode::<u64>(&hex::decode(case.scale).unwrap()), Ok(value));
        }
    }

    #[test]
    fn narrow_fields_refuse_what_the_network_refuses() {
        let eight = |bytes: &[u8]| Reader::new(bytes).compact8();
        assert_eq!(eight(&compact_bytes(255)), Ok(255));
        assert_eq!(eight(&compact_bytes(256)), Err(DecodeError::Overflow { bits: 8 }));
        assert_eq!(eight(&compact_bytes(1 << 14)), Err(DecodeError::Overflow { bits: 8 }));
        assert_eq!(decode::<u16>(&compact_bytes(65535)), Ok(65535));
        assert_eq!(decode::<u16>(&compact_bytes(65536)), Err(DecodeError::Overflow { bits: 16 }));
        assert_eq!(decode::<u16>(&compact_bytes(1 << 30)), Err(DecodeError::Overflow { bits: 16 }));
        assert_eq!(decode::<u32>(&compact_bytes(u32::MAX.into())), Ok(u32::MAX));
        assert_eq!(decode::<u32>(&compact_bytes(1 << 32)), Err(DecodeError::Overflow { bits: 32 }));
        // superfluous zero bytes pass in a 64-bit field only
        assert_eq!(decode::<u64>(&[7, 0, 0, 0, 0x40, 0]), Ok(1 << 30));
        assert_eq!(decode::<u32>(&[7, 0, 0, 0, 0x40, 0]), Err(DecodeError::Overflow { bits: 32 }));
        assert_eq!(decode::<u64>(&[1, 0]), Err(DecodeError::NotCanonical { value: 0 }));
    }

    #[test]
    fn lists_options_and_byte_strings_keep_their_limits() {
        let mut writer = Writer::default();
        assert_eq!(writer.bytes(&[1, 2, 3], 2), Err(EncodeError::TooLong { found: 3, limit: 2 }));
        let mut writer = Writer::default();
        writer.list(&[7u32, 70], 2).unwrap();
        writer.option(Some(&1u64)).unwrap();
        writer.option::<u64>(None).unwrap();
        writer.bytes(b"abc", 3).unwrap();
        let bytes = writer.into_bytes();
        assert_eq!(bytes, [8, 28, 0x19, 1, 1, 4, 0, 12, b'a', b'b', b'c']);
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.clone().list::<u32>(1), Err(DecodeError::TooLong { found: 2, limit: 1 }));
        assert_eq!(reader.list::<u32>(2), Ok(vec![7, 70]));
        assert_eq!(reader.option::<u64>(), Ok(Some(1)));
        assert_eq!(reader.option::<u64>(), Ok(None));
        assert_eq!(reader.clone().finish(), Err(DecodeError::TrailingBytes { count: 4 }));
        assert_eq!(reader.bytes(3), Ok(&b"abc"[..]));
        assert_eq!(reader.finish(), Ok(()));
        // a tag of 2 is "none" and takes no value with it
        assert_eq!(Reader::new(&[2, 4]).option::<u64>(), Ok(None));
        // a huge count costs nothing when the bytes are not there
        let huge = compact_bytes(u64::from(u32::MAX));
        assert!(matches!(Reader::new(&huge).list::<u64>(usize::MAX), Err(DecodeError::UnexpectedEnd { .. })));
    }

    proptest! {
        #[test]
        fn every_integer_survives(value: u64, shift in 0..64u32) {
            let value = value >> shift;
            prop_assert_eq!(decode::<u64>(&compact_bytes(value)), Ok(value));
            prop_assert_eq!(decode::<u32>(&compact_bytes(value)).ok(), u32::try_from(value).ok());
            prop_assert_eq!(decode::<u16>(&compact_bytes(value)).ok(), u16::try_from(value).ok());
        }

        /// Whatever is accepted is the shortest form of its value, but for the high zero bytes of the big mode.
        #[test]
        fn bytes_are_accepted_in_one_form_only(bytes in prop::collection::vec(any::<u8>(), 0..10)) {
            if let Ok(value) = decode::<u64>(&bytes) {
                let shortest = compact_bytes(value);
                if shortest != bytes {
                    prop_assert!(value > MAX_FOUR_BYTES && bytes.len() > shortest.len());
                    prop_assert!(bytes[shortest.len()..].iter().all(|b| *b == 0));
                    prop_assert_eq!(&bytes[1..shortest.len()], &shortest[1..]);
                }
            }
        }
    }
}
