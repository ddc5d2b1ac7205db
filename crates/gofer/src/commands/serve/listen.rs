//! Where the sockets of `gofer serve` come from: made, inherited by number, or given by systemd.

use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use jail::Inherited;
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::commands::Failure;

/// First descriptor of socket activation.
const ACTIVATION_FIRST: i32 = 3;
/// Sockets that are taken from an activation; a number beyond is a mistake, not a wish.
const ACTIVATION_MAX: i32 = 256;

/// Inherited sockets with the names they came with.
pub(super) struct Given {
    sockets: Vec<(Option<String>, OwnedFd)>,
}

/// What to listen on, and what is connected already.
pub(super) struct Sockets {
    pub(super) listeners: Vec<Listener>,
    pub(super) connected: Option<OwnedFd>,
}

/// A listening socket. A socket file that we have made goes with it.
pub(super) struct Listener {
    socket: OwnedFd,
    pub(super) export: usize,
    _made: Option<Made>,
}

/// Path, device and inode number.
struct Made(PathBuf, u64, u64);

impl Listener {
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let Made(path, device, inode) = self;
        let ours = |m: std::fs::Metadata| (m.dev(), m.ino()) == (*device, *inode);
        if path.symlink_metadata().is_ok_and(ours) {
            // A file that stays is found to be dead by the next who wants the name.
            _ = std::fs::remove_file(path);
        }
    }
}

/// Takes the descriptor of `--fd`, or those of an activation meant for this process; every other is
/// closed.
pub(super) fn claim(fd: Option<i32>) -> Result<Given, Failure> {
    let failed = |error: jail::Error| Failure::Argument(error.to_string());
    let (numbers, names) = match fd {
        Some(fd) => (vec![fd], Vec::new()),
        None => activation(),
    };
    let mut inherited = Inherited::claim(&numbers).map_err(failed)?;
    let mut names = names.into_iter();
    let take = |number| {
        let socket = inherited.take("fd", number).map_err(failed)?;
        Ok((names.next(), socket))
    };
    Ok(Given {
        sockets: numbers
            .into_iter()
            .map(take)
            .collect::<Result<_, Failure>>()?,
    })
}

fn activation() -> (Vec<i32>, Vec<String>) {
    let variable = |name| std::env::var(name).ok();
    let number = |name| variable(name)?.parse::<i32>().ok();
    if number("LISTEN_PID") != i32::try_from(std::process::id()).ok() {
        return (Vec::new(), Vec::new());
    }
    let count = number("LISTEN_FDS").unwrap_or(0).clamp(0, ACTIVATION_MAX);
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    (
        (ACTIVATION_FIRST..ACTIVATION_FIRST + count).collect(),
        names.split(':').map(str::to_owned).collect(),
    )
}

/// Turns inherited sockets into listeners, or makes them at `path`. `names` are those of the
/// directories, the first of which has none.
pub(super) fn sockets(
    given: Given,
    path: Option<&Path>,
    names: &[Option<&str>],
    open_to_all: bool,
) -> Result<Sockets, Failure> {
    let mut found = Sockets {
        listeners: Vec::new(),
        connected: None,
    };
    for (name, socket) in given.sockets {
        check_kind(&socket)?;
        if sockopt::socket_acceptconn(&socket).unwrap_or(false) {
            let named = names
                .iter()
                .position(|n| n.is_some() && *n == name.as_deref());
            // Units that name no socket give it the name of the unit.
            let export = named.unwrap_or(0);
            found.listeners.push(Listener {
                socket,
                export,
                _made: None,
            });
        } else {
            found.connected = Some(socket);
        }
    }
    if let Some(path) = path {
        for (export, name) in names.iter().enumerate() {
            found
                .listeners
                .push(make(path, *name, export, open_to_all)?);
        }
    }
    if found.listeners.is_empty() && found.connected.is_none() {
        return Err(Failure::Argument(
            "nothing to listen on: give --listen SOCK or --fd N, or start this from a systemd \
             socket unit"
                .to_owned(),
        ));
    }
    Ok(found)
}

fn check_kind(socket: &OwnedFd) -> Result<(), Failure> {
    let is_ours = sockopt::socket_domain(socket) == Ok(AddressFamily::UNIX)
        && sockopt::socket_type(socket) == Ok(SocketType::STREAM);
    if is_ours {
        return Ok(());
    }
    Err(Failure::Argument(
        "an inherited descriptor is no Unix stream socket (ListenStream= with a path)".to_owned(),
    ))
}

fn make(
    path: &Path,
    name: Option<&str>,
    export: usize,
    open_to_all: bool,
) -> Result<Listener, Failure> {
    let mut full = path.as_os_str().to_owned();
    if let Some(name) = name {
        full.push(".");
        full.push(name);
    }
    let path = PathBuf::from(full);
    let cannot = |cause| Failure::File {
        what: "cannot listen on",
        path: path.clone(),
        cause,
    };
    // Others get to the door; who comes in is decided by their ids.
    let kept = if open_to_all { 0o111 } else { 0o177 };
    let before = rustix::process::umask(Mode::from_raw_mode(kept));
    let bound = match UnixListener::bind(&path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse && is_dead(&path) => {
            std::fs::remove_file(&path).and_then(|()| UnixListener::bind(&path))
        }
        other => other,
    };
    rustix::process::umask(before);
    let listener = bound.map_err(cannot)?;
    let file = path.symlink_metadata().map_err(cannot)?;
    Ok(Listener {
        socket: listener.into(),
        export,
        _made: Some(Made(path.clone(), file.dev(), file.ino())),
    })
}

/// A socket file that nobody listens on any more.
fn is_dead(path: &Path) -> bool {
    let refused = UnixStream::connect(path).err().map(|error| error.kind());
    refused == Some(ErrorKind::ConnectionRefused)
        && path
            .symlink_metadata()
            .is_ok_and(|file| std::os::unix::fs::FileTypeExt::is_socket(&file.file_type()))
}

/// Whoever waits for word that we are ready (`NOTIFY_SOCKET`).
pub(super) struct Notify(Option<(UnixDatagram, SocketAddr)>);

impl Notify {
    pub(super) fn from_environment() -> Notify {
        let open = || {
            let name = std::env::var_os("NOTIFY_SOCKET")?;
            let address = match name.as_bytes().strip_prefix(b"@") {
                Some(name) => SocketAddr::from_abstract_name(name),
                None => SocketAddr::from_pathname(&name),
            };
            Some((UnixDatagram::unbound().ok()?, address.ok()?))
        };
        Notify(open())
    }

    pub(super) fn say(&self, what: &str) {
        if let Some((socket, address)) = &self.0 {
            // Without it we serve all the same; whoever waits will say so.
            _ = socket.send_to_addr(what.as_bytes(), address);
        }
    }
}
