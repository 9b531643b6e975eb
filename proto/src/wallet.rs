//! Keys of wallets from a list of words: BIP-39, then SLIP-10 for ed25519 (ledger.md section 14).

use std::{fmt, str::FromStr};

use bip39::{Language, Mnemonic};
use hmac::{Hmac, Mac as _};
use sha2::Sha512;
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    address::{AccountKey, Template, WalletArguments},
    ids::Address,
    keys::IdentityKey,
    scale::EncodeError,
};

/// From here on an index is hardened: the key cannot be derived without the secret above it.
const HARDENED: u32 = 1 << 31;

/// Why words or a path give no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WalletError {
    /// Something else than single spaces between the words.
    #[error("words must be separated by single spaces, without any around them")]
    Spaces,
    /// Not the words of a list, or a wrong checksum.
    #[error("no valid list of words: {0}")]
    Words(String),
    /// Not `m` and numbers.
    #[error("no derivation path: {0:?}")]
    Path(String),
    /// A step that is not hardened; ed25519 has no others.
    #[error("step {0} of the path is not hardened")]
    NotHardened(u32),
    /// No randomness to be had from the system.
    #[error("no random bytes from the system: {0}")]
    Random(String),
}

/// A list of words that wallets are made from. Wiped from memory when dropped and never printed unless asked for.
pub struct Words(Mnemonic);

impl Drop for Words {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Words({} of them)", self.0.word_count())
    }
}

impl Words {
    /// 24 new words from the system's randomness.
    pub fn generate() -> Result<Self, WalletError> {
        let mut entropy = Zeroizing::new([0; 32]);
        getrandom::fill(entropy.as_mut_slice()).map_err(|e| WalletError::Random(e.to_string()))?;
        Mnemonic::from_entropy(entropy.as_slice()).map(Self).map_err(|e| WalletError::Words(e.to_string()))
    }

    /// Reads a list: English words with single spaces between them.
    pub fn parse(text: &str) -> Result<Self, WalletError> {
        if text.split(' ').any(str::is_empty) || text.contains(|c: char| c.is_whitespace() && c != ' ') {
            return Err(WalletError::Spaces);
        }
        Mnemonic::parse_in_normalized(Language::English, text).map(Self).map_err(|e| WalletError::Words(e.to_string()))
    }

    /// The words, to be shown to their owner.
    pub fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.to_string())
    }

    /// The seed for derivation, without a passphrase.
    pub fn seed(&self) -> Zeroizing<[u8; 64]> {
        Zeroizing::new(self.0.to_seed_normalized(""))
    }
}

/// Which key: the numbers from the master key down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path(pub Vec<u32>);

impl Path {
    /// The path of a wallet's accounts: `m/44'/540'/0'/0'/index'`; none for an index of 31 bits or more.
    pub fn account(index: u32) -> Option<Self> {
        let index = index.checked_add(HARDENED)?;
        Some(Self([44, 540, 0, 0].into_iter().map(|step| step + HARDENED).chain([index]).collect()))
    }
}

impl FromStr for Path {
    type Err = WalletError;

    /// Reads `m/44'/540'/…`; an apostrophe makes a step hardened.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || WalletError::Path(text.to_owned());
        let step = |step: &str| {
            let (digits, hardened) = step.strip_suffix('\'').map_or((step, 0), |digits| (digits, HARDENED));
            let number = digits.parse::<u32>().ok().filter(|n| *n < HARDENED && digits.bytes().all(|b| b.is_ascii_digit()));
            number.map(|number| number + hardened).ok_or_else(invalid)
        };
        let mut steps = text.split('/');
        if steps.next() != Some("m") {
            return Err(invalid());
        }
        steps.map(step).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("m")?;
        for step in &self.0 {
            write!(f, "/{}{}", step & !HARDENED, if *step < HARDENED { "" } else { "'" })?;
        }
        Ok(())
    }
}

/// The seed of the ed25519 key at `path` below a wallet's `seed` (SLIP-10).
pub fn derive(seed: &[u8], path: &Path) -> Result<Zeroizing<[u8; 32]>, WalletError> {
    let mut node = hmac(b"ed25519 seed", &[seed]);
    for step in &path.0 {
        if *step < HARDENED {
            return Err(WalletError::NotHardened(*step));
        }
        let (key, chain) = node.split_at(32);
        node = hmac(chain, &[&[0], key, &step.to_be_bytes()]);
    }
    let mut key = Zeroizing::new([0; 32]);
    key.copy_from_slice(&node[..32]);
    Ok(key)
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Zeroizing<[u8; 64]> {
    // a key shorter than the block of the hash means the same with zeros behind it; all of these have 32 bytes or fewer
    let mut block = Zeroizing::new([0; 128]);
    block[..key.len()].copy_from_slice(key);
    let mut mac = Hmac::<Sha512>::new(block.as_slice().into());
    for part in parts {
        mac.update(part);
    }
    Zeroizing::new(mac.finalize().into_bytes().into())
}

/// The account of a wallet with this key.
pub fn address(key: &IdentityKey) -> Result<Address, EncodeError> {
    Address::principal(Template::Wallet, &WalletArguments { public_key: AccountKey(key.node_id().0) })
}
