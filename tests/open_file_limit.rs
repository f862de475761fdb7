//! What happens at the limit on open files. It is the process's, so this file has one test only.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use seedring::storage::{Blame, Content, Layout, LayoutFile, StorageError, raise_file_limit};
use std::sync::Arc;

#[test]
fn running_out_of_descriptors_names_the_limit_and_raising_it_mends_it() {
    let dir = tempfile::tempdir().unwrap();
    let files = (0..100).map(|index| {
        let path = format!("{index}");
        std::fs::write(dir.path().join(&path), "x").unwrap();
        LayoutFile { path: path.into(), len: 1, padding: false }
    });
    let layout = Arc::new(Layout::new(16_384, files).unwrap());
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum }).unwrap();
    let error = Content::open(Arc::clone(&layout), dir.path()).unwrap_err();
    assert!(matches!(error, StorageError::TooManyOpenFiles(_)), "{error}");
    assert_eq!(error.blame(), Blame::Config);
    assert!(error.to_string().contains("ulimit -n"), "{error}");
    assert!(raise_file_limit().unwrap() > 200);
    assert_eq!(Content::open(layout, dir.path()).unwrap().verify_files(), Ok(()));
}
