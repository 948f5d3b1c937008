//! The clients that are connected, and the limits on their number.

use std::cmp::Reverse;

use super::client::{Client, Listener, Stage};
use crate::model::Mono;

/// The number of clients of each listener. When there are so many, one makes room for the next: [`Clients::take_slowest`].
pub(super) const MAX_CLIENTS: usize = 32;
/// The number of clients of each listener that can follow events, so that others can connect.
pub(super) const MAX_FOLLOWERS: usize = 24;
/// The number of additional clients of each listener that receive a refusal.
const MAX_REJECTED: usize = 8;

/// All clients with their numbers. There are few.
#[derive(Debug, Default)]
pub(super) struct Clients {
    clients: Vec<(u64, Client)>,
    last_number: u64,
}

impl Clients {
    /// A number for the next client.
    pub(super) const fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    pub(super) fn insert(&mut self, number: u64, client: Client) {
        self.clients.push((number, client));
    }

    /// Takes a client out. Return it with [`Self::insert`].
    pub(super) fn take(&mut self, number: u64) -> Option<Client> {
        let position = self.clients.iter().position(|(other, _)| *other == number)?;
        Some(self.clients.swap_remove(position).1)
    }

    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Client> + use<> {
        std::mem::take(&mut self.clients).into_iter().map(|(_, client)| client)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut Client)> {
        self.clients.iter_mut().map(|(number, client)| (*number, client))
    }

    /// The earliest deadline.
    pub(super) fn due(&self) -> Option<Mono> {
        self.clients.iter().filter_map(|(_, client)| client.deadline).min()
    }

    /// The numbers of the clients that match.
    pub(super) fn numbers(&self, mut is_meant: impl FnMut(&Client) -> bool) -> Vec<u64> {
        self.clients.iter().filter(|(_, client)| is_meant(client)).map(|(number, _)| *number).collect()
    }

    pub(super) fn has_room(&self, listener: Listener) -> bool {
        self.count(listener, |client| !client.is_rejected) < MAX_CLIENTS
    }

    pub(super) fn has_room_for_rejected(&self, listener: Listener) -> bool {
        self.count(listener, |client| client.is_rejected) < MAX_REJECTED
    }

    pub(super) fn has_room_for_follower(&self, listener: Listener) -> bool {
        self.count(listener, |client| matches!(client.stage, Stage::Following(_))) < MAX_FOLLOWERS
    }

    fn count(&self, listener: Listener, is_meant: impl Fn(&Client) -> bool) -> usize {
        self.clients.iter().filter(|(_, client)| client.listener == listener && is_meant(client)).count()
    }

    /// Takes out a client that can make room for another one: of those of the address with the most clients, the one that has
    /// made no progress for the longest time. One that waits for keepalive is the last choice.
    pub(super) fn take_slowest(&mut self, listener: Listener) -> Option<Client> {
        let candidates =
            self.clients.iter().filter(|(_, client)| client.listener == listener && client.can_make_room());
        let slowest = candidates.max_by_key(|(_, client)| {
            let of_same_peer = self.count(listener, |other| other.peer == client.peer);
            (of_same_peer, !client.is_waiting(), Reverse(client.last_progress))
        });
        let (number, _) = *slowest?;
        self.take(number)
    }
}
