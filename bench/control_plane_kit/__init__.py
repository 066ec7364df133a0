"""What bench/control_plane.py is made of: an etcd and controllers as processes, light agents in other processes."""
