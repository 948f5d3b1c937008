//! Random numbers, getrandom(2).

/// An unpredictable number.
///
/// Shortly after boot the kernel may not have enough entropy yet; the number is then made from the time, since this
/// function never waits.
#[must_use]
pub fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    // SAFETY: `bytes` has room for as many bytes as the length says.
    let length = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), libc::GRND_NONBLOCK) };
    if length == 8 { u64::from_ne_bytes(bytes) } else { super::clock::now().as_nanos() }
}
