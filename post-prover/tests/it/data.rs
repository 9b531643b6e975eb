//! Small data directories.

use std::path::Path;

use kernels::label::{
    Device as _,
    cpu::{Cpu, Isa},
};
use proto::{
    ids::{AtxId, NodeId},
    post::{METADATA_FILE, Metadata, Params, ScryptN, commitment, file_name},
    units::SpaceUnits,
};

/// The first labels of an identity.
pub(crate) fn labels(n: ScryptN, node_id: NodeId, commitment_atx_id: AtxId, count: u64) -> Vec<u8> {
    let mut out = vec![0; count as usize * 16];
    Cpu::new(Isa::best(), n).unwrap().labels(&commitment(&node_id, &commitment_atx_id), 0, &mut out).unwrap();
    out
}

/// Metadata of small data.
pub(crate) fn metadata(seed: u8, params: &Params, units: u32, labels_per_file: u64) -> Metadata {
    Metadata {
        node_id: NodeId([seed; 32]),
        commitment_atx_id: AtxId([seed ^ 0xff; 32]),
        labels_per_unit: params.labels_per_unit,
        num_units: SpaceUnits(units),
        max_file_size: labels_per_file * 16,
        nonce: Some(1),
        nonce_value: None,
        last_position: None,
    }
}

/// Writes metadata and files and returns the labels.
pub(crate) fn write(dir: &Path, metadata: &Metadata, n: ScryptN) -> Vec<u8> {
    let layout = metadata.layout().unwrap();
    let labels = labels(n, metadata.node_id, metadata.commitment_atx_id, layout.num_labels().0);
    for file in 0..layout.file_count() {
        let range = layout.file_labels(file);
        std::fs::write(dir.join(file_name(file)), &labels[range.start as usize * 16..range.end as usize * 16]).unwrap();
    }
    std::fs::write(dir.join(METADATA_FILE), metadata.to_json()).unwrap();
    labels
}
