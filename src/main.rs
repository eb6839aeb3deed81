//! The program `fasts3`; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    fasts3::cli::main()
}
