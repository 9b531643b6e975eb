//! What clients cannot do, and how it all ends.

use std::{
    io::ErrorKind,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use api::{
    listen::{self, Listener, Listeners, MAX_MESSAGE, Service, StartError},
    node::Node as _,
};
use proto::grpc::spacemesh_v1::{
    self as wire, activation_service_client::ActivationServiceClient, admin_service_client::AdminServiceClient,
    mesh_service_client::MeshServiceClient, node_service_client::NodeServiceClient,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    time::timeout,
};
use tokio_stream::StreamExt as _;
use tonic::Code;

use crate::fake::{ANYWHERE, Fake, channel, listeners, now, offer, serve, try_serve};

#[tokio::test]
async fn messages_have_a_largest_size() {
    let served = serve(&listeners()).await;
    let mut client = NodeServiceClient::new(channel(served.running.public).await)
        .max_encoding_message_size(usize::MAX)
        .max_decoding_message_size(usize::MAX);
    let echo = |length| wire::EchoRequest { msg: Some(wire::SimpleString { value: "x".repeat(length) }) };
    // more than the usual limit of gRPC
    let large = client.echo(echo(MAX_MESSAGE - 100)).await.unwrap();
    assert_eq!(large.into_inner().msg.unwrap().value.len(), MAX_MESSAGE - 100);
    let refused = client.echo(echo(MAX_MESSAGE)).await.unwrap_err().code();
    assert!([Code::OutOfRange, Code::ResourceExhausted].contains(&refused), "{refused:?}");

    let url = format!("http://{}/v1/node/echo", served.running.json.unwrap());
    let body = format!(r#"{{"msg":{{"value":"{}"}}}}"#, "x".repeat(MAX_MESSAGE));
    // the answer may come before the whole body is sent, and the connection end
    match reqwest::Client::new().post(&url).body(body).send().await {
        Ok(answer) => assert_eq!(answer.status(), 429),
        Err(error) => assert!(error.is_request() || error.is_body(), "{error:?}"),
    }
    // and others are served
    assert_eq!(reqwest::Client::new().post(&url).body(r#"{"msg":{}}"#).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_slow_database_does_not_hold_up_the_clock() {
    let served = serve(&listeners()).await;
    *served.node.slow.lock().unwrap() = Duration::from_millis(200);
    let channel = channel(served.running.public).await;
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let mut client = ActivationServiceClient::new(channel.clone());
        asked.spawn(async move { client.highest(()).await.map(|_| ()) });
    }
    while served.node.busiest.load(Ordering::SeqCst) < 16 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let began = Instant::now();
    MeshServiceClient::new(channel).current_layer(wire::CurrentLayerRequest {}).await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(200) || !asked.is_empty());
    let mut answered = 0;
    while let Some(answer) = asked.join_next().await {
        answer.unwrap().unwrap();
        answered += 1;
    }
    assert_eq!((answered, served.node.busiest.load(Ordering::SeqCst)), (40, 16));
}

#[tokio::test]
async fn who_does_not_read_events_loses_the_stream() {
    let served = serve(&listeners()).await;
    let mut client = AdminServiceClient::new(channel(served.running.private).await);
    let mut stream = client.events_stream(wire::EventStreamRequest {}).await.unwrap().into_inner();
    for number in 0..10_000 {
        served.node.events().add(now(), false, format!("{number:01000}"), None);
        if number % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let mut read = 0;
    let end = loop {
        match timeout(Duration::from_secs(10), stream.next()).await.unwrap() {
            Some(Ok(event)) => {
                // in order, from the first
                assert_eq!(event.help.parse::<usize>().unwrap(), read);
                read += 1;
            }
            Some(Err(status)) => break status,
            None => panic!("ended without a word"),
        }
    };
    assert_eq!(end.code(), Code::Cancelled);
    assert!(read < 10_000);
    // who comes now gets what is kept
    let stream = client.events_stream(wire::EventStreamRequest {}).await.unwrap().into_inner();
    let kept: Vec<_> = stream.take(1000).map(|event| event.unwrap().help.parse::<u32>().unwrap()).collect().await;
    assert_eq!((kept[0], kept[999]), (9000, 9999));
}

#[tokio::test]
async fn all_ends_within_a_second() {
    let served = serve(&listeners()).await;
    let mut events = AdminServiceClient::new(channel(served.running.private).await);
    let mut events = events.events_stream(wire::EventStreamRequest {}).await.unwrap().into_inner();
    let mut setup =
        proto::grpc::spacemesh_v1::smesher_service_client::SmesherServiceClient::new(channel(served.running.private).await);
    let _setup = setup.post_setup_status_stream(()).await.unwrap();
    // half a request, and none at all
    let mut half = TcpStream::connect(served.running.json.unwrap()).await.unwrap();
    half.write_all(b"POST /v1/node/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{").await.unwrap();
    let _silent = TcpStream::connect(served.running.public.unwrap()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let addresses =
        [served.running.public, served.running.private, served.running.post, served.running.json, served.running.metrics];
    let began = Instant::now();
    served.stop.send(true).unwrap();
    timeout(Duration::from_secs(5), served.running.ended()).await.expect("an end");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(timeout(Duration::from_secs(1), events.next()).await.unwrap().is_none_or(|last| last.is_err()));
    let mut rest = Vec::new();
    let _ = timeout(Duration::from_secs(1), half.read_to_end(&mut rest)).await.unwrap();
    for address in addresses {
        let refused = TcpStream::connect(address.unwrap()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }
}

#[tokio::test]
async fn metrics_and_health() {
    let (node, (_stop, told)) = (Fake::new(), watch::channel(false));
    let offer = listen::Offer { metrics: Some(api::metrics::install().unwrap()), ..offer(node.clone()) };
    let running = listen::start(&listeners(), &offer, told).await.unwrap();
    let mut client = NodeServiceClient::new(channel(running.public).await);
    client.version(()).await.unwrap();
    client.echo(wire::EchoRequest { msg: None }).await.unwrap_err();
    reqwest::Client::new().post(format!("http://{}/v1/node/version", running.json.unwrap())).send().await.unwrap();
    let get = async |address: Option<std::net::SocketAddr>, path: &str| {
        reqwest::get(format!("http://{}{path}", address.unwrap())).await.unwrap()
    };
    let page = get(running.metrics, "/metrics").await.text().await.unwrap();
    for line in [
        r#"smesh_api_calls_total{call="/spacemesh.v1.NodeService/Version",code="Ok"}"#,
        r#"smesh_api_calls_total{call="/spacemesh.v1.NodeService/Echo",code="InvalidArgument"}"#,
        "smesh_node_layer 14544",
        "smesh_node_epoch 3",
        "smesh_node_latest_layer 14540",
        "smesh_node_synced 1",
        "smesh_node_peers 2",
    ] {
        assert!(page.lines().any(|found| found.starts_with(line)), "{line}\n{page}");
    }
    let states: Vec<&str> =
        page.lines().filter(|line| line.starts_with("smesh_node_identity_state{") && line.ends_with(" 1")).collect();
    assert_eq!(states.len(), 2, "{states:?}");
    assert!(states.iter().any(|line| line.contains("POET_REGISTERED") && line.contains(&"01".repeat(32))), "{states:?}");
    let expected = serde_json::json!({ "status": "ok", "synced": true, "peers": 2 });
    for address in [running.json, running.metrics] {
        let health: serde_json::Value = serde_json::from_str(&get(address, "/health").await.text().await.unwrap()).unwrap();
        assert_eq!(health, expected);
    }
}

#[tokio::test]
async fn listeners_that_cannot_be() {
    let taken = std::net::TcpListener::bind(ANYWHERE).unwrap();
    let at = |address| Some(Listener { address, services: vec![Service::Node] });
    let error = try_serve(&Listeners { public: at(taken.local_addr().unwrap()), ..listeners() }).await.err().unwrap();
    assert!(matches!(error, StartError::Listen { what: "public gRPC", .. }), "{error}");
    let twice = Some(Listener { address: ANYWHERE, services: vec![Service::Node, Service::Mesh, Service::Node] });
    let error = try_serve(&Listeners { public: twice, ..listeners() }).await.err().unwrap();
    assert_eq!(error.to_string(), "node is named twice for public gRPC");
    let error = try_serve(&Listeners { public: None, ..listeners() }).await.err().unwrap();
    assert!(matches!(error, StartError::NothingForJson), "{error}");
    let error = try_serve(&Listeners { json_origins: vec!["\n".into()], ..listeners() }).await.err().unwrap();
    assert!(matches!(error, StartError::Origin(_)), "{error}");
    // without services there is no listener
    let none = Some(Listener { address: ANYWHERE, services: Vec::new() });
    let served = serve(&Listeners { private: none, ..listeners() }).await;
    assert_eq!(served.running.private, None);
}

#[test]
fn everything_is_for_this_machine_unless_told_otherwise() {
    let Listeners { public, private, post, tls, json, json_origins, metrics } = Listeners::default();
    for (listener, port) in [(public, 9092), (private, 9093), (post, 9094)] {
        assert_eq!(listener.unwrap().address, ([127, 0, 0, 1], port).into());
    }
    assert_eq!((tls, json, metrics, json_origins.len()), (None, None, None, 0));
    for service in Service::ALL {
        assert_eq!(service.word().parse(), Ok(service));
    }
    assert!("Node".parse::<Service>().is_err());
}
