//! Messages that travel.

use std::time::Duration;

use p2p::{PublishError, Topic, Verdict};
use tokio::time::sleep;

use crate::node::{Node, config, disconnected, folder};

/// Three nodes in a row: the outer ones know each other only through the one in the middle.
async fn row(folders: &[tempfile::TempDir; 3]) -> [Node; 3] {
    let middle = Node::start(config(folders[1].path(), 1)).await;
    let left = Node::joining(folders[0].path(), &[&middle]).await;
    let right = Node::joining(folders[2].path(), &[&middle]).await;
    middle.has_peers(2).await;
    [left, middle, right]
}

#[tokio::test]
async fn a_message_travels_through_validation() {
    let folders = [folder(), folder(), folder()];
    let [left, middle, right] = row(&folders).await;
    left.network.publish(Topic::Atx, b"accept me".to_vec()).await.unwrap();
    right.memory.hears(b"accept me").await;
    // everyone judges once; the own node first, under its own name; then neighbours, each under the name of the one before
    assert_eq!(left.memory.heard(), [(Topic::Atx, b"accept me".to_vec(), left.network.id())]);
    assert_eq!(middle.memory.heard(), [(Topic::Atx, b"accept me".to_vec(), left.network.id())]);
    assert_eq!(right.memory.heard(), [(Topic::Atx, b"accept me".to_vec(), middle.network.id())]);
    // topics do not mix, and the same bytes on another topic are another message
    right.network.publish(Topic::Malfeasance, b"accept me".to_vec()).await.unwrap();
    left.memory.hears(b"accept me").await;
    // again: a success that sends nothing
    left.network.publish(Topic::Atx, b"accept me".to_vec()).await.unwrap();
    sleep(Duration::from_millis(500)).await;
    let atxs = right.memory.heard().iter().filter(|(topic, ..)| *topic == Topic::Atx).count();
    assert_eq!(atxs, 1);
}

#[tokio::test]
async fn what_a_node_does_not_accept_it_neither_publishes_nor_passes_on() {
    let folders = [folder(), folder(), folder()];
    let [left, middle, right] = row(&folders).await;
    let refused = left.network.publish(Topic::Atx, b"ignore me".to_vec()).await;
    assert_eq!(refused, Err(PublishError::Refused(Verdict::Ignore)));
    let refused = left.network.publish(Topic::Atx, b"reject me".to_vec()).await;
    assert_eq!(refused, Err(PublishError::Refused(Verdict::Reject)));
    let large = left.network.publish(Topic::Atx, vec![b'a'; (2 << 20) + 1]).await;
    assert!(matches!(large, Err(PublishError::TooLarge { .. })));
    // the largest message there is
    let largest = vec![b'a'; 2 << 20];
    left.network.publish(Topic::Malfeasance, largest.clone()).await.unwrap();
    right.memory.hears(&largest).await;
    assert!(middle.memory.heard().iter().all(|(topic, ..)| *topic == Topic::Malfeasance));
}

#[tokio::test]
async fn a_late_verdict_still_passes_the_message_on() {
    let folders = [folder(), folder(), folder()];
    let [left, middle, right] = row(&folders).await;
    // longer than the ten heartbeats of the library's own settings
    *middle.memory.pause.lock().unwrap() = Duration::from_secs(12);
    left.network.publish(Topic::Atx, b"a hard one".to_vec()).await.unwrap();
    right.memory.hears(b"a hard one").await;
}

#[tokio::test]
async fn a_message_waits_for_the_first_peer() {
    let (one, two) = (folder(), folder());
    let first = Node::start(config(one.path(), 1)).await;
    first.network.publish(Topic::Atx, b"alone".to_vec()).await.unwrap();
    let second = Node::joining(two.path(), &[&first]).await;
    second.memory.hears(b"alone").await;
}

#[tokio::test]
async fn a_node_that_is_too_busy_with_a_peer_still_hears_the_other() {
    let folders = [folder(), folder(), folder()];
    let mut settings = config(folders[1].path(), 1);
    settings.limits.queued_messages = 16;
    let middle = Node::start(settings).await;
    let left = Node::joining(folders[0].path(), &[&middle]).await;
    let right = Node::joining(folders[2].path(), &[&middle]).await;
    middle.has_peers(2).await;
    *middle.memory.pause.lock().unwrap() = Duration::from_secs(2);
    for n in 0..12_u8 {
        left.network.publish(Topic::Atx, vec![b'a', n]).await.unwrap();
    }
    sleep(Duration::from_millis(500)).await;
    right.network.publish(Topic::Atx, b"another".to_vec()).await.unwrap();
    middle.memory.hears(b"another").await;
    let from_left = middle.memory.heard().iter().filter(|(.., from)| *from == left.network.id()).count();
    assert_eq!(from_left, 4, "a quarter of the places");
}

#[tokio::test]
async fn disconnecting_tells_the_reason() {
    let (one, two) = (folder(), folder());
    let first = Node::start(config(one.path(), 1)).await;
    let second = Node::joining(two.path(), &[&first]).await;
    first.has_peers(1).await;
    let mut events = first.network.events();
    first.network.disconnect(second.network.id(), "a wrong object").await;
    assert_eq!(disconnected(&mut events, second.network.id()).await, "a wrong object");
}
