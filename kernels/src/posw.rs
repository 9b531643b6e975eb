//! The hash chain of the proof of elapsed time (poet.md section 1): 400-fold SHA-256 labels and statement-salted nodes.
//!
//! A label is one chain of 400 dependent SHA-256 compressions and more, so its speed is the *latency* of the hardware's SHA-256
//! instructions. Between two compressions the digest therefore stays in registers, as the native words that the next
//! compression takes for its message. Where two labels are independent (checking a proof, recomputing parts of a tree) two
//! chains run interleaved and take hardly longer than one.
//!
//! [`Backend`] is a way of hashing that this machine has; [`Statement`] binds it to the statement of a round.

#[cfg(target_arch = "aarch64")]
#[expect(unsafe_code, reason = "instructions of the processor")]
mod armv8;
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "instructions of the processor")]
mod avx512;
mod portable;
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "instructions of the processor")]
mod sha_ni;

/// A digest: a label or an inner node of the tree.
pub type Node = [u8; 32];

/// What stands for a subtree without any leaf.
pub const PADDING: Node = [0; 32];

/// SHA-256 calls in one label (poet.md section 1.1).
pub const NESTING: u32 = 400;

/// The levels a tree can have: leaf numbers are 64-bit.
pub const MAX_LEVELS: usize = 64;

/// Bytes of a SHA-256 message block.
const BLOCK: usize = 64;

/// A state or digest of SHA-256 as native words.
type Words = [u32; 8];

/// The initial state of SHA-256.
const INITIAL: Words = [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// The round constants of SHA-256.
#[rustfmt::skip]
const K: [u32; 64] = [
    0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
    0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
    0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
    0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
    0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
    0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
    0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
    0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
];

/// Words 8 to 15 of a block that carries one digest and nothing else: the padding of a 256-bit message.
const DIGEST_PADDING: Words = [0x8000_0000, 0, 0, 0, 0, 0, 0, 256];

/// The two blocks of an inner node with its three parts left out: only the padding of a message of 96 bytes.
const NODE_BLOCKS: [[u8; BLOCK]; 2] = {
    let mut blocks = [[0; BLOCK]; 2];
    blocks[1][32] = 0x80;
    [blocks[1][BLOCK - 2], blocks[1][BLOCK - 1]] = (96u16 * 8).to_be_bytes();
    blocks
};

/// A way of computing SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Plain Rust, on every machine.
    Portable,
    /// The SHA extensions of x86-64.
    #[cfg(target_arch = "x86_64")]
    ShaNi(ShaNi),
    /// The cryptography extensions of 64-bit ARM.
    #[cfg(target_arch = "aarch64")]
    Armv8(Armv8),
}

/// Proof that the running processor has the SHA extensions; [`Backend::available`] makes it.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShaNi(());

/// Proof that the running processor has AVX-512.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy)]
struct Avx512(());

/// Chains that are computed at once where the processor has wide registers.
const LANES: usize = 16;

/// Proof that the running processor has the SHA-256 instructions; [`Backend::available`] makes it.
#[cfg(target_arch = "aarch64")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Armv8(());

impl Backend {
    /// Every way this machine has, the fastest first.
    pub fn available() -> Vec<Self> {
        let mut backends = Vec::new();
        #[cfg(target_arch = "x86_64")]
        if sha_ni::is_available() {
            backends.push(Self::ShaNi(ShaNi(())));
        }
        #[cfg(target_arch = "aarch64")]
        if armv8::is_available() {
            backends.push(Self::Armv8(Armv8(())));
        }
        backends.push(Self::Portable);
        backends
    }

    /// The fastest way this machine has.
    pub fn fastest() -> Self {
        Self::available().remove(0)
    }

    /// A name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::ShaNi(_) => "sha-ni",
            #[cfg(target_arch = "aarch64")]
            Self::Armv8(_) => "armv8",
        }
    }

    /// `digest` hashed `count` times over: the chain alone, for measurements.
    pub fn iterate(self, digest: &Node, count: u32) -> Node {
        let mut words = to_words(digest);
        self.chain(&mut words, count);
        to_bytes(&words)
    }

    /// Two independent chains of [`Backend::iterate`] at once.
    pub fn iterate_pair(self, digests: [&Node; 2], count: u32) -> [Node; 2] {
        let mut words = digests.map(to_words);
        self.chain_pair(&mut words, count);
        words.each_ref().map(to_bytes)
    }

    /// Any number of independent chains, in the way with the highest throughput: sixteen at once where the processor is wide
    /// enough, else two.
    fn chain_many(self, digests: &mut [Words], count: u32) {
        let rest = digests;
        #[cfg(target_arch = "x86_64")]
        let rest = if avx512::is_available() && self != Self::Portable {
            let (groups, rest) = rest.as_chunks_mut();
            for group in groups {
                avx512::chains(Avx512(()), group, count);
            }
            // more than a few left are cheaper as a group that is not full
            if rest.len() > LANES / 2 {
                let mut group = [INITIAL; LANES];
                group[..rest.len()].copy_from_slice(rest);
                avx512::chains(Avx512(()), &mut group, count);
                rest.copy_from_slice(&group[..rest.len()]);
                return;
            }
            rest
        } else {
            rest
        };
        let (pairs, single) = rest.as_chunks_mut();
        for pair in pairs {
            self.chain_pair(pair, count);
        }
        for digest in single {
            self.chain(digest, count);
        }
    }

    fn absorb(self, state: &mut Words, blocks: &[[u8; BLOCK]]) {
        match self {
            Self::Portable => portable::absorb(state, blocks),
            #[cfg(target_arch = "x86_64")]
            Self::ShaNi(proof) => sha_ni::absorb(proof, state, blocks),
            #[cfg(target_arch = "aarch64")]
            Self::Armv8(proof) => armv8::absorb(proof, state, blocks),
        }
    }

    fn chain(self, digest: &mut Words, count: u32) {
        match self {
            Self::Portable => portable::chain(digest, count),
            #[cfg(target_arch = "x86_64")]
            Self::ShaNi(proof) => sha_ni::chain(proof, digest, count),
            #[cfg(target_arch = "aarch64")]
            Self::Armv8(proof) => armv8::chain(proof, digest, count),
        }
    }

    fn chain_pair(self, digests: &mut [Words; 2], count: u32) {
        match self {
            Self::Portable => digests.iter_mut().for_each(|digest| portable::chain(digest, count)),
            #[cfg(target_arch = "x86_64")]
            Self::ShaNi(proof) => sha_ni::chain_pair(proof, digests, count),
            #[cfg(target_arch = "aarch64")]
            Self::Armv8(proof) => armv8::chain_pair(proof, digests, count),
        }
    }
}

/// Gives `value` back in a way the compiler knows nothing about and that takes no time: for loops that measure the clock of a
/// core by additions that depend on each other.
#[inline(always)]
#[expect(clippy::inline_always, reason = "a call would be measured")]
#[expect(unsafe_code, reason = "an empty instruction sequence")]
pub fn opaque(mut value: u64) -> u64 {
    // SAFETY: no instruction, and the register holds the value before and after.
    unsafe { std::arch::asm!("/* {0} */", inout(reg) value, options(nomem, nostack, preserves_flags, pure)) };
    value
}

/// The statement of a round, which salts every hash of its tree (poet.md section 1.1), and the way to hash.
#[derive(Debug, Clone)]
pub struct Statement {
    backend: Backend,
    bytes: Vec<u8>,
}

impl Statement {
    /// A statement, hashed in the fastest way there is. Rounds have statements of 32 bytes; any length is accepted.
    pub fn new(statement: &[u8]) -> Self {
        Self::with_backend(statement, Backend::fastest())
    }

    /// A statement, hashed by `backend`.
    pub fn with_backend(statement: &[u8], backend: Backend) -> Self {
        Self { backend, bytes: statement.to_vec() }
    }

    /// The statement.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The way to hash.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// The label of leaf `index`; `left` are its left siblings, the lowest level first, levels without one left out.
    pub fn label<'a>(&self, index: u64, left: impl IntoIterator<Item = &'a [u8]>) -> Node {
        let mut digest = self.first_digest(index, left);
        self.backend.chain(&mut digest, NESTING - 1);
        to_bytes(&digest)
    }

    /// Two labels that do not depend on each other, in hardly more time than one.
    pub fn label_pair<'a, L: IntoIterator<Item = &'a [u8]>>(&self, leaves: [(u64, L); 2]) -> [Node; 2] {
        let mut digests = leaves.map(|(index, left)| self.first_digest(index, left));
        self.backend.chain_pair(&mut digests, NESTING - 1);
        digests.each_ref().map(to_bytes)
    }

    /// Labels that do not depend on each other, with the highest throughput this machine has.
    pub fn labels<'a, L: IntoIterator<Item = &'a [u8]>>(&self, leaves: impl IntoIterator<Item = (u64, L)>) -> Vec<Node> {
        let mut digests: Vec<Words> = leaves.into_iter().map(|(index, left)| self.first_digest(index, left)).collect();
        self.backend.chain_many(&mut digests, NESTING - 1);
        digests.iter().map(to_bytes).collect()
    }

    /// The node above `left` and `right`. Nodes of a proof may have other lengths than 32 bytes and are hashed as they are.
    pub fn node(&self, left: &[u8], right: &[u8]) -> Node {
        // nearly all nodes are three times 32 bytes: two blocks in one call
        if let (Ok(statement), Ok(left), Ok(right)) = (Node::try_from(&*self.bytes), Node::try_from(left), Node::try_from(right))
        {
            let mut blocks = NODE_BLOCKS;
            blocks[0][..32].copy_from_slice(&statement);
            blocks[0][32..].copy_from_slice(&left);
            blocks[1][..32].copy_from_slice(&right);
            let mut state = INITIAL;
            self.backend.absorb(&mut state, &blocks);
            return to_bytes(&state);
        }
        let mut hasher = Hasher::new(self.backend);
        hasher.update(&self.bytes);
        hasher.update(left);
        hasher.update(right);
        to_bytes(&hasher.finish())
    }

    fn first_digest<'a>(&self, index: u64, left: impl IntoIterator<Item = &'a [u8]>) -> Words {
        let mut hasher = Hasher::new(self.backend);
        hasher.update(&self.bytes);
        hasher.update(&index.to_be_bytes());
        for sibling in left {
            hasher.update(sibling);
        }
        hasher.finish()
    }
}

/// `SHA-256(message)` by `backend`.
pub fn sha256(backend: Backend, message: &[u8]) -> Node {
    let mut hasher = Hasher::new(backend);
    hasher.update(message);
    to_bytes(&hasher.finish())
}

/// SHA-256 of a message that comes in pieces.
struct Hasher {
    backend: Backend,
    state: Words,
    block: [u8; BLOCK],
    length: u64,
}

impl Hasher {
    const fn new(backend: Backend) -> Self {
        Self { backend, state: INITIAL, block: [0; BLOCK], length: 0 }
    }

    const fn filled(&self) -> usize {
        (self.length % BLOCK as u64) as usize
    }

    fn update(&mut self, bytes: &[u8]) {
        let filled = self.filled();
        self.length += bytes.len() as u64;
        let (head, rest) = bytes.split_at(bytes.len().min(BLOCK - filled));
        self.block[filled..filled + head.len()].copy_from_slice(head);
        if filled + head.len() < BLOCK {
            return;
        }
        self.backend.absorb(&mut self.state, &[self.block]);
        let (blocks, tail) = rest.as_chunks();
        if !blocks.is_empty() {
            self.backend.absorb(&mut self.state, blocks);
        }
        self.block[..tail.len()].copy_from_slice(tail);
    }

    fn finish(mut self) -> Words {
        const LENGTH_AT: usize = BLOCK - 8;
        let filled = self.filled();
        self.block[filled] = 0x80;
        self.block[filled + 1..].fill(0);
        if filled >= LENGTH_AT {
            self.backend.absorb(&mut self.state, &[self.block]);
            self.block.fill(0);
        }
        self.block[LENGTH_AT..].copy_from_slice(&(self.length * 8).to_be_bytes());
        self.backend.absorb(&mut self.state, &[self.block]);
        self.state
    }
}

fn to_words(bytes: &Node) -> Words {
    let (words, _) = bytes.as_chunks();
    std::array::from_fn(|i| u32::from_be_bytes(words[i]))
}

fn to_bytes(words: &Words) -> Node {
    let mut bytes = [0; 32];
    for (chunk, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
        *chunk = word.to_be_bytes();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;
    use sha2::{Digest as _, Sha256};

    use super::*;

    #[derive(Deserialize)]
    struct LabelHash {
        challenge: String,
        data: String,
        expected: String,
    }

    #[derive(Deserialize)]
    struct Label {
        statement: String,
        #[serde(rename = "label_id")]
        index: String,
        left_siblings: Vec<Option<String>>,
        expected: String,
    }

    #[derive(Deserialize)]
    struct Inner {
        statement: String,
        left: String,
        right: String,
        expected: String,
    }

    #[derive(Deserialize)]
    struct Vectors {
        label_hash: Vec<LabelHash>,
        labels: Vec<Label>,
        nodes: Vec<Inner>,
    }

    fn bytes(text: &str) -> Vec<u8> {
        hex::decode(text).unwrap()
    }

    #[test]
    fn labels_and_nodes_are_those_of_the_vectors() {
        let vectors: Vectors = serde_json::from_str(include_str!("../testdata/poet/labels.json")).unwrap();
        assert!(vectors.label_hash.len() > 3 && vectors.labels.len() > 5 && vectors.nodes.len() > 3);
        for backend in Backend::available() {
            for case in &vectors.label_hash {
                let mut message = bytes(&case.challenge);
                message.extend(bytes(&case.data));
                let digest = backend.iterate(&sha256(backend, &message), NESTING - 1);
                assert_eq!(hex::encode(digest), case.expected, "{}", backend.name());
            }
            for case in &vectors.labels {
                let statement = Statement::with_backend(&bytes(&case.statement), backend);
                let left: Vec<_> = case.left_siblings.iter().flatten().map(|s| bytes(s)).collect();
                let left = || left.iter().map(Vec::as_slice);
                let index = case.index.parse().unwrap();
                assert_eq!(hex::encode(statement.label(index, left())), case.expected, "{}", backend.name());
                let pair = statement.label_pair([(index, left()), (index, left())]);
                assert_eq!(pair.map(hex::encode), [&*case.expected; 2], "{}", backend.name());
            }
            for case in &vectors.nodes {
                let statement = Statement::with_backend(&bytes(&case.statement), backend);
                let node = statement.node(&bytes(&case.left), &bytes(&case.right));
                assert_eq!(hex::encode(node), case.expected, "{}", backend.name());
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_backend_hashes_like_the_sha2_crate(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..150), 0..6)) {
            let expected: Node = Sha256::digest(pieces.concat()).into();
            for backend in Backend::available() {
                let mut hasher = Hasher::new(backend);
                for piece in &pieces {
                    hasher.update(piece);
                }
                prop_assert_eq!(to_bytes(&hasher.finish()), expected);
            }
        }

        #[test]
        fn chains_are_repeated_hashing(first: Node, second: Node, count in 0..70u32) {
            let repeated = |mut digest: Node| {
                for _ in 0..count {
                    digest = Sha256::digest(digest).into();
                }
                digest
            };
            let expected = [repeated(first), repeated(second)];
            for backend in Backend::available() {
                prop_assert_eq!(backend.iterate(&first, count), expected[0]);
                prop_assert_eq!(backend.iterate_pair([&first, &second], count), expected);
                for lanes in [0, 1, 2, 9, 16, 17, 41] {
                    let mut many: Vec<Words> = (0..lanes).map(|i| to_words([&first, &second][i % 2])).collect();
                    backend.chain_many(&mut many, count);
                    for (i, digest) in many.iter().enumerate() {
                        prop_assert_eq!(to_bytes(digest), expected[i % 2], "lane {} of {}", i, lanes);
                    }
                }
            }
        }
    }
}
