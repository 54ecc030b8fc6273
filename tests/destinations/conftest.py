"""Leave out the tests of a kind whose server is not installed; the locks have all of them."""

from importlib.util import find_spec

NEEDS = {"test_webdav.py": ("wsgidav", "cheroot"), "test_sftp.py": ("asyncssh",)}
collect_ignore = [file for file, libraries in NEEDS.items() if not all(map(find_spec, libraries))]
