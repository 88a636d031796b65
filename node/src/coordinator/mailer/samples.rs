//! An occasion for the tests: Lua, asked for by one person, built by one volunteer.
#![allow(clippy::unwrap_used)]

use super::letter::{Occasion, Sender};
use protocol::digest::Digest;
use protocol::farm::explain::Ended;
use protocol::id::{BuildKey, ManifestId, NoticeId, PeerKey, RequestId};
use protocol::report::Fingerprint;
use protocol::request::{OptionValue, Source};
use protocol::time::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

/// 2025-11-22 11:17:03 UTC.
pub(super) const ASKED_AT: Timestamp = Timestamp::from_millis(1_763_810_223_000);

pub(super) fn sender() -> Sender {
    Sender { farm: "pypy".parse().unwrap(), ticket: None }
}

pub(super) fn occasion(ended: Ended) -> Occasion {
    Occasion {
        notice: NoticeId(Digest::of(b"notice")),
        address: "me@example.org".parse().unwrap(),
        request: RequestId(Digest::of(b"request")),
        build_key: BuildKey(Digest::of(b"key")),
        recipe: "lua".parse().unwrap(),
        options: BTreeMap::from([("opt".parse().unwrap(), OptionValue::Integer(3))]),
        source: Some(Source::Tree(ManifestId(Digest::of(b"source")))),
        ended,
        submitted_at: ASKED_AT,
        started_at: Some(ASKED_AT + Duration::from_secs(2)),
        ended_at: ASKED_AT + Duration::from_secs(43),
        volunteer: Some(PeerKey::from_bytes([0x3b; 32])),
        fingerprint: Fingerprint(BTreeMap::from([
            ("distribution".to_owned(), "debian 12".to_owned()),
            ("glibc".to_owned(), "2.36".to_owned()),
            ("tool.cc".to_owned(), "12.2.0".to_owned()),
        ])),
        log: Some(Digest::of(b"log")),
        log_tail: "gcc -std=gnu99 -O3 -c lapi.c\ngcc -o lua lua.o liblua.a -lm -Wl,-E -ldl\nLua 5.4.7  Copyright (C) 1994-2024 Lua.org, PUC-Rio\n".to_owned(),
    }
}
