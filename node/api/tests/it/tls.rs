//! The listener for proving services of other machines: certificates on both sides.

use std::{fs, path::Path};

use api::listen::{Listener, Listeners, Service, StartError, Tls};
use proto::grpc::spacemesh_v1::{PostStatesRequest, post_info_service_client::PostInfoServiceClient};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

use crate::fake::{ANYWHERE, Served, listeners, serve, try_serve};

/// Somebody whose certificates are believed, or not.
struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

fn authority() -> Authority {
    let (key, mut of) = (KeyPair::generate().unwrap(), CertificateParams::new(Vec::new()).unwrap());
    of.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = of.self_signed(&key).unwrap().pem();
    Authority { certificate, issuer: Issuer::new(of, key) }
}

impl Authority {
    /// A certificate for `localhost` and its key.
    fn issue(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

fn files(folder: &Path, own: &Authority, clients: &Authority) -> Tls {
    let (certificate, key) = own.issue();
    let put = |name: &str, pem: &str| {
        let path = folder.join(name);
        fs::write(&path, pem).unwrap();
        path
    };
    Tls { authority: put("ca", &clients.certificate), certificate: put("certificate", &certificate), key: put("key", &key) }
}

fn with_tls(tls: Tls) -> Listeners {
    let services = vec![Service::Post, Service::PostInfo];
    Listeners { tls: Some((Listener { address: ANYWHERE, services }, tls)), ..listeners() }
}

async fn states(served: &Served, tls: Option<ClientTlsConfig>) -> Result<usize, String> {
    let address = served.running.tls.unwrap();
    let endpoint = match tls {
        Some(tls) => Channel::from_shared(format!("https://localhost:{}", address.port())).unwrap().tls_config(tls).unwrap(),
        None => Channel::from_shared(format!("http://{address}")).unwrap(),
    };
    let channel = endpoint.connect().await.map_err(|e| format!("{e:?}"))?;
    let answer = PostInfoServiceClient::new(channel).post_states(PostStatesRequest {}).await;
    answer.map(|answer| answer.into_inner().states.len()).map_err(|e| format!("{e:?}"))
}

#[tokio::test]
async fn only_clients_with_the_right_certificate_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let (own, others) = (authority(), authority());
    let served = serve(&with_tls(files(folder.path(), &own, &own))).await;
    let config = || ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&own.certificate)).domain_name("localhost");
    let identity = |(certificate, key): (String, String)| Identity::from_pem(certificate, key);
    assert_eq!(states(&served, Some(config().identity(identity(own.issue())))).await, Ok(1));
    for wrong in [Some(config().identity(identity(others.issue()))), Some(config()), None] {
        states(&served, wrong).await.unwrap_err();
    }
    // and the node shows who it is
    let doubtful = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&others.certificate)).domain_name("localhost");
    states(&served, Some(doubtful.identity(identity(own.issue())))).await.unwrap_err();
    // the right ones are still served
    assert_eq!(states(&served, Some(config().identity(identity(own.issue())))).await, Ok(1));
}

#[tokio::test]
async fn certificates_that_are_no_good() {
    let folder = tempfile::tempdir().unwrap();
    let own = authority();
    let missing = Tls { key: folder.path().join("nothing"), ..files(folder.path(), &own, &own) };
    let error = try_serve(&with_tls(missing)).await.err().unwrap();
    assert!(matches!(&error, StartError::Read { path, .. } if path.ends_with("nothing")), "{error}");
    let tls = files(folder.path(), &own, &own);
    fs::write(&tls.key, "no key").unwrap();
    let error = try_serve(&with_tls(tls)).await.err().unwrap();
    assert!(matches!(error, StartError::Tls(_)), "{error}");
}
