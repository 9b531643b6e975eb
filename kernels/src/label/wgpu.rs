//! Labels on a graphics processor through Vulkan, Metal or DirectX 12.
//!
//! The kernels are WGSL: `label.wgsl`, and one of two ways to move rows of V. Work comes in batches of several shards, since
//! one buffer may be as small as 128 MiB; each shard has its own V, state and labels, so its dispatches do not wait for those of
//! the others. What goes around them is in [`gpu`](super::gpu).
//!
//! **Never run on a GPU so far**, only on software Vulkan.

use std::{
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use pollster::block_on;
use proto::{ids::Commitment, post::ScryptN};

use super::{
    DeviceError, DeviceKind, STORED,
    gpu::{Engine, Found, Gpu, GpuClass, GpuInfo, Held, Meter, ROW, SLOTS, Tuning, fingerprint},
};

const LABEL: &str = include_str!("wgpu/label.wgsl");
const ROWS_OWN: &str = include_str!("wgpu/rows_own.wgsl");
const ROWS_SHARED: &str = include_str!("wgpu/rows_shared.wgsl");

/// Changes with the kernels.
const FINGERPRINT: u64 = fingerprint(&[LABEL, ROWS_OWN, ROWS_SHARED]);

/// Names these kernels in [`GpuInfo::tuning_key`].
pub fn kernel_version() -> String {
    format!("wgsl {FINGERPRINT:016x}")
}

/// Bytes of the smallest label of a shard behind its labels.
const RECORD: u64 = 48;
/// From the parameters of one shard to those of the next; the largest alignment that a device may ask for.
const PARAMS_PITCH: u64 = 256;
/// Length of the parameters.
const PARAMS: usize = 64;

/// A device found by [`enumerate`].
#[derive(Debug, Clone)]
pub struct Adapter {
    info: GpuInfo,
    adapter: wgpu::Adapter,
}

/// Why there is no device for wgpu.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// The library that finds Vulkan drivers is not installed, or not visible from within a container.
    #[error("no Vulkan loader: {0}")]
    Loader(String),
    /// No driver is installed that serves any device of this machine.
    #[error("no Vulkan, Metal or DirectX 12 driver serves a device of this machine")]
    Driver,
}

/// All devices of this machine that wgpu knows, software ones included; nothing is run on them.
pub fn enumerate() -> Result<Vec<Adapter>, Missing> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    descriptor.flags = wgpu::InstanceFlags::empty();
    // Near the end of the memory, others would be pushed out of it: refuse before that.
    descriptor.memory_budget_thresholds.for_resource_creation = Some(97);
    let instance = wgpu::Instance::new(descriptor);
    let mut adapters: Vec<Adapter> = Vec::new();
    for adapter in block_on(instance.enumerate_adapters(wgpu::Backends::all())) {
        let info = describe(&adapter, &adapters);
        adapters.push(Adapter { info, adapter });
    }
    if adapters.is_empty() { Err(missing()) } else { Ok(adapters) }
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the question whether a library can be opened")]
fn missing() -> Missing {
    // SAFETY: the system's Vulkan loader, which wgpu has opened before if it is there.
    match unsafe { ash::Entry::load() } {
        Ok(_) => Missing::Driver,
        Err(e) => Missing::Loader(e.to_string()),
    }
}

#[cfg(not(target_os = "linux"))]
fn missing() -> Missing {
    Missing::Driver
}

fn describe(adapter: &wgpu::Adapter, before: &[Adapter]) -> GpuInfo {
    let raw = adapter.get_info();
    let backend = raw.backend.to_str();
    let place = if raw.device_pci_bus_id.is_empty() {
        let model = format!("{:04x}-{:04x}", raw.vendor, raw.device);
        // Of equal devices without a place, the order in which the driver names them.
        let equal = before.iter().filter(|other| other.info.key.starts_with(&format!("{backend}:{model}"))).count();
        format!("{model}-{equal}")
    } else {
        raw.device_pci_bus_id.clone()
    };
    let details = details(adapter);
    GpuInfo {
        key: format!("{backend}:{place}"),
        name: raw.name,
        backend: backend.into(),
        class: match raw.device_type {
            wgpu::DeviceType::DiscreteGpu => GpuClass::Discrete,
            wgpu::DeviceType::IntegratedGpu => GpuClass::Integrated,
            wgpu::DeviceType::VirtualGpu => GpuClass::Virtual,
            wgpu::DeviceType::Cpu => GpuClass::Software,
            wgpu::DeviceType::Other => GpuClass::Unknown,
        },
        driver: format!("{} {}", raw.driver, raw.driver_info).trim().to_owned(),
        memory: details.memory,
        free: details.free,
        pci: Some(raw.device_pci_bus_id).filter(|pci| !pci.is_empty()),
        // Software gives its version instead.
        uuid: details.uuid.filter(|_| raw.device_type != wgpu::DeviceType::Cpu),
    }
}

/// What wgpu itself does not tell.
#[derive(Debug, Default)]
struct Details {
    memory: Option<u64>,
    free: Option<u64>,
    uuid: Option<[u8; 16]>,
}

#[cfg(any(target_os = "linux", target_os = "windows"))]
#[expect(unsafe_code, reason = "questions to the Vulkan driver that wgpu has no words for")]
fn details(adapter: &wgpu::Adapter) -> Details {
    use ash::vk;
    // SAFETY: the handle is only read from and not kept.
    let Some(hal) = (unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }) else { return Details::default() };
    let shared = hal.shared_instance();
    if shared.instance_api_version() < vk::API_VERSION_1_1
        || hal.physical_device_capabilities().properties().api_version < vk::API_VERSION_1_1
    {
        return Details::default();
    }
    let (instance, device) = (shared.raw_instance(), hal.raw_physical_device());
    let has_budget = hal.physical_device_capabilities().supports_extension(ash::ext::memory_budget::NAME);

    let mut ids = vk::PhysicalDeviceIDProperties::default();
    let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut ids);
    // SAFETY: a device of this instance; the chain is of structures of Vulkan 1.1, which both support.
    unsafe { instance.get_physical_device_properties2(device, &mut properties) };

    let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
    let mut memory = vk::PhysicalDeviceMemoryProperties2::default();
    if has_budget {
        memory = memory.push_next(&mut budget);
    }
    // SAFETY: as above; the budget is in the chain only if the device has that extension.
    unsafe { instance.get_physical_device_memory_properties2(device, &mut memory) };
    let heaps = memory.memory_properties;
    let own = |i: &usize| heaps.memory_heaps[*i].flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL);
    let own: Vec<usize> = (0..heaps.memory_heap_count as usize).filter(own).collect();
    // Cards show a part of their memory a second time, as a small heap: the largest one is what counts.
    let largest = own.into_iter().max_by_key(|i| heaps.memory_heaps[*i].size);
    Details {
        memory: largest.map(|i| heaps.memory_heaps[i].size),
        free: largest.filter(|_| has_budget).map(|i| budget.heap_budget[i].saturating_sub(budget.heap_usage[i])),
        uuid: Some(ids.device_uuid),
    }
}

#[cfg(not(any(target_os = "linux", target_os = "windows")))]
fn details(_adapter: &wgpu::Adapter) -> Details {
    Details::default()
}

impl Adapter {
    /// What this is.
    pub fn info(&self) -> &GpuInfo {
        &self.info
    }

    /// What to start with before the device is tuned.
    pub fn default_tuning(&self) -> Tuning {
        if self.info.class == GpuClass::Software { Tuning::SOFTWARE } else { Tuning::GPU }
    }

    /// Compiles the kernels; memory is taken at the first use.
    pub fn open(&self, n: ScryptN, tuning: Tuning) -> Result<Gpu, DeviceError> {
        // A dispatch is meant to take a fraction of a second; the first ones compile.
        let patience = Duration::from_secs(if self.info.class == GpuClass::Software { 300 } else { 30 });
        let meter = Meter::default();
        let engine = Shards::new(self, n, tuning, meter.clone())?;
        Ok(Gpu::new(engine, &self.info, DeviceKind::Wgpu, (n, tuning), patience, meter))
    }
}

/// A part of a batch with memory of its own.
struct Shard {
    lanes: u32,
    labels: Buffer,
    bindings: wgpu::BindGroup,
    /// State and V, held for the bindings.
    _private: [Buffer; 2],
}

/// A buffer that is counted.
struct Buffer {
    raw: wgpu::Buffer,
    _held: Held,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.raw.destroy();
    }
}

/// A finished batch on its way to the host.
struct Slot {
    buffer: Buffer,
    /// Labels of each shard.
    counts: Vec<u32>,
}

/// What exists while there is memory.
struct Memory {
    shards: Vec<Shard>,
    params: Buffer,
    slots: [Slot; SLOTS],
}

/// What the driver reported behind our back.
type Fault = Arc<Mutex<Option<DeviceError>>>;

struct Pipelines {
    expand: wgpu::ComputePipeline,
    fill: wgpu::ComputePipeline,
    mix: wgpu::ComputePipeline,
    squeeze: wgpu::ComputePipeline,
    smallest: wgpu::ComputePipeline,
}

/// The [`Engine`].
struct Shards {
    adapter: wgpu::Adapter,
    class: GpuClass,
    device: wgpu::Device,
    queue: wgpu::Queue,
    layout: wgpu::BindGroupLayout,
    pipelines: Pipelines,
    fault: Fault,
    tuning: Tuning,
    n: ScryptN,
    /// Labels of a full shard.
    shard_lanes: u32,
    meter: Meter,
    memory: Option<Memory>,
    batch: Batch,
}

/// The batch being computed.
#[derive(Default)]
struct Batch {
    commitment: [u8; 32],
    first: u64,
    count: u32,
}

impl Shards {
    fn new(adapter: &Adapter, n: ScryptN, tuning: Tuning, meter: Meter) -> Result<Self, DeviceError> {
        tuning.check()?;
        let Adapter { info, adapter } = adapter;
        let limits = adapter.limits();
        let shared_memory = if tuning.movers == 1 { 0 } else { tuning.group * (9 * 16 + 4) + 4 };
        if tuning.group > limits.max_compute_invocations_per_workgroup
            || tuning.group > limits.max_compute_workgroup_size_x
            || shared_memory > limits.max_compute_workgroup_storage_size
        {
            return Err(DeviceError::Unsupported(format!("work-groups of {} threads", tuning.group)));
        }
        let largest = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
        let group_bytes = tuning.rows(n) as u64 * ROW * tuning.group as u64;
        // Indices of V are 32 bits of 16 bytes each.
        let groups = (largest / group_bytes).min((1 << 36) / group_bytes);
        let Some(shard_lanes) = u32::try_from(groups * tuning.group as u64).ok().filter(|lanes| *lanes > 0) else {
            return Err(DeviceError::Unsupported(format!("{group_bytes} bytes in one buffer, more than {largest}")));
        };
        let (device, queue) = block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            label: None,
            required_features: wgpu::Features::empty(),
            required_limits: limits,
            experimental_features: wgpu::ExperimentalFeatures::disabled(),
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            trace: wgpu::Trace::Off,
        }))
        .map_err(|e| DeviceError::Failed(e.to_string()))?;
        let fault = watch(&device);
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: None,
            entries: &[
                entry(0, wgpu::BufferBindingType::Uniform, true),
                entry(1, wgpu::BufferBindingType::Storage { read_only: false }, false),
                entry(2, wgpu::BufferBindingType::Storage { read_only: false }, false),
                entry(3, wgpu::BufferBindingType::Storage { read_only: false }, false),
            ],
        });
        let pipelines = Pipelines::new(&device, &layout, tuning);
        let shards = Self {
            adapter: adapter.clone(),
            class: info.class,
            device,
            queue,
            layout,
            pipelines,
            fault,
            tuning,
            n,
            shard_lanes,
            meter,
            memory: None,
            batch: Batch::default(),
        };
        shards.check()?;
        Ok(shards)
    }

    /// The first thing that went wrong since the last call.
    fn check(&self) -> Result<(), DeviceError> {
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        match &*fault {
            None => Ok(()),
            // It stays lost.
            Some(lost @ DeviceError::Lost(_)) => Err(lost.clone()),
            Some(_) => fault.take().map_or(Ok(()), Err),
        }
    }

    fn buffer(&self, bytes: u64, usage: wgpu::BufferUsages) -> Result<Buffer, DeviceError> {
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let raw =
            self.device.create_buffer(&wgpu::BufferDescriptor { label: None, size: bytes, usage, mapped_at_creation: false });
        let buffer = Buffer { raw, _held: self.meter.hold(bytes) };
        match block_on(scope.pop()) {
            None => self.check().map(|()| buffer),
            Some(_) => Err(DeviceError::OutOfMemory { bytes }),
        }
    }

    fn shard(&self, lanes: u32, params: &Buffer) -> Result<Shard, DeviceError> {
        let storage = wgpu::BufferUsages::STORAGE;
        let state = self.buffer(lanes as u64 * self.tuning.state_bytes(), storage)?;
        let labels = self.buffer(lanes as u64 * STORED as u64 + RECORD, storage | wgpu::BufferUsages::COPY_SRC)?;
        let v = self.buffer(lanes as u64 * self.tuning.rows(self.n) as u64 * ROW, storage)?;
        let params = wgpu::BufferBinding { buffer: &params.raw, offset: 0, size: (PARAMS as u64).try_into().ok() };
        let bindings = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &self.layout,
            entries: &[
                wgpu::BindGroupEntry { binding: 0, resource: wgpu::BindingResource::Buffer(params) },
                wgpu::BindGroupEntry { binding: 1, resource: state.raw.as_entire_binding() },
                wgpu::BindGroupEntry { binding: 2, resource: labels.raw.as_entire_binding() },
                wgpu::BindGroupEntry { binding: 3, resource: v.raw.as_entire_binding() },
            ],
        });
        Ok(Shard { lanes, labels, bindings, _private: [state, v] })
    }

    fn memory(&self) -> Result<&Memory, DeviceError> {
        self.memory.as_ref().ok_or_else(|| DeviceError::Failed("no memory is held".into()))
    }

    /// Labels of the batch that each shard in use makes.
    fn counts(&self, memory: &Memory) -> Vec<u32> {
        let mut left = self.batch.count;
        let mut counts = Vec::new();
        for shard in &memory.shards {
            let count = left.min(shard.lanes);
            if count == 0 {
                break;
            }
            counts.push(count);
            left -= count;
        }
        counts
    }

    /// Queues one dispatch per shard for each pipeline, then whatever `after` adds.
    fn dispatch(
        &self,
        pipelines: &[(&wgpu::ComputePipeline, bool)],
        begin: u32,
        end: u32,
        last: bool,
        after: impl FnOnce(&Memory, &[u32], &mut wgpu::CommandEncoder),
    ) -> Result<wgpu::SubmissionIndex, DeviceError> {
        let memory = self.memory()?;
        let counts = self.counts(memory);
        let mut params = vec![0; counts.len() * PARAMS_PITCH as usize];
        let mut first = self.batch.first;
        for ((shard, count), params) in memory.shards.iter().zip(&counts).zip(params.chunks_exact_mut(PARAMS_PITCH as usize)) {
            params[..32].copy_from_slice(&self.batch.commitment);
            params[32..40].copy_from_slice(&first.to_le_bytes());
            for (place, value) in
                params[40..PARAMS].chunks_exact_mut(4).zip([shard.lanes, *count, begin, end, u32::from(last), self.n.get()])
            {
                place.copy_from_slice(&value.to_le_bytes());
            }
            first = first.wrapping_add(*count as u64);
        }
        self.queue.write_buffer(&memory.params.raw, 0, &params);
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            for (pipeline, one_group) in pipelines {
                pass.set_pipeline(pipeline);
                for (i, (shard, count)) in memory.shards.iter().zip(&counts).enumerate() {
                    pass.set_bind_group(0, &shard.bindings, &[i as u32 * PARAMS_PITCH as u32]);
                    pass.dispatch_workgroups(if *one_group { 1 } else { count.div_ceil(self.tuning.group) }, 1, 1);
                }
            }
        }
        after(memory, &counts, &mut encoder);
        let index = self.queue.submit([encoder.finish()]);
        self.check()?;
        Ok(index)
    }
}

fn entry(binding: u32, ty: wgpu::BufferBindingType, has_dynamic_offset: bool) -> wgpu::BindGroupLayoutEntry {
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset, min_binding_size: None },
        count: None,
    }
}

/// Keeps errors that come up outside of a call; without this they end the program.
fn watch(device: &wgpu::Device) -> Fault {
    let fault = Fault::default();
    let note = |fault: &Fault, error: DeviceError| {
        let mut place = fault.lock().unwrap_or_else(PoisonError::into_inner);
        // The first error is the cause of the others; only a loss says more.
        if place.is_none() || matches!(error, DeviceError::Lost(_)) {
            *place = Some(error);
        }
    };
    let errors = fault.clone();
    device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
        let error = match error {
            wgpu::Error::OutOfMemory { .. } => DeviceError::OutOfMemory { bytes: 0 },
            other => DeviceError::Failed(other.to_string()),
        };
        note(&errors, error);
    }));
    let losses = fault.clone();
    device.set_device_lost_callback(move |reason, message| note(&losses, DeviceError::Lost(format!("{reason:?}: {message}"))));
    fault
}

/// The kernels for these parameters.
fn source(tuning: Tuning) -> String {
    let rows = if tuning.movers == 1 { ROWS_OWN } else { ROWS_SHARED };
    format!("const GAP = {}u;\nconst GROUP = {}u;\n{LABEL}\n{rows}", tuning.gap, tuning.group)
}

impl Pipelines {
    #[expect(unsafe_code, reason = "shaders without the checks that untrusted ones need")]
    fn new(device: &wgpu::Device, layout: &wgpu::BindGroupLayout, tuning: Tuning) -> Self {
        let source = wgpu::ShaderSource::Wgsl(source(tuning).into());
        // SAFETY: threads are at most `lanes` of a shard, since those are a multiple of the size of a work-group, and rows fewer
        // than `Tuning::rows`; the buffers are as large as these say. Every loop ends: bounds are parameters, and the last
        // dispatch of ROMix makes at least one Mix per turn towards a finite number.
        let module = unsafe {
            device.create_shader_module_trusted(
                wgpu::ShaderModuleDescriptor { label: None, source },
                wgpu::ShaderRuntimeChecks::unchecked(),
            )
        };
        let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(layout)],
            immediate_size: 0,
        });
        let pipeline = |entry_point| {
            device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: None,
                layout: Some(&layout),
                module: &module,
                entry_point: Some(entry_point),
                compilation_options: wgpu::PipelineCompilationOptions { constants: &[], zero_initialize_workgroup_memory: false },
                cache: None,
            })
        };
        Self {
            expand: pipeline("expand"),
            fill: pipeline("fill"),
            mix: pipeline("mix"),
            squeeze: pipeline("squeeze"),
            smallest: pipeline("smallest"),
        }
    }
}

impl Engine for Shards {
    type Ticket = wgpu::SubmissionIndex;

    fn room(&self) -> u32 {
        // Of memory of its own a tenth is left to the desktop, of memory of the machine a half to everybody.
        let share = match self.class {
            GpuClass::Discrete | GpuClass::Virtual => 0.9,
            GpuClass::Integrated | GpuClass::Software | GpuClass::Unknown => 0.5,
        };
        let details = details(&self.adapter);
        let Some(free) = details.free.or(details.memory) else { return u32::MAX };
        (free as f64 * share / self.tuning.bytes_per_lane(self.n) as f64) as u32
    }

    fn allocate(&mut self, lanes: u32) -> Result<(), DeviceError> {
        let shards = lanes.div_ceil(self.shard_lanes);
        let params = self.buffer(shards as u64 * PARAMS_PITCH, wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST)?;
        let mut made = Vec::new();
        for i in 0..shards {
            made.push(self.shard(self.shard_lanes.min(lanes - i * self.shard_lanes), &params)?);
        }
        let slot = || -> Result<Slot, DeviceError> {
            let bytes = lanes as u64 * STORED as u64 + shards as u64 * RECORD;
            let buffer = self.buffer(bytes, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST)?;
            Ok(Slot { buffer, counts: Vec::new() })
        };
        self.memory = Some(Memory { slots: [slot()?, slot()?], shards: made, params });
        Ok(())
    }

    fn free(&mut self) {
        if self.memory.take().is_some() {
            // What was destroyed is given back to the system once the device has been asked about its work.
            let _idle = poll(&self.device, wgpu::PollType::Poll);
        }
    }

    fn expand(&mut self, commitment: &Commitment, first: u64, count: u32) -> Result<Self::Ticket, DeviceError> {
        self.batch = Batch { commitment: *commitment.as_bytes(), first, count };
        self.dispatch(&[(&self.pipelines.expand, false)], 0, 0, false, |_, _, _| ())
    }

    fn fill(&mut self, rows: Range<u32>) -> Result<Self::Ticket, DeviceError> {
        self.dispatch(&[(&self.pipelines.fill, false)], rows.start, rows.end, false, |_, _, _| ())
    }

    fn mix(&mut self, steps: u32, last: bool) -> Result<Self::Ticket, DeviceError> {
        self.dispatch(&[(&self.pipelines.mix, false)], 0, steps, last, |_, _, _| ())
    }

    fn squeeze(&mut self, slot: usize) -> Result<Self::Ticket, DeviceError> {
        let pipelines = [(&self.pipelines.squeeze, false), (&self.pipelines.smallest, true)];
        let index = self.dispatch(&pipelines, 0, 0, false, |memory, counts, encoder| {
            let to = &memory.slots[slot].buffer.raw;
            let mut at = 0;
            for (shard, count) in memory.shards.iter().zip(counts) {
                let (labels, all) = (*count as u64 * STORED as u64, shard.lanes as u64 * STORED as u64);
                encoder.copy_buffer_to_buffer(&shard.labels.raw, 0, to, at, labels);
                encoder.copy_buffer_to_buffer(&shard.labels.raw, all, to, at + labels, RECORD);
                at += labels + RECORD;
            }
        })?;
        let counts = self.counts(self.memory()?);
        if let Some(memory) = &mut self.memory {
            let slot = &mut memory.slots[slot];
            slot.counts = counts;
            // Whether this worked shows when the place is read.
            slot.buffer.raw.map_async(wgpu::MapMode::Read, .., |_| ());
        }
        Ok(index)
    }

    fn wait(&mut self, ticket: Self::Ticket, patience: Duration) -> Result<(), DeviceError> {
        let answer = poll(&self.device, wgpu::PollType::Wait { submission_index: Some(ticket), timeout: Some(patience) });
        // A loss is the better explanation.
        self.check()?;
        answer.map_err(|e| match e {
            DeviceError::Hung { .. } => DeviceError::Hung { seconds: patience.as_secs() },
            other => other,
        })
    }

    fn read(&mut self, slot: usize, out: &mut [u8]) -> Result<Found, DeviceError> {
        let slot = &self.memory()?.slots[slot];
        let mut smallest: Option<Found> = None;
        {
            let view = slot.buffer.raw.get_mapped_range(..).map_err(|e| DeviceError::Failed(e.to_string()))?;
            let (mut rest, mut out, mut first) = (&view[..], out, 0);
            for count in &slot.counts {
                let (labels, behind) = rest.split_at(*count as usize * STORED);
                let (record, behind) = behind.split_at(RECORD as usize);
                let (here, after) = out.split_at_mut(labels.len());
                here.copy_from_slice(labels);
                let found = Found::parse(record);
                let found = Found { place: found.place.saturating_add(first), ..found };
                smallest = Some(smallest.map_or(found, |other| if found.label < other.label { found } else { other }));
                (rest, out, first) = (behind, after, first + count);
            }
        }
        slot.buffer.raw.unmap();
        smallest.ok_or_else(|| DeviceError::Failed("an empty batch".into()))
    }
}

/// Polls a device that may be lost, which wgpu answers with a panic.
fn poll(device: &wgpu::Device, how: wgpu::PollType) -> Result<(), DeviceError> {
    match catch_unwind(AssertUnwindSafe(|| device.poll(how))) {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(wgpu::PollError::Timeout)) => Err(DeviceError::Hung { seconds: 0 }),
        // A lost device takes no work and tells it only here.
        Ok(Err(wgpu::PollError::WrongSubmissionIndex(..))) => Err(DeviceError::Lost("it took no more work".into())),
        Err(_) => Err(DeviceError::Lost("the driver gave up while it was waited for".into())),
    }
}

#[cfg(test)]
mod tests {
    use naga::{
        back::{hlsl, msl},
        valid::{Capabilities, ValidationFlags, Validator},
    };

    use super::*;
    use crate::label::Device;

    /// There is no Mac and no Windows here; that the kernels can be written in their languages is a beginning.
    #[test]
    fn kernels_translate_for_metal_and_directx() {
        for tuning in [Tuning::SOFTWARE, Tuning::GPU, Tuning { gap: 8, group: 256, ..Tuning::GPU }] {
            let module = naga::front::wgsl::parse_str(&source(tuning)).expect("WGSL");
            let info = Validator::new(ValidationFlags::all(), Capabilities::empty()).validate(&module).expect("a valid module");
            let metal = msl::Options { lang_version: (2, 1), fake_missing_bindings: true, ..Default::default() };
            let (metal, _) = msl::write_string(&module, &info, &metal, &msl::PipelineOptions::default()).expect("MSL");
            let mut directx = String::new();
            let options = hlsl::Options { fake_missing_bindings: true, ..Default::default() };
            let pipeline = hlsl::PipelineOptions::default();
            hlsl::Writer::new(&mut directx, &options, &pipeline).write(&module, &info, None).expect("HLSL");
            for entry in ["expand", "fill", "mix", "squeeze", "smallest"] {
                assert!(
                    metal.contains(&format!("kernel void {entry}")) && directx.contains(&format!("void {entry}(")),
                    "{entry}"
                );
            }
        }
    }

    /// What a reset looks like from here: everything fails from one call to the next.
    #[test]
    fn a_lost_device_is_an_error_and_not_the_end() {
        for adapter in enumerate().expect("an adapter") {
            let n = ScryptN::new(64).expect("a power of two");
            let tuning = Tuning { lanes: 32, group: 32, ..Tuning::SOFTWARE };
            let meter = Meter::default();
            let engine = Shards::new(&adapter, n, tuning, meter.clone()).expect("a device");
            let raw = engine.device.clone();
            let patience = Duration::from_secs(300);
            let mut device = Gpu::new(engine, adapter.info(), DeviceKind::Wgpu, (n, tuning), patience, meter);
            let (commitment, mut out) = (Commitment([3; 32]), [0; 40 * 16]);
            device.labels(&commitment, 0, &mut out).expect("labels");
            raw.destroy();
            for _ in 0..3 {
                let result = device.labels(&commitment, 0, &mut out);
                assert!(matches!(result, Err(DeviceError::Lost(_))), "{result:?}");
            }
            device.release();
            drop(device);
            // Opened again it works.
            adapter.open(n, tuning).expect("a device").labels(&commitment, 0, &mut out).expect("labels");
        }
    }
}
