//! The processes that keepalive forks for work that may take any time.

use super::close_queue::CloseQueue;
use super::config_loader::ConfigLoader;
use super::inspector::Inspector;

/// The helper processes of all kinds but the logger, and those that belong to a service.
pub(super) struct Helpers {
    pub(super) config_loader: ConfigLoader,
    pub(super) close_queue: CloseQueue,
    pub(super) inspector: Inspector,
}
