//! Kills at the worst moments, and stops.

use std::{io::Read as _, thread, time::Duration};

use serde_json::Value;

use crate::support::*;

/// What the log says right before a bad moment, and how many milliseconds that lasts.
const MOMENTS: [(&str, u64); 6] = [
    // the first second of a round
    ("running a round", 1000),
    // a checkpoint
    ("syncing the tree's nodes", 3),
    // the end of a round: the proof is computed
    ("the round has ended", 300),
    // the proof is written
    ("made the proof of the round", 15),
    // the hand-over is done, the work still there
    ("stored the proof of a round", 5),
    // registration closes
    ("closing a round", 15),
];

/// Members register all the time while the server is killed at the worst moments: each is in exactly one proof.
#[test]
fn kills_lose_neither_rounds_nor_members() {
    let kills = if std::env::var_os("SOAK").is_some() { 100 } else { 6 };
    let dir = tempfile::tempdir().unwrap();
    let genesis = rfc3339(unix_now() + 1);
    // round n starts at genesis + 1 + 5n and runs for 3 seconds
    let flags = ["--genesis-time", &genesis, "--epoch-duration", "5s", "--phase-shift", "1s", "--cycle-gap", "2s"];
    let mut server = Server::start(dir.path(), &flags);
    let members = Registrar::start(server.rest);
    let mut hit = [0; MOMENTS.len()];
    for number in 0..kills {
        let (line, lasts) = MOMENTS[number % MOMENTS.len()];
        let mut log = server.log();
        assert!(log.wait_for(line), "kill {number}: \"{line}\" never comes");
        // spread over the moment
        thread::sleep(Duration::from_millis((number as u64 * 7919) % (lasts + 1)));
        kill(&mut server.child);
        hit[number % MOMENTS.len()] += 1;
        server = Server::start(dir.path(), &flags);
        *members.address.lock().unwrap() = server.rest;
    }
    println!("kills by moment: {hit:?}");
    thread::sleep(Duration::from_millis(500));
    let members = members.check(&server);

    // proofs are sent compressed to those who ask
    let round = members.values().next().unwrap();
    let head = format!("GET /v1/proofs/{round} HTTP/1.1\r\nhost: x\r\naccept-encoding: gzip\r\nconnection: close\r\n\r\n");
    let zipped = request(server.rest, &head, b"").unwrap();
    assert!(zipped.head.contains("content-encoding: gzip"));
    assert!(zipped.head.contains("cache-control: public"));
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&*zipped.body).read_to_end(&mut plain).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&plain).unwrap(), server.get(&format!("/v1/proofs/{round}")).json());

    // no work is left behind of rounds that are done
    let left = std::fs::read_dir(dir.path().join("data/rounds")).unwrap().count();
    assert!(left <= 2, "{left} folders of rounds");

    // a stop in the middle of a round
    let mut log = server.log();
    let params = server.get("/v1/pow_params").json();
    let reply = server.submit(registration(1 << 40, &params).0.to_string().as_bytes());
    let round = reply.json()["roundId"].as_str().unwrap().to_owned();
    assert!(log.wait_for("running a round"));
    thread::sleep(Duration::from_millis(700));
    let (code, took) = server.terminate();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(2), "{took:?}");
    // and one while its proof is made
    let server = Server::start(dir.path(), &flags);
    let mut log = server.log();
    assert!(log.wait_for("the round has ended"));
    let (code, took) = server.terminate();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(2), "{took:?}");
    let server = Server::start(dir.path(), &flags);
    assert_eq!(check_proof(&server.wait_for_proof(&round)).len(), 1);
}
