//! PoET servers as a node uses them (activation.md section 4.1): registration, and the proof of a round.
//!
//! [`Poets`] are the servers of a network, shared by all identities of a process: what one identity learns of a server the others need
//! not ask again, and a proof is downloaded once. Every server may fail, lag or lie; none can make the node wait longer than the caller
//! does, hold more than [`LARGEST_PROOF`] bytes for it, or believe a proof that is not valid. How an identity shows that it may register
//! is in `authorization` (section 4.2).

mod authorization;
mod home;
mod http;
mod shared;
mod wire;

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use kernels::posw::{Node, Statement};
use poet_service::{
    certificate::CertificateError,
    membership,
    pow::Params,
    proof::{self, InvalidProof},
};
use proto::{
    ids::{GenesisId, Hash32, NodeId, PoetProofRef},
    keys::IdentityKey,
    poet::{Element, Leaves, MerkleProof, PoetProof, PoetProofMessage},
    preset::{Network, PoetServer},
    signing::Domain,
    span::Span,
};

use crate::{
    builder::{Registration, RoundProof},
    clock::Clock,
    knowledge::LastProof,
    rows::Certificate,
    timeline::Moment,
};
pub use home::Databases;
use http::{Http, LITTLE, Limit, Retries};
use shared::Shared;

/// The largest answer with a proof: a million members.
pub const LARGEST_PROOF: usize = 64 * 1024 * 1024;

/// How a network's PoET servers are used (activation.md section 2). No duration is rounded.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Prefix of all signatures.
    pub network: GenesisId,
    /// Length of an epoch.
    pub epoch: Duration,
    /// From the start of an epoch to the start of the round in it.
    pub phase_shift: Duration,
    /// From the end of a round to the start of the next one.
    pub cycle_gap: Duration,
    /// How long a request for a proof or for proof-of-work parameters may take with all its retries; zero for as long as the caller
    /// waits.
    pub request_timeout: Duration,
    /// Between two attempts.
    pub retry_delay: Duration,
    /// Attempts after the first.
    pub retry_max: u32,
    /// How long a server's description is kept.
    pub info_ttl: Duration,
    /// How long its proof-of-work parameters are kept.
    pub pow_params_ttl: Duration,
    /// How certifiers are asked.
    pub certifier: CertifierSettings,
}

/// How certifiers are asked.
#[derive(Debug, Clone, Copy)]
pub struct CertifierSettings {
    /// The first wait between two attempts; it doubles.
    pub retry_delay: Duration,
    /// The longest wait.
    pub max_retry_delay: Duration,
    /// Attempts after the first.
    pub max_retries: u32,
}

impl Settings {
    /// Those of a network.
    pub fn new(network: &Network, id: GenesisId) -> Self {
        let (poet, certifier) = (&network.poet, &network.certifier.client);
        Self {
            network: id,
            epoch: network.main.layer_duration.0.saturating_mul(network.main.layers_per_epoch),
            phase_shift: poet.phase_shift.0,
            cycle_gap: poet.cycle_gap.0,
            request_timeout: poet.poet_request_timeout.0,
            retry_delay: poet.retry_delay.0,
            retry_max: poet.retry_max,
            info_ttl: poet.info_cache_ttl.0,
            pow_params_ttl: poet.pow_params_cache_ttl.0,
            certifier: CertifierSettings {
                retry_delay: certifier.retry_delay.0,
                max_retry_delay: certifier.max_retry_delay.0,
                max_retries: certifier.max_retries,
            },
        }
    }

    fn retries(&self) -> Retries {
        Retries::Linear { most: self.retry_max, delay: self.retry_delay }
    }
}

/// What the node keeps for its PoET clients. All of it may wait for a disk; errors are in words.
pub trait Home: Send + Sync {
    /// The certificate of an identity by a certifier.
    fn certificate(&self, id: &NodeId, certifier: &[u8; 32]) -> Result<Option<Certificate>, String>;

    /// Keeps a certificate.
    fn put_certificate(&self, id: &NodeId, certifier: &[u8; 32], certificate: &Certificate) -> Result<(), String>;

    /// Forgets a certificate.
    fn remove_certificate(&self, id: &NodeId, certifier: &[u8; 32]) -> Result<(), String>;

    /// A proof of an identity's space, which convinces a certifier; none before the identity has one.
    fn space(&self, id: &NodeId) -> Result<Option<LastProof>, String>;

    /// Keeps a valid proof of elapsed time and says under which name activations refer to it.
    fn keep(&self, message: &PoetProofMessage) -> Result<PoetProofRef, String>;
}

/// What is registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Submission {
    /// The hash of the challenge.
    pub challenge: Hash32,
    /// The round begins, and registration ends.
    pub until: Moment,
    /// The server refuses if its round ends later than this.
    pub proof_until: Moment,
}

/// How an identity shows that it may register.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Authorization {
    /// By a certifier's word.
    Certificate(Certificate),
    /// By work done for these parameters.
    Work {
        /// The parameters.
        params: Params,
        /// The work.
        nonce: u64,
    },
}

/// The rounds of a PoET server begin at another time than those of the network, so that no proof of it would ever come in time. This
/// ends the program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "PoET server {poet} begins its rounds {} after the start of an epoch, this network {}: take it out of the configuration, or use the \
     preset it belongs to",
    Span(*.found),
    Span(*.expected)
)]
pub struct PhaseShift {
    /// The server.
    pub poet: String,
    /// What it says.
    pub found: Duration,
    /// What is configured.
    pub expected: Duration,
}

/// Why a PoET server or a certifier did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoetError {
    /// Nobody configured it.
    #[error("{0} is not one of the configured PoET servers")]
    NotConfigured(String),
    /// No connection, or no answer.
    #[error("not reached: {0}")]
    Unreachable(String),
    /// An answer that is an error.
    #[error("status {status}: {text}")]
    Status {
        /// The status of HTTP.
        status: u16,
        /// What the server says.
        text: String,
    },
    /// All attempts together took too long.
    #[error("no good answer within {}", Span(*.0))]
    Slow(Duration),
    /// The caller's time is over.
    #[error("no good answer until {0}")]
    Late(Moment),
    /// More than any honest server sends.
    #[error("an answer of more than {limit} bytes")]
    TooLarge {
        /// The most that is read.
        limit: usize,
    },
    /// An answer that says nothing.
    #[error("an answer that makes no sense: {0}")]
    Garbage(String),
    /// Not the server that was configured.
    #[error("its public key is {}, not {} as configured", hex::encode(.found), hex::encode(.configured))]
    Key {
        /// What it says.
        found: Vec<u8>,
        /// What is configured.
        configured: [u8; 32],
    },
    /// Its rounds do not fit the network.
    #[error(transparent)]
    PhaseShift(#[from] PhaseShift),
    /// Its round would end after the next registration.
    #[error("its round ends at {end}, which is too late: it should end by {latest}")]
    RoundEnd {
        /// What it says.
        end: Moment,
        /// What makes sense.
        latest: Moment,
    },
    /// The round has no members.
    #[error("a round without members")]
    NoMembers,
    /// The challenge is not a member of the round.
    #[error("the challenge is not a member of round {0}")]
    NotAMember(String),
    /// The proof is not valid.
    #[error("the proof is not valid: {0}")]
    Proof(#[from] InvalidProof),
    /// It demands more work than it is worth.
    #[error("it asks for a proof of work of difficulty {0}")]
    Difficulty(u32),
    /// The certifier's certificate is not valid.
    #[error("its certificate is not valid: {0}")]
    Certificate(#[from] CertificateError),
    /// There is no proof of space to show.
    #[error("there is no proof of space yet that a certifier could be shown")]
    NoSpace,
    /// The node's own database failed.
    #[error("{0}")]
    Home(String),
}

impl PoetError {
    /// Whether the same question may get a good answer a little later.
    fn passes(&self) -> bool {
        match self {
            // 501 says that there never will be one.
            Self::Status { status, .. } => *status == 429 || (*status >= 500 && *status != 501),
            Self::Unreachable(_) | Self::Slow(_) => true,
            _ => false,
        }
    }
}

/// Why the configured servers cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not the address of a server.
    #[error("PoET server {address}: {reason}")]
    Address {
        /// What is configured.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The same server twice.
    #[error("PoET server {0} is configured twice")]
    Twice(String),
}

/// A round whose proof is valid and kept.
#[derive(Debug)]
struct Round {
    id: String,
    reference: PoetProofRef,
    leaves: Leaves,
    members: Vec<Node>,
}

/// A configured server and what is known of it.
struct Server {
    address: String,
    http: Http,
    key: Option<[u8; 32]>,
    info: Shared<(), wire::Info>,
    params: Shared<(), Params>,
    round: Shared<String, Arc<Round>>,
}

/// A request of an identity to the certifier with this key.
type Asking = Shared<[u8; 32], Certificate>;

/// The PoET servers of a network.
pub struct Poets {
    settings: Settings,
    clock: Clock,
    home: Arc<dyn Home>,
    /// By address as configured, which is what registrations are kept under.
    servers: BTreeMap<String, Server>,
    /// Requests for certificates under way.
    certificates: Mutex<BTreeMap<NodeId, Arc<Asking>>>,
}

impl Poets {
    /// Checks the addresses; nobody is asked yet.
    pub fn new(servers: &[PoetServer], settings: Settings, home: Arc<dyn Home>, clock: Clock) -> Result<Self, ConfigError> {
        let mut found = BTreeMap::new();
        for PoetServer { address, pubkey } in servers {
            let http = Http::new(address).map_err(|reason| ConfigError::Address { address: address.clone(), reason })?;
            let server = Server {
                address: address.clone(),
                http,
                key: pubkey.as_ref().map(|key| key.0),
                info: Shared::default(),
                params: Shared::default(),
                round: Shared::default(),
            };
            if found.insert(address.clone(), server).is_some() {
                return Err(ConfigError::Twice(address.clone()));
            }
        }
        Ok(Self { settings, clock, home, servers: found, certificates: Mutex::default() })
    }

    /// Addresses as configured.
    pub fn addresses(&self) -> Vec<String> {
        self.servers.keys().cloned().collect()
    }

    /// Asks every server who it is. One with another rhythm is an error; one that cannot be reached is not, it may come back.
    pub async fn check(self: &Arc<Self>) -> Result<(), PhaseShift> {
        let mut asked = tokio::task::JoinSet::new();
        for address in self.addresses() {
            let poets = self.clone();
            asked.spawn(async move {
                let none = Retries::Linear { most: 0, delay: Duration::ZERO };
                let answer = poets.info(poets.server(&address)?, none).await;
                if let Err(error) = &answer {
                    tracing::warn!(poet = address, %error, "a PoET server is not of use now");
                }
                answer.map(drop)
            });
        }
        while let Some(answer) = asked.join_next().await {
            if let Ok(Err(PoetError::PhaseShift(error))) = answer {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Registers a challenge, for as long as there is time. Returns the round and its end.
    pub async fn register(&self, poet: &str, key: &IdentityKey, submission: &Submission) -> Result<(String, Moment), PoetError> {
        let server = self.server(poet)?;
        let endless = async {
            loop {
                match self.submit(server, key, submission).await {
                    Err(error) if error.passes() => {
                        tracing::warn!(poet, identity = %key.node_id(), %error, "could not be registered, tries again");
                        tokio::time::sleep(http::jitter(self.settings.retry_delay)).await;
                    }
                    answer => return answer,
                }
            }
        };
        self.before(submission.until, endless).await
    }

    /// The proof of a round in which a challenge was registered, and its place among the members. It is asked for when the round is
    /// over, a little later than that so that not all nodes ask at once, and until `until`.
    pub async fn fetch(&self, registration: &Registration, until: Moment) -> Result<RoundProof, PoetError> {
        let server = self.server(&registration.poet)?;
        let share = rand::random_range(0.0002..=0.0004);
        let proof = async {
            self.clock.sleep_until(registration.end + self.settings.cycle_gap.mul_f64(share)).await;
            let round = self.round(server, &registration.round).await?;
            let challenge = registration.challenge.0;
            blocking(move || round.prove(&challenge)).await
        };
        self.before(until, proof).await
    }

    /// Gets a certificate from a server's certifier, if it has one and there is none yet.
    pub async fn certify(&self, poet: &str, id: &NodeId) -> Result<(), PoetError> {
        let info = self.info(self.server(poet)?, self.settings.retries()).await?;
        match info.certifier {
            Some(certifier) => self.certificate(id, &certifier).await.map(drop),
            None => Ok(()),
        }
    }

    fn server(&self, poet: &str) -> Result<&Server, PoetError> {
        self.servers.get(poet).ok_or_else(|| PoetError::NotConfigured(poet.to_owned()))
    }

    /// Until a moment of the network's clock.
    async fn before<T>(&self, until: Moment, work: impl Future<Output = Result<T, PoetError>>) -> Result<T, PoetError> {
        tokio::select! {
            answer = work => answer,
            () = self.clock.sleep_until(until) => Err(PoetError::Late(until)),
        }
    }

    /// With all its retries for as long as a request may take.
    async fn in_time<T>(&self, work: impl Future<Output = Result<T, PoetError>>) -> Result<T, PoetError> {
        let limit = self.settings.request_timeout;
        if limit.is_zero() {
            return work.await;
        }
        tokio::time::timeout(limit, work).await.unwrap_or(Err(PoetError::Slow(limit)))
    }

    /// Who a server is. It is the configured one and keeps the rhythm of the network.
    async fn info(&self, server: &Server, retries: Retries) -> Result<wire::Info, PoetError> {
        let ask = async {
            let answer = server.http.ask(&["v1", "info"], None, LITTLE, retries).await?;
            let info: wire::Info = http::parse(&answer)?;
            server.is_itself(&info.service_pubkey.0)?;
            let wire::Span(found) = info.phase_shift;
            let expected = self.settings.phase_shift;
            if found == expected { Ok(info) } else { Err(PhaseShift { poet: server.address.clone(), found, expected }.into()) }
        };
        server.info.get((), self.settings.info_ttl, ask).await
    }

    /// One registration, with everything it needs.
    async fn submit(&self, server: &Server, key: &IdentityKey, submission: &Submission) -> Result<(String, Moment), PoetError> {
        let Submission { challenge, until, proof_until } = *submission;
        let (settings, id) = (&self.settings, key.node_id());
        let info = self.info(server, settings.retries()).await?;
        let signature = key.sign(&settings.network, Domain::Poet, challenge.as_bytes());
        let mut refused = false;
        let answer = loop {
            let authorization = self.authorize(server, &info, &id, &challenge).await?;
            let body = wire::submission(&settings.network, &id, challenge.as_bytes(), &signature, proof_until, &authorization);
            let endless = Retries::Endless { delay: settings.retry_delay };
            match server.http.ask(&["v1", "submit"], Some(&body), LITTLE, endless).await {
                Err(PoetError::Status { status: 401, text }) if !refused => {
                    tracing::warn!(poet = server.address, identity = %id, text, "refused the authorization, gets another one");
                    refused = true;
                    self.forget_certificate(&info, &id).await?;
                }
                answer => break answer?,
            }
        };
        let wire::Submitted { round_id, round_end: wire::Span(left) } = http::parse(&answer)?;
        if round_id.is_empty() || round_id.len() > 32 {
            return Err(PoetError::Garbage(format!("a round with a name of {} bytes", round_id.len())));
        }
        // A server whose round is said to end later than that could make the node miss the next registration by waiting for it.
        let end = self.clock.now() + left;
        let latest = (until + settings.epoch).before(settings.cycle_gap / 2);
        if end > latest { Err(PoetError::RoundEnd { end, latest }) } else { Ok((round_id, end)) }
    }

    /// A round of a server with its members; the last one is at hand.
    async fn round(&self, server: &Server, id: &str) -> Result<Arc<Round>, PoetError> {
        let ask = async {
            let limit = Limit { bytes: LARGEST_PROOF, within: None };
            let path = ["v1", "proofs", id];
            let answer = self.in_time(server.http.ask(&path, None, limit, self.settings.retries())).await?;
            let (home, key, id) = (self.home.clone(), server.key, id.to_owned());
            blocking(move || Round::new(id, &answer, key.as_ref(), &*home).map(Arc::new)).await
        };
        server.round.get(id.to_owned(), Duration::MAX, ask).await
    }
}

impl Server {
    fn is_itself(&self, found: &[u8]) -> Result<(), PoetError> {
        is_key(self.key.as_ref(), found)
    }
}

fn is_key(configured: Option<&[u8; 32]>, found: &[u8]) -> Result<(), PoetError> {
    match configured {
        Some(configured) if *configured != *found => Err(PoetError::Key { found: found.to_vec(), configured: *configured }),
        _ => Ok(()),
    }
}

/// Work that would keep other tasks from running.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, PoetError> + Send + 'static) -> Result<T, PoetError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(PoetError::Home(format!("a task failed: {e}"))))
}

impl Round {
    /// Verifies a proof against the members that come with it, and keeps it.
    fn new(id: String, answer: &[u8], key: Option<&[u8; 32]>, home: &dyn Home) -> Result<Self, PoetError> {
        let wire::ProofAnswer { proof, pubkey } = http::parse(answer)?;
        is_key(key, &pubkey.0)?;
        let service: [u8; 32] =
            pubkey.0.try_into().map_err(|key: Vec<u8>| PoetError::Garbage(format!("a public key of {} bytes", key.len())))?;
        let members: Vec<Node> = proof.members.into_iter().map(|member| member.0).collect();
        let statement = membership::statement(members.clone()).ok_or(PoetError::NoMembers)?;
        let wire::Opening { root, proven_leaves, proof_nodes } = proof.proof;
        let elements = |nodes: Vec<wire::Node>| nodes.into_iter().map(|node| node.0).collect();
        let leaves = Leaves(proof.leaves.0);
        let proof = PoetProof {
            merkle: MerkleProof { root: root.0, proven_leaves: elements(proven_leaves), proof_nodes: elements(proof_nodes) },
            leaf_count: leaves,
        };
        proof::verify(&Statement::new(&statement), &proof)?;
        let round_id = Element::try_from(id.as_bytes()).map_err(|e| PoetError::Garbage(e.to_string()))?;
        let message = PoetProofMessage { proof, service_id: service.into(), round_id, statement, signature: [0; 64] };
        let reference = home.keep(&message).map_err(PoetError::Home)?;
        Ok(Self { id, reference, leaves, members })
    }

    /// The first place of a challenge among the members, and the way from there to the statement.
    fn prove(&self, challenge: &Node) -> Result<RoundProof, PoetError> {
        let place = self.members.iter().position(|member| member == challenge);
        let membership = place.and_then(|place| membership::prove(&self.members, place));
        let membership = membership.ok_or_else(|| PoetError::NotAMember(self.id.clone()))?;
        Ok(RoundProof { reference: self.reference, membership, leaves: self.leaves })
    }
}
