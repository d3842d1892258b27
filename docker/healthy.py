"""Exit with status 0 while the service of this container is ready: its health check."""

import os
import ssl
import sys
from http.client import HTTPConnection, HTTPSConnection

port = int(os.environ["SICHTBAR_PORT"])
connection = HTTPConnection("127.0.0.1", port, timeout=4)
if os.environ.get("SICHTBAR_TLS_CERTIFICATE"):
    # The certificate is for the name that clients know.
    connection = HTTPSConnection("127.0.0.1", port, timeout=4, context=ssl._create_unverified_context())
try:
    connection.request("GET", "/health/ready")
    status = connection.getresponse().status
except OSError as error:
    sys.exit(f"no answer: {error}")
# 401: it answers, and tells more only to those with a key (SICHTBAR_OPEN_METRICS=false).
if status not in (200, 401):
    sys.exit(f"not ready: {status}")
