//! AVX-512: sixteen labels at a time.
//!
//! The fill loop has the word of sixteen labels in a register ([`words`]). It never waits for memory, and that layout needs the
//! fewest instructions: 896 on the two 512-bit ports for a mix of sixteen labels (832 of arithmetic, 64 shuffles; storing a
//! lane takes no such port), 28 cycles per label at best.
//!
//! The second loop would wait: all sixteen labels learn their next rows at the same moment. It holds the blocks by rows
//! instead, four labels per register, in two groups of two registers' worth that take turns: the rows of one group arrive
//! while the other one computes. Four labels take 276 instructions (248 for ChaCha, of which 48 are turns of rows; 12 to combine;
//! 16 to bring rows in), 34.5 cycles per label at best.
//!
//! Measured at N = 8192 on a Xeon with 2 MiB of L2 per core: 32 and 50 cycles, three quarters of the bound of 31 for both. The
//! second loop takes 41 when all rows are in the caches of the core. More groups hide more of the wait, but 24 or 32 MiB are
//! less often in the shared cache: with three groups it takes 60.

#![expect(unsafe_code, reason = "intrinsics")]
#![expect(clippy::inline_always, reason = "callees must be compiled with the instruction set of the entry function")]

use std::arch::x86_64::{
    __m128i, __m256i, __m512i, _mm512_add_epi32, _mm512_castsi128_si512, _mm512_castsi256_si512, _mm512_castsi512_si128,
    _mm512_extracti32x4_epi32, _mm512_inserti32x4, _mm512_inserti64x4, _mm512_loadu_si512, _mm512_rol_epi32, _mm512_rol_epi64,
    _mm512_set1_epi64, _mm512_setzero_si512, _mm512_shuffle_epi32, _mm512_shuffle_i32x4, _mm512_storeu_si512,
    _mm512_ternarylogic_epi32, _mm512_ternarylogic_epi64, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32,
    _mm512_unpacklo_epi64, _mm512_xor_si512,
};

use proto::post::ScryptN;

use super::{
    Arithmetic,
    keccak::{self, Lanes},
    words::{self, Register},
    x86,
};
use crate::label::{Block, hash::State};

x86::backend! {
    /// The proof that the machine has AVX-512 F.
    Avx512, "avx512f", 8, Zmm;
    __m512i, zero _mm512_setzero_si512, load _mm512_loadu_si512, store _mm512_storeu_si512, xor _mm512_xor_si512,
    splat _mm512_set1_epi64
}

/// `a ^ (!b & c)`.
#[inline]
#[target_feature(enable = "avx512f")]
fn chi(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    _mm512_ternarylogic_epi64::<0xd2>(a, b, c)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn rotate<const BITS: i32, const REST: i32>(x: __m512i) -> __m512i {
    _mm512_rol_epi64::<BITS>(x)
}

#[target_feature(enable = "avx512f")]
fn romix(blocks: &mut [Block], v: &mut [Block]) {
    // SAFETY: the feature is enabled for this function.
    unsafe { words::fill::<Zmm>(blocks, v) };
    mix(blocks, v);
}

/// A register: in the fill loop one word of sixteen labels, in the second loop one row of four.
#[derive(Clone, Copy)]
struct Zmm(__m512i);

/// Transposes the four by four words of each 128-bit lane.
#[inline(always)]
fn transpose(x: [Zmm; 4]) -> [Zmm; 4] {
    let x = x.map(|x| x.0);
    // SAFETY: a value of this type is the proof that the instructions exist.
    let rows =
        unsafe { x86::transpose!(x; _mm512_unpacklo_epi32, _mm512_unpackhi_epi32, _mm512_unpacklo_epi64, _mm512_unpackhi_epi64) };
    rows.map(Zmm)
}

/// Four words from each of four places, one per lane.
///
/// # Safety
/// The machine has AVX-512 F; four words may be read at each pointer.
#[inline(always)]
unsafe fn four(quads: [*const u32; 4]) -> Zmm {
    // SAFETY: the caller's promise.
    unsafe {
        let [a, b, c, d] = quads.map(|quad| quad.cast::<__m128i>().read_unaligned());
        let x = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(a), b);
        Zmm(_mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(x, c), d))
    }
}

/// Eight words from each of two places.
///
/// # Safety
/// The machine has AVX-512 F; eight words may be read at each pointer.
#[inline(always)]
unsafe fn two(low: *const u32, high: *const u32) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let low = _mm512_castsi256_si512(low.cast::<__m256i>().read_unaligned());
        _mm512_inserti64x4::<1>(low, high.cast::<__m256i>().read_unaligned())
    }
}

impl Register for Zmm {
    const LABELS: usize = 16;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller vouches for the instruction set.
        Self(unsafe { _mm512_setzero_si512() })
    }

    #[inline(always)]
    unsafe fn load(quad: impl Fn(usize) -> *const u32) -> [Self; 4] {
        // SAFETY: the caller vouches for the pointers and for the instruction set.
        unsafe {
            transpose([
                four([quad(0), quad(4), quad(8), quad(12)]),
                four([quad(1), quad(5), quad(9), quad(13)]),
                four([quad(2), quad(6), quad(10), quad(14)]),
                four([quad(3), quad(7), quad(11), quad(15)]),
            ])
        }
    }

    #[inline(always)]
    unsafe fn store(words: [Self; 4], quad: impl Fn(usize) -> *mut u32) {
        for (l, Self(x)) in transpose(words).into_iter().enumerate() {
            // SAFETY: the caller vouches for the pointers.
            unsafe {
                quad(l).cast::<__m128i>().write_unaligned(_mm512_castsi512_si128(x));
                quad(l + 4).cast::<__m128i>().write_unaligned(_mm512_extracti32x4_epi32::<1>(x));
                quad(l + 8).cast::<__m128i>().write_unaligned(_mm512_extracti32x4_epi32::<2>(x));
                quad(l + 12).cast::<__m128i>().write_unaligned(_mm512_extracti32x4_epi32::<3>(x));
            }
        }
    }

    #[inline(always)]
    fn write(self, words: &mut [u32]) {
        assert!(words.len() == Self::LABELS);
        // SAFETY: there is room for sixteen words.
        unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), self.0) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: a value of this type is the proof that the instructions exist.
        Self(unsafe { _mm512_add_epi32(self.0, other.0) })
    }

    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        // SAFETY: as in `add`.
        Self(unsafe { _mm512_xor_si512(self.0, other.0) })
    }

    #[inline(always)]
    fn xor3(self, b: Self, c: Self) -> Self {
        // SAFETY: as in `add`.
        Self(unsafe { _mm512_ternarylogic_epi32::<0x96>(self.0, b.0, c.0) })
    }

    #[inline(always)]
    fn rotate<const BITS: i32>(self) -> Self {
        // SAFETY: as in `add`.
        Self(unsafe { _mm512_rol_epi32::<BITS>(self.0) })
    }
}

/// The rows a, b, c, d of a half block (B0 or B1), in each 128-bit lane those of one label.
type Rows = [Zmm; 4];

/// Labels of a [`Rows`].
const LANES: usize = 4;

/// [`Rows`] whose instructions alternate. Two of them use both ports nearly all the time.
const SETS: usize = 2;

/// A half block of each label of a group.
type Half = [Rows; SETS];

/// Groups that take turns.
const GROUPS: usize = Zmm::LABELS / LANES / SETS;

/// The half blocks of four labels.
///
/// # Safety
/// The machine has the instruction set; `half(l)` for `l < 4` may be read for 64 bytes.
#[inline(always)]
unsafe fn load_rows(half: impl Fn(usize) -> *const u32) -> Rows {
    // SAFETY: the caller's promise.
    unsafe {
        // Rows a, b and rows c, d of the labels 0, 1 and of the labels 2, 3.
        let (ab_01, cd_01) = (two(half(0), half(1)), two(half(0).add(8), half(1).add(8)));
        let (ab_23, cd_23) = (two(half(2), half(3)), two(half(2).add(8), half(3).add(8)));
        [
            Zmm(_mm512_shuffle_i32x4::<0x88>(ab_01, ab_23)),
            Zmm(_mm512_shuffle_i32x4::<0xdd>(ab_01, ab_23)),
            Zmm(_mm512_shuffle_i32x4::<0x88>(cd_01, cd_23)),
            Zmm(_mm512_shuffle_i32x4::<0xdd>(cd_01, cd_23)),
        ]
    }
}

/// Puts the rows into words `from ..` of the blocks of their labels.
fn store_rows(blocks: &mut [Block], from: usize, rows: Rows) {
    for (i, row) in rows.into_iter().enumerate() {
        let mut words = [0; 16];
        row.write(&mut words);
        for (block, row) in blocks.iter_mut().zip(words.as_chunks::<4>().0) {
            block.0[from + i * 4..][..4].copy_from_slice(row);
        }
    }
}

/// Word `i` of every row becomes word `(i + WORDS) % 4`.
#[inline(always)]
fn turn<const WORDS: i32>(Zmm(row): Zmm) -> Zmm {
    // SAFETY: a value of this type is the proof that the instructions exist.
    Zmm(unsafe {
        match WORDS {
            1 => _mm512_shuffle_epi32::<0x93>(row),
            2 => _mm512_shuffle_epi32::<0x4e>(row),
            _ => _mm512_shuffle_epi32::<0x39>(row),
        }
    })
}

#[inline(always)]
fn quarter_rounds(mut x: Half) -> Half {
    /// A step for each set in turn.
    macro_rules! sets {
        ($row:literal = $f:expr) => {
            for set in &mut x {
                set[$row] = $f(*set);
            }
        };
    }
    sets!(0 = |[a, b, _, _]: Rows| a.add(b));
    sets!(3 = |[a, _, _, d]: Rows| d.xor(a).rotate::<16>());
    sets!(2 = |[_, _, c, d]: Rows| c.add(d));
    sets!(1 = |[_, b, c, _]: Rows| b.xor(c).rotate::<12>());
    sets!(0 = |[a, b, _, _]: Rows| a.add(b));
    sets!(3 = |[a, _, _, d]: Rows| d.xor(a).rotate::<8>());
    sets!(2 = |[_, _, c, d]: Rows| c.add(d));
    sets!(1 = |[_, b, c, _]: Rows| b.xor(c).rotate::<7>());
    x
}

#[inline(always)]
fn double_round(x: Half) -> Half {
    // Diagonals become columns by turning the rows against each other. Row b is ready last, so it stays.
    let x = quarter_rounds(x).map(|[a, b, c, d]| [turn::<1>(a), b, turn::<3>(c), turn::<2>(d)]);
    quarter_rounds(x).map(|[a, b, c, d]| [turn::<3>(a), b, turn::<1>(c), turn::<2>(d)])
}

/// `H`, ChaCha20/8.
#[inline(always)]
fn chacha(input: Half) -> Half {
    let mut x = double_round(double_round(double_round(double_round(input))));
    for (x, input) in x.as_flattened_mut().iter_mut().zip(input.as_flattened()) {
        *x = x.add(*input);
    }
    x
}

/// The blocks of a group.
#[derive(Clone, Copy)]
struct Group {
    b0: Half,
    b1: Half,
    /// Where in V each label reads next, in bytes; in the first word of each lane.
    rows: [[u32; 16]; SETS],
}

impl Group {
    /// Finds the rows of V that are read next and asks for them.
    #[inline(always)]
    fn look_up(&mut self, n: usize, first: usize, v: *const u8) {
        for (set, (rows, b1)) in self.rows.iter_mut().zip(&self.b1).enumerate() {
            b1[0].write(rows);
            for lane in 0..LANES {
                let label = first + set * LANES + lane;
                let row = &mut rows[lane * 4];
                *row = ((*row & (n as u32 - 1)) * Zmm::LABELS as u32 + label as u32) * size_of::<Block>() as u32;
                let row = v.wrapping_add(*row as usize);
                words::prefetch_read(row.cast());
                words::prefetch_read(row.wrapping_add(64).cast());
            }
        }
    }
}

/// The second loop.
#[target_feature(enable = "avx512f")]
fn mix(blocks: &mut [Block], v: &[Block]) {
    let n = v.len() / Zmm::LABELS;
    assert!(blocks.len() == Zmm::LABELS && v.len() == n * Zmm::LABELS && n.is_power_of_two());
    // Places in V are 32-bit numbers here.
    assert!(n <= ScryptN::MAX as usize);
    let v = v.as_ptr().cast::<u8>();
    // SAFETY: the feature is enabled for this function.
    let zero = unsafe { [[Zmm::zero(); 4]; SETS] };
    let mut groups = [Group { b0: zero, b1: zero, rows: [[0; 16]; SETS] }; GROUPS];
    for (group, blocks) in groups.iter_mut().zip(blocks.chunks(SETS * LANES)) {
        for (set, blocks) in blocks.chunks(LANES).enumerate() {
            // SAFETY: every block is 128 bytes, twice 16 words.
            unsafe {
                group.b0[set] = load_rows(|l| blocks[l].0.as_ptr());
                group.b1[set] = load_rows(|l| blocks[l].0[16..].as_ptr());
            }
        }
    }
    for (g, group) in groups.iter_mut().enumerate() {
        group.look_up(n, g * SETS * LANES, v);
    }
    for _ in 0..n {
        for (g, group) in groups.iter_mut().enumerate() {
            let mut input = group.b0;
            for ((input, b1), rows) in input.iter_mut().zip(&mut group.b1).zip(&group.rows) {
                // SAFETY: `look_up` made block numbers of `v` from row numbers below `n` and label numbers below 16.
                let (v0, v1) = unsafe {
                    let half = |l: usize, half: usize| v.add(rows[l * 4] as usize + half * 64).cast();
                    (load_rows(|l| half(l, 0)), load_rows(|l| half(l, 1)))
                };
                for row in 0..4 {
                    b1[row] = b1[row].xor(v1[row]);
                    input[row] = input[row].xor3(v0[row], b1[row]);
                }
            }
            group.b0 = chacha(input);
            for (input, (b0, b1)) in input.iter_mut().zip(group.b0.iter().zip(&group.b1)) {
                *input = [b0[0].xor(b1[0]), b0[1].xor(b1[1]), b0[2].xor(b1[2]), b0[3].xor(b1[3])];
            }
            group.b1 = chacha(input);
            group.look_up(n, g * SETS * LANES, v);
        }
    }
    for (group, blocks) in groups.iter().zip(blocks.chunks_mut(SETS * LANES)) {
        for (set, blocks) in blocks.chunks_mut(LANES).enumerate() {
            store_rows(blocks, 0, group.b0[set]);
            store_rows(blocks, 16, group.b1[set]);
        }
    }
}
