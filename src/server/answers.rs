//! The runtime of what clients wait for: their calls, and what these fetch. What goes on behind the answers (checks, the
//! mirror, events, uploads) is on the runtime of whoever starts the server. So no call stands in a queue behind such work:
//! between the two it is the operating system that shares the cores, and it favours who sleeps most.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

/// A runtime, our own or somebody's.
pub(super) struct Answers {
    handle: Handle,
    own: Option<Runtime>,
}

impl Answers {
    /// On `given`, or else on a runtime of its own with as many threads as there are cores.
    /// # Errors
    /// The OS gives no threads.
    pub(super) fn on(given: Option<Handle>) -> io::Result<Answers> {
        if let Some(handle) = given {
            return Ok(Answers { handle, own: None });
        }
        let own = Builder::new_multi_thread().thread_name("fasts3-answers").enable_all().build()?;
        Ok(Answers { handle: own.handle().clone(), own: Some(own) })
    }

    /// Runs `work`, whose tasks, sockets and timers are this runtime's.
    pub(super) fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        let _entered = self.handle.enter();
        work()
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        if let Some(runtime) = self.own.take() {
            // not to wait: that is not allowed in a task
            runtime.shutdown_background();
        }
    }
}
