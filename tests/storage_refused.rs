//! Disks that are full, read-only or broken: what a download says of them, that it goes on by itself where it can, and
//! that nothing is taken for stored which is not.
//!
//! The disks are small file systems in a mount namespace of their own, where this user may make one.

mod getting;

use getting::mounts::{Device, is_inside, run_ignored_tests, sh};
use getting::observer::fetch;
use getting::{Album, Run, get, seed};
use rustix::process::Signal;
use seedring::storage::{FileSelection, Resume, resume_path};

/// Runs the ignored tests of this file where they may mount.
#[test]
fn disks_that_refuse_are_told_waited_for_and_never_believed() {
    run_ignored_tests();
}

/// Six MiB, and a disk for them at `out` with room for so many.
fn on_a_disk_of(mib: u32) -> Album {
    let album = Album::new(7, 128 << 10, &[("one.flac", 4_000_001), ("two.flac", 2_291_455)]);
    sh(&format!("mkdir out && mount -t tmpfs -o size={mib}m none out"), album.folder.path());
    album
}

#[test]
#[ignore = "needs mounts of its own, which another test provides"]
fn inside_a_full_disk_is_waited_for() {
    if !is_inside() {
        return;
    }
    let album = on_a_disk_of(3);
    let seed = seed(&album, "100MB/s");
    let start = || Run::start(get(&album, Some(seed.address())).args(["--seed", "--upload-slots", "1000"]));
    let mut run = start();
    let refused = run.wait_for("storage_refused");
    let reason = refused["reason"].as_str().unwrap();
    assert!(reason.contains("no space left to write") && reason.contains("free some"), "{reason}");
    let right = album.right_pieces(&album.path("out"), &FileSelection::all());
    assert!(right.count() > 0 && !right.is_full());
    // What is there is given on meanwhile.
    let observed = fetch(run.address(), &album, 128 << 10);
    assert_eq!(observed.complaint, None);
    assert!(right.contains_all(&observed.offered));
    run.kill();

    let mut run = start();
    let pieces = u64::from(album.right_pieces(&album.path("out"), &FileSelection::all()).count());
    assert_eq!(run.started()["pieces"], pieces);
    run.wait_for("storage_refused");
    run.signal(Signal::TERM);
    let (status, _, said) = run.ended();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("the same command goes on from here"), "{said}");

    let mut run = start();
    let pieces = u64::from(album.right_pieces(&album.path("out"), &FileSelection::all()).count());
    assert_eq!((run.started()["pieces"].as_u64(), run.checked_len()), (Some(pieces), 0));
    run.wait_for("storage_refused");
    sh("mount -o remount,size=16m out", album.folder.path());
    run.wait_for("storage_recovered");
    run.wait_for("downloaded");
    run.signal(Signal::TERM);
    assert!(run.ended().0.success());
    album.assert_downloaded(&album.path("out"), |_| true);
    sh("umount out", album.folder.path());
}

#[test]
#[ignore = "needs mounts of its own, which another test provides"]
fn inside_a_full_disk_is_told_at_once_when_space_is_reserved() {
    if !is_inside() {
        return;
    }
    let album = on_a_disk_of(3);
    let (status, heard, said) = Run::start(get(&album, None).arg("--preallocate")).ended();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("no space left to write") && said.contains("free some"), "{said}");
    assert_eq!(heard.last().map(|event| event["event"].clone()), Some("failed".into()), "{heard:?}");
    sh("umount out", album.folder.path());
}

#[test]
#[ignore = "needs mounts of its own, which another test provides"]
fn inside_a_disk_that_is_mounted_read_only_is_told_at_once() {
    if !is_inside() {
        return;
    }
    let album = on_a_disk_of(16);
    sh("mount -o remount,ro out", album.folder.path());
    let (status, _, said) = Run::start(&mut get(&album, None)).ended();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("mounted read-only; mount it for writing"), "{said}");
    sh("umount out", album.folder.path());
}

#[test]
#[ignore = "needs mounts of its own, which another test provides"]
fn inside_a_download_goes_on_without_room_for_its_resume_file() {
    if !is_inside() {
        return;
    }
    let album = on_a_disk_of(16);
    sh(
        "mkdir state && mount -t tmpfs -o size=64k none state && ! cat /dev/zero > state/filler 2> state/../said",
        album.folder.path(),
    );
    let seed = seed(&album, "100MB/s");
    let (status, _, said) = Run::start(&mut get(&album, Some(seed.address()))).ended();
    assert!(status.success(), "{said}");
    assert!(said.contains("no resume file could be written") && said.contains("no space left"), "{said}");
    album.assert_downloaded(&album.path("out"), |_| true);
    sh("umount out state", album.folder.path());
}

/// A file system on a device that has less room than it says, so that write-back fails as with storage that is pulled.
#[test]
#[ignore = "needs mounts of its own, which another test provides"]
fn inside_what_the_disk_has_lost_is_not_believed_although_memory_shows_it() {
    if !is_inside() {
        return;
    }
    let album = Album::new(8, 128 << 10, &[("one.flac", 9_000_001), ("two.flac", 2_291_455)]);
    let folder = album.folder.path();
    sh("mkdir back out; mount -t tmpfs -o size=4m none back; truncate -s 64M back/image", folder);
    sh("mkfs.ext4 -q -O ^has_journal -E lazy_itable_init=1,nodiscard back/image", folder);
    let Some(device) = Device::of(&album.path("back/image")) else { return };
    sh(&format!("mount -o errors=continue {} out", device.0), folder);
    let seed = seed(&album, "100MB/s");
    // Memory takes it all, the device does not.
    let (status, heard, said) = Run::start(&mut get(&album, Some(seed.address()))).ended();
    assert_eq!(status.code(), Some(1), "{said} {heard:?}");
    assert!(said.contains("could not be brought to the disk"), "{said}");
    let noted = Resume::load(&resume_path(&album.path("state"), album.metainfo.info_hash())).unwrap();
    assert!(!noted.is_clean && !noted.verified.is_full(), "{} pieces", noted.verified.count());

    // A second run with the same memory, and a device that takes everything.
    sh("mount -o remount,size=64m back", folder);
    let (status, _, said) = Run::start(&mut get(&album, Some(seed.address()))).ended();
    assert!(status.success(), "{said}");
    sh(&format!("umount out && mount {} out", device.0), folder);
    album.assert_downloaded(&album.path("out"), |_| true);
    sh("umount out", folder);
    drop(device);
    sh("umount back", folder);
}
