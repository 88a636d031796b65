//! How calls and answers lie on a stream: four bytes of length, big-endian, then canonical CBOR.
//!
//! The length is looked at before anything is read or allocated; what exceeds [`MAX_CONTROL_BYTES`] is refused there. All of
//! this runs in the connection's own future, never in the driver.

use futures::prelude::*;
use libp2p::StreamProtocol;
use libp2p::request_response::Codec;
use protocol::codec;
use protocol::wire::MAX_CONTROL_BYTES;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::marker::PhantomData;

/// Frames of one protocol: `Q` is asked, `A` is answered.
pub(super) struct Frames<Q, A>(PhantomData<fn() -> (Q, A)>);

impl<Q, A> Clone for Frames<Q, A> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

impl<Q, A> Default for Frames<Q, A> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

/// A word that fits a frame.
pub(super) trait Word: Serialize + DeserializeOwned + Send + 'static {}

impl<T: Serialize + DeserializeOwned + Send + 'static> Word for T {}

impl<Q: Word, A: Word> Codec for Frames<Q, A> {
    type Protocol = StreamProtocol;
    type Request = Q;
    type Response = A;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Q>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(io).await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<A>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(io).await
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, request: Q) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let bytes = codec::encode(&request);
        drop(request);
        write(io, bytes).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, response: A) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let bytes = codec::encode(&response);
        drop(response);
        write(io, bytes).await
    }
}

async fn read<T: AsyncRead + Unpin + Send, W: Word>(io: &mut T) -> io::Result<W> {
    let mut length = [0; 4];
    io.read_exact(&mut length).await?;
    let len = u32::from_be_bytes(length) as usize;
    refuse_long(len)?;
    let mut bytes = vec![0; len];
    io.read_exact(&mut bytes).await?;
    codec::decode(&bytes, MAX_CONTROL_BYTES).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

async fn write<T: AsyncWrite + Unpin + Send>(io: &mut T, bytes: Vec<u8>) -> io::Result<()> {
    refuse_long(bytes.len())?;
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    let mut frame = Vec::with_capacity(4 + bytes.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&bytes);
    io.write_all(&frame).await
}

fn refuse_long(len: usize) -> io::Result<()> {
    if len <= MAX_CONTROL_BYTES {
        return Ok(());
    }
    let reason = format!("a message of {len} bytes where at most {MAX_CONTROL_BYTES} are allowed");
    Err(io::Error::new(io::ErrorKind::InvalidData, reason))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures::executor::block_on;
    use futures::io::Cursor;

    const NAME: StreamProtocol = StreamProtocol::new("/test/1");

    fn frames() -> Frames<String, u64> {
        Frames::default()
    }

    #[test]
    fn what_is_written_is_read() {
        block_on(async {
            let mut bytes = Cursor::new(Vec::new());
            frames().write_request(&NAME, &mut bytes, "hello".to_owned()).await.unwrap();
            assert_eq!(bytes.get_ref()[..], [0, 0, 0, 6, 0x65, b'h', b'e', b'l', b'l', b'o']);
            bytes.set_position(0);
            assert_eq!(frames().read_request(&NAME, &mut bytes).await.unwrap(), "hello");
        });
    }

    #[test]
    fn a_long_frame_is_refused_by_its_length_alone() {
        block_on(async {
            let length = u32::try_from(MAX_CONTROL_BYTES + 1).unwrap().to_be_bytes();
            let error = frames().read_request(&NAME, &mut Cursor::new(length)).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "refused before the missing bytes are asked for");

            let long = "x".repeat(MAX_CONTROL_BYTES);
            let mut bytes = Cursor::new(Vec::new());
            let error = frames().write_request(&NAME, &mut bytes, long).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert!(bytes.get_ref().is_empty());
        });
    }

    #[test]
    fn only_the_canonical_form_is_read() {
        block_on(async {
            let mut bytes = Cursor::new([0, 0, 0, 2, 0x18, 0x01]);
            let error = frames().read_response(&NAME, &mut bytes).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        });
    }
}
