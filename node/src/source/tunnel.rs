//! The only way out for a program that fetches: a proxy on loopback that leads to one server, whose addresses were admitted.
//!
//! The program is told to use it for everything (RFC 9110, 9.3.6: CONNECT), so it looks no name up and reaches no other
//! machine, whatever a server tells it: not by a redirect, not by naming an alternate. What comes through is counted, bounded
//! and may not stall. TLS goes end to end; nothing is read here.

use super::FetchRules;
use super::hop::Hop;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

/// The longest request for a connection, in bytes.
const MAX_HEAD_BYTES: usize = 4 << 10;
/// Connections at a time: git opens one or two.
const MAX_CONNECTIONS: usize = 8;
/// Bytes moved at a time.
const BUFFER_BYTES: usize = 64 << 10;

/// A proxy that lives as long as this does.
#[derive(Debug)]
pub(super) struct Tunnel {
    address: SocketAddr,
    passed: Arc<Passed>,
    serving: JoinHandle<()>,
}

/// What came through.
#[derive(Debug, Default)]
struct Passed {
    received: AtomicU64,
    over: AtomicBool,
    stalled: AtomicBool,
}

/// Where the tunnel leads, and what may come through.
#[derive(Clone, Debug)]
struct End {
    /// As CONNECT names it.
    authority: String,
    addresses: Vec<SocketAddr>,
    max_bytes: u64,
    connect_timeout: Duration,
    stall_timeout: Duration,
}

impl Tunnel {
    /// A tunnel to the server that was admitted.
    pub(super) async fn to(hop: &Hop, rules: &FetchRules) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let end = End {
            authority: format!("{}:{}", hop.host, hop.port),
            addresses: hop.addresses.clone(),
            max_bytes: rules.max_bytes,
            connect_timeout: rules.connect_timeout,
            stall_timeout: rules.stall_timeout,
        };
        let passed = Arc::new(Passed::default());
        let serving = tokio::spawn(serve(listener, end, passed.clone()));
        Ok(Self { address, passed, serving })
    }

    /// The proxy's address, as programs want it.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Bytes that came from the server so far.
    pub(super) fn received(&self) -> u64 {
        self.passed.received.load(Ordering::Relaxed)
    }

    /// Whether a connection was cut because more came than may.
    pub(super) fn is_over(&self) -> bool {
        self.passed.over.load(Ordering::Relaxed)
    }

    /// Whether a connection was cut because nothing came for too long.
    pub(super) fn has_stalled(&self) -> bool {
        self.passed.stalled.load(Ordering::Relaxed)
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, end: End, passed: Arc<Passed>) {
    let mut connections = JoinSet::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a connection to the tunnel was not taken");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        if connections.len() < MAX_CONNECTIONS {
            let (end, passed) = (end.clone(), passed.clone());
            connections.spawn(async move {
                if let Err(error) = carry(stream, &end, &passed).await {
                    tracing::debug!(%error, to = end.authority, "a connection through the tunnel ended");
                }
            });
        }
    }
}

/// Opens a connection as it is asked for, and carries it.
async fn carry(mut near: TcpStream, end: &End, passed: &Passed) -> io::Result<()> {
    let head = timeout(end.connect_timeout, head_of(&mut near)).await??;
    let mut words = head.split(' ');
    if (words.next(), words.next()) != (Some("CONNECT"), Some(&end.authority)) {
        return near.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await;
    }
    let Ok(Ok(far)) = timeout(end.connect_timeout, TcpStream::connect(end.addresses.as_slice())).await else {
        return near.write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n").await;
    };
    near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    pass(near, far, end, passed).await
}

/// The first line of a request, read to the empty line that ends it.
async fn head_of(near: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == MAX_HEAD_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        head.push(near.read_u8().await?);
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    String::from_utf8(line.to_vec()).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Carries both directions until one ends, nothing moves for too long, or too much has come.
async fn pass(mut near: TcpStream, mut far: TcpStream, end: &End, passed: &Passed) -> io::Result<()> {
    let (mut outgoing, mut incoming) = (vec![0; BUFFER_BYTES], vec![0; BUFFER_BYTES]);
    let (mut from_near, mut to_near) = near.split();
    let (mut from_far, mut to_far) = far.split();
    loop {
        tokio::select! {
            sent = from_near.read(&mut outgoing) => match sent? {
                0 => return Ok(()),
                len => timeout(end.stall_timeout, to_far.write_all(&outgoing[..len])).await??,
            },
            came = from_far.read(&mut incoming) => match came? {
                0 => return Ok(()),
                len => {
                    let before = passed.received.fetch_add(len as u64, Ordering::Relaxed);
                    if before + len as u64 > end.max_bytes {
                        passed.over.store(true, Ordering::Relaxed);
                        return Ok(());
                    }
                    to_near.write_all(&incoming[..len]).await?;
                }
            },
            () = tokio::time::sleep(end.stall_timeout) => {
                passed.stalled.store(true, Ordering::Relaxed);
                return Ok(());
            }
        }
    }
}
