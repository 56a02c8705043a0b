//! What provenance says of the program: compiler, target, features, and the commit with whether files differed from it.
//!
//! The commit is the one at which the sources were last compiled. A commit alone compiles nothing: this script runs again only
//! when the sources change, which compiles the program anyway. Without git, or from a package of the sources, it is that of the
//! package or none.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

/// What the program is made of.
const SOURCES: [&str; 4] = ["src", "build.rs", "Cargo.toml", "Cargo.lock"];

fn main() {
    // One that is not there would count as changed for ever.
    for source in SOURCES.into_iter().filter(|source| Path::new(source).exists()) {
        println!("cargo:rerun-if-changed={source}");
    }
    let say = |name: &str, value: &str| println!("cargo:rustc-env=TEGUM_{name}={value}");
    say("TARGET", &env::var("TARGET").unwrap_or_default());
    say("FEATURES", &features());
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    if let Some(version) = output(Command::new(rustc).arg("--version")) {
        say("RUSTC", &version);
    }
    if let Some((commit, dirty)) = of_git().or_else(of_package) {
        say("COMMIT", &commit);
        say("DIRTY", if dirty { "true" } else { "false" });
    }
}

fn features() -> String {
    let on = env::vars().filter_map(|(name, _)| name.strip_prefix("CARGO_FEATURE_").map(str::to_lowercase));
    let mut on: Vec<String> = on.map(|name| name.replace('_', "-")).collect();
    on.sort();
    on.join(",")
}

/// First line of what a program says, if it ends well.
fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.lines().next().unwrap_or_default().trim().to_owned())
}

/// Commit, and whether sources differ from it, where this folder is a work tree of its own: sources that were unpacked inside
/// another repository have none of its commits.
fn of_git() -> Option<(String, bool)> {
    let git = |arguments: &[&str]| output(Command::new("git").arg("--no-optional-locks").args(arguments));
    let top = fs::canonicalize(git(&["rev-parse", "--show-toplevel"])?).ok()?;
    if top != fs::canonicalize(env::var("CARGO_MANIFEST_DIR").ok()?).ok()? {
        return None;
    }
    let commit = git(&["rev-parse", "HEAD"])?;
    let changed = git(&[&["status", "--porcelain", "--"][..], &SOURCES].concat())?;
    Some((commit, !changed.is_empty()))
}

/// The commit that `cargo package` wrote down.
fn of_package() -> Option<(String, bool)> {
    let text = fs::read_to_string(Path::new(".cargo_vcs_info.json")).ok()?;
    let commit = text.split("\"sha1\"").nth(1)?.split('"').nth(1)?;
    let is_commit = commit.len() >= 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_commit.then(|| (commit.to_owned(), text.contains("\"dirty\": true")))
}
