//! How an identity shows a PoET server that it may register (activation.md section 4.2): by the certificate of a certifier that has seen
//! its proof of space, or else by work.

use std::{
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use poet_service::{
    certificate::{self, CertificateError},
    pow::{self, Params},
};
use proto::{
    ids::{EdSignature, Hash32, NodeId},
    scale,
};

use super::{Authorization, Certificate, PoetError, Poets, Server, blocking, http, is_key, wire};
use http::{Http, LITTLE, Retries};

/// The most work that is done for a registration, in leading zero bits: some minutes of a processor. Servers ask for 20 to 26.
const HARDEST: u32 = 32;

/// The longest challenge of a proof of work in bytes; honest ones have 32.
const LONGEST_CHALLENGE: usize = 256;

/// Ends a search when whoever wanted it waits no longer.
struct Search(Arc<AtomicBool>);

impl Drop for Search {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Poets {
    /// A certificate where that is to be had, else work.
    pub(super) async fn authorize(
        &self,
        server: &Server,
        info: &wire::Info,
        id: &NodeId,
        challenge: &Hash32,
    ) -> Result<Authorization, PoetError> {
        if let Some(certifier) = &info.certifier {
            match self.certificate(id, certifier).await {
                Ok(certificate) => return Ok(Authorization::Certificate(certificate)),
                Err(error) => {
                    tracing::warn!(poet = server.address, identity = %id, %error, "no certificate, works instead");
                }
            }
        }
        self.work(server, id, challenge).await
    }

    /// The smallest nonce that meets a server's parameters.
    async fn work(&self, server: &Server, id: &NodeId, challenge: &Hash32) -> Result<Authorization, PoetError> {
        let ask = async {
            let ask = server.http.ask(&["v1", "pow_params"], None, LITTLE, self.settings.retries());
            let answer: wire::PowParamsAnswer = http::parse(&self.in_time(ask).await?)?;
            Ok(answer.params())
        };
        let params = server.params.get((), self.settings.pow_params_ttl, ask).await?;
        if params.difficulty > HARDEST {
            return Err(PoetError::Difficulty(params.difficulty));
        }
        if params.challenge.len() > LONGEST_CHALLENGE {
            return Err(PoetError::Garbage(format!("a challenge of {} bytes", params.challenge.len())));
        }
        let search = Search(Arc::default());
        let (stop, id, challenge) = (search.0.clone(), *id, *challenge);
        blocking(move || {
            let threads = thread::available_parallelism().map_or(1, usize::from);
            let nonce = pow::find(&params, &id, challenge.as_bytes(), threads, &stop);
            let Params { difficulty, .. } = params;
            nonce.map(|nonce| Authorization::Work { params, nonce }).ok_or(PoetError::Difficulty(difficulty))
        })
        .await
    }

    /// The certificate of an identity: the one kept, or a new one. An identity asks once at a time.
    pub(super) async fn certificate(&self, id: &NodeId, certifier: &wire::Certifier) -> Result<Certificate, PoetError> {
        let key: [u8; 32] =
            certifier.pubkey.0.as_slice().try_into().map_err(|_| {
                PoetError::Garbage(format!("a certifier with a public key of {} bytes", certifier.pubkey.0.len()))
            })?;
        if let Some(kept) = self.kept_certificate(id, key).await? {
            return Ok(kept);
        }
        let under_way = {
            let mut all = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
            all.entry(*id).or_default().clone()
        };
        under_way.get(key, Duration::ZERO, self.ask_certifier(id, &certifier.url, key)).await
    }

    /// The certificate that is kept, if it still counts.
    async fn kept_certificate(&self, id: &NodeId, key: [u8; 32]) -> Result<Option<Certificate>, PoetError> {
        let (home, id, now) = (self.home.clone(), *id, self.unix_seconds());
        blocking(move || {
            let kept = home.certificate(&id, &key).map_err(PoetError::Home)?;
            Ok(kept.filter(|kept| certificate::check(&key, &kept.data, &kept.signature.0, &id, now).is_ok()))
        })
        .await
    }

    async fn ask_certifier(&self, id: &NodeId, url: &str, key: [u8; 32]) -> Result<Certificate, PoetError> {
        let (home, identity) = (self.home.clone(), *id);
        let space = blocking(move || home.space(&identity).map_err(PoetError::Home)?.ok_or(PoetError::NoSpace)).await?;
        let http = Http::new(url).map_err(|reason| PoetError::Garbage(format!("certifier {url}: {reason}")))?;
        let settings = &self.settings.certifier;
        let retries =
            Retries::Doubling { most: settings.max_retries, delay: settings.retry_delay, longest: settings.max_retry_delay };
        let body = wire::certify(id, &space);
        let answer = http.ask(&["certify"], Some(&body), LITTLE, retries).await?;
        let wire::Certified { certificate: data, signature, pub_key } = http::parse(&answer)?;
        is_key(Some(&key), &pub_key.0)?;
        let signature = <[u8; 64]>::try_from(signature.0).map_err(|_| CertificateError::Signature)?;
        let certificate = Certificate { data: scale::Bytes(data.0), signature: EdSignature(signature) };
        let (home, identity, now) = (self.home.clone(), *id, self.unix_seconds());
        blocking(move || {
            certificate::check(&key, &certificate.data, &certificate.signature.0, &identity, now)?;
            home.put_certificate(&identity, &key, &certificate).map_err(PoetError::Home)?;
            Ok(certificate)
        })
        .await
    }

    /// Drops a certificate that a server refuses.
    pub(super) async fn forget_certificate(&self, info: &wire::Info, id: &NodeId) -> Result<(), PoetError> {
        let Some(Ok(key)) = info.certifier.as_ref().map(|certifier| certifier.pubkey.0.as_slice().try_into()) else {
            return Ok(());
        };
        let (home, id): (_, NodeId) = (self.home.clone(), *id);
        blocking(move || home.remove_certificate(&id, &key).map_err(PoetError::Home)).await
    }

    fn unix_seconds(&self) -> u64 {
        u64::try_from(self.clock.now().0 / 1_000_000_000).unwrap_or(0)
    }
}
