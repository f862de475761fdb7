//! The least that bringing a file's content into memory can cost: windows of 256 KiB in random order, so many at once.
//!
//! `direct` reads past the page cache (O_DIRECT) and is what the device can do; the others are the ways in which a seeder
//! could have its content read: into buffers through the page cache, or into the page cache and a mapping
//! alone. All go through one ring. Those that use the page cache drop the file from it first.
//! Deliberately absent: sending anything.
#![expect(unsafe_code, reason = "submissions")]

use crate::{Outcome, map, pin};
use io_uring::types::Fd;
use io_uring::{IoUring, opcode, squeue};
use rustix::fs::{Advice, Mode, OFlags};
use seedring::clock;
use seedring::rng::Rng;
use seedring::units::ByteSize;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

/// Bytes of a window, and its alignment in memory.
const WINDOW_LEN: usize = 256 * 1024;
/// `POSIX_FADV_WILLNEED` of posix_fadvise(2).
const WILLNEED: i32 = 3;
/// `MADV_POPULATE_READ` of madvise(2).
const POPULATE_READ: i32 = 22;

/// What to read, and how.
#[derive(Debug, clap::Args)]
pub struct Cold {
    /// How to read
    #[arg(value_enum)]
    method: ColdMethod,
    /// The file
    data: PathBuf,
    /// Windows in flight
    #[arg(long, default_value_t = 32)]
    depth: usize,
    /// Bytes to read at most; each window is read once
    #[arg(long, default_value = "1TiB")]
    bytes: ByteSize,
    /// Seed of the order
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Core to run on
    #[arg(long)]
    pin: Option<usize>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ColdMethod {
    /// Past the page cache: what the device can do
    Direct,
    /// Through the page cache into buffers
    Read,
    /// The same on threads of the kernel's
    ReadAsync,
    /// Into the page cache and a mapping, on threads of the kernel's
    Populate,
}

/// Reads the file once, window by window, and prints one line of JSON.
pub fn run(cold: &Cold) -> Outcome<()> {
    pin(cold.pin)?;
    let direct = if matches!(cold.method, ColdMethod::Direct) { OFlags::DIRECT } else { OFlags::empty() };
    let file = rustix::fs::open(&cold.data, OFlags::RDONLY | OFlags::CLOEXEC | direct, Mode::empty())?;
    let content = map(&std::fs::File::open(&cold.data)?)?;
    content.advise(memmap2::Advice::Random)?;
    let advice = if matches!(cold.method, ColdMethod::Read) { Advice::Random } else { Advice::Normal };
    rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
    rustix::fs::fadvise(&file, 0, None, advice)?;
    let depth = cold.depth.clamp(1, 1024);
    let mut buffers = memmap2::MmapMut::map_anon(depth * WINDOW_LEN)?;
    let mut windows: Vec<usize> = (0..content.len() / WINDOW_LEN).collect();
    Rng::from_seed(cold.seed).shuffle(&mut windows);
    windows.truncate(usize::try_from(cold.bytes.0)? / WINDOW_LEN);
    if windows.is_empty() {
        return Err("the file must have at least 256 KiB".into());
    }
    let mut ring: IoUring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(4096)?;
    ring.submitter().register_iowq_max_workers(&mut [1024, 0])?;

    let (cpu_before, started) = (clock::process_cpu_time(), clock::now());
    let mut free: Vec<usize> = (0..depth).collect();
    let (mut next, mut done) = (0, 0);
    while done < windows.len() {
        while next < windows.len()
            && let Some(place) = free.pop()
        {
            let offset = windows[next] * WINDOW_LEN;
            next += 1;
            let fd = Fd(file.as_raw_fd());
            let buffer = buffers[place * WINDOW_LEN..].as_mut_ptr();
            let read = opcode::Read::new(fd, buffer, WINDOW_LEN as u32).offset(offset as u64).build();
            let entries = match cold.method {
                ColdMethod::Direct | ColdMethod::Read => vec![read],
                ColdMethod::ReadAsync => {
                    vec![advice_of(fd, offset), read.flags(squeue::Flags::ASYNC)]
                }
                ColdMethod::Populate => {
                    let address = content[offset..].as_ptr().cast_mut().cast();
                    let populate = opcode::Madvise::new(address, WINDOW_LEN as _, POPULATE_READ).build();
                    vec![advice_of(fd, offset), populate]
                }
            };
            let last = entries.len() - 1;
            let entries: Vec<_> = entries
                .into_iter()
                .enumerate()
                .map(|(at, entry)| entry.user_data(if at == last { place as u64 } else { u64::MAX }))
                .collect();
            // SAFETY: buffers and mapping outlive the ring's operations: all are waited for below, and an error that
            // ends this function ends the process.
            unsafe { ring.submission().push_multiple(&entries) }?;
        }
        ring.submit_and_wait(1)?;
        for entry in ring.completion() {
            if entry.result() < 0 {
                let error = std::io::Error::from_raw_os_error(-entry.result());
                return Err(format!("a window could not be read: {error}").into());
            }
            free.push(usize::try_from(entry.user_data())?);
            done += 1;
        }
    }
    let seconds = clock::now().since(started).as_secs_f64();
    let cpu = (clock::process_cpu_time() - cpu_before).as_secs_f64();
    let gibibytes = (done * WINDOW_LEN) as f64 / f64::from(1 << 30);
    println!(
        "{{\"method\":\"{:?}\",\"depth\":{depth},\"gib\":{gibibytes:.3},\"seconds\":{seconds:.3},\
         \"gib_per_s\":{:.3},\"cpu_s_per_gib\":{:.4}}}",
        cold.method,
        gibibytes / seconds.max(f64::MIN_POSITIVE),
        cpu / gibibytes
    );
    Ok(())
}

/// Starts the reads of a window, before the operation that waits for them.
fn advice_of(fd: Fd, offset: usize) -> squeue::Entry {
    opcode::Fadvise::new(fd, WINDOW_LEN as _, WILLNEED)
        .offset(offset as u64)
        .build()
        .flags(squeue::Flags::IO_HARDLINK | squeue::Flags::SKIP_SUCCESS)
}
