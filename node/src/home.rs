//! The home directory: keys, what is remembered of the farm, and the lock of its daemon.
//!
//! ```text
//! node.key  requester.key  farm.key   32 secret bytes in hexadecimal, mode 0600
//! ticket                              the farm that was joined or founded last
//! charter                             its charter, in its envelope
//! peers                               the farm's id, then who was met and where, one a line
//! listen                              ports taken at first start, taken again
//! version                             of the layout of this folder, written by the first daemon
//! begun                               the farm whose log was begun here: from then on its absence is a loss
//! daemon.addr                         where the daemon of this home serves; there only while it serves
//! lock                                held by whoever has the database open
//! index/  store/  work/  raft/        local state, artifacts, builds under way, the coordinator's log
//! fetch/                              sources on their way from where they are published
//! ```
//!
//! Who opens the database holds the lock: a daemon, or `node store` where none runs. Other commands read the small files and
//! leave nothing open. Every file is written under another name, synced and renamed, so that a reader sees the old one or the new one.

use protocol::codec;
use protocol::digest::Digest;
use protocol::id::{FarmId, PeerKey};
use protocol::signed::{SecretKey, Signed};
use protocol::ticket::{Contact, MAX_ADDRESSES, Ticket};
use rand::Rng as _;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Peers that are remembered.
pub const MAX_PEERS: usize = 64;
const MAX_CHARTER_BYTES: usize = 64 << 10;
/// A file under another name that is older than this has lost its writer.
const SCRATCH_FOR: Duration = Duration::from_secs(3_600);
/// The layout that this program writes and reads.
const LAYOUT: &str = "1";

/// A home directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home(PathBuf);

/// Whose key it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyName {
    /// The daemon.
    Node,
    /// The person.
    Requester,
    /// The farm, where it was founded in this home.
    Farm,
}

impl KeyName {
    const fn file(self) -> &'static str {
        match self {
            Self::Node => "node.key",
            Self::Requester => "requester.key",
            Self::Farm => "farm.key",
        }
    }
}

/// Held for as long as the daemon of a home runs.
#[derive(Debug)]
pub struct HomeLock(#[expect(dead_code, reason = "closing the file releases the lock")] File);

/// Why a home cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// A file or folder cannot be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Another daemon runs in this home.
    #[error("another daemon runs in {}", .0.display())]
    InUse(PathBuf),
    /// A secret key can be read by others.
    #[error("{} can be read by others", .0.display())]
    Exposed(PathBuf),
    /// A file does not hold what it should.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// How.
        reason: String,
    },
    /// A program of another version wrote this home.
    #[error("{} has layout {found:?}, and this program knows layout {LAYOUT} only", path.display())]
    OtherLayout {
        /// The home.
        path: PathBuf,
        /// What its mark says.
        found: String,
    },
}

impl Home {
    /// The home at `path`, made with mode 0700 where it is missing.
    ///
    /// # Errors
    ///
    /// [`HomeError::Io`], and [`HomeError::OtherLayout`] when another version of the program wrote it.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, HomeError> {
        let path = path.into();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(|error| at(&path, error))?;
        let path = path.canonicalize().map_err(|error| at(&path, error))?;
        match read(&path.join("version"))?.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()) {
            Some(found) if found != LAYOUT => Err(HomeError::OtherLayout { path, found }),
            _ => {
                let home = Self(path);
                home.sweep_scratch().map_err(|error| at(&home.0, error))?;
                Ok(home)
            }
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A folder in it, made with mode 0700 where it is missing.
    ///
    /// # Errors
    ///
    /// [`HomeError::Io`].
    pub fn folder(&self, name: &str) -> Result<PathBuf, HomeError> {
        let path = self.0.join(name);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(|error| at(&path, error))?;
        Ok(path)
    }

    /// Whether the log of `farm` was ever begun in this home.
    ///
    /// # Errors
    ///
    /// [`HomeError::Io`].
    pub fn has_begun(&self, farm: FarmId) -> Result<bool, HomeError> {
        Ok(read(&self.0.join("begun"))?
            .is_some_and(|bytes| String::from_utf8_lossy(&bytes).trim() == farm.0.to_string()))
    }

    /// Remembers that the log of `farm` is begun.
    ///
    /// # Errors
    ///
    /// [`HomeError::Io`].
    pub fn remember_begun(&self, farm: FarmId) -> Result<(), HomeError> {
        if self.has_begun(farm)? { Ok(()) } else { self.replace("begun", format!("{}\n", farm.0).as_bytes()) }
    }

    /// Takes the lock of the daemon, and marks a new home with its layout.
    ///
    /// # Errors
    ///
    /// [`HomeError::InUse`] when another daemon holds it.
    pub fn lock(&self) -> Result<HomeLock, HomeError> {
        let path = self.0.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| at(&path, error))?;
        match file.try_lock() {
            Ok(()) => {
                if read(&self.0.join("version"))?.is_none() {
                    self.replace("version", format!("{LAYOUT}\n").as_bytes())?;
                }
                Ok(HomeLock(file))
            }
            Err(TryLockError::WouldBlock) => Err(HomeError::InUse(self.0.clone())),
            Err(TryLockError::Error(error)) => Err(at(&path, error)),
        }
    }

    /// A secret key, drawn and written at first use.
    ///
    /// # Errors
    ///
    /// [`HomeError::Exposed`] when others can read it, [`HomeError::Damaged`] when it is no key.
    pub fn key(&self, name: KeyName) -> Result<SecretKey, HomeError> {
        if let Some(key) = self.existing_key(name)? {
            return Ok(key);
        }
        let mut seed = [0; 32];
        rand::rng().fill_bytes(&mut seed);
        let digits: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
        match self.create(name.file(), digits.as_bytes()) {
            Ok(()) => Ok(SecretKey::from_seed(&seed)),
            // Two commands started at the same moment: the first one's key is the key.
            Err(HomeError::Io { error, .. }) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.existing_key(name)?.ok_or_else(|| at(&self.0.join(name.file()), io::ErrorKind::NotFound.into()))
            }
            Err(error) => Err(error),
        }
    }

    /// A secret key, if it was ever drawn here.
    ///
    /// # Errors
    ///
    /// As [`Home::key`].
    pub fn existing_key(&self, name: KeyName) -> Result<Option<SecretKey>, HomeError> {
        let path = self.0.join(name.file());
        let Some(bytes) = read(&path)? else { return Ok(None) };
        let mode = fs::metadata(&path).map_err(|error| at(&path, error))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(HomeError::Exposed(path));
        }
        let digest: Digest = String::from_utf8_lossy(&bytes)
            .trim()
            .parse()
            .map_err(|_| HomeError::Damaged { path: path.clone(), reason: "not 64 hexadecimal digits".to_owned() })?;
        Ok(Some(SecretKey::from_seed(digest.as_bytes())))
    }

    /// The farm that was joined or founded last.
    ///
    /// # Errors
    ///
    /// [`HomeError::Damaged`] when the file holds no ticket.
    pub fn ticket(&self) -> Result<Option<Ticket>, HomeError> {
        let path = self.0.join("ticket");
        let Some(bytes) = read(&path)? else { return Ok(None) };
        let text = String::from_utf8_lossy(&bytes);
        text.parse().map(Some).map_err(|error| HomeError::Damaged { path, reason: format!("{error}") })
    }

    /// Remembers a farm.
    ///
    /// # Errors
    ///
    /// [`HomeError::Io`].
    pub fn remember_ticket(&self, ticket: &Ticket) -> Result<(), HomeError> {
        self.replace("ticket", format!("{ticket}\n").as_bytes())
    }

    /// The charter of `farm`, as it was last seen; `None` when another farm's is remembered.
    ///
    /// # Errors
    ///
    /// [`HomeError::Damaged`] when the file holds no envelope.
    pub fn charter(&self, farm: FarmId) -> Result<Option<Signed>, HomeError> {
        let path = self.0.join("charter");
        let Some(bytes) = read(&path)? else { return Ok(None) };
        let signed: Signed = codec::decode(&bytes, MAX_CHARTER_BYTES)
            .map_err(|_| HomeError::Damaged { path, reason: "it holds no charter".to_owned() })?;
        Ok((signed.farm == farm).then_some(signed))
    }

    /// Remembers a charter that was checked.
    ///
    /// # Errors
    ///
    /// [`HomeError::Io`].
    pub fn remember_charter(&self, charter: &Signed) -> Result<(), HomeError> {
        self.replace("charter", &codec::encode(charter))
    }

    /// Who of `farm` was met, and where; what cannot be read is left out.
    ///
    /// # Errors
    ///
    /// [`HomeError::Io`].
    pub fn peers(&self, farm: FarmId) -> Result<Vec<Contact>, HomeError> {
        let bytes = read(&self.0.join("peers"))?.unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let mut lines = text.lines();
        if lines.next() != Some(farm.0.to_string().as_str()) {
            return Ok(Vec::new());
        }
        let contact = |line: &str| {
            let mut words = line.split_whitespace();
            let key: Digest = words.next()?.parse().ok()?;
            let addresses = words.take(MAX_ADDRESSES).map(str::to_owned).collect();
            Some(Contact { key: PeerKey::from_bytes(*key.as_bytes()), addresses })
        };
        Ok(lines.filter_map(contact).take(MAX_PEERS).collect())
    }

    /// Remembers who of `farm` was met.
    ///
    /// # Errors
    ///
    /// [`HomeError::Io`].
    pub fn remember_peers(&self, farm: FarmId, peers: &[Contact]) -> Result<(), HomeError> {
        // A name that a peer gave itself may hold anything.
        let is_word = |address: &&String| !address.chars().any(|letter| letter.is_whitespace() || letter.is_control());
        let lines = peers.iter().map(|peer| {
            let key = Digest::from_bytes(*peer.key.as_bytes());
            let addresses: Vec<&str> = peer.addresses.iter().filter(is_word).map(String::as_str).collect();
            format!("{key} {}\n", addresses.join(" "))
        });
        self.replace("peers", format!("{}\n{}", farm.0, lines.collect::<String>()).as_bytes())
    }

    /// Where the daemon listened before, one multiaddr a line.
    ///
    /// # Errors
    ///
    /// [`HomeError::Io`].
    pub fn listened(&self) -> Result<Vec<String>, HomeError> {
        let bytes = read(&self.0.join("listen"))?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect())
    }

    /// Remembers where the daemon listens.
    ///
    /// # Errors
    ///
    /// [`HomeError::Io`].
    pub fn remember_listened(&self, addresses: &[String]) -> Result<(), HomeError> {
        self.replace("listen", addresses.iter().map(|address| format!("{address}\n")).collect::<String>().as_bytes())
    }

    /// The daemon of this home, if one says that it serves.
    ///
    /// # Errors
    ///
    /// [`HomeError::Damaged`] when the file holds no ticket.
    pub fn daemon(&self) -> Result<Option<(FarmId, Contact)>, HomeError> {
        let path = self.0.join("daemon.addr");
        let Some(bytes) = read(&path)? else { return Ok(None) };
        let ticket: Ticket = String::from_utf8_lossy(&bytes)
            .parse()
            .map_err(|error| HomeError::Damaged { path, reason: format!("{error}") })?;
        Ok(ticket.peers.into_iter().next().map(|contact| (ticket.farm, contact)))
    }

    /// Takes back the address of a daemon that can do so no more. Only for whoever has found its lock free.
    ///
    /// # Errors
    ///
    /// [`HomeError::Io`].
    pub fn forget_daemon(&self) -> Result<(), HomeError> {
        let path = self.0.join("daemon.addr");
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(&path, error)),
            _ => Ok(()),
        }
    }

    /// Says that a daemon serves here; taken back when the value is dropped.
    ///
    /// # Errors
    ///
    /// [`HomeError::Io`].
    pub fn serve_at(&self, farm: FarmId, contact: Contact) -> Result<Serving, HomeError> {
        let word = Ticket { farm, coordinators: vec![], peers: vec![contact] };
        self.replace("daemon.addr", format!("{word}\n").as_bytes())?;
        Ok(Serving(self.0.join("daemon.addr")))
    }

    fn create(&self, name: &str, bytes: &[u8]) -> Result<(), HomeError> {
        let path = self.0.join(name);
        let scratch = self.write_scratch(name, bytes)?;
        let linked = fs::hard_link(&scratch, &path).map_err(|error| at(&path, error));
        fs::remove_file(&scratch).map_err(|error| at(&scratch, error))?;
        linked?;
        self.sync()
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), HomeError> {
        let path = self.0.join(name);
        let scratch = self.write_scratch(name, bytes)?;
        fs::rename(&scratch, &path).map_err(|error| at(&path, error))?;
        self.sync()
    }

    fn write_scratch(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, HomeError> {
        let mut nonce = [0; 8];
        rand::rng().fill_bytes(&mut nonce);
        let path = self.0.join(format!(".{name}.{:016x}", u64::from_be_bytes(nonce)));
        let write = || {
            let mut file = File::options().create_new(true).write(true).mode(0o600).open(&path)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write().map_err(|error| {
            // The error counts; what could not be written whole is in the way of nobody.
            let _removed = fs::remove_file(&path);
            at(&path, error)
        })?;
        Ok(path)
    }

    /// Removes what a writer that was killed left under another name.
    fn sweep_scratch(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            let is_scratch = entry.file_name().to_str().is_some_and(|name| {
                let digits = name.strip_prefix('.').and_then(|name| name.rsplit_once('.')).map(|(_, digits)| digits);
                digits.is_some_and(|digits| digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
            });
            // A clock that was set back makes a file too young, never too old.
            let age = |path: &Path| fs::metadata(path).and_then(|found| found.modified()).map(|then| then.elapsed());
            if is_scratch && age(&entry.path()).is_ok_and(|age| age.is_ok_and(|age| age > SCRATCH_FOR)) {
                // Two commands may sweep at the same moment.
                let _removed = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), HomeError> {
        File::open(&self.0).and_then(|folder| folder.sync_all()).map_err(|error| at(&self.0, error))
    }
}

/// Says that a daemon serves, until dropped.
#[derive(Debug)]
pub struct Serving(PathBuf);

impl Drop for Serving {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "the daemon's address could not be taken back");
        }
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, HomeError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at(path, error)),
    }
}

fn at(path: &Path, error: io::Error) -> HomeError {
    HomeError::Io { path: path.to_owned(), error }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keys_are_drawn_once_and_stay_private() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path().join("a/home")).unwrap();
        assert_eq!(fs::metadata(home.path()).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(home.existing_key(KeyName::Node).unwrap().is_none());
        let key = home.key(KeyName::Node).unwrap().public();
        assert_eq!(home.key(KeyName::Node).unwrap().public(), key);
        assert_ne!(home.key(KeyName::Requester).unwrap().public(), key);
        let path = home.path().join("node.key");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(home.key(KeyName::Node), Err(HomeError::Exposed(_))));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "nonsense").unwrap();
        assert!(matches!(home.key(KeyName::Node), Err(HomeError::Damaged { .. })));
    }

    #[test]
    fn what_a_killed_writer_left_is_swept_and_what_is_being_written_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let [old, young, other] =
            [".ticket.0123456789abcdef", ".ticket.fedcba9876543210", ".hidden"].map(|name| folder.path().join(name));
        for path in [&old, &young, &other] {
            fs::write(path, "x").unwrap();
        }
        for path in [&old, &other] {
            let yesterday = std::time::SystemTime::now() - 24 * SCRATCH_FOR;
            File::options().write(true).open(path).unwrap().set_modified(yesterday).unwrap();
        }
        Home::open(folder.path()).unwrap();
        assert_eq!([&old, &young, &other].map(|path| path.exists()), [false, true, true]);
    }

    #[test]
    fn one_daemon_a_home() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path()).unwrap();
        let lock = home.lock().unwrap();
        assert!(matches!(home.lock(), Err(HomeError::InUse(_))));
        drop(lock);
        // A test beside this one may be between fork and exec, with a copy of the descriptor that holds the lock.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while home.lock().is_err() {
            assert!(std::time::Instant::now() < until, "the lock is not free");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_home_of_another_layout_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path()).unwrap();
        drop(home.lock().unwrap());
        assert_eq!(fs::read_to_string(folder.path().join("version")).unwrap(), "1\n");
        assert_eq!(Home::open(folder.path()).unwrap(), home);
        for found in ["0", "2", "x"] {
            fs::write(folder.path().join("version"), found).unwrap();
            let opened = Home::open(folder.path());
            assert!(matches!(&opened, Err(HomeError::OtherLayout { found: mark, .. }) if mark == found), "{opened:?}");
        }
    }

    #[test]
    fn who_was_met_is_remembered_for_the_farm_and_damage_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path()).unwrap();
        let farm = FarmId(Digest::of(b"farm"));
        assert_eq!(home.peers(farm).unwrap(), []);
        let at = |nr: u8, addresses: &[&str]| Contact {
            key: PeerKey::from_bytes([nr; 32]),
            addresses: addresses.iter().map(ToString::to_string).collect(),
        };
        let met = [at(1, &["/ip4/192.0.2.7/tcp/1", "/ip4/192.0.2.7/udp/1/quic-v1"]), at(2, &["/ip4/192.0.2.8/tcp/2"])];
        home.remember_peers(farm, &met).unwrap();
        assert_eq!(home.peers(farm).unwrap(), met);
        home.remember_peers(farm, &[at(3, &["/dns/a\n0303/tcp/3", "/dns/b c/tcp/3", "/dns/d/tcp/3"])]).unwrap();
        assert_eq!(home.peers(farm).unwrap(), [at(3, &["/dns/d/tcp/3"])]);
        home.remember_peers(farm, &met).unwrap();
        assert_eq!(home.peers(FarmId(Digest::of(b"other"))).unwrap(), []);
        let text = fs::read_to_string(home.path().join("peers")).unwrap();
        fs::write(home.path().join("peers"), text.replacen("0101", "01x1", 1)).unwrap();
        assert_eq!(home.peers(farm).unwrap(), met[1..]);
        fs::write(home.path().join("peers"), [0xff; 99]).unwrap();
        assert_eq!(home.peers(farm).unwrap(), []);
    }

    #[test]
    fn a_daemon_is_found_only_while_it_serves() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path()).unwrap();
        assert_eq!(home.daemon().unwrap(), None);
        let farm = FarmId(Digest::of(b"farm"));
        let contact = Contact { key: PeerKey::from_bytes([1; 32]), addresses: vec!["/ip4/127.0.0.1/tcp/1".to_owned()] };
        let serving = home.serve_at(farm, contact.clone()).unwrap();
        assert_eq!(home.daemon().unwrap(), Some((farm, contact)));
        drop(serving);
        assert_eq!(home.daemon().unwrap(), None);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0, "no scratch files stay");
    }
}
