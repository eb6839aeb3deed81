//! How clients find the server by port 111: rpcinfo asks, with fasts3 as the portmapper and with the real rpcbind, in a
//! network of their own (`scripts/vm/own-net`), so that no port 111 of this machine is touched.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/vm");

/// What is missing for this test, if anything.
fn missing() -> Option<String> {
    let checked = own_net()
        .args(["bash", "-c", "PATH=$PATH:/usr/sbin:/sbin; type rpcbind rpcinfo rpc.statd python3 setpriv"])
        .output();
    match checked {
        Ok(checked) if checked.status.success() => None,
        Ok(checked) => Some(String::from_utf8_lossy(&checked.stderr).trim().to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

fn own_net() -> Command {
    Command::new(Path::new(SCRIPTS).join("own-net"))
}

#[test]
#[allow(clippy::explicit_write)] // libtest captures eprintln
fn clients_find_the_server_by_port_111() {
    if let Some(missing) = missing() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{missing}");
        // past libtest's capture: a test that did not run must not look like one that did
        writeln!(io::stderr(), "clients_find_the_server_by_port_111 SKIPPED: {missing}").unwrap();
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut checks = own_net();
    checks.arg(Path::new(SCRIPTS).join("portmap")).arg(env!("CARGO_BIN_EXE_fasts3")).arg(dir.path());
    let checked = checks.output().unwrap();
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success(), "{said}{}", String::from_utf8_lossy(&checked.stderr));
    let steps = if said.contains("skipped the steps with rpcbind") { 4 } else { 8 };
    assert_eq!(said.lines().filter(|line| line.starts_with("ok ")).count(), steps, "{said}");
}
