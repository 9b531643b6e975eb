//! The command line.

mod devices;

use std::{
    io::{self, IsTerminal as _, Write as _},
    net::SocketAddr,
    ops::RangeInclusive,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use kernels::label::cpu::Isa;
use post_init::{
    check::{self, Existing, Extent},
    control::{self, Control},
    data_dir::{DataDirs, DirSpec},
    error::Error,
    event::{Report, Reports},
    gpu::{DeviceId, find},
    init::{self, Request},
    measure,
    merge::merge,
    pool::{Limits, PoolOptions},
    prune,
    report::{Human, JsonLines, Metrics},
    select::{Backend, Choice, choose, source},
    sensors::{Sensors, System},
    size::parse_size,
    status::status,
    stop::Stop,
    storage::{Disk, Storage},
    tuning::Cache,
};
use proto::{
    ids::{AtxId, NodeId},
    post::{Preset, ScryptN},
    units::SpaceUnits,
};
use serde_json::json;

/// Makes, checks and repairs proof-of-space-time data for Spacemesh.
///
/// Exit codes: 0 done, 1 failed, 2 bad usage or configuration, 3 data invalid, 4 interrupted and resumable.
#[derive(Debug, Parser)]
#[command(name = "post-init", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the labels of an identity, or go on where an earlier run stopped
    Init(InitArgs),
    /// Show what lies in the data directories
    Status(DataArgs),
    /// Compare labels on disk with computed ones
    Verify(VerifyArgs),
    /// Check all labels and compute wrong ones again
    Repair(RepairArgs),
    /// Find a lost VRF nonce
    Nonce(NonceArgs),
    /// Join file subsets of one identity into one directory
    Merge(MergeArgs),
    /// Pause, resume or slow down the run that works on a directory, or ask how it stands
    Control(ControlArgs),
    /// Delete labels beyond the declared units; must be confirmed
    Prune(PruneArgs),
    /// List the devices labels can be computed on
    Devices(devices::DevicesArgs),
    /// Tell what keeps each backend from the GPUs of this machine, and try out those that are reached
    Doctor(devices::DoctorArgs),
    /// Find the parameters that suit each GPU, and keep them
    Tune(devices::TuneArgs),
    /// Measure the devices
    Bench(BenchArgs),
    /// Tell how many units fit on a disk and how long they take
    Plan(PlanArgs),
}

#[derive(Debug, Clone, Args)]
struct DataArgs {
    /// Directory of the data; several for one identity: repeat it. `DIR,size=8T` limits what is put there
    #[arg(long = "data-dir", value_name = "DIR", required = true)]
    data_dirs: Vec<DirSpec>,
    #[command(flatten)]
    network: NetworkArgs,
    /// Write JSON lines to standard output
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Args)]
struct NetworkArgs {
    /// Network whose parameters apply: mainnet, testnet, fastnet, standalone, local, or the path of a preset file
    #[arg(long, default_value = "mainnet")]
    preset: Preset,
    /// Cost of the label function, a power of two [default: as recorded, else as the preset says]
    #[arg(long, value_name = "N")]
    scrypt_n: Option<ScryptN>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum BackendArg {
    /// All GPUs; the processor if there is none
    Auto,
    /// The processor
    Cpu,
    /// GPUs through Vulkan, Metal or DirectX 12, software ones included
    Wgpu,
    /// GPUs through CUDA
    Cuda,
    /// Everything, the processor and software GPUs included
    All,
}

impl From<BackendArg> for Backend {
    fn from(arg: BackendArg) -> Self {
        match arg {
            BackendArg::Auto => Self::Auto,
            BackendArg::Cpu => Self::Cpu,
            BackendArg::Wgpu => Self::Wgpu,
            BackendArg::Cuda => Self::Cuda,
            BackendArg::All => Self::All,
        }
    }
}

#[derive(Debug, Clone, Args)]
struct DeviceArgs {
    /// What to compute on
    #[arg(long, default_value = "auto")]
    backend: BackendArg,
    /// Only these, as `post-init devices` names them: `0,2,cpu`
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    devices: Vec<DeviceId>,
    /// Compute on the processor beside the GPUs
    #[arg(long)]
    with_cpu: bool,
    /// Threads of the processor [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    cpu_threads: Option<u32>,
    /// Instruction set: auto, portable, avx2, avx512, neon
    #[arg(long, default_value = "auto", value_name = "ISA", value_parser = parse_isa)]
    cpu_isa: IsaChoice,
    /// Lower the priority by this many steps
    #[arg(long, value_name = "STEPS", num_args = 0..=1, default_missing_value = "10", value_parser = clap::value_parser!(i32).range(1..=19))]
    nice: Option<i32>,
    /// Let a GPU pause while it is hotter, in degrees Celsius; its settings are never changed
    #[arg(long, value_name = "CELSIUS", value_parser = parse_positive)]
    max_temp: Option<f64>,
    /// Let a GPU pause while it draws more, in watts; its settings are never changed
    #[arg(long, value_name = "WATTS", value_parser = parse_positive)]
    max_power: Option<f64>,
    /// Compute only this share of the time
    #[arg(long, value_name = "PERCENT", default_value = "100", value_parser = clap::value_parser!(u8).range(1..=100))]
    duty: u8,
    /// Serve Prometheus metrics on this address, e.g. 127.0.0.1:9100
    #[arg(long, value_name = "ADDR")]
    metrics: Option<SocketAddr>,
}

#[derive(Debug, Clone, Copy)]
struct IsaChoice(Option<Isa>);

fn parse_isa(text: &str) -> Result<IsaChoice, String> {
    match text {
        "auto" => Ok(IsaChoice(None)),
        name => name.parse().map(|isa| IsaChoice(Some(isa))).map_err(|e: kernels::label::cpu::ParseIsaError| e.to_string()),
    }
}

impl DeviceArgs {
    /// What to compute on; lowers the priority if asked.
    fn options(&self) -> Result<PoolOptions, Error> {
        if let Some(steps) = self.nice {
            lower_priority(steps)?;
        }
        let all = PoolOptions::all();
        let isa = self.cpu_isa.0.unwrap_or(all.isa);
        if !Isa::available().contains(&isa) {
            let known = Isa::available().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            return Err(Error::Usage(format!("this processor does not have {isa}; it has {known}")));
        }
        let Choice { gpus, cpu } = choose(self.backend.into(), &self.devices, self.with_cpu, find)?;
        let cpu_threads = if cpu { self.cpu_threads.map_or(all.cpu_threads, |n| n as usize) } else { 0 };
        let limits = Limits { celsius: self.max_temp, watts: self.max_power };
        let sensors = (limits != Limits::default()).then(|| Arc::new(System::open()) as Arc<dyn Sensors>);
        let cache = Cache::of_user();
        let control = Control::new(self.duty).with_socket();
        obey_signals(&control)?;
        Ok(PoolOptions {
            cpu_threads,
            isa,
            gpus: gpus.into_iter().map(|gpu| source(gpu, cache.clone())).collect(),
            control,
            limits,
            sensors,
            ..all
        })
    }
}

#[cfg(unix)]
fn lower_priority(steps: i32) -> Result<(), Error> {
    rustix::process::nice(steps).map(|_| ()).map_err(|error| Error::Io {
        action: "lower the priority of",
        path: "the process".into(),
        source: error.into(),
    })
}

#[cfg(not(unix))]
fn lower_priority(_steps: i32) -> Result<(), Error> {
    Err(Error::Usage("--nice is not available on this system; use its task manager".to_owned()))
}

#[derive(Debug, Args)]
struct InitArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Units to reach [default: as recorded]
    #[arg(long, value_name = "N")]
    num_units: Option<u32>,
    /// Key file of the identity
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// Public key of the identity, hex or base64; without it and --identity a new key is made
    #[arg(long, value_name = "ID")]
    node_id: Option<NodeId>,
    /// ATX to bind the labels to, hex or base64 [default: as recorded, else the golden ATX of the preset]
    #[arg(long, value_name = "ID")]
    commitment_atx_id: Option<AtxId>,
    /// Labels in one unit
    #[arg(long, value_name = "N")]
    labels_per_unit: Option<u64>,
    /// Fewest units allowed
    #[arg(long, value_name = "N")]
    min_num_units: Option<u32>,
    /// Most units allowed
    #[arg(long, value_name = "N")]
    max_num_units: Option<u32>,
    /// Bytes of a full file, a multiple of 16 [default: as recorded, else 4 GiB]
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    max_file_size: Option<u64>,
    /// First file to make, when several machines share the work
    #[arg(long, value_name = "I")]
    from_file: Option<u64>,
    /// Last file to make
    #[arg(long, value_name = "J")]
    to_file: Option<u64>,
    /// Exit with code 4 when the disk is full, instead of waiting for room
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    devices: DeviceArgs,
}

#[derive(Debug, Args)]
struct VerifyArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Percent of each file to check, at random places
    #[arg(long, value_name = "PERCENT", default_value = "0.2", value_parser = parse_percent, conflicts_with = "all")]
    fraction: f64,
    /// Check every label
    #[arg(long)]
    all: bool,
    /// Only these files: `I..J`, both included, or one number
    #[arg(long, value_name = "I..J", value_parser = parse_files)]
    files: Option<RangeInclusive<u64>>,
    #[command(flatten)]
    devices: DeviceArgs,
}

#[derive(Debug, Args)]
struct RepairArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Only these files: `I..J`, both included, or one number
    #[arg(long, value_name = "I..J", value_parser = parse_files)]
    files: Option<RangeInclusive<u64>>,
    #[command(flatten)]
    devices: DeviceArgs,
}

#[derive(Debug, Args)]
struct NonceArgs {
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    devices: DeviceArgs,
}

#[derive(Debug, Args)]
struct MergeArgs {
    /// Directories with subsets of the files
    #[arg(required = true, value_name = "SRC")]
    sources: Vec<PathBuf>,
    /// Directory to join them in
    #[arg(long, value_name = "DIR")]
    into: PathBuf,
    #[command(flatten)]
    network: NetworkArgs,
    /// Write JSON lines to standard output
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ControlArgs {
    /// First data directory of the run
    #[arg(long = "data-dir", value_name = "DIR")]
    data_dir: PathBuf,
    #[command(subcommand)]
    command: ControlCommand,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum ControlCommand {
    /// How it stands, as JSON
    Status,
    /// Stop computing and free the memory of GPUs
    Pause,
    /// Go on
    Resume,
    /// Compute only this share of the time
    Duty {
        /// Percent of the time
        #[arg(value_parser = clap::value_parser!(u8).range(1..=100))]
        percent: u8,
    },
}

#[derive(Debug, Args)]
struct PruneArgs {
    #[command(flatten)]
    data: DataArgs,
    /// The identity, in place of typing it
    #[arg(long, value_name = "NODE_ID")]
    confirm: Option<NodeId>,
}

#[derive(Debug, Args)]
struct BenchArgs {
    #[command(flatten)]
    network: NetworkArgs,
    /// Seconds per device
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    #[command(flatten)]
    roofline: devices::RooflineArgs,
    #[command(flatten)]
    devices: DeviceArgs,
    /// Write JSON lines to standard output
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct PlanArgs {
    /// Size of the disk, e.g. 8T or 500G
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    disk: u64,
    #[command(flatten)]
    network: NetworkArgs,
    /// Labels in one unit [default: as the preset says]
    #[arg(long, value_name = "N")]
    labels_per_unit: Option<u64>,
    /// What the disk reads, in MiB per second
    #[arg(long, value_name = "MIB", default_value = "150", value_parser = parse_positive)]
    read_speed: f64,
    #[command(flatten)]
    devices: DeviceArgs,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

fn parse_percent(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err("a number from 0 to 100 is needed".to_owned()),
    }
}

fn parse_positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value.is_finite() => Ok(value),
        _ => Err("a number above 0 is needed".to_owned()),
    }
}

fn parse_files(text: &str) -> Result<RangeInclusive<u64>, String> {
    let number = |text: &str| text.parse::<u64>().map_err(|e| format!("{text:?} is not a file number: {e}"));
    match text.split_once("..") {
        Some((from, to)) => Ok(number(from)?..=number(to.strip_prefix('=').unwrap_or(to))?),
        None => number(text).map(|file| file..=file),
    }
}

/// Runs the program.
pub(crate) fn main() -> ExitCode {
    // A closed pipe is no reason to lose work, so clap's own printing is the only thing that may fail here.
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let stop = Stop::default();
    let on_signal = stop.clone();
    if let Err(error) = ctrlc::set_handler(move || on_signal.set()) {
        eprintln!("warning: signals are not handled ({error}); work in progress is lost when the program is stopped");
    }
    let json = cli.command.json();
    match cli.command.run(&stop) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if json {
                let line =
                    json!({"event": "error", "kind": error.kind(), "message": error.to_string(), "exit_code": error.exit_code()});
                let _ = writeln!(io::stdout().lock(), "{line}");
            }
            let _ = writeln!(io::stderr().lock(), "error: {error}");
            if let Some(advice) = error.advice() {
                let _ = writeln!(io::stderr().lock(), "{advice}");
            }
            ExitCode::from(error.exit_code())
        }
    }
}

/// The listeners a command wants.
fn listeners(json: bool, metrics: Option<SocketAddr>, control: Option<&Control>) -> Result<Reports, Error> {
    let mut list: Vec<Box<dyn Report>> = vec![if json { Box::new(JsonLines) } else { Box::new(Human::new()) }];
    if let Some(address) = metrics {
        list.push(Box::new(Metrics::serve(address)?));
        if !address.ip().is_loopback() {
            let warn: &dyn Report = &*list[0];
            warn.warn(format!("metrics are readable by everyone who reaches {address}"));
        }
    }
    if let Some(control) = control {
        list.push(Box::new(control.clone()));
    }
    Ok(Reports(list))
}

impl DataArgs {
    fn dirs(&self) -> Result<DataDirs, Error> {
        DataDirs::new(self.data_dirs.clone(), Arc::new(Disk))
    }

    fn existing(&self, dirs: &DataDirs) -> Result<Existing, Error> {
        Existing::open(dirs, self.network.preset, self.network.scrypt_n)
    }
}

fn print(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// A line from the terminal; Ctrl-C ends the wait for it.
fn read_line(stop: &Stop) -> Result<String, Error> {
    let (sender, receiver) = crossbeam_channel::bounded(1);
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = io::stdin().read_line(&mut line);
        let _ = sender.send(line);
    });
    loop {
        stop.check()?;
        if let Ok(line) = receiver.recv_timeout(Duration::from_millis(100)) {
            return Ok(line);
        }
    }
}

impl Command {
    fn json(&self) -> bool {
        match self {
            Self::Init(args) => args.data.json,
            Self::Status(args) => args.json,
            Self::Verify(args) => args.data.json,
            Self::Repair(args) => args.data.json,
            Self::Nonce(args) => args.data.json,
            Self::Merge(args) => args.json,
            Self::Prune(args) => args.data.json,
            Self::Control(_) => true,
            Self::Devices(args) => args.json,
            Self::Doctor(args) => args.json,
            Self::Tune(args) => args.json,
            Self::Bench(args) => args.json,
            Self::Plan(args) => args.json,
        }
    }

    fn run(self, stop: &Stop) -> Result<(), Error> {
        let json = self.json();
        match self {
            Self::Init(args) => args.run(stop),
            Self::Status(args) => {
                let dirs = args.dirs()?;
                let status = status(&args.existing(&dirs)?, &dirs)?;
                print(&if json { json!(status).to_string() } else { status.show() });
                Ok(())
            }
            Self::Verify(args) => {
                let options = args.devices.options()?;
                let dirs = args.data.dirs()?;
                let existing = args.data.existing(&dirs)?;
                let report = listeners(json, args.devices.metrics, Some(&options.control))?;
                let extent = if args.all { Extent::All } else { Extent::Percent(args.fraction) };
                check::verify(&existing, &dirs, args.files.as_ref(), extent, &options, stop, &report)?.verdict()
            }
            Self::Repair(args) => {
                let options = args.devices.options()?;
                let report = listeners(json, args.devices.metrics, Some(&options.control))?;
                let network = &args.data.network;
                let files = args.files.as_ref();
                check::repair(network.preset, network.scrypt_n, &args.data.dirs()?, files, &options, stop, &report)?.verdict()
            }
            Self::Nonce(args) => {
                let options = args.devices.options()?;
                let report = listeners(json, args.devices.metrics, Some(&options.control))?;
                let network = &args.data.network;
                check::nonce(network.preset, network.scrypt_n, &args.data.dirs()?, &options, stop, &report).map(|_| ())
            }
            Self::Merge(args) => {
                let report = listeners(json, None, None)?;
                let NetworkArgs { preset, scrypt_n } = args.network;
                let storage: Arc<dyn Storage> = Arc::new(Disk);
                merge(&args.sources, &args.into, preset, scrypt_n, &storage, stop, &report)
            }
            Self::Prune(args) => args.run(stop),
            Self::Control(args) => args.run(),
            Self::Devices(args) => {
                args.run();
                Ok(())
            }
            Self::Doctor(args) => args.run(stop),
            Self::Tune(args) => args.run(stop),
            Self::Bench(args) if args.roofline.is_wanted() => args.roofline.run(&args, stop),
            Self::Bench(args) => {
                let options = args.devices.options()?;
                let n = args.network.scrypt_n.unwrap_or(args.network.preset.params().scrypt_n);
                let isas = args.devices.cpu_isa.0.map_or_else(Isa::available, |isa| vec![isa]);
                // Standard output is for the figures.
                let report = Human::new();
                for options in measure::benches(&options, &isas) {
                    let rate = measure::bench(&options, n, Duration::from_secs(args.seconds), stop, &report)?;
                    print(&if json { json!(rate).to_string() } else { rate.show() });
                }
                Ok(())
            }
            Self::Plan(args) => {
                let options = args.devices.options()?;
                let mut params = args.network.preset.params();
                params.scrypt_n = args.network.scrypt_n.unwrap_or(params.scrypt_n);
                params.labels_per_unit = args.labels_per_unit.unwrap_or(params.labels_per_unit);
                let report = Human::new();
                let rate = measure::bench(&options, params.scrypt_n, Duration::from_secs(1), stop, &report)?.labels_per_second;
                let plan = measure::plan(args.network.preset, &params, args.disk, rate, args.read_speed)?;
                print(&if json { json!(plan).to_string() } else { plan.show(&params) });
                if plan.num_units == 0 { Err(Error::Usage("the disk is too small".to_owned())) } else { Ok(()) }
            }
        }
    }
}

impl InitArgs {
    fn run(self, stop: &Stop) -> Result<(), Error> {
        let options = self.devices.options()?;
        let report = listeners(self.data.json, self.devices.metrics, Some(&options.control))?;
        let request = Request {
            preset: self.data.network.preset,
            identity: self.identity,
            node_id: self.node_id,
            commitment_atx_id: self.commitment_atx_id,
            num_units: self.num_units.map(SpaceUnits),
            labels_per_unit: self.labels_per_unit,
            min_num_units: self.min_num_units.map(SpaceUnits),
            max_num_units: self.max_num_units.map(SpaceUnits),
            max_file_size: self.max_file_size,
            scrypt_n: self.data.network.scrypt_n,
            from_file: self.from_file,
            to_file: self.to_file,
            wait: !self.no_wait,
        };
        init::run(&request, &self.data.dirs()?, &options, stop, &report).map(|_| ())
    }
}

impl ControlArgs {
    #[cfg(unix)]
    fn run(self) -> Result<(), Error> {
        let command = match self.command {
            ControlCommand::Status => control::Command::Status {},
            ControlCommand::Pause => control::Command::Pause {},
            ControlCommand::Resume => control::Command::Resume {},
            ControlCommand::Duty { percent } => control::Command::Duty { percent },
        };
        let path = self.data_dir.join(control::SOCKET_FILE);
        let answer = control::ask(&self.data_dir, &command);
        print(&answer.map_err(|source| Error::Io { action: "reach a run through", path, source })?);
        Ok(())
    }

    #[cfg(not(unix))]
    fn run(self) -> Result<(), Error> {
        let Self { data_dir, command } = self;
        Err(Error::Usage(format!("{command:?} for {}: there are no control sockets on this system", data_dir.display())))
    }
}

/// Lets SIGUSR1 pause and SIGUSR2 resume.
#[cfg(unix)]
fn obey_signals(control: &Control) -> Result<(), Error> {
    use signal_hook::{
        consts::{SIGUSR1, SIGUSR2},
        iterator::Signals,
    };
    let failed = |source| Error::Io { action: "handle signals in", path: "this process".into(), source };
    let mut signals = Signals::new([SIGUSR1, SIGUSR2]).map_err(failed)?;
    let control = control.clone();
    let thread = std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            if signal == SIGUSR1 { control.pause() } else { control.resume() }
        }
    });
    thread.map(drop).map_err(failed)
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "as on systems with signals")]
fn obey_signals(_: &Control) -> Result<(), Error> {
    Ok(())
}

impl PruneArgs {
    fn run(self, stop: &Stop) -> Result<(), Error> {
        let dirs = self.data.dirs()?;
        let existing = self.data.existing(&dirs)?;
        let report = listeners(self.data.json, None, None)?;
        let mut confirmed = self.confirm;
        let list = prune::excess(&existing)?;
        if confirmed.is_none() && !list.is_empty() && io::stdin().is_terminal() && io::stdout().is_terminal() {
            for item in &list {
                print(&prune::describe(&dirs, item));
            }
            print(&format!("This cannot be undone. Type the identity {} to go on:", existing.metadata.node_id));
            confirmed = read_line(stop)?.trim().parse().ok();
        }
        prune::prune(&existing, &dirs, confirmed, stop, &report)
    }
}
