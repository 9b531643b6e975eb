// A CUDA driver without a GPU: the functions of libcuda that the backend needs. Kernels are those of label.cu, compiled as C++. Streams
// are threads, so work is done later than it is queued, and what is not waited for is not there.
//
// Faults are asked for in the environment:
//   EMULATED_INIT=code      cuInit fails
//   EMULATED_MEMORY=bytes   the memory of the device (default 2 GiB)
//   EMULATED_SHOWN=bytes    what cuMemGetInfo reports as free instead of the truth
//   EMULATED_FAIL=n,code    the n-th launch and all that follow fail
//   EMULATED_HANG=n         the n-th launch never ends
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "../../src/label/cuda/label.cu"

// ---- blocks ----

thread_local Dim blockIdx, blockDim, threadIdx;
thread_local uint4 shared_memory[1024 * (LABEL_PITCH + 1)];
thread_local bool votes[1024];

namespace {

struct Fiber {
    ucontext_t start;
    std::vector<char> stack = std::vector<char>(64 << 10);
    jmp_buf place;
    bool begun = false;
    bool done = false;
};

thread_local jmp_buf scheduler;
thread_local ucontext_t origin;
thread_local std::deque<Fiber> fibers;
thread_local const std::function<void()> *kernel;

void fiber_main() {
    (*kernel)();
    fibers[threadIdx.x].done = true;
    _longjmp(scheduler, 1);
}

// Runs the fiber of `threadIdx` to its next barrier or its end.
__attribute__((noinline)) void turn(Fiber &fiber) {
    if (_setjmp(scheduler) != 0) return;
    if (fiber.begun) _longjmp(fiber.place, 1);
    fiber.begun = true;
    swapcontext(&origin, &fiber.start);
}

void run_block(const std::function<void()> &body) {
    kernel = &body;
    while (fibers.size() < blockDim.x) fibers.emplace_back();
    for (uint32_t i = 0; i < blockDim.x; i++) {
        Fiber &fiber = fibers[i];
        fiber.begun = fiber.done = false;
        getcontext(&fiber.start);
        fiber.start.uc_stack.ss_sp = fiber.stack.data();
        fiber.start.uc_stack.ss_size = fiber.stack.size();
        fiber.start.uc_link = nullptr;
        makecontext(&fiber.start, fiber_main, 0);
    }
    for (bool busy = true; busy;) {
        busy = false;
        for (uint32_t i = 0; i < blockDim.x; i++) {
            if (fibers[i].done) continue;
            threadIdx.x = i;
            turn(fibers[i]);
            busy = busy || !fibers[i].done;
        }
    }
}

void run_grid(uint32_t blocks, uint32_t threads, const std::function<void()> &body) {
    blockDim.x = threads;
    for (uint32_t i = 0; i < blocks; i++) {
        blockIdx.x = i;
        run_block(body);
    }
}

}  // namespace

__attribute__((noinline)) void take_turns() {
    Fiber &fiber = fibers[threadIdx.x];
    if (_setjmp(fiber.place) == 0) _longjmp(scheduler, 1);
}

// ---- streams and events ----

namespace {

enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_IMAGE = 200, NOT_FOUND = 500, NOT_READY = 600 };

struct Event {
    std::mutex mutex;
    std::condition_variable changed;
    uint64_t recorded = 0;
    uint64_t reached = 0;

    void reach(uint64_t mark) {
        std::lock_guard<std::mutex> lock(mutex);
        reached = std::max(reached, mark);
        changed.notify_all();
    }

    void wait(uint64_t mark) {
        std::unique_lock<std::mutex> lock(mutex);
        changed.wait(lock, [&] { return reached >= mark; });
    }
};

struct Stream {
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<std::function<void()>> queue;
    bool closed = false;
    std::thread worker{[this] { work(); }};

    void push(std::function<void()> task) {
        std::lock_guard<std::mutex> lock(mutex);
        queue.push_back(std::move(task));
        changed.notify_all();
    }

    void work() {
        for (;;) {
            std::function<void()> task;
            {
                std::unique_lock<std::mutex> lock(mutex);
                changed.wait(lock, [&] { return closed || !queue.empty(); });
                if (queue.empty()) return;
                task = std::move(queue.front());
                queue.pop_front();
            }
            task();
        }
    }
};

typedef std::shared_ptr<Event> *EventHandle;

struct Function {
    std::string name;
};

struct Module {
    std::string ptx;
    std::map<std::string, Function> functions;
};

std::mutex memory_mutex;
std::map<uint64_t, size_t> allocations;
std::atomic<uint64_t> launches{0};
int context;

uint64_t number(const char *name, uint64_t otherwise) {
    const char *text = getenv(name);
    return text ? strtoull(text, nullptr, 10) : otherwise;
}

size_t memory_size() { return number("EMULATED_MEMORY", (uint64_t)2 << 30); }

size_t memory_used() {
    size_t used = 0;
    for (auto &allocation : allocations) used += allocation.second;
    return used;
}

template <class T>
T argument(void **arguments, int i) {
    return *(T *)arguments[i];
}

// The kernel with its arguments, or nothing for an unknown name.
std::function<void()> find_kernel(const std::string &name, void **arguments) {
    const LabelParams params = argument<LabelParams>(arguments, 0);
    uint4 *state = argument<uint4 *>(arguments, 1);
    if (name == "expand") return [=] { expand(params, state); };
    uint4 *last = argument<uint4 *>(arguments, 2);
    static const std::map<std::string, void (*)(LabelParams, uint4 *, uint4 *)> kernels = {
        {"fill_own", fill_own},       {"fill_shared", fill_shared}, {"mix1_own", mix1_own}, {"mix1_shared", mix1_shared},
        {"mix_own", mix_own},         {"mix_shared", mix_shared},   {"squeeze", squeeze},
    };
    if (name == "smallest") return [=] { smallest(params, state, last); };
    auto found = kernels.find(name);
    if (found == kernels.end()) return {};
    auto function = found->second;
    return [=] { function(params, state, last); };
}

}  // namespace

extern "C" {

int cuInit(unsigned) { return (int)number("EMULATED_INIT", OK); }
int cuDriverGetVersion(int *version) { return *version = 12080, OK; }
int cuDeviceGetCount(int *count) { return *count = 1, OK; }
int cuDeviceGet(int *device, int ordinal) { return *device = ordinal, ordinal == 0 ? OK : 101; }
int cuDeviceGetName(char *name, int length, int) { return snprintf(name, length, "Emulated GPU"), OK; }
int cuDeviceTotalMem_v2(size_t *bytes, int) { return *bytes = memory_size(), OK; }

int cuDeviceGetUuid(unsigned char *uuid, int) {
    for (int i = 0; i < 16; i++) uuid[i] = i + 1;
    return OK;
}

int cuDeviceGetPCIBusId(char *id, int length, int) { return snprintf(id, length, "0000:AF:00.0"), OK; }

int cuDeviceGetAttribute(int *value, int attribute, int) {
    switch (attribute) {
        case 13: return *value = 1000000, OK;  // clock in kHz
        case 16: return *value = 10, OK;       // multiprocessors
        case 18: return *value = 0, OK;        // integrated
        case 36: return *value = 5000000, OK;  // memory clock in kHz
        case 37: return *value = 256, OK;      // bits of the memory bus
        case 75: return *value = 8, OK;        // compute capability
        case 76: return *value = 6, OK;
        default: return INVALID_VALUE;
    }
}

int cuDevicePrimaryCtxRetain(void **handle, int) { return *handle = &context, OK; }
int cuDevicePrimaryCtxRelease_v2(int) { return OK; }
int cuCtxSetCurrent(void *handle) { return handle == &context ? OK : 201; }

int cuModuleLoadDataEx(void **handle, const void *image, unsigned, void *, void *) {
    std::string ptx((const char *)image);
    if (ptx.find(".version 7.0") == std::string::npos || ptx.find(".target sm_75") == std::string::npos) return INVALID_IMAGE;
    *handle = new Module{ptx, {}};
    return OK;
}

int cuModuleUnload(void *handle) { return delete (Module *)handle, OK; }

int cuModuleGetFunction(void **handle, void *module_handle, const char *name) {
    Module *module = (Module *)module_handle;
    if (module->ptx.find(std::string(".entry ") + name + "(") == std::string::npos) return NOT_FOUND;
    *handle = &module->functions.emplace(name, Function{name}).first->second;
    return OK;
}

int cuMemAlloc_v2(uint64_t *pointer, size_t bytes) {
    std::lock_guard<std::mutex> lock(memory_mutex);
    if (memory_used() + bytes > memory_size()) return OUT_OF_MEMORY;
    void *memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (!memory) return OUT_OF_MEMORY;
    // Fresh memory of a GPU holds anything.
    memset(memory, 0xa5, bytes);
    *pointer = (uint64_t)memory;
    allocations[*pointer] = bytes;
    return OK;
}

int cuMemFree_v2(uint64_t pointer) {
    std::lock_guard<std::mutex> lock(memory_mutex);
    if (allocations.erase(pointer) == 0) return INVALID_VALUE;
    free((void *)pointer);
    return OK;
}

int cuMemGetInfo_v2(size_t *unused, size_t *total) {
    std::lock_guard<std::mutex> lock(memory_mutex);
    *total = memory_size();
    *unused = number("EMULATED_SHOWN", *total - memory_used());
    return OK;
}

int cuMemAllocHost_v2(void **pointer, size_t bytes) { return *pointer = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096), OK; }
int cuMemFreeHost(void *pointer) { return free(pointer), OK; }

int cuStreamCreateWithPriority(void **handle, unsigned, int) { return *handle = new Stream, OK; }

int cuStreamDestroy_v2(void *handle) {
    Stream *stream = (Stream *)handle;
    {
        std::lock_guard<std::mutex> lock(stream->mutex);
        stream->closed = true;
        stream->changed.notify_all();
    }
    stream->worker.join();
    delete stream;
    return OK;
}

int cuEventCreate(void **handle, unsigned) { return *handle = new std::shared_ptr<Event>(std::make_shared<Event>()), OK; }
int cuEventDestroy_v2(void *handle) { return delete (EventHandle)handle, OK; }

int cuEventRecord(void *handle, void *stream) {
    std::shared_ptr<Event> event = *(EventHandle)handle;
    uint64_t mark;
    {
        std::lock_guard<std::mutex> lock(event->mutex);
        mark = ++event->recorded;
    }
    ((Stream *)stream)->push([=] { event->reach(mark); });
    return OK;
}

int cuEventQuery(void *handle) {
    Event &event = **(EventHandle)handle;
    std::lock_guard<std::mutex> lock(event.mutex);
    return event.reached >= event.recorded ? OK : NOT_READY;
}

int cuStreamWaitEvent(void *stream, void *handle, unsigned) {
    std::shared_ptr<Event> event = *(EventHandle)handle;
    const uint64_t mark = event->recorded;
    ((Stream *)stream)->push([=] { event->wait(mark); });
    return OK;
}

int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream) {
    ((Stream *)stream)->push([=] { memcpy(to, (const void *)from, bytes); });
    return OK;
}

int cuLaunchKernel(
    void *function, unsigned blocks, unsigned, unsigned, unsigned threads, unsigned, unsigned, unsigned shared, void *stream,
    void **arguments, void **) {
    const uint64_t launch = ++launches;
    if (const char *fail = getenv("EMULATED_FAIL")) {
        char *code;
        if (launch >= strtoull(fail, &code, 10)) return atoi(code + 1);
    }
    if (threads > 1024 || shared > 48 << 10 || shared > sizeof shared_memory) return INVALID_VALUE;
    if (launch == number("EMULATED_HANG", 0)) {
        ((Stream *)stream)->push([] { std::this_thread::sleep_for(std::chrono::hours(24)); });
        return OK;
    }
    std::function<void()> body = find_kernel(((Function *)function)->name, arguments);
    if (!body) return NOT_FOUND;
    ((Stream *)stream)->push([=] { run_grid(blocks, threads, body); });
    return OK;
}

}  // extern "C"
