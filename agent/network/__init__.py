"""Shell around netlink and nftables: carries out network plans."""
