//! Requests for a command beside an agent, and the answers: what is read is written as the same, and is bounded.
#![no_main]

use aos_sandbox::call::{CallAnswer, CallRequest, REQUEST_MAX_BYTES};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = CallRequest::parse(bytes) {
        assert!(bytes.len() <= REQUEST_MAX_BYTES && !request.argv.is_empty());
        assert!(!request.argv.iter().any(|word| word.contains('\0')));
        // Escapes may make it longer than what was read.
        if let Ok(json) = request.to_json() {
            assert_eq!(CallRequest::parse(&json).expect("it was written"), request);
        }
    }
    if let Ok(answer) = CallAnswer::parse(bytes) {
        let json = serde_json::to_vec(&answer).expect("it was read");
        assert_eq!(CallAnswer::parse(&json).expect("it was written"), answer);
    }
});
