//! The functions of RandomX's C interface (`randomx.h`) that are used, and their owners.

#![expect(unsafe_code, reason = "a foreign library")]

use std::{
    ffi::{c_int, c_ulong, c_void},
    marker::PhantomData,
    ptr::{self, NonNull},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

// Builds and links the library.
use randomx_rs as _;

use super::PowError;
use crate::huge_pages;

const FLAG_LARGE_PAGES: c_int = 1;
const FLAG_FULL_MEM: c_int = 4;
/// Bytes of a dataset item (`RANDOMX_DATASET_ITEM_SIZE`).
const ITEM_BYTES: u64 = 64;
/// Bytes of a cache (`RANDOMX_ARGON_MEMORY` blocks of 1 KiB).
const CACHE_BYTES: usize = 256 << 20;
/// Items filled between two looks at the stop flag: a huge page, less than a tenth of a second of work.
const ITEMS_AT_ONCE: u64 = 1 << 15;

enum RawCache {}
enum RawDataset {}
enum RawVm {}

// SAFETY: the signatures are those of randomx.h; its flags are an int-sized enum.
unsafe extern "C" {
    safe fn randomx_get_flags() -> c_int;
    fn randomx_alloc_cache(flags: c_int) -> *mut RawCache;
    fn randomx_init_cache(cache: *mut RawCache, key: *const c_void, key_size: usize);
    fn randomx_release_cache(cache: *mut RawCache);
    fn randomx_alloc_dataset(flags: c_int) -> *mut RawDataset;
    safe fn randomx_dataset_item_count() -> c_ulong;
    fn randomx_init_dataset(dataset: *mut RawDataset, cache: *mut RawCache, start_item: c_ulong, item_count: c_ulong);
    fn randomx_get_dataset_memory(dataset: *mut RawDataset) -> *mut c_void;
    fn randomx_release_dataset(dataset: *mut RawDataset);
    fn randomx_create_vm(flags: c_int, cache: *mut RawCache, dataset: *mut RawDataset) -> *mut RawVm;
    fn randomx_destroy_vm(vm: *mut RawVm);
    fn randomx_calculate_hash(vm: *mut RawVm, input: *const c_void, input_size: usize, output: *mut c_void);
    fn randomx_calculate_hash_first(vm: *mut RawVm, input: *const c_void, input_size: usize);
    fn randomx_calculate_hash_next(vm: *mut RawVm, input: *const c_void, input_size: usize, output: *mut c_void);
}

/// Items of a dataset.
fn dataset_items() -> u64 {
    #[allow(clippy::useless_conversion, reason = "a C long has 32 bits on Windows")]
    u64::from(randomx_dataset_item_count())
}

/// Tries `alloc` with large pages if they are wanted, then without.
fn allocate<T>(large_pages: bool, alloc: impl Fn(c_int) -> *mut T) -> Option<NonNull<T>> {
    large_pages.then(|| NonNull::new(alloc(FLAG_LARGE_PAGES))).flatten().or_else(|| NonNull::new(alloc(0)))
}

/// 256 MiB made from a key.
#[derive(Debug)]
pub(super) struct Cache(NonNull<RawCache>);

// SAFETY: after `new` the cache is only read, by any number of threads (randomx.h: virtual machines may share a cache).
unsafe impl Send for Cache {}
// SAFETY: as above.
unsafe impl Sync for Cache {}

impl Cache {
    pub(super) fn new(key: &[u8], large_pages: bool) -> Result<Self, PowError> {
        // SAFETY: any combination of flags the library recommends is valid; null means that there is no memory.
        let cache = allocate(large_pages, |pages| unsafe { randomx_alloc_cache(randomx_get_flags() | pages) });
        let cache = cache.ok_or(PowError::OutOfMemory { what: "cache", hint: " (256 MiB)" })?;
        // Every item of the dataset is eight reads at random places of the cache; on small pages each of them misses the cache of
        // the page tables as well, and a hash in light mode takes twice as long.
        // SAFETY: the memory belongs to the cache. A pointer to it is the first member of the structure, which is of standard
        // layout: the library asserts so, because its own machine code finds the memory like this.
        unsafe {
            huge_pages::advise(*cache.as_ptr().cast::<*mut u8>(), CACHE_BYTES);
        }
        // SAFETY: the cache was just allocated; the key lives through the call.
        unsafe { randomx_init_cache(cache.as_ptr(), key.as_ptr().cast(), key.len()) };
        Ok(Self(cache))
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        // SAFETY: allocated by `new`, released once; machines that use it hold an `Arc` of its owner.
        unsafe { randomx_release_cache(self.0.as_ptr()) };
    }
}

/// 2080 MiB made from a cache.
#[derive(Debug)]
pub(super) struct Dataset(NonNull<RawDataset>);

// SAFETY: after `new` the dataset is only read, by any number of threads.
unsafe impl Send for Dataset {}
// SAFETY: as above; while it is filled, threads write disjoint items (randomx.h: "may be used to initialize in parallel").
unsafe impl Sync for Dataset {}

impl Dataset {
    pub(super) fn new(
        cache: &Cache,
        large_pages: bool,
        threads: usize,
        stop: &AtomicBool,
        progress: &AtomicU64,
    ) -> Result<Self, PowError> {
        // SAFETY: as for the cache.
        let dataset = allocate(large_pages, |pages| unsafe { randomx_alloc_dataset(randomx_get_flags() | pages) });
        let hint = " (2080 MiB): use the light mode";
        let dataset = Self(dataset.ok_or(PowError::OutOfMemory { what: "dataset", hint })?);
        // SAFETY: the memory belongs to the dataset, whose size is given by the number of items.
        unsafe {
            huge_pages::advise(randomx_get_dataset_memory(dataset.0.as_ptr()).cast(), (dataset_items() * ITEM_BYTES) as usize);
        }
        let items = dataset_items();
        let next = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..threads.max(1) {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let start = next.fetch_add(ITEMS_AT_ONCE, Ordering::Relaxed);
                        if start >= items {
                            break;
                        }
                        let count = ITEMS_AT_ONCE.min(items - start);
                        dataset.fill(cache, start, count);
                        progress.fetch_add(count * ITEM_BYTES, Ordering::Relaxed);
                    }
                });
            }
        });
        if stop.load(Ordering::Relaxed) { Err(PowError::Stopped) } else { Ok(dataset) }
    }

    /// Fills items that exist and that no other thread is filling.
    fn fill(&self, cache: &Cache, start: u64, count: u64) {
        // SAFETY: the items exist and are this thread's; the cache is initialised.
        unsafe { randomx_init_dataset(self.0.as_ptr(), cache.0.as_ptr(), start as c_ulong, count as c_ulong) };
    }
}

impl Drop for Dataset {
    fn drop(&mut self) {
        // SAFETY: as for the cache.
        unsafe { randomx_release_dataset(self.0.as_ptr()) };
    }
}

/// What machines read.
#[derive(Debug)]
pub(super) enum Memory {
    /// Light mode.
    Cache(Cache),
    /// Fast mode.
    Dataset(Dataset),
}

/// A RandomX virtual machine: computes hashes on one thread at a time.
#[derive(Debug)]
pub struct Hasher {
    vm: NonNull<RawVm>,
    /// Outlives the machine.
    _memory: Arc<Memory>,
}

// SAFETY: a machine has no ties to the thread that made it; it is used through `&mut` only.
unsafe impl Send for Hasher {}

impl Hasher {
    pub(super) fn new(memory: Arc<Memory>, large_pages: bool) -> Result<Self, PowError> {
        let flags = randomx_get_flags();
        let (flags, cache, dataset) = match &*memory {
            Memory::Cache(cache) => (flags, cache.0.as_ptr(), ptr::null_mut()),
            Memory::Dataset(dataset) => (flags | FLAG_FULL_MEM, ptr::null_mut(), dataset.0.as_ptr()),
        };
        // SAFETY: cache or dataset fit the flags, are initialised and are kept alive by `memory`.
        let vm = allocate(large_pages, |pages| unsafe { randomx_create_vm(flags | pages, cache, dataset) });
        let vm = vm.ok_or(PowError::OutOfMemory { what: "machine", hint: " (2 MiB and executable pages)" })?;
        Ok(Self { vm, _memory: memory })
    }

    /// The hash of an input.
    pub fn hash(&mut self, input: &[u8]) -> [u8; 32] {
        let mut output = [0; 32];
        // SAFETY: the machine is ours alone; input and output live through the call, a hash has 32 bytes.
        unsafe { randomx_calculate_hash(self.vm.as_ptr(), input.as_ptr().cast(), input.len(), output.as_mut_ptr().cast()) };
        output
    }

    /// Begins a chain of hashes, in which the start of the next overlaps the end of the last.
    ///
    /// The thread's floating-point rounding mode is not restored: for threads that do nothing else.
    pub(super) fn start(&mut self, input: &[u8]) -> Pipeline<'_> {
        // SAFETY: as above.
        unsafe { randomx_calculate_hash_first(self.vm.as_ptr(), input.as_ptr().cast(), input.len()) };
        Pipeline { vm: self.vm, machine: PhantomData }
    }
}

impl Drop for Hasher {
    fn drop(&mut self) {
        // SAFETY: created by `new`, destroyed once, before its memory.
        unsafe { randomx_destroy_vm(self.vm.as_ptr()) };
    }
}

/// Hashes of one input after the other.
pub(super) struct Pipeline<'a> {
    vm: NonNull<RawVm>,
    machine: PhantomData<&'a mut Hasher>,
}

impl Pipeline<'_> {
    /// The hash of the input given before; begins with the one given now.
    pub(super) fn next(&mut self, input: &[u8]) -> [u8; 32] {
        let mut output = [0; 32];
        // SAFETY: a hash was begun; otherwise as for `Hasher::hash`.
        unsafe {
            randomx_calculate_hash_next(self.vm.as_ptr(), input.as_ptr().cast(), input.len(), output.as_mut_ptr().cast());
        }
        output
    }
}
