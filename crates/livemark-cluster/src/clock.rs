//! The clock that leases are counted by: [`Clock`].

use std::time::Duration;

/// Tells the time since some instant, on a clock that never goes back and goes on while the machine is suspended.
///
/// `Instant` stands still while a Linux machine is suspended (rust-lang/rust#87906), and a lease does not. Tests have a
/// clock of their own.
pub trait Clock: Send + Sync + 'static {
    /// Returns the time since this clock's beginning.
    fn now(&self) -> Duration;
}

/// The time since the machine was started: `CLOCK_BOOTTIME` on Linux, and `Instant` elsewhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct BootClock;

impl Clock for BootClock {
    #[cfg(target_os = "linux")]
    fn now(&self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
        Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or_default())
    }

    #[cfg(not(target_os = "linux"))]
    fn now(&self) -> Duration {
        static BEGAN: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        BEGAN.get_or_init(std::time::Instant::now).elapsed()
    }
}
