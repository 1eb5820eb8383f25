//! Python in a program of its own, which has the runtime of a sanitizer: the extension that is built with one finds it there.
use std::error::Error;
use std::ffi::{CString, c_char, c_int};
use std::os::unix::ffi::OsStringExt;

unsafe extern "C" {
    fn Py_BytesMain(argc: c_int, argv: *mut *mut c_char) -> c_int;
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = std::env::args_os().map(|one| CString::new(one.into_vec())).collect::<Result<Vec<_>, _>>()?;
    let mut pointers: Vec<*mut c_char> = arguments.iter().map(|one| one.as_ptr().cast_mut()).collect();
    let count = pointers.len() as c_int;
    pointers.push(std::ptr::null_mut());
    // SAFETY: as the `main` of a program in C calls it; the texts live as long as the process.
    std::process::exit(unsafe { Py_BytesMain(count, pointers.as_mut_ptr()) });
}
