//! moto, an S3 in Python, as a process of its own. `scripts/test` installs it and names it in
//! `FASTS3_MOTO_SERVER`; without it the test says that it is skipped, and fails in CI.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use aws_sdk_s3::config::{Credentials, Region};

/// A running moto server; dropping it ends it.
pub(crate) struct Moto {
    program: OsString,
    port: u16,
    running: Option<Child>,
}

impl Moto {
    /// Starts a server.
    pub(crate) async fn start() -> Option<Moto> {
        let Some(program) = std::env::var_os("FASTS3_MOTO_SERVER") else {
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "CI runs this through scripts/test, which installs moto"
            );
            // Past the capture of libtest: a skipped test is seen.
            let _ = writeln!(std::io::stderr().lock(), "skipped: FASTS3_MOTO_SERVER is not set (scripts/test sets it)");
            return None;
        };
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut moto = Moto { program, port, running: None };
        moto.run().await;
        Some(moto)
    }

    /// Starts it, empty and on the same port as before, and waits until it says that it serves.
    pub(crate) async fn run(&mut self) {
        let mut command = Command::new(&self.program);
        command.args(["-H", "127.0.0.1", "-p", &self.port.to_string()]).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        self.running = Some(child);
        tokio::task::spawn_blocking(move || {
            let ready = log.by_ref().map_while(Result::ok).any(|line| line.contains("Running on"));
            assert!(ready, "moto ended before it served");
            // What it logs from now on is read, so that it never waits for us.
            std::thread::spawn(move || log.for_each(drop));
        })
        .await
        .unwrap();
    }

    /// Kills it; it forgets everything.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Somebody else's client of it.
    pub(crate) fn client(&self, credentials: Credentials) -> aws_sdk_s3::Client {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version_latest()
            .endpoint_url(self.endpoint())
            .region(Region::new("us-east-1"))
            .force_path_style(true)
            .credentials_provider(credentials);
        aws_sdk_s3::Client::from_conf(config.build())
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address())
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.kill();
    }
}
