//! TLS as libp2p has it, with the cipher first that this machine is fastest at.
//!
//! The library offers ChaCha20 first, whatever the processor. Where there are instructions for AES, AES-GCM costs a fraction of
//! it, and encryption is much of what a transfer costs. Certificates stay the library's: it makes, parses and verifies them.
//!
//! It promises that the peer named at the end holds the key that this name is of, which signed the certificate the handshake
//! was signed with. Only TLS 1.3 is spoken.

use super::config::StartError;
use futures::future::{BoxFuture, FutureExt as _};
use futures::io::{AsyncRead, AsyncWrite};
use futures_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use libp2p::PeerId;
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use libp2p::identity::Keypair;
use libp2p::tls::certificate;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::cipher_suite::{
    TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, IpAddr, Ipv4Addr, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme, SupportedCipherSuite,
    version,
};
use std::io;
use std::sync::Arc;

/// What libp2p calls it when two peers agree on a protocol, and what TLS calls that which runs inside.
const PROTOCOL: &str = "/tls/1.0.0";
const INSIDE: &[u8] = b"libp2p";

/// Both ends of TLS for one identity.
#[derive(Clone)]
pub(super) struct Config {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl Config {
    pub(super) fn new(pair: &Keypair) -> Result<Self, StartError> {
        let setup = |error: &dyn std::error::Error| StartError::Setup(error.to_string());
        let (certificate, key) = certificate::generate(pair).map_err(|error| setup(&error))?;
        let key = aws_lc_rs::sign::any_ecdsa_type(&key).map_err(|error| setup(&error))?;
        let ours = Arc::new(SingleCertAndKey::from(CertifiedKey::new(vec![certificate], key)));
        let provider = Arc::new(CryptoProvider { cipher_suites: ciphers(), ..aws_lc_rs::default_provider() });
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|error| setup(&error))?
            .with_client_cert_verifier(Arc::new(OfPeers))
            .with_cert_resolver(ours.clone());
        server.alpn_protocols = vec![INSIDE.to_vec()];
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|error| setup(&error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(OfPeers))
            .with_client_cert_resolver(ours);
        client.alpn_protocols = vec![INSIDE.to_vec()];
        Ok(Self { acceptor: Arc::new(server).into(), connector: Arc::new(client).into() })
    }
}

/// What is offered, fastest first; whoever dials decides.
fn ciphers() -> Vec<SupportedCipherSuite> {
    let mut ciphers = vec![TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256];
    if !has_aes() {
        ciphers.reverse();
    }
    ciphers
}

/// Whether the processor has instructions for AES.
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

impl UpgradeInfo for Config {
    type Info = &'static str;
    type InfoIter = std::iter::Once<Self::Info>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once(PROTOCOL)
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> InboundConnectionUpgrade<C> for Config {
    type Output = (PeerId, TlsStream<C>);
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Output>>;

    fn upgrade_inbound(self, socket: C, _: Self::Info) -> Self::Future {
        async move { named(self.acceptor.accept(socket).await?.into()) }.boxed()
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<C> for Config {
    type Output = (PeerId, TlsStream<C>);
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Output>>;

    fn upgrade_outbound(self, socket: C, _: Self::Info) -> Self::Future {
        // An address instead of a name keeps the name of the server out of the handshake, as libp2p wants it.
        let nobody = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0; 4])));
        async move { named(self.connector.connect(nobody, socket).await?.into()) }.boxed()
    }
}

/// The stream, and the peer whose certificate it was secured with.
fn named<C>(stream: TlsStream<C>) -> io::Result<(PeerId, TlsStream<C>)> {
    let peer = match stream.get_ref().1.peer_certificates() {
        Some([only]) => certificate::parse(only).map_err(io::Error::other)?.peer_id(),
        _ => return Err(io::Error::other("not exactly one certificate")),
    };
    Ok((peer, stream))
}

/// Takes the certificates of peers: exactly one, made by the peer itself, signed with its key.
#[derive(Debug)]
struct OfPeers;

impl OfPeers {
    fn check(certificate: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        if others.is_empty() {
            certificate::parse(certificate)?;
            Ok(())
        } else {
            Err(rustls::Error::General("a peer has exactly one certificate".to_owned()))
        }
    }

    fn check_signature(
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        certificate::parse(certificate)?.verify_signature(signed.scheme, message, signed.signature())?;
        Ok(HandshakeSignatureValid::assertion())
    }

    /// Nobody gets here: nothing but TLS 1.3 is configured.
    fn too_old() -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3 is spoken".to_owned()))
    }

    fn schemes() -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ECDSA_NISTP384_SHA384, SignatureScheme::ED25519]
    }
}

impl ServerCertVerifier for OfPeers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Self::check(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::too_old()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::check_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Self::schemes()
    }
}

impl ClientCertVerifier for OfPeers {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Self::check(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::too_old()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::check_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Self::schemes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use libp2p::tls;
    use tokio_util::compat::TokioAsyncReadCompatExt as _;

    /// Both ends of a handshake over a pipe, the one that dials first.
    async fn meet<D, L>(dialler: D, listener: L) -> (io::Result<PeerId>, io::Result<PeerId>)
    where
        D: OutboundConnectionUpgrade<Pipe, Output = (PeerId, TlsStream<Pipe>), Error: std::error::Error + Send + Sync>,
        L: InboundConnectionUpgrade<Pipe, Output = (PeerId, TlsStream<Pipe>), Error: std::error::Error + Send + Sync>,
        D: UpgradeInfo<Info = &'static str>,
        L: UpgradeInfo<Info = &'static str>,
    {
        let (one, other) = tokio::io::duplex(64 << 10);
        let dialling = async {
            let (peer, mut stream) = dialler.upgrade_outbound(one.compat(), PROTOCOL).await.map_err(text)?;
            stream.write_all(b"hello").await?;
            stream.close().await?;
            // Who listens may still have something to say.
            stream.read_to_end(&mut Vec::new()).await?;
            Ok(peer)
        };
        let listening = async {
            let (peer, mut stream) = listener.upgrade_inbound(other.compat(), PROTOCOL).await.map_err(text)?;
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).await?;
            assert_eq!(heard, b"hello");
            stream.close().await?;
            Ok(peer)
        };
        tokio::join!(dialling, listening)
    }

    type Pipe = tokio_util::compat::Compat<tokio::io::DuplexStream>;

    fn text(error: impl std::error::Error) -> io::Error {
        io::Error::other(error.to_string())
    }

    fn pair() -> (Keypair, PeerId) {
        let pair = Keypair::generate_ed25519();
        let peer = pair.public().to_peer_id();
        (pair, peer)
    }

    #[tokio::test]
    async fn peers_name_each_other_and_so_do_those_of_the_library() {
        let ((one, one_id), (two, two_id)) = (pair(), pair());
        let ours = |pair: &Keypair| Config::new(pair).unwrap();
        let theirs = |pair: &Keypair| tls::Config::new(pair).unwrap();
        let named = |met: (io::Result<PeerId>, io::Result<PeerId>)| (met.0.unwrap(), met.1.unwrap());
        assert_eq!(named(meet(ours(&one), ours(&two)).await), (two_id, one_id));
        assert_eq!(named(meet(ours(&one), theirs(&two)).await), (two_id, one_id));
        assert_eq!(named(meet(theirs(&one), ours(&two)).await), (two_id, one_id));
    }

    #[tokio::test]
    async fn a_certificate_is_worth_nothing_without_its_key() {
        let ((one, _), (two, _)) = (pair(), pair());
        // The certificate of one, and a key that has nothing to do with it.
        let (stolen, _) = certificate::generate(&one).unwrap();
        let (_, key) = certificate::generate(&one).unwrap();
        let key = aws_lc_rs::sign::any_ecdsa_type(&key).unwrap();
        let thief = Arc::new(SingleCertAndKey::from(CertifiedKey::new(vec![stolen], key)));
        let mut client = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_protocol_versions(&[&version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(OfPeers))
            .with_client_cert_resolver(thief);
        client.alpn_protocols = vec![INSIDE.to_vec()];
        let thief = Config { connector: Arc::new(client).into(), ..Config::new(&one).unwrap() };
        let (_, listened) = meet(thief, Config::new(&two).unwrap()).await;
        assert!(listened.is_err(), "{listened:?}");
    }

    #[test]
    fn the_order_is_that_of_speed() {
        let first = ciphers()[0];
        assert_eq!(first == TLS13_AES_128_GCM_SHA256, has_aes(), "{first:?}");
    }
}
