//! From where somebody calls, as far as it says who: whoever has one address of an IPv6 /64 has all
//! of them, and an IPv4 address is the same one when it comes mapped into IPv6.

use std::net::IpAddr;

mod sources;

pub(super) use sources::{Sources, Tries};

/// What is counted together: an IPv4 address, or the first one of an IPv6 /64.
pub(super) fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => {
            let prefix = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::from(prefix.to_be_bytes())
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// Its name: `192.0.2.1`, or `2001:db8::/64`.
pub(super) fn network_name(source: IpAddr) -> String {
    match network(source) {
        address @ IpAddr::V4(_) => address.to_string(),
        prefix @ IpAddr::V6(_) => format!("{prefix}/64"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_network_has_one_name_and_an_ipv4_address_its_own_however_it_comes() {
        for (source, name) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.2", "192.0.2.2"),
            ("2001:db8::1", "2001:db8::/64"),
            ("2001:db8::ffff:ffff:ffff:ffff", "2001:db8::/64"),
            ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
            ("::1", "::/64"),
        ] {
            assert_eq!(network_name(source.parse().expect("an address")), name, "{source}");
        }
    }
}
