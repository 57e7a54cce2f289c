//! Requests to `aos-workspace` and its answers, which come from the agent's own user: what is read is written as the
//! same, and names for people never steer a terminal.
#![no_main]

use aos_core::workspace::{Answer, Request, escaped};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = serde_json::from_slice::<Request>(bytes) {
        let json = serde_json::to_vec(&request).expect("it was read");
        assert_eq!(serde_json::from_slice::<Request>(&json).expect("it was written"), request);
    }
    if let Ok(answer) = serde_json::from_slice::<Answer>(bytes) {
        let json = serde_json::to_vec(&answer).expect("it was read");
        assert_eq!(serde_json::from_slice::<Answer>(&json).expect("it was written"), answer);
    }
    assert!(!escaped(bytes).chars().any(char::is_control));
});
