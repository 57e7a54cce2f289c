//! How `aos-isolate` fails: the launcher's layers under this program's name.

pub(crate) use aos_sandbox::launch::error::{Context, LaunchError, Layer, fail};

/// Writes a line to standard error under this program's name.
pub(crate) fn print_line(text: &str) {
    aos_sandbox::launch::error::print_line("aos-isolate", text);
}
