//! The confined process itself: descriptors, jail, then serving until every client has left.
//!
//! Must hold: one thread until it is sealed; nothing a client sends is read before.

use std::ffi::{OsStr, OsString};
use std::io::IoSliceMut;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use host::DescriptorDir;
use jail::{Directory, Inherited, Sealed};
use rustix::fs::{Mode, OFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use rustix::process::{Resource, Signal, getrlimit, set_parent_process_death_signal};
use server::{Mount, MountPoints, Policy, Server};

use crate::threads;

use super::{FAILED, Limits, SEALED, SOCKETS_MAX, Serving};

/// Descriptors beyond those of ids: sockets, windows, replies under way.
const OWN_DESCRIPTORS: u64 = 256;

/// The command line before the path: what is not a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Words {
    limits: Limits,
    readonly: bool,
    user_namespace: bool,
    special_files: bool,
    end_with_parent: bool,
}

impl Words {
    pub(super) fn of(serving: &Serving<'_>) -> Words {
        Words {
            limits: serving.limits,
            readonly: serving.readonly,
            user_namespace: serving.user_namespace,
            special_files: serving.special_files,
            end_with_parent: serving.end_with_parent,
        }
    }

    /// Words a person understands in a list of processes.
    pub(super) fn encode(self) -> [String; 6] {
        let word = |is: bool, yes: &str, no: &str| if is { yes } else { no }.to_owned();
        [
            self.limits.ids_max.to_string(),
            self.limits.channels_max.to_string(),
            word(self.readonly, "ro", "rw"),
            word(self.user_namespace, "userns", "no-userns"),
            word(self.special_files, "special", "plain"),
            word(self.end_with_parent, "child", "own"),
        ]
    }

    fn decode(words: [&OsStr; 6]) -> Option<Words> {
        let choice = |word: &OsStr, yes: &str, no: &str| match word {
            word if word == yes => Some(true),
            word if word == no => Some(false),
            _ => None,
        };
        let [ids, channels, access, namespace, kinds, life] = words;
        Some(Words {
            limits: Limits {
                ids_max: ids.to_str()?.parse().ok()?,
                channels_max: channels.to_str()?.parse().ok()?,
            },
            readonly: choice(access, "ro", "rw")?,
            user_namespace: choice(namespace, "userns", "no-userns")?,
            special_files: choice(kinds, "special", "plain")?,
            end_with_parent: choice(life, "child", "own")?,
        })
    }
}

/// Runs the process on the words after `argv[0]`; returns its exit status.
pub(crate) fn run(words: &[OsString]) -> u8 {
    let [ids, channels, access, namespace, kinds, life, path] = words else {
        eprintln!("gofer: this is started by gofer itself, not by people");
        return 2;
    };
    let Some(parsed) =
        Words::decode([ids, channels, access, namespace, kinds, life].map(|w| w.as_os_str()))
    else {
        eprintln!("gofer: {words:?} are not what gofer starts this with");
        return 2;
    };
    let path = Path::new(path);
    match become_confined(parsed, path).and_then(|sealed| serve(parsed, path, sealed)) {
        Ok(()) => 0,
        Err(message) => {
            eprintln!("gofer: serving {}: {message}", path.display());
            1
        }
    }
}

/// Everything up to the seal, and word of it to the parent. A failure is the parent's to tell, if
/// it listens.
fn become_confined(words: Words, path: &Path) -> Result<(Sealed, usize), String> {
    let control = claim_control()?;
    let sealed = confine(words, path, &control);
    let said = match &sealed {
        Ok((sealed, _)) => [&[SEALED], sealed.report.to_string().as_bytes()].concat(),
        Err(message) => [&[FAILED], message.as_bytes()].concat(),
    };
    let told = rustix::io::write(&control, &said);
    told.map_err(|errno| format!("telling the parent: {errno}"))?;
    sealed
}

/// The socket that came as standard input, from which nothing shall be read by mistake later.
fn claim_control() -> Result<OwnedFd, String> {
    Inherited::claim(&[]).map_err(|error| error.to_string())?;
    let control = rustix::io::fcntl_dupfd_cloexec(std::io::stdin().as_fd(), 3)
        .map_err(|errno| format!("standard input: {errno}"))?;
    rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .and_then(rustix::stdio::dup2_stdin)
        .map_err(|errno| format!("/dev/null: {errno}"))?;
    Ok(control)
}

fn confine(words: Words, path: &Path, control: &OwnedFd) -> Result<(Sealed, usize), String> {
    let mut fds = receive(control)?.into_iter();
    let dir = fds.next().ok_or("no directory came along")?;
    jail::signals::unblock();
    jail::signals::exit_on_signals().map_err(|errno| format!("signal handlers: {errno}"))?;
    let ids_max = u64::try_from(words.limits.ids_max).unwrap_or(u64::MAX);
    let directory = Directory {
        dir,
        sockets: fds.collect(),
        path: path.as_os_str().as_bytes().to_vec(),
        readonly: words.readonly,
        user_namespace: words.user_namespace,
        descriptors_max: ids_max.saturating_add(OWN_DESCRIPTORS),
    };
    let (mut sealed, descriptors_max) =
        seal(directory, words.end_with_parent).map_err(|error| error.to_string())?;
    for warning in sealed.warnings() {
        eprintln!("gofer: serving {}: {warning}", path.display());
    }
    Ok((sealed, descriptors_max))
}

/// Also how many descriptors may be open: it cannot be asked for afterwards.
fn seal(directory: Directory, end_with_parent: bool) -> Result<(Sealed, usize), jail::Error> {
    let confined = directory.enter()?.confine()?;
    if end_with_parent {
        // Only now: changing credentials takes it away. Without it we end when our clients leave.
        _ = set_parent_process_death_signal(Some(Signal::TERM));
    }
    let limit = getrlimit(Resource::Nofile).current;
    let descriptors_max = limit.and_then(|limit| usize::try_from(limit).ok());
    Ok((confined.seal()?, descriptors_max.unwrap_or(usize::MAX)))
}

fn serve(
    words: Words,
    path: &Path,
    (sealed, descriptors_max): (Sealed, usize),
) -> Result<(), String> {
    let mut options = server::Options::new(DescriptorDir::new(sealed.descriptor_dir));
    options.policy = Policy {
        descriptors_max,
        ids_max: words.limits.ids_max,
        channels_max: words.limits.channels_max,
        special_files: words.special_files,
        ..Policy::default()
    };
    if let Some(holders) = sealed.mount_holders {
        options.mount_points = MountPoints::In(holders.into_iter().collect());
    }
    options.on_thread = Some(threads::tighten(sealed.threads));
    let shown = path.display().to_string();
    options.on_failure = Some(Arc::new(move |message: &str| {
        eprintln!("gofer: serving {shown}: {message}");
    }));
    let connections = sealed.connections.into_iter().map(|connection| {
        let mount = Mount {
            root: connection.root,
            donated: connection.donated,
            path: connection.path,
            readonly: connection.readonly,
            character_devices: connection.character_devices,
        };
        (connection.io, mount)
    });
    let run = Server::new(options).run(connections.collect());
    run.map_err(|error| error.to_string())
}

fn receive(control: &OwnedFd) -> Result<Vec<OwnedFd>, String> {
    let mut byte = [0];
    const ROOM: usize = rustix::cmsg_space!(ScmRights(1 + SOCKETS_MAX));
    let mut space = [std::mem::MaybeUninit::uninit(); ROOM];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut byte)];
    let message = recvmsg(control, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        .map_err(|errno| format!("what to serve: {errno}"))?;
    if message.bytes == 0 || message.flags.contains(ReturnFlags::CTRUNC) {
        return Err("the parent has not said what to serve".to_owned());
    }
    let rights = ancillary.drain().filter_map(|part| match part {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    Ok(rights.flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_on_the_command_line_is_understood_and_nothing_else() {
        for bits in 0..16_u8 {
            let words = Words {
                limits: Limits {
                    ids_max: 7,
                    channels_max: 2,
                },
                readonly: bits & 1 != 0,
                user_namespace: bits & 2 != 0,
                end_with_parent: bits & 4 != 0,
                special_files: bits & 8 != 0,
            };
            let encoded = words.encode();
            let mut decoded = encoded.each_ref().map(OsStr::new);
            assert_eq!(Words::decode(decoded), Some(words));
            decoded[usize::from(bits) % 6] = OsStr::new("-1");
            assert_eq!(Words::decode(decoded), None);
        }
    }
}
