//! What lies in the host's folder.

use std::{fs, sync::Arc};

use p2p::{FileError, Host, StartError};

use crate::node::{Memory, Node, config, folder};

#[tokio::test]
async fn a_damaged_key_keeps_the_host_from_starting() {
    let folder = folder();
    fs::write(folder.path().join("p2p.key"), [0xff; 300]).unwrap();
    let started = Host::start(config(folder.path(), 1), Arc::new(Memory::default())).await;
    let Err(StartError::File(error @ FileError::Key { .. })) = started else { panic!("{started:?}") };
    assert!(error.to_string().contains("p2p.key"), "{error}");
    assert_eq!(fs::read(folder.path().join("p2p.key")).unwrap(), [0xff; 300]);
}

#[tokio::test]
async fn a_damaged_list_of_peers_does_not() {
    let folder = folder();
    for content in [&b""[..], b"short", &vec![0xff; 100_000]] {
        fs::write(folder.path().join("connected.txt"), content).unwrap();
        let node = Node::start(config(folder.path(), 1)).await;
        assert!(node.network.peers().is_empty());
        node.network.shutdown().await;
    }
}

#[tokio::test]
async fn a_folder_that_is_none_is_told() {
    let folder = folder();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let started = Host::start(config(&file.join("p2p"), 1), Arc::new(Memory::default())).await;
    assert!(matches!(started, Err(StartError::File(FileError::Io { .. }))), "{started:?}");
}

#[tokio::test]
async fn an_address_that_is_taken_is_told() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = folder();
    let mut config = config(folder.path(), 1);
    config.listen = vec![format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().unwrap().port()).parse().unwrap()];
    let started = Host::start(config, Arc::new(Memory::default())).await;
    assert!(matches!(started, Err(StartError::Listen { .. })), "{started:?}");
}
