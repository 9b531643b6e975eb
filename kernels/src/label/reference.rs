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
    let key = Key::new(&[(*commitment, index)], permute_one);
    let mut blocks = [Block::ZERO];
    key.expand(&mut blocks, permute_one);
    romix(&mut blocks[0], &mut scratch.blocks()[..n.get() as usize]);
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
