//! The terminal that a command was started on, and whether it is still there.

use std::io::IsTerminal;

/// Whether the command began on a terminal: SIGHUP then says that it was closed, or comes from somebody who wants
/// something else.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terminal {
    was_there: bool,
}

impl Terminal {
    pub fn at_start() -> Self {
        Self { was_there: is_there() }
    }

    /// Whether it was closed: nobody sees the command any more, which is to end as if it had been told to.
    pub fn is_gone(self) -> bool {
        self.was_there && !is_there()
    }
}

/// A terminal that was closed is none any more to those who have it open.
fn is_there() -> bool {
    std::io::stdin().is_terminal() || std::io::stdout().is_terminal() || std::io::stderr().is_terminal()
}
