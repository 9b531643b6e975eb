//! PBKDF2-HMAC-Keccak-512 with one iteration, for the two lengths the label function needs (`docs/spec/post.md` sections 3.1, 3.2).
//!
//! Written once for any number of labels side by side: a sponge state is 25 rows of `L` words, and the caller brings the
//! Keccak-f\[1600\] permutation for its `L`. Nine permutations per label, the two pad blocks being absorbed once.

use proto::ids::Commitment;

use super::{Block, FullLabel};

/// `L` sponge states side by side: `state[i][l]` is word `i` of label `l`.
pub(super) type State<const L: usize> = [[u64; L]; 25];

/// Words of the rate: 72 bytes.
const RATE: usize = 9;

/// The HMAC key and its place in the two calls of PBKDF2: the sponge states after the key, padded for either hash, was absorbed.
pub(super) struct Key<const L: usize> {
    inner: State<L>,
    outer: State<L>,
}

/// The padding's last bit, in the last byte of the rate.
const PAD_END: u64 = 0x80 << 56;

/// `BE32(i)` followed by the first byte of the padding, as a little-endian word.
const fn block_number(i: u64) -> u64 {
    i << 24 | 1 << 32
}

/// One permutation of the single-label kind.
pub(super) fn permute_one(state: &mut State<1>) {
    let mut words = state.map(|[word]| word);
    keccak::f1600(&mut words);
    *state = words.map(|word| [word]);
}

impl<const L: usize> Key<L> {
    /// The key of each label: `commitment || LE64(index) || 32 zero bytes` is exactly one block of the hash, so it is used as is.
    #[inline]
    pub(super) fn new(jobs: &[(Commitment, u64); L], permute: impl Fn(&mut State<L>)) -> Self {
        let mut password = [[0; L]; RATE];
        for (l, (commitment, index)) in jobs.iter().enumerate() {
            let (words, _) = commitment.as_bytes().as_chunks::<8>();
            for (row, word) in password.iter_mut().zip(words) {
                row[l] = u64::from_le_bytes(*word);
            }
            password[4][l] = *index;
        }
        let absorb = |pad: u8| {
            let mut state = [[0; L]; 25];
            for (row, key) in state.iter_mut().zip(password) {
                *row = key.map(|word| word ^ u64::from_ne_bytes([pad; 8]));
            }
            permute(&mut state);
            state
        };
        Self { inner: absorb(0x36), outer: absorb(0x5c) }
    }

    /// The outer hash over the digest of the inner one, whose last permutation has just been done.
    #[inline]
    fn finish(&self, inner: &State<L>, permute: impl Fn(&mut State<L>)) -> State<L> {
        let mut state = self.outer;
        for (row, digest) in state.iter_mut().zip(&inner[..8]) {
            xor(row, digest);
        }
        xor(&mut state[8], &[PAD_END | 1; L]);
        permute(&mut state);
        state
    }

    /// `T_1 || T_2` with an empty salt: the starting blocks of ROMix.
    #[inline]
    pub(super) fn expand(&self, blocks: &mut [Block; L], permute: impl Fn(&mut State<L>)) {
        for half in 0..2 {
            let mut state = self.inner;
            xor(&mut state[0], &[block_number(half as u64 + 1); L]);
            xor(&mut state[8], &[PAD_END; L]);
            permute(&mut state);
            let digest = self.finish(&state, &permute);
            for (i, row) in digest[..8].iter().enumerate() {
                for (block, word) in blocks.iter_mut().zip(row) {
                    block.0[half * 16 + i * 2] = *word as u32;
                    block.0[half * 16 + i * 2 + 1] = (*word >> 32) as u32;
                }
            }
        }
    }

    /// The first 32 bytes of `T_1` with the mixed blocks as salt.
    #[inline]
    pub(super) fn squeeze(&self, blocks: &[Block; L], labels: &mut [FullLabel; L], permute: impl Fn(&mut State<L>)) {
        let word = |i: usize| blocks.each_ref().map(|block| block.0[i * 2] as u64 | (block.0[i * 2 + 1] as u64) << 32);
        let mut state = self.inner;
        for (i, row) in state[..RATE].iter_mut().enumerate() {
            xor(row, &word(i));
        }
        permute(&mut state);
        // 56 bytes of the salt are left, then the block number and the padding fill the rate.
        for (i, row) in state[..7].iter_mut().enumerate() {
            xor(row, &word(RATE + i));
        }
        xor(&mut state[7], &[block_number(1); L]);
        xor(&mut state[8], &[PAD_END; L]);
        permute(&mut state);
        let digest = self.finish(&state, &permute);
        for (i, row) in digest[..4].iter().enumerate() {
            for (label, word) in labels.iter_mut().zip(row) {
                label[i * 8..][..8].copy_from_slice(&word.to_le_bytes());
            }
        }
    }
}

#[inline]
fn xor<const L: usize>(row: &mut [u64; L], other: &[u64; L]) {
    for (word, other) in row.iter_mut().zip(other) {
        *word ^= other;
    }
}
