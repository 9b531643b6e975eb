//! The label function of PoST (`docs/spec/post.md` section 3) behind one role, [`Device`].
//!
//! A label is `scrypt(commitment || index)` with Keccak-512 and ChaCha20/8 ("scrypt-jane"), 1 MiB of scratch memory at N = 8192.
