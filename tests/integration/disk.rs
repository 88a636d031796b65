//! A small disk of its own for a home: it can be filled and freed, and is gone when dropped, also when a test fails.
//!
//! Mounting takes root; where it is refused, [`SmallDisk::mount`] says why.

use rustix::fs::{FallocateFlags, fallocate};
use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What fills a disk: first taken in large steps, then written in small ones, so that nothing is left.
const FILLER: &str = "filler";
const LARGEST_STEP_BYTES: u64 = 64 << 20;
const SMALLEST_STEP_BYTES: u64 = 4096;

/// Where the bytes of a small disk are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Medium {
    /// In memory.
    Memory,
    /// In a file beside the disk, with a filesystem that has blocks, a journal and a cache to sync.
    Image,
}

/// A mounted disk.
#[derive(Debug)]
pub(crate) struct SmallDisk {
    at: PathBuf,
    image: Option<PathBuf>,
}

impl SmallDisk {
    /// Mounts a disk of `size_kib` at an empty folder, or says why this machine does not let us.
    pub(crate) fn mount(at: &Path, medium: Medium, size_kib: u32) -> Result<Self, String> {
        match medium {
            Medium::Memory => {
                let options = format!("size={size_kib}k,mode=0700");
                ran(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at))?;
                Ok(Self { at: at.to_owned(), image: None })
            }
            Medium::Image => {
                let image = at.with_extension("image");
                let file = File::create(&image).map_err(|error| error.to_string())?;
                file.set_len(u64::from(size_kib) << 10).map_err(|error| error.to_string())?;
                ran(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image))?;
                ran(Command::new("mount").args(["-t", "ext4", "-o", "loop"]).args([&image, at]))?;
                // From here on dropping it undoes the mount.
                let disk = Self { at: at.to_owned(), image: Some(image) };
                let made = fs::remove_dir(at.join("lost+found"))
                    .and_then(|()| fs::set_permissions(at, fs::Permissions::from_mode(0o700)));
                made.map_err(|error| error.to_string())?;
                Ok(disk)
            }
        }
    }

    /// Takes all that is free of it.
    pub(crate) fn fill(&self) {
        let (mut taken, mut step) = (0, LARGEST_STEP_BYTES);
        let mut file = File::create(self.at.join(FILLER)).unwrap();
        while step >= SMALLEST_STEP_BYTES {
            match fallocate(&file, FallocateFlags::empty(), taken, step) {
                Ok(()) => taken += step,
                Err(_) => step /= 2,
            }
        }
        file.seek(SeekFrom::End(0)).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        // What a cache took and the disk has no room for is no matter: it is as full as it gets.
        let _ = file.sync_all();
    }

    /// Gives back what [`Self::fill`] took.
    pub(crate) fn free(&self) {
        fs::remove_file(self.at.join(FILLER)).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process of a failed test may still have a file open there.
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).status();
        if let Some(image) = &self.image {
            let _ = fs::remove_file(image);
        }
    }
}

fn ran(command: &mut Command) -> Result<(), String> {
    let ran = command.output().map_err(|error| format!("{} does not run: {error}", command.get_program().display()))?;
    if ran.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&ran.stderr).trim().to_owned()) }
}
