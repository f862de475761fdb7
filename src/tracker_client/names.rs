//! The addresses of trackers' names, remembered for a minute.
//!
//! Ten thousand torrents on one tracker ask for its address ten thousand times; the resolver hears of it once a
//! minute. Who asks while the answer is on its way waits for that one.

use crate::clock;
use crate::limits::{TRACKER_HOSTS_MAX, TRACKER_NAME_LIFETIME};
use crate::time::Instant;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use tokio::sync::Mutex;

/// Answers of the resolver, shared by all clones.
#[derive(Clone, Debug, Default)]
pub struct Names(Rc<RefCell<Slots>>);

/// By name and port.
type Slots = BTreeMap<(String, u16), Rc<Slot>>;

/// When the resolver answered, and what; locked while it is asked.
type Slot = Mutex<Option<(Instant, Answer)>>;

/// The addresses, or an error that can be told more than once.
type Answer = Result<Vec<SocketAddr>, (io::ErrorKind, String)>;

impl Names {
    /// The addresses of a name: those remembered, or those that `ask` finds.
    pub(super) async fn lookup<F: Future<Output = io::Result<Vec<SocketAddr>>>>(
        &self,
        host: &str,
        port: u16,
        ask: impl FnOnce() -> F,
    ) -> io::Result<Vec<SocketAddr>> {
        let slot = self.slot(host, port);
        let mut known = slot.lock().await;
        let is_fresh = |at: Instant| clock::now().since(at) < TRACKER_NAME_LIFETIME;
        let answer = match known.take().filter(|(at, _)| is_fresh(*at)) {
            Some((at, answer)) => (at, answer),
            None => {
                let answer = ask().await.map_err(|error| (error.kind(), error.to_string()));
                (clock::now(), answer)
            }
        };
        let (_, answer) = known.insert(answer);
        answer.clone().map_err(|(kind, text)| io::Error::new(kind, text))
    }

    fn slot(&self, host: &str, port: u16) -> Rc<Slot> {
        let mut names = self.0.borrow_mut();
        if names.len() >= TRACKER_HOSTS_MAX {
            // A look-up that is under way goes on: the one who waits for it holds its slot.
            names.clear();
        }
        Rc::clone(names.entry((host.to_ascii_lowercase(), port)).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_name_is_asked_for_once_by_however_many() {
        let (names, asked) = (Names::default(), Cell::new(0));
        let address: SocketAddr = "192.0.2.1:80".parse().unwrap();
        let ask = || async {
            asked.set(asked.get() + 1);
            tokio::task::yield_now().await;
            Ok(vec![address])
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let answers = runtime.block_on(async {
            tokio::join!(names.lookup("t", 80, ask), names.lookup("T", 80, ask), names.lookup("t", 80, ask))
        });
        assert_eq!(answers.0.unwrap(), [address]);
        assert_eq!((answers.1.unwrap(), answers.2.unwrap()), (vec![address], vec![address]));
        assert_eq!(asked.get(), 1);
        runtime.block_on(names.lookup("other", 80, ask)).unwrap();
        assert_eq!(asked.get(), 2);
    }

    #[test]
    fn a_failure_is_remembered_too_and_names_are_bounded() {
        let names = Names::default();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let failing = || async { Err(io::Error::new(io::ErrorKind::NotFound, "no such name")) };
        let first = runtime.block_on(names.lookup("t", 80, failing)).unwrap_err();
        let again = runtime.block_on(names.lookup("t", 80, || async { Ok(Vec::new()) })).unwrap_err();
        assert_eq!((first.kind(), again.to_string()), (io::ErrorKind::NotFound, "no such name".to_owned()));
        for number in 0..3 * TRACKER_HOSTS_MAX {
            runtime.block_on(names.lookup(&format!("{number}"), 80, || async { Ok(Vec::new()) })).unwrap();
        }
        assert!(names.0.borrow().len() <= TRACKER_HOSTS_MAX);
    }
}
