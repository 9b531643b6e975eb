//! What the backends of x86-64 have in common: the same parts, in registers of another width with instructions of other names.

/// The backend `$name` of `$states` Keccak states and `$register::LABELS` labels per register, and `Quads`, one word of all those
/// states. What remains for its file is `romix`, and `chi` and `rotate` of Keccak.
macro_rules! backend {
    (
        $(#[$doc:meta])* $name:ident, $feature:tt, $states:literal, $register:ident;
        $vector:ident, zero $zero:ident, load $load:ident, store $store:ident, xor $xor:ident, splat $splat:ident
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub(super) struct $name(());

        impl $name {
            pub(super) fn detect() -> Option<Self> {
                is_x86_feature_detected!($feature).then_some(Self(()))
            }
        }

        impl Arithmetic<$states> for $name {
            const GROUP: usize = $register::LABELS;
            const WORTH: usize = 3;

            fn permute(self, state: &mut State<$states>) {
                // SAFETY: `self` is the proof that the instructions exist.
                unsafe { permute(state) }
            }

            fn romix(self, blocks: &mut [Block], v: &mut [Block]) {
                // SAFETY: `self` is the proof that the instructions exist.
                unsafe { romix(blocks, v) }
            }
        }

        #[target_feature(enable = $feature)]
        fn permute(state: &mut State<$states>) {
            let mut words = [Quads($zero()); 25];
            for (word, lanes) in words.iter_mut().zip(&*state) {
                // SAFETY: the words of all states fill a register.
                *word = Quads(unsafe { $load(lanes.as_ptr().cast()) });
            }
            for (word, lanes) in keccak::permute(words).into_iter().zip(state) {
                // SAFETY: as above.
                unsafe { $store(lanes.as_mut_ptr().cast(), word.0) };
            }
        }

        /// One word of several Keccak states.
        #[derive(Clone, Copy)]
        struct Quads($vector);

        impl Lanes for Quads {
            #[inline(always)]
            fn xor(self, other: Self) -> Self {
                // SAFETY: a value of this type is the proof that the instructions exist.
                Self(unsafe { $xor(self.0, other.0) })
            }

            #[inline(always)]
            fn chi(self, b: Self, c: Self) -> Self {
                // SAFETY: as in `xor`.
                Self(unsafe { chi(self.0, b.0, c.0) })
            }

            #[inline(always)]
            fn rotate<const BITS: i32, const REST: i32>(self) -> Self {
                // SAFETY: as in `xor`.
                Self(unsafe { rotate::<BITS, REST>(self.0) })
            }

            #[inline(always)]
            fn splat(self, word: u64) -> Self {
                // SAFETY: as in `xor`.
                Self(unsafe { $splat(word.cast_signed()) })
            }
        }
    };
}

/// Transposes the four by four words of each 128-bit lane of four registers.
macro_rules! transpose {
    ($x:expr; $low_words:ident, $high_words:ident, $low_pairs:ident, $high_pairs:ident) => {{
        let [a, b, c, d] = $x;
        let (ab_low, ab_high) = ($low_words(a, b), $high_words(a, b));
        let (cd_low, cd_high) = ($low_words(c, d), $high_words(c, d));
        [$low_pairs(ab_low, cd_low), $high_pairs(ab_low, cd_low), $low_pairs(ab_high, cd_high), $high_pairs(ab_high, cd_high)]
    }};
}

pub(super) use {backend, transpose};
