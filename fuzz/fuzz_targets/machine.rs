//! What a virtual machine says to its driver: whatever bytes come, however they are cut, the decoder keeps no more
//! than one message and what one read brought, refuses what is none, and a message that is taken is encoded to the
//! bytes that it came from.
#![no_main]

use aos_isolation::vm::wire::{
    Conversation, Decoder, FromGuest, Message, PIECE_MAX, ToGuest, WINDOW, one_line,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (step, bytes) = input;
    let mut decoder = Decoder::<FromGuest>::default();
    let mut told = Conversation::default();
    told.sent(WINDOW);
    for piece in bytes.chunks(usize::from(step).max(1).min(PIECE_MAX)) {
        decoder.feed(piece);
        loop {
            let Ok(found) = decoder.take() else { return };
            let Some(message) = found else { break };
            let encoded = message.encode();
            if !matches!(message, FromGuest::Failed(_)) {
                assert!(bytes.windows(encoded.len()).any(|window| window == encoded));
            }
            if told.hear(&message).is_err() {
                return;
            }
            assert!(told.room() <= WINDOW);
        }
    }
    assert!(one_line(bytes).bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '));
    let mut own = Decoder::<ToGuest>::default();
    own.feed(bytes);
    while let Ok(Some(message)) = own.take() {
        let encoded = message.encode();
        assert!(bytes.windows(encoded.len()).any(|window| window == encoded));
    }
});
