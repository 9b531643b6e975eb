//! Labels on NVIDIA graphics processors through CUDA.
//!
//! The kernels are `label.cu` with its parameters in `label.h`; what is loaded is `label.ptx`, made from these by `ptx.sh` and checked in,
//! so nothing of NVIDIA's is needed to build. The driver is opened when it is first asked for (`vendor/cust_raw`), so a program with
//! this backend starts without it. One stream computes and another one brings finished labels to the host. What goes around is in
//! [`gpu`](super::gpu).
//!
//! **Never run on a GPU so far**: the kernels are tested as C++, and this host part with an emulated driver.

use std::{
    ffi::c_void,
    fs,
    ops::Range,
    ptr, thread,
    time::{Duration, Instant},
};

use cust::{
    context::{Context, CurrentContext},
    device::{Device as RawDevice, DeviceAttribute},
    error::CudaError,
    event::{Event, EventFlags, EventStatus},
    memory::{AsyncCopyDestination, DeviceBuffer, LockedBuffer, mem_get_info},
    module::Module,
    stream::{Stream, StreamFlags, StreamWaitEventFlags},
    sys,
};
use proto::{ids::Commitment, post::ScryptN};

use super::{
    DeviceError, DeviceKind, STORED,
    gpu::{Ceiling, Engine, Found, Gpu, GpuClass, GpuInfo, Held, Meter, ROW, SLOTS, Tuning, fingerprint},
};

const PTX: &str = include_str!("cuda/label.ptx");

/// Names these kernels in [`GpuInfo::tuning_key`].
pub fn kernel_version() -> String {
    format!("ptx {:016x}", const { fingerprint(&[PTX]) })
}

/// Bytes of the smallest label of a batch behind its labels.
const RECORD: usize = 48;
/// Shared memory of a thread of the kernels of the shared kind, and threads of the block of `smallest`: as in `label.h`.
const SHARED_BYTES: u32 = 9 * 16 + 4;
const SEARCHERS: u32 = 256;

/// `LabelParams` of `label.h`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct Params {
    commitment: [u32; 8],
    first_low: u32,
    first_high: u32,
    lanes: u32,
    count: u32,
    begin: u32,
    end: u32,
    last: u32,
    n: u32,
    gap: u32,
    gap_inverse: u32,
    unused: [u32; 2],
}

/// A device found by [`enumerate`].
#[derive(Debug, Clone)]
pub struct Adapter {
    info: GpuInfo,
    device: RawDevice,
    ceiling: Option<Ceiling>,
}

/// Why there is no CUDA device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// No driver library is installed, or it is not visible from within a container.
    #[error("no CUDA driver: {0}")]
    Library(String),
    /// The driver is there but refuses to work, for example because its parts are of different versions.
    #[error("the CUDA driver does not start: {0}")]
    Driver(String),
    /// The driver works but sees no device.
    #[error("the CUDA driver sees no device")]
    Device,
}

/// All devices of the CUDA driver; nothing is run on them.
pub fn enumerate() -> Result<Vec<Adapter>, Missing> {
    sys::driver_library().map_err(|e| Missing::Library(e.into()))?;
    match cust::init(cust::CudaFlags::empty()) {
        Ok(()) => {}
        Err(CudaError::NoDevice) => return Err(Missing::Device),
        Err(e) => return Err(Missing::Driver(describe(e))),
    }
    let devices = RawDevice::devices().map_err(|e| Missing::Driver(describe(e)))?;
    // A device that cannot even be asked for its name is of no use.
    let adapters: Vec<_> = devices.filter_map(|device| Adapter::new(device.ok()?).ok()).collect();
    if adapters.is_empty() { Err(Missing::Device) } else { Ok(adapters) }
}

impl Adapter {
    fn new(device: RawDevice) -> Result<Self, CudaError> {
        let attribute = |attribute| device.get_attribute(attribute);
        let pci = pci(device);
        let integrated = attribute(DeviceAttribute::Integrated).is_ok_and(|value| value != 0);
        let info = GpuInfo {
            key: format!("cuda:{}", pci.clone().unwrap_or_else(|| device.as_raw().to_string())),
            name: device.name()?,
            backend: "cuda".into(),
            class: if integrated { GpuClass::Integrated } else { GpuClass::Discrete },
            driver: driver_version(),
            memory: device.total_memory().ok().map(|bytes| bytes as u64),
            // Asking for it takes a context, which takes time and memory.
            free: None,
            pci,
            uuid: uuid(device),
        };
        let ceiling = || -> Result<Ceiling, CudaError> {
            let clock = attribute(DeviceAttribute::ClockRate)? as f64 * 1e3;
            let processors = attribute(DeviceAttribute::MultiprocessorCount)? as f64;
            // Lanes for 32-bit integers of a multiprocessor: 64 from Turing to Hopper, 128 in the Blackwell of workstations.
            let lanes = if attribute(DeviceAttribute::ComputeCapabilityMajor)? >= 12 { 128.0 } else { 64.0 };
            let memory_clock = attribute(DeviceAttribute::MemoryClockRate)? as f64 * 1e3;
            let bus = attribute(DeviceAttribute::GlobalMemoryBusWidth)? as f64 / 8.0;
            // Two transfers per clock.
            Ok(Ceiling { operations_per_second: clock * processors * lanes, bytes_per_second: 2.0 * memory_clock * bus })
        };
        Ok(Self { info, device, ceiling: ceiling().ok().filter(|c| c.operations_per_second > 0.0 && c.bytes_per_second > 0.0) })
    }

    /// What this is.
    pub fn info(&self) -> &GpuInfo {
        &self.info
    }

    /// What it can do at most, by what the driver tells of its clocks and units.
    pub fn ceiling(&self) -> Option<Ceiling> {
        self.ceiling
    }

    /// What to start with before the device is tuned.
    pub fn default_tuning(&self) -> Tuning {
        Tuning::GPU
    }

    /// Loads the kernels; memory for labels is taken at the first use.
    pub fn open(&self, n: ScryptN, tuning: Tuning) -> Result<Gpu, DeviceError> {
        tuning.check()?;
        let meter = Meter::default();
        let engine = Streams::new(self, n, tuning, meter.clone())?;
        // A launch is meant to take a fraction of a second.
        Ok(Gpu::new(engine, &self.info, DeviceKind::Cuda, (n, tuning), Duration::from_secs(30), meter))
    }
}

/// The version of CUDA that the driver is for, and what the kernel module says of itself.
#[expect(unsafe_code, reason = "a question to the driver that cust has no words for")]
fn driver_version() -> String {
    let mut version = 0;
    // SAFETY: writes one int.
    let known = unsafe { sys::cuDriverGetVersion(&raw mut version) } == sys::CUresult::CUDA_SUCCESS;
    let cuda = if known { format!("CUDA {}.{}", version / 1000, version % 1000 / 10) } else { "CUDA".into() };
    let module = fs::read_to_string("/proc/driver/nvidia/version").unwrap_or_default();
    // "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 …"
    let release = module.split_whitespace().find(|word| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit()));
    release.map_or(cuda.clone(), |release| format!("{release} {cuda}"))
}

#[expect(unsafe_code, reason = "a question to the driver that cust has no words for")]
fn pci(device: RawDevice) -> Option<String> {
    const LENGTH: i32 = 32;
    let mut text = [0_u8; LENGTH as usize];
    // SAFETY: at most this many bytes are written, the last one being zero.
    let result = unsafe { sys::cuDeviceGetPCIBusId(text.as_mut_ptr().cast(), LENGTH, device.as_raw()) };
    let end = text.iter().position(|byte| *byte == 0)?;
    let text = std::str::from_utf8(&text[..end]).ok()?;
    // Vulkan writes it in small letters.
    (result == sys::CUresult::CUDA_SUCCESS && !text.is_empty()).then(|| text.to_ascii_lowercase())
}

#[expect(unsafe_code, reason = "a question to the driver that cust has no words for")]
fn uuid(device: RawDevice) -> Option<[u8; 16]> {
    let mut uuid = sys::CUuuid { bytes: [0; 16] };
    // SAFETY: writes 16 bytes.
    let result = unsafe { sys::cuDeviceGetUuid(&raw mut uuid, device.as_raw()) };
    (result == sys::CUresult::CUDA_SUCCESS).then(|| uuid.bytes.map(|byte| byte.to_ne_bytes()[0]))
}

/// A name for people. The text of the driver is not asked for, since asking may fail too.
fn describe(error: CudaError) -> String {
    match (error, sys::last_error_code()) {
        (CudaError::UnknownError, Some(803)) => {
            "its library and its kernel module differ in version, as after an update without restart".into()
        }
        (CudaError::UnknownError, Some(code)) => format!("error {code}"),
        (error, _) => format!("{error:?}"),
    }
}

/// What an error of the driver means for those who asked for labels; `bytes` is what was being asked for, if it was memory.
fn failure(error: CudaError, bytes: u64) -> DeviceError {
    match error {
        CudaError::OutOfMemory => DeviceError::OutOfMemory { bytes },
        // After these a context is of no use any more.
        CudaError::EccUncorrectable
        | CudaError::NvlinkUncorrectable
        | CudaError::IllegalAddress
        | CudaError::IllegalInstruction
        | CudaError::MisalignedAddress
        | CudaError::HardwareStackError
        | CudaError::LaunchFailed
        | CudaError::LaunchTimeout
        | CudaError::ContextIsDestroyed
        | CudaError::Deinitialized
        | CudaError::UnknownError => DeviceError::Lost(describe(error)),
        other => DeviceError::Failed(describe(other)),
    }
}

fn check<T>(result: Result<T, CudaError>) -> Result<T, DeviceError> {
    result.map_err(|e| failure(e, 0))
}

/// What exists while there is memory.
struct Memory {
    lanes: u32,
    state: Buffer,
    v: Buffer,
    slots: [Slot; SLOTS],
}

/// Memory of the device, which is counted.
struct Buffer {
    raw: DeviceBuffer<u8>,
    _held: Held,
}

impl Buffer {
    #[expect(unsafe_code, reason = "memory that nobody reads before it is written")]
    fn new(bytes: u64, meter: &Meter) -> Result<Self, DeviceError> {
        let Ok(size) = usize::try_from(bytes) else { return Err(DeviceError::OutOfMemory { bytes }) };
        // SAFETY: the kernels write all of state, labels and V that they read afterwards; the host reads only what they wrote.
        let raw = unsafe { DeviceBuffer::uninitialized(size) }.map_err(|e| failure(e, bytes))?;
        Ok(Self { raw, _held: meter.hold(bytes) })
    }

    /// The address, with an offset that lies within.
    fn address(&self, offset: u64) -> u64 {
        self.raw.as_device_ptr().as_raw() + offset
    }
}

/// Two of them, so that one batch is brought to the host while the next one is computed.
struct Slot {
    /// Labels, then the record of the smallest one.
    labels: Buffer,
    host: LockedBuffer<u8>,
    count: u32,
}

/// The [`Engine`]. Fields are dropped in this order: memory and streams before the context they belong to.
struct Streams {
    memory: Option<Memory>,
    module: Module,
    compute: Stream,
    copy: Stream,
    context: Context,
    params: Params,
    tuning: Tuning,
    n: ScryptN,
    meter: Meter,
}

/// What is loaded as PTX text is a C string.
fn ptx() -> Result<std::ffi::CString, DeviceError> {
    std::ffi::CString::new(PTX).map_err(|e| DeviceError::Failed(e.to_string()))
}

impl Streams {
    fn new(adapter: &Adapter, n: ScryptN, tuning: Tuning, meter: Meter) -> Result<Self, DeviceError> {
        let context = check(Context::new(adapter.device))?;
        let module = Module::from_ptx_cstr(&ptx()?, &[]).map_err(|e| match e {
            CudaError::InvalidPtx | CudaError::NoBinaryForGpu => {
                DeviceError::Unsupported("kernels for compute capability 7.5 and above; a newer driver may help".into())
            }
            other => failure(other, 0),
        })?;
        let stream = || check(Stream::new(StreamFlags::NON_BLOCKING, None));
        let gap_inverse = (1_u64 << 32).div_ceil(tuning.gap as u64) as u32;
        let params = Params { n: n.get(), gap: tuning.gap, gap_inverse, ..Params::default() };
        Ok(Self { memory: None, module, compute: stream()?, copy: stream()?, context, params, tuning, n, meter })
    }

    /// The driver's functions work on the context of the calling thread, which may be another one each time.
    fn enter(&self) -> Result<(), DeviceError> {
        check(CurrentContext::set_current(&self.context))
    }

    fn memory(&self) -> Result<&Memory, DeviceError> {
        self.memory.as_ref().ok_or_else(|| DeviceError::Failed("no memory is held".into()))
    }

    /// Queues a kernel with the parameters and the given addresses.
    #[expect(unsafe_code, reason = "a kernel launch")]
    fn launch(
        &self,
        kernel: &str,
        blocks: u32,
        threads: u32,
        shared: u32,
        params: &Params,
        addresses: &[u64],
    ) -> Result<(), DeviceError> {
        let function = check(self.module.get_function(kernel))?;
        let mut arguments: Vec<*mut c_void> = vec![ptr::from_ref(params).cast_mut().cast()];
        arguments.extend(addresses.iter().map(|address| ptr::from_ref(address).cast_mut().cast::<c_void>()));
        // SAFETY: all kernels take `LabelParams` and then the addresses given here (label.cu); they stay within the buffers, which
        // are as large as `lanes`, a multiple of the threads of a block, says, and live until the work is waited for or the
        // context is gone. The driver copies the arguments before it returns.
        check(unsafe { self.compute.launch(&function, blocks, threads, shared, &arguments) })
    }

    /// Queues a kernel over the labels of the batch.
    fn launch_batch(&self, kernel: &str, shared: u32, params: &Params, addresses: &[u64]) -> Result<(), DeviceError> {
        self.launch(kernel, params.count.div_ceil(self.tuning.group), self.tuning.group, shared, params, addresses)
    }

    /// A kernel of ROMix.
    fn romix(&self, kernel: &str, begin: u32, end: u32, last: bool) -> Result<Event, DeviceError> {
        self.enter()?;
        let memory = self.memory()?;
        let (kind, shared) = if self.tuning.movers == 1 { ("own", 0) } else { ("shared", SHARED_BYTES * self.tuning.group) };
        let params = Params { begin, end, last: u32::from(last), ..self.params };
        self.launch_batch(&format!("{kernel}_{kind}"), shared, &params, &[memory.state.address(0), memory.v.address(0)])?;
        mark(&self.compute)
    }
}

/// An event behind everything queued so far.
fn mark(stream: &Stream) -> Result<Event, DeviceError> {
    let event = check(Event::new(EventFlags::DISABLE_TIMING))?;
    check(event.record(stream))?;
    Ok(event)
}

impl Drop for Streams {
    fn drop(&mut self) {
        // What is dropped now belongs to the context; if this fails, it is gone with all that it had.
        let _entered = self.enter();
    }
}

impl Engine for Streams {
    type Ticket = Event;

    fn room(&self) -> u32 {
        let free = self.enter().and_then(|()| check(mem_get_info()));
        // A tenth is left to the desktop and to the driver.
        free.map_or(u32::MAX, |(free, _)| (free as f64 * 0.9 / self.tuning.bytes_per_lane(self.n) as f64) as u32)
    }

    #[expect(unsafe_code, reason = "host memory that nobody reads before it is written")]
    fn allocate(&mut self, lanes: u32) -> Result<(), DeviceError> {
        self.enter()?;
        let labels = lanes as usize * STORED + RECORD;
        let slot = || -> Result<Slot, DeviceError> {
            // SAFETY: plain bytes, read only after a copy from the device has filled them.
            let host = unsafe { LockedBuffer::uninitialized(labels) }.map_err(|e| failure(e, labels as u64))?;
            Ok(Slot { labels: Buffer::new(labels as u64, &self.meter)?, host, count: 0 })
        };
        self.memory = Some(Memory {
            lanes,
            state: Buffer::new(lanes as u64 * self.tuning.state_bytes(), &self.meter)?,
            v: Buffer::new(lanes as u64 * self.tuning.rows(self.n) as u64 * ROW, &self.meter)?,
            slots: [slot()?, slot()?],
        });
        Ok(())
    }

    fn free(&mut self) {
        if self.enter().is_ok() {
            self.memory = None;
        }
    }

    fn expand(&mut self, commitment: &Commitment, first: u64, count: u32) -> Result<Event, DeviceError> {
        self.enter()?;
        for (word, bytes) in self.params.commitment.iter_mut().zip(commitment.as_bytes().as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        (self.params.first_low, self.params.first_high) = (first as u32, (first >> 32) as u32);
        self.params.count = count;
        self.params.lanes = self.memory()?.lanes;
        self.launch_batch("expand", 0, &self.params, &[self.memory()?.state.address(0)])?;
        mark(&self.compute)
    }

    fn fill(&mut self, rows: Range<u32>) -> Result<Event, DeviceError> {
        self.romix("fill", rows.start, rows.end, false)
    }

    fn mix(&mut self, steps: u32, last: bool) -> Result<Event, DeviceError> {
        self.romix(if self.tuning.gap == 1 { "mix1" } else { "mix" }, 0, steps, last)
    }

    #[expect(unsafe_code, reason = "a copy that is not finished when the call returns")]
    fn squeeze(&mut self, slot: usize) -> Result<Event, DeviceError> {
        self.enter()?;
        let memory = self.memory()?;
        let (state, labels) = (memory.state.address(0), &memory.slots[slot].labels);
        let all = memory.lanes as u64 * STORED as u64;
        self.launch_batch("squeeze", 0, &self.params, &[state, labels.address(0)])?;
        self.launch("smallest", 1, SEARCHERS, 0, &self.params, &[state, labels.address(all)])?;
        let computed = mark(&self.compute)?;
        check(self.copy.wait_event(computed, StreamWaitEventFlags::DEFAULT))?;
        let count = self.params.count;
        if let Some(memory) = &mut self.memory {
            let slot = &mut memory.slots[slot];
            slot.count = count;
            let (wanted, all) = (count as usize * STORED, all as usize);
            let device = &slot.labels.raw;
            // SAFETY: the slot is read after the event recorded here has been waited for, and freed after that or never.
            unsafe {
                check(device.index(..wanted).async_copy_to(&mut slot.host[..wanted], &self.copy))?;
                check(device.index(all..).async_copy_to(&mut slot.host[all..], &self.copy))?;
            }
        }
        mark(&self.copy)
    }

    fn wait(&mut self, ticket: Event, patience: Duration) -> Result<(), DeviceError> {
        self.enter()?;
        let start = Instant::now();
        let mut pause = Duration::from_micros(50);
        // The driver's own waiting either spins or cannot be given up.
        while check(ticket.query())? == EventStatus::NotReady {
            if start.elapsed() >= patience {
                // Ending an event that is not reached would wait for it.
                std::mem::forget(ticket);
                return Err(DeviceError::Hung { seconds: patience.as_secs() });
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(1));
        }
        Ok(())
    }

    fn read(&mut self, slot: usize, out: &mut [u8]) -> Result<Found, DeviceError> {
        let memory = self.memory()?;
        let slot = &memory.slots[slot];
        out.copy_from_slice(&slot.host[..slot.count as usize * STORED]);
        let record = &slot.host[memory.lanes as usize * STORED..];
        Ok(Found::parse(record))
    }
}
