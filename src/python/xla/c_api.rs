//! The part of XLA's foreign function interface that handlers need, as C has it.
//!
//! The header is `xla/ffi/api/c_api.h`, which jaxlib ships under `jaxlib/include`, in version 0.3 (jaxlib 0.10.2). All that is
//! here is the same in every version from 0.1 (jaxlib 0.5.0) on. As the header asks, a structure that grew since is told by its
//! `struct_size`: a reader takes any that is at least as large as what it knows.

use std::ffi::{c_char, c_int, c_void};
use std::mem::offset_of;

/// The major version that all of this is of.
pub(super) const MAJOR: c_int = 0;

/// The minor versions that this is the same in.
pub(super) const MINORS: std::ops::RangeInclusive<c_int> = 1..=3;

/// `XLA_FFI_Extension_Metadata`.
pub(super) const METADATA: c_int = 1;
/// `XLA_FFI_ExecutionStage_EXECUTE`.
pub(super) const EXECUTE: c_int = 3;
/// `XLA_FFI_ArgType_BUFFER`, and `XLA_FFI_RetType_BUFFER`.
pub(super) const BUFFER: c_int = 1;
/// `XLA_FFI_AttrType_SCALAR`.
pub(super) const SCALAR: c_int = 3;
/// `XLA_FFI_AttrType_STRING`.
pub(super) const STRING: c_int = 4;

/// `XLA_FFI_Error_Code`.
#[derive(Clone, Copy)]
#[repr(i32)]
pub(super) enum Code {
    InvalidArgument = 3,
    ResourceExhausted = 8,
    Internal = 13,
}

/// `XLA_FFI_DataType`, those of numbers that kldiv reads.
pub(super) mod data_type {
    use std::ffi::c_int;

    pub(in super::super) const PRED: c_int = 1;
    pub(in super::super) const S8: c_int = 2;
    pub(in super::super) const S16: c_int = 3;
    pub(in super::super) const S32: c_int = 4;
    pub(in super::super) const S64: c_int = 5;
    pub(in super::super) const U8: c_int = 6;
    pub(in super::super) const U16: c_int = 7;
    pub(in super::super) const U32: c_int = 8;
    pub(in super::super) const U64: c_int = 9;
    pub(in super::super) const F16: c_int = 10;
    pub(in super::super) const F32: c_int = 11;
    pub(in super::super) const F64: c_int = 12;
    pub(in super::super) const BF16: c_int = 16;
}

#[repr(C)]
pub(super) struct ExtensionBase {
    pub(super) struct_size: usize,
    pub(super) extension_type: c_int,
    pub(super) next: *mut ExtensionBase,
}

#[repr(C)]
pub(super) struct ApiVersion {
    pub(super) struct_size: usize,
    pub(super) extension_start: *mut ExtensionBase,
    pub(super) major_version: c_int,
    pub(super) minor_version: c_int,
}

/// `XLA_FFI_Metadata` as far as version 0.1 has it.
#[repr(C)]
pub(super) struct Metadata {
    pub(super) struct_size: usize,
    pub(super) api_version: ApiVersion,
    pub(super) traits: u32,
}

#[repr(C)]
pub(super) struct MetadataExtension {
    pub(super) extension_base: ExtensionBase,
    pub(super) metadata: *mut Metadata,
}

/// `XLA_FFI_Error`, which is XLA's.
#[repr(C)]
pub(super) struct Error {
    opaque: [u8; 0],
}

#[repr(C)]
pub(super) struct ErrorCreateArgs {
    pub(super) struct_size: usize,
    pub(super) extension_start: *mut ExtensionBase,
    pub(super) message: *const c_char,
    pub(super) errc: c_int,
}

/// `XLA_FFI_Api` up to the one function that is called.
#[repr(C)]
pub(super) struct Api {
    pub(super) struct_size: usize,
    pub(super) extension_start: *mut ExtensionBase,
    pub(super) version: ApiVersion,
    pub(super) internal: *const c_void,
    pub(super) error_create: Option<unsafe extern "C" fn(*mut ErrorCreateArgs) -> *mut Error>,
}

#[repr(C)]
pub(super) struct Buffer {
    pub(super) struct_size: usize,
    pub(super) extension_start: *mut ExtensionBase,
    pub(super) dtype: c_int,
    pub(super) data: *mut c_void,
    pub(super) rank: i64,
    pub(super) dims: *mut i64,
}

#[repr(C)]
pub(super) struct ByteSpan {
    pub(super) ptr: *const c_char,
    pub(super) len: usize,
}

#[repr(C)]
pub(super) struct Scalar {
    pub(super) dtype: c_int,
    pub(super) value: *mut c_void,
}

/// `XLA_FFI_Args`, and `XLA_FFI_Rets`, which is laid out alike.
#[repr(C)]
pub(super) struct Buffers {
    pub(super) struct_size: usize,
    pub(super) extension_start: *mut ExtensionBase,
    pub(super) size: i64,
    pub(super) types: *mut c_int,
    pub(super) values: *mut *mut c_void,
}

#[repr(C)]
pub(super) struct Attrs {
    pub(super) struct_size: usize,
    pub(super) extension_start: *mut ExtensionBase,
    pub(super) size: i64,
    pub(super) types: *mut c_int,
    pub(super) names: *mut *mut ByteSpan,
    pub(super) values: *mut *mut c_void,
}

/// `XLA_FFI_CallFrame` without the future of asynchronous handlers, which its size does not count either.
#[repr(C)]
pub(super) struct CallFrame {
    pub(super) struct_size: usize,
    pub(super) extension_start: *mut ExtensionBase,
    pub(super) api: *const Api,
    pub(super) ctx: *mut c_void,
    pub(super) stage: c_int,
    pub(super) args: Buffers,
    pub(super) rets: Buffers,
    pub(super) attrs: Attrs,
}

/// `XLA_FFI_Handler`.
pub(super) type Handler = unsafe extern "C" fn(*mut CallFrame) -> *mut Error;

/// Sizes as the header counts them: up to the end of the last member.
pub(super) mod size {
    use super::{Api, ErrorCreateArgs, Metadata, c_int, offset_of};

    pub(in super::super) const METADATA: usize = offset_of!(Metadata, traits) + size_of::<u32>();
    pub(in super::super) const ERROR_CREATE_ARGS: usize = offset_of!(ErrorCreateArgs, errc) + size_of::<c_int>();
    pub(in super::super) const API: usize = offset_of!(Api, error_create) + size_of::<usize>();
}

// What a C compiler makes of the header, where pointers have eight bytes.
#[cfg(target_pointer_width = "64")]
const _: () = {
    assert!(size_of::<ExtensionBase>() == 24);
    assert!(size_of::<ApiVersion>() == 24);
    assert!(size::METADATA == 36);
    assert!(size_of::<MetadataExtension>() == 32);
    assert!(size::ERROR_CREATE_ARGS == 28);
    assert!(offset_of!(Api, error_create) == 48);
    assert!(size_of::<Buffer>() == 48);
    assert!(size_of::<ByteSpan>() == 16 && size_of::<Scalar>() == 16);
    assert!(size_of::<Buffers>() == 40 && size_of::<Attrs>() == 48);
    assert!(size_of::<CallFrame>() == 168);
};
