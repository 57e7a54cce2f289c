//! What a running step has to say: lines of its output and notes of its proxy, as they come.

use std::sync::mpsc::Receiver;

use aos_sandbox::caller::{self, Watcher, own_line};

use super::Cancel;
use super::output::{Lines, Output, Stream};

/// Hands on what is heard.
pub(super) struct Hearing<'a> {
    out: Lines,
    err: Lines,
    notes: Receiver<String>,
    why: String,
    cancel: &'a Cancel,
    on_output: &'a mut dyn FnMut(Output<'_>),
}

impl<'a> Hearing<'a> {
    /// Of the step that ends with this switch, with the notes of its proxy.
    pub(super) fn new(
        cancel: &'a Cancel,
        notes: Receiver<String>,
        on_output: &'a mut dyn FnMut(Output<'_>),
    ) -> Self {
        let (out, err) = (Lines::new(Stream::Out), Lines::new(Stream::Err));
        Self { out, err, notes, why: String::new(), cancel, on_output }
    }

    /// Hands on what is left when the step has ended; the launcher's last line of its own.
    pub(super) fn finish(mut self) -> String {
        self.out.finish(self.on_output);
        self.err.finish(&mut noting(&mut self.why, self.on_output));
        self.tick();
        self.why
    }
}

impl Watcher for Hearing<'_> {
    fn take(&mut self, stream: caller::Stream, bytes: &[u8]) {
        match stream {
            caller::Stream::Out => self.out.push(bytes, self.on_output),
            caller::Stream::Err => self.err.push(bytes, &mut noting(&mut self.why, self.on_output)),
        }
    }

    /// Hands on what the proxy has to say.
    fn tick(&mut self) {
        for note in self.notes.try_iter() {
            (self.on_output)(Output { stream: Stream::Note, line: &note });
        }
    }

    fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }
}

/// Notes the launcher's own lines on their way.
fn noting<'a>(
    why: &'a mut String,
    on_output: &'a mut dyn FnMut(Output<'_>),
) -> impl FnMut(Output<'_>) + use<'a> {
    move |output| {
        if let Some(own) = own_line(output.line).filter(|_| output.stream == Stream::Err) {
            own.clone_into(why);
        }
        on_output(output);
    }
}
