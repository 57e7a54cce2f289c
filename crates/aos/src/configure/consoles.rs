//! The consoles of the machine at first boot.
//!
//! A machine can have a screen and a serial line at once, and the kernel cannot know at which of them somebody
//! sits. So every console offers the setup, and the one on which Enter is pressed gets it; the others say
//! where it went. With one console it starts at once.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;

use super::tty::Tty;

/// The kernel's list of the consoles that messages go to, the one behind `/dev/console` last.
const ACTIVE_CONSOLES: &str = "/sys/class/tty/console/active";
/// Present in containers, whose `/sys` shows the host's consoles.
const CONTAINER_MARK: &str = "/run/systemd/container";
/// The console that always exists.
const CONSOLE: &str = "/dev/console";

const OFFER: &str = "\nAOS is not set up yet. Press Enter to set it up here: ";

/// A console that is open.
#[derive(Debug)]
struct Console {
    name: String,
    device: File,
}

/// Waits until somebody wants to set up the machine and returns their terminal.
pub(crate) fn claim() -> Result<Tty> {
    let mut consoles = open_all();
    let chosen = match consoles.len() {
        0 => bail!("no console can be opened, so nobody can be asked"),
        1 => 0,
        _ => offer(&mut consoles)?,
    };
    let console = consoles.swap_remove(chosen);
    for other in &mut consoles {
        let place = in_words(&console.name);
        let notice = format!("\nAOS is being set up on {place}. A login prompt follows here.\n");
        tell(other, &notice);
    }
    Tty::new(blocking(console.device)?).context("cannot use the console")
}

/// Opens what is there: a listed console may have no device behind it.
fn open_all() -> Vec<Console> {
    let listed = if Path::new(CONTAINER_MARK).exists() {
        String::new()
    } else {
        fs::read_to_string(ACTIVE_CONSOLES).unwrap_or_default()
    };
    let mut consoles: Vec<Console> = names(&listed).filter_map(|name| open(name).ok()).collect();
    if consoles.is_empty() {
        consoles.extend(open("console").ok());
    }
    consoles
}

/// The names in the kernel's list, main console first; anything that is no device name is left out.
fn names(listed: &str) -> impl Iterator<Item = &str> {
    listed.split_whitespace().rev().filter(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// A console as a person knows it.
fn in_words(name: &str) -> String {
    let is_screen =
        name.strip_prefix("tty").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()));
    if is_screen { "the screen".to_owned() } else { format!("the serial console {name}") }
}

fn open(name: &str) -> io::Result<Console> {
    let path = if name == "console" { CONSOLE.to_owned() } else { format!("/dev/{name}") };
    let flags = OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    let device = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
    if !device.is_terminal() {
        return Err(io::Error::other("it is no terminal"));
    }
    Ok(Console { name: name.to_owned(), device })
}

/// Shows the offer on every console and waits for a line on one of them.
fn offer(consoles: &mut [Console]) -> Result<usize> {
    for console in consoles.iter_mut() {
        tell(console, OFFER);
    }
    loop {
        let mut waiting: Vec<PollFd<'_>> =
            consoles.iter().map(|console| PollFd::new(&console.device, PollFlags::IN)).collect();
        match poll(&mut waiting, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for a key on the consoles"),
        }
        let ready: Vec<PollFlags> = waiting.iter().map(PollFd::revents).collect();
        let dead = ready.iter().filter(|flags| flags.intersects(PollFlags::HUP | PollFlags::ERR)).count();
        if dead == consoles.len() {
            bail!("every console was hung up");
        }
        let mut readable = ready.iter().enumerate().filter(|(_, flags)| flags.contains(PollFlags::IN));
        if let Some((index, _)) = readable.next() {
            if let Some(console) = consoles.get_mut(index) {
                drain(console);
            }
            return Ok(index);
        }
        // Only a console that was hung up makes poll() return without input.
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

/// Takes what was typed for the offer, so that it does not answer the first question.
fn drain(console: &mut Console) {
    let mut typed = [0_u8; 256];
    while matches!(console.device.read(&mut typed), Ok(count) if count > 0) {}
}

fn tell(console: &mut Console, text: &str) {
    if console.device.write_all(text.replace('\n', "\r\n").as_bytes()).is_err() {
        // A console that nobody listens to may be full or gone; the others still ask.
    }
}

/// Switches to blocking reads.
fn blocking(device: File) -> Result<File> {
    let flags = rustix::fs::fcntl_getfl(&device).context("cannot read the console's flags")?;
    rustix::fs::fcntl_setfl(&device, flags - OFlags::NONBLOCK).context("cannot set the console's flags")?;
    Ok(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_main_console_comes_first() {
        assert_eq!(names("tty0 ttyS0\n").collect::<Vec<_>>(), ["ttyS0", "tty0"]);
        assert_eq!(names("../../etc tty0").collect::<Vec<_>>(), ["tty0"]);
        assert_eq!(names("").count(), 0);
        assert_eq!(in_words("tty0"), "the screen");
        assert_eq!(in_words("ttyS0"), "the serial console ttyS0");
    }
}
