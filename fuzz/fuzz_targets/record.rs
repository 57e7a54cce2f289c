//! The decoder of recorded calls: whatever number and arguments a call has and whatever is in its caller's memory,
//! no decoder panics, and a path that is asked for is absolute.
#![no_main]

use aos_learn::ask::{Address, Ask, Caller, decode};
use aos_sys::notify::Notification;
use libfuzzer_sys::fuzz_target;

/// A process whose memory begins at address 0.
struct Process<'a> {
    memory: &'a [u8],
}

impl Process<'_> {
    fn at(&self, address: u64) -> Option<&[u8]> {
        self.memory.get(usize::try_from(address).ok()?..)
    }
}

impl Caller for Process<'_> {
    fn text(&self, address: u64) -> Option<Vec<u8>> {
        let bytes = self.at(address)?;
        let end = bytes.iter().position(|byte| *byte == 0)?;
        Some(bytes[..end].to_vec())
    }

    fn bytes(&self, address: u64, length: usize) -> Option<Vec<u8>> {
        self.at(address)?.get(..length).map(<[u8]>::to_vec)
    }

    fn directory(&self) -> Option<Vec<u8>> {
        (self.memory.len() % 2 == 0).then(|| b"/workspace".to_vec())
    }

    fn descriptor(&self, number: i32) -> Option<Vec<u8>> {
        (number % 2 == 0).then(|| b"/srv".to_vec())
    }

    fn is_stream(&self, number: i32) -> bool {
        number % 3 == 0
    }
}

fuzz_target!(|input: (u16, [u64; 6], &[u8])| {
    let (number, arguments, memory) = input;
    let mut call = Notification::default();
    (call.number, call.arguments) = (i32::from(number.cast_signed()), arguments);
    for ask in decode(&call, &Process { memory }).unwrap_or_default() {
        if let Ask::Path { path, .. } | Ask::Connect(Address::File(path)) = ask {
            assert_eq!(path.first(), Some(&b'/'));
        }
    }
});
