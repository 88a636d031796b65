//! What this node holds of the DHT: who provides which build, and nothing else.
//!
//! The farm stores no values in its DHT, so this store takes none. Provider records are bounded in number, per key and per
//! provider, and leave when they expire; the library's own store keeps expired ones until somebody asks for them.

use libp2p::PeerId;
use libp2p::kad::store::{Error, RecordStore, Result};
use libp2p::kad::{ProviderRecord, Record, RecordKey};
use protocol::ticket::MAX_ADDRESSES;
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::iter;
use std::time::Instant;

/// Keys are digests.
const KEY_BYTES: usize = 32;
/// Providers remembered of one build; first come, first served, so that a flood of names displaces nobody.
const MAX_PROVIDERS_PER_KEY: usize = 64;

/// How many records others may place here.
#[derive(Clone, Copy, Debug)]
pub(in crate::network) struct StoreLimits {
    /// In all.
    pub(in crate::network) records: usize,
    /// By one provider.
    pub(in crate::network) per_provider: usize,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self { records: 200_000, per_provider: 8_192 }
    }
}

type Key = [u8; KEY_BYTES];

/// The store.
#[derive(Debug)]
pub(in crate::network) struct ProviderStore {
    local: PeerId,
    limits: StoreLimits,
    records: HashMap<Key, Vec<ProviderRecord>>,
    /// Records of others by the time they expire.
    expiring: BTreeSet<(Instant, Key, PeerId)>,
    per_provider: HashMap<PeerId, usize>,
}

impl ProviderStore {
    pub(in crate::network) fn new(local: PeerId, limits: StoreLimits) -> Self {
        Self { local, limits, records: HashMap::new(), expiring: BTreeSet::new(), per_provider: HashMap::new() }
    }

    /// Forgets what has expired.
    pub(in crate::network) fn expire(&mut self, now: Instant) {
        while let Some((at, key, provider)) = self.expiring.first().copied() {
            if at > now {
                break;
            }
            self.strike(&key, &provider);
        }
    }

    fn strike(&mut self, key: &Key, provider: &PeerId) {
        let Some(records) = self.records.get_mut(key) else { return };
        let Some(at) = records.iter().position(|record| record.provider == *provider) else { return };
        let record = records.remove(at);
        if records.is_empty() {
            self.records.remove(key);
        }
        if let Some(expires) = record.expires {
            self.expiring.remove(&(expires, *key, *provider));
            if let Some(count) = self.per_provider.get_mut(provider) {
                *count -= 1;
                if *count == 0 {
                    self.per_provider.remove(provider);
                }
            }
        }
    }

    fn has_room(&self, key: &Key, provider: &PeerId) -> bool {
        self.expiring.len() < self.limits.records
            && self.per_provider.get(provider).is_none_or(|count| *count < self.limits.per_provider)
            && self.records.get(key).is_none_or(|records| records.len() < MAX_PROVIDERS_PER_KEY)
    }
}

impl RecordStore for ProviderStore {
    type RecordsIter<'a> = iter::Empty<Cow<'a, Record>>;
    type ProvidedIter<'a> = iter::Empty<Cow<'a, ProviderRecord>>;

    fn get(&self, _: &RecordKey) -> Option<Cow<'_, Record>> {
        None
    }

    fn put(&mut self, _: Record) -> Result<()> {
        Err(Error::MaxRecords)
    }

    fn remove(&mut self, _: &RecordKey) {}

    fn records(&self) -> Self::RecordsIter<'_> {
        iter::empty()
    }

    fn add_provider(&mut self, mut record: ProviderRecord) -> Result<()> {
        let Ok(key) = Key::try_from(record.key.as_ref()) else { return Err(Error::ValueTooLarge) };
        self.expire(Instant::now());
        self.strike(&key, &record.provider);
        record.addresses.truncate(MAX_ADDRESSES);
        if record.provider == self.local {
            record.expires = None;
        } else {
            let Some(expires) = record.expires else { return Err(Error::MaxProvidedKeys) };
            if !self.has_room(&key, &record.provider) {
                return Err(Error::MaxProvidedKeys);
            }
            self.expiring.insert((expires, key, record.provider));
            *self.per_provider.entry(record.provider).or_default() += 1;
        }
        self.records.entry(key).or_default().push(record);
        Ok(())
    }

    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        Key::try_from(key.as_ref()).ok().and_then(|key| self.records.get(&key)).cloned().unwrap_or_default()
    }

    /// Nothing: what this node provides is said again by [`super::Records`], not by the library.
    fn provided(&self) -> Self::ProvidedIter<'_> {
        iter::empty()
    }

    fn remove_provider(&mut self, key: &RecordKey, provider: &PeerId) {
        if let Ok(key) = Key::try_from(key.as_ref()) {
            self.strike(&key, provider);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Duration;

    fn record(key: u8, provider: PeerId, ttl: Duration) -> ProviderRecord {
        ProviderRecord {
            key: RecordKey::new(&[key; KEY_BYTES]),
            provider,
            expires: Some(Instant::now() + ttl),
            addresses: vec![],
        }
    }

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn records_leave_when_they_expire_and_stay_when_said_again() {
        let mut store = ProviderStore::new(PeerId::random(), StoreLimits::default());
        let (one, two) = (PeerId::random(), PeerId::random());
        store.add_provider(record(1, one, HOUR)).unwrap();
        store.add_provider(record(1, two, HOUR)).unwrap();
        store.add_provider(record(1, two, 3 * HOUR)).unwrap();
        assert_eq!(store.providers(&RecordKey::new(&[1; 32])).len(), 2);
        store.expire(Instant::now() + 2 * HOUR);
        let left: Vec<_> = store.providers(&RecordKey::new(&[1; 32])).iter().map(|r| r.provider).collect();
        assert_eq!(left, [two]);
        store.expire(Instant::now() + 4 * HOUR);
        assert!(store.records.is_empty() && store.expiring.is_empty() && store.per_provider.is_empty());
    }

    #[test]
    fn nobody_fills_the_store() {
        let limits = StoreLimits { records: 6, per_provider: 4 };
        let local = PeerId::random();
        let mut store = ProviderStore::new(local, limits);
        let (one, two) = (PeerId::random(), PeerId::random());
        let taken = |store: &mut ProviderStore, provider| {
            (0..10).filter(|key| store.add_provider(record(*key, provider, HOUR)).is_ok()).count()
        };
        assert_eq!(taken(&mut store, one), 4, "its share");
        assert_eq!(taken(&mut store, two), 2, "what is left");
        assert_eq!(taken(&mut store, local), 10, "our own always fit");
        assert_eq!(taken(&mut store, one), 4, "said again they are refreshed");
    }

    #[test]
    fn values_and_odd_keys_are_refused() {
        let mut store = ProviderStore::new(PeerId::random(), StoreLimits::default());
        let key = RecordKey::new(&b"short");
        assert!(store.put(Record::new(key.clone(), vec![1])).is_err());
        let odd = ProviderRecord { key, provider: PeerId::random(), expires: Some(Instant::now()), addresses: vec![] };
        assert!(store.add_provider(odd).is_err());
    }
}
