//! Plays the service of a v2026-08 parent that opens mount sources (`gofer-process.md` 9.1): JSON
//! values without delimiters, a descriptor on the first byte of an answer, in the gofer's own mount
//! namespace.
#![allow(
    unsafe_code,
    reason = "a thread's own root and id-mapped mounts have no safe form"
)]

use std::fs::{self, File};
use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::Pid;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use serde_json::{Value, json};

/// `MOUNT_ATTR_IDMAP`.
const ID_MAP: u64 = 0x0010_0000;

/// A service that runs until the gofer lets go of its end.
#[derive(Debug)]
pub struct MountService(JoinHandle<io::Result<Vec<Value>>>);

impl MountService {
    /// Serves a gofer from a thread of its own.
    #[must_use]
    pub fn start(socket: OwnedFd, gofer: Pid) -> MountService {
        MountService(std::thread::spawn(move || {
            serve(socket.into(), gofer, usize::MAX)
        }))
    }

    /// As [`MountService::start`]; each byte of an answer is sent by itself.
    #[must_use]
    pub fn start_in_pieces(socket: OwnedFd, gofer: Pid) -> MountService {
        MountService(std::thread::spawn(move || serve(socket.into(), gofer, 1)))
    }

    /// The requests, once the gofer has let go.
    ///
    /// # Errors
    /// The host's.
    pub fn requests(self) -> io::Result<Vec<Value>> {
        let ended = self.0.join();
        ended.map_err(|_| io::Error::other("the service panicked"))?
    }
}

fn serve(mut socket: File, gofer: Pid, piece: usize) -> io::Result<Vec<Value>> {
    let mut requests = Vec::new();
    while let Some(request) = receive(&mut socket)? {
        if requests.is_empty() {
            enter(gofer)?;
        }
        let answer = open_mount(&request["arg"]);
        requests.push(request);
        reply(&mut socket, &answer, piece)?;
    }
    Ok(requests)
}

/// Until the value is complete, or nothing comes any more.
fn receive(socket: &mut File) -> io::Result<Option<Value>> {
    let (mut text, mut some) = (Vec::new(), [0; 512]);
    loop {
        let length = socket.read(&mut some)?;
        if length == 0 {
            return Ok(None);
        }
        text.extend_from_slice(&some[..length]);
        if let Ok(value) = serde_json::from_slice(&text) {
            return Ok(Some(value));
        }
    }
}

/// This thread sees the gofer's mounts; the others do not.
fn enter(gofer: Pid) -> io::Result<()> {
    let namespace = File::open(format!("/proc/{}/ns/mnt", gofer.as_raw_nonzero()))?;
    // SAFETY: root and working directory become this thread's own; descriptors stay shared.
    unsafe { unshare_unsafe(UnshareFlags::FS) }?;
    let kind = Some(LinkNameSpaceType::Mount);
    Ok(move_into_link_name_space(namespace.as_fd(), kind)?)
}

fn open_mount(argument: &Value) -> io::Result<OwnedFd> {
    let mount = &argument["Mount"];
    let source = mount["source"].as_str().unwrap_or_default();
    let maps = (&mount["uidMappings"], &mount["gidMappings"]);
    let (Some(users), Some(groups)) = (maps.0.as_array(), maps.1.as_array()) else {
        return Ok(open(source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?);
    };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, source, flags)?;
    let mut holder = Holder::new(&[("uid_map", users), ("gid_map", groups)])?;
    map_ids(&tree, &holder.namespace()?)?;
    Ok(tree)
}

/// A process that does nothing but be in a user namespace with these maps.
struct Holder(Child);

impl Holder {
    fn new(maps: &[(&str, &Vec<Value>)]) -> io::Result<Holder> {
        let mut command = Command::new("unshare");
        command.args(["--user", "sh", "-c", "echo; exec sleep 60"]);
        let mut holder = Holder(command.stdout(Stdio::piped()).spawn()?);
        if let Some(output) = &mut holder.0.stdout {
            output.read_exact(&mut [0])?;
        }
        for (file, lines) in maps {
            let line =
                |map: &Value| format!("{} {} {}\n", map["containerID"], map["hostID"], map["size"]);
            let text: String = lines.iter().map(line).collect();
            fs::write(format!("/proc/{}/{file}", holder.0.id()), text)?;
        }
        Ok(holder)
    }

    fn namespace(&mut self) -> io::Result<File> {
        File::open(format!("/proc/{}/ns/user", self.0.id()))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

fn map_ids(tree: &OwnedFd, namespace: &File) -> io::Result<()> {
    // `struct mount_attr`: set, clear, propagation, user namespace.
    let wish = [ID_MAP, 0, 0, namespace.as_raw_fd() as u64];
    // SAFETY: the kernel reads an empty string and the four words of `wish`.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const wish,
            size_of_val(&wish),
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn reply(socket: &mut File, answer: &io::Result<OwnedFd>, piece: usize) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let (text, fds) = match answer {
        Ok(fd) => (
            json!({ "success": true, "err": "", "result": {} }),
            vec![fd.as_fd()],
        ),
        Err(error) => {
            let error = error.to_string();
            (
                json!({ "success": false, "err": error, "result": null }),
                Vec::new(),
            )
        }
    };
    if !fds.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    }
    let text = text.to_string();
    let (first, rest) = text.as_bytes().split_at(1);
    sendmsg(
        &*socket,
        &[IoSlice::new(first)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    for piece in rest.chunks(piece) {
        wait_until_read(socket)?;
        socket.write_all(piece)?;
    }
    Ok(())
}

/// Until nothing that we have sent waits to be received: what comes next arrives by itself.
fn wait_until_read(socket: &File) -> io::Result<()> {
    let mut waiting: libc::c_int = 1;
    while waiting > 0 {
        // SAFETY: the call writes one number to where it may.
        let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut waiting) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        std::thread::yield_now();
    }
    Ok(())
}
