//! Scripts that may mount file systems, for tests with disks that are small, full or read-only.

use std::process::Command;

/// Runs a shell script in namespaces of its own; what it printed. Panics when it fails or takes two minutes.
#[track_caller]
pub(crate) fn run(script: &str) -> String {
    // In a user namespace, or, where there can be none (in a chroot), as the root that we then have to be.
    let user = Command::new("unshare").args(["-rm", "true"]).output().unwrap().status.success();
    // With process ids of its own, nothing the script starts outlives it.
    let namespaces: &[&str] = if user { &["-rmpf"] } else { &["-mpf", "--propagation", "unchanged"] };
    let output = Command::new("timeout")
        .args(["--kill-after=1", "120", "unshare", "--kill-child"])
        .args(namespaces)
        .args(["sh", "-euc", script])
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    text
}
