//! The listening sockets of the control server.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::client::Listener;
use crate::control::{Environment, SocketPath};
use crate::model::plan::Control;
use crate::model::{AsWritten, Plan, errno};
use crate::runtime::token::Token;
use crate::sys::needed::{self, RefusedCall};
use crate::sys::socket_file::{BindError, SocketFile};
use crate::sys::{Interest, Poller, peer_stream, process, socket};

const TOKENS: [(Listener, Token); 2] =
    [(Listener::Control, Token::ControlListener), (Listener::Http, Token::HttpListener)];

/// The listening sockets.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    control: Option<(OwnedFd, SocketFile)>,
    http: Option<OwnedFd>,
}

impl Listeners {
    /// Creates the sockets of the plan. If one cannot be created, or nobody could be answered, keepalive logs that.
    pub(super) fn new(plan: &Plan, config: Option<&Path>, poller: &Poller) -> Self {
        let mut listeners = Self::default();
        if plan.control == Control::Off && plan.http.is_none() {
            return listeners;
        }
        let checked = needed::check(&needed::BY_ANSWERS).and_then(|()| needed::check(&needed::BY_CLIENTS));
        if let Err(RefusedCall { name, errno }) = checked {
            let reason = errno::words(errno);
            log::error!("cannot answer clients without the system call {name}: {reason}; nobody can connect");
            return listeners;
        }
        let shown = |path: &AsWritten<PathBuf>| path.shown(|path| path.display().to_string());
        match &plan.control {
            Control::Off => {}
            Control::At(path) => match claim(path) {
                Ok(claimed) => listeners.control = Some(claimed),
                Err(BindError::InUse) => {
                    let path = shown(path);
                    log::error!("another keepalive uses the control socket {path}: set a different `control`");
                }
                Err(reason) => {
                    log::warn!("cannot create the control socket {}: {reason}", shown(path));
                }
            },
            Control::Default => listeners.control = claim_default(config),
        }
        if let Some(address) = &plan.http {
            match socket::listen_tcp(**address) {
                Ok(listener) => listeners.http = Some(listener),
                Err(errno) => log::warn!("cannot listen on the `http` address {address}: {}", errno::words(errno)),
            }
        }
        for (listener, token) in TOKENS {
            let added = listeners.get(listener).map_or(Ok(()), |socket| poller.add(socket.as_fd(), token));
            if let Err(errno) = added {
                log::warn!("cannot accept clients: {}", errno::words(errno));
            }
        }
        listeners
    }

    pub(super) fn get(&self, listener: Listener) -> Option<&OwnedFd> {
        match listener {
            Listener::Control => self.control.as_ref().map(|(listener, _)| listener),
            Listener::Http => self.http.as_ref(),
        }
    }

    /// The absolute path of the control socket, if there is one.
    pub(super) fn control_socket(&self) -> Option<PathBuf> {
        self.control.as_ref().map(|(_, file)| file.path().to_owned())
    }

    /// Pauses accepting connections.
    pub(super) fn pause(&self, paused: Listener, poller: &Poller) {
        self.set_interest(poller, Interest::Nothing, |listener| listener == paused);
    }

    /// Accepts connections again.
    pub(super) fn resume(&self, poller: &Poller) {
        self.set_interest(poller, Interest::Input, |_| true);
    }

    fn set_interest(&self, poller: &Poller, interest: Interest, is_meant: impl Fn(Listener) -> bool) {
        for (listener, token) in TOKENS.into_iter().filter(|(listener, _)| is_meant(*listener)) {
            if let Some(socket) = self.get(listener) {
                poller.modify(socket.as_fd(), token, interest).ok();
            }
        }
    }

    /// Removes the control socket, if the file is still that of this keepalive.
    pub(super) fn close(&mut self) {
        if let Some((listener, file)) = self.control.take() {
            file.remove();
            peer_stream::close_listener(listener);
        }
    }
}

/// Creates the control socket at the first possible default path for the configuration file `config`.
fn claim_default(config: Option<&Path>) -> Option<(OwnedFd, SocketFile)> {
    let mut errors: Vec<(PathBuf, BindError)> = Vec::new();
    let environment = Environment {
        variable: &|name| std::env::var_os(name),
        user: process::effective_user(),
        outer_user: &process::outer_user,
    };
    let directory = std::env::current_dir().unwrap_or_default();
    let [places, own] = environment.server_paths(config.unwrap_or(&directory), process::id());
    let (mut places, mut own) = (places.into_iter(), own.into_iter());
    while let Some(SocketPath { path, .. }) = places.next() {
        match claim(&path) {
            Ok(claimed) => {
                for (other, _) in errors.iter().filter(|(_, error)| matches!(error, BindError::InUse)) {
                    let (own, other) = (path.display(), other.display());
                    log::warn!("another keepalive uses {other}: this one listens on {own} (`--socket {own}`)");
                }
                return Some(claimed);
            }
            Err(error) => {
                if matches!(error, BindError::InUse) && own.len() > 0 {
                    places = std::mem::take(&mut own);
                }
                errors.push((path, error));
            }
        }
    }
    let tried: Vec<String> = errors.iter().map(|(path, why)| format!("at {} ({why})", path.display())).collect();
    log::warn!(
        "cannot create the control socket {}: client commands do not work; \
         mount a tmpfs or an emptyDir at /run (`docker run --tmpfs /run`), or set KEEPALIVE_SOCKET or `control = \"/PATH\"`",
        tried.join(" or ")
    );
    None
}

/// Creates the socket, and replaces a stale one.
fn claim(path: &Path) -> Result<(OwnedFd, SocketFile), BindError> {
    let path = &std::path::absolute(path).map_err(|_| Errno::EINVAL)?;
    socket::listen_unix(|socket| SocketFile::bind(socket, path))
}
