"""How many bytes zpaq -m5 takes for a validation split after its training split.

    python benchmarks/zpaq.py RUN [--out benchmarks/results/zpaq.json]

Needs zpaq (Debian's package of that name). Both splits of the run are compressed together and the
training split alone; the difference is what the validation split costs. `moreish eval RUN --code`
writes the same split with the run's model. zpaq chooses other parameters above 1 MiB, so the
difference is only fair if both are on the same side of it.
"""

import argparse
import math
import shutil
import subprocess
import tempfile
from pathlib import Path

from result_files import provenance, write_results

from moreish import api


def compressed_size(content: bytes) -> int:
    """Return the size of an archive of this content."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "text").write_bytes(content)
        subprocess.run(
            ["zpaq", "add", "a.zpaq", "text", "-m5", "-t1"],
            cwd=folder, check=True, capture_output=True,
        )  # fmt: skip
        return (Path(folder) / "a.zpaq").stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if shutil.which("zpaq") is None:
        print("zpaq NOT MEASURED: it is not installed")
        return
    run = api.load(options.run)
    train, val = (
        run.tokenizer.decode(run.split(name).ids_N[:]).encode() for name in ("train", "val")
    )
    size = compressed_size(train + val) - compressed_size(train)
    nats = 8 * math.log(2) * size / len(val)
    found = {"bytes": size, "nats_per_byte": nats, "train_bytes": len(train), "val_bytes": len(val)}
    print(found)
    if options.out is not None:
        write_results(options.out, {**found, **provenance()})


if __name__ == "__main__":
    main()
