//! k2pow for other machines, over the HTTP interface of the deployed workers (`docs/spec/post.md` section 16).

mod client;
mod server;

use std::{net::SocketAddr, path::Path};

use clap::{Args, Subcommand};
use kernels::pow::{Mode as PowMode, Puzzle};
use proto::ids::NodeId;
use zeroize::Zeroizing;

pub use client::{RemoteOptions, RemotePow};
pub use server::{Config, Worker, serve};

use super::{Failure, all_cores};

/// Arguments of `k2pow`.
#[derive(Debug, Args)]
pub struct K2powArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: K2powCommand,
}

/// What a k2pow command does.
#[derive(Debug, Subcommand)]
pub enum K2powCommand {
    /// Solve puzzles for others
    Serve(K2powServeArgs),
}

/// Arguments of `k2pow serve`.
#[derive(Debug, Args)]
pub struct K2powServeArgs {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:3000", value_name = "IP:PORT")]
    pub bind_address: SocketAddr,
    /// Threads; 0 stands for all cores
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub threads: usize,
    /// fast (2080 MiB) or light (256 MiB)
    #[arg(long, default_value = "fast", value_name = "MODE")]
    pub randomx_mode: PowMode,
    /// Use reserved large pages for RandomX
    #[arg(long)]
    pub randomx_large_pages: bool,
    /// Jobs that may wait behind the one that is worked on
    #[arg(long, default_value_t = 32, value_name = "N")]
    pub queue: usize,
    /// File that holds a token every request must carry; needed when listening beyond this machine
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<std::path::PathBuf>,
    /// Listen beyond this machine without a token
    #[arg(long)]
    pub without_token: bool,
}

/// Runs a k2pow command.
pub fn run(args: &K2powArgs) -> Result<(), Failure> {
    let K2powCommand::Serve(args) = &args.command;
    let token = args.token_file.as_deref().map(read_token).transpose()?;
    if token.is_none() && !args.bind_address.ip().is_loopback() && !args.without_token {
        return Err(Failure::Usage(format!(
            "{} can be reached from other machines: give --token-file, or --without-token to let anybody use this worker",
            args.bind_address
        )));
    }
    let threads = if args.threads == 0 { all_cores() } else { args.threads };
    serve(&Config {
        address: args.bind_address,
        threads,
        mode: args.randomx_mode,
        large_pages: args.randomx_large_pages,
        queue: args.queue,
        token,
    })
}

/// A secret that is wiped from memory and never printed.
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// Whether this is the token; takes as long for any wrong one of the same length.
    fn is(&self, other: &str) -> bool {
        // Hashes of equal length, so comparing them tells nothing about how much of the token was right.
        blake3::hash(self.0.as_bytes()) == blake3::hash(other.as_bytes())
    }
}

/// Reads a token: the first line of a file.
pub fn read_token(path: &Path) -> Result<Token, Failure> {
    let text = std::fs::read_to_string(path)
        .map(Zeroizing::new)
        .map_err(|e| Failure::Usage(format!("failed to read the token file {}: {e}", path.display())))?;
    match text.lines().next().map(str::trim) {
        Some(token) if !token.is_empty() => Ok(Token(Zeroizing::new(token.to_owned()))),
        _ => Err(Failure::Usage(format!("{} holds no token", path.display()))),
    }
}

/// The path of a job: `/job/{miner}/{nonce_group}/{challenge}/{difficulty}`.
fn job_path(puzzle: &Puzzle) -> String {
    format!("/job/{}/{}/{}/{}", puzzle.node_id, puzzle.group, hex::encode(puzzle.challenge), hex::encode(puzzle.difficulty))
}

/// The puzzle of a job's path; the error is for whoever asked.
fn parse_job(miner: &str, group: &str, challenge: &str, difficulty: &str) -> Result<Puzzle, String> {
    fn bytes<const N: usize>(what: &str, digits: &str) -> Result<[u8; N], String> {
        let mut out = [0; N];
        hex::decode_to_slice(digits, &mut out).map_err(|e| format!("{what}: {e}"))?;
        Ok(out)
    }
    Ok(Puzzle {
        node_id: NodeId(bytes("miner", miner)?),
        group: group.parse().map_err(|e| format!("nonce_group: {e}"))?,
        challenge: bytes("challenge", challenge)?,
        difficulty: bytes("difficulty", difficulty)?,
    })
}
