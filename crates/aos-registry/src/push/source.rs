//! The bytes of a blob as the body of a request: read by a thread, a bounded queue ahead.

use crate::bounds::{PIECE, PIECES};
use crate::transport::Body;
use bytes::Bytes;
use futures_util::stream;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

/// A body of `length` bytes of a file from `offset` on, and a counter of what has gone. It can be
/// made again.
pub(super) fn body(file: &Arc<File>, offset: u64, length: u64) -> (Body, Arc<AtomicU64>) {
    let (file, gone) = (file.clone(), Arc::new(AtomicU64::new(0)));
    let counter = gone.clone();
    let make = move || {
        let (sender, receiver) = mpsc::channel(PIECES);
        let file = file.clone();
        // The thread ends with the body: nobody waits for it.
        drop(tokio::task::spawn_blocking(move || read(&file, offset, length, &sender)));
        let counter = counter.clone();
        let pieces = stream::unfold(receiver, move |mut receiver| {
            let counter = counter.clone();
            async move {
                let piece: io::Result<Bytes> = receiver.recv().await?;
                let bytes = piece.as_ref().map_or(0, |piece| piece.len() as u64);
                counter.fetch_add(bytes, Ordering::Relaxed);
                Some((piece, receiver))
            }
        });
        reqwest::Body::wrap_stream(pieces)
    };
    (Body::Stream(Arc::new(make), gone.clone()), gone)
}

/// Reads pieces until the end, or until nobody takes them any more.
fn read(file: &File, mut offset: u64, mut length: u64, sender: &mpsc::Sender<io::Result<Bytes>>) {
    while length > 0 {
        let mut piece = vec![0; usize::try_from(length).map_or(PIECE, |length| length.min(PIECE))];
        let read = file.read_exact_at(&mut piece, offset).map(|()| Bytes::from(piece));
        let failed = read.is_err();
        let count = read.as_ref().map_or(0, |piece| piece.len() as u64);
        if sender.blocking_send(read).is_err() || failed {
            return;
        }
        offset += count;
        length -= count;
    }
}
