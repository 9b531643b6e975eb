//! The peers a host was connected to, `<data>/p2p/connected.txt`, to find the network again after a restart (p2p-sync.md
//! section 2.2).

use std::{
    fs,
    io::{self, Read as _},
    path::Path,
};

use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};

use crate::{
    error::FileError,
    identity::{io_error, replace},
};

/// The name of the file.
const NAME: &str = "connected.txt";

/// A few hundred peers take less.
const MOST_BYTES: u64 = 1 << 20;

/// The most peers that are taken from a file.
const MOST_PEERS: usize = 1000;

/// The most addresses of a peer that are kept.
pub(crate) const MOST_ADDRESSES: usize = 16;

/// A peer and where it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    /// The peer.
    pub(crate) id: PeerId,
    /// Its addresses, without its name.
    pub(crate) addresses: Vec<Multiaddr>,
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Addrs", default)]
    addresses: Vec<String>,
}

/// The peers of a file; none where there is no file.
pub(crate) fn read(folder: &Path) -> Result<Vec<Known>, FileError> {
    let path = folder.join(NAME);
    let mut content = Vec::new();
    match fs::File::open(&path).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut content)) {
        Ok(_) => parse(&content).map_err(|why| FileError::Connected { path, why }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(io_error(&path)(e)),
    }
}

fn parse(content: &[u8]) -> Result<Vec<Known>, &'static str> {
    if content.len() as u64 > MOST_BYTES {
        return Err("larger than a megabyte");
    }
    let (sum, lines) = content.split_first_chunk().ok_or("shorter than its checksum")?;
    if u64::from_be_bytes(*sum) != crc64(lines) {
        return Err("its checksum is wrong");
    }
    let lines = serde_json::Deserializer::from_slice(lines).into_iter::<Line>().take(MOST_PEERS);
    lines
        .map(|line| {
            let line = line.map_err(|_| "a line is no peer")?;
            let id = line.id.parse().map_err(|_| "a line has no peer id")?;
            // an address of a kind this host does not know is no reason to forget the peer
            let addresses = line.addresses.iter().filter_map(|text| text.parse().ok()).take(MOST_ADDRESSES).collect();
            Ok(Known { id, addresses })
        })
        .collect()
}

/// Replaces the file.
pub(crate) fn write(folder: &Path, peers: &[Known]) -> Result<(), FileError> {
    let path = folder.join(NAME);
    let mut content = vec![0; 8];
    for peer in peers {
        let line = Line { id: peer.id.to_string(), addresses: peer.addresses.iter().map(Multiaddr::to_string).collect() };
        serde_json::to_writer(&mut content, &line).map_err(|e| io_error(&path)(e.into()))?;
        content.push(b'\n');
    }
    let sum = crc64(&content[8..]).to_be_bytes();
    content[..8].copy_from_slice(&sum);
    replace(&path, &content)
}

/// CRC-64/GO-ISO.
fn crc64(bytes: &[u8]) -> u64 {
    const POLYNOMIAL: u64 = 0xd800_0000_0000_0000;
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u64::from(*byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ POLYNOMIAL } else { sum >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Vec<Known> {
        (1..4_u8)
            .map(|n| Known { id: PeerId::random(), addresses: vec![format!("/ip4/1.2.3.{n}/tcp/7513").parse().unwrap()] })
            .collect()
    }

    #[test]
    fn the_checksum_is_the_published_one() {
        assert_eq!(crc64(b"123456789"), 0xb909_56c7_75a4_1001);
        assert_eq!(crc64(b""), 0);
    }

    #[test]
    fn peers_come_back() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).unwrap().is_empty());
        let peers = some();
        write(dir.path(), &peers).unwrap();
        assert_eq!(read(dir.path()).unwrap(), peers);
        write(dir.path(), &peers[..1]).unwrap();
        assert_eq!(read(dir.path()).unwrap(), peers[..1]);
    }

    #[test]
    fn damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &some()).unwrap();
        let path = dir.path().join(NAME);
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(parse(&bad).is_err(), "byte {at}");
        }
        for bad in [&good[..7], &good[..good.len() - 1], &vec![b'x'; 2 << 20]] {
            fs::write(&path, bad).unwrap();
            assert!(matches!(read(dir.path()), Err(FileError::Connected { .. })));
        }
        let lines = b"{\"ID\":\"nobody\"}\n";
        assert!(parse(&[&crc64(lines).to_be_bytes()[..], lines].concat()).is_err());
        assert!(parse(&crc64(b"").to_be_bytes()).unwrap().is_empty());
    }
}
