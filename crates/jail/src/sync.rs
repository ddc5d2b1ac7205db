//! Waiting until the parent has done its side of the start.

use std::os::fd::OwnedFd;

use rustix::io::{Errno, read};

use crate::Error;

/// Waits for end-of-file on a sync socket, then closes it. The parent never writes to one: it
/// closes its end, and so does its death.
pub(crate) fn wait_for_end(flag: &str, fd: OwnedFd) -> Result<(), Error> {
    let mut byte = [0; 1];
    loop {
        match read(&fd, &mut byte) {
            Ok(0) => return Ok(()),
            Ok(_) => {
                return Err(Error::Parent(format!(
                    "--{flag} delivered a byte instead of its end"
                )));
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::host(format!("waiting on --{flag}"), errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test may panic")]
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[test]
    fn only_the_end_of_the_socket_lets_us_go_on() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert!(wait_for_end("sync-userns-fd", ours.into()).is_ok());
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"x").unwrap();
        let message = wait_for_end("sync-userns-fd", ours.into())
            .unwrap_err()
            .to_string();
        assert!(message.contains("sync-userns-fd"), "{message}");
    }
}
