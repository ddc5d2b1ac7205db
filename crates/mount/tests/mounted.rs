//! Trees mounted for real, seen through the kernel as any program sees them, beside the host's own
//! view. Needs root and `/dev/fuse`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{
    DirEntryExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink,
};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use mount::Options;
use rig::Setup;
use rustix::fs::{AtFlags, CWD, FallocateFlags, RenameFlags, XattrFlags};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;

/// A directory on the host, and the same directory through a server and the kernel.
struct Twin {
    host: TempDir,
    point: TempDir,
    session: Option<JoinHandle<()>>,
    server: Option<JoinHandle<()>>,
}

impl Twin {
    fn new() -> Option<Self> {
        Self::with(Setup::default(), Options::default())
    }

    /// Nothing, and a line that says so, where FUSE cannot be had.
    fn with(setup: Setup, options: Options) -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
            println!("skipped: needs root and /dev/fuse");
            return None;
        }
        let host = tempfile::tempdir().unwrap();
        let point = tempfile::tempdir().unwrap();
        let (socket, server) = rig::serve(host.path(), setup);
        let (client, mounted) = client::Client::connect(socket).unwrap();
        client.open_channels(2).unwrap();
        let session = mount::mount(client, &mounted.root, point.path(), &options).unwrap();
        let session = std::thread::spawn(move || session.serve().unwrap());
        Some(Self {
            host,
            point,
            session: Some(session),
            server: Some(server),
        })
    }

    fn host(&self, name: &str) -> PathBuf {
        self.host.path().join(name)
    }

    fn here(&self, name: &str) -> PathBuf {
        self.point.path().join(name)
    }
}

impl Drop for Twin {
    fn drop(&mut self) {
        unmount(self.point.path(), UnmountFlags::empty()).unwrap();
        self.session.take().unwrap().join().unwrap();
        self.server.take().unwrap().join().unwrap();
    }
}

/// Attributes that do not depend on the moment.
fn facts(path: &Path) -> (u32, u64, u64, u32, u32, u64, i64, i64) {
    let m = fs::symlink_metadata(path).unwrap();
    (
        m.mode(),
        m.ino(),
        m.nlink(),
        m.uid(),
        m.gid(),
        m.len(),
        m.mtime(),
        m.mtime_nsec(),
    )
}

fn error<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

#[test]
fn everything_looks_as_on_the_host() {
    let Some(twin) = Twin::new() else { return };
    fs::write(twin.host("file"), b"content").unwrap();
    fs::set_permissions(twin.host("file"), fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(twin.host("file"), Some(11), Some(12)).unwrap();
    fs::create_dir(twin.host("dir")).unwrap();
    symlink("nowhere/at all", twin.host("link")).unwrap();
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(CWD, twin.host("fifo"), kind, 0o600.into(), 0).unwrap();
    for name in ["file", "dir", "link", "fifo"] {
        assert_eq!(facts(&twin.here(name)), facts(&twin.host(name)), "{name}");
    }
    assert_eq!(fs::read(twin.here("file")).unwrap(), b"content");
    let target = fs::read_link(twin.here("link")).unwrap();
    assert_eq!(target, Path::new("nowhere/at all"));
    let (here, host) = (
        rustix::fs::statvfs(twin.point.path()).unwrap(),
        rustix::fs::statvfs(twin.host.path()).unwrap(),
    );
    assert_eq!((here.f_bsize, here.f_blocks), (host.f_bsize, host.f_blocks));
    assert_eq!(
        (here.f_files, here.f_namemax),
        (host.f_files, host.f_namemax)
    );
}

#[test]
fn what_is_made_through_the_mount_is_there_on_the_host() {
    let Some(twin) = Twin::new() else { return };
    fs::write(twin.here("a"), b"one").unwrap();
    fs::hard_link(twin.here("a"), twin.here("b")).unwrap();
    fs::create_dir(twin.here("d")).unwrap();
    symlink("a", twin.here("l")).unwrap();
    fs::rename(twin.here("b"), twin.here("d/c")).unwrap();
    for name in ["a", "d", "l", "d/c"] {
        assert_eq!(facts(&twin.here(name)), facts(&twin.host(name)), "{name}");
    }
    assert_eq!(fs::metadata(twin.host("d/c")).unwrap().nlink(), 2);
    fs::remove_file(twin.here("a")).unwrap();
    fs::remove_file(twin.here("l")).unwrap();
    assert_eq!(error(fs::remove_dir(twin.here("d"))), 39);
    fs::remove_file(twin.here("d/c")).unwrap();
    fs::remove_dir(twin.here("d")).unwrap();
    assert_eq!(fs::read_dir(twin.host.path()).unwrap().count(), 0);
}

#[test]
fn errors_are_those_of_the_host() {
    let Some(twin) = Twin::new() else { return };
    fs::write(twin.here("file"), b"").unwrap();
    fs::create_dir(twin.here("dir")).unwrap();
    let long = "n".repeat(256);
    for root in [twin.host.path(), twin.point.path()] {
        let at = |name: &str| root.join(name);
        assert_eq!(error(File::open(at("none"))), 2);
        assert_eq!(error(File::open(at("file/x"))), 20);
        assert_eq!(error(fs::create_dir(at("dir"))), 17);
        assert_eq!(error(fs::remove_file(at("dir"))), 21);
        assert_eq!(error(fs::remove_dir(at("file"))), 20);
        assert_eq!(error(File::create_new(at("file"))), 17);
        assert_eq!(error(File::create(at("dir"))), 21);
        assert_eq!(error(File::open(at(&long))), 36);
        assert_eq!(error(fs::rename(at("dir"), at("dir/in"))), 22);
        assert_eq!(error(fs::rename(at("dir"), at("file"))), 20);
        assert_eq!(error(fs::hard_link(at("dir"), at("other"))), 1);
        assert_eq!(error(symlink("", at("empty"))), 2);
    }
}

#[test]
fn data_goes_through_every_way_of_opening() {
    for options in [
        Options::default(),
        Options {
            passthrough: false,
            ..Options::default()
        },
        Options {
            page_cache: false,
            ..Options::default()
        },
    ] {
        let Some(twin) = Twin::with(Setup::default(), options) else {
            return;
        };
        let big: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
        fs::write(twin.here("big"), &big).unwrap();
        assert!(fs::read(twin.host("big")).unwrap() == big);
        assert!(fs::read(twin.here("big")).unwrap() == big);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(twin.here("big"))
            .unwrap();
        // A second opening for less, while the first is there.
        let reader = File::open(twin.here("big")).unwrap();
        file.write_all_at(b"middle", 1_000_000).unwrap();
        let mut middle = [0; 6];
        reader.read_exact_at(&mut middle, 1_000_000).unwrap();
        assert_eq!(&middle, b"middle");
        file.set_len(10).unwrap();
        assert_eq!(fs::metadata(twin.host("big")).unwrap().len(), 10);
        file.sync_all().unwrap();
        let mut more = OpenOptions::new()
            .append(true)
            .open(twin.here("big"))
            .unwrap();
        more.write_all(b"end").unwrap();
        assert_eq!(fs::read(twin.here("big")).unwrap().len(), 13);
        drop((file, reader, more));
        fs::remove_file(twin.here("big")).unwrap();
    }
}

#[test]
fn a_file_that_lost_its_name_or_permissions_stays_usable_where_it_is_open() {
    let Some(twin) = Twin::new() else { return };
    let mut file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(twin.here("f"))
        .unwrap();
    fs::set_permissions(twin.here("f"), fs::Permissions::from_mode(0o0)).unwrap();
    fs::remove_file(twin.here("f")).unwrap();
    file.write_all(b"still").unwrap();
    file.set_len(3).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "sti");
    let there = file.metadata().unwrap();
    assert_eq!((there.nlink(), there.len()), (0, 3));
}

#[test]
fn attributes_change_on_the_host_and_set_id_bits_survive_the_owner() {
    let Some(twin) = Twin::new() else { return };
    let mut how = OpenOptions::new();
    how.write(true).create_new(true).mode(0o4755);
    drop(how.open(twin.here("f")).unwrap());
    assert_eq!(fs::metadata(twin.host("f")).unwrap().mode(), 0o104_755);
    std::os::unix::fs::chown(twin.here("f"), Some(5), Some(6)).unwrap();
    let before_1970 = SystemTime::UNIX_EPOCH - Duration::new(5, 250);
    let times = fs::FileTimes::new().set_modified(before_1970);
    File::open(twin.here("f"))
        .unwrap()
        .set_times(times)
        .unwrap();
    let host = fs::metadata(twin.host("f")).unwrap();
    assert_eq!((host.mode(), host.uid(), host.gid()), (0o100_755, 5, 6));
    assert_eq!((host.mtime(), host.mtime_nsec()), (-6, 999_999_750));
    assert_eq!(facts(&twin.here("f")), facts(&twin.host("f")));
}

#[test]
fn a_setgid_directory_gives_its_group() {
    let Some(twin) = Twin::new() else { return };
    fs::create_dir(twin.here("d")).unwrap();
    std::os::unix::fs::chown(twin.here("d"), None, Some(77)).unwrap();
    fs::set_permissions(twin.here("d"), fs::Permissions::from_mode(0o2775)).unwrap();
    fs::write(twin.here("d/f"), b"").unwrap();
    fs::create_dir(twin.here("d/sub")).unwrap();
    assert_eq!(fs::metadata(twin.host("d/f")).unwrap().gid(), 77);
    let sub = fs::metadata(twin.host("d/sub")).unwrap();
    assert_eq!((sub.gid(), sub.mode() & 0o2000), (77, 0o2000));
}

#[test]
fn names_are_swapped_and_kept_as_told() {
    let Some(twin) = Twin::new() else { return };
    fs::write(twin.here("a"), b"A").unwrap();
    fs::write(twin.here("b"), b"B").unwrap();
    let rename = |flags| rustix::fs::renameat_with(CWD, twin.here("a"), CWD, twin.here("b"), flags);
    assert_eq!(rename(RenameFlags::NOREPLACE), Err(Errno::EXIST));
    rename(RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs::read(twin.here("a")).unwrap(), b"B");
    assert_eq!(fs::read(twin.host("b")).unwrap(), b"A");
}

#[test]
fn extended_attributes_are_the_hosts() {
    let Some(twin) = Twin::new() else { return };
    fs::write(twin.here("f"), b"").unwrap();
    let (here, host) = (twin.here("f"), twin.host("f"));
    let set = |name: &str, flags| rustix::fs::setxattr(&here, name, b"value", flags);
    match set("user.one", XattrFlags::CREATE) {
        Err(Errno::OPNOTSUPP) => {
            println!("skipped: the temporary directory has no extended attributes");
            return;
        }
        done => done.unwrap(),
    }
    assert_eq!(set("user.one", XattrFlags::CREATE), Err(Errno::EXIST));
    assert_eq!(set("user.two", XattrFlags::REPLACE), Err(Errno::NODATA));
    let mut room = [0_u8; 64];
    let length = rustix::fs::getxattr(&host, "user.one", &mut room).unwrap();
    assert_eq!(&room[..length], b"value");
    let length = rustix::fs::listxattr(&here, &mut room).unwrap();
    assert_eq!(&room[..length], b"user.one\0");
    assert_eq!(
        rustix::fs::getxattr(&here, "user.one", &mut room[..2]),
        Err(Errno::RANGE)
    );
    rustix::fs::removexattr(&here, "user.one").unwrap();
    assert_eq!(
        rustix::fs::getxattr(&host, "user.one", &mut room),
        Err(Errno::NODATA)
    );
}

#[test]
fn programs_meet_at_sockets_and_fifos_that_the_server_makes() {
    for special_files in [true, false] {
        let mut setup = Setup::default();
        setup.policy.special_files = special_files;
        let Some(twin) = Twin::with(setup, Options::default()) else {
            return;
        };
        meet_at_a_socket(&twin);
        let (kind, mode) = (rustix::fs::FileType::Fifo, 0o640.into());
        let made = rustix::fs::mknodat(CWD, twin.here("p"), kind, mode, 0);
        if !special_files {
            assert_eq!(made, Err(Errno::PERM));
            continue;
        }
        made.unwrap();
        assert_eq!(facts(&twin.here("p")), facts(&twin.host("p")));
        let path = twin.here("p");
        let writer = std::thread::spawn(move || fs::write(path, b"through a pipe"));
        let read = fs::read(twin.here("p")).unwrap();
        writer.join().unwrap().unwrap();
        assert_eq!(read, b"through a pipe");
    }
}

#[test]
fn of_devices_only_whiteouts_are_made() {
    let Some(twin) = Twin::new() else { return };
    let make = |name: &str, kind, device| {
        rustix::fs::mknodat(CWD, twin.here(name), kind, 0o600.into(), device)
    };
    let (character, block) = (
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::FileType::BlockDevice,
    );
    make("whiteout", character, 0).unwrap();
    assert_eq!(facts(&twin.here("whiteout")), facts(&twin.host("whiteout")));
    let null = rustix::fs::makedev(1, 3);
    assert_eq!(make("null", character, null), Err(Errno::PERM));
    assert_eq!(make("disk", block, 0), Err(Errno::PERM));
    assert_eq!(fs::read_dir(twin.host.path()).unwrap().count(), 1);
}

fn meet_at_a_socket(twin: &Twin) {
    let listener = UnixListener::bind(twin.here("s")).unwrap();
    assert!(
        fs::metadata(twin.host("s"))
            .unwrap()
            .file_type()
            .is_socket()
    );
    let mut speaker = UnixStream::connect(twin.here("s")).unwrap();
    speaker.write_all(b"hello").unwrap();
    drop(speaker);
    let mut heard = String::new();
    listener
        .accept()
        .unwrap()
        .0
        .read_to_string(&mut heard)
        .unwrap();
    assert_eq!(heard, "hello");
}

#[test]
fn space_is_reserved_given_back_and_holes_are_found() {
    for passthrough in [true, false] {
        let options = Options {
            passthrough,
            ..Options::default()
        };
        let Some(twin) = Twin::with(Setup::default(), options) else {
            return;
        };
        let file = File::create_new(twin.here("f")).unwrap();
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 1 << 20).unwrap();
        assert_eq!(fs::metadata(twin.host("f")).unwrap().len(), 1 << 20);
        file.write_all_at(&[1; 8192], 0).unwrap();
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&file, punch, 4096, 1 << 19).unwrap();
        let mut byte = [9];
        File::open(twin.here("f"))
            .unwrap()
            .read_exact_at(&mut byte, 5000)
            .unwrap();
        assert_eq!(byte, [0]);
        let hole = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap();
        assert_eq!(hole, 4096);
    }
}

#[test]
fn a_large_directory_is_listed_once_and_positions_stay_while_it_is_emptied() {
    let Some(twin) = Twin::new() else { return };
    for number in 0..5000 {
        File::create(twin.host(&format!("file-{number:05}"))).unwrap();
    }
    let mut names: Vec<_> = fs::read_dir(twin.point.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 5000);
    // Removed while it is read: what is listed next does not move.
    for entry in fs::read_dir(twin.point.path()).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    assert_eq!(fs::read_dir(twin.host.path()).unwrap().count(), 0);
}

#[test]
fn a_listing_brings_attributes_along() {
    let options = Options {
        attributes_for: Duration::from_secs(600),
        names_for: Duration::from_secs(600),
        ..Options::default()
    };
    let Some(twin) = Twin::with(Setup::default(), options) else {
        return;
    };
    for number in 0..1000 {
        fs::write(twin.host(&number.to_string()), b"old").unwrap();
    }
    let listed: Vec<_> = fs::read_dir(twin.point.path())
        .unwrap()
        .map(|entry| entry.unwrap())
        .collect();
    assert_eq!(listed.len(), 1000);
    let first = &listed[0];
    fs::write(twin.host.path().join(first.file_name()), b"longer").unwrap();
    assert_eq!(first.metadata().unwrap().len(), 3, "as it was listed");
    for entry in &listed[1..] {
        let name = entry.file_name();
        let on_host = facts(&twin.host.path().join(&name));
        assert_eq!(facts(&twin.point.path().join(&name)), on_host, "{name:?}");
        assert_eq!(entry.ino(), on_host.1, "{name:?}");
    }
}

#[test]
fn what_cannot_be_looked_at_is_listed_and_refused_when_it_is_asked_for() {
    let Some(twin) = Twin::new() else { return };
    let (kind, mode) = (rustix::fs::FileType::BlockDevice, 0o666.into());
    // Of memory: device 1:0.
    rustix::fs::mknodat(CWD, twin.host("disk"), kind, mode, 0x100).unwrap();
    fs::write(twin.host("file"), b"content").unwrap();
    for _ in 0..2 {
        let listed: Vec<_> = fs::read_dir(twin.point.path())
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                (entry.file_name(), entry.file_type().unwrap())
            })
            .collect();
        assert_eq!(listed.len(), 2);
        let disk = listed.iter().find(|(name, _)| name == "disk").unwrap();
        assert!(disk.1.is_block_device());
        let refused = error(fs::symlink_metadata(twin.here("disk")));
        assert_eq!(refused, error(File::open(twin.here("disk"))));
        assert_ne!(refused, Errno::STALE.raw_os_error());
        assert_eq!(fs::read(twin.here("file")).unwrap(), b"content");
    }
    fs::remove_file(twin.host("disk")).unwrap();
    fs::write(twin.host("disk"), b"a file now").unwrap();
    assert_eq!(fs::read(twin.here("disk")).unwrap(), b"a file now");
}

#[test]
fn more_files_than_the_server_has_ids_for_are_walked() {
    let mut setup = Setup::default();
    setup.policy.ids_max = 300;
    let options = Options {
        files_max: 200,
        names_for: Duration::from_secs(60),
        ..Options::default()
    };
    let Some(twin) = Twin::with(setup, options) else {
        return;
    };
    for number in 0..2000 {
        fs::write(twin.host(&number.to_string()), number.to_string()).unwrap();
    }
    let listed = fs::read_dir(twin.point.path()).unwrap();
    assert_eq!(listed.count(), 2000);
    for number in 0..2000 {
        let read = fs::read_to_string(twin.here(&number.to_string()));
        assert_eq!(read.unwrap(), number.to_string());
    }
}

#[test]
fn a_readonly_mount_and_a_readonly_server_refuse_changes() {
    let readonly_server = Setup {
        readonly: true,
        ..Setup::default()
    };
    let readonly_mount = Options {
        readonly: true,
        ..Options::default()
    };
    for (setup, options) in [
        (readonly_server, Options::default()),
        (Setup::default(), readonly_mount),
    ] {
        let Some(twin) = Twin::with(setup, options) else {
            return;
        };
        fs::write(twin.host("f"), b"x").unwrap();
        assert_eq!(fs::read(twin.here("f")).unwrap(), b"x");
        assert_eq!(error(fs::write(twin.here("f"), b"y")), 30);
        assert_eq!(error(fs::create_dir(twin.here("d"))), 30);
        assert_eq!(error(fs::remove_file(twin.here("f"))), 30);
        assert_eq!(fs::read(twin.host("f")).unwrap(), b"x");
    }
}

#[test]
fn what_the_host_changes_is_seen_when_the_time_is_over() {
    let options = Options {
        attributes_for: Duration::ZERO,
        names_for: Duration::ZERO,
        passthrough: false,
        ..Options::default()
    };
    let Some(twin) = Twin::with(Setup::default(), options) else {
        return;
    };
    fs::write(twin.host("f"), b"old").unwrap();
    assert_eq!(fs::read(twin.here("f")).unwrap(), b"old");
    fs::write(twin.host("f"), b"newer").unwrap();
    assert_eq!(fs::read(twin.here("f")).unwrap(), b"newer");
    assert_eq!(fs::read_dir(twin.point.path()).unwrap().count(), 1);
    fs::write(twin.host("f"), b"even newer").unwrap();
    assert_eq!(fs::metadata(twin.here("f")).unwrap().len(), 10);
    fs::write(twin.host("f"), b"newer").unwrap();
    fs::rename(twin.host("f"), twin.host("g")).unwrap();
    assert!(!twin.here("f").exists());
    assert_eq!(fs::read(twin.here("g")).unwrap(), b"newer");
}

#[test]
fn others_are_kept_out_by_the_modes_that_the_server_reports() {
    let options = Options {
        allow_other: true,
        ..Options::default()
    };
    let Some(twin) = Twin::with(Setup::default(), options) else {
        return;
    };
    for path in [twin.host.path(), twin.point.path()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::write(twin.host("secret"), b"").unwrap();
    fs::set_permissions(twin.host("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    let as_nobody = |program: &str, path: &Path| {
        use std::os::unix::process::CommandExt;
        let mut command = std::process::Command::new(program);
        command.arg(path).uid(65534).gid(65534).current_dir("/");
        command.stdout(std::process::Stdio::null());
        command.stderr(std::process::Stdio::null());
        command.status().unwrap().success()
    };
    assert!(as_nobody("ls", twin.point.path()));
    assert!(!as_nobody("cat", &twin.here("secret")));
    assert!(!as_nobody("mkdir", &twin.here("d")));
}

#[test]
fn a_name_without_a_place_in_text_is_a_name() {
    use std::os::unix::ffi::OsStrExt;
    let Some(twin) = Twin::new() else { return };
    let name = std::ffi::OsStr::from_bytes(b"\xff\xfe\n name");
    fs::write(twin.point.path().join(name), b"x").unwrap();
    let listed = fs::read_dir(twin.point.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    assert_eq!(listed.file_name(), name);
    let c_name = CString::new(name.as_bytes()).unwrap();
    let dir = File::open(twin.host.path()).unwrap();
    rustix::fs::unlinkat(&dir, c_name.as_c_str(), AtFlags::empty()).unwrap();
}
