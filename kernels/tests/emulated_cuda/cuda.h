// Just enough of CUDA C++ to compile label.cu as C++ and run it: the threads of a block are fibers of one thread, which take turns at
// every barrier.
#pragma once
#include <stddef.h>
#include <stdint.h>

#define __device__
#define __global__
#define __forceinline__ inline __attribute__((always_inline))
// All fibers of a block run on one thread.
#define __shared__ thread_local

struct alignas(16) uint4 {
    uint32_t x, y, z, w;
};

static inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }

struct Dim {
    uint32_t x;
};
extern thread_local Dim blockIdx, blockDim, threadIdx;

// Gives the other threads of the block their turn.
void take_turns();
// What each thread of the block brings to a vote.
extern thread_local bool votes[1024];

static inline void __syncthreads() { take_turns(); }
static inline void __syncwarp(uint32_t) { take_turns(); }

static inline bool __all_sync(uint32_t, bool own) {
    votes[threadIdx.x] = own;
    take_turns();
    bool all = true;
    const uint32_t first = threadIdx.x / 32 * 32;
    for (uint32_t i = first; i < first + 32 && i < blockDim.x; i++) all = all && votes[i];
    // Nobody votes again before all have read.
    take_turns();
    return all;
}

static inline uint32_t __byte_perm(uint32_t low, uint32_t high, uint32_t selector) {
    const uint64_t bytes = (uint64_t)high << 32 | low;
    uint32_t result = 0;
    for (int i = 0; i < 4; i++) result |= (uint32_t)(bytes >> (selector >> 4 * i & 7) * 8 & 0xff) << 8 * i;
    return result;
}

static inline uint32_t __funnelshift_l(uint32_t low, uint32_t high, uint32_t by) {
    return (uint32_t)(((uint64_t)high << 32 | low) << (by & 31) >> 32);
}

static inline uint32_t __umulhi(uint32_t a, uint32_t b) { return (uint32_t)((uint64_t)a * b >> 32); }
