//! Bytes between two nodes: in pieces, late, cut when the connection breaks, and sometimes standing still.

use node::chance::Chance;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Carries bytes both ways until both have ended or the connection is `broken`. Nothing moves while `held`, and
/// nothing more comes from `other` after `stalls_after` bytes.
pub(crate) async fn join(
    one: DuplexStream,
    other: DuplexStream,
    broken: CancellationToken,
    held: impl Fn() -> bool + Clone,
    chance: Chance,
    stalls_after: Option<u64>,
) {
    let (one_in, one_out) = tokio::io::split(one);
    let (other_in, other_out) = tokio::io::split(other);
    let there = carry(one_in, other_out, held.clone(), chance.clone(), None);
    let back = carry(other_in, one_out, held, chance, stalls_after);
    let both = async { tokio::join!(there, back) };
    tokio::select! {
        biased;
        () = broken.cancelled() => {}
        _ = both => {}
    }
}

async fn carry(
    mut from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
    held: impl Fn() -> bool,
    chance: Chance,
    stalls_after: Option<u64>,
) {
    let mut piece = vec![0; 8 << 10];
    let mut carried = 0;
    while let Ok(len @ 1..) = from.read(&mut piece).await {
        carried += len as u64;
        if stalls_after.is_some_and(|most| carried > most) {
            std::future::pending::<()>().await;
        }
        sleep(Duration::from_millis(chance.below(5))).await;
        while held() {
            sleep(Duration::from_millis(250)).await;
        }
        if to.write_all(&piece[..len]).await.is_err() {
            return;
        }
    }
    // The other end may have gone first.
    let _gone = to.shutdown().await;
}
