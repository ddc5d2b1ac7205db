//! Real disks, small ones: file systems made in a file and mounted through a loop device.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use wire::Errno;

use crate::{House, Mounted, O_RDWR, new_node, refused};

const MIB: usize = 1 << 20;

fn run(words: &[&str]) {
    let mut command = Command::new(words[0]);
    let output = command.args(&words[1..]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {said}");
}

/// Makes a file system and mounts it on a volume; nothing, where the machine cannot. The loop device
/// goes when it is unmounted.
fn mount_disk(house: &House, volume: usize, kind: &str, mebibytes: usize) -> Option<Mounted> {
    let image = house.dir.path().join(format!("image{volume}"));
    let bytes = (mebibytes * MIB) as u64;
    File::create(&image).unwrap().set_len(bytes).unwrap();
    let on = house.volume(volume);
    let mut make = Command::new(format!("mkfs.{kind}"));
    let made = make.arg("-q").arg(&image).output();
    let mut mount = Command::new("mount");
    let mount = mount.args(["-o", "loop"]).args([&image, &on]);
    for done in [made, mount.output()] {
        let why = match done {
            Ok(output) if output.status.success() => continue,
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        let ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
        assert!(!ci, "under CI nothing may be skipped: {kind}: {why}");
        println!("skipped: no {kind} of the test's own here: {why}");
        return None;
    }
    Some(Mounted(on))
}

fn size(path: &Path) -> usize {
    fs::metadata(path).unwrap().size() as usize
}

#[test]
fn a_full_ext4_keeps_all_that_was_acknowledged_and_works_again_once_there_is_room() {
    let house = House::new(2);
    let Some(disk) = mount_disk(&house, 0, "ext4", 16) else {
        return;
    };
    let mut served = house.start(&[]);
    let (client, root) = served.connect();
    let (other, other_root) = served.connect();
    for channels in [0, 1] {
        if channels > 0 {
            client.open_channels(channels).unwrap();
        }
        let big = client.open_create_at(new_node(root), b"big", O_RDWR);
        let big = big.unwrap();
        let (mut written, chunk) = (0, vec![0xA5; MIB]);
        let errno = loop {
            assert!(written < 16 * MIB, "a full disk takes no more");
            match client.pwrite(big.opened.id, written as u64, &chunk) {
                Ok(count) => written += count,
                refusal => break refused(refusal),
            }
        };
        assert_eq!(errno, Errno::NOSPC);
        assert!(written > 8 * MIB, "most of the disk: {written}");
        client.fsync(&[big.opened.id]).unwrap();
        let on_host = fs::read(disk.0.join("big")).unwrap();
        assert_eq!(on_host.len(), written);
        assert!(on_host.iter().all(|byte| *byte == 0xA5));
        // Who is on another disk notices nothing.
        let name = format!("file{channels}");
        let made = other.open_create_at(new_node(other_root), name.as_bytes(), O_RDWR);
        assert_eq!(other.write_at(made.unwrap().opened.id, 0, &chunk), Ok(MIB));
        client.unlink_at(root, b"big", 0).unwrap();
        client.close(&[big.opened.id, big.child.control]).unwrap();
        // The descriptor that was donated keeps the file alive as well.
        drop(big);
        let again = client.open_create_at(new_node(root), b"again", O_RDWR);
        let again = again.unwrap();
        assert_eq!(client.write_at(again.opened.id, 0, &chunk), Ok(MIB));
        client.unlink_at(root, b"again", 0).unwrap();
        client
            .close(&[again.opened.id, again.child.control])
            .unwrap();
    }
    drop((client, other));
    served.end();
}

/// btrfs has quotas of its own: they are there whatever else the kernel was built with.
#[test]
fn a_quota_of_a_subvolume_refuses_what_is_beyond_it_and_nothing_elsewhere() {
    let house = House::new(1);
    let Some(disk) = mount_disk(&house, 0, "btrfs", 128) else {
        return;
    };
    let (top, limited) = (disk.0.clone(), disk.0.join("limited"));
    run(&["btrfs", "quota", "enable", top.to_str().unwrap()]);
    run(&["btrfs", "subvolume", "create", limited.to_str().unwrap()]);
    run(&["btrfs", "qgroup", "limit", "2M", limited.to_str().unwrap()]);
    let mut served = house.start(&[]);
    let (client, root) = served.connect();
    let inside = client.walk_one(root, b"limited").unwrap().control;
    let file = client.open_create_at(new_node(inside), b"file", O_RDWR);
    let file = file.unwrap().opened.id;
    let mut written = 0;
    for channels in [0, 1] {
        if channels > 0 {
            client.open_channels(channels).unwrap();
        }
        let errno = loop {
            assert!(written < 4 * MIB, "the quota is 2 MiB");
            match client.pwrite(file, written as u64, &[1; 64 << 10]) {
                Ok(count) => written += count,
                refusal => break refused(refusal),
            }
        };
        assert_eq!(errno, Errno::DQUOT);
        assert!(written > 0);
        assert_eq!(size(&limited.join("file")), written);
        let name = format!("free{channels}");
        let free = client.open_create_at(new_node(root), name.as_bytes(), O_RDWR);
        let content = vec![2; 3 * MIB];
        let wrote = client.write_at(free.unwrap().opened.id, 0, &content);
        assert_eq!(wrote, Ok(content.len()), "no quota there");
        // What is there can still be read.
        assert_eq!(client.pread(file, 0, &mut [0; 100]), Ok(100));
    }
    drop(client);
    served.end();
}
