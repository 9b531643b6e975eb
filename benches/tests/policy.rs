//! The workspace keeps its own rules: licences and sources of dependencies, and who may depend on whom.

use std::{collections::BTreeMap, process::Command};

use serde_json::Value;

/// Licences that may be linked into programs under MIT OR Apache-2.0.
const LICENCES: [&str; 14] = [
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "0BSD",
    "CC0-1.0",
    "Unicode-3.0",
    "Unlicense",
    "BSL-1.0",
    "CDLA-Permissive-2.0",
];

/// Which of our crates each of them may use: arrows point one way (docs/architecture.md).
const MAY_USE: [(&str, &[&str]); 13] = [
    ("proto-derive", &[]),
    ("proto", &["proto-derive", "proto"]),
    ("kernels", &["proto"]),
    ("post-init", &["kernels", "proto"]),
    ("post-prover", &["kernels", "proto"]),
    ("rocksdb-unity", &[]),
    ("poet-service", &["kernels", "proto", "rocksdb-unity"]),
    ("store", &["proto", "rocksdb-unity"]),
    ("activation", &["kernels", "poet-service", "post-prover", "proto", "store"]),
    ("p2p", &["proto"]),
    ("api", &["activation", "proto"]),
    ("smesh-node", &["activation", "api", "kernels", "p2p", "poet-service", "post-prover", "proto", "store"]),
    ("benches", &["activation", "kernels", "poet-service", "post-init", "post-prover", "proto", "store"]),
];

fn metadata() -> Value {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo).args(["metadata", "--format-version", "1", "--locked"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Whether an SPDX expression leaves a choice that is allowed.
fn allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    let one = |licence: &str| LICENCES.contains(&licence.trim_matches(|c: char| c == '(' || c == ')' || c == ' '));
    // AND binds tighter than OR; parentheses around choices are written out by hand where they matter.
    match expression.as_str() {
        e if e.starts_with('(') && e.contains(") AND ") => e.split(" AND ").all(|part| part.split(" OR ").any(one)),
        e => e.split(" OR ").any(|choice| choice.split(" AND ").all(one)),
    }
}

#[test]
fn every_dependency_has_a_licence_we_may_use_and_comes_from_the_registry() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 20);
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let licence = package["license"].as_str().unwrap_or("none");
        assert!(allowed(licence), "{name}: {licence}");
        match package["source"].as_str() {
            None => {}
            Some(source) => {
                assert!(source.starts_with("registry+https://github.com/rust-lang/crates.io-index"), "{name}: {source}");
            }
        }
    }
}

#[test]
fn our_crates_depend_on_each_other_in_one_direction() {
    let metadata = metadata();
    let rules: BTreeMap<_, _> = MAY_USE.into_iter().collect();
    let members = metadata["workspace_members"].as_array().unwrap();
    let ours = metadata["packages"].as_array().unwrap().iter().filter(|p| members.contains(&p["id"]));
    for package in ours {
        let name = package["name"].as_str().unwrap();
        let allowed = rules.get(name).unwrap_or_else(|| panic!("{name} is not in the table of this test"));
        for dependency in package["dependencies"].as_array().unwrap() {
            let other = dependency["name"].as_str().unwrap();
            assert!(!rules.contains_key(other) || allowed.contains(&other), "{name} must not use {other}");
        }
    }
}

/// What programs must not link, whatever other programs need.
const KEEPS_OUT: [(&str, &[&str]); 3] = [
    ("post-init", &["librocksdb-sys", "rocksdb-unity", "libp2p-core"]),
    ("post-prover", &["librocksdb-sys", "rocksdb-unity", "libp2p-core"]),
    ("smesh-node", &["post-init", "wgpu", "ash", "cust"]),
];

#[test]
fn heavy_libraries_stay_where_they_are_needed() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let tree = |package: &str| {
        let arguments = ["tree", "--package", package, "--edges", "normal,build", "--prefix", "none", "--locked"];
        let output = Command::new(&cargo).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    for (program, kept_out) in KEEPS_OUT {
        let tree = tree(program);
        let linked: Vec<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
        assert!(linked.contains(&"proto"), "{tree}");
        for library in kept_out {
            assert!(!linked.contains(library), "{program} must not link {library}");
        }
    }
    // the names above are those of what they keep out
    assert!(tree("store").contains("librocksdb-sys ") && tree("store").contains("rocksdb-unity "));
    assert!(tree("p2p").contains("libp2p-core "));
}
