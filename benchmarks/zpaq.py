"""How many bytes zpaq -m5 takes for a validation split after its training split.

    python benchmarks/zpaq.py RUN [--out benchmarks/results/zpaq.json]

Needs zpaq (Debian's package of that name). Both splits of the run are compressed together and the
training split alone; the difference is what the validation split costs. `moreish eval RUN --code`
writes the same split with the run's model.

zpaq adapts its tables to the size of its input, in powers of two of a mebibyte, and takes more
bytes for the training split if that has smaller tables than both splits. So both get the tables of
the larger input: `-m5` is spelled out, which is checked to take exactly as many bytes as `-m5`.
"""

import argparse
import math
import shutil
import subprocess
import tempfile
from pathlib import Path

from result_files import provenance, write_results

from moreish import api

METHOD = (
    "x{size},0w2c0,1010,255i1c256ci1,1,1,1,1,1,2a"
    "c0,2,0,255i1c0,3,0,0,255i1c0,4,0,0,0,255i1mm16ts19t0"
)
"""What -m5 stands for with text, and the size class of the input."""


def compressed_size(content: bytes, method: str) -> int:
    """Return the size of an archive of this content."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "text").write_bytes(content)
        subprocess.run(
            ["zpaq", "add", "a.zpaq", "text", "-method", method, "-t1"],
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
    method = METHOD.format(size=max(0, math.ceil(math.log2((len(train + val) + 4095) / (1 << 20)))))
    both = compressed_size(train + val, method)
    if both != compressed_size(train + val, "5"):
        raise SystemExit("zpaq -m5 is not the method that is spelled out here")
    size = both - compressed_size(train, method)
    nats = 8 * math.log(2) * size / len(val)
    found = {"bytes": size, "nats_per_byte": nats, "train_bytes": len(train), "val_bytes": len(val)}
    print(found)
    if options.out is not None:
        write_results(options.out, {**found, **provenance()})


if __name__ == "__main__":
    main()
