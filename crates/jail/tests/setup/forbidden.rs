//! Calls tried from inside the sealed process, one each: what must not come back, and what must
//! come back with an errno.

use libc::{c_long, syscall};

/// One try.
pub(crate) struct Try {
    pub(crate) name: &'static str,
    call: fn() -> c_long,
}

/// Rows of `name: call(arguments)`; every argument becomes a full word.
macro_rules! tries {
    ($($(#[$attribute:meta])* $name:literal: $call:ident($($argument:expr),*);)*) => {
        &[$(
            $(#[$attribute])*
            Try {
                name: $name,
                // SAFETY: none of these calls is let through; those that were would be given null
                // pointers, descriptors that are not open, or empty ranges.
                call: || unsafe { syscall(libc::$call, $($argument as c_long),*) },
            }
        ),*]
    };
}

impl Try {
    pub(crate) fn named(name: &str) -> &'static Try {
        let lists = [KILLED, REFUSED, SOCKETS, READ_ONLY, LOCKED];
        let found = lists.into_iter().flatten().find(|one| one.name == name);
        found.unwrap_or_else(|| panic!("no try is called {name}"))
    }

    /// `ok`, or the errno's number.
    pub(crate) fn run(&self) -> String {
        if (self.call)() >= 0 {
            return "ok".to_owned();
        }
        let errno = std::io::Error::last_os_error().raw_os_error();
        errno.unwrap_or_default().to_string()
    }
}

const NO: i32 = 999;
const CWD: i32 = libc::AT_FDCWD;
const PATH: *const libc::c_char = c"x".as_ptr();
const READ: i32 = libc::PROT_READ;
const EXEC: i32 = libc::PROT_READ | libc::PROT_EXEC;
const ANONYMOUS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
const QUIET: i32 = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
/// A thread's flags; each try differs in one.
const THREAD: i32 = libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_CLEARTID;

/// What ends the process.
pub(crate) const KILLED: &[Try] = tries![
    // Other programs, other namespaces, other roots.
    "execve": SYS_execve(0, 0, 0);
    "execveat": SYS_execveat(NO, PATH, 0, 0, 0);
    "mount": SYS_mount(0, 0, 0, 0, 0);
    "umount2": SYS_umount2(0, 0);
    "pivot_root": SYS_pivot_root(0, 0);
    "chroot": SYS_chroot(0);
    "chdir": SYS_chdir(0);
    "fchdir": SYS_fchdir(NO);
    "open_tree": SYS_open_tree(NO, 0, 0);
    "move_mount": SYS_move_mount(NO, 0, NO, 0, 0);
    "fsopen": SYS_fsopen(0, 0);
    "fsmount": SYS_fsmount(NO, 0, 0);
    "fspick": SYS_fspick(NO, 0, 0);
    "mount_setattr": SYS_mount_setattr(NO, 0, 0, 0, 0);
    "unshare": SYS_unshare(libc::CLONE_NEWUSER);
    "setns": SYS_setns(NO, 0);
    "mknodat of a device": SYS_mknodat(NO, PATH, libc::S_IFCHR, libc::makedev(1, 3));
    "setsid": SYS_setsid();
    "personality": SYS_personality(0xffff_ffff_u32);
    // Processes and threads that are not ours, or not plain threads.
    "kill": SYS_kill(1, 0);
    "tkill": SYS_tkill(1, 0);
    "tgkill of another process": SYS_tgkill(1, 1, 0);
    "rt_sigqueueinfo": SYS_rt_sigqueueinfo(1, 0, 0);
    "rt_tgsigqueueinfo": SYS_rt_tgsigqueueinfo(1, 1, 0, 0);
    "pidfd_open": SYS_pidfd_open(1, 0);
    "pidfd_getfd": SYS_pidfd_getfd(NO, 0, 0);
    "pidfd_send_signal": SYS_pidfd_send_signal(NO, 0, 0, 0);
    "ptrace": SYS_ptrace(0, 0, 0, 0);
    "process_vm_readv": SYS_process_vm_readv(1, 0, 0, 0, 0, 0);
    "process_vm_writev": SYS_process_vm_writev(1, 0, 0, 0, 0, 0);
    "kcmp": SYS_kcmp(1, 1, 0, 0, 0);
    "fork by clone": SYS_clone(libc::SIGCHLD, 0, 0, 0, 0);
    "vfork by clone": SYS_clone(libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD, 0, 0, 0, 0);
    "clone, another process": SYS_clone(THREAD & !libc::CLONE_THREAD, 0, 0, 0, 0);
    "clone, own descriptors": SYS_clone(THREAD & !libc::CLONE_FILES, 0, 0, 0, 0);
    "clone, own root": SYS_clone(THREAD & !libc::CLONE_FS, 0, 0, 0, 0);
    "clone, traced": SYS_clone(THREAD | libc::CLONE_PTRACE, 0, 0, 0, 0);
    "clone, new user namespace": SYS_clone(THREAD | libc::CLONE_NEWUSER, 0, 0, 0, 0);
    "clone, new mount namespace": SYS_clone(THREAD | libc::CLONE_NEWNS, 0, 0, 0, 0);
    "rt_sigaction of what tells of violations": SYS_rt_sigaction(libc::SIGSYS, 0, 0, 8);
    // Ids and limits.
    "setuid": SYS_setuid(0);
    "setgid": SYS_setgid(0);
    "setreuid": SYS_setreuid(0, 0);
    "setregid": SYS_setregid(0, 0);
    "setresuid": SYS_setresuid(0, 0, 0);
    "setresgid": SYS_setresgid(0, 0, 0);
    "setfsuid": SYS_setfsuid(0);
    "setgroups": SYS_setgroups(0, 0);
    "prlimit64": SYS_prlimit64(0, 0, 0, 0);
    "umask": SYS_umask(0o777);
    "setpriority": SYS_setpriority(0, 0, 0);
    "sched_setscheduler": SYS_sched_setscheduler(0, 0, 0);
    "rt_sigaction, the signal of violations": SYS_rt_sigaction(libc::SIGSYS, 0, 0, 8);
    "prctl, dumpable": SYS_prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
    "prctl, bounding set": SYS_prctl(libc::PR_CAPBSET_DROP, 0, 0, 0, 0);
    "prctl, ambient set": SYS_prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, 0, 0, 0);
    "prctl, keep capabilities": SYS_prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0);
    "prctl, seccomp": SYS_prctl(libc::PR_SET_SECCOMP, 0, 0, 0, 0);
    "prctl, memory map": SYS_prctl(libc::PR_SET_MM, 0, 0, 0, 0);
    "prctl, death signal": SYS_prctl(libc::PR_SET_PDEATHSIG, 0, 0, 0, 0);
    "prctl, tracer": SYS_prctl(libc::PR_SET_PTRACER, 1, 0, 0, 0);
    // Code.
    "mmap, executable": SYS_mmap(0, 4096, EXEC, ANONYMOUS, -1, 0);
    "mmap, executable and shared": SYS_mmap(0, 4096, EXEC, libc::MAP_SHARED, NO, 0);
    "mmap, private file": SYS_mmap(0, 4096, READ, libc::MAP_PRIVATE, NO, 0);
    "mprotect, executable": SYS_mprotect(0, 0, EXEC);
    "pkey_mprotect": SYS_pkey_mprotect(0, 0, EXEC, -1);
    "remap_file_pages": SYS_remap_file_pages(0, 0, 0, 0, 0);
    "shmat": SYS_shmat(-1, 0, 0);
    "memfd_secret": SYS_memfd_secret(!0_u32);
    // The kernel's wider surfaces.
    "io_uring_setup": SYS_io_uring_setup(0, 0);
    "io_uring_enter": SYS_io_uring_enter(NO, 0, 0, 0, 0, 0);
    "io_uring_register": SYS_io_uring_register(NO, 0, 0, 0);
    "io_setup": SYS_io_setup(0, 0);
    "userfaultfd": SYS_userfaultfd(0);
    "bpf": SYS_bpf(!0_u32, 0, 0);
    "perf_event_open": SYS_perf_event_open(0, 0, 0, 0, 0);
    "keyctl": SYS_keyctl(!0_u32, 0, 0, 0, 0);
    "add_key": SYS_add_key(0, 0, 0, 0, 0);
    "request_key": SYS_request_key(0, 0, 0, 0);
    "ioctl": SYS_ioctl(NO, 0, 0);
    "init_module": SYS_init_module(0, 0, 0);
    "finit_module": SYS_finit_module(NO, 0, 0);
    "delete_module": SYS_delete_module(0, 0);
    "kexec_load": SYS_kexec_load(0, 0, 0, !0_u32);
    "reboot": SYS_reboot(0, 0, 0, 0);
    "swapon": SYS_swapon(0, 0);
    "quotactl": SYS_quotactl(0, 0, 0, 0);
    "syslog": SYS_syslog(0, 0, 0);
    "clock_settime": SYS_clock_settime(!0_u32, 0);
    "fanotify_init": SYS_fanotify_init(!0_u32, 0);
    "inotify_init1": SYS_inotify_init1(!0_u32);
    "signalfd4": SYS_signalfd4(NO, 0, 0, 0);
    "timerfd_create": SYS_timerfd_create(!0_u32, 0);
    "setitimer": SYS_setitimer(!0_u32, 0, 0);
    "timer_create": SYS_timer_create(!0_u32, 0, 0);
    "futex, priority": SYS_futex(0, libc::FUTEX_LOCK_PI, 0, 0, 0, 0);
    "futex, requeue": SYS_futex(0, libc::FUTEX_CMP_REQUEUE, 0, 0, 0, 0);
    // Paths.
    "openat, following": SYS_openat(NO, PATH, libc::O_RDONLY);
    "openat, following from the working directory": SYS_openat(CWD, PATH, libc::O_RDONLY);
    "openat, a directory, following": SYS_openat(CWD, PATH, libc::O_DIRECTORY | libc::O_PATH);
    "openat2": SYS_openat2(CWD, PATH, 0, 0);
    "open_by_handle_at": SYS_open_by_handle_at(NO, 0, 0);
    "name_to_handle_at": SYS_name_to_handle_at(NO, PATH, 0, 0, 0);
    "newfstatat": SYS_newfstatat(CWD, PATH, 0, libc::AT_SYMLINK_NOFOLLOW);
    "sched_setaffinity, of another": SYS_sched_setaffinity(1, 8, 0);
    "faccessat": SYS_faccessat(CWD, PATH, 0);
    "faccessat2": SYS_faccessat2(CWD, PATH, 0, 0);
    "fchmodat of a path": SYS_fchmodat(CWD, PATH, 0o777);
    "fchmodat2": SYS_fchmodat2(CWD, PATH, 0o777, 0);
    "fchownat of a path": SYS_fchownat(CWD, PATH, 0, 0, 0);
    "truncate": SYS_truncate(PATH, 0);
    "statfs": SYS_statfs(PATH, 0);
    "fsetxattr": SYS_fsetxattr(NO, PATH, 0, 0, 0);
    "lgetxattr": SYS_lgetxattr(PATH, PATH, 0, 0);
    // Descriptors.
    "fcntl, owner": SYS_fcntl(NO, libc::F_SETOWN, 1);
    "fcntl, waiting or not": SYS_fcntl(NO, libc::F_SETFL, 0);
    "fcntl, lease": SYS_fcntl(NO, libc::F_SETLEASE, 0);
    "fcntl, close-on-exec": SYS_fcntl(NO, libc::F_SETFD, 0);
    "fcntl, pipe size": SYS_fcntl(NO, libc::F_SETPIPE_SZ, 0);
    "fcntl, notification": SYS_fcntl(NO, libc::F_NOTIFY, 0);
    "dup": SYS_dup(NO);
    "dup3": SYS_dup3(NO, NO, 0);
    "fallocate, a hole": SYS_fallocate(NO, libc::FALLOC_FL_PUNCH_HOLE, 0, 0);
    "splice": SYS_splice(NO, 0, NO, 0, 0, 0);
    "tee": SYS_tee(NO, NO, 0, 0);
    "vmsplice": SYS_vmsplice(NO, 0, 0, 0);
    "sendfile": SYS_sendfile(NO, NO, 0, 0);
    "copy_file_range": SYS_copy_file_range(NO, 0, NO, 0, 0, 0);
    "pipe2": SYS_pipe2(0, 0);
    // The network.
    "socket, IPv4": SYS_socket(libc::AF_INET, libc::SOCK_STREAM | QUIET, 0);
    "socket, IPv6": SYS_socket(libc::AF_INET6, libc::SOCK_STREAM | QUIET, 0);
    "socket, netlink": SYS_socket(libc::AF_NETLINK, libc::SOCK_RAW | QUIET, 0);
    "socket, packet": SYS_socket(libc::AF_PACKET, libc::SOCK_RAW | QUIET, 0);
    "socket, vsock": SYS_socket(libc::AF_VSOCK, libc::SOCK_STREAM | QUIET, 0);
    "socket, raw": SYS_socket(libc::AF_UNIX, libc::SOCK_RAW | QUIET, 0);
    "socket, waiting": SYS_socket(libc::AF_UNIX, libc::SOCK_STREAM, 0);
    "socket, another protocol": SYS_socket(libc::AF_UNIX, libc::SOCK_STREAM | QUIET, 1);
    "socketpair, IPv4": SYS_socketpair(libc::AF_INET, libc::SOCK_STREAM, 0, 0);
    "shutdown": SYS_shutdown(NO, 0);
    "setsockopt": SYS_setsockopt(NO, 0, 0, 0, 0);
    "sendmmsg": SYS_sendmmsg(NO, 0, 0, 0);
    "recvmmsg": SYS_recvmmsg(NO, 0, 0, 0, 0);
    // Another table of calls.
    #[cfg(target_arch = "x86_64")]
    "fork": SYS_fork();
    #[cfg(target_arch = "x86_64")]
    "vfork": SYS_vfork();
    #[cfg(target_arch = "x86_64")]
    "open": SYS_open(PATH, 0, 0);
    #[cfg(target_arch = "x86_64")]
    "creat": SYS_creat(PATH, 0);
    #[cfg(target_arch = "x86_64")]
    "rename": SYS_rename(PATH, PATH);
    #[cfg(target_arch = "x86_64")]
    "link": SYS_link(PATH, PATH);
    #[cfg(target_arch = "x86_64")]
    "unlink": SYS_unlink(PATH);
    #[cfg(target_arch = "x86_64")]
    "chmod": SYS_chmod(PATH, 0);
    #[cfg(target_arch = "x86_64")]
    "chown": SYS_chown(PATH, 0, 0);
    #[cfg(target_arch = "x86_64")]
    "modify_ldt": SYS_modify_ldt(NO, 0, 0);
    #[cfg(target_arch = "x86_64")]
    "iopl": SYS_iopl(3);
    #[cfg(target_arch = "x86_64")]
    "ioperm": SYS_ioperm(0, 0, 0);
    #[cfg(target_arch = "x86_64")]
    "arch_prctl": SYS_arch_prctl(0, 0);
];

/// What is answered: `clone3` hides its flags, so there is no such call.
pub(crate) const REFUSED: &[Try] = tries![
    "clone3": SYS_clone3(0, 0);
];

/// What host sockets need: the same with the options that allow it, deadly without.
pub(crate) const SOCKETS: &[Try] = tries![
    "socket, stream": SYS_socket(libc::AF_UNIX, libc::SOCK_STREAM | QUIET, 0);
    "socket, datagram": SYS_socket(libc::AF_UNIX, libc::SOCK_DGRAM | QUIET, 0);
    "socket, packets": SYS_socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | QUIET, 0);
    "connect": SYS_connect(NO, 0, 0);
    "fchmod of a socket": SYS_fchmod(NO, 0o600);
    "bind": SYS_bind(NO, 0, 0);
    "listen": SYS_listen(NO, 0);
    "accept4": SYS_accept4(NO, 0, 0, 0);
];

/// Refused to the threads of a read-only connection.
pub(crate) const READ_ONLY: &[Try] = tries![
    "fchmod": SYS_fchmod(NO, 0o777);
    "fchownat": SYS_fchownat(NO, c"".as_ptr(), 0, 0, libc::AT_EMPTY_PATH);
    "utimensat": SYS_utimensat(NO, 0, 0, 0);
    "mkdirat": SYS_mkdirat(NO, PATH, 0o777);
    "mknodat": SYS_mknodat(NO, PATH, libc::S_IFREG, 0);
    "symlinkat": SYS_symlinkat(PATH, NO, PATH);
    "linkat": SYS_linkat(NO, PATH, NO, PATH, 0);
    "unlinkat": SYS_unlinkat(NO, PATH, 0);
    "renameat": SYS_renameat(NO, PATH, NO, PATH);
    "renameat2": SYS_renameat2(NO, PATH, NO, PATH, 0);
    "bind of a read-only connection": SYS_bind(NO, 0, 0);
    "fallocate": SYS_fallocate(NO, 0, 0, 1);
    "setxattr": SYS_setxattr(PATH, PATH, 0, 0, 0);
    "removexattr": SYS_removexattr(PATH, PATH);
];

/// Refused to every thread that is tight.
pub(crate) const LOCKED: &[Try] = tries![
    "seccomp": SYS_seccomp(libc::SECCOMP_SET_MODE_FILTER, 0, 0);
    "landlock_create_ruleset": SYS_landlock_create_ruleset(0, 0, 1);
    "landlock_add_rule": SYS_landlock_add_rule(NO, 0, 0, 0);
    "landlock_restrict_self": SYS_landlock_restrict_self(NO, 0);
    "capset": SYS_capset(0, 0);
    "capget": SYS_capget(0, 0);
];

/// `getpid` by the 32-bit table, whose numbers mean other calls in ours.
#[cfg(target_arch = "x86_64")]
pub(crate) fn old_table() -> String {
    let result: i32;
    // SAFETY: 20 is `getpid` there: it takes nothing and changes nothing but the result.
    unsafe { std::arch::asm!("int 0x80", inout("eax") 20 => result) };
    format!("survived with {result}")
}

/// Whoever runs code of their own would try this first.
pub(crate) fn block_the_signal() {
    // SAFETY: zeroes are a valid set, which lives as long as the calls.
    let result = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&raw mut set, libc::SIGSYS);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut())
    };
    assert_eq!(result, 0);
}
