//! Parses the request line of HTTP: method, path and query to a [`Route`].

use std::time::Duration;

use crate::logs::timestamp::Timestamp;
use crate::model::units::parse_duration;
use crate::model::{InstanceId, Plan, ServiceIndex, Signal};
use crate::supervisor::{Request, Target, Verb, View};

/// The default timeout of a request that changes something.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// The maximum of `timeout`.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3_600);
/// The maximum of `instances`, as in the configuration.
const MAX_INSTANCES: u32 = 65_536;

/// A parsed request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// The HTML page.
    Page,
    /// Whether the event loop responds.
    Livez,
    /// Whether the services are ready.
    Readyz(Target),
    Metrics,
    Status,
    /// A service or an instance in detail.
    Description(Target),
    /// The user, directory and environment of an instance.
    Environment(Target),
    Events {
        /// Events after this number.
        after: u64,
        follow: bool,
    },
    Logs {
        /// `web`, `db.0`, `keepalive`; empty: all.
        names: Vec<String>,
        /// The instances among them.
        instances: Vec<InstanceId>,
        /// The number of past lines; `None`: all that are kept.
        lines: Option<usize>,
        /// When the oldest line was written.
        since: Option<Since>,
        follow: bool,
    },
    /// A request for the supervisor, with its timeout.
    Change(Request, Duration),
}

/// A point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Since {
    /// So long ago.
    Age(Duration),
    /// So many milliseconds since 1970.
    Time(u64),
}

impl Since {
    /// Milliseconds since 1970. `now`: the time since 1970.
    pub(super) fn milliseconds(self, now: Duration) -> u64 {
        match self {
            Self::Age(age) => Timestamp::since_epoch(now.saturating_sub(age)).milliseconds(),
            Self::Time(milliseconds) => milliseconds,
        }
    }
}

/// Why a request is invalid.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Invalid {
    /// 400: a parameter is missing or wrong.
    Malformed(String),
    /// 404: there is no such path, service or instance.
    Unknown(String),
    /// 405: the path requires another method.
    Method { allowed: &'static str, reason: String },
}

impl Invalid {
    fn because(reason: impl Into<String>) -> Self {
        Self::Malformed(reason.into())
    }
}

/// Parses a request.
///
/// # Errors
/// See [`Invalid`].
pub(super) fn route(method: &str, target: &str, plan: &Plan, view: View<'_>) -> Result<Route, Invalid> {
    let (path, query) = path_of(target).split_once('?').unwrap_or((path_of(target), ""));
    let query = Query(query);
    let words: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let changes = match words[..] {
        ["v1", "services", _] | ["v1", "services", _, "environment"] => false,
        ["v1", "services", ..] | ["v1", "shutdown" | "reload"] => true,
        _ => false,
    };
    let (expected, allowed) = if changes { ("POST", "POST") } else { ("GET", "GET, HEAD") };
    let route = match words[..] {
        [""] => Route::Page,
        ["livez"] => Route::Livez,
        ["readyz"] => Route::Readyz(query.get("service").map_or(Ok(Target::All), |name| find(&name, plan))?),
        ["metrics"] => Route::Metrics,
        ["v1", "status"] => Route::Status,
        ["v1", "events"] => Route::Events { after: query.after()?, follow: query.flag("follow")? },
        ["v1", "logs"] => logs(&query, plan)?,
        ["v1", "shutdown"] => Route::Change(Request::Shutdown, query.timeout()?),
        ["v1", "reload"] => Route::Change(Request::ReloadConfig, query.timeout()?),
        ["v1", "services", name] => Route::Description(find_one(name, plan)?),
        ["v1", "services", name, "environment"] => Route::Environment(find_one(name, plan)?),
        ["v1", "services", name, verb] => Route::Change(change(name, verb, &query, (plan, view))?, query.timeout()?),
        _ => return Err(Invalid::Unknown(format!("no such path: {path}"))),
    };
    if method == expected || (method, expected) == ("HEAD", "GET") {
        Ok(route)
    } else {
        Err(Invalid::Method { allowed, reason: format!("{path} requires {expected}, found {method}") })
    }
}

/// The path of a target, which can be `http://HOST/path` as sent to a proxy.
fn path_of(target: &str) -> &str {
    let Some(rest) = target.strip_prefix("http://") else { return target };
    rest.find('/').and_then(|slash| rest.get(slash..)).unwrap_or("/")
}

/// A number in canonical form: digits only, no leading zeros.
fn whole<T: std::str::FromStr + ToString>(text: &str) -> Option<T> {
    text.parse().ok().filter(|number: &T| number.to_string() == text)
}

fn change(names: &str, verb: &str, query: &Query<'_>, (plan, view): (&Plan, View<'_>)) -> Result<Request, Invalid> {
    let is_several = names.contains(',') && matches!(verb, "start" | "stop" | "restart");
    let mut targets = Vec::new();
    for name in names.split(|letter| is_several && letter == ',') {
        let target = find(name, plan)?;
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    let target = targets.iter().copied().find(|target| targets.len() == 1 || *target == Target::All);
    let verb = match verb {
        "start" => Verb::Start,
        "stop" => Verb::Stop,
        "restart" => Verb::Restart,
        "reload" => Verb::Reload,
        "signal" => {
            let text = query
                .get("signal")
                .ok_or_else(|| Invalid::because("missing parameter `signal`, such as ?signal=SIGUSR1"))?;
            // `+` decodes to a blank, which no signal name contains.
            let text = text.replace(' ', "+");
            let signal = Signal::parse(&text);
            Verb::Signal(signal.ok_or_else(|| Invalid::because(format!("`{text}` is not a signal")))?)
        }
        "scale" => return scale(target.unwrap_or(Target::All), query, view),
        _ => {
            let reason = format!("unknown action `{verb}`: expected start, stop, restart, reload, signal or scale");
            return Err(Invalid::Unknown(reason));
        }
    };
    Ok(match target {
        Some(target) => Request::Control(target, verb),
        None => Request::Several(targets.into(), verb),
    })
}

/// `?instances=4`; `+2` and `-1` change the current number.
fn scale(target: Target, query: &Query<'_>, view: View<'_>) -> Result<Request, Invalid> {
    let Target::Service(service) = target else {
        return Err(Invalid::because("`scale` needs one service: /v1/services/NAME/scale?instances=N"));
    };
    let text = query
        .get("instances")
        .ok_or_else(|| Invalid::because("missing parameter `instances`, such as ?instances=4"))?;
    // `+` decodes to a blank, which no number contains.
    let text = text.replace(' ', "+");
    let now = || view.services().find(|known| known.index == service).map_or(0, |known| known.desired);
    let instances = now();
    if text.strip_prefix('-').and_then(whole).is_some_and(|fewer: u32| fewer > instances) {
        return Err(Invalid::because(format!(
            "`{text}` would leave fewer than 0 instances: there are {instances} now"
        )));
    }
    let wanted = match (text.strip_prefix('+'), text.strip_prefix('-')) {
        (Some(more), _) => whole(more).map(|more| now().saturating_add(more)),
        (_, Some(fewer)) => whole(fewer).and_then(|fewer| now().checked_sub(fewer)),
        (None, None) => whole(&text),
    };
    let wanted = wanted.filter(|wanted| *wanted <= MAX_INSTANCES);
    let reason =
        || format!("invalid number of instances `{text}`: expected 0 to {MAX_INSTANCES}, or a change such as +1 or -1");
    Ok(Request::Scale(service, wanted.ok_or_else(|| Invalid::because(reason()))?))
}

/// `?service=web,db.0&lines=20&since=10m&follow=1`, or `since=2026-11-21T08:00:00Z`. `keepalive` is a name too.
fn logs(query: &Query<'_>, plan: &Plan) -> Result<Route, Invalid> {
    let names = query.get("service").unwrap_or_default();
    let names: Vec<String> = names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let mut instances = Vec::new();
    for name in names.iter().filter(|name| *name != "keepalive") {
        if let Target::Instance(instance) = find(name, plan)? {
            instances.push(instance);
        }
    }
    let names = if names.iter().any(|name| name == "all") { Vec::new() } else { names };
    let lines = match query.get("lines") {
        Some(text) => Some(whole(&text).ok_or_else(|| Invalid::because(format!("invalid number of lines `{text}`")))?),
        None => None,
    };
    let text = query.get("since");
    let since = match text.as_ref().and_then(|text| Timestamp::parse(text)) {
        Some(time) => Some(Since::Time(time.milliseconds())),
        None if text.as_ref().is_some_and(|text| text.as_bytes().get(4) == Some(&b'-')) => {
            let text = text.unwrap_or_default();
            let message = format!("invalid time `{text}`: write the time in UTC, such as 2026-11-30T22:00:00Z");
            return Err(Invalid::because(message));
        }
        None => query.duration("since")?.map(Since::Age),
    };
    Ok(Route::Logs { names, instances, lines, since, follow: query.flag("follow")? })
}

/// `web`, `web.2` or `all`.
fn find(name: &str, plan: &Plan) -> Result<Target, Invalid> {
    if name == "all" {
        return Ok(Target::All);
    }
    let (service, number) = name.split_once('.').map_or((name, None), |(service, number)| (service, Some(number)));
    let index = plan.services.iter().zip(0..).find(|(known, _)| *known.name == *service && !known.is_removed);
    let service = index.map(|(_, index)| ServiceIndex(index)).ok_or_else(|| {
        // `server.js` is a name with a dot rather than an instance of `server`.
        let is_instance = number.is_none_or(|number| whole::<u32>(number).is_some());
        unknown(if is_instance { service } else { name }, plan)
    })?;
    let Some(text) = number else { return Ok(Target::Service(service)) };
    let number = whole(text).ok_or_else(|| {
        Invalid::Unknown(format!("there is no instance `{name}`: instances have numbers, as in web.0"))
    })?;
    Ok(Target::Instance(InstanceId { service, number }))
}

/// `web` or `web.2`.
fn find_one(name: &str, plan: &Plan) -> Result<Target, Invalid> {
    match find(name, plan)? {
        Target::All => Err(Invalid::because("this needs one service or instance, not `all`")),
        target @ (Target::Service(_) | Target::Instance(_)) => Ok(target),
    }
}

fn unknown(name: &str, plan: &Plan) -> Invalid {
    /// The number of services in the message.
    const MAX_NAMED: usize = 10;
    let known = plan.services.iter().filter(|service| !service.is_removed);
    let names: Vec<&str> = known.map(|service| &*service.name).collect();
    let more = if names.len() > MAX_NAMED { ", …" } else { "" };
    let known = names.get(..MAX_NAMED).unwrap_or(&names).join(", ");
    let dots = if name.contains('.') { "; a name has no dot" } else { "" };
    Invalid::Unknown(format!("unknown service `{name}`: the services are {known}{more}{dots}"))
}

/// The part of the target after the `?`.
struct Query<'q>(&'q str);

impl Query<'_> {
    fn get(&self, name: &str) -> Option<String> {
        form_urlencoded::parse(self.0.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    fn flag(&self, name: &str) -> Result<bool, Invalid> {
        match self.get(name).as_deref() {
            None | Some("0" | "false") => Ok(false),
            Some("1" | "true" | "") => Ok(true),
            Some(other) => Err(Invalid::because(format!("`{name}` must be 1 or 0, found `{other}`"))),
        }
    }

    /// `?after=7`. With `latest` no past event is shown.
    fn after(&self) -> Result<u64, Invalid> {
        match self.get("after").as_deref() {
            None => Ok(0),
            Some("latest") => Ok(u64::MAX),
            Some(text) => {
                let reason = || Invalid::because(format!("`after` must be a number or `latest`, found `{text}`"));
                whole(text).ok_or_else(reason)
            }
        }
    }

    fn timeout(&self) -> Result<Duration, Invalid> {
        Ok(self.duration("timeout")?.map_or(DEFAULT_TIMEOUT, |timeout| timeout.min(MAX_TIMEOUT)))
    }

    fn duration(&self, name: &str) -> Result<Option<Duration>, Invalid> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let invalid = || Invalid::because(format!("invalid duration `{text}`: expected one such as 30s"));
        parse_duration(&text).map(Some).ok_or_else(invalid)
    }
}
