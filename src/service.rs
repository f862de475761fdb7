//! The service thread: one runtime for everything that is not peer traffic (trackers, signals, the live view).
//!
//! It is tokio-uring's runtime, which carries tokio's sockets and timers and `spawn_local`; this file is all
//! that names it. A system on which io_uring cannot be used is an error with its cure, never a panic.

use crate::engine::ring_error::RingUnavailable;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Why the service thread cannot do its work; the system's fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// There is no io_uring for us.
    #[error(transparent)]
    Ring(#[from] RingUnavailable),
    /// Signals cannot be listened for.
    #[error("cannot listen for the signals that end the program")]
    Signals(#[source] io::Error),
}

/// Runs `future` to its end on the current thread, with tokio's sockets, timers, signals and `spawn_local`
/// inside. Tasks that still run at the end are dropped.
///
/// # Errors
/// When io_uring cannot be used; the error names the cause and the cure.
pub fn run<F: Future>(future: F) -> Result<F::Output, ServiceError> {
    let runtime = tokio_uring::Runtime::new(&tokio_uring::builder())
        .map_err(|error| RingUnavailable::from_setup(&error))?;
    Ok(runtime.block_on(future))
}

/// Does what may wait for a file system on a thread of its own; the future is ready with what came of it, and may be dropped
/// before. Nothing when the work panicked.
///
/// # Errors
/// There is no thread.
pub fn apart<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<impl Future<Output = Option<T>>> {
    let (done, answer) = tokio::sync::oneshot::channel();
    // Nobody may wait for it any more.
    let work = move || drop(done.send(work()));
    std::thread::Builder::new().name("apart".to_owned()).spawn(work)?;
    Ok(async { answer.await.ok() })
}

/// Starts to listen for SIGINT and SIGTERM; the future is ready at the first of either. Must be called inside
/// [`run`].
///
/// # Errors
/// When the system refuses to tell of signals.
pub fn shutdown_signal() -> Result<impl Future<Output = ()>, ServiceError> {
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// [`shutdown_signal`] of a command that has nothing to read again: SIGHUP, as from a terminal that is closed, ends it as
/// well.
///
/// # Errors
/// When the system refuses to tell of signals.
pub fn shutdown_or_hangup() -> Result<impl Future<Output = ()>, ServiceError> {
    let (shutdown, mut hangups) = (shutdown_signal()?, hangups()?);
    Ok(async move {
        tokio::select! {
            () = shutdown => {}
            _ = hangups.recv() => {}
        }
    })
}

/// A flag that the first SIGINT or SIGTERM sets, for work on threads of its own; the next one ends the program as ever.
///
/// # Errors
/// When the system refuses to tell of signals, or a thread.
pub fn shutdown_flag() -> Result<Arc<AtomicBool>, ServiceError> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&flag))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&flag)))
            .map_err(ServiceError::Signals)?;
    }
    Ok(flag)
}

/// Starts to listen for SIGHUP, which then no longer ends the program. Must be called inside [`run`].
///
/// # Errors
/// When the system refuses to tell of signals.
pub fn hangups() -> Result<Signal, ServiceError> {
    listen(SignalKind::hangup())
}

fn listen(kind: SignalKind) -> Result<Signal, ServiceError> {
    signal(kind).map_err(ServiceError::Signals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_sets_the_flag_and_does_not_end_the_process() {
        let flag = shutdown_flag().expect("signals work in tests");
        signal_hook::low_level::raise(signal_hook::consts::SIGINT).expect("a process may signal itself");
        assert!(flag.load(std::sync::atomic::Ordering::Relaxed));
    }

    #[test]
    fn what_is_done_apart_holds_up_nobody_while_it_hangs() {
        let answers = run(async {
            let (go_on, told) = std::sync::mpsc::channel::<u32>();
            let mut hangs = std::pin::pin!(apart(move || told.recv().ok()).expect("a thread is free"));
            let other = tokio::select! {
                _ = &mut hangs => None,
                other = apart(|| 7).expect("a thread is free") => other,
            };
            go_on.send(8).expect("it waits");
            (other, hangs.await.flatten())
        });
        assert_eq!(answers.ok(), Some((Some(7), Some(8))));
    }

    #[test]
    fn runs_local_tasks_and_timers_and_hears_signals() {
        let answer = run(async {
            let shutdown = shutdown_signal().expect("signals work in tests");
            let task = tokio::task::spawn_local(async { 7 });
            tokio::time::sleep(std::time::Duration::ZERO).await;
            let raised =
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
            raised.expect("a process may signal itself");
            shutdown.await;
            task.await.expect("the task ends")
        });
        assert_eq!(answer.ok(), Some(7));
    }
}
