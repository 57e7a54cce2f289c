//! The control socket: `--control PATH --control-key PATH`, in the agent's runtime directory, which is not in its
//! tree. A datagram is a whole request ([`aos_sandbox::call`]), so nobody can hold the launcher up by sending half of
//! one.
//!
//! Who may ask is who can open the key's file for writing: the supervisor, whose file it is, and root. The numbers
//! of users (`SO_PEERCRED`) say nothing here: in the user namespace of this process every user but the agent's own
//! is the same number. A descriptor cannot be forged, and the file is looked up anew for each request.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use aos_sandbox::call::{DESCRIPTORS, REQUEST_MAX_BYTES};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, chmodat, fcntl_getfl, fstat, major, minor, stat, unlink,
};
use rustix::io::Errno;
use rustix::net::sockopt::{socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};

use super::{Message, Received, receive};
use crate::error::{Context, LaunchError, Layer};

/// `/dev/null` (devices.txt of the kernel).
const NULL: (u32, u32) = (1, 3);

/// The socket, and what opens it.
#[derive(Debug)]
pub(crate) struct Control {
    socket: OwnedFd,
    key: PathBuf,
}

/// A request of somebody who may ask.
#[derive(Debug)]
pub(super) struct Incoming {
    /// The request's bytes.
    pub(super) bytes: Vec<u8>,
    /// Where the answer goes.
    pub(super) answer: OwnedFd,
    /// Input, output, errors.
    pub(super) streams: [OwnedFd; 3],
}

impl Control {
    /// Makes the socket, in the place of one that an earlier run left.
    pub(crate) fn bind(path: &Path, key: &Path) -> Result<Self, LaunchError> {
        match unlink(path) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error).layer(Layer::Process, path.display()),
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)
            .layer(Layer::Process, "cannot make the control socket")?;
        let address = SocketAddrUnix::new(path).layer(Layer::Process, path.display())?;
        bind(&socket, &address).layer(Layer::Process, path.display())?;
        // Its folder says who comes near it (/run/aos-agents: the supervisor and agents' units), the key who is heard.
        chmodat(CWD, path, Mode::from_bits_retain(0o666), AtFlags::empty())
            .layer(Layer::Process, path.display())?;
        Ok(Self { socket, key: key.to_owned() })
    }

    /// Takes one datagram; the request, if it is that of somebody who may ask. All else is dropped without a word:
    /// there is nobody to tell. One at a time, so that who sends without end does not keep the launcher from the rest
    /// of its work.
    pub(super) fn next(&self) -> Result<Option<Incoming>, LaunchError> {
        let received = receive(&self.socket, REQUEST_MAX_BYTES)
            .layer(Layer::Process, "cannot read the control socket")?;
        match received {
            // An empty datagram without descriptors looks like the end, which a datagram socket has not.
            Received::Cut | Received::End | Received::Nothing => Ok(None),
            Received::Whole(message) => Ok(self.admitted(message)),
        }
    }

    fn admitted(&self, message: Message) -> Option<Incoming> {
        let descriptors: [OwnedFd; DESCRIPTORS] = message.descriptors.try_into().ok()?;
        let [key, answer, input, output, errors] = descriptors;
        let is_ours = is_key(&key, &self.key) == Ok(true) && is_answer(&answer) == Ok(true);
        is_ours.then_some(Incoming { bytes: message.bytes, answer, streams: [input, output, errors] })
    }

    /// The socket, to wait for.
    pub(super) const fn socket(&self) -> &OwnedFd {
        &self.socket
    }
}

/// Whether a descriptor is of the key's file and opened for writing.
fn is_key(descriptor: &OwnedFd, path: &Path) -> Result<bool, Errno> {
    let flags = fcntl_getfl(descriptor)?;
    let mode = flags & OFlags::RWMODE;
    if flags.contains(OFlags::PATH) || (mode != OFlags::RDWR && mode != OFlags::WRONLY) {
        return Ok(false);
    }
    let (shown, wanted) = (fstat(descriptor)?, stat(path)?);
    let is_file = FileType::from_raw_mode(wanted.st_mode) == FileType::RegularFile;
    Ok(is_file && (shown.st_dev, shown.st_ino) == (wanted.st_dev, wanted.st_ino))
}

fn is_answer(descriptor: &OwnedFd) -> Result<bool, Errno> {
    let is_unix = socket_domain(descriptor)? == AddressFamily::UNIX;
    Ok(is_unix && socket_type(descriptor)? == SocketType::SEQPACKET)
}

/// Whether a standard stream is a pipe, or `/dev/null`: what may be left in the agent's hands.
pub(super) fn is_stream(descriptor: &OwnedFd) -> bool {
    fstat(descriptor).is_ok_and(|stat| match FileType::from_raw_mode(stat.st_mode) {
        FileType::Fifo => true,
        FileType::CharacterDevice => (major(stat.st_rdev), minor(stat.st_rdev)) == NULL,
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::super::send;
    use super::*;
    use std::fs::{self, File, OpenOptions};
    use std::os::fd::AsFd;

    use rustix::net::{connect, socketpair};
    use rustix::pipe::pipe;

    struct Place {
        folder: tempfile::TempDir,
        control: Control,
        client: OwnedFd,
    }

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("control");
            fs::write(folder.path().join("key"), "").unwrap();
            fs::write(&path, "left by an earlier run").unwrap();
            let control = Control::bind(&path, &folder.path().join("key")).unwrap();
            let client =
                socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::empty(), None).unwrap();
            connect(&client, &SocketAddrUnix::new(&path).unwrap()).unwrap();
            Self { folder, control, client }
        }

        fn open(&self, name: &str) -> OwnedFd {
            OpenOptions::new().read(true).write(true).open(self.folder.path().join(name)).unwrap().into()
        }
    }

    fn answer(kind: SocketType) -> OwnedFd {
        socketpair(AddressFamily::UNIX, kind, SocketFlags::empty(), None).unwrap().0
    }

    #[test]
    fn who_has_the_key_is_heard_and_nobody_else() {
        let place = Place::new();
        let key = place.open("key");
        fs::write(place.folder.path().join("other"), "").unwrap();
        let read_only: OwnedFd = File::open(place.folder.path().join("key")).unwrap().into();
        let flags = OFlags::PATH | OFlags::RDWR;
        let path_only = rustix::fs::open(place.folder.path().join("key"), flags, Mode::empty()).unwrap();
        let (packets, stream) = (answer(SocketType::SEQPACKET), answer(SocketType::STREAM));
        let (pipe, _other) = pipe().unwrap();
        let ask = |descriptors: &[&OwnedFd]| {
            let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            send(&place.client, b"request", &descriptors).unwrap();
            place.control.next().unwrap()
        };
        let heard = ask(&[&key, &packets, &pipe, &pipe, &pipe]).unwrap();
        assert_eq!(heard.bytes, b"request");
        assert!(heard.streams.iter().all(is_stream) && !is_stream(&key) && !is_stream(&packets));
        for bad in [
            &[][..],
            &[&key],
            &[&read_only, &packets, &pipe, &pipe, &pipe],
            &[&path_only, &packets, &pipe, &pipe, &pipe],
            &[&place.open("other"), &packets, &pipe, &pipe, &pipe],
            &[&key, &stream, &pipe, &pipe, &pipe],
            &[&key, &pipe, &pipe, &pipe, &pipe],
            &[&key, &packets, &pipe, &pipe],
            &[&key, &packets, &pipe, &pipe, &pipe, &pipe],
        ] {
            assert!(ask(bad).is_none(), "{} descriptors", bad.len());
        }
        send(&place.client, b"", &[]).unwrap();
        assert!(place.control.next().unwrap().is_none());
        // A key that was replaced opens nothing any more.
        fs::rename(place.folder.path().join("other"), place.folder.path().join("key")).unwrap();
        assert!(ask(&[&key, &packets, &pipe, &pipe, &pipe]).is_none());
        assert!(ask(&[&place.open("key"), &packets, &pipe, &pipe, &pipe]).is_some());
    }
}
