"""An HTTP gateway that deploys the services behind it with zero downtime."""

import os
import sys

__version__ = "0.1.0"

if os.environ.get("GATEWAY_NO_NATIVE") == "1":
    from gateway.plain import PlainFinder

    sys.meta_path.insert(0, PlainFinder())
