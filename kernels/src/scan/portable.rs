//! The scan through the `aes` crate: runs everywhere and is what the other backends are tested against.

use aes::{
    Aes128,
    cipher::{Array, BlockCipherEncrypt as _, KeyInit as _},
};

use super::{
    Candidate, LABEL_BYTES, LSB_MASK, NONCES_PER_GROUP, Ops, candidate_offset, keep, keys::RoundKeys, label_at, set_masks,
};

pub(super) const OPS: Ops = Ops { masks, set_masks, lazy };

fn cipher(keys: &RoundKeys) -> Aes128 {
    Aes128::new(&Array::from(*keys.key()))
}

/// Encrypts one block.
pub(super) fn encrypt(keys: &RoundKeys, block: &[u8; 16]) -> [u8; 16] {
    let mut block = Array::from(*block);
    cipher(keys).encrypt_block(&mut block);
    block.into()
}

/// The 56 bits a lazy cipher gives for a label.
pub(super) fn lazy_bits(keys: &RoundKeys, label: &[u8; 16]) -> u64 {
    u128::from_le_bytes(encrypt(keys, label)) as u64 & LSB_MASK
}

fn masks(keys: &RoundKeys, labels: &[u8], below: u8, masks: &mut [u64], _ahead: &[u8]) {
    let cipher = cipher(keys);
    let mut buffer = [Array::default(); 64];
    for (labels, masks) in labels.chunks(64 * LABEL_BYTES).zip(masks.chunks_mut(16)) {
        let buffer = &mut buffer[..labels.len() / LABEL_BYTES];
        for (block, label) in buffer.iter_mut().zip(labels.chunks_exact(LABEL_BYTES)) {
            block.copy_from_slice(label);
        }
        cipher.encrypt_blocks(buffer);
        for (blocks, mask) in buffer.chunks_exact(4).zip(masks) {
            *mask = 0;
            for (i, byte) in blocks.iter().flatten().enumerate() {
                *mask |= u64::from(*byte < below) << i;
            }
        }
    }
}

fn lazy(keys: &[RoundKeys; NONCES_PER_GROUP as usize], labels: &[u8], candidates: &mut [Candidate], below: u64) -> usize {
    keep(candidates, |candidate| {
        label_at(labels, candidate).is_some_and(|label| lazy_bits(&keys[candidate_offset(candidate)], label) < below)
    })
}
