//! Every turn of the protocol, and services that do not keep to it (activation.md section 5).

use std::time::{Duration, Instant};

use activation::{
    builder::PostAnswer,
    post_service::{Broken, PostEvent, PostServices, ProveError, State, Timing},
};
use proto::{
    grpc::spacemesh_v1::{
        GenProofResponse, GenProofStatus, Metadata, PostStatesRequest, Proof, post_info_service_client::PostInfoServiceClient,
        post_state,
    },
    ids::{AtxId, NodeId},
    units::{Labels, SpaceUnits, VrfNonce},
};
use tokio::{task::JoinHandle, time::timeout};
use tonic::Code;

use crate::service::{A, B, Node, PATIENCE, QUICK, Service, done, metadata, pending, wait};

type Proving = JoinHandle<Result<PostAnswer, ProveError>>;

fn prove(services: &PostServices, id: NodeId, challenge: [u8; 32]) -> Proving {
    let services = services.clone();
    tokio::spawn(async move { services.prove(&id, challenge).await })
}

async fn outcome(proving: Proving) -> Result<PostAnswer, ProveError> {
    timeout(PATIENCE, proving).await.expect("it hangs").unwrap()
}

fn state(node: &Node, id: NodeId) -> State {
    node.services.states().into_iter().find(|state| state.id == id).unwrap().state
}

#[tokio::test]
async fn a_proof_in_turns() {
    let node = Node::start(QUICK).await;
    let (mut events, proving) = (node.services.events(), node.services.proving());
    let asked = prove(&node.services, A, [1; 32]);
    // Nobody is there: the state says that a service is needed.
    wait("state", || state(&node, A) == State::Proving).await;
    assert_eq!(*proving.borrow(), 0);
    let mut info = PostInfoServiceClient::connect(node.endpoint()).await.unwrap();
    let states = info.post_states(PostStatesRequest {}).await.unwrap().into_inner().states;
    let shown: Vec<_> = states.iter().map(|one| (one.id.clone(), one.state(), one.name.as_str())).collect();
    let (proving_now, idle) = (post_state::State::Proving, post_state::State::Idle);
    assert_eq!(shown, [(A.0.to_vec(), proving_now, "a.key"), (B.0.to_vec(), idle, "b.key")]);

    let mut service = node.service(A).await;
    for _ in 0..3 {
        assert_eq!(service.challenge().await, [1; 32]);
        assert_eq!(*proving.borrow(), 1);
        service.say_proof(pending()).await;
    }
    assert_eq!(service.challenge().await, [1; 32]);
    service.say_proof(done(A, &[1; 32])).await;
    let answer = outcome(asked).await.unwrap();
    let expected = PostAnswer {
        post: proto::post::Proof { nonce: 3, indices: vec![1, 2, 3], pow: 9 },
        num_units: SpaceUnits(5),
        labels_per_unit: Labels(128),
        commitment: AtxId([7; 32]),
        vrf_nonce: Some(VrfNonce(77)),
    };
    assert_eq!(answer, expected);
    assert_eq!((state(&node, A), *proving.borrow()), (State::Idle, 0));
    assert_eq!(events.recv().await.unwrap(), PostEvent::Start { id: A, challenge: [1; 32] });
    assert_eq!(events.recv().await.unwrap(), PostEvent::Complete { id: A, challenge: [1; 32] });
    assert!(events.try_recv().is_err(), "each of them once");

    // the same service again, for data without a VRF nonce
    let asked = prove(&node.services, A, [2; 32]);
    assert_eq!(service.challenge().await, [2; 32]);
    let mut response = done(A, &[2; 32]);
    response.metadata.as_mut().unwrap().meta.as_mut().unwrap().nonce = None;
    service.say_proof(response).await;
    assert_eq!(outcome(asked).await.unwrap().vrf_nonce, None);

    assert_eq!(outcome(prove(&node.services, NodeId([9; 32]), [1; 32])).await, Err(ProveError::NotRegistered(NodeId([9; 32]))));
}

#[tokio::test]
async fn identities_do_not_wait_for_each_other() {
    let node = Node::start(QUICK).await;
    let (mut one, mut two) = (node.service(A).await, node.service(B).await);
    let (of_one, of_two) = (prove(&node.services, A, [1; 32]), prove(&node.services, B, [2; 32]));
    assert_eq!(one.challenge().await, [1; 32]);
    assert_eq!(two.challenge().await, [2; 32]);
    assert_eq!(*node.services.proving().borrow(), 2);
    // the first never answers
    two.say_proof(done(B, &[2; 32])).await;
    outcome(of_two).await.unwrap();
    assert!(!of_one.is_finished());
    assert_eq!((state(&node, A), state(&node, B)), (State::Proving, State::Idle));
    drop(one);
}

#[tokio::test]
async fn only_services_of_own_identities_and_one_of_each() {
    let node = Node::start(QUICK).await;
    node.services.allow(false);
    let refused = Service::over(node.endpoint()).await.err().unwrap();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(refused.message(), "connection not allowed: node has no coinbase set in config");
    node.services.allow(true);

    let mut stranger = node.dial().await;
    stranger.register(NodeId([9; 32])).await;
    let refused = stranger.end().await;
    assert_eq!(refused.code(), Code::NotFound);
    assert!(refused.message().contains(&"09".repeat(32)), "{refused}");

    let mut first = node.service(A).await;
    let mut second = node.dial().await;
    second.register(A).await;
    let refused = second.end().await;
    assert_eq!((refused.code(), refused.message()), (Code::Unknown, "post service already registered"));

    // the first is not disturbed by any of that, nor by a later ban of new ones
    node.services.allow(false);
    let asked = prove(&node.services, A, [1; 32]);
    assert_eq!(first.challenge().await, [1; 32]);
    first.say_proof(done(A, &[1; 32])).await;
    outcome(asked).await.unwrap();

    // a place is free again when its service has left
    node.services.allow(true);
    drop(first);
    wait("it has left", || !node.is_connected(A)).await;
    node.service(A).await;
}

/// Lets the service of [`A`] give this answer.
async fn answered(node: &Node, response: GenProofResponse) -> Result<PostAnswer, ProveError> {
    let mut service = node.service(A).await;
    let asked = prove(&node.services, A, [1; 32]);
    assert_eq!(service.challenge().await, [1; 32]);
    service.say_proof(response).await;
    let outcome = outcome(asked).await;
    drop(service);
    wait("it has left", || !node.is_connected(A)).await;
    outcome
}

#[tokio::test]
async fn answers_are_checked() {
    let node = Node::start(QUICK).await;
    let mut events = node.services.events();
    let right = done(A, &[1; 32]);
    answered(&node, right.clone()).await.unwrap();
    assert_eq!(state(&node, A), State::Idle);

    let status = |status: i32| GenProofResponse { status, ..right.clone() };
    assert_eq!(answered(&node, status(GenProofStatus::Error.into())).await, Err(ProveError::Failed));
    assert_eq!(state(&node, A), State::Proving, "the caller tries again");
    assert_eq!(answered(&node, status(0)).await, Err(ProveError::Status(0)));
    assert_eq!(answered(&node, status(9)).await, Err(ProveError::Status(9)));
    let other = ProveError::OtherChallenge { asked: [1; 32], got: vec![2; 32] };
    assert_eq!(answered(&node, done(A, &[2; 32])).await, Err(other));
    let short = ProveError::OtherChallenge { asked: [1; 32], got: vec![1; 31] };
    assert_eq!(answered(&node, done(A, &[1; 31])).await, Err(short));
    let bare = GenProofResponse { metadata: None, ..right.clone() };
    assert_eq!(answered(&node, bare).await, Err(ProveError::NoMetadata));
    assert_eq!(answered(&node, done(B, &[1; 32])).await, Err(ProveError::OtherIdentity(B)));

    let with = |change: &dyn Fn(&mut Metadata)| {
        let mut response = right.clone();
        change(response.metadata.as_mut().unwrap().meta.as_mut().unwrap());
        response
    };
    let bad = answered(&node, with(&|meta| meta.commitment_atx_id = vec![1; 33])).await;
    assert!(matches!(bad, Err(ProveError::Broken(Broken::Metadata(_)))), "{bad:?}");
    let bad = answered(&node, with(&|meta| meta.node_id.clear())).await;
    assert!(matches!(bad, Err(ProveError::Broken(Broken::Metadata(_)))), "{bad:?}");
    let long = Proof { nonce: 1, indices: vec![0; 801], pow: 1 };
    assert_eq!(answered(&node, GenProofResponse { proof: Some(long), ..right.clone() }).await, Err(ProveError::TooLong(801)));

    // each of them was told
    let mut failures = 0;
    while let Ok(event) = events.try_recv() {
        failures += usize::from(matches!(event, PostEvent::Failure { id: A, challenge, .. } if challenge == [1; 32]));
    }
    assert_eq!(failures, 10);
}

#[tokio::test]
async fn whoever_breaks_the_order_is_sent_away() {
    let node = Node::start(QUICK).await;
    let ended = async |service: &mut Service| {
        let status = service.end().await;
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    };
    // a proof, nothing, or bad metadata where metadata was asked for
    let mut service = node.dial().await;
    service.asked().await.unwrap();
    service.say_proof(pending()).await;
    ended(&mut service).await;
    let mut service = node.dial().await;
    service.asked().await.unwrap();
    service.say_metadata(None).await;
    ended(&mut service).await;
    let mut service = node.dial().await;
    service.asked().await.unwrap();
    service.say_metadata(Some(Metadata { node_id: vec![0xa; 31], ..metadata(A) })).await;
    ended(&mut service).await;

    // an answer without a question
    let mut service = node.service(A).await;
    service.say_proof(done(A, &[1; 32])).await;
    ended(&mut service).await;
    wait("it is forgotten", || !node.is_connected(A)).await;

    // metadata where a proof was asked for
    let mut service = node.service(A).await;
    let asked = prove(&node.services, A, [1; 32]);
    service.challenge().await;
    service.say_metadata(Some(metadata(A))).await;
    ended(&mut service).await;
    assert_eq!(outcome(asked).await, Err(ProveError::Broken(Broken::OtherAnswer)));

    // the place is free for one that keeps to it
    answered(&node, done(A, &[1; 32])).await.unwrap();
}

#[tokio::test]
async fn silence_has_an_end() {
    let limit = Duration::from_millis(300);
    let node = Node::start(Timing { metadata: limit, ..QUICK }).await;
    let mut service = node.dial().await;
    service.asked().await.unwrap();
    assert_eq!(service.end().await.code(), Code::DeadlineExceeded);

    let node = Node::start(Timing { answer: limit, ..QUICK }).await;
    let mut service = node.service(A).await;
    let asked = prove(&node.services, A, [1; 32]);
    service.challenge().await;
    assert_eq!(outcome(asked).await, Err(ProveError::Broken(Broken::Silent(limit))));
    assert_eq!(service.end().await.code(), Code::DeadlineExceeded);
    assert!(!node.is_connected(A));
}

#[tokio::test]
async fn messages_have_a_limit() {
    const HUGE: usize = 100_000_000;
    let node = Node::start(QUICK).await;
    let mut service = node.dial().await;
    service.asked().await.unwrap();
    service.say_metadata(Some(Metadata { commitment_atx_id: vec![1; HUGE], ..metadata(A) })).await;
    assert_eq!(service.end().await.code(), Code::InvalidArgument);

    let huge = Proof { nonce: 1, indices: vec![1; HUGE], pow: 1 };
    let refused = answered(&node, GenProofResponse { proof: Some(huge), ..pending() }).await;
    assert!(matches!(refused, Err(ProveError::Broken(Broken::Message(_)))), "{refused:?}");
    answered(&node, done(A, &[1; 32])).await.unwrap();
}

#[tokio::test]
async fn a_service_that_comes_back_is_asked_again() {
    let node = Node::start(QUICK).await;
    let mut events = node.services.events();
    let asked = prove(&node.services, A, [1; 32]);
    for _ in 0..3 {
        let mut service = node.service(A).await;
        assert_eq!(service.challenge().await, [1; 32]);
        service.say_proof(pending()).await;
        assert_eq!(service.challenge().await, [1; 32]);
        // leaves without an answer
        drop(service);
        wait("it has left", || !node.is_connected(A)).await;
    }
    let mut service = node.service(A).await;
    assert_eq!(service.challenge().await, [1; 32]);
    service.say_proof(done(A, &[1; 32])).await;
    outcome(asked).await.unwrap();
    assert_eq!(events.recv().await.unwrap(), PostEvent::Start { id: A, challenge: [1; 32] });
    assert_eq!(events.recv().await.unwrap(), PostEvent::Complete { id: A, challenge: [1; 32] });
}

#[tokio::test]
async fn a_caller_that_leaves_does_no_harm() {
    let node = Node::start(QUICK).await;
    // while nobody is connected
    let asked = prove(&node.services, A, [1; 32]);
    wait("state", || state(&node, A) == State::Proving).await;
    asked.abort();
    // while an answer is outstanding
    let mut service = node.service(A).await;
    let asked = prove(&node.services, A, [2; 32]);
    assert_eq!(service.challenge().await, [2; 32]);
    asked.abort();
    wait("nobody is proving", || *node.services.proving().borrow() == 0).await;
    node.services.set_idle(&A);
    assert_eq!(state(&node, A), State::Idle);
    // another challenge waits for that answer, as there is only one question at a time
    let asked = prove(&node.services, A, [3; 32]);
    assert!(timeout(Duration::from_millis(300), service.challenge()).await.is_err(), "two questions at a time");
    service.say_proof(done(A, &[2; 32])).await;
    assert_eq!(service.challenge().await, [3; 32]);
    service.say_proof(done(A, &[3; 32])).await;
    outcome(asked).await.unwrap();
    // two callers take turns
    let (one, two) = (prove(&node.services, A, [4; 32]), prove(&node.services, A, [5; 32]));
    for _ in 0..2 {
        let challenge = service.challenge().await;
        service.say_proof(pending()).await;
        assert_eq!(service.challenge().await, challenge, "the second waits for the first");
        service.say_proof(done(A, &challenge)).await;
    }
    outcome(one).await.unwrap();
    outcome(two).await.unwrap();
}

#[tokio::test]
async fn stopping_ends_streams_and_waiting() {
    let node = Node::start(QUICK).await;
    let mut service = node.service(A).await;
    let (with, without) = (prove(&node.services, A, [1; 32]), prove(&node.services, B, [1; 32]));
    service.challenge().await;
    let _silent = node.dial().await;
    let told = Instant::now();
    node.stop.send_replace(true);
    timeout(PATIENCE, node.serving).await.expect("it does not stop").unwrap();
    assert!(told.elapsed() < Duration::from_secs(2), "{:?}", told.elapsed());
    assert_eq!(service.end().await.code(), Code::Unavailable);
    assert_eq!(outcome(with).await, Err(ProveError::Stopping));
    assert_eq!(outcome(without).await, Err(ProveError::Stopping));
}
