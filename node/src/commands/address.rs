//! `address`: addresses for rewards.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use proto::{
    address::{Network, Template, WalletArguments},
    ids::Address,
    keys::IdentityKey,
    preset::Preset,
    wallet::{self, Path, Words},
};

use super::{read_text, write_private};
use crate::{
    cli::{note, print},
    error::Error,
};

/// Addresses for rewards
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a new wallet: 24 words and their first address
    New(New),
    /// Show an address: of a wallet's words, of a public key, or in its parts
    Show(Show),
}

#[derive(Debug, Args)]
pub(crate) struct PrefixArgs {
    /// Network whose addresses are meant
    #[arg(long, default_value = "mainnet")]
    preset: Preset,
}

#[derive(Debug, Args)]
pub(crate) struct New {
    #[command(flatten)]
    prefix: PrefixArgs,
    /// Write the words to this new file instead of showing them
    #[arg(long, value_name = "FILE")]
    words_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    #[command(flatten)]
    prefix: PrefixArgs,
    #[command(flatten)]
    source: Source,
    /// Which address of the wallet
    #[arg(long, value_name = "N", default_value = "0", requires = "words_file")]
    index: u32,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Source {
    /// An address
    address: Option<String>,
    /// File with a wallet's words
    #[arg(long, value_name = "FILE")]
    words_file: Option<PathBuf>,
    /// Public key of an account, 64 hex digits
    #[arg(long, value_name = "HEX")]
    public_key: Option<String>,
}

impl PrefixArgs {
    fn network(&self) -> Result<Network, Error> {
        let prefix = &self.preset.network().main.network_hrp;
        Network::from_prefix(prefix).ok_or_else(|| {
            let known: Vec<_> = Network::ALL.iter().map(|network| network.prefix()).collect();
            Error::Usage(format!("addresses with prefix {prefix:?} are not known, only {}", known.join(", ")))
        })
    }
}

/// The account of a wallet.
fn account(words: &Words, index: u32) -> Result<Address, Error> {
    let path = Path::account(index).ok_or_else(|| Error::Usage(format!("no wallet has an address number {index}")))?;
    let seed = wallet::derive(words.seed().as_slice(), &path)?;
    encoded(wallet::address(&IdentityKey::from_seed(&seed)))
}

fn encoded(address: Result<Address, proto::scale::EncodeError>) -> Result<Address, Error> {
    address.map_err(|e| Error::Usage(format!("the address cannot be made: {e}")))
}

impl Command {
    pub(crate) fn run(self) -> Result<(), Error> {
        match self {
            Self::New(args) => {
                let network = args.prefix.network()?;
                let words = Words::generate()?;
                let address = account(&words, 0)?;
                match args.words_file {
                    Some(path) => write_private(&path, &words.text())?,
                    None => print(words.text().as_str()),
                }
                print(address.to_text(network));
                note("whoever has the words has what is paid to the address; without them it is lost");
                Ok(())
            }
            Self::Show(args) => {
                let network = args.prefix.network()?;
                let address = match (args.source.address, args.source.words_file, args.source.public_key) {
                    (Some(text), _, _) => {
                        let address = Address::parse(&text, network)?;
                        print(format_args!("bytes    {}", hex::encode(address.0)));
                        if let Some(template) = Template::from_address(&address) {
                            print(format_args!("template {template:?}"));
                        }
                        address
                    }
                    (_, Some(path), _) => {
                        let text = zeroize::Zeroizing::new(read_text(&path)?);
                        account(&Words::parse(text.trim())?, args.index)?
                    }
                    (_, _, text) => {
                        let mut key = [0; 32];
                        let text = text.unwrap_or_default();
                        hex::decode_to_slice(&text, &mut key).map_err(|e| Error::Usage(format!("--public-key: {e}")))?;
                        let arguments = WalletArguments { public_key: proto::address::AccountKey(key) };
                        encoded(Address::principal(Template::Wallet, &arguments))?
                    }
                };
                print(address.to_text(network));
                Ok(())
            }
        }
    }
}
