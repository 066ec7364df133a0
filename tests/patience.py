"""How much longer than usual a test waits: more than once on an emulated machine (tests/vm/guest.sh)."""

import os

PATIENCE = float(os.environ.get("SHOAL_TEST_PATIENCE", "1"))
