//! Plain Rust: two labels at a time, so that one fills the waits of the other. Any compiler makes 128-bit arithmetic of it.

#![expect(clippy::inline_always, reason = "one body of arithmetic: a call would put all rows into memory")]

use std::array;

use super::Arithmetic;
use crate::label::{
    Block,
    hash::{State, permute_one},
};

/// Labels side by side.
const K: usize = 2;

/// Needs nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Portable;

impl Arithmetic<1> for Portable {
    const GROUP: usize = 1;

    fn permute(self, state: &mut State<1>) {
        permute_one(state);
    }

    fn romix(self, blocks: &mut [Block], v: &mut [Block]) {
        let n = v.len() / K;
        match blocks.as_chunks_mut::<K>() {
            ([pair], []) => romix(pair, v),
            _ => {
                for block in blocks {
                    romix(array::from_mut(block), &mut v[..n]);
                }
            }
        }
    }
}

/// A row of four words of each of `L` labels.
type Row<const L: usize> = [[u32; 4]; L];

/// The rows of a 64-byte block of each label.
type Rows<const L: usize> = [Row<L>; 4];

#[inline(always)]
fn zip<const L: usize>(a: Row<L>, b: Row<L>, f: impl Fn(u32, u32) -> u32) -> Row<L> {
    array::from_fn(|l| array::from_fn(|i| f(a[l][i], b[l][i])))
}

#[inline(always)]
fn turn<const L: usize>(a: Row<L>, k: usize) -> Row<L> {
    a.map(|row| array::from_fn(|i| row[(i + k) % 4]))
}

#[inline(always)]
fn quarter_rounds<const L: usize>([mut a, mut b, mut c, mut d]: Rows<L>) -> Rows<L> {
    a = zip(a, b, u32::wrapping_add);
    d = zip(d, a, |d, a| (d ^ a).rotate_left(16));
    c = zip(c, d, u32::wrapping_add);
    b = zip(b, c, |b, c| (b ^ c).rotate_left(12));
    a = zip(a, b, u32::wrapping_add);
    d = zip(d, a, |d, a| (d ^ a).rotate_left(8));
    c = zip(c, d, u32::wrapping_add);
    b = zip(b, c, |b, c| (b ^ c).rotate_left(7));
    [a, b, c, d]
}

#[inline(always)]
fn chacha<const L: usize>(t: Rows<L>) -> Rows<L> {
    let mut x = t;
    for _ in 0..4 {
        let [a, b, c, d] = quarter_rounds(x);
        let [a, b, c, d] = quarter_rounds([a, turn(b, 1), turn(c, 2), turn(d, 3)]);
        x = [a, turn(b, 3), turn(c, 2), turn(d, 1)];
    }
    array::from_fn(|row| zip(t[row], x[row], u32::wrapping_add))
}

#[inline(always)]
fn xor<const L: usize>(a: Rows<L>, b: Rows<L>) -> Rows<L> {
    array::from_fn(|row| zip(a[row], b[row], |a, b| a ^ b))
}

#[inline(always)]
fn mix<const L: usize>([b0, b1]: [Rows<L>; 2]) -> [Rows<L>; 2] {
    let t0 = chacha(xor(b1, b0));
    [t0, chacha(xor(t0, b1))]
}

#[inline(always)]
fn load<const L: usize>(blocks: [&Block; L]) -> [Rows<L>; 2] {
    array::from_fn(|half| array::from_fn(|row| blocks.map(|block| array::from_fn(|i| block.0[half * 16 + row * 4 + i]))))
}

#[inline(always)]
fn store<const L: usize>(blocks: &mut [Block; L], x: &[Rows<L>; 2]) {
    for (row, words) in x.as_flattened().iter().enumerate() {
        for (block, words) in blocks.iter_mut().zip(words) {
            block.0[row * 4..][..4].copy_from_slice(words);
        }
    }
}

/// Block `i` of label `l` lies at `v[i * L + l]`.
fn romix<const L: usize>(blocks: &mut [Block; L], v: &mut [Block]) {
    let (v, _) = v.as_chunks_mut::<L>();
    let mask = v.len() - 1;
    let mut x = load(blocks.each_ref());
    for vi in v.iter_mut() {
        store(vi, &x);
        x = mix(x);
    }
    for _ in 0..v.len() {
        let vj = load(array::from_fn(|l| &v[x[1][0][l][0] as usize & mask][l]));
        x = mix([xor(x[0], vj[0]), xor(x[1], vj[1])]);
    }
    store(blocks, &x);
}
