//! `hs/1`: objects by hash, several in one request (p2p-sync.md section 9.1).

use std::collections::HashSet;

use proto::{
    fetch::{MAX_BATCH, MAX_RESPONSE, RequestBatch, RequestMessage, ResponseBatch, ResponseMessage},
    ids::Hash32,
    scale::{self, Bytes, Writer},
};

use crate::Handler;

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hint {
    /// Activations, by id.
    Atx,
    /// Ballots, by id.
    Ballot,
    /// Blocks, by id.
    Block,
    /// Proposals, by id.
    Proposal,
    /// Transactions, by id.
    Transaction,
    /// Proofs of elapsed time, by reference.
    PoetProof,
    /// Proofs that an identity broke a rule, by identity.
    Malfeasance,
    /// Active sets, by hash.
    ActiveSet,
}

impl Hint {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::Atx,
        Self::Ballot,
        Self::Block,
        Self::Proposal,
        Self::Transaction,
        Self::PoetProof,
        Self::Malfeasance,
        Self::ActiveSet,
    ];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Atx => "ATXDB",
            Self::Ballot => "ballotDB",
            Self::Block => "blocksDB",
            Self::Proposal => "proposalDB",
            Self::Transaction => "TXDB",
            Self::PoetProof => "POETDB",
            Self::Malfeasance => "malfeasance",
            Self::ActiveSet => "activeset",
        }
    }

    fn named(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|hint| hint.name().as_bytes() == name)
    }
}

/// An answer ends before the object that would make it larger than this; who asked asks again for the rest. Bounds what peers
/// that read slowly keep in memory.
const ANSWER_BYTES: usize = 8 << 20;

/// A request for up to [`MAX_BATCH`] objects and the name of the batch; `None` for more.
pub(crate) fn request(hint: Hint, hashes: &[Hash32]) -> Option<(Hash32, Vec<u8>)> {
    let requests: Vec<_> =
        hashes.iter().map(|hash| RequestMessage { hint: Bytes::from(hint.name().as_bytes()), hash: *hash }).collect();
    let mut list = Writer::default();
    list.list(&requests, MAX_BATCH).ok()?;
    let list = list.into_bytes();
    // the name is the hash of the encoded list, which the batch repeats
    let id = Hash32::of(&[&list]);
    Some((id, [&id.0[..], &list].concat()))
}

/// Answers a request; an error is what the peer is told.
pub(crate) async fn serve(handler: &dyn Handler, request: &[u8]) -> Result<Vec<u8>, String> {
    let batch: RequestBatch = scale::decode(request).map_err(|e| format!("malformed request: {e}"))?;
    let mut responses = Vec::new();
    let mut bytes = 0;
    let mut seen = HashSet::new();
    for RequestMessage { hint, hash } in batch.requests {
        let hint = Hint::named(&hint).ok_or_else(|| format!("unknown database {:?}", String::from_utf8_lossy(&hint)))?;
        if !seen.insert((hint, hash)) {
            continue;
        }
        // an empty object is one that is not there: of a checkpoint's activations the bytes are unknown
        let Some(data) = handler.object(hint, hash).await?.filter(|data| !data.is_empty()) else { continue };
        if !responses.is_empty() && bytes + data.len() > ANSWER_BYTES {
            break;
        }
        bytes += data.len();
        responses.push(ResponseMessage { hash, data: Bytes(data) });
    }
    scale::encode(&ResponseBatch { id: batch.id, responses }).map_err(|e| e.to_string())
}

/// Reads an answer: the objects that were asked for, each once.
pub(crate) fn answer(id: Hash32, asked: &[Hash32], data: &[u8]) -> Result<Vec<(Hash32, Vec<u8>)>, &'static str> {
    let batch: ResponseBatch = scale::decode(data).map_err(|_| "not a batch of objects")?;
    if batch.id != id {
        return Err("the answer to another request");
    }
    let mut wanted: HashSet<_> = asked.iter().copied().collect();
    let objects = batch.responses.into_iter().filter(|object| !object.data.is_empty() && wanted.remove(&object.hash));
    Ok(objects.map(|object| (object.hash, object.data.0)).collect())
}

/// The most bytes of an answer that are read: a batch of the largest activations is far below, and so is what [`serve`] sends.
pub(crate) const MAX_ANSWER: usize = 64 << 20;
const _: () = assert!(MAX_ANSWER <= MAX_RESPONSE);

#[cfg(test)]
mod tests {
    use std::{future::ready, sync::Arc};

    use futures::executor::block_on;
    use libp2p_identity::PeerId;

    use super::*;
    use crate::{Boxed, Topic, Verdict};

    /// Knows activations whose first byte is even, of as many MiB as the last one says; otherwise of three bytes.
    struct Even;

    impl Handler for Even {
        fn gossip(&self, _: Topic, _: Arc<[u8]>, _: PeerId) -> Boxed<'_, Verdict> {
            Box::pin(ready(Verdict::Ignore))
        }

        fn object(&self, hint: Hint, hash: Hash32) -> Boxed<'_, Result<Option<Vec<u8>>, String>> {
            Box::pin(ready(match (hint, hash.0) {
                (Hint::Block, _) => Err("database closed".to_owned()),
                (Hint::Atx, [first, .., mib]) if first % 2 == 0 => {
                    Ok(Some(if mib % 31 == 0 { vec![0xaa, 0xbb, 0xcc] } else { vec![1; usize::from(mib) << 20] }))
                }
                (Hint::Atx, _) => Ok(None),
                _ => Ok(Some(Vec::new())),
            }))
        }
    }

    fn hash(first: u8, mib: u8) -> Hash32 {
        let mut hash = Hash32([0; 32]);
        (hash.0[0], hash.0[31]) = (first, mib);
        hash
    }

    #[test]
    fn bytes_are_those_of_the_specification() {
        let asked = Hash32(std::array::from_fn(|n| n as u8));
        let (id, bytes) = request(Hint::Atx, &[asked]).unwrap();
        assert_eq!(hex::encode(id.0), "f720424b980adcf2a7f6cede3a9893e0690d4be7ead46c84e04b455925a13e5f");
        assert_eq!(bytes.len(), 71);
        let expected = [&id.0[..], &[0x04, 0x14], b"ATXDB", &asked.0].concat();
        assert_eq!(bytes, expected);
        let data = block_on(serve(&Even, &bytes)).unwrap();
        assert_eq!(data, [&id.0[..], &[4], &asked.0, &[0x0c, 0xaa, 0xbb, 0xcc]].concat());
        assert_eq!(answer(id, &[asked], &data).unwrap(), [(asked, vec![0xaa, 0xbb, 0xcc])]);
        assert!(request(Hint::Atx, &vec![asked; MAX_BATCH + 1]).is_none());
    }

    #[test]
    fn what_is_not_there_is_left_out() {
        let asked = [hash(1, 0), hash(2, 0), hash(3, 0), hash(2, 0)];
        let (id, bytes) = request(Hint::Atx, &asked).unwrap();
        let data = block_on(serve(&Even, &bytes)).unwrap();
        assert_eq!(answer(id, &asked, &data).unwrap(), [(hash(2, 0), vec![0xaa, 0xbb, 0xcc])]);
        let (id, bytes) = request(Hint::ActiveSet, &asked).unwrap();
        assert!(answer(id, &asked, &block_on(serve(&Even, &bytes)).unwrap()).unwrap().is_empty());
    }

    #[test]
    fn answers_do_not_grow_without_end() {
        let asked: Vec<_> = (0..8).map(|n| hash(2 * n, 3)).collect();
        let (id, bytes) = request(Hint::Atx, &asked).unwrap();
        let found = answer(id, &asked, &block_on(serve(&Even, &bytes)).unwrap()).unwrap();
        assert_eq!(found.len(), 2);
        let asked = [hash(4, 20), hash(6, 0)];
        let (id, bytes) = request(Hint::Atx, &asked).unwrap();
        let found = answer(id, &asked, &block_on(serve(&Even, &bytes)).unwrap()).unwrap();
        assert_eq!(found.len(), 1, "one object always fits");
    }

    #[test]
    fn faults_are_told() {
        let (id, bytes) = request(Hint::Block, &[hash(2, 0)]).unwrap();
        assert_eq!(block_on(serve(&Even, &bytes)).unwrap_err(), "database closed");
        assert!(block_on(serve(&Even, &bytes[..70])).unwrap_err().starts_with("malformed request"));
        let unknown = [&id.0[..], &[4, 8], b"XX", &[0; 32]].concat();
        assert_eq!(block_on(serve(&Even, &unknown)).unwrap_err(), "unknown database \"XX\"");
    }

    #[test]
    fn answers_to_something_else_are_not_taken() {
        let (id, bytes) = request(Hint::Atx, &[hash(2, 0)]).unwrap();
        let data = block_on(serve(&Even, &bytes)).unwrap();
        assert!(answer(Hash32([1; 32]), &[hash(2, 0)], &data).is_err());
        assert!(answer(id, &[hash(2, 0)], &data[1..]).is_err());
        assert!(answer(id, &[hash(4, 0)], &data).unwrap().is_empty());
    }
}
