//! Pipes within this process: many nodes in one test or bench, over everything that stands on a transport.
//!
//! They are secured and multiplexed as TCP is, and count what goes through them. No flag of the program leads here.

use futures::io::{AsyncRead, AsyncWrite};
use libp2p::Transport;
use libp2p::core::transport::MemoryTransport;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

static CARRIED: AtomicU64 = AtomicU64::new(0);

/// Bytes that all pipes of this process have carried, encryption and multiplexing included.
#[must_use]
pub fn carried_bytes() -> u64 {
    CARRIED.load(Ordering::Relaxed)
}

/// The pipes, as a transport.
pub(super) fn pipes()
-> impl Transport<Output: AsyncRead + AsyncWrite + Send + Unpin, Error: Send + Sync, Dial: Send, ListenerUpgrade: Send>
+ Send
+ Unpin {
    MemoryTransport::new().map(|pipe, _| Counted(pipe))
}

/// A pipe that counts what is written to it.
struct Counted<P>(P);

impl<P: AsyncRead + Unpin> AsyncRead for Counted<P> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<P: AsyncWrite + Unpin> AsyncWrite for Counted<P> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.0).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = &written {
            CARRIED.fetch_add(*count as u64, Ordering::Relaxed);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}
