//! A machine that stops in the middle of a download: what the resume file says is on the disk is there, nothing is
//! believed that memory alone had, and the record that was brought to the disk is never lost to one that was not.
//!
//! The disk is a loop device. Its file, copied right after a kill and before the kernel writes back by itself, has what
//! a disk has after a power failure: what was synced, and perhaps more. The copy is mounted over the same folder.
//! Of the file systems two bring a file that was renamed over another to the disk as empty, unless it was waited for.

mod getting;

use getting::mounts::{Device, is_inside, run_ignored_tests, sh};
use getting::{Album, Run, get_in, seed};
use rustix::process::Signal;
use seedring::storage::{FileSelection, Resume, resume_path};
use std::process::Command;

/// A kind of file system.
struct Kind {
    make: &'static str,
    image_len: &'static str,
    /// Nothing reaches the disk by itself for a while.
    options: &'static str,
    copy_options: &'static str,
}

const EXT4: Kind =
    Kind { make: "mkfs.ext4", image_len: "64M", options: "commit=300", copy_options: "defaults" };
const EXT4_WITHOUT_FLUSH: Kind = Kind { options: "commit=300,noauto_da_alloc", ..EXT4 };
const XFS: Kind = Kind { make: "mkfs.xfs", image_len: "320M", options: "defaults", copy_options: "nouuid" };

/// Runs the ignored tests of this file where they may mount.
#[test]
fn what_is_noted_as_durable_survives_the_machine() {
    run_ignored_tests();
}

#[test]
#[ignore = "needs mounts of its own, which another test provides"]
fn inside_a_power_failure_costs_what_had_not_reached_ext4_and_no_more() {
    a_power_failure_costs_what_had_not_reached_the_disk(&EXT4);
}

#[test]
#[ignore = "needs mounts of its own, which another test provides"]
fn inside_a_power_failure_costs_what_had_not_reached_ext4_that_does_not_flush_at_a_rename() {
    a_power_failure_costs_what_had_not_reached_the_disk(&EXT4_WITHOUT_FLUSH);
}

#[test]
#[ignore = "needs mounts of its own, which another test provides"]
fn inside_a_power_failure_costs_what_had_not_reached_xfs_and_no_more() {
    a_power_failure_costs_what_had_not_reached_the_disk(&XFS);
}

/// The disk that the album goes to.
struct Disk<'a> {
    album: &'a Album,
    kind: &'a Kind,
    device: Device,
}

impl<'a> Disk<'a> {
    /// `None` where there is no such file system, or no device.
    fn new(album: &'a Album, kind: &'a Kind) -> Option<Self> {
        let folder = album.folder.path();
        if Command::new(kind.make).arg("-V").output().is_err() {
            eprintln!("not tested: there is no {}", kind.make);
            return None;
        }
        sh("mkdir back disk; mount -t tmpfs none back", folder);
        sh(&format!("truncate -s {} back/image; {} -q back/image", kind.image_len, kind.make), folder);
        let device = Device::of(&album.path("back/image"))?;
        sh(&format!("mount -o {} {} disk", kind.options, device.0), folder);
        Some(Self { album, kind, device })
    }

    /// Mounts over the disk what a power failure leaves of it now. Metadata may reach the disk at any moment; here it does.
    fn after_power_failure(&self) -> Option<Device> {
        let folder = self.album.folder.path();
        sh("dd if=/dev/zero of=disk/unrelated bs=4k count=1 conv=fsync status=none", folder);
        sh("cp --sparse=always back/image back/copy", folder);
        let copy = Device::of(&self.album.path("back/copy"))?;
        sh(&format!("mount -o {} {} disk", self.kind.copy_options, copy.0), folder);
        Some(copy)
    }
}

fn a_power_failure_costs_what_had_not_reached_the_disk(kind: &Kind) {
    if !is_inside() {
        return;
    }
    let album =
        Album::new(9, 32 << 10, &[("one.flac", 6_000_001), ("notes.txt", 50_000), ("two.flac", 2_000_001)]);
    let folder = album.folder.path();
    let Some(disk) = Disk::new(&album, kind) else { return };
    let seed = seed(&album, "500KB/s");
    let mut durable = 0;
    for _ in 0..3 {
        let mut run = Run::start(&mut get_in(&album, Some(seed.address()), "disk"));
        run.started();
        let verified = || noted(&album).map_or(0, |resume| resume.verified.count());
        let before = verified();
        // Until the next quick note, which is not waited for.
        while verified() <= before {
            run.wait_for("status");
        }
        run.kill();

        let Some(copy) = disk.after_power_failure() else { return };
        let noted = noted(&album).expect("a record is on the disk, whatever has become of the other");
        let right = album.right_pieces(&album.path("disk/out"), &FileSelection::all());
        assert!(
            right.contains_all(&noted.durable),
            "{} noted, {} right",
            noted.durable.count(),
            right.count()
        );
        durable = durable.max(noted.durable.count());
        let mut run = Run::start(&mut get_in(&album, None, "disk"));
        assert_eq!(run.started()["pieces"], u64::from(right.count()));
        run.kill();
        sh("umount disk", folder);
        drop(copy);
    }
    assert!(durable > 0, "an earlier run's pieces are brought to the disk at the start");

    // The disk that was pulled goes on where the copy of it did, to the end, which is on the disk.
    let Some(copy) = disk.after_power_failure() else { return };
    let (status, _, said) = Run::start(&mut get_in(&album, Some(seed.address()), "disk")).ended();
    assert!(status.success(), "{said}");
    sh(&format!("umount disk; mount -o {} {} disk", kind.copy_options, copy.0), folder);
    album.assert_downloaded(&album.path("disk/out"), |_| true);
    sh("umount disk", folder);
    drop(copy);
    sh(&format!("umount disk; losetup -d {}; umount back", disk.device.0), folder);
}

/// Pieces over blocks that the disk has already change nothing of a file but its times, which have to be there, too.
#[test]
#[ignore = "needs mounts of its own, which another test provides"]
fn inside_a_run_that_ended_in_order_is_believed_after_a_power_failure() {
    for kind in [&EXT4_WITHOUT_FLUSH, &XFS] {
        if !is_inside() {
            return;
        }
        let album = Album::new(10, 32 << 10, &[("one.flac", 900_001), ("two.flac", 500_000)]);
        let folder = album.folder.path();
        let Some(disk) = Disk::new(&album, kind) else { continue };
        sh("mkdir -p disk/out/album; head -c 900001 /dev/urandom > disk/out/album/one.flac", folder);
        sh("head -c 500000 /dev/urandom > disk/out/album/two.flac; sync -f disk", folder);
        let fast = seed(&album, "50MB/s");
        let (status, _, said) =
            Run::start(get_in(&album, Some(fast.address()), "disk").arg("--overwrite")).ended();
        assert!(status.success(), "{said}");
        let Some(copy) = disk.after_power_failure() else { return };
        let mut run = Run::start(&mut get_in(&album, None, "disk"));
        let pieces = u64::from(album.layout.piece_count());
        assert_eq!((run.started()["pieces"].as_u64(), run.checked_len()), (Some(pieces), 0));
        run.signal(Signal::TERM);
        assert!(run.ended().0.success());
        album.assert_downloaded(&album.path("disk/out"), |_| true);
        sh("umount disk", folder);
        drop(copy);
        sh(&format!("umount disk; losetup -d {}; umount back", disk.device.0), folder);
    }
}

fn noted(album: &Album) -> Option<Resume> {
    Resume::load(&resume_path(&album.path("disk/state"), album.metainfo.info_hash())).ok()
}
