//! The policy: every system call of the sealed process, with its reason.
//!
//! To allow a call, add one row: `call!(SYS_name, WHEN, [ARGUMENTS], "reason")`. Rows of one call
//! are alternatives; a row without arguments would make all others of that call idle (a test
//! refuses that).

use crate::seccomp::{Arg, Rule, When};
use Arg::{Has, Is, IsDescriptorDirectory, IsNot, IsOwnProcess, Lacks};
use When::{Always, Credentials, HostCreate, HostOpen, HostSockets, UntilTightened};

/// One row; the name is that of a constant of `libc`.
macro_rules! call {
    ($name:ident, $when:expr, [$($argument:expr),*], $reason:literal) => {
        $crate::seccomp::Rule {
            number: libc::$name,
            name: stringify!($name).split_at("SYS_".len()).1,
            when: $when,
            arguments: &[$($argument),*],
            reason: $reason,
        }
    };
}

const EXECUTABLE: u64 = libc::PROT_EXEC as u64;
const NOFOLLOW: u64 = libc::O_NOFOLLOW as u64;
const EMPTY_PATH: u64 = libc::AT_EMPTY_PATH as u64;
const SHARED: u64 = libc::MAP_SHARED as u64;
const PRIVATE_ANONYMOUS: u64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;

/// What makes a thread of this process, and nothing else.
const THREAD: u32 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_CLEARTID)
    .cast_unsigned();

const UNIX: u32 = libc::AF_UNIX as u32;
/// A socket of ours never waits and is not inherited.
const STREAM: u32 = (libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC).cast_unsigned();
const DATAGRAM: u32 = (libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC).cast_unsigned();
const PACKETS: u32 =
    (libc::SOCK_SEQPACKET | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC).cast_unsigned();

/// Linux 6.6, the same on every architecture; `libc` names it on some.
pub(crate) const SYS_FCHMODAT2: i64 = 452;

const FUTEX_WAIT: u32 = 0;
const FUTEX_WAKE: u32 = 1;
const FUTEX_WAIT_BITSET: u32 = 9;
const FUTEX_PRIVATE: u32 = 128;
const FUTEX_REALTIME: u32 = 256;

/// All rows. No architecture needs one of its own.
pub const RULES: &[&[Rule]] = &[RUNTIME, FILES, CONNECTIONS, SOCKETS, SEALING];

/// What a Rust program with threads and a static C library does by itself.
const RUNTIME: &[Rule] = &[
    call!(SYS_brk, Always, [], "the heap grows"),
    call!(
        SYS_mmap,
        Always,
        [Lacks(2, EXECUTABLE), Has(3, SHARED)],
        "windows shared with clients"
    ),
    call!(
        SYS_mmap,
        Always,
        [Lacks(2, EXECUTABLE), Has(3, PRIVATE_ANONYMOUS)],
        "heap and stacks"
    ),
    call!(
        SYS_mprotect,
        Always,
        [Lacks(2, EXECUTABLE)],
        "stack guards, heap growth"
    ),
    call!(SYS_munmap, Always, [], "heap, windows"),
    call!(SYS_mremap, Always, [], "growing large buffers"),
    call!(SYS_madvise, Always, [], "giving heap and stacks back"),
    call!(
        SYS_clone,
        Always,
        [Is(0, THREAD)],
        "a thread per channel, nothing but threads"
    ),
    call!(
        SYS_clone3,
        Always,
        [],
        "refused with ENOSYS before these rows are looked at"
    ),
    call!(SYS_set_robust_list, Always, [], "thread start"),
    call!(SYS_rseq, Always, [], "thread start and end"),
    call!(
        SYS_sigaltstack,
        Always,
        [],
        "stack overflow guard of each thread"
    ),
    call!(
        SYS_rt_sigprocmask,
        Always,
        [],
        "thread start and end, abort"
    ),
    call!(
        SYS_rt_sigaction,
        Always,
        [IsNot(0, libc::SIGSYS.cast_unsigned())],
        "abort, default dispositions; the handler that tells of violations stays"
    ),
    call!(
        SYS_rt_sigreturn,
        Always,
        [],
        "end of the handler that looks at faults"
    ),
    call!(
        SYS_restart_syscall,
        Always,
        [],
        "a call interrupted by a stop"
    ),
    call!(SYS_sched_yield, Always, [], "contended locks"),
    call!(
        SYS_sched_getaffinity,
        Always,
        [],
        "how many processors there are; thread attributes"
    ),
    call!(
        SYS_sched_setaffinity,
        Always,
        [Is(0, 0)],
        "a channel's thread leaves the CPU of its client to look at it"
    ),
    call!(
        SYS_getcpu,
        Always,
        [],
        "which CPU that is, where no shared memory tells"
    ),
    call!(SYS_getrandom, Always, [], "hash seeds"),
    call!(
        SYS_clock_gettime,
        Always,
        [],
        "log timestamps without a vDSO"
    ),
    call!(SYS_gettid, Always, [], "abort, thread names"),
    call!(SYS_getpid, Always, [], "ending after a panic"),
    call!(
        SYS_tgkill,
        Always,
        [IsOwnProcess(0)],
        "ending after a panic"
    ),
    call!(
        SYS_prctl,
        Always,
        [Is(0, libc::PR_SET_NAME as u32)],
        "thread names"
    ),
    call!(SYS_exit, Always, [], "end of a thread"),
    call!(SYS_exit_group, Always, [], "end of the process"),
    call!(
        SYS_futex,
        Always,
        [Is(1, FUTEX_WAIT)],
        "a channel waits for its turn"
    ),
    call!(
        SYS_futex,
        Always,
        [Is(1, FUTEX_WAKE)],
        "a channel gives its turn; thread end"
    ),
    call!(
        SYS_futex,
        Always,
        [Is(1, FUTEX_WAIT | FUTEX_PRIVATE)],
        "locks of the C library"
    ),
    call!(
        SYS_futex,
        Always,
        [Is(1, FUTEX_WAKE | FUTEX_PRIVATE)],
        "locks of the library"
    ),
    call!(
        SYS_futex,
        Always,
        [Is(1, FUTEX_WAIT_BITSET | FUTEX_PRIVATE)],
        "locks of the library"
    ),
    call!(
        SYS_futex,
        Always,
        [Is(1, FUTEX_WAIT_BITSET | FUTEX_REALTIME)],
        "joining a thread"
    ),
];

/// What serving files needs. Descriptors in, names of one component; never a path.
const FILES: &[Rule] = &[
    call!(
        SYS_openat,
        Always,
        [Has(2, NOFOLLOW)],
        "walk, open, create: one name, no link"
    ),
    call!(
        SYS_openat,
        Always,
        [IsDescriptorDirectory(0)],
        "opening a held file anew"
    ),
    call!(SYS_close, Always, [], "ids end"),
    call!(
        SYS_fcntl,
        Always,
        [Is(1, libc::F_DUPFD_CLOEXEC as u32)],
        "donated descriptors"
    ),
    call!(
        SYS_fcntl,
        Always,
        [Is(1, libc::F_GETFD as u32)],
        "checks of a debug build"
    ),
    call!(
        SYS_fcntl,
        Always,
        [Is(1, libc::F_ADD_SEALS as u32)],
        "channel memory of fixed size"
    ),
    // No arguments: with `AT_EMPTY_PATH`, which is needed, the path may be anything and is followed, so
    // asking for flags stops nothing (tested). Without, the kernel need not run the filters.
    call!(
        SYS_statx,
        Always,
        [],
        "attributes of a descriptor, of a name; device of an entry"
    ),
    call!(SYS_fstat, Always, [], "kind of a descriptor"),
    call!(
        SYS_newfstatat,
        Always,
        [Has(3, EMPTY_PATH)],
        "kind of a descriptor"
    ),
    call!(SYS_fstatfs, Always, [], "FStatFS"),
    call!(SYS_pread64, Always, [], "PRead requests"),
    call!(SYS_pwrite64, Always, [], "PWrite"),
    call!(SYS_fsync, Always, [], "FSync requests"),
    call!(
        SYS_fallocate,
        Always,
        [Is(1, 0)],
        "FAllocate; clients only allocate"
    ),
    call!(SYS_ftruncate, Always, [], "SetStat SIZE; channel memory"),
    call!(
        SYS_fchmodat,
        Always,
        [IsDescriptorDirectory(0)],
        "SetStat MODE by descriptor number, before Linux 6.6"
    ),
    Rule {
        number: SYS_FCHMODAT2,
        name: "fchmodat2",
        when: Always,
        arguments: &[Has(3, EMPTY_PATH)],
        reason: "SetStat MODE of a descriptor",
    },
    call!(
        SYS_fchownat,
        Always,
        [Has(4, EMPTY_PATH)],
        "owner of a descriptor"
    ),
    call!(SYS_utimensat, Always, [], "SetStat times"),
    call!(SYS_mkdirat, Always, [], "MkdirAt"),
    call!(
        SYS_mknodat,
        Always,
        [Is(3, 0)],
        "MknodAt; of devices only the whiteout, 0:0"
    ),
    call!(SYS_symlinkat, Always, [], "SymlinkAt"),
    call!(SYS_linkat, Always, [], "LinkAt"),
    call!(SYS_unlinkat, Always, [], "UnlinkAt, undo of a creation"),
    call!(SYS_renameat, Always, [], "RenameAt"),
    call!(SYS_renameat2, Always, [], "RenameAt2"),
    call!(SYS_readlinkat, Always, [], "ReadLinkAt"),
    call!(SYS_getdents64, Always, [], "Getdents64"),
    call!(SYS_lseek, Always, [], "Getdents64 from the start"),
    call!(SYS_getxattr, Always, [], "FGetXattr by descriptor number"),
    call!(SYS_setxattr, Always, [], "FSetXattr by descriptor number"),
    call!(SYS_listxattr, Always, [], "FListXattr by descriptor number"),
    call!(
        SYS_removexattr,
        Always,
        [],
        "FRemoveXattr by descriptor number"
    ),
];

/// What talking to clients needs, and logs.
const CONNECTIONS: &[Rule] = &[
    call!(SYS_read, Always, [], "sockets, wake-ups"),
    call!(SYS_write, Always, [], "logs, wake-ups"),
    call!(SYS_sendmsg, Always, [], "replies with descriptors"),
    call!(
        SYS_recvfrom,
        Always,
        [],
        "the bytes of a message after its first"
    ),
    call!(
        SYS_recvmsg,
        Always,
        [],
        "requests; the sandbox's pidfd at the end"
    ),
    call!(SYS_ppoll, Always, [], "waiting on a socket"),
    call!(
        SYS_epoll_create1,
        Always,
        [],
        "one place that watches all connections"
    ),
    call!(
        SYS_epoll_ctl,
        Always,
        [],
        "one place that watches all connections"
    ),
    call!(
        SYS_epoll_pwait,
        Always,
        [],
        "one place that watches all connections"
    ),
    call!(SYS_eventfd2, Always, [], "a connection has ended"),
    call!(SYS_memfd_create, Always, [], "channel memory"),
    call!(
        SYS_socketpair,
        Always,
        [Is(0, UNIX)],
        "a channel's own descriptor socket"
    ),
];

/// Host sockets, by option.
const SOCKETS: &[Rule] = &[
    call!(
        SYS_socket,
        HostSockets,
        [Is(0, UNIX), Is(1, STREAM), Is(2, 0)],
        "Connect, BindAt"
    ),
    call!(
        SYS_socket,
        HostSockets,
        [Is(0, UNIX), Is(1, DATAGRAM), Is(2, 0)],
        "Connect, BindAt"
    ),
    call!(
        SYS_socket,
        HostSockets,
        [Is(0, UNIX), Is(1, PACKETS), Is(2, 0)],
        "Connect, BindAt"
    ),
    call!(SYS_connect, HostOpen, [], "Connect"),
    call!(SYS_fchmod, HostCreate, [], "BindAt: mode of a new socket"),
    call!(SYS_bind, HostCreate, [], "BindAt"),
    call!(SYS_listen, HostCreate, [], "Listen"),
    call!(SYS_accept4, HostCreate, [], "Accept"),
    call!(
        SYS_geteuid,
        HostOpen,
        [],
        "whose ids a connection would carry"
    ),
    call!(
        SYS_getegid,
        HostOpen,
        [],
        "whose ids a connection would carry"
    ),
    call!(
        SYS_setresuid,
        Credentials,
        [],
        "ConnectWithCreds, on the one thread that may"
    ),
    call!(
        SYS_setresgid,
        Credentials,
        [],
        "ConnectWithCreds, on the one thread that may"
    ),
];

/// What a serving thread needs to become narrower than the process. All of it can only take away.
const SEALING: &[Rule] = &[
    call!(
        SYS_landlock_create_ruleset,
        UntilTightened,
        [],
        "a thread's own domain"
    ),
    call!(
        SYS_landlock_add_rule,
        UntilTightened,
        [],
        "a thread's own domain"
    ),
    call!(
        SYS_landlock_restrict_self,
        UntilTightened,
        [],
        "a thread's own domain"
    ),
    call!(
        SYS_seccomp,
        UntilTightened,
        [],
        "a thread's own filter; get-version of a library"
    ),
    call!(
        SYS_prctl,
        Always,
        [Is(0, libc::PR_SET_NO_NEW_PRIVS as u32)],
        "precondition, set again"
    ),
    call!(
        SYS_capget,
        UntilTightened,
        [],
        "a thread gives up what it does not need"
    ),
    call!(
        SYS_capset,
        UntilTightened,
        [],
        "a thread gives up what it does not need"
    ),
];

/// Refused once a thread is tight: it never changes its own confinement again.
pub const LOCKED_OUT: &[i64] = &[
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_restrict_self,
    libc::SYS_seccomp,
    libc::SYS_capget,
    libc::SYS_capset,
];

/// Refused to the threads of a read-only connection, beyond what Landlock refuses them.
/// `ftruncate` and `pwrite64` stay: channel memory needs the one, and neither works on a
/// descriptor that was opened for reading.
pub const READ_ONLY_REFUSED: &[i64] = &[
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    SYS_FCHMODAT2,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_fallocate,
    libc::SYS_setxattr,
    libc::SYS_removexattr,
    libc::SYS_bind,
];
