//! Transactions as nodes store and report them, and accounts (types.md section 8, ledger.md sections 2 and 3). The bytes of a
//! transaction are read and made in [`raw`].

pub mod raw;

use serde::{Deserialize, Serialize};

use crate::{
    ids::{Address, BlockId, Hash32, TransactionId},
    layers::LayerId,
    scale::{Bytes, Decode, Encode},
    units::{AccountNonce, Gas, Smidge},
};

/// The most bytes of a transaction that is stored or sent; executing allows less.
pub const MAX_RAW: usize = 4096;

/// The most bytes of a result's message.
pub const MAX_MESSAGE: usize = 1024;

/// The most addresses a result names.
pub const MAX_TOUCHED: usize = 10;

/// The most bytes of an account's state.
pub const MAX_STATE: usize = 10_000;

/// A transaction by its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct RawTx {
    /// The hash of the bytes; here as somebody says.
    pub id: TransactionId,
    /// The bytes.
    #[scale(max = MAX_RAW)]
    pub raw: Bytes,
}

impl RawTx {
    /// A transaction with the id that belongs to its bytes.
    pub fn new(raw: Bytes) -> Self {
        Self { id: transaction_id(&raw), raw }
    }
}

/// The id of a transaction: the hash of all its bytes, signatures included.
pub fn transaction_id(raw: &[u8]) -> TransactionId {
    TransactionId(Hash32::of(&[raw]).0)
}

/// The layers in which a transaction may be executed. Nobody looks at them; they are zero.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, Deserialize)]
pub struct LayerLimits {
    /// The first.
    pub min: u32,
    /// The last.
    pub max: u32,
}

/// What parsing finds in a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct TxHeader {
    /// The account.
    pub principal: Address,
    /// What the account is.
    pub template_address: Address,
    /// What it does.
    pub method: u8,
    /// Which of its transactions.
    pub nonce: AccountNonce,
    /// Zero.
    pub layer_limits: LayerLimits,
    /// What executing it costs at most.
    pub max_gas: Gas,
    /// The price.
    pub gas_price: u64,
    /// What it spends at most, besides the fee.
    pub max_spend: Smidge,
}

/// A transaction, and what parsing found, if it was parsed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Transaction {
    /// The bytes.
    #[serde(flatten)]
    pub raw_tx: RawTx,
    /// What parsing found.
    pub tx_header: Option<TxHeader>,
}

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct TransactionResult {
    /// 0 success, 1 failure.
    pub status: u8,
    /// Why it failed.
    #[scale(max = MAX_MESSAGE)]
    pub message: Bytes,
    /// What executing it cost.
    pub gas: Gas,
    /// What was paid for that.
    pub fee: Smidge,
    /// The block.
    pub block: BlockId,
    /// The layer.
    pub layer: LayerId,
    /// The accounts it touched.
    #[scale(max = MAX_TOUCHED)]
    pub addresses: Vec<Address>,
}

/// A transaction and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct TransactionWithResult {
    /// The transaction.
    #[serde(flatten)]
    pub transaction: Transaction,
    /// What became of it.
    #[serde(flatten)]
    pub result: TransactionResult,
}

/// The state of an account after a layer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Account {
    /// The layer that changed it last.
    pub layer: LayerId,
    /// The address.
    pub address: Address,
    /// The number of its next transaction.
    pub next_nonce: AccountNonce,
    /// Its money.
    pub balance: Smidge,
    /// What it is; none before it is spawned.
    pub template_address: Option<Address>,
    /// What it was spawned with.
    #[scale(max = MAX_STATE)]
    pub state: Bytes,
}
