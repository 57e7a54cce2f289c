//! What a call asks for, from its number and arguments and what the caller's memory holds.
//!
//! Everything read here was written by the agent, and another of its threads may change it before
//! the kernel reads it again: it says what the agent seems to want and is never a reason to allow it.

use aos_sandbox::record::{Meaning, Named, Want, find};
use aos_sys::notify::Notification;

/// What can be read of the process that asks. `None`: nothing is there, or it cannot be read.
pub trait Caller {
    /// The text at an address, without its closing zero.
    fn text(&self, address: u64) -> Option<Vec<u8>>;
    /// Bytes at an address.
    fn bytes(&self, address: u64, length: usize) -> Option<Vec<u8>>;
    /// The working directory.
    fn directory(&self) -> Option<Vec<u8>>;
    /// The path of an open file.
    fn descriptor(&self, number: i32) -> Option<Vec<u8>>;
    /// Whether an open file is a TCP socket.
    fn is_stream(&self, number: i32) -> bool;
}

/// One thing that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A use of a path.
    Path {
        /// As the kernel will take it: absolute, but with `.`, `..` and links in it.
        path: Vec<u8>,
        /// The use.
        want: Want,
        /// Whether a file that is not there is made.
        creates: bool,
    },
    /// To talk to an address.
    Connect(Address),
    /// To accept TCP connections on a port.
    Listen(u16),
}

/// An address of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// IPv4 or IPv6.
    Internet(std::net::SocketAddr),
    /// A socket's file, absolute as a path of [`Ask::Path`].
    File(Vec<u8>),
}

/// A call whose arguments cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

// linux/fcntl.h and asm-generic/fcntl.h
const AT_FDCWD: i32 = -100;
const ACCESS_MODE: u64 = 0o3;
const CREATE: u64 = 0o100;
const TRUNCATE: u64 = 0o1000;
const TEMPORARY: u64 = 0o20_000_000;
const PATH_ONLY: u64 = 0o10_000_000;
// unistd.h
const MAY_EXECUTE: u64 = 1;
const MAY_WRITE: u64 = 2;
const MAY_READ: u64 = 4;
// linux/socket.h
const FAMILY_FILE: u16 = 1;
const FAMILY_IPV4: u16 = 2;
const FAMILY_IPV6: u16 = 10;
/// `struct sockaddr_un` is the longest that is decoded.
const ADDRESS_BYTES: u64 = 110;
const EXECVEAT: u32 = 322;

/// What a call asks for; nothing for a call that asks for nothing outside.
pub fn decode(call: &Notification, caller: &dyn Caller) -> Result<Vec<Ask>, Unreadable> {
    let Some(known) = u32::try_from(call.number).ok().and_then(find) else { return Ok(Vec::new()) };
    let arguments = Arguments { call, caller };
    match known.meaning {
        Meaning::Path(named, want) => {
            let path = match arguments.path(named)? {
                // A program by its open file.
                None if known.number == EXECVEAT => caller.descriptor(arguments.number(0)),
                path => path,
            };
            Ok(path.map(|path| use_of(path, want)).into_iter().collect())
        }
        Meaning::Open(named, flags) => {
            let (want, creates) = opening(arguments.value(flags));
            let ask = |path| Ask::Path { path, want, creates };
            Ok(arguments.path(named)?.map(ask).into_iter().collect())
        }
        Meaning::Access(named, mode) => {
            let want = testing(arguments.value(mode));
            Ok(arguments.path(named)?.map(|path| use_of(path, want)).into_iter().collect())
        }
        Meaning::Two(from, to) => {
            let both = [arguments.path(from)?, arguments.path(to)?];
            Ok(both.into_iter().flatten().map(|path| use_of(path, Want::Entry)).collect())
        }
        Meaning::Connect(_, address, length) => {
            Ok(arguments.address(address, length)?.map(Ask::Connect).into_iter().collect())
        }
        Meaning::Bind(socket, address, length) => {
            Ok(match arguments.address(address, length)? {
                Some(Address::File(path)) => vec![use_of(path, Want::Entry)],
                Some(Address::Internet(at)) if caller.is_stream(arguments.number(socket)) => {
                    vec![Ask::Listen(at.port())]
                }
                // The kernel's layers leave UDP on the own loopback alone.
                _ => Vec::new(),
            })
        }
    }
}

fn use_of(path: Vec<u8>, want: Want) -> Ask {
    Ask::Path { path, want, creates: false }
}

/// What flags of open(2) ask for, and whether they make the file.
const fn opening(flags: u64) -> (Want, bool) {
    if flags & TEMPORARY == TEMPORARY {
        return (Want::Write, true);
    }
    if flags & PATH_ONLY != 0 {
        return (Want::Look, false);
    }
    let writes = flags & ACCESS_MODE != 0 || flags & TRUNCATE != 0;
    (if writes { Want::Write } else { Want::Read }, flags & CREATE != 0)
}

/// The greatest use that a mode of access(2) asks about.
const fn testing(mode: u64) -> Want {
    if mode & MAY_EXECUTE != 0 {
        Want::Execute
    } else if mode & MAY_WRITE != 0 {
        Want::Write
    } else if mode & MAY_READ != 0 {
        Want::Read
    } else {
        Want::Look
    }
}

struct Arguments<'a> {
    call: &'a Notification,
    caller: &'a dyn Caller,
}

impl Arguments<'_> {
    fn value(&self, index: u8) -> u64 {
        self.call.arguments.get(usize::from(index)).copied().unwrap_or_default()
    }

    /// An argument of the type int: the kernel looks at its lower half.
    fn number(&self, index: u8) -> i32 {
        let value = u32::try_from(self.value(index) & u64::from(u32::MAX)).unwrap_or_default();
        value.cast_signed()
    }

    /// A path, absolute; `None` for an empty one.
    fn path(&self, named: Named) -> Result<Option<Vec<u8>>, Unreadable> {
        let text = self.caller.text(self.value(named.path)).ok_or(Unreadable)?;
        if text.is_empty() || text.first() == Some(&b'/') {
            return Ok(Some(text).filter(|text| !text.is_empty()));
        }
        let base = match named.directory.map(|index| self.number(index)) {
            None | Some(AT_FDCWD) => self.caller.directory(),
            Some(number) => self.caller.descriptor(number),
        };
        let base = base.ok_or(Unreadable)?;
        Ok(Some([base, text].join(&b'/')))
    }

    fn address(&self, address: u8, length: u8) -> Result<Option<Address>, Unreadable> {
        let length = (self.value(length) & u64::from(u32::MAX)).min(ADDRESS_BYTES);
        let length = usize::try_from(length).map_err(|_| Unreadable)?;
        let bytes = self.caller.bytes(self.value(address), length).ok_or(Unreadable)?;
        Ok(match parse_address(&bytes) {
            Some(Address::File(path)) if path.first() != Some(&b'/') => {
                let base = self.caller.directory().ok_or(Unreadable)?;
                Some(Address::File([base, path].join(&b'/')))
            }
            other => other,
        })
    }
}

/// An address as the kernel takes it; `None` for a family without one, and for an abstract name,
/// which is a name of the agent's own network namespace.
fn parse_address(bytes: &[u8]) -> Option<Address> {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
    let (family, rest) = bytes.split_first_chunk::<2>()?;
    match u16::from_ne_bytes(*family) {
        FAMILY_FILE => {
            let path = rest.split(|byte| *byte == 0).next()?;
            (!path.is_empty()).then(|| Address::File(path.to_vec()))
        }
        FAMILY_IPV4 => {
            let (port, rest) = rest.split_first_chunk::<2>()?;
            let host = Ipv4Addr::from(*rest.first_chunk::<4>()?);
            Some(Address::Internet(SocketAddr::new(IpAddr::V4(host), u16::from_be_bytes(*port))))
        }
        FAMILY_IPV6 => {
            let (port, rest) = rest.split_first_chunk::<2>()?;
            let host = Ipv6Addr::from(*rest.get(4..)?.first_chunk::<16>()?);
            Some(Address::Internet(SocketAddr::new(IpAddr::V6(host), u16::from_be_bytes(*port))))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Default)]
    struct Fake {
        memory: BTreeMap<u64, Vec<u8>>,
    }

    impl Caller for Fake {
        fn text(&self, address: u64) -> Option<Vec<u8>> {
            self.memory.get(&address).cloned()
        }
        fn bytes(&self, address: u64, length: usize) -> Option<Vec<u8>> {
            self.memory.get(&address).map(|bytes| bytes.iter().copied().take(length).collect())
        }
        fn directory(&self) -> Option<Vec<u8>> {
            Some(b"/workspace".to_vec())
        }
        fn descriptor(&self, number: i32) -> Option<Vec<u8>> {
            (number == 7).then(|| b"/srv/dir".to_vec())
        }
        fn is_stream(&self, number: i32) -> bool {
            number == 3
        }
    }

    fn asked(number: i32, arguments: [u64; 6], memory: &[(u64, &[u8])]) -> Result<Vec<Ask>, Unreadable> {
        let memory = memory.iter().map(|(at, bytes)| (*at, bytes.to_vec())).collect();
        let mut call = Notification::default();
        (call.number, call.arguments) = (number, arguments);
        decode(&call, &Fake { memory })
    }

    fn path(path: &str, want: Want, creates: bool) -> Ask {
        Ask::Path { path: path.as_bytes().to_vec(), want, creates }
    }

    #[test]
    fn opening_a_file() {
        let open = |flags| asked(257, [u64::MAX - 99, 10, flags, 0, 0, 0], &[(10, b"/srv/a")]).unwrap();
        for (flags, want, creates) in [
            (0, Want::Read, false),
            (0o2000000, Want::Read, false),
            (1, Want::Write, false),
            (2, Want::Write, false),
            (0o101, Want::Write, true),
            (0o1000, Want::Write, false),
            (0o10000000, Want::Look, false),
            (0o20200001, Want::Write, true),
        ] {
            assert_eq!(open(flags), [path("/srv/a", want, creates)], "{flags:o}");
        }
    }

    #[test]
    fn relative_paths_start_somewhere() {
        let names: &[(u64, &[u8])] = &[(10, b"x/../a"), (11, b"")];
        assert_eq!(
            asked(4, [10, 0, 0, 0, 0, 0], names),
            Ok(vec![path("/workspace/x/../a", Want::Look, false)])
        );
        assert_eq!(
            asked(263, [7, 10, 0, 0, 0, 0], names),
            Ok(vec![path("/srv/dir/x/../a", Want::Entry, false)])
        );
        assert_eq!(asked(263, [8, 10, 0, 0, 0, 0], names), Err(Unreadable));
        assert_eq!(asked(59, [99, 0, 0, 0, 0, 0], names), Err(Unreadable));
        assert_eq!(asked(257, [0, 11, 0, 0, 0, 0], names), Ok(vec![]));
        assert_eq!(asked(322, [7, 11, 0, 0, 0, 0], names), Ok(vec![path("/srv/dir", Want::Execute, false)]));
        assert_eq!(asked(82, [10, 10, 0, 0, 0, 0], names).unwrap().len(), 2);
        assert_eq!(asked(-1, [0; 6], names), Ok(vec![]));
    }

    #[test]
    fn modes_of_access() {
        for (mode, want) in [(0, Want::Look), (4, Want::Read), (6, Want::Write), (5, Want::Execute)] {
            let asks = asked(21, [10, mode, 0, 0, 0, 0], &[(10, b"/a")]);
            assert_eq!(asks, Ok(vec![path("/a", want, false)]));
        }
    }

    #[test]
    fn addresses() {
        let four = [2, 0, 0x1f, 0x90, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        let connect = |bytes: &[u8]| asked(42, [3, 10, bytes.len() as u64, 0, 0, 0], &[(10, bytes)]).unwrap();
        assert_eq!(connect(&four), [Ask::Connect(Address::Internet("192.0.2.1:8080".parse().unwrap()))]);
        let mut six = vec![10, 0, 0, 53, 0, 0, 0, 0];
        six.extend([0; 15]);
        six.push(1);
        assert_eq!(connect(&six), [Ask::Connect(Address::Internet("[::1]:53".parse().unwrap()))]);
        assert_eq!(connect(b"\x01\0/run/x\0y"), [Ask::Connect(Address::File(b"/run/x".to_vec()))]);
        assert_eq!(connect(b"\x01\0x"), [Ask::Connect(Address::File(b"/workspace/x".to_vec()))]);
        for nothing in [&b"\x01\0\0abstract"[..], b"\x10\0\0\0", b"\x02", b"", &four[..7], &six[..23]] {
            assert_eq!(connect(nothing), [], "{nothing:?}");
        }
        let bind = |socket| asked(49, [socket, 10, 16, 0, 0, 0], &[(10, &four)]).unwrap();
        assert_eq!((bind(3), bind(4)), (vec![Ask::Listen(8080)], vec![]));
    }

    proptest! {
        /// Whatever a process has in its memory: what is asked for has absolute paths.
        #[test]
        fn any_call_is_decoded(
            number in -1..460_i32,
            arguments in prop::array::uniform6(0..12_u64),
            memory in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..130), 12),
        ) {
            let memory = memory.into_iter().enumerate().map(|(at, bytes)| (at as u64, bytes)).collect();
            let mut call = Notification::default();
            (call.number, call.arguments) = (number, arguments);
            for ask in decode(&call, &Fake { memory }).unwrap_or_default() {
                if let Ask::Path { path, .. } | Ask::Connect(Address::File(path)) = ask {
                    prop_assert_eq!(path.first(), Some(&b'/'));
                }
            }
        }
    }
}
