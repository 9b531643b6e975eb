//! The patched copy of `multistream-select` is the one in use (vendor/multistream-select/README.md).

use std::process::Command;

use futures::{AsyncReadExt as _, AsyncWriteExt as _, future::join};
use multistream_select::{Version, dialer_select_proto, listener_select_proto};
use tokio::net::UnixStream;
use tokio_util::compat::TokioAsyncReadCompatExt as _;

#[tokio::test]
async fn names_without_a_slash_are_negotiated() {
    for version in [Version::V1, Version::V1Lazy] {
        let (dialer, listener) = UnixStream::pair().unwrap();
        let dial = async {
            let (name, mut stream) = dialer_select_proto(dialer.compat(), ["hs/1"], version).await.unwrap();
            stream.write_all(b"ping").await.unwrap();
            stream.flush().await.unwrap();
            let mut answer = [0; 4];
            stream.read_exact(&mut answer).await.unwrap();
            (name, answer)
        };
        let listen = async {
            let names = ["/meshsub/1.1.0", "as/1", "hs/1"];
            let (name, mut stream) = listener_select_proto(listener.compat(), names).await.unwrap();
            let mut question = [0; 4];
            stream.read_exact(&mut question).await.unwrap();
            assert_eq!(&question, b"ping");
            stream.write_all(b"pong").await.unwrap();
            stream.flush().await.unwrap();
            name
        };
        assert_eq!(join(dial, listen).await, (("hs/1", *b"pong"), "hs/1"));
    }
}

#[tokio::test]
async fn the_bytes_of_deployed_nodes_are_understood() {
    let (peer, listener) = UnixStream::pair().unwrap();
    let deployed = async {
        let mut peer = peer.compat();
        // most specific first: the second one is known
        peer.write_all(b"\x13/multistream/1.0.0\n\x05as/1\n").await.unwrap();
        let mut answer = [0; 23];
        peer.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"\x13/multistream/1.0.0\n\x03na");
        peer.read_exact(&mut [0]).await.unwrap();
        peer.write_all(b"\x05hs/1\n").await.unwrap();
        let mut answer = [0; 6];
        peer.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"\x05hs/1\n");
    };
    let ((), (name, _)) = join(deployed, async { listener_select_proto(listener.compat(), ["/x", "hs/1"]).await.unwrap() }).await;
    assert_eq!(name, "hs/1");
}

#[test]
fn the_copy_is_the_only_one_in_the_program() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo).args(["metadata", "--format-version", "1", "--locked"]).output().unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let named: Vec<_> = packages.iter().filter(|package| package["name"] == "multistream-select").collect();
    assert_eq!(named.len(), 1);
    assert!(named[0]["manifest_path"].as_str().unwrap().ends_with("vendor/multistream-select/Cargo.toml"));
}
