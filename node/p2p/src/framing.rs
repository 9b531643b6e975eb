//! What lies around a request and its answer (p2p-sync.md section 8):
//!
//! ```text
//! client -> server : uvarint(len) || request
//! server -> client : compact(len(data)) || data || compact(len(err)) || err
//! ```
//!
//! Nothing is allocated before the bytes for it have come.

use std::io;

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use proto::scale::{self, Writer};

use crate::protocols::MAX_REQUEST;

/// The most bytes of the words of an error.
pub(crate) const MAX_ERROR: usize = 1024;

/// Why a request could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadRequestError {
    /// Longer than any honest one.
    #[error("a request of {0} bytes")]
    TooLong(u64),
    /// The stream failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Sends a request. The stream stays open for writing, as deployed clients leave it.
pub(crate) async fn write_request(stream: &mut (impl AsyncWrite + Unpin), request: &[u8]) -> io::Result<()> {
    let mut frame = Vec::with_capacity(request.len() + 3);
    let mut rest = request.len();
    while rest >= 0x80 {
        frame.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    frame.push(rest as u8);
    frame.extend_from_slice(request);
    stream.write_all(&frame).await?;
    stream.flush().await
}

/// Receives a request: as many bytes as announced, without waiting for the end of the stream.
pub(crate) async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, ReadRequestError> {
    let mut length = 0_u64;
    for shift in (0..).step_by(7) {
        let byte = read_byte(stream).await?;
        if shift > 56 {
            return Err(ReadRequestError::TooLong(u64::MAX));
        }
        length |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    match usize::try_from(length) {
        Ok(length) if length <= MAX_REQUEST => Ok(read_bytes(stream, length).await?),
        _ => Err(ReadRequestError::TooLong(length)),
    }
}

/// Sends an answer, or in words why there is none, and closes the stream for writing.
pub(crate) async fn write_answer(stream: &mut (impl AsyncWrite + Unpin), answer: Result<&[u8], &str>) -> io::Result<()> {
    let (data, error) = match answer {
        Ok(data) => (data, &[][..]),
        Err(words) => (&[][..], shortened(words)),
    };
    let mut head = Writer::default();
    head.compact64(data.len() as u64);
    stream.write_all(&head.into_bytes()).await?;
    stream.write_all(data).await?;
    let mut tail = Writer::default();
    tail.compact64(error.len() as u64);
    tail.raw(error);
    stream.write_all(&tail.into_bytes()).await?;
    stream.close().await
}

/// As much of a text as fits, with no character cut in two.
fn shortened(words: &str) -> &[u8] {
    let end = (0..=words.len().min(MAX_ERROR)).rev().find(|end| words.is_char_boundary(*end));
    &words.as_bytes()[..end.unwrap_or(0)]
}

/// Receives an answer of at most `limit` bytes; the inner error is what the peer says.
pub(crate) async fn read_answer(stream: &mut (impl AsyncRead + Unpin), limit: usize) -> io::Result<Result<Vec<u8>, String>> {
    let data = read_counted(stream, limit).await?;
    let error = read_counted(stream, MAX_ERROR).await?;
    // words of an error count, whatever came before them
    Ok(if error.is_empty() { Ok(data) } else { Err(String::from_utf8_lossy(&error).into_owned()) })
}

/// A byte string with its compact length in front.
async fn read_counted(stream: &mut (impl AsyncRead + Unpin), limit: usize) -> io::Result<Vec<u8>> {
    let first = read_byte(stream).await?;
    // the two low bits say how many bytes of the length follow; four is the most a length of 32 bits has
    let more = [0, 1, 3, 4][usize::from(first & 3)];
    let mut length = vec![first];
    length.extend(read_bytes(stream, more).await?);
    let length: u32 = scale::decode(&length).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
    if length as usize > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{length} bytes where {limit} are allowed")));
    }
    read_bytes(stream, length as usize).await
}

async fn read_byte(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<u8> {
    let mut byte = [0];
    stream.read_exact(&mut byte).await?;
    Ok(byte[0])
}

async fn read_bytes(stream: &mut (impl AsyncRead + Unpin), count: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let found = stream.take(count as u64).read_to_end(&mut bytes).await?;
    if found == count { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use futures::{executor::block_on, io::Cursor};
    use proptest::prelude::*;

    use super::*;

    fn request_frame(request: &[u8]) -> Vec<u8> {
        let mut frame = Cursor::new(Vec::new());
        block_on(write_request(&mut frame, request)).unwrap();
        frame.into_inner()
    }

    fn answer_frame(answer: Result<&[u8], &str>) -> Vec<u8> {
        let mut frame = Cursor::new(Vec::new());
        block_on(write_answer(&mut frame, answer)).unwrap();
        frame.into_inner()
    }

    fn read_frame(frame: &[u8]) -> Result<Vec<u8>, ReadRequestError> {
        block_on(read_request(&mut Cursor::new(frame)))
    }

    fn read_answer_frame(frame: &[u8], limit: usize) -> io::Result<Result<Vec<u8>, String>> {
        block_on(read_answer(&mut Cursor::new(frame), limit))
    }

    #[test]
    fn frames_are_the_deployed_ones() {
        assert_eq!(request_frame(&[0x78]), [1, 0x78]);
        assert_eq!(request_frame(&[7; 300])[..3], [0xac, 2, 7]);
        // the answer to a question for the activations of an epoch without any
        assert_eq!(answer_frame(Ok(&[0])), [4, 0, 0]);
        assert_eq!(answer_frame(Err("no")), [0, 8, b'n', b'o']);
    }

    #[test]
    fn long_requests_are_refused_before_they_are_read() {
        let most = vec![1; MAX_REQUEST];
        assert_eq!(read_frame(&request_frame(&most)).unwrap(), most);
        assert!(matches!(read_frame(&[0x81, 0x50]), Err(ReadRequestError::TooLong(10_241))));
        assert!(matches!(read_frame(&[0xff; 20]), Err(ReadRequestError::TooLong(_))));
        assert!(matches!(read_frame(&[5, 1]), Err(ReadRequestError::Io(_))));
    }

    #[test]
    fn answers_are_limited() {
        let kind = |frame: &[u8], limit| read_answer_frame(frame, limit).unwrap_err().kind();
        let frame = answer_frame(Ok(&[9; 100]));
        assert_eq!(read_answer_frame(&frame, 100).unwrap(), Ok(vec![9; 100]));
        assert_eq!(kind(&frame, 99), io::ErrorKind::InvalidData);
        assert_eq!(kind(&frame[..50], 100), io::ErrorKind::UnexpectedEof);
        // four gigabytes announced, none sent
        assert_eq!(kind(&[3, 255, 255, 255, 255], usize::MAX), io::ErrorKind::UnexpectedEof);
        // not in its shortest form
        assert_eq!(kind(&[1, 0, 0], 100), io::ErrorKind::InvalidData);
        let words = "é".repeat(600);
        let told = read_answer_frame(&answer_frame(Err(&words)), 0).unwrap().unwrap_err();
        assert_eq!(told, "é".repeat(512));
        // data and an error: the error counts
        assert_eq!(read_answer_frame(&[4, 1, 4, b'x'], 10).unwrap(), Err("x".to_owned()));
    }

    proptest! {
        #[test]
        fn what_is_sent_arrives(request in prop::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(read_frame(&request_frame(&request)).unwrap(), request.clone());
            prop_assert_eq!(read_answer_frame(&answer_frame(Ok(&request)), 2000).unwrap(), Ok(request));
        }

        #[test]
        fn garbage_does_no_harm(garbage in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_frame(&garbage);
            if let Ok(Ok(data)) = read_answer_frame(&garbage, 1 << 30) {
                prop_assert!(data.len() <= garbage.len());
            }
        }
    }
}
