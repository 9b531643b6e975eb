//! All calls over real sockets, with a node that is made up.

mod fake;
mod grpc;
mod json;
mod limits;
mod tls;
mod wire;
