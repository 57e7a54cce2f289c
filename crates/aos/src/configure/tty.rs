//! A terminal device: line input with echo that can be switched off, on anything from a serial line at 80
//! columns to a graphical terminal.
//!
//! While a [`Tty`] exists, the device is in canonical mode with signals off; Ctrl-C ends the line and is told
//! as leaving. So the wizard needs no controlling terminal, and leaving it restores the device: the settings
//! found at opening come back when the value is dropped.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use rustix::termios::{
    InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};

use super::secret::Secret;
use super::terminal::Terminal;

/// The longest line taken; the kernel's own limit for a line is 4,096.
const MAX_LINE_BYTES: usize = 8 * 1024;
/// Ctrl-C.
const INTERRUPT: u8 = 0x03;
/// The other byte that terminals send for the backspace key.
const BACKSPACE: u8 = 0x08;

/// A terminal device in use.
#[derive(Debug)]
pub(crate) struct Tty {
    device: File,
    found: Termios,
    asking: Termios,
}

impl Tty {
    /// Takes a device that is a terminal.
    ///
    /// # Errors
    /// When `device` is no terminal.
    pub(crate) fn new(device: File) -> io::Result<Self> {
        let found = tcgetattr(&device)?;
        let mut asking = found.clone();
        asking.input_modes.insert(InputModes::ICRNL);
        asking.input_modes.remove(InputModes::IGNCR | InputModes::INLCR | InputModes::ISTRIP);
        asking.output_modes.insert(OutputModes::OPOST | OutputModes::ONLCR);
        asking.local_modes.insert(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ECHOE);
        asking.local_modes.insert(LocalModes::ECHOK | LocalModes::ECHOCTL);
        asking.local_modes.remove(LocalModes::ISIG | LocalModes::IEXTEN | LocalModes::ECHONL);
        // An additional end of line: the line is handed over at once when Ctrl-C is typed.
        asking.special_codes[SpecialCodeIndex::VEOL] = INTERRUPT;
        tcsetattr(&device, OptionalActions::Now, &asking)?;
        Ok(Self { device, found, asking })
    }

    /// Reads one line, byte by byte so that nothing of the next line is taken; `None` at its end or on Ctrl-C.
    fn line(&mut self) -> io::Result<Option<zeroize::Zeroizing<Vec<u8>>>> {
        let mut line = zeroize::Zeroizing::new(Vec::with_capacity(MAX_LINE_BYTES));
        loop {
            let mut byte = [0_u8];
            if self.device.read(&mut byte)? == 0 {
                return Ok(None);
            }
            match byte {
                [INTERRUPT] => {
                    self.device.write_all(b"\n")?;
                    return Ok(None);
                }
                [b'\n'] => return Ok(Some(line)),
                [BACKSPACE] => drop(line.pop()),
                [byte] if line.len() < MAX_LINE_BYTES => line.push(byte),
                [_] => {}
            }
        }
    }
}

impl Terminal for Tty {
    fn write(&mut self, text: &str) -> io::Result<()> {
        self.device.write_all(text.as_bytes())?;
        self.device.flush()
    }

    fn read_line(&mut self) -> io::Result<Option<String>> {
        let Some(line) = self.line()? else { return Ok(None) };
        let text = String::from_utf8_lossy(&line);
        Ok(Some(text.chars().filter(|c| !c.is_control()).collect()))
    }

    fn read_secret(&mut self, prompt: &str) -> io::Result<Option<Secret>> {
        let mut silent = self.asking.clone();
        silent.local_modes.remove(LocalModes::ECHO | LocalModes::ECHOE | LocalModes::ECHOK);
        tcsetattr(self.device.as_fd(), OptionalActions::Flush, &silent)?;
        let line = self.write(prompt).and_then(|()| self.line());
        tcsetattr(self.device.as_fd(), OptionalActions::Drain, &self.asking)?;
        let Some(line) = line? else { return Ok(None) };
        self.device.write_all(b"\n")?;
        let text = String::from_utf8(line.to_vec())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "what was typed is not UTF-8 text"))?;
        Ok(Some(Secret::new(text)))
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        match tcsetattr(self.device.as_fd(), OptionalActions::Drain, &self.found) {
            // A device that went away has no settings to restore.
            Ok(()) | Err(_) => {}
        }
    }
}
