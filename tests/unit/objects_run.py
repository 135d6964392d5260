"""What the service asks of an object store, asked of one by its URL: `python -m tests.unit.objects_run URL`.

The bucket is empty before. A process of its own, since the packages of stores read its environment.
"""

from __future__ import annotations

import sys

from overpaint.errors import RequestError
from overpaint.service.store.objects import Objects, blobs_named

BIG = bytes(6 << 20)


def main() -> int:
    url = sys.argv[1]
    objects = Objects(blobs_named(url))
    objects.try_out("try")
    assert objects.get("results/none/0.png") is None and list(objects.names("results")) == []
    names = [f"results/a/{number}-0.png" for number in range(3)]
    for each in names:
        objects.put(each, each.encode())
    objects.put("inputs/big", BIG)
    assert objects.get("inputs/big") == BIG and objects.get(names[1]) == names[1].encode()
    assert sorted(objects.names("results")) == names
    objects.remove([*names[:2], "results/a/gone"])
    assert sorted(objects.names("results")) == names[2:]
    objects.remove(["results/a/gone"])
    assert objects.trouble("gone") == "the store of pictures has no such bucket or picture"
    scheme = url.partition("://")[0]
    try:
        Objects(blobs_named(f"{scheme}://another-bucket/x")).try_out("try")
    except RequestError as error:
        assert "there is no such bucket" in str(error), error
    else:
        raise AssertionError("there is a bucket that nobody has made")
    return 0


if __name__ == "__main__":
    sys.exit(main())
