//! Disks that are full, read-only or broken: what a download says of them, that it goes on by itself where it can, and
//! that nothing is taken for stored which is not.
//!
//! The disks are small file systems in a mount namespace of their own, where this user may make one.

mod getting;

use getting::observer::fetch;
use getting::{Album, Run, get, seed};
use seedring::storage::{FileSelection, Resume, resume_path};
use std::path::Path;
use std::process::Command;

const INSIDE: &str = "SEEDRING_TEST_HAS_ITS_OWN_MOUNTS";

/// Runs the ignored tests of this file where they may mount.
#[test]
fn disks_that_refuse_are_told_waited_for_and_never_believed() {
    let run = |script: &str| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "sh", "-c", script]).arg(std::env::current_exe().unwrap());
        unshare.args(["--ignored", "--nocapture"]).env(INSIDE, "1").output()
    };
    if !run("mount -t tmpfs none /mnt").is_ok_and(|output| output.status.success()) {
        eprintln!("not tested: this user may not mount");
        return;
    }
    let output = run("exec \"$0\" \"$@\"").unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("test result: ok") && !said.contains(" 0 passed"), "{said}");
}

fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs a command that has to succeed; what it printed.
fn sh(script: &str, folder: &Path) -> String {
    let output = Command::new("sh").args(["-ec", script]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
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
    sh("mount -o remount,size=16m out", album.folder.path());
    run.wait_for("storage_recovered");
    run.wait_for("downloaded");
    run.signal(rustix::process::Signal::TERM);
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
    let attach = "mkdir back out; mount -t tmpfs -o size=4m none back; truncate -s 64M back/image; \
        mkfs.ext4 -q -O ^has_journal -E lazy_itable_init=1,nodiscard back/image; losetup -f --show back/image";
    let attached = Command::new("sh").args(["-ec", attach]).current_dir(folder).output().unwrap();
    if !attached.status.success() {
        eprintln!("not tested: {}", String::from_utf8_lossy(&attached.stderr));
        return;
    }
    let device = Device(String::from_utf8(attached.stdout).unwrap().trim().to_owned());
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

/// A loop device, given back at the end.
struct Device(String);

impl Drop for Device {
    fn drop(&mut self) {
        // Whatever still uses it ends with the namespace, and the kernel then lets it go.
        let _ = Command::new("losetup").args(["-d", &self.0]).status();
    }
}
