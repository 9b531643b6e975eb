//! `verify`: proofs from files or one per line.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, Write as _},
    path::Path,
    sync::{Mutex, PoisonError, atomic::AtomicU64},
    thread,
};

use kernels::pow::{BuildOptions, RandomX};
use proto::{
    post::{Params, Proof},
    units::SpaceUnits,
};
use serde_json::Value;

use super::{Failure, Stop, read_limited, stop_on_signals};
use crate::{
    data::read_metadata,
    program::cli::{ParamArgs, VerifyArgs, parse_difficulty, parse_mode},
    verify::{Claim, Mode, Request, Verdict, Verifier, leniencies, verdict_json},
};

/// A proof file holds a few hundred bytes; this leaves room for absurd parameters.
const MAX_PROOF_BYTES: u64 = 1 << 20;
/// Lines of a batch that are worked on together.
const AT_ONCE: usize = 16;

/// One proof and all that is needed to judge it.
struct Case {
    proof: Proof,
    claim: Claim,
    params: Params,
    mode: Mode,
}

/// Verifies proofs and prints a verdict for each.
pub fn verify(args: &VerifyArgs) -> Result<(), Failure> {
    let stop = stop_on_signals()?;
    let mode = with_seed(args.mode.clone(), &args.seed.0);
    let threads = if args.threads == 0 { crate::program::all_cores() } else { args.threads };
    let options = BuildOptions { mode: args.randomx_mode, large_pages: false, threads };
    let build = || RandomX::build(options, &stop, &AtomicU64::new(0));
    let mut all_valid = true;
    if let Some(batch) = &args.batch {
        let defaults = Defaults { args, mode: &mode };
        let file = open(batch)?;
        let mut lines = io::BufReader::new(file).lines().enumerate();
        let randomx = build()?;
        loop {
            // Several rounds per thread, so that a slow one does not hold up the others.
            let mut cases = Vec::new();
            for (number, line) in lines.by_ref().take(AT_ONCE * threads * 4) {
                let line = line?;
                if line.trim().is_empty() {
                    continue;
                }
                let case = defaults.parse(&line);
                cases.push(case.map_err(|e| Failure::Usage(format!("{} line {}: {e}", batch.display(), number + 1)))?);
            }
            if cases.is_empty() {
                break;
            }
            all_valid &= judge(&randomx, &cases, threads, args, &stop)?;
        }
    } else {
        let (claim, params) = from_options(args)?;
        let mut cases = Vec::new();
        for path in &args.proof {
            let text = read_limited(path, MAX_PROOF_BYTES)?;
            let proof =
                serde_json::from_slice(&text).map_err(|e| Failure::Usage(format!("{} is not a proof: {e}", path.display())))?;
            cases.push(Case { proof, claim: claim.clone(), params: params.clone(), mode: mode.clone() });
        }
        all_valid = judge(&build()?, &cases, threads, args, &stop)?;
    }
    if all_valid { Ok(()) } else { Err(Failure::Invalid(String::new())) }
}

fn open(path: &Path) -> Result<std::fs::File, Failure> {
    std::fs::File::open(path).map_err(|e| Failure::Failed(format!("failed to read {}: {e}", path.display()).into()))
}

fn with_seed(mode: Mode, seed: &[u8]) -> Mode {
    match mode {
        Mode::Subset { k3, .. } => Mode::Subset { k3, seed: seed.to_vec() },
        other => other,
    }
}

/// What the options say about the proofs. The metadata of a data directory stands in for what is not given.
fn from_options(args: &VerifyArgs) -> Result<(Claim, Params), Failure> {
    let metadata = match &args.data_dir {
        Some(dir) => Some(read_metadata(std::slice::from_ref(dir))?.1),
        None => None,
    };
    let missing = |name: &str| Failure::Usage(format!("{name} is missing"));
    let meta = metadata.as_ref();
    let claim = Claim {
        node_id: args.node_id.or(meta.map(|m| m.node_id)).ok_or_else(|| missing("--node-id"))?,
        commitment_atx_id: args
            .commitment_atx_id
            .or(meta.map(|m| m.commitment_atx_id))
            .ok_or_else(|| missing("--commitment-atx-id"))?,
        challenge: args.challenge.ok_or_else(|| missing("--challenge"))?,
        num_units: args.num_units.map(SpaceUnits).or(meta.map(|m| m.num_units)).ok_or_else(|| missing("--num-units"))?,
    };
    let mut params = args.params.params();
    if let (None, Some(meta)) = (args.params.labels_per_unit, meta) {
        params.labels_per_unit = meta.labels_per_unit;
    }
    Ok((claim, params))
}

/// Prints the verdicts in order; tells whether all are good.
fn judge(randomx: &RandomX, cases: &[Case], threads: usize, args: &VerifyArgs, stop: &Stop) -> Result<bool, Failure> {
    let chunks = Mutex::new(cases.chunks(AT_ONCE).enumerate());
    let done = Mutex::new(BTreeMap::new());
    let lock_done = || done.lock().unwrap_or_else(PoisonError::into_inner);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.min(cases.len().div_ceil(AT_ONCE)))
            .map(|_| {
                scope.spawn(|| -> Result<(), Failure> {
                    let mut verifier = Verifier::new(randomx)?;
                    loop {
                        if stop.load(std::sync::atomic::Ordering::Relaxed) {
                            return Err(Failure::Interrupted);
                        }
                        let next = chunks.lock().unwrap_or_else(PoisonError::into_inner).next();
                        let Some((number, chunk)) = next else { return Ok(()) };
                        let requests: Vec<_> = chunk
                            .iter()
                            .map(|c| Request { proof: &c.proof, claim: &c.claim, params: &c.params, mode: &c.mode })
                            .collect();
                        let verdicts = verifier.verify_all(&requests)?;
                        lock_done().insert(number, verdicts);
                    }
                })
            })
            .collect();
        workers.into_iter().try_for_each(|w| w.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    let verdicts = std::mem::take(&mut *lock_done()).into_values().flatten();
    let mut all_valid = true;
    let mut out = io::stdout().lock();
    for (case, verdict) in cases.iter().zip(verdicts) {
        all_valid &= verdict.is_ok();
        let used = if args.strict { leniencies(&case.proof, &case.claim, &case.params) } else { Vec::new() };
        all_valid &= used.is_empty();
        let used: Vec<_> = used.iter().map(ToString::to_string).collect();
        writeln!(out, "{}", line(&verdict, &used, args))?;
    }
    out.flush()?;
    Ok(all_valid)
}

fn line(verdict: &Verdict, used: &[String], args: &VerifyArgs) -> String {
    if args.json {
        let mut value = verdict_json(verdict);
        if args.strict {
            value["leniencies"] = used.into();
        }
        return value.to_string();
    }
    match verdict {
        Err(why) => format!("invalid: {why}"),
        Ok(()) if used.is_empty() => "valid".to_owned(),
        Ok(()) => format!("valid, but not honestly made: {}", used.join("; ")),
    }
}

/// What a line of a batch does not say is as the options say.
struct Defaults<'a> {
    args: &'a VerifyArgs,
    mode: &'a Mode,
}

impl Defaults<'_> {
    fn parse(&self, line: &str) -> Result<Case, String> {
        let Value::Object(object) = serde_json::from_str(line).map_err(|e| format!("not JSON: {e}"))? else {
            return Err("not a JSON object".to_owned());
        };
        // the names of the options, with either kind of dash
        let fields: BTreeMap<String, &Value> = object.iter().map(|(k, v)| (k.replace('-', "_"), v)).collect();
        let get = |name: &str| fields.get(name).copied().filter(|v| !v.is_null());
        let number = |name: &str| get(name).map(|v| to_u64(v).ok_or(format!("{name} is not a number: {v}"))).transpose();
        let small = |name: &str| {
            let narrow = |v: u64| u32::try_from(v).map_err(|_| format!("{name} is too large: {v}"));
            number(name)?.map(narrow).transpose()
        };
        let text = |name: &str| get(name).map(|v| v.as_str().ok_or(format!("{name} is not a text: {v}"))).transpose();
        let missing = |name: &str| format!("{name} is missing");
        let args = self.args;
        let proof = match get("proof").ok_or_else(|| missing("proof"))? {
            Value::String(path) => {
                let bytes = read_limited(Path::new(path), MAX_PROOF_BYTES).map_err(|_| format!("failed to read {path}"))?;
                serde_json::from_slice(&bytes).map_err(|e| format!("{path} is not a proof: {e}"))?
            }
            value => Proof::deserialize(value)?,
        };
        let parsed = |name: &str, e: String| format!("{name}: {e}");
        let id = |name: &str| {
            text(name)?.map(|t| t.parse::<proto::ids::NodeId>().map_err(|e| parsed(name, e.to_string()))).transpose()
        };
        let claim = Claim {
            node_id: id("node_id")?.or(args.node_id).ok_or_else(|| missing("node_id"))?,
            commitment_atx_id: id("commitment_atx_id")?
                .map(|id| id.0.into())
                .or(args.commitment_atx_id)
                .ok_or_else(|| missing("commitment_atx_id"))?,
            challenge: id("challenge")?.map(|id| id.0.into()).or(args.challenge).ok_or_else(|| missing("challenge"))?,
            num_units: SpaceUnits(small("num_units")?.or(args.num_units).ok_or_else(|| missing("num_units"))?),
        };
        let own = &args.params;
        let params = ParamArgs {
            preset: text("preset")?.map(str::parse).transpose().map_err(|e| parsed("preset", format!("{e}")))?.or(own.preset),
            scrypt_n: number("scrypt_n")?
                .map(proto::post::ScryptN::new)
                .transpose()
                .map_err(|e| parsed("scrypt_n", e.to_string()))?
                .or(own.scrypt_n),
            labels_per_unit: number("labels_per_unit")?.or(own.labels_per_unit),
            k1: small("k1")?.or(own.k1),
            k2: small("k2")?.or(own.k2),
            pow_difficulty: text("pow_difficulty")?
                .map(parse_difficulty)
                .transpose()
                .map_err(|e| parsed("pow_difficulty", e))?
                .or(own.pow_difficulty),
            min_num_units: small("min_num_units")?.or(own.min_num_units),
            max_num_units: small("max_num_units")?.or(own.max_num_units),
        };
        let seed = text("seed")?.map(hex::decode).transpose().map_err(|e| parsed("seed", e.to_string()))?;
        let mode = text("mode")?.map(parse_mode).transpose().map_err(|e| parsed("mode", e))?;
        let mode = mode.map_or_else(|| self.mode.clone(), |mode| with_seed(mode, &args.seed.0));
        let mode = seed.map_or(mode.clone(), |seed| with_seed(mode, &seed));
        Ok(Case { proof, claim, params: params.params(), mode })
    }
}

/// A number, or one written as text because it is large.
fn to_u64(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// A proof in its JSON form; large numbers may be written as text.
trait FromValue: Sized {
    fn deserialize(value: &Value) -> Result<Self, String>;
}

impl FromValue for Proof {
    fn deserialize(value: &Value) -> Result<Self, String> {
        let mut value = value.clone();
        if let Some(pow) = value.get("pow").filter(|pow| pow.is_string()).and_then(to_u64) {
            value["pow"] = pow.into();
        }
        serde_json::from_value(value).map_err(|e| format!("proof: {e}"))
    }
}
