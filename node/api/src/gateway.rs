//! The services of the public listener as JSON over HTTP (api.md section 2).
//!
//! Nothing is known here of single calls: paths and messages follow from the descriptors of the services, and a call is answered
//! by the same routes that answer gRPC, in this process.

mod json;

use std::{collections::HashMap, sync::Arc};

use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{Method, StatusCode, uri::PathAndQuery},
    response::{IntoResponse, Response},
};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor, prost::Message as _};
use tokio::time::timeout;
use tonic::{
    Code, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    service::Routes,
};

use crate::{
    http::READ_WITHIN,
    listen::{MAX_MESSAGE, Service, StartError},
};

/// Services with paths of their own, and their calls that have one: `POST /v1/<word>/<call>` in small letters. The others are
/// called by their names in gRPC.
const BOUND: [(Service, &str, &[&str]); 3] = [
    (Service::Node, "node", &["Echo", "Version", "Build", "Status"]),
    (
        Service::Mesh,
        "mesh",
        &[
            "GenesisTime",
            "CurrentLayer",
            "CurrentEpoch",
            "GenesisID",
            "EpochNumLayers",
            "LayerDuration",
            "MaxTransactionsPerSecond",
            "AccountMeshDataQuery",
            "LayersQuery",
        ],
    ),
    (
        Service::Smesher,
        "smesher",
        &[
            "IsSmeshing",
            "StartSmeshing",
            "StopSmeshing",
            "SmesherID",
            "SmesherIDs",
            "Coinbase",
            "SetCoinbase",
            "MinGas",
            "SetMinGas",
            "EstimatedRewards",
            "PostSetupStatus",
            "PostSetupProviders",
            "PostConfig",
        ],
    ),
];

/// The calls by their paths, and what answers them.
struct Gateway {
    calls: HashMap<String, MethodDescriptor>,
    routes: Routes,
}

/// The path of a call.
fn path(method: &MethodDescriptor) -> String {
    let service = method.parent_service();
    let bound = BOUND.iter().find(|(bound, ..)| bound.name() == service.full_name());
    match bound {
        Some((_, word, calls)) if calls.contains(&method.name()) => format!("/v1/{word}/{}", method.name().to_lowercase()),
        _ => grpc_path(method),
    }
}

/// How a call is asked for. No call that is asked with GET has parameters yet; those nobody knows are ignored, so all are.
fn verb(method: &MethodDescriptor) -> Method {
    if method.parent_file().package_name() == "spacemesh.v2beta1" { Method::GET } else { Method::POST }
}

fn grpc_path(method: &MethodDescriptor) -> String {
    format!("/{}/{}", method.parent_service().full_name(), method.name())
}

/// Answers the calls of `services`, which `routes` serve as gRPC.
pub(crate) fn router(services: &[Service], routes: Routes) -> Result<Router, StartError> {
    let pool = DescriptorPool::decode(proto::grpc::DESCRIPTORS).map_err(|error| StartError::Descriptors(error.to_string()))?;
    let offered = pool.services().filter(|found| services.iter().any(|service| service.name() == found.full_name()));
    let calls = offered.flat_map(|service| service.methods().collect::<Vec<_>>());
    let calls = calls.map(|method| (path(&method), method)).collect();
    Ok(Router::new().fallback(answer).with_state(Arc::new(Gateway { calls, routes })))
}

async fn answer(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    match gateway.call(request).await {
        Ok(message) => Json(json::print(&message)).into_response(),
        Err(status) => failure(&status),
    }
}

fn failure(status: &Status) -> Response {
    let code = status.code();
    let body = serde_json::json!({ "code": code as i32, "message": status.message(), "details": [] });
    (http_status(code), Json(body)).into_response()
}

/// The status of HTTP for a code of gRPC (api.md section 2).
fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        // a client that went away; the name is nginx's
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl Gateway {
    async fn call(&self, request: Request) -> Result<DynamicMessage, Status> {
        let method = self.calls.get(request.uri().path()).ok_or_else(|| Status::not_found("Not Found"))?;
        let verb = verb(method);
        if request.method() != verb {
            return Err(Status::unimplemented("Method Not Allowed"));
        }
        if method.is_client_streaming() || method.is_server_streaming() {
            return Err(Status::unimplemented("streaming calls are not yet supported in the in-process transport"));
        }
        let body = if verb == Method::GET { Body::empty() } else { request.into_body() };
        let body = timeout(READ_WITHIN, to_bytes(body, MAX_MESSAGE)).await;
        let body = body.map_err(|_| Status::deadline_exceeded("the body did not arrive in time"))?;
        let body =
            body.map_err(|_| Status::resource_exhausted(format!("the body is broken or larger than {MAX_MESSAGE} bytes")))?;
        let message = json::parse(&method.input(), &body)?;
        let path = PathAndQuery::try_from(grpc_path(method)).map_err(|e| Status::internal(e.to_string()))?;
        let mut services = Grpc::new(self.routes.clone()).max_decoding_message_size(usize::MAX);
        let Ok(()) = services.ready().await;
        let answer = services.unary(tonic::Request::new(message), path, Dynamic(method.output())).await?;
        Ok(answer.into_inner())
    }
}

/// Encodes any message, and decodes this kind.
struct Dynamic(MessageDescriptor);

impl Codec for Dynamic {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self(self.0.clone())
    }

    fn decoder(&mut self) -> Self {
        Self(self.0.clone())
    }
}

impl Encoder for Dynamic {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, message: DynamicMessage, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        message.encode(to).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for Dynamic {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        let message = DynamicMessage::decode(self.0.clone(), from).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Some(message))
    }
}
