//! ROMix (`docs/spec/post.md` section 3.3) for registers of any width: what the backends share.
//!
//! A register holds one word of as many labels as it has lanes ([`Register::LABELS`]), and these labels are a *group*: ChaCha
//! needs no shuffles then, its 16 words are 16 registers. The memory V on the other hand keeps the 128 bytes of a label
//! together, so that a random read touches two cache lines; words are transposed on the way in and out. That is work for other
//! execution ports than the arithmetic, so it is cut into eight parts and put between the eight double rounds of a mix
//! ([`Meanwhile`]): the fill loop stores the blocks that the current mix started from, the second loop fetches the rows
//! for the next group.
//!
//! Everything is `#[inline(always)]` into one function per backend that enables the instruction set.

#![expect(unsafe_code, reason = "vector loads and stores")]
#![expect(clippy::inline_always, reason = "callees must be compiled with the instruction set of the backend's entry function")]

use crate::label::Block;

/// One register: the same word of [`LABELS`](Self::LABELS) labels.
///
/// Values are made by [`zero`](Self::zero) and [`load`](Self::load) only, whose callers vouch for the instruction set; the other
/// functions may rely on it.
pub(super) trait Register: Copy {
    /// Labels per register.
    const LABELS: usize;

    /// All words zero.
    ///
    /// # Safety
    /// The machine has the instruction set of the register.
    unsafe fn zero() -> Self;

    /// Four consecutive words of each label, `quad(l)` being those of label `l`.
    ///
    /// # Safety
    /// The machine has the instruction set of the register; four words may be read at `quad(l)` for each `l < LABELS`.
    unsafe fn load(quad: impl Fn(usize) -> *const u32) -> [Self; 4];

    /// The inverse of [`load`](Self::load).
    ///
    /// # Safety
    /// Four words may be written at `quad(l)` for each `l < LABELS`.
    unsafe fn store(words: [Self; 4], quad: impl Fn(usize) -> *mut u32);

    /// The word of each label.
    fn write(self, words: &mut [u32]);

    /// The sum, lane by lane.
    fn add(self, other: Self) -> Self;

    /// The exclusive or.
    fn xor(self, other: Self) -> Self;

    /// The exclusive or of three.
    #[inline(always)]
    fn xor3(self, b: Self, c: Self) -> Self {
        self.xor(b).xor(c)
    }

    /// Every word to the left by 16, 12, 8 or 7 bits.
    fn rotate<const BITS: i32>(self) -> Self;
}

/// Asks for a cache line that will be read.
#[inline(always)]
pub(super) fn prefetch_read(line: *const u32) {
    // SAFETY: a prefetch has no effect on memory and does not fault. On ARM there is no stable intrinsic for it.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line.cast());
        #[cfg(target_arch = "aarch64")]
        std::arch::asm!("prfm pldl1keep, [{line}]", line = in(reg) line, options(nostack, preserves_flags, readonly));
    }
}

/// Asks for a cache line that will be written. Only x86-64 gains by it.
#[inline(always)]
fn prefetch_write(line: *const u32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch has no effect on memory and does not fault.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_ET0 }>(line.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// A 64-byte half (B0 or B1) of the blocks of a group: one register per word.
type Half<R> = [R; 16];

/// Something to do between the double rounds, in four steps.
trait Meanwhile {
    /// Does step 0, 1, 2 or 3.
    ///
    /// # Safety
    /// As the implementation says.
    unsafe fn step(&mut self, step: usize);
}

/// Nothing to do.
struct Nothing;

impl Meanwhile for Nothing {
    #[inline(always)]
    unsafe fn step(&mut self, _step: usize) {}
}

macro_rules! quarter_rounds {
    ($x:ident: $(($a:literal, $b:literal, $c:literal, $d:literal)),*) => {$(
        $x[$a] = $x[$a].add($x[$b]);
        $x[$d] = $x[$d].xor($x[$a]).rotate::<16>();
        $x[$c] = $x[$c].add($x[$d]);
        $x[$b] = $x[$b].xor($x[$c]).rotate::<12>();
        $x[$a] = $x[$a].add($x[$b]);
        $x[$d] = $x[$d].xor($x[$a]).rotate::<8>();
        $x[$c] = $x[$c].add($x[$d]);
        $x[$b] = $x[$b].xor($x[$c]).rotate::<7>();
    )*};
}

/// `H`, ChaCha20/8.
#[inline(always)]
unsafe fn chacha<R: Register>(input: &Half<R>, mut meanwhile: impl Meanwhile) -> Half<R> {
    let mut x = *input;
    for step in 0..4 {
        quarter_rounds!(x: (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15));
        quarter_rounds!(x: (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14));
        // SAFETY: the caller's promise.
        unsafe { meanwhile.step(step) };
    }
    for (x, input) in x.iter_mut().zip(input) {
        *x = x.add(*input);
    }
    x
}

/// The blocks of a group.
#[repr(align(64))]
struct Group<R> {
    b0: Half<R>,
    b1: Half<R>,
    /// `B0 ^ B1` of what is mixed next, which in the second loop is `X ^ V[j]`.
    input: Half<R>,
    /// B1 of what is mixed next.
    next_b1: Half<R>,
    /// Where in V each label reads next, in words.
    rows: [usize; 16],
}

impl<R: Register> Group<R> {
    /// # Safety
    /// The machine has the instruction set of the register; there are `LABELS` blocks.
    #[inline(always)]
    unsafe fn load(blocks: &[Block]) -> Self {
        let blocks = blocks.as_ptr().cast::<u32>();
        // SAFETY: the caller's promise.
        let zero = [unsafe { R::zero() }; 16];
        let mut group = Self { b0: zero, b1: zero, input: zero, next_b1: zero, rows: [0; 16] };
        for (half, to) in [&mut group.b0, &mut group.b1].into_iter().enumerate() {
            for (quad, to) in to.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                // SAFETY: there is a block for each label, and the eight quads are its 32 words.
                *to = unsafe { R::load(|l| blocks.add(l * 32 + half * 16 + quad * 4)) };
            }
        }
        group
    }

    /// # Safety
    /// There are `LABELS` blocks.
    #[inline(always)]
    unsafe fn store(&self, blocks: &mut [Block]) {
        let blocks = blocks.as_mut_ptr().cast::<u32>();
        for (half, from) in [&self.b0, &self.b1].into_iter().enumerate() {
            for (quad, from) in from.as_chunks::<4>().0.iter().enumerate() {
                // SAFETY: as in `load`.
                unsafe { R::store(*from, |l| blocks.add(l * 32 + half * 16 + quad * 4)) };
            }
        }
    }
}

/// Stores one half of the blocks of a group to their row of V.
struct Store<'a, R> {
    half: &'a Half<R>,
    /// The first label's half.
    row: *mut u32,
    /// Words from here to what will be stored some mixes later.
    ahead: usize,
}

impl<R: Register> Meanwhile for Store<'_, R> {
    /// # Safety
    /// `row` and the `LABELS - 1` rows after it may be written.
    #[inline(always)]
    unsafe fn step(&mut self, step: usize) {
        let words = [0, 1, 2, 3].map(|i| self.half[step * 4 + i]);
        // SAFETY: the four steps write the 16 words of the half; labels are 32 words apart.
        unsafe { R::store(words, |l| self.row.add(l * 32 + step * 4)) };
        for line in 0..R::LABELS / 4 {
            prefetch_write(self.row.wrapping_add(self.ahead + (step * R::LABELS / 4 + line) * 32));
        }
    }
}

/// Mixes between asking for a cache line to write and writing it.
const WRITE_AHEAD: usize = 4;

/// The first loop: fills `v` and mixes as often as `v` has rows.
///
/// # Safety
/// The machine has the instruction set of the register.
#[inline(always)]
pub(super) unsafe fn fill<R: Register>(blocks: &mut [Block], v: &mut [Block]) {
    assert!(blocks.len() == R::LABELS);
    // SAFETY: the caller vouches for the instruction set, and the assertion for the number of blocks.
    let mut x = unsafe { Group::<R>::load(blocks) };
    for row in v.chunks_exact_mut(R::LABELS) {
        let row = row.as_mut_ptr().cast::<u32>();
        let ahead = WRITE_AHEAD * R::LABELS * 32;
        for (input, (b0, b1)) in x.input.iter_mut().zip(x.b0.iter().zip(&x.b1)) {
            *input = b0.xor(*b1);
        }
        // SAFETY: a row is a block for each label.
        let t0 = unsafe { chacha(&x.input, Store { half: &x.b0, row, ahead }) };
        x.b0 = t0;
        for (input, (t0, b1)) in x.input.iter_mut().zip(t0.iter().zip(&x.b1)) {
            *input = t0.xor(*b1);
        }
        // SAFETY: the second half of the same row.
        x.b1 = unsafe { chacha(&x.input, Store { half: &x.b1, row: row.add(16), ahead }) };
    }
    // SAFETY: the assertion at the start.
    unsafe { x.store(blocks) };
}

impl<R: Register> Group<R> {
    /// Finds the rows of V that are read next and asks for them.
    ///
    /// # Safety
    /// `v` is the group's, with rows of `LABELS` blocks.
    #[inline(always)]
    unsafe fn look_up(&mut self, v: &[Block]) {
        let mask = v.len() / R::LABELS - 1;
        let mut words = [0; 16];
        self.b1[0].write(&mut words[..R::LABELS]);
        for (l, (word, row)) in words.iter().zip(&mut self.rows).take(R::LABELS).enumerate() {
            *row = ((*word as usize & mask) * R::LABELS + l) * 32;
            prefetch_read(v.as_ptr().cast::<u32>().wrapping_add(*row));
            prefetch_read(v.as_ptr().cast::<u32>().wrapping_add(*row + 16));
        }
    }

    /// One eighth of `X ^ V[j]`, B1 first.
    ///
    /// # Safety
    /// `look_up` was called with this `v`.
    #[inline(always)]
    unsafe fn fetch(&mut self, v: &[Block], part: usize) {
        let half = 1 - part / 4;
        let quad = part % 4 * 4;
        // SAFETY: `look_up` made row numbers below N, and the quad is within the 32 words of the row.
        let words = unsafe { R::load(|l| v.as_ptr().cast::<u32>().add(self.rows[l] + half * 16 + quad)) };
        for (i, word) in words.into_iter().enumerate() {
            let i = quad + i;
            if half == 1 {
                self.next_b1[i] = self.b1[i].xor(word);
            } else {
                self.input[i] = self.b0[i].xor3(word, self.next_b1[i]);
            }
        }
    }

    /// # Safety
    /// As `meanwhile` says.
    #[inline(always)]
    unsafe fn mix(&mut self, meanwhile: impl Meanwhile) {
        // SAFETY: nothing to do.
        self.b0 = unsafe { chacha(&self.input, Nothing) };
        for (input, (t0, b1)) in self.input.iter_mut().zip(self.b0.iter().zip(&self.next_b1)) {
            *input = t0.xor(*b1);
        }
        // SAFETY: the caller's promise.
        self.b1 = unsafe { chacha(&self.input, meanwhile) };
    }
}

/// Fetches the rows of another group, as late as it can be spread: they are on their way from memory.
struct Fetch<'a, R> {
    group: &'a mut Group<R>,
    v: &'a [Block],
}

impl<R: Register> Meanwhile for Fetch<'_, R> {
    /// # Safety
    /// The group's `look_up` was called with `v`.
    #[inline(always)]
    unsafe fn step(&mut self, step: usize) {
        if step >= 2 {
            for part in 0..4 {
                // SAFETY: the caller's promise.
                unsafe { self.group.fetch(self.v, (step - 2) * 4 + part) };
            }
        }
    }
}

/// Both loops for one group or two. `v` has the first group's rows, then the second's.
///
/// # Safety
/// The machine has the instruction set of the register.
#[inline(always)]
pub(super) unsafe fn romix<R: Register>(blocks: &mut [Block], v: &mut [Block]) {
    let n = v.len() / blocks.len();
    for (blocks, v) in blocks.chunks_exact_mut(R::LABELS).zip(v.chunks_exact_mut(n * R::LABELS)) {
        // SAFETY: the caller's promise.
        unsafe { fill::<R>(blocks, v) };
    }
    // SAFETY: the caller's promise.
    unsafe { mix::<R>(blocks, v) };
}

/// The second loop for one group or two that take turns. `v` has the first group's rows, then the second's.
///
/// # Safety
/// The machine has the instruction set of the register.
#[inline(always)]
unsafe fn mix<R: Register>(blocks: &mut [Block], v: &[Block]) {
    let n = v.len() / blocks.len();
    assert!(n.is_power_of_two() && v.len() == n * blocks.len());
    if let Some((first, second)) = blocks.split_at_mut_checked(R::LABELS).filter(|(_, second)| second.len() == R::LABELS) {
        let (va, vb) = v.split_at(v.len() / 2);
        // SAFETY: the caller vouches for the instruction set; there are two groups of `LABELS` blocks, and every fetch
        // follows a look-up in the same rows.
        unsafe {
            let (mut a, mut b) = (Group::<R>::load(first), Group::<R>::load(second));
            a.look_up(va);
            b.look_up(vb);
            for part in 0..8 {
                a.fetch(va, part);
            }
            for _ in 0..n {
                a.mix(Fetch { group: &mut b, v: vb });
                a.look_up(va);
                b.mix(Fetch { group: &mut a, v: va });
                b.look_up(vb);
            }
            a.store(first);
            b.store(second);
        }
    } else {
        assert!(blocks.len() == R::LABELS);
        // SAFETY: as above, with one group.
        unsafe {
            let mut x = Group::<R>::load(blocks);
            for _ in 0..n {
                x.look_up(v);
                for part in 0..8 {
                    x.fetch(v, part);
                }
                x.mix(Nothing);
            }
            x.store(blocks);
        }
    }
}
