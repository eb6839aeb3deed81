//! Threads of the work behind the answers stand back where the OS can tell threads apart: on Linux. Elsewhere a priority is
//! the whole process's, or a matter of foreign code, and they stay as they are.

/// 10 steps down: a tenth of the weight of a thread that answers.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// Has the calling thread give way to those that answer clients. To be called by each thread of the runtime that a server
/// is started on, and by no other.
pub fn stand_back() {
    #[cfg(target_os = "linux")]
    {
        // of a thread, although the call is of a process: 0 is the calling thread (setpriority(2), "C library/kernel
        // differences")
        let lowered = rustix::process::getpriority_process(None)
            .and_then(|now| rustix::process::setpriority_process(None, (now + NICE).min(19)));
        if let Err(error) = lowered {
            tracing::debug!(%error, "cannot lower the priority of a thread");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn only_the_calling_thread_stands_back() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let before = nice();
        let lowered = std::thread::spawn(move || {
            stand_back();
            nice()
        });
        assert_eq!(lowered.join().unwrap(), (before + NICE).min(19));
        assert_eq!(nice(), before);
    }
}
