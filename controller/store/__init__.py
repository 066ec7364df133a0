"""The store port's implementations: etcd and memory, behind one contract."""
