//! The signals that ask a program in the foreground to stop, which Unix and Windows spell differently.

use anyhow::Context;

/// The signals that ask a server to stop.
#[cfg(unix)]
pub(super) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    /// Starts to listen.
    pub(super) fn new() -> anyhow::Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Signals { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// Waits for the next one.
    pub(super) async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The signals that ask a server to stop: Ctrl-C, closing the window, shutting the machine down.
#[cfg(windows)]
pub(super) struct Signals {
    interrupt: tokio::signal::windows::CtrlC,
    close: tokio::signal::windows::CtrlClose,
    shutdown: tokio::signal::windows::CtrlShutdown,
}

#[cfg(windows)]
impl Signals {
    /// Starts to listen.
    pub(super) fn new() -> anyhow::Result<Signals> {
        use tokio::signal::windows::{ctrl_c, ctrl_close, ctrl_shutdown};
        let failed = "cannot listen for signals";
        Ok(Signals {
            interrupt: ctrl_c().context(failed)?,
            close: ctrl_close().context(failed)?,
            shutdown: ctrl_shutdown().context(failed)?,
        })
    }

    /// Waits for the next one.
    pub(super) async fn stop(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.close.recv() => {}
            _ = self.shutdown.recv() => {}
        }
    }
}
