//! The two parts of a server in two processes, which meet over TLS.

use std::{
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use poet_service::{
    link::{Credentials, Remote},
    runner::Rounds as _,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};

use crate::support::*;

/// Writes an authority and one certificate of it for each name.
fn certificates(dir: &Path, names: &[&str]) -> Vec<Credentials> {
    std::fs::create_dir_all(dir).unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let write = |name: &str, text: String| -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let authority_file = write("ca.pem", authority.pem());
    let certify = |name: &&str| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &authority).unwrap();
        Credentials {
            authority: authority_file.clone(),
            certificate: write(&format!("{name}.pem"), certificate.pem()),
            key: write(&format!("{name}.key"), key.serialize_pem()),
        }
    };
    names.iter().map(certify).collect()
}

fn link_flags(credentials: &Credentials) -> Vec<String> {
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    vec![
        "--link-ca".into(),
        path(&credentials.authority),
        "--link-cert".into(),
        path(&credentials.certificate),
        "--link-key".into(),
        path(&credentials.key),
    ]
}

/// Waits until there is something: rounds come every six seconds.
fn patiently<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "it never happens that {what}");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn either_side_may_be_away_for_a_while() {
    let dir = tempfile::tempdir().unwrap();
    let ours = certificates(&dir.path().join("ours"), &["registration", "worker"]);
    let port = free_port();
    let (listen, address) = (format!("127.0.0.1:{port}"), format!("https://localhost:{port}"));
    let genesis = rfc3339(unix_now() + 1);
    let times = ["--genesis-time", &genesis, "--epoch-duration", "6s", "--phase-shift", "1s", "--cycle-gap", "2s"];
    let mut registration = link_flags(&ours[0]);
    registration.extend(["--role", "registration", "--worker-listen", &listen].map(str::to_owned));
    registration.extend(times.map(str::to_owned));
    let mut worker = link_flags(&ours[1]);
    worker.extend(["--role", "worker", "--registration-address", &address].map(str::to_owned));
    let (registration, worker) = (as_strs(&registration), as_strs(&worker));

    let home = dir.path().join("registration");
    let workshop = dir.path().join("worker");
    std::fs::create_dir_all(&home).unwrap();
    std::fs::create_dir_all(&workshop).unwrap();
    let mut log = Log::of(&workshop);
    let mut server = Server::start(&home, &registration);
    let mut hasher = launch(&workshop, &worker);
    let members = Registrar::start(server.rest);

    // the worker is lost in the middle of a round
    assert!(log.wait_for("running a round"));
    thread::sleep(Duration::from_millis(1500));
    kill(&mut hasher);
    thread::sleep(Duration::from_secs(1));
    let mut log = Log::at_the_end_of(&workshop);
    hasher = launch(&workshop, &worker);
    assert!(log.wait_for("the round has its proof"));

    // the registration side is lost while the worker hashes, which goes on and delivers later
    assert!(log.wait_for("running a round"));
    kill(&mut server.child);
    assert!(log.wait_for("failed to hand a proof over"));
    // and the worker as well, which begins again without anybody to ask
    kill(&mut hasher);
    let mut log = Log::at_the_end_of(&workshop);
    hasher = launch(&workshop, &worker);
    assert!(log.wait_for("nobody says which round to run"));
    assert!(log.wait_for("made the proof of the round"));
    server = Server::start(&home, &registration);
    *members.address.lock().unwrap() = server.rest;
    assert!(log.wait_for("the round has its proof"));

    // the registration side knows how far the worker is
    patiently("the registration side learns how far the worker is", || {
        let page = server.metrics();
        let leaves = page.lines().find(|line| line.starts_with("poet_round_leaves_total{"))?;
        leaves.rsplit(' ').next()?.parse::<u64>().ok().filter(|leaves| *leaves > 1000)
    });

    // nobody else may be a worker: not without a certificate, not with one of another authority
    let theirs = certificates(&dir.path().join("theirs"), &["worker"]).remove(0);
    let mixed = Credentials { authority: ours[1].authority.clone(), ..theirs.clone() };
    for credentials in [&theirs, &mixed] {
        let stranger = Remote::new(&address, credentials).unwrap();
        assert!(stranger.next(&[], None).is_err());
    }
    let friend = Remote::new(&address, &ours[1]).unwrap();
    assert!(friend.next(&[], None).is_ok());
    // and a worker cannot bring in just anything
    let next = patiently("a round runs", || friend.next(&[], None).unwrap().run);
    let refused = friend.deliver(next.round, &proto::poet::PoetProof::default()).unwrap_err();
    assert!(refused.to_string().contains("does not take the proof"), "{refused}");

    members.check(&server);
    let (code, took) = terminate(&mut hasher);
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(server.terminate().0, Some(0));
}
