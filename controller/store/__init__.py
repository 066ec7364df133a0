"""Where the cluster's documents live: etcd, or memory for tests and the simulation. The port is model/store_port.py.

Rules: nothing here knows what a document means. gRPC's fork handlers must be off before grpc is imported for the first time
(forked children of a process that uses gRPC died in 7 to 16 of 100 runs), hence the line below, which runs before any
module of this package. Import the module you need (`controller.store.etcd`, `controller.store.memory`): memory needs no grpc.
"""

import os

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its errors come to us as exceptions; its own lines on stderr say less
