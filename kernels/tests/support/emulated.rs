//! Libraries that play driver: compiled by tests, which then load them in place of the system's.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// Compiles one C++ file to a library.
pub(crate) fn compile(source: &Path, name: &str) -> PathBuf {
    // Each process its own, as several may build at once.
    let library = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}.so", std::process::id()));
    let compiler = env::var_os("CXX").unwrap_or_else(|| "c++".into());
    let status = Command::new(compiler)
        .args(["-std=c++17", "-O3", "-U_FORTIFY_SOURCE", "-fPIC", "-shared", "-Wall", "-Wno-unknown-pragmas"])
        .arg("-I")
        .arg(source.parent().expect("a folder"))
        .arg("-o")
        .arg(&library)
        .arg(source)
        .arg("-lpthread")
        .status()
        .expect("a C++ compiler");
    assert!(status.success());
    library
}

/// The emulated CUDA driver.
pub(crate) fn cuda_driver() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels/tests/emulated_cuda/driver.cpp");
    BUILT.get_or_init(|| compile(&source, "libcuda")).clone()
}
