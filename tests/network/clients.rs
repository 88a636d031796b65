//! Many clients submit at once, each over a connection of its own: nobody is answered before a sync, and a sync serves many.

use crate::load::{self, Client, Load};
use std::sync::Arc;

const CLIENTS: u8 = 32;
const WARM_UP: u64 = 320;
const SUBMISSIONS: u64 = 2_560;
/// What a sync must serve at least, on average.
const TO_A_SYNC: u64 = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_submissions_share_a_sync_and_none_is_answered_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let node = Arc::new(load::coordinator(folder.path()).await);
    let counted = node.clone();
    let syncs = move || counted.sync_rounds();
    // All at once: whoever coordinates takes in all of them.
    let clients = Client::connect_all(&node.ticket(), CLIENTS).await;
    let (clients, _) = Load::run(clients, 0..WARM_UP, syncs.clone()).await;
    let before = syncs();
    let (clients, load) = Load::run(clients, WARM_UP..WARM_UP + SUBMISSIONS, syncs.clone()).await;
    let waits = syncs() - before;
    assert_eq!(load.unsynced, 0, "submissions during which no sync ended");
    assert!(waits * TO_A_SYNC <= SUBMISSIONS, "{SUBMISSIONS} submissions cost {waits} syncs");
    assert_eq!(clients[0].queued().await, WARM_UP + SUBMISSIONS);
    for client in clients {
        client.leave().await;
    }
    drop(syncs);
    Arc::into_inner(node).unwrap().end().await;
}
