//! Every call over gRPC.

use std::time::Duration;

use activation::{builder::Notice, timeline::Moment};
use api::node::{Node as _, Refused, Status};
use proto::{
    grpc::{
        google::rpc,
        node_v1::{ActivationRequest, ActivationResponse, IdentityState, overview_service_client::OverviewServiceClient},
        spacemesh_v1::{
            self as wire, activation_service_client::ActivationServiceClient, admin_service_client::AdminServiceClient,
            event::Details, mesh_service_client::MeshServiceClient, node_service_client::NodeServiceClient,
            post_info_service_client::PostInfoServiceClient, post_service_client::PostServiceClient,
            smesher_service_client::SmesherServiceClient,
        },
        spacemesh_v2alpha1::{self as v2alpha1, node_status_response::SyncStatus},
        spacemesh_v2beta1 as v2beta1,
    },
    ids::NodeId,
    layers::{EpochId, LayerId},
    preset::Preset,
};
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tonic::{Code, Response, Streaming, transport::Channel};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient, server_reflection_request::MessageRequest,
    server_reflection_response::MessageResponse,
};

use crate::fake::{COINBASE, DAY, channel, known, listeners, now, serve};

fn layer(number: u32) -> wire::LayerNumber {
    wire::LayerNumber { number }
}

fn code<T>(answer: Result<Response<T>, tonic::Status>) -> Code {
    answer.err().map_or(Code::Ok, |status| status.code())
}

/// The next message of a stream; none when it has ended.
async fn next<T>(stream: &mut Streaming<T>) -> Option<Result<T, tonic::Status>> {
    timeout(Duration::from_secs(10), stream.next()).await.expect("a message in time")
}

#[tokio::test]
async fn the_node_says_what_it_is() {
    let served = serve(&listeners()).await;
    let mut client = NodeServiceClient::new(channel(served.running.public).await);
    let msg = Some(wire::SimpleString { value: "hello".into() });
    let echo = client.echo(wire::EchoRequest { msg: msg.clone() }).await.unwrap();
    assert_eq!(echo.into_inner().msg, msg);
    assert_eq!(code(client.echo(wire::EchoRequest { msg: None }).await), Code::InvalidArgument);
    assert_eq!(client.version(()).await.unwrap().into_inner().version_string.unwrap().value, "1.2.3");
    assert_eq!(client.build(()).await.unwrap().into_inner().build_string.unwrap().value, "abcdef");
    let info = client.node_info(()).await.unwrap().into_inner();
    let expected = wire::NodeInfoResponse { hrp: "sm".into(), first_genesis: 8063, effective_genesis: 8063, epoch_size: 4032 };
    assert_eq!(info, expected);
    let status = client.status(wire::StatusRequest {}).await.unwrap().into_inner().status.unwrap();
    let mut expected = wire::NodeStatus {
        connected_peers: 2,
        is_synced: true,
        synced_layer: Some(layer(14_540)),
        // 50.5 days of 288 layers
        top_layer: Some(layer(14_544)),
        verified_layer: Some(layer(14_530)),
    };
    assert_eq!(status, expected);

    let mut stream = client.status_stream(wire::StatusStreamRequest {}).await.unwrap().into_inner();
    assert_eq!(next(&mut stream).await.unwrap().unwrap().status.as_ref(), Some(&expected));
    // before the effective genesis the latest layer stands for the applied one
    *served.node.status.lock().unwrap() =
        Status { connected_peers: 0, synced: false, latest: LayerId(8062), applied: LayerId(0) };
    let changed = next(&mut stream).await.unwrap().unwrap().status.unwrap();
    expected.synced_layer = Some(layer(8062));
    expected.verified_layer = Some(layer(8062));
    assert_eq!(changed, wire::NodeStatus { connected_peers: 0, is_synced: false, ..expected });
}

#[tokio::test]
async fn the_network_and_the_node_of_v2() {
    let served = serve(&listeners()).await;
    let channel = channel(served.running.public).await;
    let mut network = v2alpha1::network_service_client::NetworkServiceClient::new(channel.clone());
    let info = network.info(v2alpha1::NetworkInfoRequest {}).await.unwrap().into_inner();
    assert_eq!((&*info.hrp, info.layer_duration.unwrap().seconds, info.labels_per_unit), ("sm", 300, 1 << 32));
    let mut network = v2beta1::network_service_client::NetworkServiceClient::new(channel.clone());
    assert_eq!(network.info(v2beta1::NetworkInfoRequest {}).await.unwrap().into_inner().genesis_id, info.genesis_id);
    let mut node = v2alpha1::node_service_client::NodeServiceClient::new(channel.clone());
    let mut newer = v2beta1::node_service_client::NodeServiceClient::new(channel);
    for (connected_peers, synced, expected) in
        [(2, true, SyncStatus::Synced), (2, false, SyncStatus::Syncing), (0, true, SyncStatus::Offline)]
    {
        *served.node.status.lock().unwrap() = Status { connected_peers, synced, latest: LayerId(9), applied: LayerId(8) };
        let status = node.status(v2alpha1::NodeStatusRequest {}).await.unwrap().into_inner();
        assert_eq!((status.status(), status.connected_peers), (expected, connected_peers as u64));
        assert_eq!((status.latest_layer, status.applied_layer, status.current_layer), (9, 8, 14_544));
        let again = newer.status(v2beta1::NodeStatusRequest {}).await.unwrap().into_inner();
        assert_eq!((again.status, again.latest_layer), (status.status, status.latest_layer));
    }
}

#[tokio::test]
async fn the_clock_of_the_network() {
    let served = serve(&listeners()).await;
    let mut client = MeshServiceClient::new(channel(served.running.public).await);
    let value = |number: Option<wire::SimpleInt>| number.unwrap().value;
    let genesis = Preset::Mainnet.genesis().0;
    let answer = client.genesis_time(wire::GenesisTimeRequest {}).await.unwrap().into_inner();
    assert_eq!(value(answer.unixtime), genesis.unix_time.0 as u64);
    let answer = client.current_layer(wire::CurrentLayerRequest {}).await.unwrap().into_inner();
    assert_eq!(answer.layernum, Some(layer(14_544)));
    let answer = client.current_epoch(wire::CurrentEpochRequest {}).await.unwrap().into_inner();
    assert_eq!(answer.epochnum, Some(wire::EpochNumber { number: 3 }));
    let answer = client.genesis_id(wire::GenesisIdRequest {}).await.unwrap().into_inner();
    assert_eq!(answer.genesis_id, genesis.id().0);
    let answer = client.epoch_num_layers(wire::EpochNumLayersRequest {}).await.unwrap().into_inner();
    assert_eq!(answer.numlayers, Some(layer(4032)));
    let answer = client.layer_duration(wire::LayerDurationRequest {}).await.unwrap().into_inner();
    assert_eq!(value(answer.duration), 300);
    let answer = client.max_transactions_per_second(wire::MaxTransactionsPerSecondRequest {}).await.unwrap().into_inner();
    let main = &Preset::Mainnet.network().main;
    assert_eq!(value(answer.max_txs_per_second), u64::from(main.txs_per_proposal) * u64::from(main.layer_average_size) / 300);
    // what needs the ledger
    let unary = [
        code(client.account_mesh_data_query(wire::AccountMeshDataQueryRequest::default()).await),
        code(client.layers_query(wire::LayersQueryRequest::default()).await),
        code(client.malfeasance_query(wire::MalfeasanceRequest::default()).await),
        code(client.account_mesh_data_stream(wire::AccountMeshDataStreamRequest::default()).await),
        code(client.layer_stream(wire::LayerStreamRequest {}).await),
        code(client.epoch_stream(wire::EpochStreamRequest { epoch: 1 }).await),
        code(client.malfeasance_stream(wire::MalfeasanceStreamRequest::default()).await),
    ];
    assert_eq!(unary, [Code::Unimplemented; 7]);
}

fn known_message() -> wire::Activation {
    let id = |byte| wire::ActivationId { id: vec![byte; 32] };
    wire::Activation {
        id: Some(id(7)),
        layer: Some(layer(3)),
        smesher_id: Some(wire::SmesherId { id: vec![1; 32] }),
        coinbase: Some(wire::AccountId { address: known().coinbase.to_text(proto::address::Network::Mainnet) }),
        prev_atx: Some(id(5)),
        num_units: 40,
        sequence: 11,
        previous_atxs: vec![id(5), id(6)],
    }
}

#[tokio::test]
async fn single_activations() {
    let served = serve(&listeners()).await;
    let mut client = ActivationServiceClient::new(channel(served.running.public).await);
    let get = |id: &[u8]| wire::GetRequest { id: id.to_vec() };
    let found = client.get(get(&[7; 32])).await.unwrap().into_inner();
    assert_eq!(found, wire::GetResponse { atx: Some(known_message()), malfeasance_proof: None });
    for (id, expected) in [
        (vec![], Code::InvalidArgument),
        (vec![7; 31], Code::InvalidArgument),
        (vec![8; 32], Code::NotFound),
        (vec![0xee; 32], Code::Internal),
    ] {
        assert_eq!(code(client.get(get(&id)).await), expected, "{id:?}");
    }
    assert_eq!(client.highest(()).await.unwrap().into_inner().atx, Some(known_message()));

    served.node.status.lock().unwrap().synced = false;
    let proof = client.get(get(&[7; 32])).await.unwrap().into_inner().malfeasance_proof.unwrap();
    assert_eq!(proof.smesher_id, Some(wire::SmesherId { id: vec![1; 32] }));
    assert_eq!((proof.layer, proof.kind, &*proof.debug_info), (Some(layer(12_000)), 1, "two activations in one epoch"));
    assert!(proof.proof.is_empty());
    // nothing but the id of the golden one
    let golden = client.highest(()).await.unwrap().into_inner().atx.unwrap();
    let id = Preset::Mainnet.genesis().0.golden_atx().0.to_vec();
    assert_eq!(golden, wire::Activation { id: Some(wire::ActivationId { id }), ..wire::Activation::default() });
}

#[tokio::test]
async fn the_operator_and_the_identities() {
    let served = serve(&listeners()).await;
    let mut client = SmesherServiceClient::new(channel(served.running.private).await);
    let account = |address: &str| Some(wire::AccountId { address: address.into() });
    let ok = Some(rpc::Status::default());
    assert_eq!(client.smesher_i_ds(()).await.unwrap().into_inner().public_keys, [vec![1; 32], vec![2; 32]]);

    let nowhere = client.coinbase(()).await.unwrap().into_inner().account_id.unwrap();
    assert_eq!(nowhere.address, proto::ids::Address::EMPTY.to_text(proto::address::Network::Mainnet));
    let set = |id| wire::SetCoinbaseRequest { id };
    assert_eq!(code(client.set_coinbase(set(None)).await), Code::InvalidArgument);
    // deployed nodes call it unknown
    assert_eq!(code(client.set_coinbase(set(account("sm1nonsense"))).await), Code::Unknown);
    assert_eq!(client.set_coinbase(set(account(COINBASE))).await.unwrap().into_inner().status, ok);
    assert_eq!(client.coinbase(()).await.unwrap().into_inner().account_id, account(COINBASE));

    assert!(!client.is_smeshing(()).await.unwrap().into_inner().is_smeshing);
    let opts = wire::PostSetupOpts { num_units: 4, provider_id: Some(0), ..wire::PostSetupOpts::default() };
    let start = |coinbase, opts: &wire::PostSetupOpts| wire::StartSmeshingRequest { coinbase, opts: Some(opts.clone()) };
    assert_eq!(code(client.start_smeshing(start(None, &opts)).await), Code::InvalidArgument);
    let many = wire::PostSetupOpts { num_units: u32::MAX, ..opts.clone() };
    assert_eq!(code(client.start_smeshing(start(account(COINBASE), &many)).await), Code::InvalidArgument);
    assert_eq!(client.start_smeshing(start(account(COINBASE), &opts)).await.unwrap().into_inner().status, ok);
    assert_eq!(*served.node.started.lock().unwrap(), std::slice::from_ref(&opts));
    assert!(client.is_smeshing(()).await.unwrap().into_inner().is_smeshing);
    assert_eq!(code(client.start_smeshing(start(account(COINBASE), &opts)).await), Code::Internal);
    let stop = wire::StopSmeshingRequest { delete_files: true };
    assert_eq!(client.stop_smeshing(stop).await.unwrap().into_inner().status, ok);
    assert_eq!(*served.node.stopped.lock().unwrap(), [true]);
    assert_eq!(code(client.stop_smeshing(stop).await), Code::Internal);
    *served.node.smeshing.lock().unwrap() = Err(Refused::NotSupervised);
    assert_eq!(code(client.is_smeshing(()).await), Code::FailedPrecondition);
    assert_eq!(code(client.start_smeshing(start(account(COINBASE), &opts)).await), Code::FailedPrecondition);

    let status = client.post_setup_status(()).await.unwrap().into_inner().status;
    assert_eq!(status, Some(served.node.post_setup()));
    let mut stream = client.post_setup_status_stream(()).await.unwrap().into_inner();
    for _ in 0..2 {
        assert_eq!(next(&mut stream).await.unwrap().unwrap().status, Some(served.node.post_setup()));
    }
    let providers = client.post_setup_providers(wire::PostSetupProvidersRequest { benchmark: true }).await.unwrap();
    assert_eq!(providers.into_inner().providers[0].performance, 1_000_000);
    let post = &Preset::Mainnet.network().post;
    let expected = wire::PostConfigResponse {
        bits_per_label: 128,
        labels_per_unit: 1 << 32,
        min_num_units: 4,
        max_num_units: post.max_numunits,
        k1: 26,
        k2: 37,
    };
    assert_eq!(client.post_config(()).await.unwrap().into_inner(), expected);
    // what old applications still ask
    let gone = [
        code(client.smesher_id(()).await),
        code(client.min_gas(()).await),
        code(client.set_min_gas(wire::SetMinGasRequest::default()).await),
        code(client.estimated_rewards(wire::EstimatedRewardsRequest {}).await),
    ];
    assert_eq!(gone, [Code::Unimplemented; 4]);
}

#[tokio::test]
async fn events_of_late_come_first_and_then_new_ones() {
    let served = serve(&listeners()).await;
    let mut client = AdminServiceClient::new(channel(served.running.private).await);
    let (events, id) = (served.node.events(), NodeId([1; 32]));
    let (poet, until) = ("http://poet".to_owned(), Moment(now().0 + DAY));
    events.tell(
        now(),
        &id,
        &Notice::Registered { poet: poet.clone(), round: "5".into() },
        Some(("registration with PoET ends", until)),
    );
    let mut stream = client.events_stream(wire::EventStreamRequest {}).await.unwrap().into_inner();
    let mut failures = NodeServiceClient::new(channel(served.running.public).await)
        .error_stream(wire::ErrorStreamRequest {})
        .await
        .unwrap()
        .into_inner();
    let event = next(&mut stream).await.unwrap().unwrap();
    assert_eq!(event.timestamp.unwrap().seconds, now().0 / 1_000_000_000);
    let expected = "Registered with PoET server http://poet for its round 5. Next deadline: registration with PoET ends, \
                    2023-09-03T20:00:00Z.";
    assert_eq!((event.failure, &*event.help), (false, expected));
    let expected = wire::EventRegisteredInPoet { url: poet.clone(), smesher: vec![1; 32], round_id: "5".into() };
    assert_eq!(event.details, Some(Details::RegisteredInPoet(expected)));

    events.tell(now(), &id, &Notice::WaitingForProof { publish: EpochId(4), until }, None);
    let event = next(&mut stream).await.unwrap().unwrap();
    let Some(Details::WaitingForPoetRoundEnd(waiting)) = event.details else { panic!("{event:?}") };
    assert_eq!((waiting.publish, waiting.target, waiting.smesher), (4, 5, vec![1; 32]));
    assert_eq!(waiting.round_end.unwrap().seconds, until.0 / 1_000_000_000);
    assert!(event.help.contains(&until.to_string()), "{}", event.help);

    events.tell(now(), &id, &Notice::Trouble { what: "the network is gone".into(), again: until }, None);
    let event = next(&mut stream).await.unwrap().unwrap();
    assert!(event.failure && event.details.is_none() && event.help.starts_with("The network is gone; "), "{}", event.help);
    // only failures are errors
    let error = next(&mut failures).await.unwrap().unwrap().error.unwrap();
    assert_eq!((error.level(), error.msg), (wire::LogLevel::Error, event.help));
}

#[tokio::test]
async fn peers_and_the_overview() {
    let served = serve(&listeners()).await;
    let private = channel(served.running.private).await;
    let mut admin = AdminServiceClient::new(private.clone());
    let mut stream = admin.peer_info_stream(()).await.unwrap().into_inner();
    let first = next(&mut stream).await.unwrap().unwrap();
    let connection = &first.connections[0];
    assert_eq!((&*first.id, &*connection.address, connection.outbound), ("12D3a", "/ip4/10.0.0.1/tcp/7513", true));
    assert_eq!(connection.uptime.unwrap(), prost_types::Duration { seconds: 61, nanos: 500_000_000 });
    assert_eq!(connection.kind(), wire::connection_info::Kind::Outbound);
    assert_eq!(next(&mut stream).await.unwrap().unwrap().connections[0].kind(), wire::connection_info::Kind::Inbound);
    assert!(next(&mut stream).await.is_none());
    let refused = [
        code(admin.checkpoint_stream(wire::CheckpointStreamRequest::default()).await),
        code(admin.recover(wire::RecoverRequest::default()).await),
    ];
    assert_eq!(refused, [Code::Unimplemented; 2]);

    let mut client = OverviewServiceClient::new(private);
    let overview = client.overview(()).await.unwrap().into_inner();
    assert_eq!((&*overview.peer_id, overview.coinbase.is_empty()), ("12D3self", true));
    assert_eq!((&*overview.version, &*overview.network, overview.synced), ("1.2.3", "mainnet", true));
    assert_eq!((overview.layer, overview.epoch, overview.peers.len()), (14_544, 3, 2));
    let genesis = Preset::Mainnet.genesis().0.unix_time.0;
    assert_eq!(overview.next_epoch.unwrap().seconds, genesis + 56 * 24 * 3600);
    assert_eq!(overview.next_layer.unwrap().seconds, genesis + 14_545 * 300);
    let [first, second] = &overview.identities[..] else { panic!("{overview:?}") };
    assert_eq!((first.state(), first.publish_epoch, &*first.last_error), (IdentityState::PoetRegistered, Some(4), ""));
    assert_eq!(first.deadline.as_ref().unwrap().what, "last moment for a PoET proof");
    assert_eq!((second.state(), &second.deadline, second.last_activation.len()), (IdentityState::Retrying, &None, 0));
    assert_eq!(second.last_error, "no PoET server took the registration");

    let mut get = async |id: &[u8]| client.activation(ActivationRequest { id: id.to_vec() }).await;
    let mut expected = ActivationResponse {
        id: vec![7; 32],
        publish_epoch: 3,
        smesher: vec![1; 32],
        coinbase: known().coinbase.to_text(proto::address::Network::Mainnet),
        units: 40,
        weight: u64::MAX,
        height: 77,
        malicious: false,
    };
    assert_eq!(get(&[7; 32]).await.unwrap().into_inner(), expected);
    served.node.status.lock().unwrap().synced = false;
    expected.malicious = true;
    assert_eq!(get(&[7; 32]).await.unwrap().into_inner(), expected);
    assert_eq!([code(get(&[7; 33]).await), code(get(&[8; 32]).await)], [Code::InvalidArgument, Code::NotFound]);
}

#[tokio::test]
async fn services_of_the_post_listener() {
    let served = serve(&listeners()).await;
    let post = channel(served.running.post).await;
    let states = PostInfoServiceClient::new(post.clone()).post_states(wire::PostStatesRequest {}).await.unwrap();
    assert_eq!(states.into_inner().states[0].state(), wire::post_state::State::Proving);
    let answers = tokio_stream::iter(vec![wire::ServiceResponse::default(); 3]);
    let requests = PostServiceClient::new(post).register(answers).await.unwrap().into_inner();
    assert_eq!(requests.collect::<Vec<_>>().await.len(), 3);
}

async fn services(channel: Channel) -> Vec<String> {
    let question =
        ServerReflectionRequest { host: String::new(), message_request: Some(MessageRequest::ListServices(String::new())) };
    let mut answers =
        ServerReflectionClient::new(channel).server_reflection_info(tokio_stream::once(question)).await.unwrap().into_inner();
    let answer = next(&mut answers).await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = answer else { panic!("{answer:?}") };
    let mut names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    names
}

#[tokio::test]
async fn each_listener_has_its_services_and_no_others() {
    let served = serve(&listeners()).await;
    let running = &served.running;
    let expected: [(_, &[&str]); 3] = [
        (
            running.public,
            &[
                "spacemesh.v1.ActivationService",
                "spacemesh.v1.MeshService",
                "spacemesh.v1.NodeService",
                "spacemesh.v2alpha1.NetworkService",
                "spacemesh.v2alpha1.NodeService",
                "spacemesh.v2beta1.NetworkService",
                "spacemesh.v2beta1.NodeService",
            ],
        ),
        (running.private, &["smesh.node.v1.OverviewService", "spacemesh.v1.AdminService", "spacemesh.v1.SmesherService"]),
        (running.post, &["spacemesh.v1.PostInfoService", "spacemesh.v1.PostService"]),
    ];
    for (address, expected) in expected {
        let channel = channel(address).await;
        // reflection tells the truth
        let listed = services(channel.clone()).await;
        assert_eq!(listed[0], "grpc.health.v1.Health");
        assert_eq!(listed[1..], *expected);
        let mut health = tonic_health::pb::health_client::HealthClient::new(channel.clone());
        for service in expected {
            let request = tonic_health::pb::HealthCheckRequest { service: (*service).to_owned() };
            let serving = tonic_health::pb::health_check_response::ServingStatus::Serving;
            assert_eq!(health.check(request).await.unwrap().into_inner().status(), serving);
        }
        let there = |service: &str| if expected.contains(&service) { Code::Ok } else { Code::Unimplemented };
        let node = code(NodeServiceClient::new(channel.clone()).version(()).await);
        assert_eq!(node, there("spacemesh.v1.NodeService"));
        let mesh = code(MeshServiceClient::new(channel.clone()).current_layer(wire::CurrentLayerRequest {}).await);
        assert_eq!(mesh, there("spacemesh.v1.MeshService"));
        let activation = code(ActivationServiceClient::new(channel.clone()).highest(()).await);
        assert_eq!(activation, there("spacemesh.v1.ActivationService"));
        let smesher = code(SmesherServiceClient::new(channel.clone()).smesher_i_ds(()).await);
        assert_eq!(smesher, there("spacemesh.v1.SmesherService"));
        let admin = code(AdminServiceClient::new(channel.clone()).peer_info_stream(()).await);
        assert_eq!(admin, there("spacemesh.v1.AdminService"));
        let overview = code(OverviewServiceClient::new(channel.clone()).overview(()).await);
        assert_eq!(overview, there("smesh.node.v1.OverviewService"));
        let post = code(PostInfoServiceClient::new(channel.clone()).post_states(wire::PostStatesRequest {}).await);
        assert_eq!(post, there("spacemesh.v1.PostInfoService"));
        let register = PostServiceClient::new(channel).register(tokio_stream::empty()).await;
        assert_eq!(code(register), there("spacemesh.v1.PostService"));
    }
}

#[tokio::test]
async fn reflection_describes_messages_with_what_they_need() {
    let served = serve(&listeners()).await;
    let question = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::FileContainingSymbol("spacemesh.v1.SmesherService".into())),
    };
    let mut older = ServerReflectionClient::new(channel(served.running.private).await);
    let mut answers = older.server_reflection_info(tokio_stream::once(question)).await.unwrap().into_inner();
    let answer = next(&mut answers).await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::FileDescriptorResponse(files) = answer else { panic!("{answer:?}") };
    assert!(!files.file_descriptor_proto.is_empty());
}
