//! The one unsafe word of this crate.

/// Asks for the cache line of a value that is looked at soon.
#[inline]
#[allow(unsafe_code, reason = "a prefetch is an intrinsic, and intrinsics are unsafe")]
pub(crate) fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing that the program could see and faults at no address; this one is a reference's.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(std::ptr::from_ref(value).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
