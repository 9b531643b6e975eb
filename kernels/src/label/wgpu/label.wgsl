// The label function (docs/spec/post.md section 3) for many labels at once, one thread per label.
//
// Five steps, each an entry point. What a label needs from one step to the next lies in `state`, so that ROMix can be cut
// into dispatches of any length:
//
//   expand   password -> X                                       (PBKDF2, section 3.2)
//   fill     V[i] = X; X = Mix(X)          for i in from..to     (section 3.3)
//   mix      X = Mix(X ^ V[j])             for a number of Mixes
//   squeeze  X -> full label, stored half packed for the host
//   smallest of the full labels of the batch                     (section 4.3)
//
// The host puts in front of this text the constants GAP and GROUP, and one of rows_own.wgsl and rows_shared.wgsl, which
// move rows between registers and V. A buffer has a largest size, so a batch may be several shards, each with buffers and
// dispatches of its own.

struct Params {
    commitment: array<vec4<u32>, 2>,
    // Index of the first label: low and high half.
    first: vec2<u32>,
    // Labels there is room for; vectors of a label lie that far apart in `state`.
    lanes: u32,
    // Labels wanted; threads beyond compute along and are not read.
    count: u32,
    // fill: the first row.
    begin: u32,
    // fill: the row after the last; mix: the number of Mixes.
    end: u32,
    // mix: 1 to go on until all labels are done.
    last: u32,
    // N of the label function.
    n: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// Vectors of a label: X (8), and for gaps above 1 Y (8) and the progress (1).
@group(0) @binding(1) var<storage, read_write> state: array<vec4<u32>>;
// The stored labels, then the smallest one: its 32 bytes as big-endian words, then its place in the batch.
@group(0) @binding(2) var<storage, read_write> labels: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> v: array<vec4<u32>>;

// ---- ChaCha20/8 and Mix ----

struct Block {
    a: vec4<u32>,
    b: vec4<u32>,
    c: vec4<u32>,
    d: vec4<u32>,
}

// B0 and B1.
struct Pair {
    p: Block,
    q: Block,
}

fn block_xor(s: Block, t: Block) -> Block {
    return Block(s.a ^ t.a, s.b ^ t.b, s.c ^ t.c, s.d ^ t.d);
}

fn pair_xor(s: Pair, t: Pair) -> Pair {
    return Pair(block_xor(s.p, t.p), block_xor(s.q, t.q));
}

fn rotate(x: vec4<u32>, by: u32) -> vec4<u32> {
    return (x << vec4<u32>(by)) | (x >> vec4<u32>(32u - by));
}

fn quarter_rounds(t: Block) -> Block {
    var x = t;
    x.a += x.b;
    x.d = rotate(x.d ^ x.a, 16u);
    x.c += x.d;
    x.b = rotate(x.b ^ x.c, 12u);
    x.a += x.b;
    x.d = rotate(x.d ^ x.a, 8u);
    x.c += x.d;
    x.b = rotate(x.b ^ x.c, 7u);
    return x;
}

fn double_round(t: Block) -> Block {
    let x = quarter_rounds(t);
    // Turning the rows makes columns of the diagonals.
    let y = quarter_rounds(Block(x.a, x.b.yzwx, x.c.zwxy, x.d.wxyz));
    return Block(y.a, y.b.wxyz, y.c.zwxy, y.d.yzwx);
}

fn chacha(t: Block) -> Block {
    let x = double_round(double_round(double_round(double_round(t))));
    return Block(t.a + x.a, t.b + x.b, t.c + x.c, t.d + x.d);
}

fn mix_pair(x: Pair) -> Pair {
    let p = chacha(block_xor(x.q, x.p));
    return Pair(p, chacha(block_xor(p, x.q)));
}

// ---- state ----

fn load(id: u32, at: u32) -> Pair {
    let i = at * params.lanes + id;
    return Pair(
        Block(state[i], state[i + params.lanes], state[i + 2u * params.lanes], state[i + 3u * params.lanes]),
        Block(state[i + 4u * params.lanes], state[i + 5u * params.lanes], state[i + 6u * params.lanes], state[i + 7u * params.lanes]),
    );
}

fn save(id: u32, at: u32, x: Pair) {
    let i = at * params.lanes + id;
    state[i] = x.p.a;
    state[i + params.lanes] = x.p.b;
    state[i + 2u * params.lanes] = x.p.c;
    state[i + 3u * params.lanes] = x.p.d;
    state[i + 4u * params.lanes] = x.q.a;
    state[i + 5u * params.lanes] = x.q.b;
    state[i + 6u * params.lanes] = x.q.c;
    state[i + 7u * params.lanes] = x.q.d;
}

// Where a row of a label lies in V, in vectors. A work-group's rows are one block, the same row of all its labels side by side.
fn row_at(group: u32, row: u32, lane: u32) -> u32 {
    let rows = (params.n + GAP - 1u) / GAP;
    return ((group * rows + row) * GROUP + lane) * 8u;
}

// ---- Keccak-f[1600], words of 64 bits as (low, high) ----

var<private> s: array<vec2<u32>, 25>;

const ROUND_CONSTANTS = array<vec2<u32>, 24>(
    vec2(0x00000001u, 0x00000000u), vec2(0x00008082u, 0x00000000u), vec2(0x0000808au, 0x80000000u),
    vec2(0x80008000u, 0x80000000u), vec2(0x0000808bu, 0x00000000u), vec2(0x80000001u, 0x00000000u),
    vec2(0x80008081u, 0x80000000u), vec2(0x00008009u, 0x80000000u), vec2(0x0000008au, 0x00000000u),
    vec2(0x00000088u, 0x00000000u), vec2(0x80008009u, 0x00000000u), vec2(0x8000000au, 0x00000000u),
    vec2(0x8000808bu, 0x00000000u), vec2(0x0000008bu, 0x80000000u), vec2(0x00008089u, 0x80000000u),
    vec2(0x00008003u, 0x80000000u), vec2(0x00008002u, 0x80000000u), vec2(0x00000080u, 0x80000000u),
    vec2(0x0000800au, 0x00000000u), vec2(0x8000000au, 0x80000000u), vec2(0x80008081u, 0x80000000u),
    vec2(0x00008080u, 0x80000000u), vec2(0x80000001u, 0x00000000u), vec2(0x80008008u, 0x80000000u),
);

// To the left by 0 < by < 32; beyond that the halves change places first.
fn rotate_word(x: vec2<u32>, by: u32) -> vec2<u32> {
    return (x << vec2<u32>(by)) | (x.yx >> vec2<u32>(32u - by));
}

fn chi(row: u32) {
    let a = s[row];
    let b = s[row + 1u];
    let c = s[row + 2u];
    let d = s[row + 3u];
    let e = s[row + 4u];
    s[row] = a ^ (~b & c);
    s[row + 1u] = b ^ (~c & d);
    s[row + 2u] = c ^ (~d & e);
    s[row + 3u] = d ^ (~e & a);
    s[row + 4u] = e ^ (~a & b);
}

fn theta(column: u32, d: vec2<u32>) {
    s[column] ^= d;
    s[column + 5u] ^= d;
    s[column + 10u] ^= d;
    s[column + 15u] ^= d;
    s[column + 20u] ^= d;
}

fn permute() {
    for (var round = 0u; round < 24u; round++) {
        let c0 = s[0] ^ s[5] ^ s[10] ^ s[15] ^ s[20];
        let c1 = s[1] ^ s[6] ^ s[11] ^ s[16] ^ s[21];
        let c2 = s[2] ^ s[7] ^ s[12] ^ s[17] ^ s[22];
        let c3 = s[3] ^ s[8] ^ s[13] ^ s[18] ^ s[23];
        let c4 = s[4] ^ s[9] ^ s[14] ^ s[19] ^ s[24];
        theta(0u, c4 ^ rotate_word(c1, 1u));
        theta(1u, c0 ^ rotate_word(c2, 1u));
        theta(2u, c1 ^ rotate_word(c3, 1u));
        theta(3u, c2 ^ rotate_word(c4, 1u));
        theta(4u, c3 ^ rotate_word(c0, 1u));
        // Rho and pi, backwards along the one cycle of pi, so that each word is read before it is overwritten.
        let t = s[1];
        s[1] = rotate_word(s[6].yx, 12u);
        s[6] = rotate_word(s[9], 20u);
        s[9] = rotate_word(s[22].yx, 29u);
        s[22] = rotate_word(s[14].yx, 7u);
        s[14] = rotate_word(s[20], 18u);
        s[20] = rotate_word(s[2].yx, 30u);
        s[2] = rotate_word(s[12].yx, 11u);
        s[12] = rotate_word(s[13], 25u);
        s[13] = rotate_word(s[19], 8u);
        s[19] = rotate_word(s[23].yx, 24u);
        s[23] = rotate_word(s[15].yx, 9u);
        s[15] = rotate_word(s[4], 27u);
        s[4] = rotate_word(s[24], 14u);
        s[24] = rotate_word(s[21], 2u);
        s[21] = rotate_word(s[8].yx, 23u);
        s[8] = rotate_word(s[16].yx, 13u);
        s[16] = rotate_word(s[5].yx, 4u);
        s[5] = rotate_word(s[3], 28u);
        s[3] = rotate_word(s[18], 21u);
        s[18] = rotate_word(s[17], 15u);
        s[17] = rotate_word(s[11], 10u);
        s[11] = rotate_word(s[7], 6u);
        s[7] = rotate_word(s[10], 3u);
        s[10] = rotate_word(t, 1u);
        chi(0u);
        chi(5u);
        chi(10u);
        chi(15u);
        chi(20u);
        s[0] ^= ROUND_CONSTANTS[round];
    }
}

// ---- HMAC-Keccak-512 with a key of exactly one block (section 3.2) ----

// The message, padded to one or two blocks of nine words.
var<private> message: array<vec2<u32>, 18>;

const PAD_END = vec2(0u, 0x80000000u);

// `BE32(number)` and the first byte of the padding, as a little-endian word.
fn block_number(number: u32) -> vec2<u32> {
    return vec2(number << 24u, 1u);
}

// Starts a hash with the key `commitment || LE64(index) || 32 zero bytes`, masked for the inner (0x36) or the outer (0x5c) one.
fn start(id: u32, mask: u32) {
    for (var i = 9u; i < 25u; i++) {
        s[i] = vec2(0u);
    }
    let pad = vec2(mask * 0x01010101u);
    s[0] = params.commitment[0].xy ^ pad;
    s[1] = params.commitment[0].zw ^ pad;
    s[2] = params.commitment[1].xy ^ pad;
    s[3] = params.commitment[1].zw ^ pad;
    let low = params.first.x + id;
    s[4] = vec2(low, params.first.y + select(0u, 1u, low < id)) ^ pad;
    for (var i = 5u; i < 9u; i++) {
        s[i] = pad;
    }
}

// Of a message of that many blocks; the result is the first eight words of `s`. One loop, so that compilers see one permutation.
fn hmac(id: u32, blocks: u32) {
    var digest: array<vec2<u32>, 8>;
    for (var step = 0u; step < blocks + 3u; step++) {
        if step == 0u {
            start(id, 0x36u);
        } else if step <= blocks {
            for (var i = 0u; i < 9u; i++) {
                s[i] ^= message[step * 9u - 9u + i];
            }
        } else if step == blocks + 1u {
            for (var i = 0u; i < 8u; i++) {
                digest[i] = s[i];
            }
            start(id, 0x5cu);
        } else {
            for (var i = 0u; i < 8u; i++) {
                s[i] ^= digest[i];
            }
            s[8] ^= PAD_END | vec2(1u, 0u);
        }
        permute();
    }
}

@compute @workgroup_size(GROUP)
fn expand(@builtin(global_invocation_id) global: vec3<u32>) {
    let id = global.x;
    for (var half = 0u; half < 2u; half++) {
        message[0] = block_number(half + 1u);
        message[8] = PAD_END;
        hmac(id, 1u);
        for (var i = 0u; i < 4u; i++) {
            state[(half * 4u + i) * params.lanes + id] = vec4(s[i * 2u], s[i * 2u + 1u]);
        }
    }
    if GAP > 1u {
        state[16u * params.lanes + id] = vec4(0u, FETCH, 0u, 0u);
    }
}

// ---- ROMix ----

@compute @workgroup_size(GROUP)
fn fill(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let lane = local.x;
    let id = group.x * GROUP + lane;
    var x = load(id, 0u);
    for (var i = params.begin; i < params.end; i++) {
        if i % GAP == 0u {
            put_row(group.x, lane, i / GAP, x);
        }
        x = mix_pair(x);
    }
    save(id, 0u, x);
}

// Instead of a number of recomputations left: the next row is yet to be read.
const FETCH = 0xffffffffu;
// Mixes between two looks whether all labels of a work-group are done.
const LOOK = 32u;

@compute @workgroup_size(GROUP)
fn mix(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let lane = local.x;
    let id = group.x * GROUP + lane;
    var x = load(id, 0u);
    if GAP == 1u {
        for (var i = 0u; i < params.end; i++) {
            x = mix_pair(pair_xor(x, get_row(group.x, lane, x.q.a.x & (params.n - 1u), true)));
        }
        save(id, 0u, x);
        return;
    }
    // With a gap, labels need different numbers of recomputations for the same j. Nobody waits: each turn of the loop is one
    // Mix for every label, a recomputation for some and the step of ROMix for others. Over 2 * N steps the numbers even out.
    var y = load(id, 8u);
    var done = state[16u * params.lanes + id].x;
    var left = state[16u * params.lanes + id].y;
    for (var i = 0u; params.last == 1u || i < params.end; i++) {
        if i % LOOK == 0u && all_true(lane, done >= params.n) {
            break;
        }
        let busy = done < params.n;
        let j = x.q.a.x & (params.n - 1u);
        let fetch = busy && left == FETCH;
        let row = get_row(group.x, lane, j / GAP, fetch);
        if fetch {
            y = row;
            left = j % GAP;
        }
        let step = left == 0u;
        var z = y;
        if step {
            z = pair_xor(x, y);
        }
        z = mix_pair(z);
        if busy {
            if step {
                x = z;
                done += 1u;
                left = FETCH;
            } else {
                y = z;
                left -= 1u;
            }
        }
    }
    save(id, 0u, x);
    save(id, 8u, y);
    state[16u * params.lanes + id] = vec4(done, left, 0u, 0u);
}

// ---- the label ----

@compute @workgroup_size(GROUP)
fn squeeze(@builtin(global_invocation_id) global: vec3<u32>) {
    let id = global.x;
    for (var i = 0u; i < 8u; i++) {
        let x = state[i * params.lanes + id];
        message[i * 2u] = x.xy;
        message[i * 2u + 1u] = x.zw;
    }
    // 56 bytes of the second block, then the block number and the padding fill it.
    message[16] = block_number(1u);
    message[17] = PAD_END;
    hmac(id, 2u);
    labels[id] = vec4(s[0], s[1]);
    // For `smallest`.
    state[id] = big_endian(vec4(s[0], s[1]));
    state[params.lanes + id] = big_endian(vec4(s[2], s[3]));
}

fn big_endian(x: vec4<u32>) -> vec4<u32> {
    let halves = rotate(x, 16u);
    return ((halves & vec4(0x00ff00ffu)) << vec4(8u)) | ((halves >> vec4(8u)) & vec4(0x00ff00ffu));
}

struct Candidate {
    high: vec4<u32>,
    low: vec4<u32>,
    place: u32,
}

fn less(a: vec4<u32>, b: vec4<u32>) -> bool {
    if a.x != b.x { return a.x < b.x; }
    if a.y != b.y { return a.y < b.y; }
    if a.z != b.z { return a.z < b.z; }
    return a.w < b.w;
}

// Of equal labels the first one.
fn before(a: Candidate, b: Candidate) -> bool {
    if any(a.high != b.high) { return less(a.high, b.high); }
    if any(a.low != b.low) { return less(a.low, b.low); }
    return a.place < b.place;
}

const SEARCHERS = 64u;
var<workgroup> candidates: array<Candidate, SEARCHERS>;

// One work-group.
@compute @workgroup_size(SEARCHERS)
fn smallest(@builtin(local_invocation_id) local: vec3<u32>) {
    let lane = local.x;
    var best = Candidate(vec4(0xffffffffu), vec4(0xffffffffu), 0xffffffffu);
    for (var place = lane; place < params.count; place += SEARCHERS) {
        let candidate = Candidate(state[place], state[params.lanes + place], place);
        if before(candidate, best) {
            best = candidate;
        }
    }
    candidates[lane] = best;
    for (var half = SEARCHERS / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half && before(candidates[lane + half], candidates[lane]) {
            candidates[lane] = candidates[lane + half];
        }
    }
    if lane == 0u {
        labels[params.lanes] = candidates[0].high;
        labels[params.lanes + 1u] = candidates[0].low;
        labels[params.lanes + 2u] = vec4(candidates[0].place, 0u, 0u, 0u);
    }
}
