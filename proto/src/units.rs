//! Counts with their unit in the type.

/// Declares a count: a compact integer on the wire, a number in JSON.
macro_rules! count {
    ($(#[$doc:meta])* $name:ident, $integer:ty) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize,
            $crate::scale::Encode, $crate::scale::Decode,
        )]
        pub struct $name(pub $integer);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

pub(crate) use count;

count! {
    /// A number of labels, or the position of a label.
    Labels, u64
}
count! {
    /// A number of space units, the granularity in which space is declared (64 GiB on mainnet).
    SpaceUnits, u32
}
count! {
    /// The index of a label that is small enough to stand for its identity's space (activation.md section 7.5).
    VrfNonce, u64
}
count! {
    /// Ticks below an activation or block, all the way down to the golden activation.
    TickHeight, u64
}
count! {
    /// The smallest amount of money: 10^-9 SMH.
    Smidge, u64
}
count! {
    /// What executing a transaction costs, before it is multiplied by a price.
    Gas, u64
}
count! {
    /// The number of a transaction among those of its account.
    AccountNonce, u64
}
