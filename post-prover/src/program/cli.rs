//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use kernels::pow::Mode as PowMode;
use proto::{
    ids::{AtxId, Challenge, NodeId},
    post::{Params, Preset, ScryptN},
    units::SpaceUnits,
};

use super::choose::{MISS_TARGET, NonceChoice};
use crate::verify::Mode;

/// Proves space and verifies proofs.
///
/// Exit codes: 0 done, 1 failed, 2 bad usage or configuration, 3 data or proof invalid, 4 interrupted (run the same command again
/// to go on). Logs go to stderr; RUST_LOG chooses what.
#[derive(Debug, Parser)]
#[command(name = "post-prover", version, max_term_width = 120)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Prove for nodes: register with them and answer their requests
    Serve(Box<super::serve::ServeArgs>),
    /// Hand an identity over to another node
    Move(super::serve::MoveArgs),
    /// Make one proof
    Prove(ProveArgs),
    /// Verify proofs
    Verify(Box<VerifyArgs>),
    /// Measure disk and cores and tell which settings to use
    Tune(TuneArgs),
    /// Make a proof for a random challenge, as it will be when it counts
    Rehearse(RehearseArgs),
    /// Measure the scan, k2pow and verification on this machine
    Bench(BenchArgs),
    /// Show what a running service is doing
    Status(StatusArgs),
    /// k2pow for other machines
    K2pow(super::k2pow::K2powArgs),
    /// Certificates for valid proofs
    Certifier(super::certifier::CertifierArgs),
}

/// The rules of a network. Values given here go before those of the preset.
#[derive(Debug, Clone, Default, Args)]
pub struct ParamArgs {
    /// Network: mainnet, testnet, fastnet, standalone, local, or the path of a preset file [default: mainnet]
    #[arg(long)]
    pub preset: Option<Preset>,
    /// Cost of the label function
    #[arg(long, value_name = "N")]
    pub scrypt_n: Option<ScryptN>,
    /// Labels in one unit
    #[arg(long, value_name = "N")]
    pub labels_per_unit: Option<u64>,
    /// Expected number of good labels per nonce
    #[arg(long, value_name = "N")]
    pub k1: Option<u32>,
    /// Good labels a proof must show
    #[arg(long, value_name = "N")]
    pub k2: Option<u32>,
    /// k2pow threshold for one unit, 64 hex digits
    #[arg(long, value_name = "HEX", value_parser = parse_difficulty)]
    pub pow_difficulty: Option<[u8; 32]>,
    /// Fewest units allowed
    #[arg(long, value_name = "N")]
    pub min_num_units: Option<u32>,
    /// Most units allowed
    #[arg(long, value_name = "N")]
    pub max_num_units: Option<u32>,
}

impl ParamArgs {
    /// The preset with the given values in place of its own.
    pub fn params(&self) -> Params {
        let preset = self.preset.unwrap_or(Preset::Mainnet).params();
        Params {
            scrypt_n: self.scrypt_n.unwrap_or(preset.scrypt_n),
            labels_per_unit: self.labels_per_unit.unwrap_or(preset.labels_per_unit),
            k1: self.k1.unwrap_or(preset.k1),
            k2: self.k2.unwrap_or(preset.k2),
            pow_difficulty: self.pow_difficulty.unwrap_or(preset.pow_difficulty),
            min_num_units: self.min_num_units.map_or(preset.min_num_units, SpaceUnits),
            max_num_units: self.max_num_units.map_or(preset.max_num_units, SpaceUnits),
            ..preset
        }
    }
}

/// 64 hex digits, with or without 0x.
pub fn parse_difficulty(text: &str) -> Result<[u8; 32], String> {
    let mut bytes = [0; 32];
    let digits = text.strip_prefix("0x").unwrap_or(text);
    hex::decode_to_slice(digits, &mut bytes).map_err(|e| format!("not 64 hex digits: {e}"))?;
    Ok(bytes)
}

/// `all`, `subset:K3` or `one:I`; the seed is given apart.
pub fn parse_mode(text: &str) -> Result<Mode, String> {
    let number = |digits: &str| digits.parse().map_err(|e| format!("{digits:?} is not a number: {e}"));
    match text.split_once(':') {
        None if text == "all" => Ok(Mode::All),
        Some(("one", index)) => Ok(Mode::One(number(index)?)),
        Some(("subset", k3)) => Ok(Mode::Subset { k3: number(k3)?, seed: Vec::new() }),
        _ => Err("choose all, subset:K3 or one:I".to_owned()),
    }
}

/// Arguments of `prove`.
#[derive(Debug, Args)]
pub struct ProveArgs {
    /// Directory of the data; repeat it for data spread over several
    #[arg(long, required = true, value_name = "DIR")]
    pub data_dir: Vec<PathBuf>,
    /// What to answer, 64 hex digits
    #[arg(long, value_name = "HEX")]
    pub challenge: Challenge,
    /// Where to write the proof
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    #[command(flatten)]
    #[expect(missing_docs, reason = "shown as options")]
    pub params: ParamArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "shown as options")]
    pub work: WorkArgs,
}

/// How to go about proving.
#[derive(Debug, Clone, Args)]
pub struct WorkArgs {
    /// Nonces per pass: a multiple of 16, at most 4096; auto measures disks and cores and chooses so that the window is missed once
    /// in 10,000 times
    #[arg(long, default_value = "auto", value_name = "N")]
    pub nonces: NonceChoice,
    /// Threads; 0 stands for all cores
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub threads: usize,
    /// fast (2080 MiB) or light (256 MiB)
    #[arg(long, default_value = "fast", value_name = "MODE")]
    pub randomx_mode: PowMode,
    /// Use reserved large pages for RandomX
    #[arg(long)]
    pub randomx_large_pages: bool,
    /// k2pow worker to ask, `http://host:port`; repeat it for several
    #[arg(long, value_name = "URL")]
    pub remote_k2pow: Vec<String>,
    /// File that holds the token the workers want
    #[arg(long, value_name = "FILE")]
    pub k2pow_token_file: Option<PathBuf>,
}

impl WorkArgs {
    /// The number of threads, all cores for 0.
    pub fn threads(&self) -> usize {
        if self.threads == 0 { super::all_cores() } else { self.threads }
    }
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Proof to verify, as JSON; repeat it for several
    #[arg(long, num_args = 1.., value_name = "FILE", required_unless_present = "batch")]
    pub proof: Vec<PathBuf>,
    /// Proofs to verify, one JSON object per line: `proof` and the names of the options below
    #[arg(long, value_name = "FILE", conflicts_with_all = ["proof", "data_dir"])]
    pub batch: Option<PathBuf>,
    /// What the proof answers, 64 hex digits
    #[arg(long, value_name = "HEX", required_unless_present = "batch")]
    pub challenge: Option<Challenge>,
    /// Directory with the metadata of the data
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The identity
    #[arg(long, value_name = "ID", required_unless_present_any = ["data_dir", "batch"])]
    pub node_id: Option<NodeId>,
    /// The ATX the labels are bound to
    #[arg(long, value_name = "ID", required_unless_present_any = ["data_dir", "batch"])]
    pub commitment_atx_id: Option<AtxId>,
    /// Units of data
    #[arg(long, value_name = "N", required_unless_present_any = ["data_dir", "batch"])]
    pub num_units: Option<u32>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "shown as options")]
    pub params: ParamArgs,
    /// all, subset:K3 or one:I
    #[arg(long, default_value = "all", value_parser = parse_mode)]
    pub mode: Mode,
    /// Seed of the subset, hex
    #[arg(long, default_value = "", hide_default_value = true, value_parser = parse_hex, value_name = "HEX")]
    pub seed: Hex,
    /// Print verdicts as JSON
    #[arg(long)]
    pub json: bool,
    /// Also tell what an honest prover never does though the network accepts it; such proofs count as invalid
    #[arg(long)]
    pub strict: bool,
    /// fast (2080 MiB, for thousands of proofs) or light (256 MiB)
    #[arg(long, default_value = "light", value_name = "MODE")]
    pub randomx_mode: PowMode,
    /// Threads; 0 stands for all cores
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub threads: usize,
}

/// Bytes given as hex.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hex(pub Vec<u8>);

fn parse_hex(text: &str) -> Result<Hex, String> {
    hex::decode(text.strip_prefix("0x").unwrap_or(text)).map(Hex).map_err(|e| format!("not hex: {e}"))
}

/// Arguments of `tune`.
#[derive(Debug, Args)]
pub struct TuneArgs {
    /// Directory of the data; repeat it for data spread over several
    #[arg(long, required = true, value_name = "DIR")]
    pub data_dir: Vec<PathBuf>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "shown as options")]
    pub params: ParamArgs,
    /// Hours in which a proof must be made [default: as the preset says, else 12]
    #[arg(long, value_name = "HOURS")]
    pub window: Option<f64>,
    /// Accepted chance to miss the window
    #[arg(long, default_value_t = MISS_TARGET, value_name = "P")]
    pub target: f64,
    /// Seconds per measurement
    #[arg(long, default_value_t = 5.0, value_name = "S")]
    pub seconds: f64,
    /// fast or light
    #[arg(long, default_value = "fast", value_name = "MODE")]
    pub randomx_mode: PowMode,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `rehearse`.
#[derive(Debug, Args)]
pub struct RehearseArgs {
    /// Directory of the data; repeat it for data spread over several
    #[arg(long, required = true, value_name = "DIR")]
    pub data_dir: Vec<PathBuf>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "shown as options")]
    pub params: ParamArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "shown as options")]
    pub work: WorkArgs,
}

/// Arguments of `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Seconds per measurement
    #[arg(long, default_value_t = 2.0, value_name = "S")]
    pub seconds: f64,
    /// Print the figures as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Operator address of the service
    #[arg(long, default_value = "127.0.0.1:50051", value_name = "IP:PORT")]
    pub operator_address: SocketAddr,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn modes_are_parsed() {
        assert_eq!(parse_mode("all"), Ok(Mode::All));
        assert_eq!(parse_mode("one:7"), Ok(Mode::One(7)));
        assert_eq!(parse_mode("subset:0"), Ok(Mode::Subset { k3: 0, seed: Vec::new() }));
        for bad in ["", "All", "one", "one:", "subset:-1", "one:4294967296", "all:1"] {
            assert!(parse_mode(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn options_go_before_the_preset() {
        let cli = Cli::try_parse_from([
            "post-prover",
            "verify",
            "--proof",
            "p",
            "--challenge",
            &"00".repeat(32),
            "--node-id",
            &"11".repeat(32),
            "--commitment-atx-id",
            &"22".repeat(32),
            "--num-units",
            "0",
            "--preset",
            "fastnet",
            "--k1",
            "5",
            "--seed",
            "",
            "--pow-difficulty",
            &"0f".repeat(32),
            "--labels-per-unit",
            "7",
            "--scrypt-n",
            "4",
            "--mode",
            "subset:3",
        ]);
        let Command::Verify(args) = cli.unwrap().command else { panic!() };
        let params = args.params.params();
        assert_eq!((params.k1, params.k2, params.labels_per_unit, params.scrypt_n.get()), (5, 4, 7, 4));
        assert_eq!((params.pow_difficulty, params.max_num_units), ([0x0f; 32], SpaceUnits(4)));
        assert_eq!(args.seed, Hex(Vec::new()));
    }
}
