//! Placeholder.
use super::{Arithmetic, portable::Portable};
use crate::label::{Block, hash::State};
#[derive(Debug, Clone, Copy)]
pub(super) struct Avx512;
impl Avx512 {
    pub(super) fn detect() -> Option<Self> {
        None
    }
}
impl Arithmetic<1> for Avx512 {
    const GROUP: usize = 1;
    fn permute(self, state: &mut State<1>) {
        Portable.permute(state);
    }
    fn romix(self, blocks: &mut [Block], v: &mut [Block]) {
        Portable.romix(blocks, v);
    }
}
