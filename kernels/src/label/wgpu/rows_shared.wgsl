// Rows of V, each moved by eight neighbouring threads, 16 bytes each, so that a row is one access of 128 neighbouring bytes.
// The rows change hands in work-group memory. Every function is called by all threads of a work-group together.

const MOVERS = 8u;
// Vectors from one label's row to the next; one more than a row has, which spreads a column over all banks of the memory.
const PITCH = 9u;

var<workgroup> tile: array<vec4<u32>, GROUP * PITCH>;
var<workgroup> rows: array<u32, GROUP>;
var<workgroup> unfinished: atomic<u32>;

// Instead of a row: none.
const NONE = 0xffffffffu;

fn put_row(group: u32, lane: u32, row: u32, x: Pair) {
    let i = lane * PITCH;
    tile[i] = x.p.a;
    tile[i + 1u] = x.p.b;
    tile[i + 2u] = x.p.c;
    tile[i + 3u] = x.p.d;
    tile[i + 4u] = x.q.a;
    tile[i + 5u] = x.q.b;
    tile[i + 6u] = x.q.c;
    tile[i + 7u] = x.q.d;
    workgroupBarrier();
    let piece = lane % MOVERS;
    let team = lane - piece;
    for (var other = team; other < team + MOVERS; other++) {
        v[row_at(group, row, other) + piece] = tile[other * PITCH + piece];
    }
    workgroupBarrier();
}

// The row where `wanted`, anything elsewhere.
fn get_row(group: u32, lane: u32, row: u32, wanted: bool) -> Pair {
    rows[lane] = select(NONE, row, wanted);
    // Also: whoever still reads the rows of the last call is done.
    workgroupBarrier();
    let piece = lane % MOVERS;
    let team = lane - piece;
    for (var other = team; other < team + MOVERS; other++) {
        let row = rows[other];
        if row != NONE {
            tile[other * PITCH + piece] = v[row_at(group, row, other) + piece];
        }
    }
    workgroupBarrier();
    let i = lane * PITCH;
    return Pair(Block(tile[i], tile[i + 1u], tile[i + 2u], tile[i + 3u]), Block(tile[i + 4u], tile[i + 5u], tile[i + 6u], tile[i + 7u]));
}

// Whether all threads of the work-group may stop.
fn all_true(lane: u32, own: bool) -> bool {
    if lane == 0u {
        atomicStore(&unfinished, 0u);
    }
    workgroupBarrier();
    if !own {
        atomicStore(&unfinished, 1u);
    }
    workgroupBarrier();
    let all = atomicLoad(&unfinished) == 0u;
    workgroupBarrier();
    return all;
}
