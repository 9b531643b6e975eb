//! A server process and a client for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signer as _, SigningKey};
use kernels::posw::{Node, Statement};
use poet_service::{membership, proof};
use proto::poet::{Element, Leaves, MerkleProof, PoetProof};
use serde_json::{Value, json};

/// A port that nobody listens on, another one each time. It lies below those that the system gives to outgoing connections, of which
/// some tests have hundreds.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() as u16).wrapping_mul(61);
    let candidates = std::iter::repeat_with(|| 10_000 + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000);
    candidates.take(20_000).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

/// A server process; killed when dropped.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) rest: SocketAddr,
    pub(crate) grpc: u16,
    pub(crate) config_grpc: u16,
    pub(crate) metrics: u16,
    pub(crate) admin: u16,
    dir: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        kill(&mut self.child);
    }
}

pub(crate) fn kill(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// Starts the program with its log in `dir/log`, after what is there.
pub(crate) fn launch(dir: &Path, args: &[&str]) -> Child {
    let log = File::options().create(true).append(true).open(dir.join("log")).unwrap();
    Command::new(env!("CARGO_BIN_EXE_poet-service"))
        .arg("run")
        .args(["--poetdir", dir.to_str().unwrap()])
        .args(args)
        .env("RUST_LOG", "info,poet_service=debug")
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// Sends SIGTERM and waits; returns the exit code and how long it took.
pub(crate) fn terminate(child: &mut Child) -> (Option<i32>, Duration) {
    let started = Instant::now();
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let status = child.wait().unwrap();
    (status.code(), started.elapsed())
}

pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }
}

impl Server {
    pub(crate) fn start(dir: &Path, flags: &[&str]) -> Self {
        let ports = [free_port(), free_port(), free_port(), free_port(), free_port()];
        let at = |number: usize| format!("127.0.0.1:{}", ports[number]);
        let (rest, grpc, config_grpc, metrics, admin) = (at(0), at(1), at(2), ports[3].to_string(), at(4));
        let listeners = ["--restlisten", &rest, "--rpclisten", &grpc, "--config-rpclisten", &config_grpc];
        let own = ["--metrics-port", &metrics, "--admin-listen", &admin];
        let child = launch(dir, &[&listeners, &own[..], flags].concat());
        let rest = SocketAddr::from(([127, 0, 0, 1], ports[0]));
        let server =
            Self { child, rest, grpc: ports[1], config_grpc: ports[2], metrics: ports[3], admin: ports[4], dir: dir.into() };
        let deadline = Instant::now() + Duration::from_secs(20);
        while ports.iter().any(|port| TcpStream::connect(("127.0.0.1", *port)).is_err()) {
            assert!(Instant::now() < deadline, "the server does not come up");
            thread::sleep(Duration::from_millis(20));
        }
        server
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        request(self.rest, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"), b"").unwrap()
    }

    pub(crate) fn submit(&self, body: &[u8]) -> Reply {
        post(self.rest, "/v1/submit", body).unwrap()
    }

    pub(crate) fn terminate(mut self) -> (Option<i32>, Duration) {
        terminate(&mut self.child)
    }

    pub(crate) fn metrics(&self) -> String {
        String::from_utf8(page(self.metrics, "/metrics").body).unwrap()
    }

    pub(crate) fn order(&self, path: &str) -> Reply {
        post(SocketAddr::from(([127, 0, 0, 1], self.admin)), path, b"").unwrap()
    }

    pub(crate) fn log(&self) -> Log {
        Log::at_the_end_of(&self.dir)
    }

    /// The proof of a round, as soon as there is one.
    pub(crate) fn wait_for_proof(&self, round: &str) -> Value {
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            let reply = self.get(&format!("/v1/proofs/{round}"));
            if reply.status == 200 {
                return reply.json();
            }
            assert_eq!(reply.status, 404);
            assert!(Instant::now() < deadline, "round {round} never gets its proof");
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// A log while it is written.
#[derive(Clone)]
pub(crate) struct Log {
    path: PathBuf,
    read: u64,
}

impl Log {
    /// The log in a folder from its beginning; it may not be there yet.
    pub(crate) fn of(dir: &Path) -> Self {
        Self { path: dir.join("log"), read: 0 }
    }

    /// The log in a folder from where it ends now.
    pub(crate) fn at_the_end_of(dir: &Path) -> Self {
        let path = dir.join("log");
        Self { read: std::fs::metadata(&path).unwrap().len(), path }
    }

    /// Waits for a line with `text` that was not there before.
    pub(crate) fn wait_for(&mut self, text: &str) -> bool {
        use std::os::unix::fs::FileExt as _;
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.path.exists() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
        let file = File::open(&self.path).unwrap();
        while Instant::now() < deadline {
            let mut new = vec![0; usize::try_from(file.metadata().unwrap().len() - self.read).unwrap()];
            file.read_exact_at(&mut new, self.read).unwrap();
            let whole = new.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            self.read += whole as u64;
            if String::from_utf8_lossy(&new[..whole]).contains(text) {
                return true;
            }
            thread::sleep(Duration::from_millis(2));
        }
        false
    }
}

/// Registers new members all the time, wherever the server is.
pub(crate) struct Registrar {
    pub(crate) address: Arc<Mutex<SocketAddr>>,
    done: Arc<AtomicBool>,
    thread: thread::JoinHandle<BTreeMap<Node, String>>,
}

impl Registrar {
    pub(crate) fn start(address: SocketAddr) -> Self {
        let address = Arc::new(Mutex::new(address));
        let done = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (address, done) = (address.clone(), done.clone());
            move || {
                let mut members: BTreeMap<Node, String> = BTreeMap::new();
                let mut seed = 0;
                while !done.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(40));
                    let address = *address.lock().unwrap();
                    let head = "GET /v1/pow_params HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
                    let Ok(params) = request(address, head, b"") else { continue };
                    seed += 1;
                    let (body, challenge) = registration(seed, &params.json());
                    // only an answer makes a member; without one the registration may be stored or not
                    if let Ok(reply) = post(address, "/v1/submit", body.to_string().as_bytes())
                        && reply.status == 200
                    {
                        members.insert(challenge, reply.json()["roundId"].as_str().unwrap().to_owned());
                    }
                }
                members
            }
        });
        Self { address, done, thread }
    }

    /// Stops, and checks that each member is in the proof of its round and in no other.
    pub(crate) fn check(self, server: &Server) -> BTreeMap<Node, String> {
        self.done.store(true, Ordering::Relaxed);
        let members = self.thread.join().unwrap();
        assert!(members.len() > 30, "{} members", members.len());
        let rounds: BTreeSet<&String> = members.values().collect();
        assert!(rounds.len() >= 2, "{rounds:?}");
        let mut proven: BTreeMap<Node, String> = BTreeMap::new();
        for round in rounds {
            for member in check_proof(&server.wait_for_proof(round)) {
                assert_eq!(proven.insert(member, round.clone()), None, "a member of two rounds");
            }
        }
        for (member, round) in &members {
            assert_eq!(proven.get(member), Some(round), "a member is missing");
        }
        members
    }
}

/// A page of this machine.
pub(crate) fn page(port: u16, path: &str) -> Reply {
    let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    request(SocketAddr::from(([127, 0, 0, 1], port)), &head, b"").unwrap()
}

pub(crate) fn post(address: SocketAddr, path: &str, body: &[u8]) -> std::io::Result<Reply> {
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    request(address, &head, body)
}

pub(crate) fn request(address: SocketAddr, head: &str, body: &[u8]) -> std::io::Result<Reply> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(&[head.as_bytes(), body].concat())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let broken = || std::io::Error::from(std::io::ErrorKind::InvalidData);
    let split = bytes.windows(4).position(|w| w == b"\r\n\r\n").ok_or_else(broken)?;
    let head = String::from_utf8_lossy(&bytes[..split]).to_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(broken)?;
    Ok(Reply { status, head, body: bytes[split + 4..].to_vec() })
}

pub(crate) fn vectors(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

pub(crate) fn rfc3339(unix: u64) -> String {
    let (days, seconds) = (unix.cast_signed() / 86400, unix % 86400);
    let z = days + 719_468;
    let era = z / 146_097;
    let doe = z - era * 146_097;
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// A registration of a new identity, with the announced parameters and difficulty 0.
pub(crate) fn registration(seed: u64, params: &Value) -> (Value, Node) {
    let mut secret = [7; 32];
    secret[..8].copy_from_slice(&seed.to_le_bytes());
    let key = SigningKey::from_bytes(&secret);
    let mut challenge = [9; 32];
    challenge[..8].copy_from_slice(&seed.to_le_bytes());
    let prefix = [1; 21];
    let signature = key.sign(&[&prefix[..], &challenge].concat());
    let body = json!({
        "nonce": "0",
        "powParams": params["powParams"],
        "prefix": STANDARD.encode(prefix),
        "challenge": STANDARD.encode(challenge),
        "pubkey": STANDARD.encode(key.verifying_key().to_bytes()),
        "signature": STANDARD.encode(signature.to_bytes()),
    });
    (body, challenge)
}

pub(crate) fn quiet_schedule() -> Vec<String> {
    // nothing happens for an hour
    let genesis = rfc3339(unix_now() - 10);
    ["--genesis-time", &genesis, "--epoch-duration", "4h", "--phase-shift", "1h", "--cycle-gap", "30m"]
        .map(str::to_owned)
        .to_vec()
}

pub(crate) fn as_strs(flags: &[String]) -> Vec<&str> {
    flags.iter().map(String::as_str).collect()
}

/// The proof and the members of a proof answer.
pub(crate) fn parse_proof(answer: &Value) -> (PoetProof, Vec<Node>) {
    let bytes = |value: &Value| STANDARD.decode(value.as_str().unwrap()).unwrap();
    let elements =
        |value: &Value| value.as_array().unwrap().iter().map(|v| Element::try_from(&*bytes(v)).unwrap()).collect::<Vec<_>>();
    let members = answer["proof"]["members"].as_array().unwrap().iter().map(|m| bytes(m).try_into().unwrap()).collect();
    let merkle = &answer["proof"]["proof"];
    let proof = PoetProof {
        merkle: MerkleProof {
            root: Element::try_from(&*bytes(&merkle["root"])).unwrap(),
            proven_leaves: elements(&merkle["provenLeaves"]),
            proof_nodes: elements(&merkle["proofNodes"]),
        },
        leaf_count: Leaves(answer["proof"]["leaves"].as_str().unwrap().parse().unwrap()),
    };
    (proof, members)
}

/// A proof answer, checked in full; returns its members.
pub(crate) fn check_proof(answer: &Value) -> Vec<Node> {
    let (proof, members) = parse_proof(answer);
    let statement = membership::statement(members.clone()).unwrap();
    assert_eq!(proof::verify(&Statement::new(&statement), &proof), Ok(()));
    members
}
