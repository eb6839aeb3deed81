//! `mount.fasts3`: this program under the name by which mount(8) finds the helper of a file system type.
//! `mount -t fasts3 s3://bucket /mnt -o cache=/var/cache/bucket,ro` and the line of fstab that says the same become
//! `fasts3 mount --background ...`. A flag of `mount` is an option of its name; `_` is as good as `-`.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use super::{Cli, Command, Failure, complain, mount, run};
use crate::mount::options::{self, Options};
use crate::mount::{self as mounts, os, place, record};

/// mount(8): wrong usage.
const USAGE: u8 = 1;
/// mount(8): the mount failed.
const FAILED: u8 = 32;

/// Options that are for mount(8), systemd or other file systems, and nothing to us.
const NOTHING_TO_US: [&str; 14] = [
    "defaults", "rw", "auto", "noauto", "nofail", "_netdev", "user", "nouser", "users", "nousers", "owner", "group",
    "noowner", "nogroup",
];

/// Whether the program was called by the helper's name.
pub(super) fn is_called(argv: &[OsString]) -> bool {
    argv.first().is_some_and(|name| {
        Path::new(name).file_stem() == Some(OsStr::new("mount")) && {
            Path::new(name).extension() == Some(OsStr::new("fasts3"))
        }
    })
}

/// Does what mount(8) asks for. Its exit codes: 0, 1 wrong usage, 32 failed.
pub(super) fn main(argv: &[OsString]) -> ExitCode {
    let call = match Call::parse(argv.iter().skip(1)) {
        Ok(call) => call,
        Err(error) => return complain(&error, USAGE),
    };
    if call.fake {
        return ExitCode::SUCCESS;
    }
    for note in &call.notes {
        eprintln!("mount.fasts3: {note}");
    }
    let line = call.line();
    let cli = match Cli::try_parse_from(&line) {
        Ok(cli) => cli,
        Err(error) => return complain(&error.to_string().trim_end(), USAGE),
    };
    if let Command::Mount(args) = &cli.command
        && is_there(args)
    {
        // `mount -a` asks for every line of fstab, and finds ours by another source than the table has
        eprintln!("mount.fasts3: {} is mounted already", args.point.display());
        return ExitCode::SUCCESS;
    }
    match run(cli, &line, !call.verbose) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(error)) => complain(&error, USAGE),
        Err(Failure::Failed(error)) => complain(&format!("{error:#}"), FAILED),
        Err(Failure::Told(2)) => ExitCode::from(USAGE),
        Err(Failure::Told(_)) => ExitCode::from(FAILED),
    }
}

/// Whether this bucket is mounted there, by a server that runs.
fn is_there(args: &mount::MountArgs) -> bool {
    let bucket = &args.serve.bucket;
    let wanted = format!("s3://{}/{}", bucket.bucket, bucket.prefix);
    let found = os::table().ok().and_then(|table| place::resolve(&args.point, &table).ok());
    let entry = found.and_then(|point| mounts::mounted_at(&point).ok().flatten());
    let Some(entry) = entry else { return false };
    record::find(&entry.point).is_some_and(|record| {
        record.is_of(&entry) && record.bucket == wanted.trim_end_matches('/') && mount::is_served(&record.cache)
    })
}

/// What mount(8) asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Call {
    places: Vec<OsString>,
    flags: Vec<String>,
    options: Vec<String>,
    notes: Vec<String>,
    fake: bool,
    sloppy: bool,
    verbose: bool,
}

impl Call {
    /// Reads `SOURCE DIR [-sfnv] [-o OPTIONS] [-N NAMESPACE] [-t TYPE]`.
    fn parse<'a>(words: impl Iterator<Item = &'a OsString>) -> Result<Call, String> {
        let (mut call, mut lists) = (Call::default(), Vec::new());
        let mut words = words.map(OsString::as_os_str);
        while let Some(word) = words.next() {
            let Some(letters) = word.to_str().and_then(|word| word.strip_prefix('-')).filter(|l| !l.is_empty()) else {
                call.places.push(word.to_owned());
                continue;
            };
            for letter in letters.chars() {
                match letter {
                    's' => call.sloppy = true,
                    'f' => call.fake = true,
                    'v' => call.verbose = true,
                    'n' => {}
                    'o' | 't' | 'N' => {
                        let value = words.next().and_then(OsStr::to_str).ok_or(format!("-{letter} needs a value"))?;
                        if letter == 'o' {
                            lists.push(value.to_owned());
                        }
                    }
                    _ => return Err(format!("-{letter}: no such option")),
                }
            }
        }
        if call.places.len() != 2 {
            return Err("usage: mount.fasts3 s3://BUCKET[/PREFIX] DIR [-sfnv] [-o OPTION,...]".into());
        }
        call.sort(&Options::parse(lists.iter().map(String::as_str)))?;
        Ok(call)
    }

    /// Each option to whom it is for.
    fn sort(&mut self, options: &Options) -> Result<(), String> {
        let cli = Cli::command();
        let flags = cli.find_subcommand("mount").expect("it is a command");
        for word in options.words() {
            let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
            let long = name.replace('_', "-");
            let is_flag =
                |arg: &&clap::Arg| arg.get_long() == Some(&*long) && !matches!(&*long, "background" | "detached");
            match flags.get_arguments().chain(cli.get_arguments()).find(is_flag) {
                Some(arg) if arg.get_action().takes_values() != value.is_some() => {
                    let needs = if value.is_some() { "takes no value" } else { "needs a value" };
                    return Err(format!("option {name} {needs}"));
                }
                Some(_) => self.flags.push(format!("--{long}{}", value.map(|v| format!("={v}")).unwrap_or_default())),
                None if name == "ro" => self.flags.push("--read-only".into()),
                None if NOTHING_TO_US.contains(&name) || name.starts_with("x-") || name == "comment" => {}
                None if matches!(name, "allow_other" | "allow_root") => {
                    self.notes
                        .push(format!("{name} is not needed: every user can use the mount, as the files' modes say"));
                }
                None if options::is_known(word) => self.options.push(word.to_owned()),
                None if self.sloppy => self.notes.push(format!("option {name} is not known")),
                None if name == "remount" => {
                    return Err("it cannot be remounted: unmount it, and mount it again".into());
                }
                None => return Err(format!("option {name} is not known; `fasts3 mount --help` has the flags")),
            }
        }
        Ok(())
    }

    /// The command line that does it.
    fn line(&self) -> Vec<OsString> {
        let words = ["fasts3", "mount", "--background"].map(OsString::from).into_iter();
        let mut line: Vec<OsString> = words.chain(self.flags.iter().map(OsString::from)).collect();
        if !self.options.is_empty() {
            line.push(format!("--options={}", self.options.join(",")).into());
        }
        line.push("--".into());
        line.extend(self.places.iter().cloned());
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Call, String> {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        Call::parse(words.iter())
    }

    /// The words after `fasts3 mount --background`.
    fn translated(line: &str) -> String {
        let line = parse(line).expect(line).line();
        line[3..].iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn called_by_its_name_wherever_it_is() {
        let is = |name: &str| is_called(&[name.into()]);
        assert!(is("mount.fasts3") && is("/sbin/mount.fasts3"));
        assert!(!is("fasts3") && !is("/usr/bin/mount") && !is_called(&[]));
    }

    #[test]
    fn options_by_name_are_flags() {
        assert_eq!(
            translated(
                "s3://media /mnt -o rw,cache=/var/cache/x,endpoint_url=http://minio:9000,recheck=5s,lazy,_netdev"
            ),
            "--cache=/var/cache/x --endpoint-url=http://minio:9000 --recheck=5s --lazy -- s3://media /mnt"
        );
        let known =
            Cli::try_parse_from(parse("s3://media /mnt -o lazy,log=debug,uid=33,file_mode=0640").unwrap().line());
        assert!(known.is_ok(), "{known:?}");
    }

    #[test]
    fn options_of_nfs_go_to_the_client_and_those_of_mount_nowhere() {
        assert_eq!(
            translated("s3://media /mnt -n -o ro,noexec,actimeo=3,noauto,user,x-systemd.automount,nofail"),
            "--read-only --options=noexec,actimeo=3 -- s3://media /mnt"
        );
        assert_eq!(translated("s3://media /mnt"), "-- s3://media /mnt");
    }

    #[test]
    fn options_of_fuse_are_noted_and_unknown_ones_refused() {
        assert!(parse("s3://m /mnt -o allow_other").unwrap().notes[0].contains("allow_other"));
        for (line, why) in [
            ("s3://m /mnt -o url=x", "url is not known"),
            ("s3://m /mnt -o cache", "needs a value"),
            ("s3://m /mnt -o lazy=yes", "takes no value"),
            ("s3://m /mnt -o remount,ro", "mount it again"),
            ("s3://m /mnt -o detached", "detached is not known"),
            ("s3://m", "usage"),
            ("s3://m /mnt -o", "needs a value"),
            ("s3://m /mnt -q", "-q"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(why), "{line}: {error}");
        }
        assert!(parse("s3://m /mnt -s -o url=x").unwrap().notes[0].contains("url"), "sloppy");
    }

    #[test]
    fn letters_are_those_of_mount() {
        let call = parse("s3://m /mnt -sfnv -t fasts3 -o ro -o lazy").unwrap();
        assert!(call.sloppy && call.fake && call.verbose);
        assert_eq!(call.flags, ["--read-only", "--lazy"]);
    }
}
