// Rows of V, moved by the thread whose label they belong to. No thread waits for another; for processors whose caches make up
// for the scattered accesses.

fn put_row(group: u32, lane: u32, row: u32, x: Pair) {
    let i = row_at(group, row, lane);
    v[i] = x.p.a;
    v[i + 1u] = x.p.b;
    v[i + 2u] = x.p.c;
    v[i + 3u] = x.p.d;
    v[i + 4u] = x.q.a;
    v[i + 5u] = x.q.b;
    v[i + 6u] = x.q.c;
    v[i + 7u] = x.q.d;
}

// The row where `wanted`, anything elsewhere.
fn get_row(group: u32, lane: u32, row: u32, wanted: bool) -> Pair {
    let i = row_at(group, select(0u, row, wanted), lane);
    return Pair(
        Block(v[i], v[i + 1u], v[i + 2u], v[i + 3u]),
        Block(v[i + 4u], v[i + 5u], v[i + 6u], v[i + 7u]),
    );
}

// Whether this thread may stop.
fn all_true(lane: u32, own: bool) -> bool {
    return own;
}
