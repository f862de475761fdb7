//! Content on disk: where a torrent's bytes lie, mapped for sending, read for hashing, remembered across
//! restarts.
//!
//! Content is only ever read here; writing while leeching will be a module of its own. Nothing on this floor
//! forms a reference into a mapping, because a file that shrinks would turn a read of it into SIGBUS: mappings
//! yield raw pointers for the kernel, which answers EFAULT, and hashing reads into buffers.

mod content;
mod error;

mod file_limit;
mod fingerprint;
mod hash;
mod layout;
mod locate;
mod piece_reader;
mod residency;
mod root;
mod sha1_lanes;

pub use content::{Content, IoSlicePtr, PopulateRange};
pub use error::{Blame, StorageError};
pub use file_limit::raise_file_limit;
pub use fingerprint::{FileStamp, Fingerprint, Resume, ResumeProblem, default_state_dir, resume_path};
pub use hash::{CheckReport, FileProblem, check, hash_pieces, piece_hash};
pub use layout::{FileIndex, FileSpan, Layout, LayoutError, LayoutFile, Spans};
pub use locate::locate;
