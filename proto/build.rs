//! Generates the messages and services of the `.proto` files, without protoc.

#[cfg(feature = "grpc")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = [
        "proto/spacemesh/v1/activation.proto",
        "proto/spacemesh/v1/admin.proto",
        "proto/spacemesh/v1/mesh.proto",
        "proto/spacemesh/v1/node.proto",
        "proto/spacemesh/v1/post.proto",
        "proto/spacemesh/v1/smesher.proto",
        "proto/spacemesh/v2alpha1/network.proto",
        "proto/spacemesh/v2alpha1/node.proto",
        "proto/spacemesh/v2beta1/network.proto",
        "proto/spacemesh/v2beta1/node.proto",
        "proto/rpc/api/v1/api.proto",
        "proto/smesh/node/v1/status.proto",
        "proto/smesh/poet/v1/link.proto",
    ];
    let files = protox::compile(files, ["proto"])?;
    // servers answer reflection queries from this
    let descriptors = std::path::Path::new(&std::env::var("OUT_DIR")?).join("descriptors.bin");
    std::fs::write(descriptors, prost::Message::encode_to_vec(&files))?;
    tonic_prost_build::configure().compile_fds(files)?;
    Ok(())
}

#[cfg(not(feature = "grpc"))]
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
}
