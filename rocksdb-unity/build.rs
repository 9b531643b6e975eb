//! Writes one `#include` file per group of RocksDB's source files and compiles those.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    env,
    error::Error,
    fmt::Write as _,
    fs,
    hash::{Hash as _, Hasher as _},
    path::{Path, PathBuf},
};

/// Source files in one unit: large enough to share the headers, small enough for 700 MB of compiler memory.
const FILES_PER_UNIT: usize = 14;

fn main() -> Result<(), Box<dyn Error>> {
    for variable in ["ROCKSDB_LIB_DIR", "ROCKSDB_COMPILE"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    println!("cargo:rerun-if-changed=build.rs");
    let lib_dir = env::var_os("ROCKSDB_LIB_DIR").map(PathBuf::from);
    let ours = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("libdir");
    let left_to_others = env::var("ROCKSDB_COMPILE").is_ok_and(|v| v == "1" || v.eq_ignore_ascii_case("true"));
    // someone else's library directory means that a ready library is used
    if left_to_others || lib_dir.is_none_or(|dir| dir.canonicalize().ok() != ours.canonicalize().ok()) {
        return Ok(());
    }
    if env::var("CARGO_CFG_TARGET_OS")? != "linux" {
        return Err("RocksDB in large units is built on Linux only: set ROCKSDB_COMPILE=1 to have librocksdb-sys build it".into());
    }
    let home = PathBuf::from(env::var("DEP_ROCKSDB_CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // The library is the same in every profile and whatever features other crates turn on, while cargo builds afresh for each:
    // so it is kept beside the profiles' folders (`out` is `<target>/<profile>/build/<package>/out`), under what it is made of.
    let keep = out.ancestors().nth(4).unwrap_or(&out).join("rocksdb-unity").join(key(&home)?);
    let library = keep.join("librocksdb.a");
    if !library.exists() {
        compile(&home, &out)?;
        fs::create_dir_all(&keep)?;
        let unfinished = keep.join(format!("librocksdb.a.{}", std::process::id()));
        fs::copy(out.join("librocksdb.a"), &unfinished)?;
        fs::rename(unfinished, &library)?;
        fs::remove_file(out.join("librocksdb.a"))?;
    }
    println!("cargo:rustc-link-search=native={}", keep.display());
    println!("cargo:rustc-link-lib=static=rocksdb");
    println!("cargo:rustc-link-lib=stdc++");
    Ok(())
}

/// What distinguishes one build of the library from another: its source, this file and the compiler.
fn key(home: &Path) -> Result<String, Box<dyn Error>> {
    let mut hasher = DefaultHasher::new();
    (home, env::var("TARGET")?, compiler(), fs::read("build.rs")?).hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}

/// clang++ needs two thirds of the time of g++; a compiler that the user names is respected.
fn compiler() -> Option<&'static str> {
    (env::var_os("CXX").is_none() && is_there("clang++")).then_some("clang++")
}

fn compile(home: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    let source = home.join("rocksdb");
    let mut build = cc::Build::new();
    if let Some(compiler) = compiler() {
        build.compiler(compiler);
    }
    build.cargo_metadata(false);
    build.cpp(true).std("c++20").warnings(false).debug(false).opt_level(2).flag("-include").flag("cstdint");
    build.include(source.join("include")).include(&source).include(home).include(env::var("DEP_LZ4_INCLUDE")?);
    for (name, value) in [("NDEBUG", Some("1")), ("LZ4", Some("1"))] {
        build.define(name, value);
    }
    for name in [
        "HAVE_ALIGNED_NEW",
        "HAVE_UINT128_EXTENSION",
        "OS_LINUX",
        "ROCKSDB_PLATFORM_POSIX",
        "ROCKSDB_LIB_IO_POSIX",
        "ROCKSDB_SCHED_GETCPU_PRESENT",
        "ROCKSDB_AUXV_GETAUXVAL_PRESENT",
        "ROCKSDB_FALLOCATE_PRESENT",
        "ROCKSDB_RANGESYNC_PRESENT",
    ] {
        build.define(name, None);
    }
    for (name, text) in units(&fs::read_to_string(home.join("rocksdb_lib_sources.txt"))?)? {
        let path = out.join(name);
        // an unchanged file keeps its time stamp
        if fs::read_to_string(&path).ok().as_deref() != Some(&text) {
            fs::write(&path, text)?;
        }
        build.file(path);
    }
    build.file(home.join("build_version.cc"));
    build.try_compile("rocksdb")?;
    Ok(())
}

/// Name and text of each unit: the files of one directory, [`FILES_PER_UNIT`] at a time.
fn units(list: &str) -> Result<Vec<(String, String)>, Box<dyn Error>> {
    let mut directories: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    // the version file is generated and lies elsewhere
    for file in list.split_whitespace().filter(|file| *file != "util/build_version.cc") {
        let (directory, _) = file.rsplit_once('/').ok_or("a source file of RocksDB without a directory")?;
        directories.entry(directory).or_default().push(file);
    }
    let mut units = Vec::new();
    for (directory, files) in directories {
        for (number, files) in files.chunks(FILES_PER_UNIT).enumerate() {
            let mut text = String::new();
            for file in files {
                writeln!(text, "#include \"{file}\"")?;
            }
            units.push((format!("{}_{number}.cc", directory.replace('/', "_")), text));
        }
    }
    Ok(units)
}

fn is_there(program: &str) -> bool {
    std::process::Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}
