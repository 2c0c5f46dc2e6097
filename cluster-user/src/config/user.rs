//! Whom a worker runs as: `--uid` and `--gid`, by name or number.

use std::ffi::CString;

use nix::unistd::{Gid, Group, Uid, getgrouplist};

use super::{refusal::Refusal, spec::User};

/// An entry of the user database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// Home folder.
    pub home: String,
    uid: Uid,
    gid: Gid,
}

/// Finds the user and the group; `None` when it is the caller's own.
///
/// # Errors
/// When there is no such user or group, or the caller is not root and it is another.
pub fn find(
    uid: Option<&str>,
    gid: Option<&str>,
) -> Result<Option<(User, Option<Account>)>, Refusal> {
    if uid.is_none() && gid.is_none() {
        return Ok(None);
    }
    let number = uid.and_then(|text| text.parse::<u32>().ok());
    let account = uid.map(account).transpose()?.flatten();
    let group = gid.map(group).transpose()?;
    let own = Uid::effective();
    let uid = account.as_ref().map_or_else(|| number.map_or(own, Uid::from_raw), |known| known.uid);
    let gid = match (group, &account) {
        (Some(group), _) => group,
        (None, Some(account)) => account.gid,
        (None, None) => {
            return Err(Refusal::new(format!(
                "user {uid} has no entry, so its group is not known"
            ))
            .hint("add --gid"));
        }
    };
    if !own.is_root() {
        if uid == own && gid == Gid::effective() {
            return Ok(None);
        }
        return Err(Refusal::not_permitted("only root can run workers as another user or group")
            .hint("use sudo, or leave out --uid and --gid"));
    }
    let groups = account.as_ref().map_or_else(|| vec![gid.as_raw()], |known| groups(known, gid));
    Ok(Some((User { uid: uid.as_raw(), gid: gid.as_raw(), groups }, account)))
}

/// The account of a name, or of a number that has one.
fn account(text: &str) -> Result<Option<Account>, Refusal> {
    let number = text.parse::<u32>();
    let entry = match number {
        Ok(number) => nix::unistd::User::from_uid(Uid::from_raw(number)),
        Err(_) => nix::unistd::User::from_name(text),
    };
    let entry = entry.map_err(|error| {
        Refusal::new(format!("failed to look up user `{}`: {error}", text.escape_debug()))
    })?;
    match entry {
        Some(entry) => Ok(Some(Account {
            name: entry.name,
            home: entry.dir.to_string_lossy().into_owned(),
            uid: entry.uid,
            gid: entry.gid,
        })),
        None if number.is_ok() => Ok(None),
        None => Err(Refusal::new(format!("there is no user `{}`", text.escape_debug()))
            .hint("give a name of getent passwd, or a number")),
    }
}

fn group(text: &str) -> Result<Gid, Refusal> {
    if let Ok(number) = text.parse::<u32>() {
        return Ok(Gid::from_raw(number));
    }
    match Group::from_name(text) {
        Ok(Some(group)) => Ok(group.gid),
        Ok(None) => Err(Refusal::new(format!("there is no group `{}`", text.escape_debug()))
            .hint("give a name of getent group, or a number")),
        Err(error) => {
            Err(Refusal::new(format!("failed to look up group `{}`: {error}", text.escape_debug())))
        }
    }
}

fn groups(account: &Account, gid: Gid) -> Vec<u32> {
    let found = CString::new(account.name.as_str())
        .ok()
        .and_then(|name| getgrouplist(&name, gid).ok())
        .unwrap_or_else(|| vec![gid]);
    found.into_iter().map(Gid::as_raw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_name_and_by_number() {
        assert_eq!(account("root").unwrap(), account("0").unwrap());
        assert_eq!(account("4294967294").unwrap(), None);
        assert!(account("no-such-user").unwrap_err().hint.is_some());
        assert!(group("no-such-group").is_err());
        assert_eq!(find(None, None).unwrap(), None);
    }

    #[test]
    fn a_number_without_entry_needs_a_group() {
        let error = find(Some("4294967294"), None).unwrap_err();
        assert!(error.message.contains("group is not known"), "{error}");
    }

    #[test]
    fn root_gets_the_groups_of_the_user() {
        if !Uid::effective().is_root() {
            println!("skipped: needs root");
            return;
        }
        let (user, account) = find(Some("nobody"), None).unwrap().unwrap();
        assert_eq!(account.unwrap().name, "nobody");
        assert!(user.groups.contains(&user.gid));
    }
}
