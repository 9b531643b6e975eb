//! Which physical disk a directory lies on, for deciding what is read at the same time.

use std::{
    io,
    path::{Path, PathBuf},
};

/// A name for the disk of each directory. `names` stands in for finding out: one for all of them, or one for each.
pub fn disks_of(dirs: &[PathBuf], names: &[String]) -> io::Result<Vec<String>> {
    match names {
        [] => dirs.iter().map(|dir| disk_of(dir)).collect(),
        [one] => Ok(vec![one.clone(); dirs.len()]),
        // whoever takes names from people checks their number
        each => Ok(dirs.iter().enumerate().map(|(i, _)| each[i % each.len()].clone()).collect()),
    }
}

/// What the physical disk behind a path is called: of a partition or a volume, the disk it lies on; of a volume over several disks,
/// and where nothing more can be found out, what the system calls the device.
pub fn disk_of(path: &Path) -> io::Result<String> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let device = std::fs::metadata(path)?.dev();
        #[cfg(target_os = "linux")]
        if let Some(name) = linux::name_of(device) {
            return Ok(name);
        }
        #[cfg(target_os = "linux")]
        if let Some(source) = linux::mounted_from(&std::fs::canonicalize(path)?) {
            // Btrfs and others have no device number of their own; of those that live on a device, the mount names it.
            let device = std::fs::metadata(&source).ok().filter(|_| source.starts_with("/dev/")).map(|m| m.rdev());
            return Ok(device.and_then(linux::name_of).unwrap_or(source));
        }
        Ok(format!("device-{}:{}", rustix::fs::major(device), rustix::fs::minor(device)))
    }
    #[cfg(not(unix))]
    {
        // the drive or share
        let path: PathBuf = std::fs::canonicalize(path)?;
        Ok(path.components().next().map_or_else(String::new, |c| c.as_os_str().to_string_lossy().into_owned()))
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        fs,
        path::{Path, PathBuf},
    };

    /// The name of the whole disk behind a block device.
    pub(super) fn name_of(device: u64) -> Option<String> {
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        whole_disk(fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?)
    }

    /// Goes down from partitions (…/block/sda/sda1) and from volumes that lie on a single device (…/block/dm-0/slaves/sda1).
    fn whole_disk(mut node: PathBuf) -> Option<String> {
        // Volumes are not stacked deeper than this; the bound is for what nobody has thought of.
        for _ in 0..8 {
            if node.join("partition").exists() {
                node = node.parent()?.to_owned();
            }
            let below: Vec<_> = fs::read_dir(node.join("slaves")).into_iter().flatten().flatten().collect();
            match &below[..] {
                [one] => node = fs::canonicalize(one.path()).ok()?,
                _ => break,
            }
        }
        node.file_name().map(|name| name.to_string_lossy().into_owned())
    }

    /// What is mounted where a path lies, as /proc/self/mountinfo has it.
    pub(super) fn mounted_from(path: &Path) -> Option<String> {
        source_of(&fs::read_to_string("/proc/self/mountinfo").ok()?, path)
    }

    /// The source of the mount with the longest path above `path`. Lines: `36 35 98:0 /root /mount/point options - type source …`.
    pub(super) fn source_of(mounts: &str, path: &Path) -> Option<String> {
        let mount = |line: &str| {
            let (left, right) = line.split_once(" - ")?;
            let point = PathBuf::from(left.split(' ').nth(4)?.replace("\\040", " "));
            path.starts_with(&point).then(|| Some((point.as_os_str().len(), right.split(' ').nth(1)?.to_owned())))?
        };
        mounts.lines().filter_map(mount).max_by_key(|(len, _)| *len).map(|(_, source)| source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_a_disk() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!disk_of(dir.path()).unwrap().is_empty());
        assert_eq!(disk_of(dir.path()).unwrap(), disk_of(&dir.path().join(".")).unwrap());
        assert!(disk_of(&dir.path().join("nothing")).is_err());
    }

    #[test]
    fn names_stand_in_for_finding_out() {
        let dirs = ["/a", "/b"].map(PathBuf::from);
        assert_eq!(disks_of(&dirs, &["x".to_owned()]).unwrap(), ["x", "x"]);
        assert_eq!(disks_of(&dirs, &["x".to_owned(), "y".to_owned()]).unwrap(), ["x", "y"]);
        assert!(disks_of(&[PathBuf::from("/no/such/directory")], &[]).is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_nearest_mount_counts() {
        let mounts = "22 1 0:20 / / rw - btrfs /dev/nvme0n1p2 rw\n\
                      23 22 0:41 /sub /data rw,noatime shared:1 - btrfs /dev/sdb rw\n\
                      24 22 0:42 / /data/my\\040pool rw - zfs pool/set rw\n";
        let source = |path: &str| linux::source_of(mounts, Path::new(path));
        assert_eq!(source("/home/x").as_deref(), Some("/dev/nvme0n1p2"));
        assert_eq!(source("/data/x").as_deref(), Some("/dev/sdb"));
        assert_eq!(source("/data/my pool/x").as_deref(), Some("pool/set"));
        assert_eq!(source("/database").as_deref(), Some("/dev/nvme0n1p2"));
    }
}
