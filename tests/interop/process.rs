//! A foreign process with its output in a file. It is killed by its id when the value is dropped.

use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// A started process.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with stdout and stderr in `log`.
    pub fn start(command: &mut Command, log: PathBuf) -> Self {
        let out =
            File::create(&log).unwrap_or_else(|error| panic!("cannot create {}: {error}", log.display()));
        let err = out.try_clone().expect("a fresh file has room for another descriptor");
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        match command.spawn() {
            Ok(child) => Self { child, log },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                panic!("{:?} is not installed: run tools/install-test-clients", command.get_program())
            }
            Err(error) => panic!("cannot start {:?}: {error}", command.get_program()),
        }
    }

    /// How it ended; `None` while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of ours can be waited for")
    }

    /// Sends SIGINT, as Ctrl-C does.
    pub fn interrupt(&self) {
        let pid =
            i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a child has a positive id");
        kill_process(pid, Signal::INT).expect("a child that was not waited for can be signalled");
    }

    /// What it has printed so far.
    pub fn printed(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last lines of what it has printed, for complaints.
    pub fn last_words(&self) -> String {
        let printed = self.printed();
        let lines: Vec<&str> = printed.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only when it has already ended, and then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command for a program of tools/install-test-clients that runs in `home` and keeps its settings there.
pub fn client_command(program: impl AsRef<std::ffi::OsStr>, home: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(home).env("HOME", home).env("LC_ALL", "C.UTF-8");
    for folder in ["XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"] {
        command.env_remove(folder);
    }
    command
}
