//! Peers that keep to the frames and mean no good.

use super::*;

/// Writes the head of an answer.
async fn head(stream: &mut BulkStream, at: u16, reply: Reply) -> io::Result<()> {
    stream.write_all(&Head { at, reply }.encode()).await
}

#[tokio::test(start_paused = true)]
async fn who_is_busy_is_asked_for_a_blob_again() {
    let (store, manifest) = holder(&[("a", 5)]).await;
    let (honest, asked) = (serving(store), Arc::new(AtomicUsize::new(0)));
    let busy = raw(|mut stream, _| async move { head(&mut stream, 0, Reply::Busy).await });
    let network = network(vec![(
        1,
        Arc::new(move |stream| if asked.fetch_add(1, Ordering::Relaxed) < 3 { busy(stream) } else { honest(stream) }),
    )]);
    let begun = Instant::now();
    let fetched = fetch_manifest(&network, manifest.id(), &mut Providers::from(vec![peer(1)])).await.unwrap();
    assert_eq!((fetched, begun.elapsed().as_millis()), (manifest, 500 + 1_000 + 2_000));
}

#[tokio::test(start_paused = true)]
async fn who_announces_much_and_gives_little_is_left() {
    let (_, manifest) = holder(&[("a", MIB)]).await;
    let trickling = raw(|mut stream, _| async move {
        head(&mut stream, 0, Reply::Bytes(1 << 20)).await?;
        loop {
            stream.write_all(b"x").await?;
            tokio::time::sleep(STALL - Duration::from_secs(1)).await;
        }
    });
    let network = network(vec![(1, trickling)]);
    let begun = Instant::now();
    let failed = faults(fetch(&network, &manifest, &[1], Sink::Store(Store::in_memory())).await);
    assert_eq!(failed, [(peer(1), Fault::Stalled)]);
    assert!(begun.elapsed() < 4 * STALL, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_answers_what_it_has_not_read_holds_nobody_up() {
    let files: Vec<(String, u64)> = (0..10_000).map(|nr| (format!("{nr}"), 32)).collect();
    let files: Vec<(&str, u64)> = files.iter().map(|(path, size)| (path.as_str(), *size)).collect();
    let (_, manifest) = holder(&files).await;
    // It knows from the manifest how many are asked for in each request.
    let deaf = raw(|mut stream, ask| async move {
        loop {
            for at in 0..u16::try_from(ask.digests().len()).unwrap() {
                head(&mut stream, at, Reply::Absent).await?;
            }
        }
    });
    let network = network(vec![(1, deaf)]);
    let fetching = fetch(&network, &manifest, &[1], Sink::Store(Store::in_memory()));
    let fetched = tokio::time::timeout(10 * STALL, fetching).await.expect("the fetch ends");
    assert_eq!(faults(fetched), [(peer(1), Fault::Broken("it takes no more requests".to_owned()))]);
}

#[tokio::test]
async fn a_lie_is_told_although_the_liar_hangs_up() {
    let (_, manifest) = holder(&[("a", 8 * MIB)]).await;
    let lying = raw(|mut stream, _| async move {
        head(&mut stream, 0, Reply::Bytes(1 << 20)).await?;
        stream.write_all(&[7; 1 << 20]).await
    });
    let network = network(vec![(1, lying)]);
    let folder = tempfile::tempdir().unwrap();
    // Files are verified and written on other threads, while the end of the stream is seen at once.
    let sink = Sink::Folder(folder.path().join("out"));
    let digest = *manifest.files().next().unwrap().3.first().unwrap();
    assert_eq!(faults(fetch(&network, &manifest, &[1], sink).await), [(peer(1), Fault::Lied(digest))]);
}

#[tokio::test(start_paused = true)]
async fn who_takes_nothing_keeps_no_place_from_others() {
    let (store, blob) = (Store::in_memory(), vec![7; 1 << 20]);
    let digest = Digest::of(&blob);
    store.put(vec![blob.into()]).await.unwrap();
    let (bulk, incoming) = mpsc::channel(64);
    let _server = tokio::spawn(serve(incoming, Arc::new(store), anybody()));
    let open = async |peer| {
        let (mut ours, theirs) = tokio::io::duplex(1 << 10);
        bulk.send(IncomingBulk { caller: Caller { peer }, stream: Box::new(theirs) }).await.unwrap();
        ours.write_all(&Ask::Blob(digest).encode()).await.unwrap();
        ours
    };
    let reply = async |stream: &mut tokio::io::DuplexStream| {
        let mut head = [0; frame::HEAD_BYTES];
        stream.read_exact(&mut head).await.map(|_| Head::decode(head).unwrap().reply)
    };
    let begun = Instant::now();
    let mut idle = Vec::new();
    for _ in 0..MAX_STREAMS_OF_PEER {
        idle.push(open(peer(1)).await);
    }
    assert_eq!(reply(&mut idle[0]).await.unwrap(), Reply::Bytes(1 << 20));
    assert_eq!(reply(&mut open(peer(2)).await).await.unwrap(), Reply::Bytes(1 << 20));
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    for stream in &mut idle[1..] {
        assert_eq!(reply(stream).await.unwrap(), Reply::Busy, "a peer has one place");
    }
    // The stream that nobody reads is closed, with what had gone into the pipe.
    let mut taken = Vec::new();
    tokio::time::sleep(Duration::from_secs(40)).await;
    idle[0].read_to_end(&mut taken).await.unwrap();
    assert!(taken.len() <= 1 << 10, "{} bytes", taken.len());
}
