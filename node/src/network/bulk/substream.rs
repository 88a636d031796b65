//! A stream of `bulk/1` as the rooms above see it: tokio's traits, and the place it takes in its peer's share.

use libp2p::Stream;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _};

/// The stream; dropping it closes it and frees its place.
#[derive(Debug)]
pub(in crate::network) struct Substream {
    stream: Compat<Stream>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Substream {
    pub(super) fn counted(stream: Stream, place: OwnedSemaphorePermit) -> Self {
        Self { stream: stream.compat(), _place: Some(place) }
    }

    pub(super) fn uncounted(stream: Stream) -> Self {
        Self { stream: stream.compat(), _place: None }
    }
}

impl AsyncRead for Substream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Substream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
