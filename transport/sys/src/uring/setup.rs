//! Setup flags, the best that the kernel takes.

use std::io;

use io_uring::IoUring;

use super::Settings;

/// Completion queue entries for each submission queue entry: a standing receive completes often.
const COMPLETIONS_PER_SUBMISSION: u32 = 4;

/// Tries with the newer flags first; a kernel that doesn't know one says EINVAL.
///
/// SINGLE_ISSUER and DEFER_TASKRUN are left out on purpose: a driver task moves between threads.
/// SQPOLL as well: its kernel thread is one more spinner.
pub(super) fn create(settings: &Settings) -> io::Result<IoUring> {
    let levels: &[bool] = &[true, false];
    let mut refusal = io::Error::from(io::ErrorKind::InvalidInput);
    for newest in levels {
        match build(settings, *newest) {
            Ok(ring) => return Ok(ring),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refusal = error,
            Err(error) => return Err(error),
        }
    }
    Err(refusal)
}

fn build(settings: &Settings, newest: bool) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_cqsize(settings.entries.saturating_mul(COMPLETIONS_PER_SUBMISSION));
    builder.setup_clamp();
    // A forked child must not look at, or submit into, its parent's rings.
    builder.dontfork();
    if newest {
        // 5.18: one bad entry does not hold up those behind it.
        builder.setup_submit_all();
        if settings.cooperative {
            // 5.19.
            builder.setup_coop_taskrun().setup_taskrun_flag();
        }
    }
    builder.build(settings.entries)
}
