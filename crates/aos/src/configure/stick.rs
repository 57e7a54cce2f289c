//! The stick: a partition labelled `AOS-CRED` with a folder `credstore/` of credentials.
//!
//! It is looked for at the first boot only, mounted read-only without devices, programs or set-uid files, read
//! once, and unmounted. Whoever can plug it in during the first boot can set up the machine, as at its console.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::host::Host;
use crate::output::Output;

const DEVICE: &str = "/dev/disk/by-label/AOS-CRED";
const MOUNT_POINT: &str = "/run/aos-cred";
/// The file systems taken: those that other systems write, and Linux's own.
const FILE_SYSTEMS: &str = "vfat,exfat,ext4";
/// How long a USB device may take to appear after the boot has come this far.
const APPEARS_WITHIN: Duration = Duration::from_secs(5);

/// A mounted stick; it is unmounted when dropped.
pub(crate) struct Stick<'a> {
    host: &'a Host,
    out: Output,
}

impl<'a> Stick<'a> {
    /// Mounts the stick; `None` when there is none.
    pub(crate) fn mount(host: &'a Host, out: Output) -> Result<Option<Self>> {
        if !appears() {
            return Ok(None);
        }
        fs::create_dir_all(MOUNT_POINT).with_context(|| format!("cannot make {MOUNT_POINT}"))?;
        let options = ["-t", FILE_SYSTEMS, "-o", "ro,nosuid,nodev,noexec", "--", DEVICE, MOUNT_POINT];
        host.tool("/usr/bin/mount", &options, b"").context("cannot mount the stick AOS-CRED")?;
        Ok(Some(Self { host, out }))
    }

    /// The folder of credentials on it.
    pub(crate) fn credentials(&self) -> PathBuf {
        Path::new(MOUNT_POINT).join("credstore")
    }
}

impl Drop for Stick<'_> {
    fn drop(&mut self) {
        // What stays mounted is read-only and goes with the next shutdown; its credentials have been read.
        if let Err(error) = self.host.tool("/usr/bin/umount", &[MOUNT_POINT], b"") {
            self.out.warn(&format!("the stick AOS-CRED stays mounted at {MOUNT_POINT}: {error:#}"));
        }
    }
}

/// Waits a moment for the stick when a USB device is there at all.
fn appears() -> bool {
    let end = Instant::now() + APPEARS_WITHIN;
    loop {
        if Path::new(DEVICE).exists() {
            return true;
        }
        if !usb_devices() || Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(250));
    }
}

/// True when something is plugged in: names such as `1-2`, beside the hubs' own `usb1` and interfaces `1-2:1.0`.
fn usb_devices() -> bool {
    let Ok(entries) = fs::read_dir("/sys/bus/usb/devices") else { return false };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.contains('-') && !name.contains(':')
    })
}
