//! Content on disk: where a torrent's bytes lie, mapped for sending, read for hashing, remembered across
//! restarts.
//!
//! Content that is seeded is only ever read; content that is downloaded takes whole pieces whose hash was checked
//! ([`Finisher`]), and nothing else. Whether a path may be written at all, [`may_write`] decides. Nothing on this floor
//! forms a reference into a mapping, because a file that shrinks would turn a read of it into SIGBUS: mappings
//! yield raw pointers for the kernel, which answers EFAULT, and hashing reads into buffers.

mod content;
mod download;
mod error;
mod extents;
mod file_limit;
mod file_size_limit;
mod file_threads;
mod fingerprint;
mod finisher;
mod hash;
mod layout;
mod locate;
mod look_round;
mod many_files;
mod mapped_file;
mod moved;
mod ownership;
mod parts;
mod piece_reader;
mod reread;
mod residency;
mod resume;
mod root;
mod second_look;
mod selection;
mod sha1_lanes;
mod shelf;
mod shortage;

pub use content::{Allocation, Content, Created, IoSlicePtr, PopulateRange};
pub use download::{DownloadContent, Target};
pub use error::{Blame, StorageError};
pub use extents::pieces_with_data;
pub use file_limit::{
    DescriptorShares, descriptor_shares, descriptors_needed, open_files_max, raise_file_limit,
};
pub use file_size_limit::outlive_file_size_limit;
pub use file_threads::Job;
pub use fingerprint::{FileChange, FileStamp, Fingerprint};
pub use finisher::{Finisher, FinisherCounters, PieceJob, PieceOutcome, Reply};
pub use hash::{CheckReport, FileProblem, Subset, check, check_some, hash_pieces, piece_hash, piece_hashes};
pub use layout::{FileIndex, FileSpan, Layout, LayoutError, LayoutFile, Spans};
pub use locate::{Links, layout_in, locate};
pub use many_files::ManyFiles;
pub use moved::{Former, remove_unused_parts};
pub use ownership::{
    Claims, DownloadFile, Evidence, FileKind, InTheWay, Permit, Place, Refused, WholeFile, Witness,
    WriteError, look_at_place, may_write, replace_file,
};
pub use reread::forget_cached;
pub use residency::Presence;
pub use resume::{BootId, ByFile, Resume, ResumeProblem, Verdict, default_state_dir, resume_path};
pub use second_look::Sample;
pub use selection::FileSelection;
pub use shelf::{Answer, Refusal, Shelf, ShelvedContent, device_of};
pub use shortage::{is_shortage_of, outlast, tell_shortage};
