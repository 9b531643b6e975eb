//! A network of real processes on the local preset: a PoET server, a node with an identity, its proving service, and a second node
//! without any. The first three are killed at random moments; the activations of the first two epochs are published all the
//! same, each in its epoch, and the second node accepts them.

use std::{
    fs::{self, File},
    io::Write as _,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use proto::genesis::UnixSeconds;
use serde_json::Value;

/// An account of the local network.
const COINBASE: &str = "stest1qqqqqqqmx9x30sz69yzljxxs6uhj76vfvs8mksczus6ux";

/// A port below those that the system gives away by itself.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 21_000 + (std::process::id() % 500 * 20) as u16 + offset;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The program of another crate of the workspace.
fn program(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_smesh-node")).with_file_name(name);
    if !path.exists() {
        // there when the whole workspace is tested
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let built = Command::new(cargo).args(["build", "--locked", "-p", name]).status().unwrap();
        assert!(built.success() && path.exists(), "{name} was not built");
    }
    path
}

/// A program that is killed and started again.
struct Process {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    child: Child,
}

impl Process {
    fn start(name: &'static str, program: PathBuf, arguments: &[&str], logs: &Path) -> Self {
        let arguments: Vec<String> = arguments.iter().map(|&word| word.to_owned()).collect();
        let log = logs.join(format!("{name}.log"));
        let child = spawn(&program, &arguments, &log);
        Self { name, program, arguments, log, child }
    }

    fn kill_and_start(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(&self.program, &self.arguments, &self.log);
    }

    /// It must not end by itself.
    #[track_caller]
    fn lives(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("{} has ended with {status}:\n{}", self.name, self.tail());
        }
    }

    fn tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(program: &Path, arguments: &[String], log: &Path) -> Child {
    let mut log = File::options().create(true).append(true).open(log).unwrap();
    writeln!(log, "---- {} {}", program.display(), arguments.join(" ")).unwrap();
    let errors = log.try_clone().unwrap();
    Command::new(program).args(arguments).stdin(Stdio::null()).stdout(log).stderr(errors).spawn().unwrap()
}

/// What a command of `smesh-node` prints as JSON; nothing if it fails.
fn asked(words: &[&str]) -> Option<Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_smesh-node")).args(words).arg("--json").output().unwrap();
    output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
}

#[track_caller]
fn done(program: &Path, words: &[&str]) -> String {
    let output = Command::new(program).args(words).stdin(Stdio::null()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{} {words:?}\n{out}{err}", program.display());
    out.into_owned()
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed()
}

/// xorshift64*, so that a run can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }
}

#[test]
fn activations_are_published_and_accepted_whatever_is_killed() {
    let epochs: u64 = if std::env::var_os("SOAK").is_some() { 10 } else { 2 };
    let kills = if std::env::var_os("SOAK").is_some() { 30 } else { 5 };
    let node = PathBuf::from(env!("CARGO_BIN_EXE_smesh-node"));
    let (poet, init, prover) = (program("poet-service"), program("post-init"), program("post-prover"));
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let ports: [u16; 9] = std::array::from_fn(|_| free_port());
    let local = |port: u16| format!("127.0.0.1:{port}");

    let genesis = UnixSeconds(now() + 30);
    let network = done(&node, &["preset", "show", "local", "--genesis-time", &genesis.to_string()]);
    let preset = at("network.toml");
    fs::write(&preset, network.replace("127.0.0.1:10010", &local(ports[0]))).unwrap();
    done(&node, &["identity", "new", "--data-dir", &at("one"), "--preset", &preset, "--name", "smesher"]);

    let (rest, grpc) = (local(ports[0]), local(ports[1]));
    let words = [
        "run",
        "--preset",
        &preset,
        "--poetdir",
        &at("poet"),
        "--restlisten",
        &rest,
        "--rpclisten",
        &grpc,
        "--config-rpclisten",
        "127.0.0.1:0",
    ];
    let poet = Process::start("poet", poet, &words, folder.path());
    let (private, post, peers) = (local(ports[2]), local(ports[3]), format!("/ip4/127.0.0.1/tcp/{}", ports[4]));
    let words = [
        "run",
        "--data-dir",
        &at("one"),
        "--preset",
        &preset,
        "--coinbase",
        COINBASE,
        "--listen",
        &peers,
        "--grpc-public-listener",
        "none",
        "--grpc-private-listener",
        &private,
        "--grpc-post-listener",
        &post,
    ];
    let first = Process::start("node", node.clone(), &words, folder.path());
    let started = Instant::now();
    let id = loop {
        if let Some(status) = asked(&["status", "--node", &private]) {
            break status["peer_id"].as_str().unwrap().to_owned();
        }
        assert!(started.elapsed() < Duration::from_secs(30), "the node does not answer:\n{}", first.tail());
        thread::sleep(Duration::from_millis(200));
    };
    let (other, bootnode, listen) = (local(ports[5]), format!("{peers}/p2p/{id}"), format!("/ip4/127.0.0.1/tcp/{}", ports[6]));
    let words = [
        "run",
        "--data-dir",
        &at("two"),
        "--preset",
        &preset,
        "--listen",
        &listen,
        "--bootnodes",
        &bootnode,
        "--grpc-public-listener",
        "none",
        "--grpc-private-listener",
        &other,
        "--grpc-post-listener",
        "none",
    ];
    let mut second = Process::start("second node", node.clone(), &words, folder.path());
    let key = at("one/identities/smesher.key");
    done(&init, &["init", "--data-dir", &at("post"), "--preset", &preset, "--num-units", "2", "--identity", &key]);
    let operator = local(ports[7]);
    let words = [
        "serve",
        "--data-dir",
        &at("post"),
        "--preset",
        &preset,
        "--node",
        &post,
        "--operator-address",
        &operator,
        "--randomx-mode",
        "light",
    ];
    let prover = Process::start("prover", prover, &words, folder.path());

    let seed = now().unsigned_abs();
    println!("seed {seed}");
    let mut random = Random(seed | 1);
    // from the first proof on, until the last activation can be published
    let span = 30 + 120 * epochs + 20;
    let mut moments: Vec<u64> = (0..kills).map(|_| random.below(span)).collect();
    moments.sort_unstable();
    let start = Instant::now();
    let (mut victims, mut moments) = ([poet, first, prover], moments.into_iter().peekable());
    let mut published: Vec<(u64, String)> = Vec::new();
    while (published.len() as u64) < epochs {
        let elapsed = start.elapsed().as_secs();
        assert!(elapsed < span + 150, "{published:?} after {elapsed} s\n{}\n{}", victims[1].tail(), victims[2].tail());
        if moments.next_if(|moment| *moment <= elapsed).is_some() {
            let victim = &mut victims[random.below(3) as usize];
            println!("{elapsed} s: {} is killed", victim.name);
            victim.kill_and_start();
        }
        for process in &mut victims {
            process.lives();
        }
        second.lives();
        let last = asked(&["status", "--node", &private]).map(|status| status["identities"][0]["last_activation"].clone());
        if let Some(atx) = last.as_ref().and_then(Value::as_str).filter(|atx| !atx.is_empty())
            && published.iter().all(|(_, known)| known != atx)
            // The second node is asked: it knows only what it has accepted over the network.
            && let Some(accepted) = asked(&["activation", atx, "--node", &other])
        {
            assert_eq!(accepted["malicious"], false);
            assert!(accepted["weight"].as_u64().unwrap() > 0, "{accepted}");
            published.push((accepted["publish_epoch"].as_u64().unwrap(), atx.to_owned()));
            println!("{elapsed} s: {accepted}");
        }
        thread::sleep(Duration::from_millis(500));
    }
    // one per epoch, each in its own
    let found: Vec<u64> = published.iter().map(|(epoch, _)| *epoch).collect();
    assert_eq!(found, (1..=epochs).collect::<Vec<_>>());
}
