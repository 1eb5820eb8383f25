//! The floating-point environment: rounding, and what becomes of subnormal numbers.
//!
//! Other libraries set it for the threads that call this one (`torch.set_flush_denormal`, `fesetround`, objects linked
//! with `-ffast-math`), and a new thread inherits it. Neither the results nor what the compiler assumes of arithmetic
//! may depend on that. Every call of the crate therefore computes inside [`standard`], and every thread of its pools
//! begins with [`set_standard`].
//!
//! The compiler does not know that arithmetic depends on the environment, and may move it across the instructions that
//! set it, but not into or out of a function that is not inlined. Between such an instruction and the call of
//! such a function there is nothing to compute here.

/// Runs `compute` in the standard environment: to nearest, subnormal numbers kept, no traps. The environment of the
/// calling thread is back afterwards, as it was to the bit: exceptions raised meanwhile leave no flag.
///
/// It takes 9 ns (AMD EPYC, Zen 4).
#[inline(never)]
pub(crate) fn standard<R>(compute: impl FnOnce(Caller) -> R) -> R {
    /// Gives the environment back, also when a panic passes.
    struct GiveBack(Control);

    impl Drop for GiveBack {
        fn drop(&mut self) {
            self.0.set();
        }
    }

    let given = GiveBack(Control::get());
    Control::STANDARD.set();
    apart(|| compute(Caller(given.0)))
}

/// Gives the thread the standard environment for good.
pub(crate) fn set_standard() {
    Control::STANDARD.set();
}

/// The environment that a call was made in.
#[derive(Clone, Copy)]
pub(crate) struct Caller(Control);

impl Caller {
    /// Runs what is not of this crate, in the environment that it expects in this thread.
    #[inline(never)]
    pub(crate) fn lend<R>(self, foreign: impl FnOnce() -> R) -> R {
        self.0.set();
        let result = apart(foreign);
        Control::STANDARD.set();
        result
    }
}

#[inline(never)]
fn apart<R>(compute: impl FnOnce() -> R) -> R {
    compute()
}

#[cfg(target_arch = "x86_64")]
mod register {
    use std::arch::asm;

    /// The register MXCSR: flags of exceptions, their masks, rounding, and both switches for subnormal numbers.
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub(super) struct Control(pub(super) u32);

    impl Control {
        /// As a process begins: exceptions masked, none raised, to nearest, subnormal numbers kept.
        pub(super) const STANDARD: Self = Control(0x1F80);

        #[inline(always)]
        pub(super) fn get() -> Self {
            let mut bits = 0_u32;
            // SAFETY: the instruction, which every CPU of this architecture has, writes the four bytes of `bits`.
            unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut bits, options(nostack, preserves_flags)) };
            Control(bits)
        }

        #[inline(always)]
        pub(super) fn set(self) {
            // SAFETY: the instruction reads four bytes, which are `STANDARD` or come from the register, so that no
            // reserved bit is set. Rust computes in the standard environment only: it is the one set before anything
            // is computed, and another one is given back to the foreign code that had set it.
            unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const self.0, options(nostack)) };
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod register {
    use std::arch::asm;

    /// The registers FPCR, of rounding and subnormal numbers, and FPSR, the flags of exceptions.
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub(super) struct Control {
        control: u64,
        status: u64,
    }

    impl Control {
        /// As a process begins: no traps, no flags, to nearest, subnormal numbers kept.
        pub(super) const STANDARD: Self = Control { control: 0, status: 0 };

        #[inline(always)]
        pub(super) fn get() -> Self {
            let (control, status): (u64, u64);
            // SAFETY: copies two registers that every program may read.
            unsafe {
                asm!("mrs {}, fpcr", "mrs {}, fpsr", out(reg) control, out(reg) status, options(nostack, preserves_flags));
            }
            Control { control, status }
        }

        #[inline(always)]
        pub(super) fn set(self) {
            // SAFETY: both hold `STANDARD` or what they held before. Rust computes in the standard environment only: it
            // is the one set before anything is computed, and another one is given back to the foreign code that had
            // set it.
            unsafe {
                asm!("msr fpcr, {}", "msr fpsr, {}", in(reg) self.control, in(reg) self.status, options(nostack));
            }
        }
    }
}

/// Architectures whose environment is taken to be the standard one.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod register {
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub(super) struct Control;

    impl Control {
        pub(super) const STANDARD: Self = Control;

        pub(super) fn get() -> Self {
            Control
        }

        pub(super) fn set(self) {}
    }
}

use register::Control;

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use std::hint::black_box;

    use super::*;

    const FLUSH_TO_ZERO: u32 = 1 << 15;
    const DENORMALS_ARE_ZERO: u32 = 1 << 6;
    const UP: u32 = 2 << 13;
    const DOWN: u32 = 1 << 13;

    /// Numbers of which each of the settings changes one.
    fn bits() -> [u64; 3] {
        let third = |of: f64| black_box(of) / black_box(3.0);
        let tiny = black_box(1e-300_f64) * black_box(1e-15);
        [third(1.0), third(-1.0), tiny + black_box(1e-310)].map(f64::to_bits)
    }

    #[test]
    fn a_call_computes_as_ever_and_leaves_the_environment_as_it_was() {
        let expected = bits();
        for setting in [FLUSH_TO_ZERO, DENORMALS_ARE_ZERO, UP, DOWN, FLUSH_TO_ZERO | DENORMALS_ARE_ZERO | UP] {
            let before = Control::get();
            let set = Control(Control::STANDARD.0 | setting);
            set.set();
            let foreign = apart(bits);
            set.set();
            let (inside, lent) = standard(|caller| (bits(), caller.lend(bits)));
            let after = Control::get();
            before.set();
            assert_eq!(inside, expected, "{setting:x}");
            assert_eq!(lent, foreign, "{setting:x}");
            // The flags too, of which the division raises one.
            assert_eq!(after, set, "{setting:x}");
            assert_ne!(foreign, expected, "{setting:x}");
        }
    }

    #[test]
    fn a_panic_gives_the_environment_back() {
        let before = Control::get();
        let set = Control(Control::STANDARD.0 | FLUSH_TO_ZERO);
        set.set();
        let panicked = std::panic::catch_unwind(|| standard(|_| panic!("expected of this test")));
        let after = Control::get();
        before.set();
        assert!(panicked.is_err());
        assert_eq!(after, set);
    }
}
