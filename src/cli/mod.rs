//! The command line: one file a command, each thin. Results go to stdout, talk to stderr.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use serde_json::json;

use crate::backend::cuda::{Arithmetic, CudaBackend};
use crate::backend::simd::Isa;
use crate::backend::{self, Backend};
use crate::plan::{MOST_CELLS, Plan, Versions};
use crate::progress::{Log, event, on_terminal, say, speak_json, speaks_json};
use crate::run::columns::{ScoreColumn, algorithms, score_columns};
use crate::run::worker::WORKER;
use crate::spec::Document;
use crate::spec::diagnostic::{Diagnostic, SpecError, one_line};

mod check;
mod collect;
mod compact;
mod devices;
mod expect;
mod explain;
mod export;
mod figure;
mod init;
mod plan;
mod run;
mod saelens;
mod schema;
mod score;
mod table;
mod train;
mod verify;
mod world;

/// Toy superposition models and sparse autoencoders, scored against the truth, from one YAML file.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    /// No progress and no talk; errors still show.
    #[arg(long, global = true)]
    quiet: bool,
    /// Say more; -vv says all.
    #[arg(short, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a commented starter experiment
    Init(init::Args),
    /// Train what is missing, draw the figures, check the expectations
    Run(run::Args),
    /// Train the autoencoders of an experiment on activations from files
    Train(train::Args),
    /// Validate an experiment; list its cells and estimate time, memory and disk; run nothing
    Check(check::Args),
    /// The cells of an experiment, one line each
    Plan(plan::Args),
    /// Rows of a run
    Table(table::Args),
    /// Redraw the figures of a run from its rows
    Figure(figure::Args),
    /// Compare every byte of a run with what was written
    Verify(verify::Args),
    /// All rows of a run in one file, from one directory or several
    Collect(collect::Args),
    /// Merge the many small files of a run's rows into fewer large ones
    Compact(compact::Args),
    /// Evaluate the expectations of a run again
    Expect(expect::Args),
    /// Definition of a score, or meaning and default of a field
    Explain(explain::Args),
    /// JSON Schema of the experiment language, for editors
    Schema,
    /// Score a dictionary or autoencoder from anywhere, as JSON
    Score(score::Args),
    /// Weights of a cell for other tools
    Export(export::Args),
    /// What the world of an experiment is like, and its files for SAELens
    World(world::Args),
    /// What backends this machine offers, and why not
    Devices,
}

/// Who trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BackendChoice {
    /// CUDA if a device is there, else the CPU
    Auto,
    Cpu,
    Cuda,
}

/// What it trains in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ArithmeticChoice {
    F32,
    /// On a GPU: the encoder's product of autoencoders on tensor cores, of factors rounded to 11 bits
    Tf32,
}

/// A message and the exit code that goes with it.
#[derive(Debug)]
pub struct Failure {
    pub message: String,
    pub code: i32,
}

impl Failure {
    pub fn new(code: i32, message: impl Into<String>) -> Failure {
        Failure { message: message.into(), code }
    }
}

impl From<SpecError> for Failure {
    fn from(error: SpecError) -> Failure {
        Failure::new(3, error.to_string())
    }
}

impl From<crate::run::RunError> for Failure {
    fn from(error: crate::run::RunError) -> Failure {
        Failure::new(error.exit_code(), error.to_string())
    }
}

impl From<crate::store::StoreError> for Failure {
    fn from(error: crate::store::StoreError) -> Failure {
        Failure::new(error.exit_code(), error.to_string())
    }
}

/// What a command returns: the exit code, 0 where all is well.
type Outcome = Result<i32, Failure>;

/// Says what is allowed but looks like a slip, or refuses it.
fn doubts(plan: &Plan, strict: bool, quiet: bool) -> Result<(), Failure> {
    let doubts = plan.doubts();
    if strict && !doubts.is_empty() {
        return Err(plan.document.error(doubts).into());
    }
    doubts.into_iter().filter(|_| !quiet).for_each(|doubt| warn(plan, doubt));
    Ok(())
}

/// Says what to look at in the results, where the experiment says so.
fn notice(plan: &Plan) {
    if let Some(notice) = &plan.document.experiment.notice {
        say(format_args!("notice: {}", one_line(notice)));
    }
}

fn warn(plan: &Plan, doubt: Diagnostic) {
    say(format_args!("warning: {}", plan.document.error(vec![doubt]).to_string().trim_end()));
}

/// Parses the command line and carries it out.
pub fn main() -> ExitCode {
    // Before it is parsed, so that whoever reads JSON is told in JSON what is wrong with it.
    let json = std::env::args_os().any(|argument| argument == "--json-progress");
    if json {
        speak_json();
        std::panic::set_hook(Box::new(|panic| event("panic", json!({ "text": panic.to_string() }))));
    }
    let code = carry_out();
    // A worker's end is its supervisor's business.
    if json && std::env::var_os(WORKER).is_none() {
        event("exit", json!({ "code": code }));
    }
    ExitCode::from(code as u8)
}

/// The exit code.
fn carry_out() -> i32 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && speaks_json() => {
            say(error.to_string().trim_end());
            return 2;
        }
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { 2 } else { 0 };
        }
    };
    if let Err(message) = Isa::from_environment() {
        say(message);
        return 2;
    }
    start_log(&cli);
    let outcome = match &cli.command {
        Command::Init(args) => init::carry_out(args),
        Command::Run(args) => run::carry_out(args, cli.quiet),
        Command::Train(args) => train::carry_out(args, cli.quiet),
        Command::Check(args) => check::carry_out(args, cli.quiet),
        Command::Plan(args) => plan::carry_out(args),
        Command::Table(args) => table::carry_out(args),
        Command::Figure(args) => figure::carry_out(args),
        Command::Verify(args) => verify::carry_out(args),
        Command::Collect(args) => collect::carry_out(args),
        Command::Compact(args) => compact::carry_out(args),
        Command::Expect(args) => expect::carry_out(args),
        Command::Explain(args) => explain::carry_out(args),
        Command::Schema => schema::carry_out(),
        Command::Score(args) => score::carry_out(args),
        Command::Export(args) => export::carry_out(args),
        Command::World(args) => world::carry_out(args),
        Command::Devices => devices::carry_out(),
    };
    outcome.unwrap_or_else(|failure| {
        say(failure.message.trim_end());
        failure.code
    })
}

fn start_log(cli: &Cli) {
    let level = match (cli.quiet, cli.verbose) {
        (true, _) => tracing::Level::ERROR,
        (_, 0) => tracing::Level::WARN,
        (_, 1) => tracing::Level::INFO,
        _ => tracing::Level::DEBUG,
    };
    let colour = std::env::var_os("NO_COLOR").is_none() && on_terminal();
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(|| Log)
        .with_ansi(colour)
        .without_time()
        .with_target(false)
        .log_internal_errors(false)
        .init();
}

/// Prints to stdout; a reader that went away (`| head`) is no error.
pub fn print(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(5, format!("stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// An experiment file, read, checked and planned for a backend.
fn planned(file: &Path, profile: &str, most: Option<u64>) -> Result<(Plan, Vec<ScoreColumn>), Failure> {
    let document = Document::load(file)?;
    planned_document(document, profile, most)
}

fn planned_document(document: Document, profile: &str, most: Option<u64>) -> Result<(Plan, Vec<ScoreColumn>), Failure> {
    let columns = score_columns(&document)?;
    let versions = Versions { algorithms: &algorithms(&columns), profile };
    let plan = Plan::new(document, &versions, most.map_or(MOST_CELLS, u128::from))?;
    Ok((plan, columns))
}

/// The backend asked for, on these GPUs (none: the first), or why there is none (exit 7). What it trains in, and on, is never another
/// than asked for.
fn backend(
    choice: BackendChoice,
    devices: &[usize],
    arithmetic: ArithmeticChoice,
) -> Result<Box<dyn Backend>, Failure> {
    let cpu = || Box::new(backend::cpu::CpuBackend);
    let (arithmetic, tf32) = match arithmetic {
        ArithmeticChoice::F32 => (Arithmetic::F32, false),
        ArithmeticChoice::Tf32 => (Arithmetic::Tf32, true),
    };
    let is_twice = |(at, number): (usize, &usize)| devices[..at].contains(number);
    if let Some((_, twice)) = devices.iter().enumerate().find(|entry| is_twice(*entry)) {
        return Err(Failure::new(2, format!("--devices: GPU {twice} is named twice; name each once")));
    }
    if choice == BackendChoice::Cpu && !devices.is_empty() {
        return Err(Failure::new(2, "--devices: with --backend cpu no GPU trains; leave one of them out"));
    }
    if choice == BackendChoice::Cpu {
        let why = "--arithmetic tf32: the CPU trains in f32; use --backend cuda, or --arithmetic f32";
        return if tf32 { Err(Failure::new(2, why)) } else { Ok(cpu()) };
    }
    let numbers = if devices.is_empty() { &[0] } else { devices };
    match (CudaBackend::open(numbers, arithmetic), choice) {
        (Ok(cuda), _) => Ok(Box::new(cuda)),
        (Err(why), BackendChoice::Cuda) => {
            let instead = if tf32 { "--backend auto --arithmetic f32" } else { "--backend cpu" };
            Err(Failure::new(7, format!("--backend cuda: {why}; use {instead}")))
        }
        (Err(why), _) if tf32 => Err(Failure::new(7, format!("--arithmetic tf32: {why}; use --arithmetic f32"))),
        (Err(why), _) if !devices.is_empty() => {
            Err(Failure::new(7, format!("--devices: {why}; leave it out to train on what there is")))
        }
        (Err(why), _) => {
            tracing::info!("{why}; the CPU trains");
            Ok(cpu())
        }
    }
}

/// Where the rows of an experiment go when nothing is said.
fn default_out(name: &str) -> PathBuf {
    PathBuf::from("results").join(name)
}
