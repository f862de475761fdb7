//! A file system in memory whose requests of some kind are answered when the test says so: it speaks the kernel's FUSE protocol
//! (include/uapi/linux/fuse.h, version 7.31) over /dev/fuse.
//!
//! It is mounted in a mount namespace of the test's thread, so that nobody else sees it and it ends with the test at
//! the latest. Whatever happens, the connection is aborted when this is dropped (its last descriptor closes, and everybody who
//! waits for an answer gets an error). Nothing may be remembered of names and attributes, as with a file system far away, and
//! each opening empties the page cache. Absent: links, listing folders, everything else.
#![expect(unsafe_code, reason = "a thread's mount namespace has no safe wrapper")]

use super::PATIENCE;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

const FOLDER: u64 = 1;
const FILE: u64 = 2;
const HEADER_LEN: usize = 40;
/// FATTR_SIZE.
const SETS_SIZE: u8 = 1 << 3;
/// Reads side by side, and MAX_PAGES: a window of 256 KiB is one read.
const INIT_FLAGS: u32 = 1 | 1 << 22;

pub mod opcode {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const ACCESS: u32 = 34;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    /// With RENAME_NOREPLACE.
    pub const RENAME2: u32 = 45;
}

/// The device; unmounted when dropped.
pub struct HeldDevice {
    /// Until it is dropped.
    shared: Option<Arc<Shared>>,
    folder: PathBuf,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    device: File,
    tree: Mutex<Tree>,
    flushes: bool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    answers: Answers,
    held: Vec<Held>,
}

/// Folders and files by number; what was removed keeps its own.
struct Tree {
    nodes: BTreeMap<u64, Node>,
    /// Numbers by folder and name.
    names: BTreeMap<(u64, Vec<u8>), u64>,
}

#[derive(Clone)]
enum Node {
    Folder,
    File(Arc<Mutex<Vec<u8>>>),
}

impl Tree {
    fn new(name: &str, content: Vec<u8>) -> Self {
        let file = Node::File(Arc::new(Mutex::new(content)));
        let names = BTreeMap::from([((FOLDER, name.as_bytes().to_vec()), FILE)]);
        Self { nodes: BTreeMap::from([(FOLDER, Node::Folder), (FILE, file)]), names }
    }

    fn add(&mut self, node: Node) -> u64 {
        let number = self.nodes.last_key_value().map_or(FOLDER, |(&last, _)| last + 1);
        self.nodes.insert(number, node);
        number
    }

    /// A new folder or file under that name; its number.
    fn make(&mut self, folder: u64, name: &[u8], node: Node) -> Result<u64, Errno> {
        if self.names.contains_key(&(folder, name.to_vec())) {
            return Err(Errno::EXIST);
        }
        let number = self.add(node);
        self.names.insert((folder, name.to_vec()), number);
        Ok(number)
    }

    fn find(&self, folder: u64, name: &[u8]) -> Result<u64, Errno> {
        self.names.get(&(folder, name.to_vec())).copied().ok_or(Errno::NOENT)
    }

    fn remove(&mut self, folder: u64, name: &[u8]) -> Result<u64, Errno> {
        self.names.remove(&(folder, name.to_vec())).ok_or(Errno::NOENT)
    }

    fn rename(&mut self, from: (u64, &[u8]), to: (u64, &[u8]), may_replace: bool) -> Result<(), Errno> {
        if !may_replace && self.find(to.0, to.1).is_ok() {
            return Err(Errno::EXIST);
        }
        let number = self.remove(from.0, from.1)?;
        self.names.insert((to.0, to.1.to_vec()), number);
        Ok(())
    }

    fn content(&self, number: u64) -> Arc<Mutex<Vec<u8>>> {
        match self.nodes.get(&number) {
            Some(Node::File(content)) => Arc::clone(content),
            _ => Arc::default(),
        }
    }

    fn attributes(&self, number: u64) -> Vec<u8> {
        let is_folder = matches!(self.nodes.get(&number), Some(Node::Folder));
        let mode = if is_folder { 0o040_755 } else { 0o100_644 };
        let len = lock(&self.content(number)).len() as u64;
        let mut out = [number, len, len.div_ceil(512), 1, 1, 1].map(u64::to_le_bytes).concat();
        out.extend([0, 0, 0, mode, 1, 0, 0, 0, 4096, 0].map(u32::to_le_bytes).concat());
        out
    }

    /// What a look-up answers.
    fn entry(&self, number: u64) -> Vec<u8> {
        let mut out = [number, 0, 0, 0, 0].map(u64::to_le_bytes).concat();
        out.extend(self.attributes(number));
        out
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the device answers.
#[derive(Clone, Copy, Default, PartialEq)]
enum Answers {
    #[default]
    Everything,
    /// All but requests of this kind.
    AllBut(u32),
    Nothing,
}

struct Held {
    opcode: u32,
    unique: u64,
    node: u64,
    body: Vec<u8>,
}

impl HeldDevice {
    /// Mounts it on `folder`, with `content` as the file `name`. It answers everything at once, until told otherwise.
    /// Closing a file asks it nothing.
    pub fn mounted(folder: &Path, name: &str, content: Vec<u8>) -> Self {
        Self::mounted_as(folder, name, content, false)
    }

    /// The same, which is asked each time that a file is closed, and waited for whatever happens.
    pub fn mounted_flushing(folder: &Path, name: &str, content: Vec<u8>) -> Self {
        Self::mounted_as(folder, name, content, true)
    }

    fn mounted_as(folder: &Path, name: &str, content: Vec<u8>, flushes: bool) -> Self {
        const NEEDS: &str =
            "this test mounts a file system of its own: it needs root, /dev/fuse and mount(8)";
        // SAFETY: nothing is taken from other threads; this one only gets mounts of its own.
        let unshared = unsafe { unshare_unsafe(UnshareFlags::NEWNS) };
        unshared.unwrap_or_else(|error| panic!("{NEEDS}: no mounts of its own: {error}"));
        mount(Stdio::null(), &["--make-rprivate", "/"], NEEDS);
        let device = File::options().read(true).write(true).open("/dev/fuse");
        let device = device.unwrap_or_else(|error| panic!("{NEEDS}: /dev/fuse: {error}"));
        let input = device.try_clone().expect("a descriptor is free");
        let (state, changed) = (Mutex::default(), Condvar::new());
        let tree = Mutex::new(Tree::new(name, content));
        let shared = Arc::new(Shared { device, tree, flushes, state, changed });
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).expect("a descriptor is free"));
        let (server, until) = (Arc::clone(&shared), Arc::clone(&stop));
        let thread = std::thread::spawn(move || server.serve(&until));
        let held = Self { shared: Some(shared), folder: folder.to_owned(), stop, thread: Some(thread) };
        let options = "fd=0,rootmode=40000,user_id=0,group_id=0,default_permissions,nosuid,nodev";
        let folder = folder.to_str().expect("the folder's name is text");
        mount(input.into(), &["-i", "-t", "fuse", "-o", options, "held", folder], NEEDS);
        held
    }

    /// From now on requests of this kind wait; everything else is answered.
    pub fn hold(&self, opcode: u32) {
        self.shared().state().answers = Answers::AllBut(opcode);
    }

    /// Waits until so many requests wait.
    pub fn wait_for_held(&self, count: usize) {
        let missing = |state: &mut State| state.held.len() < count;
        let waited = self.shared().changed.wait_timeout_while(self.shared().state(), PATIENCE, missing);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(state.held.len() >= count, "only {} of {count} requests came", state.held.len());
    }

    /// Answers what waits, and from now on everything at once.
    pub fn answer_all(&self) {
        let mut state = self.shared().state();
        state.answers = Answers::Everything;
        let held = std::mem::take(&mut state.held);
        drop(state);
        held.iter().for_each(|held| self.shared().carry_out(held));
    }

    /// From now on the file has another number than before, as when a file system has forgotten it.
    pub fn number_anew(&self) {
        let mut tree = lock(&self.shared().tree);
        let file = Node::File(tree.content(FILE));
        let number = tree.add(file);
        let name = tree.names.values_mut().next().expect("it has a file");
        *name = number;
    }

    /// From now on nothing is answered, for ever.
    pub fn fall_silent(&self) {
        self.shared().state().answers = Answers::Nothing;
    }

    fn shared(&self) -> &Arc<Shared> {
        self.shared.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for HeldDevice {
    fn drop(&mut self) {
        let _ = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        let _ = self.thread.take().map(JoinHandle::join);
        // First of all the descriptor of the device closes: who waits in there gets an error. A child that unmounts it has copies of
        // what this process has open there, and closes them.
        self.shared = None;
        let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
    }
}

fn mount(input: Stdio, arguments: &[&str], needs: &str) {
    let output = Command::new("mount").args(arguments).stdin(input).output();
    let output = output.unwrap_or_else(|error| panic!("{needs}: {error}"));
    assert!(output.status.success(), "{needs}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Names, each with a zero behind it.
fn names_in(body: &[u8]) -> Vec<&[u8]> {
    body.split(|&byte| byte == 0).collect()
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until `stop` can be read.
    fn serve(&self, stop: &OwnedFd) {
        let mut request = vec![0; 1 << 16];
        loop {
            let mut both = [PollFd::new(stop, PollFlags::IN), PollFd::new(&self.device, PollFlags::IN)];
            let is_silent = self.state().answers == Answers::Nothing;
            let heard = if is_silent { &mut both[..1] } else { &mut both };
            let _ = poll(heard, None);
            if !both[0].revents().is_empty() {
                return;
            }
            if self.state().answers == Answers::Nothing {
                continue;
            }
            let read = (&self.device).read(&mut request);
            match read.map_err(|error| error.raw_os_error().map(Errno::from_raw_os_error)) {
                Ok(len) => self.handle(&request[..len]),
                Err(Some(Errno::NODEV)) => return,
                // Nobody has mounted it yet.
                Err(Some(Errno::PERM)) => std::thread::park_timeout(std::time::Duration::from_millis(1)),
                Err(Some(Errno::NOENT | Errno::INTR | Errno::AGAIN)) => {}
                Err(error) => panic!("/dev/fuse: {error:?}"),
            }
        }
    }

    fn handle(&self, request: &[u8]) {
        let number = |at: usize| u64::from_le_bytes(request[at..at + 8].try_into().expect("eight bytes"));
        let (opcode, unique, node) = ((number(0) >> 32) as u32, number(8), number(16));
        let request = Held { opcode, unique, node, body: request[HEADER_LEN..].to_vec() };
        let mut state = self.state();
        if state.answers == Answers::AllBut(opcode) {
            state.held.push(request);
            self.changed.notify_all();
            return;
        }
        drop(state);
        self.carry_out(&request);
    }

    fn carry_out(&self, request: &Held) {
        let &Held { opcode, unique, node, ref body } = request;
        let number = |at: usize| u64::from_le_bytes(body[at..at + 8].try_into().expect("eight bytes"));
        match opcode {
            opcode::INIT => {
                let mut out = Vec::new();
                out.extend([7, 31, 1 << 20, INIT_FLAGS].map(u32::to_le_bytes).concat());
                // Reads in flight, and when there are many; then bytes of a write, a nanosecond, pages of a read.
                out.extend([1024_u16, 768].map(u16::to_le_bytes).concat());
                out.extend([4096_u32, 1].map(u32::to_le_bytes).concat());
                out.extend([64_u16, 0].map(u16::to_le_bytes).concat());
                out.resize(64, 0);
                self.answer(unique, &out);
            }
            opcode::LOOKUP => {
                let tree = lock(&self.tree);
                self.reply(unique, tree.find(node, names_in(body)[0]).map(|found| tree.entry(found)));
            }
            opcode::GETATTR | opcode::SETATTR => {
                let tree = lock(&self.tree);
                if opcode == opcode::SETATTR && body[0] & SETS_SIZE != 0 {
                    lock(&tree.content(node)).resize(number(16) as usize, 0);
                }
                let mut out = [0_u64, 0].map(u64::to_le_bytes).concat();
                out.extend(tree.attributes(node));
                self.answer(unique, &out);
            }
            opcode::MKDIR => {
                let mut tree = lock(&self.tree);
                let made = tree.make(node, names_in(&body[8..])[0], Node::Folder);
                self.reply(unique, made.map(|made| tree.entry(made)));
            }
            opcode::CREATE => {
                let mut tree = lock(&self.tree);
                let made = tree.make(node, names_in(&body[16..])[0], Node::File(Arc::default()));
                self.reply(unique, made.map(|made| [tree.entry(made), vec![0; 16]].concat()));
            }
            opcode::UNLINK | opcode::RMDIR => {
                let removed = lock(&self.tree).remove(node, names_in(body)[0]);
                self.reply(unique, removed.map(|_| Vec::new()));
            }
            opcode::RENAME | opcode::RENAME2 => {
                let (head, may_replace) =
                    if opcode == opcode::RENAME { (8, true) } else { (16, body[8] == 0) };
                let names = names_in(&body[head..]);
                let moved = lock(&self.tree).rename((node, names[0]), (number(0), names[1]), may_replace);
                self.reply(unique, moved.map(|()| Vec::new()));
            }
            opcode::FALLOCATE => {
                let content = lock(&self.tree).content(node);
                let mut content = lock(&content);
                let len = content.len().max((number(8) + number(16)) as usize);
                content.resize(len, 0);
                self.answer(unique, &[]);
            }
            opcode::OPEN | opcode::OPENDIR => self.answer(unique, &[0; 16]),
            opcode::READ => {
                let (offset, len) = (number(8) as usize, number(16) as u32 as usize);
                let content = lock(&self.tree).content(node);
                let content = lock(&content);
                let end = content.len().min(offset + len);
                self.answer(unique, &content[offset.min(end)..end]);
            }
            opcode::WRITE => {
                let (offset, len) = (number(8) as usize, number(16) as u32 as usize);
                let content = lock(&self.tree).content(node);
                let mut content = lock(&content);
                let end = content.len().max(offset + len);
                content.resize(end, 0);
                content[offset..offset + len].copy_from_slice(&body[40..40 + len]);
                self.answer(unique, &(len as u64).to_le_bytes());
            }
            opcode::FLUSH if !self.flushes => self.refuse(unique, Errno::NOSYS),
            opcode::RELEASE
            | opcode::RELEASEDIR
            | opcode::ACCESS
            | opcode::READDIR
            | opcode::FSYNC
            | opcode::FSYNCDIR
            | opcode::FLUSH => {
                self.answer(unique, &[]);
            }
            opcode::STATFS => self.answer(unique, &[0; 80]),
            opcode::FORGET | opcode::BATCH_FORGET | opcode::INTERRUPT => {}
            _ => self.refuse(unique, Errno::NOSYS),
        }
    }

    fn reply(&self, unique: u64, answer: Result<Vec<u8>, Errno>) {
        match answer {
            Ok(body) => self.answer(unique, &body),
            Err(errno) => self.refuse(unique, errno),
        }
    }

    fn answer(&self, unique: u64, body: &[u8]) {
        self.say(unique, 0, body);
    }

    fn refuse(&self, unique: u64, errno: Errno) {
        self.say(unique, -errno.raw_os_error(), &[]);
    }

    fn say(&self, unique: u64, error: i32, body: &[u8]) {
        let mut message = ((16 + body.len()) as u32).to_le_bytes().to_vec();
        message.extend(error.to_le_bytes());
        message.extend(unique.to_le_bytes());
        message.extend(body);
        // The one who asked may have gone.
        let _ = (&self.device).write(&message);
    }
}
