//! Clients as the limits count them, and the keys of attempts.

use std::net::IpAddr;

/// The account of an attempt, as the limits name it: the key of an attempt of
/// `Limit::SignInAccount`.
///
/// `account` is the DID of the account that the identifier names, if there is one. An account has
/// several names (handle, email address, DID), and a separate count for each would multiply the
/// limit. An unknown identifier has a count of its own, without the `@` that people write before
/// handles.
pub(crate) fn name_of(account: Option<&str>, identifier: &str) -> String {
    // Without an account, the typed text counts. It is normalized so that spellings of one name
    // share a count.
    let typed = || identifier.trim().trim_start_matches('@').to_lowercase();
    account.map_or_else(typed, str::to_owned)
}

/// The key of an attempt of `Limit::CreateSession`: an account by [`name_of`], and the client.
pub(crate) fn account_and_address(name: &str, client: IpAddr) -> String {
    format!("{name} {}", ClientNetwork::of(client))
}

/// The key of an attempt of `Limit::SignInAddress`, `Limit::CreateAccount`, `Limit::PasswordReset` or
/// `Limit::UseCode`.
pub(crate) fn address(client: IpAddr) -> String {
    ClientNetwork::of(client).to_string()
}

/// The keys of an attempt of `Limit::SignInSite` and `Limit::SignInCustomer`: the /56 and the /48 of
/// an IPv6 client. Customers get as much, and so many addresses that one limit for each bounds nothing.
pub(crate) fn sites(client: IpAddr) -> Option<[String; 2]> {
    match client.to_canonical() {
        IpAddr::V6(address) => Some([56, 48].map(|bits| {
            let first = u128::from(address) & (u128::MAX << (128 - bits));
            format!("{}/{bits}", IpAddr::V6(first.into()))
        })),
        IpAddr::V4(_) => None,
    }
}

/// The key of an attempt of a client that a host names. It is the host's own: no host can use up
/// the limit of an address that its calls did not come from.
pub(crate) fn address_at_host(host: &str, client: IpAddr) -> String {
    format!("{host} {}", ClientNetwork::of(client))
}

/// The key of all attempts that a host passes on.
pub(crate) fn all_at_host(host: &str) -> String {
    format!("host {host}")
}

/// The key of an attempt of `Limit::RequestMail`: a kind of code, and the DID or email address.
pub(crate) fn code_for(kind: &str, whom: &str) -> String {
    format!("{kind} {}", whom.trim().to_lowercase())
}

/// Returns the first address of the site of a client: an IPv4 address, or the /48 of an IPv6
/// address, the most that one customer usually gets.
pub(super) fn site_of(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & (u128::MAX << 80)).into()),
        address @ IpAddr::V4(_) => address,
    }
}

/// The network of a client, which limits count as one: an IPv4 address, or the /64 of an IPv6
/// address.
///
/// A /64 is the least that an IPv6 customer gets, and the customer may use all its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClientNetwork(IpAddr);

impl ClientNetwork {
    pub(crate) fn of(address: IpAddr) -> Self {
        // An IPv4 client on an IPv6 socket has a mapped address. All mapped addresses are in one
        // /64, so they would share one count.
        match address.to_canonical() {
            IpAddr::V6(address) => Self(IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into())),
            address @ IpAddr::V4(_) => Self(address),
        }
    }

    /// Returns the network that one customer may have at most: the /48 of an IPv6 address. An IPv4
    /// address has none.
    pub(crate) const fn wide(self) -> Option<Self> {
        match self.0 {
            IpAddr::V6(address) => {
                let wide = address.to_bits() & (u128::MAX << 80);
                Some(Self(IpAddr::V6(std::net::Ipv6Addr::from_bits(wide))))
            }
            IpAddr::V4(_) => None,
        }
    }

    /// Returns the first address of the network.
    pub(crate) const fn address(self) -> IpAddr {
        self.0
    }
}

impl std::fmt::Display for ClientNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
