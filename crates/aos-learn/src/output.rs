//! The agent's output in lines of bounded length, and bounded in all. What comes after the bound is
//! read and dropped, so that the agent never blocks on it. The text is the agent's: whoever shows it
//! cleans it.

/// Bytes of one line; a longer one is cut into several.
const LINE_BYTES_MAX: usize = 4096;
/// Bytes that are handed on of one stream of one run.
const SHOWN_BYTES_MAX: usize = 1 << 20;

/// One stream, cut into lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    waiting: Vec<u8>,
    shown: usize,
}

impl Lines {
    /// Takes what was read and hands every whole line on.
    pub(crate) fn push(&mut self, bytes: &[u8], on_line: &mut dyn FnMut(&str)) {
        for byte in bytes {
            if *byte == b'\n' {
                self.flush(on_line);
            } else {
                self.waiting.push(*byte);
                if self.waiting.len() >= LINE_BYTES_MAX {
                    self.flush(on_line);
                }
            }
        }
    }

    /// Hands on what is left at the end.
    pub(crate) fn finish(&mut self, on_line: &mut dyn FnMut(&str)) {
        if !self.waiting.is_empty() {
            self.flush(on_line);
        }
    }

    fn flush(&mut self, on_line: &mut dyn FnMut(&str)) {
        let before = self.shown;
        self.shown = before.saturating_add(self.waiting.len() + 1);
        if self.shown <= SHOWN_BYTES_MAX {
            on_line(&String::from_utf8_lossy(&self.waiting));
        } else if before <= SHOWN_BYTES_MAX {
            on_line("(the rest of this output is not shown)");
        }
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_each_and_in_all() {
        let mut found: Vec<String> = Vec::new();
        let mut lines = Lines::default();
        lines.push(b"a\n\nb", &mut |line| found.push(line.to_owned()));
        lines.push(b"c\n\xffrest", &mut |line| found.push(line.to_owned()));
        lines.finish(&mut |line| found.push(line.to_owned()));
        assert_eq!(found, ["a", "", "bc", "\u{fffd}rest"]);
        let (mut bytes, mut last) = (0, String::new());
        let mut lines = Lines::default();
        for _ in 0..3 {
            lines.push(&vec![b'x'; SHOWN_BYTES_MAX], &mut |line| {
                bytes += line.len();
                last = line.to_owned();
            });
        }
        assert!(bytes <= SHOWN_BYTES_MAX + 100, "{bytes}");
        assert!(last.contains("not shown"), "{last}");
    }
}
