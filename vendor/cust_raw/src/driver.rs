//! The driver library: opened at the first call, never closed.

use std::{cell::Cell, env, sync::OnceLock};

use libloading::Library;

use crate::{codes, types::CUresult};

/// Path of a driver library to use instead of the system's, for tests.
const OVERRIDE: &str = "SMESH_LIBCUDA";

#[cfg(windows)]
const NAMES: [&str; 1] = ["nvcuda.dll"];
#[cfg(not(windows))]
const NAMES: [&str; 2] = ["libcuda.so.1", "libcuda.so"];

static DRIVER: OnceLock<Result<Library, String>> = OnceLock::new();

thread_local! {
    static LAST: Cell<Option<i32>> = const { Cell::new(None) };
}

fn driver() -> &'static Result<Library, String> {
    DRIVER.get_or_init(|| {
        let chosen = env::var_os(OVERRIDE);
        let names: Vec<_> = match &chosen {
            Some(path) => vec![path.as_os_str()],
            None => NAMES.iter().map(|name| name.as_ref()).collect(),
        };
        let mut error = String::new();
        for name in names {
            // SAFETY: the library is the system's CUDA driver or the one the user names; opening it runs its initialisers.
            match unsafe { Library::new(name) } {
                Ok(library) => return Ok(library),
                Err(e) if error.is_empty() => error = e.to_string(),
                Err(_) => {}
            }
        }
        Err(error)
    })
}

/// Whether there is a driver library, and if not, what the system's loader says.
pub fn driver_library() -> Result<(), &'static str> {
    driver().as_ref().map(|_| ()).map_err(String::as_str)
}

/// The number of the last error on this thread, with or without a name.
pub fn last_error_code() -> Option<i32> {
    LAST.get()
}

/// The address of a function, or null without the library or the function in it.
pub(crate) fn address(name: &[u8]) -> *mut () {
    match driver() {
        // SAFETY: the address is only compared and, by the shim, called with the type of the function of that name.
        Ok(library) => unsafe { library.get::<unsafe extern "C" fn()>(name) }.map_or(std::ptr::null_mut(), |f| *f as *mut ()),
        Err(_) => std::ptr::null_mut(),
    }
}

/// What a function returned; a number that is no value of the enum must never become one.
pub(crate) fn result(code: i32) -> CUresult {
    if code != 0 {
        LAST.set(Some(code));
    }
    codes::known(code).unwrap_or(CUresult::CUDA_ERROR_UNKNOWN)
}

/// What is returned without a driver, or for a function that an old driver lacks.
pub(crate) fn missing() -> CUresult {
    match driver() {
        Ok(_) => CUresult::CUDA_ERROR_NOT_SUPPORTED,
        Err(_) => CUresult::CUDA_ERROR_NO_DEVICE,
    }
}

macro_rules! shims {
    ($(fn $name:ident($($argument:ident: $type:ty),* $(,)?);)*) => {$(
        pub unsafe fn $name($($argument: $type),*) -> CUresult {
            static ADDRESS: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
            let address = *ADDRESS.get_or_init(|| crate::driver::address(concat!(stringify!($name), "\0").as_bytes()) as usize);
            if address == 0 {
                return crate::driver::missing();
            }
            // SAFETY: the driver's function of this name has this type, but for the result, which is a C enum and thus any int.
            let function: unsafe extern "C" fn($($type),*) -> i32 = unsafe { std::mem::transmute(address) };
            // SAFETY: the caller keeps the contract of the function.
            crate::driver::result(unsafe { function($($argument),*) })
        }
    )*};
}
pub(crate) use shims;
