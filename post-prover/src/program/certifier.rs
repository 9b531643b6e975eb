//! The certifier (`docs/spec/post.md` section 17): signs that an identity has shown a valid proof.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, FromRequest as _, Request as HttpRequest, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::{Args, Subcommand};
use ed25519_dalek::{Signer as _, SigningKey};
use kernels::pow::{BuildOptions, Mode as PowMode, RandomX};
use proto::{
    ids::{AtxId, Challenge, NodeId},
    poet::{Certificate, Element},
    post::{Params, Preset, Proof, ScryptN},
    scale::{self, EncodeError},
    units::SpaceUnits,
};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use tokio::{net::TcpListener, sync::Semaphore};
use zeroize::Zeroizing;

use super::{Failure, all_cores, cli::parse_difficulty, log_to_stderr};
use crate::verify::{Claim, Invalid, Mode, Request, Verifier, VerifyError};

/// Arguments of `certifier`.
#[derive(Debug, Args)]
pub struct CertifierArgs {
    /// Configuration: YAML, TOML or JSON, told by its extension
    #[arg(short, long, env = "CERTIFIER_CONFIG_PATH", default_value = "config.yml", value_name = "FILE")]
    pub config: PathBuf,
    /// Something else than serving
    #[command(subcommand)]
    pub command: Option<CertifierCommand>,
}

/// What the certifier does instead of serving.
#[derive(Debug, Subcommand)]
pub enum CertifierCommand {
    /// Print a new pair of keys
    GenerateKeys,
}

/// The configuration file; every top-level key may be overridden by `CERTIFIER_<KEY>` in the environment.
#[derive(Debug, Deserialize)]
struct ConfigFile {
    listen: SocketAddr,
    signing_key: String,
    post_cfg: PostConfig,
    init_cfg: InitConfig,
    limits: Limits,
    #[serde(default)]
    randomx_mode: RandomXMode,
    #[serde(default, deserialize_with = "duration")]
    certificate_expiration: Option<Duration>,
    metrics: Option<SocketAddr>,
}

#[derive(Debug, Deserialize)]
struct PostConfig {
    k1: u32,
    k2: u32,
    pow_difficulty: String,
}

#[derive(Debug, Deserialize)]
struct InitConfig {
    min_num_units: u32,
    max_num_units: u32,
    labels_per_unit: u64,
    scrypt: ScryptConfig,
}

#[derive(Debug, Deserialize)]
struct ScryptConfig {
    n: u64,
    r: u64,
    p: u64,
}

#[derive(Debug, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the names of the file")]
struct Limits {
    max_concurrent_requests: Option<usize>,
    max_pending_requests: usize,
    #[serde(default = "default_body_size")]
    max_body_size: usize,
}

fn default_body_size() -> usize {
    1024
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
enum RandomXMode {
    Fast,
    #[default]
    Light,
}

/// `2w`, `1d 12h`, `90s`: a sum of numbers with a unit.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let mut total = 0_u64;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err("empty".to_owned());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or("the unit is missing")?;
        let number: u64 = rest[..digits].parse().map_err(|e| format!("not a number: {e}"))?;
        let after = rest[digits..].trim_start();
        let unit_len = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let seconds = match &after[..unit_len] {
            "s" | "sec" | "secs" | "second" | "seconds" => 1,
            "m" | "min" | "mins" | "minute" | "minutes" => 60,
            "h" | "hr" | "hrs" | "hour" | "hours" => 3600,
            "d" | "day" | "days" => 86400,
            "w" | "week" | "weeks" => 7 * 86400,
            other => return Err(format!("unknown unit {other:?}: use s, m, h, d or w")),
        };
        total = number.checked_mul(seconds).and_then(|s| total.checked_add(s)).ok_or("too long")?;
        rest = after[unit_len..].trim_start();
    }
    Ok(Duration::from_secs(total))
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| parse_duration(&text)).transpose().map_err(D::Error::custom)
}

fn load(path: &std::path::Path) -> Result<ConfigFile, Failure> {
    let usage = |what: String| Failure::Usage(format!("{}: {what}", path.display()));
    config::Config::builder()
        .add_source(config::File::from(path))
        .add_source(config::Environment::with_prefix("CERTIFIER").prefix_separator("_"))
        .build()
        .and_then(config::Config::try_deserialize)
        .map_err(|e| usage(e.to_string()))
}

/// What a certifier certifies by.
pub struct Certifier {
    key: SigningKey,
    params: Params,
    expiration: Option<Duration>,
    randomx: RandomX,
    /// Requests that are verified at the same time.
    slots: Semaphore,
    /// Requests that are verified or wait.
    places: Semaphore,
    certified: AtomicU64,
    refused: AtomicU64,
    overloaded: AtomicU64,
}

impl std::fmt::Debug for Certifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certifier").field("params", &self.params).finish_non_exhaustive()
    }
}

#[derive(Debug, Deserialize)]
struct CertifyRequest {
    proof: Proof,
    metadata: ProofMetadata,
}

#[derive(Debug, Deserialize)]
struct ProofMetadata {
    #[serde(deserialize_with = "bytes32")]
    node_id: [u8; 32],
    #[serde(deserialize_with = "bytes32")]
    commitment_atx_id: [u8; 32],
    #[serde(deserialize_with = "bytes32")]
    challenge: [u8; 32],
    num_units: u32,
}

fn bytes32<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
    let bytes = STANDARD.decode(text.as_bytes()).map_err(D::Error::custom)?;
    bytes.try_into().map_err(|bytes: Vec<u8>| D::Error::custom(format!("{} bytes instead of 32", bytes.len())))
}

#[derive(Debug, Serialize)]
struct CertifyResponse {
    certificate: String,
    signature: String,
    pub_key: String,
}

/// What the certifier signs (post.md section 17).
fn encode_certificate(node_id: &NodeId, expiration: Option<u64>) -> Result<Vec<u8>, EncodeError> {
    scale::encode(&Certificate { pubkey: Element::from(node_id.0), expiration })
}

/// How the deployed certifier words a refusal.
fn refusal(invalid: &Invalid) -> String {
    let text = match invalid {
        Invalid::NumUnitsTooSmall { min, got } => {
            format!("InvalidMetadata(NumUnitsTooSmall {{ min: {min}, got: {got} }})")
        }
        Invalid::NumUnitsTooLarge { max, got } => {
            format!("InvalidMetadata(NumUnitsTooLarge {{ max: {max}, got: {got} }})")
        }
        Invalid::NonceGroupOutOfBounds { group } => format!("NonceGroupOutOfBounds({group})"),
        Invalid::Pow => "InvalidPoW(InvalidPoW)".to_owned(),
        Invalid::IndicesLen { expected, got } => format!("InvalidIndicesLen {{ expected: {expected}, got: {got} }}"),
        other => other.to_string(),
    };
    format!("invalid proof: {text:?}")
}

impl Certifier {
    fn new(config: &mut ConfigFile) -> Result<Self, Failure> {
        let usage = |what: &str, e: String| Failure::Usage(format!("{what}: {e}"));
        let text = Zeroizing::new(std::mem::take(&mut config.signing_key));
        let seed = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|e| usage("signing_key", format!("not base64: {e}")))?);
        let seed: Zeroizing<[u8; 32]> = Zeroizing::new(
            seed.as_slice().try_into().map_err(|_| usage("signing_key", format!("{} bytes instead of 32", seed.len())))?,
        );
        let scrypt = &config.init_cfg.scrypt;
        if (scrypt.r, scrypt.p) != (1, 1) {
            return Err(usage("init_cfg.scrypt", "only r = 1, p = 1 are supported".to_owned()));
        }
        let params = Params {
            scrypt_n: ScryptN::new(scrypt.n).map_err(|e| usage("init_cfg.scrypt.n", e.to_string()))?,
            labels_per_unit: config.init_cfg.labels_per_unit,
            min_num_units: SpaceUnits(config.init_cfg.min_num_units),
            max_num_units: SpaceUnits(config.init_cfg.max_num_units),
            k1: config.post_cfg.k1,
            k2: config.post_cfg.k2,
            pow_difficulty: parse_difficulty(&config.post_cfg.pow_difficulty).map_err(|e| usage("post_cfg.pow_difficulty", e))?,
            ..Preset::Mainnet.params()
        };
        let mode = match config.randomx_mode {
            RandomXMode::Fast => PowMode::Fast,
            RandomXMode::Light => PowMode::Light,
        };
        let options = BuildOptions { mode, large_pages: false, threads: all_cores() };
        let concurrent = config.limits.max_concurrent_requests.unwrap_or_else(all_cores).clamp(1, 4096);
        Ok(Self {
            key: SigningKey::from_bytes(&seed),
            params,
            expiration: config.certificate_expiration,
            randomx: RandomX::build(options, &AtomicBool::new(false), &AtomicU64::new(0))?,
            slots: Semaphore::new(concurrent),
            places: Semaphore::new(concurrent.saturating_add(config.limits.max_pending_requests).min(1 << 20)),
            certified: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            overloaded: AtomicU64::new(0),
        })
    }

    fn router(self: &Arc<Self>, max_body_size: usize) -> Router {
        Router::new()
            .route("/certify", post(certify))
            .route("/health", get(|| async { "ok" }))
            .layer(DefaultBodyLimit::max(max_body_size))
            .with_state(Arc::clone(self))
    }

    fn verify(&self, request: &CertifyRequest) -> Result<crate::verify::Verdict, VerifyError> {
        let claim = Claim {
            node_id: NodeId(request.metadata.node_id),
            commitment_atx_id: AtxId(request.metadata.commitment_atx_id),
            challenge: Challenge(request.metadata.challenge),
            num_units: SpaceUnits(request.metadata.num_units),
        };
        let mode = Mode::All;
        let request = Request { proof: &request.proof, claim: &claim, params: &self.params, mode: &mode };
        Verifier::new(&self.randomx)?.verify(&request)
    }

    fn certificate(&self, node_id: NodeId) -> Result<CertifyResponse, Failure> {
        let expires = match self.expiration {
            Some(time) => Some(SystemTime::now().duration_since(UNIX_EPOCH)?.saturating_add(time).as_secs()),
            None => None,
        };
        let certificate = encode_certificate(&node_id, expires)?;
        Ok(CertifyResponse {
            signature: STANDARD.encode(self.key.sign(&certificate).to_bytes()),
            pub_key: STANDARD.encode(self.key.verifying_key().to_bytes()),
            certificate: STANDARD.encode(certificate),
        })
    }

    fn metrics(&self) -> String {
        format!(
            "# TYPE certifier_certified_total counter\ncertifier_certified_total {}\n\
             # TYPE certifier_refused_total counter\ncertifier_refused_total {}\n\
             # TYPE certifier_overloaded_total counter\ncertifier_overloaded_total {}\n",
            self.certified.load(Ordering::Relaxed),
            self.refused.load(Ordering::Relaxed),
            self.overloaded.load(Ordering::Relaxed),
        )
    }
}

async fn certify(State(certifier): State<Arc<Certifier>>, request: HttpRequest) -> Response {
    let Ok(_place) = certifier.places.try_acquire() else {
        certifier.overloaded.fetch_add(1, Ordering::Relaxed);
        return StatusCode::TOO_MANY_REQUESTS.into_response();
    };
    // 415 for another content type, 413 for a long body, 400 for what is not JSON, 422 for another shape
    let request: CertifyRequest = match Json::from_request(request, &()).await {
        Ok(Json(request)) => request,
        Err(rejection) => return rejection.into_response(),
    };
    let Ok(_slot) = certifier.slots.acquire().await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let node_id = NodeId(request.metadata.node_id);
    let verdict = {
        let certifier = Arc::clone(&certifier);
        tokio::task::spawn_blocking(move || certifier.verify(&request)).await
    };
    match verdict {
        Ok(Ok(Ok(()))) => match certifier.certificate(node_id) {
            Ok(response) => {
                certifier.certified.fetch_add(1, Ordering::Relaxed);
                Json(response).into_response()
            }
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        },
        Ok(Ok(Err(invalid))) => {
            certifier.refused.fetch_add(1, Ordering::Relaxed);
            tracing::info!(node = %node_id, "refused: {invalid}");
            (StatusCode::FORBIDDEN, refusal(&invalid)).into_response()
        }
        Ok(Err(error)) => {
            tracing::error!("failed to verify: {error}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
        Err(panic) => {
            tracing::error!("the verification ended unexpectedly: {panic}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Serves certificates, or prints keys.
pub fn run(args: &CertifierArgs) -> Result<(), Failure> {
    if let Some(CertifierCommand::GenerateKeys) = &args.command {
        return generate_keys();
    }
    log_to_stderr();
    let mut config = load(&args.config)?;
    let certifier = Arc::new(Certifier::new(&mut config)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let bind = async |address: SocketAddr| {
            TcpListener::bind(address).await.map_err(|e| Failure::Failed(format!("failed to listen on {address}: {e}").into()))
        };
        let listener = bind(config.listen).await?;
        tracing::info!(
            address = %listener.local_addr()?,
            public_key = STANDARD.encode(certifier.key.verifying_key().to_bytes()),
            "certifier is ready"
        );
        if let Some(address) = config.metrics {
            let listener = bind(address).await?;
            let certifier = Arc::clone(&certifier);
            let app = Router::new().route("/metrics", get(move || async move { certifier.metrics() }));
            tokio::spawn(async move { axum::serve(listener, app).await });
        }
        let app = certifier.router(config.limits.max_body_size);
        // Requests under way are answered; a verification takes well below a second.
        let served = axum::serve(listener, app).with_graceful_shutdown(super::serve::shutdown_signal());
        let waited = async {
            super::serve::shutdown_signal().await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        };
        tokio::select! {
            served = served => served?,
            () = waited => {}
        }
        Ok(())
    })
}

fn generate_keys() -> Result<(), Failure> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut_slice()).map_err(|e| Failure::Failed(format!("no random bytes from the system: {e}").into()))?;
    let key = SigningKey::from_bytes(&seed);
    let keys = serde_json::json!({
        "public_key": STANDARD.encode(key.verifying_key().to_bytes()),
        "secret_key": STANDARD.encode(seed.as_slice()),
    });
    println!("{}", serde_json::to_string_pretty(&keys)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signature, VerifyingKey};
    use serde_json::Value;

    use super::*;

    #[test]
    fn durations_are_sums() {
        assert_eq!(parse_duration("2w"), Ok(Duration::from_secs(14 * 86400)));
        assert_eq!(parse_duration(" 1d 12h 5 min"), Ok(Duration::from_secs(86400 + 12 * 3600 + 300)));
        for bad in ["", "5", "w", "1y", "-1d", "99999999999999999999s", "18446744073709551615w"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    fn config(v: &Value, expiration: &str) -> ConfigFile {
        let p = &v["parameters"];
        let text = serde_json::json!({
            "listen": "127.0.0.1:0",
            "signing_key": v["signing_key"],
            "post_cfg": { "k1": p["k1"], "k2": p["k2"], "pow_difficulty": p["pow_difficulty"] },
            "init_cfg": {
                "min_num_units": 1, "max_num_units": p["num_units"].as_u64().unwrap() * 1000,
                "labels_per_unit": p["labels_per_unit"], "scrypt": { "n": p["scrypt_n"], "r": 1, "p": 1 },
            },
            "limits": { "max_pending_requests": 2, "max_body_size": v["max_body_size"] },
            "certificate_expiration": expiration,
        });
        serde_json::from_value(text).unwrap()
    }

    #[tokio::test]
    async fn exchanges_are_those_of_the_reference() {
        let file: Value = serde_json::from_str(include_str!("../../testdata/certifier.json")).unwrap();
        let mut addresses = std::collections::HashMap::new();
        for name in ["no expiry", "expiry 2 weeks"] {
            let mut config = config(&file, "2w");
            if name == "no expiry" {
                config.certificate_expiration = None;
            }
            let certifier = Arc::new(Certifier::new(&mut config).unwrap());
            let listener = TcpListener::bind(config.listen).await.unwrap();
            addresses.insert(name, listener.local_addr().unwrap());
            let app = certifier.router(config.limits.max_body_size);
            tokio::spawn(async move { axum::serve(listener, app).await });
        }
        let client = reqwest::Client::new();
        let exchanges = file["exchanges"].as_array().unwrap();
        assert!(!exchanges.is_empty());
        for exchange in exchanges {
            let what = exchange["what"].as_str().unwrap();
            let address = addresses[exchange["certifier"].as_str().unwrap()];
            let response = client
                .post(format!("http://{address}/certify"))
                .header("content-type", exchange["content_type"].as_str().unwrap())
                .body(exchange["request_body"].as_str().unwrap().to_owned())
                .send()
                .await
                .unwrap();
            assert_eq!(u64::from(response.status().as_u16()), exchange["status"].as_u64().unwrap(), "{what}");
            let status = response.status();
            let body = response.text().await.unwrap();
            let expected = exchange["response_body"].as_str().unwrap();
            if status == StatusCode::FORBIDDEN {
                assert_eq!(body, expected, "{what}");
            }
            if status != StatusCode::OK {
                continue;
            }
            let (body, expected): (Value, Value) =
                (serde_json::from_str(&body).unwrap(), serde_json::from_str(expected).unwrap());
            let decode = |name: &str| STANDARD.decode(body[name].as_str().unwrap()).unwrap();
            assert_eq!(body["pub_key"], expected["pub_key"]);
            let key = VerifyingKey::from_bytes(&decode("pub_key").try_into().unwrap()).unwrap();
            let signature = Signature::from_slice(&decode("signature")).unwrap();
            key.verify_strict(&decode("certificate"), &signature).unwrap();
            if exchange["certifier"] == "no expiry" {
                assert_eq!(body, expected, "{what}");
            } else {
                let certificate = decode("certificate");
                let expires = Certificate::parse(&certificate).unwrap().expiration.unwrap();
                let in_two_weeks = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 14 * 86400;
                assert!(in_two_weeks.abs_diff(expires) < 100);
            }
        }
        let get = client.get(format!("http://{}/certify", addresses["no expiry"])).send().await.unwrap();
        assert_eq!(get.status(), 405);
        assert_eq!(client.get(format!("http://{}/x", addresses["no expiry"])).send().await.unwrap().status(), 404);
    }
}
