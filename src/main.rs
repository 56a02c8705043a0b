//! The `tegum` binary: the command table is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    tegum::cli::main()
}
