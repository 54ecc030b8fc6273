"""Serve OpenStack Swift with its S3 API on loopback, in one process, until the process is ended.

Run by the interpreter of an environment that has Swift: `swift_server.py FOLDER CLOCK_OFFSET_S`.
Prints the port. The bucket `copies` belongs to the key `test:tester`, secret `testing`; the key
`test:guest`, secret `guesting`, has no right to it; `full` takes 1,000 bytes.
"""

import eventlet

eventlet.monkey_patch()

import signal  # noqa: E402  # after the patch
import sys  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

from eventlet import wsgi  # noqa: E402
from swift.common import storage_policy, utils  # noqa: E402
from swift.common.middleware.s3api import s3request  # noqa: E402
from swift.common.ring import RingBuilder  # noqa: E402
from swift.common.swob import Request  # noqa: E402
from swift.common.utils import get_logger  # noqa: E402
from swift.common.wsgi import SwiftHttpProtocol, loadapp  # noqa: E402

RUN_S_MAX = 900
FOLDER, CLOCK_OFFSET_S = Path(sys.argv[1]).resolve(), float(sys.argv[2])
STORES = ("account", "container", "object")
FILTERS = {
    "catch_errors": "",
    "gatekeeper": "",
    "listing_formats": "",
    "s3api": "location = us-east-1",
    "tempauth": "user_test_tester = testing .admin\nuser_test_guest = guesting",
    "container_quotas": "",
    "slo": "",
    "dlo": "",
}
COMMON = f"""[DEFAULT]
swift_dir = {FOLDER}
devices = {FOLDER}/devices
mount_check = false
fallocate_reserve = 0
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
conn_timeout = 10
node_timeout = 20
"""


def main() -> None:
    """Write the settings and the rings, then serve."""
    signal.alarm(RUN_S_MAX)
    now = s3request.S3Timestamp.now
    s3request.S3Timestamp.now = lambda: now(delta=int(CLOCK_OFFSET_S * 1e5))
    (FOLDER / "devices" / "sda").mkdir(parents=True, exist_ok=True)
    conf = FOLDER / "swift.conf"
    conf.write_text("[storage-policy:0]\nname = default\ndefault = yes\n")
    utils.SWIFT_CONF_FILE, utils.HASH_PATH_SUFFIX = str(conf), b"seline"
    sockets = {name: eventlet.listen(("127.0.0.1", 0)) for name in (*STORES, "proxy")}
    for name in STORES:
        write_ring(name, sockets[name].getsockname()[1])
        pipeline = f"[pipeline:main]\npipeline = {name}-server\n"
        app = f"[app:{name}-server]\nuse = egg:swift#{name}\n"
        (FOLDER / f"{name}.conf").write_text(COMMON + pipeline + app)
    storage_policy.reload_storage_policies()
    write_proxy("proxy", [*FILTERS, "proxy-server"])
    write_proxy("open", ["container_quotas", "proxy-server"])
    for name, socket in sockets.items():
        app = loadapp(str(FOLDER / f"{name}.conf"))
        eventlet.spawn(
            wsgi.server, socket, app, get_logger({}), protocol=SwiftHttpProtocol, log_output=False
        )
    make_containers()
    print(sockets["proxy"].getsockname()[1], flush=True)
    while True:
        time.sleep(60)


def write_ring(name: str, port: int) -> None:
    """Write a ring with one device on this machine."""
    builder = RingBuilder(1, 1, 0)
    device = {"id": 0, "region": 1, "zone": 1, "weight": 1, "ip": "127.0.0.1", "device": "sda"}
    builder.add_dev({**device, "port": port})
    builder.rebalance()
    builder.get_ring().save(str(FOLDER / f"{name}.ring.gz"))


def write_proxy(name: str, pipeline: list[str]) -> None:
    """Write the settings of a proxy server with some of the filters."""
    filters = "".join(
        f"[filter:{filter_}]\nuse = egg:swift#{filter_}\n{options}\n"
        for filter_, options in FILTERS.items()
    )
    text = f"[pipeline:main]\npipeline = {' '.join(pipeline)}\n"
    (FOLDER / f"{name}.conf").write_text(COMMON + text + filters)


def make_containers() -> None:
    """Make the two buckets, by a proxy without access control."""
    app = loadapp(str(FOLDER / "open.conf"))
    for name, headers in (("copies", {}), ("full", {"X-Container-Meta-Quota-Bytes": "1000"})):
        request = Request.blank(f"/v1/AUTH_test/{name}", {"REQUEST_METHOD": "PUT"}, headers)
        response = request.get_response(app)
        assert response.status_int in (201, 202), response.status


main()
