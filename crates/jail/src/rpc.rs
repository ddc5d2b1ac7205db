//! The parent's mount service of v2026-08 (`--rpc-fd`): it opens a mount source that we cannot.
//!
//! One JSON value per message, no length and no delimiter; a descriptor rides on the first byte.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendFlags, recvmsg,
    sendmsg,
};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::spec::Mount;

/// Longest answer we read, in bytes; real ones are a line of text.
const ANSWER_BYTES_MAX: usize = 1 << 20;

#[derive(Serialize)]
struct Request<'a> {
    method: &'static str,
    arg: Argument<'a>,
}

#[derive(Serialize)]
struct Argument<'a> {
    #[serde(rename = "Mount")]
    mount: &'a Mount,
    #[serde(rename = "Flags")]
    flags: u32,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    success: bool,
    #[serde(default)]
    err: Option<String>,
}

/// Asks for the source of `mount`. For an id-mapped mount the answer is a detached mount, else an
/// `O_PATH` descriptor of the source.
pub(crate) fn open_mount(service: &OwnedFd, mount: &Mount, flags: u32) -> Result<OwnedFd, Error> {
    let failed = |reason: String| Error::Rpc {
        source_path: mount.source.clone(),
        reason,
    };
    let request = Request {
        method: "goferToHostRPC.OpenMount",
        arg: Argument { mount, flags },
    };
    let request = serde_json::to_vec(&request).map_err(|error| failed(error.to_string()))?;
    send(service, &request).map_err(|errno| failed(format!("sending: {errno}")))?;
    let (answer, fd) = receive(service).map_err(failed)?;
    match fd {
        Some(fd) if answer.success => Ok(fd),
        None if answer.success => Err(failed("the answer carries no descriptor".to_owned())),
        _ => Err(failed(answer.err.unwrap_or_else(|| "refused".to_owned()))),
    }
}

fn send(service: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let mut control = SendAncillaryBuffer::default();
        match sendmsg(
            service,
            &[IoSlice::new(bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        ) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(Errno::AGAIN) => wait(service, PollFlags::OUT)?,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn receive(service: &OwnedFd) -> Result<(Answer, Option<OwnedFd>), String> {
    let mut bytes = Vec::new();
    let mut fd = None;
    loop {
        // The first byte alone: descriptors ride on it.
        let room = if bytes.is_empty() { 1 } else { 4096 };
        let read = receive_some(service, &mut bytes, room, &mut fd)
            .map_err(|errno| format!("receiving: {errno}"))?;
        if read == 0 {
            return Err("the service is gone".to_owned());
        }
        match serde_json::from_slice(&bytes) {
            Ok(answer) => return Ok((answer, fd)),
            Err(error) if error.is_eof() && bytes.len() < ANSWER_BYTES_MAX => {}
            Err(error) => return Err(format!("malformed answer: {error}")),
        }
    }
}

fn receive_some(
    service: &OwnedFd,
    bytes: &mut Vec<u8>,
    room: usize,
    fd: &mut Option<OwnedFd>,
) -> Result<usize, Errno> {
    let start = bytes.len();
    bytes.resize(start + room, 0);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let received = loop {
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut bytes[start..])];
        match recvmsg(service, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(message) => {
                for message in control.drain() {
                    if let RecvAncillaryMessage::ScmRights(fds) = message {
                        *fd = fds.last().or(fd.take());
                    }
                }
                break message.bytes;
            }
            Err(Errno::AGAIN) => wait(service, PollFlags::IN)?,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    };
    bytes.truncate(start + received);
    Ok(received)
}

fn wait(service: &OwnedFd, what: PollFlags) -> Result<(), Errno> {
    match poll(&mut [PollFd::new(service, what)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test may panic")]
    use super::*;
    use rustix::net::SendAncillaryMessage;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    /// Plays the service: reads one request, sends `answer`, with a descriptor if asked.
    fn serve(mut end: UnixStream, answer: &'static str, with_fd: bool) -> String {
        let mut request = vec![0; 4096];
        let read = end.read(&mut request).unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [null.as_fd()];
        if with_fd {
            assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        }
        let first = [IoSlice::new(&answer.as_bytes()[..1])];
        sendmsg(&end, &first, &mut control, SendFlags::empty()).unwrap();
        end.write_all(&answer.as_bytes()[1..]).unwrap();
        String::from_utf8(request[..read].to_vec()).unwrap()
    }

    fn ask(answer: &'static str, with_fd: bool) -> (String, Result<OwnedFd, Error>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let service = std::thread::spawn(move || serve(theirs, answer, with_fd));
        let mount = Mount {
            destination: "/p".into(),
            kind: "bind".into(),
            source: "/v".into(),
            options: vec!["rbind".into()],
            ..Mount::default()
        };
        let result = open_mount(&ours.into(), &mount, 20480);
        (service.join().unwrap(), result)
    }

    #[test]
    fn a_source_is_asked_for_in_the_observed_form() {
        let (request, result) = ask(r#"{"success":true,"err":"","result":{}}"#, true);
        assert!(result.is_ok());
        assert_eq!(
            request,
            r#"{"method":"goferToHostRPC.OpenMount","arg":{"Mount":{"destination":"/p","type":"bind","source":"/v","options":["rbind"]},"Flags":20480}}"#
        );
    }

    #[test]
    fn every_other_answer_is_an_error_with_the_services_words() {
        let message = |answer, fd| ask(answer, fd).1.unwrap_err().to_string();
        assert!(
            message(r#"{"success":false,"err":"no way","result":null}"#, false).contains("no way")
        );
        assert!(message(r#"{"success":true}"#, false).contains("no descriptor"));
        assert!(message("nonsense", false).contains("malformed"));
    }
}
