//! Huge pages for memory that is read at random: with ordinary ones, nearly every read misses the cache of the page tables, too.

#![expect(unsafe_code, reason = "advice about memory that others own")]

/// The size of a huge page on x86-64 and on most aarch64 systems.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

/// Asks for huge pages in the part of a range that has room for whole ones, best before the memory is first used. A refusal costs only
/// speed; systems other than Linux are not asked.
///
/// # Safety
///
/// The range must be one allocation.
pub(crate) unsafe fn advise(start: *mut u8, bytes: usize) {
    #[cfg(target_os = "linux")]
    {
        let skip = start.addr().next_multiple_of(HUGE_PAGE) - start.addr();
        let whole = bytes.saturating_sub(skip) / HUGE_PAGE * HUGE_PAGE;
        if whole > 0 {
            // SAFETY: the pages lie within the allocation, and the advice does not change what they hold.
            unsafe { libc::madvise(start.add(skip).cast(), whole, libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (start, bytes);
}
