//! Networks: everything that makes one network differ from another, in one file that serves node, prover, initialiser and PoET
//! server.
//!
//! - [`Preset`]: the choice of a network, a name or a file
//! - [`Network`]: what it contains
//! - [`load`]: files of ours (TOML) and of the official node (JSON)
//! - [`Network::check`]: values that make no network
//! - [`Binding`]: the part that a data directory is bound to
//!
//! Groups and keys are those of the official node's configuration (consensus.md section 14.4, activation.md section 2, p2p-sync.md
//! section 19).

mod binding;
mod check;
mod network;
mod read;

use std::{fmt, path::Path, str::FromStr, sync::LazyLock};

pub use binding::{Binding, Difference};
pub use network::{
    ActiveSetPreparation, Base64Key, Beacon, Bootstrap, Certificate, Certifier, CertifierClient, CommitteeUpgrade, GenesisParams,
    Hare, HareEligibility, HexBytes, Main, MinimalWeight, Network, P2p, PoetParams, PoetServer, PostParams, ProvingOpts, Ratio,
    Scrypt, SetupOpts, Smeshing, Syncer, Tortoise, WindowInterval,
};
pub use read::{LoadError, Loaded, load, parse};

use crate::{
    genesis::{Genesis, UnixSeconds},
    post::Params,
};

/// A network: known by name, or read from a file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Preset {
    /// The public network.
    Mainnet,
    /// The public test network.
    Testnet,
    /// A network with short epochs and trivial labels, for automated tests.
    Fastnet,
    /// A network of one node.
    Standalone,
    /// A whole network on one machine.
    Local,
    /// Read from a file at the start of the program, and kept until its end.
    File(&'static Network),
}

/// A preset compiled into the program.
fn embedded(text: &str) -> Network {
    match read::complete(text) {
        Ok(network) => network,
        // A test reads all of them.
        Err(e) => unreachable!("an embedded preset is broken: {e}"),
    }
}

static MAINNET: LazyLock<Network> = LazyLock::new(|| embedded(include_str!("../presets/mainnet.toml")));
static TESTNET: LazyLock<Network> = LazyLock::new(|| embedded(include_str!("../presets/testnet.toml")));
static FASTNET: LazyLock<Network> = LazyLock::new(|| embedded(include_str!("../presets/fastnet.toml")));
static STANDALONE: LazyLock<Network> = LazyLock::new(|| embedded(include_str!("../presets/standalone.toml")));
static LOCAL: LazyLock<Network> = LazyLock::new(|| embedded(include_str!("../presets/local.toml")));

impl Preset {
    /// All networks known by name.
    pub const ALL: [Self; 5] = [Self::Mainnet, Self::Testnet, Self::Fastnet, Self::Standalone, Self::Local];

    /// The network.
    pub fn network(self) -> &'static Network {
        match self {
            Self::Mainnet => &MAINNET,
            Self::Testnet => &TESTNET,
            Self::Fastnet => &FASTNET,
            Self::Standalone => &STANDALONE,
            Self::Local => &LOCAL,
            Self::File(network) => network,
        }
    }

    /// Its PoST parameters (post.md section 1).
    pub fn params(self) -> Params {
        self.network().post_params()
    }

    /// Its genesis, and whether that is fixed for everybody. Fastnet, standalone and local networks are born when they are
    /// started; unless told otherwise this suite lets them be born at Unix time 0.
    pub fn genesis(self) -> (Genesis, bool) {
        let network = self.network();
        match network.genesis() {
            Some(genesis) => (genesis, true),
            None => (network.genesis_at(UnixSeconds(0)), false),
        }
    }

    /// A network by its name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|preset| preset.network().name == name)
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.network().name)
    }
}

impl FromStr for Preset {
    type Err = LoadError;

    /// Takes a name, or the path of a file; `./mainnet` is a file.
    fn from_str(text: &str) -> Result<Self, LoadError> {
        if let Some(preset) = Self::by_name(text) {
            return Ok(preset);
        }
        let path = Path::new(text);
        if path.is_file() || path.components().count() > 1 || path.extension().is_some() {
            let network = load(path)?.network;
            // Read once, when a program starts.
            Ok(Self::File(Box::leak(Box::new(network))))
        } else {
            Err(LoadError::UnknownName(text.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests;
