// What the kernels in label.cu and those who launch them must agree on.
#pragma once
#include <stdint.h>

// Bytes of a row of V and of the state of a label (docs/spec/post.md section 3.3), in vectors of 16.
#define LABEL_ROW_VECTORS 8
// Neighbouring threads that move one row together in the kernels of the shared kind.
#define LABEL_MOVERS 8
// Vectors from one label's row to the next in shared memory; one more than a row has, which spreads a column over all banks.
#define LABEL_PITCH 9
// Shared memory per thread: a row and a row number.
#define LABEL_SHARED_BYTES (LABEL_PITCH * 16 + 4)
// Threads of the one block of `smallest`.
#define LABEL_SEARCHERS 256
// Instead of a number of recomputations left: the next row is yet to be read.
#define LABEL_FETCH 0xffffffffu
// Mixes between two looks whether all labels of a warp are done.
#define LABEL_LOOK 32

// Passed by value to every kernel; 80 bytes.
struct LabelParams {
    uint32_t commitment[8];
    // Index of the first label: low and high half.
    uint32_t first_low;
    uint32_t first_high;
    // Labels there is room for; vectors of a label lie that far apart in `state`.
    uint32_t lanes;
    // Labels wanted; threads beyond compute along and are not read.
    uint32_t count;
    // fill: the first row.
    uint32_t begin;
    // fill: the row after the last; mix: the number of Mixes.
    uint32_t end;
    // mix: 1 to go on until all labels are done.
    uint32_t last;
    // N of the label function.
    uint32_t n;
    // Every gap-th row is kept; and 2^32 / gap rounded up, to divide by it.
    uint32_t gap;
    uint32_t gap_inverse;
    uint32_t unused[2];
};
