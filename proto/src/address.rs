//! Accounts' addresses, their text form and what they are made from (types.md section 2.4, ledger.md section 1).

use std::fmt;

use bech32::{Bech32, ByteIterExt as _, Fe32IterExt as _, Hrp, primitives::decode::CheckedHrpstring};

use crate::{
    ids::{Address, Hash32},
    layers::LayerId,
    scale::{self, Decode, Encode, EncodeError},
    units::Smidge,
};

/// The network that stands in front of an address as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Network {
    /// `sm`.
    Mainnet,
    /// `stest`: all test networks.
    Testnet,
    /// `standalone`: a network of one node.
    Standalone,
}

impl Network {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Mainnet, Self::Testnet, Self::Standalone];

    /// The letters in front of an address.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Mainnet => "sm",
            Self::Testnet => "stest",
            Self::Standalone => "standalone",
        }
    }

    /// The network of a prefix.
    pub fn from_prefix(prefix: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|network| network.prefix() == prefix)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.prefix())
    }
}

/// Why a text is no address of a network, in the order in which it is looked at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No bech32, or a wrong checksum.
    #[error("not bech32: {0}")]
    Bech32(String),
    /// Not 39 (or 40) characters of five bits between prefix and checksum.
    #[error("wrong length: {0} characters of data where an address has 39")]
    Length(usize),
    /// An address of another network.
    #[error("an address of network {found}, expected {expected}")]
    Network {
        /// The prefix of the text.
        found: String,
        /// The network asked for.
        expected: Network,
    },
    /// One of the first four bytes is not zero.
    #[error("the four reserved bytes are not zero")]
    Reserved,
}

impl Address {
    /// Reads the text form. Bits left over at the end are not looked at and a 40th character is accepted, so an address has
    /// many spellings; only one is written.
    pub fn parse(text: &str, network: Network) -> Result<Self, AddressError> {
        let parts = CheckedHrpstring::new::<Bech32>(text).map_err(|error| AddressError::Bech32(error.to_string()))?;
        let characters = parts.data_part_ascii_no_checksum().len();
        if !(39..=40).contains(&characters) {
            return Err(AddressError::Length(characters));
        }
        let found = parts.hrp().to_lowercase();
        if found != network.prefix() {
            return Err(AddressError::Network { found, expected: network });
        }
        let mut address = Self::EMPTY;
        for (to, byte) in address.0.iter_mut().zip(parts.byte_iter()) {
            *to = byte;
        }
        if address.0[..4] == [0; 4] { Ok(address) } else { Err(AddressError::Reserved) }
    }

    /// The text form.
    pub fn to_text(&self, network: Network) -> String {
        let prefix = Hrp::parse_unchecked(network.prefix());
        self.0.into_iter().bytes_to_fes().with_checksum::<Bech32>(&prefix).chars().collect()
    }

    /// An address made from any bytes: the last 20 of them, zeros behind fewer. Accounts of test networks are made like this,
    /// those of wallets are not.
    pub fn generate(bytes: &[u8]) -> Self {
        let bytes = &bytes[bytes.len().saturating_sub(20)..];
        let mut address = Self::EMPTY;
        address.0[4..4 + bytes.len()].copy_from_slice(bytes);
        address
    }

    /// Whether it names no account: the reserved bytes do not count.
    pub fn is_nobody(&self) -> bool {
        self.0[4..] == [0; 20]
    }

    /// The account that spawning `template` with `arguments` makes.
    pub fn principal(template: Template, arguments: &impl Encode) -> Result<Self, EncodeError> {
        let hash = Hash32::of(&[&template.address().0, &scale::encode(arguments)?]);
        Ok(Self::generate(&hash.0[12..]))
    }
}

/// What an account can do: the four templates there are (ledger.md section 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Template {
    /// One key.
    Wallet = 1,
    /// Some of several keys.
    Multisig = 2,
    /// Some of several keys, which may drain vaults.
    Vesting = 3,
    /// Money that becomes available over time.
    Vault = 4,
}

impl Template {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Wallet, Self::Multisig, Self::Vesting, Self::Vault];

    /// The address of the template.
    pub const fn address(self) -> Address {
        let mut bytes = [0; 24];
        bytes[23] = self as u8;
        Address(bytes)
    }

    /// The template with an address.
    pub fn from_address(address: &Address) -> Option<Self> {
        Self::ALL.into_iter().find(|template| template.address() == *address)
    }
}

/// A public key of an account; any 32 bytes will do until something has to be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, serde::Serialize, serde::Deserialize)]
pub struct AccountKey(#[serde(with = "crate::json::base64")] pub [u8; 32]);

/// The most keys of a multisig account.
pub const MAX_KEYS: usize = 10;

/// What spawns a wallet (ledger.md section 2).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize, serde::Deserialize)]
pub struct WalletArguments {
    /// The only key.
    pub public_key: AccountKey,
}

/// What spawns a multisig or vesting account (ledger.md section 2).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize, serde::Deserialize)]
pub struct MultisigArguments {
    /// How many must sign.
    pub required: u8,
    /// The keys.
    #[scale(max = MAX_KEYS)]
    pub keys: Vec<AccountKey>,
}

/// What spawns a vault (ledger.md section 2).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize, serde::Deserialize)]
pub struct VaultArguments {
    /// The vesting account that may drain it.
    pub owner: Address,
    /// What it holds at the beginning.
    pub total: Smidge,
    /// What is available at once.
    pub initial_unlock: Smidge,
    /// The layer from which more becomes available.
    pub vesting_start: LayerId,
    /// The layer by which all is.
    pub vesting_end: LayerId,
}
