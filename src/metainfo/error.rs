//! Why bytes are no torrent we can use. It is always the torrent's fault, so the messages say what to do
//! with that torrent, not with the program.

/// What is wrong with a torrent file or an info dictionary.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetainfoError {
    /// The outermost value is something else.
    #[error("this is no torrent: its outermost value is no dictionary")]
    NotADictionary,
    /// A file's path has a component `..`.
    #[error("a file's path leads out of its folder with `..`, which only a hostile torrent does")]
    PathLeavesFolder,
    /// A file's path has no usable component.
    #[error("a file's path is empty")]
    PathEmpty,
    /// More components than `PATH_DEPTH_MAX`.
    #[error("a file's path has more than {} folders", crate::limits::PATH_DEPTH_MAX)]
    PathTooDeep,
    /// More bytes than `PATH_LEN_MAX`.
    #[error("a file's path is longer than {} bytes", crate::limits::PATH_LEN_MAX)]
    PathTooLong,
}
