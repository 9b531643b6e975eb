//! Requests to servers that fail, lag and lie: answers have a limit, failures are retried with jitter (activation.md section 4.1).

use std::{error::Error as _, time::Duration};

use reqwest::{Client, RequestBuilder, StatusCode, Url, redirect::Policy};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{PoetError, wire};

/// How long it may take until a server takes a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// How long a server may be silent in the middle of an answer.
const READ_WITHIN: Duration = Duration::from_secs(30);

/// What an answer may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    /// The most bytes that are read.
    pub(super) bytes: usize,
    /// How long an attempt may take; `None` for as long as the caller waits.
    pub(super) within: Option<Duration>,
}

/// Of everything but proofs: honest answers have less than one kilobyte and come at once.
pub(super) const LITTLE: Limit = Limit { bytes: 64 * 1024, within: Some(Duration::from_secs(30)) };

/// The longest text of a server that is repeated to people, in bytes.
const TEXT: usize = 512;

/// When a failed request is made again.
#[derive(Debug, Clone, Copy)]
pub(super) enum Retries {
    /// So many times; before attempt `k` it waits `k` times between one and two delays. What is not found may be there later.
    Linear {
        /// Attempts after the first.
        most: u32,
        /// The delay.
        delay: Duration,
    },
    /// For as long as the caller waits, after between one and two delays each.
    Endless {
        /// The delay.
        delay: Duration,
    },
    /// So many times, after a delay that doubles.
    Doubling {
        /// Attempts after the first.
        most: u32,
        /// The first delay.
        delay: Duration,
        /// The longest delay.
        longest: Duration,
    },
}

impl Retries {
    /// The wait before attempt `attempt`, the first one after a failure being 1.
    pub(super) fn wait(self, attempt: u32) -> Option<Duration> {
        match self {
            Self::Linear { most, delay } => (attempt <= most).then(|| jitter(delay).saturating_mul(attempt)),
            Self::Endless { delay } => Some(jitter(delay)),
            Self::Doubling { most, delay, longest } => {
                let doubled = delay.saturating_mul(2u32.saturating_pow(attempt.saturating_sub(1)));
                (attempt <= most).then_some(doubled.min(longest))
            }
        }
    }

    fn is_for(self, error: &PoetError) -> bool {
        match error {
            PoetError::Status { status: 404, .. } => matches!(self, Self::Linear { .. }),
            error => error.passes(),
        }
    }
}

/// Between one and two delays.
pub(super) fn jitter(delay: Duration) -> Duration {
    delay.mul_f64(rand::random_range(1.0..=2.0))
}

/// A server.
#[derive(Debug, Clone)]
pub(super) struct Http {
    client: Client,
    base: Url,
}

impl Http {
    /// A server at a URL; `http://` may be left out.
    pub(super) fn new(address: &str) -> Result<Self, String> {
        let text = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        let base = Url::parse(&text).map_err(|e| e.to_string())?;
        if !matches!(base.scheme(), "http" | "https") || base.cannot_be_a_base() {
            return Err("neither http nor https".to_owned());
        }
        // A server that sends its clients elsewhere is not the one that was configured.
        let client = Client::builder().connect_timeout(CONNECT_WITHIN).read_timeout(READ_WITHIN).redirect(Policy::none());
        Ok(Self { client: client.build().map_err(|e| chain(&e))?, base })
    }

    /// Asks, again and again if need be. A body is posted.
    pub(super) async fn ask(
        &self,
        path: &[&str],
        body: Option<&Value>,
        limit: Limit,
        retries: Retries,
    ) -> Result<Vec<u8>, PoetError> {
        let mut url = self.base.clone();
        url.path_segments_mut().map_err(|()| PoetError::Unreachable("no path".into()))?.pop_if_empty().extend(path);
        let mut attempt = 0;
        loop {
            let mut request = match body {
                Some(body) => self.client.post(url.clone()).header("content-type", "application/json").body(body.to_string()),
                None => self.client.get(url.clone()),
            };
            if let Some(within) = limit.within {
                request = request.timeout(within);
            }
            let error = match once(request, limit.bytes).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            attempt += 1;
            let wait = if retries.is_for(&error) { retries.wait(attempt) } else { None };
            let Some(wait) = wait else { return Err(error) };
            // The first failures and then fewer and fewer of them are worth a line.
            if attempt.is_power_of_two() {
                tracing::info!(%url, %error, attempt, ?wait, "asks again later");
            }
            tokio::time::sleep(wait).await;
        }
    }
}

async fn once(request: RequestBuilder, limit: usize) -> Result<Vec<u8>, PoetError> {
    let unreachable = |e: reqwest::Error| PoetError::Unreachable(chain(&e));
    let mut response = request.send().await.map_err(unreachable)?;
    let status = response.status();
    // Of what is no answer only the beginning is of interest.
    let is_answer = status == StatusCode::OK;
    let limit = if is_answer { limit } else { TEXT };
    let mut answer = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if answer.len() + chunk.len() > limit {
            if is_answer {
                return Err(PoetError::TooLarge { limit });
            }
            answer.extend_from_slice(&chunk[..limit - answer.len()]);
            break;
        }
        answer.extend_from_slice(&chunk);
    }
    if is_answer { Ok(answer) } else { Err(PoetError::Status { status: status.as_u16(), text: text(&answer) }) }
}

/// What a server says in words.
fn text(body: &[u8]) -> String {
    let text = match serde_json::from_slice::<wire::Failure>(body) {
        Ok(failure) => failure.message,
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}

/// Takes an answer apart.
pub(super) fn parse<T: DeserializeOwned>(answer: &[u8]) -> Result<T, PoetError> {
    serde_json::from_slice(answer).map_err(|e| PoetError::Garbage(e.to_string()))
}

/// An error with its causes.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
