//! Pulling one blob: pinned, looked for, transferred from where an earlier transfer stopped,
//! verified by the store's writer while it is written.

use super::{PullError, Transfer};
use crate::blocking::blocking;
use crate::bounds::{PIECES, PROGRESS_MIN};
use crate::error::RequestError;
use crate::progress::Meter;
use crate::retry::Attempts;
use crate::transport::{Answer, Pieces};
use aos_core::id::Digest;
use aos_package::repository::{BlobError, BlobWriter};
use bytes::Bytes;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, HeaderValue, RANGE};
use reqwest::{Method, StatusCode};
use std::io::Write;
use tokio::sync::mpsc;

/// Pulls a blob into the store, unless it is there.
pub(super) async fn pull(transfer: &Transfer<'_>, digest: Digest, size: u64) -> Result<(), PullError> {
    let mut meter = Meter::new(transfer.progress, digest, size);
    let lease = transfer.lease.clone();
    match blocking(move || lease.pin(digest)).await? {
        Some(found) if found == size => {
            meter.finish();
            return Ok(());
        }
        Some(found) => return Err(BlobError::Size { digest, expected: size, found }.into()),
        None => {}
    }
    let mut writer = open(transfer, digest, size).await?;
    let inherited = writer.offset() > 0;
    meter.reach(writer.offset());
    writer = fill(transfer, writer, (digest, size), &mut meter).await?;
    match commit(writer).await {
        // What an earlier transfer left was something else: once more, from the start.
        Err(BlobError::Altered { .. }) if inherited => {}
        result => return Ok(result?),
    }
    let writer = open(transfer, digest, size).await?;
    let writer = fill(transfer, writer, (digest, size), &mut meter).await?;
    Ok(commit(writer).await?)
}

async fn open(transfer: &Transfer<'_>, digest: Digest, size: u64) -> Result<BlobWriter, BlobError> {
    let lease = transfer.lease.clone();
    blocking(move || lease.writer(Some((digest, size)))).await
}

async fn commit(writer: BlobWriter) -> Result<(), BlobError> {
    // The media type is the manifest's to say.
    blocking(move || writer.commit("application/octet-stream").map(drop)).await
}

/// Brings a writer to its full size, over as many connections as it takes.
async fn fill(
    transfer: &Transfer<'_>,
    mut writer: BlobWriter,
    (digest, size): (Digest, u64),
    meter: &mut Meter<'_>,
) -> Result<BlobWriter, PullError> {
    let mut attempts = Attempts::new(transfer.session.transport().options.retries);
    while writer.offset() < size {
        let before = writer.offset();
        let result = match ask(transfer, digest, size, before).await {
            Ok((answer, skip)) => {
                let (written, result) =
                    pump(answer.into_stream(), writer, (digest, size), skip, meter).await?;
                writer = written;
                result
            }
            Err(error) => Err(error),
        };
        let Err(failure) = result else { continue };
        if writer.offset() - before >= PROGRESS_MIN {
            attempts.progressed();
        }
        transfer.session.again(&mut attempts, failure).await?;
    }
    Ok(writer)
}

/// Asks for the rest of a blob. Returns the answer, and how many of its bytes are there already.
async fn ask(
    transfer: &Transfer<'_>,
    digest: Digest,
    size: u64,
    offset: u64,
) -> Result<(Answer, u64), RequestError> {
    let what = format!("the blob {digest}");
    let mut call = transfer
        .session
        .call(Method::GET, &format!("blobs/{digest}"), what)
        .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if offset > 0 {
        let range = HeaderValue::from_str(&format!("bytes={offset}-"));
        call = call.header(RANGE, range.unwrap_or(HeaderValue::from_static("bytes=0-")));
    }
    let answer = transfer.session.attempt(&call).await?;
    let (skip, expected) = match answer.status() {
        // The server knows no ranges.
        StatusCode::OK => (offset, size),
        StatusCode::PARTIAL_CONTENT => {
            let start = answer.header(&CONTENT_RANGE).and_then(|text| range_start(text, size));
            match start {
                Some(start) if start == offset => (0, size - offset),
                _ => return Err(answer.wrong("it is not the range that was asked for".to_owned())),
            }
        }
        _ => return Err(answer.fail().await),
    };
    match answer.content_length() {
        Some(length) if length != expected => {
            Err(answer.wrong(format!("it says {length} bytes, the manifest says {expected}")))
        }
        _ => Ok((answer, skip)),
    }
}

/// The start of `bytes START-END/TOTAL`, whose total, if it is known, is the blob's.
fn range_start(text: &str, size: u64) -> Option<u64> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, end) = range.split_once('-')?;
    let total_fits = total == "*" || total.parse() == Ok(size);
    let end_fits = end.parse::<u64>().is_ok_and(|end| end < size);
    if total_fits && end_fits { start.parse().ok() } else { None }
}

/// Writes what comes, until it ends or fails. The writer comes back in either case.
async fn pump(
    mut pieces: Pieces,
    writer: BlobWriter,
    (digest, size): (Digest, u64),
    mut skip: u64,
    meter: &mut Meter<'_>,
) -> Result<(BlobWriter, Result<(), RequestError>), PullError> {
    let mut offset = writer.offset();
    let (sender, receiver) = mpsc::channel(PIECES);
    let writing = blocking(move || write(writer, receiver));
    let reading = async {
        loop {
            let Some(mut piece) = pieces.next().await? else { break };
            let known = skip.min(piece.len() as u64);
            skip -= known;
            drop(piece.split_to(usize::try_from(known).unwrap_or(usize::MAX)));
            if piece.len() as u64 > size - offset {
                return Err(pieces.too_large(size));
            }
            offset += piece.len() as u64;
            if sender.send(piece).await.is_err() {
                break;
            }
            meter.reach(offset);
        }
        drop(sender);
        if offset < size { Err(pieces.ended()) } else { Ok(()) }
    };
    let (read, written) = tokio::join!(reading, writing);
    let writer = written.map_err(|source| PullError::Write { digest, source })?;
    Ok((writer, read))
}

/// Writes pieces until there are no more.
fn write(mut writer: BlobWriter, mut pieces: mpsc::Receiver<Bytes>) -> std::io::Result<BlobWriter> {
    while let Some(piece) = pieces.blocking_recv() {
        writer.write_all(&piece)?;
    }
    Ok(writer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (text, expected) in [
            ("bytes 10-99/100", Some(10)),
            ("bytes 10-99/*", Some(10)),
            ("bytes 10-99/101", None),
            ("bytes 10-100/100", None),
            ("bytes -10-99/100", None),
            ("bytes 10-99", None),
            ("10-99/100", None),
            ("bytes */100", None),
        ] {
            assert_eq!(range_start(text, 100), expected, "{text}");
        }
    }
}
