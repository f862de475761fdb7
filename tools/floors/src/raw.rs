//! A stream of 256 KiB steps without framing into a sink that discards: the floor below the floors.

use crate::{Outcome, Raw, RawMethod, map, pin, print_cost};
use rustix::net::RecvFlags;
use rustix::time::{ClockId, clock_gettime};
use seedring::clock;
use std::fs::File;
use std::io::IoSlice;
use std::net::{TcpListener, TcpStream};

/// Bytes of one step, in slices of a block each, as a coalescing seeder hands them over.
const STEP_LEN: usize = 256 * 1024;
const BLOCK_LEN: usize = 16 * 1024;

/// Sends and prints.
pub fn run(raw: &Raw) -> Outcome<()> {
    let file = File::open(&raw.data)?;
    let content = map(&file)?;
    let steps = content.len() / STEP_LEN;
    if steps == 0 {
        return Err("the file must have at least 256 KiB".into());
    }
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let pin_sink = raw.pin_sink;
    let sink = std::thread::spawn(move || -> Outcome<()> {
        pin(pin_sink)?;
        let (socket, _) = listener.accept()?;
        let mut nowhere = vec![0; 1 << 20];
        // With TRUNC the kernel drops TCP's bytes and writes nothing (tcp(7)).
        while rustix::net::recv(&socket, &mut nowhere[..], RecvFlags::TRUNC)?.1 > 0 {}
        Ok(())
    });
    pin(raw.pin)?;
    let socket = TcpStream::connect(address)?;
    let (started, cpu_before) = (clock::now(), thread_cpu_seconds());
    let mut sent = 0u64;
    while sent < raw.bytes.0 {
        let start = (sent / STEP_LEN as u64) as usize % steps * STEP_LEN;
        match raw.method {
            RawMethod::Writev => {
                let mut step = &content[start..start + STEP_LEN];
                while !step.is_empty() {
                    let slices: Vec<IoSlice<'_>> = step.chunks(BLOCK_LEN).map(IoSlice::new).collect();
                    step = &step[rustix::io::writev(&socket, &slices)?..];
                }
            }
            RawMethod::Sendfile => {
                let (mut offset, end) = (start as u64, (start + STEP_LEN) as u64);
                while offset < end {
                    let len = (end - offset) as usize;
                    rustix::fs::sendfile(&socket, &file, Some(&mut offset), len)?;
                }
            }
        }
        sent += STEP_LEN as u64;
    }
    let (cpu, seconds) = (thread_cpu_seconds() - cpu_before, clock::now().since(started).as_secs_f64());
    drop(socket);
    sink.join().map_err(|_| "the sink died")??;
    print_cost(&format!("raw {:?}", raw.method).to_lowercase(), sent, cpu, seconds);
    Ok(())
}

fn thread_cpu_seconds() -> f64 {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}
