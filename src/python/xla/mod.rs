//! The functions of the crate as XLA calls them: without Python, on the memory that XLA reads and writes.
//!
//! `python/kldiv/jax/handlers.py` makes the calls, and says by which names an array or a number is passed. Nothing of a call
//! is believed: what is read of it was checked before, and what it asks for is refused by the checks of the crate.
//!
//! * [`c_api`]: the interface in C; [`frame`]: a call in Rust.
//! * [`parts`]: the arguments of a call, and the elements of `jax.vmap`.
//! * [`functions`]: one call of the crate for each.
//! * [`upstream`]: upstream gradients of 16-bit losses, before they are known.

mod c_api;
mod frame;
mod functions;
mod parts;
mod upstream;

use std::ffi::{CString, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use pyo3::ffi::PyCapsule_New;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use self::c_api::{CallFrame, Code};
use self::frame::{Frame, Refusal, malformed};
use self::parts::{Call, Part};
use super::pages;
use super::settings::default_isa;
use crate::threads::float_environment;
use crate::{Error, Execution};

type Function = fn(&Part<'_>, &Execution<'_>) -> Result<(), Refusal>;

/// A handler for each function, and their names.
macro_rules! handlers {
    ($($name:ident)*) => {
        mod entry {
            use super::{CallFrame, c_api, enter, functions};

            $(
                /// # Safety
                /// The frame is what the header says, and nobody else's during the call.
                pub(super) unsafe extern "C" fn $name(frame: *mut CallFrame) -> *mut c_api::Error {
                    // SAFETY: as promised.
                    unsafe { enter(frame, functions::$name) }
                }
            )*
        }

        const HANDLERS: &[(&str, c_api::Handler)] = &[$((stringify!($name), entry::$name)),*];
    };
}

handlers! { divergence cross_entropy entropy logsumexp log_softmax gather_log_probs unfused }

/// The handlers of XLA's typed foreign function interface, by the names of their functions.
#[pyfunction]
pub(super) fn xla_handlers(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let handlers = PyDict::new(py);
    for &(name, handler) in HANDLERS {
        // SAFETY: a capsule without a name of a function, which is there as long as the process. It is a new reference,
        // or null where an exception is set.
        let capsule =
            unsafe { Bound::from_owned_ptr_or_err(py, PyCapsule_New(handler as *mut c_void, ptr::null(), None)) }?;
        handlers.set_item(name, capsule)?;
    }
    Ok(handlers)
}

/// # Safety
/// As for a handler.
unsafe fn enter(frame: *mut CallFrame, function: Function) -> *mut c_api::Error {
    // SAFETY: as promised, the size comes first in a frame of any version.
    if unsafe { (&raw const (*frame).struct_size).read() } < size_of::<CallFrame>() {
        // Of an interface that XLA was told is not understood; there is nothing to refuse it by.
        std::process::abort();
    }
    // SAFETY: as promised.
    let frame = unsafe { &*frame };
    // SAFETY: as promised, an extension or null.
    let extension = unsafe { frame.extension_start.as_ref() };
    let result = if extension.is_some_and(|extension| extension.extension_type == c_api::METADATA) {
        // SAFETY: extensions of that type are of that structure.
        unsafe { write_metadata(frame) }
    } else {
        // A panic must not leave Rust, and what it may leave half done are results that nobody reads.
        // SAFETY: as promised.
        catch_unwind(AssertUnwindSafe(|| unsafe { execute(frame, function) })).unwrap_or(Err(Refusal::Panicked))
    };
    match result {
        Ok(()) => ptr::null_mut(),
        // SAFETY: as promised.
        Err(refusal) => unsafe { error(frame, &refusal) },
    }
}

/// Says which version of the interface this is.
///
/// # Safety
/// As for a handler, with the extension that asks for it.
unsafe fn write_metadata(frame: &CallFrame) -> Result<(), Refusal> {
    // SAFETY: as promised.
    let extension = unsafe { &*frame.extension_start.cast::<c_api::MetadataExtension>() };
    if extension.extension_base.struct_size < size_of::<c_api::MetadataExtension>() {
        return malformed("XLA_FFI_Metadata_Extension is too small");
    }
    // SAFETY: as promised, and nobody else's meanwhile.
    let Some(metadata) = (unsafe { extension.metadata.as_mut() }) else { return malformed("no metadata") };
    if metadata.struct_size < c_api::size::METADATA {
        return malformed("XLA_FFI_Metadata is too small");
    }
    // SAFETY: as promised, an interface or null.
    let theirs = unsafe { frame.api.as_ref() }.map_or(*c_api::MINORS.start(), |api| api.version.minor_version);
    metadata.api_version.major_version = c_api::MAJOR;
    metadata.api_version.minor_version = theirs.clamp(*c_api::MINORS.start(), *c_api::MINORS.end());
    Ok(())
}

/// # Safety
/// As for a handler.
unsafe fn execute(frame: &CallFrame, function: Function) -> Result<(), Refusal> {
    if frame.stage != c_api::EXECUTE {
        return malformed(format!("stage {}", frame.stage));
    }
    // XLA flushes subnormal numbers in its threads, and would those that are converted here.
    float_environment::standard(|_| {
        // SAFETY: as promised.
        let frame = unsafe { Frame::read(frame) }?;
        let call = Call::new(&frame)?;
        for (_, result) in &frame.results {
            pages::prefer_huge(result.data, result.bytes());
        }
        let execution = Execution { isa: default_isa(), threads: crate::num_threads(), interrupted: &|| false };
        call.parts().try_for_each(|part| {
            if part.is_found()? {
                return Ok(());
            }
            function(&part, &execution)?;
            part.write_scale()
        })
    })
}

/// An error that XLA reports.
///
/// # Safety
/// As for a handler.
unsafe fn error(frame: &CallFrame, refusal: &Refusal) -> *mut c_api::Error {
    let (code, message) = match refusal {
        Refusal::Refused(error @ Error::Memory { .. }) => (Code::ResourceExhausted, error.to_string()),
        Refusal::Refused(error) => (Code::InvalidArgument, error.to_string()),
        Refusal::Panicked => (Code::Internal, "kldiv panicked".to_owned()),
        Refusal::Malformed(what) => (Code::Internal, format!("kldiv was called with what it does not know: {what}")),
    };
    // SAFETY: as promised, an interface or null.
    let api = unsafe { frame.api.as_ref() }.filter(|api| api.struct_size >= c_api::size::API);
    let (Some(create), Ok(message)) = (api.and_then(|api| api.error_create), CString::new(message)) else {
        // Null says that all went well, and nobody has written the results.
        std::process::abort();
    };
    let mut arguments = c_api::ErrorCreateArgs {
        struct_size: c_api::size::ERROR_CREATE_ARGS,
        extension_start: ptr::null_mut(),
        message: message.as_ptr(),
        errc: code as i32,
    };
    // SAFETY: XLA's function for it, which copies the message.
    unsafe { create(&raw mut arguments) }
}
