//! What tests of PoET clients need: a node's memory, servers that say what a test wants, rounds with valid proofs.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use activation::{
    builder::Registration,
    clock::Clock,
    knowledge::LastProof,
    poet::{CertifierSettings, Home, Poets, Settings},
    rows::Certificate,
    timeline::Moment,
};
use axum::{Router, body::Bytes, extract::Request, http::StatusCode};
use kernels::posw::{Node, Statement};
use poet_service::{
    membership,
    prove::Tree,
    store::Record,
    tree::{Grower, Shape},
};
use proto::{
    ids::{AtxId, Hash32, NodeId, PoetProofRef},
    poet::{PROVEN_LEAVES, PoetProofMessage},
    post::Proof,
    preset::{Base64Key, PoetServer},
    units::SpaceUnits,
};
use serde_json::{Value, json};

use crate::network::NETWORK;

pub(crate) const PHASE_SHIFT: Duration = Duration::from_secs(40);

/// What a node keeps, in memory.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) certificates: Mutex<BTreeMap<(NodeId, [u8; 32]), Certificate>>,
    pub(crate) proofs: Mutex<Vec<PoetProofMessage>>,
    pub(crate) has_no_space: bool,
}

impl Home for Memory {
    fn certificate(&self, id: &NodeId, certifier: &[u8; 32]) -> Result<Option<Certificate>, String> {
        Ok(self.certificates.lock().unwrap().get(&(*id, *certifier)).cloned())
    }

    fn put_certificate(&self, id: &NodeId, certifier: &[u8; 32], certificate: &Certificate) -> Result<(), String> {
        self.certificates.lock().unwrap().insert((*id, *certifier), certificate.clone());
        Ok(())
    }

    fn remove_certificate(&self, id: &NodeId, certifier: &[u8; 32]) -> Result<(), String> {
        self.certificates.lock().unwrap().remove(&(*id, *certifier));
        Ok(())
    }

    fn space(&self, _: &NodeId) -> Result<Option<LastProof>, String> {
        let proof = Proof { nonce: 1, indices: vec![2; 10], pow: 3 };
        let space = LastProof { proof, commitment: AtxId([5; 32]), challenge: [0; 32], units: SpaceUnits(4) };
        Ok((!self.has_no_space).then_some(space))
    }

    fn keep(&self, message: &PoetProofMessage) -> Result<PoetProofRef, String> {
        self.proofs.lock().unwrap().push(message.clone());
        message.proof.reference().map_err(|e| e.to_string())
    }
}

pub(crate) fn settings() -> Settings {
    Settings {
        network: NETWORK,
        epoch: Duration::from_secs(1000),
        phase_shift: PHASE_SHIFT,
        cycle_gap: Duration::from_secs(20),
        request_timeout: Duration::from_secs(30),
        retry_delay: Duration::from_millis(4),
        retry_max: 3,
        info_ttl: Duration::from_secs(300),
        pow_params_ttl: Duration::from_secs(300),
        certifier: CertifierSettings {
            retry_delay: Duration::from_millis(2),
            max_retry_delay: Duration::from_millis(10),
            max_retries: 2,
        },
    }
}

/// Clients of these servers, with keys as configured.
pub(crate) fn clients(servers: &[(&str, Option<[u8; 32]>)], settings: Settings, home: Arc<Memory>) -> Arc<Poets> {
    let server =
        |(address, key): &(&str, Option<[u8; 32]>)| PoetServer { address: (*address).to_owned(), pubkey: key.map(Base64Key) };
    let servers: Vec<PoetServer> = servers.iter().map(server).collect();
    Arc::new(Poets::new(&servers, settings, home, Clock::system()).unwrap())
}

/// In so many seconds.
pub(crate) fn soon(seconds: u64) -> Moment {
    Moment::now() + Duration::from_secs(seconds)
}

pub(crate) fn registration(poet: &str, round: &str, challenge: Hash32) -> Registration {
    Registration { poet: poet.to_owned(), challenge, round: round.to_owned(), end: Moment::now().before(Duration::from_secs(60)) }
}

/// A finished round with these members.
pub(crate) fn finished(members: &[Node], leaves: u64, pubkey: [u8; 32]) -> Record {
    let statement = Statement::new(&membership::statement(members.to_vec()).unwrap());
    let (shape, mut grower, mut nodes) = (Shape::new(1), Grower::new(statement.clone()), Vec::new());
    for _ in 0..leaves {
        grower.grow(|level, node| {
            if level >= shape.lowest() {
                nodes.push(*node);
            }
        });
    }
    let tree = Tree { statement: &statement, shape, leaves: grower.leaves(), nodes: &nodes };
    let proof = tree.prove(PROVEN_LEAVES, 1, &false.into()).unwrap();
    Record { proof, members: members.to_vec(), pubkey }
}

/// What a server says.
pub(crate) enum Say {
    Json(u16, Value),
    Raw(u16, Vec<u8>),
    /// Nothing, and the connection stays.
    Nothing,
}

impl Say {
    pub(crate) fn status(status: u16) -> Self {
        Self::Json(status, json!({ "code": 2, "message": format!("because of {status}"), "details": [] }))
    }
}

/// Requests by path, with their bodies.
type Heard = Arc<Mutex<HashMap<String, Vec<Value>>>>;

/// A server that says what it is told to.
pub(crate) struct Liar {
    pub(crate) address: String,
    heard: Heard,
}

impl Liar {
    /// `says` gets the path, how many requests for it there were before, and the body.
    pub(crate) async fn start(says: impl Fn(&str, usize, &Value) -> Say + Send + Sync + 'static) -> Self {
        let heard: Heard = Arc::default();
        let (says, memory) = (Arc::new(says), heard.clone());
        let router = Router::new().fallback(async move |request: Request| {
            let (parts, body) = request.into_parts();
            let body: Bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            let (path, body) = (parts.uri.path().to_owned(), serde_json::from_slice(&body).unwrap_or_default());
            let before = {
                let mut heard = memory.lock().unwrap();
                let heard = heard.entry(path.clone()).or_default();
                heard.push(Value::clone(&body));
                heard.len() - 1
            };
            match says(&path, before, &body) {
                Say::Json(status, value) => (StatusCode::from_u16(status).unwrap(), value.to_string().into_bytes()),
                Say::Raw(status, bytes) => (StatusCode::from_u16(status).unwrap(), bytes),
                Say::Nothing => std::future::pending().await,
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, heard }
    }

    /// What was asked for, in order.
    pub(crate) fn heard(&self, path: &str) -> Vec<Value> {
        self.heard.lock().unwrap().get(path).cloned().unwrap_or_default()
    }
}
