//! TCP (TLS first, Noise second, yamux) and QUIC, with names resolved; for tests, pipes within this process instead of TCP.
//!
//! TLS comes first because AES in hardware beats ChaCha20 for bulk; a peer without it falls back to Noise.

use super::config::{StartError, Transports};
use super::{memory, tls};
use futures::future::{BoxFuture, Either};
use futures::io::{BufReader, BufWriter};
use futures::prelude::*;
use futures_rustls::TlsStream;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::timeout::TransportTimeout;
use libp2p::core::transport::{Boxed, OptionalTransport};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, SelectUpgrade, UpgradeInfo, Version};
use libp2p::identity::Keypair;
use libp2p::{PeerId, Transport as _, dns, noise, quic, tcp, yamux};
use std::io;
use std::time::Duration;

/// Streams that may be open on one connection: those of bulk, and room for calls, gossip and the DHT.
const STREAMS: u32 = 1_024;
/// What is read from a socket at once: TLS by itself asks for 4 KiB at a time.
const READ_BYTES: usize = 32 << 10;
/// What is gathered before it is encrypted: four frames of the multiplexer, each a head of 12 bytes and a body of at most 16 KiB.
/// A buffer that ended within a frame would make of each a full record of TLS and a tiny one.
const WRITE_BYTES: usize = 4 * (12 + (16 << 10));
/// How long a connection may take to be set up and secured.
const SETUP_TIMEOUT: Duration = Duration::from_secs(5);

type Connections = Boxed<(PeerId, StreamMuxerBox)>;

/// The transport of a node with this key.
pub(super) fn build(pair: &Keypair, which: Transports) -> Result<Connections, StartError> {
    match dns::tokio::Transport::system(numeric(pair, which)?) {
        Ok(named) => Ok(named.boxed()),
        Err(error) => {
            tracing::warn!(%error, "no resolver settings: addresses with names cannot be dialled");
            numeric(pair, which)
        }
    }
}

fn numeric(pair: &Keypair, which: Transports) -> Result<Connections, StartError> {
    let (tcp, quic) = match which {
        Transports::Both => (Some(tcp(pair)?), Some(quic(pair))),
        Transports::Tcp => (Some(tcp(pair)?), None),
        Transports::Quic => (None, Some(quic(pair))),
        Transports::Memory => (Some(secured(memory::pipes(), pair)?), None),
    };
    let both = optional(quic).or_transport(optional(tcp)).map(|either, _| match either {
        Either::Left(connection) | Either::Right(connection) => connection,
    });
    Ok(TransportTimeout::new(both, SETUP_TIMEOUT).boxed())
}

fn optional<T>(transport: Option<T>) -> OptionalTransport<T> {
    transport.map_or_else(OptionalTransport::none, OptionalTransport::some)
}

fn tcp(pair: &Keypair) -> Result<Connections, StartError> {
    secured(tcp::tokio::Transport::new(tcp::Config::default()), pair)
}

/// Connections over pipes of bytes: secured, then shared by many streams.
fn secured<T>(pipes: T, pair: &Keypair) -> Result<Connections, StartError>
where
    T: libp2p::Transport<Error: Send + Sync, Dial: Send, ListenerUpgrade: Send> + Send + Unpin + 'static,
    T::Output: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut muxer = yamux::Config::default();
    muxer.set_max_num_streams(STREAMS as usize);
    let transport = pipes
        .map(|pipe, _| BufReader::with_capacity(READ_BYTES, pipe))
        .upgrade(Version::V1Lazy)
        .authenticate(TlsThenNoise::new(pair)?)
        .multiplex(muxer)
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
        .boxed();
    Ok(transport)
}

fn quic(pair: &Keypair) -> Connections {
    let mut config = quic::Config::new(pair);
    config.max_concurrent_stream_limit = STREAMS;
    quic::tokio::Transport::new(config).map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection))).boxed()
}

/// Offers both ways to secure a connection and takes the first that both sides know.
#[derive(Clone)]
struct TlsThenNoise(SelectUpgrade<tls::Config, noise::Config>);

type Secured<C> = (PeerId, BufWriter<Either<TlsStream<C>, noise::Output<C>>>);

impl TlsThenNoise {
    fn new(pair: &Keypair) -> Result<Self, StartError> {
        let tls = tls::Config::new(pair)?;
        let noise = noise::Config::new(pair).map_err(|error| StartError::Setup(error.to_string()))?;
        Ok(Self(SelectUpgrade::new(tls, noise)))
    }
}

impl UpgradeInfo for TlsThenNoise {
    type Info = <SelectUpgrade<tls::Config, noise::Config> as UpgradeInfo>::Info;
    type InfoIter = <SelectUpgrade<tls::Config, noise::Config> as UpgradeInfo>::InfoIter;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.protocol_info()
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> InboundConnectionUpgrade<C> for TlsThenNoise {
    type Output = Secured<C>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Secured<C>>>;

    fn upgrade_inbound(self, socket: C, info: Self::Info) -> Self::Future {
        self.0.upgrade_inbound(socket, info).map_ok(either_way).map_err(io::Error::other).boxed()
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<C> for TlsThenNoise {
    type Output = Secured<C>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Secured<C>>>;

    fn upgrade_outbound(self, socket: C, info: Self::Info) -> Self::Future {
        self.0.upgrade_outbound(socket, info).map_ok(either_way).map_err(io::Error::other).boxed()
    }
}

fn either_way<C: AsyncRead + AsyncWrite + Unpin>(
    either: Either<(PeerId, TlsStream<C>), (PeerId, noise::Output<C>)>,
) -> Secured<C> {
    let (peer, stream) = match either {
        Either::Left((peer, stream)) => (peer, Either::Left(stream)),
        Either::Right((peer, stream)) => (peer, Either::Right(stream)),
    };
    (peer, BufWriter::with_capacity(WRITE_BYTES, stream))
}
