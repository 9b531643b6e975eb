//! Multiaddresses: their parts, which of them lead out of private networks, and names instead of numbers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libp2p_core::{Multiaddr, multiaddr::Protocol};
use libp2p_identity::PeerId;

/// An address without its peer, and the peer.
pub(crate) fn split(whole: &Multiaddr) -> (Multiaddr, Option<PeerId>) {
    let mut address = whole.clone();
    match address.pop() {
        Some(Protocol::P2p(peer)) => (address, Some(peer)),
        Some(last) => (address.with(last), None),
        None => (address, None),
    }
}

/// Whether it is what this host can dial: a host and a tcp port, nothing else.
pub(crate) fn is_tcp(address: &Multiaddr) -> bool {
    let mut parts = address.iter();
    let host = matches!(
        parts.next(),
        Some(Protocol::Ip4(_) | Protocol::Ip6(_) | Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_))
    );
    host && matches!(parts.next(), Some(Protocol::Tcp(_))) && parts.next().is_none()
}

/// Whether the first number in it belongs to a private network or to this machine; those that peers tell are not dialled on
/// public networks (p2p-sync.md section 4).
pub(crate) fn is_private(address: &Multiaddr) -> bool {
    let first = address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(IpAddr::V6(ip)),
        _ => None,
    });
    match first {
        Some(IpAddr::V4(ip)) => private4(ip),
        Some(IpAddr::V6(ip)) => private6(ip),
        None => false,
    }
}

fn private4(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    ip.is_loopback() || ip.is_private() || ip.is_link_local() || (a == 100 && (64..128).contains(&b))
}

fn private6(ip: Ipv6Addr) -> bool {
    ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()
}

/// Replaces a name at the front by the numbers the system knows for it.
pub(crate) async fn resolve(address: &Multiaddr) -> std::io::Result<Vec<Multiaddr>> {
    let mut parts = address.iter();
    let (name, four, six) = match parts.next() {
        Some(Protocol::Dns(name)) => (name.into_owned(), true, true),
        Some(Protocol::Dns4(name)) => (name.into_owned(), true, false),
        Some(Protocol::Dns6(name)) => (name.into_owned(), false, true),
        _ => return Ok(vec![address.clone()]),
    };
    let found = tokio::net::lookup_host((name, 0)).await?;
    let wanted = found.map(|found| found.ip()).filter(|ip| if ip.is_ipv4() { four } else { six });
    Ok(wanted.map(|ip| std::iter::once(Protocol::from(ip)).chain(address.iter().skip(1)).collect()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn private_ranges_are_those_of_the_specification() {
        let private = [
            "127.0.0.1",
            "127.255.0.1",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "172.16.0.1",
            "172.31.0.1",
            "192.168.1.1",
            "169.254.9.9",
        ];
        for ip in private {
            assert!(is_private(&address(&format!("/ip4/{ip}/tcp/1"))), "{ip}");
        }
        for ip in ["0.0.0.0", "8.8.8.8", "100.63.0.1", "100.128.0.1", "172.15.0.1", "172.32.0.1", "192.167.0.1", "11.0.0.1"] {
            assert!(!is_private(&address(&format!("/ip4/{ip}/tcp/1"))), "{ip}");
        }
        for (ip, private) in [("::1", true), ("fc00::1", true), ("fdff::1", true), ("fe80::1", true), ("2001:db8::1", false)] {
            assert_eq!(is_private(&address(&format!("/ip6/{ip}/tcp/1"))), private, "{ip}");
        }
        assert!(!is_private(&address("/dns4/localhost/tcp/1")));
    }

    #[test]
    fn addresses_come_apart() {
        let peer = PeerId::random();
        let (rest, found) = split(&address(&format!("/ip4/1.2.3.4/tcp/5/p2p/{peer}")));
        assert_eq!((rest.to_string().as_str(), found), ("/ip4/1.2.3.4/tcp/5", Some(peer)));
        assert!(is_tcp(&rest));
        assert_eq!(split(&rest), (rest.clone(), None));
        assert_eq!(split(&Multiaddr::empty()), (Multiaddr::empty(), None));
        for other in ["/ip4/1.2.3.4", "/ip4/1.2.3.4/udp/5", "/ip4/1.2.3.4/tcp/5/ws", "/tcp/5"] {
            assert!(!is_tcp(&address(other)), "{other}");
        }
    }

    #[tokio::test]
    async fn names_become_numbers() {
        let resolved = resolve(&address("/dns4/localhost/tcp/5")).await.unwrap();
        assert_eq!(resolved, [address("/ip4/127.0.0.1/tcp/5")]);
        let plain = address("/ip4/1.2.3.4/tcp/5");
        assert_eq!(resolve(&plain).await.unwrap(), [plain]);
    }
}
