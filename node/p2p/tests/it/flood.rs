//! Peers that mean harm: what they send is bounded, they are disconnected, and honest traffic goes on.

use std::{
    fs,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use futures::AsyncReadExt as _;
use libp2p_identity::Keypair;
use p2p::{Config, Hint, Limits, Topic};
use proto::ids::Hash32;
use tokio::{net::TcpStream, time::timeout};

use crate::{
    attacker::{Attacker, connect, frame, send},
    node::{Node, SOON, config, disconnected, folder},
};

/// Short time-outs, so that tests need not wait.
fn impatient() -> Limits {
    Limits {
        soft_timeout: Duration::from_secs(1),
        hard_timeout: Duration::from_secs(5),
        handshake_timeout: Duration::from_secs(3),
        ..Limits::default()
    }
}

/// Two honest nodes; the first is the one that is attacked.
async fn honest(folders: &[tempfile::TempDir; 2], limits: Limits) -> [Node; 2] {
    let first = Node::start(Config { limits, ..config(folders[0].path(), 1) }).await;
    let second = Node::joining(folders[1].path(), &[&first]).await;
    first.has_peers(1).await;
    [first, second]
}

/// Messages and objects go both ways between honest nodes.
async fn goes_on([first, second]: &[Node; 2], round: &str) {
    let message = |from: &str| format!("a message {round} from {from}").into_bytes();
    first.network.publish(Topic::Atx, message("first")).await.unwrap();
    second.network.publish(Topic::Atx, message("second")).await.unwrap();
    second.memory.hears(&message("first")).await;
    first.memory.hears(&message("second")).await;
    let hash = first.memory.put(Hint::Atx, round.as_bytes());
    let answer = timeout(SOON, second.network.fetch(Hint::Atx, &[hash], None)).await.unwrap();
    assert!(answer.failed.is_empty(), "{round}: {:?}", answer.failed);
    assert!(first.has_peer(second.network.id()), "{round}");
}

/// Bytes of memory in use by this process.
fn memory() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).unwrap_or(0) << 10
}

fn soak() -> bool {
    std::env::var("SOAK").is_ok_and(|soak| soak == "1")
}

#[tokio::test]
async fn a_flood_of_garbage_messages_ends_with_the_peer_cut_off() {
    let folders = [folder(), folder()];
    let nodes = honest(&folders, Limits::default()).await;
    goes_on(&nodes, "before").await;
    let before = memory();
    let mut garbage = vec![0; 4096];
    let mut keys = Vec::new();
    let mut sent = 0_u64;
    let wanted = if soak() { 100_000 } else { 10_000 };
    // whoever is cut off comes back under another name
    while sent < wanted {
        let key = Keypair::generate_ed25519();
        let mut events = nodes[0].network.events();
        let attacker = connect(&key, &nodes[0].address()).await.unwrap();
        let mut stream = attacker.gossip().await.unwrap();
        while sent < wanted && !attacker.is_closed() {
            garbage[1..9].copy_from_slice(&sent.to_le_bytes());
            if send(&mut stream, &frame("ax1", &garbage, &[])).await.is_err() {
                break;
            }
            sent += 1;
        }
        attacker.is_cut_off().await;
        let reason = disconnected(&mut events, key.public().to_peer_id()).await;
        assert_eq!(reason, "it sent an invalid message on ax1");
        keys.push(key);
        if keys.len() % 20 == 0 {
            goes_on(&nodes, &format!("round {}", keys.len())).await;
        }
    }
    // under its old name it is no longer let in
    let mut events = nodes[0].network.events();
    let attacker = connect(&keys[0], &nodes[0].address()).await.unwrap();
    attacker.is_cut_off().await;
    let reason = disconnected(&mut events, keys[0].public().to_peer_id()).await;
    assert_eq!(reason, "it sent too many invalid messages");
    let grown = memory().saturating_sub(before);
    let most = nodes[0].memory.most_judging.load(Ordering::SeqCst);
    println!("{sent} messages from {} peers, at most {most} judged at once, {} KiB grown", keys.len(), grown >> 10);
    // a quarter of the places for each attacker, and the honest one
    assert!(most <= Limits::default().queued_messages, "{most}");
    assert!(grown < 200 << 20, "{grown}");
}

#[tokio::test]
async fn a_flood_that_cannot_be_judged_in_time_is_bounded_and_ends() {
    let folders = [folder(), folder()];
    let limits = Limits { queued_messages: 64, ..Limits::default() };
    let nodes = honest(&folders, limits).await;
    goes_on(&nodes, "before").await;
    *nodes[0].memory.pause.lock().unwrap() = Duration::from_secs(3);
    let key = Keypair::generate_ed25519();
    let mut events = nodes[0].network.events();
    let attacker = connect(&key, &nodes[0].address()).await.unwrap();
    let mut stream = attacker.gossip().await.unwrap();
    for n in 0..10_000_u64 {
        let data = [&b"accept"[..], &n.to_le_bytes(), &[0; 1000]].concat();
        if send(&mut stream, &frame("ax1", &data, &[])).await.is_err() {
            break;
        }
    }
    attacker.is_cut_off().await;
    let reason = disconnected(&mut events, key.public().to_peer_id()).await;
    assert_eq!(reason, "it floods this host with messages");
    assert!(nodes[0].memory.most_judging.load(Ordering::SeqCst) <= 18);
    goes_on(&nodes, "after").await;
}

#[tokio::test]
async fn messages_of_other_topics_and_with_authors_are_dropped() {
    let folders = [folder(), folder()];
    let nodes = honest(&folders, Limits::default()).await;
    let attacker = connect(&Keypair::generate_ed25519(), &nodes[0].address()).await.unwrap();
    let mut stream = attacker.gossip().await.unwrap();
    let before = memory();
    let large = vec![b'a'; 1 << 20];
    for n in 0..40_u8 {
        send(&mut stream, &frame(&format!("topic {n}"), &large, &[])).await.unwrap();
    }
    for (n, more) in [(1, &b"author"[..]), (3, &[0; 8]), (5, &[1; 64])] {
        send(&mut stream, &frame("ax1", &[b'a', n], &[(n, more)])).await.unwrap();
    }
    send(&mut stream, &frame("ax1", b"at last", &[])).await.unwrap();
    nodes[0].memory.hears(b"at last").await;
    let heard: Vec<_> = nodes[0].memory.heard().into_iter().map(|(_, message, _)| message).collect();
    assert_eq!(heard, [b"at last"]);
    assert!(!attacker.is_closed(), "deployed nodes do not disconnect for this either");
    let grown = memory().saturating_sub(before);
    assert!(grown < 200 << 20, "{grown}");
}

#[tokio::test]
async fn frames_that_are_too_large_end_with_the_peer_cut_off() {
    let folders = [folder(), folder()];
    let nodes = honest(&folders, Limits::default()).await;
    let attacker = connect(&Keypair::generate_ed25519(), &nodes[0].address()).await.unwrap();
    let before = memory();
    let mut streams = 0;
    // four gigabytes announced, some megabytes sent, over and over
    let start = Instant::now();
    while !attacker.is_closed() && start.elapsed() < SOON {
        let Ok(mut stream) = attacker.gossip().await else { break };
        streams += 1;
        let _ = send(&mut stream, &[0xff, 0xff, 0xff, 0xff, 0x0f]).await;
        let _ = timeout(Duration::from_millis(500), async {
            for _ in 0..6 {
                send(&mut stream, &vec![0; 1 << 20]).await?;
            }
            stream.read(&mut [0]).await
        })
        .await;
    }
    attacker.is_cut_off().await;
    println!("cut off after {streams} streams");
    assert!(streams <= 5, "{streams}");
    assert!(memory().saturating_sub(before) < 200 << 20);
    goes_on(&nodes, "after").await;
}

#[tokio::test]
async fn a_request_that_is_too_long_cuts_the_peer_off() {
    let folders = [folder(), folder()];
    let nodes = honest(&folders, Limits::default()).await;
    let key = Keypair::generate_ed25519();
    let mut events = nodes[0].network.events();
    let attacker = connect(&key, &nodes[0].address()).await.unwrap();
    let mut stream = attacker.stream("hs/1").await.unwrap();
    // 10241 bytes
    send(&mut stream, &[0x81, 0x50]).await.unwrap();
    attacker.is_cut_off().await;
    let reason = disconnected(&mut events, key.public().to_peer_id()).await;
    assert_eq!(reason, "a request of 10241 bytes");
    goes_on(&nodes, "after").await;
}

/// Opens many streams for requests and keeps them.
async fn hold(attacker: &Attacker, count: usize, start: &[u8]) -> Vec<crate::attacker::RawStream> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let Ok(mut stream) = attacker.stream("hs/1").await else { break };
        if send(&mut stream, start).await.is_err() {
            break;
        }
        streams.push(stream);
    }
    streams
}

#[tokio::test]
async fn requests_that_stand_still_cut_the_peer_off() {
    let folders = [folder(), folder()];
    let nodes = honest(&folders, impatient()).await;
    // nothing at all, or the beginning of a request
    for (round, start) in [("silent", &[][..]), ("half", &[100, 1, 2, 3])] {
        let key = Keypair::generate_ed25519();
        let mut events = nodes[0].network.events();
        let attacker = connect(&key, &nodes[0].address()).await.unwrap();
        let held = hold(&attacker, 100, start).await;
        assert!(held.len() > 8, "{round}");
        goes_on(&nodes, round).await;
        attacker.is_cut_off().await;
        let reason = disconnected(&mut events, key.public().to_peer_id()).await;
        assert_eq!(reason, "its requests stand still", "{round}");
    }
}

#[tokio::test]
async fn answers_nobody_reads_cut_the_peer_off() {
    let folders = [folder(), folder()];
    let nodes = honest(&folders, impatient()).await;
    let hash = nodes[0].memory.put(Hint::PoetProof, &vec![7; 4 << 20]);
    let list = [&[4, 0x18][..], b"POETDB", &hash.0].concat();
    let request = [&Hash32::of(&[&list]).0[..], &list].concat();
    let attacker = connect(&Keypair::generate_ed25519(), &nodes[0].address()).await.unwrap();
    let held = hold(&attacker, 50, &[&[request.len() as u8][..], &request].concat()).await;
    goes_on(&nodes, "slow").await;
    attacker.is_cut_off().await;
    drop(held);
}

#[tokio::test]
async fn a_few_slow_requests_are_forgiven() {
    let folders = [folder(), folder()];
    let nodes = honest(&folders, impatient()).await;
    let attacker = connect(&Keypair::generate_ed25519(), &nodes[0].address()).await.unwrap();
    let held = hold(&attacker, 4, &[5]).await;
    assert!(!attacker.is_cut_off_within(Duration::from_secs(3)).await);
    drop(held);
}

#[tokio::test]
async fn connections_that_never_shake_hands_keep_nobody_out() {
    let folders = [folder(), folder()];
    let limits = Limits { handshakes: 40, ..impatient() };
    let nodes = honest(&folders, limits).await;
    let port = nodes[0].address().iter().find_map(|part| match part {
        libp2p_core::multiaddr::Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(("127.0.0.1", port.unwrap())).await.unwrap());
    }
    goes_on(&nodes, "with those who are there").await;
    // whoever comes now is let in when the first of them have timed out
    let folder = folder();
    let third = Node::joining(folder.path(), &[&nodes[0]]).await;
    third.has_peers(1).await;
    let mut ended = 0;
    for stream in &silent {
        ended += usize::from(timeout(SOON, stream.readable()).await.is_ok());
    }
    assert_eq!(ended, silent.len());
}
