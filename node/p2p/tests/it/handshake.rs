//! Who connects to whom.

use std::time::Duration;

use p2p::{Config, Event};
use proto::layers::LayerId;
use tokio::time::sleep;

use crate::node::{Node, SOON, config, folder, wait_for};

fn failed(event: Event) -> Option<String> {
    match event {
        Event::Failed { reason, .. } => Some(reason),
        _ => None,
    }
}

#[tokio::test]
async fn networks_refuse_each_other_at_the_handshake() {
    let (one, two, three) = (folder(), folder(), folder());
    let first = Node::start(config(one.path(), 1)).await;
    let mut at_first = first.network.events();
    // another genesis, and the same one restored from a checkpoint
    let other_genesis = Config { bootnodes: vec![first.address()], ..config(two.path(), 2) };
    let other_layer = Config { bootnodes: vec![first.address()], effective_genesis: LayerId(8), ..config(three.path(), 1) };
    for other in [other_genesis, other_layer] {
        let second = Node::start(other).await;
        let mut at_second = second.network.events();
        let (inbound, outbound) = tokio::join!(wait_for(&mut at_first, failed), wait_for(&mut at_second, failed));
        assert!(!inbound.is_empty());
        assert!(outbound.contains("decrypt"), "{outbound}");
        // it tries again, and is refused again
        wait_for(&mut at_second, failed).await;
        assert!(first.network.peers().is_empty() && second.network.peers().is_empty());
        second.network.shutdown().await;
    }
}

#[tokio::test]
async fn a_restarted_host_keeps_its_name_and_finds_its_peers_again() {
    let (one, two) = (folder(), folder());
    let first = Node::start(config(one.path(), 1)).await;
    let second = Node::joining(two.path(), &[&first]).await;
    let id = second.network.id();
    first.has_peers(1).await;
    second.has_peers(1).await;
    assert!(first.has_peer(id));
    second.network.shutdown().await;
    first.has_peers(0).await;
    // without bootnodes this time
    let again = Node::start(config(two.path(), 1)).await;
    assert_eq!(again.network.id(), id);
    again.has_peers(1).await;
    assert!(again.has_peer(first.network.id()));
}

#[tokio::test]
async fn a_host_dials_again_after_its_peer_came_back() {
    let (one, two) = (folder(), folder());
    let first = Node::start(config(one.path(), 1)).await;
    let address = first.address();
    let second = Node::start(Config { direct: vec![address.clone()], ..config(two.path(), 1) }).await;
    second.has_peers(1).await;
    first.network.shutdown().await;
    second.has_peers(0).await;
    let mut listen = address;
    listen.pop();
    let first = Node::start(Config { listen: vec![listen], ..config(one.path(), 1) }).await;
    first.has_peers(1).await;
    assert!(first.has_peer(second.network.id()));
}

#[tokio::test]
async fn peers_learn_about_each_other() {
    let (one, two) = (folder(), folder());
    let first = Node::start(config(one.path(), 1)).await;
    let second = Node::joining(two.path(), &[&first]).await;
    second.has_peers(1).await;
    let seen = async {
        loop {
            let peer = second.network.peers().remove(0);
            if let Some(agent) = &peer.agent {
                assert_eq!((agent.as_str(), peer.outbound), ("test", true));
                break peer;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let peer = tokio::time::timeout(SOON, seen).await.unwrap();
    assert_eq!((peer.id, peer.listens), (first.network.id(), first.network.listening()));
}

#[tokio::test]
async fn the_number_of_peers_has_an_end() {
    let folders: Vec<_> = (0..5).map(|_| folder()).collect();
    let first = Node::start(Config { high_peers: 3, ..config(folders[0].path(), 1) }).await;
    let mut others = Vec::new();
    for folder in &folders[1..] {
        others.push(Node::joining(folder.path(), &[&first]).await);
    }
    first.has_peers(2).await;
    let mut events = first.network.events();
    let denied = |event| failed(event).filter(|reason| reason.contains("limit"));
    wait_for(&mut events, denied).await;
    assert_eq!(first.network.peers().len(), 2);
}
