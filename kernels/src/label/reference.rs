//! One label at a time, in plain Rust, in the words of `docs/spec/post.md` section 3.
//!
//! The other backends are tested against this one, devices are spot-checked with it, and benchmarks take it as the base. It is
//! as fast as one label can be: a row of four words is one 128-bit register, which compilers see on any target.

use std::array;

use proto::{ids::Commitment, post::ScryptN};

use super::{
    Block, FullLabel, Scratch,
    hash::{Key, permute_one},
};

/// The full label of an index. Its first 16 bytes are the stored label.
///
/// # Panics
/// When `scratch` was made for a smaller N.
pub fn full_label(commitment: &Commitment, index: u64, n: ScryptN, scratch: &mut Scratch) -> FullLabel {
    full_label_in(commitment, index, &mut scratch.blocks()[..n.get() as usize])
}

/// The same with N blocks of memory.
pub(super) fn full_label_in(commitment: &Commitment, index: u64, v: &mut [Block]) -> FullLabel {
    let key = Key::new(&[(*commitment, index)], permute_one);
    let mut blocks = [Block::ZERO];
    key.expand(&mut blocks, permute_one);
    romix(&mut blocks[0], v);
    let mut labels = [[0; 32]];
    key.squeeze(&blocks, &mut labels, permute_one);
    labels[0]
}

/// Four words of a ChaCha state, which is four rows.
type Row = [u32; 4];

fn add(a: Row, b: Row) -> Row {
    array::from_fn(|i| a[i].wrapping_add(b[i]))
}

fn xor(a: Row, b: Row) -> Row {
    array::from_fn(|i| a[i] ^ b[i])
}

fn rotate_bits<const K: u32>(a: Row) -> Row {
    a.map(|word| word.rotate_left(K))
}

fn rotate_words<const K: usize>(a: Row) -> Row {
    array::from_fn(|i| a[(i + K) % 4])
}

/// Four quarter rounds, one per column.
#[inline]
fn quarter_rounds([mut a, mut b, mut c, mut d]: [Row; 4]) -> [Row; 4] {
    a = add(a, b);
    d = rotate_bits::<16>(xor(d, a));
    c = add(c, d);
    b = rotate_bits::<12>(xor(b, c));
    a = add(a, b);
    d = rotate_bits::<8>(xor(d, a));
    c = add(c, d);
    b = rotate_bits::<7>(xor(b, c));
    [a, b, c, d]
}

/// `H`: ChaCha20/8 on a block of 16 words.
#[inline]
fn chacha(t: [Row; 4]) -> [Row; 4] {
    let mut x = t;
    for _ in 0..4 {
        let [a, b, c, d] = quarter_rounds(x);
        // Turning the rows makes columns of the diagonals.
        let [a, b, c, d] = quarter_rounds([a, rotate_words::<1>(b), rotate_words::<2>(c), rotate_words::<3>(d)]);
        x = [a, rotate_words::<3>(b), rotate_words::<2>(c), rotate_words::<1>(d)];
    }
    array::from_fn(|i| add(t[i], x[i]))
}

/// The two 64-byte blocks B0 and B1.
type Pair = [[Row; 4]; 2];

fn xor_block(a: [Row; 4], b: [Row; 4]) -> [Row; 4] {
    array::from_fn(|i| xor(a[i], b[i]))
}

#[inline]
fn mix([b0, b1]: Pair) -> Pair {
    let t0 = chacha(xor_block(b1, b0));
    let t1 = chacha(xor_block(t0, b1));
    [t0, t1]
}

fn load(block: &Block) -> Pair {
    array::from_fn(|b| array::from_fn(|row| array::from_fn(|i| block.0[b * 16 + row * 4 + i])))
}

fn store(block: &mut Block, x: &Pair) {
    for (words, row) in block.0.chunks_exact_mut(4).zip(x.as_flattened()) {
        words.copy_from_slice(row);
    }
}

/// Section 3.3; `v` has N blocks.
fn romix(block: &mut Block, v: &mut [Block]) {
    let mask = v.len() - 1;
    let mut x = load(block);
    for vi in v.iter_mut() {
        store(vi, &x);
        x = mix(x);
    }
    for _ in 0..v.len() {
        let j = x[1][0][0] as usize & mask;
        let vj = load(&v[j]);
        x = mix([xor_block(x[0], vj[0]), xor_block(x[1], vj[1])]);
    }
    store(block, &x);
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// `label_intermediates.json`: what happens between the hashes.
    #[test]
    fn intermediate_values_match_the_vectors() {
        let file: serde_json::Value =
            serde_json::from_str(include_str!("../../testdata/label_intermediates.json")).expect("json");
        let vectors = file["vectors"].as_array().expect("vectors");
        assert_eq!(vectors.len(), 5);
        for vector in vectors {
            let bytes = |name: &str| hex::decode(vector[name].as_str().expect("text")).expect("hex");
            let block = |name: &str| {
                let words: Vec<u32> = bytes(name).as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
                Block(words.try_into().expect("128 bytes"))
            };
            let index: u64 = vector["index"].as_str().expect("text").parse().expect("number");
            let n = vector["n"].as_u64().expect("number") as usize;
            let job = (Commitment(bytes("commitment").try_into().expect("32 bytes")), index);

            let permutations = Cell::new(0);
            let permute = |state: &mut _| {
                permutations.set(permutations.get() + 1);
                permute_one(state);
            };
            let key = Key::new(&[job], permute);
            let mut blocks = [Block::ZERO];
            key.expand(&mut blocks, permute);
            assert_eq!(blocks[0], block("pbkdf2_first_128"));

            let mut mixed = load(&blocks[0]);
            let mut v = vec![Block::ZERO; n];
            romix(&mut blocks[0], &mut v);
            assert_eq!(v[1], block("v1_after_first_chunkmix"));
            assert_eq!(blocks[0], block("x_after_romix_128"));
            for _ in 0..n {
                mixed = mix(mixed);
            }
            let mut after_fill = Block::ZERO;
            store(&mut after_fill, &mixed);
            assert_eq!(after_fill, block("x_after_fill"));
            assert_eq!(u64::from(after_fill.0[16]) & (n as u64 - 1), vector["first_j"].as_u64().expect("number"));

            let mut labels = [[0; 32]];
            key.squeeze(&blocks, &mut labels, permute);
            assert_eq!(labels[0].as_slice(), bytes("label32"));
            assert_eq!(permutations.get(), 9);
        }
    }
}
