//! What a node answers to wallets, operators and dashboards (api.md).
//!
//! ```text
//!            public gRPC  Node · Mesh · Activation · Network ┐
//!            JSON         the same, translated ──────────────┤
//!            private gRPC Admin · Smesher · Overview ────────┼──► services ──► trait Node
//!            metrics      Prometheus, /health ───────────────┘
//!            post gRPC, with or without TLS ────────────────────► services handed in by the node
//! ```
//!
//! - [`node`]: the trait through which the services ask the node
//! - [`events`]: what happened, in plain words and as deployed messages
//! - [`listen`]: the listeners, what is served where, and how they end
//! - [`metrics`]: counters of calls and the page of Prometheus
//!
//! Nothing here keeps state of its own but the events of late.

mod accept;
pub mod events;
mod gateway;
mod http;
pub mod listen;
pub mod metrics;
pub mod node;
mod services;
