//! A machine that stops in the middle of a download: what the resume file says is on the disk is there, and nothing is
//! believed that memory alone had.
//!
//! The disk is a loop device. Its file, copied right after a kill and before the kernel writes back by itself, has what
//! a disk has after a power failure: what was synced, and perhaps more.

mod getting;

use getting::mounts::{Device, is_inside, run_ignored_tests, sh};
use getting::{Album, Run, get_in, seed};
use seedring::storage::{FileSelection, Resume, resume_path};

/// Runs the ignored tests of this file where they may mount.
#[test]
fn what_is_noted_as_durable_survives_the_machine() {
    run_ignored_tests();
}

#[test]
#[ignore = "needs mounts of its own, which another test provides"]
fn inside_a_power_failure_costs_what_had_not_reached_the_disk_and_no_more() {
    if !is_inside() {
        return;
    }
    let album =
        Album::new(9, 32 << 10, &[("one.flac", 6_000_001), ("notes.txt", 50_000), ("two.flac", 2_000_001)]);
    let folder = album.folder.path();
    sh("mkdir back disk after; mount -t tmpfs none back; truncate -s 64M back/image", folder);
    sh("mkfs.ext4 -q back/image", folder);
    let Some(device) = Device::of(&album.path("back/image")) else { return };
    // Nothing reaches the disk by itself for a while.
    sh(&format!("mount -o commit=300 {} disk", device.0), folder);
    let seed = seed(&album, "500KB/s");
    let mut durable = 0;
    for _ in 0..3 {
        let mut run = Run::start(&mut get_in(&album, Some(seed.address()), "disk"));
        run.started();
        let verified = || noted(&album, "disk").map_or(0, |resume| resume.verified.count());
        let before = verified();
        // Until the next note: the next run trusts what it names, and only syncing brings that to the disk.
        while verified() <= before {
            run.wait_for("status");
        }
        run.kill();
        sh("cp --sparse=always back/image back/copy", folder);

        let Some(copy) = Device::of(&album.path("back/copy")) else { return };
        sh(&format!("mount {} after", copy.0), folder);
        let noted = noted(&album, "after").unwrap();
        let right = album.right_pieces(&album.path("after/out"), &FileSelection::all());
        assert!(
            right.contains_all(&noted.durable),
            "{} noted, {} right",
            noted.durable.count(),
            right.count()
        );
        durable = durable.max(noted.durable.count());
        let mut run = Run::start(&mut get_in(&album, None, "after"));
        assert_eq!(run.started()["pieces"], u64::from(right.count()));
        run.kill();
        sh("umount after", folder);
    }
    assert!(durable > 0, "an earlier run's pieces are brought to the disk at the start");

    // The disk that was pulled goes on where the copy of it did.
    sh(&format!("umount disk; losetup -d {}", device.0), folder);
    let Some(copy) = Device::of(&album.path("back/copy")) else { return };
    sh(&format!("mount {} after", copy.0), folder);
    let (status, _, said) = Run::start(&mut get_in(&album, Some(seed.address()), "after")).ended();
    assert!(status.success(), "{said}");
    sh(&format!("umount after; mount {} after", copy.0), folder);
    album.assert_downloaded(&album.path("after/out"), |_| true);
    sh("umount after", folder);
    drop(copy);
    sh("umount back", folder);
}

fn noted(album: &Album, below: &str) -> Option<Resume> {
    Resume::load(&resume_path(&album.path(below).join("state"), album.metainfo.info_hash())).ok()
}
