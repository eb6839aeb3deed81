//! `fasts3 conflicts`: what two writers changed at once, and where both versions are.

use anyhow::Context;
use clap::Args;

use super::ServerArgs;
use super::output;
use crate::admin::Listed;

/// Flags of `conflicts`.
#[derive(Debug, Args)]
pub struct ConflictsArgs {
    /// Take a conflict off the list, once you have dealt with its files
    #[arg(long, env = "FASTS3_FORGET", value_name = "NUMBER")]
    pub forget: Option<u64>,

    /// The server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Prints the list, or takes one off it.
pub(super) async fn run(args: ConflictsArgs) -> anyhow::Result<()> {
    let client = args.server.client()?;
    if let Some(number) = args.forget {
        let done = client.post(&format!("/conflicts/forget?number={number}")).await?;
        return if args.server.json { output::print_json(&done) } else { Ok(()) };
    }
    let conflicts = client.get("/conflicts").await?;
    if args.server.json {
        return output::print_json(&conflicts);
    }
    let conflicts: Vec<Listed> =
        serde_json::from_value(conflicts).context("the server is of another version: try --json")?;
    let lines: Vec<_> = conflicts.iter().map(describe).collect();
    output::print(if lines.is_empty() { "no conflicts".into() } else { lines.join("\n") }.as_str())
}

/// One line: number, when, what, which, and the other name.
fn describe(Listed { number, conflict }: &Listed) -> String {
    let at = u64::try_from(conflict.at / 1_000_000_000).unwrap_or_default();
    let at = humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + std::time::Duration::from_secs(at));
    let other = match conflict.kept_as.as_str() {
        "" => String::new(),
        name => format!("; the local version is {name}"),
    };
    format!("{number}  {at}  {}: {}{other}", conflict.key, conflict.what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Conflict;

    #[test]
    fn a_conflict_is_one_line_that_says_where_both_versions_are() {
        let conflict = |kept_as: &str| Conflict {
            key: "a/b.txt".into(),
            kept_as: kept_as.into(),
            at: 1_700_000_000_000_000_000,
            what: "changed here and in S3".into(),
        };
        let line = describe(&Listed { number: 3, conflict: conflict("a/b.txt.conflict-x") });
        assert_eq!(
            line,
            "3  2023-11-14T22:13:20Z  a/b.txt: changed here and in S3; the local version is a/b.txt.conflict-x"
        );
        assert!(describe(&Listed { number: 3, conflict: conflict("") }).ends_with("in S3"));
    }
}
