//! Why peers are not faster, in one line: the shares of what their connections have waited for in the last seconds.

use crate::attribution::{Cause, WaitTimes};
use std::collections::VecDeque;

/// Seconds that the line speaks of.
const SECONDS: usize = 5;

/// The figures of the last seconds.
#[derive(Debug, Default)]
pub(super) struct Limited(VecDeque<WaitTimes>);

impl Limited {
    /// Takes the figures of this second; what limits the peers, or nothing when none wants anything.
    pub fn handle(&mut self, now: WaitTimes) -> Option<String> {
        self.0.push_back(now);
        if self.0.len() > SECONDS + 1 {
            self.0.pop_front();
        }
        describe(&now.since(self.0.front()?))
    }
}

/// `limited by: peers' windows 71 %, choke 20 %, upload limit 9 %`
fn describe(waited: &WaitTimes) -> Option<String> {
    let total = waited.total();
    let percent = |cause: Cause| {
        let time = u128::from(waited.of(cause)) * 100 + u128::from(total) / 2;
        time.checked_div(u128::from(total)).unwrap_or(0)
    };
    let mut shares: Vec<_> = Cause::ALL.map(|cause| (percent(cause), in_words(cause))).into();
    shares.retain(|(percent, _)| *percent > 0);
    // A stable sort: equal shares stand in the order of the causes.
    shares.sort_by_key(|(percent, _)| std::cmp::Reverse(*percent));
    let shares: Vec<String> = shares.iter().map(|(percent, words)| format!("{words} {percent} %")).collect();
    (!shares.is_empty()).then(|| format!("limited by: {}", shares.join(", ")))
}

fn in_words(cause: Cause) -> &'static str {
    match cause {
        Cause::Disk => "disk",
        Cause::Window => "peers' windows",
        Cause::Choke => "choke",
        Cause::Limit => "upload limit",
        Cause::Cpu => "this CPU",
        Cause::Asking => "peers' requests",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_share_stands_first_and_small_ones_are_left_out() {
        let line = describe(&WaitTimes([1, 710, 200, 90, 0, 0]));
        assert_eq!(line.as_deref(), Some("limited by: peers' windows 71 %, choke 20 %, upload limit 9 %"));
        assert_eq!(
            describe(&WaitTimes([0, 0, 0, 0, u64::MAX, 0])).as_deref(),
            Some("limited by: this CPU 100 %")
        );
        assert_eq!(describe(&WaitTimes::default()), None);
    }

    #[test]
    fn only_the_last_seconds_count() {
        let mut limited = Limited::default();
        assert_eq!(limited.handle(WaitTimes([500, 0, 0, 0, 0, 0])), None);
        let asking = |time| WaitTimes([600, 0, 0, 0, 0, time]);
        assert_eq!(
            limited.handle(asking(100)).as_deref(),
            Some("limited by: disk 50 %, peers' requests 50 %")
        );
        for second in 2..=6 {
            limited.handle(asking(second * 100));
        }
        assert_eq!(limited.handle(asking(700)).as_deref(), Some("limited by: peers' requests 100 %"));
        for _ in 0..4 {
            limited.handle(asking(700));
        }
        assert_eq!(limited.handle(asking(700)), None);
    }
}
