//! Plain Rust: sixteen labels at a time.
//!
//! A word of all labels is an array, and every step is a loop over it without branches: compilers make vector instructions of
//! that on any target that has them. (Of a loop over eight words they make single words again.)

use super::Arithmetic;
use crate::label::{
    Block,
    hash::{State, permute_one},
};

/// Needs nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Portable;

/// Labels at a time.
const LABELS: usize = 16;

/// One word of all labels.
type Word = [u32; LABELS];

/// A half (B0 or B1) of the blocks of all labels.
type Half = [Word; 16];

impl Arithmetic<1> for Portable {
    const GROUP: usize = LABELS;

    fn permute(self, state: &mut State<1>) {
        permute_one(state);
    }

    fn romix(self, blocks: &mut [Block], v: &mut [Block]) {
        let (rows, _) = v.as_chunks_mut::<LABELS>();
        let mask = rows.len() - 1;
        let mut x = [[[0; LABELS]; 16]; 2];
        for (l, block) in blocks.iter().enumerate() {
            xor_label(&mut x, l, block);
        }
        for row in rows.iter_mut() {
            for (l, block) in row.iter_mut().enumerate() {
                get_label(&x, l, block);
            }
            mix(&mut x);
        }
        for _ in 0..rows.len() {
            for (l, j) in x[1][0].into_iter().enumerate() {
                xor_label(&mut x, l, &rows[j as usize & mask][l]);
            }
            mix(&mut x);
        }
        for (l, block) in blocks.iter_mut().enumerate() {
            get_label(&x, l, block);
        }
    }
}

fn xor_label(x: &mut [Half; 2], l: usize, block: &Block) {
    for (word, from) in x.as_flattened_mut().iter_mut().zip(&block.0) {
        word[l] ^= from;
    }
}

fn get_label(x: &[Half; 2], l: usize, block: &mut Block) {
    for (word, to) in x.as_flattened().iter().zip(&mut block.0) {
        *to = word[l];
    }
}

fn mix([b0, b1]: &mut [Half; 2]) {
    each_lane(b0, b1, |b0, b1| *b0 ^= *b1);
    chacha(b0);
    each_lane(b1, b0, |b1, b0| *b1 ^= *b0);
    chacha(b1);
}

fn each_lane(a: &mut Half, b: &Half, f: impl Fn(&mut u32, &u32)) {
    for (a, b) in a.as_flattened_mut().iter_mut().zip(b.as_flattened()) {
        f(a, b);
    }
}

/// `H`, ChaCha20/8.
fn chacha(x: &mut Half) {
    let input = *x;
    for _ in 0..4 {
        let [x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11, x12, x13, x14, x15] = x;
        quarter_rounds(x0, x4, x8, x12);
        quarter_rounds(x1, x5, x9, x13);
        quarter_rounds(x2, x6, x10, x14);
        quarter_rounds(x3, x7, x11, x15);
        quarter_rounds(x0, x5, x10, x15);
        quarter_rounds(x1, x6, x11, x12);
        quarter_rounds(x2, x7, x8, x13);
        quarter_rounds(x3, x4, x9, x14);
    }
    each_lane(x, &input, |x, input| *x = x.wrapping_add(*input));
}

/// A quarter round of every label. Not inlined: then it is clear to the compiler that the words do not overlap.
#[inline(never)]
fn quarter_rounds(a: &mut Word, b: &mut Word, c: &mut Word, d: &mut Word) {
    for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
        *a = a.wrapping_add(*b);
        *d = (*d ^ *a).rotate_left(16);
        *c = c.wrapping_add(*d);
        *b = (*b ^ *c).rotate_left(12);
        *a = a.wrapping_add(*b);
        *d = (*d ^ *a).rotate_left(8);
        *c = c.wrapping_add(*d);
        *b = (*b ^ *c).rotate_left(7);
    }
}
