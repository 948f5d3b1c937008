//! `user`, `group`, `groups` and `limits`: the credentials and resource limits of a process.

use toml::de::DeTable;

use super::decoder::{Decoder, Resolved, Schema, Value, entries};
use super::environment::Purpose;
use super::suggest::nearest;
use super::users::User;
use crate::model::plan::{Credentials, Limit};
use crate::model::units;

/// The resource limits of getrlimit(2) by the names of limits.conf(5) and Docker.
const LIMITS: [(&str, u32); 16] = [
    ("as", libc::RLIMIT_AS as u32),
    ("core", libc::RLIMIT_CORE as u32),
    ("cpu", libc::RLIMIT_CPU as u32),
    ("data", libc::RLIMIT_DATA as u32),
    ("fsize", libc::RLIMIT_FSIZE as u32),
    ("locks", libc::RLIMIT_LOCKS as u32),
    ("memlock", libc::RLIMIT_MEMLOCK as u32),
    ("msgqueue", libc::RLIMIT_MSGQUEUE as u32),
    ("nice", libc::RLIMIT_NICE as u32),
    ("nofile", libc::RLIMIT_NOFILE as u32),
    ("nproc", libc::RLIMIT_NPROC as u32),
    ("rss", libc::RLIMIT_RSS as u32),
    ("rtprio", libc::RLIMIT_RTPRIO as u32),
    ("rttime", libc::RLIMIT_RTTIME as u32),
    ("sigpending", libc::RLIMIT_SIGPENDING as u32),
    ("stack", libc::RLIMIT_STACK as u32),
];

impl Decoder<'_> {
    /// The credentials of the process, and the user for the variables HOME, USER and LOGNAME.
    pub(super) fn credentials(&mut self, table: &DeTable<'_>) -> (Option<Credentials>, Option<User>) {
        let (user, group, groups) = (table.get("user"), table.get("group"), table.get("groups"));
        let Some(value) = user.or(group).or(groups) else { return (None, None) };
        let wanted = user.map(|value| self.user(value));
        let group = group.map(|value| self.group(value));
        let listed = groups.map(|value| {
            let groups = self.array(value, "such as `[\"audio\", \"video\"]`");
            groups.iter().filter_map(|group| self.group(group)).collect::<Vec<u32>>()
        });
        // Errors have been recorded.
        if wanted == Some(None) || group == Some(None) {
            return (None, None);
        }
        let known = match wanted {
            // keepalive's own user, not root and not in /etc/passwd, has the group that keepalive was started with.
            Some(Some(user)) if user.name.is_empty() && user.uid == self.environment.uid && user.uid != 0 => {
                Ok(User { gid: self.environment.gid, ..user })
            }
            Some(Some(user)) => Ok(user),
            _ => self.users.by_id(self.environment.uid).ok_or(()),
        };
        let (uid, own_group) =
            known.as_ref().map_or((self.environment.uid, self.environment.gid), |user| (user.uid, user.gid));
        let gid = group.flatten().unwrap_or(own_group);
        let own_groups = || self.users.groups_of(known.as_ref().ok().filter(|user| !user.name.is_empty()), gid);
        let credentials = Credentials { uid, gid, groups: listed.unwrap_or_else(own_groups).into() };
        let is_guess = self.environment.uid == 0 && table.get("group").is_none() && self.users.by_id(uid).is_none();
        if let Some(value) = user.filter(|_| is_guess) {
            let message = format!("user {uid} is not in /etc/passwd: using group {gid}");
            self.warning(value.span(), message, "set `group`");
        }
        let user = known.ok().filter(|_| user.is_some());
        (self.permitted(value, credentials, groups), user)
    }

    /// Reports credentials that keepalive cannot set because it is not root. `None` if nothing needs to be changed.
    fn permitted(&mut self, value: &Value<'_>, wanted: Credentials, groups: Option<&Value<'_>>) -> Option<Credentials> {
        if self.environment.uid == 0 {
            return Some(wanted);
        }
        if (wanted.uid, wanted.gid) == (self.environment.uid, self.environment.gid) && groups.is_none() {
            return None;
        }
        let message =
            format!("only root can change user or group, and keepalive runs as user {}", self.environment.uid);
        let hint = "start keepalive as root, or remove `user`, `group` and `groups`";
        match self.environment.purpose {
            Purpose::Run => self.error(value.span(), message, hint),
            Purpose::Check => self.warning(value.span(), message, hint),
        }
        Some(wanted)
    }

    fn user(&mut self, value: &Value<'_>) -> Option<User> {
        let value = &self.resolved(value)?;
        if let Some(uid) = id(value) {
            let known = self.users.by_id(uid);
            return Some(known.unwrap_or(User { name: String::new(), uid, gid: uid, home: String::new() }));
        }
        let name = value.get_ref().as_str().filter(|name| !name.is_empty());
        let Some(name) = name else {
            self.unexpected(value, "the name or number of a user", "such as `\"www\"` or `1000`");
            return None;
        };
        let user = self.users.by_name(name);
        if user.is_none() {
            let hint = match (name.split_once(':'), self.users.nearest_user(name)) {
                (Some((user, group)), _) if self.unexpanded(value).is_none() => {
                    format!("write `user = \"{user}\"` and `group = \"{group}\"`")
                }
                (_, Some(near)) => format!("did you mean `{near}`?"),
                (_, None) => "not found in /etc/passwd; a number needs no entry there".to_owned(),
            };
            let shown = self.unexpanded(value).unwrap_or(name);
            self.error(value.span(), format!("unknown user `{}`", shown.escape_debug()), hint);
        }
        user
    }

    fn group(&mut self, value: &Value<'_>) -> Option<u32> {
        let value = &self.resolved(value)?;
        if let Some(gid) = id(value) {
            return Some(gid);
        }
        let name = value.get_ref().as_str().filter(|name| !name.is_empty());
        let Some(name) = name else {
            self.unexpected(value, "the name or number of a group", "such as `\"www\"` or `1000`");
            return None;
        };
        let gid = self.users.group(name);
        if gid.is_none() {
            let hint = match self.users.nearest_group(name) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "not found in /etc/group; a number needs no entry there".to_owned(),
            };
            let shown = self.unexpanded(value).unwrap_or(name);
            self.error(value.span(), format!("unknown group `{}`", shown.escape_debug()), hint);
        }
        gid
    }

    pub(super) fn limits(&mut self, value: &Value<'_>) -> Box<[Limit]> {
        let Some(table) = self.table(value, "such as `{ nofile = 65536 }`") else { return Box::default() };
        let limits = entries(table).into_iter().filter_map(|(key, value)| {
            let name: &str = key.get_ref();
            let Some(&(name, resource)) = LIMITS.iter().find(|(known, _)| *known == name) else {
                let names = LIMITS.iter().map(|(name, _)| *name);
                // systemd: `LimitNOFILE`
                let hint = match nearest(name.strip_prefix("Limit").unwrap_or(name), names.clone()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("known limits: {}", names.collect::<Vec<_>>().join(", ")),
                };
                self.error(key.span(), format!("unknown limit `{name}`"), hint);
                return None;
            };
            let (soft, hard) = self.limit(value)?;
            self.compare_hard_limit(value, name, resource, hard);
            Some(Limit { name, resource, soft, hard })
        });
        limits.collect()
    }

    /// The soft and the hard limit; an inner `None` means unlimited.
    fn limit(&mut self, value: &Value<'_>) -> Option<(Option<u64>, Option<u64>)> {
        const SCHEMA: Schema = Schema { keys: &["soft", "hard"], later: &[], foreign: "" };
        let Some(table) = value.get_ref().as_table() else {
            let both = self.amount(value)?;
            return Some((both, both));
        };
        self.check_keys(table, "a limit", &SCHEMA);
        let (Some(soft_value), Some(hard)) = (table.get("soft"), table.get("hard")) else {
            self.error(value.span(), "a limit needs both `soft` and `hard`", "a single value sets both");
            return None;
        };
        let (soft, hard) = (self.amount(soft_value)?, self.amount(hard)?);
        if hard.is_some_and(|hard| soft.is_none_or(|soft| soft > hard)) {
            self.error(soft_value.span(), "`soft` is greater than `hard`", "lower it");
        }
        Some((soft, hard))
    }

    fn amount(&mut self, value: &Value<'_>) -> Option<Option<u64>> {
        let value = &self.resolved(value)?;
        let amount = match value.get_ref().as_str() {
            Some("unlimited") => return Some(None),
            text => {
                let number = value.integer().and_then(|number| u64::try_from(number).ok());
                number.or_else(|| units::parse_size(text?))
            }
        };
        // The largest number is RLIM_INFINITY, unlimited.
        let amount = amount.filter(|amount| *amount != u64::MAX);
        if amount.is_none() {
            let text = value.get_ref().as_str().unwrap_or_default();
            let hint = match text.split_once(':') {
                Some((soft, hard)) => format!("write `{{ soft = {soft}, hard = {hard} }}`"),
                None if units::is_infinite(text) => "write `\"unlimited\"`".to_owned(),
                None => "such as `65536` or `\"64MiB\"`".to_owned(),
            };
            self.unexpected(value, "a number, a size or `\"unlimited\"`", hint);
        }
        amount.map(Some)
    }

    /// Warns if the hard limit would have to be raised. That needs CAP_SYS_RESOURCE, which root in a container rarely has.
    /// setrlimit(2)
    fn compare_hard_limit(&mut self, value: &Value<'_>, name: &str, resource: u32, wanted: Option<u64>) {
        let Some(most) = (self.environment.hard_limit)(resource) else { return };
        if self.environment.purpose == Purpose::Check && wanted.is_none_or(|wanted| wanted > most) {
            let message = format!("the hard limit for `{name}` is {most}, and raising it requires CAP_SYS_RESOURCE");
            self.warning(value.span(), message, "lower it, or raise the container's limit");
        }
    }
}

/// A numeric id, in quotes or not. The largest number is no valid id: setresuid(2) takes −1 as "unchanged".
fn id(value: &Resolved<'_, '_>) -> Option<u32> {
    let digits = value.get_ref().as_str().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let number = match digits {
        Some(digits) => digits.parse().ok(),
        None => value.integer().and_then(|number| u32::try_from(number).ok()),
    };
    number.filter(|id| *id != u32::MAX)
}
