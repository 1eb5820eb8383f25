//! Calls of the public functions made of random bytes, from safe code: each gives a result or an error.

#[path = "../fuzz/src/lib.rs"]
mod calls;

/// Calls in a debug build on two cores in under ten seconds, or so many as `KLDIV_RANDOM_CALLS` says.
const CALLS: u64 = 3000;

#[test]
fn any_bytes_are_a_call() {
    let count = std::env::var("KLDIV_RANDOM_CALLS").ok().and_then(|count| count.parse().ok()).unwrap_or(CALLS);
    for number in 0..count {
        // SplitMix64 of the number of the call, and as many bytes as none of them needs more than.
        let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut data = [0; 512];
        for bytes in data.chunks_exact_mut(8) {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut word = state;
            word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            bytes.copy_from_slice(&(word ^ (word >> 31)).to_le_bytes());
        }
        // Of fewer bytes all that follows is the first of its choices.
        let length = [512, 40, 200, 8][number as usize % 4];
        calls::call(&data[..length]);
    }
}
