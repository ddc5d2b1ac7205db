//! A rig end to end: one file's life, donations, and several threads on one client.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::io::Read;
use std::os::unix::fs::MetadataExt;

use client::{Error, WalkStatus};
use rig::{Rig, Setup};
use server::Policy;
use wire::{Errno, FdId, NewNode, Owner};

#[test]
fn mkdir_at_refuses_a_name_with_a_slash() {
    let rig = Rig::new();
    let refused = rig
        .client()
        .mkdir_at(rig.new_node(0o755), b"a/b")
        .unwrap_err();
    assert_eq!(refused, Error::Refused(Errno::INVAL));
    assert_eq!(
        rig.host_names(),
        [""; 0],
        "the host directory stays untouched"
    );
}

#[test]
fn a_file_is_made_written_read_listed_renamed_and_removed() {
    let rig = Rig::new();
    let client = rig.client();
    assert_eq!(client.open_channels(2), Ok(2));
    let made = client
        .open_create_at(rig.new_node(0o640), b"file", 2)
        .unwrap();
    // More than one message in each direction, and not a multiple of one.
    let content: Vec<u8> = (0..5_000_001_u32).map(|i| (i * 7 % 251) as u8).collect();
    assert_eq!(
        client.write_at(made.opened.id, 0, &content),
        Ok(content.len())
    );
    assert!(std::fs::read(rig.host("file")).unwrap() == content);
    let mut back = vec![0; content.len() + 100];
    assert_eq!(
        client.read_at(made.opened.id, 0, &mut back),
        Ok(content.len())
    );
    assert!(back[..content.len()] == content);
    assert_eq!(
        client.fstat(made.child.control).unwrap().size,
        content.len() as u64
    );
    client
        .rename_at((rig.root(), b"file"), (rig.root(), b"moved"))
        .unwrap();
    let dir = client.open_at(rig.root(), 0).unwrap();
    let names: Vec<_> = client
        .read_dir(dir.id)
        .map(|entry| entry.unwrap().name)
        .collect();
    assert_eq!(names, [b"moved"]);
    client.unlink_at(rig.root(), b"moved", 0).unwrap();
    assert_eq!(
        client.walk(rig.root(), &[b"moved"]).unwrap().status,
        WalkStatus::Missing
    );
    client
        .close(&[made.child.control, made.opened.id, dir.id])
        .unwrap();
    assert_eq!(
        client.fstat(made.opened.id),
        Err(Error::Refused(Errno::BADF))
    );
}

#[test]
fn regular_files_are_donated_over_the_socket_and_over_a_channel() {
    let rig = Rig::new();
    std::fs::write(rig.host("file"), "the file itself").unwrap();
    let file = rig.client().walk_one(rig.root(), b"file").unwrap();
    for channels in [0, 1] {
        if channels > 0 {
            rig.client().open_channels(channels).unwrap();
        }
        let opened = rig.client().open_at(file.control, 0).unwrap();
        let mut content = String::new();
        std::fs::File::from(opened.donated.unwrap())
            .read_to_string(&mut content)
            .unwrap();
        assert_eq!(content, "the file itself");
    }
}

#[test]
fn the_mount_point_is_donated_only_if_the_policy_says_so() {
    assert!(Rig::new().donated().is_none());
    let policy = Policy {
        donate_mount: true,
        ..Policy::default()
    };
    let rig = Rig::with(Setup {
        policy,
        ..Setup::default()
    });
    let donated = rustix::fs::fstat(rig.donated().unwrap()).unwrap();
    assert_eq!(donated.st_ino, rig.root_inode().stat.ino);
    assert!(
        rig.client()
            .open_at(rig.root(), 0)
            .unwrap()
            .donated
            .is_some()
    );
}

#[test]
fn sixteen_threads_share_one_client_without_mixing_replies() {
    let rig = Rig::new();
    rig.client().open_channels(4).unwrap();
    for number in 0..16 {
        std::fs::write(rig.host(&format!("file-{number}")), vec![number; 100]).unwrap();
    }
    std::thread::scope(|scope| {
        for number in 0..16_u8 {
            let rig = &rig;
            scope.spawn(move || {
                let name = format!("file-{number}");
                for _ in 0..50 {
                    let client = rig.client();
                    let file = client.walk_one(rig.root(), name.as_bytes()).unwrap();
                    let open = client.open_at(file.control, 0).unwrap();
                    let mut content = [0; 200];
                    assert_eq!(client.pread(open.id, 0, &mut content), Ok(100));
                    assert_eq!(content[..100], [number; 100]);
                    client.close(&[file.control, open.id]).unwrap();
                }
            });
        }
    });
    assert_eq!(
        rig.client().fstat(FdId(0)),
        Err(Error::Refused(Errno::BADF))
    );
}

#[test]
fn what_is_made_belongs_to_whom_the_client_says_and_has_no_set_id_bits() {
    let rig = Rig::new();
    let client = rig.client();
    // Whom they would belong to anyway, and somebody else, for whom it takes root.
    let owner = std::fs::metadata(rig.host("")).unwrap();
    let maker = Owner {
        uid: owner.uid(),
        gid: owner.gid(),
    };
    let other = Owner {
        uid: 4711,
        gid: 4712,
    };
    let owners = if maker.uid == 0 {
        &[maker, other][..]
    } else {
        &[maker]
    };
    for (round, owner) in owners.iter().enumerate() {
        for mode in [0o755, 0o4755, 0o2755] {
            let new = NewNode {
                owner: *owner,
                mode,
                dir: rig.root(),
            };
            let (file, dir) = (format!("f{round}{mode}"), format!("d{round}{mode}"));
            let made = client.open_create_at(new, file.as_bytes(), 2).unwrap();
            let directory = client.mkdir_at(new, dir.as_bytes()).unwrap();
            // Giving a file away takes its bits; `mkdir(2)` never sets them.
            for stat in [made.child.stat, directory.stat] {
                assert_eq!((stat.uid, stat.gid), (owner.uid, owner.gid));
                assert_eq!(stat.mode & 0o7777, 0o755, "{mode:o} for {owner:?}");
            }
            assert_eq!(client.fstat(made.child.control), Ok(made.child.stat));
        }
    }
}
