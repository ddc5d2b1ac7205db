//! The cases. Each name is a sentence.

use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::mount::MountFlags;
use serde_json::json;

use crate::forbidden::{KILLED, LOCKED, READ_ONLY, REFUSED, SOCKETS};
use crate::parent::Start;

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub(crate) const ALL: &[(&str, fn())] = &[$((stringify!($name), $name)),*];
    };
}

cases![
    volumes_land_where_links_lead_and_the_list_says_so,
    a_volume_inside_an_earlier_one_is_made_there,
    a_loop_of_links_fails_with_the_destination_in_the_message,
    files_go_on_files_and_a_fifo_or_socket_in_their_place_does_no_harm,
    kinds_that_do_not_fit_and_missing_sources_are_named,
    read_only_covers_what_came_along_but_not_volumes_inside,
    a_read_only_root_covers_mounts_below_the_image_but_not_volumes,
    an_image_that_is_not_ours_gets_an_empty_root,
    a_hidden_mount_still_serves_its_own_content,
    the_host_sees_nothing_of_all_this,
    the_hosts_root_can_be_served,
    a_plain_bind_over_locked_mounts_says_that_rbind_helps,
    a_noexec_image_starts_read_only,
    propagation_options_are_applied,
    a_missing_working_directory_is_made_but_not_on_read_only_mounts,
    devices_are_bound_for_their_connection,
    the_sealed_process_holds_the_minimum,
    forbidden_calls_kill,
    forbidden_calls_kill_from_a_serving_thread_with_every_option,
    a_violation_is_told_and_ends_the_process,
    a_violation_behind_a_blocked_signal_ends_the_process_all_the_same,
    another_table_of_calls_kills,
    what_hides_its_flags_is_no_call_at_all,
    sockets_are_made_only_as_the_options_say,
    the_threads_of_a_read_only_connection_change_nothing,
    threads_start_and_tighten_under_the_filter,
    a_heap_grows_and_shrinks_without_opening_files,
    an_abort_and_a_stop_end_and_go_on_as_anywhere_else,
    only_the_broker_may_take_on_other_ids,
    landlock_keeps_a_tightened_thread_in_its_tree,
    thirty_mounts_come_up,
    nothing_outside_is_touched_while_names_are_swapped,
];

/// Runs a body in all shapes a parent may give the process.
fn in_every_shape(body: impl Fn(Start, &str)) {
    for (user_namespace, classic, dialect) in [
        (false, false, 2024),
        (true, false, 2024),
        (true, false, 2026),
        (false, false, 2022),
        (false, true, 2024),
        (true, true, 2024),
    ] {
        let mut start = Start::new();
        start.user_namespace = user_namespace;
        start.classic = classic;
        start.dialect = dialect;
        body(
            start,
            &format!("user namespace {user_namespace}, classic {classic}, {dialect}"),
        );
    }
}

fn volumes_land_where_links_lead_and_the_list_says_so() {
    in_every_shape(|mut start, shape| {
        start.dir("rootfs/var/real");
        for (target, link) in [
            ("/var/real", "absolute"),
            ("var/real", "relative"),
            ("../../../var/real", "climbing"),
            ("/nowhere/yet", "dangling"),
        ] {
            symlink(target, start.at("rootfs").join(link)).unwrap();
        }
        start.other_mount(json!({"destination": "/proc", "type": "proc", "source": "proc"}));
        for (number, destination) in [
            "/absolute/a",
            "/relative/b",
            "/climbing/c",
            "/dangling/d",
            "/absolute/x/../e",
            "/../../f//",
        ]
        .iter()
        .enumerate()
        {
            start.file(&format!("v{number}/who"), &number.to_string());
            start.volume(
                start.at(&format!("v{number}")),
                destination,
                &["rbind", "rw"],
            );
        }
        let mut running = start.sealed();
        assert_eq!(
            running.destinations(),
            [
                "/proc",
                "/var/real/a",
                "/var/real/b",
                "/var/real/c",
                "/nowhere/yet/d",
                "/var/real/e",
                "/f"
            ],
            "{shape}"
        );
        for number in 0..6 {
            assert_eq!(
                running.ask(&format!("read {} who", number + 1)),
                number.to_string()
            );
        }
        let source = running.list[0]["source"].as_str().unwrap().to_owned();
        assert!(source.ends_with("/proc") && source.len() > 5, "{source}");
    });
}

fn a_volume_inside_an_earlier_one_is_made_there() {
    in_every_shape(|mut start, shape| {
        start.dir("outer");
        start.file("inner/who", "inner");
        start.volume(start.at("outer"), "/data", &["rbind"]);
        start.volume(start.at("inner"), "/data/deep/er", &["bind", "ro"]);
        let mut running = start.sealed();
        assert_eq!(
            running.destinations(),
            ["/data", "/data/deep/er"],
            "{shape}"
        );
        assert!(
            start.at("outer/deep/er").is_dir(),
            "the mount point is made in the volume"
        );
        assert_eq!(running.ask("read 2 who"), "inner");
        assert!(running.attributes("/data/deep/er").starts_with("ro"));
        assert!(running.attributes("/data").starts_with("rw"));
        assert_eq!(running.ask("list"), "/:rw /data:rw /data/deep/er:ro");
    });
}

fn a_loop_of_links_fails_with_the_destination_in_the_message() {
    in_every_shape(|mut start, shape| {
        symlink("/b", start.at("rootfs/a")).unwrap();
        symlink("/a", start.at("rootfs/b")).unwrap();
        start.dir("v");
        start.volume(start.at("v"), "/a/x", &["rbind"]);
        let message = start.fails();
        assert!(
            message.starts_with("128 ") && message.contains("/a/x"),
            "{shape}: {message}"
        );
    });
}

fn files_go_on_files_and_a_fifo_or_socket_in_their_place_does_no_harm() {
    in_every_shape(|mut start, shape| {
        start.file("rootfs/there", "image");
        start.file("v", "volume");
        mknodat(CWD, start.at("rootfs/fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(start.at("rootfs/socket")).unwrap();
        for destination in ["/there", "/fifo", "/socket", "/made/here"] {
            start.volume(start.at("v"), destination, &["bind"]);
        }
        let mut running = start.sealed();
        for connection in 1..=4 {
            assert_eq!(
                running.ask(&format!("donated {connection}")),
                "false",
                "{shape}"
            );
        }
        for name in ["there", "fifo", "socket"] {
            assert_eq!(running.ask(&format!("read 0 {name}")), "volume", "{shape}");
        }
        assert!(
            fs::metadata(start.at("rootfs/fifo"))
                .unwrap()
                .file_type()
                .is_fifo()
        );
        assert!(
            fs::metadata(start.at("rootfs/made/here"))
                .unwrap()
                .is_file()
        );
    });
}

fn kinds_that_do_not_fit_and_missing_sources_are_named() {
    for (source, destination, words) in [
        ("directory", "/file", "source is a directory"),
        ("file", "/directory", "source is a file"),
        ("missing", "/x", "source is missing"),
        ("directory", "/file/below", "not a directory"),
    ] {
        let mut start = Start::new();
        start.dir("directory");
        start.file("file", "");
        start.dir("rootfs/directory");
        start.file("rootfs/file", "");
        start.volume(start.at(source), destination, &["rbind"]);
        let message = start.fails();
        assert!(
            message.contains(words) && message.contains(destination),
            "{message}"
        );
    }
    let mut start = Start::new();
    start.root_path = "none".into();
    let message = start.fails();
    assert!(
        message.contains("root.path") && message.contains("none"),
        "{message}"
    );
}

fn read_only_covers_what_came_along_but_not_volumes_inside() {
    in_every_shape(|mut start, shape| {
        start.tmpfs("v/sub dir");
        start.dir("writable");
        start.volume(start.at("v"), "/v", &["rbind", "ro", "noexec"]);
        start.volume(start.at("writable"), "/v/inner", &["rbind"]);
        let mut running = start.sealed();
        let attributes = |point| running.attributes(point);
        assert!(
            attributes("/v").starts_with("ro,nosuid,noexec"),
            "{shape}: {}",
            attributes("/v")
        );
        assert!(
            attributes(r"/v/sub\040dir").starts_with("ro,nosuid"),
            "{shape}"
        );
        assert!(attributes("/v/inner").starts_with("rw,nosuid"), "{shape}");
        assert_eq!(running.ask("pin-create 1 inner/new"), "ok", "{shape}");
        assert_eq!(running.ask("create 1 new"), "ROFS", "{shape}");
        assert!(start.at("writable/new").exists());
    });
}

fn a_read_only_root_covers_mounts_below_the_image_but_not_volumes() {
    in_every_shape(|mut start, shape| {
        start.readonly = true;
        start.tmpfs("rootfs/below");
        start.tmpfs("rootfs/below/twice");
        start.dir("v");
        start.volume(start.at("v"), "/below/volume", &["rbind"]);
        let mut running = start.sealed();
        for point in ["/", "/below", "/below/twice"] {
            let attributes = running.attributes(point);
            assert!(
                attributes.starts_with("ro,nosuid,nodev"),
                "{shape}: {point} {attributes}"
            );
        }
        assert!(
            running.attributes("/below/volume").starts_with("rw"),
            "{shape}"
        );
        assert_eq!(running.ask("create 1 new"), "ok", "{shape}");
        assert!(start.at("v/new").exists());
        assert_eq!(running.ask("create 0 new"), "ROFS", "{shape}");
    });
}

fn an_image_that_is_not_ours_gets_an_empty_root() {
    in_every_shape(|mut start, shape| {
        if start.dialect == 2022 {
            return;
        }
        start.file("v/who", "volume");
        start.file("rootfs/secret", "");
        start.confs = Some("erofs:memory,lisafs:none,none:self".into());
        start.volume(start.at("v"), "/deep/er", &["rbind"]);
        start.volume("/does/not/exist", "/shared", &["rbind"]);
        let mut running = start.sealed();
        assert_eq!(running.destinations(), ["/deep/er", "/shared"], "{shape}");
        assert_eq!(running.ask("read 0 who"), "volume");
        assert_eq!(running.ask("list"), "/deep/er:rw");
        assert_eq!(running.proc("mountinfo").lines().count(), 2, "{shape}");
    });
}

fn a_hidden_mount_still_serves_its_own_content() {
    in_every_shape(|mut start, shape| {
        start.file("child/who", "child");
        start.file("parent/who", "parent");
        start.volume(start.at("child"), "/data/child", &["rbind"]);
        start.volume(start.at("parent"), "/data", &["rbind"]);
        let mut running = start.sealed();
        assert_eq!(running.destinations(), ["/data/child", "/data"], "{shape}");
        assert_eq!(running.ask("read 1 who"), "child");
        assert_eq!(running.ask("read 2 who"), "parent");
    });
}

fn the_host_sees_nothing_of_all_this() {
    let before = fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .lines()
        .count();
    in_every_shape(|mut start, shape| {
        start.dir("v");
        start.readonly = true;
        start.volume(start.at("v"), "/v", &["rbind", "ro"]);
        let running = start.sealed();
        let now = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert_eq!(now.lines().count(), before, "{shape}: {now}");
        fs::create_dir(start.at("rootfs/writable")).unwrap();
        drop(running);
    });
}

fn the_hosts_root_can_be_served() {
    for user_namespace in [false, true] {
        let mut start = Start::new();
        start.user_namespace = user_namespace;
        start.root_path = "/".into();
        start.confs = Some("lisafs:memory".into());
        let mut running = start.sealed();
        assert_eq!(running.ask("list"), "/:ro");
        assert_eq!(running.ask("open 0 etc"), "ok");
        assert!(running.attributes("/").starts_with("ro,nosuid,nodev"));
        assert!(running.attributes("/dev").starts_with("ro,nosuid,nodev"));
    }
}

fn a_plain_bind_over_locked_mounts_says_that_rbind_helps() {
    let mut start = Start::new();
    start.user_namespace = true;
    start.tmpfs("v/sub");
    start.volume(start.at("v"), "/v", &["bind"]);
    let message = start.fails();
    assert!(
        message.contains("rbind") && message.contains("/v"),
        "{message}"
    );
    start.user_namespace = false;
    start.sealed();
}

fn a_noexec_image_starts_read_only() {
    in_every_shape(|mut start, shape| {
        start.readonly = true;
        start.bound("rootfs", MountFlags::NOEXEC | MountFlags::NOATIME);
        let attributes = start.sealed().attributes("/");
        assert!(
            attributes.starts_with("ro,nosuid,nodev,noexec"),
            "{shape}: {attributes}"
        );
    });
}

fn propagation_options_are_applied() {
    in_every_shape(|mut start, shape| {
        start.dir("v");
        start.volume(start.at("v"), "/private", &["rbind", "rprivate"]);
        start.volume(start.at("v"), "/slave", &["rbind"]);
        let running = start.sealed();
        let mountinfo = running.proc("mountinfo");
        let line = |point: &str| mountinfo.lines().find(|line| line.contains(point)).unwrap();
        assert!(
            !line(" /private ").contains("master:"),
            "{shape}: {mountinfo}"
        );
        assert!(line(" /slave ").contains("master:"), "{shape}: {mountinfo}");
        assert!(!mountinfo.contains("shared:"), "{shape}: {mountinfo}");
    });
    let mut start = Start::new();
    start.dir("v");
    start.volume(start.at("v"), "/v", &["rbind", "rshared"]);
    assert!(start.fails().contains("shared"));
}

fn a_missing_working_directory_is_made_but_not_on_read_only_mounts() {
    in_every_shape(|mut start, shape| {
        start.extra = json!({"process": {"cwd": "/work/here"}});
        drop(start.sealed());
        assert_eq!(
            start.at("rootfs/work/here").is_dir(),
            start.dialect != 2026,
            "{shape}"
        );
    });
    let mut start = Start::new();
    start.dir("v");
    start.volume(start.at("v"), "/v", &["rbind", "ro"]);
    start.extra = json!({"process": {"cwd": "/v/here"}});
    let running = start.sealed();
    assert!(
        running.warnings[0].contains("/v/here"),
        "{:?}",
        running.warnings
    );
    assert!(!start.at("v/here").exists());
}

fn devices_are_bound_for_their_connection() {
    // The test's own /dev, so that the host's stays as it is.
    let mut keeper = Start::new();
    let dev = keeper.tmpfs("dev");
    for (name, minor) in [("null", 3), ("nvidiactl", 3), ("nvidia0", 5), ("other", 8)] {
        let device = rustix::fs::makedev(1, minor);
        mknodat(
            CWD,
            dev.join(name),
            FileType::CharacterDevice,
            Mode::from(0o666),
            device,
        )
        .unwrap();
    }
    rustix::mount::mount_bind(&dev, "/dev").unwrap();
    let result = std::panic::catch_unwind(|| {
        for dialect in [2024, 2026] {
            let mut start = Start::new();
            start.dialect = dialect;
            start.device_connection = true;
            start.readonly = true;
            start.extra = json!({
                "annotations": {"dev.gvisor.internal.nvproxy": "true"},
                "linux": {"devices": [{"path": "/dev/nvidiactl"}, {"path": "/dev/nvidia0"},
                                      {"path": "/dev/other"}]},
            });
            let mut running = start.sealed();
            assert_eq!(running.ask("list"), "/:ro /dev:rw");
            assert_eq!(running.ask("open 1 nvidiactl"), "ok");
            assert_eq!(running.ask("open 1 nvidia0"), "ok");
            assert_eq!(running.ask("open 1 other"), "NOENT");
            start.extra["linux"]["devices"] = json!([{"path": "/dev/nvidia7"}]);
            match dialect {
                2026 => assert!(start.fails().contains("/dev/nvidia7")),
                _ => assert!(start.sealed().warnings[0].contains("/dev/nvidia7")),
            }
        }
    });
    rustix::mount::unmount("/dev", rustix::mount::UnmountFlags::DETACH).unwrap();
    result.unwrap();
}

fn the_sealed_process_holds_the_minimum() {
    in_every_shape(|mut start, shape| {
        start.dir("v");
        start.volume(start.at("v"), "/v", &["rbind"]);
        let mut running = start.sealed();
        assert_eq!(running.ask("thread"), "ok");
        let status = running.proc("status");
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().to_owned()
        };
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            assert_eq!(
                u64::from_str_radix(&field(set), 16).unwrap(),
                0x1f,
                "{shape}: {set}"
            );
        }
        for set in ["CapInh", "CapAmb"] {
            assert_eq!(
                u64::from_str_radix(&field(set), 16).unwrap(),
                0,
                "{shape}: {set}"
            );
        }
        assert_eq!(field("NoNewPrivs"), "1");
        assert_eq!(field("Seccomp:"), "2");
        assert_eq!(field("Umask"), "0000");
        let mountinfo = running.proc("mountinfo");
        assert_eq!(mountinfo.lines().count(), 2, "{shape}: {mountinfo}");
        let cwd = fs::read_link(format!("/proc/{}/cwd", running.pid())).unwrap();
        if !start.classic {
            assert_eq!(cwd.to_str(), Some("/"), "a mount that hangs nowhere");
        }
        let report = running.ask("report");
        let landlock = format!("Landlock: ABI {}", landlock_abi());
        assert!(report.contains(&landlock), "{report}");
        let held = fs::read_dir(format!("/proc/{}/fd", running.pid())).unwrap();
        // 0 to 2, descriptor directory, per connection: socket, root, donation.
        assert!(held.count() <= 3 + 1 + 6, "{shape}");
    });
}

/// What this kernel offers, by its own word.
fn landlock_abi() -> libc::c_long {
    const VERSION: u32 = 1;
    // SAFETY: asks for a number; nothing is read or written.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0_usize, 0_usize, VERSION) }
}

fn forbidden_calls_kill() {
    for forbidden in KILLED {
        assert_kills(Start::new(), &format!("try {}", forbidden.name));
    }
}

fn forbidden_calls_kill_from_a_serving_thread_with_every_option() {
    for forbidden in KILLED {
        let mut start = Start::new();
        (start.dialect, start.host_open, start.host_create) = (2026, true, true);
        // The one thread that may take on other ids is tight in no tree; these are its calls.
        if !["setresuid", "setresgid"].contains(&forbidden.name) {
            assert_kills(start, &format!("try-tight 0 {}", forbidden.name));
        }
    }
}

fn assert_kills(start: Start, command: &str) {
    let mut running = start.sealed();
    assert_eq!(running.try_ask(command), None, "{command}");
    assert_eq!(running.end(), Some(libc::SIGSYS), "{command}");
}

fn a_violation_is_told_and_ends_the_process() {
    for (name, call) in [
        ("mount", "mount"),
        ("mmap, executable", "mmap"),
        ("fork by clone", "clone"),
        ("rt_sigaction, the signal of violations", "rt_sigaction"),
    ] {
        for command in ["try", "try-tight 0"] {
            let mut start = Start::new();
            start.tells = true;
            let mut running = start.sealed();
            let told = running.try_ask(&format!("{command} {name}"));
            assert_eq!(told, Some(format!("told {call}")), "{command}");
            assert_eq!(running.answer(), None, "{command} {name}");
            assert_eq!(running.end(), Some(libc::SIGSYS), "{command} {name}");
        }
    }
}

fn a_violation_behind_a_blocked_signal_ends_the_process_all_the_same() {
    let mut start = Start::new();
    start.tells = true;
    let mut running = start.sealed();
    assert_eq!(running.ask("block"), "blocked");
    assert_eq!(running.try_ask("try mount"), None, "without a word");
    assert_eq!(running.end(), Some(libc::SIGSYS));
}

/// Numbers of the 32-bit table, and those of x32, name other calls in ours.
#[cfg(target_arch = "x86_64")]
fn another_table_of_calls_kills() {
    let mut running = Start::new().sealed();
    assert_eq!(running.try_ask("old-table"), None);
    // A kernel built without the old table refuses the instruction itself.
    assert!([Some(libc::SIGSYS), Some(libc::SIGSEGV)].contains(&running.end()));
}

#[cfg(not(target_arch = "x86_64"))]
fn another_table_of_calls_kills() {}

fn what_hides_its_flags_is_no_call_at_all() {
    let mut running = Start::new().sealed();
    for refused in REFUSED {
        let answer = running.ask(&format!("try {}", refused.name));
        assert_eq!(answer, libc::ENOSYS.to_string(), "{}", refused.name);
    }
}

fn sockets_are_made_only_as_the_options_say() {
    for (open, create) in [(false, false), (true, false), (false, true), (true, true)] {
        for call in SOCKETS {
            let mut start = Start::new();
            (start.host_open, start.host_create) = (open, create);
            let command = format!("try-tight 0 {}", call.name);
            let allowed = match call.name {
                "connect" => open,
                "fchmod of a socket" | "bind" | "listen" | "accept4" => create,
                _ => open || create,
            };
            if !allowed {
                assert_kills(start, &command);
                continue;
            }
            let expected = if call.name.starts_with("socket") {
                "ok".to_owned()
            } else {
                libc::EBADF.to_string()
            };
            assert_eq!(start.sealed().ask(&command), expected, "{command}");
        }
    }
}

/// By the kernel: no request gets as far as these calls.
fn the_threads_of_a_read_only_connection_change_nothing() {
    in_every_shape(|mut start, shape| {
        start.host_create = true;
        start.file("rootfs/file", "root");
        start.dir("v");
        start.volume(start.at("v"), "/v", &["rbind", "ro"]);
        let mut running = start.sealed();
        assert_eq!(running.ask("list"), "/:rw /v:ro");
        for (calls, errno) in [(READ_ONLY, libc::EROFS), (LOCKED, libc::EPERM)] {
            for call in calls {
                let answer = running.ask(&format!("try-tight 1 {}", call.name));
                assert_eq!(answer, errno.to_string(), "{shape}: {}", call.name);
            }
        }
        // What these say where writing is allowed: no such descriptor, or no such file.
        for call in READ_ONLY {
            let answer = running.ask(&format!("try-tight 0 {}", call.name));
            assert_ne!(answer, libc::EROFS.to_string(), "{shape}: {}", call.name);
        }
        // On a mount that could be written to, the thread's own jail is what refuses.
        assert!(running.attributes("/").starts_with("rw"), "{shape}");
        assert_eq!(running.ask("tighten-readonly 0"), "ok true");
        assert_eq!(running.ask("open 0 file"), "ok");
        assert_eq!(running.ask("create 0 new"), "ACCESS", "{shape}");
        assert_eq!(running.ask("write 0 file"), "ACCESS", "{shape}");
        assert_eq!(running.ask("chmod 0"), "ROFS", "{shape}");
        assert_eq!(running.ask("rename 0 file moved"), "ROFS", "{shape}");
        assert_eq!(running.ask("link 0 file linked"), "ROFS", "{shape}");
        assert_eq!(fs::read(start.at("rootfs/file")).unwrap(), b"root");
        assert_eq!(fs::read_dir(start.at("rootfs")).unwrap().count(), 2);
    });
}

fn threads_start_and_tighten_under_the_filter() {
    in_every_shape(|start, shape| {
        let mut running = start.sealed();
        assert_eq!(running.ask("thread"), "ok", "{shape}");
        assert_eq!(running.ask("threads-tighten"), "true", "{shape}");
        assert_eq!(running.ask("thread"), "ok", "{shape}");
    });
}

/// The C library reads files of its own to decide how to keep its heap: not here.
fn a_heap_grows_and_shrinks_without_opening_files() {
    let mut running = Start::new().sealed();
    for _ in 0..3 {
        assert_eq!(running.ask("heap"), "ok 19900");
    }
}

/// Calls that only an end by its own fault, or a stop in the middle of a wait, leads to.
fn an_abort_and_a_stop_end_and_go_on_as_anywhere_else() {
    let mut running = Start::new().sealed();
    assert_eq!(running.try_ask("abort"), None);
    assert_eq!(running.end(), Some(libc::SIGABRT));

    let mut running = Start::new().sealed();
    assert_eq!(running.ask("doze"), "dozing");
    let signal = |signal: i32| {
        // SAFETY: a signal to a child of ours that has not been waited for.
        assert_eq!(unsafe { libc::kill(running.pid() as i32, signal) }, 0);
    };
    while !running.proc("status").contains("State:\tS") {}
    signal(libc::SIGSTOP);
    while !running.proc("status").contains("State:\tT") {}
    signal(libc::SIGCONT);
    assert_eq!(running.answer().as_deref(), Some("awake"));
}

fn only_the_broker_may_take_on_other_ids() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;
    for user_namespace in [false, true] {
        let mut start = Start::new();
        start.user_namespace = user_namespace;
        start.dialect = 2026;
        start.host_open = true;
        fs::set_permissions(start.at("rootfs"), fs::Permissions::from_mode(0o755)).unwrap();
        let open = UnixListener::bind(start.at("rootfs/open")).unwrap();
        let _closed = UnixListener::bind(start.at("rootfs/closed")).unwrap();
        fs::set_permissions(start.at("rootfs/open"), fs::Permissions::from_mode(0o666)).unwrap();
        fs::set_permissions(start.at("rootfs/closed"), fs::Permissions::from_mode(0o600)).unwrap();
        let mut running = start.sealed();
        assert_eq!(running.ask("connect open"), "ok");
        assert_eq!(
            peer_uid(&open.accept().unwrap().0),
            65534,
            "the listener sees those ids"
        );
        assert_eq!(
            running.ask("connect closed"),
            "ACCESS",
            "root's own access does not count"
        );
        assert_eq!(
            running.ask("connect open"),
            "ok",
            "the broker has its ids back"
        );
        let mut holders = 0;
        for task in fs::read_dir(format!("/proc/{}/task", running.pid())).unwrap() {
            let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            holders += usize::from(status.contains("CapPrm:\t00000000000000df"));
        }
        assert_eq!(holders, 1, "one thread may");
    }
}

fn peer_uid(socket: &std::os::unix::net::UnixStream) -> u32 {
    rustix::net::sockopt::socket_peercred(socket)
        .unwrap()
        .uid
        .as_raw()
}

fn landlock_keeps_a_tightened_thread_in_its_tree() {
    in_every_shape(|mut start, shape| {
        start.file("rootfs/file", "root");
        start.file("v/sub/file", "volume");
        start.dir("w/sub");
        start.volume(start.at("v"), "/v", &["rbind", "ro"]);
        start.volume(start.at("w"), "/w", &["rbind"]);
        let mut running = start.sealed();
        assert_eq!(running.ask("open 0 file"), "ok", "{shape}");
        assert_eq!(running.ask("create 2 a"), "ok");
        assert_eq!(
            running.ask("rename 2 a sub/b"),
            "ok",
            "{shape}: rename across directories"
        );
        assert_eq!(running.ask("create 2 x"), "ok");
        assert_eq!(
            running.ask("link 2 x sub/y"),
            "ok",
            "{shape}: a link by descriptor"
        );
        assert_eq!(running.ask("tighten 1"), "ok true", "{shape}");
        assert_eq!(running.ask("open 1 sub"), "ok");
        assert_eq!(
            running.ask("reopen 1 sub"),
            "ok",
            "through the descriptor directory"
        );
        assert_eq!(running.ask("open 0 file"), "ACCESS", "another tree");
        assert_eq!(running.ask("create 2 c"), "ACCESS", "another tree");
        assert_eq!(
            running.ask("chmod 1"),
            "ROFS",
            "what Landlock does not cover"
        );
        assert!(
            !running.ask("tighten 1").starts_with("ok"),
            "once and for all"
        );
    });
}

fn thirty_mounts_come_up() {
    in_every_shape(|mut start, shape| {
        for number in 0..30 {
            start.file(&format!("v{number}/who"), &number.to_string());
            let options: &[&str] = if number % 2 == 0 {
                &["rbind", "ro"]
            } else {
                &["bind"]
            };
            start.volume(
                start.at(&format!("v{number}")),
                &format!("/m/{number}"),
                options,
            );
        }
        let mut running = start.sealed();
        assert_eq!(running.ask("read 30 who"), "29", "{shape}");
        assert_eq!(running.proc("mountinfo").lines().count(), 31);
    });
}

/// A second process swaps directories on the way to mount points for links that lead out, at full
/// speed, while the set-up runs again and again.
fn nothing_outside_is_touched_while_names_are_swapped() {
    let rounds: u32 = std::env::var("JAIL_TEST_SWAPS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(200);
    let outside = tempfile::tempdir().unwrap();
    let canary = outside.path().join("canary");
    fs::create_dir(&canary).unwrap();
    let (mut came_up, mut diverted, mut failed) = (0, 0, 0);
    for round in 0..rounds {
        let mut start = Start::new();
        start.user_namespace = round % 2 == 1;
        start.classic = round % 5 == 4;
        start.readonly = round % 3 == 0;
        start.dir("rootfs/a/b");
        start.file("v/who", "v");
        start.file("f", "f");
        // Many, so that the walks take a good part of the time.
        for number in 0..8 {
            start.volume(
                start.at("v"),
                &format!("/a/b/new{number}/directory"),
                &["rbind", "ro"],
            );
            start.volume(start.at("f"), &format!("/a/file{number}"), &["bind"]);
            start.volume(start.at("v"), &format!("/a/b/c/../d{number}/e"), &["rbind"]);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let swapper = swap(&start, &canary, Arc::clone(&stop));
        let result = start.run();
        stop.store(true, Ordering::Relaxed);
        swapper.join().unwrap();
        match result {
            Ok(running) => {
                came_up += 1;
                let misled = |destination: &&String| !destination.starts_with("/a/");
                diverted += running.destinations().iter().filter(misled).count();
            }
            Err(message) => {
                failed += 1;
                assert!(message.starts_with("128 "), "fails cleanly: {message}");
            }
        }
        assert_eq!(
            fs::read_dir(&canary).unwrap().count(),
            0,
            "made outside in round {round}"
        );
    }
    println!(
        "  {came_up} came up, {diverted} mounts followed a link inside, {failed} failed cleanly"
    );
    assert!(came_up > 0, "some start-ups win the race");
}

fn swap(
    start: &Start,
    canary: &std::path::Path,
    stop: Arc<AtomicBool>,
) -> std::thread::JoinHandle<()> {
    let (root, canary) = (start.at("rootfs"), canary.to_owned());
    std::thread::spawn(move || {
        for (turn, target) in [canary.to_str().unwrap(), "/", "..", "../../../.."]
            .iter()
            .cycle()
            .enumerate()
        {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let name = if turn % 2 == 0 { "a" } else { "a/b" };
            let (path, aside) = (root.join(name), root.join("aside"));
            if fs::rename(&path, &aside).is_ok() {
                _ = symlink(target, &path);
                std::thread::yield_now();
                _ = fs::remove_file(&path);
                _ = fs::rename(&aside, &path);
            }
        }
    })
}
