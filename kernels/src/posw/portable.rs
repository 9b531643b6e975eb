//! SHA-256 in plain Rust: the reference of the other backends and the fallback of machines without SHA instructions.

use super::{BLOCK, DIGEST_PADDING, INITIAL, K, Words};

pub(super) fn absorb(state: &mut Words, blocks: &[[u8; BLOCK]]) {
    for block in blocks {
        let words = block.as_chunks().0;
        compress(state, std::array::from_fn(|i| u32::from_be_bytes(words[i])));
    }
}

pub(super) fn chain(digest: &mut Words, count: u32) {
    for _ in 0..count {
        let mut message = [0; 16];
        message[..8].copy_from_slice(digest);
        message[8..].copy_from_slice(&DIGEST_PADDING);
        *digest = INITIAL;
        compress(digest, message);
    }
}

/// One compression; `w` is a window of 16 words over the message schedule.
fn compress(state: &mut Words, mut w: [u32; 16]) {
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    for (round, k) in K.into_iter().enumerate() {
        let word = if round < 16 {
            w[round]
        } else {
            let (w2, w15) = (w[(round + 14) % 16], w[(round + 1) % 16]);
            let s0 = w15.rotate_right(7) ^ w15.rotate_right(18) ^ (w15 >> 3);
            let s1 = w2.rotate_right(17) ^ w2.rotate_right(19) ^ (w2 >> 10);
            let word = w[round % 16].wrapping_add(s0).wrapping_add(w[(round + 9) % 16]).wrapping_add(s1);
            w[round % 16] = word;
            word
        };
        let s1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let t1 = h.wrapping_add(s1).wrapping_add((e & f) ^ (!e & g)).wrapping_add(k).wrapping_add(word);
        let s0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let t2 = s0.wrapping_add((a & b) ^ (a & c) ^ (b & c));
        (h, g, f, e, d, c, b, a) = (g, f, e, d.wrapping_add(t1), c, b, a, t1.wrapping_add(t2));
    }
    for (word, new) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
        *word = word.wrapping_add(new);
    }
}
