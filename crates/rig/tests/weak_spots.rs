//! The weak spots of the reference, row by row: `docs/weak-spots.md` lists them with these tests.
//! Rows whose place is the transport are tested in `channel`.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use client::Error;
use rig::{Rig, Setup};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use server::{HostUds, Policy};
use wire::msg::attr::SetStat;
use wire::msg::data::FAllocate;
use wire::msg::session::MountReply;
use wire::{Decode, Errno, FdId, Mid, Owner, Timespec};

const STREAM: u32 = 1;
const NONBLOCK: u32 = rustix::fs::OFlags::NONBLOCK.bits();

fn fifo(rig: &Rig, name: &str) -> FdId {
    rustix::fs::mknodat(
        CWD,
        rig.host(name),
        FileType::Fifo,
        Mode::RUSR | Mode::WUSR,
        0,
    )
    .unwrap();
    rig.client()
        .walk_one(rig.root(), name.as_bytes())
        .unwrap()
        .control
}

fn file(rig: &Rig, name: &str, content: &[u8]) -> FdId {
    fs::write(rig.host(name), content).unwrap();
    rig.client()
        .walk_one(rig.root(), name.as_bytes())
        .unwrap()
        .control
}

fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> Errno {
    match result {
        Err(Error::Refused(errno)) => errno,
        other => panic!("not refused: {other:?}"),
    }
}

fn set(id: FdId, mask: u32) -> SetStat {
    let time = Timespec {
        seconds: 1_000_000,
        nanoseconds: 5,
    };
    SetStat {
        id,
        mask,
        mode: 0o600,
        uid: 12,
        gid: 34,
        size: 3,
        atime: time,
        mtime: time,
    }
}

#[test]
fn row_01_opening_a_fifo_never_waits() {
    let rig = Rig::new();
    let pipe = fifo(&rig, "pipe");
    let reader = rig.client().open_at(pipe, 0).unwrap();
    let flags = rustix::fs::fcntl_getfl(reader.donated.unwrap()).unwrap();
    assert_ne!(
        flags.bits() & NONBLOCK,
        0,
        "the donated end does not wait either"
    );
    rig.client().close(&[reader.id]).unwrap();
    let no_reader = once_nobody_else_holds_it(|| {
        let opened = rig.client().open_at(pipe, 1);
        if let Ok(writer) = &opened {
            rig.client().close(&[writer.id]).unwrap();
        }
        opened.err()
    });
    assert_eq!(no_reader, Some(Error::Refused(Errno::NXIO)));
}

/// A program that another test starts has copies of our descriptors until it begins to run: tries
/// again for as long as that takes.
fn once_nobody_else_holds_it<T>(mut what: impl FnMut() -> Option<T>) -> Option<T> {
    (0..1000).find_map(|_| {
        let result = what();
        if result.is_none() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        result
    })
}

#[test]
fn row_02_a_control_id_does_not_hold_a_fifo_open() {
    let rig = Rig::new();
    let pipe = fifo(&rig, "pipe");
    let reader = rig.client().open_at(pipe, 0).unwrap();
    let writer = rig.client().open_at(pipe, 1).unwrap();
    rig.client().close(&[reader.id]).unwrap();
    drop(reader.donated);
    let writer = writer.donated.unwrap();
    let lost = once_nobody_else_holds_it(|| rustix::io::write(&writer, b"x").err());
    assert_eq!(lost, Some(rustix::io::Errno::PIPE));
}

#[test]
fn row_03_an_announced_four_gigabytes_ends_nothing_but_its_own_connection() {
    let tree = tempfile::tempdir().unwrap();
    let (socket, server) = rig::serve(tree.path(), Setup::default());
    let mut socket = UnixStream::from(socket);
    socket
        .write_all(&[0xff, 0xff, 0xff, 0xff, 3, 0, 0, 0])
        .unwrap();
    socket.write_all(&[0; 4096]).unwrap();
    drop(socket);
    server.join().unwrap();
}

#[test]
fn row_04_a_datagram_without_header_ends_its_channel_with_an_error() {
    // The hostile sides of channels are in channel/tests; here: the connection lives on.
    let rig = Rig::new();
    let line = rig.client().open_channel(channel::Wait::asleep()).unwrap();
    let answer = rig.client().request_on(line, Mid(999), &[]).unwrap();
    assert_eq!(answer.mid, Mid::ERROR);
    assert!(rig.client().fstat(rig.root()).is_ok());
}

#[test]
fn row_05_a_successor_outlives_its_deleted_predecessor() {
    let rig = Rig::new();
    let old = file(&rig, "name", b"old");
    rig.client().unlink_at(rig.root(), b"name", 0).unwrap();
    let new = file(&rig, "name", b"new");
    rig.client().close(&[old]).unwrap();
    let again = rig.client().walk_one(rig.root(), b"name").unwrap();
    assert_eq!(again.stat.ino, rig.client().fstat(new).unwrap().ino);
    rig.client()
        .rename_at((rig.root(), b"name"), (rig.root(), b"moved"))
        .unwrap();
    assert!(
        rig.client().open_at(new, 0).is_ok(),
        "both ids are the same file still"
    );
}

#[test]
fn row_06_a_deleted_link_keeps_its_target_and_a_deleted_file_its_attributes() {
    let rig = Rig::new();
    symlink("target", rig.host("link")).unwrap();
    let link = rig.client().walk_one(rig.root(), b"link").unwrap().control;
    let file = file(&rig, "file", b"");
    rig.client().fset_xattr(file, b"user.a", b"1", 0).unwrap();
    rig.client().unlink_at(rig.root(), b"link", 0).unwrap();
    rig.client().unlink_at(rig.root(), b"file", 0).unwrap();
    assert_eq!(rig.client().read_link(link).unwrap(), b"target");
    assert!(
        rig.client()
            .flist_xattr(file, 0)
            .unwrap()
            .contains(&b"user.a".to_vec())
    );
}

#[test]
fn row_07_what_needs_no_path_works_on_deleted_files() {
    let rig = Rig::new();
    let client = rig.client();
    let file = file(&rig, "file", b"content");
    let bound = client
        .bind_at(rig.new_node(0o600), b"sock", STREAM)
        .unwrap();
    client.unlink_at(rig.root(), b"file", 0).unwrap();
    client.unlink_at(rig.root(), b"sock", 0).unwrap();
    client.fset_xattr(file, b"user.a", b"1", 0).unwrap();
    assert_eq!(client.fget_xattr(file, b"user.a", 0).unwrap(), b"1");
    assert!(client.open_at(file, 2).is_ok());
    client.listen(bound.id, 1).unwrap();
    assert_eq!(refused(client.accept(bound.id)), Errno::AGAIN);
}

#[test]
fn row_24_accept_does_not_wait_though_the_client_made_its_copy_of_the_socket_wait() {
    let rig = Rig::new();
    let client = rig.client();
    let bound = client
        .bind_at(rig.new_node(0o600), b"sock", STREAM)
        .unwrap();
    client.listen(bound.id, 1).unwrap();
    rustix::fs::fcntl_setfl(&bound.socket, OFlags::empty()).unwrap();
    assert_eq!(refused(client.accept(bound.id)), Errno::AGAIN);
    let _peer = UnixStream::connect(rig.host("sock")).unwrap();
    client.accept(bound.id).unwrap();
    assert_eq!(refused(client.accept(bound.id)), Errno::AGAIN);
}

#[test]
fn row_08_renaming_a_link_over_another_of_the_same_file_deletes_nothing() {
    let rig = Rig::new();
    let one = file(&rig, "one", b"");
    rig.client().link_at(rig.root(), one, b"two").unwrap();
    rig.client()
        .rename_at((rig.root(), b"one"), (rig.root(), b"two"))
        .unwrap();
    assert_eq!(rig.host_names(), ["one", "two"], "the host does nothing");
    assert!(rig.client().open_at(one, 0).is_ok());
    rig.client().link_at(rig.root(), one, b"three").unwrap();
}

#[test]
fn row_09_changing_a_socket_never_hits_what_took_its_name() {
    let rig = Rig::new();
    let canary = tempfile::NamedTempFile::new().unwrap();
    let before = canary.as_file().metadata().unwrap();
    let _listener = UnixListener::bind(rig.host("sock")).unwrap();
    let sock = rig.client().walk_one(rig.root(), b"sock").unwrap().control;
    fs::rename(rig.host("sock"), rig.host("moved")).unwrap();
    symlink(canary.path(), rig.host("sock")).unwrap();
    let mask = SetStat::MODE | SetStat::ATIME | SetStat::MTIME | SetStat::UID | SetStat::GID;
    let reply = rig.client().set_stat(&set(sock, mask)).unwrap();
    assert_eq!((reply.failure_mask, reply.failure_errno), (0, 0));
    let moved = fs::metadata(rig.host("moved")).unwrap();
    assert_eq!((moved.mode() & 0o7777, moved.mtime()), (0o600, 1_000_000));
    assert_eq!((moved.uid(), moved.gid()), (12, 34));
    let after = canary.as_file().metadata().unwrap();
    assert_eq!(
        (after.mode(), after.mtime()),
        (before.mode(), before.mtime())
    );
}

#[test]
fn row_10_a_bound_sockets_child_is_the_file() {
    let rig = Rig::new();
    let bound = rig
        .client()
        .bind_at(rig.new_node(0o640), b"sock", STREAM)
        .unwrap();
    let host = fs::symlink_metadata(rig.host("sock")).unwrap();
    assert_eq!(bound.child.stat.ino, host.ino());
    assert_eq!(
        rig.client().fstat(bound.child.control).unwrap().ino,
        host.ino()
    );
    rig.client()
        .set_stat(&set(bound.child.control, SetStat::MODE))
        .unwrap();
    let mode = fs::symlink_metadata(rig.host("sock"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(
        mode & 0o7777,
        0o600,
        "the file's mode changed, not the socket's"
    );
}

#[test]
fn row_11_sockets_deep_in_the_tree_are_within_reach() {
    let rig = Rig::new();
    let (mut dir, mut path) = (rig.root(), rig.path().to_path_buf());
    for _ in 0..20 {
        let mut new = rig.new_node(0o755);
        new.dir = dir;
        dir = rig
            .client()
            .mkdir_at(new, b"a-directory-name")
            .unwrap()
            .control;
        path.push("a-directory-name");
    }
    assert!(path.as_os_str().len() > 300);
    let mut new = rig.new_node(0o600);
    new.dir = dir;
    let bound = rig.client().bind_at(new, b"sock", STREAM).unwrap();
    rig.client().listen(bound.id, 1).unwrap();
    rig.client()
        .connect_to(bound.child.control, STREAM)
        .unwrap();
    rig.client().accept(bound.id).unwrap();
}

#[test]
fn row_12_any_type_of_socket_finds_the_one_that_listens() {
    let rig = Rig::new();
    for kind in [1_u32, 2, 5] {
        let name = format!("sock{kind}");
        let bound = rig
            .client()
            .bind_at(rig.new_node(0o600), name.as_bytes(), kind)
            .unwrap();
        if kind != 2 {
            rig.client().listen(bound.id, 1).unwrap();
        }
        let connected = rig.client().connect_to(bound.child.control, 0).unwrap();
        let found = rustix::net::sockopt::socket_type(connected)
            .unwrap()
            .as_raw();
        assert_eq!(found, kind);
    }
}

#[test]
fn row_13_connecting_as_somebody_else_fails_rather_than_going_on() {
    let rig = Rig::new();
    let _listener = UnixListener::bind(rig.host("sock")).unwrap();
    fs::set_permissions(rig.host("sock"), fs::Permissions::from_mode(0o600)).unwrap();
    let sock = rig.client().walk_one(rig.root(), b"sock").unwrap().control;
    let mine = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    assert!(
        rig.client()
            .connect_with_creds(
                sock,
                STREAM,
                Owner {
                    uid: mine.0,
                    gid: mine.1
                }
            )
            .is_ok()
    );
    let other = rig.client().connect_with_creds(
        sock,
        STREAM,
        Owner {
            uid: mine.0 + 1,
            gid: mine.1,
        },
    );
    // Where somebody can take on other ids, they decide; elsewhere nobody else is served.
    let expected = match rig.server() {
        Some(_) => Errno::ACCES,
        None => Errno::PERM,
    };
    assert_eq!(refused(other), expected);
}

#[test]
fn row_14_a_full_queue_is_told_not_waited_for() {
    let rig = Rig::new();
    let bound = rig
        .client()
        .bind_at(rig.new_node(0o600), b"sock", STREAM)
        .unwrap();
    rig.client().listen(bound.id, 0).unwrap();
    let mut held = Vec::new();
    let full = loop {
        match rig.client().connect_to(bound.child.control, STREAM) {
            Ok(connected) => held.push(connected),
            refusal => break refused(refusal),
        }
        assert!(held.len() < 100, "the queue never fills");
    };
    assert_eq!(full, Errno::AGAIN);
}

#[test]
fn row_15_links_and_sockets_leave_no_descriptor_behind() {
    let rig = Rig::new();
    let target = file(&rig, "file", b"");
    let once = |round: usize| {
        let name = format!("n{round}");
        let link = rig
            .client()
            .link_at(rig.root(), target, name.as_bytes())
            .unwrap();
        let sock = format!("s{round}");
        let bound = rig
            .client()
            .bind_at(rig.new_node(0o600), sock.as_bytes(), STREAM)
            .unwrap();
        rig.client().listen(bound.id, 1).unwrap();
        assert_eq!(refused(rig.client().accept(bound.id)), Errno::AGAIN);
        let ids = [link.control, bound.child.control, bound.id];
        rig.client().close(&ids).unwrap();
        drop(bound.socket);
        let address = SocketAddrUnix::new(rig.host(&sock)).unwrap();
        let dead = once_nobody_else_holds_it(|| {
            // Without waiting: the queue of a listener that nobody accepts from is soon full.
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let kind = SocketType::STREAM;
            let socket = socket_with(AddressFamily::UNIX, kind, flags, None).unwrap();
            let error = connect(&socket, &address).err()?;
            (error != rustix::io::Errno::AGAIN).then_some(error)
        });
        assert_eq!(
            dead,
            Some(rustix::io::Errno::CONNREFUSED),
            "nobody listens any more"
        );
    };
    once(0);
    let held = rig.held().len();
    (1..50).for_each(once);
    assert_eq!(rig.held().len(), held);
}

#[test]
fn row_16_entries_say_what_looking_at_them_says() {
    let rig = Rig::new();
    for name in ["a", "b", "c"] {
        file(&rig, name, b"");
    }
    fs::create_dir(rig.host("d")).unwrap();
    let dir = rig.client().open_at(rig.root(), 0).unwrap().id;
    let entries = rig.client().getdents64(dir, -65536).unwrap();
    assert_eq!(entries.len(), 4);
    for entry in entries {
        let stat = rig.client().walk_one(rig.root(), &entry.name).unwrap().stat;
        assert_eq!(
            (entry.ino, entry.dev_major, entry.dev_minor),
            (stat.ino, stat.dev_major, stat.dev_minor)
        );
        assert_eq!(u16::from(entry.kind), stat.mode >> 12);
    }
}

#[test]
fn row_17_a_huge_listing_comes_in_pieces_that_lose_nothing() {
    let rig = Rig::new();
    for number in 0..50_000 {
        fs::File::create(rig.host(&format!("{number}"))).unwrap();
    }
    let dir = rig.client().open_at(rig.root(), 0).unwrap().id;
    let mut names = std::collections::BTreeSet::new();
    let mut count = i32::MIN;
    loop {
        let entries = rig.client().getdents64(dir, count).unwrap();
        if entries.is_empty() {
            break;
        }
        names.extend(entries.into_iter().map(|entry| entry.name));
        count = i32::MAX;
    }
    assert_eq!(names.len(), 50_000);
}

#[test]
fn row_18_a_value_that_cannot_travel_is_an_error_not_an_empty_value() {
    // Only tmpfs and a few others store values this long.
    let rig = Rig::serving(tempfile::tempdir_in("/dev/shm").unwrap(), Setup::default());
    let id = file(&rig, "file", b"");
    let value = vec![b'x'; 65536];
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(rig.host("file"), "user.long", &value, flags).unwrap();
    assert_eq!(
        refused(rig.client().fget_xattr(id, b"user.long", 0)),
        Errno::TOOBIG
    );
}

#[test]
fn row_19_asking_for_the_size_brings_the_value_itself() {
    let rig = Rig::new();
    let id = file(&rig, "file", b"");
    rig.client().fset_xattr(id, b"user.a", b"value", 0).unwrap();
    for size in [0, 5, 65536, u32::MAX] {
        assert_eq!(
            rig.client().fget_xattr(id, b"user.a", size).unwrap(),
            b"value",
            "{size}"
        );
    }
    assert_eq!(
        refused(rig.client().fget_xattr(id, b"user.a", 4)),
        Errno::RANGE
    );
}

#[test]
fn values_and_lists_of_any_length_come_whole() {
    // Only tmpfs and a few others store values this long.
    let rig = Rig::serving(tempfile::tempdir_in("/dev/shm").unwrap(), Setup::default());
    let id = file(&rig, "file", b"");
    let mut set = Vec::new();
    for length in [0_usize, 255, 256, 257, 5000, 65535] {
        let name = format!("user.{length:0>100}").into_bytes();
        let value = vec![b'x'; length];
        rig.client().fset_xattr(id, &name, &value, 0).unwrap();
        let exactly = u32::try_from(length).unwrap();
        for room in [0, exactly, 65535] {
            let whole = rig.client().fget_xattr(id, &name, room).unwrap();
            assert_eq!(whole, value, "{length} bytes with room for {room}");
        }
        set.push(name);
        let mut listed = rig.client().flist_xattr(id, 0).unwrap();
        listed.retain(|name| name.starts_with(b"user."));
        listed.sort();
        set.sort();
        assert_eq!(listed, set);
    }
}

#[test]
fn row_20_extended_attributes_can_be_set_and_removed() {
    let rig = Rig::new();
    let id = file(&rig, "file", b"");
    rig.client().fset_xattr(id, b"user.a", b"1", 1).unwrap();
    assert_eq!(
        refused(rig.client().fset_xattr(id, b"user.a", b"2", 1)),
        Errno::EXIST
    );
    rig.client().fset_xattr(id, b"user.a", b"2", 2).unwrap();
    rig.client().fremove_xattr(id, b"user.a").unwrap();
    assert_eq!(
        refused(rig.client().fget_xattr(id, b"user.a", 0)),
        Errno::NODATA
    );
}

#[test]
fn row_21_a_full_disk_keeps_what_was_written() {
    let tree = tempfile::tempdir().unwrap();
    let flags = rustix::mount::MountFlags::empty();
    let options = c"size=64k";
    if rustix::mount::mount("row21", tree.path(), "tmpfs", flags, Some(options)).is_err() {
        eprintln!("skipped: mounting a small file system needs CAP_SYS_ADMIN");
        return;
    }
    let rig = Rig::serving(tree, Setup::default());
    let id = file(&rig, "file", b"");
    let open = rig.client().open_at(id, 1).unwrap().id;
    let count = rig.client().pwrite(open, 0, &[b'x'; 256 << 10]).unwrap();
    assert_eq!(count, 64 << 10, "as much as there is room for");
    assert_eq!(
        refused(rig.client().pwrite(open, 64 << 10, b"x")),
        Errno::NOSPC
    );
    let detach = rustix::mount::UnmountFlags::DETACH;
    rustix::mount::unmount(rig.path(), detach).unwrap();
}

#[test]
fn row_22_other_modes_of_fallocate_are_refused() {
    let rig = Rig::new();
    let id = file(&rig, "file", b"0123456789");
    let open = rig.client().open_at(id, 2).unwrap().id;
    let punch = FAllocate {
        open,
        mode: 3,
        offset: 0,
        length: 5,
    };
    assert_eq!(refused(rig.client().fallocate(&punch)), Errno::OPNOTSUPP);
    assert_eq!(fs::read(rig.host("file")).unwrap(), b"0123456789");
    rig.client()
        .fallocate(&FAllocate {
            mode: 0,
            length: 20,
            ..punch
        })
        .unwrap();
    assert_eq!(fs::metadata(rig.host("file")).unwrap().len(), 20);
}

#[test]
fn row_23_a_read_only_connection_binds_nothing() {
    let rig = Rig::with(Setup {
        readonly: true,
        ..Setup::default()
    });
    let bound = rig.client().bind_at(rig.new_node(0o600), b"sock", STREAM);
    assert_eq!(refused(bound), Errno::ROFS);
    assert_eq!(rig.host_names(), [""; 0]);
}

#[test]
fn row_24_a_client_cannot_move_the_servers_position_in_a_directory() {
    let policy = Policy {
        donate_mount: true,
        ..Setup::default().policy
    };
    let rig = Rig::with(Setup {
        policy,
        ..Setup::default()
    });
    file(&rig, "one", b"");
    let opened = rig.client().open_at(rig.root(), 0).unwrap();
    let mut room = Vec::with_capacity(4096);
    let theirs = opened.donated.unwrap();
    while rustix::fs::RawDir::new(&theirs, room.spare_capacity_mut())
        .next()
        .is_some()
    {}
    room.clear();
    assert_eq!(rig.client().getdents64(opened.id, 65536).unwrap().len(), 1);
}

#[test]
fn row_25_a_failed_request_leaves_no_descriptor_for_the_next() {
    let rig = Rig::new();
    let id = file(&rig, "file", b"");
    for line in rig.lines() {
        let client = rig.client();
        // Opens, then fails for want of an id, then asks for something that donates nothing.
        let answer = client.request_on(line, Mid::OPEN_AT, &[0xff; 16]).unwrap();
        assert_eq!((answer.mid, answer.fds.len()), (Mid::ERROR, 0));
        let answer = client
            .request_on(line, Mid::FSTAT, &id.0.to_le_bytes())
            .unwrap();
        assert_eq!((answer.mid, answer.fds.len()), (Mid::FSTAT, 0));
    }
}

#[test]
fn row_26_a_failed_walk_takes_back_its_own_ids_and_no_others() {
    let rig = Rig::new();
    let kept = file(&rig, "kept", b"");
    fs::create_dir(rig.host("dir")).unwrap();
    let walked = rig.client().walk(rig.root(), &[b"dir", b".."]);
    assert_eq!(refused(walked), Errno::INVAL);
    assert!(rig.client().fstat(kept).is_ok());
    let next = rig.client().walk_one(rig.root(), b"dir").unwrap().control;
    assert_eq!(
        next.0 & 0xffff_ffff,
        3,
        "the slot of the id taken back is free again"
    );
}

#[test]
fn row_28_descriptors_of_a_request_go_nowhere() {
    let tree = tempfile::tempdir().unwrap();
    let (socket, server) = rig::serve(tree.path(), Setup::default());
    let canary = tempfile::tempfile().unwrap();
    send_with_fd(&socket, &[0, 0, 0, 0, 1, 0, 0, 0], &canary.into());
    let mut socket = UnixStream::from(socket);
    let mut reply = [0; 8 + 222];
    socket.read_exact(&mut reply).unwrap();
    let mounted = MountReply::from_payload(&reply[8..]).unwrap();
    assert_eq!(
        mounted.root.control,
        FdId(1),
        "the request was answered as any other"
    );
    drop(socket);
    server.join().unwrap();
}

fn send_with_fd(socket: &OwnedFd, bytes: &[u8], fd: &OwnedFd) {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let fds = [fd.as_fd()];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let parts = [std::io::IoSlice::new(bytes)];
    assert_eq!(
        sendmsg(socket, &parts, &mut control, SendFlags::empty()).unwrap(),
        bytes.len()
    );
}

#[test]
fn row_29_every_descriptor_closes_on_exec() {
    let rig = Rig::new();
    let _lines = rig.lines();
    let id = file(&rig, "file", b"");
    let _open = rig.client().open_at(id, 0).unwrap();
    let _bound = rig
        .client()
        .bind_at(rig.new_node(0o600), b"sock", STREAM)
        .unwrap();
    let mut seen = 0;
    for fd in rig.held() {
        let info = fd.parent().unwrap().with_file_name("fdinfo");
        let Ok(info) = fs::read_to_string(info.join(fd.file_name().unwrap())) else {
            continue;
        };
        let flags = info
            .lines()
            .find_map(|line| line.strip_prefix("flags:"))
            .unwrap();
        let flags = u32::from_str_radix(flags.trim(), 8).unwrap();
        assert_ne!(flags & rustix::fs::OFlags::CLOEXEC.bits(), 0, "{fd:?}");
        seen += 1;
    }
    assert!(seen >= 3, "the tree's files are among the descriptors");
}

#[test]
fn row_30_an_id_follows_its_file_when_others_move_it() {
    let rig = Rig::new();
    let listener = UnixListener::bind(rig.host("sock")).unwrap();
    let sock = rig.client().walk_one(rig.root(), b"sock").unwrap().control;
    let target = file(&rig, "file", b"here");
    fs::rename(rig.host("sock"), rig.host("elsewhere")).unwrap();
    fs::rename(rig.host("file"), rig.host("moved")).unwrap();
    rig.client().connect_to(sock, STREAM).unwrap();
    listener.accept().unwrap();
    rig.client().link_at(rig.root(), target, b"linked").unwrap();
    assert_eq!(fs::read(rig.host("linked")).unwrap(), b"here");
}

#[test]
fn row_31_renaming_a_missing_file_to_itself_is_an_error() {
    let rig = Rig::new();
    let same = rig
        .client()
        .rename_at((rig.root(), b"no"), (rig.root(), b"no"));
    assert_eq!(refused(same), Errno::NOENT);
    file(&rig, "yes", b"");
    rig.client()
        .rename_at((rig.root(), b"yes"), (rig.root(), b"yes"))
        .unwrap();
}

#[test]
fn row_32_a_client_holds_no_more_ids_than_its_budget() {
    let policy = Policy {
        ids_max: 10,
        ..Setup::default().policy
    };
    let rig = Rig::with(Setup {
        policy,
        ..Setup::default()
    });
    let first = file(&rig, "file", b"");
    let full = loop {
        match rig.client().walk_one(rig.root(), b"file") {
            Ok(_) => {}
            refusal => break refused(refusal),
        }
    };
    assert_eq!(full, Errno::MFILE);
    assert_eq!(
        refused(rig.client().mkdir_at(rig.new_node(0o755), b"dir")),
        Errno::MFILE
    );
    assert_eq!(
        rig.host_names(),
        ["file"],
        "what could not be handed over is not left behind"
    );
    rig.client().close(&[first]).unwrap();
    rig.client().walk_one(rig.root(), b"file").unwrap();
}

#[test]
fn row_33_a_file_without_read_permission_can_be_changed() {
    let rig = Rig::new();
    let id = file(&rig, "file", b"12345");
    fs::set_permissions(rig.host("file"), fs::Permissions::from_mode(0o000)).unwrap();
    let reply = rig.client().set_stat(&set(id, SetStat::MODE)).unwrap();
    assert_eq!(reply.failure_mask, 0);
    rig.client().fset_xattr(id, b"user.a", b"1", 0).unwrap();
}

#[test]
fn row_34_walking_to_a_device_does_not_open_it() {
    let dev = tempfile::tempdir().unwrap();
    let made = rustix::fs::mknodat(
        CWD,
        dev.path().join("null"),
        FileType::CharacterDevice,
        Mode::RUSR,
        rustix::fs::makedev(1, 3),
    );
    if made.is_err() {
        eprintln!("skipped: making a device needs CAP_MKNOD");
        return;
    }
    let rig = Rig::serving(
        dev,
        Setup {
            character_devices: false,
            ..Setup::default()
        },
    );
    let null = rig.client().walk_one(rig.root(), b"null").unwrap();
    assert_eq!(null.stat.mode >> 12, 2);
    assert_eq!((null.stat.rdev_major, null.stat.rdev_minor), (1, 3));
    assert_eq!(refused(rig.client().open_at(null.control, 0)), Errno::PERM);
}

#[test]
fn row_35_the_first_failure_is_the_one_told() {
    let rig = Rig::new();
    fs::create_dir(rig.host("dir")).unwrap();
    let dir = rig.client().walk_one(rig.root(), b"dir").unwrap().control;
    let mut request = set(dir, SetStat::SIZE | SetStat::ATIME);
    request.atime.nanoseconds = 2_000_000_000;
    let reply = rig.client().set_stat(&request).unwrap();
    assert_eq!(reply.failure_mask, SetStat::SIZE | SetStat::ATIME);
    assert_eq!(Errno::new(reply.failure_errno), Errno::ISDIR);
}

#[test]
fn row_36_the_mount_point_stays_what_it_was_when_its_path_changes() {
    let parent = tempfile::tempdir().unwrap();
    fs::create_dir(parent.path().join("tree")).unwrap();
    fs::write(parent.path().join("tree/inside"), b"").unwrap();
    let (socket, server) = rig::serve(&parent.path().join("tree"), Setup::default());
    fs::rename(parent.path().join("tree"), parent.path().join("away")).unwrap();
    symlink("/", parent.path().join("tree")).unwrap();
    let (client, mounted) = client::Client::connect(socket).unwrap();
    assert!(client.walk_one(mounted.root.control, b"inside").is_ok());
    drop(client);
    server.join().unwrap();
}

#[test]
fn row_37_files_have_a_birth_time() {
    let rig = Rig::new();
    let id = file(&rig, "file", b"");
    let stat = rig.client().fstat(id).unwrap();
    let Ok(born) = fs::metadata(rig.host("file")).unwrap().created() else {
        assert_eq!(
            stat.mask & 0x800,
            0,
            "the file system has none, and neither have we"
        );
        return;
    };
    let born = born.duration_since(std::time::UNIX_EPOCH).unwrap();
    let seconds = u64::try_from(stat.btime.seconds).unwrap();
    assert_eq!(Duration::new(seconds, stat.btime.nanoseconds), born);
}

#[test]
fn owners_and_modes_of_new_files_are_as_asked() {
    let rig = Rig::new();
    let mut new = rig.new_node(0o4751);
    new.owner = Owner { uid: 7, gid: 8 };
    rig.client().mkdir_at(new, b"dir").unwrap();
    rig.client()
        .open_create_at(rig.new_node(0o640), b"file", 2)
        .unwrap();
    let dir = fs::metadata(rig.host("dir")).unwrap();
    assert_eq!((dir.uid(), dir.gid(), dir.mode() & 0o777), (7, 8, 0o751));
    assert_eq!(
        fs::metadata(rig.host("file")).unwrap().mode() & 0o7777,
        0o640
    );
}

trait Held {
    fn held(&self) -> Vec<PathBuf>;
}

impl Held for Rig {
    /// Descriptors of the server, by their places in `/proc`: all but the standard ones, or, in a
    /// process that is also the test's, those on the rig's tree.
    fn held(&self) -> Vec<PathBuf> {
        let process = match self.server() {
            Some(pid) => pid.as_raw_nonzero().to_string(),
            None => "self".to_owned(),
        };
        let fds = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
        let fds = fds.map(|fd| fd.unwrap().path()).filter(|fd| {
            let number: i32 = fd.file_name().unwrap().to_str().unwrap().parse().unwrap();
            let link = fs::read_link(fd).unwrap_or_default();
            let other = self.server().is_some() && number > 2;
            other || link.starts_with(self.path())
        });
        fds.collect()
    }
}

#[test]
fn a_donated_file_is_the_file() {
    let rig = Rig::new();
    let id = file(&rig, "file", b"content");
    let donated = rig.client().open_at(id, 0).unwrap().donated.unwrap();
    assert!(donated.as_raw_fd() > 2);
    let mut content = [0; 7];
    rustix::io::pread(&donated, &mut content, 0).unwrap();
    assert_eq!(&content, b"content");
}

#[test]
fn sockets_are_refused_by_policy() {
    let policy = Policy {
        host_uds: HostUds::default(),
        ..Setup::default().policy
    };
    let rig = Rig::with(Setup {
        policy,
        ..Setup::default()
    });
    let _listener = UnixListener::bind(rig.host("sock")).unwrap();
    let sock = rig.client().walk_one(rig.root(), b"sock").unwrap().control;
    assert_eq!(refused(rig.client().connect_to(sock, STREAM)), Errno::PERM);
    let bound = rig.client().bind_at(rig.new_node(0o600), b"new", STREAM);
    assert_eq!(refused(bound), Errno::PERM);
    assert_eq!(refused(rig.client().open_at(sock, 0)), Errno::PERM);
}
