//! `fasts3 completions SHELL`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, output};

/// Flags of `completions`.
#[derive(Debug, Args)]
#[command(after_help = "For bash: fasts3 completions bash > ~/.local/share/bash-completion/completions/fasts3")]
pub struct CompletionsArgs {
    /// The shell to complete for
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Prints the completions.
pub(super) fn run(args: CompletionsArgs) -> anyhow::Result<()> {
    output::print(script(args.shell).trim_end())
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "fasts3", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_shell_completes_commands_and_flags() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            assert!(script.contains("refresh") && script.contains("stale-limit"), "{shell}");
        }
    }
}
