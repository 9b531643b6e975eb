// The label function (docs/spec/post.md section 3) for many labels at once, one thread per label.
//
// Five steps. What a label needs from one step to the next lies in `state`, so that ROMix can be cut into launches of any length:
//
//   expand   password -> X                                       (PBKDF2, section 3.2)
//   fill     V[i] = X; X = Mix(X)          for i in begin..end   (section 3.3)
//   mix      X = Mix(X ^ V[j])             for a number of Mixes
//   squeeze  X -> full label, stored half packed for the host
//   smallest of the full labels of the batch                     (section 4.3)
//
// fill and mix come in two kinds. In the own kind a thread moves the rows of its label; in the shared kind eight neighbouring
// threads move each of their eight rows together, 16 bytes each, so that a row is one access of 128 neighbouring bytes.
// mix also comes without lookup gap (mix1) and for any gap (mix).
//
// The same text is compiled as C++ by the tests, against tests/emulated_cuda/cuda.h.
#ifndef __CUDACC__
#include "cuda.h"
#endif
#include "label.h"

// ---- ChaCha20/8 and Mix ----

template <int K>
__device__ __forceinline__ uint32_t rotate(uint32_t x) {
    // By whole bytes this is a permutation of them.
    if (K == 16) return __byte_perm(x, 0, 0x1032);
    if (K == 8) return __byte_perm(x, 0, 0x2103);
    return __funnelshift_l(x, x, K);
}

__device__ __forceinline__ void quarter_round(uint32_t &a, uint32_t &b, uint32_t &c, uint32_t &d) {
    a += b;
    d = rotate<16>(d ^ a);
    c += d;
    b = rotate<12>(b ^ c);
    a += b;
    d = rotate<8>(d ^ a);
    c += d;
    b = rotate<7>(b ^ c);
}

__device__ __forceinline__ void chacha(uint32_t *t) {
    uint32_t x[16];
#pragma unroll
    for (int i = 0; i < 16; i++) x[i] = t[i];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        quarter_round(x[0], x[4], x[8], x[12]);
        quarter_round(x[1], x[5], x[9], x[13]);
        quarter_round(x[2], x[6], x[10], x[14]);
        quarter_round(x[3], x[7], x[11], x[15]);
        quarter_round(x[0], x[5], x[10], x[15]);
        quarter_round(x[1], x[6], x[11], x[12]);
        quarter_round(x[2], x[7], x[8], x[13]);
        quarter_round(x[3], x[4], x[9], x[14]);
    }
#pragma unroll
    for (int i = 0; i < 16; i++) t[i] += x[i];
}

// Words 0 to 15 are B0, words 16 to 31 B1.
struct Pair {
    uint32_t w[32];
};

__device__ __forceinline__ void mix_pair(Pair &x) {
#pragma unroll
    for (int i = 0; i < 16; i++) x.w[i] ^= x.w[16 + i];
    chacha(x.w);
#pragma unroll
    for (int i = 0; i < 16; i++) x.w[16 + i] ^= x.w[i];
    chacha(x.w + 16);
}

__device__ __forceinline__ uint4 piece(const Pair &x, int i) {
    return make_uint4(x.w[4 * i], x.w[4 * i + 1], x.w[4 * i + 2], x.w[4 * i + 3]);
}

__device__ __forceinline__ void set_piece(Pair &x, int i, uint4 p) {
    x.w[4 * i] = p.x;
    x.w[4 * i + 1] = p.y;
    x.w[4 * i + 2] = p.z;
    x.w[4 * i + 3] = p.w;
}

// ---- state: X (8 vectors), and for gaps above 1 Y (8) and the progress (1) ----

__device__ __forceinline__ void load(Pair &x, const uint4 *state, uint32_t lanes) {
#pragma unroll
    for (int i = 0; i < LABEL_ROW_VECTORS; i++) set_piece(x, i, state[(size_t)i * lanes]);
}

__device__ __forceinline__ void save(const Pair &x, uint4 *state, uint32_t lanes) {
#pragma unroll
    for (int i = 0; i < LABEL_ROW_VECTORS; i++) state[(size_t)i * lanes] = piece(x, i);
}

// ---- V: the rows of a block are one piece of memory, the same row of all its labels side by side ----

extern __shared__ uint4 shared_memory[];

struct Own {
    uint4 *rows;

    __device__ __forceinline__ Own(uint4 *v, uint32_t kept) {
        rows = v + ((size_t)blockIdx.x * kept * blockDim.x + threadIdx.x) * LABEL_ROW_VECTORS;
    }

    __device__ __forceinline__ uint4 *at(uint32_t row) const {
        return rows + (size_t)row * blockDim.x * LABEL_ROW_VECTORS;
    }

    __device__ __forceinline__ void put(uint32_t row, const Pair &x) const {
        uint4 *to = at(row);
#pragma unroll
        for (int i = 0; i < LABEL_ROW_VECTORS; i++) to[i] = piece(x, i);
    }

    // Reads the row if it is wanted, else leaves `y` as it is.
    __device__ __forceinline__ void get(Pair &y, uint32_t row, bool wanted) const {
        if (wanted) {
            const uint4 *from = at(row);
#pragma unroll
            for (int i = 0; i < LABEL_ROW_VECTORS; i++) set_piece(y, i, from[i]);
        }
    }

    // Whether this thread may stop.
    __device__ __forceinline__ bool all(bool own) const { return own; }
};

// Called by all threads of a warp together.
struct Shared {
    // The rows of the first label of the team.
    uint4 *rows;
    // The team's rows in shared memory, and the row numbers its threads want.
    uint4 *tile;
    uint32_t *wanted_rows;
    // Place in the team.
    uint32_t place;
    // The threads of the warp.
    uint32_t warp;

    __device__ __forceinline__ Shared(uint4 *v, uint32_t kept) {
        place = threadIdx.x % LABEL_MOVERS;
        uint32_t team = threadIdx.x - place;
        rows = v + ((size_t)blockIdx.x * kept * blockDim.x + team) * LABEL_ROW_VECTORS;
        tile = shared_memory + team * LABEL_PITCH;
        wanted_rows = (uint32_t *)(shared_memory + blockDim.x * LABEL_PITCH) + team;
        warp = blockDim.x >= 32 ? 0xffffffffu : (1u << blockDim.x) - 1;
    }

    // This thread's part of the row of the team's `i`-th label.
    __device__ __forceinline__ uint4 *at(uint32_t row, int i) const {
        return rows + ((size_t)row * blockDim.x + i) * LABEL_ROW_VECTORS + place;
    }

    __device__ __forceinline__ void put(uint32_t row, const Pair &x) const {
#pragma unroll
        for (int i = 0; i < LABEL_ROW_VECTORS; i++) tile[place * LABEL_PITCH + i] = piece(x, i);
        __syncwarp(warp);
#pragma unroll
        for (int i = 0; i < LABEL_MOVERS; i++) *at(row, i) = tile[i * LABEL_PITCH + place];
        __syncwarp(warp);
    }

    __device__ __forceinline__ void get(Pair &y, uint32_t row, bool wanted) const {
        const uint32_t none = 0xffffffffu;
        wanted_rows[place] = wanted ? row : none;
        // Also: whoever still reads the rows of the last call is done.
        __syncwarp(warp);
#pragma unroll
        for (int i = 0; i < LABEL_MOVERS; i++) {
            uint32_t other = wanted_rows[i];
            if (other != none) tile[i * LABEL_PITCH + place] = *at(other, i);
        }
        __syncwarp(warp);
        if (wanted) {
#pragma unroll
            for (int i = 0; i < LABEL_ROW_VECTORS; i++) set_piece(y, i, tile[place * LABEL_PITCH + i]);
        }
    }

    __device__ __forceinline__ bool all(bool own) const { return __all_sync(warp, own); }
};

__device__ __forceinline__ uint32_t lane_of_grid() { return blockIdx.x * blockDim.x + threadIdx.x; }

// ---- ROMix ----

template <class Rows>
__device__ __forceinline__ void fill_rows(const LabelParams &params, uint4 *state, uint4 *v) {
    state += lane_of_grid();
    Rows rows(v, (params.n + params.gap - 1) / params.gap);
    Pair x;
    load(x, state, params.lanes);
    uint32_t row = (params.begin + params.gap - 1) / params.gap;
    uint32_t until = row * params.gap - params.begin;
    for (uint32_t i = params.begin; i < params.end; i++) {
        if (until == 0) {
            rows.put(row, x);
            row++;
            until = params.gap;
        }
        until--;
        mix_pair(x);
    }
    save(x, state, params.lanes);
}

template <class Rows>
__device__ __forceinline__ void mix_without_gap(const LabelParams &params, uint4 *state, uint4 *v) {
    state += lane_of_grid();
    Rows rows(v, params.n);
    Pair x;
    load(x, state, params.lanes);
    for (uint32_t i = 0; i < params.end; i++) {
        Pair y;
        rows.get(y, x.w[16] & (params.n - 1), true);
#pragma unroll
        for (int k = 0; k < 32; k++) x.w[k] ^= y.w[k];
        mix_pair(x);
    }
    save(x, state, params.lanes);
}

// With a gap, labels need different numbers of recomputations for the same j. Nobody waits: each turn of the loop is one Mix for
// every label, a recomputation for some and the step of ROMix for others. Over N steps the numbers even out.
template <class Rows>
__device__ __forceinline__ void mix_with_gap(const LabelParams &params, uint4 *state, uint4 *v) {
    state += lane_of_grid();
    const size_t lanes = params.lanes;
    Rows rows(v, (params.n + params.gap - 1) / params.gap);
    Pair x, y;
    load(x, state, params.lanes);
    load(y, state + 8 * lanes, params.lanes);
    uint4 progress = state[16 * lanes];
    uint32_t done = progress.x;
    uint32_t left = progress.y;
    for (uint32_t i = 0; params.last || i < params.end; i++) {
        if (i % LABEL_LOOK == 0 && rows.all(done >= params.n)) break;
        const bool busy = done < params.n;
        const uint32_t j = x.w[16] & (params.n - 1);
        const uint32_t row = __umulhi(j, params.gap_inverse);
        const bool fetch = busy && left == LABEL_FETCH;
        rows.get(y, row, fetch);
        if (fetch) left = j - row * params.gap;
        const bool step = left == 0;
        if (step) {
#pragma unroll
            for (int k = 0; k < 32; k++) y.w[k] ^= x.w[k];
        }
        mix_pair(y);
        if (busy && step) {
#pragma unroll
            for (int k = 0; k < 32; k++) x.w[k] = y.w[k];
            done++;
            left = LABEL_FETCH;
        } else if (busy) {
            left--;
        }
    }
    save(x, state, params.lanes);
    save(y, state + 8 * lanes, params.lanes);
    state[16 * lanes] = make_uint4(done, left, 0, 0);
}

// ---- Keccak-f[1600] ----

__device__ __forceinline__ uint64_t rotate_word(uint64_t x, int by) { return x << by | x >> (64 - by); }

__device__ __forceinline__ uint64_t round_constant(int round) {
    // The constants differ in the bits 2^k - 1 only; here they are, bit 0, 1, 3, 7, 15, 31, 63 as seven bits per round.
    const uint8_t bits[24] = {0x01, 0x1a, 0x5e, 0x70, 0x1f, 0x21, 0x79, 0x55, 0x0e, 0x0c, 0x35, 0x26,
                              0x3f, 0x4f, 0x5d, 0x53, 0x52, 0x48, 0x16, 0x66, 0x79, 0x58, 0x21, 0x74};
    const uint32_t b = bits[round];
    uint64_t constant = 0;
#pragma unroll
    for (int k = 0; k < 7; k++) constant |= (uint64_t)(b >> k & 1) << ((1 << k) - 1);
    return constant;
}

__device__ __forceinline__ void permute(uint64_t *s) {
#pragma unroll 1
    for (int round = 0; round < 24; round++) {
        uint64_t c[5];
#pragma unroll
        for (int x = 0; x < 5; x++) c[x] = s[x] ^ s[x + 5] ^ s[x + 10] ^ s[x + 15] ^ s[x + 20];
#pragma unroll
        for (int x = 0; x < 5; x++) {
            const uint64_t d = c[(x + 4) % 5] ^ rotate_word(c[(x + 1) % 5], 1);
#pragma unroll
            for (int y = 0; y < 25; y += 5) s[y + x] ^= d;
        }
        // Rho and pi: along the one cycle of pi the rotations grow like triangle numbers.
        uint64_t t = s[1];
        int x = 1, y = 0;
#pragma unroll
        for (int k = 0; k < 24; k++) {
            const int next = (2 * x + 3 * y) % 5;
            x = y;
            y = next;
            const uint64_t held = s[x + 5 * y];
            s[x + 5 * y] = rotate_word(t, (k + 1) * (k + 2) / 2 % 64);
            t = held;
        }
#pragma unroll
        for (int row = 0; row < 25; row += 5) {
            uint64_t r[5];
#pragma unroll
            for (int i = 0; i < 5; i++) r[i] = s[row + i];
#pragma unroll
            for (int i = 0; i < 5; i++) s[row + i] = r[i] ^ (~r[(i + 1) % 5] & r[(i + 2) % 5]);
        }
        s[0] ^= round_constant(round);
    }
}

// ---- HMAC-Keccak-512 with a key of exactly one block (section 3.2) ----

#define LABEL_PAD_END 0x8000000000000000ull

// `BE32(number)` and the first byte of the padding, as a little-endian word.
__device__ __forceinline__ uint64_t block_number(uint32_t number) { return (uint64_t)number << 24 | 1ull << 32; }

// Starts a hash with the key `commitment || LE64(index) || 32 zero bytes`, masked for the inner (0x36) or the outer (0x5c) one.
__device__ __forceinline__ void start(uint64_t *s, const LabelParams &params, uint64_t index, uint64_t mask) {
    const uint64_t pad = mask * 0x0101010101010101ull;
#pragma unroll
    for (int i = 0; i < 4; i++) s[i] = ((uint64_t)params.commitment[2 * i + 1] << 32 | params.commitment[2 * i]) ^ pad;
    s[4] = index ^ pad;
#pragma unroll
    for (int i = 5; i < 9; i++) s[i] = pad;
#pragma unroll
    for (int i = 9; i < 25; i++) s[i] = 0;
}

// Of a padded message of that many blocks of nine words; the result is the first eight words of `s`. One loop, so that the
// permutation is there once.
__device__ __forceinline__ void hmac(
    uint64_t *s, const LabelParams &params, uint64_t index, const uint64_t *message, int blocks) {
    uint64_t digest[8];
#pragma unroll 1
    for (int step = 0; step < blocks + 3; step++) {
        if (step == 0) {
            start(s, params, index, 0x36);
        } else if (step <= blocks) {
#pragma unroll
            for (int i = 0; i < 9; i++) s[i] ^= message[(step - 1) * 9 + i];
        } else if (step == blocks + 1) {
#pragma unroll
            for (int i = 0; i < 8; i++) digest[i] = s[i];
            start(s, params, index, 0x5c);
        } else {
#pragma unroll
            for (int i = 0; i < 8; i++) s[i] ^= digest[i];
            s[8] ^= LABEL_PAD_END | 1;
        }
        permute(s);
    }
}

__device__ __forceinline__ uint64_t index_of(const LabelParams &params) {
    return ((uint64_t)params.first_high << 32 | params.first_low) + lane_of_grid();
}

__device__ __forceinline__ uint4 two_words(uint64_t a, uint64_t b) {
    return make_uint4((uint32_t)a, (uint32_t)(a >> 32), (uint32_t)b, (uint32_t)(b >> 32));
}

__device__ __forceinline__ uint4 big_endian(uint4 x) {
    return make_uint4(
        __byte_perm(x.x, 0, 0x0123), __byte_perm(x.y, 0, 0x0123), __byte_perm(x.z, 0, 0x0123), __byte_perm(x.w, 0, 0x0123));
}

// A full label as big-endian words, and its place in the batch.
struct Candidate {
    uint4 high;
    uint4 low;
    uint32_t place;
};

__device__ __forceinline__ int order(uint4 a, uint4 b) {
    if (a.x != b.x) return a.x < b.x ? -1 : 1;
    if (a.y != b.y) return a.y < b.y ? -1 : 1;
    if (a.z != b.z) return a.z < b.z ? -1 : 1;
    if (a.w != b.w) return a.w < b.w ? -1 : 1;
    return 0;
}

// Of equal labels the first one.
__device__ __forceinline__ bool before(const Candidate &a, const Candidate &b) {
    const int high = order(a.high, b.high);
    if (high != 0) return high < 0;
    const int low = order(a.low, b.low);
    return low != 0 ? low < 0 : a.place < b.place;
}

extern "C" {

__global__ void expand(LabelParams params, uint4 *state) {
    state += lane_of_grid();
    const uint64_t index = index_of(params);
    uint64_t message[9] = {0, 0, 0, 0, 0, 0, 0, 0, LABEL_PAD_END};
#pragma unroll 1
    for (uint32_t half = 0; half < 2; half++) {
        message[0] = block_number(half + 1);
        uint64_t s[25];
        hmac(s, params, index, message, 1);
#pragma unroll
        for (int i = 0; i < 4; i++) state[(size_t)(half * 4 + i) * params.lanes] = two_words(s[2 * i], s[2 * i + 1]);
    }
    if (params.gap > 1) state[(size_t)16 * params.lanes] = make_uint4(0, LABEL_FETCH, 0, 0);
}

__global__ void fill_own(LabelParams params, uint4 *state, uint4 *v) { fill_rows<Own>(params, state, v); }
__global__ void fill_shared(LabelParams params, uint4 *state, uint4 *v) { fill_rows<Shared>(params, state, v); }
__global__ void mix1_own(LabelParams params, uint4 *state, uint4 *v) { mix_without_gap<Own>(params, state, v); }
__global__ void mix1_shared(LabelParams params, uint4 *state, uint4 *v) { mix_without_gap<Shared>(params, state, v); }
__global__ void mix_own(LabelParams params, uint4 *state, uint4 *v) { mix_with_gap<Own>(params, state, v); }
__global__ void mix_shared(LabelParams params, uint4 *state, uint4 *v) { mix_with_gap<Shared>(params, state, v); }

// `labels`: the stored labels of the batch.
__global__ void squeeze(LabelParams params, uint4 *state, uint4 *labels) {
    const uint32_t lane = lane_of_grid();
    state += lane;
    uint64_t message[18];
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const uint4 x = state[(size_t)i * params.lanes];
        message[2 * i] = (uint64_t)x.y << 32 | x.x;
        message[2 * i + 1] = (uint64_t)x.w << 32 | x.z;
    }
    // 56 bytes of the second block, then the block number and the padding fill it.
    message[16] = block_number(1);
    message[17] = LABEL_PAD_END;
    uint64_t s[25];
    hmac(s, params, index_of(params), message, 2);
    labels[lane] = two_words(s[0], s[1]);
    // For `smallest`.
    state[0] = big_endian(two_words(s[0], s[1]));
    state[params.lanes] = big_endian(two_words(s[2], s[3]));
}

// One block. `found`: the smallest label as big-endian words, then its place in the batch.
__global__ void smallest(LabelParams params, const uint4 *state, uint4 *found) {
    __shared__ Candidate candidates[LABEL_SEARCHERS];
    const uint32_t lane = threadIdx.x;
    const uint32_t most = 0xffffffffu;
    Candidate best = {make_uint4(most, most, most, most), make_uint4(most, most, most, most), most};
    for (uint32_t place = lane; place < params.count; place += LABEL_SEARCHERS) {
        const Candidate candidate = {state[place], state[(size_t)params.lanes + place], place};
        if (before(candidate, best)) best = candidate;
    }
    candidates[lane] = best;
    for (uint32_t half = LABEL_SEARCHERS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (lane < half && before(candidates[lane + half], candidates[lane])) candidates[lane] = candidates[lane + half];
    }
    if (lane == 0) {
        found[0] = candidates[0].high;
        found[1] = candidates[0].low;
        found[2] = make_uint4(candidates[0].place, 0, 0, 0);
    }
}

}  // extern "C"
