//! The step's output: lines of bounded length without control characters, and bounded in all. What
//! comes after the bound is read and dropped, so that the step never blocks.

/// Bytes of one line: four lines of a wide terminal's screen. A longer one is cut into several.
const LINE_BYTES_MAX: usize = 4096;
/// Bytes of all output of one step: a verbose compilation of a large program stays below.
const OUTPUT_BYTES_MAX: u64 = 64 << 20;

/// One line for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output<'a> {
    /// Where it comes from.
    pub stream: Stream,
    /// The text, without its line end, control characters and terminal sequences.
    pub line: &'a str,
}

/// Where a line comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// The step's standard output.
    Out,
    /// The step's standard error.
    Err,
    /// What this module has to say, such as a connection that was refused.
    Note,
}

/// One stream, cut into lines.
pub(super) struct Lines {
    stream: Stream,
    waiting: Vec<u8>,
    /// Whether a carriage return came last: a newline after it is the same line's end.
    is_returned: bool,
    bytes: u64,
}

impl Lines {
    pub(super) const fn new(stream: Stream) -> Self {
        Self { stream, waiting: Vec::new(), is_returned: false, bytes: 0 }
    }

    /// Takes what was read and hands every whole line on.
    pub(super) fn push(&mut self, bytes: &[u8], on_output: &mut dyn FnMut(Output<'_>)) {
        let before = self.bytes;
        self.bytes = before.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if before >= OUTPUT_BYTES_MAX {
            return;
        }
        // A progress line rewrites itself by a carriage return.
        for part in bytes.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            let (text, end) = match part.split_last() {
                Some((end @ (b'\n' | b'\r'), text)) => (text, Some(*end)),
                _ => (part, None),
            };
            self.take(text, on_output);
            if let Some(end) = end {
                self.flush(end == b'\n' && !(self.is_returned && text.is_empty()), on_output);
                self.is_returned = end == b'\r';
            }
        }
        if self.bytes >= OUTPUT_BYTES_MAX {
            self.flush(false, on_output);
            let line = format!("the output is over {} MiB; the rest is not shown", OUTPUT_BYTES_MAX >> 20);
            on_output(Output { stream: Stream::Note, line: &line });
        }
    }

    /// Takes a part of a line, and hands it on where it gets too long.
    fn take(&mut self, mut text: &[u8], on_output: &mut dyn FnMut(Output<'_>)) {
        let room = |waiting: &[u8]| LINE_BYTES_MAX.saturating_sub(waiting.len());
        while text.len() > room(&self.waiting) {
            let (part, rest) = text.split_at_checked(room(&self.waiting)).unwrap_or((text, &[]));
            self.waiting.extend_from_slice(part);
            self.flush(true, on_output);
            text = rest;
        }
        self.waiting.extend_from_slice(text);
        self.is_returned &= text.is_empty();
    }

    /// Hands on what is left at the end.
    pub(super) fn finish(&mut self, on_output: &mut dyn FnMut(Output<'_>)) {
        self.flush(false, on_output);
    }

    fn flush(&mut self, even_if_empty: bool, on_output: &mut dyn FnMut(Output<'_>)) {
        if even_if_empty || !self.waiting.is_empty() {
            let line = plain(&String::from_utf8_lossy(&self.waiting));
            on_output(Output { stream: self.stream, line: &line });
            self.waiting.clear();
        }
    }
}

/// The text without terminal sequences; what else is a control or direction character becomes
/// U+FFFD.
pub(super) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter == '\u{1b}' && letters.next_if_eq(&'[').is_some() {
            // ECMA-48, 5.4: parameters and intermediates, then one final byte.
            while letters.next_if(|letter| (' '..='?').contains(letter)).is_some() {}
            letters.next_if(|letter| ('@'..='~').contains(letter));
        } else if letter == '\t' || !is_steering(letter) {
            plain.push(letter);
        } else {
            plain.push(char::REPLACEMENT_CHARACTER);
        }
    }
    plain
}

/// Characters that change how others are shown.
fn is_steering(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(parts: &[&[u8]]) -> Vec<String> {
        let mut found = Vec::new();
        let mut lines = Lines::new(Stream::Out);
        for part in parts {
            lines.push(part, &mut |output| found.push(output.line.to_owned()));
        }
        lines.finish(&mut |output| found.push(output.line.to_owned()));
        found
    }

    #[test]
    fn lines_are_whole_and_plain() {
        assert_eq!(lines(&[b"a\n\nb", b"c\n", b"rest"]), ["a", "", "bc", "rest"]);
        assert_eq!(lines(&[b"10%\r20%\r\r30%\n"]), ["10%", "20%", "30%"]);
        assert_eq!(lines(&[b"a\r", b"\n\r\nb\r\n\n"]), ["a", "b", ""]);
        assert_eq!(
            lines(&[b"\x1b[1;31mred\x1b[0m\tx\x07 \x1b]0;title\x07\n"]),
            ["red\tx\u{fffd} \u{fffd}]0;title\u{fffd}"]
        );
        assert_eq!(lines(&[b"\xff\xe2\x80\xae\n"]), ["\u{fffd}\u{fffd}"]);
        assert_eq!(lines(&[b"\x1b[", b"\n"]), [""]);
    }

    #[test]
    fn long_lines_are_cut_and_long_output_ends() {
        let found = lines(&[&vec![b'x'; LINE_BYTES_MAX * 2 + 1]]);
        assert_eq!(found.iter().map(String::len).collect::<Vec<_>>(), [LINE_BYTES_MAX, LINE_BYTES_MAX, 1]);
        let mut count = 0_u64;
        let mut last = String::new();
        let mut lines = Lines::new(Stream::Err);
        let block = vec![b'y'; 1 << 20];
        for _ in 0..65 {
            lines.push(&block, &mut |output| {
                count += 1;
                last = output.line.to_owned();
            });
        }
        assert_eq!(count, OUTPUT_BYTES_MAX / LINE_BYTES_MAX as u64 + 1);
        assert!(last.contains("not shown"), "{last}");
    }
}
