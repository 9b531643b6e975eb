//! The bytes of a transaction (types.md section 8, ledger.md section 3).
//!
//! They say what is to be done but not by whom it must be signed: how many signatures follow depends on the state of the
//! account. So [`Call::parse`] hands back what lies behind the call, and whoever knows the state goes on from there.
//!
//! A vault that would spawn itself has no [`Payload`] in its bytes; such a transaction never has an effect, and is not told
//! apart here.

use serde::{Deserialize, Serialize};

use crate::{
    address::{MultisigArguments, Template, VaultArguments, WalletArguments},
    ids::{Address, EdSignature, GenesisId},
    keys::IdentityKey,
    scale::{self, Bytes, Decode, DecodeError, Encode, EncodeError, Reader, Writer},
    units::{AccountNonce, Smidge},
};

/// The most bytes of a transaction that is executed.
pub const MAX_EXECUTED: usize = 1024;

/// The only version.
const VERSION: u8 = 0;

const SPAWN: u8 = 0;
const SPEND: u8 = 16;
const DRAIN_VAULT: u8 = 17;

/// What every transaction states besides what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Payload {
    /// Which of the account's transactions.
    pub nonce: AccountNonce,
    /// Smidge for a unit of gas.
    pub gas_price: u64,
}

/// What spawns an account of each template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "template", rename_all = "snake_case")]
pub enum SpawnArguments {
    /// One key.
    Wallet(WalletArguments),
    /// Some of several keys.
    Multisig(MultisigArguments),
    /// Some of several keys, which may drain vaults.
    Vesting(MultisigArguments),
    /// Money that becomes available over time.
    Vault(VaultArguments),
}

impl SpawnArguments {
    /// The template.
    pub const fn template(&self) -> Template {
        match self {
            Self::Wallet(_) => Template::Wallet,
            Self::Multisig(_) => Template::Multisig,
            Self::Vesting(_) => Template::Vesting,
            Self::Vault(_) => Template::Vault,
        }
    }

    /// The account that these make.
    pub fn principal(&self) -> Result<Address, EncodeError> {
        match self {
            Self::Wallet(arguments) => Address::principal(Template::Wallet, arguments),
            Self::Multisig(arguments) => Address::principal(Template::Multisig, arguments),
            Self::Vesting(arguments) => Address::principal(Template::Vesting, arguments),
            Self::Vault(arguments) => Address::principal(Template::Vault, arguments),
        }
    }

    fn encode(&self, to: &mut Writer) -> Result<(), EncodeError> {
        match self {
            Self::Wallet(arguments) => arguments.encode(to),
            Self::Multisig(arguments) | Self::Vesting(arguments) => arguments.encode(to),
            Self::Vault(arguments) => arguments.encode(to),
        }
    }

    fn decode(template: Template, from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match template {
            Template::Wallet => Decode::decode(from).map(Self::Wallet),
            Template::Multisig => Decode::decode(from).map(Self::Multisig),
            Template::Vesting => Decode::decode(from).map(Self::Vesting),
            Template::Vault => Decode::decode(from).map(Self::Vault),
        }
    }
}

/// Sends money.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Spend {
    /// To whom.
    pub destination: Address,
    /// How much.
    pub amount: Smidge,
}

/// Sends money from a vault.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct DrainVault {
    /// From which.
    pub vault: Address,
    /// To whom.
    pub destination: Address,
    /// How much.
    pub amount: Smidge,
}

/// What an account does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Makes an account, its own or another one.
    Spawn(SpawnArguments),
    /// Sends money.
    Spend(Spend),
    /// Sends money from a vault.
    DrainVault(DrainVault),
}

/// A transaction without its signatures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The account.
    pub principal: Address,
    /// Number and price.
    #[serde(flatten)]
    pub payload: Payload,
    /// What it does.
    pub action: Action,
}

impl Encode for Call {
    fn encode(&self, to: &mut Writer) -> Result<(), EncodeError> {
        VERSION.encode(to)?;
        self.principal.encode(to)?;
        let method = match &self.action {
            Action::Spawn(_) => SPAWN,
            Action::Spend(_) => SPEND,
            Action::DrainVault(_) => DRAIN_VAULT,
        };
        method.encode(to)?;
        if let Action::Spawn(arguments) = &self.action {
            arguments.template().address().encode(to)?;
        }
        self.payload.encode(to)?;
        match &self.action {
            Action::Spawn(arguments) => arguments.encode(to),
            Action::Spend(arguments) => arguments.encode(to),
            Action::DrainVault(arguments) => arguments.encode(to),
        }
    }
}

impl Decode for Call {
    const MIN_BYTES: usize = 1 + Address::MIN_BYTES + 1 + Payload::MIN_BYTES;

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if from.compact8()? != VERSION {
            return Err(DecodeError::Invalid { what: "version of transaction" });
        }
        let principal = Address::decode(from)?;
        let method = from.compact8()?;
        let template = match method {
            SPAWN => Some(Address::decode(from)?),
            _ => None,
        };
        let payload = Payload::decode(from)?;
        let action = match (method, template) {
            (SPAWN, Some(template)) => {
                let template = Template::from_address(&template).ok_or(DecodeError::Invalid { what: "template" })?;
                Action::Spawn(SpawnArguments::decode(template, from)?)
            }
            (SPEND, _) => Action::Spend(Spend::decode(from)?),
            (DRAIN_VAULT, _) => Action::DrainVault(DrainVault::decode(from)?),
            _ => return Err(DecodeError::Invalid { what: "method" }),
        };
        Ok(Self { principal, payload, action })
    }
}

/// The signature of one of several keys.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct SignaturePart {
    /// Which of the keys.
    pub key: u8,
    /// The signature.
    pub signature: EdSignature,
}

impl Call {
    /// Reads a call, and what lies behind it: the signatures.
    pub fn parse(raw: &[u8]) -> Result<(Self, &[u8]), DecodeError> {
        scale::decode_prefix(raw)
    }

    /// The transaction, signed with the one key of a wallet.
    pub fn sign(&self, network: &GenesisId, key: &IdentityKey) -> Result<Bytes, EncodeError> {
        let mut raw = scale::encode(self)?;
        let signature = key.sign_transaction(network, &raw);
        raw.extend_from_slice(&signature.0);
        Ok(Bytes(raw))
    }

    /// The transaction, signed with some of the keys of a multisig or vesting account; the network wants their numbers to
    /// ascend.
    pub fn sign_multisig(&self, network: &GenesisId, keys: &[(u8, &IdentityKey)]) -> Result<Bytes, EncodeError> {
        let unsigned = scale::encode(self)?;
        let mut raw = unsigned.clone();
        for (number, key) in keys {
            let signature = key.sign_transaction(network, &unsigned);
            raw.extend(scale::encode(&SignaturePart { key: *number, signature })?);
        }
        Ok(Bytes(raw))
    }
}
