//! The messages between the guest's first process and the driver, over one port.
//!
//! A message is its kind (a byte), the length of what follows (four bytes, little endian), and that. Every kind has
//! a greatest length, checked before anything of it is kept, so neither side holds more than one message and what
//! one read brought. What the driver hears is hostile: an agent that owns its kernel writes what it likes here. So
//! the kinds are few, [`Conversation`] says what may follow what, and the driver does nothing on a guest's word but
//! write bytes to the agent's own streams, and end.
//!
//! Input has credit: the driver sends at most [`WINDOW`] bytes that the guest has not said that it took. So an agent
//! that reads nothing never keeps a signal from it. Output needs none: what is not read stays in the guest.

use std::marker::PhantomData;

use aos_core::report::REPORT_MAX_BYTES;
use thiserror::Error;

/// Bytes of the kind and the length.
const HEADER_BYTES: usize = 5;
/// Bytes of a piece of a stream. What the kernel's port takes in one write, with its header.
pub const PIECE_MAX: usize = 16 * 1024;
/// Bytes of input on their way.
pub const WINDOW: usize = 64 * 1024;
/// Bytes of the reason of a failure.
const REASON_MAX: usize = 1024;

/// An output of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

/// What the guest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromGuest {
    /// The agent, or the launcher, wrote this.
    Wrote(Stream, Vec<u8>),
    /// The agent runs; the launcher's report, which is not parsed yet.
    Started(Vec<u8>),
    /// So many bytes of input were taken.
    Took(u32),
    /// The machine cannot start the launcher.
    Failed(String),
    /// The launcher has ended with this status; the last message.
    Ended(u8),
}

/// What the driver says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToGuest {
    /// Bytes of standard input.
    Input(Vec<u8>),
    /// There is no more.
    InputEnd,
    /// A signal for the agent, by its number.
    Signal(u8),
    /// Nobody reads this stream any more.
    Unread(Stream),
}

/// Bytes that are no message, or none that may come now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// A kind that nobody sends.
    #[error("a message of the unknown kind {0}")]
    Kind(u8),
    /// Longer, or shorter, than its kind can be.
    #[error("a message of the kind {kind} with {length} bytes")]
    Length {
        /// The kind.
        kind: u8,
        /// The length.
        length: usize,
    },
    /// A message at a time at which it makes no sense.
    #[error("a message out of turn: {0}")]
    Turn(&'static str),
}

/// One direction's messages.
pub trait Message: Sized {
    /// The least and the greatest length of a kind; `None` for one that does not exist.
    fn lengths(kind: u8) -> Option<(usize, usize)>;
    /// The message of a kind that exists, with a length that it may have.
    fn decode(kind: u8, content: &[u8]) -> Result<Self, WireError>;
    /// The kind and the content.
    fn parts(&self) -> (u8, Vec<u8>);

    /// The bytes to send.
    fn encode(&self) -> Vec<u8> {
        let (kind, content) = self.parts();
        let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let mut bytes = vec![kind];
        bytes.extend(length.to_le_bytes());
        bytes.extend(content);
        bytes
    }
}

impl Message for FromGuest {
    fn lengths(kind: u8) -> Option<(usize, usize)> {
        match kind {
            b'o' | b'e' => Some((1, PIECE_MAX)),
            b'r' => Some((1, REPORT_MAX_BYTES)),
            b't' => Some((4, 4)),
            b'f' => Some((0, REASON_MAX)),
            b'x' => Some((1, 1)),
            _ => None,
        }
    }

    fn decode(kind: u8, content: &[u8]) -> Result<Self, WireError> {
        let length = WireError::Length { kind, length: content.len() };
        match (kind, content) {
            (b'o', content) => Ok(Self::Wrote(Stream::Output, content.to_vec())),
            (b'e', content) => Ok(Self::Wrote(Stream::Error, content.to_vec())),
            (b'r', content) => Ok(Self::Started(content.to_vec())),
            (b't', content) => content.try_into().map(u32::from_le_bytes).map(Self::Took).map_err(|_| length),
            (b'f', content) => Ok(Self::Failed(one_line(content))),
            (b'x', [status]) => Ok(Self::Ended(*status)),
            (b'x', _) => Err(length),
            (kind, _) => Err(WireError::Kind(kind)),
        }
    }

    fn parts(&self) -> (u8, Vec<u8>) {
        match self {
            Self::Wrote(Stream::Output, bytes) => (b'o', bytes.clone()),
            Self::Wrote(Stream::Error, bytes) => (b'e', bytes.clone()),
            Self::Started(bytes) => (b'r', bytes.clone()),
            Self::Took(count) => (b't', count.to_le_bytes().to_vec()),
            Self::Failed(why) => (b'f', why.bytes().take(REASON_MAX).collect()),
            Self::Ended(status) => (b'x', vec![*status]),
        }
    }
}

impl Message for ToGuest {
    fn lengths(kind: u8) -> Option<(usize, usize)> {
        match kind {
            b'i' => Some((1, PIECE_MAX)),
            b'z' => Some((0, 0)),
            b's' | b'u' => Some((1, 1)),
            _ => None,
        }
    }

    fn decode(kind: u8, content: &[u8]) -> Result<Self, WireError> {
        match (kind, content) {
            (b'i', content) => Ok(Self::Input(content.to_vec())),
            (b'z', _) => Ok(Self::InputEnd),
            (b's', [number]) => Ok(Self::Signal(*number)),
            (b'u', [b'o']) => Ok(Self::Unread(Stream::Output)),
            (b'u', [b'e']) => Ok(Self::Unread(Stream::Error)),
            (kind, content) => Err(WireError::Length { kind, length: content.len() }),
        }
    }

    fn parts(&self) -> (u8, Vec<u8>) {
        match self {
            Self::Input(bytes) => (b'i', bytes.clone()),
            Self::InputEnd => (b'z', Vec::new()),
            Self::Signal(number) => (b's', vec![*number]),
            Self::Unread(Stream::Output) => (b'u', vec![b'o']),
            Self::Unread(Stream::Error) => (b'u', vec![b'e']),
        }
    }
}

/// A text of the guest's in which every character shows.
pub fn one_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let shown = |letter: char| if letter.is_control() || !letter.is_ascii() { ' ' } else { letter };
    text.chars().map(shown).collect::<String>().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Makes messages of bytes, as they come.
#[derive(Debug)]
pub struct Decoder<M> {
    bytes: Vec<u8>,
    kind: PhantomData<M>,
}

impl<M> Default for Decoder<M> {
    fn default() -> Self {
        Self { bytes: Vec::new(), kind: PhantomData }
    }
}

impl<M: Message> Decoder<M> {
    /// Takes what was read. Only when [`Self::take`] had nothing: that is what bounds the memory.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message.
    pub fn take(&mut self) -> Result<Option<M>, WireError> {
        let [kind, a, b, c, d, ..] = *self.bytes.as_slice() else { return Ok(None) };
        let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        let (least, greatest) = M::lengths(kind).ok_or(WireError::Kind(kind))?;
        if length < least || length > greatest {
            return Err(WireError::Length { kind, length });
        }
        let Some(content) = self.bytes.get(HEADER_BYTES..HEADER_BYTES + length) else { return Ok(None) };
        let message = M::decode(kind, content)?;
        self.bytes.drain(..HEADER_BYTES + length);
        Ok(Some(message))
    }
}

/// What of the guest's messages makes sense now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conversation {
    is_started: bool,
    is_over: bool,
    on_their_way: usize,
}

impl Conversation {
    /// Notes bytes of input that are sent.
    pub const fn sent(&mut self, count: usize) {
        self.on_their_way = self.on_their_way.saturating_add(count);
    }

    /// How many bytes of input may be sent.
    pub const fn room(&self) -> usize {
        WINDOW.saturating_sub(self.on_their_way)
    }

    /// Checks a message of the guest's.
    pub fn hear(&mut self, message: &FromGuest) -> Result<(), WireError> {
        if self.is_over {
            return Err(WireError::Turn("after the end"));
        }
        match message {
            FromGuest::Wrote(..) => Ok(()),
            FromGuest::Started(_) if self.is_started => Err(WireError::Turn("a second report")),
            FromGuest::Started(_) => {
                self.is_started = true;
                Ok(())
            }
            FromGuest::Took(count) => {
                let count = usize::try_from(*count).unwrap_or(usize::MAX);
                let left = self.on_their_way.checked_sub(count);
                self.on_their_way = left.ok_or(WireError::Turn("more input taken than was sent"))?;
                Ok(())
            }
            FromGuest::Failed(_) if self.is_started => Err(WireError::Turn("a failure after the start")),
            FromGuest::Failed(_) | FromGuest::Ended(_) => {
                self.is_over = true;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_back_however_they_are_cut() {
        let messages = [
            FromGuest::Wrote(Stream::Output, b"out".to_vec()),
            FromGuest::Wrote(Stream::Error, vec![0; PIECE_MAX]),
            FromGuest::Started(b"{}".to_vec()),
            FromGuest::Took(7),
            FromGuest::Failed("no 9p".to_owned()),
            FromGuest::Ended(255),
        ];
        let bytes: Vec<u8> = messages.iter().flat_map(Message::encode).collect();
        for step in [1, 3, 4096, bytes.len()] {
            let (mut decoder, mut found) = (Decoder::default(), Vec::<FromGuest>::new());
            for piece in bytes.chunks(step) {
                decoder.feed(piece);
                while let Some(message) = decoder.take().unwrap() {
                    found.push(message);
                }
            }
            assert_eq!(found, messages, "{step}");
        }
        let words =
            [ToGuest::Input(vec![1]), ToGuest::InputEnd, ToGuest::Signal(15), ToGuest::Unread(Stream::Error)];
        let mut decoder = Decoder::default();
        for word in words {
            decoder.feed(&word.encode());
            assert_eq!(decoder.take(), Ok(Some(word)));
        }
    }

    #[test]
    fn a_message_that_is_none_is_refused_before_it_is_whole() {
        for (bytes, error) in [
            (&[b'?', 0, 0, 0, 0][..], WireError::Kind(b'?')),
            (&[b'o', 0, 0, 0, 0], WireError::Length { kind: b'o', length: 0 }),
            (&[b'o', 1, 64, 0, 0], WireError::Length { kind: b'o', length: PIECE_MAX + 1 }),
            (&[b'r', 255, 255, 255, 255], WireError::Length { kind: b'r', length: 0xffff_ffff }),
            (&[b'x', 2, 0, 0, 0], WireError::Length { kind: b'x', length: 2 }),
        ] {
            let mut decoder = Decoder::<FromGuest>::default();
            decoder.feed(bytes);
            assert_eq!(decoder.take(), Err(error));
        }
        let mut decoder = Decoder::<ToGuest>::default();
        decoder.feed(&[b'u', 1, 0, 0, 0, b'x']);
        assert!(decoder.take().is_err());
    }

    #[test]
    fn the_guest_speaks_in_turn() {
        let mut told = Conversation::default();
        told.sent(10);
        assert_eq!(told.room(), WINDOW - 10);
        told.hear(&FromGuest::Started(Vec::new())).unwrap();
        told.hear(&FromGuest::Took(10)).unwrap();
        assert_eq!(told.room(), WINDOW);
        for bad in [FromGuest::Started(Vec::new()), FromGuest::Took(1), FromGuest::Failed(String::new())] {
            assert!(matches!(told.hear(&bad), Err(WireError::Turn(_))), "{bad:?}");
        }
        told.hear(&FromGuest::Ended(0)).unwrap();
        assert_eq!(
            told.hear(&FromGuest::Wrote(Stream::Output, vec![1])),
            Err(WireError::Turn("after the end"))
        );
    }

    #[test]
    fn what_is_shown_of_a_guest_is_one_line() {
        assert_eq!(one_line(b"a\x1b[2J\nb\xff c"), "a [2J b c");
    }
}
