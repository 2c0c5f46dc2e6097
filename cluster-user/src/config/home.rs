//! The folder that everything a daemon keeps is in; daemons with different homes never meet.

use std::{
    env,
    ffi::OsStr,
    fs::{self, DirBuilder, Metadata},
    io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use nix::unistd::{AccessFlags, Uid, access};

use super::refusal::Refusal;

/// The variable that moves it, the counterpart of `PM2_HOME`.
pub const VARIABLE: &str = "CLUSTER_HOME";

/// A daemon's folder. It need not exist until [`Home::create`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home(PathBuf);

impl Home {
    /// The folder of the daemon that a command is for: the usual one, or the spare one that a daemon lives in because
    /// it cannot write there.
    ///
    /// # Errors
    /// As [`Home::usual`].
    pub fn from_env() -> Result<Self, Refusal> {
        let usual = Self::usual();
        let given = env::var_os(VARIABLE).is_some_and(|value| !value.is_empty());
        // A lock where nothing can be written is of another time: an image may have been made with it.
        let used = |home: &Self| home.lock().exists() && home.is_fit();
        if given || usual.as_ref().is_ok_and(used) {
            return usual;
        }
        // Anybody may make a folder of that name in /tmp.
        let lived_in = |home: &Self| home.socket().exists() && home.is_fit();
        Self::spares().into_iter().find(lived_in).map_or(usual, Ok)
    }

    /// Whether the folder is there and a daemon can live in it.
    fn is_fit(&self) -> bool {
        fs::metadata(&self.0)
            .is_ok_and(|metadata| check(&self.0, &metadata, Uid::effective()).is_ok())
    }

    /// Folders that can be written where the usual one cannot: what is in there does not outlive the host.
    pub fn spares() -> Vec<Self> {
        let user = Uid::effective();
        let mut spares = Vec::new();
        if user.is_root() {
            spares.push(PathBuf::from("/run/cluster"));
        }
        let own = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        spares.extend(own.filter(|own| own.is_absolute()).map(|own| own.join("cluster")));
        spares.extend(["/dev/shm", "/tmp"].map(|shared| format!("{shared}/cluster-{user}").into()));
        spares.into_iter().map(Self).collect()
    }

    /// The folder that the environment means: `CLUSTER_HOME`, else `/var/lib/cluster` for root, else
    /// `$XDG_STATE_HOME/cluster` or `~/.local/state/cluster`.
    ///
    /// # Errors
    /// When `CLUSTER_HOME` is not absolute, or nothing says where a user's files are.
    pub fn usual() -> Result<Self, Refusal> {
        Self::choose(Uid::effective().is_root(), |key| env::var_os(key).map(PathBuf::from))
    }

    /// That folder.
    ///
    /// # Errors
    /// When the path is not absolute.
    pub fn at(path: impl Into<PathBuf>) -> Result<Self, Refusal> {
        let path = path.into();
        if path.is_absolute() {
            return Ok(Self(path));
        }
        let hint = "give the whole path, beginning with a slash";
        Err(Refusal::new(format!("{VARIABLE} `{}` is not an absolute path", shown(&path)))
            .hint(hint))
    }

    /// Makes the folder and the one for logs, mode 0700, and checks that a daemon can live there.
    ///
    /// # Errors
    /// When something else is there, or another user's folder, or one that others can write.
    pub fn create(&self) -> Result<(), Refusal> {
        for folder in [self.0.clone(), self.logs()] {
            DirBuilder::new().recursive(true).mode(0o700).create(&folder).or_else(|error| {
                // Something is there, or the failure repeats itself below with a better message.
                if folder.exists() { Ok(()) } else { Err(unusable(&folder, &error)) }
            })?;
            let metadata = fs::metadata(&folder).map_err(|error| unusable(&folder, &error))?;
            check(&folder, &metadata, Uid::effective())?;
        }
        Ok(())
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where the daemon listens.
    pub fn socket(&self) -> PathBuf {
        self.0.join(Self::SOCKET)
    }

    /// Name of the socket within the folder.
    pub const SOCKET: &str = "cluster.sock";

    /// What the next daemon needs to take over from one that was killed.
    pub fn journal(&self) -> PathBuf {
        self.0.join("journal.json")
    }

    /// The apps to be started again, as they were when somebody last said so.
    pub fn dump(&self) -> PathBuf {
        self.0.join("dump.json")
    }

    /// Where metrics can be read besides the socket.
    pub fn metrics(&self) -> PathBuf {
        self.0.join("metrics.json")
    }

    /// Locked by the daemon while it lives; holds its pid.
    pub fn lock(&self) -> PathBuf {
        self.0.join("daemon.lock")
    }

    /// What workers write.
    pub fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }

    /// What the daemon has to say.
    pub fn daemon_log(&self) -> PathBuf {
        self.0.join("daemon.log")
    }

    /// Eight hexadecimal digits that stand for this folder in names of cgroups and pins.
    pub fn id(&self) -> String {
        let canonical = fs::canonicalize(&self.0).unwrap_or_else(|_absent| self.0.clone());
        format!("{:08x}", fold(canonical.as_os_str()))
    }

    fn choose(root: bool, var: impl Fn(&str) -> Option<PathBuf>) -> Result<Self, Refusal> {
        let set = |key: &str| var(key).filter(|value| !value.as_os_str().is_empty());
        if let Some(path) = set(VARIABLE) {
            return Self::at(path);
        }
        if root {
            return Self::at("/var/lib/cluster");
        }
        // A relative XDG_STATE_HOME counts as unset (XDG Base Directory Specification).
        let absolute = |key: &str| set(key).filter(|path| path.is_absolute());
        absolute("XDG_STATE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
            .map(|state| Self(state.join("cluster")))
            .ok_or_else(|| {
                Refusal::new("no home folder: neither HOME nor XDG_STATE_HOME is set")
                    .hint(format!("set {VARIABLE} to an absolute path"))
            })
    }
}

fn unusable(folder: &Path, error: &io::Error) -> Refusal {
    let message = format!("failed to make folder `{}`: {error}", shown(folder));
    let refusal = if error.kind() == io::ErrorKind::PermissionDenied {
        Refusal::not_permitted(message)
    } else {
        Refusal::new(message)
    };
    refusal.hint(format!("set {VARIABLE} to a folder that you can write"))
}

fn check(folder: &Path, metadata: &Metadata, user: Uid) -> Result<(), Refusal> {
    let path = shown(folder);
    let elsewhere = format!("set {VARIABLE} to a folder of your own");
    if !metadata.is_dir() {
        return Err(Refusal::new(format!("`{path}` is not a folder")).hint(elsewhere));
    }
    if metadata.uid() != user.as_raw() {
        let owner = metadata.uid();
        return Err(Refusal::not_permitted(format!(
            "folder `{path}` belongs to user {owner}, not to user {user}"
        ))
        .hint(elsewhere));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(Refusal::not_permitted(format!("folder `{path}` can be written by others"))
            .hint(format!("chmod 700 {path}, or {elsewhere}")));
    }
    if access(folder, AccessFlags::W_OK | AccessFlags::X_OK).is_err() {
        return Err(Refusal::not_permitted(format!("folder `{path}` cannot be written"))
            .hint(format!("chmod 700 {path}, or {elsewhere}")));
    }
    Ok(())
}

/// FNV-1a, folded to 32 bits: stable over releases, which the standard hasher is not.
pub(crate) fn fold(text: &OsStr) -> u32 {
    let hash = text.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let (high, low) = (hash >> 32, hash & u64::from(u32::MAX));
    u32::try_from(high ^ low).unwrap_or(u32::MAX)
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().escape_debug().take(200).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_variable_comes_first_then_the_custom_of_the_system() {
        let chosen = |root, pairs: &[(&str, &str)]| {
            let find = |key: &str| {
                pairs.iter().find(|(name, _)| *name == key).map(|(_, value)| value.into())
            };
            Home::choose(root, find).map(|home| home.path().display().to_string())
        };
        let home = ("HOME", "/home/u");
        assert_eq!(chosen(true, &[("CLUSTER_HOME", "/x")]).unwrap(), "/x");
        assert_eq!(chosen(true, &[("CLUSTER_HOME", ""), home]).unwrap(), "/var/lib/cluster");
        assert_eq!(chosen(false, &[home]).unwrap(), "/home/u/.local/state/cluster");
        assert_eq!(chosen(false, &[home, ("XDG_STATE_HOME", "/s")]).unwrap(), "/s/cluster");
        assert_eq!(
            chosen(false, &[home, ("XDG_STATE_HOME", "s")]).unwrap(),
            "/home/u/.local/state/cluster"
        );
        assert!(chosen(false, &[]).is_err());
        assert!(chosen(true, &[("CLUSTER_HOME", "x/y")]).unwrap_err().hint.is_some());
    }

    #[test]
    fn folders_are_made_for_their_owner_only() {
        let temporary = tempfile::tempdir().unwrap();
        let home = Home::at(temporary.path().join("a/b")).unwrap();
        home.create().unwrap();
        home.create().unwrap();
        for folder in [home.path(), &home.logs()] {
            assert_eq!(fs::metadata(folder).unwrap().mode() & 0o777, 0o700);
        }
    }

    #[test]
    fn a_file_or_an_open_folder_is_no_home() {
        let temporary = tempfile::tempdir().unwrap();
        let file = temporary.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Home::at(&file).unwrap().create().unwrap_err();
        assert!(error.message.contains("is not a folder"), "{error}");
        let below = Home::at(file.join("x")).unwrap().create().unwrap_err();
        assert!(below.message.contains("failed to make folder"), "{below}");
        let open = temporary.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        let error = Home::at(&open).unwrap().create().unwrap_err();
        assert!(error.message.contains("written by others"), "{error}");
    }

    #[test]
    fn an_id_is_the_same_for_every_way_to_the_folder() {
        let temporary = tempfile::tempdir().unwrap();
        let home = Home::at(temporary.path().join("home")).unwrap();
        home.create().unwrap();
        let link = temporary.path().join("link");
        std::os::unix::fs::symlink(home.path(), &link).unwrap();
        assert_eq!(home.id(), Home::at(link).unwrap().id());
        assert_eq!(home.id().len(), 8);
        assert_eq!(Home::at("/var/lib/nowhere").unwrap().id(), "ba17d73b");
        assert_ne!(home.id(), Home::at("/").unwrap().id());
    }
}
