//! ROMix (`docs/spec/post.md` section 3.3) for registers of any width: what the backends share.
//!
//! A ChaCha state is four rows of four words. A register holds the same row of as many labels as fit ([`Register::LABELS`]), so
//! a quarter round works on all four columns of all these labels, and diagonals become columns by turning rows inside the
//! register. A register alone waits most of the time: a *group* is `SETS` registers' worth of labels whose instructions
//! alternate, to keep the execution ports busy. While a group computes, the next rows of the other groups come from memory:
//! their addresses are known since those groups' last mix, and there are `GROUPS` of them.
//!
//! V keeps each label's 128 bytes together, so that a random read touches two cache lines; block `i` of label `l` of `m` lies at
//! `v[i * m + l]`, so that the fill loop writes one stream.
//!
//! Everything is `#[inline(always)]` into one function per backend that enables the instruction set.

#![expect(clippy::inline_always, reason = "callees must be compiled with the instruction set of the backend's entry function")]

use crate::label::Block;

/// One register: the same row of [`LABELS`](Self::LABELS) labels.
///
/// Values are made by [`load`](Self::load) and [`zero`](Self::zero) only, whose callers vouch for the instruction set; the other
/// functions may rely on it.
pub(super) trait Register: Copy {
    /// Labels per register.
    const LABELS: usize;

    /// All words zero.
    ///
    /// # Safety
    /// The machine has the instruction set of the register.
    #[expect(unsafe_code, reason = "needs instructions that the machine may lack")]
    unsafe fn zero() -> Self;

    /// The four rows of a 64-byte half block of each label.
    ///
    /// # Safety
    /// The machine has the instruction set of the register; `half(l)` for `l < LABELS` may be read for 64 bytes.
    #[expect(unsafe_code, reason = "reads through pointers")]
    unsafe fn load(half: impl Fn(usize) -> *const u32) -> [Self; 4];

    /// The inverse of [`load`](Self::load).
    ///
    /// # Safety
    /// `half(l)` for `l < LABELS` may be written for 64 bytes.
    #[expect(unsafe_code, reason = "writes through pointers")]
    unsafe fn store(rows: [Self; 4], half: impl Fn(usize) -> *mut u32);

    /// Asks for the cache line that will be read.
    fn prefetch_read(line: *const u32);

    /// Asks for the cache line that will be written. By default nothing: hardware sees the stream.
    fn prefetch_write(_line: *const u32) {}

    /// The first word of every label, at the label's place.
    fn first_words(self, words: &mut [u32]);

    /// Word by word.
    fn add(self, other: Self) -> Self;
    /// Word by word.
    fn xor(self, other: Self) -> Self;
    /// Word by word.
    fn xor3(self, b: Self, c: Self) -> Self {
        self.xor(b).xor(c)
    }
    /// Every word to the left by 16, 12, 8 or 7 bits.
    fn rotate<const BITS: i32>(self) -> Self;
    /// Row by row: word `i` becomes word `(i + WORDS) % 4`, `WORDS` being 1, 2 or 3.
    fn turn<const WORDS: i32>(self) -> Self;
}

/// A half block (B0 or B1) of the labels of a group.
type Half<R, const SETS: usize> = [[R; 4]; SETS];

/// `f` for each set.
macro_rules! each {
    ($x:ident: $a:tt = $f:expr) => {
        for x in &mut $x {
            x[$a] = $f(*x);
        }
    };
}

#[inline(always)]
fn quarter_rounds<R: Register, const SETS: usize>(mut x: Half<R, SETS>) -> Half<R, SETS> {
    each!(x: 0 = |[a, b, _, _]: [R; 4]| a.add(b));
    each!(x: 3 = |[a, _, _, d]: [R; 4]| d.xor(a).rotate::<16>());
    each!(x: 2 = |[_, _, c, d]: [R; 4]| c.add(d));
    each!(x: 1 = |[_, b, c, _]: [R; 4]| b.xor(c).rotate::<12>());
    each!(x: 0 = |[a, b, _, _]: [R; 4]| a.add(b));
    each!(x: 3 = |[a, _, _, d]: [R; 4]| d.xor(a).rotate::<8>());
    each!(x: 2 = |[_, _, c, d]: [R; 4]| c.add(d));
    each!(x: 1 = |[_, b, c, _]: [R; 4]| b.xor(c).rotate::<7>());
    x
}

#[inline(always)]
fn double_round<R: Register, const SETS: usize>(x: Half<R, SETS>) -> Half<R, SETS> {
    // Row b is the last to be ready, so it stays and the others turn.
    let x = quarter_rounds(x).map(|[a, b, c, d]| [a.turn::<1>(), b, c.turn::<3>(), d.turn::<2>()]);
    quarter_rounds(x).map(|[a, b, c, d]| [a.turn::<3>(), b, c.turn::<1>(), d.turn::<2>()])
}

/// `H`: ChaCha20/8.
#[inline(always)]
fn chacha<R: Register, const SETS: usize>(t: Half<R, SETS>) -> Half<R, SETS> {
    let x = double_round(double_round(double_round(double_round(t))));
    zip(t, x, R::add)
}

#[inline(always)]
fn zip<R: Register, const SETS: usize>(mut a: Half<R, SETS>, b: Half<R, SETS>, f: impl Fn(R, R) -> R) -> Half<R, SETS> {
    for (a, b) in a.as_flattened_mut().iter_mut().zip(b.as_flattened()) {
        *a = f(*a, *b);
    }
    a
}

/// The working state of a group.
#[derive(Clone, Copy)]
struct Group<R, const SETS: usize> {
    b0: Half<R, SETS>,
    b1: Half<R, SETS>,
}

impl<R: Register, const SETS: usize> Group<R, SETS> {
    /// The second half of `Mix`, when the first has its input: B0 is replaced by `T0 = H(input)`, B1 by `H(T0 ^ B1)`.
    #[inline(always)]
    fn mix(&mut self, input: Half<R, SETS>) {
        self.b0 = chacha(input);
        self.b1 = chacha(zip(self.b0, self.b1, R::xor));
    }
}

/// Rows of V between a store and the wish to store there, in blocks of each label.
const WRITE_AHEAD: usize = 4;

/// ROMix for `GROUPS * SETS * LABELS` labels.
///
/// # Safety
/// The machine has the instruction set of the register.
#[inline(always)]
#[expect(unsafe_code, reason = "vector loads and stores")]
pub(super) unsafe fn romix<R: Register, const SETS: usize, const GROUPS: usize>(blocks: &mut [Block], v: &mut [Block]) {
    let m = GROUPS * SETS * R::LABELS;
    assert!(blocks.len() == m && v.len().is_multiple_of(m));
    let n = v.len() / m;
    assert!(n.is_power_of_two());
    let label = |group: usize, set: usize| (group * SETS + set) * R::LABELS;
    let blocks = blocks.as_mut_ptr().cast::<u32>();
    let v = v.as_mut_ptr().cast::<u32>();
    // Words from the start to a half block.
    let word = |block: usize, half: usize| block * 32 + half * 16;

    // SAFETY: the caller vouches for the instruction set.
    let zero = unsafe { R::zero() };
    let mut groups = [Group { b0: [[zero; 4]; SETS], b1: [[zero; 4]; SETS] }; GROUPS];
    for (g, group) in groups.iter_mut().enumerate() {
        for set in 0..SETS {
            let first = label(g, set);
            // SAFETY: the labels of all sets are within the `m` blocks, which the assertion above counted.
            unsafe {
                group.b0[set] = R::load(|l| blocks.add(word(first + l, 0)));
                group.b1[set] = R::load(|l| blocks.add(word(first + l, 1)));
            }
        }
    }

    for i in 0..n {
        for (g, group) in groups.iter_mut().enumerate() {
            for set in 0..SETS {
                let first = i * m + label(g, set);
                // SAFETY: `i < n` and the labels of all sets are below `m`, so the index is within the `n * m` blocks of `v`.
                unsafe {
                    R::store(group.b0[set], |l| v.add(word(first + l, 0)));
                    R::store(group.b1[set], |l| v.add(word(first + l, 1)));
                }
                for half in 0..2 * R::LABELS {
                    R::prefetch_write(v.wrapping_add(word(first + WRITE_AHEAD * m, half)));
                }
            }
            group.mix(zip(group.b0, group.b1, R::xor));
        }
    }

    // Where in `v` each label reads next.
    let mut rows = [[[0_usize; 4]; SETS]; GROUPS];
    let look_up = |g: usize, group: &Group<R, SETS>, rows: &mut [[usize; 4]; SETS]| {
        for (set, rows) in rows.iter_mut().enumerate() {
            let mut j = [0; 4];
            group.b1[set][0].first_words(&mut j[..R::LABELS]);
            for l in 0..R::LABELS {
                rows[l] = (j[l] as usize & (n - 1)) * m + label(g, set) + l;
                R::prefetch_read(v.wrapping_add(word(rows[l], 0)));
                R::prefetch_read(v.wrapping_add(word(rows[l], 1)));
            }
        }
    };
    for (g, group) in groups.iter().enumerate() {
        look_up(g, group, &mut rows[g]);
    }
    for _ in 0..n {
        for (g, group) in groups.iter_mut().enumerate() {
            let mut input = group.b0;
            for set in 0..SETS {
                let rows = rows[g][set];
                // SAFETY: made by `look_up`: a block number below `n` times `m` plus a label below `m`.
                let (v0, v1) = unsafe { (R::load(|l| v.add(word(rows[l], 0))), R::load(|l| v.add(word(rows[l], 1)))) };
                for row in 0..4 {
                    group.b1[set][row] = group.b1[set][row].xor(v1[row]);
                    input[set][row] = input[set][row].xor3(v0[row], group.b1[set][row]);
                }
            }
            group.mix(input);
            look_up(g, group, &mut rows[g]);
        }
    }

    for (g, group) in groups.iter().enumerate() {
        for set in 0..SETS {
            let first = label(g, set);
            // SAFETY: as for the loads at the start.
            unsafe {
                R::store(group.b0[set], |l| blocks.add(word(first + l, 0)));
                R::store(group.b1[set], |l| blocks.add(word(first + l, 1)));
            }
        }
    }
}
