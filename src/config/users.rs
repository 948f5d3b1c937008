//! Users and groups from /etc/passwd and /etc/group, passwd(5) and group(5).
//!
//! A static binary has no NSS, so only users and groups in these files are known. Numeric ids need neither file.

use std::path::Path;

use super::files::{Files, FsQuery};
use super::suggest::nearest;

/// The content of the two files, empty if they do not exist.
#[derive(Debug)]
pub(super) struct Users {
    passwd: String,
    group: String,
}

/// An entry in /etc/passwd.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) home: String,
}

impl Users {
    /// Reads both files below `root`. A file that cannot be read is treated as empty.
    pub(super) fn read(root: &Path, files: Files<'_>) -> Self {
        let read = |name: &str| {
            let bytes = files(&FsQuery::ReadUsers(&root.join(name))).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Self { passwd: read("etc/passwd"), group: read("etc/group") }
    }

    pub(super) fn by_name(&self, name: &str) -> Option<User> {
        self.all().find(|user| user.name == name)
    }

    pub(super) fn by_id(&self, uid: u32) -> Option<User> {
        self.all().find(|user| user.uid == uid)
    }

    /// The id of the group `name`.
    pub(super) fn group(&self, name: &str) -> Option<u32> {
        self.groups().find(|(group, _, _)| *group == name).map(|(_, gid, _)| gid)
    }

    /// As initgroups(3): `gid` and the groups of which `user` is a member.
    pub(super) fn groups_of(&self, user: Option<&User>, gid: u32) -> Vec<u32> {
        let mut groups = vec![gid];
        let Some(user) = user else { return groups };
        for (_, number, members) in self.groups() {
            if !groups.contains(&number) && members.split(',').any(|member| member.trim() == user.name) {
                groups.push(number);
            }
        }
        groups
    }

    pub(super) fn nearest_user(&self, name: &str) -> Option<&str> {
        nearest(name, self.passwd.lines().filter_map(|line| line.split(':').next()))
    }

    pub(super) fn nearest_group(&self, name: &str) -> Option<&str> {
        nearest(name, self.groups().map(|(group, _, _)| group))
    }

    fn all(&self) -> impl Iterator<Item = User> {
        self.passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            Some(User { name, uid, gid, home: fields.nth(1).unwrap_or_default().to_owned() })
        })
    }

    fn groups(&self) -> impl Iterator<Item = (&str, u32, &str)> {
        self.group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            Some((name, fields.nth(1)?.parse().ok()?, fields.next().unwrap_or_default()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> Users {
        Users {
            passwd: "root:x:0:0:root:/root:/bin/sh\nbroken\nwww:x:33:34::/var/www:\nno:x:a:b:::\n".to_owned(),
            group: "root:x:0:\nwww:x:34:\nlogs:x:50:other,www\ntls:x:51:www\nbad\n".to_owned(),
        }
    }

    #[test]
    fn users_are_found_by_name_and_id() {
        let www = User { name: "www".to_owned(), uid: 33, gid: 34, home: "/var/www".to_owned() };
        assert_eq!(users().by_name("www"), Some(www));
        assert_eq!(users().by_id(0).map(|user| user.home), Some("/root".to_owned()));
        assert_eq!(users().by_name("no"), None);
        assert_eq!(users().by_name(""), None);
    }

    #[test]
    fn the_groups_of_a_user_are_the_primary_group_and_those_with_the_user_as_member() {
        let users = users();
        assert_eq!(users.group("tls"), Some(51));
        assert_eq!(users.group("bad"), None);
        assert_eq!(users.groups_of(users.by_name("www").as_ref(), 34), [34, 50, 51]);
        assert_eq!(users.groups_of(None, 1000), [1000]);
    }

    #[test]
    fn without_the_files_no_user_or_group_is_known() {
        let users = Users::read(Path::new("/nonexistent"), &super::super::files::query_fs);
        assert_eq!((users.by_id(0), users.group("root")), (None, None));
    }
}
