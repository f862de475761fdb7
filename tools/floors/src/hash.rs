//! The least that checking content against a torrent can cost: every piece read with pread and hashed, on one thread.
//!
//! With one lane that is a single stream of SHA-1, as fast as the CPU's own instructions take it; with four, as many
//! pieces at once as `seedring check` takes. Deliberately absent: the comparison with a torrent, threads, read-ahead.

use crate::{Hash, Outcome, pin};
use seedring::{clock, storage};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Hashes the file once and prints one line of JSON.
pub fn run(hash: &Hash) -> Outcome<()> {
    pin(hash.pin)?;
    let piece_len = usize::try_from(hash.piece_length.0)?;
    if piece_len == 0 {
        return Err("a piece has at least one byte".into());
    }
    let lanes = if hash.lanes >= 4 { 4 } else { 1 };
    let file = File::open(&hash.data)?;
    let total_len = file.metadata()?.len();
    let mut buffers = vec![vec![0; piece_len]; lanes];
    let (mut offset, mut sum) = (0, 0);
    let (cpu_before, started) = (clock::process_cpu_time(), clock::now());
    while offset < total_len {
        let mut pieces: Vec<&[u8]> = Vec::with_capacity(lanes);
        for buffer in &mut buffers {
            let len = usize::try_from((total_len - offset).min(piece_len as u64))?;
            if len > 0 {
                file.read_exact_at(&mut buffer[..len], offset)?;
                pieces.push(&buffer[..len]);
                offset += len as u64;
            }
        }
        for digest in storage::piece_hashes(&pieces) {
            sum ^= digest[0];
        }
    }
    let seconds = clock::now().since(started).as_secs_f64();
    let cpu = (clock::process_cpu_time() - cpu_before).as_secs_f64();
    let gibibytes = total_len as f64 / f64::from(1 << 30);
    println!(
        "{{\"lanes\":{lanes},\"piece_length\":{piece_len},\"gib\":{gibibytes:.3},\"seconds\":{seconds:.3},\
         \"cpu_s_per_gib\":{:.4},\"xor_of_first_bytes\":{sum}}}",
        cpu / gibibytes.max(f64::MIN_POSITIVE)
    );
    Ok(())
}
