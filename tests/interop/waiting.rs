//! Waits for conditions, never for time: a probe is asked again until it answers or the deadline is over.

use seedring::clock;
use std::time::Duration;

/// Time between two probes. Short against everything waited for, long against the cost of a probe.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);

/// Asks `probe` until it gives a value. Panics after `limit` with `what` and the probe's last complaint.
pub fn wait_for<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let start = clock::now();
    loop {
        let complaint = match probe() {
            Ok(value) => return value,
            Err(complaint) => complaint,
        };
        let elapsed = clock::now().since(start);
        assert!(elapsed < limit, "waited {elapsed:.1?} for {what}; last seen: {complaint}");
        pause();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the pause between two probes of a foreign process; no result depends on it"
)]
fn pause() {
    std::thread::sleep(PROBE_INTERVAL);
}
