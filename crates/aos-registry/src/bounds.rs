//! Every bound of the client, with its reason. A registry is somebody else's program: whatever it
//! makes this machine read, keep, wait for or repeat has a bound, and the error names it.

use std::time::Duration;

/// Redirects of one request; registries use one (to a blob store), browsers stop at 20.
pub const REDIRECTS_MAX: usize = 5;
/// Rounds of credentials for one request: one for the first challenge, one for a token that has
/// expired meanwhile. A registry that says 401 after that says it for ever.
pub const AUTHORIZATION_ROUNDS_MAX: u32 = 2;
/// Wait before the second attempt; each later wait is twice as long.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(250);
/// The longest wait that the client chooses itself.
pub const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// The longest wait that a registry may ask for by `Retry-After`: rate limits are per minute.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// Attempts of one request, or of one blob without [`PROGRESS_MIN`] between them.
pub const ATTEMPTS_MAX: u32 = 5;
/// Bytes of a blob after which the attempts are counted anew.
pub const PROGRESS_MIN: u64 = 1 << 20;
/// Bytes that one idle time-out must bring: below that a peer keeps a connection, not a transfer.
pub const PACE_MIN: u64 = 1 << 10;
/// Idle time-outs that the end of an upload may take: the registry hashes the blob then, and copies
/// it within its own store.
pub const FINISH_IDLES: u32 = 10;
/// Bytes of an error's body that are read.
pub const ERROR_BODY_MAX: u64 = 16 << 10;
/// Characters of a registry's own words in an error.
pub const SHOWN_MAX: usize = 256;
/// Bytes of a token response; tokens are some KiB.
pub const TOKEN_BODY_MAX: u64 = 64 << 10;
/// Bytes of a token or password: a header line of 8 KiB is what servers take, some take 32 KiB.
pub const SECRET_MAX: usize = 32 << 10;
/// Bytes of one page of tags or referrers.
pub const PAGE_BODY_MAX: u64 = 4 << 20;
/// Pages of one listing.
pub const PAGES_MAX: usize = 64;
/// Tags of one listing.
pub const TAGS_MAX: usize = 100_000;
/// Referrers of one package that are looked at.
pub const REFERRERS_MAX: usize = 256;
/// Bytes of one layer of somebody else's image, packed.
pub const LAYER_MAX: u64 = 16 << 30;
/// Bytes of one URL that a registry sends (a location, a realm); signed URLs have 2 KiB.
pub const URL_MAX: usize = 8 << 10;
/// Bytes of a file of credentials or certificates.
pub const FILE_MAX: u64 = 1 << 20;
/// Certificate files of one host.
pub const CERTIFICATE_FILES_MAX: usize = 64;
/// Hosts whose connections are kept: a registry, its token service and its blob store, with room.
pub const HOSTS_MAX: usize = 16;
/// Blobs up to this size are uploaded by one request: losing it costs little, and a second
/// request costs a round trip.
pub const MONOLITHIC_MAX: u64 = 4 << 20;
/// Chunk of an upload after a registry or a proxy said that a body is too large (413): below the
/// 1 MiB that nginx takes by default nothing works, 16 MiB is what small proxies are set to.
pub const CHUNK: u64 = 16 << 20;
/// Bytes that are read from a file, or handed to the writer, at once.
pub const PIECE: usize = 256 << 10;
/// Pieces between network and disk for one blob; 4 parallel blobs hold 8 MiB.
pub const PIECES: usize = 8;
/// Other repositories of the registry that are asked for one blob before it is uploaded.
pub const MOUNTS_MAX: usize = 2;
/// Other repositories that a push asks a token for.
pub const MOUNT_SCOPES_MAX: usize = 4;
/// Attempts to bring our entries into a fallback index while others write it.
pub const FALLBACK_ATTEMPTS_MAX: u32 = 8;
