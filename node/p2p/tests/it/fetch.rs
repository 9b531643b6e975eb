//! Objects by request.

use std::collections::HashSet;

use p2p::{FetchError, Hint};
use proto::ids::Hash32;

use crate::node::{Node, config, folder};

#[tokio::test]
async fn who_joins_late_fetches_what_it_missed() {
    let (one, two) = (folder(), folder());
    let first = Node::start(config(one.path(), 1)).await;
    let atx = first.memory.put(Hint::Atx, b"an activation");
    let proof = first.memory.put(Hint::PoetProof, &vec![7; 150_000]);
    let malfeasance = first.memory.put(Hint::Malfeasance, b"a proof");
    let second = Node::joining(two.path(), &[&first]).await;
    second.has_peers(1).await;
    for (hint, hash, data) in [
        (Hint::Atx, atx, b"an activation".to_vec()),
        (Hint::PoetProof, proof, vec![7; 150_000]),
        (Hint::Malfeasance, malfeasance, b"a proof".to_vec()),
    ] {
        let answer = second.network.fetch(hint, &[hash], Some(first.network.id())).await;
        assert!(answer.failed.is_empty(), "{:?}", answer.failed);
        let object = &answer.objects[0];
        assert_eq!((object.hash, &object.data, object.from), (hash, &data, first.network.id()));
    }
    // an activation is no proof
    let answer = second.network.fetch(Hint::PoetProof, &[atx], None).await;
    assert_eq!(answer.failed, [(atx, FetchError::NotFound { asked: 1 })]);
}

#[tokio::test]
async fn many_objects_come_from_those_who_have_them() {
    let folders: Vec<_> = (0..4).map(|_| folder()).collect();
    let mut holders = Vec::new();
    let mut wanted = Vec::new();
    for (n, folder) in folders[..3].iter().enumerate() {
        let holder = Node::start(config(folder.path(), 1)).await;
        wanted.extend((0..50_u8).map(|m| holder.memory.put(Hint::Atx, &[n as u8, m])));
        holders.push(holder);
    }
    let joining = Node::joining(folders[3].path(), &holders.iter().collect::<Vec<_>>()).await;
    joining.has_peers(3).await;
    let nowhere = Hash32([9; 32]);
    wanted.push(nowhere);
    // twice is no more than once
    wanted.push(wanted[0]);
    let answer = joining.network.fetch(Hint::Atx, &wanted, Some(holders[1].network.id())).await;
    assert_eq!(answer.failed, [(nowhere, FetchError::NotFound { asked: 3 })]);
    let found: HashSet<_> = answer.objects.iter().map(|object| object.hash).collect();
    assert_eq!((found.len(), answer.objects.len()), (150, 150));
    for object in &answer.objects {
        assert_eq!(Hash32::of(&[&object.data]), object.hash);
        assert_eq!(object.from, holders[usize::from(object.data[0])].network.id());
    }
}

#[tokio::test]
async fn answers_that_are_cut_short_are_completed() {
    let (one, two) = (folder(), folder());
    let first = Node::start(config(one.path(), 1)).await;
    let wanted: Vec<_> = (0..5_u8).map(|n| first.memory.put(Hint::ActiveSet, &vec![n; 3 << 20])).collect();
    let second = Node::joining(two.path(), &[&first]).await;
    second.has_peers(1).await;
    let answer = second.network.fetch(Hint::ActiveSet, &wanted, None).await;
    assert_eq!((answer.objects.len(), answer.failed), (5, vec![]));
}

#[tokio::test]
async fn failures_say_what_happened() {
    let (one, two) = (folder(), folder());
    let first = Node::start(config(one.path(), 1)).await;
    let hash = Hash32([1; 32]);
    let alone = first.network.fetch(Hint::Atx, &[hash], None).await;
    assert_eq!(alone.failed, [(hash, FetchError::NoPeers)]);
    let second = Node::joining(two.path(), &[&first]).await;
    second.has_peers(1).await;
    let answer = second.network.fetch(Hint::Block, &[hash], None).await;
    let (_, error) = &answer.failed[0];
    assert_eq!(error.to_string(), "1 peers asked, the last answered: peer error: database closed");
    second.network.shutdown().await;
    let closed = second.network.fetch(Hint::Atx, &[hash], None).await;
    assert_eq!(closed.failed, [(hash, FetchError::Closed)]);
}
