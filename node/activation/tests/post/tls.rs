//! Who may connect over TLS.

use std::{fs, path::Path};

use activation::post_service::listener::{ListenError, Listener, TlsFiles};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::service::{A, Node, QUICK, Service};

/// An authority by whom others are signed, and its certificate.
fn authority() -> (Issuer<'static, KeyPair>, String) {
    let (mut params, key) = (CertificateParams::default(), KeyPair::generate().unwrap());
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), certificate)
}

/// Certificate and key for a name.
fn signed(name: &str, by: &Issuer<'_, KeyPair>) -> [String; 2] {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, by).unwrap();
    [certificate.pem(), key.serialize_pem()]
}

fn files(folder: &Path, [certificate, key]: &[String; 2], clients: Option<&str>) -> TlsFiles {
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        path
    };
    TlsFiles {
        certificate: write("node.pem", certificate),
        key: write("node.key", key),
        clients: clients.map(|text| write("clients.pem", text)),
    }
}

/// Tries to get as far as the first request.
async fn connects(node: &Node, tls: Option<ClientTlsConfig>) -> bool {
    let endpoint = match tls {
        Some(tls) => {
            let address = format!("https://{}", node.address);
            tonic::transport::Endpoint::from_shared(address).unwrap().tls_config(tls.domain_name("node.example")).unwrap()
        }
        None => node.endpoint(),
    };
    match Service::over(endpoint).await {
        Ok(mut service) => service.asked().await.is_ok(),
        Err(_) => false,
    }
}

#[tokio::test]
async fn services_are_known_by_their_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let ((nodes, of_nodes), (clients, of_clients), (strangers, of_strangers)) = (authority(), authority(), authority());
    let own = signed("node.example", &nodes);
    let node = Node::start(QUICK, Some(&files(folder.path(), &own, Some(&of_clients)))).await;
    let trusting = |authority: &str| ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority));
    let showing = |tls: ClientTlsConfig, [certificate, key]: [String; 2]| tls.identity(Identity::from_pem(certificate, key));
    let right = || showing(trusting(&of_nodes), signed("prover", &clients));

    assert!(connects(&node, Some(right())).await);
    assert!(!connects(&node, None).await, "without TLS");
    assert!(!connects(&node, Some(trusting(&of_nodes))).await, "without a certificate");
    assert!(!connects(&node, Some(showing(trusting(&of_nodes), signed("prover", &strangers)))).await, "a stranger's certificate");
    assert!(!connects(&node, Some(showing(trusting(&of_nodes), own.clone()))).await, "the node's own is of another authority");
    assert!(!connects(&node, Some(showing(trusting(&of_strangers), signed("prover", &clients)))).await, "another node");

    // a whole registration
    let endpoint = tonic::transport::Endpoint::from_shared(format!("https://{}", node.address)).unwrap();
    let mut service = Service::over(endpoint.tls_config(right().domain_name("node.example")).unwrap()).await.unwrap();
    service.register(A).await;
    crate::service::wait("registered", || node.is_connected(A)).await;

    // TLS for everybody: the node is known, its services are not
    let node = Node::start(QUICK, Some(&files(folder.path(), &own, None))).await;
    assert!(connects(&node, Some(trusting(&of_nodes))).await);
    assert!(!connects(&node, Some(trusting(&of_strangers))).await, "another node");
    assert!(!connects(&node, None).await, "without TLS");
}

#[tokio::test]
async fn bad_files_are_told_before_anything_listens() {
    let folder = tempfile::tempdir().unwrap();
    let (issuer, _) = authority();
    let good = files(folder.path(), &signed("node.example", &issuer), None);
    let bind = async |files: &TlsFiles| Listener::bind("127.0.0.1:0".parse().unwrap(), Some(files)).await;
    bind(&good).await.unwrap();
    let missing = TlsFiles { clients: Some(folder.path().join("none.pem")), ..good.clone() };
    assert!(matches!(bind(&missing).await, Err(ListenError::Read { path, .. }) if path.ends_with("none.pem")));
    fs::write(&good.key, "no key").unwrap();
    assert!(matches!(bind(&good).await, Err(ListenError::Transport(_))));
    // an address that is taken
    let first = Listener::bind("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
    let second = Listener::bind(first.address(), None).await;
    assert!(matches!(second, Err(ListenError::Address { address, .. }) if address == first.address()));
}
