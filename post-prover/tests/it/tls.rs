//! Mutual TLS with a node, with certificates made for the test.

use std::{fs, net::SocketAddr, path::Path, process::Stdio, time::Duration};

use proto::grpc::spacemesh_v1::post_service_server::PostServiceServer;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use crate::{
    data,
    program::{program, wait_for},
    serve::{Connection, Node, connected, official, small, small_options, spawn},
};

/// Somebody who signs certificates.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Certificate and key for a name.
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// A node that wants to see a certificate of `clients` and shows one for `name`.
async fn node(clients: &Authority, own: &Authority, name: &str) -> (SocketAddr, mpsc::Receiver<Connection>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, connections) = mpsc::channel(16);
    let (cert, key) = own.sign(name);
    let tls =
        ServerTlsConfig::new().identity(Identity::from_pem(cert, key)).client_ca_root(Certificate::from_pem(clients.pem.clone()));
    let server = Server::builder().tls_config(tls).unwrap().add_service(PostServiceServer::new(Node(sender)));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (address, connections)
}

fn write_pems(dir: &Path, ca: &Authority, (cert, key): &(String, String)) -> [String; 6] {
    fs::create_dir_all(dir).unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let option = |option: &str| option.to_owned();
    let (ca, cert, key) = (file("ca.pem", &ca.pem), file("cert.pem", cert), file("key.pem", key));
    [option("--ca-cert"), ca, option("--cert"), cert, option("--key"), key]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_known_by_their_certificates_and_know_us_by_ours() {
    let dir = tempfile::tempdir().unwrap();
    let (params, metadata) = small(6);
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    data::write(&data, &metadata, params.scrypt_n);
    let (ours, theirs, stranger) = (Authority::new(), Authority::new(), Authority::new());
    let (address, mut connections) = node(&ours, &theirs, "node.example").await;
    let right = write_pems(&dir.path().join("right"), &theirs, &ours.sign("prover"));
    let not_ours = write_pems(&dir.path().join("not-ours"), &theirs, &stranger.sign("prover"));
    let not_theirs = write_pems(&dir.path().join("not-theirs"), &stranger, &ours.sign("prover"));
    let service = |tls: &[String], more: &[&str]| {
        let mut command = official(dir.path(), &data, &format!("https://{address}"), 16);
        command.args(["--max-retries", "1"]).args(tls).args(more);
        command.stderr(Stdio::null());
        command
    };
    let mut refused = async |tls: &[String], more: &[&str], why: &str| {
        let mut command = service(tls, more);
        let mut running = spawn(&mut command);
        // either it gives up, as the connection fails, or the node does not take the stream
        let seen = tokio::time::timeout(Duration::from_secs(4), connections.recv()).await;
        assert!(seen.is_err(), "{why}");
        running.0.kill().unwrap();
        running.0.wait().unwrap();
    };
    let name = ["--domain", "node.example"];
    refused(&not_ours, &name, "a certificate of somebody the node does not know").await;
    refused(&not_theirs, &name, "a node whose certificate is not of the given CA").await;
    refused(&right, &["--domain", "other.example"], "a node of another name").await;
    refused(&right, &[], "the node's certificate is not for the host of the address").await;

    let running = spawn(&mut service(&right, &name));
    assert_eq!(connected(&mut connections).await.metadata().await.node_id, metadata.node_id.0);
    drop(running);

    // the same with the program's own options, and for a node whose certificate names the host of the address
    let (address, mut connections) = node(&ours, &theirs, "127.0.0.1").await;
    let mut command = program();
    command.args(["serve", "--data-dir"]).arg(&data).args(["--node", &format!("https://{address}")]).args(&right);
    fs::remove_file(data.join("postprover_node")).unwrap();
    small_options(&mut command);
    let running = spawn(&mut command);
    assert_eq!(connected(&mut connections).await.metadata().await.node_id, metadata.node_id.0);
    drop(running);

    // all three files or none; https needs them
    let usage = |arguments: &[String]| {
        let mut command = service(arguments, &[]);
        let mut running = spawn(&mut command);
        wait_for("the end of the program", || running.0.try_wait().unwrap().is_some());
        assert_eq!(running.0.wait().unwrap().code(), Some(2), "{arguments:?}");
    };
    usage(&right[..4]);
    usage(&[]);
}
